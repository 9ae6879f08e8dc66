/**
 * DNS messages as bytes (RFC 1035, EDNS0: RFC 6891): the hot path, written by hand. A question is read without making
 * objects per label, an answer is laid behind the question's own bytes. Everything here survives any input: lengths are
 * checked before each read, and walks only move forward.
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

const HEADER = 12
const CLASS_IN = 1
/** Bytes of a name on the wire, length octets included (RFC 1035 2.3.4). */
const MAX_NAME = 255
/** Bytes of a UDP answer to a client without EDNS0 (RFC 1035 4.2.1). */
export const PLAIN_UDP = 512
/** Bytes of a UDP message that we are ready to take or give (DNS flag day 2020: what passes unfragmented). */
export const OUR_UDP = 1232
/** Bytes of UDP answers to clients at most: loopback carries that in one piece. */
const MAX_UDP = 4096
export const MAX_TCP = 65535
/** Bytes of an OPT record without options. */
const OPT_SIZE = 11

/** A question as heard, valid until the next {@link readQuestion} with the same object. */
export interface Question {
  id: number
  recursionDesired: boolean
  checkingDisabled: boolean
  /** Offset of the first byte behind the question. */
  end: number
  type: number
  /** The client speaks EDNS0. */
  edns: boolean
  dnssecOk: boolean
  /** Bytes that the client takes by UDP. */
  udpSize: number
}

export const newQuestion = (): Question => ({
  id: 0,
  recursionDesired: false,
  checkingDisabled: false,
  end: 0,
  type: 0,
  edns: false,
  dnssecOk: false,
  udpSize: PLAIN_UDP,
})

/** Not a question at all: nothing is said to it, so that two servers can never talk forever. */
export const DROP = -1

/**
 * Reads header, question and OPT record. Returns NOERROR, {@link DROP}, or the code to answer with
 * (`question.end` is then the header's end if the question itself could not be read). `base`, `length`: where the message
 * lies; offsets in `question` count from there.
 */
export function readQuestion(
  message: Uint8Array,
  question: Question,
  base = 0,
  length = message.length - base,
): number {
  if (length < HEADER) return DROP
  const flags = message[base + 2]!
  if (flags & 0x80) return DROP // an answer
  question.id = (message[base]! << 8) | message[base + 1]!
  question.recursionDesired = (flags & 1) !== 0
  question.checkingDisabled = (message[base + 3]! & 0x10) !== 0
  question.end = HEADER
  question.type = 0
  question.edns = false
  question.dnssecOk = false
  question.udpSize = PLAIN_UDP
  if (flags & 0x78) return RCODE.NOTIMP // opcode
  // QDCOUNT must be 1, ANCOUNT and NSCOUNT 0
  if (
    message[base + 4] !== 0 ||
    message[base + 5] !== 1 ||
    message[base + 6]! | message[base + 7]! | message[base + 8]! | message[base + 9]!
  )
    return RCODE.FORMERR

  const stop = base + length
  const first = base + HEADER
  let at = first
  for (;;) {
    if (at >= stop) return RCODE.FORMERR
    const label = message[at]!
    if (label === 0) break
    if (label > 63) return RCODE.FORMERR // a pointer or a reserved kind
    at += label + 1
    if (at - first >= MAX_NAME) return RCODE.FORMERR
  }
  at += 5
  if (at > stop) return RCODE.FORMERR
  question.end = at - base
  question.type = (message[at - 4]! << 8) | message[at - 3]!
  const klass = (message[at - 2]! << 8) | message[at - 1]!

  let extra = (message[base + 10]! << 8) | message[base + 11]!
  while (extra-- > 0) {
    const start = at
    at = skipName(message, at, stop)
    if (at < 0 || at + 10 > stop) return RCODE.FORMERR
    const next = at + 10 + ((message[at + 8]! << 8) | message[at + 9]!)
    if (next > stop) return RCODE.FORMERR
    if (message[at] === 0 && message[at + 1] === TYPE.OPT) {
      if (question.edns || message[start] !== 0) return RCODE.FORMERR // one, and of the root
      question.edns = true
      const size = (message[at + 2]! << 8) | message[at + 3]!
      question.udpSize = size < PLAIN_UDP ? PLAIN_UDP : size > MAX_UDP ? MAX_UDP : size
      question.dnssecOk = (message[at + 6]! & 0x80) !== 0
      if (message[at + 5] !== 0) return RCODE.BADVERS
    }
    at = next
  }
  if (klass !== CLASS_IN) return RCODE.NOTIMP
  return RCODE.NOERROR
}

