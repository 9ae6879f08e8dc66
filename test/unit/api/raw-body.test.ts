/** Bodies that are cut out of a connection by hand. */
import fc from 'fast-check'
import { rawBodyOf } from '../../../lib/api/raw-body'

/** Feeds the stream in pieces of these sizes, over and over; what the body was and what came after it. */
function read(headers: Record<string, string>, stream: Buffer, sizes: number[], limit = 1000) {
  const body = rawBodyOf(headers, limit)
  for (let at = 0, turn = 0; at <= stream.length; turn++) {
    const size = sizes[turn % sizes.length] as number
    const rest = body.add(stream.subarray(at, at + size))
    at += size
    if (rest) return [body.bytes().toString(), Buffer.concat([rest, stream.subarray(at)]).toString()]
  }
  return undefined
}

const pieces = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 })
const text = fc.string({ unit: 'grapheme-ascii', maxLength: 40 })

test('however it is cut, a body comes out whole, and what follows is left alone', () => {
  const CHUNKED = { 'transfer-encoding': 'Chunked' }
  fc.assert(
    fc.property(fc.array(text), text, pieces, (chunks, after, sizes) => {
      const whole = chunks.join('')
      expect(read({ 'content-length': String(whole.length) }, Buffer.from(whole + after), sizes)).toEqual([
        whole,
        after,
      ])
      const coded = [...chunks.filter(Boolean), ''].map(
        chunk => `${chunk.length.toString(16)}\r\n${chunk}${chunk ? '\r\n' : ''}`,
      )
      for (const trailer of ['', 'A: b\r\n'])
        expect(read(CHUNKED, Buffer.from(`${coded.join('')}${trailer}\r\n${after}`), sizes)).toEqual([
          whole,
          after,
        ])
    }),
    { seed: 3 },
  )
})

test.each([
  ['two bytes of one', '1\r\nab\r\n'],
  ['a bare line feed', '1\na\r\n0\r\n\r\n'],
  ['a negative size', '-1\r\n'],
  ['a size in another base', '0x1\r\n'],
  ['a size of nine digits', '100000000\r\n'],
  ['no size', '\r\n'],
])('refused: %s', (_, stream) => {
  for (const size of [1, 2, 100])
    expect(() => read({ 'transfer-encoding': 'chunked' }, Buffer.from(stream), [size])).toThrow(
      'malformed chunked encoding',
    )
})

test('other codings, and more than the limit', () => {
  expect(() => rawBodyOf({ 'transfer-encoding': 'gzip, chunked' }, 9)).toThrow(
    /^unsupported transfer encoding/,
  )
  expect(() => rawBodyOf({ 'content-length': '10' }, 9)).toThrow(/larger than 9 bytes/)
  const chunks = Buffer.from('5\r\naaaaa\r\n5\r\naaaaa\r\n')
  expect(() => read({ 'transfer-encoding': 'chunked' }, chunks, [1], 9)).toThrow(/larger than 9 bytes/)
})
