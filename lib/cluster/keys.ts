/**
 * The keys by which hosts encrypt what they send one another, and their change without loss: a new key is first made known,
 * every live host says when it can receive with it, and only when all have does anybody send with it. The one before it
 * is received with until the next change. No host leads: the first by name takes the second step, and another if it dies.
 */
import { randomHex } from '../base/ids'
import { CnmError } from '../base/errors'
import type { Condition } from './contract'
import type { Cluster } from './cluster'
import { encode, type KeyRecord, type KeyReceipt } from './records'

/** Id of the one record. */
const RING = 'ring'
/** Bytes: each host derives those of its own directions from it. */
const KEY_BYTES = 32
/** Milliseconds that {@link Keys.rotate} waits for the other hosts. */
const PATIENCE = 30_000

export class Keys {
  readonly #cluster: Cluster
  #ring: KeyRecord | undefined
  /** When its newest key was first seen here, by a clock that nobody sets. */
  #since = 0

  constructor(cluster: Cluster) {
    this.#cluster = cluster
    cluster.onChange(changes => {
      // One that is gone is kept: what is in use is made known again.
      for (const { kind, id, after } of changes)
        if (kind === 'key' && id === RING && after) this.#learn(after)
      if (changes.some(({ kind }) => kind === 'key' || kind === 'host' || kind === 'receipt'))
        void this.#promote().catch(() => {}) // the next change, or another host, does it
    })
  }

  /** As it was last known. */
  get ring(): KeyRecord | undefined {
    return this.#ring
  }
  /** Milliseconds since the newest key was first seen here. */
  get age(): number {
    return performance.now() - this.#since
  }

  #learn(ring: KeyRecord): void {
    if (newest(ring) !== (this.#ring && newest(this.#ring))) this.#since = performance.now()
    this.#ring = ring
  }

  /** The first key is made if there is none; a store that lost the keys gets back those that are in use. */
  async ensure(): Promise<KeyRecord> {
    await this.#cluster.ready()
    const there = this.#cluster.get('key', RING)
    if (there) return there
    const key = this.#cluster.keyOf('key', RING)
    await this.#write(this.#ring ?? { keys: [fresh(1)], primary: 1 }, { key, is: 'absent' })
    const made = await this.#until(() => this.#cluster.get('key', RING))
    if (made) return made
    throw new CnmError('ERR_CLUSTER_CONFLICT', 'the keys of the cluster were made, but do not arrive here')
  }

  /** This host can receive with all keys up to `received`, and sends with `sent`. */
  confirm(ring: KeyRecord): void {
    const receipt: KeyReceipt = { host: this.#cluster.host.name, received: newest(ring), sent: ring.primary }
    this.#cluster.republish('receipt', receipt)
  }

  /** True for one live host at a time. */
  get isFirst(): boolean {
    const names = this.#cluster.all('host').map(({ name }) => name)
    return this.#cluster.connected && this.#cluster.host.name === names.sort()[0]
  }

  /**
   * Makes a new key known; the rest follows as hosts confirm. Resolves to its tag. Throws ERR_CLUSTER_CONFLICT while hosts
   * still send with the key before the present one, which would be forgotten.
   */
  async begin(): Promise<number> {
    const ring = await this.ensure()
    if (newest(ring) > ring.primary) return newest(ring)
    const late = this.#without(receipt => receipt.sent >= ring.primary)
    if (late.length) throw notConfirmed(late)
    const next = fresh(newest(ring) + 1)
    const present = ring.keys.filter(({ tag }) => tag === ring.primary)
    await this.#replace(ring, { keys: [...present, next], primary: ring.primary })
    return next.tag
  }

  /** {@link begin}, and waits until every host sends with the new key. Throws ERR_CLUSTER_CONFLICT naming those that do not. */
  async rotate(): Promise<number> {
    const tag = await this.begin()
    const late = () => this.#without(({ sent }) => sent >= tag)
    if (!(await this.#until(() => late().length === 0))) throw notConfirmed(late())
    return tag
  }

  /** Every live host has the newest key: from now on it is sent with. */
  async #promote(): Promise<void> {
    const ring = this.#cluster.get('key', RING)
    if (!ring || newest(ring) === ring.primary || !this.isFirst) return
    if (this.#without(({ received }) => received >= newest(ring)).length === 0)
      await this.#replace(ring, { ...ring, primary: newest(ring) })
  }

  /** Live hosts that have not confirmed it. */
  #without(confirmed: (receipt: KeyReceipt) => boolean): string[] {
    const receipts = new Map(this.#cluster.all('receipt').map(receipt => [receipt.host, receipt]))
    return this.#cluster.all('host').flatMap(({ name }) => {
      const receipt = receipts.get(name)
      return receipt && confirmed(receipt) ? [] : [name]
    })
  }

  /** If another host was faster, it did the same. */
  async #replace(before: KeyRecord, after: KeyRecord): Promise<void> {
    await this.#write(after, { key: this.#cluster.keyOf('key', RING), value: encode('key', before) })
  }

  async #write(value: KeyRecord, condition: Condition): Promise<void> {
    await this.#cluster.write({ if: [condition], put: [{ kind: 'key', id: RING, value }] })
  }

  async #until<T>(look: () => T): Promise<T> {
    const deadline = performance.now() + PATIENCE
    while (!look() && performance.now() < deadline) await new Promise(resolve => setTimeout(resolve, 20))
    return look()
  }
}

const newest = ({ keys }: KeyRecord): number => Math.max(...keys.map(({ tag }) => tag))
const fresh = (tag: number) => ({ tag, key: randomHex(2 * KEY_BYTES) })

const notConfirmed = (hosts: string[]) =>
  new CnmError('ERR_CLUSTER_CONFLICT', `hosts that have not taken the last key yet: ${hosts.join(', ')}`, {
    hosts,
  })
