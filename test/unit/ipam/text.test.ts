/** The quick readers and writers against the general ones: same answers, whatever the input. */
import { isIPv4, isIPv6 } from 'node:net'
import fc from 'fast-check'
import { contains, firstOf, formatCidr, formatIp, network, parseCidr, parseIp } from '../../../lib/base/cidr'
import { Numbering } from '../../../lib/ipam/numbering'
import { format4, format6, parse4, parse6, readCidr, toWords, type Words } from '../../../lib/ipam/text'

const hostile = fc.oneof(
  fc.string(),
  fc.string({ unit: fc.constantFrom('0', '1', '9', '.', '/', '-', ' ', '25', '255', '256') }),
  fc.string({ unit: fc.constantFrom('0', '1', 'f', 'F', 'g', ':', '::', '.', '%', '/', 'ffff', '12345') }),
  fc.ipV4(),
  fc.ipV6(),
)
const value = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
  fc
    .array(fc.constantFrom(0n, 0n, 0n, 1n, 0xffffn), { minLength: 8, maxLength: 8 })
    .map(groups => groups.reduce<bigint>((all, group) => (all << 16n) | group, 0n)),
)

test('parse4 reads what is an IPv4 address, and nothing else', () => {
  fc.assert(
    fc.property(hostile, text => {
      expect(parse4(text)).toBe(isIPv4(text) ? Number(parseIp(text).value) : -1)
    }),
    { numRuns: 2000 },
  )
  for (const text of [
    '01.2.3.4',
    '1.2.3',
    '1.2.3.4.',
    '.1.2.3.4',
    '1..2.3',
    '1.2.3.256',
    '1.2.3.4 ',
    '',
    '+1.2.3.4',
  ])
    expect(parse4(text)).toBe(-1)
})

test('parse6 reads what is an IPv6 address without dots, and nothing else', () => {
  const words: Words = [0, 0, 0, 0]
  fc.assert(
    fc.property(hostile, text => {
      const plain = isIPv6(text) && !/[.%]/.test(text)
      expect(parse6(text, words)).toBe(plain)
      if (plain) expect(words).toEqual(toWords(parseIp(text).value))
    }),
    { numRuns: 3000 },
  )
  for (const text of [
    ':',
    ':::',
    '1:::2',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:',
    '::12345',
  ])
    expect(parse6(text, words)).toBe(false)
  for (const text of ['::', '::1', '1::', '1:2:3:4:5:6:7::', '::2:3:4:5:6:7:8', 'A:b::C']) {
    expect(parse6(text, words)).toBe(true)
    expect(words).toEqual(toWords(parseIp(text).value))
  }
})

test('format4 and format6 write canonical text', () => {
  fc.assert(
    fc.property(value, n => {
      expect(format6(...toWords(n))).toBe(formatIp({ family: 6, value: n }))
      const low = n & 0xffffffffn
      expect(format4(Number(low))).toBe(formatIp({ family: 4, value: low }))
    }),
    { numRuns: 2000 },
  )
})

test('readCidr agrees with parseCidr, errors included', () => {
  const outcome = (read: typeof parseCidr, text: string) => {
    try {
      return read(text)
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  const text = fc.oneof(
    hostile,
    fc
      .tuple(
        fc.oneof(fc.ipV4(), fc.ipV6(), hostile),
        fc.oneof(fc.nat(140).map(String), fc.string({ maxLength: 3 })),
      )
      .map(([ip, length]) => `${ip}/${length}`),
  )
  fc.assert(
    fc.property(text, input => {
      expect(outcome(readCidr, input)).toEqual(outcome(parseCidr, input))
    }),
    { numRuns: 2000 },
  )
})

test('Numbering: address → offset → address, at every length', () => {
  const pool = fc
    .oneof(
      fc.tuple(
        fc.constant(4 as const),
        fc.bigInt({ min: 0n, max: 0xffffffffn }),
        fc.integer({ min: 0, max: 32 }),
      ),
      fc.tuple(fc.constant(6 as const), value, fc.integer({ min: 0, max: 128 })),
    )
    .map(([family, n, length]) => ({
      address: { family, value: n },
      pool: network({ family, value: n, length }),
    }))
  fc.assert(
    fc.property(pool, value, ({ address, pool: subnet }, stranger) => {
      const numbering = Numbering.of(subnet)
      const text = formatIp(address)
      const at = numbering.offsetOf(text)
      expect(BigInt(at)).toBe(address.value - subnet.value)
      expect(typeof at).toBe(BigInt(at) <= BigInt(Number.MAX_SAFE_INTEGER) ? 'number' : 'bigint')
      expect(numbering.addressOf(at)).toBe(text)
      expect(numbering.offsetOf(numbering.cidrOf(at))).toBe(at)
      const other = { family: subnet.family, value: subnet.family === 4 ? stranger & 0xffffffffn : stranger }
      const distance = other.value - subnet.value
      if (distance < 0n || distance > BigInt(numbering.last))
        expect(() => numbering.offsetOf(formatIp(other))).toThrow(/is not in pool/)
      else expect(BigInt(numbering.offsetOf(formatIp(other)))).toBe(distance)
    }),
    { numRuns: 500 },
  )
})

test('Numbering reads other spellings and refuses the other family', () => {
  const six = Numbering.of(parseCidr('fd00::/64'))
  expect(six.offsetOf('FD00:0:0:0:0:0:0:A')).toBe(10)
  expect(six.offsetOf('fd00::1.2.3.4')).toBe(0x01020304)
  expect(() => six.offsetOf('10.0.0.1')).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ADDRESS' }))
  expect(() => six.offsetOf('fd00::1/63')).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ADDRESS' }))
  const four = Numbering.of(parseCidr('10.0.0.0/24'))
  expect(() => four.offsetOf('::ffff:10.0.0.1')).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ADDRESS' }),
  )
})

test('an IPv6 address read after its neighbours were written or read is the same, however it is spelt', () => {
  const group = fc.constantFrom('0', '1', '00a', 'ffff', 'FFFF', '1f', '0001', '12345', 'g', '')
  const tail = fc.array(group, { minLength: 1, maxLength: 5 }).map(groups => groups.join(':'))
  fc.assert(
    fc.property(
      fc.constantFrom('fd00::/64', 'fd00:1:2:3::/64', 'fd00::/112', '::ff00:0:0/96', 'fd00::1:0:0/104'),
      fc.array(
        fc.tuple(fc.nat(), fc.boolean(), fc.constantFrom('fd00::', 'fd00:1:2:3:', '::', 'fd00:0:0:0:'), tail),
      ),
      (pool, steps) => {
        const numbering = Numbering.of(parseCidr(pool))
        const limit = Number(numbering.last) < 2 ** 40 ? Number(numbering.last) : 2 ** 40
        for (const [n, write, head, text] of steps) {
          const at = (n * 7919) % (limit + 1)
          if (write) {
            expect(numbering.cidrOf(at)).toBe(
              formatCidr({ ...parseCidr(pool), value: firstOf(parseCidr(pool)) + BigInt(at) }),
            )
            expect(numbering.offsetOf(numbering.cidrOf(at))).toBe(at)
          }
          const spelt = head + text
          let expected: unknown
          try {
            const ip = parseIp(spelt)
            expected = contains(parseCidr(pool), ip) ? ip.value - firstOf(parseCidr(pool)) : undefined
          } catch {
            expected = undefined
          }
          let got: unknown
          try {
            got = BigInt(numbering.offsetOf(spelt))
          } catch {
            got = undefined
          }
          expect(got).toBe(expected)
        }
      },
    ),
    { numRuns: 200 },
  )
})
