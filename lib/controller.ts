import { join } from 'node:path'
import { CnmError, isCnmError } from './base/errors'
import { newId } from './base/ids'
import { ip, parse, printable } from './base/parse'
import { atomically, type Undo } from './base/undo'
import { assemble, type Assembled, checkDriver } from './assembly'
import { allocatePools, familyOfConfig, wantsFamily } from './core/addresses'
import { bootId } from './core/boot'
import { carryOut, type Context } from './core/context'
import type { Difference } from './core/difference'
import type { CnmEvent, CnmEventOf, CnmEventType } from './core/events'
import { NetworkFilters, PruneFilters, matches, prunable } from './core/filters'
import { check } from './core/check'
import { repair, sweepStrays } from './core/repair'
import { DriftWatch } from './core/drift'
import { Ingress } from './core/ingress'
import { customRecords } from './core/names'
import { followLent, mustBorrow } from './core/lent'
import { createPredefined } from './core/predefined'
import { marked } from './core/mark'
import type { NetworkRecord, SandboxRecord } from './core/records'
import { restore } from './core/restore'
import { Services } from './core/services'
import { Spanning } from './core/spanning'
import { INGRESS_LABEL, WaysOut } from './core/ways-out'
import type { Cluster } from './cluster/cluster'
import type { HostListener } from './dns/contract'
import type { Driver, DriverNetwork, NetworkSpec } from './driver/contract'
import { fromLabels } from './driver/options'
import type { IpamDriver } from './ipam/contract'
import { Network, type NetworkHooks } from './network'
import {
  ControllerOptions,
  type ControllerInput,
  NetworkOptions,
  type NetworkInput,
  SandboxOptions,
  type SandboxInput,
  type ServiceInput,
  ServiceOptions,
} from './options'
import { Sandbox, type SandboxHooks } from './sandbox'
import { Service } from './service'
import { z } from 'zod'

/** The root: networks, sandboxes and the parts they are made with, on one host. */
export class Controller {
  readonly #context: Context
  readonly #close: () => Promise<void>
  readonly #networks = new Map<string, Network>()
  readonly #networksByName = new Map<string, Network>()
  readonly #sandboxes = new Map<string, Sandbox>()
  readonly #sandboxesByContainer = new Map<string, Sandbox>()
  readonly #drift: DriftWatch
  readonly #listeners = new Set<HostListener>()
  #closing: Promise<void> | undefined

