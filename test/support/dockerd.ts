/**
 * Docker Engine of one's own: dockerd in a network namespace of the test's, with a private /run, its own process
 * namespace, and no bridge and no firewall of its own. Nothing of it outlives `close`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'

/** Milliseconds until it must answer. */
const PATIENCE = 60_000

/** What runs in the private namespaces; `$1` is the directory. */
const SCRIPT = `
set -e
mount --make-rprivate /
mount -t tmpfs run /run
mkdir -p /run/docker/plugins
mount --bind "$1/plugins" /run/docker/plugins
exec dockerd --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \\
  --storage-driver vfs --data-root "$1/data" --exec-root /run/exec --pidfile /run/dockerd.pid -H "unix://$1/docker.sock" \\
  >"$1/log" 2>&1
`

export class Dockerd {
  private readonly child: ChildProcess

  /** `directory`: for all that it writes. Sockets in its folder `plugins` are those of Docker's plugins. */
  constructor(
    readonly directory: string,
    netns: string,
  ) {
    for (const name of ['plugins', 'data']) mkdirSync(join(directory, name), { recursive: true })
    // When the outer process ends, the kernel kills the first one of its process namespace, and with it all others.
    const inside = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '-c', SCRIPT]
    this.child = spawn('nsenter', [`--net=${netns}`, 'unshare', ...inside, 'bash', directory], {
      stdio: 'ignore',
    })
  }

  get plugins(): string {
    return join(this.directory, 'plugins')
  }

  /** Until it answers. */
  async started(): Promise<this> {
    const until = Date.now() + PATIENCE
    while (this.attempt('version').status !== 0) {
      if (this.child.exitCode !== null || Date.now() > until)
        throw new Error(`dockerd does not run here:\n${this.log()}`)
      await new Promise(resolve => setTimeout(resolve, 200))
    }
    return this
  }

  log(): string {
    const path = join(this.directory, 'log')
    return existsSync(path)
      ? readFileSync(path, 'utf8').split('\n').slice(-20).join('\n')
      : 'it was never started; is docker.io installed (.ci/packages.test)?'
  }

  attempt(...words: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync('docker', ['-H', `unix://${join(this.directory, 'docker.sock')}`, ...words], {
      encoding: 'utf8',
      timeout: PATIENCE,
      env: { PATH: process.env.PATH, HOME: this.directory },
    })
  }

  /** As {@link attempt}, without standing in the way of a plugin that lives in this process. */
  async docker(...words: string[]): Promise<string> {
    const child = spawn('docker', ['-H', `unix://${join(this.directory, 'docker.sock')}`, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, HOME: this.directory },
    })
    let [said, complained] = ['', '']
    child.stdout.on('data', chunk => {
      said += String(chunk)
    })
    child.stderr.on('data', chunk => {
      complained += String(chunk)
    })
    const [status] = (await once(child, 'close')) as [number]
    if (status !== 0) throw new Error(`docker ${words.join(' ')}: ${complained}`)
    return said.trim()
  }

  /** An image of nothing but busybox. */
  async image(name: string): Promise<void> {
    const bin = join(this.directory, 'image', 'bin')
    mkdirSync(bin, { recursive: true })
    const [busybox] = ['/bin/busybox', '/usr/bin/busybox'].filter(path => existsSync(path))
    copyFileSync(busybox as string, join(bin, 'busybox'))
    for (const applet of ['sh', 'ping', 'sleep', 'ip', 'true']) symlinkSync('busybox', join(bin, applet))
    const tar = join(this.directory, 'image.tar')
    spawnSync('tar', ['-C', join(this.directory, 'image'), '-cf', tar, '.'])
    await this.docker('import', tar, name)
  }

  async close(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const gone = once(this.child, 'exit')
    this.child.kill('SIGKILL') // unshare waits, whatever else it is sent
    await gone
  }
}
