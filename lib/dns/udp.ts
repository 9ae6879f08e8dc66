import { createSocket, type RemoteInfo } from 'node:dgram'
import type { Logger } from '../base/log'
import type { Stack } from '../kernel/kernel'
import type { Responder } from './responder'
import { literal } from './transport'

/** Answers what is asked by UDP until closed. Does not keep the process alive. */
export interface UdpServer {
  readonly port: number
  /** Answers that the kernel did not take. */
  lost(): number
  close(): Promise<void>
}

/** Takes over the descriptor, unless it throws. */
export async function serveUdp(
  stack: Pick<Stack, 'serveDatagrams'>,
  fd: number,
  family: 4 | 6,
  responder: Responder,
  log: Logger,
): Promise<UdpServer> {
  return stack.serveDatagrams
    ? serveBatches(stack.serveDatagrams, fd, responder, log)
    : serveEach(fd, family, responder, log)
}

/** Questions are read where they came, and answers written where they are sent from: the hot one costs no allocation. */
function serveBatches(
  open: NonNullable<Stack['serveDatagrams']>,
  fd: number,
  responder: Responder,
  log: Logger,
): UdpServer {
  const socket = open(fd, count => {
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
  return { port: socket.port, lost: () => socket.lost(), close: async () => socket.close() }
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** By what Node has: for stacks that cannot do more. */
async function serveEach(fd: number, family: 4 | 6, responder: Responder, log: Logger): Promise<UdpServer> {
  const socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6', lookup: literal })
  let closed = false
  let lost = 0
  const sent = (error: Error | null) => {
    if (error) lost++
  }
  const hear = (message: Buffer, { port, address }: RemoteInfo) => {
    const say = (answer: Buffer) => {
      if (!closed) socket.send(answer, 0, answer.length, port, address, sent)
    }
    try {
      const answer = responder.quick(message, false)
      if (answer) say(answer)
      else if (answer === null) responder.slow(message, false, say)
    } catch (error) {
      log.error('a DNS question could not be answered', { error })
    }
  }
  socket.on('message', hear)
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind({ fd, exclusive: true }, resolve)
    })
  } catch (error) {
    socket.close()
    throw error
  }
  socket.removeAllListeners('error').on('error', error => log.warn('DNS over UDP', { error }))
  socket.unref()
  return {
    port: socket.address().port,
    lost: () => lost,
    close: () => {
      closed = true
      return new Promise<void>(resolve => socket.close(() => resolve()))
    },
  }
}
