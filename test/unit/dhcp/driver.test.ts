/** The driver's dialogue with servers that do as the test says, on a wire and a clock of its own. */
import type { AddressChange } from 'libcnm'
import { DhcpIpamDriver } from '../../../drivers/ipam/dhcp'
import { ipBytes } from '../../../lib/base/cidr'
import { ACK, encodeReply, four, NAK, OFFER, readQuestion, type ServerWords } from '../../support/dhcp-reply'

const MAC = '02:42:ac:11:00:02'
const [DISCOVER, REQUEST, DECLINE, RELEASE] = [1, 3, 4, 7]
type Heard = ReturnType<typeof readQuestion> & { unicast: boolean }
type Words = Partial<ServerWords> & { type: number }

beforeEach(() => jest.useFakeTimers({ now: 1_700_000_000_000 }))
afterEach(() => jest.useRealTimers())

/** A LAN with one server: `behave` answers each question. */
function lan(behave: (question: Heard) => Words | Words[] | undefined) {
  const said: Heard[] = []
  const changes: AddressChange[] = []
  let open = 0
  /** Addresses that somebody else has. */
  const taken = new Map<string, string>()
  const scene = {
    said,
    changes,
    taken,
    behave,
    open: () => open,
    driver: undefined as unknown as DhcpIpamDriver,
  }
  scene.driver = new DhcpIpamDriver(async (_link, _promiscuous, hear) => {
    open++
    const later = (frame: Buffer) => setTimeout(() => hear(frame), 1)
    return {
      mtu: 1500,
      send(bytes) {
        const frame = Buffer.from(bytes)
        if (frame.readUInt16BE(12) === 0x0806) {
          const holder = taken.get(frame.subarray(38, 42).join('.'))
          if (holder) later(arpAnswer(holder, frame.subarray(38, 42)))
          return
        }
        const question = { ...readQuestion(frame.subarray(42)), unicast: frame[0] !== 0xff }
        said.push(question)
        for (const words of [scene.behave(question) ?? []].flat())
          later(fromServer(encodeReply({ ...DEFAULT, xid: question.xid, mac: question.mac, ...words })))
      },
      close: () => void open--,
    }
  })
  scene.driver.watch(change => changes.push(change))
  return scene
}

const DEFAULT = {
  address: '192.0.2.7',
  server: '192.0.2.1',
  seconds: 100,
  options: [[1, 'ffffff00']] as ServerWords['options'],
}

function fromServer(message: Buffer): Buffer {
  const head = Buffer.alloc(42)
  head.set(Buffer.from('ffffffffffff0200000000fe0800', 'hex'))
  head[14] = 0x45
  head.writeUInt16BE(28 + message.length, 16)
  head[23] = 17
  head.writeUInt16BE(67, 34)
  head.writeUInt16BE(68, 36)
  head.writeUInt16BE(8 + message.length, 38)
  return Buffer.concat([head, message])
}

function arpAnswer(mac: string, address: Uint8Array): Buffer {
  const frame = Buffer.alloc(42)
  frame.set(Buffer.from('ffffffffffff000000000000080600010800060400020000', 'hex'))
  frame.set(Buffer.from(mac.replaceAll(':', ''), 'hex'), 22)
  frame.set(address, 28)
  return frame
}

const honest = ({ type }: Heard): Words | undefined =>
  type === DISCOVER ? { type: OFFER } : type === REQUEST ? { type: ACK } : undefined

const request = async (
  { driver }: ReturnType<typeof lan>,
  more: Partial<Parameters<DhcpIpamDriver['requestAddress']>[1]> = {},
  options: Record<string, string> = {},
) => {
  const { id } = await driver.requestPool({ space: 'dhcp', family: 4, options })
  const answer = driver.requestAddress(id, {
    owner: 'e1',
    purpose: 'endpoint',
    mac: MAC,
    name: 'web',
    link: 'eth0',
    ...more,
  })
  answer.catch(() => {})
  return { id, answer }
}
const pass = (milliseconds: number) => jest.advanceTimersByTimeAsync(milliseconds)
const types = ({ said }: ReturnType<typeof lan>) => said.map(({ type }) => type)

test('discover, request, have; no socket stays open, and what is said fits RFC 2131', async () => {
  const scene = lan(honest)
  const { id, answer } = await request(scene)
  await pass(2_000)
  expect(await answer).toMatchObject({ address: '192.0.2.7/24', state: { server: '192.0.2.1' } })
  expect(types(scene)).toEqual([DISCOVER, REQUEST])
  const [discover, asked] = scene.said
  expect(discover?.broadcast).toBe(true)
  expect(asked?.options.get(54)).toEqual(ipBytes('192.0.2.1'))
  expect(asked?.options.get(12)?.toString()).toBe('web')
  expect(scene.open()).toBe(0)
  await scene.driver.releaseAddress(id, '192.0.2.7/24', 'e1')
  expect(scene.said.at(-1)).toMatchObject({ type: RELEASE, ciaddr: '192.0.2.7', unicast: true })
  await pass(1_000_000)
  expect(types(scene)).toHaveLength(3)
})

