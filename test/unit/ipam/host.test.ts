import {
  clashes,
  type HostView,
  refuseClash,
  shadowed,
  type UsedSubnet,
  usedSubnets,
} from '../../../lib/ipam/host'
import type { Address, Link, Route, Rule } from '../../../lib/kernel/kernel'

const link = (index: number, name: string): Link => ({
  index,
  name,
  kind: undefined,
  mac: undefined,
  mtu: 1500,
  up: true,
  carrier: true,
  loopback: name === 'lo',
  master: undefined,
  parent: undefined,
  alias: undefined,
  statistics: {
    rxBytes: 0,
    txBytes: 0,
    rxPackets: 0,
    txPackets: 0,
    rxErrors: 0,
    txErrors: 0,
    rxDropped: 0,
    txDropped: 0,
  },
})
const route = (destination: string, more: Partial<Route> = {}): Route => ({
  family: destination.includes(':') ? 6 : 4,
  destination,
  type: 'unicast',
  metric: 0,
  table: 254,
  scope: 'global',
  protocol: 4,
  ...more,
})
const rule = (more: Partial<Rule>): Rule => ({ family: 4, priority: 100, table: 52, ...more })
const address = (at: number, text: string): Address => ({
  link: at,
  address: text,
  scope: 'global',
  tentative: false,
  permanent: true,
})

const LINKS = [link(1, 'lo'), link(2, 'eth0'), link(3, 'tun0'), link(4, 'cnm-web'), link(5, 'docker0')]
const view = (parts: Partial<HostView>): HostView => ({
  routes: [],
  rules: [],
  addresses: [],
  links: LINKS,
  resolvers: [],
  ...parts,
})
const subnets = (used: UsedSubnet[]) => used.map(({ subnet }) => subnet)

test('routes of every table, rules, addresses and resolvers count, each with its description', () => {
  const used = usedSubnets(
    view({
      routes: [
        route('10.8.0.0/16', { link: 3, table: 52 }),
        route('192.168.7.0/24', { link: 2, gateway: '192.168.1.1' }),
        route('10.66.0.0/16', { type: 'blackhole' }),
        route('127.0.0.0/8', { type: 'local', link: 1, table: 255 }),
        route('fd11::/64', { link: 9 }),
      ],
      rules: [
        rule({ source: '10.20.0.0/16' }),
        rule({ destination: '10.21.0.0/24', table: 254 }),
        rule({ mark: 7 }),
      ],
      addresses: [address(2, '192.168.1.5/24'), address(5, '172.17.0.1/16')],
      resolvers: ['10.99.0.53', 'fd99::53', 'fe80::1%eth0', 'nonsense'],
    }),
  )
  expect(used.map(({ subnet, kind, description }) => [subnet, kind, description])).toEqual([
    ['192.168.7.0/24', 'route', 'route 192.168.7.0/24 via 192.168.1.1 dev eth0'],
    ['10.66.0.0/16', 'route', 'route blackhole 10.66.0.0/16'],
    ['fd11::/64', 'route', 'route fd11::/64 dev 9'],
    ['10.8.0.0/16', 'route', 'route 10.8.0.0/16 dev tun0 table 52'],
    ['127.0.0.0/8', 'route', 'route local 127.0.0.0/8 dev lo table local'],
    ['10.20.0.0/16', 'rule', 'rule 100 from 10.20.0.0/16 table 52'],
    ['10.21.0.0/24', 'rule', 'rule 100 to 10.21.0.0/24 table main'],
    ['192.168.1.0/24', 'address', 'address 192.168.1.5/24 dev eth0'],
    ['172.17.0.0/16', 'address', 'address 172.17.0.1/16 dev docker0'],
    ['10.99.0.53/32', 'resolver', 'resolver 10.99.0.53'],
    ['fd99::53/128', 'resolver', 'resolver fd99::53'],
  ])
})

