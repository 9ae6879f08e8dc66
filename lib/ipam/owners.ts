/** Owner ids as small numbers: an address is to remember four bytes, not a text. */

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
    // the lowest is used first: numbers given in a row are what Holders keeps in little room
    this.spare.sort((a, b) => b - a)
    this.idle = 0
  }
}
