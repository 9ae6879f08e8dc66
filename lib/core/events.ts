import type { FirewallProblem } from '../firewall/contract'
import type { Difference } from './difference'

interface NetworkRef {
  id: string
  name: string
  driver: string
}
interface EndpointRef {
  id: string
  name: string
}
interface SandboxRef {
  id: string
  containerId: string
}

/** All that a controller tells. `time` is milliseconds since the epoch. */
export type CnmEvent = { time: number } & (
  | { type: 'network.create' | 'network.update' | 'network.delete'; network: NetworkRef }
  | {
      type: 'endpoint.create' | 'endpoint.update' | 'endpoint.delete'
      network: NetworkRef
      endpoint: EndpointRef
    }
  | {
      type: 'endpoint.join' | 'endpoint.leave'
      network: NetworkRef
      endpoint: EndpointRef
      sandbox: SandboxRef
    }
  | { type: 'sandbox.create' | 'sandbox.update' | 'sandbox.delete'; sandbox: SandboxRef }
  /** The kernel no longer is as it should be; `repair()` mends it. */
  | { type: 'drift'; differences: Difference[] }
  /** The firewall was changed by somebody else, or cannot do what it should. */
  | { type: 'firewall.repaired' | 'firewall.problem'; problems: FirewallProblem[] }
  /** A route of the host (a VPN, say) now covers the subnet of a network. */
  | { type: 'network.shadowed'; network: NetworkRef; subnet: string; route: string }
  /** Something failed in the background; nobody was waiting for it. */
  | { type: 'problem'; message: string; error: unknown }
)

export type CnmEventType = CnmEvent['type']
export type CnmEventOf<T extends CnmEventType | '*'> = T extends '*'
  ? CnmEvent
  : Extract<CnmEvent, { type: T }>
type Listener = (event: CnmEvent) => void
/** An event without its time, distributed over the union. */
export type Untimed = CnmEvent extends infer E ? (E extends CnmEvent ? Omit<E, 'time'> : never) : never

/** Delivery is synchronous and in order; a listener that throws harms nobody but itself. */
export class Events {
  readonly #listeners = new Map<string, Set<Listener>>()

  emit(event: Untimed): void {
    const full = { time: Date.now(), ...event } as CnmEvent
    for (const key of [full.type, '*'])
      for (const listener of this.#listeners.get(key) ?? []) {
        try {
          listener(full)
        } catch {
          // the listener's own affair
        }
      }
  }

  on(type: string, listener: Listener): void {
    const set = this.#listeners.get(type) ?? new Set()
    this.#listeners.set(type, set.add(listener))
  }

  off(type: string, listener: Listener): void {
    this.#listeners.get(type)?.delete(listener)
  }

  clear(): void {
    this.#listeners.clear()
  }

  /** Every event from now on, until the signal aborts. Events that are not read in time are kept (at most `limit`, the oldest go first). */
  async *stream(signal?: AbortSignal, limit = 10_000): AsyncGenerator<CnmEvent, void, void> {
    const waiting: CnmEvent[] = []
    let wake: (() => void) | undefined
    const listener = (event: CnmEvent) => {
      if (waiting.length >= limit) waiting.shift()
      waiting.push(event)
      wake?.()
    }
    const abort = () => wake?.()
    this.on('*', listener)
    signal?.addEventListener('abort', abort)
    try {
      while (!signal?.aborted) {
        const next = waiting.shift()
        if (next) yield next
        else
          await new Promise<void>(resolve => {
            wake = resolve
          })
      }
    } finally {
      this.off('*', listener)
      signal?.removeEventListener('abort', abort)
    }
  }
}
