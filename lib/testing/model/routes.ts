import { BITS, familyOf, ipBytes, type Family } from '../../base/cidr'
import type { Route, RouteSpec } from '../../kernel/kernel'
import { refuse } from './refusal'
import { readSysctl } from './sysctls'
import type { LinkRecord, Machine, Netns, Prefix, RouteRecord } from './state'

/** linux/rtnetlink.h */
const TABLE_MAIN = 254
const TABLE_LOCAL = 255
const TABLE_DEFAULT = 253
const RTPROT_KERNEL = 2
const RTPROT_STATIC = 4
/** Metrics of IPv6 routes: given by a user without one, and made for an address. net/ipv6.h */
const IP6_RT_PRIO_USER = 1024
const IP6_RT_PRIO_ADDRCONF = 256

export function numberOf(ip: string): bigint {
  let value = 0n
  for (const byte of ipBytes(ip)) value = (value << 8n) | BigInt(byte)
  return value
}

export function prefixOf(text: string): Prefix {
  const slash = text.indexOf('/')
  const ip = slash < 0 ? text : text.slice(0, slash)
  const family = familyOf(ip)
  return { family, value: numberOf(ip), length: slash < 0 ? BITS[family] : Number(text.slice(slash + 1)) }
}

export const covers = (prefix: Prefix, ip: Prefix): boolean => {
  if (prefix.family !== ip.family) return false
  const shift = BigInt(BITS[prefix.family] - prefix.length)
  return prefix.value >> shift === ip.value >> shift
}

const bucketKey = (route: { family: Family; table: number; destination: string }) =>
  `${route.family} ${route.table} ${route.destination}`

export const isLinkLocal = (ip: string): boolean => /^fe[89ab]/i.test(ip)

/* ------------------------------------------------------------- the table */

export function insertRoute(machine: Machine, netns: Netns, route: RouteRecord): void {
  const key = bucketKey(route)
  const bucket = netns.routes.get(key)
  if (bucket) {
    // the kernel keeps the routes of one destination by metric, newer after older
    let at = bucket.length
    while (at > 0 && bucket[at - 1]!.metric > route.metric) at--
    bucket.splice(at, 0, route)
  } else netns.routes.set(key, [route])
  route.link?.routes.add(route)
  if (route.source !== undefined && route.protocol !== RTPROT_KERNEL) netns.sourced.add(route)
  if (netns.listeners.size > 0)
    machine.emit(netns, { topic: 'route', change: 'set', route: showRoute(route) })
}

export function dropRoute(machine: Machine, netns: Netns, route: RouteRecord, silent = false): void {
  const key = bucketKey(route)
  const bucket = netns.routes.get(key)
  const at = bucket?.indexOf(route) ?? -1
  if (!bucket || at < 0) return
  bucket.splice(at, 1)
  if (bucket.length === 0) netns.routes.delete(key)
  route.link?.routes.delete(route)
  netns.sourced.delete(route)
  if (!silent && netns.listeners.size > 0)
    machine.emit(netns, { topic: 'route', change: 'removed', route: showRoute(route) })
}

export function showRoute(route: RouteRecord): Route {
  const shown: Route = {
    family: route.family,
    destination: route.destination,
    type: route.type,
    metric: route.metric,
    table: route.table,
    scope: route.scope,
    protocol: route.protocol,
  }
  if (route.gateway !== undefined) shown.gateway = route.gateway
  if (route.link !== undefined) shown.link = route.link.index
  if (route.source !== undefined) shown.source = route.source
  if (route.onLink) shown.onLink = true
  if (route.mtu !== undefined) shown.mtu = route.mtu
  return shown
}

export function allRoutes(netns: Netns): RouteRecord[] {
  const order = (a: RouteRecord, b: RouteRecord) =>
    a.family - b.family ||
    a.table - b.table ||
    (a.prefix.value < b.prefix.value ? -1 : a.prefix.value > b.prefix.value ? 1 : 0) ||
    a.prefix.length - b.prefix.length
  return [...netns.routes.values()].flat().sort(order)
}

