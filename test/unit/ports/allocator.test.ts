import { describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { PortAllocator, PortSet } from '../../../lib/ports/allocator'

const range = (first: number, last = first) => ({ first, last })

describe('PortAllocator', () => {
  test('a wildcard conflicts with every address of its family, and with no other', () => {
    const ports = new PortAllocator()
    expect(ports.take(['0.0.0.0'], 'tcp', range(80))).toBe(true)
    expect(ports.take(['192.0.2.1'], 'tcp', range(80))).toBe(false)
    expect(ports.take(['::'], 'tcp', range(80))).toBe(true)
    expect(ports.take(['::1'], 'tcp', range(80))).toBe(false)
    expect(ports.take(['0.0.0.0'], 'udp', range(80))).toBe(true)
    expect(ports.take(['192.0.2.1'], 'tcp', range(81))).toBe(true)
    expect(ports.take(['192.0.2.2'], 'tcp', range(81))).toBe(true)
    ports.free('192.0.2.1', 'tcp', range(81))
    expect(ports.take(['0.0.0.0'], 'tcp', range(81))).toBe(false)
    ports.free('192.0.2.2', 'tcp', range(81))
    expect(ports.take(['0.0.0.0'], 'tcp', range(81))).toBe(true)
  })

  test('several addresses: all or none', () => {
    const ports = new PortAllocator()
    ports.take(['::1'], 'tcp', range(80))
    expect(ports.take(['127.0.0.1', '::1'], 'tcp', range(80))).toBe(false)
    expect(ports.take(['127.0.0.1'], 'tcp', range(80))).toBe(true)
    expect(ports.choose(['0.0.0.0', '::'], 'tcp', range(80, 82))).toBe(81)
  })

  test('starts after the last port handed out, wraps once, and ends when all are taken', () => {
    const ports = new PortAllocator()
    const pick = () => ports.choose(['0.0.0.0'], 'tcp', range(8000, 8002))
    expect([pick(), pick()]).toEqual([8000, 8001])
    ports.free('0.0.0.0', 'tcp', range(8000))
    expect([pick(), pick(), pick()]).toEqual([8002, 8000, undefined])
    // another range has its own cursor
    ports.free('0.0.0.0', 'tcp', range(8000, 8002))
    expect(ports.choose(['0.0.0.0'], 'tcp', range(8000, 8003))).toBe(8000)
  })

  test('runs of ports; a run may lie across the cursor', () => {
    const ports = new PortAllocator()
    expect(ports.choose(['0.0.0.0'], 'udp', range(1, 65535), 10_000)).toBe(1)
    expect(ports.choose(['0.0.0.0'], 'udp', range(1, 65535), 10_000)).toBe(10_001)
    ports.take(['0.0.0.0'], 'udp', range(25_000))
    expect(ports.choose(['0.0.0.0'], 'udp', range(1, 65535), 10_000)).toBe(25_001)
    ports.free('0.0.0.0', 'udp', range(1, 65535))
    expect(ports.choose(['0.0.0.0'], 'udp', range(1, 65535), 65_535)).toBe(1)
    expect(ports.choose(['0.0.0.0'], 'udp', range(1, 65535))).toBeUndefined()
  })

  test('what is to be avoided is not chosen, but may be taken', () => {
    const ports = new PortAllocator()
    const reserved = new PortSet()
    reserved.addRange(range(8000, 8005))
    expect(ports.choose(['0.0.0.0'], 'tcp', range(8000, 8006), 1, [reserved])).toBe(8006)
    expect(ports.choose(['0.0.0.0'], 'tcp', range(8000, 8006), 1, [reserved])).toBeUndefined()
    expect(ports.take(['0.0.0.0'], 'tcp', range(8000))).toBe(true)
  })

  test('ends of the port space', () => {
    const ports = new PortAllocator()
    for (const port of [1, 31, 32, 65535]) {
      expect(ports.take(['10.0.0.1'], 'tcp', range(port))).toBe(true)
      expect(ports.conflict(['0.0.0.0'], 'tcp', range(port))).toBe(port)
    }
    expect(ports.conflict(['0.0.0.0'], 'tcp', range(33, 65534))).toBeUndefined()
    expect(ports.choose(['0.0.0.0'], 'tcp', range(65535))).toBeUndefined()
  })

  test('freeing what is not taken changes nothing', () => {
    const ports = new PortAllocator()
    ports.take(['10.0.0.1'], 'tcp', range(5))
    ports.free('10.0.0.2', 'tcp', range(5))
    ports.free('10.0.0.1', 'tcp', range(1, 4))
    ports.free('0.0.0.0', 'tcp', range(5))
    expect(ports.take(['0.0.0.0'], 'tcp', range(5))).toBe(false)
  })

  test('agrees with a naive model', () => {
    const BASE = 30 // so that a word ends inside
    const address = fc.constantFrom('0.0.0.0', '10.0.0.1', '10.0.0.2', '::', '::1', '2001:db8::1')
    const protocol = fc.constantFrom('tcp' as const, 'udp' as const)
    const span = fc.tuple(fc.nat(40), fc.nat(8)).map(([at, n]) => range(BASE + at, BASE + at + n))
    const step = fc.oneof(
      fc.record({
        op: fc.constant('take' as const),
        addresses: fc.uniqueArray(address, { minLength: 1, maxLength: 2 }),
        protocol,
        span,
      }),
      fc.record({
        op: fc.constant('choose' as const),
        addresses: fc.uniqueArray(address, { minLength: 1, maxLength: 2 }),
        protocol,
        span,
        count: fc.integer({ min: 1, max: 4 }),
      }),
      fc.record({ op: fc.constant('free' as const), index: fc.nat(30) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), steps => {
        const ports = new PortAllocator()
        const held: { address: string; protocol: string; port: number }[] = []
        const owned: {
          addresses: string[]
          protocol: 'tcp' | 'udp'
          span: { first: number; last: number }
        }[] = []
        const cursors = new Map<string, number>()
        const wild = (a: string) => a === '::' || a === '0.0.0.0'
        const clash = (a: string, b: string) =>
          a.includes(':') === b.includes(':') && (a === b || wild(a) || wild(b))
        const free = (addresses: string[], p: string, port: number) =>
          !held.some(h => h.protocol === p && h.port === port && addresses.some(a => clash(a, h.address)))
        const freeRun = (addresses: string[], p: string, first: number, last: number) => {
          for (let port = first; port <= last; port++) if (!free(addresses, p, port)) return false
          return true
        }
        const record = (addresses: string[], p: 'tcp' | 'udp', first: number, last: number) => {
          for (const address of addresses)
            for (let port = first; port <= last; port++) held.push({ address, protocol: p, port })
          owned.push({ addresses, protocol: p, span: { first, last } })
        }
        for (const each of steps) {
          if (each.op === 'free') {
            const [gone] = owned.splice(each.index % Math.max(owned.length, 1), 1)
            if (!gone) continue
            for (const a of gone.addresses) {
              ports.free(a, gone.protocol, gone.span)
              for (let port = gone.span.first; port <= gone.span.last; port++)
                held.splice(
                  held.findIndex(h => h.address === a && h.protocol === gone.protocol && h.port === port),
                  1,
                )
            }
            continue
          }
          // a wildcard and an address of its family in one request clash with themselves; that is the publisher's to refuse
          if (each.addresses.length === 2 && clash(each.addresses[0]!, each.addresses[1]!)) continue
          const { addresses, protocol: p, span: s } = each
          if (each.op === 'take') {
            const expected = freeRun(addresses, p, s.first, s.last)
            expect(ports.take(addresses, p, s)).toBe(expected)
            if (expected) record(addresses, p, s.first, s.last)
            continue
          }
          const key = `${addresses[0]} ${p} ${s.first}-${s.last}`
          const starts: number[] = []
          for (let at = s.first; at + each.count - 1 <= s.last; at++) starts.push(at)
          const cursor = cursors.get(key) ?? s.first
          const order = [...starts.filter(at => at >= cursor), ...starts.filter(at => at < cursor)]
          const expected = order.find(at => freeRun(addresses, p, at, at + each.count - 1))
          expect(ports.choose(addresses, p, s, each.count)).toBe(expected)
          if (expected === undefined) continue
          cursors.set(key, expected + each.count)
          record(addresses, p, expected, expected + each.count - 1)
        }
      }),
      { numRuns: 300 },
    )
  })
})
