import type { Change, Stack } from '../../../lib/kernel/kernel'
import { failure, Scene } from './scene'

/** Each change applied and read back: by this library, and by iproute2 as a witness that shares no code with it. */
let scene: Scene
let host: Stack
let box: Stack

beforeEach(async () => {
  scene = new Scene()
  host = await scene.netns('host')
  box = await scene.netns('box')
})
afterEach(() => scene.clear())

const indexOf = async (stack: Stack, name: string): Promise<number> => {
  const link = await stack.link(name)
  if (!link) throw new Error(`no link ${name}`)
  return link.index
}
const pair: Change = {
  op: 'addLink',
  link: { kind: 'veth', name: 'va', up: true, peer: { name: 'vb', up: true } },
}

describe('links', () => {
  test('bridge, and a veth born as its port, with the peer in its own namespace', async () => {
    await host.apply([
      {
        op: 'addLink',
        link: { kind: 'bridge', name: 'br0', mac: '02:42:00:00:00:01', up: true, multicastSnooping: false },
      },
      {
        op: 'addLink',
        link: {
          kind: 'veth',
          name: 'veth1',
          index: 4711,
          mac: '02:42:00:00:00:02',
          mtu: 1400,
          master: 'br0',
          up: true,
          alias: 'endpoint 1',
          peer: { name: 'eth0', index: 4712, mac: '02:42:00:00:00:03', mtu: 1400, up: true, netns: box },
        },
      },
    ])
    const bridge = await indexOf(host, 'br0')
    expect(await host.link('veth1')).toMatchObject({
      index: 4711,
      kind: 'veth',
      mac: '02:42:00:00:00:02',
      mtu: 1400,
      master: bridge,
      parent: 4712,
      up: true,
      carrier: true,
      alias: 'endpoint 1',
    })
    expect(await box.link(4712)).toMatchObject({
      name: 'eth0',
      mac: '02:42:00:00:00:03',
      mtu: 1400,
      up: true,
    })
    expect(await host.link('eth0')).toBeUndefined()
    expect(await host.link(999)).toBeUndefined()
    expect((await box.links()).map(({ name }) => name)).toEqual(['lo', 'eth0'])
    const [witness] = scene.ip('host', 'link', 'show', 'veth1')
    expect(witness).toMatchObject({
      ifindex: 4711,
      mtu: 1400,
      master: 'br0',
      ifalias: 'endpoint 1',
      operstate: 'UP',
    })
    expect(scene.ip('host', 'link', 'show', 'br0')[0]).toMatchObject({
      address: '02:42:00:00:00:01',
      linkinfo: { info_kind: 'bridge', info_data: { mcast_snooping: 0 } },
    })
  })

  test('macvlan of each mode', async () => {
    await host.apply([pair])
    for (const mode of ['private', 'vepa', 'bridge', 'source'] as const) {
      await host.apply([
        { op: 'addLink', link: { kind: 'macvlan', name: `mv-${mode}`, parent: 'vb', mode, netns: box } },
      ])
      expect(await box.link(`mv-${mode}`)).toMatchObject({ kind: 'macvlan', info: { macvlan: { mode } } })
      expect(scene.ip('box', 'link', 'show', `mv-${mode}`)[0]).toMatchObject({
        linkinfo: { info_data: { mode } },
      })
    }
  })

  test('vxlan over IPv4 and IPv6', async () => {
    await host.apply([
      pair,
      {
        op: 'addLink',
        link: {
          kind: 'vxlan',
          name: 'vx4',
          id: 4097,
          port: 4789,
          local: '192.0.2.1',
          parent: 'va',
          learning: false,
          proxy: true,
          l2miss: true,
          l3miss: true,
        },
      },
      { op: 'addLink', link: { kind: 'vxlan', name: 'vx6', id: 4098, port: 8472, local: '2001:db8::1' } },
    ])
    const va = await indexOf(host, 'va')
    expect((await host.link('vx4'))?.info).toEqual({
      vxlan: { id: 4097, port: 4789, local: '192.0.2.1', learning: false, proxy: true, parent: va },
    })
    expect((await host.link('vx6'))?.info).toMatchObject({
      vxlan: { id: 4098, local: '2001:db8::1', learning: true },
    })
    expect(scene.ip('host', 'link', 'show', 'vx4')[0]).toMatchObject({
      linkinfo: {
        info_data: {
          id: 4097,
          link: 'va',
          local: '192.0.2.1',
          port: 4789,
          learning: false,
          proxy: true,
          l2miss: true,
          l3miss: true,
        },
      },
    })
    expect(scene.ip('host', 'link', 'show', 'vx6')[0]).toMatchObject({
      linkinfo: { info_data: { local6: '2001:db8::1' } },
    })
  })

  test('an alias reaches a link that is born elsewhere', async () => {
    await host.apply([{ op: 'addLink', link: { kind: 'bridge', name: 'there', alias: 'net 7', netns: box } }])
    expect(await box.link('there')).toMatchObject({ alias: 'net 7' })
  })

  test('set: rename, down, MTU, MAC, promiscuous, alias removed, into a bridge and out of it, moved', async () => {
    await host.apply([pair, { op: 'addLink', link: { kind: 'bridge', name: 'br0' } }])
    await host.apply([
      { op: 'setLink', link: 'vb', up: false, alias: 'x' },
      {
        op: 'setLink',
        link: 'vb',
        rename: 'eth7',
        mtu: 1300,
        mac: '02:42:00:00:00:09',
        promiscuous: true,
        master: 'br0',
      },
      { op: 'setLink', link: 'eth7', alias: '' },
    ])
    expect(await host.link('vb')).toBeUndefined()
    expect(await host.link('eth7')).toMatchObject({
      up: false,
      mtu: 1300,
      mac: '02:42:00:00:00:09',
      alias: undefined,
      master: await indexOf(host, 'br0'),
    })
    expect(scene.ip('host', 'link', 'show', 'eth7')[0]).toMatchObject({
      flags: expect.arrayContaining(['PROMISC']),
    })
    await host.apply([{ op: 'setLink', link: 'eth7', master: null, netns: box }])
    expect(await host.link('eth7')).toBeUndefined()
    expect(await box.link('eth7')).toMatchObject({ mtu: 1300, master: undefined })
  })

  test('remove', async () => {
    await host.apply([pair])
    await host.apply([{ op: 'removeLink', link: 'va' }])
    expect((await host.links()).map(({ name }) => name)).toEqual(['lo'])
    await host.apply([{ op: 'removeLink', link: 'va', ifExists: true }])
    expect(await failure(host.apply([{ op: 'removeLink', link: 'va' }]))).toMatchObject({
      code: 'ERR_LINK_NOT_FOUND',
      details: { errno: 'ENODEV', op: 'removeLink' },
    })
  })

  test('port flags', async () => {
    await host.apply([
      { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
      {
        op: 'addLink',
        link: { kind: 'veth', name: 'p0', master: 'br0', up: true, peer: { name: 'p1', up: true } },
      },
      {
        op: 'setPort',
        link: 'p0',
        hairpin: true,
        isolated: true,
        learning: false,
        flood: false,
        neighbourSuppression: true,
      },
    ])
    expect((await host.link('p0'))?.port).toEqual({
      hairpin: true,
      isolated: true,
      learning: false,
      state: 3,
    })
    expect(scene.ip('host', 'link', 'show', 'p0')[0]).toMatchObject({
      linkinfo: {
        info_slave_data: {
          hairpin: true,
          isolated: true,
          learning: false,
          flood: false,
          neigh_suppress: true,
        },
      },
    })
    await host.apply([{ op: 'setPort', link: 'p0', isolated: false }])
    expect((await host.link('p0'))?.port).toMatchObject({ hairpin: true, isolated: false })
    expect(await failure(host.apply([{ op: 'setPort', link: 'br0', isolated: true }]))).toMatchObject({
      details: { errno: 'EOPNOTSUPP' },
    })
  })

  test('what passes is counted', async () => {
    await host.apply([pair, { op: 'addAddress', link: 'va', address: '10.9.0.1/24' }])
    const before = (await host.link('va'))?.statistics.txPackets ?? 0
    await host.apply([{ op: 'setNeighbour', link: 'va', address: '10.9.0.2', mac: '02:42:00:00:00:09' }])
    scene.exec('host', 'bash', '-c', 'echo hello > /dev/udp/10.9.0.2/9')
    const after = await host.link('va')
    expect(after?.statistics.txPackets).toBeGreaterThan(before)
    expect(after?.statistics.txBytes).toBeGreaterThan(0)
  })
})

describe('addresses and routes', () => {
  beforeEach(() =>
    host.apply([
      pair,
      { op: 'addAddress', link: 'va', address: '10.1.0.1/24' },
      { op: 'addAddress', link: 'va', address: 'fd00::1/64' },
    ]),
  )

  test('addresses, without duplicate address detection', async () => {
    const va = await indexOf(host, 'va')
    const all = await host.addresses(va)
    expect(all).toContainEqual({
      link: va,
      address: '10.1.0.1/24',
      scope: 'global',
      tentative: false,
      permanent: true,
    })
    expect(all).toContainEqual({
      link: va,
      address: 'fd00::1/64',
      scope: 'global',
      tentative: false,
      permanent: true,
    })
    expect(all.every(({ link }) => link === va)).toBe(true)
    const [witness] = scene.ip('host', 'address', 'show', 'dev', 'va')
    expect(witness?.addr_info).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ local: '10.1.0.1', prefixlen: 24 }),
        expect.objectContaining({ local: 'fd00::1', nodad: true }),
      ]),
    )
    const [first] = (witness?.addr_info ?? []) as object[]
    expect(first).toHaveProperty('broadcast', '10.1.0.255')
  })

  test('scope, no prefix route, detection when asked; removal', async () => {
    await host.apply([
      { op: 'addAddress', link: 'va', address: '169.254.7.7/16', scope: 'link', noPrefixRoute: true },
      { op: 'addAddress', link: 'va', address: 'fd01::1/64', noPrefixRoute: true },
      { op: 'addAddress', link: 'va', address: 'fd02::1/64', dad: true },
      { op: 'addAddress', link: 'lo', address: '127.9.9.9/8' },
    ])
    const addresses = await host.addresses()
    expect(addresses.find(({ address }) => address === '169.254.7.7/16')).toMatchObject({ scope: 'link' })
    expect(addresses.find(({ address }) => address === '127.9.9.9/8')).toMatchObject({
      scope: 'host',
      link: 1,
    })
    const destinations = (await host.routes({ table: 254 })).map(({ destination }) => destination)
    expect(destinations).not.toContain('169.254.0.0/16')
    expect(destinations).not.toContain('fd01::/64')
    expect(destinations).toContain('fd02::/64')
    await host.apply([
      { op: 'removeAddress', link: 'va', address: '169.254.7.7/16' },
      { op: 'removeAddress', link: 'va', address: 'fd01::1/64' },
    ])
    const left = (await host.addresses()).map(({ address }) => address)
    expect(left).not.toContain('169.254.7.7/16')
    expect(left).not.toContain('fd01::1/64')
    expect(
      await failure(host.apply([{ op: 'removeAddress', link: 'va', address: 'fd01::1/64' }])),
    ).toMatchObject({ code: 'ERR_KERNEL', details: { errno: 'EADDRNOTAVAIL' } })
  })

  test('routes of every kind, by both families', async () => {
    await host.apply([
      {
        op: 'addRoute',
        route: {
          destination: '0.0.0.0/0',
          gateway: '10.1.0.254',
          link: 'va',
          metric: 50,
          mtu: 1300,
          source: '10.1.0.1',
        },
      },
      { op: 'addRoute', route: { destination: '10.2.0.0/16', link: 'va' } },
      {
        op: 'addRoute',
        route: { destination: '10.3.0.0/16', gateway: '10.77.0.1', link: 'va', onLink: true },
      },
      { op: 'addRoute', route: { destination: '10.4.0.0/16', type: 'blackhole' } },
      { op: 'addRoute', route: { destination: '10.5.0.0/16', type: 'unreachable' } },
      { op: 'addRoute', route: { destination: '10.6.0.0/16', type: 'prohibit', table: 1000 } },
      { op: 'addRoute', route: { destination: '10.7.0.0/16', gateway: 'fd00::9', link: 'va' } },
      { op: 'addRoute', route: { destination: '::/0', gateway: 'fd00::fe', link: 'va' } },
      {
        op: 'addRoute',
        route: { destination: 'fd05::/64', gateway: 'fd77::1', link: 'va', onLink: true, metric: 9 },
      },
      { op: 'addRoute', route: { destination: 'fd06::/64', type: 'blackhole' } },
    ])
    const va = await indexOf(host, 'va')
    const routes = await host.routes()
    const to = (destination: string) => routes.find(route => route.destination === destination)
    expect(to('0.0.0.0/0')).toEqual({
      family: 4,
      destination: '0.0.0.0/0',
      type: 'unicast',
      gateway: '10.1.0.254',
      link: va,
      source: '10.1.0.1',
      metric: 50,
      mtu: 1300,
      table: 254,
      scope: 'global',
      protocol: 4,
    })
    expect(to('10.2.0.0/16')).toMatchObject({ scope: 'link', link: va })
    expect(to('10.3.0.0/16')).toMatchObject({ gateway: '10.77.0.1', onLink: true })
    expect(to('10.4.0.0/16')).toMatchObject({ type: 'blackhole' })
    expect(to('10.5.0.0/16')).toMatchObject({ type: 'unreachable' })
    expect(to('10.6.0.0/16')).toMatchObject({ type: 'prohibit', table: 1000 })
    expect(to('10.7.0.0/16')).toMatchObject({ gateway: 'fd00::9' })
    expect(to('::/0')).toMatchObject({ family: 6, gateway: 'fd00::fe', link: va })
    expect(to('fd05::/64')).toMatchObject({ gateway: 'fd77::1', onLink: true, metric: 9 })
    expect(to('fd06::/64')).toMatchObject({ type: 'blackhole' })
    expect((await host.routes({ family: 4, table: 1000 })).map(({ destination }) => destination)).toEqual([
      '10.6.0.0/16',
    ])
    expect(await host.routes({ table: 4321 })).toEqual([])
    const witness = scene.ip('host', 'route', 'show', 'table', 'all')
    expect(witness.find(({ dst }) => dst === '10.3.0.0/16')).toMatchObject({
      gateway: '10.77.0.1',
      flags: ['onlink'],
    })
    expect(witness.find(({ dst }) => dst === '10.6.0.0/16')).toMatchObject({
      type: 'prohibit',
      table: '1000',
    })
  })

  test('replace and remove', async () => {
    await host.apply([{ op: 'addRoute', route: { destination: '10.2.0.0/16', gateway: '10.1.0.2' } }])
    expect(
      await failure(
        host.apply([{ op: 'addRoute', route: { destination: '10.2.0.0/16', gateway: '10.1.0.3' } }]),
      ),
    ).toMatchObject({ code: 'ERR_KERNEL', details: { errno: 'EEXIST' } })
    await host.apply([{ op: 'replaceRoute', route: { destination: '10.2.0.0/16', gateway: '10.1.0.3' } }])
    expect(await host.routeTo('10.2.3.4')).toMatchObject({ destination: '10.2.0.0/16', gateway: '10.1.0.3' })
    await host.apply([{ op: 'removeRoute', route: { destination: '10.2.0.0/16' } }])
    expect(await host.routeTo('10.2.3.4')).toBeUndefined()
    expect(
      await failure(host.apply([{ op: 'removeRoute', route: { destination: '10.2.0.0/16' } }])),
    ).toMatchObject({ code: 'ERR_KERNEL', details: { errno: 'ESRCH' } })
  })

  test('which way a packet takes', async () => {
    await host.apply([
      { op: 'addRoute', route: { destination: '10.4.0.0/16', type: 'blackhole' } },
      { op: 'addRoute', route: { destination: '10.5.0.0/16', type: 'unreachable' } },
      { op: 'addRoute', route: { destination: '10.6.0.0/16', type: 'prohibit' } },
    ])
    expect(await host.routeTo('10.1.0.7')).toMatchObject({
      destination: '10.1.0.0/24',
      link: await indexOf(host, 'va'),
    })
    expect(await host.routeTo('10.1.0.1')).toMatchObject({ type: 'local' })
    expect(await host.routeTo('fd00::7')).toMatchObject({ destination: 'fd00::/64' })
    for (const nowhere of ['192.0.2.1', '2001:db8::1', '10.4.0.1', '10.5.0.1', '10.6.0.1'])
      expect(await host.routeTo(nowhere)).toBeUndefined()
  })

  test('rules', async () => {
    const four = {
      family: 4,
      priority: 1000,
      table: 1000,
      source: '10.1.0.0/16',
      mark: 7,
      iif: 'va',
    } as const
    const six = { family: 6, priority: 1001, table: 100, destination: 'fd50::/64', oif: 'vb' } as const
    await host.apply([
      { op: 'addRule', rule: four },
      { op: 'addRule', rule: six },
    ])
    expect(await host.rules()).toEqual(expect.arrayContaining([four, six]))
    expect(scene.ip('host', 'rule', 'show')).toContainEqual(
      expect.objectContaining({ priority: 1000, src: '10.1.0.0', srclen: 16, fwmark: '0x7', table: '1000' }),
    )
    expect(await failure(host.apply([{ op: 'addRule', rule: four }]))).toMatchObject({
      details: { errno: 'EEXIST' },
    })
    await host.apply([
      { op: 'removeRule', rule: four },
      { op: 'removeRule', rule: six },
    ])
    expect((await host.rules()).filter(({ priority }) => priority === 1000 || priority === 1001)).toEqual([])
  })

  test('neighbours', async () => {
    const va = await indexOf(host, 'va')
    const set: Change[] = ['10.1.0.9', 'fd00::9'].map(address => ({
      op: 'setNeighbour',
      link: 'va',
      address,
      mac: '02:42:00:00:00:09',
    }))
    await host.apply(set)
    await host.apply(set) // the same again is no error
    expect(await host.neighbours({ link: va })).toEqual(
      expect.arrayContaining([
        { link: va, address: '10.1.0.9', mac: '02:42:00:00:00:09', permanent: true },
        { link: va, address: 'fd00::9', mac: '02:42:00:00:00:09', permanent: true },
      ]),
    )
    expect(scene.ip('host', 'neigh', 'show')).toContainEqual(
      expect.objectContaining({ dst: '10.1.0.9', lladdr: '02:42:00:00:00:09', state: ['PERMANENT'] }),
    )
    await host.apply([{ op: 'removeNeighbour', link: 'va', address: '10.1.0.9', mac: '02:42:00:00:00:09' }])
    const left = (await host.neighbours()).find(({ address }) => address === '10.1.0.9')
    expect(left?.permanent ?? false).toBe(false)
  })
})