/** Longest prefix, then lowest metric, in one table. */
function best(
  netns: Netns,
  table: number,
  ip: Prefix,
  fits: (route: RouteRecord) => boolean = () => true,
): RouteRecord | undefined {
  let found: RouteRecord | undefined
  for (const bucket of netns.routes.values()) {
    const first = bucket[0]!
    if (first.table !== table || !covers(first.prefix, ip)) continue
    if (found && found.prefix.length >= first.prefix.length) continue
    found = bucket.find(fits) ?? found
  }
  return found
}

/** As the kernel routes: policy rules by priority, the first table that answers. */
export function lookup(
  netns: Netns,
  text: string,
  fits?: (route: RouteRecord) => boolean,
): RouteRecord | undefined {
  const ip = prefixOf(text)
  const rules = [
    { priority: 0, table: TABLE_LOCAL },
    ...netns.rules.filter(
      rule =>
        rule.family === ip.family &&
        rule.source === undefined &&
        rule.mark === undefined &&
        rule.iif === undefined &&
        rule.oif === undefined &&
        (rule.destination === undefined || covers(prefixOf(rule.destination), ip)),
    ),
    { priority: 32766, table: TABLE_MAIN },
    { priority: 32767, table: TABLE_DEFAULT },
  ].sort((a, b) => a.priority - b.priority)
  for (const rule of rules) {
    const route = best(netns, rule.table, ip, fits)
    if (route) return route
  }
  return undefined
}

/** Is it an address of this namespace (127.0.0.0/8 included)? */
export const isLocal = (netns: Netns, ip: string): boolean =>
  best(netns, TABLE_LOCAL, prefixOf(ip))?.type === 'local'

/* ------------------------------------------------------------- what a user asks for */

const DEAD_END = new Set(['blackhole', 'unreachable', 'prohibit'])

export function addRoute(
  machine: Machine,
  netns: Netns,
  spec: RouteSpec,
  link: LinkRecord | undefined,
  replace: boolean,
): void {
  const prefix = prefixOf(spec.destination)
  const { family } = prefix
  const type = spec.type ?? 'unicast'
  const shift = BigInt(BITS[family] - prefix.length)
  if (family === 4 && (prefix.value >> shift) << shift !== prefix.value)
    refuse('EINVAL', 'Invalid prefix for given prefix length.')
  const route: RouteRecord = {
    family,
    destination: spec.destination,
    prefix,
    type,
    gateway: spec.gateway,
    link,
    source: spec.source,
    metric: spec.metric ?? (family === 6 ? IP6_RT_PRIO_USER : 0),
    table: spec.table ?? TABLE_MAIN,
    scope:
      family === 6
        ? 'global'
        : (spec.scope ??
          (type === 'local' ? 'host' : type === 'unicast' && !spec.gateway ? 'link' : 'global')),
    protocol: RTPROT_STATIC,
    onLink: spec.onLink,
    mtu: spec.mtu,
  }
  if (family === 6 && route.metric === 0) route.metric = IP6_RT_PRIO_USER
  if (DEAD_END.has(type)) {
    // an IPv6 dead end hangs on the loopback link, an IPv4 one on none
    route.link = family === 6 ? netns.names.get('lo') : undefined
    route.gateway = undefined
  } else if (family === 4) checkNextHop4(netns, route)
  else checkNextHop6(machine, netns, route)
  if (spec.source !== undefined && !isLocal(netns, spec.source))
    refuse('EINVAL', family === 4 ? 'Invalid prefsrc address.' : 'Invalid source address')
  const same = netns.routes.get(bucketKey(route))?.find(r => r.metric === route.metric)
  if (same && !replace) refuse('EEXIST')
  if (same) dropRoute(machine, netns, same, true)
  insertRoute(machine, netns, route)
}

