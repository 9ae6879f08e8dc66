import type { InspectOptions } from 'node:util'
import { SHOWN, shown } from './base/shown'
import { addressOf } from './base/cidr'
import { CnmError } from './base/errors'
import { parse } from './base/parse'
import { atomically } from './base/undo'
import { refusePacing } from './core/pacing'
import type { Context } from './core/context'
import { type EndpointRecord, endpointSpec } from './core/records'
import { wayOutOf } from './core/ways-out'
import type { AddressChange } from './ipam/contract'
import type { Network } from './network'
import { JoinOptions, type JoinInput, weight } from './options'
import type { PortBinding, PublishedPort } from './ports/contract'
import { portBinding, refuseTwins } from './ports/spec'
import type { Sandbox } from './sandbox'
import { z } from 'zod'

export interface EndpointInspect {
  id: string
  name: string
  created: string
  network: { id: string; name: string; driver: string }
  mac: string
  ipv4?: string
  ipv6?: string
  aliases: string[]
  labels: Record<string, string>
  /** What was asked. */
  bindings: PortBinding[]
  /** What is published now. */
  ports: PublishedPort[]
  sandbox?: {
    id: string
    containerId: string
    interfaceName: string
    priority: number
    gateway: { ipv4: boolean; ipv6: boolean }
  }
}

/** A place on a network: a name, addresses, published ports; joined to at most one sandbox. Made by `network.createEndpoint`. */
export class Endpoint {
  readonly network: Network
  readonly #context: Context
  readonly #record: EndpointRecord
  readonly #hooks: EndpointHooks
  #gone = false

  /** @internal */
  constructor(context: Context, network: Network, record: EndpointRecord, hooks: EndpointHooks) {
    this.#context = context
    this.network = network
    this.#record = record
    this.#hooks = hooks
  }

  get id(): string {
    return this.#record.id
  }
  get name(): string {
    return this.#record.name
  }
  get mac(): string {
    return this.#record.mac
  }
  /** ADDRESS/LENGTH */
  get ipv4(): string | undefined {
    return this.#record.addresses[4]?.address
  }
  /** ADDRESS/LENGTH */
  get ipv6(): string | undefined {
    return this.#record.addresses[6]?.address
  }
  get labels(): Readonly<Record<string, string>> {
    return this.#record.config.labels
  }
  /** Where it is joined. */
  get sandbox(): Sandbox | undefined {
    const { join } = this.#record
    return join && this.#hooks.sandbox(join.sandboxId)
  }
  /** The service whose task it is, and its share of that one's new flows. */
  get task(): Readonly<{ serviceId: string; weight: number }> | undefined {
    return this.#record.task
  }
  /** False from `setHealth(false)` until it is said to be healthy, or leaves. */
  get healthy(): boolean {
    return !this.#record.unhealthy
  }
  get interfaceName(): string | undefined {
    return this.#record.join?.interfaceName
  }
  /** What is published at present: nothing before the join, nor while another endpoint is the sandbox's gateway. */
  get ports(): readonly PublishedPort[] {
    const { sandbox } = this
    if (!sandbox) return []
    if (!this.network.spanning) return sandbox.publishedBy(this)
    // Its ports are published where the way out is.
    const wayOut = wayOutOf(sandbox)
    const { ports } = this.#record.config
    return (wayOut?.ports ?? []).filter(published =>
      ports.some(
        ({ containerPort, protocol }) =>
          containerPort === published.containerPort && protocol === published.protocol,
      ),
    )
  }

