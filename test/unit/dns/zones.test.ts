import { namedPorts } from '../../../lib/core/names'
import type { NameRecord } from '../../../lib/dns/contract'
import { resolveIp, resolveName } from '../../../lib/dns/resolver'
import { Zones } from '../../../lib/dns/zones'
import { data, responder, view } from './ask'

const endpoint = (id: string, names: string[], over: Partial<NameRecord> = {}): NameRecord => ({
  endpointId: id,
  networkId: 'n1',
  networkName: 'shop',
  names,
  ipv4: `10.1.0.${id.slice(1)}`,
  ...over,
})

describe('names of endpoints', () => {
  test.each([
    ['its name', 'web'],
    ['an alias', 'www'],
    ['the short container id', '0123456789ab'],
    ['the host name', 'box.example'],
    ['any case', 'WeB'],
    ['with the network', 'web.shop'],
    ['an alias with the network, any case', 'WWW.Shop'],
  ])('are found by %s', async (_, name) => {
    const { zones, lookup } = responder()
    zones.setEndpoint(endpoint('e7', ['web', 'www', '0123456789ab', 'box.example'], { ipv6: 'fd00::7' }))
    expect(data(await lookup(name, 'A'))).toEqual(['10.1.0.7'])
    expect(data(await lookup(name, 'AAAA'))).toEqual(['fd00::7'])
  })

  test('that exist in another family or type get an empty answer, no error', async () => {
    const { zones, lookup } = responder()
    zones.setEndpoint(endpoint('e1', ['web']))
    for (const type of ['AAAA', 'MX', 'TXT', 'HTTPS', 'SRV'] as const)
      expect(await lookup('web', type as 'A')).toMatchObject({ rcode: 0, answers: [] })
  })

  test('are those of the networks that the asking sandbox is on', async () => {
    const { zones, lookup } = responder({ networks: ['n1'] })
    zones.setEndpoint(endpoint('e1', ['other'], { networkId: 'n2', networkName: 'store' }))
    expect(await lookup('other', 'A')).toMatchObject({ rcode: 2 }) // nobody to ask
    expect(await lookup('other.store', 'A')).toMatchObject({ rcode: 2 })
  })

  test('come from the first network, in gateway priority order, that has one of the family', async () => {
    const { zones, responder: answering, lookup } = responder({ networks: ['n2', 'n1'] })
    zones.setEndpoint(endpoint('e1', ['web'], { ipv6: 'fd00::1' }))
    zones.setEndpoint(endpoint('e2', ['web'], { networkId: 'n2', networkName: 'store' }))
    expect(data(await lookup('web', 'A'))).toEqual(['10.1.0.2'])
    expect(data(await lookup('web', 'AAAA'))).toEqual(['fd00::1'])
    expect(data(await lookup('web.shop', 'A'))).toEqual(['10.1.0.1'])
    answering.view = view({ networks: ['n1', 'n2'] })
    expect(data(await lookup('web', 'A'))).toEqual(['10.1.0.1'])
  })

  test('may have dots, as may the network', async () => {
    const { zones, lookup } = responder()
    zones.setEndpoint(endpoint('e1', ['a.b'], { networkName: 'c.d' }))
    expect(data(await lookup('a.b', 'A'))).toEqual(['10.1.0.1'])
    expect(data(await lookup('a.b.c.d', 'A'))).toEqual(['10.1.0.1'])
    expect(await lookup('a.b.c', 'A')).toMatchObject({ rcode: 2 })
  })

  test('change for the very next question', async () => {
    const { zones, lookup } = responder()
    zones.setEndpoint(endpoint('e1', ['web']))
    expect(data(await lookup('web', 'A'))).toEqual(['10.1.0.1'])
    zones.setEndpoint(endpoint('e1', ['web'], { ipv4: '10.1.0.99' }))
    expect(data(await lookup('web', 'A'))).toEqual(['10.1.0.99'])
    zones.removeEndpoint('n1', 'e1')
    expect((await lookup('web', 'A')).rcode).toBe(2)
  })

  test('are not served for a network that serves none', async () => {
    const { zones, lookup } = responder()
    zones.setNetwork('n1', { name: 'bridge', internal: false, serves: false })
    zones.setEndpoint(endpoint('e1', ['web']))
    expect((await lookup('web', 'A')).rcode).toBe(2)
  })

  test('keep nothing of what is gone', () => {
    const zones = new Zones()
    for (let i = 0; i < 50; i++) {
      zones.setEndpoint(endpoint(`e${i}`, [`c${i}`, 'all']))
      zones.setHealth(`e${i}`, false)
    }
    for (let i = 0; i < 50; i++) zones.removeEndpoint('n1', `e${i}`)
    expect(zones.networkIds()).toEqual([])
  })
})

