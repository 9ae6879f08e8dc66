import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { Socket as TcpSocket } from 'node:net'
import { familyOf } from '../base/cidr'
import type { Stack } from '../kernel/kernel'
import type { Upstream } from './contract'
import { randomId, type Transport } from './forward'
import { Frames, frame } from './frames'
import { upstreamKey } from './upstream'

/** Questions that one port serves, and milliseconds that it lives: then another (random) port takes over. */
const PORT = { uses: 500, age: 10_000, idle: 5000, pending: 200 }

/** Sockets speak to one address only: no name is ever looked up. */
export const literal = (
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

/** One connected UDP socket. */
class Port {
  readonly #socket: UdpSocket
  readonly #pending = new Map<number, Pending>()
  readonly #born = performance.now()
  #uses = 0
  #idle: NodeJS.Timeout | undefined
  #closed = false

  constructor(
    stack: Stack,
    upstream: Upstream,
    readonly gone: (port: Port) => void,
  ) {
    const family = familyOf(upstream.address)
    const fd = stack.openSocket({ type: 'udp', address: family === 4 ? '0.0.0.0' : '::', port: 0 })
    this.#socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6', lookup: literal })
    this.#socket.on('message', message => this.#receive(message))
    // ICMP errors (ECONNREFUSED) surface here: nobody listens there, so none of the questions will be answered.
    this.#socket.on('error', error => this.#fail(error))
    this.#socket.bind({ fd, exclusive: true })
    this.#socket.connect(upstream.port ?? 53, upstream.address)
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
    clearTimeout(this.#idle)
    this.#uses++
    let id = randomId()
    while (this.#pending.has(id)) id = randomId()
    this.#pending.set(id, done)
    const sent = Buffer.from(message)
    sent.writeUInt16BE(id, 0)
    this.#socket.send(sent, error => {
      if (error && this.#pending.delete(id)) {
        done(error)
        this.#rest()
      }
    })
    return () => {
      if (this.#pending.delete(id)) this.#rest()
    }
  }

  #receive(message: Buffer): void {
    if (message.length < 12) return
    const id = message.readUInt16BE(0)
    const done = this.#pending.get(id)
    if (!done) return
    this.#pending.delete(id)
    done(undefined, message)
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
    if (!this.fresh) {
      this.close()
      return
    }
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => this.close(), PORT.idle)
    this.#idle.unref()
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

function failSoon(error: Error, done: Pending): () => void {
  let wanted = true
  queueMicrotask(() => {
    if (wanted) done(error)
  })
  return () => {
    wanted = false
  }
}