  /** @internal */
  get record(): EndpointRecord {
    return this.#record
  }
  /** @internal */
  get spec() {
    return endpointSpec(this.#record)
  }
  /** @internal */
  get address4(): string | undefined {
    return this.ipv4 && addressOf(this.ipv4)
  }
  /** @internal */
  get address6(): string | undefined {
    return this.ipv6 && addressOf(this.ipv6)
  }

  /**
   * Attaches it to a sandbox: an interface appears there, with addresses, routes and names, and its ports are published.
   * Before the sandbox has a namespace (mode `deferred`) all that is kept for `setKey`.
   * Throws ERR_ENDPOINT_JOINED, ERR_ROUTE_CONFLICT, ERR_LINK_EXISTS, ERR_PORT_IN_USE and what the kernel refuses.
   */
  async join(sandbox: Sandbox, input?: JoinInput): Promise<void> {
    const options = parse(JoinOptions, input)
    if (typeof sandbox?.attach !== 'function')
      throw new CnmError('ERR_INVALID_OPTION', 'sandbox: must be one that createSandbox made')
    await this.#exclusively(async () => {
      this.#mustLive()
      const { join } = this.#record
      if (join)
        throw new CnmError(
          'ERR_ENDPOINT_JOINED',
          `endpoint ${this.name} is already in sandbox ${join.sandboxId.slice(0, 12)}: another container is attached to the same network endpoint`,
          { endpoint: this.id, sandbox: join.sandboxId },
        )
      const { spanning, waysOut, services } = this.#context
      const spans = this.network.spanning !== undefined
      await atomically(async undo => {
        if (spans) await spanning?.enter(this, sandbox, undo)
        undo.push('services as before', () => services?.left(this))
        await sandbox.attach(this, options, undo)
        if (spans) await waysOut?.follow(sandbox, undo)
      })
      services?.joined(this)
      this.#context.events.emit({
        type: 'endpoint.join',
        network: this.#networkRef(),
        endpoint: { id: this.id, name: this.name },
        sandbox: { id: sandbox.id, containerId: sandbox.containerId },
      })
    }, sandbox.id)
  }

  /**
   * Detaches it. Resolves when its interface name, addresses and ports are free for others.
   * `force`: not being joined is fine. Throws ERR_ENDPOINT_NOT_JOINED.
   */
  async leave({ force = false }: { force?: boolean } = {}): Promise<void> {
    await this.#exclusively(async () => {
      this.#context.mustBeOpen()
      const { sandbox } = this
      if (!sandbox) {
        if (force) return
        throw new CnmError('ERR_ENDPOINT_NOT_JOINED', `endpoint ${this.name} is in no sandbox`, {
          endpoint: this.id,
        })
      }
      await this.leaveLocked(sandbox)
    })
  }

  /** @internal The caller holds the locks of both. */
  async leaveLocked(sandbox: Sandbox): Promise<void> {
    await atomically(async undo => {
      this.#context.services?.retire(this, undo)
      await sandbox.detach(this)
    })
    await this.#afterLeave(sandbox)
    this.#context.events.emit({
      type: 'endpoint.leave',
      network: this.#networkRef(),
      endpoint: { id: this.id, name: this.name },
      sandbox: { id: sandbox.id, containerId: sandbox.containerId },
    })
  }

  /** What goes with the last of a network, or of a sandbox. It has left: failures are told and stop nothing. */
  async #afterLeave(sandbox?: Sandbox): Promise<void> {
    this.#record.unhealthy = undefined
    this.#context.services?.left(this)
    if (!this.network.spanning) return
    const { spanning, waysOut, log } = this.#context
    try {
      await spanning?.left(this)
      if (sandbox) await waysOut?.follow(sandbox, { push() {} })
    } catch (error) {
      log.warn(`${this.name} left, but not all of it could be cleared`, { error })
    }
  }

  /**
   * Replaces the published ports, in one transaction: ports that are in both lists keep their connections.
   * Throws ERR_PORT_IN_USE, ERR_INVALID_PORT; then everything is as before.
   */
  async updatePorts(bindings: z.input<typeof portBinding>[]): Promise<readonly PublishedPort[]> {
    const wanted = parse(z.array(portBinding), bindings, 'ports')
    refuseTwins(wanted)
    if (wanted.length) this.network.mustPublish(this.name)
    await this.#exclusively(() =>
      atomically(async undo => {
        this.#mustLive()
        const before = this.#record.config.ports
        undo.push('names as before', () => this.sandbox?.renewNames(this))
        undo.push('old ports', () => {
          this.#record.config.ports = before
        })
        this.#record.config.ports = wanted
        const { sandbox } = this
        if (sandbox) await sandbox.republish(this, undo)
        sandbox?.renewNames(this)
        undo.push('old record', () => this.save())
        await this.save()
        if (sandbox && this.network.spanning) await this.#context.waysOut?.follow(sandbox, undo)
      }),
    )
    this.tellUpdate()
    return this.ports
  }

  /** @internal {@link updatePorts} of an endpoint whose sandbox's lock the caller holds. */
  async publishLocked(ports: EndpointRecord['config']['ports']): Promise<void> {
    await atomically(async undo => {
      const before = this.#record.config.ports
      undo.push('names as before', () => this.sandbox?.renewNames(this))
      undo.push('old ports', () => {
        this.#record.config.ports = before
      })
      this.#record.config.ports = ports
      if (this.sandbox) await this.sandbox.republish(this, undo)
      this.sandbox?.renewNames(this)
      await this.save()
    })
  }

  /**
   * Takes the endpoint out of (or back into) the answers to its names and aliases, and the balancing of its service: at once.
   * Resolves when a restart will remember it.
   */
  async setHealth(input: boolean): Promise<void> {
    const healthy = parse(z.boolean(), input, 'healthy')
    this.#mustLive()
    if (healthy === this.healthy) return
    await atomically(async undo => {
      undo.push('health as before', () => this.#showHealth(!healthy))
      this.#showHealth(healthy)
      await this.#exclusively(async () => {
        if (!this.#gone) await this.save()
      })
    })
  }

  #showHealth(healthy: boolean): void {
    this.#record.unhealthy = healthy ? undefined : true
    if (this.sandbox) this.#context.names.setHealth(this.id, healthy)
    this.#context.services?.changed(this)
  }

  /**
   * Sets its share of the new flows of its service, 0 to 1000. With 0 it is drained: flows that there are live on, new ones
   * go to other tasks. Throws ERR_INVALID_OPTION for an endpoint of no service.
   */
  async setWeight(value: number): Promise<void> {
    const wanted = parse(weight(), value, 'weight')
    await this.#exclusively(() =>
      atomically(async undo => {
        this.#mustLive()
        const { task } = this.#record
        if (!task)
          throw new CnmError('ERR_INVALID_OPTION', `endpoint ${this.name} is no task of a service`, {
            endpoint: this.id,
          })
        undo.push('old weight', () => {
          this.#record.task = task
        })
        this.#record.task = { ...task, weight: wanted }
        await this.save()
        this.#context.services?.changed(this)
      }),
    )
    this.tellUpdate()
  }

  /**
   * Limits what the container receives (`ingress`) and sends (`egress`); bits per second, null for no limit. Takes effect at
   * once. What an ipvlan of mode l3s receives cannot be limited: ERR_UNSUPPORTED.
   */
  async setBandwidth(limits: { ingress?: number | null; egress?: number | null }): Promise<void> {
    const bandwidth = parse(BANDWIDTH, limits, 'bandwidth')
    await this.#exclusively(() =>
      atomically(async undo => {
        this.#mustLive()
        const before = this.#record.config.bandwidth
        const after = { ...before, ...bandwidth }
        refusePacing(this, after)
        undo.push('old limits', async () => {
          this.#record.config.bandwidth = before
          await this.save()
        })
        this.#record.config.bandwidth = after
        await this.save()
        undo.push('old rates', () => {
          // Said in full: an absent limit is one that is left alone.
          const { ingress = null, egress = null } = before
          return this.sandbox?.shape(this, { ingress, egress })
        })
        await this.sandbox?.shape(this, after)
      }),
    )
    this.tellUpdate()
  }

  /** @internal The IPAM driver tells of an address that is lent. Routes and MTU that differ now are drift: `repair()` sets them. */
  async addressChanged({ what, address, settings, state, reason = '' }: AddressChange): Promise<void> {
    await this.#exclusively(async () => {
      const held = Object.values(this.#record.addresses).find(each => each.address === address)
      if (this.#gone || this.#context.closing || !held) return
      const before = JSON.stringify(held.settings)
      Object.assign(held, { settings, state })
      await this.save()
      if (before !== JSON.stringify(settings)) {
        await this.sandbox?.refreshResolver()
        this.tellUpdate()
      }
    })
    if (what === 'renewed' && !reason) return
    this.#context.events.emit({
      type: what === 'lost' ? 'address.lost' : 'address.regained',
      network: this.#networkRef(),
      endpoint: { id: this.id, name: this.name },
      address,
      reason,
    })
  }

  /** @internal */
  save(): Promise<void> {
    return this.#context.store.write({
      put: [{ kind: 'endpoint', id: this.id, version: 1, value: this.#record }],
    })
  }

  toJSON(): EndpointInspect {
    return this.inspect()
  }

  [SHOWN](_depth: number, options: InspectOptions): string {
    const { name, network, ipv4, ipv6, sandbox, interfaceName } = this
    return shown(
      'Endpoint',
      {
        name,
        id: this.id.slice(0, 12),
        network: network.name,
        ipv4,
        ipv6,
        sandbox: sandbox?.containerId,
        interfaceName,
        deleted: this.#gone || undefined,
      },
      options,
    )
  }

  inspect(): EndpointInspect {
    const { config, join, created } = this.#record
    const { sandbox } = this
    return {
      id: this.id,
      name: this.name,
      created,
      network: this.#networkRef(),
      mac: this.mac,
      ipv4: this.ipv4,
      ipv6: this.ipv6,
      aliases: config.aliases,
      labels: config.labels,
      bindings: config.ports,
      ports: [...this.ports],
      sandbox: sandbox &&
        join && {
          id: sandbox.id,
          containerId: sandbox.containerId,
          interfaceName: join.interfaceName,
          priority: join.options.priority,
          gateway: { ipv4: sandbox.gateway.ipv4 === this, ipv6: sandbox.gateway.ipv6 === this },
        },
    }
  }

  /** Gives name and addresses back. Throws ERR_ENDPOINT_IN_USE while joined, unless `force`. */
  async delete({ force = false }: { force?: boolean } = {}): Promise<void> {
    await this.#exclusively(async () => {
      if (this.#gone) return
      this.#context.mustBeOpen()
      const { sandbox } = this
      if (sandbox) {
        if (!force)
          throw new CnmError(
            'ERR_ENDPOINT_IN_USE',
            `endpoint with name ${this.name} id ${this.id.slice(0, 12)} has active containers`,
            {
              endpoint: this.id,
              sandbox: sandbox.id,
            },
          )
        await this.leaveLocked(sandbox)
      }
      await this.removeLocked()
    })
  }

  /** @internal The caller holds the lock; it is in no sandbox. */
  async removeLocked(): Promise<void> {
    const { store, ipam, events, log } = this.#context
    const driver = this.network.implementation
    // The driver first: if it refuses, nothing has happened. Other failures of a driver do not keep a container's name hostage.
    try {
      await driver.deleteEndpoint?.(this.network.forDriver, this.spec)
    } catch (error) {
      if ((error as CnmError).kind === 'denied') throw error
      log.warn(`driver ${driver.name} failed to delete endpoint ${this.name}`, { error })
    }
    await store.write({ remove: [{ kind: 'endpoint', id: this.id }] })
    const allocator = await ipam.get(this.network.record.config.ipam.driver)
    for (const held of Object.values(this.#record.addresses))
      if (held.poolId)
        await allocator
          .releaseAddress(held.poolId, held.address, this.id)
          .catch((error: unknown) => log.warn(`cannot release ${held.address}`, { error }))
    this.#gone = true
    this.#hooks.forget()
    await this.#afterLeave()
    events.emit({
      type: 'endpoint.delete',
      network: this.#networkRef(),
      endpoint: { id: this.id, name: this.name },
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#gone) await this.delete({ force: true })
  }

  /**
   * Runs with the lock of the endpoint, and of the sandbox that it is in by then (or is to join). In this order, which is
   * also the sorted one, so that what was asked first of an endpoint is done first.
   */
  #exclusively<T>(body: () => Promise<T>, joining?: string): Promise<T> {
    const { locks } = this.#context
    return locks.run(`endpoint ${this.id}`, () =>
      locks.runAll(
        [this.#record.join?.sandboxId, joining].flatMap(id => (id ? [`sandbox ${id}`] : [])),
        body,
      ),
    )
  }

  /** @internal */
  tellUpdate(): void {
    this.#context.events.emit({
      type: 'endpoint.update',
      network: this.#networkRef(),
      endpoint: { id: this.id, name: this.name },
    })
  }

  #networkRef() {
    return { id: this.network.id, name: this.network.name, driver: this.network.driver }
  }

  #mustLive(): void {
    this.#context.mustBeOpen()
    if (this.#gone) throw new CnmError('ERR_GONE', `endpoint ${this.name} was deleted`, { endpoint: this.id })
  }
}

/** What an endpoint asks of its network. */
export interface EndpointHooks {
  forget(): void
  sandbox(id: string): Sandbox | undefined
}

const limit = () => z.number().int().min(1000).nullable().optional()
const BANDWIDTH = z.strictObject({ ingress: limit(), egress: limit() })
