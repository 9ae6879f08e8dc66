/**
 * Which host ports are taken, per address and protocol. Pure: knows nothing of sockets. A wildcard address (`0.0.0.0`,
 * `::`) conflicts with every address of its family. Bitmaps, so that a single port costs a few machine words, and a
 * range of 10,000 some 300 of them.
 */
import { type Family, familyOf } from '../base/cidr'
import type { Protocol } from '../firewall/contract'

/** Inclusive. */
export interface PortRange {
  first: number
  last: number
}

const WORDS = 65536 / 32

/** A set of ports. */
export class PortSet {
  readonly words = new Uint32Array(WORDS)

  has(port: number): boolean {
    return ((this.words[port >>> 5]! >>> (port & 31)) & 1) === 1
  }

  add(port: number): void {
    this.words[port >>> 5]! |= 1 << (port & 31)
  }

  delete(port: number): void {
    this.words[port >>> 5]! &= ~(1 << (port & 31))
  }

  addRange({ first, last }: PortRange): void {
    this.#eachWord(first, last, (word, mask) => {
      this.words[word]! |= mask
    })
  }

  deleteRange({ first, last }: PortRange): void {
    this.#eachWord(first, last, (word, mask) => {
      this.words[word]! &= ~mask
    })
  }

  #eachWord(first: number, last: number, act: (word: number, mask: number) => void): void {
    for (let word = first >>> 5; word <= last >>> 5; word++) act(word, maskOf(word, first, last))
  }
}

/** The bits of a word that stand for ports from `first` to `last`. */
function maskOf(word: number, first: number, last: number): number {
  const low = Math.max(first - word * 32, 0)
  const high = Math.min(last - word * 32, 31)
  return (0xffffffff << low) & (0xffffffff >>> (31 - high))
}

/** What is taken of one protocol in one family. */
interface Table {
  wildcard: PortSet
  addresses: Map<string, { ports: PortSet; count: number }>
  /** The union of `addresses`, and how many of them hold each port. */
  any: PortSet
  holders: Uint16Array
}

const isWildcard = (address: string) => address === '0.0.0.0' || address === '::'

/** Ranges whose cursor is remembered; the longest unused is forgotten first. */
const CURSORS = 1024

export class PortAllocator {
  readonly #tables = new Map<string, Table>()
  readonly #cursors = new Map<string, number>()

  /** Takes exactly these ports on all the addresses, or none of them: false when one is taken on one of them. */
  take(addresses: readonly string[], protocol: Protocol, range: PortRange): boolean {
    if (this.conflict(addresses, protocol, range) !== undefined) return false
    for (const address of addresses) this.#add(address, protocol, range)
    return true
  }

