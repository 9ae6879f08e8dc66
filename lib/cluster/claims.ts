/**
 * What only one may have: addresses, pools, numbers. A claim is a key that is made if it is absent, so no two hosts ever
 * get the same, whatever happens between them. Claims have no lease: a host that was cut off still has its addresses.
 *
 * `claims/addresses/POOL/ADDRESS` says who holds it. Of those that endpoints hold, `claims/hosts/HOST/POOL/ADDRESS` is a list
 * by host, and `claims/held/POOL/ADDRESS` tells whether a pool is in use.
 */
import { CnmError } from '../base/errors'
import type { Backend, Segments } from './contract'
import type { Cluster, ClusterListener } from './cluster'

/** Below it are those that Linux and others are configured with by hand (libnetwork begins here, too). */
const FIRST_SEGMENT = 4096
const LAST_SEGMENT = 2 ** 24 - 1

/** How often to try again when others are faster. */
const ATTEMPTS = 32

export class Claims implements Segments {
  readonly #cluster: Cluster
  readonly #backend: Backend
  readonly #root: string
  readonly #listener: ClusterListener
  /** Addresses of this host: `POOL/ADDRESS` → owner. */
  readonly #own = new Map<string, string>()

  constructor(cluster: Cluster, backend: Backend, root: string, listener: ClusterListener) {
    this.#cluster = cluster
    this.#backend = backend
    this.#root = root
    this.#listener = listener
  }

  /* ------------------------------------------------------------------ addresses */

