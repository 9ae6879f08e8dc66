/**
 * Which subnets the host uses already, from what its kernel and its resolv.conf say. Pure: facts in, facts out.
 *
 * Counted: routes of every table, policy rules with a source or destination, addresses on links, resolvers. Not
 * counted: what belongs to our own links, multicast and broadcast, IPv6 link-local (it is per link), and default
 * routes, also those cut in two or more pieces (`0.0.0.0/1` and `128.0.0.0/1`, as VPN clients install them): a
 * prefix shorter than a registry ever hands out claims no particular network, and if it counted, no subnet at all
 * would be left to choose.
 */
import { type Cidr, contains, type Family, formatCidr, network, overlaps, parseCidr } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import type { Address, Link, Route, Rule } from '../kernel/kernel'
import { readCidr } from './text'

/** What there is to see; lists as {@link Stack} gives them. */
export interface HostView {
  routes: readonly Route[]
  rules: readonly Rule[]
  addresses: readonly Address[]
  links: readonly Link[]
  /** Addresses of the name servers in the host's resolv.conf. */
  resolvers: readonly string[]
}

export interface UsedSubnet {
  /** CIDR. */
  subnet: string
  kind: 'route' | 'rule' | 'address' | 'resolver' | 'network'
  /** For people: `route 10.8.0.0/16 dev tun0 table 52`. */
  description: string
}

/** Shortest prefix that claims a network: IANA hands out IPv4 by /8; fc00::/7 is the widest IPv6 block with an owner. */
const SHORTEST: Record<Family, number> = { 4: 8, 6: 7 }
export const MAIN_TABLE = 254 // linux/rtnetlink.h RT_TABLE_MAIN
export const LOCAL_TABLE = 255 // RT_TABLE_LOCAL
const LINK_LOCAL: Cidr = parseCidr('fe80::/10')
const MULTICAST: Record<Family, Cidr> = { 4: parseCidr('224.0.0.0/4'), 6: parseCidr('ff00::/8') }

/** Indexes or names of links whose addresses and routes are ours, such as the bridges of our networks. */
export type OwnLinks = Iterable<number | string>

/**
 * What a network has on the host. Its links may be somebody else's, too (the parent of a macvlan network is the host's way
 * to its LAN), so only what lies in its subnets is its own.
 */
export interface OwnNetwork {
  links: readonly string[]
  /** CIDRs. */
  subnets: readonly string[]
}

/** The subnets in use, each once, in the order: routes, rules, addresses, resolvers. */
export function usedSubnets(
  host: HostView,
  ownLinks: OwnLinks = [],
  ownNetworks: readonly OwnNetwork[] = [],
): UsedSubnet[] {
  const names = namesOf(host.links)
  const isOwn = ownClaims(ownLinks, ownNetworks, host.links)
  const used = new Map<string, UsedSubnet>()
  const add = (kind: UsedSubnet['kind'], subnet: Cidr | undefined, description: string) => {
    if (subnet === undefined) return
    const text = formatCidr(subnet)
    if (!used.has(text)) used.set(text, { subnet: text, kind, description })
  }
  // routes of the main table first: where a subnet appears several times, theirs is the description that helps
  const routes = [...host.routes].sort((a, b) => rank(a) - rank(b))
  for (const route of routes)
    if (isClaim(route) && !isOwn(route.link, route.destination))
      add('route', claimed(route.destination), describeRoute(route, names))
  for (const rule of host.rules)
    for (const [word, subnet] of [
      ['from', rule.source],
      ['to', rule.destination],
    ] as const)
      if (subnet !== undefined)
        add('rule', claimed(subnet), `rule ${rule.priority} ${word} ${subnet} table ${tableName(rule.table)}`)
  for (const { link, address } of host.addresses)
    if (!isOwn(link, address))
      add('address', claimed(address), `address ${address} dev ${names.get(link) ?? link}`)
  // A resolver on a subnet that one of these links is on is there for whoever else is on that subnet, too.
  const near = host.addresses
    .filter(({ link, address }) => isOwn(link, address))
    .map(own => claimed(own.address))
  for (const resolver of host.resolvers) {
    const alone = single(resolver)
    if (alone && near.some(subnet => subnet && contains(subnet, alone))) continue
    add('resolver', alone, `resolver ${resolver}`)
  }
  return [...used.values()]
}

/** Those of the used subnets that overlap this one. */
export function clashes(subnet: string, used: readonly UsedSubnet[]): UsedSubnet[] {
  const wanted = readCidr(subnet)
  return used.filter(other => overlaps(wanted, readCidr(other.subnet)))
}

/** Throws ERR_HOST_ROUTE_CONFLICT, naming the routes, when an explicit subnet clashes and it is not forced. */
export function refuseClash(subnet: string, used: readonly UsedSubnet[], force = false): void {
  if (force) return
  const found = clashes(subnet, used)
  if (found.length === 0) return
  throw new CnmError(
    'ERR_HOST_ROUTE_CONFLICT',
    `subnet ${subnet} clashes with what the host uses: ${found.map(other => other.description).join('; ')}`,
    { subnet, conflicts: found },
  )
}

/** A network of ours, as far as it matters here. */
export interface NetworkSubnets {
  id: string
  name: string
  /** CIDRs. */
  subnets: readonly string[]
}

export interface Shadow {
  network: string
  name: string
  subnet: string
  /** `route 172.18.0.0/16 dev tun0` */
  route: string
}

