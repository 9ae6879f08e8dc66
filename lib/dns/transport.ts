import { Socket as TcpSocket } from 'node:net'
import { constants } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { familyOf } from '../base/cidr'
import type { Datagrams, Stack } from '../kernel/kernel'
import type { Upstream } from './contract'
import { randomId, type Transport } from './forward'
import { Frames, frame } from './frames'
import { upstreamKey } from './upstream'

/** Questions that one port serves, and milliseconds that it lives: then another (random) port takes over. */
const PORT = { uses: 500, age: 10_000, idle: 5000, pending: 200 }

/** Sockets speak to one address only: no name is ever looked up. */
const literal = (
  host: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void => callback(null, host, host.includes(':') ? 6 : 4)

/**
 * Carries questions to servers, from the host's or the sandbox's namespace. UDP sockets are connected, so the kernel
 * drops what comes from anybody else; ports and ids are random and change often.
 */
export class SocketTransport implements Transport {
  readonly #ports = new Map<string, Port[]>()
  readonly #connections = new Set<TcpSocket>()
  #closed = false

  constructor(readonly stacks: { host: Stack; sandbox: Stack }) {}

  send(
    upstream: Upstream,
    protocol: 'udp' | 'tcp',
    message: Buffer,
    done: (error: Error | undefined, reply?: Buffer) => void,
  ): () => void {
    if (this.#closed) return failSoon(new Error('closed'), done)
    try {
      return protocol === 'udp'
        ? this.#port(upstream).send(message, done)
        : this.#tcp(upstream, message, done)
    } catch (error) {
      return failSoon(error as Error, done)
    }
  }

  close(): void {
    this.#closed = true
    for (const ports of this.#ports.values()) for (const port of [...ports]) port.close()
    for (const connection of this.#connections) connection.destroy()
  }

  #port(upstream: Upstream): Port {
    const key = upstreamKey(upstream)
    let ports = this.#ports.get(key)
    if (!ports) {
      ports = []
      this.#ports.set(key, ports)
    }
    const fresh = ports.find(port => port.fresh)
    if (fresh) return fresh
    const own = ports
    const port = new Port(this.stacks[upstream.from], upstream, gone => {
      own.splice(own.indexOf(gone), 1)
      if (own.length === 0) this.#ports.delete(key)
    })
    own.push(port)
    return port
  }

  #tcp(
    upstream: Upstream,
    message: Buffer,
    done: (error: Error | undefined, reply?: Buffer) => void,
  ): () => void {
    const stack = this.stacks[upstream.from]
    const family = familyOf(upstream.address)
    const fd = stack.openSocket({ type: 'tcp', address: family === 4 ? '0.0.0.0' : '::', port: 0 })
    // Not read before it is connected (manualStart): the descriptor is a socket that nobody has connected yet.
    const socket = new TcpSocket({ fd, readable: true, writable: true, manualStart: true } as object)
    this.#connections.add(socket)
    const id = randomId()
    const sent = Buffer.from(message)
    sent.writeUInt16BE(id, 0)
    let over = false
    const end = (error: Error | undefined, reply?: Buffer) => {
      if (over) return
      over = true
      socket.destroy()
      done(error, reply)
    }
    const frames = new Frames()
    socket.on('data', chunk => {
      for (const reply of frames.push(chunk) ?? [])
        if (reply.length >= 12 && reply.readUInt16BE(0) === id) end(undefined, reply)
    })
    socket.on('error', error => end(error))
    socket.on('close', () => {
      this.#connections.delete(socket)
      end(new Error('connection closed'))
    })
    socket.connect({ host: upstream.address, port: upstream.port ?? 53, lookup: literal })
    socket.write(frame(sent))
    return () => {
      over = true
      socket.destroy()
    }
  }
}

type Pending = (error: Error | undefined, reply?: Buffer) => void

/** To whom the socket is connected. */
const PEER = new Uint8Array(0)

/** One connected UDP socket. */
class Port {
  readonly #socket: Datagrams
  readonly #pending = new Map<number, Pending>()
  readonly #born = performance.now()
  readonly #idle: NodeJS.Timeout
  #uses = 0
  #closed = false

  constructor(
    stack: Stack,
    { address, port = 53 }: Upstream,
    readonly gone: (port: Port) => void,
  ) {
    const any = familyOf(address) === 4 ? '0.0.0.0' : '::'
    const fd = stack.openSocket({ type: 'udp', address: any, port: 0, peer: { address, port } })
    try {
      this.#socket = stack.serveDatagrams(fd, count => this.#hear(count))
    } catch (error) {
      stack.closeFd(fd)
      throw error
    }
    this.#idle = setTimeout(() => {
      if (this.#pending.size > 0) this.#idle.refresh()
      else this.close()
    }, PORT.idle)
    this.#idle.unref()
  }

  get fresh(): boolean {
    return (
      !this.#closed &&
      this.#uses < PORT.uses &&
      this.#pending.size < PORT.pending &&
      performance.now() - this.#born < PORT.age
    )
  }

  send(message: Buffer, done: Pending): () => void {
    this.#uses++
    let id = randomId()
    while (this.#pending.has(id)) id = randomId()
    this.#pending.set(id, done)
    message.writeUInt16BE(id, 0)
    const errno = this.#socket.send(message, PEER)
    // no room: it is lost, as it may be on the way
    if (errno !== 0 && errno !== constants.errno.EAGAIN)
      queueMicrotask(() => {
        if (!this.#pending.delete(id)) return
        done(failure(errno))
        this.#rest()
      })
    return () => {
      if (this.#pending.delete(id)) this.#rest()
    }
  }

  #hear(count: number): void {
    if (count < 0) {
      // An ICMP error (ECONNREFUSED): nobody listens there, so none of the questions will be answered.
      this.#fail(failure(-count))
      return
    }
    const { heard, heardLengths } = this.#socket
    const slot = heard.length / heardLengths.length
    for (let i = 0; i < count; i++) {
      const length = heardLengths[i] as number
      if (length < 12) continue
      const base = i * slot
      const id = ((heard[base] as number) << 8) | (heard[base + 1] as number)
      const done = this.#pending.get(id)
      if (!done) continue
      this.#pending.delete(id)
      done(undefined, Buffer.from(heard.subarray(base, base + length))) // the slot is used again
    }
    this.#rest()
  }

  #fail(error: Error): void {
    const waiting = [...this.#pending.values()]
    this.close()
    for (const done of waiting) done(error)
  }

  /** Closes when nobody waits and it is spent; otherwise after a while without use. */
  #rest(): void {
    if (this.#closed || this.#pending.size > 0) return
    if (this.fresh) this.#idle.refresh()
    else this.close()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#idle)
    this.#pending.clear()
    this.#socket.close()
    this.gone(this)
  }
}

const failure = (errno: number): Error =>
  new Error(`${getSystemErrorName(-errno)} from the name server's side`)

function failSoon(error: Error, done: Pending): () => void {
  let wanted = true
  queueMicrotask(() => {
    if (wanted) done(error)
  })
  return () => {
    wanted = false
  }
}
