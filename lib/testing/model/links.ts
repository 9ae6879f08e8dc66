import { randomMac } from '../../base/ids'
import type { Change, Link, LinkRef, LinkSpec, LinkStatistics, Stack } from '../../kernel/kernel'
import { startIp, startIpv6, stopIp } from './addresses'
import { refuse } from './refusal'
import type { LinkRecord, Machine, Netns, RouteRecord } from './state'
import { dropSysctls, inheritSysctls, readSysctl } from './sysctls'

/** linux/if.h IFNAMSIZ less the final NUL. */
const NAME_BYTES = 15
/** net/bridge/br_private.h BR_MAX_PORTS: 1 << 10 numbers, of which 0 is not given out. */
const BRIDGE_PORTS = 1023
const MTU_LEAST = 68
const MTU_MOST = 65535
/** linux/if_link.h: IANA's VXLAN port. */
const VXLAN_PORT = 4789

const NO_STATISTICS: LinkStatistics = {
  rxBytes: 0,
  txBytes: 0,
  rxPackets: 0,
  txPackets: 0,
  rxErrors: 0,
  txErrors: 0,
  rxDropped: 0,
  txDropped: 0,
}

/* ------------------------------------------------------------- looking */

export function findLink(netns: Netns, ref: LinkRef): LinkRecord | undefined {
  return typeof ref === 'number' ? netns.links.get(ref) : netns.names.get(ref)
}

export const needLink = (netns: Netns, ref: LinkRef): LinkRecord => {
  if (typeof ref === 'string' && Buffer.byteLength(ref) > NAME_BYTES) refuse('ERANGE')
  return findLink(netns, ref) ?? refuse('ENODEV')
}

export function hasCarrier(link: LinkRecord): boolean {
  if (!link.up) return false
  if (link.kind === 'veth') return link.peer?.up === true
  if (link.kind === 'bridge') return !link.hadPorts || [...link.ports].some(hasCarrier)
  if (link.parent) return hasCarrier(link.parent)
  return true
}

export function showLink(link: LinkRecord): Link {
  const { data, port } = link
  const shown: Link = {
    index: link.index,
    name: link.name,
    kind: link.kind,
    mac: link.mac,
    mtu: link.mtu,
    up: link.up,
    carrier: hasCarrier(link),
    loopback: link.name === 'lo' && link.kind === undefined,
    master: link.master?.index,
    parent: link.peer?.index ?? link.parent?.index,
    alias: link.alias,
    statistics: { ...NO_STATISTICS },
  }
  if (port)
    shown.port = {
      hairpin: port.hairpin,
      isolated: port.isolated,
      learning: port.learning,
      state: hasCarrier(link) && link.master?.up ? 3 : 0, // linux/if_bridge.h BR_STATE_FORWARDING, _DISABLED
    }
  if (data.vxlan) {
    const { parent, ...rest } = data.vxlan
    shown.info = { vxlan: { ...rest, ...(parent && { parent: parent.index }) } }
  } else if (data.macvlan) shown.info = { macvlan: { ...data.macvlan } }
  else if (data.ipvlan) shown.info = { ipvlan: { ...data.ipvlan } }
  else if (data.vlan) shown.info = { vlan: { ...data.vlan } }
  return shown
}

const announce = (machine: Machine, link: LinkRecord) => {
  if (link.netns.listeners.size > 0)
    machine.emit(link.netns, { topic: 'link', change: 'set', link: showLink(link) })
}

/* ------------------------------------------------------------- making */

/** net/core/dev.c dev_valid_name; rtnetlink refuses what is too long before that. */
export function checkName(name: string): void {
  if (Buffer.byteLength(name) > NAME_BYTES) refuse('ERANGE', 'Attribute failed policy validation')
  if (name === '' || name === '.' || name === '..' || /[\s/:%]/.test(name)) refuse('EINVAL')
}

function checkFree(netns: Netns, name: string, index: number | undefined): void {
  checkName(name)
  if (netns.names.has(name) || (index !== undefined && netns.links.has(index))) refuse('EEXIST')
  // the sysctl directories of these names are taken
  if (name === 'all' || name === 'default') refuse('EINVAL')
}

