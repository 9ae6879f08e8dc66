/**
 * firewalld of one's own: on a bus of its own, in the network namespace that it is given, with its configuration in a folder of
 * the test's. Debian's package is unpacked and not installed, because installing it would put a firewall on this machine.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Stack } from 'libcnm'

const run = promisify(execFile)

/** Milliseconds until it must answer. */
const PATIENCE = 60_000
/** Debian's own: another one on the path has not got python3-dbus. Isolated from the user's modules, not from PYTHONPATH. */
const PYTHON = ['/usr/bin/python3', '-sP'] as const

/** Unpacks it below the directory; returns the root of what is unpacked. */
export async function unpackFirewalld(directory: string): Promise<string> {
  const cwd = join(directory, 'packages')
  mkdirSync(cwd)
  await run('apt-get', ['download', 'firewalld', 'python3-firewall', 'python3-nftables'], { cwd })
  for (const name of readdirSync(cwd)) await run('dpkg-deb', ['-x', name, '../firewalld'], { cwd })
  return join(directory, 'firewalld')
}

export class Firewalld {
  private readonly children: ChildProcess[] = []
  private readonly env: NodeJS.ProcessEnv

  /** `directory`: an empty one of its own. */
  private constructor(
    private readonly root: string,
    readonly directory: string,
    private readonly host: Stack,
  ) {
    this.env = {
      ...process.env,
      DBUS_SYSTEM_BUS_ADDRESS: `unix:path=${this.bus}`,
      PYTHONPATH: join(root, 'usr/lib/python3/dist-packages'),
    }
  }

  /** Its socket. */
  get bus(): string {
    return join(this.directory, 'bus')
  }

  /** Resolves when it answers. `backend`: what it makes its own rules with. */
  static async start(
    root: string,
    directory: string,
    host: Stack,
    backend: 'nftables' | 'iptables',
  ): Promise<Firewalld> {
    mkdirSync(directory)
    const self = new Firewalld(root, directory, host)
    try {
      await self.begin(backend)
      return self
    } catch (error) {
      await self.stop()
      throw error
    }
  }

  private get settings(): string {
    return join(this.directory, 'etc')
  }

  private async begin(backend: string): Promise<void> {
    const { settings } = this
    cpSync(join(this.root, 'etc/firewalld'), settings, { recursive: true })
    const file = join(settings, 'firewalld.conf')
    writeFileSync(
      file,
      readFileSync(file, 'utf8').replace(/^FirewallBackend=.*/m, `FirewallBackend=${backend}`),
    )
    const busSettings = join(this.directory, 'bus.conf')
    writeFileSync(busSettings, busConfiguration(this.bus))
    this.spawn('dbus-daemon', `--config-file=${busSettings}`, '--nofork', '--nopidfile')
    await this.until('the bus', () => existsSync(this.bus))
    await this.serve()
  }

  /** The service ends and begins again; the bus lives on. */
  async restart(): Promise<void> {
    await end(this.children.pop())
    await this.serve()
  }

  private async serve(): Promise<void> {
    const [python, ...flags] = PYTHON
    this.spawn(
      python,
      ...flags,
      join(this.root, 'usr/sbin/firewalld'),
      ...['--nofork', '--nopid', '--system-config', this.settings],
      ...['--default-config', join(this.root, 'usr/lib/firewalld')],
      ...['--log-target', 'file', '--log-file', join(this.directory, 'log')],
    )
    await this.until('firewalld', () =>
      this.command('--state').then(
        () => true,
        () => false,
      ),
    )
  }

  /** What `firewall-cmd` prints; rejects when it fails. */
  async command(...words: string[]): Promise<string> {
    const [python, ...flags] = PYTHON
    const parameters = [...flags, join(this.root, 'usr/bin/firewall-cmd'), ...words]
    return (await run(python, parameters, { env: this.env, timeout: PATIENCE })).stdout.trim()
  }

  /** What it made of the host's ruleset goes with it, as it does when the service is stopped. */
  async stop(): Promise<void> {
    for (const child of this.children.splice(0).reverse()) await end(child)
  }

  private spawn(program: string, ...parameters: string[]): void {
    const child = this.host.run(() => spawn(program, parameters, { env: this.env, stdio: 'ignore' }))
    child.on('error', () => {})
    this.children.push(child)
  }

  private async until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = Date.now() + PATIENCE
    while (!(await condition())) {
      if (Date.now() > deadline || this.children.some(({ exitCode }) => exitCode !== null))
        throw new Error(`${what} does not run here (.ci/packages.test): ${this.log()}`)
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }

  private log(): string {
    const path = join(this.directory, 'log')
    return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(-20).join('\n') : 'no log'
  }
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill()
  await gone
}

const busConfiguration = (socket: string): string => `<!DOCTYPE busconfig PUBLIC
  "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=${socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`