test('silence: asked again with growing pauses, then ERR_LEASE, in time', async () => {
  const scene = lan(() => undefined)
  const { answer } = await request(scene)
  await pass(14_900)
  const pauses = scene.said.length
  expect(pauses).toBeGreaterThanOrEqual(4)
  expect(pauses).toBeLessThanOrEqual(6)
  await pass(101)
  await expect(answer).rejects.toMatchObject({ code: 'ERR_LEASE', kind: 'unavailable' })
  await pass(100_000)
  expect(scene.said).toHaveLength(pauses)
  expect(scene.open()).toBe(0)
})

test('an offer that is taken back: discovered anew; why is told when nothing comes of it', async () => {
  const scene = lan(({ type }) =>
    type === DISCOVER ? { type: OFFER } : { type: NAK, address: '0.0.0.0', seconds: undefined },
  )
  const { answer } = await request(scene, {}, { 'libcnm.dhcp.timeout': '5000' })
  await pass(5_000)
  await expect(answer).rejects.toMatchObject({ message: expect.stringContaining('took its offer back') })
  expect(scene.said.length).toBeLessThan(12) // and not as fast as they can
})

test('a server that offers and falls silent: another one is asked', async () => {
  let offers = 0
  const scene = lan(({ type, options }) => {
    const second = '192.0.2.2'
    if (type === DISCOVER) return ++offers === 1 ? { type: OFFER } : { type: OFFER, server: second }
    return options.get(54)?.join('.') === second ? { type: ACK, server: second } : undefined
  })
  const { answer } = await request(scene)
  await pass(15_000)
  expect(await answer).toMatchObject({ state: { server: '192.0.2.2' } })
})

test.each<[string, Words[]]>([
  ['of another conversation', [{ type: OFFER, xid: 1 }]],
  ['for another interface', [{ type: OFFER, mac: '02:00:00:00:00:01' }]],
  ['by an ACK that nobody asked for', [{ type: ACK }]],
])('an answer %s is none', async (_, answers) => {
  const scene = lan(({ type }) => (type === DISCOVER ? answers : undefined))
  const { answer } = await request(scene, {}, { 'libcnm.dhcp.timeout': '2000' })
  await pass(2_000)
  await expect(answer).rejects.toMatchObject({ code: 'ERR_LEASE' })
  expect(types(scene)).not.toContain(REQUEST)
})

test('another server that answers in between is not heard', async () => {
  const scene = lan(({ type }) =>
    type === DISCOVER
      ? [{ type: OFFER }, { type: OFFER, server: '192.0.2.66', address: '192.0.2.99' }]
      : [
          { type: NAK, server: '192.0.2.66', address: '0.0.0.0', seconds: undefined },
          { type: ACK, address: '192.0.2.99' },
          { type: ACK },
        ],
  )
  const { answer } = await request(scene)
  await pass(2_000)
  expect(await answer).toMatchObject({ address: '192.0.2.7/24' })
})

test('an address that somebody answers for is declined; not asked for when told so', async () => {
  let next = 7
  const behave = ({ type }: Heard): Words | undefined => {
    if (type === DECLINE) next++
    const address = `192.0.2.${next}`
    return type === DISCOVER
      ? { type: OFFER, address }
      : type === REQUEST
        ? { type: ACK, address }
        : undefined
  }
  const scene = lan(behave)
  scene.taken.set('192.0.2.7', '02:00:00:00:00:aa')
  const { answer } = await request(scene)
  await pass(5_000)
  expect((await answer).address).toBe('192.0.2.8/24')
  expect(types(scene)).toEqual([DISCOVER, REQUEST, DECLINE, DISCOVER, REQUEST])

  next = 7
  const careless = lan(behave)
  careless.taken.set('192.0.2.7', '02:00:00:00:00:aa')
  const { answer: second } = await request(careless, {}, { 'libcnm.dhcp.probe': 'false' })
  await pass(5_000)
  expect((await second).address).toBe('192.0.2.7/24')
})

test('renewed at T1 of the server that gave it, at T2 of any; expired when nobody does; then asked for until it is back', async () => {
  const scene = lan(honest)
  const { answer } = await request(scene)
  await pass(2_000)
  await answer
  scene.said.length = 0
  await pass(49_000) // T1 is at 50 s
  expect(scene.said).toMatchObject([{ type: REQUEST, ciaddr: '192.0.2.7', unicast: true, broadcast: false }])
  expect(scene.changes).toMatchObject([{ what: 'renewed', owner: 'e1', address: '192.0.2.7/24' }])
  expect(scene.changes[0]?.reason).toBeUndefined()

  scene.behave = () => undefined
  scene.said.length = 0
  await pass(80_000) // T1 at 50 s, T2 at 87.5 s of the renewed lease
  expect(scene.said.every(({ unicast, ciaddr }) => unicast && ciaddr === '192.0.2.7')).toBe(true)
  scene.said.length = 0
  await pass(10_000)
  expect(scene.said.length).toBeGreaterThan(0)
  expect(scene.said.every(({ unicast, broadcast }) => !unicast && broadcast)).toBe(true)
  expect(scene.changes).toHaveLength(1)
  await pass(20_000)
  expect(scene.changes.at(-1)).toMatchObject({ what: 'lost', address: '192.0.2.7/24' })
  await pass(600_000)
  expect(scene.changes).toHaveLength(2) // told once

  scene.behave = ({ type }) => (type === DISCOVER ? { type: OFFER, address: '192.0.2.50' } : undefined)
  scene.said.length = 0
  await pass(400_000)
  expect(types(scene)).not.toContain(REQUEST) // another address is of no use
  scene.behave = honest
  await pass(400_000)
  expect(scene.changes[2]).toMatchObject({ what: 'renewed', reason: expect.stringContaining('lost') })
  await scene.driver.close()
})

