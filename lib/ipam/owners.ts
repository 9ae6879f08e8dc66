/**
 * Who holds which address: per address one small number that stands for the owner's id, in blocks of 32 addresses
 * that exist only while one of them is held (132 bytes each). A string per address would cost twice that, and a Map
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
/** Words of a block: how many are held, then 32 owners. */
const STRIDE = BLOCK + 1
const NO_BLOCK = -1

/** Number below 2^32 → owner number. */
export class OwnerBlocks {
  private readonly blocks = new Map<number, number>()
  private words = new Uint32Array(STRIDE)
  private places = 0
  private spare: number[] = []
  private recentKey = NO_BLOCK
  private recentPlace = 0
  /** A block left in place although empty. */
  private idleKey = NO_BLOCK

  get(n: number): number {
    const place = this.find(n >>> 5)
    return place === NO_BLOCK ? FREE : this.words[place + 1 + (n & 31)]!
  }

  /** FREE takes the entry away. */
  set(n: number, owner: number): void {
    const key = n >>> 5
    let place = this.find(key)
    if (place === NO_BLOCK) {
      if (owner === FREE) return
      place = this.grow(key)
    }
    const at = place + 1 + (n & 31)
    const before = this.words[at]!
    this.words[at] = owner
    if (before === FREE) {
      if (owner !== FREE) this.words[place]!++
    } else if (owner === FREE && --this.words[place]! === 0) {
      this.idle(key)
    }
  }

  /** In no particular order. The visitor must not change anything. */
  forEach(visit: (n: number, owner: number) => void): void {
    for (const [key, place] of this.blocks)
      for (let i = 0; i < BLOCK; i++) {
        const owner = this.words[place + 1 + i]!
        if (owner !== FREE) visit(key * BLOCK + i, owner)
      }
  }

  /** Bytes of the blocks; their index (a Map, some 40 bytes per block) not counted. */
  get bytes(): number {
    return this.words.byteLength
  }

  private find(key: number): number {
    if (key === this.recentKey) return this.recentPlace
    const place = this.blocks.get(key)
    if (place === undefined) return NO_BLOCK
    this.recentKey = key
    this.recentPlace = place
    return place
  }

  private grow(key: number): number {
    let place = this.spare.pop()
    if (place === undefined) {
      place = this.places++ * STRIDE
      if (place + STRIDE > this.words.length) this.words = enlarged(this.words, STRIDE)
    }
    this.blocks.set(key, place)
    return place
  }
  /** One empty block may stay; the one that stayed before goes, if it is still empty. */
  private idle(key: number): void {
    const before = this.idleKey
    this.idleKey = key
    if (before === NO_BLOCK || before === key) return
    const place = this.blocks.get(before)
    if (place === undefined || this.words[place] !== 0) return
    this.blocks.delete(before)
    this.spare.push(place)
    if (before === this.recentKey) this.recentKey = NO_BLOCK
  }
}