test('default routes do not count, whole or cut in pieces; nor multicast, broadcast, link-local', () => {
  const used = usedSubnets(
    view({
      routes: [
        route('0.0.0.0/0', { link: 2 }),
        route('::/0', { link: 2 }),
        route('0.0.0.0/1', { link: 3 }),
        route('128.0.0.0/1', { link: 3 }),
        route('8.0.0.0/7', { link: 3 }),
        route('2000::/3', { link: 3 }),
        route('224.0.0.0/4', { link: 2 }),
        route('239.1.1.0/24', { link: 2 }),
        route('ff00::/8', { type: 'multicast', link: 2, table: 255 }),
        route('192.168.1.255/32', { type: 'broadcast', link: 2, table: 255 }),
        route('fe80::/64', { link: 2 }),
      ],
      rules: [rule({ source: '0.0.0.0/0' })],
      addresses: [address(2, 'fe80::1/64')],
    }),
  )
  expect(used).toEqual([])
})

test('a /8 and fc00::/7 count', () => {
  expect(subnets(usedSubnets(view({ routes: [route('10.0.0.0/8'), route('fc00::/7')] })))).toEqual([
    '10.0.0.0/8',
    'fc00::/7',
  ])
})

test('our own links do not count, by index or name; one subnet counts once', () => {
  const parts = {
    routes: [
      route('172.20.0.0/16', { link: 4 }),
      route('172.17.0.0/16', { link: 5 }),
      route('172.17.0.0/16', { table: 7 }),
    ],
    addresses: [address(4, '172.20.0.1/16'), address(5, '172.17.0.1/16')],
  }
  expect(subnets(usedSubnets(view(parts), ['cnm-web']))).toEqual(['172.17.0.0/16'])
  expect(subnets(usedSubnets(view(parts), [4]))).toEqual(['172.17.0.0/16'])
  expect(subnets(usedSubnets(view(parts), [4, 'docker0']))).toEqual(['172.17.0.0/16'])
  expect(subnets(usedSubnets(view({ ...parts, routes: [] }), [4, 5]))).toEqual([])
})

test('of a link that is not ours alone only what lies in our subnets is ours', () => {
  const lan = {
    routes: [route('192.0.2.0/24', { link: 3 }), route('198.51.100.0/24', { link: 3, gateway: '192.0.2.1' })],
    addresses: [address(3, '192.0.2.10/24'), address(3, '203.0.113.5/28')],
    resolvers: ['192.0.2.1'],
  }
  const own = (...of: string[]) =>
    subnets(usedSubnets(view(lan), [], [{ links: ['tun0', 'gone0'], subnets: of }]))
  expect(own('192.0.2.0/24')).toEqual(['198.51.100.0/24', '203.0.113.0/28'])
  expect(own('192.0.2.128/25', '203.0.113.0/24')).toEqual(['192.0.2.0/24', '198.51.100.0/24', '192.0.2.1/32'])
  expect(own('0.0.0.0/0')).toEqual(['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/28', '192.0.2.1/32'])
  // The parent of a network that is to be made: its subnet is the host's LAN, and so is that of the resolver.
  expect(subnets(usedSubnets(view(lan), ['tun0']))).toEqual([])
})

test('a clash is refused with the route named, unless forced', () => {
  const used = usedSubnets(
    view({ routes: [route('10.8.0.0/16', { link: 3, table: 52 }), route('10.9.0.0/16', { link: 3 })] }),
  )
  expect(subnets(clashes('10.8.4.0/24', used))).toEqual(['10.8.0.0/16'])
  expect(subnets(clashes('10.0.0.0/8', used))).toEqual(['10.9.0.0/16', '10.8.0.0/16'])
  expect(clashes('10.10.0.0/24', used)).toEqual([])
  expect(clashes('fd00::/64', used)).toEqual([])
  expect(() => refuseClash('10.8.4.0/24', used)).toThrow(
    expect.objectContaining({
      code: 'ERR_HOST_ROUTE_CONFLICT',
      message: 'subnet 10.8.4.0/24 clashes with what the host uses: route 10.8.0.0/16 dev tun0 table 52',
    }),
  )
  refuseClash('10.8.4.0/24', used, true)
  refuseClash('10.10.0.0/24', used)
})

