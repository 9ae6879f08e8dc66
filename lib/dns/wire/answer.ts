/** Our own answers: laid out once, completed for each client. */
import { CLASS_IN, HEADER, MAX_TCP, OPT_SIZE, TYPE, writeOpt } from './message'
import type { Question } from './question'

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

/** Writes the client's id and its RD and CD bits. */
function seal(out: Uint8Array, base: number, question: Question): void {
  out[base] = question.id >> 8
  out[base + 1] = question.id & 255
  if (question.recursionDesired) out[base + 2] = out[base + 2]! | 1
  if (question.checkingDisabled) out[base + 3] = out[base + 3]! | 0x10
}
