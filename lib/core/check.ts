/** Compares the system with the desired state, and puts it right. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { familyOf } from '../base/cidr'
import { isCnmError } from '../base/errors'
import type { Driver, DriverNetwork } from '../driver/contract'
import type { Endpoint } from '../endpoint'
import type { Address, Change, Link, Route, Stack } from '../kernel/kernel'
import type { Network } from '../network'
import type { Sandbox } from '../sandbox'
import { applyLeniently, carryOut, type Context } from './context'
import type { Difference } from './difference'
import { addressesOf } from './inside'
import { bearsMark } from './mark'
import type { NetworkRecord, SandboxRecord } from './records'

/** The nouns that there are. */
export interface World {
  networks(): Network[]
  sandboxes(): Sandbox[]
  siblings(network: Network): DriverNetwork[]
  addNetwork(record: NetworkRecord, driver: Driver): Network
  addSandbox(record: SandboxRecord, stack: Stack | undefined): Sandbox
}

/** What one dump of a namespace says. */
interface Facts {
  links: Map<string, Link>
  byIndex: Map<number, Link>
  addresses: Address[]
  routes: Route[]
}

async function factsOf(stack: Stack): Promise<Facts> {
  const [links, addresses, routes] = await Promise.all([stack.links(), stack.addresses(), stack.routes()])
  return {
    links: new Map(links.map(link => [link.name, link])),
    byIndex: new Map(links.map(link => [link.index, link])),
    addresses,
    routes,
  }
}

export async function check(context: Context, world: World): Promise<Difference[]> {
  const host = await factsOf(context.host)
  const found: Difference[] = []
  for (const network of world.networks()) found.push(...(await checkNetwork(context, network, host, world)))
  for (const sandbox of world.sandboxes()) found.push(...(await checkSandbox(context, sandbox, host)))
  for (const problem of await context.firewall.check())
    if (problem.kind === 'missing')
      found.push({ kind: 'firewall', problem: 'missing', message: problem.message, fix: { by: 'firewall' } })
  found.push(...(await strays(context, world, host)))
  return found
}

/* -------------------------------------------------------------------- networks */

async function checkNetwork(
  { host: stack }: Context,
  network: Network,
  host: Facts,
  world: World,
): Promise<Difference[]> {
  const { state } = network.record
  if (!state.link || network.configOnly) return []
  const about = { networkId: network.id }
  const link = host.links.get(state.link)
  if (!link)
    return [
      {
        ...about,
        kind: 'link',
        problem: 'missing',
        message: `bridge ${state.link} of network ${network.name} is gone`,
        fix: { by: 'rebuild-network' },
      },
    ]
  const changes: Change[] = []
  const found: Difference[] = []
  const differ = (
    kind: 'link' | 'address',
    problem: 'missing' | 'wrong',
    message: string,
    change: Change,
  ) => {
    changes.push(change)
    found.push({ ...about, kind, problem, message, fix: { by: 'changes', where: 'host', changes: [change] } })
  }
  if (!link.up)
    differ('link', 'wrong', `${state.link} of network ${network.name} is down`, {
      op: 'setLink',
      link: state.link,
      up: true,
    })
  const data = state.data as { adopted?: boolean } | undefined
  if (state.mtu !== undefined && link.mtu !== state.mtu && !data?.adopted)
    differ('link', 'wrong', `${state.link} has an MTU of ${link.mtu}, not ${state.mtu}`, {
      op: 'setLink',
      link: state.link,
      mtu: state.mtu,
    })
  const present = new Set(
    host.addresses.filter(address => address.link === link.index).map(({ address }) => address),
  )
  for (const address of await hostAddresses(network, stack, world))
    if (!present.has(address))
      differ('address', 'missing', `${state.link} of network ${network.name} lacks its address ${address}`, {
        op: 'addAddress',
        link: state.link,
        address,
      })
  return found
}

/** The addresses that the host has on the network's link: those of its firewall's gateways. */
async function hostAddresses(network: Network, _stack: Stack, _world: World): Promise<string[]> {
  const families = network.record.state.firewall?.families ?? []
  return network.ipam
    .filter(({ family, gateway }) => gateway && families.some(wall => wall.family === family && wall.gateway))
    .map(({ gateway }) => gateway as string)
}

/* -------------------------------------------------------------------- sandboxes */

