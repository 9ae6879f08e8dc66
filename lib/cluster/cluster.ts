/**
 * This host's place in the cluster: a mirror of the shared records, a lease that keeps what this host published, and the
 * way back after a loss. Reading is local and works always; writing needs the store.
 */
import { CnmError, isCnmError } from '../base/errors'
import { randomHex } from '../base/ids'
import { Claims } from './claims'
import { type Backend, type ClusterHost, type Condition, type KeyValue, MAX_OPERATIONS } from './contract'
import { type ClusterChange, idOf, Mirror } from './mirror'
import { Published } from './published'
import { type ClusterKind, encode, type RecordOf } from './records'

export interface ClusterOptions {
  backend: Backend
  /** Of all keys, without a slash at the end. */
  prefix: string
  host: ClusterHost
  /** Lasting id of the machine. */
  hostId: string
  /** How long the others wait for a host that is silent. */
  leaseSeconds: number
  /** Milliseconds that an operation waits for a connection that is being made. */
  patience: number
  listener: ClusterListener
}

export interface ClusterListener {
  connected(): void
  lost(error: unknown): void
  /** A record that is none; told once for each value. */
  garbage(key: string, reason: string): void
  problem(message: string, error: unknown): void
}

/** A write to the shared records: all of it, or nothing when a condition does not hold. */
export interface ClusterWrite {
  if?: Condition[]
  put?: { kind: ClusterKind; value: RecordOf<ClusterKind>; id?: string }[]
  remove?: { kind: ClusterKind; id: string }[]
  /** Bare keys below `claims/`, which no host watches. */
  putClaims?: { key: string; value: string }[]
  removeClaims?: string[]
}

/** Milliseconds between attempts to come back: doubled up to the most, then shortened at random. */
const FIRST_PAUSE = 100
const LONGEST_PAUSE = 5_000

