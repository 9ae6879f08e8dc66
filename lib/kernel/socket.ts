import { familyOf, ipBytes } from '../base/cidr'
import type { Binding } from './binding'
import { systemError } from './errors'
import type { PacketOptions, SocketOptions } from './kernel'
import { AF_INET, AF_INET6 } from './netlink/constants'

// linux/in.h, linux/in6.h, asm-generic/socket.h
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const IPPROTO_TCP = 6
const IPPROTO_UDP = 17
const IPPROTO_SCTP = 132
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_ATTACH_FILTER = 26
const SOL_IP = 0
const IP_FREEBIND = 15
const IP_TRANSPARENT = 19
const SOL_IPV6 = 41
const IPV6_V6ONLY = 26
const IPV6_TRANSPARENT = 75
const IPV6_FREEBIND = 78
// linux/bpf_common.h: BPF_RET | BPF_K
const BPF_RET_K = 0x06

const PROTOCOLS = {
  udp: [SOCK_DGRAM, IPPROTO_UDP],
  tcp: [SOCK_STREAM, IPPROTO_TCP],
  sctp: [SOCK_STREAM, IPPROTO_SCTP],
} as const

/** struct sockaddr_in or sockaddr_in6: the family in host order, the rest as on the wire. */
export function sockaddr(address: string, port: number): Uint8Array {
  const six = familyOf(address) === 6
  const bytes = new Uint8Array(six ? 28 : 16)
  new Uint16Array(bytes.buffer, 0, 1)[0] = six ? AF_INET6 : AF_INET
  bytes[2] = port >> 8
  bytes[3] = port & 255
  bytes.set(ipBytes(address), six ? 8 : 4)
  return bytes
}

/** See Stack.openSocket. */
export function openSocket(binding: Binding, ns: number, options: SocketOptions): number {
  const { type, address, port } = options
  const six = familyOf(address) === 6
  const [kind, protocol] = PROTOCOLS[type]
  let fd = -1
  try {
    fd = binding.socket(ns, six ? AF_INET6 : AF_INET, kind, protocol)
    if (six) binding.setsockopt(fd, SOL_IPV6, IPV6_V6ONLY, 1)
    if (options.reuseAddress) binding.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    if (options.freeBind)
      binding.setsockopt(fd, six ? SOL_IPV6 : SOL_IP, six ? IPV6_FREEBIND : IP_FREEBIND, 1)
    if (options.transparent)
      binding.setsockopt(fd, six ? SOL_IPV6 : SOL_IP, six ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1)
    if (options.dropAll) dropAll(binding, fd) // before it can receive
    binding.bind(fd, sockaddr(address, port))
    if (options.peer) binding.connect(fd, sockaddr(options.peer.address, options.peer.port))
    if (options.listen !== undefined) binding.listen(fd, options.listen)
    return fd
  } catch (error) {
    if (fd >= 0) binding.close(fd)
    const place = six ? `[${address}]:${port}` : `${address}:${port}`
    throw systemError(error, `open ${type} socket at ${place}`, { type, address, port })
  }
}

/** The socket only reserves its port: "return 0". */
const dropAll = (binding: Binding, fd: number): void => attachFilter(binding, fd, [[BPF_RET_K, 0, 0, 0]])

/**
 * A classic BPF program (struct sock_filter each: u16 code, u8 jt, u8 jf, u32 k) as the socket's filter. The option takes a
 * struct sock_fprog, which holds a pointer to the program; ref-napi writes that. The kernel copies both before it returns.
 */
export function attachFilter(binding: Binding, fd: number, filter: PacketOptions['filter']): void {
  const ref = require('ref-napi') as { writePointer(buffer: Buffer, offset: number, to: Buffer): void }
  const program = Buffer.alloc(8 * filter.length)
  for (const [at, [code, jt, jf, k]] of filter.entries()) {
    const instruction = program.subarray(8 * at)
    new Uint16Array(program.buffer, instruction.byteOffset, 1)[0] = code
    instruction[2] = jt
    instruction[3] = jf
    new Uint32Array(program.buffer, instruction.byteOffset + 4, 1)[0] = k
  }
  const header = Buffer.alloc(16)
  new Uint16Array(header.buffer, header.byteOffset, 1)[0] = filter.length
  ref.writePointer(header, 8, program)
  binding.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, header)
}
