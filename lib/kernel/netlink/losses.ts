import { endianness } from 'node:os'
import {
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELROUTE,
  RTM_NEWLINK,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
  RTPROT_KERNEL,
} from './constants'
import { networkOrder16 } from './message'

export const LOSS_GROUPS = [
  RTNLGRP_LINK,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_ROUTE,
]

// linux/bpf_common.h
const LOAD_HALF = 0x28 // BPF_LD | BPF_H | BPF_ABS: from network order
const LOAD_BYTE = 0x30 // BPF_LD | BPF_B | BPF_ABS
const EQUALS = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
const HAS = 0x45 // BPF_JMP | BPF_JSET | BPF_K
const RETURN = 0x06 // BPF_RET | BPF_K

const IFF_UP = 1 // linux/if.h
// Byte offsets from the beginning of struct nlmsghdr.
const TYPE = 4
const PROTOCOL = 21 // struct rtmsg: rtm_protocol
const FLAGS = 24 // struct ifinfomsg: ifi_flags
const CHANGE = 28 // ifi_change

/** The lowest byte of a 32-bit number in host order, or the highest. */
const LITTLE = endianness() === 'LE'
const low = (at: number): number => (LITTLE ? at : at + 3)
const high = (at: number): number => (LITTLE ? at + 3 : at)

/**
 * Lets through what is taken away: links that go or are set down, addresses, routes other than the kernel's own. A link
 * that is born is down, too, but "all has changed" of it (ifi_change is ~0). So a join costs no message, and a leave one or two.
 */
const PROGRAM: readonly (readonly [code: number, jumpTrue: number, jumpFalse: number, k: number])[] = [
  [LOAD_HALF, 0, 0, TYPE],
  [EQUALS, 11, 0, networkOrder16(RTM_DELLINK)], // 1: → 13
  [EQUALS, 10, 0, networkOrder16(RTM_DELADDR)], // → 13
  [EQUALS, 1, 0, networkOrder16(RTM_DELROUTE)], // → 5
  [EQUALS, 2, 9, networkOrder16(RTM_NEWLINK)], // → 7, else → 14
  [LOAD_BYTE, 0, 0, PROTOCOL], // 5
  [EQUALS, 7, 6, RTPROT_KERNEL], // → 14, else → 13
  [LOAD_BYTE, 0, 0, low(FLAGS)], // 7
  [HAS, 5, 0, IFF_UP], // → 14
  [LOAD_BYTE, 0, 0, low(CHANGE)],
  [HAS, 0, 3, IFF_UP], // else → 14
  [LOAD_BYTE, 0, 0, high(CHANGE)],
  [EQUALS, 1, 0, 0xff], // → 14
  [RETURN, 0, 0, 0xffffffff], // 13: all of it
  [RETURN, 0, 0, 0], // 14
]

/** As struct sock_filter (linux/filter.h): u16 code, u8 jt, u8 jf, u32 k. */
export const LOSS_FILTER: Uint8Array = (() => {
  const bytes = new Uint8Array(PROGRAM.length * 8)
  const view = new DataView(bytes.buffer)
  for (const [at, [code, jumpTrue, jumpFalse, k]] of PROGRAM.entries()) {
    view.setUint16(8 * at, code, LITTLE)
    view.setUint8(8 * at + 2, jumpTrue)
    view.setUint8(8 * at + 3, jumpFalse)
    view.setUint32(8 * at + 4, k, LITTLE)
  }
  return bytes
})()
