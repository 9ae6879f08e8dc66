/** An address space of one family: pools that do not overlap, and what they are cut from when nobody names one. */
import { BITS, type Cidr, type Family, firstOf, formatCidr, lastOf, overlaps } from '../base/cidr'
import { CnmError } from '../base/errors'
import type { PoolSource } from './default-pools'
import type { OwnerNames } from './owners'
import { Pool } from './pool'
import { PrefixTrie } from './prefix-trie'
import { readCidr } from './text'

export class Space {
  readonly pools = new Map<string, Pool>()
  private readonly taken: PrefixTrie
  private readonly sources: PoolSource[]

  constructor(
    readonly name: string,
    readonly family: Family,
    sources: readonly PoolSource[],
    private readonly owners: OwnerNames,
  ) {
    this.taken = new PrefixTrie(family)
    this.sources = sources.filter(source => source.base.family === family)
  }

  /** A pool for the explicit subnet. */
  whole(subnet: Cidr): Pool {
    this.refuseOverlap(subnet)
    return this.add(subnet)
  }

  /**
   * The pool for a subpool of it: the one there is, or a new one. Two subpools of a pool must not overlap, nor may the
   * pool overlap another one; libnetwork accepts both silently and then two networks share addresses (moby#46756). A
   * view of the whole pool may stand beside subpools of it, as in libnetwork: they draw from one set of addresses.
   */
  partly(subnet: Cidr, subPool: Cidr): Pool {
    const pool = this.pools.get(formatCidr(subnet))
    if (pool === undefined) return this.whole(subnet)
    for (const view of pool.views)
      if (view.subPool && overlaps(view.subPool, subPool))
        throw new CnmError(
          'ERR_POOL_OVERLAP',
          `subpool ${formatCidr(subPool)} of ${pool.numbering.text} overlaps ${formatCidr(view.subPool)} in address space ${this.name}`,
          { space: this.name, pool: pool.numbering.text, subPool: formatCidr(subPool), taken: view.id },
        )
    return pool
  }

  /**
   * The lowest free pool of the first source with room, of the source's size or of `length`. Gaps between pools are
   * used. Throws ERR_POOL_INVALID (no source is that large), ERR_POOLS_EXHAUSTED.
   */
  any(length: number | undefined, exclude: readonly string[]): Pool {
    const sources = length === undefined ? this.sources : this.sources.filter(s => s.base.length <= length)
    if (sources.length === 0 && length !== undefined && this.sources.length > 0)
      throw new CnmError(
        'ERR_POOL_INVALID',
        `no default address pool of space ${this.name} is large enough for a /${length}; they are ${this.describeSources()}`,
        { space: this.name, family: this.family, length },
      )
    const blocked = merge(exclude, this.family)
    for (const source of sources) {
      const size = length ?? source.size
      const value = this.find(source.base, size, blocked)
      if (value !== undefined) return this.add({ family: this.family, value, length: size })
    }
    const why =
      this.sources.length === 0
        ? `no default IPv${this.family} address pools are configured for space ${this.name}`
        : `all default IPv${this.family} address pools of space ${this.name} (${this.describeSources()}) are taken or used by the host`
    throw new CnmError('ERR_POOLS_EXHAUSTED', why, {
      space: this.name,
      family: this.family,
      pools: this.pools.size,
      excluded: exclude.length,
    })
  }

  remove(pool: Pool): void {
    pool.drop()
    this.pools.delete(pool.numbering.text)
    this.taken.delete(pool.cidr)
  }

  private add(subnet: Cidr): Pool {
    const pool = new Pool(subnet, this.owners)
    this.pools.set(pool.numbering.text, pool)
    this.taken.add(subnet)
    return pool
  }

  private refuseOverlap(subnet: Cidr): void {
    const other = this.taken.overlap(subnet)
    if (other === undefined) return
    throw new CnmError(
      'ERR_POOL_OVERLAP',
      `pool ${formatCidr(subnet)} overlaps ${formatCidr(other)}, which is taken in address space ${this.name}`,
      { space: this.name, pool: formatCidr(subnet), taken: formatCidr(other) },
    )
  }

  private find(base: Cidr, length: number, blocked: readonly Interval[]): bigint | undefined {
    const size = 1n << BigInt(BITS[this.family] - length)
    let from = firstOf(base)
    for (;;) {
      const value = this.taken.lowestFree(base, length, from)
      if (value === undefined) return undefined
      const hit = firstNotBefore(blocked, value)
      if (hit === undefined || hit.first >= value + size) return value
      from = hit.last + 1n
    }
  }

  private describeSources(): string {
    return this.sources.map(({ base, size }) => `${formatCidr(base)} cut into /${size}`).join(', ')
  }
}

interface Interval {
  first: bigint
  last: bigint
}

/** The subnets of the family, ascending, those that touch made one. */
function merge(subnets: readonly string[], family: Family): Interval[] {
  const all: Interval[] = []
  for (const text of subnets) {
    const subnet = readCidr(text)
    if (subnet.family === family) all.push({ first: firstOf(subnet), last: lastOf(subnet) })
  }
  all.sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))
  const merged: Interval[] = []
  for (const interval of all) {
    const before = merged[merged.length - 1]
    if (before && interval.first <= before.last + 1n) {
      if (interval.last > before.last) before.last = interval.last
    } else merged.push(interval)
  }
  return merged
}

/** The first interval that ends at `value` or later. */
function firstNotBefore(intervals: readonly Interval[], value: bigint): Interval | undefined {
  let low = 0
  let high = intervals.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (intervals[middle]!.last < value) low = middle + 1
    else high = middle
  }
  return intervals[low]
}
