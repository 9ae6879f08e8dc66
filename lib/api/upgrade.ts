/** Connections that leave HTTP. Node hands them over after the headers: a body that still comes is read here. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { readBody } from './body'
import { HttpError } from './errors'
import { rawBodyOf } from './raw-body'

/** What Node hands over with a request that wants the connection itself. */
export interface Takeover {
  socket: Duplex
  head: Buffer
  /** Milliseconds until the body must be there. */
  patience: number
}

export class Upgrade {
  readonly #socket: Duplex
  readonly #request: IncomingMessage
  readonly #patience: number
  #head: Buffer

  constructor(request: IncomingMessage, { socket, head, patience }: Takeover) {
    this.#request = request
    this.#socket = socket
    this.#head = head
    this.#patience = patience
  }

  body(limit: number): Promise<Buffer> {
    // Since Node 26 the body is the request's, as with any other; before, it comes over the connection that was handed over.
    const own = !this.#request.complete || this.#request.readableLength > 0
    return inTime(own ? readBody(this.#request, limit) : this.#readRaw(limit), this.#patience)
  }

  async #readRaw(limit: number): Promise<Buffer> {
    const body = rawBodyOf(this.#request.headers, limit)
    let rest = body.add(this.#head)
    while (!rest) {
      const chunk = await nextChunk(this.#socket)
      if (!chunk) throw new HttpError(400, 'unexpected EOF')
      rest = body.add(chunk)
    }
    this.#head = rest
    return body.bytes()
  }

  /** Answers 101. What the client has sent after its body comes first. */
  take(response: ServerResponse, contentType: string): Duplex {
    response.detachSocket(this.#socket as never)
    const lines = Object.entries(response.getHeaders()).map(([name, value]) => `${name}: ${String(value)}`)
    this.#socket.write(
      [
        'HTTP/1.1 101 UPGRADED',
        ...lines,
        `Content-Type: ${contentType}`,
        'Connection: Upgrade',
        'Upgrade: tcp',
        '\r\n',
      ].join('\r\n'),
    )
    if (this.#head.length) this.#socket.unshift(this.#head)
    return this.#socket
  }
}

/** Refuses a body that does not come, or comes in trickles. */
function inTime(body: Promise<Buffer>, patience: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(reject, patience, new HttpError(408, 'Request Timeout'))
    body.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

function nextChunk(socket: Duplex): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      socket.pause()
      socket.off('data', done).off('end', ended).off('error', failed).off('close', ended)
    }
    const done = (chunk?: Buffer) => {
      leave()
      resolve(chunk)
    }
    const ended = () => done()
    const failed = (error: Error) => {
      leave()
      reject(error)
    }
    socket.on('data', done).once('end', ended).once('error', failed).once('close', ended)
    socket.resume()
  })
}
