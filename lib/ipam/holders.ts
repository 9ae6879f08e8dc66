/**
 * Number below 2^32 → number of its holder; which of them are held is a {@link Bitmap}.
 *
 * Holders of 32 neighbours make a block. Addresses are mostly given out in a row, to owners that are new (their numbers
 * follow one another) or to one owner: then a block is one word, the holder that its first number has or would have.
 * Only when the holders follow neither pattern has a block a word for each of them. So 65,536 addresses given out in a
 * row take 17 KB, whoever the owners are, and 273 KB after they have been released and taken again in any order. Word
 * and bits of a block stand side by side in one leaf: an operation looks up one leaf and touches no second one.
 */
import { Bitmap, enlarged, HEAD, NO_LEAF, PAIRS, pairOf } from './bitmap'
import { FREE } from './owners'

const BLOCK = 32
/** In a leaf: one bit per block, does it have a word for each holder? Its own word is then their place. */
const SINGLY = HEAD
/** If not: do the holders' numbers go up by one with the address (or are they all the same)? */
const RISING = HEAD + 1

/** The bit of the block that `n` is in. */
const flagOf = (n: number): number => 0x80000000 >>> ((n >>> 5) & 31)

export class Holders {
  private readonly held = new Bitmap()
  private singles = new Uint32Array(0)
  private blocks = 0
  private readonly spare: number[] = []

  /** How many are held. */
  get size(): number {
    return this.held.size
  }

  /** The holder; FREE when there is none. */
  get(n: number): number {
    const leaf = this.held.leafOf(n)
    if (leaf === NO_LEAF) return FREE
    const { words } = this.held
    const at = leaf + pairOf(n)
    const i = n & 31
    if ((words[at]! & (0x80000000 >>> i)) === 0) return FREE
    const word = words[at + 1]!
    const flag = flagOf(n)
    if ((words[leaf + SINGLY]! & flag) !== 0) return this.singles[word + i]!
    return (words[leaf + RISING]! & flag) !== 0 ? (word + i) >>> 0 : word
  }

  /** Makes it held by `holder` (not FREE), whoever held it before. */
  set(n: number, holder: number): void {
    this.held.add(n)
    const leaf = this.held.leafOf(n)
    const { words } = this.held
    const i = n & 31
    const bits = leaf + pairOf(n)
    const at = bits + 1
    const flag = flagOf(n)
    if ((words[leaf + SINGLY]! & flag) !== 0) {
      this.singles[words[at]! + i] = holder
      return
    }
    const others = words[bits]! & ~(0x80000000 >>> i)
    if (others === 0) {
      words[at] = holder - i // may wrap below zero, as the sum does again
      words[leaf + RISING]! |= flag
      return
    }
    const rising = (words[leaf + RISING]! & flag) !== 0
    const word = words[at]!
    if ((rising ? (word + i) >>> 0 : word) === holder) return
    const only = (others & (others - 1)) === 0
    if (rising && only && (word + Math.clz32(others)) >>> 0 === holder) {
      words[at] = holder
      words[leaf + RISING]! &= ~flag
      return
    }
    const place = this.newBlock()
    for (let k = 0; k < BLOCK; k++) this.singles[place + k] = rising ? word + k : word
    this.singles[place + i] = holder
    words[at] = place
    words[leaf + SINGLY]! |= flag
  }

  delete(n: number): void {
    const leaf = this.held.leafOf(n)
    if (leaf === NO_LEAF || !this.held.delete(n)) return
    const { words } = this.held
    const at = leaf + pairOf(n)
    if (words[at] !== 0) return
    const flag = flagOf(n)
    if ((words[leaf + SINGLY]! & flag) === 0) return
    words[leaf + SINGLY]! &= ~flag
    this.spare.push(words[at + 1]!)
  }

  /** The lowest number from `from` on that is not held; 2^32 or more when there is none. */
  nextFree(from: number): number {
    return this.held.nextFree(from)
  }

  /** How many from `first` to `last` (inclusive) are held. Time grows with the leaves. */
  count(first: number, last: number): number {
    return this.held.count(first, last)
  }

  /** In no particular order. The visitor must not change anything. */
  forEach(visit: (n: number, holder: number) => void): void {
    this.held.forEachLeaf((key, leaf) => {
      for (let block = 0; block < 32; block++) {
        let bits = this.held.words[leaf + PAIRS + 2 * block]!
        while (bits !== 0) {
          const i = Math.clz32(bits)
          bits &= ~(0x80000000 >>> i)
          const n = (key * 32 + block) * BLOCK + i
          visit(n, this.get(n))
        }
      }
    })
  }

  /** Bytes of the bits, and of all that says who the holders are. */
  get bytes(): { bits: number; holders: number } {
    const all = this.held.bytes + this.singles.byteLength
    const holders = this.held.words.byteLength / 2 + this.singles.byteLength
    return { bits: all - holders, holders }
  }

  private newBlock(): number {
    const spare = this.spare.pop()
    if (spare !== undefined) return spare
    const place = this.blocks++ * BLOCK
    if (this.singles.length === 0) this.singles = new Uint32Array(BLOCK)
    else if (place + BLOCK > this.singles.length) this.singles = enlarged(this.singles, BLOCK)
    return place
  }
}
