/** The container part of Docker's API, as far as the docker client needs it; the network part is the library's. */
import type { Duplex, Writable } from 'node:stream'
import { type Exchange, HttpError, parseFilters, type Router } from 'libcnm/api'
import type { Container } from './container'
import type { Containers } from './containers'
import { imageOf } from './images'
import { containerJson, summaryJson } from './inspect'
import { type Running, resize } from './oci'
import { ContainerRequest, ExecRequest, ExecStart } from './requests'
import { follow, Output, type Selection, writeEntry } from './streams'

export function addContainerRoutes(router: Router, containers: Containers): void {
  const routes = new ContainerRoutes(containers)
  router
    .route('POST', '/containers/create', routes.create)
    .route('GET', '/containers/json', routes.list)
    .route('GET', '/containers/{id}/json', routes.inspect)
    .route('POST', '/containers/{id}/start', routes.start)
    .route('POST', '/containers/{id}/stop', routes.stop)
    .route('POST', '/containers/{id}/restart', routes.restart)
    .route('POST', '/containers/{id}/kill', routes.kill)
    .route('POST', '/containers/{id}/wait', routes.wait)
    .route('POST', '/containers/{id}/attach', routes.attach)
    .route('POST', '/containers/{id}/resize', routes.resize)
    .route('GET', '/containers/{id}/logs', routes.logs)
    .route('DELETE', '/containers/{id}', routes.remove)
    .route('POST', '/containers/{id}/exec', routes.createExec)
    .route('POST', '/exec/{id}/start', routes.startExec)
    .route('GET', '/exec/{id}/json', routes.inspectExec)
    .route('POST', '/exec/{id}/resize', routes.resizeExec)
    .route('POST', '/images/create', routes.pull)
}

class ContainerRoutes {
  constructor(private readonly containers: Containers) {}

  #of = ({ params }: Exchange): Container => this.containers.get(params.id ?? '')

  create = async (exchange: Exchange) => {
    const request = await exchange.json(ContainerRequest, 'ContainerConfigWrapper')
    const container = this.containers.create(exchange.query.get('name') ?? undefined, request)
    exchange.send(201, { Id: container.id, Warnings: [] })
  }

  list = ({ query }: Exchange) => {
    const filters = parseFilters(query.get('filters'), ['id', 'name', 'status', 'label', 'network'])
    const all = ['1', 'true'].includes(query.get('all') ?? '') || filters.has('status')
    const some = (key: string, test: (value: string) => boolean) => {
      const values = [...(filters.get(key) ?? [])]
      return values.length === 0 || values.some(test)
    }
    return this.containers
      .list()
      .filter(
        each =>
          (all || each.isRunning) &&
          some('id', id => each.id.startsWith(id)) &&
          some('name', name => each.name.includes(name)) &&
          some('status', status => each.state.status === status) &&
          some('network', network => each.networks.has(network)) &&
          some('label', label => {
            const [key = '', value] = label.split('=')
            const held = each.request.Labels?.[key]
            return held !== undefined && (value === undefined || held === value)
          }),
      )
      .map(summaryJson)
  }

