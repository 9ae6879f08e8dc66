import { addressOf, familyOf, ipBytes, ipText } from '../../base/cidr'
import type { Address, Change, Scope } from '../kernel'
import {
  AF_INET,
  AF_INET6,
  IFA_ADDRESS,
  IFA_BROADCAST,
  IFA_F_NODAD,
  IFA_F_NOPREFIXROUTE,
  IFA_F_PERMANENT,
  IFA_F_TENTATIVE,
  IFA_FLAGS,
  IFA_LOCAL,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_SITE,
  RT_SCOPE_UNIVERSE,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
} from './constants'
import type { Messages, Writer } from './message'
import type { Resolver } from './resolver'

/** linux/rtnetlink.h enum rt_scope_t */
export const SCOPES: Record<Scope, number> = {
  global: RT_SCOPE_UNIVERSE,
  site: RT_SCOPE_SITE,
  link: RT_SCOPE_LINK,
  host: RT_SCOPE_HOST,
  nowhere: RT_SCOPE_NOWHERE,
}

export function scopeOf(value: number): Scope {
  switch (value) {
    case RT_SCOPE_SITE:
      return 'site'
    case RT_SCOPE_LINK:
      return 'link'
    case RT_SCOPE_HOST:
      return 'host'
    case RT_SCOPE_NOWHERE:
      return 'nowhere'
    default:
      return 'global'
  }
}

export const lengthOf = (cidr: string): number => Number(cidr.slice(cidr.indexOf('/') + 1))

/** struct ifaddrmsg */
function ifaddr(
  w: Writer,
  family: number,
  length: number,
  flags: number,
  scope: number,
  index: number,
): void {
  w.u8(family)
  w.u8(length)
  w.u8(flags)
  w.u8(scope)
  w.u32(index)
}

type AddressChange = Extract<Change, { op: 'addAddress' | 'removeAddress' }>

/**
 * As `ip address add ADDRESS brd +` does: an IPv4 address outside of 127.0.0.0/8, in a subnet that has room for one, comes
 * with the last address of the subnet for broadcasts, as Docker's do.
 */
export function encodeAddress(w: Writer, change: AddressChange, resolve: Resolver): void {
  const add = change.op === 'addAddress'
  const text = addressOf(change.address)
  const six = familyOf(text) === 6
  const bytes = ipBytes(text)
  const length = lengthOf(change.address)
  const flags = add
    ? (six && !change.dad ? IFA_F_NODAD : 0) | (change.noPrefixRoute ? IFA_F_NOPREFIXROUTE : 0)
    : 0
  const scope = add
    ? change.scope
      ? SCOPES[change.scope]
      : !six && bytes[0] === 127
        ? RT_SCOPE_HOST
        : RT_SCOPE_UNIVERSE
    : RT_SCOPE_UNIVERSE
  w.request(add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_EXCL : 0)
  ifaddr(w, six ? AF_INET6 : AF_INET, length, flags > 0xff ? 0 : flags, scope, resolve.link(change.link))
  w.attrBytes(IFA_LOCAL, bytes)
  w.attrBytes(IFA_ADDRESS, bytes)
  if (add && !six && bytes[0] !== 127 && length <= 30) w.attrBytes(IFA_BROADCAST, lastOf(bytes, length))
  if (flags > 0xff) w.attr32(IFA_FLAGS, flags) // only these have more than eight bits
  w.end()
}

/** The last IPv4 address of a subnet. */
function lastOf(address: Buffer, length: number): Buffer {
  const last = Buffer.alloc(4)
  last.writeUInt32BE((address.readUInt32BE() | (0xffffffff >>> length)) >>> 0)
  return last
}

export function encodeGetAddresses(w: Writer, link = 0): void {
  w.dump(RTM_GETADDR)
  ifaddr(w, 0, 0, 0, 0, link)
  w.end()
}

/** RTM_NEWADDR or RTM_DELADDR. With a peer (point to point), the local address is meant. */
export function decodeAddress(message: Messages): Address | undefined {
  if ((message.type !== RTM_NEWADDR && message.type !== RTM_DELADDR) || message.size < 8) return undefined
  let flags = message.u8(2)
  let bytes: Uint8Array | undefined
  const attributes = message.attributes(8)
  while (attributes.next())
    switch (attributes.type) {
      case IFA_ADDRESS:
        bytes ??= attributes.bytes()
        break
      case IFA_LOCAL:
        bytes = attributes.bytes()
        break
      case IFA_FLAGS:
        flags = attributes.u32()
        break
    }
  if (bytes?.length !== 4 && bytes?.length !== 16) return undefined
  return {
    link: message.u32(4),
    address: `${ipText(bytes)}/${message.u8(1)}`,
    scope: scopeOf(message.u8(3)),
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
    permanent: (flags & IFA_F_PERMANENT) !== 0,
  }
}
