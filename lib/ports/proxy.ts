/**
 * The userland proxy: one for the whole controller, in this event loop. It carries what the kernel cannot translate:
 * `[::1]`, IPv6 to a container that has only IPv4, hosts without a firewall. Sockets live in the host's namespace.
 */
import { type Socket as UdpSocket, createSocket } from 'node:dgram'
import { once } from 'node:events'
import { BlockList, type Server, type Socket, connect, createServer } from 'node:net'
import { familyOf } from '../base/cidr'
import { type Logger, SILENT } from '../base/log'
import type { Stack } from '../kernel/kernel'
import { proxyHeader } from './proxy-header'

/** Where one listening port leads. */
export interface ProxyTarget {
  containerIp: string
  containerPort: number
  /** Sources that may use it (CIDR); everybody when absent. */
  allowFrom?: string[]
  proxyProtocol?: boolean
  /** Serve only what comes over `[::1]`: the rest is the kernel's to translate. */
  loopbackOnly?: boolean
}

export interface ProxyLimits {
  /** TCP connections at once, of all mappings; each costs two descriptors. */
  connections: number
  /** UDP clients remembered at once, of all mappings; each costs one descriptor. The one longest silent makes room. */
  sessions: number
  /** Milliseconds without a datagram either way after which a UDP client is forgotten. */
  sessionIdle: number
}

export const PROXY_LIMITS: ProxyLimits = { connections: 4096, sessions: 4096, sessionIdle: 90_000 }

/** Milliseconds; a peer that vanished without a word is noticed by keep-alive probes. */
const KEEP_ALIVE = 60_000

/** A port that is being proxied. */
export interface ProxyListener {
  /** New connections and clients go there. Those under way stay, unless they are no longer allowed. */
  redirect(target: ProxyTarget): void
  /** Ends its connections too; resolves when the descriptors are closed. */
  close(): Promise<void>
}

export interface UdpListener extends ProxyListener {
  /** Listens on one more bound socket; its replies leave from there. Takes the descriptor over. */
  add(address: string, fd: number): void
  /** Gives up the socket of an address that the host no longer has. */
  drop(address: string): void
}

/** What the publisher needs of a proxy. */
export interface PortProxy {
  /** How much is under way; for statistics and tests. */
  readonly load: { connections: number; sessions: number }
  /** Serves a bound or listening TCP socket, whose descriptor it takes over. */
  tcp(fd: number, target: ProxyTarget): Promise<ProxyListener>
  /** Serves bound UDP sockets (descriptor by address), which it takes over. */
  udp(sockets: Iterable<readonly [address: string, fd: number]>, target: ProxyTarget): UdpListener
  close(): Promise<void>
}

const plain = (address: string | undefined) => address?.replace(/%.*$/, '') ?? ''

/** Answers `allowFrom` and `loopbackOnly`. */
class Gate {
  readonly #list: BlockList | undefined

  constructor(readonly target: ProxyTarget) {
    if (!target.allowFrom) return
    this.#list = new BlockList()
    for (const source of target.allowFrom) {
      const [address = '', length] = source.split('/')
      this.#list.addSubnet(address, Number(length), familyName(address))
    }
  }

  /** @param local what the client connected to; for datagrams, where it is not known, the client's own address */
  admits(client: string, local: string): boolean {
    if (this.target.loopbackOnly && local !== '::1') return false
    return this.#list?.check(client, familyName(client)) ?? true
  }
}

const familyName = (address: string) => (familyOf(address) === 4 ? 'ipv4' : 'ipv6')

export class UserlandProxy implements PortProxy {
  readonly #stack: Stack
  readonly #log: Logger
  readonly #limits: ProxyLimits
  readonly #listeners = new Set<ProxyListener>()
  #connections = 0
  /** In the order of their last datagram, the longest silent first. */
  readonly #sessions = new Map<string, Session>()
  #serial = 0

  constructor(options: { stack: Stack; log?: Logger; limits?: Partial<ProxyLimits> }) {
    this.#stack = options.stack
    this.#log = options.log ?? SILENT
    this.#limits = { ...PROXY_LIMITS, ...options.limits }
  }

