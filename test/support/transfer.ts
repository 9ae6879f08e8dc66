/** How long it takes to send two megabytes: what a rate amounts to. */
import { createServer, Socket } from 'node:net'
import type { Stack } from 'libcnm'

const PORT = 9000
const BYTES = 2_000_000

/** Takes in whatever comes, over IPv4 and IPv6, and says so once all of it is there. */
export async function sink(where: Stack): Promise<() => void> {
  const servers = ['0.0.0.0', '::'].map(address => {
    const server = createServer(socket => {
      let left = BYTES
      socket.on('error', () => {})
      socket.on('data', data => {
        left -= data.length
        if (left === 0) socket.end('all')
      })
    })
    return { server, fd: where.openSocket({ type: 'tcp', address, port: PORT, listen: 16 }) }
  })
  for (const { server, fd } of servers) await new Promise<void>(resolve => server.listen({ fd }, resolve))
  return () => {
    for (const { server } of servers) server.close()
  }
}

/** Milliseconds until the other side has received everything. */
export function transfer(from: Stack, address: string): Promise<number> {
  const fd = from.openSocket({ type: 'tcp', address: address.includes(':') ? '::' : '0.0.0.0', port: 0 })
  const socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
  return new Promise((resolve, reject) => {
    let begun = 0
    socket.on('error', reject)
    socket.on('data', () => {
      socket.destroy()
      resolve(performance.now() - begun)
    })
    socket.connect({ host: address, port: PORT }, () => {
      begun = performance.now()
      socket.write(Buffer.alloc(BYTES))
    })
  })
}
