import { endianness } from 'node:os'
import { NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST } from './constants'

/** Netlink is in host byte order, except where a field is named big-endian. */
const LITTLE = endianness() === 'LE'
const HEADER = 16 // struct nlmsghdr: length, type, flags, sequence, port
/** htons(3): a number whose bytes in memory are those of the value in network order. */
export const networkOrder16 = (value: number): number =>
  LITTLE ? ((value & 255) << 8) | (value >> 8) : value
/** The same of 32 bits: htonl(3). */
export const networkOrder32 = (value: number): number =>
  (LITTLE
    ? ((value & 255) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)
    : value) >>> 0
const align = (n: number): number => (n + 3) & ~3

/**
 * Writes netlink messages back to back into one buffer that grows, without objects per attribute. One writer serves many
 * batches: {@link take} copies the bytes out and starts anew.
 */
export class Writer {
  private data = Buffer.alloc(2048)
  private view = new DataView(this.data.buffer, this.data.byteOffset)
  private at = 0
  private start = 0
  /** Messages begun since the last {@link take}. */
  count = 0

  /** Bytes written so far. */
  get length(): number {
    return this.at
  }

  /** Begins a request which the kernel acknowledges. The sequence number is left 0: whoever sends it sets it. */
  request(type: number, flags = 0): void {
    this.header(type, NLM_F_REQUEST | NLM_F_ACK | flags)
  }

  dump(type: number): void {
    this.header(type, NLM_F_REQUEST | NLM_F_DUMP)
  }

  /** Begins a request of which only an error is heard: one of a batch. */
  unanswered(type: number, flags = 0): void {
    this.header(type, NLM_F_REQUEST | flags)
  }

  /** Adds a flag to the message that began at byte `start`. */
  flag(start: number, flag: number): void {
    const at = start + 6 // struct nlmsghdr: nlmsg_flags
    this.view.setUint16(at, this.view.getUint16(at, LITTLE) | flag, LITTLE)
  }

  private header(type: number, flags: number): void {
    this.start = this.at
    this.count++
    this.u32(0)
    this.u16(type)
    this.u16(flags)
    this.u32(0)
    this.u32(0)
  }

  /** Ends the message that was begun last: fills in its length. */
  end(): void {
    this.view.setUint32(this.start, this.at - this.start, LITTLE)
    this.pad()
  }

  u8(value: number): void {
    this.room(1)
    this.view.setUint8(this.at, value)
    this.at += 1
  }

  u16(value: number): void {
    this.room(2)
    this.view.setUint16(this.at, value, LITTLE)
    this.at += 2
  }

  /** Big-endian, as on the wire. */
  u16be(value: number): void {
    this.room(2)
    this.view.setUint16(this.at, value)
    this.at += 2
  }

  u32(value: number): void {
    this.room(4)
    this.view.setUint32(this.at, value, LITTLE)
    this.at += 4
  }

  u32be(value: number): void {
    this.room(4)
    this.view.setUint32(this.at, value)
    this.at += 4
  }

  u64(value: bigint): void {
    this.room(8)
    this.view.setBigUint64(this.at, value, LITTLE)
    this.at += 8
  }

  bytes(value: Uint8Array): void {
    this.room(value.length)
    this.data.set(value, this.at)
    this.at += value.length
  }

  zeros(count: number): void {
    this.room(count)
    this.data.fill(0, this.at, this.at + count)
    this.at += count
  }

  private pad(): void {
    this.zeros(align(this.at) - this.at)
  }

  private attribute(type: number, size: number): void {
    this.room(4 + align(size))
    this.view.setUint16(this.at, 4 + size, LITTLE)
    this.view.setUint16(this.at + 2, type, LITTLE)
    this.at += 4
  }

  attr8(type: number, value: number): void {
    this.attribute(type, 1)
    this.u8(value)
    this.pad()
  }

  attr16(type: number, value: number): void {
    this.attribute(type, 2)
    this.u16(value)
    this.pad()
  }

