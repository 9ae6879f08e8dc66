import { familyOf, ipBytes, ipText } from '../../base/cidr'
import type {
  Change,
  IpvlanFlag,
  IpvlanMode,
  Link,
  LinkInfo,
  LinkRef,
  LinkSpec,
  LinkStatistics,
  MacvlanMode,
} from '../kernel'
import {
  AF_BRIDGE,
  IFF_LOOPBACK,
  IFF_LOWER_UP,
  IFF_PROMISC,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_BR_MCAST_SNOOPING,
  IFLA_BR_VLAN_FILTERING,
  IFLA_BRPORT_ISOLATED,
  IFLA_BRPORT_LEARNING,
  IFLA_BRPORT_MODE,
  IFLA_BRPORT_NEIGH_SUPPRESS,
  IFLA_BRPORT_STATE,
  IFLA_BRPORT_UNICAST_FLOOD,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_INFO_SLAVE_DATA,
  IFLA_INFO_SLAVE_KIND,
  IFLA_IPVLAN_FLAGS,
  IFLA_IPVLAN_MODE,
  IFLA_LINK,
  IFLA_LINKINFO,
  IFLA_MACVLAN_BC_CUTOFF,
  IFLA_MACVLAN_BC_QUEUE_LEN,
  IFLA_MACVLAN_MODE,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_NET_NS_FD,
  IFLA_PROTINFO,
  IFLA_STATS64,
  IFLA_VLAN_ID,
  IFLA_VXLAN_ID,
  IFLA_VXLAN_L2MISS,
  IFLA_VXLAN_L3MISS,
  IFLA_VXLAN_LEARNING,
  IFLA_VXLAN_LINK,
  IFLA_VXLAN_LOCAL,
  IFLA_VXLAN_LOCAL6,
  IFLA_VXLAN_PORT,
  IFLA_VXLAN_PROXY,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
  VETH_INFO_PEER,
} from './constants'
import type { Attributes, Messages, Writer } from './message'
import type { Resolver } from './resolver'

type Of<Op extends Change['op']> = Extract<Change, { op: Op }>

/** drivers/net/macvlan.c MACVLAN_DEFAULT_BC_QUEUE_LEN, of kernels that do not tell. */
const MACVLAN_QUEUE = 1000
/** linux/if_link.h enum macvlan_mode */
const MACVLAN_MODES: Record<MacvlanMode, number> = { private: 1, vepa: 2, bridge: 4, passthru: 8, source: 16 }
/** linux/if_link.h enum ipvlan_mode */
const IPVLAN_MODES: Record<IpvlanMode, number> = { l2: 0, l3: 1, l3s: 2 }
/** IPVLAN_F_PRIVATE, IPVLAN_F_VEPA */
const IPVLAN_FLAGS: Record<IpvlanFlag, number> = { bridge: 0, private: 1, vepa: 2 }

const nameOf = <T extends string>(names: Record<T, number>, value: number, otherwise: T): T =>
  (Object.keys(names) as T[]).find(name => names[name] === value) ?? otherwise

/** struct ifinfomsg */
function ifinfo(w: Writer, family: number, index: number, flags: number, change: number): void {
  w.u8(family)
  w.zeros(3) // padding, device type
  w.u32(index)
  w.u32(flags)
  w.u32(change)
}

/** The kernel finds the link by index, or else by name. */
function reference(w: Writer, ref: LinkRef, flags = 0, change = 0): void {
  if (typeof ref === 'number') ifinfo(w, 0, ref, flags, change)
  else {
    ifinfo(w, 0, 0, flags, change)
    w.attrText(IFLA_IFNAME, ref)
  }
}

const flag = (value: boolean): number => (value ? 1 : 0)

/** `ip link add`, with everything that it can be given at birth; for the rest see {@link Completion}. */
export function encodeAddLink(w: Writer, link: LinkSpec, resolve: Resolver): void {
  const up = link.up ? IFF_UP : 0
  w.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
  ifinfo(w, 0, resolve.born(link, link.netns, 'peer' in link ? link.peer : undefined), up, up)
  if ('parent' in link && link.kind !== 'vxlan' && link.parent !== undefined)
    w.attr32(IFLA_LINK, resolve.link(link.parent))
  w.attrText(IFLA_IFNAME, link.name)
  if (link.mac !== undefined) w.attrMac(IFLA_ADDRESS, link.mac)
  if (link.mtu !== undefined) w.attr32(IFLA_MTU, link.mtu)
  if (link.master !== undefined) w.attr32(IFLA_MASTER, resolve.link(link.master))
  if (link.netns) w.attr32(IFLA_NET_NS_FD, resolve.netns(link.netns))
  const info = w.open(IFLA_LINKINFO)
  w.attrText(IFLA_INFO_KIND, link.kind)
  encodeKind(w, link, resolve)
  w.close(info)
  w.end()
}

