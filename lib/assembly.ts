/** The only place where the parts are put together. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { CnmError } from './base/errors'
import { Cluster } from './cluster/cluster'
import { Keys } from './cluster/keys'
import type { Backend } from './cluster/contract'
import type { EtcdOptions } from './cluster/etcd'
import { ClusterIpamDriver, clusterPools } from './cluster/ipam'
import { Locks } from './base/locks'
import { type Logger, SILENT } from './base/log'
import { atomically } from './base/undo'
import { machineId } from './core/boot'
import { claimName } from './core/claim'
import type { Context } from './core/context'
import { Events } from './core/events'
import { Reaper } from './core/reaper'
import { schemas } from './core/schemas'
import { openFiles } from './dns/files/files'
import { followUpstreams } from './dns/files/upstreams'
import { Warm } from './core/warm'
import type { ResolverOptions, SandboxResolver } from './dns/contract'
import { openHostListener, openNames, openResolver, resolveIp, resolveName } from './dns/resolver'
import type { Driver } from './driver/contract'
import { Registry } from './driver/registry'
import { openFirewall, removeFirewall } from './firewall/select'
import type { Firewall } from './firewall/contract'
import type { IpamDriver } from './ipam/contract'
import { DefaultIpamDriver } from './ipam/default'
import type { Kernel, Stack } from './kernel/kernel'
import { LinuxKernel } from './kernel/linux'
import type { ControllerOptions } from './options'
import { InertProxy } from './ports/inert-proxy'
import { Publisher } from './ports/publisher'
import type { StoredRecord } from './store/contract'
import { openStore } from './store/open'
import { bridge } from '../drivers/bridge'
import { host as hostDriver } from '../drivers/host'
import { ipvlan } from '../drivers/ipvlan'
import { macvlan } from '../drivers/macvlan'
import { nullDriver } from '../drivers/null'
import { dhcpIpam } from '../drivers/ipam/dhcp'
import { NullIpamDriver } from '../drivers/ipam/null'
import { overlay } from '../drivers/overlay'
import { loadDriver, loadIpamDriver } from '../drivers/remote'
import { Plugins } from '../drivers/remote/client'
import { PLUGIN_DIRECTORIES } from '../drivers/remote/discovery'

export interface Assembled {
  context: Context
  /** What the store held. */
  records: StoredRecord[]
  damaged: { kind: string; id: string; reason: string }[]
  /** Lets go of everything, in the opposite order. */
  close(): Promise<void>
}

