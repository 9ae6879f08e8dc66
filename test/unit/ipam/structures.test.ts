/** The data structures against naive models. */
import fc from 'fast-check'
import { type Cidr, overlaps } from '../../../lib/base/cidr'
import { AddressSet, NONE, type Offset, offset } from '../../../lib/ipam/address-set'
import { Bitmap } from '../../../lib/ipam/bitmap'
import { Holders } from '../../../lib/ipam/holders'
import { FREE, OwnerNames } from '../../../lib/ipam/owners'
import { without } from '../../../lib/ipam/pool'
import { PrefixTrie } from '../../../lib/ipam/prefix-trie'

describe('Bitmap', () => {
  /** Numbers near the borders of words, leaves and levels, where mistakes live. */
  const number = fc.oneof(
    fc.integer({ min: 0, max: 5000 }),
    fc
      .tuple(
        fc.constantFrom(0, 32, 1024, 32768, 1 << 20, 2 ** 31, 2 ** 32 - 2048),
        fc.integer({ min: -3, max: 3 }),
      )
      .map(([base, n]) => Math.max(0, base + n)),
    fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  )

  test('is a set of numbers', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), number), { maxLength: 200 }),
        fc.array(number),
        (steps, probes) => {
          const bitmap = new Bitmap()
          const model = new Set<number>()
          for (const [add, n] of steps) {
            if (add) expect(bitmap.add(n)).toBe(!model.has(n))
            else expect(bitmap.delete(n)).toBe(model.has(n))
            if (add) model.add(n)
            else model.delete(n)
          }
          expect(bitmap.size).toBe(model.size)
          for (const n of [...model, ...probes]) {
            expect(bitmap.has(n)).toBe(model.has(n))
            let free = n
            while (model.has(free)) free++
            expect(bitmap.nextFree(n)).toBe(free)
          }
          for (const [i, n] of probes.entries()) {
            const first = Math.min(n, probes[0] ?? 0)
            const last = Math.max(n, probes[i >> 1] ?? 0)
            if (last - first < 10_000)
              expect(bitmap.count(first, last)).toBe([...model].filter(m => m >= first && m <= last).length)
          }
        },
      ),
      { numRuns: 100 },
    )
  })

  test('fills up from below across levels, and empties', () => {
    const bitmap = new Bitmap()
    const size = 70_000
    let inOrder = 0
    for (let n = 0; n < size; n++) {
      if (bitmap.nextFree(0) === n && bitmap.add(n)) inOrder++
    }
    expect(inOrder).toBe(size)
    for (const hole of [0, 31, 32, 1023, 1024, 32_767, 32_768, 69_999]) {
      bitmap.delete(hole)
      expect(bitmap.nextFree(0)).toBe(hole)
      bitmap.add(hole)
    }
    expect(bitmap.count(0, size)).toBe(size)
    for (let n = 0; n < size; n++) bitmap.delete(n)
    expect(bitmap.size).toBe(0)
    expect(bitmap.nextFree(0)).toBe(0)
  })

  test('the last number of all', () => {
    const bitmap = new Bitmap()
    for (let n = 2 ** 32 - 2048; n < 2 ** 32; n++) bitmap.add(n)
    expect(bitmap.nextFree(2 ** 32 - 1500)).toBeGreaterThanOrEqual(2 ** 32)
    bitmap.delete(2 ** 32 - 1)
    expect(bitmap.nextFree(2 ** 32 - 1500)).toBe(2 ** 32 - 1)
  })

  test('a full /16 stays under 64 KB, places of empty leaves are used again', () => {
    const bitmap = new Bitmap()
    for (let n = 0; n < 65_536; n++) bitmap.add(n)
    const full = bitmap.bytes
    expect(full).toBeLessThan(64 * 1024)
    for (let round = 1; round < 5; round++) {
      for (let n = 0; n < 65_536; n++) bitmap.delete((round - 1) * 65_536 + n)
      for (let n = 0; n < 65_536; n++) bitmap.add(round * 65_536 + n)
    }
    expect(bitmap.bytes).toBeLessThan(2 * full)
  })
})

