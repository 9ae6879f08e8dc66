/**
 * What DHCP needs of Ethernet, ARP, IPv4 and UDP, as bytes: an address is asked for before any interface bears it. Pure.
 */
import { ipBytes, ipText } from '../../../lib/base/cidr'
import type { PacketOptions } from '../../../lib/kernel/kernel'
import { macBytes, macText } from './mac'

export interface Envelope {
  from: { mac: string; address: string }
  to: { mac: string; address: string }
}

export type Heard =
  | { what: 'dhcp'; fromMac: string; message: Uint8Array }
  /** Somebody says that the address is his. */
  | { what: 'arp'; mac: string; address: string }

export const EVERYBODY = { mac: 'ff:ff:ff:ff:ff:ff', address: '255.255.255.255' } as const
export const NOBODY = '0.0.0.0'

const SERVER_PORT = 67
const CLIENT_PORT = 68
const ETHERNET = 14
const IPV4 = 0x0800
const ARP = 0x0806
const UDP = 17
const IP_HEADER = 20
const UDP_HEADER = 8
const ARP_LENGTH = 28

/** ARP, and the first fragment of UDP to port 68. Codes of linux/bpf_common.h: BPF_LD, LDX, JMP, RET and their modes. */
export const FILTER: PacketOptions['filter'] = [
  [0x28, 0, 0, 12], // ldh [12]: EtherType
  [0x15, 8, 0, ARP], // jeq ARP, accept
  [0x15, 0, 8, IPV4], // jeq IPv4, go on, drop
  [0x30, 0, 0, ETHERNET + 9], // ldb: protocol
  [0x15, 0, 6, UDP],
  [0x28, 0, 0, ETHERNET + 6], // ldh: flags and offset of the fragment
  [0x45, 4, 0, 0x1fff], // jset: a later fragment has no ports
  [0xb1, 0, 0, ETHERNET], // ldxb 4*([14]&0xf): length of the IP header
  [0x48, 0, 0, ETHERNET + 2], // ldh [x + 16]: destination port
  [0x15, 0, 1, CLIENT_PORT],
  [0x06, 0, 0, 0xffff], // accept
  [0x06, 0, 0, 0], // drop
]

/** A message of a client to port 67. */
export function encodeDhcp({ from, to }: Envelope, message: Uint8Array): Buffer {
  const frame = Buffer.alloc(ETHERNET + IP_HEADER + UDP_HEADER)
  frame.set(macBytes(to.mac), 0)
  frame.set(macBytes(from.mac), 6)
  frame.writeUInt16BE(IPV4, 12)
  const ip = frame.subarray(ETHERNET, ETHERNET + IP_HEADER)
  const udp = frame.subarray(ETHERNET + IP_HEADER)
  ip[0] = 0x45
  ip[1] = 0x10 // as DHCP clients do: low delay
  ip.writeUInt16BE(IP_HEADER + UDP_HEADER + message.length, 2)
  ip[8] = 64
  ip[9] = UDP
  ip.set(ipBytes(from.address), 12)
  ip.set(ipBytes(to.address), 16)
  ip.writeUInt16BE(checksum(ip), 10)
  udp.writeUInt16BE(CLIENT_PORT, 0)
  udp.writeUInt16BE(SERVER_PORT, 2)
  udp.writeUInt16BE(UDP_HEADER + message.length, 4)
  const pseudo = Buffer.concat([ip.subarray(12, 20), Uint8Array.of(0, UDP), udp.subarray(4, 6), udp, message])
  udp.writeUInt16BE(checksum(pseudo) || 0xffff, 6)
  return Buffer.concat([frame, message])
}

/** RFC 5227: who has this address? By somebody who has none. */
export function encodeProbe(mac: string, address: string): Buffer {
  const frame = Buffer.alloc(ETHERNET + ARP_LENGTH)
  frame.set(macBytes(EVERYBODY.mac), 0)
  frame.set(macBytes(mac), 6)
  frame.writeUInt16BE(ARP, 12)
  frame.set([0, 1, 8, 0, 6, 4, 0, 1], ETHERNET) // Ethernet, IPv4, their lengths, request
  frame.set(macBytes(mac), ETHERNET + 8)
  frame.set(ipBytes(address), ETHERNET + 24)
  return frame
}

/**
 * Undefined for anything else. The UDP checksum is not looked at: between virtual links it is left to hardware that there is
 * none of, and what a stranger could send us would be right.
 */
export function decodeFrame(bytes: Uint8Array): Heard | undefined {
  const frame = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (frame.length < ETHERNET + IP_HEADER) return undefined
  const kind = frame.readUInt16BE(12)
  if (kind === ARP)
    return frame.length < ETHERNET + ARP_LENGTH ? undefined : decodeArp(frame.subarray(ETHERNET))
  const ip = frame.subarray(ETHERNET)
  const header = ((ip[0] as number) & 15) * 4
  const total = ip.readUInt16BE(2)
  if (kind !== IPV4 || (ip[0] as number) >> 4 !== 4 || header < IP_HEADER) return undefined
  if (ip[9] !== UDP || (ip.readUInt16BE(6) & 0x3fff) !== 0) return undefined // fragments: a reply has none
  if (total > ip.length || total < header + UDP_HEADER) return undefined
  const udp = ip.subarray(header, total)
  const length = udp.readUInt16BE(4)
  if (udp.readUInt16BE(0) !== SERVER_PORT || udp.readUInt16BE(2) !== CLIENT_PORT) return undefined
  if (length < UDP_HEADER || length > udp.length) return undefined
  return { what: 'dhcp', fromMac: macText(frame.subarray(6, 12)), message: udp.subarray(UDP_HEADER, length) }
}

function decodeArp(arp: Buffer): Heard | undefined {
  if (arp.readUInt32BE(0) !== 0x00010800 || arp.readUInt16BE(4) !== 0x0604) return undefined
  const address = ipText(arp.subarray(14, 18))
  return address === NOBODY ? undefined : { what: 'arp', mac: macText(arp.subarray(8, 14)), address }
}

/** RFC 1071. */
function checksum(bytes: Uint8Array): number {
  let sum = 0
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] as number) << 8) | (bytes[at + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