  /**
   * Takes `count` consecutive ports that are free on all the addresses, from those after the last that this range
   * handed out (so that a port just released rests as long as possible), wrapping once. Returns the first, or undefined.
   * @param avoid sets of ports never to be chosen
   */
  choose(
    addresses: readonly string[],
    protocol: Protocol,
    range: PortRange,
    count = 1,
    avoid: readonly PortSet[] = [],
  ): number | undefined {
    const sets = [...this.#setsOf(addresses, protocol), ...avoid.map(set => set.words)]
    const key = `${addresses[0]} ${protocol} ${range.first}-${range.last}`
    const cursor = Math.min(this.#cursors.get(key) ?? range.first, range.last + 1)
    const first =
      findRun(sets, cursor, range.last, count) ??
      findRun(sets, range.first, Math.min(cursor + count - 2, range.last), count)
    if (first === undefined) return undefined
    for (const address of addresses) this.#add(address, protocol, { first, last: first + count - 1 })
    this.#cursors.delete(key)
    this.#cursors.set(key, first + count)
    if (this.#cursors.size > CURSORS) this.#cursors.delete(this.#cursors.keys().next().value!)
    return first
  }

  /** The first port of the range that is taken for one of the addresses. */
  conflict(addresses: readonly string[], protocol: Protocol, range: PortRange): number | undefined {
    const port = findTaken(this.#setsOf(addresses, protocol), range.first, range.last)
    return port > range.last ? undefined : port
  }

  /** Gives back what {@link take} or {@link choose} gave. Ports that are not taken are passed over. */
  free(address: string, protocol: Protocol, range: PortRange): void {
    const table = this.#table(familyOf(address), protocol)
    if (isWildcard(address)) {
      table.wildcard.deleteRange(range)
      return
    }
    const own = table.addresses.get(address)
    if (!own) return
    for (let port = range.first; port <= range.last; port++) {
      if (!own.ports.has(port)) continue
      own.count--
      if (--table.holders[port]! === 0) table.any.delete(port)
    }
    own.ports.deleteRange(range)
    if (own.count === 0) table.addresses.delete(address)
  }

  #add(address: string, protocol: Protocol, range: PortRange): void {
    const table = this.#table(familyOf(address), protocol)
    if (isWildcard(address)) {
      table.wildcard.addRange(range)
      return
    }
    let own = table.addresses.get(address)
    if (!own) {
      own = { ports: new PortSet(), count: 0 }
      table.addresses.set(address, own)
    }
    own.ports.addRange(range)
    own.count += range.last - range.first + 1
    table.any.addRange(range)
    for (let port = range.first; port <= range.last; port++) table.holders[port]!++
  }

  /** The bitmaps in which a port must be absent to be free on all the addresses. */
  #setsOf(addresses: readonly string[], protocol: Protocol): Uint32Array[] {
    const sets = new Set<Uint32Array>()
    for (const address of addresses) {
      const table = this.#table(familyOf(address), protocol)
      sets.add(table.wildcard.words)
      const specific = isWildcard(address) ? table.any : table.addresses.get(address)?.ports
      if (specific) sets.add(specific.words)
    }
    return [...sets]
  }

  #table(family: Family, protocol: Protocol): Table {
    const key = `${family}${protocol}`
    let table = this.#tables.get(key)
    if (!table) {
      table = {
        wildcard: new PortSet(),
        addresses: new Map(),
        any: new PortSet(),
        holders: new Uint16Array(65536),
      }
      this.#tables.set(key, table)
    }
    return table
  }
}

function wordOf(sets: readonly Uint32Array[], word: number): number {
  let bits = 0
  for (const set of sets) bits |= set[word]!
  return bits
}

/** The first of `count` consecutive ports within [first, last] that are in none of the sets. */
function findRun(
  sets: readonly Uint32Array[],
  first: number,
  last: number,
  count: number,
): number | undefined {
  let start = findFree(sets, first, last)
  while (start + count - 1 <= last) {
    const taken = count === 1 ? start + 1 : findTaken(sets, start, start + count - 1)
    if (taken > start + count - 1) return start
    start = findFree(sets, taken + 1, last)
  }
  return undefined
}

/** The first port of [first, last] in none of the sets; last + 1 when there is none. */
function findFree(sets: readonly Uint32Array[], first: number, last: number): number {
  for (let port = first; port <= last; port = ((port >>> 5) + 1) << 5) {
    const free = ~wordOf(sets, port >>> 5) & (0xffffffff << (port & 31))
    if (free !== 0) return Math.min((port & ~31) + lowestBit(free), last + 1)
  }
  return last + 1
}

/** The first port of [first, last] in one of the sets; last + 1 when there is none. */
function findTaken(sets: readonly Uint32Array[], first: number, last: number): number {
  for (let port = first; port <= last; port = ((port >>> 5) + 1) << 5) {
    const taken = wordOf(sets, port >>> 5) & (0xffffffff << (port & 31))
    if (taken !== 0) return Math.min((port & ~31) + lowestBit(taken), last + 1)
  }
  return last + 1
}

const lowestBit = (bits: number) => 31 - Math.clz32(bits & -bits)
