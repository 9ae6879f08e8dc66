/**
 * Addresses as text, on the hot path: 50 ns where the general parser takes 3 µs. Only the plain forms are read here;
 * whatever else is left to the general parser, which also finds the words for what is wrong.
 */
import { type Cidr, parseCidr } from '../base/cidr'

/** Dotted decimal (all of the text, or what stands before `end`) → unsigned 32-bit number; -1 when it is not that. */
export function parse4(text: string, end = text.length): number {
  let value = 0
  let octet = -1 // no digit yet
  let dots = 0
  for (let i = 0; i < end; i++) {
    const c = text.charCodeAt(i)
    if (c === 46) {
      if (octet < 0 || ++dots > 3) return -1
      value = value * 256 + octet
      octet = -1
    } else if (c >= 48 && c <= 57) {
      if (octet === 0) return -1 // leading zero: octal to some, so refused by all
      octet = (octet < 0 ? 0 : octet * 10) + c - 48
      if (octet > 255) return -1
    } else return -1
  }
  return dots === 3 && octet >= 0 ? value * 256 + octet : -1
}

export const format4 = (n: number): string => `${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`

/** The four 32-bit words of an IPv6 address, most significant first. */
export type Words = [number, number, number, number]

const groups = new Uint16Array(8)

/**
 * Hexadecimal groups (RFC 4291, 2.2 forms 1 and 2; all of the text, or what stands before `length`) → `out`; false when
 * it is not exactly that.
 */
export function parse6(text: string, out: Words, length = text.length): boolean {
  let count = 0
  let gap = -1 // how many groups stand before `::`
  let value = 0
  let digits = 0
  let i = 0
  if (text.charCodeAt(0) === 58) {
    if (length < 2 || text.charCodeAt(1) !== 58) return false
    gap = 0
    i = 2
  }
  for (; i < length; i++) {
    const c = text.charCodeAt(i)
    if (c === 58) {
      if (digits === 0) {
        // the second colon of `::`; a third one, or a second `::`, finds `gap` set
        if (gap >= 0) return false
        gap = count
        continue
      }
      if (count === 8) return false
      groups[count++] = value
      value = 0
      digits = 0
      if (i === length - 1) return false // a single colon at the end
      continue
    }
    const digit =
      c >= 48 && c <= 57 ? c - 48 : c >= 97 && c <= 102 ? c - 87 : c >= 65 && c <= 70 ? c - 55 : -1
    if (digit < 0 || ++digits > 4) return false
    value = value * 16 + digit
  }
  if (digits > 0) {
    if (count === 8) return false
    groups[count++] = value
  }
  if (gap < 0) {
    if (count !== 8) return false
  } else {
    if (count === 8) return false
    const tail = count - gap
    for (let k = 0; k < tail; k++) groups[7 - k] = groups[count - 1 - k]!
    for (let k = gap; k < 8 - tail; k++) groups[k] = 0
  }
  out[0] = ((groups[0]! << 16) | groups[1]!) >>> 0
  out[1] = ((groups[2]! << 16) | groups[3]!) >>> 0
  out[2] = ((groups[4]! << 16) | groups[5]!) >>> 0
  out[3] = ((groups[6]! << 16) | groups[7]!) >>> 0
  return true
}

/** Canonical text, RFC 5952: the first longest run of two or more zero groups is shortened. */
export function format6(w0: number, w1: number, w2: number, w3: number): string {
  groups[0] = w0 >>> 16
  groups[1] = w0
  groups[2] = w1 >>> 16
  groups[3] = w1
  groups[4] = w2 >>> 16
  groups[5] = w2
  groups[6] = w3 >>> 16
  groups[7] = w3
  let start = -1
  let longest = 1
  for (let i = 0; i < 8; ) {
    if (groups[i] !== 0) {
      i++
      continue
    }
    let end = i + 1
    while (end < 8 && groups[end] === 0) end++
    if (end - i > longest) {
      start = i
      longest = end - i
    }
    i = end
  }
  let text = ''
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      text += '::'
      i += longest - 1
      continue
    }
    if (i > 0 && i !== start + longest) text += ':' // without a run: start + longest = 0
    text += groups[i]!.toString(16)
  }
  return text
}

export const toWords = (value: bigint): Words => [
  Number(value >> 96n),
  Number((value >> 64n) & 0xffffffffn),
  Number((value >> 32n) & 0xffffffffn),
  Number(value & 0xffffffffn),
]

/** {@link parseCidr}, quick for plain IPv4. */
export function readCidr(text: string): Cidr {
  const slash = text.indexOf('/')
  if (slash > 0 && slash >= text.length - 3) {
    const value = parse4(text.slice(0, slash))
    const tail = text.slice(slash + 1)
    if (value >= 0 && /^(0|[1-9]\d?)$/.test(tail) && Number(tail) <= 32)
      return { family: 4, value: BigInt(value), length: Number(tail) }
  }
  return parseCidr(text)
}
