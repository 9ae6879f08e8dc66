import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Stack } from '../../../lib/kernel/kernel'
import { LinuxKernel } from '../../../lib/kernel/linux'

const exec = promisify(execFile)

/**
 * Who is measured has one core to itself, all its threads, and who asks the other: so that servers are compared by what they
 * serve, and not by what is left of the machine. With a single core they share it.
 */
export const SERVER_CORE = '0'
export const LOAD_CORE = availableParallelism() > 1 ? '1' : '0'

/** Inode number of a process's network namespace. */
function netnsOf(pid: number): number | undefined {
  try {
    return statSync(`/proc/${pid}/ns/net`).ino
  } catch {
    return undefined
  }
}

export const installed = (program: string): Promise<boolean> =>
  exec('sh', ['-c', `command -v ${program}`]).then(
    () => true,
    () => false,
  )

/** One namespace in which all servers of the comparison listen, each on its own address. */
export class Place {
  readonly #children = new Set<ChildProcess>()

  private constructor(
    readonly directory: string,
    readonly path: string,
    readonly stack: Stack,
    readonly kernel: LinuxKernel,
  ) {}

  static async open(): Promise<Place> {
    const directory = await mkdtemp(join(tmpdir(), 'cnm-bench-dns-'))
    const path = join(directory, 'netns')
    const kernel = new LinuxKernel()
    const stack = await kernel.create(path)
    for (const address of ['10.88.0.1', '10.88.0.2', '10.88.0.200', '10.88.0.201'])
      await stack.apply([{ op: 'addAddress', link: 'lo', address: `${address}/24` }])
    await exec('taskset', ['-acp', SERVER_CORE, String(process.pid)]) // our resolver runs in this process
    return new Place(directory, path, stack, kernel)
  }

  /** `core`: where it runs. */
  start(core: string, command: string, ...args: string[]): ChildProcess {
    const child = spawn('taskset', ['-c', core, 'nsenter', `--net=${this.path}`, command, ...args], {
      stdio: 'ignore',
      detached: true,
    })
    this.#children.add(child)
    return child
  }

  /** With whatever it started itself: some servers turn their back on their parent. */
  async stop(child: ChildProcess): Promise<void> {
    this.#children.delete(child)
    const ended = child.exitCode !== null || child.signalCode !== null
    for (const pid of this.#family(child)) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
      }
    }
    if (!ended) await once(child, 'exit')
  }

  /** The program, and those in this namespace that are not of another one that we started. */
  #family({ pid }: ChildProcess): number[] {
    const others = new Set([...this.#children].map(child => child.pid).filter(other => other !== pid))
    return readdirSync('/proc')
      .filter(entry => /^\d+$/.test(entry))
      .map(Number)
      .filter(each => !others.has(each) && each !== process.pid)
      .filter(each => each === pid || netnsOf(each) === this.stack.inode)
  }

  /** Microseconds of processor time of a program and whatever it started. */
  cpu(child: ChildProcess): number {
    let ticks = 0
    for (const pid of this.#family(child)) {
      try {
        // proc(5): behind the name in brackets come state, ppid ...; utime and stime are fields 14 and 15
        const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /, '')
          .split(' ')
        ticks += Number(fields[11]) + Number(fields[12])
      } catch {
        // It has ended meanwhile.
      }
    }
    return ticks * 10_000 // USER_HZ is 100
  }

  async run(command: string, ...args: string[]): Promise<string> {
    const { stdout } = await exec('nsenter', [`--net=${this.path}`, command, ...args], { maxBuffer: 1 << 28 })
    return stdout
  }

  /** Waits until the server answers. */
  async answers(server: string, name: string): Promise<void> {
    for (let i = 0; i < 50; i++) {
      const said = await this.run(
        'dig',
        `@${server}`,
        '-b',
        '10.88.0.2',
        '+short',
        '+tries=1',
        '+timeout=1',
        name,
      ).catch(() => '')
      if (/^\d+\.\d+\.\d+\.\d+$/m.test(said)) return
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    throw new Error(`${server} does not answer`)
  }

  async close(): Promise<void> {
    for (const child of [...this.#children]) await this.stop(child)
    this.stack.close()
    await this.kernel.remove(this.path)
    await rm(this.directory, { recursive: true, force: true })
  }
}