function encodeKind(w: Writer, link: LinkSpec, resolve: Resolver): void {
  if (link.kind === 'dummy' || link.kind === 'ifb') return
  const data = w.open(IFLA_INFO_DATA)
  switch (link.kind) {
    case 'bridge':
      if (link.vlanFiltering !== undefined) w.attr8(IFLA_BR_VLAN_FILTERING, flag(link.vlanFiltering))
      if (link.multicastSnooping !== undefined) w.attr8(IFLA_BR_MCAST_SNOOPING, flag(link.multicastSnooping))
      break
    case 'veth':
      encodePeer(w, link.peer, resolve)
      break
    case 'macvlan':
      w.attr32(IFLA_MACVLAN_MODE, MACVLAN_MODES[link.mode])
      if (link.broadcastQueue !== undefined) w.attr32(IFLA_MACVLAN_BC_QUEUE_LEN, link.broadcastQueue)
      if (link.broadcastCutoff !== undefined) w.attr32(IFLA_MACVLAN_BC_CUTOFF, link.broadcastCutoff >>> 0)
      break
    case 'ipvlan':
      w.attr16(IFLA_IPVLAN_MODE, IPVLAN_MODES[link.mode])
      if (link.flag !== undefined) w.attr16(IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[link.flag])
      break
    case 'vlan':
      w.attr16(IFLA_VLAN_ID, link.id)
      break
    case 'vxlan':
      w.attr32(IFLA_VXLAN_ID, link.id)
      if (link.local !== undefined)
        w.attrBytes(familyOf(link.local) === 6 ? IFLA_VXLAN_LOCAL6 : IFLA_VXLAN_LOCAL, ipBytes(link.local))
      if (link.parent !== undefined) w.attr32(IFLA_VXLAN_LINK, resolve.link(link.parent))
      if (link.learning !== undefined) w.attr8(IFLA_VXLAN_LEARNING, flag(link.learning))
      if (link.proxy !== undefined) w.attr8(IFLA_VXLAN_PROXY, flag(link.proxy))
      if (link.l2miss !== undefined) w.attr8(IFLA_VXLAN_L2MISS, flag(link.l2miss))
      if (link.l3miss !== undefined) w.attr8(IFLA_VXLAN_L3MISS, flag(link.l3miss))
      if (link.port !== undefined) w.attr16be(IFLA_VXLAN_PORT, link.port)
      break
  }
  w.close(data)
}

/** The peer is a whole link message of its own, inside. It cannot be up before it has been tied to the other end. */
function encodePeer(w: Writer, peer: Extract<LinkSpec, { kind: 'veth' }>['peer'], resolve: Resolver): void {
  const nested = w.open(VETH_INFO_PEER)
  ifinfo(w, 0, resolve.born(peer, peer.netns), 0, 0)
  w.attrText(IFLA_IFNAME, peer.name)
  if (peer.mac !== undefined) w.attrMac(IFLA_ADDRESS, peer.mac)
  if (peer.mtu !== undefined) w.attr32(IFLA_MTU, peer.mtu)
  if (peer.netns) w.attr32(IFLA_NET_NS_FD, resolve.netns(peer.netns))
  w.close(nested)
}

/** What a new link cannot be given at birth; to be sent to the namespace in which it is. */
export interface Completion {
  name: string
  up?: boolean
  alias?: string
}

export function encodeCompletion(w: Writer, { name, up, alias }: Completion): void {
  const flags = up ? IFF_UP : 0
  w.request(RTM_NEWLINK)
  reference(w, name, flags, flags)
  if (alias !== undefined) w.attrBytes(IFLA_IFALIAS, Buffer.from(alias))
  w.end()
}

export function encodeRemoveLink(w: Writer, link: LinkRef): void {
  w.request(RTM_DELLINK)
  reference(w, link)
  w.end()
}

