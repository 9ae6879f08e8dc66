import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Orders } from './child'

const CHILD = join(__dirname, 'child.ts')
const LOADER = join(__dirname, '../../support/ts-child.cjs')

/** Another process that has a controller at work; resolves when its container runs. */
export class Daemon {
  private constructor(
    private readonly process: ChildProcess,
    /** Of the container. */
    readonly key: string,
  ) {}

  static async start(orders: Orders): Promise<Daemon> {
    const child = spawn(process.execPath, ['-r', LOADER, CHILD, JSON.stringify(orders)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const lines = createInterface({ input: child.stdout })
    const key = await Promise.race([
      once(lines, 'line').then(([line]) => line as string),
      once(child, 'exit').then(() => Promise.reject(new Error('the child ended before its container ran'))),
    ])
    return new Daemon(child, key)
  }

  async kill(): Promise<void> {
    const gone = once(this.process, 'exit')
    this.process.kill('SIGKILL')
    await gone
  }
}
