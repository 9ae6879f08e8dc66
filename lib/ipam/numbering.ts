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
  private readonly suffix: string

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
  cidrOf(at: Offset): string {
    return this.addressOf(at) + this.suffix
  }

  abstract addressOf(at: Offset): string

  /**
   * Reads an address, with or without the pool's own length behind it. Throws ERR_INVALID_ADDRESS (not an address, or
   * of the other family), ERR_ADDRESS_OUT_OF_RANGE (not of this pool).
   */
  offsetOf(text: string): Offset {
    const bare = text.endsWith(this.suffix) ? text.slice(0, -this.suffix.length) : text
    return this.quick(bare) ?? this.slow(bare)
  }

  /** The offset of the first and last address of a subnet inside this pool. */
  span(part: Cidr): { first: Offset; last: Offset } {
    return { first: offset(firstOf(part) - this.first), last: offset(lastOf(part) - this.first) }
  }

  /** For the plain spelling of an address of the pool; undefined for all else. */
  protected abstract quick(text: string): Offset | undefined

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

  constructor(pool: Cidr) {
    super(pool)
    this.base = Number(this.first)
    this.top = Number(this.last)
  }

  addressOf(at: Offset): string {
    return format4(this.base + Number(at))
  }

  protected quick(text: string): Offset | undefined {
    const value = parse4(text) - this.base
    return value >= 0 && value <= this.top ? value : undefined
  }
}

const scratch: Words = [0, 0, 0, 0]

class Numbering6 extends Numbering {
  private readonly base: Words
  /** The bits that vary inside the pool. */
  private readonly host: Words

  constructor(pool: Cidr) {
    super(pool)
    this.base = toWords(this.first)
    this.host = toWords((1n << BigInt(BITS[6] - pool.length)) - 1n)
  }

  addressOf(at: Offset): string {
    const [w0, w1, w2, w3] = this.base
    if (typeof at === 'number') return format6(w0, w1, w2 | Math.floor(at / 4_294_967_296), w3 | at)
    const [o0, o1, o2, o3] = toWords(at)
    return format6(w0 | o0, w1 | o1, w2 | o2, w3 | o3)
  }

  protected quick(text: string): Offset | undefined {
    if (!parse6(text, scratch)) return undefined
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
