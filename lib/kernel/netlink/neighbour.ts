import { familyOf, ipBytes, ipText } from '../../base/cidr'
import type { Change, Neighbour } from '../kernel'
import {
  AF_BRIDGE,
  AF_INET,
  AF_INET6,
  NDA_DST,
  NDA_LLADDR,
  NDA_VLAN,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  NTF_MASTER,
  NTF_SELF,
  NUD_NOARP,
  NUD_PERMANENT,
  NUD_REACHABLE,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './constants'
import type { Messages, Writer } from './message'
import type { Resolver } from './resolver'

/** struct ndmsg */
function ndmsg(w: Writer, family: number, index: number, state: number, flags: number): void {
  w.u8(family)
  w.zeros(3)
  w.u32(index)
  w.u16(state)
  w.u8(flags)
  w.u8(0) // type
}

type NeighbourChange = Extract<Change, { op: 'setNeighbour' | 'removeNeighbour' }>
type FdbChange = Extract<Change, { op: 'setFdb' | 'removeFdb' }>

/** A permanent ARP or ND entry. */
export function encodeNeighbour(w: Writer, change: NeighbourChange, resolve: Resolver): void {
  const set = change.op === 'setNeighbour'
  const family = familyOf(change.address) === 6 ? AF_INET6 : AF_INET
  w.request(set ? RTM_NEWNEIGH : RTM_DELNEIGH, set ? NLM_F_CREATE | NLM_F_REPLACE : 0)
  ndmsg(w, family, resolve.link(change.link), set ? NUD_PERMANENT : 0, 0)
  w.attrBytes(NDA_DST, ipBytes(change.address))
  if (set) w.attrMac(NDA_LLADDR, change.mac)
  w.end()
}

/** Broadcast, multicast, or (vxlan: where what is unknown goes) all zero. */
const isGroup = (mac: string): boolean =>
  (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1 || mac === '00:00:00:00:00:00'

/**
 * A forwarding database entry. A tunnel's group addresses may have several remote ends, so those are appended (the kernel
 * takes the same one twice as one); everything else replaces what was there. In a bridge the entry is static
 * (NUD_NOARP): a permanent one would mean that the bridge itself has the address.
 */
export function encodeFdb(w: Writer, change: FdbChange, resolve: Resolver): void {
  const set = change.op === 'setFdb'
  const self = change.self ?? change.remote !== undefined
  const append = change.remote !== undefined && isGroup(change.mac)
  w.request(
    set ? RTM_NEWNEIGH : RTM_DELNEIGH,
    set ? NLM_F_CREATE | (append ? NLM_F_APPEND : NLM_F_REPLACE) : 0,
  )
  ndmsg(
    w,
    AF_BRIDGE,
    resolve.link(change.link),
    self ? NUD_PERMANENT | NUD_NOARP : NUD_REACHABLE | NUD_NOARP,
    self ? NTF_SELF : NTF_MASTER,
  )
  w.attrMac(NDA_LLADDR, change.mac)
  if (change.remote !== undefined) w.attrBytes(NDA_DST, ipBytes(change.remote))
  w.end()
}

export function encodeGetNeighbours(w: Writer, bridge: boolean): void {
  w.dump(RTM_GETNEIGH)
  ndmsg(w, bridge ? AF_BRIDGE : 0, 0, 0, 0)
  w.end()
}

/** RTM_NEWNEIGH or RTM_DELNEIGH. The kernel's own NOARP entries (loopback, multicast) say nothing and are left out. */
export function decodeNeighbour(message: Messages): Neighbour | undefined {
  if ((message.type !== RTM_NEWNEIGH && message.type !== RTM_DELNEIGH) || message.size < 12) return undefined
  const family = message.u8(0)
  const bridge = family === AF_BRIDGE
  if (!bridge && family !== AF_INET && family !== AF_INET6) return undefined
  const state = message.u16(8)
  if (!bridge && state === NUD_NOARP) return undefined
  const neighbour: Neighbour = {
    link: message.u32(4),
    permanent: (state & (bridge ? NUD_PERMANENT | NUD_NOARP : NUD_PERMANENT)) !== 0,
  }
  if (bridge) neighbour.self = (message.u8(10) & NTF_SELF) !== 0
  const attributes = message.attributes(12)
  while (attributes.next())
    switch (attributes.type) {
      case NDA_DST:
        if (attributes.size === 4 || attributes.size === 16) neighbour.address = ipText(attributes.bytes())
        break
      case NDA_LLADDR:
        neighbour.mac = attributes.mac()
        break
      case NDA_VLAN:
        neighbour.vlan = attributes.u16()
        break
    }
  return neighbour
}
