/** Compares the system with the desired state. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { addressOf, BITS, familyOf, formatCidr, network, parseCidr } from '../base/cidr'
import { crowd } from '../base/crowd'
import { isCnmError } from '../base/errors'
import type { Attachment, Driver, DriverNetwork, HostLink } from '../driver/contract'
import type { Endpoint } from '../endpoint'
import type { Address, Change, Link, Route, RouteSpec, Stack } from '../kernel/kernel'
import type { Network } from '../network'
import type { JoinOptions } from '../options'
import type { Sandbox } from '../sandbox'
import type { Context } from './context'
import type { Difference, Fix } from './difference'
import { MAIN_TABLE } from '../ipam/host'
import { equip, sysctlsFor } from './inside'
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

/** Sandboxes that are looked at together: enough to keep the threads busy that speak to the kernel. */
const WIDTH = 16

/** What one dump of a namespace says. */
interface Facts {
  links: Map<string, Link>
  byIndex: Map<number, Link>
  addresses: Address[]
  routes: Route[]
}

async function factsOf(stack: Stack): Promise<Facts> {
  const { links, addresses, routes } = await stack.survey()
  return {
    links: new Map(links.map(link => [link.name, link])),
    byIndex: new Map(links.map(link => [link.index, link])),
    addresses,
    routes,
  }
}

/**
 * Looks at everything without stopping anybody. What seems to differ is looked at once more while nobody is at work on
 * it: what was merely under way is no difference.
 */
export async function check(context: Context, world: World): Promise<Difference[]> {
  const host = await factsOf(context.host)
  const suspects = new Set<Network | Sandbox>()
  for (const network of world.networks())
    if (checkNetwork(context, network, host).length) suspects.add(network)
  await crowd(world.sandboxes(), WIDTH, async sandbox => {
    if ((await surveySandbox(context, sandbox, host)).length) suspects.add(sandbox)
  })
  const found: Difference[] = []
  for (const suspect of suspects)
    found.push(
      ...(await ('containerId' in suspect
        ? confirmSandbox(context, world, suspect)
        : confirmNetwork(context, world, suspect))),
    )
  for (const problem of await context.firewall.check())
    if (problem.kind === 'missing')
      found.push({ kind: 'firewall', problem: 'missing', message: problem.message, fix: { by: 'firewall' } })
    else if (problem.kind === 'forwarding-off')
      found.push({ kind: 'sysctl', problem: 'wrong', message: problem.message, fix: { by: 'firewall' } })
  found.push(...((await context.spanning?.check()) ?? []))
  found.push(...(await findStrays(context, world, host)))
  return found
}

const confirmNetwork = (context: Context, world: World, network: Network): Promise<Difference[]> =>
  context.locks.run(`network ${network.id}`, async () =>
    world.networks().includes(network) ? checkNetwork(context, network, await factsOf(context.host)) : [],
  )

const confirmSandbox = (context: Context, world: World, sandbox: Sandbox): Promise<Difference[]> =>
  context.locks.run(`sandbox ${sandbox.id}`, async () =>
    world.sandboxes().includes(sandbox) ? checkSandbox(context, sandbox, await factsOf(context.host)) : [],
  )

/** {@link checkSandbox} of one that may be deleted or moved meanwhile: then there is reason for a second look. */
async function surveySandbox(context: Context, sandbox: Sandbox, host: Facts): Promise<unknown[]> {
  try {
    return await checkSandbox(context, sandbox, host)
  } catch (error) {
    if (isCnmError(error, 'ERR_CLOSED')) return [error]
    throw error
  }
}

/* -------------------------------------------------------------------- networks */

function checkNetwork(context: Context, network: Network, host: Facts): Difference[] {
  const { state } = network.record
  if (!state.link || network.configOnly) return []
  // Of one that spans hosts, this host's part is there while endpoints are joined.
  if (network.implementation.spanning && !network.endpoints().some(({ sandbox }) => sandbox)) return []
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
    kind: 'link' | 'address' | 'route',
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
  for (const address of hostAddresses(network))
    if (!present.has(address))
      differ('address', 'missing', `${state.link} of network ${network.name} lacks its address ${address}`, {
        op: 'addAddress',
        link: state.link,
        address,
      })
    else if (link.up && !data?.adopted && !hasWay(host, link, address))
      differ(
        'route',
        'missing',
        `the host lacks its route to ${subnetOf(address)} of network ${network.name}`,
        {
          op: 'replaceRoute',
          route: wayTo(address, state.link),
        },
      )
  found.push(...checkSysctls(context.host, 'host', state.sysctls ?? {}, about))
  if (state.hostLink) found.push(...checkHostLink(network, state.hostLink, host))
  return found
}

const subnetOf = (address: string): string => formatCidr(network(parseCidr(address)))