export class Cluster {
  readonly host: ClusterHost
  readonly claims: Claims
  /** Differs after each start. */
  readonly instance = randomHex(16)
  readonly #options: ClusterOptions
  readonly #backend: Backend
  readonly #mirror: Mirror
  readonly #listeners = new Set<(changes: ClusterChange[]) => void>()
  readonly #published = new Published({
    connected: () => this.connected,
    put: async (key, text, conditions = []) => {
      const write =
        text === undefined ? { remove: [key] } : { put: [{ key, value: text, lease: this.#lease }] }
      return (await this.#ask(() => this.#backend.transact({ if: conditions, ...write }))).done
    },
  })
  #lease: string | undefined
  #watch: { close(): void } | undefined
  #renewal: NodeJS.Timeout | undefined
  #again: NodeJS.Timeout | undefined
  #pause = FIRST_PAUSE
  #seen = 0
  #waiting: { revision: number; resolve(): void }[] = []
  #state: 'new' | 'connecting' | 'connected' | 'lost' | 'closed' = 'new'
  #error: unknown
  #connecting: Promise<void> | undefined

  constructor(options: ClusterOptions) {
    this.#options = options
    this.#backend = options.backend
    this.host = options.host
    this.#mirror = new Mirror(this.#key('state/'), (key, reason) => options.listener.garbage(key, reason))
    this.claims = new Claims(this, options.backend, this.#key('claims'), options.listener)
  }

  get connected(): boolean {
    return this.#state === 'connected'
  }
  /** For people: which store, where. */
  get store(): string {
    return this.#backend.name
  }

  /* ------------------------------------------------------------------ reading: the mirror, at once */

  get<K extends ClusterKind>(kind: K, id: string): RecordOf<K> | undefined {
    return this.#mirror.get(kind, id)
  }
  all<K extends ClusterKind>(kind: K): RecordOf<K>[] {
    return this.#mirror.all(kind)
  }
  /** Joined endpoints of a network, on all hosts. */
  endpointsOf(networkId: string): RecordOf<'endpoint'>[] {
    return this.#mirror.endpointsOf(networkId)
  }

  /** Tells changes of the mirror, those of this host included; what is there at the first connection comes as changes, too. */
  onChange(listener: (changes: ClusterChange[]) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /* ------------------------------------------------------------------ writing */

  /** Resolves to false when a condition does not hold. When it resolves to true, the mirror has the change. */
  async write({
    if: conditions = [],
    put = [],
    remove = [],
    putClaims = [],
    removeClaims = [],
  }: ClusterWrite): Promise<boolean> {
    await this.ready()
    const gone = remove.some(({ kind, id }) => this.#mirror.get(kind, id) !== undefined)
    const { done, revision } = await this.#ask(() =>
      this.#backend.transact({
        if: conditions,
        put: [
          ...put.map(({ kind, value, id = idOf(kind, value) as string }) => ({
            key: this.keyOf(kind, id),
            value: encode(kind, value),
          })),
          ...putClaims,
        ],
        remove: [...remove.map(({ kind, id }) => this.keyOf(kind, id)), ...removeClaims],
      }),
    )
    if (done && (put.length || gone)) await this.#reached(revision)
    return done
  }

  /** The key of a record, for conditions. */
  keyOf(kind: ClusterKind, id: string): string {
    return this.#key(`state/${kind}/${id}`)
  }

  /**
   * Writes a record that lives as long as this host does: it is withdrawn when the lease ends, and written again when the
   * host is back. Throws ERR_CLUSTER_UNAVAILABLE; then it is not published. `if`: see {@link write}; false when not met.
   */
  async publish<K extends ClusterKind>(
    kind: K,
    value: RecordOf<K>,
    { if: conditions = [] }: { if?: Condition[] } = {},
  ): Promise<boolean> {
    const id = idOf(kind, value) as string
    const key = this.keyOf(kind, id)
    await this.ready()
    return this.#published.publish(key, { kind, id, text: encode(kind, value) }, conditions)
  }

  /** {@link publish} of what is so already and cannot be refused: written now, or as soon as the store is back. */
  republish<K extends ClusterKind>(kind: K, value: RecordOf<K>): void {
    const id = idOf(kind, value) as string
    const key = this.keyOf(kind, id)
    this.#published.republish(key, { kind, id, text: encode(kind, value) })
  }

  /** Never throws: what cannot be withdrawn now goes when the store is back, or with the lease. */
  async withdraw(kind: ClusterKind, id: string): Promise<void> {
    await this.#published.withdraw(this.keyOf(kind, id))
  }

  /** Waits a while for the connection. Throws ERR_CLUSTER_UNAVAILABLE, ERR_CLUSTER_DENIED, ERR_CLOSED. */
  async ready(): Promise<void> {
    if (this.connected) return
    if (this.#state === 'closed') throw new CnmError('ERR_CLOSED', 'the cluster was left')
    this.#hurry()
    // Not by the time of day, which may be set.
    const deadline = performance.now() + this.#options.patience
    while (!this.connected && !this.closed && performance.now() < deadline)
      await new Promise(resolve => setTimeout(resolve, 20))
    if (this.connected) return
    const { message } = (this.#error ?? {}) as Error
    if (isCnmError(this.#error, 'ERR_CLUSTER_DENIED', 'ERR_CLUSTER_HOST', 'ERR_CLUSTER_FULL'))
      throw this.#error
    throw new CnmError(
      'ERR_CLUSTER_UNAVAILABLE',
      `host ${this.host.name} has no connection to the cluster store (${message ?? this.store}); networks that span hosts cannot be changed until it is back`,
      { host: this.host.name, store: this.store },
      { cause: this.#error },
    )
  }

  /** Runs a request; a store that does not answer means that the connection is to be made anew. */
  async #ask<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body()
    } catch (error) {
      if (isCnmError(error, 'ERR_CLUSTER_UNAVAILABLE')) this.#lose(error)
      throw error
    }
  }

  /** @internal For {@link Claims}. */
  async ask<T>(body: () => Promise<T>): Promise<T> {
    await this.ready()
    return this.#ask(body)
  }

  /* ------------------------------------------------------------------ the connection */

  /**
   * Connects. A store that cannot be reached is no failure: it is tried again in the background. Throws
   * ERR_CLUSTER_DENIED and ERR_CLUSTER_HOST, which trying again does not mend.
   */
  async start(): Promise<void> {
    await this.#connect()
    if (isCnmError(this.#error, 'ERR_CLUSTER_DENIED', 'ERR_CLUSTER_HOST')) {
      const error = this.#error
      await this.close()
      throw error
    }
  }

  #connect(): Promise<void> {
    this.#connecting ??= this.#attempt().finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  async #attempt(): Promise<void> {
    if (this.#state === 'closed' || this.#state === 'connected') return
    clearTimeout(this.#again)
    const first = this.#state === 'new'
    this.#state = 'connecting'
    try {
      await this.#enter()
      this.#pause = FIRST_PAUSE
      this.#error = undefined
    } catch (error) {
      this.#watch?.close()
      this.#watch = undefined
      if (this.closed) return
      this.#error = error
      this.#state = 'lost'
      if (first) this.#options.listener.lost(error)
      this.#again = setTimeout(() => void this.#connect(), this.#pause * (0.5 + Math.random() / 2)).unref()
      this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE)
    }
  }

  /** Somebody waits: the next attempt is made at once, unless one has just failed. */
  #hurry(): void {
    if (this.#state === 'lost' && this.#pause > FIRST_PAUSE * 4) {
      this.#pause = FIRST_PAUSE
      void this.#connect()
    }
  }

  async #enter(): Promise<void> {
    const held = this.#lease !== undefined && (await this.#backend.renewLease(this.#lease))
    if (!held) this.#lease = await this.#backend.grantLease(this.#options.leaseSeconds)
    const root = this.#key('state/')
    const listing = await this.#backend.list(root)
    let early: { changes: Parameters<Mirror['apply']>[0]; revision: number }[] | undefined = []
    const tell = (changes: Parameters<Mirror['apply']>[0], revision: number) => {
      this.#tell(this.#mirror.apply(changes))
      this.#progress(revision)
    }
    const watch = await this.#backend.watch(root, listing.revision + 1, {
      changed: (changes, revision) => {
        if (early) early.push({ changes, revision })
        else if (this.#watch === watch) tell(changes, revision)
      },
      ended: error => this.#lose(error),
    })
    if (this.closed) return watch.close()
    this.#watch = watch
    await this.#takeName(listing.entries)
    const sent = await this.#publishAll(listing.entries, held)
    await this.claims.reconcile()
    if (this.closed || this.#watch !== watch)
      throw this.#error ?? new CnmError('ERR_CLOSED', 'the cluster was left')
    this.#state = 'connected'
    this.#published.resume(sent)
    this.#tell(this.#mirror.replace(listing))
    this.#progress(listing.revision)
    const waiting = early
    early = undefined
    for (const { changes, revision } of waiting) tell(changes, revision)
    clearInterval(this.#renewal)
    this.#renewal = setInterval(() => void this.#renew(), (this.#options.leaseSeconds * 1000) / 3).unref()
    this.#options.listener.connected()
  }

  /** Two machines of one name would withdraw each other's endpoints. */
  async #takeName(entries: KeyValue[]): Promise<void> {
    const { host, hostId } = this.#options
    const key = this.keyOf('host', host.name)
    const present = entries.find(entry => entry.key === key)
    const other = present && hostIdOf(present.value)
    if (other !== undefined && other !== hostId)
      throw new CnmError(
        'ERR_CLUSTER_HOST',
        `there is a host ${host.name} in the cluster already, and it is another machine`,
        { host: host.name },
      )
    const value = encode('host', { ...host, hostId, instance: this.instance })
    const { done } = await this.#backend.transact({
      if: [present ? { key, revision: present.revision } : { key, is: 'absent' }],
      put: [{ key, value, lease: this.#lease }],
    })
    if (!done)
      throw new CnmError(
        'ERR_CLUSTER_CONFLICT',
        `another controller takes the name ${host.name} at this moment`,
      )
  }

  /**
   * What this host has is published, with the present lease; what it had and has no more is withdrawn. `held`: the lease is the
   * one of before, so what is there to the letter stays as it is: hosts that all come back at once would wake all others
   * with every record. Resolves to what is there then.
   */
  async #publishAll(entries: KeyValue[], held: boolean): Promise<Map<string, string>> {
    const sent = this.#published.texts()
    const own = entries.filter(
      ({ key, value }) => key.startsWith(this.keyOf('endpoint', '')) && hostOf(value) === this.host.name,
    )
    const remove = own.filter(({ key }) => !sent.has(key)).map(({ key }) => key)
    const there = new Map(held ? entries.map(({ key, value }) => [key, value]) : [])
    const put = [...sent]
      .filter(([key, text]) => there.get(key) !== text)
      .map(([key, value]) => ({ key, value, lease: this.#lease }))
    for (const part of chunks(remove)) await this.#backend.transact({ remove: part })
    for (const part of chunks(put)) await this.#backend.transact({ put: part })
    return sent
  }

  async #renew(): Promise<void> {
    const lease = this.#lease
    if (!this.connected || lease === undefined) return
    try {
      if (await this.#backend.renewLease(lease)) return
      this.#lease = undefined
      this.#lose(
        new CnmError('ERR_CLUSTER_UNAVAILABLE', `${this.store}: the lease of host ${this.host.name} ended`),
      )
    } catch (error) {
      this.#lose(error)
    }
  }

  #lose(error: unknown): void {
    this.#error = error
    this.#watch?.close()
    this.#watch = undefined
    if (this.#state !== 'connected') return
    this.#state = 'lost'
    clearInterval(this.#renewal)
    for (const { resolve } of this.#waiting.splice(0)) resolve()
    this.#options.listener.lost(error)
    this.#again = setTimeout(() => void this.#connect(), this.#pause * Math.random()).unref()
  }

  #tell(changes: ClusterChange[]): void {
    if (changes.length === 0) return
    for (const listener of this.#listeners)
      try {
        listener(changes)
      } catch (error) {
        this.#options.listener.problem('cannot follow a change of the cluster', error)
      }
  }

  #progress(revision: number): void {
    this.#seen = Math.max(this.#seen, revision)
    this.#waiting = this.#waiting.filter(({ revision: wanted, resolve }) => {
      if (wanted > this.#seen) return true
      resolve()
      return false
    })
  }

  /** Until the mirror is there, or a while: the watch may be slow, and the write is done all the same. */
  async #reached(revision: number): Promise<void> {
    if (this.#seen >= revision) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>(resolve => {
      this.#waiting.push({ revision, resolve })
      timer = setTimeout(resolve, 2_000).unref()
    })
    clearTimeout(timer)
  }

  get closed(): boolean {
    return this.#state === 'closed'
  }

  /**
   * Lets go. `leave`: this host withdraws at once (its containers are gone); otherwise it is missed when its lease ends,
   * so that a controller that is only restarted does not disturb the others.
   */
  async close({ leave = false }: { leave?: boolean } = {}): Promise<void> {
    if (this.closed) return
    const lease = this.connected ? this.#lease : undefined
    this.#state = 'closed'
    clearTimeout(this.#again)
    clearInterval(this.#renewal)
    this.#watch?.close()
    await this.#connecting
    if (leave && lease !== undefined) await this.#backend.revokeLease(lease).catch(() => {})
    this.#backend.close()
  }

  #key(below: string): string {
    return `${this.#options.prefix}/${below}`
  }
}

export function* chunks<T>(list: T[], size = MAX_OPERATIONS): Generator<T[]> {
  for (let at = 0; at < list.length; at += size) yield list.slice(at, at + size)
}

const field = (text: string, name: string): string | undefined => {
  try {
    const found = (JSON.parse(text) as { value?: Record<string, unknown> }).value?.[name]
    return typeof found === 'string' ? found : undefined
  } catch {
    return undefined // garbage: nobody's
  }
}
const hostIdOf = (text: string) => field(text, 'hostId')
const hostOf = (text: string) => field(text, 'host')
