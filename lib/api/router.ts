/**
 * Routes, versions and errors of a Docker-like API over node:http. Knows nothing of networks: a runtime adds its own
 * routes for containers to the same router.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { z } from 'zod'
import type { Logger } from '../base/log'
import { decode, parseJson, readBody, BODY_LIMIT } from './body'
import { answerTo, HttpError } from './errors'
import { type Takeover, Upgrade } from './upgrade'
import { API_VERSION, MIN_API_VERSION, olderThan, VERSION } from './version'

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'

/** May return a value: it is sent as JSON with status 200 unless something was sent already. */
export type Handler = (exchange: Exchange) => unknown

/** One request and its answer. */
export class Exchange {
  /** What the `{names}` of the route stand for. */
  readonly params: Readonly<Record<string, string>>
  readonly query: URLSearchParams
  /** Of the API, as the client asks for it. */
  readonly version: string
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Aborted when the client is gone or the server closes. */
  readonly signal: AbortSignal
  readonly #upgrade: Upgrade | undefined

  constructor(parts: ExchangeParts) {
    this.params = parts.params
    this.query = parts.query
    this.version = parts.version
    this.request = parts.request
    this.response = parts.response
    this.signal = parts.signal
    this.#upgrade = parts.upgrade
  }

  /** Is the version that the client speaks older? */
  olderThan(version: string): boolean {
    return olderThan(this.version, version)
  }

  /** The body, parsed as JSON and read as Go would read it into a struct of that name. */
  async json<S extends z.ZodType>(schema: S, name: string): Promise<z.output<S>> {
    const body = await this.body()
    return decode(schema, parseJson(this.request.headers['content-type'], body), name)
  }

  /** The body as bytes; at most 1 MiB. */
  body(limit = BODY_LIMIT): Promise<Buffer> {
    return this.#upgrade ? this.#upgrade.body(limit) : readBody(this.request, limit)
  }

  /** A boolean of the query, read as Docker does: anything but these is true. */
  flag(name: string): boolean {
    const value = (this.query.get(name) ?? '').trim().toLowerCase()
    return !['', '0', 'no', 'false', 'none'].includes(value)
  }

  send(status: number, value?: unknown): void {
    if (value === undefined) {
      this.response.writeHead(status, { 'Content-Length': 0 }).end()
      return
    }
    const body = `${JSON.stringify(value)}\n`
    this.response
      .writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) })
      .end(body)
  }

  sendText(status: number, text: string): void {
    this.response
      .writeHead(status, {
        'Content-Type': 'text/plain; charset=utf-8',
        'Content-Length': Buffer.byteLength(text),
      })
      .end(this.request.method === 'HEAD' ? undefined : text)
  }

  /** The client asked for the raw connection: `Upgrade: tcp`. */
  get upgradable(): boolean {
    return this.#upgrade !== undefined
  }

  /**
   * Takes the connection over, for a stream in both directions (attach, exec). What the client has sent already comes
   * first. Without `Upgrade: tcp` the answer is an ordinary one without an end, and there is no way back.
   */
  hijack(contentType = 'application/vnd.docker.raw-stream'): Duplex | ServerResponse {
    if (!this.#upgrade) {
      this.response.writeHead(200, { 'Content-Type': contentType })
      this.response.flushHeaders()
      return this.response
    }
    return this.#upgrade.take(this.response, contentType)
  }
}

interface ExchangeParts {
  params: Record<string, string>
  query: URLSearchParams
  version: string
  request: IncomingMessage
  response: ServerResponse
  signal: AbortSignal
  upgrade: Upgrade | undefined
}

/** How much of a body that nobody wants is read, bytes and milliseconds, so that its sender gets to read the answer. */
const DRAIN_LIMIT = 16 * 1024 * 1024
const DRAIN_TIME = 2_000

function drain(request: IncomingMessage): void {
  let length = 0
  const stop = () => request.destroy()
  const timer = setTimeout(stop, DRAIN_TIME)
  request.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length > DRAIN_LIMIT) stop()
  })
  request.once('close', () => clearTimeout(timer)).once('end', () => clearTimeout(timer))
  request.resume()
}

interface Route {
  method: Method
  pattern: RegExp
  names: string[]
  handler: Handler
}

/** Docker answers it whatever the path, and says nothing. */
const ANY_OPTIONS: Pick<Route, 'handler'> = { handler: exchange => exchange.send(200) }

interface Target {
  path: string
  query: URLSearchParams
  version: string
}

