/** The default IPAM, synchronous: spaces, pools, addresses. Everything is in memory; a call either happens or throws. */
import { contains, type Family, formatCidr, network } from '../base/cidr'
import { CnmError } from '../base/errors'
import type {
  AddressAnswer,
  AddressRequest,
  AddressSpaces,
  PoolAnswer,
  PoolRequest,
  PoolStatus,
} from './contract'
import {
  type DefaultPool,
  GLOBAL_POOLS,
  LOCAL_POOLS,
  type PoolSource,
  poolSources,
  uniqueLocalPool,
} from './default-pools'
import { OwnerNames } from './owners'
import { formatPoolId, parsePoolId } from './pool-id'
import { poolSettings } from './pool-options'
import { type Pool, View } from './pool'
import { Space } from './space'
import { readCidr } from './text'

/** Names of the two spaces; Docker's. */
export const SPACES: AddressSpaces = { local: 'LocalDefault', global: 'GlobalDefault' }

export interface AllocatorOptions {
  /** Instead of {@link LOCAL_POOLS}. */
  localPools?: readonly DefaultPool[]
  /** Instead of {@link GLOBAL_POOLS}. */
  globalPools?: readonly DefaultPool[]
  /** Any text that is this host's own and lasts. Gives an IPv6 default to a local space that has no IPv6 pool. */
  hostId?: string
  /** Milliseconds; for pools whose options do not say. */
  quarantine?: number
  /** Milliseconds of a clock that never goes back. */
  now?: () => number
}

/** An address that somebody holds. */
export interface Holding {
  poolId: string
  address: string
  owner: string
}

export class Allocator {
  private readonly spaces = new Map<string, Record<Family, Space>>()
  private readonly views = new Map<string, { view: View; space: Space }>()
  /** The one looked up last: requests come in runs on the same pool. */
  private recent: { view: View; space: Space } | undefined
  private readonly owners = new OwnerNames()
  private readonly quarantine: number
  private readonly now: () => number

  constructor(options: AllocatorOptions = {}) {
    this.quarantine = options.quarantine ?? 0
    this.now = options.now ?? (() => performance.now())
    const local = poolSources(options.localPools ?? LOCAL_POOLS)
    if (options.hostId !== undefined && !local.some(source => source.base.family === 6))
      local.push(...poolSources([uniqueLocalPool(options.hostId)]))
    this.addSpace(SPACES.local, local)
    this.addSpace(SPACES.global, poolSources(options.globalPools ?? GLOBAL_POOLS))
  }

  /** See {@link IpamDriver.requestPool}. */
  requestPool(request: PoolRequest): PoolAnswer {
    const space = this.space(request.space, request.family)
    const wish = read(request)
    if (wish.kind === 'any') {
      const pool = space.any(wish.length, request.exclude ?? [])
      return this.open(space, pool, undefined, request.options)
    }
    const { subnet, subPool } = wish
    const pool = subPool === undefined ? space.whole(subnet) : space.partly(subnet, subPool)
    return this.open(space, pool, subPool, request.options)
  }

  /**
   * See {@link IpamDriver.releasePool}. The pool itself goes with the last of its views (itself, its subpools); until
   * then the addresses that the others hold stay held.
   */
  releasePool(id: string): void {
    const { view, space } = this.lookup(id)
    this.views.delete(id)
    this.recent = undefined
    view.pool.views.delete(view)
    view.drop()
    if (view.pool.views.size === 0) space.remove(view.pool)
  }

  /** See {@link IpamDriver.requestAddress}. */
  requestAddress(poolId: string, request: AddressRequest): AddressAnswer {
    const { view } = this.lookup(poolId)
    const { at, mac } = view.allocate(request)
    const address = view.pool.numbering.cidrOf(at)
    return mac === undefined ? { address, data: {} } : { address, mac, data: {} }
  }

  /** See {@link IpamDriver.releaseAddress}. */
  releaseAddress(poolId: string, address: string, owner: string): void {
    this.lookup(poolId).view.release(address, owner)
  }

  status(poolId: string): PoolStatus {
    return this.lookup(poolId).view.status()
  }

  /** Ids of the pools that are taken. */
  pools(): string[] {
    return [...this.views.keys()]
  }