export function encodeSetLink(w: Writer, change: Of<'setLink'>, resolve: Resolver): void {
  let flags = 0
  let mask = 0
  if (change.up !== undefined) {
    mask |= IFF_UP
    if (change.up) flags |= IFF_UP
  }
  if (change.promiscuous !== undefined) {
    mask |= IFF_PROMISC
    if (change.promiscuous) flags |= IFF_PROMISC
  }
  w.request(RTM_NEWLINK)
  // A rename is an IFLA_IFNAME beside an index; beside no index it would be the question which link is meant.
  if (change.rename === undefined) reference(w, change.link, flags, mask)
  else {
    ifinfo(w, 0, resolve.link(change.link), flags, mask)
    w.attrText(IFLA_IFNAME, change.rename)
    resolve.renamed(change.link, change.rename)
  }
  if (change.mac !== undefined) w.attrMac(IFLA_ADDRESS, change.mac)
  if (change.mtu !== undefined) w.attr32(IFLA_MTU, change.mtu)
  if (change.master !== undefined)
    w.attr32(IFLA_MASTER, change.master === null ? 0 : resolve.link(change.master))
  if (change.alias !== undefined) w.attrBytes(IFLA_IFALIAS, Buffer.from(change.alias)) // empty: removed
  if (change.netns) w.attr32(IFLA_NET_NS_FD, resolve.netns(change.netns))
  w.end()
}

/** Fails with EOPNOTSUPP when the link is no port, which the same attributes under IFLA_LINKINFO would not. */
export function encodeSetPort(w: Writer, change: Of<'setPort'>, resolve: Resolver): void {
  w.request(RTM_SETLINK) // the bridge family knows no RTM_NEWLINK
  ifinfo(w, AF_BRIDGE, resolve.link(change.link), 0, 0)
  const port = w.openMarked(IFLA_PROTINFO)
  if (change.hairpin !== undefined) w.attr8(IFLA_BRPORT_MODE, flag(change.hairpin))
  if (change.isolated !== undefined) w.attr8(IFLA_BRPORT_ISOLATED, flag(change.isolated))
  if (change.learning !== undefined) w.attr8(IFLA_BRPORT_LEARNING, flag(change.learning))
  if (change.flood !== undefined) w.attr8(IFLA_BRPORT_UNICAST_FLOOD, flag(change.flood))
  if (change.neighbourSuppression !== undefined)
    w.attr8(IFLA_BRPORT_NEIGH_SUPPRESS, flag(change.neighbourSuppression))
  w.close(port)
  w.end()
}

/** One link, or (no reference) all of them. */
export function encodeGetLink(w: Writer, link?: LinkRef): void {
  if (link === undefined) {
    w.dump(RTM_GETLINK)
    ifinfo(w, 0, 0, 0, 0)
  } else {
    w.request(RTM_GETLINK)
    reference(w, link)
  }
  w.end()
}

/** The index alone: all that is asked when a name is looked up. */
export function decodeLinkIndex(message: Messages): number | undefined {
  return message.type === RTM_NEWLINK && message.size >= 16 ? message.u32(4) : undefined
}

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

/** RTM_NEWLINK, or the RTM_DELLINK of an event. Undefined for other messages and for bridge-port news (AF_BRIDGE). */
export function decodeLink(message: Messages): Link | undefined {
  if (message.type !== RTM_NEWLINK && message.type !== RTM_DELLINK) return undefined
  if (message.size < 16 || message.u8(0) === AF_BRIDGE) return undefined
  const flags = message.u32(8)
  const link: Link = {
    index: message.u32(4),
    name: '',
    kind: undefined,
    mac: undefined,
    mtu: 0,
    up: (flags & IFF_UP) !== 0,
    carrier: (flags & IFF_LOWER_UP) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    master: undefined,
    parent: undefined,
    alias: undefined,
    statistics: NO_STATISTICS,
  }
  const attributes = message.attributes(16)
  while (attributes.next())
    switch (attributes.type) {
      case IFLA_IFNAME:
        link.name = attributes.text()
        break
      case IFLA_ADDRESS:
        link.mac = attributes.mac()
        break
      case IFLA_MTU:
        link.mtu = attributes.u32()
        break
      case IFLA_MASTER:
        link.master = attributes.u32() || undefined
        break
      case IFLA_LINK:
        link.parent = attributes.u32() || undefined
        break
      case IFLA_IFALIAS:
        link.alias = attributes.text()
        break
      case IFLA_STATS64:
        link.statistics = decodeStatistics(attributes)
        break
      case IFLA_LINKINFO:
        decodeInfo(attributes, link)
        break
    }
  return link
}