test('forwarding database: of a bridge port, and of a tunnel with several ends', async () => {
  await host.apply([
    { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
    {
      op: 'addLink',
      link: { kind: 'veth', name: 'p0', master: 'br0', up: true, peer: { name: 'p1', up: true } },
    },
    { op: 'addLink', link: { kind: 'vxlan', name: 'vx0', id: 42, port: 4789, local: '192.0.2.1', up: true } },
    { op: 'setFdb', link: 'p0', mac: '02:42:00:00:00:0a' },
    { op: 'setFdb', link: 'vx0', mac: '02:42:00:00:00:0b', remote: '192.0.2.9' },
    { op: 'setFdb', link: 'vx0', mac: '02:42:00:00:00:0b', remote: '192.0.2.10' },
    { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.9' },
    { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.10' },
    { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.10' },
  ])
  const p0 = await indexOf(host, 'p0')
  const vx0 = await indexOf(host, 'vx0')
  expect(await host.neighbours({ bridge: true, link: p0 })).toContainEqual({
    link: p0,
    mac: '02:42:00:00:00:0a',
    permanent: true,
    self: false,
  })
  const tunnel = async () =>
    (await host.neighbours({ bridge: true, link: vx0 })).map(({ mac, address, self }) => [mac, address, self])
  expect(await tunnel()).toEqual(
    expect.arrayContaining([
      ['02:42:00:00:00:0b', '192.0.2.10', true],
      ['00:00:00:00:00:00', '192.0.2.9', true],
      ['00:00:00:00:00:00', '192.0.2.10', true],
    ]),
  )
  expect(await tunnel()).toHaveLength(3)
  const witness = JSON.parse(scene.exec('host', 'bridge', '-j', 'fdb', 'show', 'dev', 'p0'))
  expect(witness).toContainEqual(
    expect.objectContaining({ mac: '02:42:00:00:00:0a', master: 'br0', state: 'static' }),
  )
  await host.apply([
    { op: 'removeFdb', link: 'p0', mac: '02:42:00:00:00:0a' },
    { op: 'removeFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.9' },
  ])
  expect(await tunnel()).toHaveLength(2)
  expect((await host.neighbours({ bridge: true, link: p0 })).map(({ mac }) => mac)).not.toContain(
    '02:42:00:00:00:0a',
  )
})

describe('traffic control', () => {
  beforeEach(() =>
    host.apply([
      pair,
      { op: 'addLink', link: { kind: 'ifb', name: 'ifb0', up: true } },
      { op: 'addLink', link: { kind: 'ifb', name: 'ifb1', up: true } },
    ]),
  )
  const qdiscs = () =>
    JSON.parse(scene.exec('host', 'tc', '-j', 'qdisc', 'show', 'dev', 'va')) as {
      kind: string
      options: object
    }[]

  test('a shaper is set, changed and removed', async () => {
    const set = (bitsPerSecond: number): Change => ({
      op: 'setShaper',
      link: 'va',
      rate: { bitsPerSecond, burstBytes: 125_000, latencyMs: 50 },
    })
    await host.apply([set(100e6)])
    expect(qdiscs()).toContainEqual(
      expect.objectContaining({
        kind: 'tbf',
        options: expect.objectContaining({ rate: 12_500_000, burst: 125_000, lat: 50_000 }),
      }),
    )
    await host.apply([set(40e9)])
    expect(qdiscs()[0]?.options).toMatchObject({ rate: 5_000_000_000 })
    const remove: Change = { op: 'setShaper', link: 'va', rate: null }
    await host.apply([remove])
    expect(qdiscs().map(({ kind }) => kind)).not.toContain('tbf')
    await host.apply([remove, { op: 'setLink', link: 'va', alias: 'went on' }]) // there is none: fine
    expect(await host.link('va')).toMatchObject({ alias: 'went on' })
  })

  test('what enters is redirected to an ifb, then to another, then no more', async () => {
    const filters = () =>
      JSON.stringify(JSON.parse(scene.exec('host', 'tc', '-j', 'filter', 'show', 'dev', 'va', 'ingress')))
    await host.apply([{ op: 'setIngressMirror', link: 'va', target: 'ifb0' }])
    expect(filters()).toContain('"to_dev":"ifb0"')
    await host.apply([
      { op: 'addAddress', link: 'vb', address: '10.9.0.1/24' },
      { op: 'setNeighbour', link: 'vb', address: '10.9.0.2', mac: '02:42:00:00:00:09' },
    ])
    scene.exec('host', 'bash', '-c', 'echo hello > /dev/udp/10.9.0.2/9')
    expect((await host.link('ifb0'))?.statistics.rxPackets).toBeGreaterThan(0)
    await host.apply([{ op: 'setIngressMirror', link: 'va', target: 'ifb1' }])
    expect(filters()).toContain('"to_dev":"ifb1"')
    expect(filters()).not.toContain('"to_dev":"ifb0"')
    await host.apply([{ op: 'setIngressMirror', link: 'va', target: null }])
    expect(qdiscs().map(({ kind }) => kind)).not.toContain('ingress')
    await host.apply([{ op: 'setIngressMirror', link: 'va', target: null }])
  })
})

describe('kinds that not every kernel has', () => {
  const kinds: Change[] = [
    { op: 'addLink', link: { kind: 'ipvlan', name: 'x0', parent: 'va', mode: 'l2', flag: 'private' } },
    { op: 'addLink', link: { kind: 'vlan', name: 'x0', parent: 'va', id: 42 } },
    { op: 'addLink', link: { kind: 'dummy', name: 'x0' } },
    { op: 'addLink', link: { kind: 'bridge', name: 'x0', vlanFiltering: true } },
  ]
  test.each(kinds.map(change => [change.op === 'addLink' ? change.link.kind : '', change] as const))(
    '%s is made, or refused with its name',
    async (kind, change) => {
      await host.apply([pair])
      const error = await host.apply([change]).then(
        () => undefined,
        (cause: { code: string; message: string }) => cause,
      )
      if (error === undefined) expect(await host.link('x0')).toMatchObject({ kind })
      else {
        expect(error.code).toBe('ERR_UNSUPPORTED')
        expect(error.message).toContain(`add ${kind} x0`)
        expect(error.message).toContain('kernel module')
      }
    },
  )
})
