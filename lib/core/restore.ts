/** Brings back what the store holds after a restart, and the kernel to it. */
import { z } from 'zod'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { addressOf } from '../base/cidr'
import { crowd } from '../base/crowd'
import { isCnmError } from '../base/errors'
import { makeFolder } from '../base/folder'
import type { Driver } from '../driver/contract'
import type { Stack } from '../kernel/kernel'
import type { Network } from '../network'
import type { Sandbox } from '../sandbox'
import type { StoredRecord } from '../store/contract'
import { replayPools } from './addresses'
import { bootId } from './boot'
import type { World } from './world'
import { INGRESS_LABEL } from './ways-out'
import { repair, sweepStrays } from './repair'
import type { Context } from './context'
import { tellProblem } from './problem'
import type { EndpointRecord, NetworkRecord, SandboxRecord, ServiceRecord } from './records'

/** Sandboxes that are looked after at a time. */
const WIDTH = 16

export async function restore(context: Context, records: StoredRecord[], world: World): Promise<void> {
  const of = <T>(kind: StoredRecord['kind']) =>
    records.filter(record => record.kind === kind).map(({ value }) => value as T)
  const networks = await restoreNetworks(context, of<NetworkRecord>('network'), world)
  await restoreServices(context, of<ServiceRecord>('service'), networks)
  const stale: Sandbox[] = []
  const sandboxes = await restoreSandboxes(context, of<SandboxRecord>('sandbox'), world, stale)
  await restoreEndpoints(context, of<EndpointRecord>('endpoint'), networks, sandboxes)
  await context.firewall.reset({
    addNetworks: [...networks.values()].flatMap(({ record }) =>
      record.deleting ? [] : (record.state.firewall ?? []),
    ),
    ...(await rulesOf([...sandboxes.values()].filter(sandbox => !stale.includes(sandbox)))),
  })
  for (const sandbox of sandboxes.values())
    if (!stale.includes(sandbox))
      await tolerate(context, `serve the ports of ${sandbox.containerId}`, () => sandbox.servePorts())
  // A delete that was past its point of no return is finished; containers that are gone are swept.
  for (const sandbox of stale)
    await tolerate(context, `sweep sandbox ${sandbox.containerId}`, () => sandbox.delete({ force: true }))
  for (const network of networks.values())
    if (network.record.deleting)
      await tolerate(context, `finish the delete of network ${network.name}`, () => network.remove())
  if (!context.settings.repairAtStart) context.log.info('the kernel is not compared with the desired state')
  else if (records.some(({ kind }) => kind !== 'meta'))
    await tolerate(context, 'compare the kernel with the desired state', () =>
      repair(context, world, { lenient: true }),
    )
  else if (mayBegin(context))
    await tolerate(context, 'sweep what an earlier run left', () => sweepStrays(context, world))
  context.services?.refreshAll()
  noteStore(context)
  sweepFiles(context, world)
  await crowd(world.sandboxes(), WIDTH, sandbox => sandbox.openNames(true))
}

/**
 * Nothing is known: what bears our mark is of a run that kept nothing, and nobody will ever manage it. Unless the last
 * controller here had a store, and this one was opened without it, perhaps by mistake.
 */
function mayBegin({ runDir, settings, kernel, log, events }: Context): boolean {
  if (kernel.simulated) return false
  const note = join(runDir, 'store')
  const before = existsSync(note) ? readFileSync(note, 'utf8').trim() : undefined
  if (before === undefined || before === settings.dataDir) return true
  const message = `what an earlier run left on this host is kept: it belongs to the store in ${before}; repair() removes it`
  log.warn(message)
  events.emit({ type: 'problem', message, error: undefined })
  return false
}

/** For {@link mayBegin} of the next run. */
function noteStore({ runDir, settings, kernel }: Context): void {
  if (kernel.simulated || settings.dataDir === undefined) return
  makeFolder(runDir)
  writeFileSync(join(runDir, 'store'), `${settings.dataDir}\n`)
}

const byAge = (a: { created: string }, b: { created: string }): number =>
  a.created < b.created ? -1 : a.created > b.created ? 1 : 0

/** Folders of sandboxes that were being made or deleted when the process died. Nothing is under way yet: none can be new. */
function sweepFiles({ runDir }: Context, world: World): void {
  const directory = join(runDir, 'files')
  if (!existsSync(directory)) return
  const living = new Set(world.sandboxes().map(({ id }) => id.slice(0, 12)))
  for (const name of readdirSync(directory))
    if (!living.has(name)) rmSync(join(directory, name), { recursive: true, force: true })
}

async function rulesOf(sandboxes: Sandbox[]) {
  const rules = await Promise.all(sandboxes.map(sandbox => sandbox.wantedRules()))
  return {
    addEndpoints: rules.flatMap(({ addEndpoints }) => addEndpoints),
    addMappings: rules.flatMap(({ addMappings }) => addMappings),
    addLinks: rules.flatMap(({ addLinks }) => addLinks),
  }
}

/** Pools first, in the order in which the networks were made, so that nobody else takes them. */
async function restoreNetworks(
  context: Context,
  records: NetworkRecord[],
  world: World,
): Promise<Map<string, Network>> {
  const restored = new Map<string, Network>()
  for (const record of records.sort(byAge)) {
    const driver = await context.drivers.get(record.driver).catch(() => absentDriver(context, record.driver))
    await tolerate(context, `take the pools of network ${record.name} again`, () =>
      replayPools(context, record),
    )
    restored.set(record.id, world.addNetwork(record, driver))
  }
  for (const driver of context.drivers.values())
    await driver.restore?.(
      [...restored.values()]
        .filter(network => network.driver === driver.name)
        .map(network => network.forDriver),
    )
  return restored
}

