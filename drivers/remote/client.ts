/**
 * One side of Docker's plugin protocol: JSON posted to `/SERVICE.METHOD`. Nothing that a plugin does, or fails to do, gets
 * further than an ERR_PLUGIN: what it sends is bounded in size and time, parsed, and checked.
 */
import * as http from 'node:http'
import * as https from 'node:https'
import { z } from 'zod'
import { CnmError } from '../../lib/base/errors'
import { findPlugin, type PluginAddress } from './discovery'

export interface ClientLimits {
  /** Milliseconds from the request to the last byte of the answer. */
  answerTime: number
  /** Bytes of an answer, and of a request. */
  size: number
  /** Milliseconds spent waiting for a plugin that cannot be connected to, all attempts together. */
  retryTime: number
  /** Waits; tests replace it. */
  wait(milliseconds: number): Promise<void>
}

const LIMITS: ClientLimits = {
  answerTime: 60_000,
  size: 1 << 20,
  retryTime: 30_000,
  wait: milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds)),
}

const MEDIA_TYPE = 'application/vnd.docker.plugins.v1.2+json'

/** The connection was never made: the plugin has seen nothing of the request. */
const UNCONNECTED = new Set(['ECONNREFUSED', 'ENOENT', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/** `sent`: the plugin may have acted on it, although no answer came that could be understood. */
interface Details {
  method: string
  plugin: string
  status?: number
  uncertain?: boolean
}

export class PluginClient {
  readonly #limits: ClientLimits

  constructor(
    readonly name: string,
    readonly address: PluginAddress,
    limits: Partial<ClientLimits> = {},
  ) {
    this.#limits = { ...LIMITS, ...limits }
  }

  /** The answer of a method, checked. `body` absent: nothing is sent. Throws ERR_PLUGIN. */
  async call<S extends z.ZodType>(method: string, body: object | undefined, answer: S): Promise<z.output<S>> {
    const sent = body === undefined ? '' : JSON.stringify(body)
    if (Buffer.byteLength(sent) > this.#limits.size)
      throw this.#error(method, `the request is larger than ${this.#limits.size} bytes`)
    const { status, text } = await this.#persist(method, sent)
    const value = readJson(text)
    if (status !== 200)
      throw this.#error(method, complaintIn(value) ?? (clean(text) || `HTTP status ${status}`), { status })
    if (value === undefined)
      throw this.#error(
        method,
        text.trim() ? `the answer is not JSON: ${clean(text)}` : 'the answer is empty',
        {
          uncertain: true,
        },
      )
    const complaint = complaintIn(value)
    if (complaint) throw this.#error(method, complaint)
    const parsed = answer.safeParse(value)
    if (parsed.success) return parsed.data
    const why = parsed.error.issues
      .slice(0, 5)
      .map(({ path, message }) => `${path.map(String).join('.') || 'the whole'}: ${message}`)
    throw this.#error(method, `the answer makes no sense: ${clean(why.join('; '))}`, { uncertain: true })
  }

  /** Tries again, after 1, 2, 4 … seconds, as long as no connection can be made. */
  async #persist(method: string, body: string): Promise<Reply> {
    let waited = 0
    for (let pause = 1000; ; pause *= 2) {
      try {
        return await this.#post(method, body)
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException
        if (!UNCONNECTED.has(code ?? '')) throw this.#error(method, message, { uncertain: true }, error)
        if (waited + pause > this.#limits.retryTime)
          throw this.#error(method, `cannot be connected to (${code}) at ${this.#place}`, {}, error)
        waited += pause
        await this.#limits.wait(pause)
      }
    }
  }

  get #place(): string {
    return 'socket' in this.address ? this.address.socket : `${this.address.host}:${this.address.port}`
  }

  #post(method: string, body: string): Promise<Reply> {
    const { answerTime, size } = this.#limits
    const { address } = this
    return new Promise((resolve, reject) => {
      const options: https.RequestOptions = {
        method: 'POST',
        path: `/${method}`,
        agent: false,
        headers: {
          Accept: MEDIA_TYPE,
          'Content-Type': MEDIA_TYPE,
          'Content-Length': Buffer.byteLength(body),
          ...('socket' in address && { Host: 'plugin.moby.localhost' }),
        },
        ...('socket' in address
          ? { socketPath: address.socket }
          : {
              host: address.host,
              port: address.port,
              ...(address.tls && {
                rejectUnauthorized: !address.tls.insecure,
                ca: address.tls.ca,
                cert: address.tls.cert,
                key: address.tls.key,
              }),
            }),
      }
      const secure = 'host' in address && address.tls !== undefined
      const request = (secure ? https : http).request(options)
      const timer = setTimeout(
        () => request.destroy(new Error(`no answer within ${answerTime} ms`)),
        answerTime,
      )
      const fail = (error: Error) => {
        clearTimeout(timer)
        request.destroy()
        reject(error)
      }
      request.on('error', fail)
      request.on('response', response => {
        const chunks: Buffer[] = []
        let bytes = 0
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes > size) fail(new Error(`the answer is larger than ${size} bytes`))
          else chunks.push(chunk)
        })
        response.on('error', fail)
        response.on('close', () => fail(new Error('the connection ended in the middle of the answer')))
        response.on('end', () => {
          clearTimeout(timer)
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') })
        })
      })
      request.end(body)
    })
  }

  #error(method: string, why: string, more: Partial<Details> = {}, cause?: unknown): CnmError {
    const details: Details = { plugin: this.name, method, ...more }
    return new CnmError(
      'ERR_PLUGIN',
      `remote: plugin ${this.name}, ${method}: ${why}`,
      { ...details },
      { cause },
    )
  }
}

