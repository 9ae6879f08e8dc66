import { addressOf, type Family, familyOf, ipBytes, ipText } from '../../base/cidr'
import type { Change, Route, RouteType } from '../kernel'
import { lengthOf, SCOPES, scopeOf } from './address'
import {
  AF_INET,
  AF_INET6,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTA_DST,
  RTA_GATEWAY,
  RTA_METRICS,
  RTA_MULTIPATH,
  RTA_OIF,
  RTA_PREFSRC,
  RTA_PRIORITY,
  RTA_TABLE,
  RTA_VIA,
  RTAX_MTU,
  RTM_DELROUTE,
  RTM_F_FIB_MATCH,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTNH_F_ONLINK,
  RTPROT_STATIC,
} from './constants'
import type { Attributes, Messages, Writer } from './message'
import type { Resolver } from './resolver'

/** linux/rtnetlink.h RTN_*, from 1 */
const TYPES: RouteType[] = [
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
  'prohibit',
]

/** struct rtmsg */
function rtmsg(
  w: Writer,
  family: number,
  length: number,
  table: number,
  protocol: number,
  scope: number,
  type: number,
  flags: number,
): void {
  w.u8(family)
  w.u8(length)
  w.u8(0) // source prefix
  w.u8(0) // type of service
  w.u8(table)
  w.u8(protocol)
  w.u8(scope)
  w.u8(type)
  w.u32(flags)
}

type RouteChange = Extract<Change, { op: 'addRoute' | 'replaceRoute' | 'removeRoute' }>

/** Routes are made with RTPROT_STATIC: a routing daemon that starts later leaves those alone. */
export function encodeRoute(w: Writer, change: RouteChange, resolve: Resolver): void {
  const { route } = change
  const remove = change.op === 'removeRoute'
  const six = familyOf(route.destination) === 6
  const length = lengthOf(route.destination)
  const table = route.table ?? RT_TABLE_MAIN
  const type = route.type ?? 'unicast'
  w.request(
    remove ? RTM_DELROUTE : RTM_NEWROUTE,
    remove ? 0 : NLM_F_CREATE | (change.op === 'replaceRoute' ? NLM_F_REPLACE : NLM_F_EXCL),
  )
  rtmsg(
    w,
    six ? AF_INET6 : AF_INET,
    length,
    table < 256 ? table : 0,
    remove ? 0 : RTPROT_STATIC,
    route.scope ? SCOPES[route.scope] : defaultScope(six, remove, type, route.gateway !== undefined),
    remove && route.type === undefined ? 0 : TYPES.indexOf(type) + 1,
    route.onLink ? RTNH_F_ONLINK : 0,
  )
  if (length > 0) w.attrBytes(RTA_DST, ipBytes(addressOf(route.destination)))
  if (route.gateway !== undefined) {
    const gateway = ipBytes(route.gateway)
    if (gateway.length === 16 && !six) {
      const via = w.open(RTA_VIA) // RFC 5549: an IPv4 route by an IPv6 gateway
      w.u16(AF_INET6)
      w.bytes(gateway)
      w.close(via)
      w.zeros(2)
    } else w.attrBytes(RTA_GATEWAY, gateway)
  }
  if (route.source !== undefined) w.attrBytes(RTA_PREFSRC, ipBytes(route.source))
  if (route.link !== undefined) w.attr32(RTA_OIF, resolve.link(route.link))
  if (route.metric !== undefined) w.attr32(RTA_PRIORITY, route.metric)
  if (table >= 256) w.attr32(RTA_TABLE, table)
  if (route.mtu !== undefined) {
    const metrics = w.open(RTA_METRICS)
    w.attr32(RTAX_MTU, route.mtu)
    w.close(metrics)
  }
  w.end()
}

