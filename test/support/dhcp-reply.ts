/** What DHCP servers say, as bytes: for tests that are the server. RFC 2131, figure 1. */
import { ipBytes } from '../../lib/base/cidr'

export interface ServerWords {
  /** Option 53: 2 offer, 5 ack, 6 nak. */
  type: number
  xid: number
  mac: string
  address: string
  server: string
  /** Seconds; option 51. */
  seconds?: number
  /** More options: code and value. */
  options?: [code: number, value: Uint8Array | string][]
}

export const OFFER = 2
export const ACK = 5
export const NAK = 6

export const option = (code: number, value: Uint8Array): Buffer =>
  Buffer.concat([Uint8Array.of(code, value.length), value])

export const four = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

export function encodeReply({ type, xid, mac, address, server, seconds, options = [] }: ServerWords): Buffer {
  const head = Buffer.alloc(240)
  head.set([2, 1, 6, 0])
  head.writeUInt32BE(xid, 4)
  head.writeUInt16BE(0x8000, 10)
  head.set(ipBytes(address), 16)
  head.set(Buffer.from(mac.replaceAll(':', ''), 'hex'), 28)
  head.writeUInt32BE(0x63825363, 236)
  return Buffer.concat([
    head,
    option(53, Uint8Array.of(type)),
    option(54, ipBytes(server)),
    ...(seconds === undefined ? [] : [option(51, four(seconds))]),
    ...options.map(([code, value]) =>
      option(code, typeof value === 'string' ? Buffer.from(value.replaceAll(' ', ''), 'hex') : value),
    ),
    Uint8Array.of(255),
  ])
}

/** A message of a client, as a server reads it: options by code. */
export function readQuestion(bytes: Uint8Array): {
  type: number
  xid: number
  mac: string
  ciaddr: string
  broadcast: boolean
  options: Map<number, Buffer>
} {
  const message = Buffer.from(bytes)
  const options = new Map<number, Buffer>()
  for (let at = 240; message[at] !== 255 && at < message.length; ) {
    const length = message[at + 1] as number
    options.set(message[at] as number, message.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return {
    type: options.get(53)?.[0] ?? 0,
    xid: message.readUInt32BE(4),
    mac: message
      .subarray(28, 34)
      .toString('hex')
      .replace(/..(?=.)/g, '$&:'),
    ciaddr: message.subarray(12, 16).join('.'),
    broadcast: (message.readUInt16BE(10) & 0x8000) !== 0,
    options,
  }
}