describe('Holders', () => {
  test('is a map from number to number', () => {
    // close together, so that blocks of every kind arise: rising, all the same, neither
    const number = fc.oneof(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
    const holder = fc.oneof(fc.constant(FREE), fc.integer({ min: 1, max: 4 }), fc.constant(2 ** 32 - 1))
    const step = fc.oneof(
      fc.tuple(number, holder),
      fc.integer({ min: 0, max: 100 }).map(n => [n, n + 3] as [number, number]),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), steps => {
        const holders = new Holders()
        const model = new Map<number, number>()
        for (const [n, owner] of steps) {
          if (owner === FREE) holders.delete(n)
          else holders.set(n, owner)
          if (owner === FREE) model.delete(n)
          else model.set(n, owner)
        }
        expect(holders.size).toBe(model.size)
        for (const [n] of steps) expect(holders.get(n)).toBe(model.get(n) ?? FREE)
        const seen = new Map<number, number>()
        holders.forEach((n, owner) => void seen.set(n, owner))
        expect(seen).toEqual(model)
      }),
    )
  })

  test.each([
    ['each its own owner', (n: number) => n + 3],
    ['one owner for all', () => 7],
    ['1,024 owners in turn', (n: number) => (n & 1023) + 3],
  ])('65,536 numbers in a row under 64 KB: %s', (_, ownerOf) => {
    const holders = new Holders()
    for (let n = 0; n < 65_536; n++) holders.set(n, ownerOf(n))
    expect(holders.bytes.bits + holders.bytes.holders).toBeLessThan(32 * 1024)
    expect(holders.get(65_535)).toBe(ownerOf(65_535))
  })

  test('in any order it is four bytes for each number more, and never grows beyond', () => {
    const holders = new Holders()
    for (let n = 0; n < 65_536; n++) holders.set(n, ((n * 40_503) & 65_535) + 3)
    const full = holders.bytes.holders
    expect(full).toBeLessThan(300 * 1024)
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 65_536; n++) holders.delete(n)
      for (let n = 0; n < 65_536; n++) holders.set(n, ((n * 40_503) & 65_535) + 3)
    }
    expect(holders.bytes.holders).toBe(full)
  })
})

test('OwnerNames counts, and uses numbers again', () => {
  const names = new OwnerNames()
  const a = names.hold('a')
  expect(names.hold('a')).toBe(a)
  expect(names.hold('b')).not.toBe(a)
  names.letGo(a)
  expect(names.name(a)).toBe('a')
  names.letGo(a)
  expect(names.size).toBe(1)
  expect(names.hold('a')).toBe(a)
  names.letGo(a)
  for (const own of [0, 1, 2]) names.letGo(own)
  expect(names.size).toBe(1)
  // those that hold nothing are swept out in the end, and their numbers given to others
  const numbers = new Set<number>()
  for (let i = 0; i < 10_000; i++) {
    const number = names.hold(`owner ${i}`)
    numbers.add(number)
    names.letGo(number)
  }
  expect(numbers.size).toBeLessThan(3000)
  expect(names.size).toBe(1)
  expect(names.name(names.hold('b'))).toBe('b')
})

test('AddressSet works at any distance, up to the end of an IPv6 /0', () => {
  const top = (1n << 128n) - 1n
  const any = fc
    .oneof(
      fc.bigInt({ min: 0n, max: 100n }),
      fc.bigInt({ min: (1n << 32n) - 3n, max: (1n << 32n) + 3n }),
      fc.bigInt({ min: (1n << 53n) - 3n, max: (1n << 53n) + 3n }),
      fc.bigInt({ min: (1n << 85n) - 3n, max: (1n << 85n) + 3n }),
      fc.bigInt({ min: top - 5n, max: top }),
      fc.bigInt({ min: 0n, max: top }),
    )
    .map(offset)
  fc.assert(
    fc.property(fc.array(fc.tuple(any, fc.integer({ min: 0, max: 5 })), { maxLength: 100 }), steps => {
      const set = new AddressSet()
      const model = new Map<Offset, number>()
      for (const [at, owner] of steps) {
        if (owner === FREE) {
          set.free(at)
          model.delete(at)
        } else {
          set.take(at, owner)
          model.set(at, owner)
        }
      }
      expect(set.size).toBe(model.size)
      expect(set.count(0, offset(top))).toBe(model.size)
      const seen = new Map<Offset, number>()
      set.forEach((at, owner) => void seen.set(at, owner))
      expect(seen).toEqual(model)
      for (const [at] of steps) {
        expect(set.ownerOf(at)).toBe(model.get(at) ?? FREE)
        let free = BigInt(at)
        while (model.has(offset(free))) free++
        expect(set.nextFree(at, offset(top))).toBe(free > top ? NONE : offset(free))
        expect(set.nextFree(at, at)).toBe(model.has(at) ? NONE : at)
      }
    }),
  )
})

