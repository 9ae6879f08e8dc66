/** What upstreams answer: checked, kept, and handed to clients. */
import { HEADER, MAX_TCP, OPT_SIZE, RCODE, skipName, TYPE, writeOpt } from './message'
import type { Question } from './question'

/** An answer from elsewhere: checked, without id and OPT. */
export interface Foreign {
  bytes: Buffer
  rcode: number
  truncated: boolean
  /** Offsets of the TTL fields. */
  ttls: number[]
  /** Seconds that all of it may be kept; undefined: not at all. */
  keep: number | undefined
  /** Offsets behind the question and behind each answer record. */
  cuts: number[]
}

/** Seconds: longest time that an answer, or the lack of one, is kept. */
const KEEP = { most: 3600, mostNegative: 900 }

/**
 * Reads an upstream's message. Undefined: not a well-formed answer to `asked` (compared without case).
 * `asked` is the message that was sent; its question begins at 12 and ends at `end`.
 */
export function readForeign(message: Buffer, asked: Buffer, end: number): Foreign | undefined {
  const length = message.length
  if (length < HEADER || length > MAX_TCP) return undefined
  if (!(message[2]! & 0x80) || message[2]! & 0x78) return undefined
  let rcode = message[3]! & 15
  if (message[4] !== 0) return undefined
  if (message[5] === 0) {
    // Some servers leave the question out of an error.
    if (rcode === 0 || rcode === RCODE.NXDOMAIN) return undefined
    const bytes = Buffer.alloc(end)
    asked.copy(bytes, HEADER, HEADER, end)
    message.copy(bytes, 0, 0, 4)
    bytes[5] = 1
    return { bytes, rcode, truncated: false, ttls: [], keep: undefined, cuts: [end] }
  }
  if (message[5] !== 1 || length < end || !sameQuestion(message, asked, end)) return undefined

  const answers = message.readUInt16BE(6)
  const authority = message.readUInt16BE(8)
  const additional = message.readUInt16BE(10)
  const truncated = (message[2]! & 2) !== 0
  const ttls: number[] = []
  const cuts = [end]
  let keep = KEEP.most
  let negative: number | undefined
  let at = end
  let stop = length // where what we keep ends
  let kept = 0
  for (let i = 0; i < answers + authority + additional; i++) {
    const start = at
    at = skipName(message, at)
    if (at < 0 || at + 10 > length) {
      if (!truncated) return undefined
      return cutShort(message, asked, end, rcode)
    }
    const type = message.readUInt16BE(at)
    const next = at + 10 + message.readUInt16BE(at + 8)
    if (next > length) {
      if (!truncated) return undefined
      return cutShort(message, asked, end, rcode)
    }
    if (type === TYPE.OPT && i >= answers + authority) {
      // Hop by hop: ends here. What follows it (hardly ever anything) is optional and goes too.
      rcode |= message[at + 4]! << 4
      stop = start
      break
    }
    const ttl = message.readUInt32BE(at + 4)
    ttls.push(at + 4)
    if (ttl < keep) keep = ttl < 0x80000000 ? ttl : 0
    if (i >= answers && i < answers + authority && type === TYPE.SOA && next - at >= 14)
      negative = Math.min(ttl, message.readUInt32BE(next - 4)) // MINIMUM, RFC 2308 5
    if (i < answers) cuts.push(next)
    if (i >= answers + authority) kept++
    at = next
    stop = next
  }
  const bytes = Buffer.from(message.subarray(0, stop))
  asked.copy(bytes, HEADER, HEADER, end)
  bytes.writeUInt16BE(kept, 10)
  const positive = rcode === RCODE.NOERROR && answers > 0
  const known = positive ? keep : rcode === RCODE.NXDOMAIN || rcode === RCODE.NOERROR ? negative : undefined
  const most = positive ? KEEP.most : KEEP.mostNegative
  return {
    bytes,
    rcode,
    truncated,
    ttls,
    keep: truncated || known === undefined ? undefined : Math.min(known, most),
    cuts,
  }
}

/** A truncated message may end in the middle of a record: nothing of it is used. */
function cutShort(message: Buffer, asked: Buffer, end: number, rcode: number): Foreign {
  const bytes = Buffer.alloc(end)
  message.copy(bytes, 0, 0, 4)
  asked.copy(bytes, HEADER, HEADER, end)
  bytes[5] = 1
  return { bytes, rcode, truncated: true, ttls: [], keep: undefined, cuts: [end] }
}

function sameQuestion(message: Buffer, asked: Buffer, end: number): boolean {
  for (let i = HEADER; i < end; i++) {
    const a = message[i]!
    const b = asked[i]!
    if (a === b) continue
    // Letters differ in bit 5 only; a byte that is no letter must be the same. The last four bytes are type and class.
    if (i >= end - 4 || (a ^ b) !== 0x20 || (a | 0x20) < 97 || (a | 0x20) > 122) return false
  }
  return true
}

/** An upstream's answer for one client, `age` seconds after it came. */
export function relay(
  foreign: Foreign,
  message: Buffer,
  question: Question,
  limit: number,
  age: number,
): Buffer {
  const { bytes } = foreign
  const opt = question.edns ? OPT_SIZE : 0
  let length = bytes.length
  let cut = foreign.cuts.length - 1
  const whole = length + opt <= limit
  if (!whole) {
    while (cut > 0 && foreign.cuts[cut]! + opt > limit) cut--
    length = foreign.cuts[cut]!
  }
  const out = Buffer.allocUnsafe(length + opt)
  bytes.copy(out, 0, 0, length)
  message.copy(out, HEADER, HEADER, question.end)
  out[0] = message[0]!
  out[1] = message[1]!
  out[2] = 0x80 | (bytes[2]! & 0x06) | (question.recursionDesired ? 1 : 0)
  out[3] = 0x80 | (bytes[3]! & 0x2f) | (question.checkingDisabled ? 0x10 : 0)
  if (!whole) {
    if (cut < foreign.cuts.length - 1) out[2] = out[2]! | 0x02
    out[6] = cut >> 8
    out[7] = cut & 255
    out[8] = out[9] = out[10] = out[11] = 0
  }
  if (age > 0)
    for (const at of foreign.ttls) {
      if (at >= length) break
      const ttl = bytes.readUInt32BE(at)
      out.writeUInt32BE(ttl > age ? ttl - age : 0, at)
    }
  if (opt) writeOpt(out, 0, length, question.dnssecOk, foreign.rcode >> 4)
  return out
}
