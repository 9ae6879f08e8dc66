/** Addresses of one pool ↔ their distance from its first address. */
import { BITS, type Cidr, type Family, firstOf, formatCidr, lastOf, parseIp } from '../base/cidr'
import { CnmError } from '../base/errors'
import { type Offset, offset } from './address-set'
import { format4, format6, parse4, parse6, toWords, type Words } from './text'

export abstract class Numbering {
  readonly family: Family
  readonly length: number
  /** CIDR of the pool. */
  readonly text: string
  /** Offset of the last address. */
  readonly last: Offset
  protected readonly first: bigint
  protected readonly suffix: string

  protected constructor(readonly pool: Cidr) {
    this.family = pool.family
    this.length = pool.length
    this.text = formatCidr(pool)
    this.first = firstOf(pool)
    this.last = offset(lastOf(pool) - this.first)
    this.suffix = `/${pool.length}`
  }

  static of(pool: Cidr): Numbering {
    return pool.family === 4 ? new Numbering4(pool) : new Numbering6(pool)
  }

  /** ADDRESS/LEN with the pool's length. */
  abstract cidrOf(at: Offset): string
  abstract addressOf(at: Offset): string

  /**
   * Reads an address, with or without the pool's own length behind it. Throws ERR_INVALID_ADDRESS (not an address, or
   * of the other family), ERR_ADDRESS_OUT_OF_RANGE (not of this pool).
   */
  offsetOf(text: string): Offset {
    let end = text.length - this.suffix.length
    if (text.charCodeAt(end) !== 47 || !text.endsWith(this.suffix)) end = text.length
    return this.quick(text, end) ?? this.slow(text.slice(0, end))
  }

  /** The offset of the first and last address of a subnet inside this pool. */
  span(part: Cidr): { first: Offset; last: Offset } {
    return { first: offset(firstOf(part) - this.first), last: offset(lastOf(part) - this.first) }
  }

  /** For the plain spelling, before `end`, of an address of the pool; undefined for all else. */
  protected abstract quick(text: string, end: number): Offset | undefined

  private slow(text: string): Offset {
    const ip = parseIp(text)
    const details = { address: text, pool: this.text }
    if (ip.family !== this.family)
      throw new CnmError(
        'ERR_INVALID_ADDRESS',
        `${text} is an IPv${ip.family} address; pool ${this.text} has IPv${this.family} addresses`,
        details,
      )
    if (ip.value < this.first || ip.value > this.first + BigInt(this.last))
      throw new CnmError('ERR_ADDRESS_OUT_OF_RANGE', `${text} is not in pool ${this.text}`, details)
    return offset(ip.value - this.first)
  }
}

class Numbering4 extends Numbering {
  private readonly base: number
  private readonly top: number
  /** Last octet → its text with the length behind: half of an address is one concatenation away. */
  private readonly tails: string[]
  /** The three octets written last, and their text: addresses come in runs. */
  private recent = -1
  private head = ''

  constructor(pool: Cidr) {
    super(pool)
    this.base = Number(this.first)
    this.top = Number(this.last)
    this.tails = TAILS[pool.length] ??= Array.from({ length: 256 }, (_, octet) => octet + this.suffix)
  }

  cidrOf(at: Offset): string {
    const value = this.base + Number(at)
    const head = value >>> 8
    if (head !== this.recent) {
      this.recent = head
      this.head = `${head >>> 16}.${(head >>> 8) & 255}.${head & 255}.`
    }
    return this.head + this.tails[value & 255]
  }

  addressOf(at: Offset): string {
    return format4(this.base + Number(at))
  }

  protected quick(text: string, end: number): Offset | undefined {
    const value = parse4(text, end) - this.base
    return value >= 0 && value <= this.top ? value : undefined
  }
}

/** Shared by all pools of a length. */
const TAILS: (string[] | undefined)[] = []

const hexDigit = (c: number): number =>
  c >= 48 && c <= 57 ? c - 48 : c >= 97 && c <= 102 ? c - 87 : c >= 65 && c <= 70 ? c - 55 : Number.NaN

const scratch: Words = [0, 0, 0, 0]

class Numbering6 extends Numbering {
  private readonly base: Words
  /** The bits that vary inside the pool. */
  private readonly host: Words
  /** Offset / 2^16 of the address written last, and its text up to the last group: addresses come in runs. */
  private recent = -1
  private head = ''

  constructor(pool: Cidr) {
    super(pool)
    this.base = toWords(this.first)
    this.host = toWords((1n << BigInt(BITS[6] - pool.length)) - 1n)
  }

  cidrOf(at: Offset): string {
    return this.addressOf(at) + this.suffix
  }

  addressOf(at: Offset): string {
    if (typeof at !== 'number' || (at & 0xffff) === 0 || this.length > 112) return this.plain(at)
    const upper = Math.floor(at / 65_536)
    if (upper !== this.recent) {
      // the last group is not zero, so how the others are shortened does not depend on it
      this.head = this.plain(upper * 65_536 + 1).slice(0, -1)
      this.recent = upper
    }
    return this.head + (at & 0xffff).toString(16)
  }

  private plain(at: Offset): string {
    const [w0, w1, w2, w3] = this.base
    if (typeof at === 'number') return format6(w0, w1, w2 | Math.floor(at / 4_294_967_296), w3 | at)
    const [o0, o1, o2, o3] = toWords(at)
    return format6(w0 | o0, w1 | o1, w2 | o2, w3 | o3)
  }

  protected quick(text: string, end: number): Offset | undefined {
    const { head } = this
    if (this.recent >= 0 && end - head.length <= 4 && end > head.length && text.startsWith(head)) {
      let low = 0
      for (let i = head.length; i < end; i++) low = low * 16 + hexDigit(text.charCodeAt(i))
      // NaN when there was something else than digits
      if (low >= 0) return this.recent * 65_536 + low
    }
    if (!parse6(text, scratch, end)) return undefined
    const [w0, w1, w2, w3] = scratch
    const { base, host } = this
    if (
      (w0 & ~host[0]) >>> 0 !== base[0] ||
      (w1 & ~host[1]) >>> 0 !== base[1] ||
      (w2 & ~host[2]) >>> 0 !== base[2] ||
      (w3 & ~host[3]) >>> 0 !== base[3]
    )
      return undefined
    const o1 = (w1 & host[1]) >>> 0
    const o2 = (w2 & host[2]) >>> 0
    const o3 = (w3 & host[3]) >>> 0
    if (o1 === 0 && o2 < 2_097_152 && (w0 & host[0]) === 0) return o2 * 4_294_967_296 + o3
    return offset(
      (BigInt((w0 & host[0]) >>> 0) << 96n) | (BigInt(o1) << 64n) | (BigInt(o2) << 32n) | BigInt(o3),
    )
  }
}
