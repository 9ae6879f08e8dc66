import { decode, encode, type Answer, type Packet } from 'dns-packet'
import type { Upstream } from '../../../lib/dns/contract'
import { LIMITS, type Transport } from '../../../lib/dns/forward'
import { MAX_IN_FLIGHT } from '../../../lib/dns/responder'
import { data, query, responder, understand, view } from './ask'

const upstream = (address: string, over: Partial<Upstream> = {}): Upstream => ({
  address,
  from: 'host',
  ...over,
})

type Behaviour = (question: Packet, protocol: 'udp' | 'tcp') => Partial<Packet> | Buffer | Error | undefined

/** Servers as functions of the question; `undefined`: says nothing. Answers come after `delay` milliseconds. */
class Internet implements Transport {
  readonly asked: string[] = []
  readonly servers = new Map<string, { behave: Behaviour; delay: number }>()

  server(address: string, behave: Behaviour, delay = 5): void {
    this.servers.set(address, { behave, delay })
  }

  send(
    { address, from }: Upstream,
    protocol: 'udp' | 'tcp',
    message: Buffer,
    done: (error: Error | undefined, reply?: Buffer) => void,
  ): () => void {
    this.asked.push(`${from} ${address} ${protocol}`)
    const server = this.servers.get(address)
    const question = decode(message)
    const result = server?.behave(question, protocol)
    if (result === undefined) return () => undefined
    const timer = setTimeout(() => {
      if (result instanceof Error) done(result)
      else if (Buffer.isBuffer(result)) done(undefined, result)
      else
        done(
          undefined,
          encode({ type: 'response', flags: 0x0180, questions: question.questions, ...result } as Packet),
        )
    }, server?.delay)
    return () => clearTimeout(timer)
  }
}

const address = (name: string, ip: string, ttl = 60): Answer => ({ type: 'A', name, data: ip, ttl })
const says =
  (ip: string, ttl = 60): Behaviour =>
  ({ questions }) => ({ answers: [address(questions?.[0]?.name ?? '', ip, ttl)] })
const soa = (ttl: number, minimum: number): Answer => ({
  type: 'SOA',
  name: 'test',
  ttl,
  data: { mname: 'ns.test', rname: 'x.test', serial: 1, refresh: 1, retry: 1, expire: 1, minimum },
})
const fails =
  (rcode: number, authorities: Answer[] = []): Behaviour =>
  () => ({ flags: 0x0180 | rcode, authorities })

let internet: Internet
beforeEach(() => {
  jest.useFakeTimers()
  internet = new Internet()
})
afterEach(() => jest.useRealTimers())

const two = [upstream('192.0.2.1'), upstream('192.0.2.2')]

/** Lets the clock run until the answer is there; returns it and the milliseconds that it took. */
async function timed<T>(promise: Promise<T>): Promise<[T, number]> {
  const start = performance.now()
  let took = -1
  void promise.then(() => {
    took = performance.now() - start
  })
  while (took < 0) {
    await jest.advanceTimersByTimeAsync(1)
    if (performance.now() - start > 20_000) throw new Error('no answer at all')
  }
  return [await promise, took]
}

