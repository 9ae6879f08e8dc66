/**
 * The rules of redirect.ts as the kernel wants them (linux/netfilter/nf_tables.h), for stacks that take ready messages:
 * every sandbox pays for them when it joins its first network, and reading text costs libnftables several times what the
 * kernel needs; nor does the sandbox then keep a libnftables context.
 */
import { ipBytes } from '../base/cidr'
import {
  BASE,
  batch,
  change,
  data,
  equals,
  expression,
  load,
  MESSAGE,
  META,
  meta,
  nested,
  NFPROTO,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  numbers,
  REGISTER,
  text,
  u16,
} from '../base/nft-messages'
import { RESOLVER_ADDRESS } from './contract'
import { REDIRECT_TABLE, type RedirectPorts } from './redirect'

// linux/netfilter.h, uapi/linux/in.h
const HOOK = { output: 3, postrouting: 4 }
const PROTOCOL = { udp: 17, tcp: 6 }
/** Offset of the checksum in the transport header. */
const CHECKSUM = { udp: 6, tcp: 16 }
/** Offset in the IPv4 header, or (ports) in the transport header. */
const OFFSET = { saddr: 12, daddr: 16, sport: 0, dport: 2 }

const redirect = (type: number, flags: number, ...attributes: Buffer[]) =>
  change(NFPROTO.ipv4, type, flags, ...attributes)
const metaProtocol = () => meta(META.l4proto)
const immediate = (bytes: Buffer) =>
  expression('immediate', Buffer.concat([numbers([1, REGISTER]), data(2, bytes)]))
/** Writes a port and mends the checksum (NFT_PAYLOAD_CSUM_INET). */
const store = (offset: number, checksum: number) =>
  expression(
    'payload',
    numbers([5, REGISTER], [2, BASE.transport], [3, offset], [4, 2], [6, 1], [7, checksum]),
  )

function chain(name: string, hook: number, priority: number): Buffer {
  return redirect(
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
  return redirect(
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
  batch(redirect(MESSAGE.newTable, NLM_F_CREATE | NLM_F_EXCL, table()), ...rules(ports)),
)

/** The same where rules of an earlier resolver may be: they are replaced at once. */
export const replaceRedirectBatch = prepared(ports =>
  batch(
    redirect(MESSAGE.newTable, NLM_F_CREATE, table()),
    redirect(MESSAGE.deleteTable, 0, table()),
    redirect(MESSAGE.newTable, NLM_F_CREATE, table()),
    ...rules(ports),
  ),
)

/** The same as `noRedirect`. */
export function noRedirectBatch(): Buffer {
  return batch(
    redirect(MESSAGE.newTable, NLM_F_CREATE, table()),
    redirect(MESSAGE.deleteTable, NLM_F_ACK, table()),
  )
}
