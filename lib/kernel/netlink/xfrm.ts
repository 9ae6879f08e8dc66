/**
 * IPsec by NETLINK_XFRM (linux/xfrm.h): states say how packets between two addresses are encrypted, policies which ones.
 * Of all that the kernel can, this is ESP in transport mode with AES-GCM (RFC 4106). Pure.
 */
import { type Family, familyOf, ipBytes, ipText } from '../../base/cidr'
import type { IpsecPolicy, IpsecState } from '../kernel'
import { AF_INET, AF_INET6 } from './constants'
import type { Messages, Writer } from './message'

const XFRM_MSG_NEWSA = 0x10
const XFRM_MSG_DELSA = 0x11
const XFRM_MSG_GETSA = 0x12
const XFRM_MSG_NEWPOLICY = 0x13
const XFRM_MSG_DELPOLICY = 0x14
const XFRM_MSG_GETPOLICY = 0x15
const XFRM_MSG_UPDPOLICY = 0x19
const XFRMA_TMPL = 5
const XFRMA_SRCADDR = 13
const XFRMA_ALG_AEAD = 18
const XFRMA_MARK = 21
const XFRM_POLICY_OUT = 1
const IPPROTO_ESP = 50
const IPPROTO_UDP = 17
/** XFRMNLGRP_SA, XFRMNLGRP_POLICY */
export const XFRM_GROUPS = [3, 4]
/** States and policies that go: one (DELSA, DELPOLICY), or all (FLUSHSA, FLUSHPOLICY). */
const REMOVALS = new Set([0x11, 0x14, 0x1c, 0x1d])
/** No limit. */
const XFRM_INF = 0xffff_ffff_ffff_ffffn
const ALGORITHM = 'rfc4106(gcm(aes))'
/** Bits of the integrity check; the longest. */
const ICV_BITS = 128

/* Bytes of the structures, and where in them the fields lie that are read. */
const SELECTOR = 56
const LIFETIMES = 64
const STATE = 224
const STATE_ID = SELECTOR
const STATE_SPI = STATE_ID + 16
const STATE_SOURCE = STATE_ID + 24
const STATE_PACKETS = STATE_SOURCE + 16 + LIFETIMES + 8
const STATE_REQID = STATE_SOURCE + 16 + LIFETIMES + 32 + 12 + 4
const STATE_FAMILY = STATE_REQID + 4
const POLICY = 168
const POLICY_DIRECTION = SELECTOR + LIFETIMES + 32 + 8
const TEMPLATE = 64

const af = (family: Family): number => (family === 6 ? AF_INET6 : AF_INET)

/** xfrm_address_t: room for either family. */
function address(w: Writer, text: string): void {
  const bytes = ipBytes(text)
  w.bytes(bytes)
  w.zeros(16 - bytes.length)
}

/** struct xfrm_id */
function id(w: Writer, destination: string, spi: number): void {
  address(w, destination)
  w.u32be(spi)
  w.u8(IPPROTO_ESP)
  w.zeros(3)
}

/** struct xfrm_lifetime_cfg without limits, struct xfrm_lifetime_cur */
function lifetimes(w: Writer): void {
  for (let n = 0; n < 4; n++) w.u64(XFRM_INF)
  w.zeros(LIFETIMES - 32 + 32)
}

/** Fails with EEXIST when there is one of the same destination and SPI. */
export function encodeAddState(w: Writer, { source, destination, spi, reqid, key = '' }: IpsecState): void {
  const family = familyOf(destination)
  w.request(XFRM_MSG_NEWSA)
  w.zeros(SELECTOR) // everything between the two
  id(w, destination, spi)
  address(w, source)
  lifetimes(w)
  w.zeros(12 + 4) // struct xfrm_stats, sequence number
  w.u32(reqid)
  w.u16(af(family))
  w.zeros(STATE - STATE_FAMILY - 2) // transport mode, no replay window, no flags
  const bytes = Buffer.from(key, 'hex')
  const name = Buffer.alloc(64)
  name.write(ALGORITHM)
  const value = Buffer.alloc(64 + 8 + bytes.length)
  name.copy(value)
  hostOrder(value, 64, bytes.length * 8)
  hostOrder(value, 68, ICV_BITS)
  bytes.copy(value, 72)
  w.attrBytes(XFRMA_ALG_AEAD, value)
  w.end()
}

const hostOrder = (to: Buffer, at: number, value: number): void => {
  to.set(new Uint8Array(new Uint32Array([value]).buffer), at)
}