  readonly #address = (slot: string) => `${this.#root}/addresses/${slot}`
  readonly #byHost = (slot: string, host = this.#cluster.host.name) => `${this.#root}/hosts/${host}/${slot}`
  readonly #held = (slot: string) => `${this.#root}/held/${slot}`
  /** What goes with the address of a host. */
  readonly #marks = (slot: string, host?: string) => [this.#byHost(slot, host), this.#held(slot)]
  readonly #marked = (slot: string, owner: string) => [
    { key: this.#byHost(slot), value: owner },
    { key: this.#held(slot), value: this.#cluster.host.name },
  ]

  /** Empty when no endpoint of any host has an address of the pool: for conditions. */
  heldPrefix(pool: string): string {
    return this.#held(`${slug(pool)}/`)
  }

  /** The hosts whose endpoints have addresses of the pool. */
  async holdersIn(pool: string): Promise<string[]> {
    const { entries } = await this.#cluster.ask(() => this.#backend.list(this.heldPrefix(pool)))
    return [...new Set(entries.map(({ value }) => value))]
  }

  /** False: somebody else has it. `lasting`: it is the network's, not this host's. */
  async takeAddress(pool: string, address: string, owner: string, lasting = false): Promise<boolean> {
    const slot = slotOf(pool, address)
    const own = this.#own.get(slot)
    if (own !== undefined) return own === owner
    if (lasting) return this.#takeSlot(slot, owner, true)
    // Ours before it is asked for: a connection that is made anew meanwhile must not sweep it.
    this.#own.set(slot, owner)
    let taken = false
    try {
      taken = await this.#takeSlot(slot, owner, false)
    } finally {
      if (!taken) this.#own.delete(slot)
    }
    return taken
  }

  async #takeSlot(slot: string, owner: string, lasting: boolean): Promise<boolean> {
    const value = this.#holder(owner, lasting)
    const key = this.#address(slot)
    const pool = unslug(slot.slice(0, slot.indexOf('/')))
    const poolKey = `${this.#root}/pools/${slug(pool)}`
    const { done } = await this.#cluster.ask(() =>
      this.#backend.transact({
        // No address of a network that another host has just deleted.
        if: [
          { key, is: 'absent' },
          { key: poolKey, is: 'present' },
        ],
        put: [{ key, value }, ...(lasting ? [] : this.#marked(slot, owner))],
      }),
    )
    if (done) return true
    const present = await this.#cluster.ask(() => this.#backend.get(key))
    if (!present && !(await this.#cluster.ask(() => this.#backend.get(poolKey))))
      throw new CnmError('ERR_POOL_NOT_FOUND', `pool ${pool} is no longer in the cluster`, { pool })
    // An earlier attempt whose answer was lost may have succeeded.
    return present?.value === value
  }

  #holder(owner: string, lasting: boolean): string {
    return JSON.stringify(lasting ? { owner } : { owner, host: this.#cluster.host.name })
  }

  /** The claim of an address that is no host's. */
  lasting(pool: string, address: string, owner: string): { key: string; value: string } {
    return { key: this.#address(slotOf(pool, address)), value: this.#holder(owner, true) }
  }

  /** What makes addresses of this host, that are claimed for `owner`, be no host's: a part of a transaction. */
  handOver(slots: { pool: string; address: string }[], owner: string) {
    const own = slots.filter(({ pool, address }) => this.#own.get(slotOf(pool, address)) === owner)
    return {
      if: own.map(({ pool, address }) => ({
        key: this.#address(slotOf(pool, address)),
        value: this.#holder(owner, false),
      })),
      putClaims: own.map(({ pool, address }) => this.lasting(pool, address, owner)),
      removeClaims: own.flatMap(({ pool, address }) => this.#marks(slotOf(pool, address))),
    }
  }

  /** {@link handOver} is done. */
  handedOver(slots: { pool: string; address: string }[]): void {
    for (const { pool, address } of slots) this.#own.delete(slotOf(pool, address))
  }

  /** After a restart: this host has it, which is made sure of at the next connection. */
  keepAddress(pool: string, address: string, owner: string): void {
    this.#own.set(slotOf(pool, address), owner)
  }

  /** Who has it, if anybody. */
  async holderOf(pool: string, address: string): Promise<string | undefined> {
    const found = await this.#cluster.ask(() => this.#backend.get(this.#address(slotOf(pool, address))))
    return found && ownerIn(found.value)
  }

  /** Given back now, or when the store is there again. Throws ERR_ADDRESS_NOT_OWNED. */
  async releaseAddress(pool: string, address: string, owner: string): Promise<void> {
    const slot = slotOf(pool, address)
    const held = this.#own.get(slot)
    if (held !== undefined && held !== owner) throw notOwned(address, held)
    // From here on it is not ours; what is left of it is swept at the next connection.
    if (this.#own.delete(slot) && !this.#cluster.connected) return
    const key = this.#address(slot)
    const remove = (value: string) =>
      this.#cluster.ask(() =>
        this.#backend.transact({ if: [{ key, value }], remove: [key, ...this.#marks(slot)] }),
      )
    try {
      if (held !== undefined && (await remove(this.#holder(owner, false))).done) return
      const present = await this.#cluster.ask(() => this.#backend.get(key))
      if (!present)
        throw new CnmError('ERR_ADDRESS_NOT_ALLOCATED', `${address} of pool ${pool} is not allocated`, {
          address,
          pool,
        })
      if (ownerIn(present.value) !== owner) throw notOwned(address, ownerIn(present.value) ?? 'nobody')
      await remove(present.value)
    } catch (error) {
      if (held === undefined || (error as CnmError).kind !== 'unavailable') throw error
    }
  }

  /** Addresses of a pool that somebody has. */
  async takenIn(pool: string): Promise<string[]> {
    const prefix = this.#address(`${slug(pool)}/`)
    const { entries } = await this.#cluster.ask(() => this.#backend.list(prefix, { keysOnly: true }))
    return entries.map(({ key }) => key.slice(prefix.length))
  }

  /** @internal The connection is new: what the store has of this host is brought to what this host has. */
  async reconcile(): Promise<void> {
    const prefix = this.#byHost('')
    const { entries } = await this.#backend.list(prefix)
    const stored = new Map(entries.map(({ key, value }) => [key.slice(prefix.length), value]))
    const stale = [...stored].filter(([slot, owner]) => this.#own.get(slot) !== owner)
    for (const [slot, owner] of stale) {
      const key = this.#address(slot)
      const { done } = await this.#backend.transact({
        if: [{ key, value: this.#holder(owner, false) }],
        remove: [key, ...this.#marks(slot)],
      })
      if (!done) await this.#backend.transact({ remove: [this.#byHost(slot)] })
    }
    for (const [slot, owner] of this.#own) {
      if (stored.get(slot) === owner) continue
      const key = this.#address(slot)
      const value = this.#holder(owner, false)
      const { done } = await this.#backend.transact({
        if: [{ key, is: 'absent' }],
        put: [{ key, value }, ...this.#marked(slot, owner)],
      })
      const present = done ? undefined : await this.#backend.get(key)
      // One that was handed over is still its owner's.
      if (present && ownerIn(present.value) !== owner)
        this.#listener.problem(
          `${slot.split('/')[1]} of endpoint ${owner.slice(0, 12)} was given to another endpoint (${present.value}) while this host was away`,
          undefined,
        )
    }
  }

  /** Frees the addresses of a host that will not come back. Resolves to how many. */
  async forgetHost(host: string): Promise<number> {
    const prefix = this.#byHost('', host)
    const { entries } = await this.#cluster.ask(() => this.#backend.list(prefix))
    let freed = 0
    for (const { key, value: owner } of entries) {
      const address = this.#address(key.slice(prefix.length))
      const { done } = await this.#cluster.ask(() =>
        this.#backend.transact({
          if: [{ key: address, value: JSON.stringify({ owner, host }) }],
          remove: [address, ...this.#marks(key.slice(prefix.length), host)],
        }),
      )
      if (done) freed++
      else await this.#cluster.ask(() => this.#backend.transact({ remove: [key] }))
    }
    return freed
  }

  /* ------------------------------------------------------------------ pools */

  /**
   * `choose` is told all pools that are taken, and says which one it wants (or throws). Nobody else takes one between
   * the look and the claim: a guard is rewritten with each, and must not have changed.
   */
  async takePool(choose: (taken: string[]) => string): Promise<string> {
    const prefix = `${this.#root}/pools/`
    const guard = `${this.#root}/pools-guard`
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const before = await this.#cluster.ask(() => this.#backend.get(guard))
      const { entries } = await this.#cluster.ask(() => this.#backend.list(prefix, { keysOnly: true }))
      const pool = choose(entries.map(({ key }) => unslug(key.slice(prefix.length))))
      const { done } = await this.#cluster.ask(() =>
        this.#backend.transact({
          if: [before ? { key: guard, revision: before.revision } : { key: guard, is: 'absent' }],
          put: [
            { key: guard, value: this.#cluster.host.name },
            { key: `${prefix}${slug(pool)}`, value: this.#maker() },
          ],
        }),
      )
      if (done) return pool
    }
    throw new CnmError('ERR_CLUSTER_CONFLICT', `no pool could be taken: ${ATTEMPTS} times others were faster`)
  }

  /** Takes a pool again that the store has lost. */
  async reclaimPool(pool: string): Promise<void> {
    const key = `${this.#root}/pools/${slug(pool)}`
    await this.#cluster.ask(() =>
      this.#backend.transact({
        if: [{ key, is: 'absent' }],
        put: [{ key, value: this.#maker() }],
      }),
    )
  }

  /** With all addresses that are left in it. */
  async releasePool(pool: string): Promise<void> {
    await this.#cluster.ask(() =>
      this.#backend.transact({
        remove: [`${this.#root}/pools/${slug(pool)}`],
        removePrefixes: [this.#address(`${slug(pool)}/`), this.heldPrefix(pool)],
      }),
    )
  }

  /* ------------------------------------------------------------------ numbers */

  async take(owner: string, wanted?: number): Promise<number> {
    const prefix = `${this.#root}/segments/`
    const claim = async (number: number) => {
      const key = `${prefix}${number}`
      const value = `${owner} ${this.#maker()}`
      const { done } = await this.#cluster.ask(() =>
        this.#backend.transact({ if: [{ key, is: 'absent' }], put: [{ key, value }] }),
      )
      if (done) return true
      const present = await this.#cluster.ask(() => this.#backend.get(key))
      return present?.value.split(' ')[0] === owner
    }
    if (wanted !== undefined) {
      if (await claim(wanted)) return wanted
      throw new CnmError(
        'ERR_SEGMENT_IN_USE',
        `VXLAN id ${wanted} belongs to another network of the cluster`,
        {
          id: wanted,
        },
      )
    }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const { entries } = await this.#cluster.ask(() => this.#backend.list(prefix, { keysOnly: true }))
      const taken = new Set(entries.map(({ key }) => Number(key.slice(prefix.length))))
      let number = FIRST_SEGMENT
      while (taken.has(number)) number++
      if (number > LAST_SEGMENT)
        throw new CnmError('ERR_SEGMENTS_EXHAUSTED', `all VXLAN ids from ${FIRST_SEGMENT} on are taken`)
      if (await claim(number)) return number
    }
    throw new CnmError(
      'ERR_CLUSTER_CONFLICT',
      `no VXLAN id could be taken: ${ATTEMPTS} times others were faster`,
    )
  }

  async giveBack(owner: string, number: number): Promise<void> {
    const key = `${this.#root}/segments/${number}`
    const present = await this.#cluster.ask(() => this.#backend.get(key))
    if (present?.value.split(' ')[0] !== owner) return
    await this.#cluster.ask(() =>
      this.#backend.transact({ if: [{ key, revision: present.revision }], remove: [key] }),
    )
  }

  /* ------------------------------------------------------------------ what a crash left */

  /** Who claims, and in which of its lives. */
  #maker(): string {
    return `${this.#cluster.host.name} ${this.#cluster.instance}`
  }

  #isOfEarlierLife(maker: string): boolean {
    const [host, instance] = maker.split(' ')
    return host === this.#cluster.host.name && instance !== this.#cluster.instance
  }

  /**
   * Pools and numbers that this host took in an earlier life for a network that it did not live to define. `networks`: all
   * that are defined.
   */
  async sweep(networks: { id: string; pools: { subnet: string }[] }[]): Promise<void> {
    const subnets = new Set(networks.flatMap(({ pools }) => pools.map(({ subnet }) => subnet)))
    const ids = new Set(networks.map(({ id }) => id))
    const list = async (below: string) =>
      (await this.#cluster.ask(() => this.#backend.list(`${this.#root}/${below}/`))).entries
    for (const { key, value } of await list('pools')) {
      const pool = unslug(key.slice(key.lastIndexOf('/') + 1))
      if (this.#isOfEarlierLife(value) && !subnets.has(pool)) await this.releasePool(pool)
    }
    for (const { key, value } of await list('segments')) {
      const [owner = '', ...maker] = value.split(' ')
      if (this.#isOfEarlierLife(maker.join(' ')) && !ids.has(owner))
        await this.giveBack(owner, Number(key.slice(key.lastIndexOf('/') + 1)))
    }
  }

  /** The key by which a service's name is its own on the network. */
  serviceKey(networkId: string, name: string): string {
    return `${this.#root}/services/${networkId}/${encodeURIComponent(name)}`
  }

  /** The key by which a port of all hosts, `8080/tcp`, is a service's own. */
  publishedKey(port: string): string {
    return `${this.#root}/published/${slug(port)}`
  }

  /** The key by which a network's name is its own. */
  nameKey(name: string): string {
    return `${this.#root}/names/${encodeURIComponent(name)}`
  }
}

/** Keys have slashes of their own. */
const slug = (cidr: string): string => cidr.replace('/', '_')
const unslug = (text: string): string => text.replace('_', '/')
const slotOf = (pool: string, address: string): string => `${slug(pool)}/${address}`

function ownerIn(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { owner?: string }).owner
  } catch {
    return undefined
  }
}

const notOwned = (address: string, owner: string) =>
  new CnmError('ERR_ADDRESS_NOT_OWNED', `${address} belongs to ${owner.slice(0, 12)}`, { address, owner })
