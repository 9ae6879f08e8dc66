/** A host's connection to the store: made, kept by a lease, lost, and made anew. What is to be done with one, others know. */
import { CnmError, isCnmError } from '../base/errors'
import type { Backend } from './contract'

export interface ConnectionOptions {
  backend: Backend
  /** Name of this host. */
  host: string
  /** How long the others wait for a host that is silent. */
  leaseSeconds: number
  /** Milliseconds that an operation waits for a connection that is being made. */
  patience: number
  /** Milliseconds after a loss in which it waits in any case: as long as servers take to choose another leader. */
  recovery: number
  /**
   * Brings both sides to one state. Resolves to what is to be done as soon as the connection counts as made. `held`: the
   * lease is the one of before.
   */
  enter(held: boolean): Promise<() => void>
  /** What {@link enter} has opened is closed. */
  leave(): void
  connected(): void
  lost(error: unknown): void
}

/** Milliseconds between attempts to come back: doubled up to the most, then shortened at random. */
const FIRST_PAUSE = 100
const LONGEST_PAUSE = 5_000

export class Connection {
  readonly #options: ConnectionOptions
  #lease: string | undefined
  #renewal: NodeJS.Timeout | undefined
  #again: NodeJS.Timeout | undefined
  #pause = FIRST_PAUSE
  #state: 'new' | 'connecting' | 'connected' | 'lost' | 'closed' = 'new'
  #error: unknown
  /** When, by a clock that nobody sets. */
  #lostAt = Number.NEGATIVE_INFINITY
  #connecting: Promise<void> | undefined

  constructor(options: ConnectionOptions) {
    this.#options = options
  }

  get connected(): boolean {
    return this.#state === 'connected'
  }
  get closed(): boolean {
    return this.#state === 'closed'
  }
  /** What is to live as long as this host is put with it. */
  get lease(): string | undefined {
    return this.#lease
  }
  /** Why there is none. */
  get error(): unknown {
    return this.#error
  }

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

  /** Waits a while for the connection. Throws ERR_CLUSTER_UNAVAILABLE, ERR_CLUSTER_DENIED, ERR_CLOSED. */
  async ready(): Promise<void> {
    if (this.connected) return
    if (this.closed) throw new CnmError('ERR_CLOSED', 'the cluster was left')
    this.#hurry()
    const { patience, recovery, host, backend } = this.#options
    const deadline = Math.max(performance.now() + patience, this.#lostAt + recovery)
    while (!this.connected && !this.closed && performance.now() < deadline)
      await new Promise(resolve => setTimeout(resolve, 20))
    if (this.connected) return
    const { message } = (this.#error ?? {}) as Error
    if (isCnmError(this.#error, 'ERR_CLUSTER_DENIED', 'ERR_CLUSTER_HOST', 'ERR_CLUSTER_FULL'))
      throw this.#error
    throw new CnmError(
      'ERR_CLUSTER_UNAVAILABLE',
      `host ${host} has no connection to the cluster store (${message ?? backend.name}); networks that span hosts cannot be changed until it is back`,
      { host, store: backend.name },
      { cause: this.#error },
    )
  }

  /** Runs a request; a store that does not answer means that the connection is to be made anew. */
  async ask<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body()
    } catch (error) {
      if (isCnmError(error, 'ERR_CLUSTER_UNAVAILABLE')) this.lose(error)
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
    if (this.closed || this.connected) return
    clearTimeout(this.#again)
    const first = this.#state === 'new'
    this.#state = 'connecting'
    try {
      await this.#enter()
      this.#pause = FIRST_PAUSE
      this.#error = undefined
    } catch (error) {
      this.#options.leave()
      if (this.closed) return
      this.#error = error
      this.#state = 'lost'
      if (first) this.#options.lost(error)
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
    const { backend, leaseSeconds } = this.#options
    const held = this.#lease !== undefined && (await backend.renewLease(this.#lease))
    if (!held) this.#lease = await backend.grantLease(leaseSeconds)
    const made = await this.#options.enter(held)
    this.#state = 'connected'
    made()
    clearInterval(this.#renewal)
    this.#renewal = setInterval(() => void this.#renew(), (leaseSeconds * 1000) / 3).unref()
    this.#options.connected()
  }

  async #renew(): Promise<void> {
    const lease = this.#lease
    if (!this.connected || lease === undefined) return
    const { backend, host } = this.#options
    try {
      if (await backend.renewLease(lease)) return
      this.#lease = undefined
      this.lose(new CnmError('ERR_CLUSTER_UNAVAILABLE', `${backend.name}: the lease of host ${host} ended`))
    } catch (error) {
      this.lose(error)
    }
  }

  lose(error: unknown): void {
    this.#error = error
    this.#options.leave()
    if (!this.connected) return
    this.#state = 'lost'
    this.#lostAt = performance.now()
    clearInterval(this.#renewal)
    this.#options.lost(error)
    this.#again = setTimeout(() => void this.#connect(), this.#pause * Math.random()).unref()
  }

  /** Lets go. `leave`: what has the lease is withdrawn at once; otherwise when it ends. */
  async close({ leave = false }: { leave?: boolean } = {}): Promise<void> {
    if (this.closed) return
    const { backend } = this.#options
    const lease = this.connected ? this.#lease : undefined
    this.#state = 'closed'
    clearTimeout(this.#again)
    clearInterval(this.#renewal)
    this.#options.leave()
    await this.#connecting
    if (leave && lease !== undefined) await backend.revokeLease(lease).catch(() => {})
    backend.close()
  }
}