/** The offset behind a (perhaps compressed) name, or -1. */
function skipName(message: Uint8Array, from: number, stop = message.length): number {
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

/** The name of a question that {@link readQuestion} accepted: lower case, dots between labels. */
export function questionName(message: Buffer): string {
  const parts: string[] = []
  let at = HEADER
  for (;;) {
    const length = message[at]!
    if (length === 0) break
    const label = message.toString('latin1', at + 1, at + 1 + length)
    // A dot inside a label must not look like one between labels.
    parts.push(label.includes('.') ? label.replaceAll('.', '\\.') : label)
    at += length + 1
  }
  return lowerCase(parts.join('.'))
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

/* ------------------------------------------------------------------------------------------------ our own answers */

/** A record ready to be written. */
export interface Resource {
  /** The owner on the wire; undefined: the question's name (a pointer to it). */
  owner?: Buffer
  type: number
  /** Seconds. */
  ttl: number
  data: Buffer
}

/** An answer laid out for one question, without id and OPT: copied and completed for each client. */
export interface Template {
  bytes: Buffer
  /** Offset behind the question. */
  end: number
  /** Where records begin that may change places, how long each is, how many there are. */
  from: number
  size: number
  count: number
  /** Whose turn it is to be first. */
  turn: number
  /** Offsets where the message may be cut: each behind a whole record. */
  cuts: number[]
  answers: number
}

/** Lays out an answer. Answers of one size (addresses) are given in changing order. */
export function layOut(
  message: Buffer,
  questionEnd: number,
  rcode: number,
  answers: Resource[],
  additional: Resource[] = [],
): Template {
  const size = (record: Resource) => (record.owner?.length ?? 2) + 10 + record.data.length
  const total = [...answers, ...additional].reduce((sum, record) => sum + size(record), questionEnd)
  const bytes = Buffer.alloc(total)
  message.copy(bytes, HEADER, HEADER, questionEnd)
  bytes[2] = 0x80
  bytes[3] = 0x80 | rcode // recursion available, always
  bytes.writeUInt16BE(questionEnd > HEADER ? 1 : 0, 4)
  bytes.writeUInt16BE(answers.length, 6)
  bytes.writeUInt16BE(additional.length, 10)
  const cuts: number[] = [questionEnd]
  let at = questionEnd
  for (const record of [...answers, ...additional]) {
    if (record.owner) at += record.owner.copy(bytes, at)
    else at = bytes.writeUInt16BE(0xc000 | HEADER, at)
    at = bytes.writeUInt16BE(record.type, at)
    at = bytes.writeUInt16BE(CLASS_IN, at)
    at = bytes.writeUInt32BE(record.ttl, at)
    at = bytes.writeUInt16BE(record.data.length, at)
    at += record.data.copy(bytes, at)
    if (cuts.length <= answers.length) cuts.push(at)
  }
  // Only the trailing run of addresses may be shuffled: a CNAME stays before what it leads to.
  let first = answers.length
  const last = answers[answers.length - 1]
  if (last && (last.type === TYPE.A || last.type === TYPE.AAAA))
    while (first > 0 && answers[first - 1]!.type === last.type && size(answers[first - 1]!) === size(last))
      first--
  return {
    bytes,
    end: questionEnd,
    from: cuts[first] ?? questionEnd,
    size: last ? size(last) : 0,
    count: answers.length - first,
    turn: 0,
    cuts,
    answers: answers.length,
  }
}

/** Completes a laid out answer for one client. `limit`: bytes at most; beyond, whole records are left out and TC set. */
export function complete(template: Template, question: Question, limit: number): Buffer {
  const out = Buffer.allocUnsafe(Math.min(template.bytes.length + OPT_SIZE, limit))
  return out.subarray(0, completeInto(template, question, limit, out, 0))
}

/** The same, written at `base` of `out`, where `limit` bytes are free. Returns how many it took. */
export function completeInto(
  template: Template,
  question: Question,
  limit: number,
  out: Uint8Array,
  base: number,
): number {
  const { bytes } = template
  const opt = question.edns ? OPT_SIZE : 0
  let length = bytes.length
  let cut = template.answers
  const whole = length + opt <= limit
  if (!whole) {
    while (cut > 0 && template.cuts[cut]! + opt > limit) cut--
    length = template.cuts[cut]!
  }
  copy(bytes, 0, out, base, length)
  if (template.count > 1) rotate(template, out, base, length)
  if (!whole) {
    // Additional records are left out first; that alone is no truncation (RFC 2181 9).
    if (cut < template.answers) out[base + 2] = out[base + 2]! | 0x02
    out[base + 6] = cut >> 8
    out[base + 7] = cut & 255
    out[base + 10] = out[base + 11] = 0
  }
  seal(out, base, question)
  if (opt) writeOpt(out, base, length, question.dnssecOk)
  return length + opt
}

/** Short runs of bytes: for these a loop is quicker than the call that copies. */
function copy(from: Uint8Array, start: number, to: Uint8Array, at: number, length: number): void {
  if (length > 128) to.set(from.subarray(start, start + length), at)
  else for (let i = 0; i < length; i++) to[at + i] = from[start + i]!
}

/** Indexes of records that still wait for their place; as many as a message can hold. */
const waiting = new Uint16Array(MAX_TCP / 16)

/** Every record comes first in turn; the others follow in random order, so that no neighbour inherits a dead one's load. */
function rotate(template: Template, out: Uint8Array, base: number, length: number): void {
  const { bytes, from, size, count } = template
  const first = template.turn
  template.turn = first + 1 >= count ? 0 : first + 1
  const room = Math.min(count, ((length - from) / size) | 0)
  if (room <= 0) return
  copy(bytes, from + first * size, out, base + from, size)
  let left = 0
  for (let i = 0; i < count; i++) if (i !== first) waiting[left++] = i
  for (let place = 1; place < room; place++) {
    const j = (Math.random() * left) | 0
    copy(bytes, from + waiting[j]! * size, out, base + from + place * size, size)
    waiting[j] = waiting[--left]!
  }
}

/** Writes the client's id and its RD and CD bits. */
function seal(out: Uint8Array, base: number, question: Question): void {
  out[base] = question.id >> 8
  out[base + 1] = question.id & 255
  if (question.recursionDesired) out[base + 2] = out[base + 2]! | 1
  if (question.checkingDisabled) out[base + 3] = out[base + 3]! | 0x10
}

/** Puts our OPT record behind the `length` bytes of the message at `base`, and counts it. */
function writeOpt(out: Uint8Array, base: number, length: number, dnssecOk: boolean, extendedRcode = 0): void {
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

/** An answer without records: an error, or "the name exists, but not so". */
export function emptyAnswer(message: Buffer, question: Question, rcode: number): Buffer {
  const opt = question.edns || rcode > 15 ? OPT_SIZE : 0
  const out = Buffer.alloc(question.end + opt)
  message.copy(out, HEADER, HEADER, question.end)
  out[2] = 0x80 | (message[2]! & 0x78)
  out[3] = 0x80 | (rcode & 15)
  out[5] = question.end > HEADER ? 1 : 0
  seal(out, 0, question)
  if (opt) writeOpt(out, 0, question.end, question.dnssecOk, rcode >> 4)
  return out
}

/* ------------------------------------------------------------------------------------------- what upstreams answer */

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

/** The question as we ask it ourselves: our own OPT, nothing of the client's options (cookies, padding, subnet). */
export function ownQuestion(message: Buffer, question: Question, edns: boolean): Buffer {
  const end = question.end
  const out = Buffer.alloc(end + (edns ? OPT_SIZE : 0))
  message.copy(out, HEADER, HEADER, end)
  out[2] = question.recursionDesired ? 1 : 0
  out[3] = question.checkingDisabled ? 0x10 : 0
  out[5] = 1
  if (edns) writeOpt(out, 0, end, question.dnssecOk)
  return out
}
