import type { InspectOptions } from 'node:util'
import { SHOWN, shown } from './base/shown'
import { type Family } from './base/cidr'
import { CnmError } from './base/errors'
import { parse, printable } from './base/parse'
import { atomically, type Undo } from './base/undo'
import { releaseNetwork } from './core/addresses'
import { applyLeniently, applyTolerantly, type Context } from './core/context'
import { customRecords } from './core/names'
import { claimAddress } from './core/network/claim'
import { draftEndpoint, driverOptionsOf, portsOnHost } from './core/network/draft'
import { inspectNetwork, type NetworkInspect } from './core/network/inspect'
import { askDriver, freeNetwork, refuseWhileUsed } from './core/network/removal'
import { type EndpointRecord, forDriverOf, type NetworkRecord, type PoolRecord } from './core/records'
import type { Driver, DriverNetwork, Spanning } from './driver/contract'
import { Endpoint } from './endpoint'
import type { PoolStatus } from './ipam/contract'
import { EndpointOptions, type EndpointInput, NetworkUpdate } from './options'
import { exposedPorts, refuseTwins } from './ports/spec'
import type { z } from 'zod'

/** A set of endpoints that can reach one another. Made by `controller.createNetwork`. */
export class Network {
  readonly #context: Context
  readonly #driver: Driver
  readonly #record: NetworkRecord
  readonly #endpoints = new Map<string, Endpoint>()
  readonly #byName = new Map<string, Endpoint>()
  readonly #hooks: NetworkHooks
  #gone = false

  /** @internal */
  constructor(context: Context, driver: Driver, record: NetworkRecord, hooks: NetworkHooks) {
    this.#context = context
    this.#driver = driver
    this.#record = record
    this.#hooks = hooks
  }

