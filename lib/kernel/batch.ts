import { readSync, writeSync } from 'node:fs'
import { constants, endianness } from 'node:os'
import { CnmError } from '../base/errors'
import type { Binding } from './binding'
import { errnoOf, systemError } from './errors'
import { AF_NETLINK, NETLINK_NETFILTER } from './netlink/constants'

const SOL_SOCKET = 1 // asm-generic/socket.h
const SO_SNDBUFFORCE = 32
/** Bytes. Batches below this fit into any send buffer that a host is likely to have (net.core.wmem_default: 208 KiB). */
const LARGE = 100_000
const SOCK_RAW = 3
const { ENOENT } = constants.errno
const SOCK_NONBLOCK = 0o4000 // asm-generic/socket.h
const NLMSG_ERROR = 2
const HEADER = 16 // struct nlmsghdr
const LITTLE = endianness() === 'LE'

/** Sends a ready batch of nftables messages as {@link BatchSocket} does, over a socket that is not kept. */
export function sendBatch(binding: Binding, ns: number, batch: Uint8Array): void {
  const socket = new BatchSocket(binding, ns)
  try {
    socket.send(batch)
  } finally {
    socket.close()
  }
}

/** Sends batches of nftables messages (linux/netfilter/nfnetlink.h), each as one transaction. Opened at first use. */
export class BatchSocket {
  private fd = -1
  /** Bytes that a batch may have: what the kernel lets a message have that leaves this socket. */
  private room = LARGE

  constructor(
    private readonly binding: Binding,
    private readonly ns: number,
  ) {}

  /**
   * The kernel works it off within the call: the answer is there when it returns. The last message must ask for an
   * acknowledgement, and no other one: so the first answer is the first error, or says that all is well.
   */
  send(batch: Uint8Array): void {
    let answered = false
    try {
      if (this.fd < 0)
        this.fd = this.binding.socket(this.ns, AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_NETFILTER)
      this.makeRoom(batch.length)
      writeSync(this.fd, batch)
      const length = readSync(this.fd, answers)
      const failed = firstError(answers.subarray(0, length))
      if (failed !== 0) throw refusal(-failed)
      answered = true
    } catch (error) {
      throw systemError(error, 'send nftables transaction', { bytes: batch.length })
    } finally {
      // More errors may wait to be read; they go with the socket.
      if (!answered) this.close()
    }
  }

  /** Beyond the host's own limit (net.core.wmem_max); without CAP_NET_ADMIN there the limit stays, and the kernel says so. */
  private makeRoom(length: number): void {
    if (length <= this.room) return
    try {
      this.binding.setsockopt(this.fd, SOL_SOCKET, SO_SNDBUFFORCE, length + 4096)
      this.room = length
    } catch {}
  }

  close(): void {
    if (this.fd >= 0) this.binding.close(this.fd)
    this.fd = -1
    this.room = LARGE
  }
}

/** Read out of before anybody else can write: all of this is synchronous. */
const answers = Buffer.alloc(32 * 1024)

/** `number`: errno. */
function refusal(number: number): CnmError {
  const { errno, words } = errnoOf(number)
  return errno === 'EPERM'
    ? new CnmError(
        'ERR_PRIVILEGE',
        'the kernel refused an nftables transaction: CAP_NET_ADMIN is needed in the user namespace that owns the network namespace',
        { errno },
      )
    : new CnmError('ERR_FIREWALL', `the kernel refused an nftables transaction: ${words}`, { errno })
}

/** Asks by one dump message; what does not exist has nothing to list. */
export function askDump(binding: Binding, ns: number, question: Uint8Array): Uint8Array {
  let fd = -1
  try {
    fd = binding.socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)
    const { data, errors } = binding.exchangeSync({ fd, messages: question, count: 1 })
    const [failed = 0] = errors
    if (failed === 0 || failed === ENOENT) return data
    throw refusal(failed)
  } catch (error) {
    throw systemError(error, 'list nftables objects')
  } finally {
    if (fd >= 0) binding.close(fd)
  }
}

/** Negative errno, as the kernel says it, of the first message that failed; 0 if all went well. */
function firstError(answers: Buffer): number {
  const read = (at: number) => (LITTLE ? answers.readInt32LE(at) : answers.readInt32BE(at))
  for (let at = 0; at + HEADER + 4 <= answers.length; ) {
    const length = read(at)
    const type = read(at + 4) & 0xffff
    if (length < HEADER) break
    if (type === NLMSG_ERROR && read(at + HEADER) !== 0) return read(at + HEADER)
    at += (length + 3) & ~3
  }
  return 0
}
