import { overlay } from 'libcnm'
import type { DriverNetwork, Peer } from 'libcnm'
import { guard } from '../../../drivers/overlay/guard'
import { reach } from '../../../drivers/overlay/tunnel'
import { OverlayData, OverlayOptions } from '../../../drivers/overlay/options'

const network = (vni: number, port = 4789) =>
  ({
    spec: { id: String(vni).repeat(32), name: 'web', pools: [], options: OverlayOptions.parse({}) },
    state: { data: { vni, port } },
  }) as unknown as DriverNetwork<OverlayOptions>

const peer: Peer = {
  id: 'e',
  name: 'db',
  mac: '02:00:00:00:00:01',
  ipv4: '10.0.0.5/24',
  ipv6: 'fd00::5/64',
  vtep: '192.0.2.7',
}

test('a peer: where its frames go, and who answers for its addresses; undone in the opposite order', () => {
  const { changes, undo } = reach(network(5000), peer)
  const link = 'vx-500050005000'
  expect(changes).toEqual([
    { op: 'setFdb', link, mac: peer.mac, remote: '192.0.2.7', self: true },
    { op: 'setFdb', link, mac: peer.mac },
    { op: 'setNeighbour', link, address: '10.0.0.5', mac: peer.mac },
    { op: 'setNeighbour', link, address: 'fd00::5', mac: peer.mac },
  ])
  expect(undo.map(({ op }) => op)).toEqual(['removeNeighbour', 'removeNeighbour', 'removeFdb', 'removeFdb'])
  expect(reach(network(5000), { ...peer, ipv6: undefined }).changes).toHaveLength(3)
})

test('the guard: one rule a port, all networks of it, all ends; nothing but its removal without networks', () => {
  expect(guard('cnm-tunnels', [], ['192.0.2.1'], 7)).toBe(
    'table inet cnm-tunnels\ndelete table inet cnm-tunnels\n',
  )
  const text = guard(
    'cnm-tunnels',
    [network(4096), network(4097), network(9, 8472)],
    ['192.0.2.1', '2001:db8::1'],
    7,
  )
  expect(text).toContain('udp dport 4789 @th,96,24 { 4096, 4097 } goto known')
  expect(text).toContain('udp dport 8472 @th,96,24 { 9 } ip6 daddr @ends6 drop')
  expect(text).toContain('elements = { 192.0.2.1 }')
  expect(text).toContain('elements = { 2001:db8::1 }')
})

test('the guard of encrypted networks: IPsec is asked for only where they have a part', () => {
  const secret = (vni: number, link?: string) => {
    const { spec, state } = network(vni)
    return {
      spec: { ...spec, options: OverlayOptions.parse({ encrypted: true }) },
      state: { ...state, link },
    } as DriverNetwork<OverlayOptions>
  }
  const away = guard('t', [network(1), secret(2)], ['192.0.2.1'], 7)
  expect(away).not.toContain('ipsec')
  expect(away).toContain('udp dport 4789 @th,96,24 { 2 } drop')
  const here = guard('t', [network(1), secret(2), secret(3, 'ov-x')], ['192.0.2.1'], 7)
  const order = [
    '@th,96,24 { 3 } ipsec in reqid 7 goto known',
    '@th,96,24 { 2, 3 } drop',
    '@th,96,24 { 1, 2, 3 } goto known',
    '@th,96,24 { 3 } meta mark set 7',
    '@th,96,24 { 3 } rt ipsec missing drop',
  ].map(rule => here.indexOf(rule))
  expect(order.every(at => at > 0)).toBe(true)
  expect([...order].sort((a, b) => a - b)).toEqual(order)
})

test.each([
  ['an id of no VXLAN', { id: 0 }],
  ['an id of more than 24 bits', { id: 2 ** 24 }],
  ['an MTU below the least', { mtu: 10 }],
  ['an option that is none', { vxlan: 1 }],
])('options: %s', (_, options) => {
  expect(OverlayOptions.safeParse(options).success).toBe(false)
})

test('Docker’s labels and texts', () => {
  expect(OverlayOptions.parse({ id: '77', mtu: '1400', encrypted: 'false' })).toEqual({
    id: 77,
    mtu: 1400,
    encrypted: false,
  })
  expect(overlay().labels).toMatchObject({ 'com.docker.network.driver.overlay.vxlanid_list': 'id' })
})

test('what other hosts write about a network is looked at', () => {
  for (const data of [{}, { vni: 0, port: 1 }, { vni: 1, port: 70_000 }, { vni: '1', port: 1 }, null])
    expect(OverlayData.safeParse(data).success).toBe(false)
})