describe('an unknown name', () => {
  test('is asked of the first server, and its answer kept for its TTL', async () => {
    internet.server('192.0.2.1', says('198.51.100.7', 60))
    const { lookup, responder: answering } = responder({ upstreams: two }, internet)
    const [first] = await timed(lookup('example.test', 'A'))
    expect(data(first)).toEqual(['198.51.100.7'])
    await jest.advanceTimersByTimeAsync(10_000)
    const [again] = await timed(lookup('Example.TEST', 'A'))
    expect(again.answers[0]).toMatchObject({ data: '198.51.100.7', ttl: 50 })
    expect(again.questions?.[0]?.name).toBe('Example.TEST')
    expect(internet.asked).toEqual(['host 192.0.2.1 udp'])
    await jest.advanceTimersByTimeAsync(50_000)
    await timed(lookup('example.test', 'A'))
    expect(internet.asked).toHaveLength(2)
    expect(answering.statistics()).toMatchObject({ queries: 3, cached: 1, forwarded: 2, inFlight: 0 })
  })

  test('asked by many at once is asked on once', async () => {
    internet.server('192.0.2.1', says('198.51.100.7'))
    const { lookup } = responder({ upstreams: two }, internet)
    const [answers] = await timed(Promise.all([1, 2, 3].map(id => lookup('example.test', 'A', { id }))))
    expect(answers.map(({ id }) => id)).toEqual([1, 2, 3])
    expect(internet.asked).toHaveLength(1)
  })

  test('that does not exist is kept as long as its SOA says', async () => {
    internet.server('192.0.2.1', fails(3, [soa(300, 30)]))
    const { lookup } = responder({ upstreams: two }, internet)
    for (let i = 0; i < 2; i++) expect((await timed(lookup('no.test', 'A')))[0].rcode).toBe(3)
    expect(internet.asked).toHaveLength(1)
    await jest.advanceTimersByTimeAsync(31_000)
    await timed(lookup('no.test', 'A'))
    expect(internet.asked).toHaveLength(2)
  })

  test('that does not exist is not kept without a SOA', async () => {
    internet.server('192.0.2.1', fails(3))
    const { lookup } = responder({ upstreams: two }, internet)
    for (let i = 0; i < 2; i++) expect((await timed(lookup('no.test', 'A')))[0].rcode).toBe(3)
    expect(internet.asked).toHaveLength(2)
  })

  test('with one label and ndots set by the user gets an empty answer, so that the stub goes on', async () => {
    internet.server('192.0.2.1', says('198.51.100.7'))
    const { lookup } = responder({ upstreams: two, ndotsFromUser: true }, internet)
    expect(await lookup('single', 'A')).toMatchObject({ rcode: 0, answers: [] })
    expect(internet.asked).toEqual([])
    expect(data((await timed(lookup('not.single', 'A')))[0])).toEqual(['198.51.100.7'])
  })

  test('that our CNAME leads to is asked on, and both make one answer', async () => {
    internet.server('192.0.2.1', says('198.51.100.7'))
    const { lookup, zones } = responder({ upstreams: two }, internet)
    zones.setRecords('n1', [{ name: 'mirror', type: 'CNAME', target: 'ftp.example.test' }])
    const [found] = await timed(lookup('Mirror', 'A', { edns: 1232 }))
    expect(found.answers).toEqual([
      expect.objectContaining({ type: 'CNAME', data: 'ftp.example.test' }),
      expect.objectContaining({ type: 'A', name: 'ftp.example.test', data: '198.51.100.7' }),
    ])
    expect(found.additionals).toHaveLength(1)
  })
})

describe('which servers are asked', () => {
  const own = [upstream('10.0.0.53', { from: 'sandbox' })]
  const from = async (setup: Parameters<typeof responder>[0], ofNetwork: string[] = [], name = 'a.test') => {
    for (const ip of ['192.0.2.1', '10.0.0.53', '10.0.0.54', '10.0.0.55'])
      internet.server(ip, says('198.51.100.1'))
    const { lookup, zones } = responder(setup, internet)
    zones.setNetwork('n1', { name: 'shop', internal: false, serves: true, upstreams: ofNetwork })
    const [found] = await timed(lookup(name, 'A'))
    return { asked: internet.asked, rcode: found.rcode }
  }

  test('the sandbox’s own before those of its networks before the host’s', async () => {
    expect((await from({ upstreams: [...own, ...two] }, ['10.0.0.54'])).asked).toEqual([
      'sandbox 10.0.0.53 udp',
    ])
    internet.asked.length = 0
    expect((await from({ upstreams: two }, ['10.0.0.54'])).asked).toEqual(['sandbox 10.0.0.54 udp'])
    internet.asked.length = 0
    expect((await from({ upstreams: two })).asked).toEqual(['host 192.0.2.1 udp'])
  })

  test('never from the host when the sandbox has no gateway', async () => {
    expect(await from({ upstreams: two, external: false })).toEqual({ asked: [], rcode: 2 })
    expect((await from({ upstreams: [...own, ...two], external: false })).asked).toEqual([
      'sandbox 10.0.0.53 udp',
    ])
  })

  test('never ourselves', async () => {
    expect(await from({ upstreams: [upstream('127.0.0.11')] })).toEqual({ asked: [], rcode: 2 })
  })

  test('one for the longest domain that the name lies in', async () => {
    const split = ['test=10.0.0.54', 'corp.test,lab.test=10.0.0.55#5353']
    const asked = async (name: string) => {
      internet.asked.length = 0
      return (await from({ upstreams: two }, split, name)).asked
    }
    expect(await asked('a.test')).toEqual(['sandbox 10.0.0.54 udp'])
    expect(await asked('x.corp.test')).toEqual(['sandbox 10.0.0.55 udp'])
    expect(await asked('lab.test')).toEqual(['sandbox 10.0.0.55 udp'])
    expect(await asked('notlab.test')).toEqual(['sandbox 10.0.0.54 udp'])
    expect(await asked('a.example')).toEqual(['host 192.0.2.1 udp'])
  })

  test('others as soon as they are changed, and what the old ones said is forgotten', async () => {
    const { lookup, responder: answering } = responder({ upstreams: two }, internet)
    internet.server('192.0.2.1', says('198.51.100.1'))
    internet.server('192.0.2.9', says('198.51.100.9'))
    await timed(lookup('a.test', 'A'))
    answering.view = view({ upstreams: [upstream('192.0.2.9')] })
    expect(data((await timed(lookup('a.test', 'A')))[0])).toEqual(['198.51.100.9'])
    expect(answering.statistics().upstreams.map(({ address: each }) => each)).toEqual(['192.0.2.9'])
  })
})

