/** The store that hosts share, in memory: for programs and tests that play several hosts in one process. */
import { AsyncResource } from 'node:async_hooks'
import { CnmError } from '../base/errors'
import {
  type Backend,
  type Change,
  type Condition,
  type KeyValue,
  type Listing,
  type Transaction,
  type WatchListener,
  whole,
} from './contract'

interface Item {
  value: string
  revision: number
  lease: string | undefined
}

interface Watcher {
  prefix: string
  listener: WatchListener
  backend: MemoryBackend
  closed: boolean
}

/**
 * One of these is shared by all hosts; each opens its own {@link Backend} on it, and can be cut off from it. `now`:
 * milliseconds, for leases.
 */
export class MemoryCluster {
  readonly #items = new Map<string, Item>()
  readonly #leases = new Map<string, { seconds: number; timer: NodeJS.Timeout }>()
  readonly #history: Change[] = []
  readonly #watchers = new Set<Watcher>()
  #revision = 1
  #compacted = 0
  #grants = 0
  /** Whoever hears of a change does not act on behalf of him who made it, just as with a server far away. */
  readonly #outside = new AsyncResource('MemoryCluster')

  /** A host's way to it. */
  backend(): MemoryBackend {
    return new MemoryBackend(this)
  }

  /** Every key and value, sorted. */
  snapshot(): Record<string, string> {
    return Object.fromEntries([...this.#items].sort().map(([key, { value }]) => [key, value]))
  }

  /** Writes past all rules, as a foreign program may. */
  put(key: string, value: string): void {
    this.transact({ put: [{ key, value }] })
  }

  /** Forgets the history: watches from before cannot be resumed. */
  compact(): void {
    this.#compacted = this.#revision
    this.#history.length = 0
  }

  /** Ends every watch, as a server that restarts does. */
  breakWatches(): void {
    for (const watcher of [...this.#watchers]) this.#end(watcher, unavailable('the watch was broken off'))
  }

  /** Ends a lease now, as if its host had been silent for too long. */
  expire(lease: string): void {
    const found = this.#leases.get(lease)
    if (!found) return
    clearTimeout(found.timer)
    this.#leases.delete(lease)
    const keys = [...this.#items].filter(([, item]) => item.lease === lease).map(([key]) => key)
    if (keys.length) this.#commit([], keys)
  }

  /** Ends all timers. */
  close(): void {
    for (const { timer } of this.#leases.values()) clearTimeout(timer)
    this.#leases.clear()
    this.#watchers.clear()
  }

  /** @internal */
  list(prefix: string, keysOnly: boolean): Listing {
    const entries: KeyValue[] = []
    for (const [key, { value, revision }] of this.#items)
      if (key.startsWith(prefix)) entries.push({ key, value: keysOnly ? '' : value, revision })
    return { entries: entries.sort((a, b) => (a.key < b.key ? -1 : 1)), revision: this.#revision }
  }

  /** @internal */
  get(key: string): KeyValue | undefined {
    const item = this.#items.get(key)
    return item && { key, value: item.value, revision: item.revision }
  }

  /** @internal */
  transact(transaction: Transaction): { done: boolean; revision: number } {
    const { if: conditions, put, remove, removePrefixes } = whole(transaction)
    for (const { lease } of put)
      if (lease !== undefined && !this.#leases.has(lease))
        throw new CnmError('ERR_CLUSTER_UNAVAILABLE', `the lease ${lease} has ended`, { lease })
    if (!conditions.every(condition => this.#holds(condition)))
      return { done: false, revision: this.#revision }
    const below = [...this.#items.keys()].filter(key => removePrefixes.some(prefix => key.startsWith(prefix)))
    this.#commit(put, [...remove, ...below])
    return { done: true, revision: this.#revision }
  }

  #holds(condition: Condition): boolean {
    if ('prefix' in condition) return ![...this.#items.keys()].some(key => key.startsWith(condition.prefix))
    const item = this.#items.get(condition.key)
    if ('is' in condition) return (item !== undefined) === (condition.is === 'present')
    if ('value' in condition) return item?.value === condition.value
    return item?.revision === condition.revision
  }

  #commit(put: NonNullable<Transaction['put']>, remove: string[]): void {
    const revision = this.#revision + 1
    const changes: Change[] = []
    for (const key of new Set(remove)) if (this.#items.delete(key)) changes.push({ key, revision })
    for (const { key, value, lease } of put) {
      this.#items.set(key, { value, revision, lease })
      changes.push({ key, value, revision })
    }
    if (changes.length === 0) return
    this.#revision = revision
    this.#history.push(...changes)
    for (const watcher of [...this.#watchers]) this.#tell(watcher, changes)
  }

  #tell(watcher: Watcher, changes: Change[]): void {
    const seen = changes.filter(({ key }) => key.startsWith(watcher.prefix))
    if (seen.length === 0) return
    setImmediate(() => {
      if (watcher.closed || watcher.backend.cut) return
      this.#outside.runInAsyncScope(() => watcher.listener.changed(seen, (seen.at(-1) as Change).revision))
    })
  }

  #end(watcher: Watcher, error: unknown): void {
    if (!this.#watchers.delete(watcher)) return
    watcher.closed = true
    setImmediate(() => this.#outside.runInAsyncScope(() => watcher.listener.ended(error)))
  }

  /** @internal */
  grant(seconds: number): string {
    const lease = String(++this.#grants)
    this.#leases.set(lease, { seconds, timer: this.#timer(lease, seconds) })
    return lease
  }

  #timer(lease: string, seconds: number): NodeJS.Timeout {
    return setTimeout(() => this.expire(lease), seconds * 1000).unref()
  }

  /** @internal */
  renew(lease: string): boolean {
    const found = this.#leases.get(lease)
    if (!found) return false
    clearTimeout(found.timer)
    found.timer = this.#timer(lease, found.seconds)
    return true
  }

  /** @internal */
  watch(backend: MemoryBackend, prefix: string, from: number, listener: WatchListener): { close(): void } {
    const watcher: Watcher = { prefix, listener, backend, closed: false }
    this.#watchers.add(watcher)
    if (from <= this.#compacted && from <= this.#revision)
      this.#end(watcher, unavailable(`revision ${from} has been compacted`))
    else {
      const missed = this.#history.filter(({ revision }) => revision >= from)
      for (const revision of new Set(missed.map(change => change.revision)))
        this.#tell(
          watcher,
          missed.filter(change => change.revision === revision),
        )
    }
    return {
      close: () => {
        watcher.closed = true
        this.#watchers.delete(watcher)
      },
    }
  }

  /** @internal The way of one host is cut: its watches hear of it. */
  severed(backend: MemoryBackend): void {
    for (const watcher of [...this.#watchers])
      if (watcher.backend === backend) this.#end(watcher, unavailable('the way to the cluster store is cut'))
  }
}

const unavailable = (what: string) => new CnmError('ERR_CLUSTER_UNAVAILABLE', `memory: ${what}`)

/** One host's way to a {@link MemoryCluster}. */
export class MemoryBackend implements Backend {
  readonly name = 'memory'
  readonly #cluster: MemoryCluster
  #fault: CnmError | undefined
  #delay = 0
  #closed = false

  constructor(cluster: MemoryCluster) {
    this.#cluster = cluster
  }

  /** True: this host is cut off, as by a broken link. */
  get cut(): boolean {
    return this.#fault !== undefined
  }
  set cut(cut: boolean) {
    this.fail(cut ? unavailable('the way to the cluster store is cut') : undefined)
  }

  /** Every call fails with the error, until undefined is given. */
  fail(error: CnmError | undefined): void {
    this.#fault = error
    if (error) this.#cluster.severed(this)
  }

  /** Milliseconds that every call takes. */
  set delay(milliseconds: number) {
    this.#delay = milliseconds
  }

  list(prefix: string, { keysOnly = false }: { keysOnly?: boolean } = {}): Promise<Listing> {
    return this.#call(() => this.#cluster.list(prefix, keysOnly))
  }
  get(key: string): Promise<KeyValue | undefined> {
    return this.#call(() => this.#cluster.get(key))
  }
  transact(transaction: Transaction): Promise<{ done: boolean; revision: number }> {
    return this.#call(() => this.#cluster.transact(transaction))
  }
  grantLease(seconds: number): Promise<string> {
    return this.#call(() => this.#cluster.grant(seconds))
  }
  renewLease(lease: string): Promise<boolean> {
    return this.#call(() => this.#cluster.renew(lease))
  }
  revokeLease(lease: string): Promise<void> {
    return this.#call(() => this.#cluster.expire(lease))
  }
  watch(prefix: string, fromRevision: number, listener: WatchListener): Promise<{ close(): void }> {
    return this.#call(() => this.#cluster.watch(this, prefix, fromRevision, listener))
  }
  close(): void {
    this.#closed = true
  }

  async #call<T>(body: () => T): Promise<T> {
    await new Promise<void>(resolve =>
      this.#delay ? setTimeout(resolve, this.#delay) : setImmediate(resolve),
    )
    if (this.#closed) throw unavailable('it was closed')
    if (this.#fault) throw this.#fault
    return body()
  }
}
