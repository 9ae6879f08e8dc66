import { decode, encode } from 'dns-packet'
import fc from 'fast-check'
import { AnswerCache } from '../../../lib/dns/cache'
import { Frames, frame } from '../../../lib/dns/frames'
import { chooseUpstreams, parseUpstream } from '../../../lib/dns/upstream'
import { type Foreign, readForeign } from '../../../lib/dns/wire/foreign'
import { encodeName } from '../../../lib/dns/wire/message'
import { newQuestion, questionName, readQuestion } from '../../../lib/dns/wire/question'
import { query, responder, understand, view } from './ask'

describe('a question', () => {
  const read = (message: Buffer) => readQuestion(message, newQuestion())

  test('is read with its flags and EDNS0', () => {
    const question = newQuestion()
    const message = query('Web.Shop', 'AAAA', { id: 258, edns: 1400, dnssecOk: true })
    expect(readQuestion(message, question)).toBe(0)
    expect(question).toMatchObject({
      id: 258,
      type: 28,
      recursionDesired: true,
      edns: true,
      udpSize: 1400,
      dnssecOk: true,
    })
    expect(questionName(message)).toBe('web.shop')
  })

  test.each([
    ['an answer', (m: Buffer) => m.writeUInt8(0x80, 2), -1],
    ['another operation', (m: Buffer) => m.writeUInt8(0x28, 2), 4],
    ['no question', (m: Buffer) => m.writeUInt16BE(0, 4), 1],
    ['two questions', (m: Buffer) => m.writeUInt16BE(2, 4), 1],
    ['with answers', (m: Buffer) => m.writeUInt16BE(1, 6), 1],
    ['a pointer for a name', (m: Buffer) => m.writeUInt16BE(0xc00c, 12), 1],
    ['a reserved label', (m: Buffer) => m.writeUInt8(0x41, 12), 1],
    ['a label beyond the end', (m: Buffer) => m.writeUInt8(63, 12), 1],
    ['records that are not there', (m: Buffer) => m.writeUInt16BE(0xffff, 10), 1],
    ['another class', (m: Buffer) => m.writeUInt16BE(3, m.length - 2), 4],
  ])('%s', (_, spoil, code) => {
    const message = query('web', 'A')
    spoil(message)
    expect(read(message)).toBe(code)
  })

  test('cut short anywhere is never taken for whole', () => {
    const message = query('web.shop', 'A', { edns: 1232 })
    for (let length = 0; length < message.length; length++)
      expect(read(message.subarray(0, length))).toBe(length < 12 ? -1 : 1)
  })

  test('of an EDNS version that we do not know', async () => {
    const message = query('web', 'A', { edns: 1232 })
    message[message.length - 5] = 1
    const heard = await responder().ask(message)
    expect(heard?.rcode).toBe(0)
    expect(heard?.additionals[0]).toMatchObject({ type: 'OPT', extendedRcode: 1 })
  })

  test('with a dot inside a label does not find the name with two labels', async () => {
    const { zones, ask } = responder()
    zones.setEndpoint({
      endpointId: 'e',
      networkId: 'n1',
      networkName: 'b',
      names: ['a', 'a.b'],
      ipv4: '10.0.0.1',
    })
    const message = Buffer.concat([
      query('x', 'A').subarray(0, 12),
      Buffer.from([3, 97, 46, 98, 0, 0, 1, 0, 1]),
    ])
    expect((await ask(message))?.rcode).toBe(2)
  })

  test('in odd spelling is answered in the same spelling', async () => {
    const { zones, ask } = responder()
    zones.setEndpoint({
      endpointId: 'e',
      networkId: 'n1',
      networkName: 'b',
      names: ['web'],
      ipv4: '10.0.0.1',
    })
    expect((await ask(query('wEb', 'A')))?.questions?.[0]?.name).toBe('wEb')
    expect((await ask(query('WeB', 'A')))?.questions?.[0]?.name).toBe('WeB')
  })
})

