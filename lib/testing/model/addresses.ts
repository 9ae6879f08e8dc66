import { BITS, formatIp } from '../../base/cidr'
import type { Address, Scope } from '../../kernel/kernel'
import { refuse } from './refusal'
import {
  addOwnRoute,
  dropRoute,
  METRIC_ADDRCONF,
  numberOf,
  prefixOf,
  PROTOCOL_KERNEL,
  TABLES,
} from './routes'
import type { AddressRecord, LinkRecord, Machine, Netns, Prefix, RouteRecord } from './state'
import { readSysctl } from './sysctls'

const networkText = (prefix: Prefix): string => {
  const shift = BigInt(BITS[prefix.family] - prefix.length)
  return `${formatIp({ family: prefix.family, value: (prefix.value >> shift) << shift })}/${prefix.length}`
}

export const ipv6Disabled = (machine: Machine, link: LinkRecord): boolean =>
  machine.lacks.has('ipv6') ||
  readSysctl(machine, link.netns, `net/ipv6/conf/${link.name}/disable_ipv6`) !== '0'

export const showAddress = (link: LinkRecord, record: AddressRecord): Address => ({
  link: link.index,
  address: record.text,
  scope: record.scope,
  tentative: record.tentative,
  permanent: true,
})

function scopeOf(ip: string): Scope {
  if (ip === '::1') return 'host'
  if (/^fe[89ab]/i.test(ip)) return 'link'
  if (/^fe[cdef]/i.test(ip)) return 'site'
  return 'global'
}

export interface NewAddress {
  address: string
  dad?: boolean
  scope?: Scope
  noPrefixRoute?: boolean
}

export function addAddress(machine: Machine, link: LinkRecord, wanted: NewAddress): void {
  const prefix = prefixOf(wanted.address)
  const ip = formatIp(prefix)
  if (prefix.family === 6) {
    if (machine.lacks.has('ipv6')) refuse('EOPNOTSUPP')
    if (/^ff/i.test(ip))
      refuse('EADDRNOTAVAIL', 'ipv6: Cannot assign multicast address without "IFA_F_MCAUTOJOIN" flag.')
    if (ipv6Disabled(machine, link)) refuse('EACCES', 'ipv6: IPv6 is disabled on this device.')
    // one interface has an IPv6 address once, whatever the prefix length
    if (link.addresses.some(a => a.ip === ip)) refuse('EEXIST', 'ipv6: address already assigned.')
  } else if (link.addresses.some(a => a.ip === ip && a.prefix.length === prefix.length))
    refuse('EEXIST', 'ipv4: Address already assigned.')
  const network = networkText(prefix)
  const record: AddressRecord = {
    text: `${ip}/${prefix.length}`,
    ip,
    prefix,
    scope:
      prefix.family === 6
        ? scopeOf(ip)
        : (wanted.scope ??
          (link.kind === undefined && link.name === 'lo' && ip.startsWith('127.') ? 'host' : 'global')),
    tentative: prefix.family === 6 && wanted.dad === true && link.name !== 'lo' && !machine.lacks.has('dad'),
    noPrefixRoute: wanted.noPrefixRoute === true,
    secondary:
      prefix.family === 4 &&
      link.addresses.some(a => a.prefix.family === 4 && !a.secondary && networkText(a.prefix) === network),
  }
  attach(machine, link, record)
}

function attach(machine: Machine, link: LinkRecord, record: AddressRecord): void {
  link.addresses.push(record)
  machine.emit(link.netns, { topic: 'address', change: 'set', address: showAddress(link, record) })
  addressRoutes(machine, link, record)
  if (!record.tentative) return
  machine.later(() => {
    if (!link.addresses.includes(record)) return
    record.tentative = false
    machine.emit(link.netns, { topic: 'address', change: 'set', address: showAddress(link, record) })
  })
}

