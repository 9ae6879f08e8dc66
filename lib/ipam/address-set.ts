/**
 * The addresses of one pool that are not free, by their distance from its first address, each with its holder.
 * One structure for a /30 and for an IPv6 /0: the distance is cut into a segment and a 32-bit number inside it; a
 * segment exists only while something in it is held.
 */
import { Holders } from './holders'
import { FREE } from './owners'

/** Distance from the first address of the pool: a number when it is a safe integer, a bigint when not (IPv6 only). */
export type Offset = number | bigint

/** The answer "there is none". */
export const NONE = -1

const SEGMENT = 4_294_967_296 // 2^32
const SEGMENT_BITS = 32n
const SAFE = BigInt(Number.MAX_SAFE_INTEGER)

/** The one form of an offset, so that equal offsets are the same key of a Map. */
export const offset = (value: bigint): Offset => (value <= SAFE ? Number(value) : value)
export const next = (at: Offset): Offset =>
  typeof at === 'number' && at < Number.MAX_SAFE_INTEGER ? at + 1 : offset(BigInt(at) + 1n)
export const previous = (at: Offset): Offset => (typeof at === 'number' ? at - 1 : offset(at - 1n))

const segmentOf = (at: Offset): Offset => {
  if (typeof at !== 'number') return offset(at >> SEGMENT_BITS)
  return at < SEGMENT ? 0 : Math.floor(at / SEGMENT)
}
const placeOf = (at: Offset): number => (typeof at === 'number' ? at >>> 0 : Number(at & 0xffffffffn))
const join = (segment: Offset, place: number): Offset =>
  typeof segment === 'number' && segment < 2_097_152 // 2^21: the product stays a safe integer
    ? segment * SEGMENT + place
    : offset((BigInt(segment) << SEGMENT_BITS) | BigInt(place))

export class AddressSet {
  private readonly segments = new Map<Offset, Holders>()
  /** The segment looked up last. */
  private recentKey: Offset = NONE
  private recent: Holders | undefined
  private idleKey: Offset = NONE

  /** How many addresses are not free. */
  get size(): number {
    let total = 0
    for (const segment of this.segments.values()) total += segment.size
    return total
  }

  /** The number of the holder; FREE when nobody is. */
  ownerOf(at: Offset): number {
    return this.segment(segmentOf(at))?.get(placeOf(at)) ?? FREE
  }

  /** Makes it held by `owner`, whoever held it before. */
  take(at: Offset, owner: number): void {
    const key = segmentOf(at)
    let segment = this.segment(key)
    if (segment === undefined) {
      segment = new Holders()
      this.segments.set(key, segment)
    }
    segment.set(placeOf(at), owner)
  }

  free(at: Offset): void {
    const key = segmentOf(at)
    const segment = this.segment(key)
    if (segment === undefined) return
    segment.delete(placeOf(at))
    if (segment.size === 0) this.idle(key)
  }

  /** The lowest free one from `first` to `last` (inclusive); NONE when all are held. */
  nextFree(first: Offset, last: Offset): Offset {
    let from = first
    while (from <= last) {
      const key = segmentOf(from)
      const segment = this.segment(key)
      if (segment === undefined) return from
      const place = segment.nextFree(placeOf(from))
      if (place < SEGMENT) {
        const found = join(key, place)
        return found <= last ? found : NONE
      }
      // 2^32 addresses of this segment are held: 512 MB of bits. The loop is for completeness.
      from = join(next(key), 0)
    }
    return NONE
  }

  /** How many from `first` to `last` (inclusive) are not free. Time grows with what is held. */
  count(first: Offset, last: Offset): number {
    const low = segmentOf(first)
    const high = segmentOf(last)
    let total = 0
    for (const [key, segment] of this.segments) {
      if (key < low || key > high) continue
      total += segment.count(key === low ? placeOf(first) : 0, key === high ? placeOf(last) : SEGMENT - 1)
    }
    return total
  }

  /** In no particular order. The visitor must not change anything. */
  forEach(visit: (at: Offset, owner: number) => void): void {
    for (const [key, segment] of this.segments)
      segment.forEach((place, owner) => {
        visit(join(key, place), owner)
      })
  }

  /** Bytes of the bits and of the holders. */
  get bytes(): { bits: number; owners: number } {
    const total = { bits: 0, owners: 0 }
    for (const { bytes } of this.segments.values()) {
      total.bits += bytes.bits
      total.owners += bytes.holders
    }
    return total
  }

  /** One empty segment may stay; the one that stayed before goes, if it is still empty. */
  private idle(key: Offset): void {
    const before = this.idleKey
    this.idleKey = key
    if (before === NONE || before === key || this.segments.get(before)?.size !== 0) return
    this.segments.delete(before)
    if (before === this.recentKey) this.recentKey = NONE
  }

  private segment(key: Offset): Holders | undefined {
    if (key === this.recentKey) return this.recent
    const segment = this.segments.get(key)
    if (segment === undefined) return undefined
    this.recentKey = key
    this.recent = segment
    return segment
  }
}
