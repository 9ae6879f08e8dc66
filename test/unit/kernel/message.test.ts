import fc from 'fast-check'
import { Attributes, Messages, networkOrder16, Writer } from '../../../lib/kernel/netlink/message'

type Node = { type: number; value: Uint8Array } | { type: number; inner: Node[] }

const type = fc.integer({ min: 1, max: 0x3fff })
const { node } = fc.letrec<{ node: Node }>(tie => ({
  node: fc.oneof(
    { depthSize: 'small' },
    fc.record({ type, value: fc.uint8Array({ maxLength: 300 }) }),
    fc.record({ type, inner: fc.array(tie('node'), { maxLength: 4 }) }),
  ),
}))

function write(writer: Writer, nodes: Node[]): void {
  for (const each of nodes)
    if ('value' in each) writer.attrBytes(each.type, each.value)
    else {
      const start = writer.openMarked(each.type)
      write(writer, each.inner)
      writer.close(start)
    }
}

function read(attributes: Attributes, like: Node[]): Node[] {
  return like.map(each => {
    if (!attributes.next()) throw new Error('ended early')
    return 'value' in each
      ? { type: attributes.type, value: new Uint8Array(attributes.bytes()) }
      : { type: attributes.type, inner: read(attributes.nested(), each.inner) }
  })
}

test('what is written is read again', () => {
  const batch = fc.array(fc.record({ type: fc.integer({ min: 16, max: 0xffff }), nodes: fc.array(node) }))
  fc.assert(
    fc.property(batch, messages => {
      const writer = new Writer()
      for (const message of messages) {
        writer.request(message.type, 0x400)
        writer.u32(7)
        write(writer, message.nodes)
        writer.end()
      }
      expect(writer.count).toBe(messages.length)
      const reader = new Messages(writer.take())
      for (const message of messages) {
        expect(reader.next()).toBe(true)
        expect([reader.type, reader.flags, reader.u32(0)]).toEqual([message.type, 0x405, 7])
        const attributes = reader.attributes(4)
        expect(read(attributes, message.nodes)).toEqual(message.nodes)
        expect(attributes.next()).toBe(false)
      }
      expect(reader.next()).toBe(false)
    }),
    { numRuns: 200 },
  )
})

test('whatever the bytes are, reading them ends and stays inside', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(64), (data, offset) => {
      const messages = new Messages(data)
      let count = 0
      while (messages.next()) {
        expect(++count).toBeLessThanOrEqual(data.length / 16)
        const attributes = messages.attributes(offset)
        let found = 0
        while (attributes.next()) {
          expect(++found).toBeLessThanOrEqual(data.length / 4)
          attributes.text()
          attributes.mac()
          attributes.u64()
          expect(attributes.bytes().length).toBe(attributes.size)
          const inner = attributes.nested(offset)
          while (inner.next()) inner.u32be(offset)
        }
      }
    }),
    { numRuns: 500 },
  )
})

test('numbers, texts and hardware addresses', () => {
  const writer = new Writer()
  writer.request(20)
  writer.attr8(1, 200)
  writer.attr16(2, 40_000)
  writer.attr16be(3, 4789)
  writer.attr32(4, 0xfffffffe)
  writer.attr64(5, 2n ** 52n + 1n)
  writer.attrText(6, 'ethä')
  writer.attrMac(7, '02:42:AC:11:00:ff')
  writer.end()
  const messages = new Messages(writer.take())
  expect(messages.next()).toBe(true)
  const seen: unknown[] = []
  const a = messages.attributes(0)
  while (a.next()) seen.push([a.u8(), a.u16(), a.u16be(), a.u32(), a.u64(), a.text(), a.mac()][a.type - 1])
  expect(seen).toEqual([200, 40_000, 4789, 0xfffffffe, 2 ** 52 + 1, 'ethä', '02:42:ac:11:00:ff'])
})

test('what is too short reads as zero', () => {
  const attributes = new Attributes(Uint8Array.of(5, 0, 1, 0, 9, 0, 0, 0), 0, 8)
  expect(attributes.next()).toBe(true)
  expect([attributes.u8(), attributes.u16(), attributes.u32(), attributes.u64(), attributes.u32be()]).toEqual(
    [9, 0, 0, 0, 0],
  )
})

test('the writer grows, rewinds, and is empty after its bytes were taken', () => {
  const writer = new Writer()
  writer.request(16)
  writer.attrBytes(1, new Uint8Array(100_000).fill(3))
  writer.end()
  const { length, count } = writer
  writer.request(17)
  writer.end()
  writer.rewind(length, count)
  expect(writer.take()).toHaveLength(16 + 4 + 100_000)
  expect([writer.length, writer.count]).toEqual([0, 0])
})

test('networkOrder16 has the bytes of network order in memory', () => {
  expect([...new Uint8Array(Uint16Array.of(networkOrder16(0x1234)).buffer)]).toEqual([0x12, 0x34])
})
