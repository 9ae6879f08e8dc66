import type { Logger } from '../base/log'
import type { Stack } from '../kernel/kernel'
import type { Responder } from './responder'

/** Answers what is asked by UDP until closed. Does not keep the process alive. */
export interface UdpServer {
  readonly port: number
  /** Answers that the kernel did not take. */
  lost(): number
  close(): void
}

/**
 * Takes over the descriptor, unless it throws. Questions are read where they came, and answers written where they are sent
 * from: the hot one costs no allocation.
 */
export function serveUdp(
  stack: Pick<Stack, 'serveDatagrams'>,
  fd: number,
  responder: Responder,
  log: Logger,
): UdpServer {
  const socket = stack.serveDatagrams(fd, count => {
    for (let i = 0; i < count; i++) {
      const base = i * slot
      const length = heardLengths[i] as number
      const size = responder.hot(heard, base, length, said)
      saidLengths[i] = size || other(i, base, length)
    }
  })
  const { heardLengths, saidLengths, sources } = socket
  const heard = asBuffer(socket.heard)
  const said = asBuffer(socket.said)
  const slot = heard.length / heardLengths.length
  const sourceSize = sources.length / heardLengths.length

  /** Bytes of the answer in slot `i`, or 0 for none (yet). */
  const other = (i: number, base: number, length: number): number => {
    try {
      const message = heard.subarray(base, base + length)
      const answer = responder.quick(message, false)
      if (answer) return answer.copy(said, base, 0, slot)
      if (answer === undefined) return 0
      const to = sources.slice(i * sourceSize, (i + 1) * sourceSize)
      responder.slow(message, false, late => socket.send(late, to))
    } catch (error) {
      // One question must not take the others down.
      log.error('a DNS question could not be answered', { error })
    }
    return 0
  }
  return { port: socket.port, lost: () => socket.lost(), close: () => socket.close() }
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