function checkMtu(mtu: number | undefined, most = MTU_MOST): void {
  if (mtu === undefined) return
  if (mtu < MTU_LEAST) refuse('EINVAL', 'mtu less than device minimum.')
  if (mtu > most) refuse('EINVAL', 'mtu greater than device maximum.')
}

function checkMac(mac: string | undefined): void {
  if (mac === undefined) return
  const first = Number.parseInt(mac.slice(0, 2), 16)
  if ((first & 1) === 1 || /^(00:){5}00$/.test(mac)) refuse('EADDRNOTAVAIL')
}

export function makeLink(
  netns: Netns,
  wanted: { name: string; kind: string | undefined; index?: number; mac?: string; mtu?: number },
): LinkRecord {
  while (netns.links.has(netns.nextIndex)) netns.nextIndex++
  const index = wanted.index ?? netns.nextIndex++
  const link: LinkRecord = {
    netns,
    index,
    name: wanted.name,
    kind: wanted.kind,
    mac: wanted.mac ?? randomMac(),
    macSet: wanted.mac !== undefined,
    mtu: wanted.mtu ?? 1500,
    mtuSet: false,
    up: false,
    promiscuous: false,
    alias: undefined,
    master: undefined,
    ports: new Set(),
    hadPorts: false,
    peer: undefined,
    parent: undefined,
    children: new Set(),
    port: undefined,
    data: {},
    addresses: [],
    routes: new Set(),
    neighbours: new Map(),
    fdb: [],
    shaper: undefined,
    ingressMirror: undefined,
    ipv6Ready: false,
  }
  netns.links.set(index, link)
  netns.names.set(link.name, link)
  inheritSysctls(netns, link.name)
  return link
}

/** `ip link add`. All or nothing, like the kernel: a refusal leaves nothing behind. */
export function addLink(
  machine: Machine,
  home: Netns,
  spec: LinkSpec,
  stackOf: (stack: Stack) => Netns,
): void {
  if (machine.lacks.has(spec.kind)) refuse('EOPNOTSUPP', 'Unknown device type.')
  const netns = spec.netns ? stackOf(spec.netns) : home
  checkFree(netns, spec.name, spec.index)
  checkMtu(spec.mtu)
  checkMac(spec.mac)
  const master = spec.master === undefined ? undefined : findMaster(netns, spec.master)
  const link = build(home, netns, spec, stackOf)
  try {
    if (master) enslave(machine, link, master)
  } catch (error) {
    unlink(machine, link)
    throw error
  }
  link.alias = spec.alias
  announce(machine, link)
  if (link.peer) announce(machine, link.peer)
  if (spec.kind === 'veth' && spec.peer.up && link.peer) setUp(machine, link.peer, true)
  if (spec.up) setUp(machine, link, true)
}

