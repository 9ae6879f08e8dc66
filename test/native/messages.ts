/** The few rtnetlink messages that the tests of the addon need, made by hand: they must not depend on lib/kernel/netlink. */

/* linux/netlink.h, linux/rtnetlink.h */
export const NETLINK_ROUTE = 0
export const NETLINK_FIB_LOOKUP = 10
export const NETLINK_NETFILTER = 12
export const RTNLGRP_LINK = 1
const REQUEST_ACK = 0x1 | 0x4
const REQUEST_DUMP = 0x1 | 0x300
const ECHO = 0x8
const CREATE_EXCL = 0x600
const RTM_NEWLINK = 16
const RTM_DELLINK = 17
const RTM_GETLINK = 18
const RTM_NEWADDR = 20
const RTM_GETADDR = 22

function message(type: number, flags: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const header = Buffer.alloc(16)
  header.writeUInt32LE(16 + body.length, 0)
  header.writeUInt16LE(type, 4)
  header.writeUInt16LE(flags, 6)
  return Buffer.concat([header, body])
}

function ifinfo(index: number, flags = 0, change = 0): Buffer {
  const body = Buffer.alloc(16)
  body.writeInt32LE(index, 4)
  body.writeUInt32LE(flags, 8)
  body.writeUInt32LE(change, 12)
  return body
}

function attribute(type: number, value: Buffer): Buffer {
  const result = Buffer.alloc((4 + value.length + 3) & ~3)
  result.writeUInt16LE(4 + value.length, 0)
  result.writeUInt16LE(type, 2)
  value.copy(result, 4)
  return result
}

const text = (value: string) => Buffer.from(`${value}\0`)
const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer)

export const dumpLinks = () => message(RTM_GETLINK, REQUEST_DUMP, ifinfo(0))
export const dumpAddresses = () => message(RTM_GETADDR, REQUEST_DUMP, Buffer.alloc(8))
export const getLink = (index: number) => message(RTM_GETLINK, REQUEST_ACK, ifinfo(index))
export const setMtu = (index: number, mtu: number) =>
  message(RTM_NEWLINK, REQUEST_ACK, ifinfo(index), attribute(4, u32(mtu)))
export const deleteLink = (index: number) => message(RTM_DELLINK, REQUEST_ACK, ifinfo(index))
export const addBridge = (name: string, echo = false) =>
  message(
    RTM_NEWLINK,
    REQUEST_ACK | CREATE_EXCL | (echo ? ECHO : 0),
    ifinfo(0),
    attribute(3, text(name)),
    attribute(18, attribute(1, text('bridge'))),
  )
/** An address message without the address, which the kernel refuses in words. */
export const addBadAddress = () => {
  const body = Buffer.from([2, 24, 0, 0, 1, 0, 0, 0])
  return message(RTM_NEWADDR, REQUEST_ACK | CREATE_EXCL, body)
}
/** RTM_NEWNSID */
export const nameNetns = (ns: number, id: number) =>
  message(88, REQUEST_ACK, Buffer.alloc(4), attribute(1, u32(id)), attribute(3, u32(ns)))
/** A socket filter that lets through messages of one type: load the half word at 4, compare, return all or nothing. */
export const filterOfType = (type: number) =>
  Buffer.concat(
    [
      [0x28, 0, 0, 4],
      [0x15, 0, 1, (type & 255) << 8],
      [0x06, 0, 0, 0xffffffff],
      [0x06, 0, 0, 0],
    ].map(([code = 0, jumpTrue = 0, jumpFalse = 0, k = 0]) =>
      Buffer.concat([Buffer.from([code, 0, jumpTrue, jumpFalse]), u32(k)]),
    ),
  )
/** What NETLINK_FIB_LOOKUP is too short for, and says nothing about. */
export const unanswered = () => message(RTM_NEWLINK, REQUEST_ACK, Buffer.alloc(4))

/** Type and sequence number of each message in `data`, and its bytes. */
export function* split(data: Uint8Array): Generator<{ type: number; sequence: number; bytes: Buffer }> {
  const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  for (let offset = 0; offset < buffer.length; ) {
    const length = buffer.readUInt32LE(offset)
    if (length < 16 || offset + length > buffer.length) throw new Error(`broken message at ${offset}`)
    yield {
      type: buffer.readUInt16LE(offset + 4),
      sequence: buffer.readUInt32LE(offset + 8),
      bytes: buffer.subarray(offset, offset + length),
    }
    offset += (length + 3) & ~3
  }
}

/** The raw sockaddr_in of an IPv4 address. */
export function sockaddrIn(address: string, port: number): Buffer {
  const result = Buffer.alloc(16)
  result.writeUInt16LE(2, 0)
  result.writeUInt16BE(port, 2)
  address.split('.').forEach((part, i) => {
    result[4 + i] = Number(part)
  })
  return result
}