describe('when a server is slow or dead', () => {
  test('the next is asked too, and the first answer counts', async () => {
    internet.server('192.0.2.2', says('198.51.100.2'))
    const { lookup } = responder({ upstreams: two }, internet)
    const [found, took] = await timed(lookup('a.test', 'A'))
    expect(data(found)).toEqual(['198.51.100.2'])
    expect(took).toBeLessThan(LIMITS.hedge.unknown + 50)
  })

  test('it is remembered: nobody waits for it any more, and it is tried beside the others until it answers', async () => {
    internet.server('192.0.2.2', says('198.51.100.2', 0))
    const { lookup, responder: answering } = responder({ upstreams: two }, internet)
    for (let i = 0; i < 3; i++) await timed(lookup(`a${i}.test`, 'A'))
    await jest.advanceTimersByTimeAsync(LIMITS.silent)
    expect(answering.statistics().upstreams[0]).toMatchObject({ down: true, failed: 3 })
    const [, took] = await timed(lookup('b.test', 'A'))
    expect(took).toBeLessThan(20)
    internet.server('192.0.2.1', says('198.51.100.1', 0))
    await jest.advanceTimersByTimeAsync(LIMITS.down.least)
    await timed(lookup('c.test', 'A'))
    await jest.advanceTimersByTimeAsync(100)
    expect(answering.statistics().upstreams[0]).toMatchObject({ down: false })
    expect(data((await timed(lookup('d.test', 'A')))[0])).toEqual(['198.51.100.1'])
  })

  test('refused at once by the kernel: the next is asked at once', async () => {
    internet.server('192.0.2.1', () => new Error('ECONNREFUSED'))
    internet.server('192.0.2.2', says('198.51.100.2'))
    const { lookup } = responder({ upstreams: two }, internet)
    const [found, took] = await timed(lookup('a.test', 'A'))
    expect(data(found)).toEqual(['198.51.100.2'])
    expect(took).toBeLessThan(20)
  })

  test('a lost packet is repeated', async () => {
    let heard = 0
    internet.server('192.0.2.1', (question, protocol) =>
      ++heard > 1 ? says('198.51.100.1')(question, protocol) : undefined,
    )
    const { lookup } = responder({ upstreams: [upstream('192.0.2.1')] }, internet)
    const [found, took] = await timed(lookup('a.test', 'A'))
    expect(data(found)).toEqual(['198.51.100.1'])
    expect(took).toBeLessThan(2000)
  })

  test.each([
    ['nobody answers', () => undefined],
    ['nobody can be reached', () => new Error('ENETUNREACH')],
    ['everybody talks nonsense', () => Buffer.from('nonsense, of enough length')],
    ['everybody answers another question', () => ({ questions: [{ type: 'A', name: 'other.test' }] })],
  ] as [string, Behaviour][])('%s: SERVFAIL within 5 s', async (_, behave) => {
    for (const { address: each } of two) internet.server(each, behave)
    const { lookup, responder: answering } = responder({ upstreams: two }, internet)
    const [found, took] = await timed(lookup('a.test', 'A'))
    expect(found.rcode).toBe(2)
    expect(took).toBeLessThan(5000)
    expect(answering.statistics()).toMatchObject({ failed: 1, inFlight: 0 })
    await jest.advanceTimersByTimeAsync(10_000)
    expect(jest.getTimerCount()).toBe(0)
  })

  test.each([
    ['SERVFAIL', 2],
    ['REFUSED', 5],
    ['NOTIMP', 4],
  ])('%s makes us ask the next', async (_, rcode) => {
    internet.server('192.0.2.1', fails(rcode))
    internet.server('192.0.2.2', says('198.51.100.2'))
    const { lookup } = responder({ upstreams: two }, internet)
    const [found, took] = await timed(lookup('a.test', 'A'))
    expect(data(found)).toEqual(['198.51.100.2'])
    expect(took).toBeLessThan(30)
    internet.server('192.0.2.2', fails(rcode))
    expect((await timed(lookup('b.test', 'A')))[0].rcode).toBe(rcode)
  })

  test('so many at once that memory would grow: REFUSED', async () => {
    const { responder: answering } = responder({ upstreams: two }, internet)
    const late: number[] = []
    for (let i = 0; i < MAX_IN_FLIGHT; i++) {
      const message = query(`n${i}.test`, 'A')
      expect(answering.quick(message, false)).toBeNull()
      answering.slow(message, false, answer => late.push(understand(answer).rcode))
    }
    expect(understand(answering.quick(query('more.test', 'A'), false) as Buffer).rcode).toBe(5)
    await jest.advanceTimersByTimeAsync(5000)
    expect(late).toHaveLength(MAX_IN_FLIGHT)
    expect(new Set(late)).toEqual(new Set([2]))
  })
})

