/** The OCI side: the configuration of a bundle, and runc, which makes a process of it. Knows nothing of networks but a path. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { HttpError } from 'libcnm/api'
import type { Output } from './streams'

const run = promisify(execFile)

export interface ContainerSpec {
  rootfs: string
  args: string[]
  env: string[]
  cwd: string
  terminal: boolean
  hostname: string
  /** The network namespace: what a sandbox calls its key. */
  netns: string
  /** What to mount over the files of that name below /etc. */
  files: { hosts: string; 'resolv.conf': string; hostname: string }
}

/** Docker's default set (moby, profiles/seccomp and oci/caps): enough to serve low ports and to ping. */
const CAPABILITIES = [
  'CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID',
  'SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE',
].flatMap(line => line.split(' ').map(name => `CAP_${name}`))

/** config.json of the OCI runtime specification. */
export function ociConfig(spec: ContainerSpec) {
  const etc = Object.entries(spec.files).map(([name, source]) => ({
    destination: `/etc/${name}`,
    type: 'bind',
    source,
    options: ['rbind', 'rprivate', 'rw'],
  }))
  return {
    ociVersion: '1.0.2',
    root: { path: spec.rootfs, readonly: false },
    hostname: spec.hostname,
    process: {
      terminal: spec.terminal,
      user: { uid: 0, gid: 0 },
      args: spec.args,
      env: spec.env,
      cwd: spec.cwd,
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
    },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=64k'],
      },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'],
      },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
      ...etc,
    ],
    linux: {
      // The network namespace exists already, with everything in it: the process finds its network ready.
      namespaces: [
        { type: 'pid' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        { type: 'network', path: spec.netns },
      ],
      maskedPaths: ['/proc/kcore', '/proc/keys', '/proc/timer_list', '/sys/firmware'],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  }
}

/** A process with its streams. */
export interface Running {
  child: ChildProcess
  terminal: boolean
  /** Resolves with the exit code when it has ended and all its output was read. */
  ended: Promise<number>
}

export interface ExecSpec {
  args: string[]
  env: string[]
  cwd?: string
  user?: string
  terminal: boolean
  stdin: boolean
}

export class Runc {
  readonly #logs: string

  /** `root`: where runc keeps its state. */
  constructor(private readonly root: string) {
    this.#logs = `${root}-logs`
    for (const directory of [root, this.#logs]) mkdirSync(directory, { recursive: true, mode: 0o700 })
  }

  /**
   * Starts a container in the foreground of a runc of its own, and returns once its process is there. What it writes is
   * collected from the first byte: of a child that has ended, Node throws away what nobody was reading.
   */
  async start(
    id: string,
    bundle: string,
    spec: ContainerSpec,
    stdin: boolean,
    output: Output,
  ): Promise<Running & { pid: number }> {
    const pidFile = join(bundle, 'pid')
    const log = join(bundle, 'log.json')
    writeFileSync(pidFile, '')
    writeFileSync(log, '')
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(ociConfig(spec)))
    const running = this.#launch(
      ['--log', log, '--log-format', 'json', 'run', '--bundle', bundle, '--pid-file', pidFile, id],
      spec.terminal,
      stdin,
    )
    output.collect(running.child)
    let over = false
    void running.ended.then(() => (over = true))
    for (;;) {
      const pid = Number(readFileSync(pidFile, 'utf8'))
      if (pid) return { ...running, pid }
      if (over)
        throw new HttpError(
          400,
          `failed to create task for container: OCI runtime create failed: ${lastError(log) ?? 'runc does not say why'}`,
        )
      await sleep(5)
    }
  }

  exec(id: string, { args, env, cwd, user, terminal, stdin }: ExecSpec): Running {
    const options = [
      ...env.flatMap(variable => ['--env', variable]),
      ...(cwd ? ['--cwd', cwd] : []),
      ...(user ? ['--user', user] : []),
      ...(terminal ? ['--tty'] : []),
    ]
    const log = join(this.#logs, randomUUID())
    const running = this.#launch(
      ['--log', log, '--log-format', 'json', 'exec', ...options, id, ...args],
      terminal,
      stdin,
    )
    const ended = running.ended.then(code => (code === 255 ? refusal(log) : code))
    return { ...running, ended: ended.finally(() => rmSync(log, { force: true })) }
  }

  /** A container that has ended is no error. */
  async kill(id: string, signal: string): Promise<void> {
    await run('runc', ['--root', this.root, 'kill', id, signal]).catch((error: { stderr?: string }) => {
      if (!/does not exist|not running|already finished/.test(error.stderr ?? '')) throw error
    })
  }

  /** Whatever is left of it. */
  async remove(id: string): Promise<void> {
    await run('runc', ['--root', this.root, 'delete', '--force', id])
  }

  #launch(args: string[], terminal: boolean, stdin: boolean): Running {
    const command = ['runc', '--root', this.root, ...args]
    // Node makes no pseudo terminals; script(1) does, and runc finds itself on one.
    const [file = '', ...rest] = terminal
      ? [
          'script',
          '--quiet',
          '--return',
          '--flush',
          '--command',
          `exec ${command.map(quote).join(' ')}`,
          '/dev/null',
        ]
      : command
    const child = spawn(file, rest, {
      stdio: [terminal || stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      env: { ...process.env, SHELL: '/bin/sh' },
    })
    child.stdin?.on('error', () => {}) // it ended without reading: its own affair
    const ended = new Promise<number>(resolve => {
      child.once('error', () => resolve(127)) // no runc
      child.once('close', (code, signal) => resolve(code ?? (signal === 'SIGKILL' ? 137 : 143)))
    })
    return { child, terminal, ended }
  }
}

/** Tells the pseudo terminal of a process its size; runc passes it on. */
export async function resize({ child, terminal }: Running, rows: number, columns: number): Promise<void> {
  if (!terminal || !child.pid) return
  const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')
  const [runc] = children.split(' ')
  if (runc) await run('stty', ['-F', `/proc/${runc}/fd/0`, 'rows', `${rows}`, 'cols', `${columns}`])
}

const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`

/** What runc says went wrong: the last error of its log. */
function lastError(log: string): string | undefined {
  if (!existsSync(log)) return undefined
  const messages = readFileSync(log, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line) as { level: string; msg: string })
    .filter(({ level }) => level === 'error')
  return messages.at(-1)?.msg
}

/** The exit code of a shell that could not start a command, where it was runc that ended with 255 and not the command. */
function refusal(log: string): number {
  const error = lastError(log)
  if (error === undefined) return 255
  return /permission denied/.test(error) ? 126 : 127
}
