import { decodeAddress } from '../../../lib/kernel/netlink/address'
import { decodeEvent } from '../../../lib/kernel/netlink/events'
import { decodeLink } from '../../../lib/kernel/netlink/link'
import { decodeAll } from '../../../lib/kernel/netlink/message'
import { decodeNeighbour } from '../../../lib/kernel/netlink/neighbour'
import { decodeRoute } from '../../../lib/kernel/netlink/route'
import { decodeRule } from '../../../lib/kernel/netlink/rule'
import { ANSWERS, hex, REQUESTS } from './captured'

const link = (command: string) => decodeAll(hex(ANSWERS[command]), decodeLink)[0]

describe('links', () => {
  test('loopback', () => {
    expect(link('ip -d link show dev lo')).toEqual({
      index: 1,
      name: 'lo',
      kind: undefined,
      mac: '00:00:00:00:00:00',
      mtu: 65536,
      up: true,
      carrier: true,
      loopback: true,
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
  })

  test('a veth that is a port of a bridge', () => {
    expect(link('ip -d link show dev va')).toMatchObject({
      index: 4,
      name: 'va',
      kind: 'veth',
      mac: '02:42:ac:11:00:02',
      mtu: 1450,
      up: true,
      carrier: true,
      loopback: false,
      master: 2,
      parent: 3,
      alias: 'web 1',
      port: { hairpin: true, isolated: true, learning: false, state: 3 },
    })
  })

  test('macvlan, vxlan over IPv4 and IPv6', () => {
    expect(link('ip -d link show dev mv0')).toMatchObject({
      kind: 'macvlan',
      parent: 3,
      up: false,
      info: { macvlan: { mode: 'passthru', broadcastQueue: 1000 } },
    })
    expect(link('ip -d link show dev vx0')?.info).toEqual({
      vxlan: { id: 4097, port: 4789, local: '192.0.2.1', learning: false, proxy: true, parent: 3 },
    })
    expect(link('ip -d link show dev vx6')?.info).toEqual({
      vxlan: { id: 4098, port: 8472, local: '2001:db8::1', learning: true, proxy: false },
    })
  })

  test.each([
    ['ip link add ipv0 link vb type ipvlan mode l3s private', { ipvlan: { mode: 'l3s', flag: 'private' } }],
    ['ip link add vl0 link vb type vlan id 42', { vlan: { id: 42 } }],
  ])('the request "%s" describes a link as an answer does', (command, info) => {
    expect(decodeAll(hex(REQUESTS[command]), decodeLink)[0]).toMatchObject({ info, parent: 4 })
  })

  test('the news of a bridge port (AF_BRIDGE) is not the news of a link', () => {
    const message = hex(ANSWERS['ip -d link show dev va'])
    message[16] = 7
    expect(decodeAll(message, decodeLink)).toEqual([])
  })
})

test('addresses', () => {
  expect(decodeAll(hex(ANSWERS['ip addr show dev vb']), decodeAddress)).toEqual([
    ...['10.1.2.3/24', '10.1.2.4/32'].map(address => ({
      link: 3,
      address,
      scope: 'global',
      tentative: false,
      permanent: true,
    })),
    { link: 3, address: 'fd00::2/64', scope: 'global', tentative: false, permanent: true },
    expect.objectContaining({ link: 3, scope: 'link', address: expect.stringMatching(/^fe80::.*\/64$/) }),
  ])
})

describe('routes', () => {
  const four = decodeAll(hex(ANSWERS['ip -4 route show table all']), decodeRoute)
  const six = decodeAll(hex(ANSWERS['ip -6 route show table all']), decodeRoute)
  const to = (destination: string) =>
    [...four, ...six].find(route => route.destination === destination && route.table !== 255)

  test('IPv4', () => {
    expect(to('0.0.0.0/0')).toEqual({
      family: 4,
      destination: '0.0.0.0/0',
      type: 'unicast',
      gateway: '10.1.2.1',
      link: 3,
      source: '10.1.2.3',
      metric: 100,
      mtu: 1300,
      table: 254,
      scope: 'global',
      protocol: 3,
    })
    expect(to('10.7.0.0/16')).toMatchObject({ gateway: '10.1.2.8', link: 3, onLink: true })
    expect(to('10.52.0.0/16')).toMatchObject({ type: 'blackhole', metric: 0 })
    expect(to('10.1.2.0/24')).toMatchObject({ scope: 'link', protocol: 2, source: '10.1.2.3', link: 3 })
  })

  test('several next hops: the first; an IPv6 gateway of an IPv4 route', () => {
    expect(to('10.60.0.0/16')).toMatchObject({ gateway: '10.1.2.1', link: 3 })
    expect(to('10.61.0.0/16')).toMatchObject({ family: 4, gateway: 'fd00::9', link: 3 })
  })

  test('IPv6', () => {
    expect(to('fd99::/64')).toMatchObject({ family: 6, type: 'unreachable', table: 1000, metric: 1024 })
    expect(to('fd50::/64')).toMatchObject({ family: 6, type: 'unicast', gateway: 'fd00::1', link: 3 })
  })

  test('the local table', () => {
    expect(four.filter(({ table, type }) => table === 255 && type === 'local')).not.toHaveLength(0)
    expect(six.find(({ destination }) => destination === '::1/128')).toMatchObject({ link: 1 })
  })
})

test('rules', () => {
  expect(decodeAll(hex(ANSWERS['ip rule show']), decodeRule)).toEqual([
    { family: 4, priority: 0, table: 255 },
    { family: 4, priority: 1000, table: 1000, source: '10.1.0.0/16', mark: 7, iif: 'vb' },
    { family: 4, priority: 32766, table: 254 },
    { family: 4, priority: 32767, table: 253 },
  ])
  expect(decodeAll(hex(ANSWERS['ip -6 rule show']), decodeRule)).toContainEqual({
    family: 6,
    priority: 1001,
    table: 100,
    destination: 'fd50::/64',
    oif: 'vb',
  })
})

test('neighbours, without the entries that say nothing', () => {
  expect(decodeAll(hex(ANSWERS['ip neigh show']), decodeNeighbour)).toEqual(
    expect.arrayContaining([
      { link: 3, address: '10.1.2.77', mac: '02:42:00:00:00:77', permanent: true },
      { link: 3, address: 'fd00::77', mac: '02:42:00:00:00:78', permanent: false },
    ]),
  )
  expect(decodeAll(hex(ANSWERS['ip neigh show']), decodeNeighbour)).toHaveLength(2)
})

test('forwarding database', () => {
  const entries = decodeAll(hex(ANSWERS['bridge fdb show']), decodeNeighbour)
  expect(entries).toContainEqual({ link: 4, mac: '02:42:00:00:00:aa', permanent: true, self: false })
  expect(entries).toContainEqual({
    link: 6,
    mac: '00:00:00:00:00:00',
    address: '192.0.2.9',
    permanent: true,
    self: true,
  })
})

describe('what is not whole is no value, and no harm', () => {
  const recordings = [...Object.values(ANSWERS), ...Object.values(REQUESTS)].map(hex)
  const decodeEverything = (data: Uint8Array): void => {
    for (const decode of [decodeLink, decodeAddress, decodeRoute, decodeRule, decodeNeighbour, decodeEvent])
      decodeAll<unknown>(data, decode)
  }

  test('cut off anywhere', () => {
    for (const data of recordings.filter(({ length }) => length < 4000))
      for (let length = 0; length < data.length; length++) decodeEverything(data.subarray(0, length))
  })

  test('cut off, with a length that promises more or less', () => {
    for (const data of recordings)
      for (let length = 0; length < Math.min(data.length, 700); length += 3) {
        const copy = Buffer.from(data.subarray(0, length))
        if (length >= 4) copy.writeUInt32LE(length)
        decodeEverything(copy)
      }
  })

  test('bytes changed (a fixed sequence of chances)', () => {
    let state = 1
    const chance = (below: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return (state >>> 8) % below
    }
    for (const data of recordings)
      for (let round = 0; round < 40; round++) {
        const copy = Buffer.from(data)
        for (let i = 0; i < 8; i++) copy[chance(copy.length)] = chance(256)
        decodeEverything(copy)
      }
  })
})
