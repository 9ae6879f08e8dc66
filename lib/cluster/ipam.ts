/**
 * The IPAM driver `default` of a host in a cluster: its global space is the cluster's, every address of it a claim in the
 * shared store; the local space is left to the driver of this host alone.
 */
import { createHash } from 'node:crypto'
import {
  BITS,
  canonicalIp,
  type Cidr,
  contains,
  type Family,
  firstOf,
  formatCidr,
  formatIp,
  hostBits,
  lastOf,
  network,
  overlaps,
  parseCidr,
  parseIp,
} from '../base/cidr'
import { CnmError } from '../base/errors'
import type {
  AddressAnswer,
  AddressRequest,
  AddressSpaces,
  IpamDriver,
  PoolAnswer,
  PoolRequest,
  PoolStatus,
} from '../ipam/contract'
import type { Cluster } from './cluster'
import { isOurs, readPoolId, SPACE } from './pool-id'

export interface ClusterIpamOptions {
  cluster: Cluster
  /** For networks of this host alone. */
  local: IpamDriver
  /** CIDRs that pools are cut from, and how long their prefix is. */
  pools: { base: string; size: number }[]
}

export class ClusterIpamDriver implements IpamDriver {
  readonly name = 'default'
  readonly capabilities = { requiresMac: false, requiresReplay: true }
  readonly #cluster: Cluster
  readonly #local: IpamDriver
  readonly #bases: { base: Cidr; size: number }[]
  /** Addresses known to be taken, by pool: a hint that saves questions; the claim decides. */
  readonly #hints = new Map<string, Set<string>>()
  /** Until the stored state is back: what is asked for is had already. */
  #restoring = true

  constructor({ cluster, local, pools }: ClusterIpamOptions) {
    this.#cluster = cluster
    this.#local = local
    this.#bases = pools.map(({ base, size }) => ({ base: network(parseCidr(base)), size }))
  }

  /** The stored state is back: from now on every request is a claim. */
  restored(): void {
    this.#restoring = false
  }

  async defaultAddressSpaces(): Promise<AddressSpaces> {
    const { local } = await this.#local.defaultAddressSpaces()
    return { local, global: SPACE }
  }

