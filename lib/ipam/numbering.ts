/** Addresses of one pool ↔ their distance from its first address. */
import { BITS, type Cidr, type Family, firstOf, formatCidr, lastOf, parseIp } from '../base/cidr'
import { CnmError } from '../base/errors'
import { NONE, type Offset, offset } from './address-set'
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

/** 0 to 255 in hexadecimal, and in two digits. */
const HEX = Array.from({ length: 256 }, (_, n) => n.toString(16))
const HEX2 = HEX.map(text => text.padStart(2, '0'))
/** Last two digits with the length behind, for all pools of a length. */
const TAILS6: ({ bare: string[]; padded: string[] } | undefined)[] = []

/** How many of the texts before the last group are remembered: a power of two. */
const HEADS = 64
/** Where the text before its last group is remembered: by the three characters before the last colon, at `i`. */
const slotOf = (text: string, i: number): number =>
  (text.charCodeAt(i - 1) ^ (text.charCodeAt(i - 2) << 3) ^ (text.charCodeAt(i - 3) << 1)) & (HEADS - 1)

class Numbering6 extends Numbering {
  private readonly base: Words
  /** The bits that vary inside the pool. */
  private readonly host: Words
  private readonly tails: { bare: string[]; padded: string[] }
  /** Offset / 2^16 and the text up to the last group, of addresses written and read before: they come in runs. */
  private readonly written: { upper: number; head: string }[] = []
  private readonly read: { upper: number; head: string }[] = []
  private rareAt: Offset = NONE
  private rareText = ''

  constructor(pool: Cidr) {
    super(pool)
    this.base = toWords(this.first)
    this.host = toWords((1n << BigInt(BITS[6] - pool.length)) - 1n)
    this.tails = TAILS6[pool.length] ??= {
      bare: HEX.map(text => text + this.suffix),
      padded: HEX2.map(text => text + this.suffix),
    }
  }

  cidrOf(at: Offset): string {
    if (!this.hasHead(at)) return this.rare(at)
    const high = (at & 0xffff) >>> 8
    const tail = high === 0 ? this.tails.bare[at & 255]! : HEX[high]! + this.tails.padded[at & 255]!
    return this.headOf(Math.floor(at / 65_536)) + tail
  }

  /** What ends in a zero group is one address in 65,536, but the first of many ranges. */
  private rare(at: Offset): string {
    if (at !== this.rareAt) {
      this.rareText = this.plain(at) + this.suffix
      this.rareAt = at
    }
    return this.rareText
  }

  addressOf(at: Offset): string {
    return this.hasHead(at)
      ? this.headOf(Math.floor(at / 65_536)) + (at & 0xffff).toString(16)
      : this.plain(at)
  }

  /** When the last group is not zero, how the others are shortened does not depend on it. */
  private hasHead(at: Offset): at is number {
    return typeof at === 'number' && (at & 0xffff) !== 0 && this.length <= 112
  }

  private headOf(upper: number): string {
    const slot = upper & (HEADS - 1)
    const known = this.written[slot]
    if (known !== undefined && known.upper === upper) return known.head
    const head = this.plain(upper * 65_536 + 1).slice(0, -1)
    const entry = { upper, head }
    this.written[slot] = entry
    if (head.length > 3) this.read[slotOf(head, head.length - 1)] = entry
    return head
  }

  /** The offset, when what stands before the last group was met before. */
  private remembered(text: string, end: number): Offset | undefined {
    let colon = end - 1
    while (colon > 2 && end - colon < 5 && text.charCodeAt(colon) !== 58) colon--
    if (colon < 3 || colon === end - 1 || text.charCodeAt(colon) !== 58) return undefined
    const entry = this.read[slotOf(text, colon)]
    if (entry === undefined || entry.head.length !== colon + 1 || !text.startsWith(entry.head))
      return undefined
    let low = 0
    for (let i = colon + 1; i < end; i++) low = low * 16 + hexDigit(text.charCodeAt(i))
    // NaN when there was something else than digits
    return low >= 0 ? entry.upper * 65_536 + low : undefined
  }

  private plain(at: Offset): string {
    const [w0, w1, w2, w3] = this.base
    if (typeof at === 'number') return format6(w0, w1, w2 | Math.floor(at / 4_294_967_296), w3 | at)
    const [o0, o1, o2, o3] = toWords(at)
    return format6(w0 | o0, w1 | o1, w2 | o2, w3 | o3)
  }

  protected quick(text: string, end: number): Offset | undefined {
    const known = this.remembered(text, end)
    if (known !== undefined) return known
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
    if (o1 === 0 && o2 < 2_097_152 && (w0 & host[0]) === 0) {
      const at = o2 * 4_294_967_296 + o3
      if (this.hasHead(at)) this.headOf(Math.floor(at / 65_536)) // so that it is remembered
      return at
    }
    return offset(
      (BigInt((w0 & host[0]) >>> 0) << 96n) | (BigInt(o1) << 64n) | (BigInt(o2) << 32n) | BigInt(o3),
    )
  }
}