describe('whatever bytes come', () => {
  const scene = () => {
    const built = responder({ links: { alias: 'web' } })
    built.zones.setEndpoint({
      endpointId: 'e1',
      networkId: 'n1',
      networkName: 'shop',
      names: ['web', 'www'],
      ipv4: '10.0.0.1',
      ipv6: 'fd00::1',
    })
    built.zones.setRecords('n1', [{ name: '*.wild', type: 'TXT', text: 'x' }])
    return built
  }
  const real = ['web', 'www.shop', 'a.wild', '1.0.0.10.in-addr.arpa', '_x._tcp.web', 'nowhere.test'].flatMap(
    name => (['A', 'AAAA', 'TXT', 'PTR', 'SRV'] as const).map(type => query(name, type, { edns: 1232 })),
  )
  const check = (message: Buffer, answer: Buffer | null | undefined) => {
    if (!answer) return
    expect(answer.readUInt16BE(0)).toBe(message.readUInt16BE(0))
    expect(answer[2]! & 0x80).toBe(0x80)
    understand(answer) // can be read
  }

  test('they are dropped or answered, and nothing is thrown', () => {
    const { responder: answering } = scene()
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), bytes => {
        const message = Buffer.from(bytes)
        check(message, answering.quick(message, false))
      }),
      { numRuns: 2000, seed: 1 },
    )
  })

  test('real questions with some bytes changed or cut', () => {
    const { responder: answering } = scene()
    const change = fc.record({ at: fc.nat(), to: fc.nat(255) })
    fc.assert(
      fc.property(
        fc.constantFrom(...real),
        fc.array(change, { maxLength: 6 }),
        fc.nat(),
        (original, changes, cut) => {
          const message = Buffer.from(
            original.subarray(0, original.length - (cut % 3 === 0 ? cut % original.length : 0)),
          )
          for (const { at, to } of changes) message[at % message.length] = to
          check(message, answering.quick(message, false))
        },
      ),
      { numRuns: 4000, seed: 2 },
    )
  })

  test('an upstream’s answer with some bytes changed or cut is read or refused, and can then be passed on', () => {
    const asked = query('example.test', 'A')
    const end = asked.length
    const original = encode({
      type: 'response',
      flags: 0x0180,
      questions: [{ name: 'example.test', type: 'A' }],
      answers: [
        { type: 'CNAME', name: 'example.test', data: 'www.example.test', ttl: 30 },
        { type: 'A', name: 'www.example.test', data: '192.0.2.1', ttl: 20 },
      ],
      authorities: [{ type: 'NS', name: 'test', data: 'ns.test', ttl: 90 }],
      additionals: [{ type: 'A', name: 'ns.test', data: '192.0.2.2', ttl: 10 }],
    })
    expect(readForeign(original, asked, end)).toMatchObject({ keep: 10, rcode: 0, truncated: false })
    const change = fc.record({ at: fc.nat(), to: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(change, { maxLength: 6 }), fc.nat({ max: original.length }), (changes, length) => {
        const message = Buffer.from(changes.length % 2 ? original : original.subarray(0, length))
        for (const { at, to } of changes) if (message.length > 0) message[at % message.length] = to
        const foreign = readForeign(message, asked, end)
        if (foreign) {
          expect(foreign.cuts[0]).toBe(end)
          expect(foreign.bytes.length).toBeGreaterThanOrEqual(foreign.cuts[foreign.cuts.length - 1]!)
        }
      }),
      { numRuns: 4000, seed: 3 },
    )
  })

  test('the hot path says what the other says, wherever the question lies; what is not hot, it leaves', () => {
    const { responder: answering } = scene()
    const heard = Buffer.alloc(3 * 4096, 0xff)
    const said = Buffer.alloc(3 * 4096)
    const hot = (message: Buffer, base: number): Buffer | undefined => {
      message.copy(heard, base)
      const size = answering.hot(heard, base, message.length, said)
      return size === 0 ? undefined : Buffer.from(said.subarray(base, base + size))
    }
    const questions = [
      query('web', 'A'),
      query('wEb', 'A', { id: 1 }),
      query('web', 'A', { edns: 1232, dnssecOk: true }),
      query('web', 'A', { edns: 512 }),
      query('web', 'AAAA'),
      query('web', 'TXT'),
    ]
    for (const message of questions) {
      answering.quick(message, false)
      const ordered = (answer: Buffer | undefined | null) => {
        const { answers = [], ...rest } = decode(answer as Buffer)
        return { ...rest, answers: answers.map(each => JSON.stringify(each)).sort() }
      }
      for (const base of [0, 4096, 8192])
        expect(ordered(hot(message, base))).toEqual(ordered(answering.quick(message, false)))
      for (let cut = 0; cut < message.length; cut++) {
        const short = message.subarray(0, cut)
        // Without its OPT record, or cut in it, it is no question that was laid out; but never a reading beyond its end.
        expect(hot(short, 4096)).toBeUndefined()
      }
    }
    expect(hot(query('else.where', 'A'), 0)).toBeUndefined()
    expect(answering.statistics()).toMatchObject({ malformed: 0 })
  })

  test('memory does not grow with different questions', () => {
    const { responder: answering } = scene()
    const mixed = (i: number) =>
      Buffer.from(
        `wEb`
          .split('')
          .map((c, j) => (i & (1 << j) ? c.toUpperCase() : c.toLowerCase()))
          .join(''),
      )
    for (let i = 0; i < 5000; i++) {
      answering.quick(query(`${i}.wild`, 'TXT'), false)
      answering.quick(query(mixed(i).toString(), 'A'), false)
    }
    expect(answering.statistics()).toMatchObject({ local: 10_000, cacheEntries: 0, inFlight: 0 })
    expect(answering.held).toBeLessThanOrEqual(512)
  })
})