/** net/ipv4/fib_semantics.c fib_check_nh: the gateway must be reached over a link, not over another gateway. */
function checkNextHop4(netns: Netns, route: RouteRecord): void {
  const { link, gateway } = route
  if (gateway === undefined) {
    if (!link) refuse('ENODEV')
    if (!link.up) refuse('ENETDOWN', 'Device for nexthop is not up.')
    return
  }
  if (route.onLink) {
    if (!link) refuse('ENODEV', 'Nexthop device required for onlink.')
    if (!link.up) refuse('ENETDOWN', 'Nexthop device is not up.')
    return
  }
  const via = lookup(
    netns,
    gateway,
    r => (r.scope === 'link' || r.scope === 'host') && (!link || r.link === link || r.type === 'local'),
  )
  if (!via) refuse('ENETUNREACH', 'Nexthop has invalid gateway.')
  if (via.type !== 'unicast' && via.type !== 'local') refuse('EINVAL', 'Nexthop has invalid gateway.')
  if (link && !link.up) refuse('ENETDOWN')
  route.link = link ?? via.link
}

/** net/ipv6/route.c fib6_nh_init and ip6_validate_gw. */
function checkNextHop6(machine: Machine, netns: Netns, route: RouteRecord): void {
  const { link, gateway } = route
  if (gateway !== undefined) {
    if (isLocal(netns, gateway) && !isLinkLocal(gateway))
      refuse('EINVAL', 'Gateway can not be a local address.')
    if (isLinkLocal(gateway)) {
      if (!link) refuse('EINVAL', 'Egress device not specified.')
    } else if (!route.onLink) {
      const via = lookup(netns, gateway, r => !link || r.link === link)
      if (!via || via.gateway !== undefined || DEAD_END.has(via.type)) refuse('EHOSTUNREACH')
      route.link = link ?? via.link
    }
  }
  if (!route.link) refuse('ENODEV')
  if (readSysctl(machine, netns, `net/ipv6/conf/${route.link.name}/disable_ipv6`) === '1')
    refuse('EACCES', 'IPv6 is disabled on nexthop device.')
  if (!route.link.up) refuse('ENETDOWN', 'Nexthop device is not up.')
}

export function removeRoute(
  machine: Machine,
  netns: Netns,
  spec: RouteSpec,
  link: LinkRecord | undefined,
): void {
  const { family } = prefixOf(spec.destination)
  const bucket = netns.routes.get(
    bucketKey({ family, table: spec.table ?? TABLE_MAIN, destination: spec.destination }),
  )
  const route = bucket?.find(
    r =>
      (spec.type === undefined || r.type === spec.type) &&
      (spec.gateway === undefined || r.gateway === spec.gateway) &&
      (link === undefined || r.link === link || r.link === undefined) &&
      (!spec.metric || r.metric === spec.metric) &&
      (spec.source === undefined || family === 6 || r.source === spec.source),
  )
  if (!route) refuse('ESRCH')
  dropRoute(machine, netns, route)
}

/* ------------------------------------------------------------- what the kernel makes by itself */

interface OwnRoute {
  destination: string
  prefix: Prefix
  type: RouteRecord['type']
  table: number
  scope: RouteRecord['scope']
  metric: number
  source?: string
}

/** A route of the kernel's own, unless that link has it already. */
export function addOwnRoute(machine: Machine, link: LinkRecord, own: OwnRoute): void {
  const { netns } = link
  const { family } = own.prefix
  for (const route of link.routes)
    if (
      route.destination === own.destination &&
      route.protocol === RTPROT_KERNEL &&
      route.table === own.table &&
      route.type === own.type &&
      route.source === own.source
    )
      return
  insertRoute(machine, netns, {
    family,
    destination: own.destination,
    prefix: own.prefix,
    type: own.type,
    gateway: undefined,
    link,
    source: own.source,
    metric: own.metric,
    table: own.table,
    scope: own.scope,
    protocol: RTPROT_KERNEL,
    onLink: undefined,
    mtu: undefined,
  })
}

export const TABLES = { main: TABLE_MAIN, local: TABLE_LOCAL }
export const METRIC_ADDRCONF = IP6_RT_PRIO_ADDRCONF
export const PROTOCOL_KERNEL = RTPROT_KERNEL
