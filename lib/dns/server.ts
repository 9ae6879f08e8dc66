import { createServer, type Server as TcpServer, type Socket as TcpSocket } from 'node:net'
import type { Logger } from '../base/log'
import { Frames, frame } from './frames'
import type { Responder } from './responder'
import type { UdpServer } from './udp'

/** What TCP clients may take (counts, bytes, milliseconds). */
const TCP = {
  /** Connections per resolver. One more: the one that has been idle longest goes. */
  connections: 128,
  /** Without a whole question for this long: closed. Slow and silent clients cost no more than this. */
  idle: 10_000,
  /** Questions of one connection that wait for upstreams; it is not read meanwhile. */
  waiting: 64,
  /** Bytes of a question. */
  question: 4096,
  /** Bytes of answers that a client has not taken yet. */
  unread: 256 * 1024,
}

/**
 * Hears questions on one UDP and one TCP socket and lets a {@link Responder} answer. Neither keeps the process alive. Owns
 * what it was given.
 */
export class DnsServer {
  readonly #tcp: TcpServer
  readonly #clients = new Set<Client>()
  #closed = false

  private constructor(
    readonly responder: Responder,
    readonly udp: UdpServer,
    readonly log: Logger,
  ) {
    this.#tcp = createServer({ noDelay: true, allowHalfOpen: true }, socket => this.#accept(socket))
  }

  /** Takes over the TCP socket `fd` and the UDP server: they are closed with the server, also when this fails. */
  static async open(responder: Responder, udp: UdpServer, fd: number, log: Logger): Promise<DnsServer> {
    const server = new DnsServer(responder, udp, log)
    try {
      await server.#listen(fd)
    } catch (error) {
      server.#tcp.close()
      udp.close()
      throw error
    }
    return server
  }

  get udpPort(): number {
    return this.udp.port
  }

  get tcpPort(): number {
    return (this.#tcp.address() as { port: number }).port
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const client of this.#clients) client.destroy()
    this.udp.close()
    await new Promise<void>(resolve => this.#tcp.close(() => resolve()))
  }

  async #listen(fd: number): Promise<void> {
    const tcp = this.#tcp
    await new Promise<void>((resolve, reject) => {
      tcp.once('error', reject)
      tcp.listen({ fd, exclusive: true }, resolve)
    })
    tcp.removeAllListeners('error').on('error', error => this.log.warn('DNS over TCP', { error }))
    tcp.unref()
  }

  #accept(socket: TcpSocket): void {
    if (this.#clients.size >= TCP.connections) {
      let oldest: Client | undefined
      for (const client of this.#clients)
        if (client.waiting === 0 && (!oldest || client.since < oldest.since)) oldest = client
      if (!oldest) {
        socket.destroy()
        return
      }
      oldest.destroy()
    }
    const client = new Client(socket, this.responder, this.log, () => this.#clients.delete(client))
    this.#clients.add(client)
  }
}

/** One TCP connection: any number of questions, answered in the order in which the answers come (RFC 7766 6.2.1.1). */
class Client {
  /** When it last asked something, or connected. */
  since = performance.now()
  waiting = 0
  readonly #frames = new Frames(TCP.question)
  #timer: NodeJS.Timeout
  #ended = false

  constructor(
    readonly socket: TcpSocket,
    readonly responder: Responder,
    readonly log: Logger,
    gone: () => void,
  ) {
    socket.unref()
    this.#timer = this.#watch()
    socket.on('data', chunk => this.#hear(chunk))
    socket.on('end', () => {
      this.#ended = true
      this.#finish()
    })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      clearTimeout(this.#timer)
      gone()
    })
  }

  destroy(): void {
    this.socket.destroy()
  }

  #hear(chunk: Buffer): void {
    const messages = this.#frames.push(chunk)
    if (!messages) {
      this.destroy()
      return
    }
    if (messages.length === 0) return
    this.since = performance.now()
    this.#timer.refresh()
    try {
      for (const message of messages) {
        if (this.socket.destroyed) return
        const answer = this.responder.quick(message, true)
        if (answer) this.#say(answer)
        else if (answer === null) {
          this.waiting++
          this.responder.slow(message, true, late => {
            this.waiting--
            if (this.socket.destroyed) return
            this.#say(late)
            if (this.waiting < TCP.waiting) this.socket.resume()
            this.#finish()
          })
        } else {
          // No question: whoever speaks so has no business here.
          this.destroy()
          return
        }
      }
      if (this.waiting >= TCP.waiting) this.socket.pause()
    } catch (error) {
      this.log.error('a DNS question over TCP could not be answered', { error })
      this.destroy()
    }
  }

  #say(answer: Buffer): void {
    this.socket.write(frame(answer))
    if (this.socket.writableLength > TCP.unread) this.destroy()
  }

  #finish(): void {
    if (this.#ended && this.waiting === 0) this.socket.end()
  }

  #watch(): NodeJS.Timeout {
    const timer = setTimeout(() => {
      if (this.waiting > 0) timer.refresh()
      else this.destroy()
    }, TCP.idle)
    timer.unref()
    return timer
  }
}
