/** Tasks of a service that say who they are, and callers that ask them. */
import { createSocket } from 'node:dgram'
import { createServer, type Server, Socket } from 'node:net'
import type { Stack } from 'libcnm'
import type { TestHost } from './host'

/** A server in a sandbox: whoever asks is told its name, and where the question came from, as often as he asks. */
export interface Speaker {
  /** Questions that it answered. */
  readonly asked: number
  close(): void
}

export async function speak(where: Stack, port: number, name: string): Promise<Speaker> {
  const open: { close(): unknown }[] = []
  const sockets = new Set<Socket>()
  let asked = 0
  for (const address of ['0.0.0.0', '::']) {
    const server: Server = createServer(socket => {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => sockets.delete(socket))
      socket.on('data', () => {
        asked++
        socket.write(`${name} ${socket.remoteAddress}`)
      })
    })
    const fd = where.openSocket({ type: 'tcp', address, port, listen: 128 })
    await new Promise<void>(resolve => server.listen({ fd }, resolve))
    const udp = createSocket(address === '::' ? 'udp6' : 'udp4')
    udp.on('error', () => {})
    udp.on('message', (question, peer) => {
      asked++
      udp.send(`${name} ${peer.address} ${question}`, peer.port, peer.address)
    })
    await new Promise<void>(resolve =>
      udp.bind({ fd: where.openSocket({ type: 'udp', address, port }) }, () => resolve()),
    )
    open.push(server, udp)
  }
  return {
    get asked() {
      return asked
    },
    close() {
      for (const socket of sockets) socket.destroy()
      for (const each of open) each.close()
    },
  }
}

/** One TCP connection; `ask` resolves to the answer, or to why there is none (an errno, or `silence`). */
export class Caller {
  readonly #socket: Socket
  readonly #connected: Promise<string>

  constructor(from: Stack, address: string, port: number, patience = 4_000) {
    const fd = from.openSocket({ type: 'tcp', address: address.includes(':') ? '::' : '0.0.0.0', port: 0 })
    this.#socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
    this.#connected = new Promise(resolve => {
      const timer = setTimeout(() => resolve('silence'), patience)
      const end = (answer: string) => {
        clearTimeout(timer)
        resolve(answer)
      }
      this.#socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'error'))
      this.#socket.connect({ host: address, port }, () => end('connected'))
    })
  }

  async ask(patience = 4_000): Promise<string> {
    const state = await this.#connected
    if (state !== 'connected') return state
    return new Promise(resolve => {
      const end = (answer: string) => {
        clearTimeout(timer)
        this.#socket.removeAllListeners('data')
        resolve(answer)
      }
      const timer = setTimeout(() => end('silence'), patience)
      this.#socket.once('data', data => end(String(data)))
      this.#socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'error'))
      this.#socket.once('close', () => end('closed'))
      this.#socket.write('?')
    })
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** The answer to one question on a connection of its own. */
export async function ask(from: Stack, address: string, port: number, patience?: number): Promise<string> {
  const caller = new Caller(from, address, port, patience)
  const answer = await caller.ask(patience)
  caller.close()
  return answer
}

/** Who answered how often, of so many connections. */
export async function tally(
  from: Stack,
  address: string,
  port: number,
  count: number,
): Promise<Record<string, number>> {
  const answers = await Promise.all(Array.from({ length: count }, () => ask(from, address, port)))
  const found: Record<string, number> = {}
  for (const answer of answers) {
    const [name = ''] = answer.split(' ')
    found[name] = (found[name] ?? 0) + 1
  }
  return found
}

/** As {@link tally}, by datagrams: each from a port of its own. */
export async function tallyUdp(
  host: TestHost,
  from: Stack,
  address: string,
  port: number,
  count: number,
): Promise<Record<string, number>> {
  const answers = await Promise.all(Array.from({ length: count }, () => host.udp(from, address, port)))
  const found: Record<string, number> = {}
  for (const answer of answers) {
    const [name = ''] = answer.split(' ')
    found[name] = (found[name] ?? 0) + 1
  }
  return found
}
