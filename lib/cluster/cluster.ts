/**
 * This host's place in the cluster: a mirror of the shared records, a lease that keeps what this host published, and the
 * way back after a loss. Reading is local and works always; writing needs the store.
 */
import { CnmError } from '../base/errors'
import { randomHex } from '../base/ids'
import { Claims } from './claims'
import { Connection } from './connection'
import { type Backend, type ClusterHost, type Condition, type KeyValue, MAX_OPERATIONS } from './contract'
import { type ClusterChange, idOf, Mirror } from './mirror'
import { Progress } from './progress'
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
  /** Milliseconds after a loss in which it waits in any case. */
  recovery: number
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
        text === undefined
          ? { remove: [key] }
          : { put: [{ key, value: text, lease: this.#connection.lease }] }
      return (await this.#connection.ask(() => this.#backend.transact({ if: conditions, ...write }))).done
    },
  })
  readonly #connection: Connection
  readonly #progress = new Progress()
  #watch: { close(): void } | undefined

  constructor(options: ClusterOptions) {
    this.#options = options
    this.#backend = options.backend
    this.host = options.host
    this.#mirror = new Mirror(this.#key('state/'), (key, reason) => options.listener.garbage(key, reason))
    this.claims = new Claims(this, options.backend, this.#key('claims'), options.listener)
    const { backend, host, leaseSeconds, patience, recovery, listener } = options
    this.#connection = new Connection({
      ...{ backend, host: host.name, leaseSeconds, patience, recovery },
      enter: held => this.#enter(held),
      leave: () => this.#leave(),
      connected: () => listener.connected(),
      lost: error => listener.lost(error),
    })
  }

  get connected(): boolean {
    return this.#connection.connected
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
    await this.#connection.ready()
    const gone = remove.some(({ kind, id }) => this.#mirror.get(kind, id) !== undefined)
    const { done, revision } = await this.#connection.ask(() =>
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
    if (done && (put.length || gone)) await this.#progress.until(revision)
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
    await this.#connection.ready()
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

  /** {@link Connection.ready} */
  ready(): Promise<void> {
    return this.#connection.ready()
  }

  /** @internal For {@link Claims}. */
  async ask<T>(body: () => Promise<T>): Promise<T> {
    await this.#connection.ready()
    return this.#connection.ask(body)
  }

  /* ------------------------------------------------------------------ the connection */

  /** {@link Connection.start} */
  start(): Promise<void> {
    return this.#connection.start()
  }

  async #enter(held: boolean): Promise<() => void> {
    const root = this.#key('state/')
    const listing = await this.#backend.list(root)
    let early: { changes: Parameters<Mirror['apply']>[0]; revision: number }[] | undefined = []
    const tell = (changes: Parameters<Mirror['apply']>[0], revision: number) => {
      this.#tell(this.#mirror.apply(changes))
      this.#progress.reach(revision)
    }
    const watch = await this.#backend.watch(root, listing.revision + 1, {
      changed: (changes, revision) => {
        if (early) early.push({ changes, revision })
        else if (this.#watch === watch) tell(changes, revision)
      },
      ended: error => this.#connection.lose(error),
    })
    this.#watch = watch
    this.#mustGoOn(watch)
    await this.#takeName(listing.entries)
    const sent = await this.#publishAll(listing.entries, held)
    await this.claims.reconcile()
    this.#mustGoOn(watch)
    return () => {
      this.#published.resume(sent)
      this.#tell(this.#mirror.replace(listing))
      this.#progress.reach(listing.revision)
      const waiting = early ?? []
      early = undefined
      for (const { changes, revision } of waiting) tell(changes, revision)
    }
  }

  /** The watch may have ended meanwhile, or all of it. */
  #mustGoOn(watch: { close(): void }): void {
    if (this.closed || this.#watch !== watch)
      throw this.#connection.error ?? new CnmError('ERR_CLOSED', 'the cluster was left')
  }

  #leave(): void {
    this.#watch?.close()
    this.#watch = undefined
    this.#progress.stop()
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
      put: [{ key, value, lease: this.#connection.lease }],
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
      .map(([key, value]) => ({ key, value, lease: this.#connection.lease }))
    for (const part of chunks(remove)) await this.#backend.transact({ remove: part })
    for (const part of chunks(put)) await this.#backend.transact({ put: part })
    return sent
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

  get closed(): boolean {
    return this.#connection.closed
  }

  /**
   * Lets go. `leave`: this host withdraws at once (its containers are gone); otherwise it is missed when its lease ends,
   * so that a controller that is only restarted does not disturb the others.
   */
  close(how: { leave?: boolean } = {}): Promise<void> {
    return this.#connection.close(how)
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