  /** Every address held, with its owner; of one pool or of all. Addresses of a pool that has subpools come once. */
  holdings(poolId?: string): Holding[] {
    const views = poolId === undefined ? [...this.views.values()] : [this.lookup(poolId)]
    const seen = new Set<Pool>()
    const list: Holding[] = []
    for (const { view } of views) {
      if (seen.has(view.pool)) continue
      seen.add(view.pool)
      for (const { at, owner } of view.pool.holdings())
        list.push({ poolId: view.id, address: view.pool.numbering.cidrOf(at), owner })
    }
    return list
  }

  /** Releases what is held by owners that are no longer alive, and says what it was. */
  reconcile(isAlive: (owner: string) => boolean): Holding[] {
    const lost = this.holdings().filter(({ owner }) => !isAlive(owner))
    for (const { poolId, address, owner } of lost) this.releaseAddress(poolId, address, owner)
    return lost
  }

  /** Bytes of the bitmaps and of the owners' numbers of a pool; for benchmarks and diagnosis. */
  memory(poolId: string): { bits: number; owners: number } {
    return this.lookup(poolId).view.pool.addresses.bytes
  }

  /** Makes the view that the id stands for. A pool that was made for it goes again when the options are refused. */
  private open(
    space: Space,
    pool: Pool,
    subPool: PoolWish['subPool'],
    options: PoolRequest['options'],
  ): PoolAnswer {
    try {
      const id = formatPoolId({
        space: space.name,
        pool: pool.numbering.text,
        ...(subPool === undefined ? {} : { subPool: formatCidr(subPool) }),
      })
      const settings = poolSettings(options, pool.numbering, this.quarantine)
      const view = new View(pool, id, subPool, settings, this.now)
      pool.views.add(view)
      this.views.set(id, { view, space })
      return { id, pool: pool.numbering.text, data: {} }
    } catch (error) {
      if (pool.views.size === 0) space.remove(pool)
      throw error
    }
  }

  private addSpace(name: string, sources: readonly PoolSource[]): void {
    this.spaces.set(name, {
      4: new Space(name, 4, sources, this.owners),
      6: new Space(name, 6, sources, this.owners),
    })
  }

  private space(name: string, family: Family): Space {
    const space = this.spaces.get(name)
    if (space === undefined)
      throw new CnmError(
        'ERR_ADDRESS_SPACE',
        `there is no address space ${JSON.stringify(name)}; there are ${[...this.spaces.keys()].join(', ')}`,
        { space: name },
      )
    return space[family]
  }

  private lookup(id: string): { view: View; space: Space } {
    if (this.recent !== undefined && this.recent.view.id === id) return this.recent
    const found = this.views.get(id)
    if (found !== undefined) {
      this.recent = found
      return found
    }
    parsePoolId(id)
    throw new CnmError('ERR_POOL_NOT_FOUND', `pool ${id} is not allocated`, { poolId: id })
  }
}

type PoolWish =
  | { kind: 'any'; length: number | undefined; subPool?: undefined }
  | { kind: 'this'; subnet: Subnet; subPool: Subnet | undefined }

type Subnet = ReturnType<typeof readCidr>

/** Reads what is wished. Throws ERR_INVALID_CIDR, ERR_POOL_INVALID. */
function read({ family, pool, subPool }: PoolRequest): PoolWish {
  if (pool === undefined || pool === '') {
    if (subPool)
      throw invalid(`subpool ${subPool} without a pool; name the pool that it is part of`, { subPool })
    return { kind: 'any', length: undefined }
  }
  const asked = readCidr(pool)
  if (asked.family !== family) throw invalid(`pool ${pool} is not an IPv${family} subnet`, { pool, family })
  if (asked.value === 0n) {
    if (subPool) throw invalid(`subpool ${subPool} of a pool yet to be chosen (${pool})`, { pool, subPool })
    return { kind: 'any', length: asked.length }
  }
  const subnet = network(asked)
  if (!subPool) return { kind: 'this', subnet, subPool: undefined }
  const part = readCidr(subPool)
  if (part.family !== family)
    throw invalid(`subpool ${subPool} is not of the family of pool ${pool}`, { pool, subPool })
  // libnetwork 20.10 took a larger one for the whole pool without a word; today's refuses it
  if (!contains(subnet, network(part)))
    throw invalid(`subpool ${subPool} is not inside pool ${pool}`, { pool, subPool })
  return { kind: 'this', subnet, subPool: network(part) }
}

const invalid = (message: string, details: Record<string, unknown>) =>
  new CnmError('ERR_POOL_INVALID', message, details)
