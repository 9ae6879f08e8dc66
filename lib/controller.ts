import type { InspectOptions } from 'node:util'
import { SHOWN, shown } from './base/shown'
import { CnmError } from './base/errors'
import { ip, parse } from './base/parse'
import { assemble, type Assembled, checkDriver, checkIpamDriver } from './assembly'
import { bootId } from './core/boot'
import { type Context } from './core/context'
import type { Difference } from './core/difference'
import type { CnmEvent, CnmEventOf, CnmEventType } from './core/events'
import { NetworkFilters, PruneFilters } from './core/filters'
import { check } from './core/check'
import { repair, sweepStrays } from './core/repair'
import { DriftWatch } from './core/drift/watch'
import { Ingress } from './core/ingress'
import { followLent } from './core/lent'
import { createPredefined } from './core/predefined'
import type { NetworkRecord, SandboxRecord } from './core/records'
import { restore } from './core/restore'
import { Services } from './core/services'
import { Spanning } from './core/spanning'
import { INGRESS_LABEL, WaysOut } from './core/ways-out'
import type { Cluster } from './cluster/cluster'
import type { HostListener } from './dns/contract'
import type { Driver } from './driver/contract'
import type { IpamDriver } from './ipam/contract'
import { type ClusterView, clusterView } from './controller/cluster-view'
import { Networks } from './controller/networks'
import { removeAll, sharersFirst } from './controller/remove-all'
import { Sandboxes } from './controller/sandboxes'
import type { Network } from './network'
import {
  ControllerOptions,
  type ControllerInput,
  type NetworkInput,
  type SandboxInput,
  type ServiceInput,
  ServiceOptions,
} from './options'
import type { Sandbox } from './sandbox'
import { Service } from './service'
import { z } from 'zod'

/** The root: networks, sandboxes and the parts they are made with, on one host. */
export class Controller {
  readonly #context: Context
  readonly #close: () => Promise<void>
  readonly #networks: Networks
  readonly #sandboxes: Sandboxes
  readonly #drift: DriftWatch
  readonly #listeners = new Set<HostListener>()
  #closing: Promise<void> | undefined

  private constructor(assembled: Assembled) {
    if (assembled === undefined)
      throw new CnmError('ERR_INVALID_OPTION', 'new Controller() makes none: await Controller.open(options)')
    const { context, close } = assembled
    this.#context = context
    this.#close = close
    this.#networks = new Networks(context, id => this.#sandboxes.withId(id))
    this.#sandboxes = new Sandboxes(context, this.#networks)
    this.#drift = new DriftWatch(context, this.#world)
  }

  /**
   * Opens the parts, brings back what the store holds, and brings the kernel to it. Throws ERR_PRIVILEGE,
   * ERR_STORE_LOCKED, ERR_FIREWALL_UNAVAILABLE, ERR_INVALID_OPTION; then nothing has changed.
   */
  static async open(input?: ControllerInput): Promise<Controller> {
    const settings = parse(ControllerOptions, input)
    settings.drivers.forEach(checkDriver)
    const assembled = await assemble(settings)
    const controller = new Controller(assembled)
    try {
      await controller.#start(assembled)
    } catch (error) {
      await controller.close()
      throw error
    }
    // The firewall looked around when nobody could listen yet; whoever listens as soon as the controller is theirs, hears of it.
    setImmediate(() => controller.#tellForeign())
    return controller
  }

  #tellForeign(): void {
    const { closing, events, firewall } = this.#context
    if (!closing && firewall.foreign.length)
      events.emit({ type: 'firewall.problem', problems: [...firewall.foreign] })
  }

