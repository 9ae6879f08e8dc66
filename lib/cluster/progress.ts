/** How far the mirror has come: who wrote waits until it has what was written. */

/** Milliseconds: the watch may be slow, and the write is done all the same. */
const LONGEST = 2_000

export class Progress {
  #seen = 0
  #waiting: { revision: number; resolve(): void }[] = []

  /** The mirror has this revision. */
  reach(revision: number): void {
    this.#seen = Math.max(this.#seen, revision)
    this.#waiting = this.#waiting.filter(({ revision: wanted, resolve }) => {
      if (wanted > this.#seen) return true
      resolve()
      return false
    })
  }

  /** Until it has, or {@link LONGEST}, or it will not soon. */
  async until(revision: number): Promise<void> {
    if (this.#seen >= revision) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>(resolve => {
      this.#waiting.push({ revision, resolve })
      timer = setTimeout(resolve, LONGEST).unref()
    })
    clearTimeout(timer)
  }

  /** It comes no further for now. */
  stop(): void {
    for (const { resolve } of this.#waiting.splice(0)) resolve()
  }
}
