/**
 * What a host publishes as long as it lives. Of each record one write is under way at a time, and the next says what is so by
 * then: two that were sent at once might arrive in another order, and the older one would stay.
 */
import type { Condition } from './contract'
import type { ClusterKind } from './records'

interface Item {
  kind: ClusterKind
  id: string
  text: string
}

export interface PublishedStore {
  connected(): boolean
  /** With the host's lease; `text` undefined: removed. False: a condition did not hold. */
  put(key: string, text: string | undefined, conditions?: Condition[]): Promise<boolean>
}

/** Milliseconds until a write that was refused is tried again. */
const RETRY = 1_000

export class Published {
  readonly #store: PublishedStore
  readonly #wanted = new Map<string, Item>()
  /** The last write of a key that is under way, or waits for its turn. */
  readonly #busy = new Map<string, Promise<unknown>>()

  constructor(store: PublishedStore) {
    this.#store = store
  }

  has(key: string): boolean {
    return this.#wanted.has(key)
  }

  /** Key → text of all that should be there. */
  texts(): Map<string, string> {
    return new Map([...this.#wanted].map(([key, { text }]) => [key, text]))
  }

  /** Throws when it cannot be written, and resolves to false when a condition does not hold: then all is as before. */
  publish(key: string, item: Item, conditions: Condition[]): Promise<boolean> {
    return this.#inTurn(key, async () => {
      const before = this.#wanted.get(key)
      this.#wanted.set(key, item)
      let done = false
      try {
        done = await this.#store.put(key, item.text, conditions)
      } finally {
        if (!done && this.#wanted.get(key) === item) {
          if (before) this.#wanted.set(key, before)
          else this.#wanted.delete(key)
        }
      }
      return done
    })
  }

  /** What is so, whatever the store says: written now, or as soon as it can be. */
  republish(key: string, item: Item): void {
    if (this.#wanted.get(key)?.text === item.text) return
    this.#wanted.set(key, item)
    void this.#follow(key)
  }

  async withdraw(key: string): Promise<void> {
    if (this.#wanted.delete(key)) await this.#follow(key)
  }

  /** The connection is new, and `sent` is what was written while it was made: what has changed since then follows. */
  resume(sent: Map<string, string>): void {
    const keys = new Set([...sent.keys(), ...this.#wanted.keys()])
    for (const key of keys)
      if (this.#busy.has(key) || this.#wanted.get(key)?.text !== sent.get(key)) void this.#follow(key)
  }

  /** The store gets what is wanted by the time of the write. Never throws. */
  #follow(key: string): Promise<void> {
    return this.#inTurn(key, async () => {
      if (!this.#store.connected()) return // with the next connection
      try {
        await this.#store.put(key, this.#wanted.get(key)?.text)
      } catch {
        // Without the connection: with the next one. Else it was refused, as by a store that is full.
        setTimeout(() => void this.#follow(key), RETRY).unref()
      }
    })
  }

  #inTurn<T>(key: string, act: () => Promise<T>): Promise<T> {
    const turn = (this.#busy.get(key) ?? Promise.resolve()).then(act)
    const settled = turn
      .catch(() => {})
      .finally(() => {
        if (this.#busy.get(key) === settled) this.#busy.delete(key)
      })
    this.#busy.set(key, settled)
    return turn
  }
}
