/** Mutual exclusion by key across `await`: callers of one key run one after the other, in the order they came. */
export class Locks {
  readonly #tails = new Map<string, Promise<void>>()

  async run<T>(key: string, body: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key)
    let release!: () => void
    const mine = new Promise<void>(resolve => {
      release = resolve
    })
    const tail = before ? before.then(() => mine) : mine
    this.#tails.set(key, tail)
    if (before) await before
    try {
      return await body()
    } finally {
      release()
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    }
  }

  /** Takes several keys in a fixed (sorted) order, so that two callers can never wait for one another. */
  runAll<T>(keys: string[], body: () => Promise<T>): Promise<T> {
    const sorted = [...new Set(keys)].sort()
    const from = (at: number): Promise<T> =>
      at < sorted.length ? this.run(sorted[at] as string, () => from(at + 1)) : body()
    return from(0)
  }

  /** Resolves when nobody holds or awaits a lock. */
  async idle(): Promise<void> {
    while (this.#tails.size) await Promise.all(this.#tails.values())
  }

  get size(): number {
    return this.#tails.size
  }
}
