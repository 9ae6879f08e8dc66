/**
 * The taken subnets of one family: a binary tree over the bits of the prefix. Each node knows the largest aligned block
 * still free below it, so overlap, and the lowest free subnet of a size, are answered in one walk of at most 32 (128)
 * steps, however many subnets are taken.
 */
import { BITS, type Cidr, type Family, firstOf } from '../base/cidr'

interface Node {
  /** The subtree of the next bit 0 and 1; absent: all free. */
  zero: Node | undefined
  one: Node | undefined
  taken: boolean
  /** Prefix length of the largest free aligned block below; NO_ROOM when there is none. */
  room: number
}

const NO_ROOM = 255

export class PrefixTrie {
  private root: Node | undefined
  private readonly bits: number

  constructor(readonly family: Family) {
    this.bits = BITS[family]
  }

  /** A taken subnet that overlaps this one; undefined when there is none. */
  overlap(subnet: Cidr): Cidr | undefined {
    let node = this.root
    let depth = 0
    for (; node && !node.taken && depth < subnet.length; depth++)
      node = this.bit(subnet.value, depth) ? node.one : node.zero
    if (!node) return undefined
    let value = this.cut(subnet.value, depth)
    while (!node.taken) {
      // in the tree, so something below it is taken
      const below: Node = (node.zero ?? node.one) as Node
      if (below === node.one) value |= 1n << BigInt(this.bits - depth - 1)
      node = below
      depth++
    }
    return { family: this.family, value, length: depth }
  }

  /** The caller has made sure that nothing overlaps. */
  add(subnet: Cidr): void {
    this.root = this.put(this.root, firstOf(subnet), subnet.length, 0)
  }

  /** Does nothing when exactly this subnet is not taken. */
  delete(subnet: Cidr): void {
    this.root = this.take(this.root, firstOf(subnet), subnet.length, 0)
  }

  /** First address of the lowest free subnet of `length` inside `within` that begins at `from` or later. */
  lowestFree(within: Cidr, length: number, from = 0n): bigint | undefined {
    let node = this.root
    const first = firstOf(within)
    for (let depth = 0; node && depth < within.length; depth++) {
      if (node.taken) return undefined
      node = this.bit(first, depth) ? node.one : node.zero
    }
    return this.search(node, first, within.length, length, from)
  }

  private search(
    node: Node | undefined,
    first: bigint,
    depth: number,
    length: number,
    from: bigint,
  ): bigint | undefined {
    const end = first + (1n << BigInt(this.bits - depth))
    if (from >= end) return undefined
    if (!node) {
      const size = BigInt(this.bits - length)
      const start = from <= first ? first : ((from + (1n << size) - 1n) >> size) << size
      return start < end ? start : undefined
    }
    if (node.room > length) return undefined
    const half = 1n << BigInt(this.bits - depth - 1)
    const low = this.search(node.zero, first, depth + 1, length, from)
    return low ?? this.search(node.one, first + half, depth + 1, length, from)
  }

  private put(node: Node | undefined, value: bigint, length: number, depth: number): Node {
    const here = node ?? { zero: undefined, one: undefined, taken: false, room: depth }
    if (depth === length) here.taken = true
    else if (this.bit(value, depth)) here.one = this.put(here.one, value, length, depth + 1)
    else here.zero = this.put(here.zero, value, length, depth + 1)
    here.room = roomOf(here, depth)
    return here
  }

  private take(node: Node | undefined, value: bigint, length: number, depth: number): Node | undefined {
    if (!node) return undefined
    if (depth === length) {
      if (node.taken) return undefined
      return node
    }
    if (this.bit(value, depth)) node.one = this.take(node.one, value, length, depth + 1)
    else node.zero = this.take(node.zero, value, length, depth + 1)
    if (!node.taken && !node.zero && !node.one) return undefined
    node.room = roomOf(node, depth)
    return node
  }

  private bit(value: bigint, depth: number): boolean {
    return ((value >> BigInt(this.bits - depth - 1)) & 1n) === 1n
  }

  private cut(value: bigint, length: number): bigint {
    const host = BigInt(this.bits - length)
    return (value >> host) << host
  }
}

function roomOf(node: Node, depth: number): number {
  if (node.taken) return NO_ROOM
  return Math.min(node.zero ? node.zero.room : depth + 1, node.one ? node.one.room : depth + 1)
}