describe('size and EDNS0', () => {
  const many: Behaviour = ({ questions }, protocol) =>
    protocol === 'udp'
      ? { flags: 0x0380 }
      : {
          answers: Array.from({ length: 100 }, (_, i) =>
            address(questions?.[0]?.name ?? '', `198.51.100.${i}`),
          ),
        }

  test('a truncated answer is fetched by TCP, and cut to what the client takes', async () => {
    internet.server('192.0.2.1', many)
    const { lookup } = responder({ upstreams: two }, internet)
    const [plain] = await timed(lookup('a.test', 'A'))
    expect(plain.truncated).toBe(true)
    expect(plain.answers).toHaveLength(Math.floor((512 - 12 - 12) / 22)) // bytes: header, question, records
    const [edns] = await timed(lookup('a.test', 'A', { edns: 4096 }))
    expect(edns.truncated).toBe(false)
    expect(edns.answers).toHaveLength(100)
    const [tcp] = await timed(lookup('a.test', 'A', { tcp: true }))
    expect(tcp.answers).toHaveLength(100)
    expect(internet.asked).toEqual(['host 192.0.2.1 udp', 'host 192.0.2.1 tcp'])
  })

  test('a truncated answer whose server does not do TCP is passed on as it is', async () => {
    internet.server('192.0.2.1', (_, protocol) =>
      protocol === 'udp' ? { flags: 0x0380 } : new Error('refused'),
    )
    const { lookup } = responder({ upstreams: [upstream('192.0.2.1')] }, internet)
    expect((await timed(lookup('a.test', 'A')))[0]).toMatchObject({ truncated: true, rcode: 0 })
  })

  test('we speak EDNS0 ourselves; the client hears it only if it does too', async () => {
    const seen: Answer[][] = []
    internet.server('192.0.2.1', question => {
      seen.push(question.additionals ?? [])
      return { ...says('198.51.100.1')(question, 'udp'), additionals: question.additionals }
    })
    const { lookup } = responder({ upstreams: two }, internet)
    const [plain] = await timed(lookup('a.test', 'A'))
    expect(plain.additionals).toEqual([])
    const [edns] = await timed(lookup('b.test', 'A', { edns: 4096, dnssecOk: true }))
    expect(edns.additionals).toEqual([expect.objectContaining({ type: 'OPT', flag_do: true })])
    expect(seen).toEqual([
      [expect.objectContaining({ udpPayloadSize: 1232, flag_do: false })],
      [expect.objectContaining({ udpPayloadSize: 1232, flag_do: true })],
    ])
  })

  test('a server that does not know EDNS0 is asked without, from then on', async () => {
    internet.server('192.0.2.1', (question, protocol) =>
      question.additionals?.length ? { flags: 0x0181 } : says('198.51.100.1')(question, protocol),
    )
    const { lookup } = responder({ upstreams: two }, internet)
    expect(data((await timed(lookup('a.test', 'A')))[0])).toEqual(['198.51.100.1'])
    expect(internet.asked).toHaveLength(2)
    expect(data((await timed(lookup('b.test', 'A')))[0])).toEqual(['198.51.100.1'])
    expect(internet.asked).toHaveLength(3)
  })
})

test('closing answers those who wait', async () => {
  const { lookup, forwarder } = responder({ upstreams: two }, internet)
  const waiting = lookup('a.test', 'A')
  forwarder.close()
  expect((await waiting).rcode).toBe(2)
  expect((await timed(lookup('b.test', 'A')))[0].rcode).toBe(2)
})
