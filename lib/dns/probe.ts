import { createSocket } from 'node:dgram'
import type { Stack } from '../kernel/kernel'
import { RESOLVER_ADDRESS } from './contract'

/** Milliseconds; the answer comes from this process itself, so only a busy event loop delays it. */
const PATIENCE = 1_000
/** Opcode STATUS (RFC 1035 4.1.1), which no resolver implements: answered at once, by "not implemented". */
const QUESTION = Buffer.from([0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0])

/** Does somebody answer on 127.0.0.11:53 inside, by the way that a container's question takes? */
export function resolverAnswers(stack: Stack): Promise<boolean> {
  const socket = createSocket('udp4')
  return new Promise(resolve => {
    const end = (answered: boolean) => {
      clearTimeout(timer)
      socket.close()
      resolve(answered)
    }
    const timer = setTimeout(() => end(false), PATIENCE)
    socket.on('error', () => end(false))
    socket.on('message', (_, { address, port }) => end(address === RESOLVER_ADDRESS && port === 53))
    socket.bind({ fd: stack.openSocket({ type: 'udp', address: '127.0.0.1', port: 0 }) }, () =>
      socket.send(QUESTION, 53, RESOLVER_ADDRESS, error => error && end(false)),
    )
  })
}