  get load(): { connections: number; sessions: number } {
    return { connections: this.#connections, sessions: this.#sessions.size }
  }

  async tcp(fd: number, target: ProxyTarget): Promise<ProxyListener> {
    let gate = new Gate(target)
    const clients = new Map<Socket, string>()
    const server: Server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true }, client => {
      const address = plain(client.remoteAddress)
      // it went before it was accepted: there is no address any more
      if (!address) return void client.destroy()
      client.on('error', () => {}) // handled where it is closed
      const local = plain(client.localAddress)
      if (!gate.admits(address, local)) return void client.resetAndDestroy()
      if (this.#connections >= this.#limits.connections) {
        this.#log.warn(`userland proxy: ${this.#connections} connections; one from ${address} was refused`, {
          port: client.localPort,
          limit: this.#limits.connections,
        })
        return void client.resetAndDestroy()
      }
      this.#connections++
      clients.set(client, address)
      client.once('close', () => {
        this.#connections--
        clients.delete(client)
      })
      this.#join(client, gate.target, address, local)
    })
    server.listen({ fd })
    await once(server, 'listening')
    server.on('error', error => this.#log.error(`userland proxy: ${error.message}`, { error }))
    const listener: ProxyListener = {
      redirect: next => {
        gate = new Gate(next)
        for (const [client, address] of clients)
          if (!gate.admits(address, plain(client.localAddress))) client.resetAndDestroy()
      },
      close: async () => {
        if (!this.#listeners.delete(listener)) return
        const closed = new Promise<void>(resolve => server.close(() => resolve()))
        for (const client of clients.keys()) client.resetAndDestroy()
        await closed
      },
    }
    this.#listeners.add(listener)
    return listener
  }

  /** Copies both ways until both sides have ended; each direction ends on its own (half-close). */
  #join(client: Socket, target: ProxyTarget, address: string, local: string): void {
    const family = familyOf(target.containerIp)
    /*
     * The socket must be made while the thread is in the host's namespace. For an address in the options Node makes it
     * in the next tick, which is too late; for a name it asks `lookup`, and if that answers at once, connects at once.
     */
    const server = this.#stack.run(() =>
      connect({
        host: 'container',
        port: target.containerPort,
        family,
        autoSelectFamily: false,
        lookup: (_name, _options, answer) => answer(null, target.containerIp, family),
        allowHalfOpen: true,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE,
      }),
    )
    client.setKeepAlive(true, KEEP_ALIVE)
    if (target.proxyProtocol)
      server.write(
        proxyHeader({
          source: address,
          sourcePort: client.remotePort!,
          destination: local,
          destinationPort: client.localPort!,
        }),
      )
    server.on('error', error => {
      this.#log.debug(`userland proxy: ${target.containerIp}:${target.containerPort}: ${error.message}`)
    })
    // pipe() ends the other side when this one has ended, and pauses this one while the other is full
    client.pipe(server)
    server.pipe(client)
    // A close before the end is a reset or a failure: the other side hears of it in the same way.
    client.once('close', () => endWith(client, server))
    server.once('close', () => endWith(server, client))
  }

  udp(sockets: Iterable<readonly [address: string, fd: number]>, target: ProxyTarget): UdpListener {
    let gate = new Gate(target)
    const serial = this.#serial++
    const bound = new Map<string, UdpSocket>()
    const own = new Map<string, Session>()
    const closing = new Set<UdpSocket>()
    const closeSocket = (socket: UdpSocket) => {
      closing.add(socket)
      socket.close(() => closing.delete(socket))
    }

    const forget = (session: Session) => {
      if (!own.delete(session.key)) return
      this.#sessions.delete(session.key)
      clearTimeout(session.timer)
      closeSocket(session.socket)
    }
    const onDatagram = (
      front: UdpSocket,
      at: string,
      data: Buffer,
      from: { address: string; port: number },
    ) => {
      const address = plain(from.address)
      if (!gate.admits(address, address)) return
      const key = `${serial} ${at} ${from.address} ${from.port}`
      let session = own.get(key)
      if (session) {
        this.#sessions.delete(key) // and set again below: it goes to the end of the queue
        session.timer.refresh()
      } else {
        if (this.#sessions.size >= this.#limits.sessions) this.#oldest()?.forget()
        const socket = this.#udpToward(gate.target, reply => {
          session!.timer.refresh()
          front.send(reply, from.port, from.address, ignoreError)
        })
        if (!socket) return
        const made: Session = {
          key,
          client: address,
          at,
          socket,
          target: gate.target,
          timer: setTimeout(() => forget(made), this.#limits.sessionIdle).unref(),
          forget: () => forget(made),
        }
        session = made
        own.set(key, session)
      }
      this.#sessions.set(key, session)
      session.socket.send(data, session.target.containerPort, session.target.containerIp, ignoreError)
    }
    const listener: UdpListener = {
      add: (address, fd) => {
        const front = dgram(familyOf(address))
        front.on('message', (data, from) => onDatagram(front, address, data, from))
        // ICMP errors about replies come back here; they concern one client only
        front.on('error', error => this.#log.debug(`userland proxy: udp ${address}: ${error.message}`))
        front.bind({ fd })
        bound.set(address, front)
      },
      drop: address => {
        const front = bound.get(address)
        if (!front) return
        bound.delete(address)
        for (const session of [...own.values()]) if (session.at === address) forget(session)
        closeSocket(front)
      },
      redirect: next => {
        gate = new Gate(next)
        for (const session of [...own.values()])
          if (
            !gate.admits(session.client, session.client) ||
            session.target.containerIp !== next.containerIp ||
            session.target.containerPort !== next.containerPort
          )
            forget(session)
      },
      close: async () => {
        if (!this.#listeners.delete(listener)) return
        for (const session of [...own.values()]) forget(session)
        for (const address of [...bound.keys()]) listener.drop(address)
        await Promise.all([...closing].map(socket => once(socket, 'close')))
      },
    }
    for (const [address, fd] of sockets) listener.add(address, fd)
    this.#listeners.add(listener)
    return listener
  }

  /** A socket of the host toward a container; undefined when descriptors have run out. */
  #udpToward(target: ProxyTarget, onReply: (data: Buffer) => void): UdpSocket | undefined {
    const family = familyOf(target.containerIp)
    let fd: number
    try {
      fd = this.#stack.openSocket({ type: 'udp', address: family === 4 ? '0.0.0.0' : '::', port: 0 })
    } catch (error) {
      this.#log.warn(`userland proxy: no socket for a new UDP client: ${(error as Error).message}`, { error })
      return undefined
    }
    const socket = dgram(family)
    socket.on('message', (data, from) => {
      if (from.port === target.containerPort && plain(from.address) === target.containerIp) onReply(data)
    })
    socket.on('error', error => this.#log.debug(`userland proxy: udp: ${error.message}`))
    socket.bind({ fd })
    return socket
  }

  #oldest(): Session | undefined {
    for (const session of this.#sessions.values()) return session
    return undefined
  }

  async close(): Promise<void> {
    await Promise.all([...this.#listeners].map(listener => listener.close()))
  }
}

/** One UDP client of one listening address. */
interface Session {
  key: string
  client: string
  /** The listening address that it sent to. */
  at: string
  /** Toward the container. */
  socket: UdpSocket
  target: ProxyTarget
  timer: NodeJS.Timeout
  forget(): void
}

/** Nothing waits for a datagram. */
const ignoreError = () => {}

/** Addresses are never names here, so that nothing has to be looked up and no tick is lost. */
const dgram = (family: 4 | 6): UdpSocket =>
  createSocket({
    type: family === 4 ? 'udp4' : 'udp6',
    lookup: (address, _options, answer) => answer(null, address, family),
  })

/** `from` is closed: what it still gave is delivered to `to`; if it broke off, `to` is reset, as without a proxy. */
function endWith(from: Socket, to: Socket): void {
  if (to.destroyed) return
  if (from.readableEnded) {
    // ended both ways: `to` is ending by itself
    if (from.errored || !from.writableFinished) to.destroySoon()
  } else if (to.connecting) to.destroy()
  else to.resetAndDestroy()
}