/** Opens every part; if one cannot be had, those before it are closed again. */
export function assemble(settings: ControllerOptions): Promise<Assembled> {
  return atomically(async undo => {
    const log = settings.log ?? SILENT
    const kernel: Kernel = settings.kernel ?? new LinuxKernel()
    const runDir = settings.runDir ?? join('/run', settings.name)
    const host = await kernel.open(settings.host)
    undo.push('close the host', () => host.close())
    const disclaim = kernel.simulated ? undefined : await claimName(host, settings.name)
    if (disclaim) undo.push('give the name back', disclaim)
    const store = await openStore({ dataDir: settings.dataDir, schemas, log })
    undo.push('close the store', () => store.close())
    const { records, damaged } = await store.load()

    const firewall = await chooseFirewall(settings, kernel, host, records)
    undo.push('stop the firewall', () => firewall.stop())
    await firewall.start()
    const publisher = new Publisher({
      stack: host,
      backend: firewall.backend,
      userlandProxy: settings.userlandProxy,
      log,
      proxy: kernel.simulated ? new InertProxy(host) : undefined,
    })
    undo.push('close the ports', () => publisher.close())

    const events = new Events()
    const reaper = new Reaper((message, error) => events.emit({ type: 'problem', message, error }))
    const warm = new Warm(kernel, settings.warmSandboxes)
    undo.push('close the warm sandboxes', () => warm.close())
    await warm.fill()

    // Once for all sandboxes: to begin and end a watch takes longer than the kernel needs for a sandbox.
    const upstreams = followUpstreams(settings.resolvConf, () => {})
    undo.push('stop to follow resolv.conf', () => upstreams.close())

    const cluster = settings.cluster && openCluster(settings, settings.cluster, events, log)
    if (cluster) undo.push('leave the cluster', () => cluster.close())
    const plugins = new Plugins(settings.pluginDirectories ?? PLUGIN_DIRECTORIES)
    const { registry: ipam, joinCluster } = ipamOf(settings, host, plugins, cluster)
    const context: Context = {
      name: settings.name,
      settings,
      runDir,
      kernel,
      host,
      store,
      firewall,
      publisher,
      events,
      reaper,
      warm,
      log,
      locks: new Locks(),
      wantedLinks: new Set(),
      hasIpv6: host.sysctl('net/ipv6/conf/default/disable_ipv6') !== undefined,
      unborn: new Set(),
      names: openNames(),
      resolveName,
      resolveIp,
      openHostListener,
      openResolver: kernel.simulated ? openInertResolver : openResolver,
      openFiles,
      followUpstreams,
      drivers: driversOf(settings, plugins, cluster),
      ipam,
      cluster,
      keys: cluster && new Keys(cluster),
      joinCluster,
      mustBeOpen() {
        if (this.closing) throw new CnmError('ERR_CLOSED', `controller ${settings.name} is closed`)
      },
      closing: false,
    }
    return {
      context,
      records,
      damaged,
      async close() {
        await reaper.settle()
        await warm.close()
        await cluster?.close()
        for (const driver of [...context.drivers.values(), ...ipam.values()]) await driver.close?.()
        upstreams.close()
        await publisher.close()
        await firewall.stop()
        await store.close()
        await disclaim?.()
        events.clear()
        host.close()
      },
    }
  })
}

/** On a model of Linux a server has nothing to listen on: names are answered by `resolveName` only. */
async function openInertResolver(options: ResolverOptions): Promise<SandboxResolver> {
  return {
    update() {},
    answers: async () => true,
    statistics: () => ({
      queries: 0,
      tcpQueries: 0,
      local: 0,
      cached: 0,
      forwarded: 0,
      failed: 0,
      refused: 0,
      malformed: 0,
      truncated: 0,
      unsent: 0,
      inFlight: 0,
      cacheEntries: 0,
      upstreams: options.view.upstreams.map(({ address, port = 53, from }) => ({
        address,
        port,
        from,
        asked: 0,
        answered: 0,
        failed: 0,
        roundTrip: undefined,
        down: false,
      })),
    }),
    async close() {},
  }
}

/** The backend asked for; what another one left in an earlier run is cleared away. */
async function chooseFirewall(
  settings: ControllerOptions,
  kernel: Kernel,
  stack: Stack,
  records: StoredRecord[],
): Promise<Firewall> {
  const { name, ipForward, log } = settings
  const backend = settings.firewall === 'auto' && kernel.simulated ? 'none' : settings.firewall
  const firewall = openFirewall({ backend, name, stack, ipForward, log })
  const before = (
    records.find(({ kind }) => kind === 'meta')?.value as { firewall?: Firewall['backend'] } | undefined
  )?.firewall
  if (before && before !== firewall.backend) await removeFirewall(before, { name, stack, ipForward, log })
  return firewall
}

/** etcd3 is loaded by those who use it only: it takes a third of a second. */
function openEtcd(options: EtcdOptions): Backend {
  const { EtcdBackend } = require('./cluster/etcd') as typeof import('./cluster/etcd')
  return new EtcdBackend(options)
}