export function encodeRemoveState(w: Writer, { source, destination, spi }: IpsecState): void {
  w.request(XFRM_MSG_DELSA)
  address(w, destination) // struct xfrm_usersa_id
  w.u32be(spi)
  w.u16(af(familyOf(destination)))
  w.u8(IPPROTO_ESP)
  w.zeros(1)
  const from = w.open(XFRMA_SRCADDR)
  address(w, source)
  w.close(from)
  w.end()
}

/** struct xfrm_selector: UDP to a port. */
function selector(w: Writer, { source, destination, port }: IpsecPolicy): void {
  const family = familyOf(destination)
  address(w, destination)
  address(w, source)
  w.u16be(port)
  w.u16be(0xffff)
  w.zeros(4) // from any port
  w.u16(af(family))
  for (let n = 0; n < 2; n++) w.u8(family === 6 ? 128 : 32)
  w.u8(IPPROTO_UDP)
  w.zeros(3 + 8)
}

/** Replaces the one of the same addresses, port and mark. */
export function encodeSetPolicy(w: Writer, policy: IpsecPolicy): void {
  w.request(XFRM_MSG_UPDPOLICY)
  selector(w, policy)
  lifetimes(w)
  w.zeros(8) // priority, index
  w.u8(XFRM_POLICY_OUT)
  w.zeros(POLICY - POLICY_DIRECTION - 1)
  const template = w.open(XFRMA_TMPL)
  id(w, policy.destination, policy.spi)
  w.u16(af(familyOf(policy.destination)))
  w.zeros(2)
  address(w, policy.source)
  w.u32(policy.reqid)
  w.zeros(4) // transport mode, required
  for (let n = 0; n < 3; n++) w.u32(0xffff_ffff) // any algorithm
  w.close(template)
  mark(w, policy.mark)
  w.end()
}

export function encodeRemovePolicy(w: Writer, policy: IpsecPolicy): void {
  w.request(XFRM_MSG_DELPOLICY)
  selector(w, policy) // struct xfrm_userpolicy_id
  w.u32(0)
  w.u8(XFRM_POLICY_OUT)
  w.zeros(3)
  mark(w, policy.mark)
  w.end()
}

function mark(w: Writer, value: number): void {
  const start = w.open(XFRMA_MARK)
  w.u32(value)
  w.u32(0xffff_ffff)
  w.close(start)
}

export function encodeGetStates(w: Writer): void {
  w.dump(XFRM_MSG_GETSA)
  w.end()
}

export function encodeGetPolicies(w: Writer): void {
  w.dump(XFRM_MSG_GETPOLICY)
  w.end()
}

export const isIpsecRemoval = ({ type }: Messages): boolean => REMOVALS.has(type)

function text(message: Messages, at: number, family: number): string {
  return ipText(message.bytes(at, family === AF_INET6 ? 16 : 4))
}

/** Undefined for what is no ESP. Keys are not read: kernels that are locked down do not tell them. */
export function decodeState(message: Messages): IpsecState | undefined {
  if (message.type !== XFRM_MSG_NEWSA || message.size < STATE) return undefined
  const family = message.u16(STATE_FAMILY)
  if (message.u8(STATE_SPI + 4) !== IPPROTO_ESP || (family !== AF_INET && family !== AF_INET6))
    return undefined
  return {
    source: text(message, STATE_SOURCE, family),
    destination: text(message, STATE_ID, family),
    spi: message.u32be(STATE_SPI),
    reqid: message.u32(STATE_REQID),
    packets: message.u64(STATE_PACKETS),
  }
}

/** Undefined for those that are not as {@link encodeSetPolicy} makes them. */
export function decodePolicy(message: Messages): IpsecPolicy | undefined {
  if (message.type !== XFRM_MSG_NEWPOLICY || message.size < POLICY) return undefined
  const family = message.u16(40)
  if (message.u8(POLICY_DIRECTION) !== XFRM_POLICY_OUT || message.u8(44) !== IPPROTO_UDP) return undefined
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const policy = {
    source: text(message, 16, family),
    destination: text(message, 0, family),
    port: message.u16be(32),
    mark: 0,
    reqid: 0,
    spi: 0,
  }
  const attributes = message.attributes(POLICY)
  while (attributes.next())
    if (attributes.type === XFRMA_MARK) policy.mark = attributes.u32()
    else if (attributes.type === XFRMA_TMPL && attributes.size >= TEMPLATE) {
      policy.spi = attributes.u32be(16)
      policy.reqid = attributes.u32(44)
    }
  return policy
}
