/**
 * Connection tracking over nfnetlink (linux/netfilter/nfnetlink_conntrack.h): stale entries send the packets of a
 * published port to a container that is gone. Pure encoders and decoders, and one function that plays them.
 */
import { familyOf, ipBytes, type Family } from '../../base/cidr'
import type { ConntrackFilter } from '../kernel'
import { Messages, Writer, type Attributes } from './message'

const NFNL_SUBSYS_CTNETLINK = 1
const IPCTNL_MSG_CT_GET = (NFNL_SUBSYS_CTNETLINK << 8) | 1
const IPCTNL_MSG_CT_DELETE = (NFNL_SUBSYS_CTNETLINK << 8) | 2

const CTA_TUPLE_ORIG = 1
const CTA_TUPLE_REPLY = 2
const CTA_ID = 12
const CTA_ZONE = 18
const CTA_FILTER = 25 // Linux 5.8; older kernels ignore it and dump everything
const CTA_TUPLE_IP = 1
const CTA_TUPLE_PROTO = 2
const CTA_IP_SRC: Record<Family, number> = { 4: 1, 6: 3 }
const CTA_IP_DST: Record<Family, number> = { 4: 2, 6: 4 }
const CTA_PROTO_NUM = 1
const CTA_PROTO_DST_PORT = 3
const CTA_FILTER_ORIG_FLAGS = 1
const CTA_FILTER_REPLY_FLAGS = 2
/* CTA_FILTER_F_* of net/netfilter/nf_conntrack_netlink.c: which fields of a tuple a dump is to compare. */
const FILTER_IP_SRC = 1 << 0
const FILTER_IP_DST = 1 << 1
const FILTER_PROTO_NUM = 1 << 3
const FILTER_PROTO_DST_PORT = 1 << 5

const AF: Record<Family, number> = { 4: 2, 6: 10 }
const PROTOCOLS = { tcp: 6, udp: 17, sctp: 132 } as const
/** nfgenmsg: family, version, resource id. */
const NFGENMSG = 4

/** More filters than this of one family: one dump of the whole table is cheaper than many walks of the kernel over it. */
const MAX_WALKS = 8

export type ConntrackExchange = (
  messages: Uint8Array,
  count: number,
) => Promise<{ data: Uint8Array; errors: number[] }>

/** What is needed to match an entry and to delete it. */
export interface ConntrackEntry {
  family: Family
  protocol: number
  source: Uint8Array
  destination: Uint8Array
  destinationPort: number
  replySource: Uint8Array
  /** Attribute bodies as the kernel sent them; it finds the entry by them. */
  original: Uint8Array
  id: Uint8Array | undefined
  zone: Uint8Array | undefined
}

/** Asks for the entries of one family; with a filter, for those alone that match it (Linux 5.8). */
export function encodeConntrackDump(writer: Writer, family: Family, filter?: ConntrackFilter): void {
  writer.dump(IPCTNL_MSG_CT_GET)
  generic(writer, family)
  if (filter) {
    const original =
      (filter.source === undefined ? 0 : FILTER_IP_SRC) |
      (filter.destination === undefined ? 0 : FILTER_IP_DST) |
      (filter.protocol === undefined ? 0 : FILTER_PROTO_NUM) |
      // The kernel reads a port only where the protocol is given.
      (filter.protocol === undefined || filter.destinationPort === undefined ? 0 : FILTER_PROTO_DST_PORT)
    const reply = filter.replySource === undefined ? 0 : FILTER_IP_SRC
    if (original) tuple(writer, CTA_TUPLE_ORIG, filter, filter.source, filter.destination, true)
    if (reply) tuple(writer, CTA_TUPLE_REPLY, filter, filter.replySource, undefined, false)
    if (original || reply) {
      const flags = writer.openMarked(CTA_FILTER)
      writer.attr32(CTA_FILTER_ORIG_FLAGS, original)
      writer.attr32(CTA_FILTER_REPLY_FLAGS, reply)
      writer.close(flags)
    }
  }
  writer.end()
}

function tuple(
  writer: Writer,
  type: number,
  filter: ConntrackFilter,
  source: string | undefined,
  destination: string | undefined,
  transport: boolean,
): void {
  const whole = writer.openMarked(type)
  if (source !== undefined || destination !== undefined) {
    const ip = writer.openMarked(CTA_TUPLE_IP)
    if (source !== undefined) writer.attrBytes(CTA_IP_SRC[filter.family], ipBytes(source))
    if (destination !== undefined) writer.attrBytes(CTA_IP_DST[filter.family], ipBytes(destination))
    writer.close(ip)
  }
  if (transport && filter.protocol !== undefined) {
    const proto = writer.openMarked(CTA_TUPLE_PROTO)
    writer.attr8(CTA_PROTO_NUM, PROTOCOLS[filter.protocol])
    if (filter.destinationPort !== undefined) writer.attr16be(CTA_PROTO_DST_PORT, filter.destinationPort)
    writer.close(proto)
  }
  writer.close(whole)
}

