/**
 * The table that keeps packets from elsewhere out of the tunnels, and plain ones off encrypted networks. Of all networks that
 * span hosts, since what a container here writes may be meant for a network of other hosts.
 */
import type { Spanning as SpanningDriver } from '../driver/contract'
import type { KernelEvent, Watch } from '../kernel/kernel'
import type { Network } from '../network'
import { normalized } from '../services/rules'
import type { Context } from './context'
import { tellProblem } from './problem'

export interface TunnelView {
  networks(): Network[]
  /** Where the tunnels of all hosts end. */
  ends(): string[]
  isEncrypted(network: Network): boolean
  /** Has this host a part of it? */
  isHere(network: Network): boolean
}

/** Milliseconds between somebody's change and a look at the table; twice as long each time if it goes on, up to the longest. */
const PAUSE = 20
const LONGEST_PAUSE = 2_000
/** Milliseconds without a repair, after which the pause is short again. */
const CALM = 5_000

export class TunnelGuard {
  readonly #context: Context
  readonly #view: TunnelView
  readonly #table: string
  /** The table may be there. */
  #set = false
  /** As the kernel lists it; undefined: it should not be there. */
  #listing: string | undefined
  #watch: Watch | undefined
  #timer: NodeJS.Timeout | undefined
  #pause = PAUSE
  #repaired = 0

  constructor(context: Context, view: TunnelView) {
    this.#context = context
    this.#view = view
    this.#table = `${context.name}-tunnels`
  }

  /** Any network here that is nothing without it? */
  get isNeeded(): boolean {
    const { networks, isEncrypted, isHere } = this.#view
    return networks().some(network => isHere(network) && isEncrypted(network))
  }

  /**
   * Brings the table to what it should be. Not before the hosts are known, nor without nftables; except for encrypted networks,
   * which are nothing without it. `strictly`: throws when it cannot be.
   */
  follow({ strictly = false } = {}): void {
    const { host, firewall, log } = this.#context
    const ends = this.#view.ends()
    const all = firewall.backend === 'nftables'
    if (ends.length === 0 || (!all && !this.isNeeded && !this.#set)) return
    this.#set = all || this.isNeeded
    for (const [driver, networks] of this.#guarded(all))
      try {
        const text = driver.guard?.(
          this.#table,
          networks.map(({ forDriver }) => forDriver),
          ends,
        )
        if (!text) continue
        host.nft(text)
        this.#listing = networks.length ? this.#list() : undefined
        if (networks.length) this.#hear()
      } catch (error) {
        if (strictly) throw error
        log.warn(`the tunnels cannot be guarded against packets from elsewhere: ${(error as Error).message}`)
      }
  }

  #guarded(all: boolean): Map<SpanningDriver, Network[]> {
    const drivers = new Map<SpanningDriver, Network[]>()
    for (const driver of this.#context.drivers.values()) if (driver.spanning) drivers.set(driver.spanning, [])
    for (const network of this.#view.networks()) {
      const { spanning } = network
      if (spanning && (all || this.#view.isEncrypted(network))) drivers.get(spanning)?.push(network)
    }
    return drivers
  }

  /** Is the table as it was made? */
  get isIntact(): boolean {
    return this.#listing === undefined || this.#list() === this.#listing
  }

  /** A model of the kernel keeps rules as text, and lists none. */
  #list(): string | undefined {
    if (this.#context.kernel.simulated) return undefined
    try {
      return normalized(this.#context.host.nft(`list table inet ${this.#table}`))
    } catch {
      return undefined
    }
  }

  /* ------------------------------------------------------------------ changes of others */

  #hear(): void {
    if (this.#watch || this.#context.kernel.simulated) return
    this.#watch = this.#context.host.watch(['nft'], event => this.#heard(event))
  }

  /** Changes of ours come here, too: then there is nothing to do. */
  #heard(event: KernelEvent): void {
    const concerns = event.topic === 'overrun' || (event.topic === 'nft' && event.table === this.#table)
    if (!concerns || this.#timer) return
    if (performance.now() - this.#repaired > CALM) this.#pause = PAUSE
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.look()
    }, this.#pause).unref()
  }

  /** Puts it right if somebody has changed it, and tells so. */
  look(): void {
    if (this.#context.closing || this.isIntact) return
    try {
      this.follow({ strictly: true })
    } catch (error) {
      tellProblem(this.#context, 'the tunnels cannot be guarded against packets from elsewhere', error)
      return
    }
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE)
    this.#repaired = performance.now()
    const message = `table ${this.#table}, which guards the tunnels, was changed or deleted`
    this.#context.log.warn(`${message} by somebody else, and was made anew`)
    this.#context.events.emit({
      type: 'firewall.repaired',
      problems: [
        { kind: 'missing', message, remedy: 'none: it was made anew', details: { table: this.#table } },
      ],
    })
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#watch?.close()
  }
}