/** The kernel's own metric for the route of a connected subnet: 0; net/ipv6/addrconf.c IP6_RT_PRIO_ADDRCONF. */
const CONNECTED_METRIC: Record<Family, number> = { 4: 0, 6: 256 }

/**
 * The networks whose packets a route takes. In the main table, where the routes of our own subnets are, that needs a
 * longer prefix, or the same with no worse metric; a wider route only leads past the network. In another table it needs
 * a rule that leads there before the main table is asked. Nothing for routes of our own links and default routes.
 */
export function shadowed(
  networks: readonly NetworkSubnets[],
  route: Route,
  rules: readonly Rule[],
  ownLinks: OwnLinks = [],
  links: readonly Link[] = [],
): Shadow[] {
  const claim = isClaim(route) ? claimed(route.destination) : undefined
  if (claim === undefined) return []
  if (route.link !== undefined && ownIndexes(ownLinks, links).has(route.link)) return []
  const description = describeRoute(route, namesOf(links))
  const found: Shadow[] = []
  for (const { id, name, subnets } of networks)
    for (const subnet of subnets) {
      const ours = readCidr(subnet)
      if (overlaps(ours, claim) && takes(route, claim, ours, rules))
        found.push({ network: id, name, subnet, route: description })
    }
  return found
}

function takes(route: Route, claim: Cidr, ours: Cidr, rules: readonly Rule[]): boolean {
  if (route.table === MAIN_TABLE) {
    if (claim.length === ours.length) return route.metric <= CONNECTED_METRIC[claim.family]
    return claim.length > ours.length
  }
  const own = rules.filter(({ family }) => family === claim.family)
  // a rule for the main table with a selector serves some packets only; the others go on to the next rule
  const main = own.filter(rule => rule.table === MAIN_TABLE && !isSelective(rule))
  const before = Math.min(...main.map(({ priority }) => priority))
  const narrow = claim.length > ours.length ? claim : ours
  return own.some(
    ({ table, priority, destination }) =>
      table === route.table &&
      priority < before &&
      (destination === undefined || overlaps(readCidr(destination), narrow)),
  )
}

const isSelective = ({ source, destination, mark, iif, oif }: Rule): boolean =>
  [source, destination, mark, iif, oif].some(selector => selector !== undefined)

const rank = (route: Route): number => (route.table === MAIN_TABLE ? 0 : route.table === LOCAL_TABLE ? 2 : 1)

/** Does the route say that its destination is somewhere (or deliberately nowhere)? */
const isClaim = ({ type }: Route): boolean =>
  type !== 'broadcast' && type !== 'multicast' && type !== 'anycast'

/** The subnet, when it claims a particular network. */
function claimed(text: string): Cidr | undefined {
  const subnet = network(readCidr(text))
  if (subnet.length < SHORTEST[subnet.family]) return undefined
  if (overlaps(MULTICAST[subnet.family], subnet) || overlaps(LINK_LOCAL, subnet)) return undefined
  return subnet
}

/** The one address, without a zone; undefined for what is none: resolv.conf is written by all sorts of programs. */
function single(address: string): Cidr | undefined {
  const bare = address.replace(/%.*$/, '')
  try {
    return claimed(`${bare}/${bare.includes(':') ? 128 : 32}`)
  } catch (error) {
    if (isCnmError(error)) return undefined
    throw error
  }
}

const namesOf = (links: readonly Link[]) => new Map(links.map(({ index, name }) => [index, name]))

function ownIndexes(own: OwnLinks, links: readonly Link[]): Set<number> {
  const wanted = new Set(own)
  const indexes = new Set<number>()
  for (const ref of wanted) if (typeof ref === 'number') indexes.add(ref)
  for (const { index, name } of links) if (wanted.has(name)) indexes.add(index)
  return indexes
}

type IsOwn = (link: number | undefined, claim: string) => boolean

function ownClaims(own: OwnLinks, networks: readonly OwnNetwork[], links: readonly Link[]): IsOwn {
  const wholly = ownIndexes(own, links)
  const indexes = new Map(links.map(({ index, name }) => [name, index]))
  const partly = new Map<number, Cidr[]>()
  for (const network of networks) {
    // A pool of everything (`0.0.0.0/0`, of a network whose containers get their addresses elsewhere) tells nothing.
    const subnets = network.subnets.map(readCidr).filter(({ family, length }) => length >= SHORTEST[family])
    for (const name of network.links) {
      const index = indexes.get(name)
      if (index !== undefined) partly.set(index, [...(partly.get(index) ?? []), ...subnets])
    }
  }
  return (link, claim) =>
    link !== undefined &&
    (wholly.has(link) || (partly.get(link) ?? []).some(subnet => contains(subnet, readCidr(claim))))
}

const tableName = (table: number): string =>
  table === MAIN_TABLE ? 'main' : table === LOCAL_TABLE ? 'local' : String(table)

function describeRoute(route: Route, names: ReadonlyMap<number, string>): string {
  const type = route.type === 'unicast' ? '' : `${route.type} `
  const via = route.gateway === undefined ? '' : ` via ${route.gateway}`
  const dev = route.link === undefined ? '' : ` dev ${names.get(route.link) ?? route.link}`
  const table = route.table === MAIN_TABLE ? '' : ` table ${tableName(route.table)}`
  return `route ${type}${route.destination}${via}${dev}${table}`
}