function build(home: Netns, netns: Netns, spec: LinkSpec, stackOf: (stack: Stack) => Netns): LinkRecord {
  switch (spec.kind) {
    case 'veth': {
      const far = spec.peer.netns ? stackOf(spec.peer.netns) : netns
      checkFree(far, spec.peer.name, spec.peer.index)
      if (far === netns && spec.peer.name === spec.name) refuse('EEXIST')
      checkMtu(spec.peer.mtu)
      checkMac(spec.peer.mac)
      // the kernel makes the peer first
      const peer = makeLink(far, { ...spec.peer, kind: 'veth' })
      const link = makeLink(netns, spec)
      link.peer = peer
      peer.peer = link
      return link
    }
    case 'bridge': {
      const link = makeLink(netns, spec)
      link.data.bridge = {
        vlanFiltering: spec.vlanFiltering ?? false,
        multicastSnooping: spec.multicastSnooping ?? true,
      }
      return link
    }
    case 'vxlan': {
      const port = spec.port ?? VXLAN_PORT
      const parent = spec.parent === undefined ? undefined : needLink(home, spec.parent)
      for (const other of netns.links.values())
        if (other.data.vxlan?.id === spec.id && other.data.vxlan.port === port)
          refuse('EEXIST', 'A VXLAN device with the specified VNI already exists.')
      if (spec.id < 0 || spec.id >= 2 ** 24) refuse('ERANGE')
      const link = makeLink(netns, spec)
      link.data.vxlan = {
        id: spec.id,
        port,
        ...(spec.local !== undefined && { local: spec.local }),
        learning: spec.learning ?? true,
        proxy: spec.proxy ?? false,
        ...(parent && { parent }),
      }
      parent?.children.add(link)
      return link
    }
    case 'macvlan': {
      const parent = root(needLink(home, spec.parent), 'macvlan')
      if (parent.name === 'lo') refuse('EINVAL')
      if (parent.master || hasChild(parent, 'ipvlan')) refuse('EBUSY')
      const siblings = [...parent.children].filter(c => c.data.macvlan)
      if (siblings.some(c => c.data.macvlan?.mode === 'passthru')) refuse('EINVAL')
      if (siblings.length > 0 && spec.mode === 'passthru') refuse('EINVAL')
      return below(netns, spec, parent, link => {
        const shared = siblings[0]?.data.macvlan?.broadcastCutoff ?? 1
        const { mode, broadcastQueue = 1000, broadcastCutoff = shared } = spec
        link.data.macvlan = { mode, broadcastQueue, broadcastCutoff }
        // It is the parent's: all on it have the last one that was set.
        for (const { data } of siblings) if (data.macvlan) data.macvlan.broadcastCutoff = broadcastCutoff
        if (spec.mode === 'passthru' && spec.mac === undefined) link.mac = parent.mac
      })
    }
    case 'ipvlan': {
      const parent = root(needLink(home, spec.parent), 'ipvlan')
      if (parent.name === 'lo') refuse('EINVAL')
      if (parent.master || hasChild(parent, 'macvlan')) refuse('EBUSY')
      return below(netns, spec, parent, link => {
        link.data.ipvlan = { mode: spec.mode, flag: spec.flag ?? 'bridge' }
        link.mac = parent.mac
      })
    }
    case 'vlan': {
      const parent = needLink(home, spec.parent)
      if (parent.name === 'lo') refuse('EOPNOTSUPP')
      if (spec.id < 0 || spec.id > 4094) refuse('ERANGE')
      if ([...parent.children].some(c => c.data.vlan?.id === spec.id)) refuse('EEXIST')
      return below(netns, spec, parent, link => {
        link.data.vlan = { id: spec.id }
        if (spec.mac === undefined) link.mac = parent.mac
      })
    }
    default:
      return makeLink(netns, spec)
  }
}

/** A macvlan (ipvlan) on a macvlan (ipvlan) really stands on the link below it. */
function root(link: LinkRecord, kind: 'macvlan' | 'ipvlan'): LinkRecord {
  let at = link
  while (at.kind === kind && at.parent) at = at.parent
  return at
}

const hasChild = (parent: LinkRecord, kind: 'macvlan' | 'ipvlan') =>
  [...parent.children].some(child => child.kind === kind)

function below(
  netns: Netns,
  spec: LinkSpec,
  parent: LinkRecord,
  finish: (link: LinkRecord) => void,
): LinkRecord {
  const link = makeLink(netns, { ...spec, mtu: spec.mtu ?? parent.mtu })
  link.parent = parent
  parent.children.add(link)
  finish(link)
  return link
}

/* ------------------------------------------------------------- removing */

/** `ip link del`: with it go its peer and what stands on it. */
export function removeLink(machine: Machine, link: LinkRecord): void {
  if (link.kind === undefined) refuse('EOPNOTSUPP')
  unlink(machine, link)
}

export function unlink(machine: Machine, link: LinkRecord): void {
  const { netns } = link
  if (netns.links.get(link.index) !== link) return
  for (const child of [...link.children]) unlink(machine, child)
  for (const port of [...link.ports]) release(machine, port)
  if (link.master) release(machine, link)
  link.parent?.children.delete(link)
  link.data.vxlan?.parent?.children.delete(link)
  withdraw(machine, link)
  if (netns.listeners.size > 0)
    machine.emit(netns, { topic: 'link', change: 'removed', link: showLink(link) })
  const { peer } = link
  if (!peer) return
  link.peer = undefined
  peer.peer = undefined
  unlink(machine, peer)
}

