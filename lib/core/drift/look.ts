import type { Sandbox } from '../../sandbox'
import { check, checkSandboxes } from '../check'
import type { Context } from '../context'
import type { World } from '../world'

/** Milliseconds. Several events mostly come together. */
const PAUSE = 50
/** After a look, so many times as long as it took, but not for longer than this: events without end must not keep us busy. */
const REST = 9
const LONGEST_REST = 5_000

/** Compares the system with the desired state a moment after there was a reason to, and tells what differs. One look at a time. */
export class Look {
  readonly #context: Context
  readonly #world: World
  readonly #suspects = new Set<Sandbox>()
  #all = false
  #running = false
  #timer: NodeJS.Timeout | undefined
  /** By performance.now(). */
  #notBefore = 0
  #closed = false

  constructor(context: Context, world: World) {
    this.#context = context
    this.#world = world
  }

  atAll(): void {
    this.#all = true
    this.#arm()
  }

  at(sandbox: Sandbox): void {
    this.#suspects.add(sandbox)
    this.#arm()
  }

  /** Is a look at it to come already? */
  isComing(sandbox: Sandbox): boolean {
    return this.#all || this.#suspects.has(sandbox)
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #arm(): void {
    if (this.#running || this.#closed) return
    this.#timer ??= setTimeout(
      () => {
        this.#timer = undefined
        void this.#take()
      },
      Math.max(PAUSE, this.#notBefore - performance.now()),
    ).unref()
  }

  async #take(): Promise<void> {
    const [all, suspects] = [this.#all, [...this.#suspects]]
    this.#all = false
    this.#suspects.clear()
    this.#running = true
    const start = performance.now()
    try {
      const found = await (all
        ? check(this.#context, this.#world)
        : checkSandboxes(this.#context, this.#world, suspects))
      const differences = found.filter(({ kind }) => kind !== 'firewall')
      if (differences.length && !this.#closed) this.#context.events.emit({ type: 'drift', differences })
    } catch (error) {
      if (!this.#closed)
        this.#context.events.emit({
          type: 'problem',
          message: 'cannot compare the kernel with the desired state',
          error,
        })
    } finally {
      const end = performance.now()
      this.#notBefore = end + Math.min(LONGEST_REST, REST * (end - start))
      this.#running = false
      if (this.#all || this.#suspects.size > 0) this.#arm()
    }
  }
}