describe('shadowed', () => {
  const networks = [
    { id: 'n1', name: 'web', subnets: ['172.18.0.0/16', 'fd00:1::/64'] },
    { id: 'n2', name: 'db', subnets: ['172.19.0.0/16'] },
  ]
  const rule = (priority: number, table: number, more: Partial<Rule> = {}): Rule => ({
    family: 4,
    priority,
    table,
    ...more,
  })
  /** As every host has them: local, main, default. */
  const RULES = [rule(0, 255), rule(32_766, 254), rule(32_767, 253)]
  const look = (made: Route, rules: Rule[] = []) =>
    shadowed(networks, made, [...RULES, ...rules], ['cnm-web'], LINKS)
  const names = (made: Route, rules?: Rule[]) => look(made, rules).map(({ name }) => name)

  test('a route inside or equal to the subnet takes its packets', () => {
    expect(look(route('172.18.4.0/24', { link: 3 }))).toEqual([
      { network: 'n1', name: 'web', subnet: '172.18.0.0/16', route: 'route 172.18.4.0/24 dev tun0' },
    ])
    expect(names(route('172.19.0.0/16', { link: 3 }))).toEqual(['db'])
    expect(look(route('fd00:1::/96', { link: 3, metric: 1024 }))).toMatchObject([{ subnet: 'fd00:1::/64' }])
    expect(names(route('172.18.4.0/24', { type: 'unreachable' }))).toEqual(['web'])
  })

  test('an equal route with a worse metric than that of the bridge waits behind it', () => {
    expect(names(route('172.19.0.0/16', { link: 3, metric: 100 }))).toEqual([])
    expect(names(route('172.19.4.0/24', { link: 3, metric: 100 }))).toEqual(['db'])
    expect(names(route('fd00:1::/64', { link: 3, metric: 1024 }))).toEqual([])
    expect(names(route('fd00:1::/64', { link: 3, metric: 256 }))).toEqual(['web'])
  })

  test('a wider route leads past the networks', () => {
    expect(names(route('172.16.0.0/12', { link: 3 }))).toEqual([])
    expect(names(route('fd00::/16', { link: 3, metric: 1 }))).toEqual([])
  })

  test('in another table it takes what a rule sends there before the main table is asked', () => {
    const vpn = route('172.16.0.0/12', { link: 3, table: 52 })
    expect(names(vpn)).toEqual([])
    expect(names(vpn, [rule(5270, 52)])).toEqual(['web', 'db'])
    expect(names(vpn, [rule(5270, 52, { mark: 1 })])).toEqual(['web', 'db'])
    expect(names(vpn, [rule(32_766, 52)])).toEqual([])
    expect(names(vpn, [rule(40_000, 52)])).toEqual([])
    expect(names(vpn, [rule(5270, 53)])).toEqual([])
    expect(names(vpn, [rule(5270, 52, { family: 6 })])).toEqual([])
    expect(names(vpn, [rule(5270, 52, { destination: '172.19.0.0/24' })])).toEqual(['db'])
    expect(names(route('172.18.9.0/24', { link: 3, table: 253 }))).toEqual([])
    // all that is left for the main table goes there first
    expect(names(vpn, [rule(100, 254), rule(5270, 52)])).toEqual([])
    expect(names(vpn, [rule(100, 254, { source: '10.0.0.0/8' }), rule(5270, 52)])).toEqual(['web', 'db'])
    expect(names(route('172.18.0.9/32', { type: 'local', link: 3, table: 255 }), [])).toEqual(['web'])
  })

  test('nothing for our own links, defaults, other subnets, what is no destination', () => {
    const none = [
      route('172.18.0.0/16', { link: 4 }),
      route('0.0.0.0/0', { link: 3 }),
      route('128.0.0.0/1', { link: 3 }),
      route('172.18.255.255/32', { type: 'broadcast', link: 3 }),
      route('10.0.0.0/8', { link: 3 }),
    ]
    for (const made of none) expect(look(made)).toEqual([])
  })
})