/** Deletes the very entry: same original tuple, zone and id. ENOENT if it has ended by itself. */
export function encodeConntrackDelete(writer: Writer, entry: ConntrackEntry): void {
  writer.request(IPCTNL_MSG_CT_DELETE)
  generic(writer, entry.family)
  const original = writer.openMarked(CTA_TUPLE_ORIG)
  writer.bytes(entry.original)
  writer.close(original)
  if (entry.id) writer.attrBytes(CTA_ID, entry.id)
  if (entry.zone) writer.attrBytes(CTA_ZONE, entry.zone)
  writer.end()
}

function generic(writer: Writer, family: Family): void {
  writer.u8(AF[family])
  writer.u8(0)
  writer.u16be(0)
}

const NOTHING = new Uint8Array(0)

export function decodeConntrack(data: Uint8Array): ConntrackEntry[] {
  const entries: ConntrackEntry[] = []
  const messages = new Messages(data)
  while (messages.next()) {
    const family = messages.u8(0) === AF[4] ? 4 : messages.u8(0) === AF[6] ? 6 : undefined
    if (messages.type >> 8 !== NFNL_SUBSYS_CTNETLINK || family === undefined) continue
    const entry: ConntrackEntry = {
      family,
      protocol: 0,
      source: NOTHING,
      destination: NOTHING,
      destinationPort: 0,
      replySource: NOTHING,
      original: NOTHING,
      id: undefined,
      zone: undefined,
    }
    const attributes = messages.attributes(NFGENMSG)
    while (attributes.next())
      switch (attributes.type) {
        case CTA_TUPLE_ORIG:
          entry.original = attributes.bytes()
          readTuple(entry, attributes.nested(), false)
          break
        case CTA_TUPLE_REPLY:
          readTuple(entry, attributes.nested(), true)
          break
        case CTA_ID:
          entry.id = attributes.bytes()
          break
        case CTA_ZONE:
          entry.zone = attributes.bytes()
          break
      }
    entries.push(entry)
  }
  return entries
}

function readTuple(entry: ConntrackEntry, parts: Attributes, reply: boolean): void {
  while (parts.next()) {
    const fields = parts.nested()
    if (parts.type === CTA_TUPLE_IP)
      while (fields.next()) {
        if (fields.type === CTA_IP_SRC[entry.family]) entry[reply ? 'replySource' : 'source'] = fields.bytes()
        else if (fields.type === CTA_IP_DST[entry.family] && !reply) entry.destination = fields.bytes()
      }
    else if (parts.type === CTA_TUPLE_PROTO && !reply)
      while (fields.next()) {
        if (fields.type === CTA_PROTO_NUM) entry.protocol = fields.u8()
        else if (fields.type === CTA_PROTO_DST_PORT) entry.destinationPort = fields.u16be()
      }
  }
}

/** Do all given fields agree? A filter without any field matches nothing: nobody means to empty the whole table. */
export function matchesConntrack(entry: ConntrackEntry, filter: ConntrackFilter): boolean {
  const { family, protocol, source, destination, destinationPort, replySource } = filter
  if (entry.family !== family) return false
  if ((protocol ?? source ?? destination ?? destinationPort ?? replySource) === undefined) return false
  return (
    (protocol === undefined || entry.protocol === PROTOCOLS[protocol]) &&
    (destinationPort === undefined || entry.destinationPort === destinationPort) &&
    same(entry.source, source) &&
    same(entry.destination, destination) &&
    same(entry.replySource, replySource)
  )
}

const same = (bytes: Uint8Array, address: string | undefined): boolean =>
  address === undefined || Buffer.compare(bytes, ipBytes(address)) === 0

/** Deletes the entries that match any of the filters; resolves to how many were deleted. */
export async function flushConntrack(
  exchange: ConntrackExchange,
  filters: ConntrackFilter[],
): Promise<number> {
  let deleted = 0
  for (const family of [4, 6] as const) {
    const wanted = filters.filter(
      filter =>
        filter.family === family &&
        [filter.source, filter.destination, filter.replySource].every(
          address => address === undefined || familyOf(address) === family,
        ),
    )
    if (wanted.length === 0) continue
    const writer = new Writer()
    if (wanted.length > MAX_WALKS) encodeConntrackDump(writer, family)
    else for (const filter of wanted) encodeConntrackDump(writer, family, filter)
    const { data } = await play(exchange, writer)
    const seen = new Set<string>()
    for (const entry of decodeConntrack(data)) {
      if (!wanted.some(filter => matchesConntrack(entry, filter))) continue
      const key =
        Buffer.from(entry.original).toString('latin1') + Buffer.from(entry.id ?? NOTHING).toString('latin1')
      if (seen.has(key)) continue
      seen.add(key)
      encodeConntrackDelete(writer, entry)
    }
    if (writer.count === 0) continue
    const { errors } = await play(exchange, writer)
    // ENOENT: it ended between the two journeys, which is what was wanted.
    for (const error of errors) if (error === 0) deleted++
  }
  return deleted
}

function play(exchange: ConntrackExchange, writer: Writer) {
  const count = writer.count
  return exchange(writer.take(), count)
}