  attr16be(type: number, value: number): void {
    this.attribute(type, 2)
    this.u16be(value)
    this.pad()
  }

  attr32(type: number, value: number): void {
    this.attribute(type, 4)
    this.u32(value)
  }

  attr64(type: number, value: bigint): void {
    this.attribute(type, 8)
    this.u64(value)
  }

  attrBytes(type: number, value: Uint8Array): void {
    this.attribute(type, value.length)
    this.bytes(value)
    this.pad()
  }

  /** A few bytes of many, without an object for them. */
  attrPart(type: number, value: Uint8Array, from: number, size: number): void {
    this.attribute(type, size)
    for (let i = from; i < from + size; i++) this.u8(value[i] ?? 0)
    this.pad()
  }

  /** Text with a NUL behind it. */
  attrText(type: number, value: string): void {
    const size = Buffer.byteLength(value)
    this.attribute(type, size + 1)
    this.room(size + 1)
    this.data.write(value, this.at)
    this.at += size
    this.u8(0)
    this.pad()
  }

  /** `02:42:ac:11:00:02` → six bytes. */
  attrMac(type: number, mac: string): void {
    this.attribute(type, 6)
    for (let i = 0; i < 6; i++) this.u8(Number.parseInt(mac.slice(i * 3, i * 3 + 2), 16))
    this.pad()
  }

  /** Opens a nested attribute; give what it returns to {@link close}. */
  open(type: number, flag = 0): number {
    const start = this.at
    this.attribute(type | flag, 0)
    return start
  }

  /** The same, marked NLA_F_NESTED, for interfaces that insist on it. */
  openMarked(type: number): number {
    return this.open(type, NLA_F_NESTED)
  }

  close(start: number): void {
    this.view.setUint16(start, this.at - start, LITTLE)
  }

  /** What was written, as a copy; the writer is empty again. */
  take(): Buffer {
    const copy = Buffer.from(this.data.subarray(0, this.at))
    this.clear()
    return copy
  }

  clear(): void {
    this.rewind(0, 0)
  }

  /** Back to where `length` and `count` were these: forgets the messages since. */
  rewind(length: number, count: number): void {
    this.at = length
    this.count = count
  }

  private room(size: number): void {
    if (this.at + size <= this.data.length) return
    const grown = Buffer.alloc(Math.max(this.data.length * 2, this.at + size))
    grown.set(this.data)
    this.data = grown
    this.view = new DataView(grown.buffer, grown.byteOffset)
  }
}

/**
 * Walks over attributes: `while (attributes.next()) switch (attributes.type) { ... }`. What is malformed ends the walk;
 * what is too short reads as zero. Never reads outside its range.
 */
export class Attributes {
  private readonly view: DataView
  private following: number
  private at = 0
  /** Bytes of the present attribute's value. */
  size = 0
  type = 0

  constructor(
    private readonly data: Uint8Array,
    from: number,
    private readonly end: number,
  ) {
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    this.following = from
  }

  next(): boolean {
    if (this.following + 4 > this.end) return false
    const length = this.view.getUint16(this.following, LITTLE)
    if (length < 4 || this.following + length > this.end) return false
    this.type = this.view.getUint16(this.following + 2, LITTLE) & NLA_TYPE_MASK
    this.at = this.following + 4
    this.size = length - 4
    this.following += align(length)
    return true
  }

  u8(offset = 0): number {
    return offset + 1 <= this.size ? this.view.getUint8(this.at + offset) : 0
  }

  u16(offset = 0): number {
    return offset + 2 <= this.size ? this.view.getUint16(this.at + offset, LITTLE) : 0
  }

  u16be(offset = 0): number {
    return offset + 2 <= this.size ? this.view.getUint16(this.at + offset) : 0
  }

  u32(offset = 0): number {
    return offset + 4 <= this.size ? this.view.getUint32(this.at + offset, LITTLE) : 0
  }