/** This host's place in the cluster, not yet taken: {@link Cluster.start} is for when the stored state is back. */
function openCluster(
  { name, hostId }: ControllerOptions,
  settings: NonNullable<ControllerOptions['cluster']>,
  events: Events,
  log: Logger,
): Cluster {
  const { endpoints = [], credentials, tls, timeout, prefix, host, lease } = settings
  const backend = settings.backend ?? openEtcd({ endpoints, credentials, tls, timeout })
  return new Cluster({
    backend,
    prefix,
    host,
    hostId: `${hostId ?? machineId()} ${name}`,
    leaseSeconds: lease,
    patience: Math.min(timeout, 2_000),
    recovery: timeout,
    listener: {
      connected: () => {
        log.info(`host ${host.name} is connected to ${backend.name}`)
        events.emit({ type: 'cluster.connected', host: host.name, store: backend.name })
      },
      lost: error => {
        log.warn(`host ${host.name} has lost ${backend.name}`, { error })
        events.emit({ type: 'cluster.lost', host: host.name, store: backend.name, error })
      },
      garbage: (key, reason) => {
        log.warn(`${key} in ${backend.name} is no record of ours: ${reason}`)
        events.emit({ type: 'cluster.garbage', key, reason })
      },
      problem: (message, error) => {
        log.error(message, { error })
        events.emit({ type: 'problem', message, error })
      },
    },
  })
}

function driversOf(settings: ControllerOptions, plugins: Plugins, cluster?: Cluster): Registry<Driver> {
  const drivers = new Registry<Driver>(
    'network driver',
    name => loadDriver(plugins, name) as Promise<Driver | undefined>,
  )
  const spanning = overlay({
    cluster: cluster && { host: cluster.host, segments: cluster.claims },
    port: settings.cluster?.tunnelPort,
    mark: markOf(settings.name),
  })
  for (const driver of [
    bridge({ mtu: settings.mtu }),
    hostDriver(),
    nullDriver(),
    macvlan(),
    ipvlan(),
    spanning,
  ])
    drivers.register(driver as Driver, true)
  for (const driver of settings.drivers) drivers.register(driver)
  return drivers
}

/** Of packets to be encrypted: another one for each controller of a host. Below 2^31, as some tools print it signed. */
const markOf = (name: string): number =>
  createHash('sha256').update(`libcnm mark ${name}`).digest().readUInt32BE() >>> 1 || 1

function ipamOf(
  settings: ControllerOptions,
  host: Stack,
  plugins: Plugins,
  cluster?: Cluster,
): { registry: Registry<IpamDriver>; joinCluster?: () => void } {
  const registry = new Registry<IpamDriver>('IPAM driver', name => loadIpamDriver(plugins, name))
  const local = new DefaultIpamDriver({
    localPools: settings.addressPools,
    hostId: settings.hostId ?? machineId(),
  })
  const { prefix = '', addressPools: pools = clusterPools(prefix) } = settings.cluster ?? {}
  const shared = cluster && new ClusterIpamDriver({ cluster, local, pools })
  registry.register(shared ?? local, true)
  registry.register(new NullIpamDriver(), true)
  registry.register(dhcpIpam(host), true)
  for (const driver of settings.ipamDrivers) {
    checkIpamDriver(driver)
    registry.register(driver)
  }
  return { registry, joinCluster: shared && (() => shared.restored()) }
}

/** A driver handed in from outside must at least look like one. */
export function checkDriver(driver: Driver): void {
  looksLike('driver', driver, ['createNetwork', 'deleteNetwork', 'join', 'leave'])
}

export function checkIpamDriver(driver: IpamDriver): void {
  looksLike('IPAM driver', driver, [
    'defaultAddressSpaces',
    'requestPool',
    'releasePool',
    'requestAddress',
    'releaseAddress',
  ])
}

function looksLike<T extends { readonly name: string; readonly capabilities: object }>(
  what: string,
  driver: T,
  methods: readonly (keyof T & string)[],
): void {
  const refuse = (problem: string, details: object) =>
    new CnmError('ERR_INVALID_OPTION', `${what}: must have ${problem}`, { ...details })
  for (const method of methods)
    if (typeof driver?.[method] !== 'function') throw refuse(`a method ${method}`, { method })
  if (typeof driver.name !== 'string') throw refuse('a name, as text', { field: 'name' })
  if (typeof driver.capabilities !== 'object' || driver.capabilities === null)
    throw refuse('capabilities', { field: 'capabilities' })
}