/** Takes a link out of its namespace, with all that is kept there about it. */
function withdraw(machine: Machine, link: LinkRecord): void {
  const { netns } = link
  if (link.up) {
    link.up = false
    settleCarrier(machine, link)
  }
  stopIp(machine, link)
  for (const route of [...link.routes]) forgetRoute(netns, link, route)
  link.addresses.length = 0
  link.neighbours.clear()
  for (const other of netns.links.values()) if (other.ingressMirror === link) other.ingressMirror = undefined
  link.ingressMirror = undefined
  netns.links.delete(link.index)
  netns.names.delete(link.name)
  dropSysctls(netns, link.name)
}

function forgetRoute(netns: Netns, link: LinkRecord, route: RouteRecord) {
  link.routes.delete(route)
  const key = `${route.family} ${route.table} ${route.destination}`
  const bucket = netns.routes.get(key)
  if (!bucket) return
  bucket.splice(bucket.indexOf(route), 1)
  netns.sourced.delete(route)
  if (bucket.length === 0) netns.routes.delete(key)
}

/* ------------------------------------------------------------- changing */

/** Up and down, with all that follows in addresses and routes, here and on links that depend on it. */
export function setUp(machine: Machine, link: LinkRecord, up: boolean): void {
  if (link.up === up) return
  if (up && link.kind === 'vlan' && !link.parent?.up) refuse('ENETDOWN')
  link.up = up
  if (up) startIp(machine, link)
  else stopIp(machine, link)
  announce(machine, link)
  settleCarrier(machine, link)
  if (!up) for (const child of [...link.children]) if (child.kind === 'vlan') setUp(machine, child, false)
}

/** Carrier may have come or gone here, at the peer, at the bridge and above. */
function settleCarrier(machine: Machine, link: LinkRecord): void {
  const touched = new Set<LinkRecord>()
  const visit = (at: LinkRecord | undefined) => {
    if (!at || touched.has(at)) return
    touched.add(at)
    if (hasCarrier(at)) startIpv6(machine, at)
    visit(at.peer)
    visit(at.master)
    for (const child of at.children) visit(child)
  }
  visit(link)
  for (const at of touched) if (at !== link) announce(machine, at)
}

function findMaster(netns: Netns, ref: LinkRef): LinkRecord {
  const master = typeof ref === 'string' ? needLink(netns, ref) : findLink(netns, ref)
  return master ?? refuse('EINVAL')
}

/** net/bridge/br_if.c br_add_if; before it, rtnetlink takes the link from the master it had. */
function enslave(machine: Machine, link: LinkRecord, master: LinkRecord): void {
  if (link.master === master) return
  if (link.master) release(machine, link)
  if (master.kind !== 'bridge') refuse('EOPNOTSUPP')
  if (link.name === 'lo' && link.kind === undefined) refuse('EINVAL')
  if (link.kind === 'bridge') refuse('ELOOP', 'Can not enslave a bridge to a bridge.')
  if (hasChild(link, 'macvlan') || hasChild(link, 'ipvlan')) refuse('EBUSY')
  if (master.ports.size >= BRIDGE_PORTS) refuse('EXFULL')
  link.master = master
  link.port = { hairpin: false, isolated: false, learning: true, flood: true, neighbourSuppression: false }
  master.ports.add(link)
  master.hadPorts = true
  followPorts(master, link)
  announce(machine, link)
  settleCarrier(machine, master)
}

function release(machine: Machine, link: LinkRecord): void {
  const { master } = link
  if (!master) return
  master.ports.delete(link)
  link.master = undefined
  link.port = undefined
  link.fdb = link.fdb.filter(entry => entry.self)
  followPorts(master, link)
  announce(machine, link)
}

