/**
 * The rules of redirect.ts as the kernel wants them (linux/netfilter/nf_tables.h), for stacks that take ready messages:
 * every sandbox pays for them when it joins its first network, and reading text costs libnftables several times what the
 * kernel needs; nor does the sandbox then keep a libnftables context.
 */
import { endianness } from 'node:os'
import { ipBytes } from '../base/cidr'
import { RESOLVER_ADDRESS } from './contract'
import { REDIRECT_TABLE, type RedirectPorts } from './redirect'

const LITTLE = endianness() === 'LE'

// linux/netlink.h
const NLM_F_REQUEST = 0x1
const NLM_F_ACK = 0x4
const NLM_F_EXCL = 0x200
const NLM_F_CREATE = 0x400
const NLM_F_APPEND = 0x800
const NLA_F_NESTED = 0x8000
// linux/netfilter/nfnetlink.h
const BATCH_BEGIN = 0x10
const BATCH_END = 0x11
const SUBSYSTEM = 10 // NFNL_SUBSYS_NFTABLES
const MESSAGE = { newTable: 0, deleteTable: 2, newChain: 3, newRule: 6 }
// linux/netfilter.h, uapi/linux/in.h
const NFPROTO_IPV4 = 2
const HOOK = { output: 3, postrouting: 4 }
const PROTOCOL = { udp: 17, tcp: 6 }
/** Offset of the checksum in the transport header. */
const CHECKSUM = { udp: 6, tcp: 16 }
const REGISTER = 1 // NFT_REG_1
const META_L4PROTO = 16
const BASE = { network: 1, transport: 2 }
/** Offset in the IPv4 header, or (ports) in the transport header. */
const OFFSET = { saddr: 12, daddr: 16, sport: 0, dport: 2 }

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value | 0)
  return bytes
}
const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255])
const host16 = (bytes: Buffer, value: number, at: number) =>
  LITTLE ? bytes.writeUInt16LE(value, at) : bytes.writeUInt16BE(value, at)
const host32 = (bytes: Buffer, value: number, at: number) =>
  LITTLE ? bytes.writeUInt32LE(value, at) : bytes.writeUInt32BE(value, at)

function attribute(type: number, data: Buffer): Buffer {
  const out = Buffer.alloc(4 + ((data.length + 3) & ~3))
  host16(out, 4 + data.length, 0)
  host16(out, type, 2)
  data.copy(out, 4)
  return out
}
const text = (type: number, value: string) => attribute(type, Buffer.from(`${value}\0`))
const nested = (type: number, ...attributes: Buffer[]) =>
  attribute(type | NLA_F_NESTED, Buffer.concat(attributes))
const numbers = (...pairs: [type: number, value: number][]) =>
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
const change = (type: number, flags: number, ...attributes: Buffer[]) =>
  message((SUBSYSTEM << 8) | type, flags, NFPROTO_IPV4, 0, ...attributes)

const batch = (...changes: Buffer[]): Buffer =>
  Buffer.concat([message(BATCH_BEGIN, 0, 0, SUBSYSTEM), ...changes, message(BATCH_END, 0, 0, SUBSYSTEM)])

const expression = (name: string, data: Buffer) => nested(1, text(1, name), nested(2, data))
const data = (type: number, bytes: Buffer) => nested(type, attribute(1, bytes))

const load = (base: number, offset: number, length: number) =>
  expression('payload', numbers([1, REGISTER], [2, base], [3, offset], [4, length]))
const equals = (bytes: Buffer) =>
  expression('cmp', Buffer.concat([numbers([1, REGISTER], [2, 0]), data(3, bytes)]))
const metaProtocol = () => expression('meta', numbers([1, REGISTER], [2, META_L4PROTO]))
const immediate = (bytes: Buffer) =>
  expression('immediate', Buffer.concat([numbers([1, REGISTER]), data(2, bytes)]))
/** Writes a port and mends the checksum (NFT_PAYLOAD_CSUM_INET). */
const store = (offset: number, checksum: number) =>
  expression(
    'payload',
    numbers([5, REGISTER], [2, BASE.transport], [3, offset], [4, 2], [6, 1], [7, checksum]),
  )

