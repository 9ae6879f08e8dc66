import { NETNSA_FD, NETNSA_NSID, NLMSG_NOOP, RTM_GETNSID, RTM_NEWNSID } from './constants'
import type { Messages, Writer } from './message'

/** The kernel chooses. */
const ANY = 0xffffffff

/**
 * Gives the namespace of a descriptor an id in the one that is asked, and asks for it. Having one already (the other end of a
 * veth has) is EEXIST in answer to the first message.
 */
export function encodeNameNetns(w: Writer, descriptor: number): void {
  for (const type of [RTM_NEWNSID, RTM_GETNSID]) {
    w.request(type)
    w.zeros(4) // struct rtgenmsg
    if (type === RTM_NEWNSID) w.attr32(NETNSA_NSID, ANY)
    w.attr32(NETNSA_FD, descriptor)
    w.end()
  }
}

/** Undefined: it has none. */
export function decodeNsid(message: Messages): number | undefined {
  if (message.type !== RTM_NEWNSID) return undefined
  const attributes = message.attributes(4)
  while (attributes.next())
    if (attributes.type === NETNSA_NSID && attributes.u32() !== ANY) return attributes.u32()
  return undefined
}

/** What the addon puts before a message of another namespace; undefined: it is such a message. */
export const originOf = (message: Messages): number | undefined =>
  message.type === NLMSG_NOOP ? message.u32(0) : undefined
