import type { Binding } from './binding'
import { systemError } from './errors'
import type { PacketOptions, Packets } from './kernel'
import { attachFilter } from './socket'

// linux/socket.h, linux/if_ether.h, linux/if_packet.h
const AF_PACKET = 17
const SOCK_RAW = 3
const ETH_P_ALL = 0x0003
const SOL_PACKET = 263
const PACKET_ADD_MEMBERSHIP = 1
const PACKET_MR_PROMISC = 1
/** Of `sources` in {@link Datagrams}. */
const ADDRESS_SIZE = 28

/** See Stack.openPackets. */
export function openPackets(
  binding: Binding,
  ns: number,
  { link, filter, promiscuous = false }: PacketOptions,
  hear: (frame: Uint8Array) => void,
): Packets {
  let fd = -1
  try {
    // Protocol 0 hears nothing: the filter is there before the first frame.
    fd = binding.socket(ns, AF_PACKET, SOCK_RAW, 0)
    attachFilter(binding, fd, filter)
    const address = onLink(link)
    binding.bind(fd, address.subarray(0, 20))
    if (promiscuous) binding.setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership(link))
    const socket = binding.datagrams(fd, count => {
      const slot = socket.heard.length / socket.heardLengths.length
      const frames: Uint8Array[] = []
      for (let i = 0; i < count; i++)
        frames.push(socket.heard.slice(i * slot, i * slot + (socket.heardLengths[i] ?? 0)))
      for (const frame of frames) hear(frame)
    })
    return { send: frame => socket.send(frame, address), close: () => socket.close() }
  } catch (error) {
    if (fd >= 0) binding.close(fd)
    throw systemError(error, `listen to packets of link ${link}`, { link })
  }
}

/** struct sockaddr_ll: u16 family, be16 protocol, s32 index; the rest is for received packets. */
function onLink(link: number): Uint8Array {
  const bytes = Buffer.alloc(ADDRESS_SIZE)
  new Uint16Array(bytes.buffer, bytes.byteOffset, 1)[0] = AF_PACKET
  bytes.writeUInt16BE(ETH_P_ALL, 2)
  new Int32Array(bytes.buffer, bytes.byteOffset + 4, 1)[0] = link
  return bytes
}

/** struct packet_mreq: s32 index, u16 type, u16 length, 8 bytes of address. Ends with the socket. */
function membership(link: number): Uint8Array {
  const bytes = Buffer.alloc(16)
  new Int32Array(bytes.buffer, bytes.byteOffset, 1)[0] = link
  new Uint16Array(bytes.buffer, bytes.byteOffset + 4, 1)[0] = PACKET_MR_PROMISC
  return bytes
}
