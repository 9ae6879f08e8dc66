import { isCnmError } from '../base/errors'
import type { Stack } from '../kernel/kernel'

/** Links in one batch: many go for the price of one, but others wait for the kernel's lock meanwhile. */
const GROUP = 24

interface Doomed {
  stack: Stack
  link: string
  due: number
  attempts: number
}

/** A link that could not be deleted so often is reported, and left to `check` and `repair`. */
const ATTEMPTS = 4

/**
 * Deletes links in the background. Deleting a veth costs its caller some 36 ms (the kernel waits for an RCU grace
 * period); whoever drops the namespace gets it for nothing. So links are taken out of use at once, and reaped a little
 * later, in bulk, if they are still there.
 */
export class Reaper {
  readonly #doomed = new Map<string, Doomed>()
  readonly #onProblem: (message: string, error: unknown) => void
  #timer: NodeJS.Timeout | undefined
  #work: Promise<void> = Promise.resolve()

  constructor(onProblem: (message: string, error: unknown) => void) {
    this.#onProblem = onProblem
  }

  /** `delay` in milliseconds. Naming a link again moves its time. */
  doom(stack: Stack, link: string, delay = 20): void {
    this.#doomed.set(`${stack.inode}/${link}`, { stack, link, due: Date.now() + delay, attempts: 0 })
    this.#arm()
  }

  /** Somebody else saw it go (its namespace was dropped): nothing is left to do. */
  gone(stack: Stack, link: string): void {
    this.#doomed.delete(`${stack.inode}/${link}`)
  }

  isDoomed(stack: Stack, link: string): boolean {
    return this.#doomed.has(`${stack.inode}/${link}`)
  }

  get size(): number {
    return this.#doomed.size
  }

  /** Links of a stack that is being closed need no reaping any more. */
  forget(stack: Stack): void {
    for (const [key, doomed] of this.#doomed) if (doomed.stack === stack) this.#doomed.delete(key)
  }

  /** Everything that is doomed goes now; resolves when it is gone. */
  async settle(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    do await this.#reap(Number.POSITIVE_INFINITY)
    while (this.#doomed.size > 0)
  }

  #arm(): void {
    if (this.#timer || this.#doomed.size === 0) return
    const first = Math.min(...[...this.#doomed.values()].slice(0, 64).map(({ due }) => due))
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined
        void this.#reap(Date.now()).then(() => this.#arm())
      },
      Math.max(1, first - Date.now()),
    ).unref()
  }

  #reap(until: number): Promise<void> {
    const turn = this.#work.then(async () => {
      const due = [...this.#doomed].filter(([, doomed]) => doomed.due <= until)
      const byStack = new Map<Stack, [string, Doomed][]>()
      for (const entry of due) byStack.set(entry[1].stack, [...(byStack.get(entry[1].stack) ?? []), entry])
      for (const [stack, entries] of byStack)
        for (let at = 0; at < entries.length; at += GROUP)
          await this.#remove(stack, entries.slice(at, at + GROUP))
    })
    this.#work = turn
    return turn
  }

  async #remove(stack: Stack, entries: [string, Doomed][]): Promise<void> {
    let failure: unknown
    try {
      await stack.apply(entries.map(([, { link }]) => ({ op: 'removeLink', link, ifExists: true })))
    } catch (error) {
      if (!isCnmError(error, 'ERR_CLOSED', 'ERR_LINK_NOT_FOUND')) failure = error
    }
    for (const [key, doomed] of entries) {
      if (this.#doomed.get(key) !== doomed) continue
      doomed.attempts += 1
      doomed.due = Date.now() + 50 * doomed.attempts
      if (failure && doomed.attempts < ATTEMPTS) continue
      this.#doomed.delete(key)
      if (failure) this.#onProblem(`cannot remove ${doomed.link}`, failure)
    }
  }
}
