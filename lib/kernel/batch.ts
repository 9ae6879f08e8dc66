import { readSync, writeSync } from 'node:fs'
import { endianness } from 'node:os'
import { CnmError } from '../base/errors'
import type { Binding } from './binding'
import { errnoOf, systemError } from './errors'
import { AF_NETLINK, NETLINK_NETFILTER } from './netlink/constants'

const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000 // asm-generic/socket.h
const NLMSG_ERROR = 2
const HEADER = 16 // struct nlmsghdr
const LITTLE = endianness() === 'LE'

/**
 * Sends a ready batch of nftables messages (linux/netfilter/nfnetlink.h) as one transaction. The kernel works it off within
 * the call: the answers are there when it returns. At least one message must ask for an acknowledgement.
 */
export function sendBatch(binding: Binding, ns: number, batch: Uint8Array): void {
  let fd = -1
  try {
    fd = binding.socket(ns, AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_NETFILTER)
    writeSync(fd, batch)
    const answers = Buffer.allocUnsafe(32 * 1024)
    const length = readSync(fd, answers)
    const failed = firstError(answers.subarray(0, length))
    if (failed !== 0) {
      const { errno, words } = errnoOf(-failed)
      throw new CnmError('ERR_FIREWALL', `the kernel refused an nftables transaction: ${words}`, { errno })
    }
  } catch (error) {
    throw systemError(error, 'send nftables transaction')
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