describe('PrefixTrie', () => {
  // a universe of 256 addresses at the top of each family
  const subnetOf = (family: 4 | 6, base: bigint) =>
    fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 8 })).map(([n, host]): Cidr => {
      const length = (family === 4 ? 32 : 128) - host
      return { family, length, value: base + ((BigInt(n) >> BigInt(host)) << BigInt(host)) }
    })

  test.each([
    [4, 0xffffff00n],
    [6, (1n << 128n) - 256n],
    [6, 0xfd00n << 112n],
  ] as const)('answers as a list would, IPv%i from %s', (family, base) => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(subnetOf(family, base), fc.boolean()), { maxLength: 60 }),
        subnetOf(family, base),
        fc.integer({ min: 0, max: 8 }),
        fc.integer({ min: 0, max: 300 }),
        (steps, within, host, start) => {
          const trie = new PrefixTrie(family)
          const taken: Cidr[] = []
          for (const [subnet, remove] of steps) {
            if (remove && taken.length > 0)
              trie.delete(taken.splice(Number(subnet.value) % taken.length, 1)[0]!)
            const clash = taken.filter(other => overlaps(other, subnet))
            const found = trie.overlap(subnet)
            if (clash.length === 0) expect(found).toBeUndefined()
            else expect(clash).toContainEqual(found)
            if (clash.length > 0) continue
            trie.add(subnet)
            taken.push(subnet)
          }
          const bits = family === 4 ? 32 : 128
          const length = bits - Math.min(host, bits - within.length)
          const size = 1n << BigInt(bits - length)
          const end = within.value + (1n << BigInt(bits - within.length))
          const from = base + BigInt(start)
          let expected: bigint | undefined
          for (let value = within.value; value < end && expected === undefined; value += size)
            if (value >= from && !taken.some(other => overlaps(other, { family, value, length })))
              expected = value
          expect(trie.lowestFree(within, length, from)).toBe(expected)
          for (const subnet of taken) trie.delete(subnet)
          expect(trie.overlap({ family, value: 0n, length: 0 })).toBeUndefined()
        },
      ),
      { numRuns: 300 },
    )
  })

  test('deleting what is not there changes nothing', () => {
    const trie = new PrefixTrie(4)
    const subnet = { family: 4, value: 0x0a000000n, length: 8 } as const
    trie.add(subnet)
    trie.delete({ ...subnet, length: 9 })
    trie.delete({ ...subnet, length: 7 })
    expect(trie.overlap(subnet)).toEqual(subnet)
  })
})

test.each([
  [[], [[0, 9]]],
  [[[0, 9]], []],
  [[[0, 3]], [[4, 9]]],
  [[[7, 20]], [[0, 6]]],
  [
    [
      [2, 3],
      [5, 5],
    ],
    [
      [0, 1],
      [4, 4],
      [6, 9],
    ],
  ],
  [[[20, 30]], [[0, 9]]],
])('0 to 9 without %j is %j', (parts, rest) => {
  const spans = (list: number[][]) =>
    list.map(([first, last]) => ({ first: first as number, last: last as number }))
  expect(without({ first: 0, last: 9 }, spans(parts))).toEqual(spans(rest))
})
