/**
 * What all DNS messages share (RFC 1035, EDNS0: RFC 6891). The files of this folder are the hot path, written by hand: a
 * question is read without making objects per label, an answer is laid behind the question's own bytes. Everything here
 * survives any input: lengths are checked before each read, and walks only move forward.
 */

export const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  ANY: 255,
} as const
export const RCODE = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  BADVERS: 16,
} as const

export const HEADER = 12
export const CLASS_IN = 1
/** Bytes of a name on the wire, length octets included (RFC 1035 2.3.4). */
export const MAX_NAME = 255
/** Bytes of a UDP answer to a client without EDNS0 (RFC 1035 4.2.1). */
export const PLAIN_UDP = 512
/** Bytes of a UDP message that we are ready to take or give (DNS flag day 2020: what passes unfragmented). */
export const OUR_UDP = 1232
/** Bytes of UDP answers to clients at most: loopback carries that in one piece. */
export const MAX_UDP = 4096
export const MAX_TCP = 65535
/** Bytes of an OPT record without options. */
export const OPT_SIZE = 11

/** The offset behind a (perhaps compressed) name, or -1. */
export function skipName(message: Uint8Array, from: number, stop = message.length): number {
  let at = from
  while (at < stop) {
    const label = message[at]!
    if (label === 0) return at + 1
    if (label >= 0xc0) return at + 2
    if (label > 63) return -1
    at += label + 1
  }
  return -1
}

/** ASCII only, as DNS compares (RFC 4343): toLowerCase would touch letters beyond. */
export const lowerCase = (text: string): string =>
  /[A-Z]/.test(text) ? text.replace(/[A-Z]+/g, letters => letters.toLowerCase()) : text

/** A name as it stands in a message, uncompressed. Undefined if a label or the name is too long or empty. */
export function encodeName(name: string): Buffer | undefined {
  if (name === '' || name === '.') return Buffer.from([0])
  const labels = name.endsWith('.') ? name.slice(0, -1).split('.') : name.split('.')
  const out = Buffer.allocUnsafe(name.length + 2)
  let at = 0
  for (const label of labels) {
    if (label.length === 0 || label.length > 63 || at + label.length + 2 > MAX_NAME) return undefined
    out[at++] = label.length
    at += out.write(label, at, 'latin1')
  }
  out[at++] = 0
  return out.subarray(0, at)
}

/** Puts our OPT record behind the `length` bytes of the message at `base`, and counts it. */
export function writeOpt(
  out: Uint8Array,
  base: number,
  length: number,
  dnssecOk: boolean,
  extendedRcode = 0,
): void {
  const at = base + length
  out[at] = 0
  out[at + 1] = 0
  out[at + 2] = TYPE.OPT
  out[at + 3] = OUR_UDP >> 8
  out[at + 4] = OUR_UDP & 255
  out[at + 5] = extendedRcode
  out[at + 6] = 0
  out[at + 7] = dnssecOk ? 0x80 : 0
  out[at + 8] = out[at + 9] = out[at + 10] = 0
  out[base + 11] = out[base + 11]! + 1
}