test('a server that refuses to renew: lost, unless it lends it anew at once', async () => {
  const scene = lan(honest)
  await (await request(scene), pass(2_000))
  scene.behave = ({ type, unicast }) =>
    type === REQUEST && unicast
      ? { type: NAK, address: '0.0.0.0', seconds: undefined }
      : honest({ type } as Heard)
  await pass(60_000)
  expect(scene.changes).toMatchObject([{ what: 'renewed' }])
  scene.behave = ({ type }) =>
    type === REQUEST ? { type: NAK, address: '0.0.0.0', seconds: undefined } : undefined
  await pass(70_000)
  expect(scene.changes.at(-1)).toMatchObject({ what: 'lost', reason: expect.stringContaining('refused') })
  await scene.driver.close()
})

test('renewals bring other settings', async () => {
  const scene = lan(honest)
  await (await request(scene), pass(2_000))
  scene.behave = question => {
    const words = honest(question)
    return (
      words && {
        ...words,
        options: [
          [1, 'ffffff00'],
          [6, ipBytes('192.0.2.53')],
          [26, '0500'],
          [58, four(10)],
        ],
      }
    )
  }
  await pass(60_000)
  expect(scene.changes[0]).toMatchObject({ settings: { mtu: 1280, dns: { servers: ['192.0.2.53'] } } })
  await scene.driver.close()
})

test('after a restart: the address is had at once, and confirmed by broadcast; one whose time was up is asked for', async () => {
  const scene = lan(honest)
  const { answer } = await request(scene)
  await pass(2_000)
  const { state } = await answer
  await scene.driver.close()

  const again = lan(honest)
  const { answer: second } = await request(again, { address: '192.0.2.7', state })
  expect(await second).toMatchObject({ address: '192.0.2.7/24' }) // no server was asked yet
  await pass(1_000)
  expect(again.said).toMatchObject([{ type: REQUEST, broadcast: true, ciaddr: '0.0.0.0' }])
  expect(again.said[0]?.options.has(54)).toBe(false)
  expect(again.changes).toMatchObject([{ what: 'renewed' }])
  await again.driver.close()

  await pass(200_000)
  const late = lan(() => undefined)
  const { answer: third } = await request(late, { address: '192.0.2.7', state })
  expect(await third).toMatchObject({ address: '192.0.2.7/24' })
  await pass(10_000)
  expect(late.changes).toMatchObject([{ what: 'lost', reason: expect.stringContaining('before this start') }])
  await late.driver.close()
})

test('a router beyond the subnet gets a way over the link; the MTU is no more than the link’s', async () => {
  const scene = lan(question => {
    const words = honest(question)
    return (
      words && {
        ...words,
        options: [
          [1, 'ffffffff'],
          [3, ipBytes('10.0.0.1')],
          [26, '2328'],
        ],
      }
    )
  })
  const { answer } = await request(scene)
  await pass(2_000)
  expect(await answer).toMatchObject({
    address: '192.0.2.7/32',
    settings: { gateway: '10.0.0.1', routes: [{ destination: '10.0.0.1/32' }], mtu: 1500 },
  })
  await scene.driver.close()
})

test('what is outside of the network’s subnet is given back and refused', async () => {
  const scene = lan(honest)
  const { id } = await scene.driver.requestPool({ space: 'dhcp', family: 4, pool: '10.0.0.0/8' })
  const answer = scene.driver.requestAddress(id, { owner: 'e1', purpose: 'endpoint', mac: MAC, link: 'eth0' })
  answer.catch(() => {})
  await pass(2_000)
  await expect(answer).rejects.toMatchObject({
    code: 'ERR_LEASE',
    message: expect.stringContaining('10.0.0.0/8'),
  })
  expect(types(scene).at(-1)).toBe(RELEASE)
})

test('closed in the middle of it: it fails, and nothing is left', async () => {
  const scene = lan(() => undefined)
  const { answer } = await request(scene)
  await pass(100)
  await scene.driver.close()
  await expect(answer).rejects.toMatchObject({ code: 'ERR_CLOSED' })
  expect(scene.open()).toBe(0)
  expect(jest.getTimerCount()).toBe(0)
})
