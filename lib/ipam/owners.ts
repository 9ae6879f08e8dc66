/**
 * Who holds which address: per address one small number that stands for the owner's id, in blocks of 32 addresses
 * that exist only while one of them is held (128 bytes each). A string per address would cost twice that, and a Map
 * from address to owner ten times.
 */
import { enlarged } from './bitmap'

/** What the numbers 0 to 2 stand for; larger ones are ids of owners. */
export const FREE = 0
/** Held by the pool itself: network, broadcast or anycast address. */
export const RESERVED = 1
/** Released, but not to be chosen yet. */
export const QUARANTINED = 2

/** So many owners that hold nothing are kept before they are swept out: most of them come again. */
const MOST_IDLE = 1024

/** Owner ids ↔ small numbers, counted, so that a number is used again when its owner holds nothing any more. */
export class OwnerNames {
  private readonly numbers = new Map<string, number>()
  private readonly names: (string | undefined)[] = [undefined, undefined, undefined]
  private readonly counts: number[] = [0, 0, 0]
  private readonly spare: number[] = []
  private idle = 0

  /** How many owners hold something. */
  get size(): number {
    return this.numbers.size - this.idle
  }

  /** The number of an owner, which now holds one more. */
  hold(name: string): number {
    let number = this.numbers.get(name)
    if (number === undefined) {
      number = this.spare.pop() ?? this.names.length
      this.numbers.set(name, number)
      this.names[number] = name
      this.counts[number] = 1
    } else if (this.counts[number]!++ === 0) this.idle--
    return number
  }

  letGo(number: number): void {
    if (number <= QUARANTINED || --this.counts[number]! > 0) return
    // a sweep costs as much as there are names, so there must be as many idle ones to pay for it
    if (++this.idle > MOST_IDLE && this.idle > this.numbers.size >>> 1) this.sweep()
  }

  /** The owner's id; undefined for what no owner holds. */
  name(number: number): string | undefined {
    return this.names[number]
  }

  private sweep(): void {
    for (const [name, number] of this.numbers)
      if (this.counts[number] === 0) {
        this.numbers.delete(name)
        this.names[number] = undefined
        this.spare.push(number)
      }
    this.idle = 0
  }
}

const BLOCK = 32
/** A directory speaks for 32 blocks: 1,024 addresses. */
const DIRECTORY_BITS = 10
/** Words of a directory: the places of its blocks, how many of each are held, how many in all. */
const COUNTS = 32
const TOTAL = 64
const STRIDE = 65
const NONE = -1

/**
 * Number below 2^32 → owner number. A directory is found by a Map, a block by its directory: a Map of all blocks would
 * not stay in the cache, and the pool of 2^24 addresses would be five times slower than the small one.
 */
export class OwnerBlocks {
  private readonly directories = new Map<number, number>()
  private index = new Uint32Array(STRIDE)
  private indexes = 0
  private spareIndexes: number[] = []
  private owners = new Uint32Array(BLOCK)
  private blocks = 0
  private spareBlocks: number[] = []
  /** The directory looked up last. */
  private recentKey = NONE
  private recentPlace = 0
  /** A directory left in place although empty. */
  private idleKey = NONE

  get(n: number): number {
    const place = this.find(n >>> DIRECTORY_BITS)
    if (place === NONE) return FREE
    const block = (n >>> 5) & 31
    if (this.index[place + COUNTS + block] === 0) return FREE
    return this.owners[this.index[place + block]! + (n & 31)]!
  }

  /** FREE takes the entry away. */
  set(n: number, owner: number): void {
    const key = n >>> DIRECTORY_BITS
    let place = this.find(key)
    if (place === NONE) {
      if (owner === FREE) return
      place = this.grow(key)
    }
    const { index } = this
    const block = (n >>> 5) & 31
    const count = index[place + COUNTS + block]!
    if (count === 0) {
      if (owner === FREE) return
      index[place + block] = this.newBlock()
    }
    const at = index[place + block]! + (n & 31)
    const before = this.owners[at]!
    this.owners[at] = owner
    if (before === FREE) {
      if (owner === FREE) return
      index[place + COUNTS + block] = count + 1
      index[place + TOTAL]!++
    } else if (owner === FREE) {
      index[place + COUNTS + block] = count - 1
      // an empty block is all zeros, so its place can be given to another one as it is
      if (count === 1) this.spareBlocks.push(index[place + block]!)
      if (--index[place + TOTAL]! === 0) this.idle(key)
    }
  }

  /** In no particular order. The visitor must not change anything. */
  forEach(visit: (n: number, owner: number) => void): void {
    for (const [key, place] of this.directories)
      for (let block = 0; block < 32; block++) {
        if (this.index[place + COUNTS + block] === 0) continue
        const first = this.index[place + block]!
        for (let i = 0; i < BLOCK; i++) {
          const owner = this.owners[first + i]!
          if (owner !== FREE) visit((key * 32 + block) * BLOCK + i, owner)
        }
      }
  }

  /** Bytes of the blocks and directories; the index of these (a Map, some 40 bytes for 1,024 addresses) not counted. */
  get bytes(): number {
    return this.owners.byteLength + this.index.byteLength
  }

  private find(key: number): number {
    if (key === this.recentKey) return this.recentPlace
    const place = this.directories.get(key)
    if (place === undefined) return NONE
    this.recentKey = key
    this.recentPlace = place
    return place
  }

  private grow(key: number): number {
    let place = this.spareIndexes.pop()
    if (place === undefined) {
      place = this.indexes++ * STRIDE
      if (place + STRIDE > this.index.length) this.index = enlarged(this.index, STRIDE)
    }
    this.directories.set(key, place)
    return place
  }

  private newBlock(): number {
    const spare = this.spareBlocks.pop()
    if (spare !== undefined) return spare
    const place = this.blocks++ * BLOCK
    if (place + BLOCK > this.owners.length) this.owners = enlarged(this.owners, BLOCK)
    return place
  }

  /** One empty directory may stay; the one that stayed before goes, if it is still empty. */
  private idle(key: number): void {
    const before = this.idleKey
    this.idleKey = key
    if (before === NONE || before === key) return
    const place = this.directories.get(before)
    if (place === undefined || this.index[place + TOTAL] !== 0) return
    this.directories.delete(before)
    this.spareIndexes.push(place)
    if (before === this.recentKey) this.recentKey = NONE
  }
}