/** A bridge takes the lowest MAC address and the lowest MTU of its ports, unless somebody chose them. */
function followPorts(bridge: LinkRecord, changed: LinkRecord, macChanged = false): void {
  if (!bridge.mtuSet) {
    let least = 1500
    if (bridge.ports.size > 0) {
      least = Number.POSITIVE_INFINITY
      for (const port of bridge.ports) least = Math.min(least, port.mtu)
    }
    bridge.mtu = least
  }
  if (bridge.macSet) return
  const joined = changed.master === bridge
  if (joined && !macChanged && bridge.ports.size > 1 && changed.mac > bridge.mac) return
  if (!joined && changed.mac !== bridge.mac) return
  let lowest: string | undefined
  for (const port of bridge.ports) if (lowest === undefined || port.mac < lowest) lowest = port.mac
  bridge.mac = lowest ?? '00:00:00:00:00:00'
}

export type SetLink = Extract<Change, { op: 'setLink' }>

/** `ip link set`, in the order of the kernel's do_setlink: namespace, MAC, MTU, name, alias, up, master. */
export function setLink(
  machine: Machine,
  link: LinkRecord,
  change: SetLink,
  stackOf: (stack: Stack) => Netns,
): void {
  if (change.rename !== undefined) checkName(change.rename)
  if (change.netns) moveLink(machine, link, stackOf(change.netns), change.rename)
  if (change.mac !== undefined) {
    checkMac(change.mac)
    if (link.kind === 'ipvlan') refuse('EOPNOTSUPP')
    link.mac = change.mac
    link.macSet = true
    if (link.master) followPorts(link.master, link, true)
  }
  if (change.mtu !== undefined) {
    checkMtu(change.mtu, link.name === 'lo' ? Number.POSITIVE_INFINITY : MTU_MOST)
    if (link.parent && change.mtu > link.parent.mtu) {
      if (link.kind === 'macvlan') refuse('EINVAL')
      if (link.kind === 'vlan') refuse('ERANGE')
    }
    link.mtu = change.mtu
    link.mtuSet = true
    if (link.master) followPorts(link.master, link)
  }
  if (change.rename !== undefined && change.rename !== link.name) renameLink(machine, link, change.rename)
  if (change.alias !== undefined) link.alias = change.alias === '' ? undefined : change.alias
  if (change.promiscuous !== undefined) link.promiscuous = change.promiscuous
  if (change.master !== undefined) {
    if (change.master === null) {
      if (link.master) release(machine, link)
    } else enslave(machine, link, findMaster(link.netns, change.master))
  }
  if (change.up !== undefined) setUp(machine, link, change.up)
  announce(machine, link)
}

function renameLink(machine: Machine, link: LinkRecord, name: string): void {
  const { netns } = link
  if (netns.names.has(name)) refuse('EEXIST')
  if (name === 'all' || name === 'default') refuse('EINVAL')
  if (link.up && !machine.liveRename) refuse('EBUSY')
  netns.names.delete(link.name)
  dropSysctls(netns, link.name, name)
  link.name = name
  netns.names.set(name, link)
}

/** Moving costs a link everything but its name, MAC and MTU. */
function moveLink(machine: Machine, link: LinkRecord, target: Netns, rename: string | undefined): void {
  if (target === link.netns) return
  if ((link.name === 'lo' && link.kind === undefined) || link.kind === 'bridge')
    refuse('EINVAL', 'The interface netns is immutable.')
  const name = rename ?? link.name
  if (target.names.has(name)) refuse('EEXIST')
  if (link.master) release(machine, link)
  withdraw(machine, link)
  machine.emit(link.netns, { topic: 'link', change: 'removed', link: showLink(link) })
  link.netns = target
  link.name = name
  link.alias = undefined
  link.fdb = []
  link.shaper = undefined
  if (target.links.has(link.index)) {
    while (target.links.has(target.nextIndex)) target.nextIndex++
    link.index = target.nextIndex++
  }
  target.links.set(link.index, link)
  target.names.set(name, link)
  inheritSysctls(target, name)
  announce(machine, link)
}

/** IPv6 was switched on for a link that is up. */
export function restartIpv6(machine: Machine, link: LinkRecord): void {
  if (link.up && readSysctl(machine, link.netns, `net/ipv6/conf/${link.name}/disable_ipv6`) === '0') {
    startIp(machine, link)
    if (hasCarrier(link)) startIpv6(machine, link)
  }
}