describe('an alias that several endpoints share', () => {
  test('gives all, each first in turn', async () => {
    const { zones, lookup } = responder()
    for (const id of ['e1', 'e2', 'e3']) zones.setEndpoint(endpoint(id, [id, 'api']))
    const firsts: unknown[] = []
    for (let i = 0; i < 6; i++) {
      const found = data(await lookup('api', 'A'))
      expect([...found].sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.3'])
      firsts.push(found[0])
    }
    expect(firsts.slice(0, 3).sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.3'])
    expect(firsts.slice(3)).toEqual(firsts.slice(0, 3))
  })

  test('gives the others in every order', async () => {
    const { zones, lookup } = responder()
    for (const id of ['e1', 'e2', 'e3']) zones.setEndpoint(endpoint(id, [id, 'api']))
    const orders = new Set<string>()
    for (let i = 0; i < 300; i++) orders.add(data(await lookup('api', 'A')).join())
    expect(orders.size).toBe(6)
  })

  test('leaves out the unhealthy; none left is an empty answer', async () => {
    const { zones, lookup } = responder()
    for (const id of ['e1', 'e2']) zones.setEndpoint(endpoint(id, ['api']))
    zones.setHealth('e1', false)
    expect(data(await lookup('api', 'A'))).toEqual(['10.1.0.2'])
    zones.setHealth('e2', false)
    expect(await lookup('api', 'A')).toMatchObject({ rcode: 0, answers: [] })
    zones.setHealth('e1', true)
    expect(data(await lookup('api', 'A'))).toEqual(['10.1.0.1'])
  })

  test('that does not fit a plain UDP answer is cut behind a whole record, and whole by TCP or EDNS0', async () => {
    const { zones, lookup } = responder()
    for (let i = 1; i <= 60; i++) zones.setEndpoint(endpoint(`e${i}`, ['api']))
    const plain = await lookup('api', 'A')
    expect(plain.truncated).toBe(true)
    expect(plain.bytes.length).toBeLessThanOrEqual(512)
    expect(plain.answers.length).toBe(Math.floor((512 - 12 - 9) / 16))
    for (const options of [{ tcp: true }, { edns: 1232 }]) {
      const whole = await lookup('api', 'A', options)
      expect(whole.truncated).toBe(false)
      expect(new Set(data(whole)).size).toBe(60)
    }
  })
})

describe('links', () => {
  test('are names for one sandbox only, and come before what the network says', async () => {
    const { zones, responder: answering, lookup } = responder({ links: { DB: 'mysql' } })
    zones.setEndpoint(endpoint('e1', ['mysql']))
    zones.setEndpoint(endpoint('e2', ['db']))
    expect(data(await lookup('db', 'A'))).toEqual(['10.1.0.1'])
    expect(data(await lookup('db.shop', 'A'))).toEqual(['10.1.0.1'])
    answering.view = view()
    expect(data(await lookup('db', 'A'))).toEqual(['10.1.0.2'])
  })
})

describe('reverse names', () => {
  test('are those of the first name, with the network', async () => {
    const { zones, lookup } = responder()
    zones.setEndpoint(endpoint('e2', ['web', 'www'], { ipv6: 'fd00::2' }))
    expect(data(await lookup('2.0.1.10.in-addr.arpa', 'PTR'))).toEqual(['web.shop'])
    const nibbles = '2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f'
    expect(data(await lookup(`${nibbles}.IP6.ARPA`, 'PTR'))).toEqual(['web.shop'])
    expect(await lookup('2.0.1.10.in-addr.arpa', 'A')).toMatchObject({ rcode: 0, answers: [] })
  })

  test.each(['3.0.1.10.in-addr.arpa', '02.0.1.10.in-addr.arpa', '0.1.10.in-addr.arpa', 'x.ip6.arpa'])(
    '%s is not ours',
    async name => {
      const { zones, lookup } = responder()
      zones.setEndpoint(endpoint('e2', ['web']))
      expect((await lookup(name, 'PTR')).rcode).toBe(2)
    },
  )
})

describe('records of a network', () => {
  test('of every type, with their TTL', async () => {
    const { zones, lookup } = responder()
    zones.setRecords('n1', [
      { name: 'gate', type: 'A', address: '192.0.2.1', ttl: 60 },
      { name: 'gate', type: 'AAAA', address: '2001:DB8:0::1' },
      { name: 'gate', type: 'TXT', text: ['a', 'b'.repeat(300)] },
      { name: '_sip._udp.gate', type: 'SRV', target: 'gate', port: 5060, priority: 1, weight: 2 },
    ])
    const a = await lookup('gate', 'A')
    expect(a.answers).toEqual([expect.objectContaining({ data: '192.0.2.1', ttl: 60, name: 'gate' })])
    expect((await lookup('gate', 'AAAA')).answers).toEqual([
      expect.objectContaining({ data: '2001:db8::1', ttl: 5 }),
    ])
    const [text] = data(await lookup('gate', 'TXT')) as [Buffer[]]
    expect(text.map(part => part.length)).toEqual([1, 255, 45])
    const srv = await lookup('_sip._udp.gate', 'SRV')
    expect(data(srv)).toEqual([{ target: 'gate', port: 5060, priority: 1, weight: 2 }])
    expect(srv.additionals.map(({ name, type }) => `${name} ${type}`)).toEqual(['gate A', 'gate AAAA'])
  })

  test('a wildcard stands for names that have no record, below the nearest parent that exists', async () => {
    const { zones, lookup } = responder()
    zones.setRecords('n1', [
      { name: '*.app.test', type: 'A', address: '192.0.2.9' },
      { name: 'fixed.app.test', type: 'A', address: '192.0.2.1' },
    ])
    expect((await lookup('Any.App.test', 'A')).answers).toEqual([
      expect.objectContaining({ name: 'Any.App.test', data: '192.0.2.9' }),
    ])
    expect(data(await lookup('x.y.app.test', 'A'))).toEqual(['192.0.2.9'])
    expect(data(await lookup('fixed.app.test', 'A'))).toEqual(['192.0.2.1'])
    expect((await lookup('x.fixed.app.test', 'A')).rcode).toBe(2)
    expect(await lookup('any.app.test', 'AAAA')).toMatchObject({ rcode: 0, answers: [] })
    expect((await lookup('app.test', 'A')).rcode).toBe(2)
  })

  test('a CNAME is followed within the zones, and a circle ends', async () => {
    const { zones, lookup } = responder()
    zones.setEndpoint(endpoint('e1', ['web']))
    zones.setRecords('n1', [
      { name: 'site', type: 'CNAME', target: 'front' },
      { name: 'front', type: 'CNAME', target: 'web.shop' },
      { name: 'a', type: 'CNAME', target: 'b' },
      { name: 'b', type: 'CNAME', target: 'a' },
    ])
    const found = await lookup('site', 'A')
    expect(found.answers.map(({ name, type }) => `${name} ${type}`)).toEqual([
      'site CNAME',
      'front CNAME',
      'web.shop A',
    ])
    expect(data(await lookup('site', 'CNAME'))).toEqual(['front'])
    expect((await lookup('a', 'A')).rcode).toBe(0)
  })

  test.each([
    [{ name: '', type: 'A', address: '1.2.3.4' }, 'name'],
    [{ name: 'a..b', type: 'A', address: '1.2.3.4' }, 'name'],
    [{ name: `${'a'.repeat(64)}.b`, type: 'A', address: '1.2.3.4' }, 'name'],
    [{ name: 'a*.b', type: 'A', address: '1.2.3.4' }, 'wildcard'],
    [{ name: 'a', type: 'A', address: 'fd00::1' }, 'IPv4'],
    [{ name: 'a', type: 'AAAA', address: '1.2.3.4' }, 'IPv6'],
    [{ name: 'a', type: 'A', address: '1.2.3.4', ttl: -1 }, 'ttl'],
    [{ name: 'a', type: 'CNAME', target: 'b c' }, 'target'],
    [{ name: 'a', type: 'SRV', target: 'b', port: 70000 }, 'port'],
    [{ name: 'a', type: 'TXT', text: [] }, 'text'],
  ] as const)('%j is refused: %s', (record, why) => {
    const zones = new Zones()
    expect(() => zones.setRecords('n1', [record as never])).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(why) }),
    )
  })
})

