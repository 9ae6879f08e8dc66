/**
 * A pool and the views of it. The pool knows who holds each address. A view is what a pool id stands for: the whole
 * pool or a subpool of it, with its own way of choosing. All views of a pool share its addresses.
 */
import type { Cidr } from '../base/cidr'
import { CnmError } from '../base/errors'
import { randomMac } from '../base/ids'
import { AddressSet, NONE, next, type Offset, previous } from './address-set'
import type { AddressPurpose, AddressRequest, PoolStatus } from './contract'
import { Numbering } from './numbering'
import { FREE, type OwnerNames, QUARANTINED, RESERVED } from './owners'
import type { PoolSettings, Span } from './pool-options'

export class Pool {
  readonly numbering: Numbering
  readonly addresses = new AddressSet()
  readonly views = new Set<View>()

  constructor(
    readonly cidr: Cidr,
    readonly owners: OwnerNames,
  ) {
    this.numbering = Numbering.of(cidr)
    this.reserve()
  }

  /**
   * What no endpoint can have: network and broadcast address of IPv4, the Subnet-Router anycast address of IPv6
   * (RFC 4291, 2.6.1). Where a point-to-point link needs all there is, nothing is reserved: /31 (RFC 3021) and /32,
   * /127 (RFC 6164; Linux does not claim the anycast address there either) and /128. libnetwork reserves the first
   * IPv6 address always, so that its /127 has one address and its /128 none.
   */
  private reserve(): void {
    const { last } = this.numbering
    if (last <= 1) return
    this.addresses.take(0, RESERVED)
    if (this.cidr.family === 4) this.addresses.take(last, RESERVED)
  }

  /** Every address that an owner holds. */
  holdings(): { at: Offset; owner: string }[] {
    const list: { at: Offset; owner: string }[] = []
    this.addresses.forEach((at, number) => {
      const owner = this.owners.name(number)
      if (owner !== undefined) list.push({ at, owner })
    })
    return list
  }

  /** The pool goes: its owners hold nothing here any more. */
  drop(): void {
    this.addresses.forEach((_, number) => {
      this.owners.letGo(number)
    })
  }
}

export interface Allocation {
  at: Offset
  /** Of a sticky pool: the MAC that belongs to the name. */
  mac: string | undefined
}

/** What a name had before, for stickiness. */
interface Remembered {
  at: Offset
  mac: string
}

/** Names remembered per view; the longest unused is forgotten first. */
const REMEMBERED_NAMES = 65_536

export class View {
  /** Where addresses are chosen from: the range without what is kept for static use. Ascending, disjoint. */
  private readonly dynamic: Span[]
  private readonly range: Span
  /** Where the next choice begins in serial mode. */
  private cursor: Offset
  /** Address → when it may be chosen again (ms of the clock), in the order of release. */
  private readonly resting = new Map<Offset, number>()
  private readonly names = new Map<string, Remembered>()

  constructor(
    readonly pool: Pool,
    readonly id: string,
    readonly subPool: Cidr | undefined,
    readonly settings: PoolSettings,
    private readonly now: () => number,
  ) {
    this.range = pool.numbering.span(subPool ?? pool.cidr)
    this.dynamic = without(this.range, settings.staticRanges)
    this.cursor = this.range.first
  }

  /** Takes an address for the owner. Throws ERR_ADDRESS_OUT_OF_RANGE, ERR_ADDRESS_IN_USE, ERR_POOL_EXHAUSTED. */
  allocate(request: AddressRequest): Allocation {
    if (this.resting.size > 0) this.expire()
    const { address, owner, name } = request
    if (owner === '')
      throw new CnmError('ERR_INVALID_OPTION', `an address of pool ${this.id} needs an owner; got ""`, {
        poolId: this.id,
      })
    const sticky = this.settings.sticky && name !== undefined && name !== ''
    const before = sticky ? this.remembered(name) : undefined
    const at = address === undefined ? this.chosen(request.purpose, before) : this.wanted(address, owner)
    this.pool.addresses.take(at, this.pool.owners.hold(owner))
    return {
      at,
      mac: sticky ? this.remember(name, at, request.mac ?? before?.mac ?? randomMac()) : undefined,
    }
  }

  /** Gives it back. Throws ERR_ADDRESS_OUT_OF_RANGE, ERR_ADDRESS_NOT_ALLOCATED, ERR_ADDRESS_NOT_OWNED. */
  release(address: string, owner: string): void {
    this.releaseAt(this.pool.numbering.offsetOf(address), owner)
  }

  /** {@link release} for one that is known by its offset. */
  releaseAt(at: Offset, owner: string): void {
    const number = this.pool.addresses.ownerOf(at)
    if (this.pool.owners.name(number) !== owner) throw this.notHeld(at, number, owner)
    this.pool.owners.letGo(number)
    if (this.settings.quarantine > 0) {
      this.pool.addresses.take(at, QUARANTINED)
      this.resting.set(at, this.now() + this.settings.quarantine)
    } else this.pool.addresses.free(at)
  }