  async requestPool(request: PoolRequest): Promise<PoolAnswer> {
    if (request.space !== SPACE) return this.#local.requestPool(request)
    for (const option of Object.keys(request.options ?? {}))
      throw new CnmError('ERR_POOL_INVALID', `IPAM option ${option} is for networks of one host`, { option })
    const { pool: text, subPool, family, exclude = [] } = request
    const wish = text ? parseCidr(text) : undefined
    const explicit = wish && wish.value !== 0n ? network(wish) : undefined
    if (explicit && (explicit.family !== family || explicit.length < 8))
      throw new CnmError('ERR_POOL_INVALID', `${text} is no IPv${family} subnet of a network`, { pool: text })
    if (subPool && !(explicit && contains(explicit, parseCidr(subPool))))
      throw new CnmError('ERR_POOL_INVALID', `subpool ${subPool} is not inside pool ${text}`, {
        pool: text,
        subPool,
      })
    const tail = subPool ? `/${formatCidr(network(parseCidr(subPool)))}` : ''
    if (this.#restoring && explicit)
      return { id: `${SPACE}/${formatCidr(explicit)}${tail}`, pool: formatCidr(explicit), data: {} }
    const pool = await this.#cluster.claims.takePool(taken => {
      const others = taken.map(parseCidr)
      if (!explicit) return this.#choosePool(family, wish?.length, [...others, ...exclude.map(parseCidr)])
      const other = others.find(candidate => overlaps(candidate, explicit))
      if (other)
        throw new CnmError(
          'ERR_POOL_OVERLAP',
          `subnet ${formatCidr(explicit)} overlaps ${formatCidr(other)} of another network of the cluster`,
          { pool: formatCidr(explicit), taken: formatCidr(other) },
        )
      return formatCidr(explicit)
    })
    return { id: `${SPACE}/${pool}${tail}`, pool, data: {} }
  }

  /** The first that nobody has: no other network, not this host for itself, and no host of the cluster as its address. */
  #choosePool(family: Family, length: number | undefined, others: Cidr[]): string {
    const hosts = this.#cluster.all('host').map(({ address }) => parseCidr(hostCidr(address)))
    const inUse = [...others, ...hosts].filter(other => other.family === family)
    for (const { base, size } of this.#bases) {
      if (base.family !== family) continue
      const wanted = length ?? size
      if (wanted < base.length) continue
      const step = 1n << BigInt(BITS[family] - wanted)
      for (let value = base.value; value <= lastOf(base); ) {
        const candidate: Cidr = { family, value, length: wanted }
        const other = inUse.find(each => overlaps(each, candidate))
        if (!other) return formatCidr(candidate)
        // Behind the larger of the two.
        value = other.length < wanted ? lastOf(network(other)) + 1n : value + step
      }
    }
    throw new CnmError(
      'ERR_POOLS_EXHAUSTED',
      `the cluster has no IPv${family} pool${length === undefined ? '' : ` of length ${length}`} that neither networks nor hosts use; name a subnet, or give every host other cluster.addressPools`,
      { family },
    )
  }

  async releasePool(id: string): Promise<void> {
    if (!isOurs(id)) return this.#local.releasePool(id)
    const { pool } = readPoolId(id)
    this.#hints.delete(pool)
    await this.#cluster.claims.releasePool(pool)
  }

  async requestAddress(poolId: string, request: AddressRequest): Promise<AddressAnswer> {
    if (!isOurs(poolId)) return this.#local.requestAddress(poolId, request)
    const { pool, part } = readPoolId(poolId)
    const subnet = parseCidr(pool)
    const { owner, purpose } = request
    // A virtual IP is this host's until the service's record is there, and then the service's.
    const lasting = purpose !== 'endpoint' && purpose !== 'virtual'
    const answer = (address: string) => ({ address: `${address}/${subnet.length}`, data: {} })
    if (request.address === undefined)
      return answer(await this.#choose(pool, part, owner, { lasting, spread: purpose === 'endpoint' }))
    const address = canonicalIp(request.address)
    const ip = parseIp(address)
    if (!contains(subnet, ip) || isReserved(subnet, ip.value))
      throw new CnmError('ERR_ADDRESS_OUT_OF_RANGE', `${address} is no address for hosts in pool ${pool}`, {
        address,
        pool,
      })
    if (this.#restoring) {
      if (purpose === 'endpoint') this.#cluster.claims.keepAddress(pool, address, owner)
    } else if (!(await this.#cluster.claims.takeAddress(pool, address, owner, lasting)))
      throw new CnmError('ERR_ADDRESS_IN_USE', `${address} of pool ${pool} is taken in the cluster`, {
        address,
        pool,
        owner: await this.#cluster.claims.holderOf(pool, address),
      })
    this.#hints.get(pool)?.add(address)
    return answer(address)
  }

  /**
   * Each host begins to look at another place of the pool, so that hosts that look at the same time rarely meet. If they do,
   * the one that is slower looks on.
   */
  async #choose(
    pool: string,
    part: string,
    owner: string,
    { lasting, spread }: { lasting: boolean; spread: boolean },
  ): Promise<string> {
    const range = parseCidr(part)
    const [first, last] = [firstOf(range), lastOf(range)]
    const size = last - first + 1n
    const offset = !spread ? 0n : BigInt(place(this.#cluster.host.name)) % (size < SPREAD ? size : SPREAD)
    let fresh = !this.#hints.has(pool)
    for (;;) {
      if (fresh) this.#hints.set(pool, new Set(await this.#cluster.claims.takenIn(pool)))
      const taken = this.#hints.get(pool) as Set<string>
      for (let n = 0n; n < size; n++) {
        const value = first + ((offset + n) % size)
        if (isReserved(parseCidr(pool), value)) continue
        const address = formatIp({ family: range.family, value })
        if (taken.has(address)) continue
        taken.add(address)
        if (await this.#cluster.claims.takeAddress(pool, address, owner, lasting)) return address
      }
      // What others gave back is not in the hints: once more, with fresh ones.
      if (fresh)
        throw new CnmError('ERR_POOL_EXHAUSTED', `no address is free in ${part}`, { pool, used: taken.size })
      fresh = true
    }
  }

  async releaseAddress(poolId: string, address: string, owner: string): Promise<void> {
    if (!isOurs(poolId)) return this.#local.releaseAddress(poolId, address, owner)
    const { pool } = readPoolId(poolId)
    const bare = canonicalIp(address.replace(/\/.*/, ''))
    await this.#cluster.claims.releaseAddress(pool, bare, owner)
    this.#hints.get(pool)?.delete(bare)
  }

  async status(poolId: string): Promise<PoolStatus> {
    if (!isOurs(poolId)) return (await this.#local.status?.(poolId)) ?? { inUse: 0n, dynamicAvailable: 0n }
    const { pool, part } = readPoolId(poolId)
    const [subnet, range] = [parseCidr(pool), parseCidr(part)]
    const taken = (await this.#cluster.claims.takenIn(pool)).map(parseIp)
    const reserved = (of: Cidr) =>
      BigInt([firstOf(of), lastOf(of)].filter(value => isReserved(subnet, value)).length)
    const inRange = BigInt(taken.filter(ip => contains(range, ip)).length)
    return {
      inUse: BigInt(taken.length) + reserved(subnet),
      dynamicAvailable: (1n << hostBits(range)) - reserved(range) - inRange,
    }
  }
}

/** Hosts begin within so many addresses of a pool: those of a /48 shall not be far apart either. */
const SPREAD = 65_536n

const place = (host: string): number => createHash('sha256').update(host).digest().readUInt32BE(0)

/** Network and broadcast address (RFC 3021: not of a /31), and the anycast address of routers (RFC 4291, 2.6.1). */
function isReserved(subnet: Cidr, value: bigint): boolean {
  if (hostBits(subnet) < 2n) return false
  return value === firstOf(subnet) || (subnet.family === 4 && value === lastOf(subnet))
}

const hostCidr = (address: string): string => `${address}/${address.includes(':') ? 128 : 32}`

/** Unique local addresses (RFC 4193) that all hosts of a cluster derive alike from its prefix. */
export function clusterPools(prefix: string): { base: string; size: number }[] {
  const digest = createHash('sha256').update(`libcnm cluster ${prefix}`).digest('hex')
  return [
    { base: '10.0.0.0/8', size: 24 },
    // Where hosts have routes to all of the former.
    { base: '192.168.0.0/16', size: 24 },
    { base: `fd${digest.slice(0, 2)}:${digest.slice(2, 6)}:${digest.slice(6, 10)}::/48`, size: 64 },
  ]
}
