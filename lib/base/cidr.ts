import { isIPv4, isIPv6 } from 'node:net'
import { IPv4, IPv6 } from 'ip-num'
import { CnmError } from './errors'

/** 4 or 6, as in `net.isIP`. */
export type Family = 4 | 6

/** An IP address: the number that its bits make. */
export interface Ip {
  family: Family
  value: bigint
}

/** An address with a prefix length. `value` keeps the host bits; {@link network} clears them. */
export interface Cidr extends Ip {
  length: number
}

export const BITS: Record<Family, number> = { 4: 32, 6: 128 }

/** Parses text from outside. Throws ERR_INVALID_ADDRESS. No zone ids, no octal, no shorthand like `10.1`. */
export function parseIp(text: string): Ip {
  if (isIPv4(text)) return { family: 4, value: BigInt(ipBytes(text).readUInt32BE(0)) }
  if (isIPv6(text) && !text.includes('%')) return { family: 6, value: new IPv6(undotted(text)).getValue() }
  throw new CnmError('ERR_INVALID_ADDRESS', `${JSON.stringify(text)} is not an IP address`, { value: text })
}

/** ip-num reads only hexadecimal groups: `::ffff:1.2.3.4` → `::ffff:102:304`. */
function undotted(text: string): string {
  const at = text.lastIndexOf(':') + 1
  const tail = text.slice(at)
  if (!tail.includes('.')) return text
  const value = new IPv4(tail).getValue()
  return `${text.slice(0, at)}${(value >> 16n).toString(16)}:${(value & 0xffffn).toString(16)}`
}

/** Parses `ADDRESS/LENGTH` from outside; host bits are kept. Throws ERR_INVALID_CIDR. */
export function parseCidr(text: string): Cidr {
  const slash = text.indexOf('/')
  const tail = text.slice(slash + 1)
  try {
    if (slash < 0 || !/^(0|[1-9]\d{0,2})$/.test(tail)) throw new Error('no prefix length')
    const ip = parseIp(text.slice(0, slash))
    const length = Number(tail)
    if (length > BITS[ip.family]) throw new Error('prefix length out of range')
    return { ...ip, length }
  } catch (cause) {
    throw new CnmError(
      'ERR_INVALID_CIDR',
      `${JSON.stringify(text)} is not of the form ADDRESS/LENGTH`,
      { value: text },
      { cause },
    )
  }
}

/** Canonical text (RFC 5952 for IPv6). */
export function formatIp({ family, value }: Ip): string {
  if (family === 4) {
    const n = Number(value)
    return `${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`
  }
  const groups: number[] = []
  for (let shift = 112n; shift >= 0n; shift -= 16n) groups.push(Number((value >> shift) & 0xffffn))
  let start = -1
  let longest = 1 // a single zero group is not shortened
  for (let i = 0; i < 8; i++) {
    let j = i
    while (j < 8 && groups[j] === 0) j++
    if (j - i > longest) {
      start = i
      longest = j - i
    }
    if (j > i) i = j
  }
  const hex = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map(group => group.toString(16))
      .join(':')
  return start < 0 ? hex(0, 8) : `${hex(0, start)}::${hex(start + longest, 8)}`
}

export const formatCidr = (cidr: Cidr): string => `${formatIp(cidr)}/${cidr.length}`

/** The number of host bits. */
export const hostBits = (cidr: Cidr): bigint => BigInt(BITS[cidr.family] - cidr.length)

/** The subnet of an address with prefix: host bits cleared. */
export function network(cidr: Cidr): Cidr {
  const bits = hostBits(cidr)
  return { ...cidr, value: (cidr.value >> bits) << bits }
}

export const firstOf = (cidr: Cidr): bigint => network(cidr).value
export const lastOf = (cidr: Cidr): bigint => network(cidr).value + (1n << hostBits(cidr)) - 1n

/** Does the subnet contain the address (or the whole other subnet)? False across families. */
export function contains(subnet: Cidr, other: Ip | Cidr): boolean {
  if (subnet.family !== other.family) return false
  if ('length' in other && other.length < subnet.length) return false
  return other.value >> hostBits(subnet) === subnet.value >> hostBits(subnet)
}

export const overlaps = (a: Cidr, b: Cidr): boolean => contains(a, b) || contains(b, a)

/** Shorthands on text, for values that were checked at the border. */
export const addressOf = (cidrText: string): string => cidrText.slice(0, cidrText.indexOf('/'))
export const familyOf = (text: string): Family => (text.includes(':') ? 6 : 4)

/** Canonical text of an address with prefix, or a typed error: for text from outside. */
export const canonicalCidr = (text: string): string => formatCidr(parseCidr(text))
export const canonicalIp = (text: string): string => formatIp(parseIp(text))

/** The bytes of a trusted canonical address, in network order: 4 or 16. No ip-num: this is on the hot path. */
export function ipBytes(text: string): Buffer {
  if (!text.includes(':')) {
    const bytes = Buffer.allocUnsafe(4)
    let at = 0
    let octet = 0
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i)
      if (c === 46) {
        bytes[at++] = octet
        octet = 0
      } else octet = octet * 10 + c - 48
    }
    bytes[at] = octet
    return bytes
  }
  const bytes = Buffer.alloc(16)
  const [head = '', tail] = text.split('::')
  const write = (groups: string[], from: number) => {
    groups.forEach((group, i) => {
      bytes.writeUInt16BE(Number.parseInt(group, 16), from + i * 2)
    })
  }
  const front = head ? head.split(':') : []
  const back = tail ? tail.split(':') : []
  write(front, 0)
  write(back, 16 - back.length * 2)
  return bytes
}

/** Canonical text of an address given by its bytes (4 or 16), as the kernel reports it. */
export function ipText(bytes: Uint8Array): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`
  let value = 0n
  for (const byte of bytes) value = (value << 8n) | BigInt(byte)
  return formatIp({ family: 6, value })
}