/** Whatever has the look of a version is one, as for Docker. Throws 400 for what is no URL. */
function targetOf(url: string): Target {
  const mark = url.indexOf('?')
  const raw = mark < 0 ? url : url.slice(0, mark)
  const search = mark < 0 ? '' : url.slice(mark + 1)
  const [bad] = /%(?![0-9a-fA-F]{2}).{0,2}/.exec(search) ?? []
  if (bad !== undefined) throw new HttpError(400, `invalid URL escape ${JSON.stringify(bad)}`)
  const [prefix = '', version = API_VERSION] = /^\/v([0-9.]+)(?=\/)/.exec(raw) ?? []
  try {
    return { path: decodeURIComponent(raw.slice(prefix.length)), query: new URLSearchParams(search), version }
  } catch {
    throw new HttpError(400, `malformed path ${JSON.stringify(raw.slice(0, 200))}`)
  }
}

/** Clients of a version that is too old expect plain text, and would show JSON as it is. */
function refuseVersion(version: string): void {
  if (olderThan(version, MIN_API_VERSION))
    throw new HttpError(
      400,
      `client version ${version} is too old. Minimum supported API version is ${MIN_API_VERSION}, please upgrade your client to a newer version`,
      { 'Content-Type': 'text/plain; charset=utf-8' },
    )
  if (olderThan(API_VERSION, version))
    throw new HttpError(
      400,
      `client version ${version} is too new. Maximum supported API version is ${API_VERSION}`,
    )
}

export interface RouterOptions {
  /** Shown in the header Server and in /version. */
  product?: string
  log: Logger
}

export class Router {
  readonly #routes: Route[] = []
  readonly #options: RouterOptions

  constructor(options: RouterOptions) {
    this.#options = options
  }

  /**
   * `/networks/{id}/connect`: a name in braces stands for one or more characters, `/` included. Earlier routes go first;
   * HEAD is answered by a HEAD route only.
   */
  route(method: Method, path: string, handler: Handler): this {
    const names: string[] = []
    const pattern = path.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{(\w+)\}/g, (_, name: string) => {
      names.push(name)
      return '(.+?)'
    })
    this.#routes.push({ method, pattern: new RegExp(`^${pattern}$`, 's'), names, handler })
    return this
  }

  /** Answers one request. Never rejects, and never leaves a request without an answer. */
  async handle(
    request: IncomingMessage,
    response: ServerResponse,
    closing: AbortSignal,
    upgrade?: Takeover,
  ): Promise<void> {
    const gone = new AbortController()
    const leave = () => gone.abort()
    response.once('close', leave)
    closing.addEventListener('abort', leave, { once: true })
    if (closing.aborted) leave()
    try {
      this.#negotiate(response)
      const { path, query, version } = targetOf(request.url ?? '/')
      const { route, params } = this.#find(request.method ?? 'GET', path)
      refuseVersion(version)
      const exchange = new Exchange({
        params,
        query,
        version,
        request,
        response,
        signal: gone.signal,
        upgrade: upgrade && new Upgrade(request, upgrade),
      })
      const value = await route.handler(exchange)
      if (value !== undefined && !response.headersSent) exchange.send(200, value)
      else if (!response.headersSent && response.socket) exchange.send(200)
    } catch (error) {
      this.#refuse(request, response, error)
    } finally {
      closing.removeEventListener('abort', leave)
    }
  }

  #negotiate(response: ServerResponse): void {
    const { product = 'libcnm' } = this.#options
    response.setHeader('Api-Version', API_VERSION)
    response.setHeader('Docker-Experimental', 'false')
    response.setHeader('Ostype', 'linux')
    response.setHeader('Server', `${product}/${VERSION} (linux)`)
  }

  #find(method: string, path: string): { route: Pick<Route, 'handler'>; params: Record<string, string> } {
    for (const route of this.#routes) {
      if (route.method !== method) continue
      const match = route.pattern.exec(path)
      if (match)
        return {
          route,
          params: Object.fromEntries(route.names.map((name, at) => [name, match[at + 1] ?? ''])),
        }
    }
    if (method === 'OPTIONS') return { route: ANY_OPTIONS, params: {} }
    throw new HttpError(404, 'page not found')
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (request.destroyed && !request.complete) {
      response.destroy() // the client went away in the middle of its request
      return
    }
    const { status, message, headers } = answerTo(error)
    const what = `${request.method} ${(request.url ?? '').slice(0, 200)}`
    if (status >= 500) this.#options.log.error(`${what}: ${message}`, { error })
    else this.#options.log.debug(`${what}: ${status} ${message}`)
    if (response.headersSent || !response.socket) {
      response.destroy() // in the middle of an answer: a cut is the only way to say so
      return
    }
    const plain = headers['Content-Type']?.startsWith('text/plain')
    const body = `${plain ? message : JSON.stringify({ message })}\n`
    response
      .writeHead(status, {
        'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(body),
        ...headers,
      })
      .end(request.method === 'HEAD' ? undefined : body)
    if (!request.complete) drain(request)
  }
}
