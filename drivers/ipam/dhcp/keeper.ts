/** Keeps one address: renews its lease in time, and tells when it is lost and when it is ours again. */
import { addressOf } from '../../../lib/base/cidr'
import type { DhcpClient, Interface } from './client'
import { type Act, type Lease, nextAct } from './lease'

export interface KeeperListener {
  renewed(lease: Lease, reason?: string): void
  lost(lease: Lease, reason: string): void
}

/** Milliseconds. Of one attempt to have a lease prolonged, and to get a lost address again. */
const ATTEMPT = 8_000
/** Milliseconds between attempts to get a lost address again: doubled each time, up to the second one. */
const AGAIN = [10_000, 300_000] as const
/** setTimeout takes no more. */
const LONGEST = 2 ** 31 - 1

export class Keeper {
  #lease: Lease
  readonly #on: Interface
  readonly #client: DhcpClient
  readonly #listener: KeeperListener
  #timer: NodeJS.Timeout | undefined
  #stopped = false
  #lost = false

  constructor(lease: Lease, on: Interface, client: DhcpClient, listener: KeeperListener) {
    this.#lease = lease
    this.#on = on
    this.#client = client
    this.#listener = listener
  }

  get lease(): Lease {
    return this.#lease
  }
  get on(): Interface {
    return this.#on
  }

  /** A lease that was just had. */
  start(): this {
    this.#schedule()
    return this
  }

  /** One of an earlier run: whoever lends addresses here is asked whether it still holds. */
  resume(): this {
    const { expiry } = this.#lease
    if (expiry !== null && expiry <= Date.now())
      this.#after(0, () => this.#expire('its time was up before this start'))
    else this.#after(0, () => this.#prolong('rebind'))
    return this
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  #schedule(tried?: number): void {
    const next = nextAct(this.#lease, Date.now(), tried)
    if (!next) return
    const { act, at } = next
    this.#after(at - Date.now(), async () => {
      if (at > Date.now())
        this.#schedule(tried) // further off than a timer reaches
      else if (act === 'expire') await this.#expire('no server renewed it in time')
      else await this.#prolong(act)
    })
  }

  async #prolong(act: Exclude<Act, 'expire'>): Promise<void> {
    const tried = Date.now()
    const left = (this.#lease.expiry ?? Number.POSITIVE_INFINITY) - tried
    const kind = act === 'renew' ? 'renew' : 'confirm'
    try {
      const lease = await this.#client.prolong(
        this.#on,
        this.#lease,
        kind,
        Math.max(1, Math.min(ATTEMPT, left)),
      )
      if (this.#stopped) return
      if (!lease) return await this.#expire('a server refused to renew it')
      this.#have(lease)
    } catch {
      this.#schedule(tried) // nobody answers: there is time yet
    }
  }

  #have(lease: Lease, reason?: string): void {
    // The interface bears it as it is: a server that has another mask by now is told of at the next join.
    this.#lease = { ...lease, address: this.#lease.address }
    this.#lost = false
    this.#listener.renewed(this.#lease, reason)
    this.#schedule()
  }

  /** Whoever has the address in its kernel cannot do with another one: so this one, or none. */
  async #expire(reason: string, pause: number = AGAIN[0]): Promise<void> {
    const wanted = addressOf(this.#lease.address)
    try {
      // It is not asked whether somebody has it: we have.
      const options = { timeout: ATTEMPT, probe: false }
      const lease = await this.#client.acquire(this.#on, { wanted, only: true }, options)
      if (!this.#stopped) this.#have(lease, this.#lost ? 'it was lost meanwhile' : undefined)
    } catch (error) {
      if (this.#stopped) return
      if (!this.#lost) this.#listener.lost(this.#lease, `${reason}; ${(error as Error).message}`)
      this.#lost = true
      this.#after(pause, () => this.#expire(reason, Math.min(pause * 2, AGAIN[1])))
    }
  }

  /** Does not keep the process alive. */
  #after(delay: number, act: () => Promise<void>): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => void act(), Math.max(0, Math.min(delay, LONGEST)))
    this.#timer.unref()
  }
}