  get id(): string {
    return this.#record.id
  }
  get name(): string {
    return this.#record.name
  }
  get driver(): string {
    return this.#record.driver
  }
  get scope(): string {
    return this.#record.scope
  }
  get labels(): Readonly<Record<string, string>> {
    return this.#record.config.labels
  }
  /** Nothing outside the network is reachable from it. */
  get internal(): boolean {
    return this.#record.config.internal || this.#record.state.internal === true
  }
  get attachable(): boolean {
    return this.#record.config.attachable
  }
  get ingress(): boolean {
    return this.#record.config.ingress
  }
  get ipv4(): boolean {
    return this.#record.ipv4
  }
  get ipv6(): boolean {
    return this.#record.ipv6
  }
  get configOnly(): boolean {
    return this.#record.config.configOnly
  }
  /** One of the networks that the controller itself made: bridge, host, none. */
  get predefined(): boolean {
    return this.#record.predefined
  }
  get created(): Date {
    return new Date(this.#record.created)
  }
  /** The interface on the host that stands for it: the bridge. */
  get link(): string | undefined {
    return this.#record.state.link
  }
  /** The links that the host has for it: the bridge or parent, and the one by which the host takes part itself. */
  get hostLinks(): string[] {
    const { link, hostLink } = this.#record.state
    return [link, hostLink?.spec.name].filter(name => name !== undefined)
  }
  /** What was allocated: one entry a subnet. */
  get ipam(): readonly Readonly<PoolRecord>[] {
    return this.#record.pools
  }

  /** @internal */
  get record(): NetworkRecord {
    return this.#record
  }
  /** @internal */
  get implementation(): Driver {
    return this.#driver
  }
  /** @internal Present: all hosts of the cluster have it. */
  get spanning(): Spanning | undefined {
    return this.configOnly || this.#record.alone ? undefined : this.#driver.spanning
  }
  /** @internal */
  get forDriver(): DriverNetwork {
    return forDriverOf(this.#record)
  }

  endpoints(): Endpoint[] {
    return [...this.#endpoints.values()]
  }

  /** @internal The endpoint of this id, if it is here. */
  holds(id: string): Endpoint | undefined {
    return this.#endpoints.get(id)
  }

  /** By id, name or a unique prefix of the id. Throws ERR_ENDPOINT_NOT_FOUND, ERR_AMBIGUOUS. */
  endpoint(idOrName: string): Endpoint {
    const found = this.#endpoints.get(idOrName) ?? this.#byName.get(idOrName)
    if (found) return found
    const matches = idOrName ? this.endpoints().filter(({ id }) => id.startsWith(idOrName)) : []
    if (matches.length > 1)
      throw new CnmError(
        'ERR_AMBIGUOUS',
        `endpoint ${idOrName} is ambiguous (${matches.length} matches found on id prefix)`,
      )
    if (!matches[0])
      throw new CnmError(
        'ERR_ENDPOINT_NOT_FOUND',
        `endpoint ${printable(idOrName)} not found in network ${this.name}`,
        {
          network: this.id,
          endpoint: idOrName,
        },
      )
    return matches[0]
  }

  /** @internal Refuses ports where there is no way in from outside. */
  mustPublish(endpoint: string): void {
    if (!this.internal || this.#driver.capabilities.addresses === false) return
    throw new CnmError(
      'ERR_INVALID_PORT',
      `ports of ${endpoint} cannot be published: network ${this.name} is internal; leave them out, or publish them on another network of the sandbox`,
      { field: 'ports', network: this.id, endpoint },
    )
  }

  /**
   * Reserves a name, addresses and a MAC on this network. Nothing appears in the kernel before `join`.
   * Throws ERR_ENDPOINT_EXISTS, ERR_CONFIG_ONLY, ERR_ADDRESS_IN_USE, ERR_ADDRESS_OUT_OF_RANGE, ERR_POOL_EXHAUSTED,
   * ERR_INVALID_PORT (ports to be published on an internal network, among others).
   */
  async createEndpoint(input: EndpointInput): Promise<Endpoint> {
    const config = parse(EndpointOptions, input)
    const driverOptions = driverOptionsOf(this, config)
    if (config.ports.length || config.publishAll) this.mustPublish(config.name)
    const service = config.service && this.#context.services?.find(config.service.name, this)
    if (service) config.ports.push(...portsOnHost(service))
    exposedPorts(config.exposed) // refuses what is none
    refuseTwins(config.ports)
    return this.#context.locks.run(`network ${this.id}`, () =>
      atomically(async undo => {
        this.#mustLive()
        if (this.configOnly)
          throw new CnmError(
            'ERR_CONFIG_ONLY',
            `network ${this.name} only holds configuration; it cannot have endpoints`,
          )
        if (this.#byName.has(config.name))
          throw new CnmError(
            'ERR_ENDPOINT_EXISTS',
            `endpoint with name ${config.name} already exists in network ${this.name}`,
            {
              network: this.id,
              name: config.name,
            },
          )
        const record = await draftEndpoint(this.#context, this, config, driverOptions, undo)
        if (service && config.service) record.task = { serviceId: service.id, weight: config.service.weight }
        undo.push('forget the record', () =>
          this.#context.store.write({ remove: [{ kind: 'endpoint', id: record.id }] }),
        )
        await this.#context.store.write({
          put: [{ kind: 'endpoint', id: record.id, version: 1, value: record }],
        })
        const endpoint = this.adopt(record)
        this.#context.events.emit({
          type: 'endpoint.create',
          network: this.#ref(),
          endpoint: { id: record.id, name: record.name },
        })
        return endpoint
      }),
    )
  }

  /** @internal Takes in an endpoint that exists (new, or from the store). */
  adopt(record: EndpointRecord): Endpoint {
    const endpoint = new Endpoint(this.#context, this, record, {
      forget: () => {
        this.#endpoints.delete(record.id)
        this.#byName.delete(record.name)
      },
      sandbox: id => this.#hooks.sandbox(id),
    })
    this.#endpoints.set(record.id, endpoint)
    this.#byName.set(record.name, endpoint)
    return endpoint
  }