async function checkSandbox(context: Context, sandbox: Sandbox, host: Facts): Promise<Difference[]> {
  const { stack } = sandbox
  if (!stack || sandbox.mode === 'host' || sandbox.mode.startsWith('container:')) return []
  const about = { sandboxId: sandbox.id }
  if (!(await isBound(context, sandbox)))
    return [
      {
        ...about,
        kind: 'netns',
        problem: 'missing',
        message: `the namespace of sandbox ${sandbox.containerId} is no longer at ${sandbox.key}`,
        fix: { by: 'delete-sandbox' },
      },
    ]
  const inside = await factsOf(stack)
  const found: Difference[] = []
  for (const endpoint of sandbox.endpoints()) found.push(...checkEndpoint(endpoint, sandbox, inside, host))
  for (const route of sandbox.wantedDefaults()) {
    const family = familyOf(route.destination)
    const link = inside.links.get(route.link as string)
    const present = inside.routes.some(
      candidate =>
        candidate.family === family &&
        candidate.destination === route.destination &&
        candidate.table === 254 &&
        candidate.link === link?.index &&
        candidate.gateway === route.gateway,
    )
    if (!present && link)
      found.push({
        ...about,
        kind: 'route',
        problem: 'missing',
        message: `sandbox ${sandbox.containerId} lacks its default route ${route.gateway ? `via ${route.gateway} ` : ''}dev ${String(route.link)}`,
        fix: { by: 'changes', where: 'sandbox', changes: [{ op: 'replaceRoute', route }] },
      })
  }
  const missing = Object.values(sandbox.files ?? {}).filter(path => !existsSync(path))
  if (missing.length)
    found.push({
      ...about,
      kind: 'file',
      problem: 'missing',
      message: `files of sandbox ${sandbox.containerId} are gone: ${missing.join(', ')}`,
      fix: { by: 'files' },
    })
  return found
}

async function isBound({ kernel }: Context, sandbox: Sandbox): Promise<boolean> {
  try {
    const again = await kernel.open(sandbox.key)
    const same = again.inode === sandbox.stack?.inode
    again.close()
    return same
  } catch (error) {
    if (isCnmError(error, 'ERR_NETNS_NOT_FOUND')) return false
    throw error
  }
}

function checkEndpoint(endpoint: Endpoint, sandbox: Sandbox, inside: Facts, host: Facts): Difference[] {
  const { join: joined } = endpoint.record
  const { attachment, interfaceName = '' } = joined ?? {}
  if (!attachment?.interface) return []
  const about = { endpointId: endpoint.id, sandboxId: sandbox.id, networkId: endpoint.network.id }
  const link = inside.links.get(interfaceName)
  if (!link)
    return [
      {
        ...about,
        kind: 'link',
        problem: 'missing',
        message: `${interfaceName} of sandbox ${sandbox.containerId} (network ${endpoint.network.name}) is gone`,
        fix: { by: 'reattach' },
      },
    ]
  const found: Difference[] = []
  const { source, arrives } = attachment.interface
  if (arrives === 'born' && source) {
    const port = host.links.get(source)
    const bridge = endpoint.network.link ? host.links.get(endpoint.network.link) : undefined
    if (!port)
      return [
        {
          ...about,
          kind: 'link',
          problem: 'missing',
          message: `${source}, the host's end of ${interfaceName}, is gone`,
          fix: { by: 'reattach' },
        },
      ]
    if (bridge && port.master !== bridge.index)
      found.push({
        ...about,
        kind: 'port',
        problem: 'wrong',
        message: `${source} is no port of ${bridge.name}`,
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'setLink', link: source, master: bridge.name }],
        },
      })
    if (!port.up)
      found.push({
        ...about,
        kind: 'link',
        problem: 'wrong',
        message: `${source} is down`,
        fix: { by: 'changes', where: 'host', changes: [{ op: 'setLink', link: source, up: true }] },
      })
  }
  if (!link.up)
    found.push({
      ...about,
      kind: 'link',
      problem: 'wrong',
      message: `${interfaceName} of sandbox ${sandbox.containerId} is down`,
      fix: { by: 'changes', where: 'sandbox', changes: [{ op: 'setLink', link: interfaceName, up: true }] },
    })
  const present = new Set(
    inside.addresses.filter(address => address.link === link.index).map(({ address }) => address),
  )
  for (const address of addressesOf(endpoint.spec, attachment))
    if (!present.has(address))
      found.push({
        ...about,
        kind: 'address',
        problem: 'missing',
        message: `${interfaceName} of sandbox ${sandbox.containerId} lacks ${address}`,
        fix: {
          by: 'changes',
          where: 'sandbox',
          changes: [{ op: 'addAddress', link: interfaceName, address }],
        },
      })
  return found
}

/* -------------------------------------------------------------------- what belongs to nobody */

