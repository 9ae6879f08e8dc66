/** An HTTP server on a unix socket that only its owner may use. */
import { setMaxListeners } from 'node:events'
import { existsSync, lstatSync, rmSync } from 'node:fs'
import { createServer, type Server, ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Duplex } from 'node:stream'
import { CnmError } from '../base/errors'
import { makeFolder } from '../base/folder'
import type { Router } from './router'

export interface ListenOptions {
  /** Milliseconds until the headers of a request must be there. */
  headersTimeout?: number
  /** Milliseconds until a whole request must be there. */
  requestTimeout?: number
}

export interface Listening {
  readonly path: string
  /** Removes the socket, ends streams, lets requests finish that are under way. */
  close(): Promise<void>
}

export async function listen(
  router: Router,
  path: string,
  { headersTimeout = 10_000, requestTimeout = 30_000 }: ListenOptions = {},
): Promise<Listening> {
  await clearAway(path)
  makeFolder(dirname(path))
  const closing = new AbortController()
  setMaxListeners(0, closing.signal) // one for each request that is under way
  const server = createServer({
    headersTimeout,
    requestTimeout,
    connectionsCheckingInterval: Math.max(100, Math.min(headersTimeout, 5_000) / 2),
    maxHeaderSize: 64 * 1024,
    keepAliveTimeout: 60_000,
  })
  const busy = new Set<Promise<void>>()
  const track = (work: Promise<void>) => {
    busy.add(work)
    void work.finally(() => busy.delete(work))
  }
  server.on('request', (request, response) => track(router.handle(request, response, closing.signal)))
  server.on('upgrade', (request, socket: Socket, head) => {
    const response = new ServerResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    response.once('finish', () => leave(socket))
    socket.on('error', () => socket.destroy())
    // Node no longer watches such a connection.
    track(router.handle(request, response, closing.signal, { socket, head, patience: requestTimeout }))
  })
  server.on('clientError', refuseMalformed)
  const sockets = new Set<Socket>()
  server.on('connection', socket => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await bind(server, path)
  return {
    path,
    async close() {
      // The socket is gone at once. What is at the path from here on is a successor's.
      const closed = new Promise<void>(resolve => void server.close(() => resolve()))
      closing.abort()
      server.closeIdleConnections()
      await Promise.allSettled([...busy])
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** Milliseconds that a client has to read the last answer and go. */
const LINGER = 2_000

/** What still comes is read and dropped: closing before would take the answer from the client. */
function leave(socket: Socket): void {
  socket.end()
  socket.resume()
  expel(socket)
}

/** A connection is over when both ends have closed it, which a client need not ever do. */
function expel(socket: Duplex): void {
  const timer = setTimeout(() => socket.destroy(), LINGER)
  socket.once('close', () => clearTimeout(timer))
}

function refuseMalformed(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const [status, reason] =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? [408, 'Request Timeout']
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? [431, 'Request Header Fields Too Large']
        : [400, 'Bad Request']
  const body = `${JSON.stringify({ message: reason })}\n`
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
  expel(socket)
}

/** Clients that may wait to be accepted, as for dockerd; the kernel's net.core.somaxconn cuts it. */
const BACKLOG = 4096

/** The socket is born with mode 0600, so there is no moment in which somebody else could connect. */
function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    const before = process.umask(0o177)
    try {
      server.listen({ path, backlog: BACKLOG }, () => {
        server.off('error', reject)
        resolve()
      })
    } finally {
      process.umask(before)
    }
  })
}

/** A socket that nobody answers on is what a crash left behind; anything else at the path stays. */
async function clearAway(path: string): Promise<void> {
  if (!existsSync(path) && !lstatSync(path, { throwIfNoEntry: false })) return
  if (!lstatSync(path).isSocket())
    throw new CnmError('ERR_INVALID_OPTION', `${path} exists and is not a socket; choose another path`, {
      path,
    })
  if (await answers(path))
    throw new CnmError('ERR_API_IN_USE', `another process listens on ${path}`, { path })
  rmSync(path, { force: true })
}

function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    // One that is too busy to accept lives, too.
    socket.once('error', ({ code }: NodeJS.ErrnoException) =>
      resolve(code !== 'ECONNREFUSED' && code !== 'ENOENT'),
    )
  })
}
