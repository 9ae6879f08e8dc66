import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Line, Orders, WorldState } from './protocol'

const HOOK = resolve(__dirname, '../../support/ts-child.cjs')

/** A child process at work, and what it has said. */
export class Victim {
  readonly #child: ChildProcess
  readonly #gone: Promise<unknown>
  readonly #waiting: { at: Line['at']; resolve: () => void }[] = []
  readonly #seen = new Set<Line['at']>()
  /** The last state in which nothing was under way. */
  acknowledged: WorldState | undefined
  /** What operations that began after it may have changed. */
  readonly touched = new Set<string>()
  readonly unexpected: Extract<Line, { at: 'unexpected' }>[] = []
  operations = 0
  #enough: { operations: number; resolve: () => void } | undefined
  /** The operations of the last moments, for the report of a failure. */
  readonly history: string[] = []

  constructor(orders: Orders) {
    this.#child = spawn(process.execPath, ['-r', HOOK, join(__dirname, 'child.ts'), JSON.stringify(orders)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#gone = once(this.#child, 'close')
    createInterface({ input: this.#child.stdout! }).on('line', line => {
      // the last line may be torn: it is cut off with the child
      try {
        this.#hear(JSON.parse(line) as Line)
      } catch {
        this.history.push(`torn: ${line}`)
      }
    })
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Resolves when it has said so, or when it is gone. */
  async until(at: Line['at']): Promise<void> {
    if (this.#seen.has(at)) return
    await Promise.race([new Promise<void>(resolve => this.#waiting.push({ at, resolve })), this.#gone])
  }

  /** Resolves to true when it has ended so many operations; to false when it does not get there. */
  async work(operations: number, timeout = 60_000): Promise<boolean> {
    if (operations <= this.operations) return true
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, timeout)
    })
    const enough = new Promise<void>(resolve => {
      this.#enough = { operations, resolve }
    })
    await Promise.race([enough, this.#gone, late])
    clearTimeout(timer)
    return operations <= this.operations
  }

  go(): void {
    this.#child.stdin!.write('go\n')
  }

  /** SIGKILL: no handler runs, nothing is tidied up. Resolves when it is gone and all that it said has been heard. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#gone
  }

  #hear(line: Line): void {
    this.#seen.add(line.at)
    for (const waiting of this.#waiting.filter(({ at }) => at === line.at)) waiting.resolve()
    if (line.at === 'quiet') {
      this.acknowledged = line.state
      this.touched.clear()
    } else if (line.at === 'begin') for (const name of line.touches) this.touched.add(name)
    else if (line.at === 'end') {
      this.operations++
      if (this.#enough && this.operations >= this.#enough.operations) this.#enough.resolve()
    } else if (line.at === 'unexpected') this.unexpected.push(line)
    if (line.at !== 'quiet') this.history.push(JSON.stringify(line))
    if (this.history.length > 40) this.history.shift()
  }
}