  status(): PoolStatus {
    this.expire()
    const { addresses } = this.pool
    let available = 0n
    for (const { first, last } of this.dynamic)
      available += BigInt(last) - BigInt(first) + 1n - BigInt(addresses.count(first, last))
    return { inUse: BigInt(addresses.size), dynamicAvailable: available }
  }

  /** The view goes: what rests because of it is free at once. */
  drop(): void {
    for (const at of this.resting.keys()) this.pool.addresses.free(at)
    this.resting.clear()
  }

  /** Frees what has rested long enough. */
  private expire(): void {
    const now = this.now()
    for (const [at, until] of this.resting) {
      if (until > now) break
      this.resting.delete(at)
      this.pool.addresses.free(at)
    }
  }

  private wanted(address: string, owner: string): Offset {
    const at = this.pool.numbering.offsetOf(address)
    const number = this.pool.addresses.ownerOf(at)
    if (number === FREE) return at
    if (number === QUARANTINED) {
      for (const view of this.pool.views) view.resting.delete(at)
      return at
    }
    const holder = this.pool.owners.name(number)
    const by = holder === undefined ? 'the pool itself (network, broadcast or anycast address)' : holder
    throw new CnmError(
      'ERR_ADDRESS_IN_USE',
      `${address} of pool ${this.id} is held by ${by}; asked for by ${owner}`,
      { address, poolId: this.id, holder: holder ?? null, owner },
    )
  }

  private chosen(purpose: AddressPurpose, before: Remembered | undefined): Offset {
    if (before !== undefined) {
      this.resting.delete(before.at)
      return before.at
    }
    const { addresses } = this.pool
    if (purpose === 'gateway') {
      // a gateway is as good as static, so it may come from the part kept for static use
      const at = addresses.nextFree(this.range.first, this.range.last)
      if (at !== NONE) return at
    }
    // a sticky pool goes round as well: then an address just released is chosen last, and its name finds it again
    const round = this.settings.serial || this.settings.sticky
    let at = this.lowest(round ? this.cursor : this.range.first)
    if (at === NONE && round) at = this.lowest(this.range.first)
    if (at === NONE) throw this.exhausted()
    if (round) this.cursor = at < this.range.last ? next(at) : this.range.first
    return at
  }

  /** What the name had, when it is free to be had again. */
  private remembered(name: string): Remembered | undefined {
    const record = this.names.get(name)
    if (record === undefined) return undefined
    return this.pool.addresses.ownerOf(record.at) === FREE || this.resting.has(record.at) ? record : undefined
  }

  private remember(name: string, at: Offset, mac: string): string {
    this.names.delete(name) // so that it becomes the youngest
    this.names.set(name, { at, mac })
    if (this.names.size > REMEMBERED_NAMES) this.names.delete(this.names.keys().next().value ?? name)
    return mac
  }

  private lowest(from: Offset): Offset {
    for (const { first, last } of this.dynamic) {
      if (last < from) continue
      const at = this.pool.addresses.nextFree(first < from ? from : first, last)
      if (at !== NONE) return at
    }
    return NONE
  }

  private exhausted(): CnmError {
    const rest = this.resting.size
    return new CnmError(
      'ERR_POOL_EXHAUSTED',
      `pool ${this.id} has no free address${rest > 0 ? `; ${rest} are in quarantine` : ''}`,
      { poolId: this.id, quarantined: rest, inUse: this.pool.addresses.size },
    )
  }

  private notHeld(at: Offset, number: number, owner: string): CnmError {
    const address = this.pool.numbering.addressOf(at)
    const details = { address, poolId: this.id, owner }
    if (number === FREE || number === QUARANTINED)
      return new CnmError(
        'ERR_ADDRESS_NOT_ALLOCATED',
        `${address} of pool ${this.id} is not allocated, so ${JSON.stringify(owner)} cannot release it`,
        details,
      )
    const holder = this.pool.owners.name(number)
    return new CnmError(
      'ERR_ADDRESS_NOT_OWNED',
      `${address} of pool ${this.id} is held by ${holder ?? 'the pool itself'}, not by ${JSON.stringify(owner)}`,
      { ...details, holder: number === RESERVED ? null : holder },
    )
  }
}

/** A span without parts of it, which are ascending and disjoint. */
export function without(span: Span, parts: readonly Span[]): Span[] {
  const rest: Span[] = []
  let from = span.first
  for (const { first, last } of parts) {
    if (last < from || first > span.last) continue
    if (first > from) rest.push({ first: from, last: previous(first) })
    if (last >= span.last) return rest
    from = next(last)
  }
  rest.push({ first: from, last: span.last })
  return rest
}
