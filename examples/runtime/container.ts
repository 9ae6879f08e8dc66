/** One container: what was asked for, and what has become of it. */
import { EventEmitter } from 'node:events'
import type { Sandbox } from 'libcnm'
import type { ContainerRef, EndpointSettings } from 'libcnm/api'
import type { Image } from './images'
import { networksOf } from './network'
import type { Running } from './oci'
import { type ContainerRequest, given, words } from './requests'
import { Output } from './streams'

export interface State {
  status: 'created' | 'running' | 'exited' | 'removing'
  pid: number
  exitCode: number
  error: string
  /** Milliseconds since the epoch; 0: never. */
  startedAt: number
  finishedAt: number
}

/** Emits `start`, then `exit` and `removed` with the exit code. */
export class Container extends EventEmitter<{ start: []; exit: [number]; removed: [number] }> {
  readonly created = Date.now()
  readonly output = new Output()
  readonly state: State = { status: 'created', pid: 0, exitCode: 0, error: '', startedAt: 0, finishedAt: 0 }
  /** `bridge`, `host`, `none`, `container:ID` or the name of a network. */
  readonly mode: string
  /** What it joins at its next start, by name of the network. */
  readonly networks: Map<string, EndpointSettings>
  sandbox?: Sandbox
  running?: Running
  #turn: Promise<unknown> = Promise.resolve()

  constructor(
    readonly id: string,
    readonly name: string,
    readonly request: ContainerRequest,
    readonly image: Image,
  ) {
    super()
    this.setMaxListeners(0)
    const { mode, networks } = networksOf(request)
    this.mode = mode
    this.networks = networks
  }

  get isRunning(): boolean {
    return this.state.status === 'running'
  }

  get hostname(): string {
    return this.request.Hostname || this.id.slice(0, 12)
  }

  /** What it runs. */
  get command(): string[] {
    const [first, ...others] = words(this.request.Entrypoint)
    const entrypoint = first ? [first, ...others] : [] // an empty one is none
    const command = words(this.request.Cmd)
    return [...entrypoint, ...(command.length || entrypoint.length ? command : this.image.command)]
  }

  /** `NAME=value` of the image and of the request; links and the runtime add theirs. */
  get environment(): string[] {
    return [...this.image.environment, ...given(this.request.Env)]
  }

  /** `PORT/PROTOCOL`, what it serves: as the image says and `--expose`. */
  get exposed(): string[] {
    return [...new Set([...this.image.exposed, ...Object.keys(this.request.ExposedPorts ?? {})])]
  }

  /** As the network API wants to see it. */
  get ref(): ContainerRef {
    const { id, name, mode, isRunning, sandbox } = this
    return { id, name, running: isRunning, networkMode: mode, sandbox }
  }

  /** One thing at a time happens to a container. */
  exclusively<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(act)
    this.#turn = result.catch(() => {})
    return result
  }
}
