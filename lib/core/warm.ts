import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { randomHex } from '../base/ids'
import type { Kernel, Stack } from '../kernel/kernel'

/**
 * A few namespaces made ahead of time, so that createSandbox need not wait for `unshare`. They are bound in a directory
 * of their own; taking one binds it to its real path and unbinds the other.
 */
export class Warm {
  readonly #kernel: Kernel
  readonly #directory: string
  readonly #target: number
  readonly #ready: Stack[] = []
  #filling: Promise<void> | undefined
  #closed = false

  constructor(kernel: Kernel, directory: string, target: number) {
    this.#kernel = kernel
    this.#directory = directory
    this.#target = target
  }

  get ready(): number {
    return this.#ready.length
  }

  /** Sweeps what an earlier process left, then fills up. */
  async start(): Promise<void> {
    for (const path of await this.#kernel.list(this.#directory)) await this.#kernel.remove(path)
    await this.fill()
  }

  /** Brings the namespaces to the target; callers share one filling. */
  fill(): Promise<void> {
    this.#filling ??= (async () => {
      try {
        while (!this.#closed && this.#ready.length < this.#target)
          this.#ready.push(await this.#kernel.create(join(this.#directory, randomHex(12))))
      } finally {
        this.#filling = undefined
      }
    })()
    return this.#filling
  }

  /** A namespace bound to `path`: a warm one if there is one, else a new one. */
  async take(path: string): Promise<Stack> {
    const warm = this.#ready.pop()
    if (!warm?.path) return this.#kernel.create(path)
    try {
      return await this.#kernel.bind(warm.path, path)
    } finally {
      const old = warm.path
      warm.close()
      await this.#kernel.remove(old)
      if (!this.#closed) setTimeout(() => void this.fill().catch(() => {}), 5).unref()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#filling?.catch(() => {})
    for (const stack of this.#ready.splice(0)) {
      const { path } = stack
      stack.close()
      if (path) await this.#kernel.remove(path)
    }
    if (this.#target > 0) rmSync(this.#directory, { recursive: true, force: true })
  }
}
