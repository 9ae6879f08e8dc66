import fc from 'fast-check'
import { parseGoJson } from '../../../lib/api/json'

const parse = (text: string) => {
  const { value, more } = parseGoJson(Buffer.from(text))
  if (more) throw new Error('more')
  return value
}

// As Go 1.23's json.Decoder words them.
test.each([
  ['{', 'unexpected EOF'],
  ['["a', 'unexpected EOF'],
  ['-', 'unexpected EOF'],
  ['tru', 'unexpected EOF'],
  ['x', "invalid character 'x' looking for beginning of value"],
  ['[1,]', "invalid character ']' looking for beginning of value"],
  ['[1 2]', "invalid character '2' after array element"],
  ['[01]', "invalid character '1' after array element"],
  ['{a:1}', "invalid character 'a' looking for beginning of object key string"],
  ['{"a":1,}', "invalid character '}' looking for beginning of object key string"],
  ['{"a" 1}', "invalid character '1' after object key"],
  ['{"a":1 "b":2}', `invalid character '"' after object key:value pair`],
  ["['a']", "invalid character '\\'' looking for beginning of value"],
  ['["a\nb"]', "invalid character '\\n' in string literal"],
  ['["\u0000"]', "invalid character '\\x00' in string literal"],
  ['["\\x"]', "invalid character 'x' in string escape code"],
  ['["\\u12g4"]', "invalid character 'g' in \\u hexadecimal character escape"],
  ['[-a]', "invalid character 'a' in numeric literal"],
  ['[1.]', "invalid character ']' after decimal point in numeric literal"],
  ['[1e+]', "invalid character ']' in exponent of numeric literal"],
  ['[trve]', "invalid character 'v' in literal true (expecting 'u')"],
  ['{} {}', 'more'],
  ['['.repeat(10_001), 'exceeded max depth'],
])('%.30j is refused', (text, message) => {
  expect(() => parse(text)).toThrow(new Error(message))
})

test('what is JSON is read as ever; what is none, is refused by both', () => {
  fc.assert(
    fc.property(fc.json(), fc.string(), fc.nat(), (good, junk, where) => {
      expect(parse(` ${good}\n`)).toEqual(JSON.parse(good))
      const at = where % (good.length + 1)
      for (const text of [good.slice(0, at), good.slice(0, at) + junk + good.slice(at), junk]) {
        const outcome = (read: (text: string) => unknown) => {
          try {
            return { value: read(text) }
          } catch {
            return undefined
          }
        }
        expect(outcome(parse)).toEqual(outcome(JSON.parse))
      }
    }),
    { numRuns: 300, seed: 11 },
  )
})
