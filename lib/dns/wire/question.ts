/** What a client asks, and the question as we ask it upstream. */
import {
  CLASS_IN,
  HEADER,
  lowerCase,
  MAX_NAME,
  MAX_UDP,
  OPT_SIZE,
  PLAIN_UDP,
  RCODE,
  skipName,
  TYPE,
  writeOpt,
} from './message'

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
