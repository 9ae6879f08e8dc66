import { Messages, Writer } from '../../../lib/kernel/netlink/message'
import { decodeNsid, encodeNameNetns, originOf } from '../../../lib/kernel/netlink/nsid'

/** As `ip netns set NAME auto` and `ip netns list-id` send them for descriptor 6 (iproute2 6.1.0, with NLM_F_ACK; attributes sorted). */
const NAME = '2400000058000500000000000000000000000000' + '08000100ffffffff' + '0800030006000000'
const ASK = '1c0000005a000500000000000000000000000000' + '0800030006000000'

const first = (hex: string): Messages => {
  const messages = new Messages(Buffer.from(hex, 'hex'))
  expect(messages.next()).toBe(true)
  return messages
}

test('a namespace gets an id of the kernel’s choice, and it is asked for', () => {
  const writer = new Writer()
  encodeNameNetns(writer, 6)
  expect(writer.count).toBe(2)
  expect(writer.take().toString('hex')).toBe(NAME + ASK)
})

test('the id in the answer; -1 is none', () => {
  expect(decodeNsid(first('1c0000005800000000000000000000000000000008000100' + '07000000'))).toBe(7)
  expect(decodeNsid(first('1c0000005800000000000000000000000000000008000100' + 'ffffffff'))).toBeUndefined()
  expect(decodeNsid(first(ASK))).toBeUndefined()
})

test('what the addon says of the origin of a message', () => {
  expect(originOf(first('1400000001000000000000000000000009000000'))).toBe(9)
  expect(originOf(first(ASK))).toBeUndefined()
})