  u32be(offset = 0): number {
    return offset + 4 <= this.size ? this.view.getUint32(this.at + offset) : 0
  }

  /** A counter; exact up to 2^53. */
  u64(offset = 0): number {
    return offset + 8 <= this.size ? Number(this.view.getBigUint64(this.at + offset, LITTLE)) : 0
  }

  /** A view, not a copy. */
  bytes(offset = 0): Uint8Array {
    return this.data.subarray(this.at + Math.min(offset, this.size), this.at + this.size)
  }

  /** Up to the NUL, or all of it. */
  text(): string {
    const bytes = this.bytes()
    const nul = bytes.indexOf(0)
    return Buffer.from(bytes.buffer, bytes.byteOffset, nul < 0 ? bytes.length : nul).toString()
  }

  /** `02:42:ac:11:00:02`; undefined when it is not six bytes long (tunnels have addresses of other lengths). */
  mac(): string | undefined {
    if (this.size !== 6) return undefined
    let text = hexByte(this.u8(0))
    for (let i = 1; i < 6; i++) text += `:${hexByte(this.u8(i))}`
    return text
  }

  /** The attributes within this one, from byte `from` to byte `to` of its value. */
  nested(from = 0, to = this.size): Attributes {
    return new Attributes(this.data, this.at + Math.min(from, this.size), this.at + Math.min(to, this.size))
  }
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
const hexByte = (byte: number): string => HEX[byte] ?? '00'

/** Walks over the messages of a buffer, in the manner of {@link Attributes}; the accessors read the message's body. */
export class Messages {
  private readonly view: DataView
  private following = 0
  private at = 0
  /** Bytes of the present message's body. */
  size = 0
  type = 0
  flags = 0
  /** Netlink port of the sender: who caused the event. */
  port = 0

  constructor(private readonly data: Uint8Array) {
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  }

  next(): boolean {
    if (this.following + HEADER > this.data.length) return false
    const length = this.view.getUint32(this.following, LITTLE)
    if (length < HEADER || this.following + length > this.data.length) return false
    this.type = this.view.getUint16(this.following + 4, LITTLE)
    this.flags = this.view.getUint16(this.following + 6, LITTLE)
    this.port = this.view.getUint32(this.following + 12, LITTLE)
    this.at = this.following + HEADER
    this.size = length - HEADER
    this.following += align(length)
    return true
  }

  u8(offset: number): number {
    return offset + 1 <= this.size ? this.view.getUint8(this.at + offset) : 0
  }

  u16(offset: number): number {
    return offset + 2 <= this.size ? this.view.getUint16(this.at + offset, LITTLE) : 0
  }

  u32(offset: number): number {
    return offset + 4 <= this.size ? this.view.getUint32(this.at + offset, LITTLE) : 0
  }

  u16be(offset: number): number {
    return offset + 2 <= this.size ? this.view.getUint16(this.at + offset) : 0
  }

  u32be(offset: number): number {
    return offset + 4 <= this.size ? this.view.getUint32(this.at + offset) : 0
  }

  /** A counter; exact up to 2^53. */
  u64(offset: number): number {
    return offset + 8 <= this.size ? Number(this.view.getBigUint64(this.at + offset, LITTLE)) : 0
  }

  /** A view, not a copy. */
  bytes(offset: number, count: number): Uint8Array {
    return this.data.subarray(this.at + offset, this.at + Math.min(offset + count, this.size))
  }

  /** The attributes behind the fixed part of `offset` bytes (a multiple of four). */
  attributes(offset: number): Attributes {
    return new Attributes(this.data, this.at + Math.min(offset, this.size), this.at + this.size)
  }
}

/** Decodes all messages of a buffer; those for which the decoder answers undefined are left out. */
export function decodeAll<T>(data: Uint8Array, decode: (message: Messages) => T | undefined): T[] {
  const found: T[] = []
  const messages = new Messages(data)
  while (messages.next()) {
    const value = decode(messages)
    if (value !== undefined) found.push(value)
  }
  return found
}
