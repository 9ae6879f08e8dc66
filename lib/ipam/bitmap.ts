/**
 * A set of numbers below 2^32, held as a bitmap of bitmaps.
 *
 * Level 0 has one bit per number, in leaves of 1,024 bits that exist only while one of their bits is set (but for one). Each leaf
 * carries a summary: one bit per word that is full. When a leaf itself is full, it sets its bit on the level above,
 * which is made of the same leaves and exists only once needed. So the lowest number that is not in the set, from any
 * point on, is found with at most two `clz32` per level and four levels: constant time at any fill, and the memory
 * follows what is in the set, not the range.
 *
 * Bits are counted from the most significant one, because `Math.clz32` finds that one first.
 */

const LEAF_BITS = 10
const LEAF = 1 << LEAF_BITS
/**
 * Words of a leaf: the summary, how many bits are set, two for the user; then 32 pairs of a word of bits and one for the user.
 * What belongs to a number is in two cache lines so, however large the set: that is what decides how fast it is.
 */
export const LEAF_WORDS = 68
const SUMMARY = 0
const COUNT = 1
/** The first of the user's two words at the head. */
export const HEAD = 2
/** Where the pairs begin. */
export const PAIRS = 4
const FULL = 0xffffffff
export const NO_LEAF = -1

/** Where the word of bits that `n` is in stands in its leaf; the user's word follows it. */
export const pairOf = (n: number): number => PAIRS + ((n >>> 4) & 62)

export class Bitmap {
  /** How many numbers are in the set. */
  size = 0
  /** Number of the leaf → its place in `words`. */
  private readonly leaves = new Map<number, number>()
  /** All leaves, side by side: typed arrays of their own would cost more than the bits. */
  words: Uint32Array<ArrayBuffer>
  private places = 0
  private spare: number[] = []
  private above: Bitmap | undefined
  /** The leaf looked up last: operations come in runs on the same one. */
  private recentKey = NO_LEAF
  private recentPlace = 0
  /** The one before it: a release here and an allocation there take turns. */
  private formerKey = NO_LEAF
  private formerPlace = 0
  /** A leaf left in place although empty: the next number often goes there. */
  private idleKey = NO_LEAF

  constructor() {
    this.words = new Uint32Array(LEAF_WORDS)
  }

  has(n: number): boolean {
    const leaf = this.find(n >>> LEAF_BITS)
    if (leaf === NO_LEAF) return false
    return (this.words[leaf + pairOf(n)]! & (0x80000000 >>> (n & 31))) !== 0
  }

  /** False when it was there already. */
  add(n: number): boolean {
    const key = n >>> LEAF_BITS
    let leaf = this.find(key)
    if (leaf === NO_LEAF) leaf = this.grow(key)
    const words = this.words
    const at = leaf + pairOf(n)
    const mask = 0x80000000 >>> (n & 31)
    const word = words[at]!
    if ((word & mask) !== 0) return false
    words[at] = word | mask
    if (words[at] === FULL) words[leaf + SUMMARY]! |= 0x80000000 >>> ((n >>> 5) & 31)
    this.size++
    if (++words[leaf + COUNT]! === LEAF) {
      this.above ??= new Bitmap()
      this.above.add(key)
    }
    return true
  }

  /** False when it was not there. */
  delete(n: number): boolean {
    const key = n >>> LEAF_BITS
    const leaf = this.find(key)
    if (leaf === NO_LEAF) return false
    const words = this.words
    const at = leaf + pairOf(n)
    const mask = 0x80000000 >>> (n & 31)
    const word = words[at]!
    if ((word & mask) === 0) return false
    words[at] = word & ~mask
    words[leaf + SUMMARY]! &= ~(0x80000000 >>> ((n >>> 5) & 31))
    this.size--
    const count = words[leaf + COUNT]!--
    if (count === LEAF) this.above?.delete(key)
    else if (count === 1) this.idle(key)
    return true
  }