function chain(name: string, hook: number, priority: number): Buffer {
  return change(
    MESSAGE.newChain,
    NLM_F_CREATE,
    text(1, REDIRECT_TABLE),
    text(3, name),
    nested(4, numbers([1, hook], [2, priority])),
    numbers([5, 1]), // policy accept
    text(7, 'filter'),
  )
}

function rewrite(
  chainName: string,
  address: 'saddr' | 'daddr',
  port: 'sport' | 'dport',
  protocol: 'udp' | 'tcp',
  from: number,
  to: number,
  flags = 0,
): Buffer {
  return change(
    MESSAGE.newRule,
    NLM_F_CREATE | NLM_F_APPEND | flags,
    text(1, REDIRECT_TABLE),
    text(2, chainName),
    nested(
      4,
      load(BASE.network, OFFSET[address], 4),
      equals(ipBytes(RESOLVER_ADDRESS)),
      metaProtocol(),
      equals(Buffer.from([PROTOCOL[protocol]])),
      load(BASE.transport, OFFSET[port], 2),
      equals(u16(from)),
      immediate(u16(to)),
      store(OFFSET[port], CHECKSUM[protocol]),
    ),
  )
}

const table = () => text(1, REDIRECT_TABLE)

/** The rules, those of `there` first; the last message asks for an acknowledgement. */
export const rewrites = (ports: RedirectPorts): Buffer[] => [
  rewrite('there', 'daddr', 'dport', 'udp', 53, ports.udp),
  rewrite('there', 'daddr', 'dport', 'tcp', 53, ports.tcp),
  rewrite('back', 'saddr', 'sport', 'udp', ports.udp, 53),
  rewrite('back', 'saddr', 'sport', 'tcp', ports.tcp, 53, NLM_F_ACK),
]

/** The chains and their rules. */
const rules = (ports: RedirectPorts): Buffer[] => [
  chain('there', HOOK.postrouting, 300),
  chain('back', HOOK.output, -300),
  ...rewrites(ports),
]

/** Laid out once; then only the ports are written: to lay it out costs as much as the kernel takes for all of it. */
function prepared(layOut: (ports: RedirectPorts) => Buffer): (ports: RedirectPorts) => Buffer {
  let template: { bytes: Buffer; udp: number[]; tcp: number[] } | undefined
  return ports => {
    template ??= templateOf(layOut)
    const out = Buffer.from(template.bytes)
    for (const at of template.udp) out.writeUInt16BE(ports.udp, at)
    for (const at of template.tcp) out.writeUInt16BE(ports.tcp, at)
    return out
  }
}

/** Where the ports stand is seen from what changes with them. */
function templateOf(layOut: (ports: RedirectPorts) => Buffer) {
  const bytes = layOut({ udp: 0, tcp: 0 })
  const placesOf = (ports: RedirectPorts): number[] => {
    const other = layOut(ports)
    const places: number[] = []
    for (let at = 0; at < bytes.length; at++) if (bytes[at] !== other[at]) places.push(at++)
    return places
  }
  return { bytes, udp: placesOf({ udp: 0xffff, tcp: 0 }), tcp: placesOf({ udp: 0, tcp: 0xffff }) }
}

/**
 * The same as `redirectRules`, for a sandbox that has no such table yet: then EEXIST, and nothing is changed. (To delete and
 * make it anew in one batch costs the kernel three times as much.)
 */
export const redirectBatch = prepared(ports =>
  batch(change(MESSAGE.newTable, NLM_F_CREATE | NLM_F_EXCL, table()), ...rules(ports)),
)

/** The same where rules of an earlier resolver may be: they are replaced at once. */
export const replaceRedirectBatch = prepared(ports =>
  batch(
    change(MESSAGE.newTable, NLM_F_CREATE, table()),
    change(MESSAGE.deleteTable, 0, table()),
    change(MESSAGE.newTable, NLM_F_CREATE, table()),
    ...rules(ports),
  ),
)

/** The same as `noRedirect`. */
export function noRedirectBatch(): Buffer {
  return batch(
    change(MESSAGE.newTable, NLM_F_CREATE, table()),
    change(MESSAGE.deleteTable, NLM_F_ACK, table()),
  )
}