  /** @internal Sandbox.rename. Throws ERR_ENDPOINT_EXISTS. */
  async renameEndpoint(endpoint: Endpoint, name: string): Promise<void> {
    const wanted = parse(EndpointOptions.shape.name, name, 'name')
    await this.#context.locks.run(`network ${this.id}`, async () => {
      if (wanted === endpoint.name) return
      if (this.#byName.has(wanted))
        throw new CnmError(
          'ERR_ENDPOINT_EXISTS',
          `endpoint with name ${wanted} already exists in network ${this.name}`,
          { network: this.id, name: wanted },
        )
      this.#byName.delete(endpoint.name)
      endpoint.record.name = wanted
      this.#byName.set(wanted, endpoint)
      await endpoint.save()
      if (this.spanning) this.#context.spanning?.changed(endpoint)
    })
  }

  /** @internal An address that is no endpoint's. Throws what allocating one for an endpoint can throw. */
  async claimVirtualIp(
    owner: string,
    family: Family,
    address: string | undefined,
    undo: Undo,
  ): Promise<{ address: string; poolId: string } | undefined> {
    const answer = await claimAddress(
      this.#context,
      this,
      family,
      { address, owner, purpose: 'virtual' },
      undo,
    )
    return answer && { address: answer.address, poolId: answer.poolId }
  }

  /** Changes what can be changed while it is in use. */
  async update(input: z.input<typeof NetworkUpdate>): Promise<void> {
    const { labels, dns } = parse(NetworkUpdate, input)
    await this.#context.locks.run(`network ${this.id}`, async () => {
      this.#mustLive()
      const { config } = this.#record
      const updated = {
        ...config,
        labels: labels ?? config.labels,
        dns: {
          servers: dns?.servers ?? config.dns.servers,
          records: dns?.records ?? config.dns.records,
        },
      }
      if (dns?.records) this.#context.names.setRecords(this.id, customRecords(updated.dns.records))
      try {
        await this.#context.store.write(
          {
            put: [{ kind: 'network', id: this.id, version: 1, value: { ...this.#record, config: updated } }],
          },
          { flush: true },
        )
      } catch (error) {
        this.#context.names.setRecords(this.id, customRecords(config.dns.records))
        throw error
      }
      this.#record.config = updated
      this.#hooks.announce(this)
      this.#context.events.emit({ type: 'network.update', network: this.#ref() })
    })
  }

  /** How full its pools are, per subnet. */
  async status(): Promise<Record<string, PoolStatus>> {
    const ipam = await this.#context.ipam.get(this.#record.config.ipam.driver)
    const status: Record<string, PoolStatus> = {}
    for (const pool of this.#record.pools) {
      const answer = await ipam.status?.(pool.poolId)
      if (answer) status[pool.subnet] = answer
    }
    return status
  }

  toJSON(): NetworkInspect {
    return this.inspect()
  }

  [SHOWN](_depth: number, options: InspectOptions): string {
    const { name, driver, predefined } = this
    const subnets = this.ipam.map(({ subnet }) => subnet)
    return shown(
      'Network',
      {
        name,
        id: this.id.slice(0, 12),
        driver,
        ...(subnets.length && { subnets }),
        endpoints: this.endpoints().length,
        predefined: predefined || undefined,
        deleted: this.#gone || undefined,
      },
      options,
    )
  }

  inspect(): NetworkInspect {
    return inspectNetwork(this)
  }

  /**
   * Removes the network. Throws ERR_NETWORK_IN_USE while it has endpoints (or, configOnly, users), ERR_PREDEFINED,
   * ERR_SINGLE_INSTANCE for host and null.
   */
  async delete(): Promise<void> {
    await this.#context.ingress?.idle() // it may be about to leave
    // With the lock of the driver's networks: one that is made meanwhile must not adopt a bridge that is about to go.
    const keys = [`network ${this.id}`, `networks of ${this.driver}`]
    await this.#context.locks.runAll(keys, async () => {
      if (this.#gone) return
      this.#context.mustBeOpen()
      if (this.predefined)
        throw new CnmError('ERR_PREDEFINED', `${this.name} is a pre-defined network and cannot be removed`, {
          network: this.id,
        })
      if (this.#driver.capabilities.single && !this.configOnly)
        throw new CnmError('ERR_SINGLE_INSTANCE', `network of type ${this.driver} cannot be deleted`, {
          network: this.id,
        })
      await this.remove()
    })
  }

  /** @internal The delete itself; the caller holds the network's lock, or is alone. */
  async remove(): Promise<void> {
    const { store, events, names, firewall, log, cluster } = this.#context
    refuseWhileUsed(this.#context, this, this.#hooks.configUsers(this))
    // First of all: other hosts may have endpoints on it, and none may join any more.
    const shared = this.spanning !== undefined || cluster?.get('network', this.id) !== undefined
    if (shared) {
      await this.#context.drivers.get(this.driver) // without it the network stays: here, and so elsewhere
      await this.#context.spanning?.undefine(this)
    }
    // Asked before the point of no return, since a driver may refuse.
    const plan = this.configOnly ? {} : await askDriver(this.#context, this, this.#hooks.siblings(this))
    const { link } = this.#record.state
    await atomically(async undo => {
      const { deleting } = this.#record
      if (link) this.#context.unborn.add(link)
      undo.push('nobody deletes the bridge', () => void (link && this.#context.unborn.delete(link)))
      undo.push('not deleted after all', () => this.#mark(deleting))
      await this.#mark(true)
      const { firewall: rules } = this.#record.state
      if (rules && firewall.state().addNetworks.some(({ id }) => id === this.id)) {
        undo.push('firewall', () => firewall.apply({ addNetworks: [rules] }))
        await firewall.apply({ removeNetworks: [rules] })
      }
      const { changes, undo: inverse } = plan
      if (inverse?.length) undo.push('host', () => applyTolerantly(this.#context.host, inverse))
      if (changes) await applyLeniently(this.#context.host, changes)
    })
    // From here on it goes forward only: a failure is finished by trying again, now or at the next start.
    await releaseNetwork(this.#context, this.#record).catch((error: unknown) =>
      log.warn(`cannot release all addresses of network ${this.name}`, { error }),
    )
    if (shared && cluster) await freeNetwork(this.#context, this)
    names.removeNetwork(this.id)
    await store.write({ remove: [{ kind: 'network', id: this.id }] }, { flush: true })
    this.#gone = true
    this.#hooks.forget(this)
    if (link) this.#context.unborn.delete(link)
    events.emit({ type: 'network.delete', network: this.#ref() })
  }

  /** @internal Another host deleted it: nothing of it is on this host but the record. */
  async vanish(): Promise<void> {
    const keys = [`network ${this.id}`, `networks of ${this.driver}`]
    await this.#context.locks.runAll(keys, async () => {
      if (this.#gone || this.#endpoints.size) return
      this.#context.names.removeNetwork(this.id)
      await this.#context.store.write({ remove: [{ kind: 'network', id: this.id }] })
      this.#gone = true
      this.#hooks.forget(this)
      this.#context.events.emit({ type: 'network.delete', network: this.#ref() })
      await this.spanning?.dismiss?.(this.forDriver).catch((error: unknown) => {
        this.#context.log.warn(`driver ${this.driver} failed to forget network ${this.name}`, { error })
      })
    })
  }

  /** A delete that a crash interrupts after this is finished at the next start. */
  async #mark(deleting: boolean): Promise<void> {
    await this.#context.store.write({
      put: [{ kind: 'network', id: this.id, version: 1, value: { ...this.#record, deleting } }],
    })
    this.#record.deleting = deleting
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#gone) await this.delete()
  }

  #ref() {
    return { id: this.id, name: this.name, driver: this.driver }
  }

  #mustLive(): void {
    this.#context.mustBeOpen()
    if (this.#gone || this.#record.deleting)
      throw new CnmError('ERR_GONE', `network ${this.name} was deleted`, { network: this.id })
  }
}

/** What a network asks of its controller. */
export interface NetworkHooks {
  forget(network: Network): void
  /** The other networks of the same driver. */
  siblings(network: Network): DriverNetwork[]
  /** Names of networks whose configFrom is this one. */
  configUsers(network: Network): string[]
  /** Tells the zones what the network is called and how it resolves. */
  announce(network: Network): void
  sandbox(id: string): import('./sandbox').Sandbox | undefined
}
