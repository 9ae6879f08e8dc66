import type { Kernel, Stack } from '../kernel/kernel'

/** Milliseconds after one was taken: whoever took it is at work with it now. */
const REFILL_AFTER = 5

/**
 * A few namespaces made ahead of time, so that createSandbox need not wait for `unshare`. They are bound nowhere, so none
 * outlives the process; taking one binds it to its path.
 */
export class Warm {
  readonly #kernel: Kernel
  readonly #target: number
  readonly #ready: Stack[] = []
  #filling: Promise<void> | undefined
  #closed = false

  constructor(kernel: Kernel, target: number) {
    this.#kernel = kernel
    this.#target = target
  }

  get ready(): number {
    return this.#ready.length
  }

  /** Brings the namespaces to the target; callers share one filling. */
  fill(): Promise<void> {
    this.#filling ??= (async () => {
      try {
        while (!this.#closed && this.#ready.length < this.#target)
          this.#ready.push(await this.#kernel.create())
      } finally {
        this.#filling = undefined
      }
    })()
    return this.#filling
  }

  /** A namespace bound to `path`: a warm one if there is one, else a new one. */
  async take(path: string): Promise<Stack> {
    const warm = this.#ready.pop()
    if (!warm) return this.#kernel.create(path)
    setTimeout(() => void this.fill().catch(() => {}), REFILL_AFTER).unref()
    try {
      return await this.#kernel.bind(warm, path)
    } catch (error) {
      warm.close()
      throw error
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#filling?.catch(() => {})
    for (const stack of this.#ready.splice(0)) stack.close()
  }
}