interface Reply {
  status: number
  text: string
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Network plugins complain in `Err`, IPAM plugins in `Error`. */
function complaintIn(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { Err, Error: other } = value as { Err?: unknown; Error?: unknown }
  const complaint = [Err, other].find(text => typeof text === 'string' && text !== '')
  return complaint === undefined ? undefined : clean(complaint as string)
}

/** Fit for a terminal and a log: one line, no control characters, not endless. */
const clean = (text: string): string =>
  text
    .slice(0, 600)
    .replace(/[\p{C}\s]+/gu, ' ')
    .trim()
    .slice(0, 500)

/** Did the plugin say that it has no such method? */
export const isMissingMethod = (error: unknown): boolean =>
  (error as CnmError | undefined)?.code === 'ERR_PLUGIN' && (error as CnmError).details.status === 404

const Activation = z.looseObject({ Implements: z.array(z.string().max(200)).max(64) })

/** Plugins by name, each found and greeted once. */
export class Plugins {
  readonly #known = new Map<string, Promise<Greeted | undefined>>()

  constructor(
    private readonly directories: readonly string[],
    private readonly limits: Partial<ClientLimits> = {},
  ) {}

  /** Undefined when there is no plugin of that name. Throws ERR_PLUGIN when it does not offer the service. */
  async client(name: string, service: 'NetworkDriver' | 'IpamDriver'): Promise<PluginClient | undefined> {
    let greeting = this.#known.get(name)
    if (!greeting) {
      greeting = this.#greet(name)
      this.#known.set(name, greeting)
      const forget = () => this.#known.delete(name)
      greeting.then(found => found ?? forget(), forget)
    }
    const found = await greeting
    if (found && !found.services.includes(service))
      throw new CnmError(
        'ERR_PLUGIN',
        `remote: plugin ${name} does not implement ${service} (it implements: ${clean(found.services.join(', ')) || 'nothing'})`,
        { plugin: name, service },
      )
    return found?.client
  }

  async #greet(name: string): Promise<Greeted | undefined> {
    const address = await findPlugin(name, this.directories)
    if (!address) return undefined
    const client = new PluginClient(name, address, this.limits)
    const { Implements } = await client.call('Plugin.Activate', undefined, Activation)
    return { client, services: Implements }
  }
}

interface Greeted {
  client: PluginClient
  services: string[]
}