export function removeAddress(machine: Machine, link: LinkRecord, address: string): void {
  const prefix = prefixOf(address)
  const record = link.addresses.find(
    a =>
      a.prefix.family === prefix.family &&
      a.prefix.value === prefix.value &&
      a.prefix.length === prefix.length,
  )
  if (!record)
    refuse('EADDRNOTAVAIL', prefix.family === 4 ? 'ipv4: Address not found.' : 'ipv6: address not found.')
  const doomed = [record]
  // an IPv4 primary takes its secondaries along, unless they are promoted
  if (prefix.family === 4 && !record.secondary) {
    const rest = link.addresses.filter(a => a.secondary && networkText(a.prefix) === networkText(prefix))
    const promoted = ['all', link.name].some(
      name => readSysctl(machine, link.netns, `net/ipv4/conf/${name}/promote_secondaries`) === '1',
    )
    if (!promoted) doomed.push(...rest)
    else if (rest[0]) rest[0].secondary = false
  }
  for (const each of doomed) detach(machine, link, each)
  if (prefix.family === 4 && !link.addresses.some(a => a.prefix.family === 4)) {
    // the last IPv4 address takes every IPv4 route of the link along (fib_disable_ip)
    for (const route of [...link.routes]) if (route.family === 4) dropRoute(machine, link.netns, route)
  } else for (const each of link.addresses) addressRoutes(machine, link, each)
}

function detach(machine: Machine, link: LinkRecord, record: AddressRecord): void {
  link.addresses.splice(link.addresses.indexOf(record), 1)
  const { netns } = link
  for (const route of [...link.routes])
    if (route.protocol === PROTOCOL_KERNEL && madeFor(route, record)) dropRoute(machine, netns, route)
  // routes that prefer this source address go with its last holder
  if (netns.sourced.size > 0 && !isHeld(netns, record.ip))
    for (const route of [...netns.sourced]) if (route.source === record.ip) dropRoute(machine, netns, route)
  machine.emit(netns, { topic: 'address', change: 'removed', address: showAddress(link, record) })
}

function isHeld(netns: Netns, ip: string): boolean {
  for (const link of netns.links.values()) if (link.addresses.some(a => a.ip === ip)) return true
  return false
}

function madeFor(route: RouteRecord, record: AddressRecord): boolean {
  if (route.family !== record.prefix.family) return false
  if (route.family === 4) return route.source === record.ip
  if (route.table === TABLES.local)
    return route.type === 'local' && route.prefix.value === record.prefix.value
  return route.metric === METRIC_ADDRCONF && route.destination === networkText(record.prefix)
}

/** Makes what is missing of the routes that go with an address, in the link's present state. */
export function addressRoutes(machine: Machine, link: LinkRecord, record: AddressRecord): void {
  const { prefix, ip } = record
  const host: Prefix = { ...prefix, length: BITS[prefix.family] }
  const network = networkText(prefix)
  const networkPrefix = prefixOf(network)
  const loopback = link.name === 'lo'
  if (prefix.family === 4) {
    const primary = record.secondary
      ? link.addresses.find(a => a.prefix.family === 4 && !a.secondary && networkText(a.prefix) === network)
      : undefined
    const source = primary?.ip ?? ip
    addOwnRoute(machine, link, {
      destination: `${ip}/32`,
      prefix: host,
      type: 'local',
      table: TABLES.local,
      scope: 'host',
      metric: 0,
      source,
    })
    if (!link.up || record.secondary || prefix.length === 32) return
    if (!record.noPrefixRoute)
      addOwnRoute(machine, link, {
        destination: network,
        prefix: networkPrefix,
        type: loopback ? 'local' : 'unicast',
        table: loopback ? TABLES.local : TABLES.main,
        scope: loopback ? 'host' : 'link',
        metric: 0,
        source,
      })
    if (prefix.length < 31) {
      const last = networkPrefix.value + (1n << BigInt(32 - prefix.length)) - 1n
      addOwnRoute(machine, link, {
        destination: `${formatIp({ family: 4, value: last })}/32`,
        prefix: { family: 4, value: last, length: 32 },
        type: 'broadcast',
        table: TABLES.local,
        scope: 'link',
        metric: 0,
        source,
      })
    }
    return
  }
  addOwnRoute(machine, link, {
    destination: `${ip}/128`,
    prefix: host,
    type: 'local',
    table: TABLES.local,
    scope: 'global',
    metric: 0,
  })
  if (link.up && !record.noPrefixRoute && ip !== '::1')
    addOwnRoute(machine, link, {
      destination: network,
      prefix: networkPrefix,
      type: 'unicast',
      table: TABLES.main,
      scope: 'global',
      metric: METRIC_ADDRCONF,
    })
}

