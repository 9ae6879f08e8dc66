/** The other side of Docker's plugin protocol: offers drivers written to our contract to Docker Engine, or to another libcnm. */
import { once } from 'node:events'
import { chmod, rm, stat } from 'node:fs/promises'
import * as http from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { z } from 'zod'
import { CnmError, isCnmError } from '../../lib/base/errors'
import { makeFolder } from '../../lib/base/folder'
import { type Logger, SILENT } from '../../lib/base/log'

/** One method of the protocol: what it is asked (parsed by `request`) and what it answers. */
export interface Method {
  answer(body: unknown): Promise<object>
}

export const method = <S extends z.ZodType>(
  request: S,
  body: (request: z.output<S>) => Promise<object>,
): Method => ({
  async answer(sent) {
    const parsed = request.safeParse(sent)
    if (!parsed.success)
      throw new CnmError(
        'ERR_INVALID_OPTION',
        parsed.error.issues
          .map(({ path, message }) => `${path.map(String).join('.') || 'request'}: ${message}`)
          .join('; '),
      )
    return body(parsed.data)
  },
})

export interface PluginServer {
  /** Where it listens. */
  readonly socket: string
  /** Stops listening; what is being answered is finished. What the driver made stays. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export interface PluginServerOptions {
  /** Path of the socket; for Docker: /run/docker/plugins/NAME.sock. */
  socket: string
  log?: Logger
}

/** Bytes of a request. */
const REQUEST_LIMIT = 1 << 20
const TOO_LARGE = 413
/** Milliseconds in which a request must have arrived. */
const REQUEST_TIME = 30_000

const MEDIA_TYPE = 'application/vnd.docker.plugins.v1.2+json'

/** `methods`: `SERVICE.METHOD` → what it does. Throws ERR_PLUGIN when something listens on the socket already. */
export async function servePlugin(
  service: 'NetworkDriver' | 'IpamDriver',
  methods: Record<string, Method>,
  { socket, log = SILENT }: PluginServerOptions,
  finish: () => Promise<void>,
): Promise<PluginServer> {
  await makeRoom(socket)
  const handlers = new Map<string, Method>(
    Object.entries(methods).map(([name, each]) => [`/${service}.${name}`, each]),
  )
  handlers.set('/Plugin.Activate', { answer: async () => ({ Implements: [service] }) })
  const server = http.createServer({ requestTimeout: REQUEST_TIME }, (request, response) => {
    respond(request, handlers, log).then(({ status, text }) => {
      if (response.destroyed) return
      response.writeHead(status, { 'Content-Type': MEDIA_TYPE, 'Content-Length': Buffer.byteLength(text) })
      response.end(text, () => {
        if (status === TOO_LARGE) request.destroy() // the rest is not waited for
      })
    })
  })
  server.listen(socket)
  await once(server, 'listening')
  await chmod(socket, 0o600) // whoever can talk to it changes the host
  const close = async () => {
    if (!server.listening) return
    const closed = once(server, 'close')
    server.close()
    server.closeIdleConnections()
    await closed
    await rm(socket, { force: true })
    await finish()
  }
  return { socket, close, [Symbol.asyncDispose]: close }
}

async function makeRoom(socket: string): Promise<void> {
  makeFolder(dirname(socket))
  const present = await stat(socket).catch(() => undefined)
  if (!present) return
  if (!present.isSocket()) throw new CnmError('ERR_PLUGIN', `${socket} exists and is no socket`, { socket })
  const alive = await new Promise<boolean>(resolve => {
    const probe = connect(socket, () => resolve(true)).on('error', () => resolve(false))
    probe.on('connect', () => probe.destroy())
  })
  if (alive) throw new CnmError('ERR_PLUGIN', `another plugin listens on ${socket}`, { socket })
  await rm(socket, { force: true }) // left by one that died
}

async function respond(
  request: http.IncomingMessage,
  handlers: Map<string, Method>,
  log: Logger,
): Promise<{ status: number; text: string }> {
  const name = request.url ?? ''
  const handler = handlers.get(name)
  if (request.method !== 'POST' || !handler) {
    request.resume()
    return refusal(404, `there is no method ${name.slice(0, 80)}`)
  }
  try {
    const text = await readAll(request)
    if (text === undefined) return refusal(TOO_LARGE, `the request is larger than ${REQUEST_LIMIT} bytes`)
    const answer = await handler.answer(text === '' ? {} : JSON.parse(text))
    return { status: 200, text: JSON.stringify(answer) }
  } catch (error) {
    const message = error instanceof Error || isCnmError(error) ? error.message : String(error)
    log.warn(`plugin method ${name} failed`, { error })
    return refusal(error instanceof SyntaxError ? 400 : 500, message)
  }
}

/** Network drivers complain in `Err`, IPAM drivers in `Error`. */
const refusal = (status: number, message: string) => ({
  status,
  text: JSON.stringify({ Err: message, Error: message }),
})

/** Undefined when it is too large. */
async function readAll(request: http.IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    bytes += (chunk as Buffer).length
    if (bytes > REQUEST_LIMIT) return undefined
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}