/** What `ip route` takes when none is given. IPv6 knows no scopes; on removal "nowhere" matches any. */
function defaultScope(six: boolean, remove: boolean, type: RouteType, gateway: boolean): number {
  if (six) return RT_SCOPE_UNIVERSE
  if (type === 'local') return RT_SCOPE_HOST
  if (type === 'broadcast' || type === 'multicast' || type === 'anycast') return RT_SCOPE_LINK
  if (remove) return RT_SCOPE_NOWHERE
  return type === 'unicast' && !gateway ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE
}

export function encodeGetRoutes(w: Writer, family: Family, table = 0): void {
  w.dump(RTM_GETROUTE)
  rtmsg(w, family === 6 ? AF_INET6 : AF_INET, 0, table < 256 ? table : 0, 0, 0, 0, 0)
  if (table >= 256) w.attr32(RTA_TABLE, table)
  w.end()
}

/** Asks for the entry of the table that matches, not for the cached way that follows from it. */
export function encodeRouteTo(w: Writer, destination: string): void {
  const bytes = ipBytes(destination)
  w.request(RTM_GETROUTE)
  rtmsg(w, bytes.length === 16 ? AF_INET6 : AF_INET, bytes.length * 8, 0, 0, 0, 0, RTM_F_FIB_MATCH)
  w.attrBytes(RTA_DST, bytes)
  w.end()
}

/** RTM_NEWROUTE or RTM_DELROUTE. Of several next hops the first is told. Undefined for types without a name here. */
export function decodeRoute(message: Messages): Route | undefined {
  if ((message.type !== RTM_NEWROUTE && message.type !== RTM_DELROUTE) || message.size < 12) return undefined
  const family = message.u8(0)
  const type = TYPES[message.u8(7) - 1]
  if ((family !== AF_INET && family !== AF_INET6) || type === undefined) return undefined
  const size = family === AF_INET6 ? 16 : 4
  const route: Route = {
    family: family === AF_INET6 ? 6 : 4,
    destination: family === AF_INET6 ? '::/0' : '0.0.0.0/0',
    type,
    metric: 0,
    table: message.u8(4),
    scope: scopeOf(message.u8(6)),
    protocol: message.u8(5),
  }
  if (message.u32(8) & RTNH_F_ONLINK) route.onLink = true
  const attributes = message.attributes(12)
  while (attributes.next())
    switch (attributes.type) {
      case RTA_DST:
        if (attributes.size === size) route.destination = `${ipText(attributes.bytes())}/${message.u8(1)}`
        break
      case RTA_PREFSRC:
        if (attributes.size === size) route.source = ipText(attributes.bytes())
        break
      case RTA_PRIORITY:
        route.metric = attributes.u32()
        break
      case RTA_TABLE:
        route.table = attributes.u32()
        break
      case RTA_METRICS:
        decodeMetrics(attributes, route)
        break
      case RTA_MULTIPATH:
        decodeFirstHop(attributes, route)
        break
      default:
        decodeHop(attributes, route)
    }
  return route
}

/** What stands at the route itself or, when there are several next hops, at each of them. */
function decodeHop(attributes: Attributes, route: Route): void {
  switch (attributes.type) {
    case RTA_OIF:
      route.link = attributes.u32()
      break
    case RTA_GATEWAY:
      if (attributes.size === 4 || attributes.size === 16) route.gateway = ipText(attributes.bytes())
      break
    case RTA_VIA: // u16 family, address
      if (attributes.size === 6 || attributes.size === 18) route.gateway = ipText(attributes.bytes(2))
      break
  }
}

/** struct rtnexthop: length, flags, weight, index of the link; attributes. */
function decodeFirstHop(multipath: Attributes, route: Route): void {
  if (multipath.size < 8) return
  if (multipath.u8(2) & RTNH_F_ONLINK) route.onLink = true
  route.link = multipath.u32(4)
  const inner = multipath.nested(8, multipath.u16(0))
  while (inner.next()) decodeHop(inner, route)
}

function decodeMetrics(metrics: Attributes, route: Route): void {
  const inner = metrics.nested()
  while (inner.next()) if (inner.type === RTAX_MTU) route.mtu = inner.u32()
}
