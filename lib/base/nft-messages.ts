/**
 * nftables messages as the kernel wants them (linux/netfilter/nf_tables.h), for rules that are laid out ready: reading text costs
 * libnftables several times what the kernel needs. Pure.
 */
import { endianness } from 'node:os'

const LITTLE = endianness() === 'LE'

// linux/netlink.h
const NLM_F_REQUEST = 0x1
export const NLM_F_ACK = 0x4
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800
const NLA_F_NESTED = 0x8000
// linux/netfilter/nfnetlink.h
const BATCH_BEGIN = 0x10
const BATCH_END = 0x11
const SUBSYSTEM = 10 // NFNL_SUBSYS_NFTABLES
export const MESSAGE = {
  newTable: 0,
  deleteTable: 2,
  newChain: 3,
  deleteChain: 5,
  newRule: 6,
  deleteRule: 8,
  newSet: 9,
  newElements: 12,
  deleteElements: 14,
}
// linux/netfilter.h
export const NFPROTO = { inet: 1, ipv4: 2, ipv6: 10 }

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value | 0)
  return bytes
}
export const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255])
const host16 = (bytes: Buffer, value: number, at: number) =>
  LITTLE ? bytes.writeUInt16LE(value, at) : bytes.writeUInt16BE(value, at)
const host32 = (bytes: Buffer, value: number, at: number) =>
  LITTLE ? bytes.writeUInt32LE(value, at) : bytes.writeUInt32BE(value, at)
/** A number in the host's order of bytes, as it stands in a register. */
export const native32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  host32(bytes, value, 0)
  return bytes
}

export function attribute(type: number, data: Buffer): Buffer {
  const out = Buffer.alloc(4 + ((data.length + 3) & ~3))
  host16(out, 4 + data.length, 0)
  host16(out, type, 2)
  data.copy(out, 4)
  return out
}
export const text = (type: number, value: string) => attribute(type, Buffer.from(`${value}\0`))
export const nested = (type: number, ...attributes: Buffer[]) =>
  attribute(type | NLA_F_NESTED, Buffer.concat(attributes))
export const numbers = (...pairs: [type: number, value: number][]) =>
  Buffer.concat(pairs.map(([type, value]) => attribute(type, u32(value))))

function message(
  type: number,
  flags: number,
  family: number,
  resource: number,
  ...attributes: Buffer[]
): Buffer {
  const body = Buffer.concat(attributes)
  const out = Buffer.alloc(20 + body.length)
  host32(out, out.length, 0)
  host16(out, type, 4)
  host16(out, NLM_F_REQUEST | flags, 6)
  out[16] = family
  out.writeUInt16BE(resource, 18)
  body.copy(out, 20)
  return out
}
export const change = (family: number, type: number, flags: number, ...attributes: Buffer[]) =>
  message((SUBSYSTEM << 8) | type, flags, family, 0, ...attributes)

export const batch = (...changes: Buffer[]): Buffer =>
  Buffer.concat([message(BATCH_BEGIN, 0, 0, SUBSYSTEM), ...changes, message(BATCH_END, 0, 0, SUBSYSTEM)])

/** The same, of changes of which none asks for an acknowledgement yet: the last one does. */
export function acknowledged(changes: Buffer[]): Buffer {
  const last = changes.at(-1)
  if (last) host16(last, (LITTLE ? last.readUInt16LE(6) : last.readUInt16BE(6)) | NLM_F_ACK, 6)
  return batch(...changes)
}

/* ---------------------------------------------------------------- expressions */

export const REGISTER = 1 // NFT_REG_1
export const META = { nfproto: 15, l4proto: 16 }
export const BASE = { network: 1, transport: 2 }

export const expression = (name: string, data: Buffer) => nested(1, text(1, name), nested(2, data))
export const data = (type: number, bytes: Buffer) => nested(type, attribute(1, bytes))

export const load = (base: number, offset: number, length: number, register = REGISTER) =>
  expression('payload', numbers([1, register], [2, base], [3, offset], [4, length]))
export const equals = (bytes: Buffer) =>
  expression('cmp', Buffer.concat([numbers([1, REGISTER], [2, 0]), data(3, bytes)]))
export const meta = (key: number) => expression('meta', numbers([2, key], [1, REGISTER]))
