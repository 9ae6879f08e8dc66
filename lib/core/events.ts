import { CnmError } from '../base/errors'
import { nearest } from '../base/nearest'
import { printable } from '../base/parse'
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
  | {
      type: 'service.create' | 'service.update' | 'service.delete'
      network: NetworkRef
      service: { id: string; name: string }
    }
  | { type: 'sandbox.create' | 'sandbox.update' | 'sandbox.delete'; sandbox: SandboxRef }
  /**
   * An address that is only lent (by a DHCP server) is not ours any more, though the interface still has it: make the endpoint
   * anew. `regained`: it is ours again after all.
   */
  | {
      type: 'address.lost' | 'address.regained'
      network: NetworkRef
      endpoint: EndpointRef
      address: string
      reason: string
    }
  /** The kernel no longer is as it should be; `repair()` mends it. */
  | { type: 'drift'; differences: Difference[] }
  /** The firewall was changed by somebody else, or cannot do what it should. */
  | { type: 'firewall.repaired' | 'firewall.problem'; problems: FirewallProblem[] }
  /** A route of the host (a VPN, say) now takes packets for the subnet of a network: it is more specific, or its table comes first. */
  | { type: 'network.shadowed'; network: NetworkRef; subnet: string; route: string }
  /** The cluster's store is (again) there, or not: networks that span hosts cannot be changed meanwhile. */
  | { type: 'cluster.connected'; host: string; store: string }
  | { type: 'cluster.lost'; host: string; store: string; error: unknown }
  /** A host of the cluster appeared, or its lease ended. */
  | { type: 'host.join' | 'host.leave'; host: { name: string; address: string } }
  /** A record in the cluster's store that is none, and is ignored. */
  | { type: 'cluster.garbage'; key: string; reason: string }
  /** Something failed in the background; nobody was waiting for it. */
  | { type: 'problem'; message: string; error: unknown }
)

export type CnmEventType = CnmEvent['type']
/** Every type once: the compiler refuses a list that lacks one. */
const TYPES: Record<CnmEventType | '*', true> = {
  '*': true,
  'network.create': true,
  'network.update': true,
  'network.delete': true,
  'endpoint.create': true,
  'endpoint.update': true,
  'endpoint.delete': true,
  'endpoint.join': true,
  'endpoint.leave': true,
  'service.create': true,
  'service.update': true,
  'service.delete': true,
  'sandbox.create': true,
  'sandbox.update': true,
  'sandbox.delete': true,
  'address.lost': true,
  'address.regained': true,
  drift: true,
  'firewall.repaired': true,
  'firewall.problem': true,
  'network.shadowed': true,
  'cluster.connected': true,
  'cluster.lost': true,
  'host.join': true,
  'host.leave': true,
  'cluster.garbage': true,
  problem: true,
}
/** The event of one type; several types may share a shape. */
export type CnmEventOf<T extends CnmEventType | '*'> = T extends '*' ? CnmEvent : OfType<CnmEvent, T>
type OfType<E, T> = E extends { type: infer U } ? (T extends U ? E & { type: T } : never) : never
type Listener = (event: CnmEvent) => void
/** Listeners of one type: what was handed in → what is called. */
type Listeners = Map<Listener, Listener>
/** An event without its time, distributed over the union. */
export type Untimed = CnmEvent extends infer E ? (E extends CnmEvent ? Omit<E, 'time'> : never) : never

/** A misspelt type would be waited for in vain: ERR_INVALID_OPTION. */
function checkListener(type: string, listener: unknown): void {
  if (!Object.hasOwn(TYPES, type)) {
    const known = Object.keys(TYPES)
    const near = nearest(String(type), known)
    throw new CnmError(
      'ERR_INVALID_OPTION',
      `event type: ${printable(String(type))} is none${near ? `; did you mean ${near}?` : `; known: ${known.join(', ')}`}`,
      { type, known },
    )
  }
  if (typeof listener !== 'function')
    throw new CnmError(
      'ERR_INVALID_OPTION',
      `listener of ${type}: must be a function (got ${typeof listener})`,
      {
        type,
      },
    )
}

/** Delivery is synchronous and in order; a listener that throws harms nobody but itself. */
export class Events {
  readonly #listeners = new Map<string, Listeners>()
  readonly #streams = new Set<() => void>()

  emit(event: Untimed): void {
    const full = { time: Date.now(), ...event } as CnmEvent
    for (const key of [full.type, '*'])
      for (const listener of [...(this.#listeners.get(key)?.values() ?? [])]) {
        try {
          listener(full)
        } catch {
          // the listener's own affair
        }
      }
  }

  on(type: string, listener: Listener): void {
    checkListener(type, listener)
    this.#add(type, listener, listener)
  }

  /** `off` with the same listener takes it back. */
  once(type: string, listener: Listener): void {
    checkListener(type, listener)
    this.#add(type, listener, event => {
      this.off(type, listener)
      listener(event)
    })
  }

  #add(type: string, listener: Listener, called: Listener): void {
    const listeners = this.#listeners.get(type) ?? new Map()
    this.#listeners.set(type, listeners.set(listener, called))
  }

  off(type: string, listener: Listener): void {
    checkListener(type, listener)
    this.#listeners.get(type)?.delete(listener)
  }

  /** Nobody is told anything any more; streams end. */
  clear(): void {
    this.#listeners.clear()
    for (const end of [...this.#streams]) end()
  }

  /**
   * Every event from this call on, until the signal aborts or the controller closes. Events that are not read in time
   * are kept (at most `limit`, the oldest go first).
   */
  stream(signal?: AbortSignal, limit = 10_000): AsyncGenerator<CnmEvent, void, void> {
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new CnmError('ERR_INVALID_OPTION', 'signal: must be an AbortSignal, or absent', {
        field: 'signal',
      })
    const waiting: CnmEvent[] = []
    let wake = (): void => {}
    let ended = false
    const listener = (event: CnmEvent) => {
      if (waiting.length >= limit) waiting.shift()
      waiting.push(event)
      wake()
    }
    const end = () => {
      ended = true
      this.off('*', listener)
      this.#streams.delete(end)
      signal?.removeEventListener('abort', end)
      wake()
    }
    this.on('*', listener)
    this.#streams.add(end)
    if (signal?.aborted) end()
    else signal?.addEventListener('abort', end)
    return drain()

    async function* drain(): AsyncGenerator<CnmEvent, void, void> {
      try {
        for (;;) {
          const next = waiting.shift()
          if (next) yield next
          else if (ended) return
          else
            await new Promise<void>(resolve => {
              wake = resolve
            })
        }
      } finally {
        end()
      }
    }
  }
}
