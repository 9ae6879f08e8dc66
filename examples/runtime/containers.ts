/**
 * The life of containers. The order is the whole lesson: a sandbox and its endpoints first, then the process inside it; when
 * the process has ended, the sandbox goes, and its endpoints with it.
 */
import { randomBytes } from 'node:crypto'
import { cpSync, mkdirSync, rmSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import type { Controller, Network, Sandbox } from 'libcnm'
import {
  connectContainer,
  type Containers as NetworkContainers,
  type EndpointSettings,
  HttpError,
  noSuchContainer,
} from 'libcnm/api'
import { Container } from './container'
import { imageOf } from './images'
import { endpointExtras, linksOf, linkVariables, refuseOwnNetwork, sandboxInput } from './network'
import { randomName } from './names'
import { type ContainerSpec, Runc, type Running } from './oci'
import type { ContainerRequest, ExecRequest } from './requests'
import { given, words } from './requests'

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Seconds between the stop signal and SIGKILL, as in Docker. */
const STOP_TIMEOUT = 10
/** Milliseconds for which the exit code of a command can be asked for. */
const EXEC_KEPT = 300_000
/** Exit code of a container whose process never was: that of a shell that finds no command. */
const START_FAILED = 127

export interface ContainersOptions {
  controller: Controller
  /** For bundles and the state of runc. */
  directory: string
  rootfs: string
  /** Path of the network namespace that is the host. */
  host: string
  /** Tells of create, start, die, destroy. */
  happened(action: string, container: Container): void
}

export interface Exec {
  id: string
  container: Container
  request: ExecRequest
  running?: Running
  exitCode?: number
}

export class Containers implements NetworkContainers {
  readonly #all = new Map<string, Container>()
  readonly #execs = new Map<string, Exec>()
  readonly #runc: Runc
  readonly #options: ContainersOptions

  constructor(options: ContainersOptions) {
    this.#options = options
    this.#runc = new Runc(join(options.directory, 'runc'))
  }

  /* -------------------------------------------------------- for the network API */

  resolve = (idOrName: string) => this.find(idOrName)?.ref

  count = () => {
    const running = this.list().filter(({ isRunning }) => isRunning).length
    return { running, stopped: this.#all.size - running }
  }

  endpoint = ({ id }: { id: string }, network: Network) => endpointExtras(this.get(id), network, this.#linked)

  connected = ({ id }: { id: string }, network: Network, settings: EndpointSettings) => {
    this.get(id).networks.set(network.name, settings)
  }

  disconnected = ({ id }: { id: string }, network: Network) => {
    const container = this.get(id)
    if (!container.networks.delete(network.name) && !container.isRunning)
      throw new HttpError(500, `container ${id} is not connected to network ${network.name}`)
  }

  /* -------------------------------------------------------------------- finding */

  list(): Container[] {
    return [...this.#all.values()].reverse()
  }

  find(idOrName: string): Container | undefined {
    const term = idOrName.replace(/^\//, '')
    const all = [...this.#all.values()]
    const exact = this.#all.get(term) ?? all.find(({ name }) => name === term)
    if (exact || !/^[0-9a-f]+$/.test(term)) return exact
    const [first, ...others] = all.filter(({ id }) => id.startsWith(term))
    if (others.length) throw new HttpError(400, `Multiple IDs found with provided prefix: ${term}`)
    return first
  }

  /** Throws 404. */
  get(idOrName: string): Container {
    const container = this.find(idOrName)
    if (!container) throw noSuchContainer(idOrName)
    return container
  }

  /* ----------------------------------------------------------------------- life */

  create(asked: string | undefined, request: ContainerRequest): Container {
    const image = imageOf(request.Image ?? '')
    const id = randomBytes(32).toString('hex')
    const name = asked?.replace(/^\//, '') || randomName(taken => this.find(taken) !== undefined)
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name))
      throw new HttpError(400, `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`)
    const holder = [...this.#all.values()].find(each => each.name === name)
    if (holder)
      throw new HttpError(
        409,
        `Conflict. The container name "/${name}" is already in use by container "${holder.id}". You have to remove (or rename) that container to be able to reuse that name.`,
      )
    if (request.StopSignal) signalOf(request.StopSignal)
    const mode = request.HostConfig?.NetworkMode ?? ''
    if (mode.startsWith('container:') && request.HostConfig) {
      refuseOwnNetwork(request)
      request.HostConfig.NetworkMode = `container:${this.get(mode.slice('container:'.length)).id}`
    }
    const container = new Container(id, name, request, image)
    linksOf(container, this.#linked)
    cpSync(this.#options.rootfs, join(this.#bundle(id), 'rootfs'), {
      recursive: true,
      verbatimSymlinks: true,
    })
    this.#all.set(id, container)
    this.#options.happened('create', container)
    return container
  }

  /** False: it was running already. Whole or nothing. */
  start(container: Container): Promise<boolean> {
    return container.exclusively(async () => {
      if (container.isRunning) return false
      try {
        this.#refuseIdleLinks(container)
        const sandbox = await this.#openSandbox(container)
        container.sandbox = sandbox
        for (const [name, settings] of container.networks)
          await connectContainer(
            this,
            { ...container.ref, running: true },
            this.#options.controller.network(name),
            settings,
          )
        const { Tty = false, OpenStdin = false } = container.request
        const spec = this.#spec(container, sandbox)
        const running = await this.#runc.start(
          container.id,
          this.#bundle(container.id),
          spec,
          OpenStdin && !Tty,
          container.output,
        )
        this.#watch(container, running)
      } catch (error) {
        Object.assign(container.state, { error: (error as Error).message, exitCode: START_FAILED })
        await this.#over(container, START_FAILED)
        throw error
      }
      container.emit('start')
      this.#options.happened('start', container)
      return true
    })
  }

  #linked = (name: string): Container => {
    const target = this.find(name)
    if (!target) throw new HttpError(400, `could not get container for ${name}: No such container: ${name}`)
    return target
  }

  #refuseIdleLinks(container: Container): void {
    for (const [alias, { name, isRunning }] of Object.entries(linksOf(container, this.#linked)))
      if (!isRunning)
        throw new HttpError(
          409,
          `Cannot link to a non running container: /${name} AS /${container.name}/${alias}`,
        )
  }

  #openSandbox(container: Container): Promise<Sandbox> {
    const target = this.#sharedWith(container)
    if (target && !target.isRunning)
      throw new HttpError(409, `cannot join network of a non running container: ${target.id}`)
    return this.#options.controller.createSandbox(sandboxInput(container))
  }

  #sharedWith({ mode }: Container): Container | undefined {
    return mode.startsWith('container:') ? this.get(mode.slice('container:'.length)) : undefined
  }

  #spec(container: Container, sandbox: Sandbox): ContainerSpec {
    const { command, environment, request } = container
    // A container in the stack of another one has that one's names, too.
    let owner = container
    for (let next = this.#sharedWith(owner); next; next = this.#sharedWith(owner)) owner = next
    const files = owner.sandbox?.files
    if (!files) throw new HttpError(409, `container ${owner.id} has no network files`)
    const { hostname } = owner
    return {
      rootfs: join(this.#bundle(container.id), 'rootfs'),
      args: command,
      env: [
        PATH,
        `HOSTNAME=${hostname}`,
        ...(request.Tty ? ['TERM=xterm'] : []),
        ...linkVariables(container, this.#linked),
        ...environment,
        'HOME=/root',
      ],
      cwd: request.WorkingDir || '/',
      terminal: request.Tty ?? false,
      hostname,
      netns: sandbox.key ?? this.#options.host,
      files: { hosts: files.hosts, 'resolv.conf': files.resolvConf, hostname: files.hostname },
    }
  }

  #watch(container: Container, running: Running & { pid: number }): void {
    const { state } = container
    container.running = running
    Object.assign(state, {
      status: 'running',
      pid: running.pid,
      exitCode: 0,
      error: '',
      startedAt: Date.now(),
    })
    void running.ended.then(code => container.exclusively(() => this.#ended(container, code)))
  }

  async #ended(container: Container, exitCode: number): Promise<void> {
    Object.assign(container.state, { status: 'exited', pid: 0, exitCode, finishedAt: Date.now() })
    this.#options.happened('die', container)
    await this.#over(container, exitCode)
  }

  /** There is no process (any more): the sandbox goes, and whoever waits or reads is told. */
  async #over(container: Container, exitCode: number): Promise<void> {
    const { sandbox, output, state } = container
    container.running = undefined
    container.sandbox = undefined
    await sandbox?.delete({ force: true }).catch((error: Error) => {
      state.error = error.message
    })
    output.end()
    container.emit('exit', exitCode)
    if (container.request.HostConfig?.AutoRemove) await this.remove(container)
  }

  async kill(container: Container, signal = 'KILL'): Promise<void> {
    if (!container.isRunning) throw new HttpError(409, `container ${container.id} is not running`)
    await this.#runc.kill(container.id, signalOf(signal))
  }

  /** False: it was not running. `timeout` in seconds; below 0 it has all the time it wants. */
  async stop(
    container: Container,
    timeout = container.request.StopTimeout ?? STOP_TIMEOUT,
  ): Promise<boolean> {
    if (!container.isRunning) return false
    const gone = this.exited(container)
    await this.#runc.kill(container.id, signalOf(container.request.StopSignal || 'TERM'))
    const kill = () => void this.#runc.kill(container.id, 'KILL').catch(() => {})
    const timer = timeout < 0 ? undefined : setTimeout(kill, Math.min(timeout * 1000, 2 ** 31 - 1))
    await gone
    clearTimeout(timer)
    return true
  }

  /** The exit code, now or when it has ended. */
  exited(container: Container): Promise<number> {
    if (!container.isRunning && !container.sandbox) return Promise.resolve(container.state.exitCode)
    return new Promise(resolve => container.once('exit', resolve))
  }

  async remove(container: Container, force = false): Promise<void> {
    if (container.isRunning) {
      if (!force)
        throw new HttpError(
          409,
          `cannot remove container "/${container.name}": container is running: stop the container before removing or force remove`,
        )
      const gone = this.exited(container)
      await this.#runc.kill(container.id, 'KILL')
      await gone
    }
    if (!this.#all.delete(container.id)) return
    container.state.status = 'removing'
    for (const [id, exec] of this.#execs) if (exec.container === container) this.#execs.delete(id)
    await this.#runc.remove(container.id)
    rmSync(this.#bundle(container.id), { recursive: true, force: true })
    container.emit('removed', container.state.exitCode)
    this.#options.happened('destroy', container)
  }

  async close(): Promise<void> {
    for (const container of this.list()) await this.remove(container, true)
  }

  /* ----------------------------------------------------------------------- exec */

  createExec(container: Container, request: ExecRequest): Exec {
    if (!container.isRunning) throw new HttpError(409, `container ${container.id} is not running`)
    if (!words(request.Cmd)[0]) throw new HttpError(400, 'No exec command specified')
    const exec: Exec = { id: randomBytes(32).toString('hex'), container, request }
    this.#execs.set(exec.id, exec)
    return exec
  }

  getExec(id: string): Exec {
    const exec = this.#execs.get(id)
    if (!exec) throw new HttpError(404, `No such exec instance: ${id}`)
    return exec
  }

  startExec(exec: Exec): Running {
    const { container, request } = exec
    if (exec.running) throw new HttpError(409, `exec ${exec.id} has already been started`)
    if (!container.isRunning) throw new HttpError(409, `container ${container.id} is not running`)
    const running = this.#runc.exec(container.id, {
      args: words(request.Cmd),
      env: [...(request.Tty ? ['TERM=xterm'] : []), ...given(request.Env)],
      cwd: request.WorkingDir,
      user: request.User,
      terminal: request.Tty ?? false,
      stdin: request.AttachStdin ?? false,
    })
    exec.running = running
    void running.ended.then(code => {
      exec.exitCode = code
      setTimeout(() => this.#execs.delete(exec.id), EXEC_KEPT).unref()
    })
    return running
  }

  #bundle(id: string): string {
    const path = join(this.#options.directory, 'containers', id)
    mkdirSync(path, { recursive: true, mode: 0o711 })
    return path
  }
}

/** As runc wants it. Throws 400 for what is no signal. */
function signalOf(text: string): string {
  const name = text.toUpperCase().replace(/^(?!SIG|\d)/, 'SIG')
  const { signals } = constants
  const known = /^\d{1,2}$/.test(name)
    ? Number(name) >= 1 && Number(name) <= 64
    : Object.hasOwn(signals, name)
  if (!known) throw new HttpError(400, `invalid signal: ${text}`)
  return name
}
