import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { SandboxView } from '../../../lib/dns/contract'
import type { Stack } from '../../../lib/kernel/kernel'
import { LinuxKernel } from '../../../lib/kernel/linux'

const exec = promisify(execFile)

/** Namespaces of a test: one that plays the host, others that play containers, and the programs that run inside. */
export class Scene {
  readonly kernel = new LinuxKernel()
  readonly #closers: (() => unknown)[] = []

  private constructor(
    readonly directory: string,
    readonly host: Stack,
    readonly hostPath: string,
  ) {}

  static async open(): Promise<Scene> {
    const directory = await mkdtemp(join(tmpdir(), 'cnm-dns-'))
    const hostPath = join(directory, 'host')
    const host = await new LinuxKernel().create(hostPath)
    return new Scene(directory, host, hostPath)
  }

  /** A namespace, joined to the host's by a veth pair: 10.N.0.1 on the host's side, 10.N.0.2 inside. */
  async sandbox(name: string, subnet: number): Promise<{ stack: Stack; path: string; address: string }> {
    const path = join(this.directory, name)
    const stack = await this.kernel.create(path)
    this.#closers.push(async () => {
      stack.close()
      await this.kernel.remove(path)
    })
    await this.host.apply([
      {
        op: 'addLink',
        link: {
          kind: 'veth',
          name: `v${subnet}`,
          up: true,
          peer: { name: 'eth0', netns: stack },
        },
      },
      { op: 'addAddress', link: `v${subnet}`, address: `10.${subnet}.0.1/24` },
    ])
    await stack.apply([
      { op: 'setLink', link: 'eth0', up: true },
      { op: 'addAddress', link: 'eth0', address: `10.${subnet}.0.2/24` },
      { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: `10.${subnet}.0.1` } },
    ])
    return { stack, path, address: `10.${subnet}.0.2` }
  }

  /** Runs a program inside; resolves to what it printed, also when it failed. */
  async run(path: string, command: string, ...args: string[]): Promise<string> {
    try {
      const { stdout } = await exec('nsenter', [`--net=${path}`, command, ...args], { timeout: 20_000 })
      return stdout
    } catch (error) {
      const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
      return stdout + stderr
    }
  }

  /** The same with a resolv.conf of its own: 127.0.0.11, in a mount namespace that dies with the program. */
  async runWithResolvConf(
    path: string,
    content: string,
    command: string,
    ...args: string[]
  ): Promise<string> {
    const file = join(this.directory, `resolv-${Math.random().toString(36).slice(2)}`)
    await writeFile(file, content)
    return this.run(
      path,
      'unshare',
      '--mount',
      'sh',
      '-c',
      `mount --bind ${file} "$(readlink -f /etc/resolv.conf)" && exec "$@"`,
      'sh',
      command,
      ...args,
    )
  }

  /** Starts a program inside that is ended with the scene, and waits until it says `ready`. */
  async start(path: string, ready: RegExp, command: string, ...args: string[]): Promise<ChildProcess> {
    const child = spawn('nsenter', [`--net=${path}`, command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.onClose(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    })
    await new Promise<void>((resolve, reject) => {
      let said = ''
      const hear = (chunk: Buffer) => {
        said += chunk
        if (ready.test(said)) resolve()
      }
      child.stdout.on('data', hear)
      child.stderr.on('data', hear)
      child.on('error', reject)
      child.on('exit', () => reject(new Error(`${command} ended: ${said}`)))
    })
    return child
  }

  onClose(closer: () => unknown): void {
    this.#closers.push(closer)
  }

  async close(): Promise<void> {
    for (const closer of this.#closers.reverse()) await closer()
    this.host.close()
    await this.kernel.remove(this.hostPath)
    await rm(this.directory, { recursive: true, force: true })
  }
}

export const view = (over: Partial<SandboxView> = {}): SandboxView => ({
  sandboxId: 's1',
  networks: ['net1'],
  links: {},
  upstreams: [],
  searchDomains: [],
  ndotsFromUser: false,
  external: true,
  ...over,
})