  private constructor({ context, close }: Assembled) {
    this.#context = context
    this.#close = close
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
    return controller
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
      findNetwork: name => this.#networksByName.get(name),
      makeNetwork: input => this.makeNetwork(input, false),
    })
    if (cluster && keys)
      this.#context.spanning = new Spanning(this.#context, cluster, keys, {
        ...this.#world,
        networkById: id => this.#networks.get(id),
      })
    this.#context.services = new Services(this.#context, {
      ...this.#world,
      networkById: id => this.#networks.get(id),
    })
    for (const driver of this.#context.ipam.values()) followLent(this.#context, this.#world, driver)
    this.#context.ingress = new Ingress(this.#context, {
      sandboxes: () => this.sandboxes(),
      networkById: id => this.#networks.get(id),
      makeSandbox: input => this.createSandbox(input),
    })
    events.on('cluster.connected', () => this.#context.ingress?.followLater())
    await restore(this.#context, records, this.#world)
    if (cluster) await this.#enterCluster(cluster)
    this.#context.ingress.followLater()
    await this.#drift.start()
    // Last, since nothing takes them back.
    if (settings.predefined)
      await createPredefined(this, settings.predefined === true ? {} : settings.predefined)
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
    const { cluster } = this.#context
    return (
      cluster && {
        host: cluster.host,
        store: cluster.store,
        connected: cluster.connected,
        hosts: cluster.all('host').map(({ name, address }) => ({ name, address })),
        forgetHost: name => this.#forgetHost(cluster, name),
        rotateKeys: () => (this.#context.spanning as Spanning).rotateKeys(),
      }
    )
  }

  async #forgetHost(cluster: Cluster, name: string): Promise<number> {
    if (cluster.get('host', name))
      throw new CnmError('ERR_CLUSTER_HOST', `host ${name} is alive; it releases what it has itself`, {
        host: name,
      })
    return cluster.claims.forgetHost(name)
  }

  /* ------------------------------------------------------------------ networks */

  /**
   * Throws ERR_NETWORK_EXISTS, ERR_POOL_OVERLAP, ERR_HOST_ROUTE_CONFLICT, ERR_LINK_CONFLICT, ERR_DRIVER_NOT_FOUND,
   * ERR_INVALID_OPTION; then nothing has changed.
   */
  async createNetwork(input: NetworkInput): Promise<Network> {
    return this.makeNetwork(input, false)
  }

  /** @internal */
  async makeNetwork(input: NetworkInput, predefined: boolean): Promise<Network> {
    const config = parse(NetworkOptions, input)
    if (this.#context.settings.predefined && !predefined && PREDEFINED.has(config.name))
      throw new CnmError(
        'ERR_PREDEFINED',
        `operation is not permitted on predefined ${config.name} network`,
        { name: config.name },
      )
    const driverName = config.configOnly ? 'null' : config.driver
    // The configuration that it takes must not be deleted meanwhile; nor may two be given one id.
    const source = config.configFrom === undefined ? undefined : this.#findNetwork(config.configFrom)
    const keys = [
      `network name ${config.name}`,
      `networks of ${driverName}`,
      ...[config.id, source?.id].flatMap(id => (id ? [`network ${id}`] : [])),
    ]
    return this.#context.locks.runAll(keys, () =>
      atomically(async undo => {
        this.#mustBeOpen()
        if (this.#networksByName.has(config.name))
          throw new CnmError('ERR_NETWORK_EXISTS', `network with name ${config.name} already exists`, {
            name: config.name,
          })
        if (config.id && this.#networks.has(config.id))
          throw new CnmError('ERR_NETWORK_EXISTS', `network with id ${config.id} already exists`, {
            id: config.id,
          })
        return this.#build(config, driverName, predefined, undo)
      }),
    )
  }

  async #build(given: NetworkOptions, driverName: string, predefined: boolean, undo: Undo): Promise<Network> {
    const { store, events, firewall, names, host } = this.#context
    validate(given)
    const config = given.configFrom ? this.#applyConfiguration(given, given.configFrom) : given
    const driver = await this.#context.drivers.get(driverName)
    const scope = scopeOf(config, driver)
    const siblings = this.#siblings(driverName)
    if (driver.capabilities.single && !config.configOnly && siblings.length)
      throw new CnmError('ERR_SINGLE_INSTANCE', `only one instance of "${driverName}" network is allowed`, {
        driver: driverName,
      })
    const families = takeFamilies(config)
    refuseUnusedSubnets(config, families)
    const addressed = driver.capabilities.addresses !== false && !config.configOnly
    const driverOptions = config.configOnly
      ? {}
      : parse(
          driver.options,
          fromLabels(config.options, driver.labels ?? {}, driver.takesLabels),
          'options.options',
        )
    const spec: Omit<NetworkSpec, 'pools'> = {
      id: config.id ?? newId(),
      name: config.name,
      internal: config.internal,
      ipv4: addressed && families.ipv4,
      ipv6: addressed && families.ipv6,
      labels: config.labels,
      options: driverOptions,
    }
    const pools = addressed
      ? await allocatePools(
          this.#context,
          {
            id: spec.id,
            config,
            ipv4: spec.ipv4,
            ipv6: spec.ipv6,
            scope: scope === 'local' ? 'local' : 'global',
            skipGateway: (await driver.skipsGateway?.(spec)) ?? [],
            reserves: driver.reserves?.(spec) ?? [],
            ownLinks: [...this.networks().flatMap(({ hostLinks }) => hostLinks), ...namedLink(driverOptions)],
          },
          undo,
        )
      : []
    const { state, plan } = config.configOnly
      ? { state: {}, plan: undefined }
      : await driver.createNetwork({ ...spec, pools }, host, siblings)
    if (pools.length && (await this.#context.ipam.get(config.ipam.driver)).capabilities.lends)
      mustBorrow(driver, state.link)
    if (plan?.sysctls) state.sysctls = plan.sysctls
    const record: NetworkRecord = {
      id: spec.id,
      name: spec.name,
      driver: driverName,
      scope,
      created: new Date().toISOString(),
      predefined,
      ipv4: spec.ipv4,
      ipv6: spec.ipv6,
      config,
      driverOptions,
      pools,
      state,
      deleting: false,
    }
    const network = new Network(this.#context, driver, record, this.#networkHooks)
    undo.push('driver deletes the network', async () => {
      const removal = await driver.deleteNetwork(network.forDriver, host, siblings)
      void removal // its changes are those that the plan's own undo makes
    })
    if (driver.spanning && !config.configOnly) await this.#context.spanning?.define(record, undo)
    undo.push('forget the record', () => store.write({ remove: [{ kind: 'network', id: record.id }] }))
    await store.write({ put: [{ kind: 'network', id: record.id, version: 1, value: record }] })
    const { link } = state
    if (link) {
      this.#context.unborn.add(link)
      undo.push('nobody makes the bridge', () => void this.#context.unborn.delete(link))
    }
    await carryOut(host, marked(this.name, { id: record.id, link }, plan), `network ${record.name}`, undo)
    if (state.firewall) {
      const rules = state.firewall
      undo.push('close the firewall', () => firewall.apply({ removeNetworks: [rules] }))
      await firewall.apply({ addNetworks: [rules] })
    }
    undo.push('forget the names', () => names.removeNetwork(record.id))
    this.#adoptNetwork(network)
    undo.push('forget the network', () => this.#forgetNetwork(network))
    if (link) this.#context.unborn.delete(link)
    events.emit({ type: 'network.create', network: { id: record.id, name: record.name, driver: driverName } })
    return network
  }

  #adoptNetwork(network: Network): void {
    this.#networks.set(network.id, network)
    this.#networksByName.set(network.name, network)
    if (!network.record.deleting) for (const link of network.hostLinks) this.#context.wantedLinks.add(link)
    this.#announce(network)
  }

  #forgetNetwork(network: Network): void {
    this.#networks.delete(network.id)
    for (const link of network.hostLinks) this.#context.wantedLinks.delete(link)
    if (this.#networksByName.get(network.name) === network) this.#networksByName.delete(network.name)
  }

  /** Tells the zones about a network; sandboxes on it look again. */
  #announce(network: Network): void {
    if (network.configOnly || network.implementation.capabilities.addresses === false) return
    const { dns } = network.record.config
    this.#context.names.setNetwork(network.id, {
      name: network.name,
      upstreams: dns.servers,
      internal: network.internal,
      serves: this.#servesNames(network),
    })
    this.#context.names.setRecords(network.id, customRecords(dns.records))
  }

  #servesNames(network: Network): boolean {
    const options = network.record.driverOptions as { defaultBridge?: boolean }
    return (
      !options.defaultBridge &&
      !network.ingress &&
      network.labels[NO_NAMES_LABEL] === undefined &&
      network.implementation.capabilities.addresses !== false
    )
  }

  #applyConfiguration(given: NetworkOptions, from: string): NetworkOptions {
    const source = this.#findNetwork(from)
    if (!source?.configOnly)
      throw new CnmError('ERR_NETWORK_NOT_FOUND', `configuration network "${from}" does not exist`, {
        configFrom: from,
      })
    const { ipv4, ipv6, labels, ipam, options } = source.record.config
    return { ...given, ipv4, ipv6, labels, ipam, options, configFrom: source.name }
  }

  #siblings(driver: string, except?: Network): DriverNetwork[] {
    return this.networks()
      .filter(network => network.driver === driver && network !== except && !network.configOnly)
      .map(network => network.forDriver)
  }

  readonly #networkHooks: NetworkHooks = {
    forget: network => this.#forgetNetwork(network),
    siblings: network => this.#siblings(network.driver, network),
    configUsers: network =>
      network.configOnly
        ? this.networks()
            .filter(other => other.record.config.configFrom === network.name)
            .map(({ name }) => name)
        : [],
    announce: network => this.#announce(network),
    sandbox: id => this.#sandboxes.get(id),
  }

  #findNetwork(term: string): Network | undefined {
    const exact = this.#networks.get(term) ?? this.#networksByName.get(term)
    if (exact || !term) return exact
    const matching = this.networks().filter(({ id }) => id.startsWith(term))
    if (matching.length > 1)
      throw new CnmError(
        'ERR_AMBIGUOUS',
        `network ${term} is ambiguous (${matching.length} matches found on ID prefix)`,
        { term },
      )
    return matching[0]
  }

  /** By full id, then name, then unique prefix of the id. Throws ERR_NETWORK_NOT_FOUND, ERR_AMBIGUOUS. */
  network(idOrNameOrPrefix: string): Network {
    const found = this.#findNetwork(idOrNameOrPrefix)
    if (!found)
      throw new CnmError('ERR_NETWORK_NOT_FOUND', `network ${printable(idOrNameOrPrefix)} not found`, {
        network: idOrNameOrPrefix,
      })
    return found
  }

  networks(filters?: z.input<typeof NetworkFilters>): Network[] {
    const all = [...this.#networks.values()].filter(({ record }) => !record.deleting)
    if (!filters) return all
    const wanted = parse(NetworkFilters, filters, 'filters')
    return all.filter(network => matches(network, wanted))
  }

  /** Deletes the networks that nobody uses. Resolves to their names. */
  async pruneNetworks(filters?: z.input<typeof PruneFilters>): Promise<string[]> {
    const wanted = parse(PruneFilters, filters, 'filters')
    const gone: string[] = []
    for (const network of this.networks().filter(candidate => prunable(candidate, wanted))) {
      try {
        await network.delete()
        gone.push(network.name)
      } catch (error) {
        this.#context.log.info(`network ${network.name} is not pruned`, { error })
      }
    }
    return gone
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
      options.network === undefined ? await this.#ingressNetwork() : this.network(options.network)
    const record = await this.#context.locks.run(`network ${network.id}`, async () => {
      this.#mustBeOpen()
      if (this.#networks.get(network.id) !== network)
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

  /** Where services are that name no network: the one with the option `ingress`, made on first use. */
  async #ingressNetwork(): Promise<Network> {
    const present = () => this.networks().find(({ ingress }) => ingress)
    const found = present()
    if (found) return found
    try {
      return await this.createNetwork({
        name: 'ingress',
        driver: this.#context.cluster ? 'overlay' : 'bridge',
        ingress: true,
      })
    } catch (error) {
      if (!isCnmError(error, 'ERR_NETWORK_EXISTS')) throw error
      // Another host was faster; it is known here in a moment.
      await this.#context.spanning?.idle()
      const made = present()
      if (made) return made
      throw error
    }
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
    const config = parse(SandboxOptions, input)
    this.#mustBeOpen()
    const owner = config.mode.startsWith('container:')
      ? this.sandbox(config.mode.slice('container:'.length))
      : undefined
    const keys = [`container ${config.containerId}`, ...(owner ? [`sandbox ${owner.id}`] : [])]
    return this.#context.locks.runAll(keys, () =>
      atomically(async undo => {
        this.#mustBeOpen()
        const present = this.#sandboxesByContainer.get(config.containerId)
        if (present)
          throw new CnmError(
            'ERR_SANDBOX_EXISTS',
            `container ${config.containerId} is already present in sandbox ${present.id.slice(0, 12)}`,
            {
              containerId: config.containerId,
              sandbox: present.id,
            },
          )
        const { store, kernel, warm, host, events, unborn } = this.#context
        const id = newId()
        const record: SandboxRecord = {
          id,
          containerId: config.containerId,
          created: new Date().toISOString(),
          config,
          bootId: bootId(),
        }
        const shared = owner && this.sandbox(owner.id) // it may have been deleted meanwhile
        if (shared?.mode.startsWith('container:'))
          throw new CnmError(
            'ERR_INVALID_OPTION',
            `options.mode: container ${shared.containerId} has no namespace of its own either (it has mode ${shared.mode})`,
            { containerId: shared.containerId, mode: shared.mode },
          )
        // By its full name: a prefix may fit another container later.
        if (shared) {
          config.mode = `container:${shared.containerId}`
          record.owner = shared.id
        }
        if (config.mode === 'own') record.key = join(this.runDir, 'netns', id.slice(0, 12))
        else if (config.mode === 'host') record.key = host.path ?? '/proc/1/ns/net'
        undo.push('forget the record', () => store.write({ remove: [{ kind: 'sandbox', id }] }))
        await store.write({ put: [{ kind: 'sandbox', id, version: 1, value: record }] })
        let stack = config.mode === 'host' ? host : undefined
        if (config.mode === 'own') {
          const key = record.key as string
          unborn.add(key)
          undo.push('remove the namespace', () => kernel.remove(key).finally(() => unborn.delete(key)))
          stack = await warm.take(key)
          undo.push('close the namespace', () => stack?.close())
          record.inode = stack.inode
        }
        const sandbox = new Sandbox(this.#context, record, stack, this.#sandboxHooks)
        await sandbox.openNames()
        this.#adoptSandbox(sandbox)
        if (record.key) unborn.delete(record.key)
        events.emit({ type: 'sandbox.create', sandbox: { id, containerId: config.containerId } })
        return sandbox
      }),
    )
  }

  #adoptSandbox(sandbox: Sandbox): void {
    this.#sandboxes.set(sandbox.id, sandbox)
    this.#sandboxesByContainer.set(sandbox.containerId, sandbox)
  }

  readonly #sandboxHooks: SandboxHooks = {
    forget: sandbox => {
      this.#sandboxes.delete(sandbox.id)
      if (this.#sandboxesByContainer.get(sandbox.containerId) === sandbox)
        this.#sandboxesByContainer.delete(sandbox.containerId)
    },
    sharers: sandbox =>
      this.sandboxes()
        .filter(({ record }) => record.owner === sandbox.id)
        .map(({ containerId }) => containerId),
    owner: ({ record }) => (record.owner === undefined ? undefined : this.#sandboxes.get(record.owner)),
    servesNames: networkId => {
      const network = this.#networks.get(networkId)
      return network !== undefined && this.#servesNames(network)
    },
    resolveName: (view, name, family) => this.#context.resolveName(this.#context.names, view, name, family),
    resolveIp: (view, address) => this.#context.resolveIp(this.#context.names, view, address),
    hostGateway: () => {
      const gateway = (network: Network | undefined) => network?.ipam.find(pool => pool.family === 4)?.gateway
      const preferred =
        this.#networksByName.get('bridge') ?? this.networks().find(({ driver }) => driver === 'bridge')
      return gateway(preferred)?.replace(/\/.*/, '')
    },
  }

  /** By id, container id or a unique prefix of either. Throws ERR_SANDBOX_NOT_FOUND, ERR_AMBIGUOUS. */
  sandbox(idOrContainerId: string): Sandbox {
    const exact = this.#sandboxes.get(idOrContainerId) ?? this.#sandboxesByContainer.get(idOrContainerId)
    if (exact) return exact
    const matching = idOrContainerId
      ? this.sandboxes().filter(
          ({ id, containerId }) => id.startsWith(idOrContainerId) || containerId.startsWith(idOrContainerId),
        )
      : []
    if (matching.length > 1)
      throw new CnmError(
        'ERR_AMBIGUOUS',
        `sandbox ${idOrContainerId} is ambiguous (${matching.length} matches)`,
        { term: idOrContainerId },
      )
    if (!matching[0])
      throw new CnmError('ERR_SANDBOX_NOT_FOUND', `sandbox ${printable(idOrContainerId)} not found`, {
        sandbox: idOrContainerId,
      })
    return matching[0]
  }

  sandboxes(): Sandbox[] {
    return [...this.#sandboxes.values()]
  }

  /* ------------------------------------------------------------------ drivers */

  registerDriver(driver: Driver): void {
    checkDriver(driver)
    this.#context.drivers.register(driver)
  }

  registerIpamDriver(driver: IpamDriver): void {
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
    // Sharers first: then their owners are free to go.
    for (const sandbox of doomed.sort(
      (a, b) => Number(b.mode.startsWith('container:')) - Number(a.mode.startsWith('container:')),
    )) {
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

  /** `type` is one of the event types, or `*` for all. */
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
      const failures = remove ? await this.#removeAll() : []
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

  /** Everything that there is, users before what they use. Resolves to what went wrong. */
  async #removeAll(): Promise<unknown[]> {
    const failures: unknown[] = []
    const attempt = (work: Promise<unknown>) => work.catch((error: unknown) => failures.push(error))
    const sharesFirst = (a: Sandbox, b: Sandbox) =>
      Number(b.mode.startsWith('container:')) - Number(a.mode.startsWith('container:'))
    for (const service of this.services()) await attempt(service.delete())
    for (const sandbox of this.sandboxes().sort(sharesFirst)) await attempt(sandbox.delete({ force: true }))
    // Configurations last: networks are made from them.
    const networks = this.networks().sort((a, b) => Number(a.configOnly) - Number(b.configOnly))
    for (const network of networks) {
      for (const endpoint of network.endpoints()) await attempt(endpoint.delete({ force: true }))
      await attempt(
        this.#context.locks.runAll([`network ${network.id}`, `networks of ${network.driver}`], () =>
          network.remove(),
        ),
      )
    }
    return failures
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** What restore, check and repair work on. */
  readonly #world = {
    networks: () => this.networks(),
    sandboxes: () => this.sandboxes(),
    siblings: (network: Network) => this.#siblings(network.driver, network),
    addNetwork: (record: NetworkRecord, driver: Driver) => {
      const network = new Network(this.#context, driver, record, this.#networkHooks)
      this.#adoptNetwork(network)
      return network
    },
    addSandbox: (record: SandboxRecord, stack: Sandbox['stack']) => {
      const sandbox = new Sandbox(this.#context, record, stack, this.#sandboxHooks)
      this.#adoptSandbox(sandbox)
      return sandbox
    },
  }

  #mustBeOpen(): void {
    this.#context.mustBeOpen()
  }
}

/** What {@link Controller.cluster} tells. */
export interface ClusterView {
  readonly host: { name: string; address: string }
  /** Which store, where. */
  readonly store: string
  /** False: what spans hosts cannot be changed now. */
  readonly connected: boolean
  /** Those that live, this one included. */
  readonly hosts: { name: string; address: string }[]
  /** Frees the addresses of a host that will not come back. Throws ERR_CLUSTER_HOST while it lives. */
  forgetHost(name: string): Promise<number>
  /**
   * Changes the key of encrypted networks (made if there is none) without loss; done by itself every `cluster.keyLifetime`
   * seconds. Resolves to the new key's number, when all hosts send with it. Throws ERR_CLUSTER_CONFLICT naming those that do not.
   */
  rotateKeys(): Promise<number>
}

const CLOSE = z.strictObject({ remove: z.boolean().default(false) })

const SERVE_NAMES = z.strictObject({
  address: ip().default('127.0.0.1'),
  port: z.number().int().min(0).max(65535).default(0),
  networks: z.array(z.string()).optional(),
})

const PREDEFINED = new Set(['bridge', 'host', 'none', 'default'])

/** Networks with this label serve no names. */
export const NO_NAMES_LABEL = 'libcnm.no-names'

/** An existing bridge that a network is to adopt has its routes already. */
const namedLink = (driverOptions: unknown): string[] => {
  const { name } = driverOptions as { name?: unknown }
  return typeof name === 'string' ? [name] : []
}

/** What may not be combined (reference: libnetwork's validateConfiguration). */
function validate(config: NetworkOptions): void {
  const refuse = (message: string) => new CnmError('ERR_INVALID_CONFIG', message, { name: config.name })
  if (config.configOnly) {
    if (config.configFrom)
      throw refuse('a configuration network cannot depend on another configuration network')
    for (const field of ['ingress', 'internal', 'attachable'] as const)
      if (config[field])
        throw refuse(`configuration network can only contain network specific fields; ${field} is none`)
    if (config.scope)
      throw refuse('configuration network can only contain network specific fields; scope is none')
  }
  if (config.configFrom) {
    const own = [
      config.ipam.driver !== 'default' && 'ipam.driver',
      config.ipam.config.length && 'ipam.config',
      Object.keys(config.ipam.options).length && 'ipam.options',
      config.ipv4 !== undefined && 'ipv4',
      config.ipv6 !== undefined && 'ipv6',
      Object.keys(config.labels).length && 'labels',
      Object.keys(config.options).length && 'options',
    ].filter(Boolean)
    if (own.length)
      throw refuse(
        `user specified configurations are not supported if the network depends on a configuration network: ${own.join(', ')}`,
      )
  }
}

function scopeOf(config: NetworkOptions, driver: Driver): string {
  const { dataScope } = driver.capabilities
  if (config.configOnly) return 'local'
  if (config.scope === 'local' && dataScope === 'global')
    throw new CnmError('ERR_SCOPE', `cannot downgrade network scope for ${driver.name} networks`, {
      driver: driver.name,
    })
  if (config.ingress && dataScope !== 'global')
    throw new CnmError(
      'ERR_SCOPE',
      `ingress network can only be global scope network, and ${driver.name} is local`,
      { driver: driver.name },
    )
  return config.scope ?? dataScope
}

/** A subnet of a family that is switched off would be dropped without a word. */
function refuseUnusedSubnets(config: NetworkOptions, families: { ipv4: boolean; ipv6: boolean }): void {
  for (const family of [4, 6] as const) {
    if (families[`ipv${family}`]) continue
    const unused = config.ipam.config.filter(entry => familyOfConfig(entry) === family)
    if (unused.length === 0) continue
    const text = unused.map(({ subnet, gateway }) => subnet ?? gateway ?? 'an empty entry').join(', ')
    throw new CnmError(
      'ERR_INVALID_CONFIG',
      `network ${config.name} has IPv${family} off, but ipam.config has ${text}; set ipv${family}: true, or leave it out`,
      { name: config.name, family, unused },
    )
  }
}

/** IPv4 unless told otherwise; IPv6 when told so, or when a subnet of it is configured. Docker's labels count where the fields are unset. */
function takeFamilies(config: NetworkOptions): { ipv4: boolean; ipv6: boolean } {
  const label = (family: number) => {
    const key = `com.docker.network.enable_ipv${family}`
    const value = config.options[key]
    return value === undefined ? undefined : ['1', 't', 'true', 'T', 'TRUE', 'True'].includes(String(value))
  }
  const [four, six] = [label(4), label(6)]
  return { ipv4: config.ipv4 ?? four ?? true, ipv6: config.ipv6 ?? six ?? wantsFamily(config, 6) }
}