/* ------------------------------------------------------------- what a link's state does to its addresses */

/** The link came up: connected routes appear; lo gets its own addresses. */
export function startIp(machine: Machine, link: LinkRecord): void {
  if (link.name === 'lo') {
    if (!link.addresses.some(a => a.text === '127.0.0.1/8'))
      addAddress(machine, link, { address: '127.0.0.1/8' })
    if (!ipv6Disabled(machine, link) && !link.addresses.some(a => a.ip === '::1'))
      addAddress(machine, link, { address: '::1/128' })
  }
  for (const record of link.addresses) addressRoutes(machine, link, record)
}

/** The link is up and has carrier: IPv6 makes its link-local address and joins multicast. */
export function startIpv6(machine: Machine, link: LinkRecord): void {
  if (link.ipv6Ready || link.name === 'lo' || ipv6Disabled(machine, link)) return
  link.ipv6Ready = true
  addOwnRoute(machine, link, {
    destination: 'ff00::/8',
    prefix: prefixOf('ff00::/8'),
    type: 'multicast',
    table: TABLES.local,
    scope: 'global',
    metric: METRIC_ADDRCONF,
  })
  const mode = readSysctl(machine, link.netns, `net/ipv6/conf/${link.name}/addr_gen_mode`)
  if (mode !== '0' || link.addresses.some(a => a.scope === 'link' && a.prefix.family === 6)) return
  const dad = readSysctl(machine, link.netns, `net/ipv6/conf/${link.name}/accept_dad`) !== '0'
  addAddress(machine, link, { address: `${linkLocalOf(link.mac)}/64`, dad })
}

/** fe80::/64 and the modified EUI-64 of the MAC address (RFC 4291 appendix A). */
export function linkLocalOf(mac: string): string {
  const b = mac.split(':').map(octet => Number.parseInt(octet, 16))
  const eui = [b[0]! ^ 2, b[1]!, b[2]!, 0xff, 0xfe, b[3]!, b[4]!, b[5]!]
  let value = numberOf('fe80::')
  eui.forEach((octet, i) => {
    value |= BigInt(octet) << BigInt(8 * (7 - i))
  })
  return formatIp({ family: 6, value })
}

/** The link went down: IPv6 addresses and all routes but IPv4's host routes go. */
export function stopIp(machine: Machine, link: LinkRecord): void {
  const keep = readSysctl(machine, link.netns, `net/ipv6/conf/${link.name}/keep_addr_on_down`) === '1'
  stopIpv6(machine, link, keep)
  for (const route of [...link.routes])
    if (route.family === 4 && !(route.table === TABLES.local && route.type === 'local'))
      dropRoute(machine, link.netns, route)
}

/** The link goes down, or `disable_ipv6` was set: addresses and routes of IPv6 go. */
export function stopIpv6(machine: Machine, link: LinkRecord, keepStatic = false): void {
  link.ipv6Ready = false
  for (const record of [...link.addresses])
    if (record.prefix.family === 6 && !(keepStatic && record.scope !== 'link')) detach(machine, link, record)
  for (const route of [...link.routes])
    if (
      route.family === 6 &&
      !(route.link?.name === 'lo' && route.gateway === undefined && route.type !== 'unicast')
    )
      dropRoute(machine, link.netns, route)
}