describe('services', () => {
  const tasks = [
    { endpointId: 't1', ipv4: '10.1.0.11' },
    { endpointId: 't2', ipv4: '10.1.0.12' },
  ]

  test('give their virtual address, and their tasks under tasks.', async () => {
    const { zones, lookup } = responder()
    zones.setNetwork('n1', { name: 'shop', internal: false, serves: true })
    zones.setService('n1', { id: 's', name: 'api', aliases: ['rest'], vips: ['10.1.0.10'], tasks })
    for (const name of ['api', 'rest', 'api.shop'])
      expect(data(await lookup(name, 'A'))).toEqual(['10.1.0.10'])
    for (const name of ['tasks.api', 'tasks.rest'])
      expect(data(await lookup(name, 'A')).sort()).toEqual(['10.1.0.11', '10.1.0.12'])
    zones.setHealth('t1', false)
    expect(data(await lookup('tasks.api', 'A'))).toEqual(['10.1.0.12'])
    zones.removeService('n1', 's')
    expect((await lookup('api', 'A')).rcode).toBe(2)
  })

  test('without a virtual address give their tasks', async () => {
    const { zones, lookup } = responder()
    zones.setService('n1', { id: 's', name: 'api', aliases: [], tasks })
    expect(data(await lookup('api', 'A')).sort()).toEqual(['10.1.0.11', '10.1.0.12'])
  })

  test('alone can take names that begin with tasks.', async () => {
    const { zones, lookup } = responder()
    zones.setEndpoint(endpoint('e1', ['tasks.api', 'web']))
    expect((await lookup('tasks.api', 'A')).rcode).toBe(2)
    expect(data(await lookup('web', 'A'))).toEqual(['10.1.0.1'])
  })

  test('and endpoints answer SRV for their named ports', async () => {
    const { zones, lookup } = responder()
    zones.setEndpoint(
      endpoint('e1', ['web'], { ports: [{ name: 'http', protocol: 'tcp', port: 8080 }], ipv6: 'fd00::1' }),
    )
    const found = await lookup('_http._tcp.web', 'SRV')
    expect(data(found)).toEqual([{ target: 'web.shop', port: 8080, priority: 0, weight: 0 }])
    expect(found.additionals.map(({ name, type }) => `${name} ${type}`)).toEqual([
      'web.shop A',
      'web.shop AAAA',
    ])
    expect(await lookup('_http._udp.web', 'SRV')).toMatchObject({ rcode: 0, answers: [] })
    expect((await lookup('_tcp.web', 'SRV')).rcode).toBe(2)
  })
})

