import { setImmediate as nextTurn } from 'node:timers/promises'

/** Milliseconds. What takes longer says that others hold the kernel's lock for links: a wake-up more is nothing then. */
const LONG = 4
/** Milliseconds of one turn of the event loop that may be spent in the kernel: enough for all journeys of one join. */
const PER_TURN = 3

/**
 * Who makes a journey to the kernel: the calling thread, or a worker. Handing it to a worker and hearing back wakes two
 * threads, 0.1 to 0.4 ms, as much as the kernel needs for a namespace or for a pair of links. But whoever else holds the
 * kernel's lock for links (deleting some takes tens of milliseconds) would hold up the event loop. So what is short is
 * done here, while nothing of ours is under way; once it was long, workers go until one was back quickly.
 */
export class Pace {
  /** Journeys of workers. */
  #away = 0
  #slow = false
  /** Milliseconds of the present turn. */
  #spent = 0
  #queue: Promise<void> = Promise.resolve()

  /** `now`: milliseconds. */
  constructor(private readonly now: () => number = () => performance.now()) {}

  /** `here` is known to be short, as a rule; `away` does the same elsewhere. */
  async make<T>(here: () => T, away: () => Promise<T>): Promise<T> {
    if (this.#spent > PER_TURN) await this.#room()
    return this.#away > 0 || this.#slow ? this.away(away) : this.#clocked(here)
  }

  /** In order, so that of many who wait one goes with each turn. */
  #room(): Promise<void> {
    this.#queue = this.#queue.then(() => (this.#spent > PER_TURN ? nextTurn() : undefined))
    return this.#queue
  }

  async away<T>(journey: () => Promise<T>): Promise<T> {
    this.#away++
    const start = this.now()
    try {
      return await journey()
    } finally {
      this.#away--
      if (this.#slow && this.now() - start < LONG) this.#slow = false
    }
  }

  #clocked<T>(body: () => T): T {
    const start = this.now()
    try {
      return body()
    } finally {
      const took = this.now() - start
      if (took > LONG) this.#slow = true
      if (this.#spent === 0) setImmediate(() => (this.#spent = 0)).unref()
      this.#spent += took
    }
  }
}

/** All journeys of a process are at one pace: it has one event loop to hold up. */
export const pace = new Pace()
