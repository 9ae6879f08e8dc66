/** A private host on the real kernel, a client outside it, and the real docker client. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LinuxKernel, type Stack } from 'libcnm'

export interface Ran {
  code: number
  out: string
  error: string
}

export class Scene {
  readonly kernel = new LinuxKernel()
  readonly directory = mkdtempSync(join(tmpdir(), 'libcnm-docker-'))
  host!: Stack
  lan!: Stack
  readonly #cleanup: (() => unknown)[] = []

  static async open(): Promise<Scene> {
    const scene = new Scene()
    scene.host = await scene.#namespace('host')
    scene.lan = await scene.#namespace('lan')
    await scene.kernel.transact([
      {
        stack: scene.host,
        changes: [
          { op: 'setLink', link: 'lo', up: true },
          {
            op: 'addLink',
            link: {
              kind: 'veth',
              name: 'uplink',
              up: true,
              peer: { name: 'eth0', netns: scene.lan, up: true },
            },
          },
          { op: 'addAddress', link: 'uplink', address: '192.0.2.1/24' },
          { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: '192.0.2.2' } },
        ],
      },
      { stack: scene.lan, changes: [{ op: 'addAddress', link: 'eth0', address: '192.0.2.2/24' }] },
    ])
    return scene
  }

  async #namespace(name: string): Promise<Stack> {
    const path = join(this.directory, name)
    const stack = await this.kernel.create(path)
    this.#cleanup.push(async () => {
      stack.close()
      await this.kernel.remove(path)
    })
    return stack
  }

  /** Undone at the end, the newest first. */
  later(act: () => unknown): void {
    this.#cleanup.push(act)
  }

  get socket(): string {
    return join(this.directory, 'api.sock')
  }

  /** The real client. Of the machine's configuration it sees nothing. */
  docker = (...words: string[]): Promise<Ran> =>
    run('docker', ['-H', `unix://${this.socket}`, ...words], {
      PATH: process.env.PATH,
      HOME: this.directory,
      DOCKER_CONFIG: join(this.directory, 'docker-config'),
    })

  async close(): Promise<void> {
    for (const act of this.#cleanup.reverse()) await act()
    // What a test that failed has left of its sandboxes.
    for (const path of await this.kernel.list(join(this.directory, 'run/netns')))
      await this.kernel.remove(path)
    rmSync(this.directory, { recursive: true, force: true })
  }
}

export function run(command: string, words: string[], env: NodeJS.ProcessEnv = process.env): Promise<Ran> {
  return new Promise((resolve, reject) => {
    execFile(command, words, { env, timeout: 30_000 }, (error, out, stderr) => {
      if (error && typeof error.code !== 'number') reject(error)
      else resolve({ code: typeof error?.code === 'number' ? error.code : 0, out, error: stderr })
    })
  })
}

/** Waits until the condition holds; for what another process finishes in its own time. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const end = Date.now() + 45_000; ; ) {
    if (await condition()) return
    if (Date.now() > end) throw new Error(`in vain: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