  /** The lowest number from `from` on that is not in the set; 2^32 or more when there is none. */
  nextFree(from: number): number {
    const key = from >>> LEAF_BITS
    let leaf = this.find(key)
    if (leaf === NO_LEAF) return from
    const words = this.words
    const index = (from >>> 5) & 31
    let open = ~words[leaf + pairOf(from)]! & (FULL >>> (from & 31))
    if (open !== 0) return from - (from & 31) + Math.clz32(open)
    open = index === 31 ? 0 : ~words[leaf + SUMMARY]! & (FULL >>> (index + 1))
    if (open !== 0) {
      const at = Math.clz32(open)
      return key * LEAF + at * 32 + Math.clz32(~words[leaf + PAIRS + 2 * at]!)
    }
    const next = this.above === undefined ? key + 1 : this.above.nextFree(key + 1)
    leaf = this.find(next)
    if (leaf === NO_LEAF) return next * LEAF
    const at = Math.clz32(~words[leaf + SUMMARY]!)
    return next * LEAF + at * 32 + Math.clz32(~words[leaf + PAIRS + 2 * at]!)
  }

  /** How many numbers from `first` to `last` (inclusive) are in the set. Time grows with the leaves. */
  count(first: number, last: number): number {
    let total = 0
    for (const [key, place] of this.leaves) {
      const start = key * LEAF
      if (start > last || start + LEAF - 1 < first) continue
      if (start >= first && start + LEAF - 1 <= last) total += this.words[place + COUNT]!
      else
        for (let n = Math.max(start, first); n <= Math.min(start + LEAF - 1, last); n++)
          if (this.has(n)) total++
    }
    return total
  }

  /** Numbers of the leaves there are and their places in `words`; the number times 1,024 is the first bit of a leaf. */
  forEachLeaf(visit: (key: number, place: number) => void): void {
    for (const [key, place] of this.leaves) visit(key, place)
  }

  /** The place in `words` of the leaf that `n` is in; NO_LEAF when there is none. */
  leafOf(n: number): number {
    return this.find(n >>> LEAF_BITS)
  }

  /** Bytes of all levels; the index of leaves (a Map, some 40 bytes per leaf) not counted. */
  get bytes(): number {
    return this.words.byteLength + (this.above?.bytes ?? 0)
  }

  private find(key: number): number {
    if (key === this.recentKey) return this.recentPlace
    let place: number | undefined
    if (key === this.formerKey) place = this.formerPlace
    else {
      place = this.leaves.get(key)
      if (place === undefined) return NO_LEAF
    }
    this.formerKey = this.recentKey
    this.formerPlace = this.recentPlace
    this.recentKey = key
    this.recentPlace = place
    return place
  }

  private grow(key: number): number {
    let place = this.spare.pop()
    if (place === undefined) {
      place = this.places++ * LEAF_WORDS
      if (place + LEAF_WORDS > this.words.length) this.words = enlarged(this.words, LEAF_WORDS)
    }
    this.leaves.set(key, place)
    return place
  }

  /** One empty leaf may stay; the one that stayed before goes, if it is still empty. */
  private idle(key: number): void {
    const before = this.idleKey
    this.idleKey = key
    if (before === NO_LEAF || before === key) return
    const place = this.leaves.get(before)
    if (place === undefined || this.words[place + COUNT] !== 0) return
    // its bits are all zero again, so the place can be given to another leaf as it is
    this.leaves.delete(before)
    this.spare.push(place)
    if (before === this.recentKey) this.recentKey = NO_LEAF
    if (before === this.formerKey) this.formerKey = NO_LEAF
  }
}

/** Room for at least one more record: doubled while small, then by a quarter, so that little lies idle. */
export function enlarged(words: Uint32Array<ArrayBuffer>, stride: number): Uint32Array<ArrayBuffer> {
  const records = words.length / stride
  const more = records < 4096 ? records : records >>> 2
  const larger = new Uint32Array((records + more) * stride)
  larger.set(words)
  return larger
}