  inspect = (exchange: Exchange) => containerJson(this.#of(exchange))

  start = async (exchange: Exchange) => {
    exchange.send((await this.containers.start(this.#of(exchange))) ? 204 : 304)
  }

  stop = async (exchange: Exchange) => {
    exchange.send((await this.containers.stop(this.#of(exchange), seconds(exchange))) ? 204 : 304)
  }

  restart = async (exchange: Exchange) => {
    const container = this.#of(exchange)
    await this.containers.stop(container, seconds(exchange))
    await this.containers.start(container)
    exchange.send(204)
  }

  kill = async (exchange: Exchange) => {
    await this.containers.kill(this.#of(exchange), exchange.query.get('signal') || undefined)
    exchange.send(204)
  }

  remove = async (exchange: Exchange) => {
    await this.containers.remove(this.#of(exchange), exchange.flag('force'))
    exchange.send(204)
  }

  /** The headers go out at once: the client starts the container only when it knows that we listen for its end. */
  wait = async (exchange: Exchange) => {
    const container = this.#of(exchange)
    const condition = exchange.query.get('condition') || 'not-running'
    const ended =
      condition === 'not-running'
        ? this.containers.exited(container)
        : new Promise<number>(resolve =>
            container.once(condition === 'removed' ? 'removed' : 'exit', resolve),
          )
    // `docker run -d` asks, too, and is gone before there is an answer.
    const gone = new Promise<undefined>(resolve =>
      exchange.signal.addEventListener('abort', () => resolve(undefined), { once: true }),
    )
    exchange.response.writeHead(200, { 'Content-Type': 'application/json' })
    exchange.response.flushHeaders()
    const code = await Promise.race([ended, gone])
    exchange.response.end(code === undefined ? '' : `${JSON.stringify({ StatusCode: code })}\n`)
  }

  attach = async (exchange: Exchange) => {
    const container = this.#of(exchange)
    const how = selection(exchange, container)
    const stream = exchange.hijack(contentType(exchange, how))
    if (exchange.flag('logs')) for (const entry of container.output.entries) writeEntry(stream, entry, how)
    if (exchange.flag('stream')) {
      const over = new AbortController()
      const connect = () =>
        container.running &&
        exchange.flag('stdin') &&
        feed(stream, container.running, container.request.StdinOnce)
      if (!connect()) void onStart(container, over.signal).then(connect)
      await follow(container.output, stream, how, over.signal)
      over.abort()
    }
    stream.end()
  }

  logs = async (exchange: Exchange) => {
    const container = this.#of(exchange)
    const { query, response, signal } = exchange
    const how = { ...selection(exchange, container), timestamps: exchange.flag('timestamps') }
    const tail = query.get('tail')
    response.writeHead(200, { 'Content-Type': contentType(exchange, how) })
    for (const entry of container.output.lines(tail && tail !== 'all' ? Number(tail) : undefined))
      writeEntry(response, entry, how)
    response.flushHeaders()
    if (exchange.flag('follow') && container.isRunning) await follow(container.output, response, how, signal)
    response.end()
  }

  resize = async (exchange: Exchange) => {
    const { running } = this.#of(exchange)
    if (running) await resize(running, ...size(exchange))
  }

  /* ----------------------------------------------------------------------- exec */

  createExec = async (exchange: Exchange) => {
    const request = await exchange.json(ExecRequest, 'ExecOptions')
    exchange.send(201, { Id: this.containers.createExec(this.#of(exchange), request).id })
  }

  startExec = async (exchange: Exchange) => {
    const { Detach } = await exchange.json(ExecStart, 'ExecStartOptions')
    const exec = this.containers.getExec(exchange.params.id ?? '')
    const running = this.containers.startExec(exec)
    const output = new Output()
    output.collect(running.child)
    const over = new AbortController()
    void running.ended.then(() => output.end())
    if (Detach) return exchange.send(200)
    const how: Selection = { stdout: true, stderr: true, terminal: running.terminal }
    const stream = exchange.hijack(contentType(exchange, how))
    feed(stream, running, true)
    await follow(output, stream, how, over.signal)
    stream.end()
  }

  inspectExec = (exchange: Exchange) => {
    const { id, container, request, running, exitCode } = this.containers.getExec(exchange.params.id ?? '')
    return {
      ID: id,
      ContainerID: container.id,
      Running: running !== undefined && exitCode === undefined,
      ExitCode: exitCode ?? null,
      ProcessConfig: {
        tty: request.Tty ?? false,
        entrypoint: request.Cmd?.[0] ?? '',
        arguments: request.Cmd?.slice(1) ?? [],
      },
      OpenStdin: request.AttachStdin ?? false,
      OpenStdout: true,
      OpenStderr: true,
      CanRemove: false,
      Pid: running?.child.pid ?? 0,
    }
  }

  resizeExec = async (exchange: Exchange) => {
    const { running } = this.containers.getExec(exchange.params.id ?? '')
    if (running) await resize(running, ...size(exchange))
  }

  /** There is no registry: what is here is here, the rest is refused. */
  pull = (exchange: Exchange) => {
    const image = imageOf(exchange.query.get('fromImage') ?? '')
    return { status: `Image is up to date for ${image.name}` }
  }
}

function seconds({ query }: Exchange): number | undefined {
  const text = query.get('t')
  if (!text) return undefined
  if (!/^-?\d{1,9}$/.test(text)) throw new HttpError(400, `t must be seconds, not ${JSON.stringify(text)}`)
  return Number(text)
}

function size({ query }: Exchange): [number, number] {
  const [rows, columns] = [Number(query.get('h')), Number(query.get('w'))]
  if (!Number.isInteger(rows) || !Number.isInteger(columns))
    throw new HttpError(400, 'h and w must be whole numbers of rows and columns')
  return [rows, columns]
}

const selection = (exchange: Exchange, { request }: Container): Selection => ({
  stdout: exchange.flag('stdout'),
  stderr: exchange.flag('stderr'),
  terminal: request.Tty ?? false,
})

const contentType = (exchange: Exchange, { terminal }: Selection): string =>
  terminal || exchange.olderThan('1.42')
    ? 'application/vnd.docker.raw-stream'
    : 'application/vnd.docker.multiplexed-stream'

/**
 * What the client types goes to the process; true, so that it is done once. The end of it is the end of the process's input
 * where that is `once` for all; never on a terminal, whose user may have detached and will come back.
 */
function feed(stream: Duplex | Writable, { child, terminal }: Running, once = false): boolean {
  if (child.stdin && 'readable' in stream) stream.pipe(child.stdin, { end: once && !terminal })
  return true
}

/** Resolves when the process is there. */
function onStart(container: Container, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    container.once('start', resolve)
    signal.addEventListener('abort', () => container.off('start', resolve), { once: true })
  })
}