/**
 * Stands for a driver that is not registered (yet): the network is kept. Every use looks again, and says why it fails
 * while there is none.
 */
function absentDriver({ drivers }: Context, name: string): Driver {
  const real = () => drivers.get(name)
  return {
    name,
    capabilities: { dataScope: 'local', connectivityScope: 'local' },
    options: z.looseObject({}),
    createNetwork: async (...args) => (await real()).createNetwork(...args),
    deleteNetwork: async (...args) => (await real()).deleteNetwork(...args),
    createEndpoint: async (...args) => (await (await real()).createEndpoint?.(...args)) ?? {},
    deleteEndpoint: async (...args) => (await real()).deleteEndpoint?.(...args),
    join: async (...args) => (await real()).join(...args),
    leave: async (...args) => (await real()).leave(...args),
  }
}

async function restoreSandboxes(
  context: Context,
  records: SandboxRecord[],
  world: World,
  stale: Sandbox[],
): Promise<Map<string, Sandbox>> {
  const active = context.settings.activeSandboxes && new Set(context.settings.activeSandboxes)
  const restored = new Map<string, Sandbox>()
  // Those that others share come first.
  const shares = ({ config }: SandboxRecord) => Number(config.mode.startsWith('container:'))
  const ordered = records.sort((a, b) => shares(a) - shares(b) || byAge(a, b))
  for (const record of ordered) {
    const stack = await reopen(context, record, world)
    const sandbox = world.addSandbox(record, stack)
    restored.set(record.id, sandbox)
    const ours = record.config.labels[INGRESS_LABEL] !== undefined
    const alive = active && !ours ? active.has(record.containerId) : true
    if (!alive || (stack === undefined && record.config.mode !== 'deferred')) stale.push(sandbox)
  }
  return restored
}

async function reopen(context: Context, record: SandboxRecord, world: World): Promise<Stack | undefined> {
  const { mode } = record.config
  if (mode === 'host') return context.host
  if (mode.startsWith('container:')) {
    const owner = world
      .sandboxes()
      .find(({ id, containerId }) =>
        record.owner === undefined ? mode === `container:${containerId}` : id === record.owner,
      )
    record.owner ??= owner?.id // earlier versions did not note it
    return owner?.stack
  }
  if (!record.key) return undefined
  try {
    const stack = await context.kernel.open(record.key)
    // After a reboot, or when the path was used again, something else may be there.
    if (record.bootId === bootId() && (record.inode === undefined || record.inode === stack.inode)) {
      record.inode = stack.inode
      return stack
    }
    stack.close()
  } catch (error) {
    if (!isCnmError(error, 'ERR_NETNS_NOT_FOUND')) throw error
  }
  return undefined
}

async function restoreEndpoints(
  context: Context,
  records: EndpointRecord[],
  networks: Map<string, Network>,
  sandboxes: Map<string, Sandbox>,
): Promise<void> {
  for (const record of records.sort(byAge)) {
    const network = networks.get(record.networkId)
    if (!network) {
      await context.store.write({ remove: [{ kind: 'endpoint', id: record.id }] })
      continue
    }
    await tolerate(context, `take the addresses of ${record.name} again`, () =>
      replayAddresses(context, network, record),
    )
    const sandbox = record.join && sandboxes.get(record.join.sandboxId)
    if (record.join && !sandbox) record.join = undefined
    const endpoint = network.adopt(record)
    if (sandbox) await sandbox.adopt(endpoint)
  }
}

/** Their virtual IPs before the endpoints' addresses: nobody else may have them. */
async function restoreServices(
  context: Context,
  records: ServiceRecord[],
  networks: Map<string, Network>,
): Promise<void> {
  for (const record of records.sort(byAge)) {
    const network = networks.get(record.networkId)
    if (!network) {
      await context.store.write({ remove: [{ kind: 'service', id: record.id }] })
      continue
    }
    context.services?.restored(record)
    await tolerate(context, `take the virtual IPs of service ${record.name} again`, () =>
      replayVirtualIps(context, network, record),
    )
  }
}

async function replayVirtualIps(context: Context, network: Network, record: ServiceRecord): Promise<void> {
  const ipam = await context.ipam.get(network.record.config.ipam.driver)
  if (!ipam.capabilities.requiresReplay) return
  for (const vip of Object.values(record.vips))
    if (vip)
      await ipam.requestAddress(vip.poolId, {
        address: addressOf(vip.address),
        owner: record.id,
        purpose: 'virtual',
      })
}

async function replayAddresses(context: Context, network: Network, record: EndpointRecord): Promise<void> {
  const ipam = await context.ipam.get(network.record.config.ipam.driver)
  if (!ipam.capabilities.requiresReplay) return
  for (const held of Object.values(record.addresses)) {
    if (!held.poolId) continue
    const { settings, state } = await ipam.requestAddress(held.poolId, {
      address: held.address.replace(/\/.*/, ''),
      owner: record.id,
      purpose: 'endpoint',
      name: record.name,
      mac: record.mac,
      link: network.link,
      state: held.state,
    })
    Object.assign(held, settings && { settings }, state && { state })
  }
}

/** One object that cannot be brought back must not keep the others from it. */
async function tolerate(context: Context, what: string, body: () => Promise<unknown>): Promise<void> {
  try {
    await body()
  } catch (error) {
    tellProblem(context, `cannot ${what}`, error)
  }
}
