/** A host with a container behind a veth pair, both families, and a client on the other side of the host. */
import { type Socket as UdpSocket, createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtemp, readdir, readlink, rm } from 'node:fs/promises'
import { type Server, type Socket, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LinuxKernel } from '../../../lib/kernel/linux'
import type { Stack } from '../../../lib/kernel/kernel'

export interface Scene {
  host: Stack
  container: Stack
  lan: Stack
  /** 10.77.0.2 and fd77::2 */
  target: { ipv4: string; ipv6: string }
  close(): Promise<void>
}

export async function scene(): Promise<Scene> {
  const kernel = new LinuxKernel()
  const directory = await mkdtemp(join(tmpdir(), 'cnm-ports-'))
  const paths = ['host', 'container', 'lan'].map(name => join(directory, name))
  const [host, container, lan] = (await Promise.all(paths.map(path => kernel.create(path)))) as [
    Stack,
    Stack,
    Stack,
  ]
  const pair = async (name: string, other: Stack, prefix4: string, prefix6: string) => {
    await host.apply([
      {
        op: 'addLink',
        link: { kind: 'veth', name, up: true, peer: { name: 'eth0', netns: other } },
      },
      { op: 'addAddress', link: name, address: `${prefix4}.1/24` },
      { op: 'addAddress', link: name, address: `${prefix6}::1/64` },
    ])
    await other.apply([
      { op: 'setLink', link: 'eth0', up: true },
      { op: 'addAddress', link: 'eth0', address: `${prefix4}.2/24` },
      { op: 'addAddress', link: 'eth0', address: `${prefix6}::2/64` },
      { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: `${prefix4}.1` } },
      { op: 'addRoute', route: { destination: '::/0', gateway: `${prefix6}::1` } },
    ])
  }
  await pair('c', container, '10.77.0', 'fd77')
  await pair('l', lan, '192.0.2', '2001:db8')
  return {
    host,
    container,
    lan,
    target: { ipv4: '10.77.0.2', ipv6: 'fd77::2' },
    close: async () => {
      for (const stack of [host, container, lan]) stack.close()
      for (const path of paths) await kernel.remove(path)
      await rm(directory, { recursive: true })
    },
  }
}

/** A TCP client inside a namespace. */
export function connectIn(stack: Stack, address: string, port: number, localAddress?: string): Socket {
  const family = address.includes(':') ? 6 : 4
  return stack.run(() =>
    connect({
      host: 'server',
      port,
      family,
      localAddress,
      autoSelectFamily: false,
      allowHalfOpen: true,
      lookup: (_name, _options, answer) => answer(null, address, family),
    }),
  )
}

/** A TCP server inside a namespace. */
export async function serveIn(
  stack: Stack,
  address: string,
  port: number,
  serve: (socket: Socket) => void,
): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => {})
    serve(socket)
  })
  server.listen({ fd: stack.openSocket({ type: 'tcp', address, port, listen: 128, reuseAddress: true }) })
  await once(server, 'listening')
  return server
}

/** A UDP socket inside a namespace. */
export function udpIn(stack: Stack, address: string, port: number): UdpSocket {
  const family = address.includes(':') ? 6 : 4
  const socket = createSocket({
    type: family === 4 ? 'udp4' : 'udp6',
    lookup: (name, _options, answer) => answer(null, name, family),
  })
  socket.bind({ fd: stack.openSocket({ type: 'udp', address, port }) })
  return socket
}

export const closeServer = (server: Server) =>
  new Promise<void>(resolve => void server.close(() => resolve()))

/** The rest of a stream. Leaves the writable half open, which an iterator would not. */
export function readAll(socket: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    socket.on('data', chunk => chunks.push(chunk))
    socket.once('end', () => resolve(Buffer.concat(chunks)))
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('closed before its end')))
  })
}

/** Resolves to what became of a connection attempt: `open`, or the error's code. */
export async function outcome(socket: Socket): Promise<string> {
  return new Promise(resolve => {
    socket.once('connect', () => resolve('open'))
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(String(error.code)))
  })
}

/** Sockets that this process has open. */
export async function openSockets(): Promise<number> {
  const fds = await readdir('/proc/self/fd')
  const links = await Promise.all(fds.map(fd => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
  return links.filter(link => link.startsWith('socket:')).length
}

/** Waits until the condition holds; for what the kernel or the event loop finishes in its own time. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const end = Date.now() + 10_000; ; ) {
    if (await condition()) return
    if (Date.now() > end) throw new Error(`in vain: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