  async #start({ records, damaged }: Assembled): Promise<void> {
    const { store, firewall, events, settings, log } = this.#context
    firewall.onProblem((problems, repaired) =>
      events.emit({ type: repaired ? 'firewall.repaired' : 'firewall.problem', problems }),
    )
    for (const { kind, id, reason } of damaged)
      log.error(`${kind} ${id} in the store is damaged and was set aside: ${reason}`)
    await store.write({
      put: [
        {
          kind: 'meta',
          id: 'controller',
          version: 1,
          value: { name: this.name, firewall: firewall.backend, bootId: bootId() },
        },
      ],
    })
    const { cluster, keys } = this.#context
    this.#context.waysOut = new WaysOut({
      hasIpv6: this.#context.hasIpv6,
      findNetwork: name => this.#networks.named(name),
      makeNetwork: input => this.#networks.make(input, false),
    })
    if (cluster && keys)
      this.#context.spanning = new Spanning(this.#context, cluster, keys, {
        ...this.#world,
        networkById: id => this.#networks.withId(id),
      })
    this.#context.services = new Services(this.#context, {
      ...this.#world,
      networkById: id => this.#networks.withId(id),
    })
    for (const driver of this.#context.ipam.values()) followLent(this.#context, this.#world, driver)
    this.#context.ingress = new Ingress(this.#context, {
      sandboxes: () => this.sandboxes(),
      networkById: id => this.#networks.withId(id),
      makeSandbox: input => this.createSandbox(input),
    })
    events.on('cluster.connected', () => this.#context.ingress?.followLater())
    await restore(this.#context, records, this.#world)
    if (cluster) await this.#enterCluster(cluster)
    this.#context.ingress.followLater()
    await this.#drift.start()
    // Last, since nothing takes them back.
    if (settings.predefined)
      await createPredefined(this.#networks, settings.predefined === true ? {} : settings.predefined)
  }

  /** What is back from the store is had without asking; from here on the cluster is asked. */
  async #enterCluster(cluster: Cluster): Promise<void> {
    this.#context.spanning?.restored()
    this.#context.joinCluster?.()
    await cluster.start()
    await this.#context.spanning?.idle()
  }

  /** Names this controller: its firewall table, its run directory, the mark on its links. */
  get name(): string {
    return this.#context.name
  }
  /** Where namespaces and files of sandboxes are. */
  get runDir(): string {
    return this.#context.runDir
  }
  get firewallBackend(): 'nftables' | 'iptables' | 'none' {
    return this.#context.firewall.backend
  }

  /** This host among the others; undefined without the option `cluster`. */
  get cluster(): ClusterView | undefined {
    return clusterView(this.#context)
  }

  /* ------------------------------------------------------------------ networks */

  /**
   * Throws ERR_NETWORK_EXISTS, ERR_POOL_OVERLAP, ERR_HOST_ROUTE_CONFLICT, ERR_LINK_CONFLICT, ERR_DRIVER_NOT_FOUND,
   * ERR_INVALID_OPTION; then nothing has changed.
   */
  async createNetwork(input: NetworkInput): Promise<Network> {
    return this.#networks.make(input, false)
  }

  /** By full id, then name, then unique prefix of the id. Throws ERR_NETWORK_NOT_FOUND, ERR_AMBIGUOUS. */
  network(idOrNameOrPrefix: string): Network {
    return this.#networks.get(idOrNameOrPrefix)
  }

  networks(filters?: z.input<typeof NetworkFilters>): Network[] {
    return this.#networks.all(filters)
  }

  /** Deletes the networks that nobody uses. Resolves to their names. */
  async pruneNetworks(filters?: z.input<typeof PruneFilters>): Promise<string[]> {
    return this.#networks.prune(filters)
  }

  /* ------------------------------------------------------------------ services */

  /**
   * A name on a network behind which several endpoints stand. Throws ERR_SERVICE_EXISTS, ERR_PORT_IN_USE,
   * ERR_NETWORK_NOT_FOUND, ERR_ADDRESS_IN_USE, ERR_POOL_EXHAUSTED, ERR_INVALID_OPTION, ERR_CLUSTER_UNAVAILABLE; then nothing
   * has changed.
   */
  async createService(input: ServiceInput): Promise<Service> {
    const options = parse(ServiceOptions, input)
    this.#mustBeOpen()
    const network =
      options.network === undefined ? await this.#networks.ingress() : this.network(options.network)
    const record = await this.#context.locks.run(`network ${network.id}`, async () => {
      this.#mustBeOpen()
      if (this.#networks.withId(network.id) !== network)
        throw new CnmError('ERR_GONE', `network ${network.name} was deleted`, { network: network.id })
      if (network.configOnly)
        throw new CnmError(
          'ERR_CONFIG_ONLY',
          `network ${network.name} only holds configuration; it cannot have services`,
        )
      return this.#services.create(network, options)
    })
    const service = new Service(this.#context, network, record)
    await service.publish(() => this.#services.remove(network, record))
    this.#context.events.emit({
      type: 'service.create',
      network: { id: network.id, name: network.name, driver: network.driver },
      service: { id: record.id, name: record.name },
    })
    return service
  }

  /**
   * By id, name or unique prefix of the id; `network` (name or id): only there. Throws ERR_SERVICE_NOT_FOUND,
   * ERR_AMBIGUOUS.
   */
  service(idOrName: string, network?: string): Service {
    const on = network === undefined ? undefined : this.network(network)
    const record = this.#services.find(idOrName, on)
    return new Service(this.#context, on ?? this.network(record.networkId), record)
  }

  /** Those of all networks that this host has, or of one (name or id). */
  services(network?: string): Service[] {
    const id = network === undefined ? undefined : this.network(network).id
    return this.#services
      .all(id)
      .map(record => new Service(this.#context, this.network(record.networkId), record))
  }

  get #services(): Services {
    this.#mustBeOpen()
    return this.#context.services as Services
  }

  /* ------------------------------------------------------------------ sandboxes */

  /** A network stack for a container. Throws ERR_SANDBOX_EXISTS: one container, one sandbox. */
  async createSandbox(input: SandboxInput): Promise<Sandbox> {
    return this.#sandboxes.create(input)
  }

  /** By id, container id or a unique prefix of either. Throws ERR_SANDBOX_NOT_FOUND, ERR_AMBIGUOUS. */
  sandbox(idOrContainerId: string): Sandbox {
    return this.#sandboxes.get(idOrContainerId)
  }

  sandboxes(): Sandbox[] {
    return this.#sandboxes.all()
  }

  /* ------------------------------------------------------------------ drivers */

  registerDriver(driver: Driver): void {
    checkDriver(driver)
    this.#context.drivers.register(driver)
  }

  registerIpamDriver(driver: IpamDriver): void {
    checkIpamDriver(driver)
    this.#context.ipam.register(driver)
    followLent(this.#context, this.#world, driver)
  }

  /** Names of what is registered. */
  drivers(): { network: string[]; ipam: string[] } {
    return { network: this.#context.drivers.names(), ipam: this.#context.ipam.names() }
  }

  /* ------------------------------------------------------------------ upkeep */

  /** What differs between the desired state and the system; empty when all is well. Changes nothing. */
  async check(): Promise<Difference[]> {
    this.#mustBeOpen()
    return check(this.#context, this.#world)
  }

  /** Puts right what {@link check} finds. Resolves to what was found. */
  async repair(): Promise<Difference[]> {
    this.#mustBeOpen()
    return repair(this.#context, this.#world)
  }

  /** Deletes the sandboxes of containers that are not in the list, and what belongs to nobody. Resolves to their container ids. */
  async gc(input: { containerIds: string[] }): Promise<string[]> {
    this.#mustBeOpen()
    const { containerIds } = parse(z.strictObject({ containerIds: z.array(z.string()) }), input)
    const living = new Set(containerIds)
    const gone: string[] = []
    const doomed = this.sandboxes().filter(
      ({ containerId, labels }) => !living.has(containerId) && labels[INGRESS_LABEL] === undefined,
    )
    for (const sandbox of doomed.sort(sharersFirst)) {
      await sandbox.delete({ force: true })
      gone.push(sandbox.containerId)
    }
    await sweepStrays(this.#context, this.#world)
    return gone
  }

  /**
   * Lets the host itself resolve the names of its networks: a DNS server at `address` (default 127.0.0.1) and `port`
   * (default: one of its choice), for all networks or those whose ids are given. Throws ERR_NAMES.
   */
  async serveNames(input: z.input<typeof SERVE_NAMES> = {}): Promise<HostListener> {
    this.#mustBeOpen()
    const options = parse(SERVE_NAMES, input)
    const listener = await this.#context.openHostListener({
      ...options,
      names: this.#context.names,
      stack: this.#context.host,
      log: this.#context.log,
    })
    this.#listeners.add(listener)
    return listener
  }

  /** Resolves when links that are being deleted in the background are gone. */
  async settle(): Promise<void> {
    await this.#context.reaper.settle()
  }

  /** `type` is one of the event types, or `*` for all. Throws ERR_INVALID_OPTION for another. */
  on<T extends CnmEventType | '*'>(type: T, listener: (event: CnmEventOf<T>) => void): this {
    this.#context.events.on(type, listener as (event: CnmEvent) => void)
    return this
  }

  once<T extends CnmEventType | '*'>(type: T, listener: (event: CnmEventOf<T>) => void): this {
    this.#context.events.once(type, listener as (event: CnmEvent) => void)
    return this
  }

  off<T extends CnmEventType | '*'>(type: T, listener: (event: CnmEventOf<T>) => void): this {
    this.#context.events.off(type, listener as (event: CnmEvent) => void)
    return this
  }

  /** Every event from now on, until the signal aborts or the controller closes: `for await (const event of controller.events(signal))`. */
  events(signal?: AbortSignal): AsyncGenerator<CnmEvent, void, void> {
    return this.#context.events.stream(signal)
  }

  toJSON(): ReturnType<Controller['inspect']> {
    return this.inspect()
  }

  [SHOWN](_depth: number, options: InspectOptions): string {
    const { name, firewall, networks, sandboxes } = this.inspect()
    const closed = this.#context.closing || undefined
    return shown('Controller', { name, firewall, networks, sandboxes, closed }, options)
  }

  inspect(): {
    name: string
    firewall: string
    host?: string
    networks: number
    sandboxes: number
    drivers: string[]
  } {
    return {
      name: this.name,
      firewall: this.firewallBackend,
      host: this.#context.host.path,
      networks: this.networks().length,
      sandboxes: this.sandboxes().length,
      drivers: this.drivers().network,
    }
  }

  /**
   * Waits for what is under way, then lets go of sockets, files and descriptors. Networks and running sandboxes stay as they
   * are; open again to manage them. With `remove` all of them are deleted first, and the firewall's tables go, too: nothing of
   * this controller is left. What could not be deleted is thrown when everything else is done.
   */
  close(input: z.input<typeof CLOSE> = {}): Promise<void> {
    const { remove } = parse(CLOSE, input)
    this.#closing ??= (async () => {
      const failures = remove ? await removeAll(this, this.#context.locks) : []
      this.#context.closing = true
      await this.#context.locks.idle()
      await this.#context.spanning?.close()
      await this.#context.ingress?.idle()
      this.#drift.stop()
      for (const listener of this.#listeners) await listener.close()
      await this.#context.reaper.settle()
      for (const sandbox of this.sandboxes()) await sandbox.release()
      if (remove)
        await this.#context.firewall.stop({ remove }).catch((error: unknown) => failures.push(error))
      await this.#close()
      if (failures.length) throw failures[0]
    })()
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** What restore, check and repair work on. */
  readonly #world = {
    networks: () => this.networks(),
    sandboxes: () => this.sandboxes(),
    sandbox: (id: string) => this.#sandboxes.withId(id),
    siblings: (network: Network) => this.#networks.siblings(network.driver, network),
    addNetwork: (record: NetworkRecord, driver: Driver) => this.#networks.restored(record, driver),
    addSandbox: (record: SandboxRecord, stack: Sandbox['stack']) => this.#sandboxes.restored(record, stack),
  }

  #mustBeOpen(): void {
    this.#context.mustBeOpen()
  }
}

const CLOSE = z.strictObject({ remove: z.boolean().default(false) })

const SERVE_NAMES = z.strictObject({
  address: ip().default('127.0.0.1'),
  port: z.number().int().min(0).max(65535).default(0),
  networks: z.array(z.string()).optional(),
})