describe('names on the wire', () => {
  test.each(['a..b', '.a', `${'a'.repeat(64)}`, Array.from({ length: 50 }, () => 'abcde').join('.')])(
    '%s cannot be',
    name => expect(encodeName(name)).toBeUndefined(),
  )
  test('of 255 bytes just can', () => {
    const name = [63, 63, 63, 61].map(n => 'a'.repeat(n)).join('.')
    expect(encodeName(name)).toHaveLength(255)
    expect(encodeName(`${name}a`)).toBeUndefined()
  })
})

describe('frames', () => {
  test('come out as they went in, however they were cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 20 }),
        (messages, cuts) => {
          const stream = Buffer.concat(messages.map(message => frame(Buffer.from(message))))
          const frames = new Frames()
          const found: Buffer[] = []
          for (let at = 0, i = 0; at < stream.length; i++) {
            const size = cuts[i % cuts.length] as number
            found.push(...(frames.push(stream.subarray(at, at + size)) ?? []))
            at += size
          }
          expect(found.map(each => [...each])).toEqual(messages.map(each => [...each]))
          expect(frames.pending).toBe(0)
        },
      ),
    )
  })

  test('larger than allowed end the stream at once', () => {
    const frames = new Frames(4096)
    expect(frames.push(Buffer.from([0x10, 0x01]))).toBeUndefined()
  })
})

describe('the cache', () => {
  const foreign = (size: number, keep: number | undefined): Foreign => ({
    bytes: Buffer.alloc(size),
    rcode: 0,
    truncated: false,
    ttls: [],
    keep,
    cuts: [size],
  })

  test('holds so many entries and so many bytes, the newest', () => {
    const cache = new AnswerCache({ entries: 3, bytes: 16_000 }, () => 0)
    for (const key of ['a', 'b', 'c', 'd']) cache.set(key, foreign(100, 60))
    expect(cache.get('a')).toBeUndefined()
    expect(cache.get('d')).toBeDefined()
    cache.set('too large', foreign(1001, 60))
    expect(cache.get('too large')).toBeUndefined()
    const bytes = new AnswerCache({ entries: 100, bytes: 1600 }, () => 0)
    for (let i = 0; i < 50; i++) bytes.set(`${i}`, foreign(100, 60))
    expect(bytes.size).toBe(16)
  })

  test('keeps nothing that must not be kept, and nothing longer than it may', () => {
    let now = 0
    const cache = new AnswerCache({ entries: 10, bytes: 10_000 }, () => now)
    cache.set('no', foreign(10, undefined))
    cache.set('zero', foreign(10, 0))
    cache.set('ten', foreign(10, 10))
    expect([cache.get('no'), cache.get('zero')]).toEqual([undefined, undefined])
    now = 9999
    expect(cache.get('ten')?.age).toBe(9)
    now = 10_000
    expect(cache.get('ten')).toBeUndefined()
    expect(cache.size).toBe(0)
  })
})

describe('a DNS server as text', () => {
  test.each([
    ['10.0.0.53', { address: '10.0.0.53', from: 'sandbox' }],
    ['fd00::53#5353', { address: 'fd00::53', port: 5353, from: 'sandbox' }],
    [
      'Corp.Example,lab.=10.0.0.53',
      { address: '10.0.0.53', domains: ['corp.example', 'lab'], from: 'sandbox' },
    ],
  ])('%s', (text, upstream) => expect(parseUpstream(text, 'sandbox')).toEqual(upstream))

  test.each([
    '',
    'dns.example',
    '10.0.0.53:53',
    '10.0.0.53#0',
    '10.0.0.53#65536',
    '=10.0.0.53',
    'a..b=10.0.0.53',
  ])('%j is refused', text =>
    expect(() => parseUpstream(text, 'sandbox')).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
    ),
  )

  test('one that has domains is not asked for other names', () => {
    const only = [parseUpstream('corp=10.0.0.53', 'sandbox')]
    expect(chooseUpstreams(view(), only, 'example.test')).toEqual([])
    expect(chooseUpstreams(view(), only, 'a.corp')).toHaveLength(1)
  })
})
