import type { Foreign } from './wire/foreign'

interface Entry {
  foreign: Foreign
  /** Milliseconds of the clock given. */
  since: number
  until: number
}

/** Answers of upstreams for as long as their TTL allows (RFC 2308 for negative ones). Bounded in entries and bytes. */
export class AnswerCache {
  readonly #entries = new Map<string, Entry>()
  #bytes = 0

  constructor(
    readonly limits = { entries: 1000, bytes: 1 << 20 },
    readonly now: () => number = () => performance.now(),
  ) {}

  get(key: string): { foreign: Foreign /** Seconds. */; age: number } | undefined {
    const entry = this.#entries.get(key)
    if (!entry) return undefined
    const now = this.now()
    if (now >= entry.until) {
      this.#remove(key, entry)
      return undefined
    }
    return { foreign: entry.foreign, age: Math.floor((now - entry.since) / 1000) }
  }

  set(key: string, foreign: Foreign): void {
    const present = this.#entries.get(key)
    if (present) this.#remove(key, present)
    if (!foreign.keep || foreign.bytes.length > this.limits.bytes / 16) return
    const since = this.now()
    this.#entries.set(key, { foreign, since, until: since + foreign.keep * 1000 })
    this.#bytes += foreign.bytes.length
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size <= this.limits.entries && this.#bytes <= this.limits.bytes) break
      this.#remove(oldest, entry)
    }
  }

  clear(): void {
    this.#entries.clear()
    this.#bytes = 0
  }

  get size(): number {
    return this.#entries.size
  }

  #remove(key: string, entry: Entry): void {
    this.#entries.delete(key)
    this.#bytes -= entry.foreign.bytes.length
  }
}