test('resolveName and resolveIp answer as the resolver would', () => {
  const zones = new Zones()
  zones.setEndpoint(endpoint('e1', ['web'], { ipv6: 'fd00::1' }))
  expect(resolveName(zones, view(), 'Web.', 4)).toEqual(['10.1.0.1'])
  expect(resolveName(zones, view(), 'web.shop', 6)).toEqual(['fd00::1'])
  expect(resolveName(zones, view(), 'nope', 4)).toEqual([])
  expect(resolveName(zones, view(), 'no good', 4)).toEqual([])
  expect(resolveIp(zones, view(), 'fd00::1')).toEqual(['web.shop'])
  expect(resolveIp(zones, view({ networks: [] }), 'fd00::1')).toEqual([])
})

test('the ports of an endpoint are found by number, and by name where they have one', async () => {
  const { zones, lookup } = responder()
  const ports = namedPorts([
    { containerPort: 80, protocol: 'tcp' },
    { containerPort: 80, protocol: 'tcp' },
    { containerPort: 8000, containerPortEnd: 8001, protocol: 'udp' },
  ])
  expect(ports).toHaveLength(4)
  zones.setEndpoint(endpoint('e1', ['web'], { ports }))
  const found = async (name: string) =>
    (await lookup(name, 'SRV')).answers.map(each => (each.type === 'SRV' ? each.data.port : each.type))
  expect(await found('_80._tcp.web')).toEqual([80])
  expect(await found('_http._tcp.web')).toEqual([80])
  expect(await found('_8001._udp.web')).toEqual([8001])
  expect(await found('_8001._tcp.web')).toEqual([])
})