async function strays(
  { name, host: stack, kernel, reaper, runDir }: Context,
  world: World,
  host: Facts,
): Promise<Difference[]> {
  const wanted = new Set(
    world
      .networks()
      .flatMap(network =>
        network.endpoints().flatMap(({ record }) => record.join?.attachment?.interface?.source ?? []),
      ),
  )
  const found: Difference[] = []
  for (const link of host.links.values())
    if (bearsMark(name, link.alias) && !wanted.has(link.name) && !reaper.isDoomed(stack, link.name))
      found.push({
        kind: 'stray',
        problem: 'unwanted',
        message: `${link.name} (${link.alias}) belongs to no endpoint`,
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'removeLink', link: link.name, ifExists: true }],
        },
      })
  const keys = new Set(world.sandboxes().map(({ key }) => key))
  for (const path of await kernel.list(join(runDir, 'netns')))
    if (!keys.has(path))
      found.push({
        kind: 'netns',
        problem: 'unwanted',
        message: `the namespace at ${path} belongs to no sandbox`,
        fix: { by: 'delete-sandbox' },
      })
  return found
}

/** Removes links and namespaces that carry our mark and belong to nobody. */
export async function sweepStrays(context: Context, world: World): Promise<void> {
  for (const difference of await strays(context, world, await factsOf(context.host))) {
    if (difference.fix.by === 'changes') await applyLeniently(context.host, difference.fix.changes)
    else if (difference.kind === 'netns')
      await context.kernel.remove(difference.message.replace(/^the namespace at (.*) belongs.*$/, '$1'))
  }
}

/* -------------------------------------------------------------------- repair */

export async function repair(context: Context, world: World): Promise<Difference[]> {
  const found = await check(context, world)
  const networks = new Map(world.networks().map(network => [network.id, network]))
  const sandboxes = new Map(world.sandboxes().map(sandbox => [sandbox.id, sandbox]))
  // Networks first: endpoints hang on them. Then namespaces, interfaces, what is on them, and the rest.
  for (const { fix, networkId } of found)
    if (fix.by === 'rebuild-network')
      await rebuild(context, networks.get(networkId as string) as Network, world)
  for (const { fix, sandboxId } of found)
    if (fix.by === 'delete-sandbox' && sandboxId) await sandboxes.get(sandboxId)?.delete({ force: true })
  const reattached = new Set<string>()
  for (const { fix, sandboxId, endpointId } of found) {
    if (fix.by !== 'reattach' || reattached.has(endpointId as string)) continue
    reattached.add(endpointId as string)
    const sandbox = sandboxes.get(sandboxId as string)
    const endpoint = sandbox?.endpoints().find(({ id }) => id === endpointId)
    if (sandbox && endpoint) await sandbox.reattach(endpoint)
  }
  for (const { fix, sandboxId, endpointId } of found) {
    if (fix.by !== 'changes' || reattached.has(endpointId ?? '')) continue
    const stack = fix.where === 'host' ? context.host : sandboxes.get(sandboxId as string)?.stack
    if (stack) await applyOnce(stack, fix.changes)
  }
  for (const id of new Set(
    found.flatMap(({ fix, sandboxId }) => (fix.by === 'files' && sandboxId ? [sandboxId] : [])),
  ))
    await sandboxes.get(id)?.repairNames()
  if (found.some(({ fix }) => fix.by === 'firewall')) await context.firewall.repair()
  await sweepStrays(context, world)
  // A link that went down and up again has lost its routes: look once more for those.
  if (found.some(({ fix, kind }) => fix.by === 'changes' && (kind === 'link' || kind === 'address')))
    for (const { fix, sandboxId, kind } of await check(context, world))
      if (kind === 'route' && fix.by === 'changes') {
        const stack = sandboxes.get(sandboxId as string)?.stack
        if (stack) await applyOnce(stack, fix.changes)
      }
  return found
}

/** What somebody else has put right meanwhile is no failure. */
async function applyOnce(stack: Stack, changes: Change[]): Promise<void> {
  try {
    await stack.apply(changes)
  } catch (error) {
    if (!(isCnmError(error) && error.details.errno === 'EEXIST')) throw error
  }
}

/** The bridge is gone: made anew as it was, and every endpoint's link hung on it again. */
async function rebuild(context: Context, network: Network, world: World): Promise<void> {
  const { spec } = network.forDriver
  const { plan, state } = await network.implementation.createNetwork(
    spec,
    context.host,
    world.siblings(network),
  )
  await carryOut(context.host, plan, 'rebuild', { push() {} })
  // The name and the rest of the state are what they were: only what the driver found anew is taken over.
  network.record.state = { ...network.record.state, ...state, link: network.record.state.link ?? state.link }
  for (const endpoint of network.endpoints()) {
    const port = endpoint.record.join?.attachment?.interface?.source
    if (port && network.link && (await context.host.link(port)))
      await context.host.apply([{ op: 'setLink', link: port, master: network.link, up: true }])
  }
}
