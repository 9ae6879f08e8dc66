/** Talks to a served API over its unix socket. */
import { type IncomingMessage, request as httpRequest } from 'node:http'
import type { NetworkJson } from '../api/network-json'

/** Nobody serves: exit code 125. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError'
}

/** The API said no: exit code 1. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  constructor(
    readonly status: number,
    message: string,
    /** The error's code, when the library has one for it. */
    readonly code: string | undefined,
  ) {
    super(message)
  }
}

export class Client {
  readonly #path: string
  readonly #end: () => Promise<void>

  /** `end` is called by {@link close}: for a controller in this process. */
  constructor(path: string, end: () => Promise<void> = async () => {}) {
    this.#path = path
    this.#end = end
  }

  close(): Promise<void> {
    return this.#end()
  }

  get = <T>(path: string): Promise<T> => this.#json<T>('GET', path)
  post = <T>(path: string, body?: unknown): Promise<T> => this.#json<T>('POST', path, body)
  delete = (path: string): Promise<void> => this.#json<void>('DELETE', path)

  networks(filters: Record<string, string[]> = {}): Promise<NetworkJson[]> {
    return this.get(`/networks?filters=${encodeURIComponent(JSON.stringify(filters))}`)
  }

  async #json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await this.#open(method, path, body)
    const text = await textOf(response)
    return (text ? JSON.parse(text) : undefined) as T
  }

  /** Resolves when the server has begun. Lines of JSON as they come, until the signal or the server ends them. */
  async stream<T>(path: string, signal: AbortSignal): Promise<AsyncGenerator<T, void, void>> {
    const response = await this.#open('GET', path, undefined, signal).catch((error: unknown) => {
      if (!signal.aborted) throw error
      return undefined
    })
    return this.#lines<T>(response, signal)
  }

  /** No lines where the signal came before the response. */
  async *#lines<T>(
    response: IncomingMessage | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<T, void, void> {
    if (!response) return
    let rest = ''
    response.setEncoding('utf8')
    try {
      for await (const part of response as AsyncIterable<string>) {
        const lines = (rest + part).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines) if (line) yield JSON.parse(line) as T
      }
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  #open(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<IncomingMessage> {
    const payload = body === undefined ? undefined : JSON.stringify(body)
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        socketPath: this.#path,
        method,
        path,
        agent: false,
        signal,
        headers:
          payload === undefined
            ? {}
            : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(payload) },
      })
      request.once('error', error => reject(unreachable(this.#path, error)))
      request.once('response', response => {
        const status = response.statusCode ?? 0
        if (status < 300) resolve(response)
        else
          textOf(response).then(text => {
            const code = response.headers['libcnm-error']
            reject(new ApiError(status, messageOf(text, status), typeof code === 'string' ? code : undefined))
          }, reject)
      })
      request.end(payload)
    })
  }
}

function unreachable(path: string, error: NodeJS.ErrnoException): Error {
  if (error.name === 'AbortError') return error
  const why: Record<string, string> = {
    ENOENT: 'there is no such socket',
    ECONNREFUSED: 'nobody listens there',
    EACCES: 'permission denied; it is its owner’s alone',
  }
  return new ConnectionError(
    `cannot reach ${path}: ${why[error.code ?? ''] ?? error.message}. Start "cnm serve", say where it is with --host, or use --data-dir`,
  )
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

function messageOf(text: string, status: number): string {
  try {
    return String((JSON.parse(text) as { message: unknown }).message)
  } catch {
    return `the server answered with status ${status}`
  }
}
