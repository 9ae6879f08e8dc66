/**
 * Reads the rules that the resolver of an earlier process left in a sandbox. A resolver that listens on the same ports again
 * needs no transaction, which is most of what bringing back a sandbox would cost.
 */
import { endianness } from 'node:os'
import type { RedirectPorts } from './redirect'
import { rewrites } from './redirect-batch'

const LITTLE = endianness() === 'LE'
const NLA_TYPE_MASK = 0x3fff
const NLA_F_NESTED = 0x8000
const ATTRIBUTE_HEADER = 4 // struct nlattr
const MESSAGE_HEADER = 20 // struct nlmsghdr, struct nfgenmsg
/** In the pattern these two stand for the ports. */
const UDP = 1
const TCP = 2

/** An attribute that must be there: either with these inside or with this very value. */
interface Wanted {
  type: number
  inside: Wanted[] | undefined
  value: Buffer
}

let pattern: Wanted[][] | undefined

/** The ports that the listed rules lead to; undefined unless they are what `redirectBatch` makes, and nothing else. */
export function redirectedPorts(listing: Uint8Array): RedirectPorts | undefined {
  pattern ??= rewrites({ udp: UDP, tcp: TCP }).map(rule => wanted(rule.subarray(MESSAGE_HEADER)))
  const view = new DataView(listing.buffer, listing.byteOffset, listing.byteLength)
  const ports = [0, 0, 0]
  let count = 0
  for (let at = 0; at + MESSAGE_HEADER <= listing.length; count++) {
    const length = view.getUint32(at, LITTLE)
    const rule = pattern[count]
    if (!rule || length < MESSAGE_HEADER || at + length > listing.length) return undefined
    if (!covers(rule, view, at + MESSAGE_HEADER, at + length, ports)) return undefined
    at += align(length)
  }
  const [, udp = 0, tcp = 0] = ports
  return count === pattern.length ? { udp, tcp } : undefined
}

const align = (length: number): number => (length + 3) & ~3

function wanted(bytes: Buffer): Wanted[] {
  const found: Wanted[] = []
  const u16 = (at: number) => (LITTLE ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at))
  for (let at = 0; at < bytes.length; at += align(u16(at))) {
    const value = bytes.subarray(at + ATTRIBUTE_HEADER, at + u16(at))
    const type = u16(at + 2)
    found.push({
      type: type & NLA_TYPE_MASK,
      inside: type & NLA_F_NESTED ? wanted(value) : undefined,
      value,
    })
  }
  return found
}

/**
 * Is all that is wanted between `from` and `to`, and of each type no more? The kernel adds types of its own (handles,
 * defaults). Notes the ports.
 */
function covers(all: Wanted[], view: DataView, from: number, to: number, ports: number[]): boolean {
  let met = 0 // a bit for each
  for (let at = from; at + ATTRIBUTE_HEADER <= to; ) {
    const length = view.getUint16(at, LITTLE)
    if (length < ATTRIBUTE_HEADER || at + length > to) return false
    const type = view.getUint16(at + 2, LITTLE) & NLA_TYPE_MASK
    const known = all.some(each => each.type === type)
    const index = known ? all.findIndex((each, i) => each.type === type && !(met & (1 << i))) : -1
    if (known) {
      const next = all[index]
      if (!next || !fits(next, view, at + ATTRIBUTE_HEADER, at + length, ports)) return false
      met |= 1 << index
    }
    at += align(length)
  }
  return met === (1 << all.length) - 1
}

function fits({ inside, value }: Wanted, view: DataView, from: number, to: number, ports: number[]): boolean {
  if (inside) return covers(inside, view, from, to, ports)
  if (to - from !== value.length) return false
  const standIn = value.length === 2 ? value.readUInt16BE() : 0
  if (standIn === UDP || standIn === TCP) {
    const port = view.getUint16(from)
    if (ports[standIn] !== 0 && ports[standIn] !== port) return false
    ports[standIn] = port
    return true
  }
  for (let i = 0; i < value.length; i++) if (view.getUint8(from + i) !== value[i]) return false
  return true
}