/** As the kernel makes it (net/ipv4/fib_frontend.c, net/ipv6/addrconf.c: IP6_RT_PRIO_ADDRCONF). */
const wayTo = (address: string, link: string): RouteSpec => ({
  destination: subnetOf(address),
  link,
  ...(familyOf(address) === 4 ? { source: addressOf(address), scope: 'link' } : { metric: 256 }),
})

/** The kernel makes the route with the address, for subnets of more than one. */
function hasWay(host: Facts, { index }: Link, address: string): boolean {
  const { family, length } = parseCidr(address)
  const destination = subnetOf(address)
  return (
    length === BITS[family] ||
    host.routes.some(
      each => each.link === index && each.destination === destination && each.table === MAIN_TABLE,
    )
  )
}

function checkHostLink(
  { id, name: networkName }: Network,
  { spec, addresses, sysctls }: HostLink,
  host: Facts,
): Difference[] {
  const about = { networkId: id }
  const { name } = spec
  const link = host.links.get(name)
  const owned = new Set(host.addresses.filter(each => each.link === link?.index).map(each => each.address))
  const address = (text: string): Change => ({ op: 'addAddress', link: name, address: text })
  const fix = (...changes: Change[]): Fix => ({ by: 'changes', where: 'host', changes })
  if (!link)
    return [
      {
        ...about,
        kind: 'link',
        problem: 'missing',
        message: `${name}, the host's own link to network ${networkName}, is gone`,
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'addLink', link: spec }, ...addresses.map(address)],
          sysctls,
        },
      },
    ]
  const found: Difference[] = []
  if (!link.up)
    found.push({
      ...about,
      kind: 'link',
      problem: 'wrong',
      message: `${name}, the host's own link to network ${networkName}, is down`,
      fix: fix({ op: 'setLink', link: name, up: true }),
    })
  for (const missing of addresses.filter(each => !owned.has(each)))
    found.push({
      ...about,
      kind: 'address',
      problem: 'missing',
      message: `${name} of network ${networkName} lacks the host's address ${missing}`,
      fix: fix(address(missing)),
    })
  return found
}

/** The addresses that the host has on the network's link: those of its firewall's gateways. */
function hostAddresses(network: Network): string[] {
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
  for (const endpoint of sandbox.endpoints()) {
    found.push(...checkEndpoint(endpoint, sandbox, inside, host))
    const { attachment, interfaceName = '', options } = endpoint.record.join ?? {}
    if (!attachment?.interface || !options || !inside.links.has(interfaceName)) continue
    const ours = { ...about, endpointId: endpoint.id, networkId: endpoint.network.id }
    found.push(
      ...checkSysctls(stack, 'sandbox', sysctlsFor(attachment, options, interfaceName), ours),
      ...checkSysctls(context.host, 'host', attachment.plan?.sysctls ?? {}, ours),
    )
  }
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
  if (!sandbox.servicesIntact())
    found.push({
      ...about,
      kind: 'services',
      problem: 'wrong',
      message: `the rules for services in sandbox ${sandbox.containerId} are not as they should be`,
      fix: { by: 'services' },
    })
  if (sandbox.resolver && !(await sandbox.resolver.answers()))
    found.push({
      ...about,
      kind: 'resolver',
      problem: 'missing',
      message: `nobody answers on 127.0.0.11 in sandbox ${sandbox.containerId}`,
      fix: { by: 'resolver' },
    })
  return found
}

/** Settings that the kernel has not got (an absent interface, a kernel without IPv6) are no difference. */
function checkSysctls(
  stack: Stack,
  where: 'host' | 'sandbox',
  wanted: Record<string, string>,
  about: Pick<Difference, 'networkId' | 'endpointId' | 'sandboxId'>,
): Difference[] {
  return Object.entries(wanted).flatMap(([key, value]): Difference[] => {
    const present = words(stack.sysctl(key))
    if (present === undefined || present === words(value)) return []
    return [
      {
        ...about,
        kind: 'sysctl',
        problem: 'wrong',
        message: `${key} of the ${where} is ${present}, not ${value}`,
        fix: { by: 'sysctls', where, sysctls: { [key]: value } },
      },
    ]
  })
}

