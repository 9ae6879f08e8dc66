/** DHCPv4 messages as bytes: what a client says, and what it hears. Pure. RFC 2131 (messages), RFC 2132 (options). */
import { ipBytes, ipText } from '../../../lib/base/cidr'
import type { AddressSettings } from '../../../lib/ipam/contract'
import { macBytes, macText } from './mac'
import { isUnicast, OPTION, readOptions, settingsOf, writeOptions } from './options'

export type QuestionType = 'discover' | 'request' | 'decline' | 'release'
export type ReplyType = 'offer' | 'ack' | 'nak'

/** What a client says. */
export interface Question {
  type: QuestionType
  /** 32 bits that the answer repeats. */
  xid: number
  /** Of the interface that the address is for. */
  mac: string
  /** Since the client began. */
  seconds: number
  /** ciaddr: the address that the client has and answers ARP for. */
  address?: string
  /** The address that it would like to have (option 50). */
  requested?: string
  /** Whom it speaks to (option 54). */
  server?: string
  hostname?: string
}

/** What a server says, as far as it makes sense. */
export interface Reply {
  type: ReplyType
  xid: number
  mac: string
  /** yiaddr; `0.0.0.0` in a refusal. */
  address: string
  /** Option 54. */
  server: string
  /** Of the subnet mask; absent when the server told none. */
  length?: number
  /** Seconds; Infinity for ever. 0 in a refusal. */
  seconds: number
  /** Seconds until the lease is to be renewed, and renewed with whatever server; absent when the server told none. */
  renewal?: number
  rebinding?: number
  settings: AddressSettings
  /** Option 56. */
  message?: string
}

const MESSAGE_TYPE: Record<QuestionType | ReplyType, number> = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
}
const BOOTREQUEST = 1
const BOOTREPLY = 2
const ETHERNET = 1
const MAC_LENGTH = 6
const BROADCAST_FLAG = 0x8000
/** RFC 2131, chapter 3. */
const MAGIC = 0x63825363
/** Offsets of the fixed part (RFC 2131, figure 1). */
const AT = {
  secs: 8,
  flags: 10,
  ciaddr: 12,
  yiaddr: 16,
  chaddr: 28,
  sname: 44,
  file: 108,
  magic: 236,
  options: 240,
}
/** Bytes. What RFC 951 demands at least; some servers and relays drop shorter ones. */
const SHORTEST = 300
/** Bytes of a message that we take (option 57): fits a frame of 1500 with its headers. */
const LONGEST = 1472
const FOREVER = 0xffffffff

/** What we ask servers to tell (option 55). 121 before 3, as RFC 3442 demands. */
const WISHES = [
  OPTION.mask,
  OPTION.classlessRoutes,
  OPTION.router,
  OPTION.servers,
  OPTION.domain,
  OPTION.mtu,
  OPTION.search,
  OPTION.renewal,
  OPTION.rebinding,
]

/**
 * A client that says `discover`, or asks for an address that it has not got yet, wants to be answered by broadcast: nothing
 * answers ARP for it, and no interface bears the address.
 */
export function encodeQuestion(question: Question): Buffer {
  const { type, xid, mac, seconds, address, requested, server, hostname } = question
  const hardware = macBytes(mac)
  const options: [code: number, value: Uint8Array][] = [
    [OPTION.type, Uint8Array.of(MESSAGE_TYPE[type])],
    [OPTION.clientId, Uint8Array.of(ETHERNET, ...hardware)],
  ]
  if (requested !== undefined) options.push([OPTION.requested, ipBytes(requested)])
  if (server !== undefined) options.push([OPTION.server, ipBytes(server)])
  if (type === 'discover' || type === 'request') {
    options.push([OPTION.longest, Uint8Array.of(LONGEST >> 8, LONGEST & 255)])
    options.push([OPTION.wishes, Uint8Array.from(WISHES)])
    if (hostname !== undefined) options.push([OPTION.hostname, Buffer.from(hostname, 'latin1')])
  }
  const head = Buffer.alloc(AT.options)
  head.set([BOOTREQUEST, ETHERNET, MAC_LENGTH, 0])
  head.writeUInt32BE(xid >>> 0, 4)
  head.writeUInt16BE(Math.min(seconds, 0xffff), AT.secs)
  if (address !== undefined) head.set(ipBytes(address), AT.ciaddr)
  else if (type === 'discover' || type === 'request') head.writeUInt16BE(BROADCAST_FLAG, AT.flags)
  head.set(hardware, AT.chaddr)
  head.writeUInt32BE(MAGIC, AT.magic)
  const message = Buffer.concat([head, writeOptions(options)])
  return message.length < SHORTEST ? Buffer.concat([message], SHORTEST) : message
}

/** Undefined for what is no reply, or makes no sense: an offer of no address, for no time, by nobody. */
export function decodeReply(bytes: Uint8Array): Reply | undefined {
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (message.length < AT.options || message[0] !== BOOTREPLY) return undefined
  if (message[1] !== ETHERNET || message[2] !== MAC_LENGTH) return undefined
  if (message.readUInt32BE(AT.magic) !== MAGIC) return undefined
  const options = readOptions(
    message.subarray(AT.options),
    message.subarray(AT.file, AT.magic),
    message.subarray(AT.sname, AT.file),
  )
  const type = typeOf(options.get(OPTION.type))
  const server = addressIn(options.get(OPTION.server))
  if (type === undefined || server === undefined) return undefined
  const heard = {
    xid: message.readUInt32BE(4),
    mac: macText(message.subarray(AT.chaddr, AT.chaddr + MAC_LENGTH)),
    server,
    message: options
      .get(OPTION.message)
      ?.toString('latin1')
      .replace(/[^ -~]+/g, ' ')
      .slice(0, 200)
      .trim(),
  }
  if (type === 'nak') return { ...heard, type, address: '0.0.0.0', seconds: 0, settings: {} }
  const address = addressIn(message.subarray(AT.yiaddr, AT.yiaddr + 4))
  const seconds = numberIn(options.get(OPTION.leaseTime))
  if (address === undefined || !seconds) return undefined
  return {
    ...heard,
    type,
    address,
    length: lengthOf(options.get(OPTION.mask)),
    seconds: seconds === FOREVER ? Number.POSITIVE_INFINITY : seconds,
    renewal: numberIn(options.get(OPTION.renewal)),
    rebinding: numberIn(options.get(OPTION.rebinding)),
    settings: settingsOf(options),
  }
}

function typeOf(value: Buffer | undefined): ReplyType | undefined {
  if (value?.length !== 1) return undefined
  return (['offer', 'ack', 'nak'] as const).find(type => MESSAGE_TYPE[type] === value[0])
}

/** One that a host can have. */
function addressIn(value: Uint8Array | undefined): string | undefined {
  if (value?.length !== 4) return undefined
  const text = ipText(value)
  return isUnicast(text) ? text : undefined
}

const numberIn = (value: Buffer | undefined): number | undefined =>
  value?.length === 4 ? value.readUInt32BE(0) : undefined

/** Of a mask whose ones stand on the left. */
function lengthOf(value: Buffer | undefined): number | undefined {
  const mask = numberIn(value)
  if (mask === undefined) return undefined
  const length = Math.clz32(~mask)
  return length > 0 && mask === (length === 32 ? FOREVER : (FOREVER << (32 - length)) >>> 0)
    ? length
    : undefined
}