/** struct rtnl_link_stats64: eight counters of eight bytes that matter, of many. */
const decodeStatistics = (counters: Attributes): LinkStatistics => ({
  rxPackets: counters.u64(0),
  txPackets: counters.u64(8),
  rxBytes: counters.u64(16),
  txBytes: counters.u64(24),
  rxErrors: counters.u64(32),
  txErrors: counters.u64(40),
  rxDropped: counters.u64(48),
  txDropped: counters.u64(56),
})

function decodeInfo(outer: Attributes, link: Link): void {
  let slaveKind = ''
  const inner = outer.nested()
  while (inner.next())
    switch (inner.type) {
      case IFLA_INFO_KIND:
        link.kind = inner.text()
        break
      case IFLA_INFO_DATA: {
        const info = decodeKind(link.kind, inner)
        if (info) link.info = info
        break
      }
      case IFLA_INFO_SLAVE_KIND:
        slaveKind = inner.text()
        break
      case IFLA_INFO_SLAVE_DATA:
        if (slaveKind === 'bridge') link.port = decodePort(inner)
        break
    }
}

function decodePort(data: Attributes): NonNullable<Link['port']> {
  const port = { hairpin: false, isolated: false, learning: false, state: 0 }
  const inner = data.nested()
  while (inner.next()) {
    if (inner.type === IFLA_BRPORT_MODE) port.hairpin = inner.u8() !== 0
    else if (inner.type === IFLA_BRPORT_ISOLATED) port.isolated = inner.u8() !== 0
    else if (inner.type === IFLA_BRPORT_LEARNING) port.learning = inner.u8() !== 0
    else if (inner.type === IFLA_BRPORT_STATE) port.state = inner.u8()
  }
  return port
}

function decodeKind(kind: string | undefined, data: Attributes): LinkInfo | undefined {
  const inner = data.nested()
  switch (kind) {
    case 'vxlan':
      return { vxlan: decodeVxlan(inner) }
    case 'macvlan': {
      let mode = 0
      let broadcastQueue = MACVLAN_QUEUE
      let broadcastCutoff: number | undefined
      while (inner.next()) {
        if (inner.type === IFLA_MACVLAN_MODE) mode = inner.u32()
        else if (inner.type === IFLA_MACVLAN_BC_QUEUE_LEN) broadcastQueue = inner.u32()
        else if (inner.type === IFLA_MACVLAN_BC_CUTOFF) broadcastCutoff = inner.u32() | 0
      }
      const macvlan = { mode: nameOf(MACVLAN_MODES, mode, 'private'), broadcastQueue }
      return { macvlan: broadcastCutoff === undefined ? macvlan : { ...macvlan, broadcastCutoff } }
    }
    case 'ipvlan': {
      let mode = 0
      let flags = 0
      while (inner.next()) {
        if (inner.type === IFLA_IPVLAN_MODE) mode = inner.u16()
        else if (inner.type === IFLA_IPVLAN_FLAGS) flags = inner.u16()
      }
      return {
        ipvlan: { mode: nameOf(IPVLAN_MODES, mode, 'l2'), flag: nameOf(IPVLAN_FLAGS, flags, 'bridge') },
      }
    }
    case 'vlan': {
      let id = 0
      while (inner.next()) if (inner.type === IFLA_VLAN_ID) id = inner.u16()
      return { vlan: { id } }
    }
    default:
      return undefined
  }
}

function decodeVxlan(inner: Attributes): NonNullable<LinkInfo['vxlan']> {
  const vxlan: NonNullable<LinkInfo['vxlan']> = { id: 0, port: 0, learning: false, proxy: false }
  while (inner.next())
    switch (inner.type) {
      case IFLA_VXLAN_ID:
        vxlan.id = inner.u32()
        break
      case IFLA_VXLAN_PORT:
        vxlan.port = inner.u16be()
        break
      case IFLA_VXLAN_LOCAL:
      case IFLA_VXLAN_LOCAL6:
        if (inner.size === 4 || inner.size === 16) vxlan.local = ipText(inner.bytes())
        break
      case IFLA_VXLAN_LEARNING:
        vxlan.learning = inner.u8() !== 0
        break
      case IFLA_VXLAN_PROXY:
        vxlan.proxy = inner.u8() !== 0
        break
      case IFLA_VXLAN_LINK:
        if (inner.u32() !== 0) vxlan.parent = inner.u32()
        break
    }
  return vxlan
}