/** Several values are told with tabs between them. */
const words = (text: string | undefined): string | undefined => text?.trim().replace(/\s+/g, ' ')

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
        // A port that joins a bridge begins with the flags of a new one.
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'setLink', link: source, master: bridge.name }, ...portFlags(attachment)],
        },
      })
    else {
      const wrong = portFlags(attachment).flatMap(change => FLAGS.filter(flag => differs(port, change, flag)))
      if (wrong.length)
        found.push({
          ...about,
          kind: 'port',
          problem: 'wrong',
          message: `${source} is not set as it should be: ${wrong.join(', ')}`,
          fix: { by: 'changes', where: 'host', changes: portFlags(attachment) },
        })
    }
    if (!port.up)
      found.push({
        ...about,
        kind: 'link',
        problem: 'wrong',
        message: `${source} is down`,
        fix: { by: 'changes', where: 'host', changes: [{ op: 'setLink', link: source, up: true }] },
      })
  }
  for (const route of hostRoutes(attachment)) {
    const wanted = host.links.get(String(route.link))
    if (wanted && !host.routes.some(each => isRoute(each, route, wanted.index)))
      found.push({
        ...about,
        kind: 'route',
        problem: 'missing',
        message: `the host lacks its route to ${route.destination} of sandbox ${sandbox.containerId}`,
        fix: { by: 'changes', where: 'host', changes: [{ op: 'replaceRoute', route }] },
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
  for (const change of equip(endpoint.spec, attachment, interfaceName, joined?.options as JoinOptions)) {
    const fix: Fix = { by: 'changes', where: 'sandbox', changes: [change] }
    if (change.op === 'addAddress' && !present.has(change.address))
      found.push({
        ...about,
        kind: 'address',
        problem: 'missing',
        message: `${interfaceName} of sandbox ${sandbox.containerId} lacks ${change.address}`,
        fix,
      })
    if (change.op === 'addRoute' && !inside.routes.some(route => isRoute(route, change.route, link.index)))
      found.push({
        ...about,
        kind: 'route',
        problem: 'missing',
        message: `sandbox ${sandbox.containerId} lacks its route to ${change.route.destination}`,
        fix,
      })
  }
  return found
}

/** The host's own routes to the endpoint. */
const hostRoutes = ({ plan }: Attachment): RouteSpec[] =>
  (plan?.changes ?? []).flatMap(change => (change.op === 'replaceRoute' ? [change.route] : []))

const FLAGS = ['isolated', 'hairpin', 'learning'] as const

/** How the driver wants the endpoint's port of the bridge. */
export const portFlags = ({ plan }: Attachment): PortChange[] =>
  (plan?.changes ?? []).filter((change): change is PortChange => change.op === 'setPort')
type PortChange = Extract<Change, { op: 'setPort' }>

const differs = ({ port }: Link, wanted: PortChange, flag: (typeof FLAGS)[number]): boolean =>
  wanted[flag] !== undefined && port?.[flag] !== wanted[flag]

const isRoute = (route: Route, wanted: RouteSpec, link: number): boolean =>
  route.destination === wanted.destination &&
  route.type === (wanted.type ?? 'unicast') &&
  route.table === (wanted.table ?? 254) &&
  route.gateway === wanted.gateway &&
  (route.type !== 'unicast' || route.link === link)

/* -------------------------------------------------------------------- what belongs to nobody */

async function strays(
  { name, host: stack, kernel, reaper, runDir, unborn }: Context,
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
  for (const network of world.networks()) if (network.link) wanted.add(network.link)
  const found: Difference[] = []
  for (const link of host.links.values())
    if (
      bearsMark(name, link.alias) &&
      !wanted.has(link.name) &&
      !unborn.has(link.name) &&
      !reaper.isDoomed(stack, link.name)
    )
      found.push({
        kind: 'stray',
        problem: 'unwanted',
        message: `${link.name} (${link.alias}) belongs to no network and no endpoint`,
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'removeLink', link: link.name, ifExists: true }],
        },
      })
  const paths = await kernel.list(join(runDir, 'netns'))
  const keys = new Set(world.sandboxes().map(({ key }) => key))
  for (const path of paths)
    if (!keys.has(path) && !unborn.has(path))
      found.push({
        kind: 'netns',
        problem: 'unwanted',
        message: `the namespace at ${path} belongs to no sandbox`,
        fix: { by: 'unbind', path },
      })
  return found
}

/** Strays that are still such while nobody is at work on the endpoint, or the sandbox, whose id they bear. */
export async function findStrays(context: Context, world: World, host?: Facts): Promise<Difference[]> {
  const suspects = await strays(context, world, host ?? (await factsOf(context.host)))
  const found: Difference[] = []
  for (const suspect of suspects) {
    const keys = locksOf(suspect, world)
    const again = await context.locks.runAll(keys, async () =>
      (await strays(context, world, await factsOf(context.host))).some(
        ({ message }) => message === suspect.message,
      ),
    )
    if (again) found.push(suspect)
  }
  return found
}

function locksOf({ message }: Difference, world: World): string[] {
  const ids = new Set(message.match(/\b[0-9a-f]{12}\b/g))
  const bears = ({ id }: { id: string }) => ids.has(id.slice(0, 12))
  return [
    ...world
      .networks()
      .filter(bears)
      .map(({ id }) => `network ${id}`),
    ...world
      .networks()
      .flatMap(network => network.endpoints().filter(bears))
      .flatMap(({ id, record: { join: joined } }) => [
        `endpoint ${id}`,
        ...(joined ? [`sandbox ${joined.sandboxId}`] : []),
      ]),
    ...world
      .sandboxes()
      .filter(bears)
      .map(({ id }) => `sandbox ${id}`),
  ]
}
