import type { Change, RouteSpec, Stack } from '../../../lib/kernel/kernel'
import { encodeChange } from '../../../lib/kernel/netlink/changes'
import { encodeGetLink } from '../../../lib/kernel/netlink/link'
import { Messages, Writer } from '../../../lib/kernel/netlink/message'
import { bucketOf } from '../../../lib/kernel/netlink/qdisc'
import type { Resolver } from '../../../lib/kernel/netlink/resolver'
import { hex, REQUESTS } from './captured'
import { tree } from './tree'

const INDEXES: Record<string, number> = { lo: 1, br0: 2, vb: 4, va: 5, vd: 6, vx0: 9, vx6: 10, ifb7: 11 }
const resolve: Resolver = {
  link: ref => (typeof ref === 'number' ? ref : (INDEXES[ref] ?? 0)),
  born: link => link.index ?? 0,
  renamed: () => {},
  netns: stack => stack.inode,
}

function encode(change: Change): Buffer {
  const writer = new Writer()
  encodeChange(writer, change, resolve)
  return writer.take()
}

const route = (route: RouteSpec): Change => ({ op: 'addRoute', route })
const va = 'va'
const mac = '02:42:00:00:00:bb'

/** The change that each recorded command amounts to. Links are referred to by index, as ip does after looking it up. */
const SAME: Record<string, Change> = {
  'ip link add br0 type bridge mcast_snooping 0': {
    op: 'addLink',
    link: { kind: 'bridge', name: 'br0', multicastSnooping: false },
  },
  'ip link add br7 type bridge vlan_filtering 1': {
    op: 'addLink',
    link: { kind: 'bridge', name: 'br7', vlanFiltering: true },
  },
  'ip link add va address 02:42:ac:11:00:02 mtu 1450 master br0 type veth peer name vb address 02:42:ac:11:00:03 mtu 1450':
    {
      op: 'addLink',
      link: {
        kind: 'veth',
        name: 'va',
        mac: '02:42:ac:11:00:02',
        mtu: 1450,
        master: 'br0',
        peer: { name: 'vb', mac: '02:42:ac:11:00:03', mtu: 1450 },
      },
    },
  'ip link add index 70 vc up type veth peer name vd': {
    op: 'addLink',
    link: { kind: 'veth', name: 'vc', index: 70, up: true, peer: { name: 'vd' } },
  },
  'ip link add mv1 link vb type macvlan mode private': {
    op: 'addLink',
    link: { kind: 'macvlan', name: 'mv1', parent: 'vb', mode: 'private' },
  },
  'ip link add ipv0 link vb type ipvlan mode l3s private': {
    op: 'addLink',
    link: { kind: 'ipvlan', name: 'ipv0', parent: 'vb', mode: 'l3s', flag: 'private' },
  },
  'ip link add vl0 link vb type vlan id 42': {
    op: 'addLink',
    link: { kind: 'vlan', name: 'vl0', parent: 'vb', id: 42 },
  },
  'ip link add vx0 mtu 1400 type vxlan id 4097 local 192.0.2.1 dev vb dstport 4789 nolearning proxy l2miss l3miss':
    {
      op: 'addLink',
      link: {
        kind: 'vxlan',
        name: 'vx0',
        mtu: 1400,
        id: 4097,
        local: '192.0.2.1',
        parent: 'vb',
        port: 4789,
        learning: false,
        proxy: true,
        l2miss: true,
        l3miss: true,
      },
    },
  'ip link add vx6 type vxlan id 4098 local 2001:db8::1 dstport 8472 learning': {
    op: 'addLink',
    link: { kind: 'vxlan', name: 'vx6', id: 4098, local: '2001:db8::1', port: 8472, learning: true },
  },
  'ip link add dm0 type dummy': { op: 'addLink', link: { kind: 'dummy', name: 'dm0' } },
  'ip link add ifb7 type ifb': { op: 'addLink', link: { kind: 'ifb', name: 'ifb7' } },
  'ip link set dev va up mtu 1400 address 02:42:ac:11:00:09': {
    op: 'setLink',
    link: 5,
    up: true,
    mtu: 1400,
    mac: '02:42:ac:11:00:09',
  },
  'ip link set dev va nomaster': { op: 'setLink', link: 5, master: null },
  'ip link set dev va master br0': { op: 'setLink', link: 5, master: 'br0' },
  'ip link set dev va alias hello': { op: 'setLink', link: 5, alias: 'hello' },
  'ip link set dev va promisc on': { op: 'setLink', link: 5, promiscuous: true },
  'ip link set dev vd name ve': { op: 'setLink', link: 'vd', rename: 've' },
  'ip link set dev vc down': { op: 'setLink', link: 70, up: false },
  'ip link del dev vc': { op: 'removeLink', link: 70 },
  'bridge link set dev va hairpin on isolated on learning off flood off neigh_suppress on': {
    op: 'setPort',
    link: va,
    hairpin: true,
    isolated: true,
    learning: false,
    flood: false,
    neighbourSuppression: true,
  },
  'ip address add 10.1.2.3/24 brd + dev va': { op: 'addAddress', link: va, address: '10.1.2.3/24' },
  'ip address add 127.0.0.2/8 dev lo': { op: 'addAddress', link: 'lo', address: '127.0.0.2/8' },
  'ip address add fd00::2/64 dev va nodad': { op: 'addAddress', link: va, address: 'fd00::2/64' },
  'ip address add fd00::3/64 dev va nodad noprefixroute': {
    op: 'addAddress',
    link: va,
    address: 'fd00::3/64',
    noPrefixRoute: true,
  },
  'ip address add 10.9.9.9/32 dev va scope link': {
    op: 'addAddress',
    link: va,
    address: '10.9.9.9/32',
    scope: 'link',
  },
  'ip address del 10.9.9.9/32 dev va': { op: 'removeAddress', link: va, address: '10.9.9.9/32' },
  'ip route add 10.50.0.0/16 via 10.1.2.1 proto static': route({
    destination: '10.50.0.0/16',
    gateway: '10.1.2.1',
  }),
  'ip route add 10.51.0.0/16 dev va proto static': route({ destination: '10.51.0.0/16', link: va }),
  'ip route add default via 10.7.7.7 dev va onlink metric 100 proto static': route({
    destination: '0.0.0.0/0',
    gateway: '10.7.7.7',
    link: va,
    onLink: true,
    metric: 100,
  }),
  'ip route add blackhole 10.52.0.0/16 proto static': route({
    destination: '10.52.0.0/16',
    type: 'blackhole',
  }),
  'ip route add unreachable 10.53.0.0/16 metric 5 table 1000 proto static': route({
    destination: '10.53.0.0/16',
    type: 'unreachable',
    metric: 5,
    table: 1000,
  }),
  'ip route add prohibit fd99::/64 proto static': route({ destination: 'fd99::/64', type: 'prohibit' }),
  'ip route replace 10.51.0.0/16 dev va mtu 1300 src 10.1.2.3 proto static': {
    op: 'replaceRoute',
    route: { destination: '10.51.0.0/16', link: va, mtu: 1300, source: '10.1.2.3' },
  },
  'ip route add fd50::/64 via fd00::1 dev va metric 7 proto static': route({
    destination: 'fd50::/64',
    gateway: 'fd00::1',
    link: va,
    metric: 7,
  }),
  'ip route del 10.51.0.0/16 dev va': { op: 'removeRoute', route: { destination: '10.51.0.0/16', link: va } },
  'ip route del blackhole 10.52.0.0/16': {
    op: 'removeRoute',
    route: { destination: '10.52.0.0/16', type: 'blackhole' },
  },
  'ip route del fd50::/64': { op: 'removeRoute', route: { destination: 'fd50::/64' } },
  'ip rule add from 10.1.0.0/16 fwmark 7 iif va table 100 priority 1000': {
    op: 'addRule',
    rule: { family: 4, source: '10.1.0.0/16', mark: 7, iif: 'va', table: 100, priority: 1000 },
  },
  'ip -6 rule add to fd50::/64 oif va table 1000 priority 1001': {
    op: 'addRule',
    rule: { family: 6, destination: 'fd50::/64', oif: 'va', table: 1000, priority: 1001 },
  },
  'ip -6 rule del to fd50::/64 oif va table 1000 priority 1001': {
    op: 'removeRule',
    rule: { family: 6, destination: 'fd50::/64', oif: 'va', table: 1000, priority: 1001 },
  },
  'ip neigh replace 10.1.2.77 lladdr 02:42:00:00:00:77 dev va nud permanent': {
    op: 'setNeighbour',
    link: va,
    address: '10.1.2.77',
    mac: '02:42:00:00:00:77',
  },
  'ip neigh replace fd00::77 lladdr 02:42:00:00:00:77 dev va nud permanent': {
    op: 'setNeighbour',
    link: va,
    address: 'fd00::77',
    mac: '02:42:00:00:00:77',
  },
  'bridge fdb replace 02:42:00:00:00:aa dev va master static': {
    op: 'setFdb',
    link: va,
    mac: '02:42:00:00:00:aa',
  },
  'bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.9': {
    op: 'setFdb',
    link: 'vx0',
    mac: '00:00:00:00:00:00',
    remote: '192.0.2.9',
  },
  'bridge fdb replace 02:42:00:00:00:bb dev vx0 dst 192.0.2.9': {
    op: 'setFdb',
    link: 'vx0',
    mac,
    remote: '192.0.2.9',
  },
  'bridge fdb del 02:42:00:00:00:bb dev vx0 dst 192.0.2.9': {
    op: 'removeFdb',
    link: 'vx0',
    mac,
    remote: '192.0.2.9',
  },
  'bridge fdb replace 02:42:00:00:00:bb dev vx6 dst 2001:db8::9': {
    op: 'setFdb',
    link: 'vx6',
    mac,
    remote: '2001:db8::9',
  },
  'tc qdisc del dev va root': { op: 'setShaper', link: va, rate: null },
  'tc qdisc del dev va ingress': { op: 'setIngressMirror', link: va, target: null },
}

describe('a change is encoded as iproute2 encodes it', () => {
  test.each(Object.keys(SAME))('%s', command => {
    expect(tree(encode(SAME[command] as Change))).toEqual(tree(hex(REQUESTS[command])))
  })
})

describe('where it is not as iproute2 has it', () => {
  const NLM_F_EXCL = 0x200

  test('a macvlan may have a broadcast cutoff, too, which that version does not know', () => {
    const lines = tree(
      encode({
        op: 'addLink',
        link: {
          kind: 'macvlan',
          name: 'mv0',
          parent: 'vb',
          mode: 'bridge',
          broadcastQueue: 1000,
          broadcastCutoff: -1,
        },
      }),
    )
    expect(lines).toContain('      9: ffffffff')
    expect(lines.filter(line => line !== '      9: ffffffff').sort()).toEqual(
      tree(hex(REQUESTS['ip link add mv0 link vb type macvlan mode bridge bcqueuelen 1000'])).sort(),
    )
  })

  test('a neighbour is removed whatever its state', () => {
    const [head, ...attributes] = tree(
      encode({ op: 'removeNeighbour', link: va, address: '10.1.2.77', mac: '02:42:00:00:00:77' }),
    )
    const [recorded, ...same] = tree(hex(REQUESTS['ip neigh del 10.1.2.77 dev va']))
    expect(attributes).toEqual(same)
    expect(head).toBe(recorded?.replace('80000000', '00000000'))
  })

  test('a token bucket without cell sizes, which only the table of transmission times needs', () => {
    const command = 'tc qdisc replace dev va root tbf rate 100mbit burst 125000b latency 50ms'
    const change: Change = {
      op: 'setShaper',
      link: va,
      rate: { bitsPerSecond: 100e6, burstBytes: 125_000, latencyMs: 50 },
    }
    const recorded = tree(hex(REQUESTS[command])).map(line =>
      line.replace('03010000ffff0000', '0001000000000000'),
    )
    expect(tree(encode(change))).toEqual(recorded)
  })

  test('an ingress mirror is set again without complaint, and is the same filter for all that enters', () => {
    const both = encode({ op: 'setIngressMirror', link: va, target: 'ifb7' })
    const recorded = Buffer.concat([
      hex(REQUESTS['tc qdisc add dev va ingress']),
      hex(
        REQUESTS[
          'tc filter add dev va ingress prio 1 protocol all handle 800::1 u32 match u32 0 0 action mirred egress redirect dev ifb7'
        ],
      ),
    ])
    const messages = new Messages(recorded)
    const expected = tree(recorded).map(line =>
      line.replace(/flags (\w+)/, (_, flags) => {
        return `flags ${(Number.parseInt(flags, 16) & ~NLM_F_EXCL).toString(16)}`
      }),
    )
    expect(messages.next() && messages.next() && !messages.next()).toBe(true)
    expect(tree(both)).toEqual(expected)
  })
})

describe('namespaces', () => {
  const netns = { inode: 33 } as Stack // the resolver above takes the inode for the descriptor

  test('a veth peer is born in its namespace, and so is the link itself when asked', () => {
    const lines = tree(
      encode({
        op: 'addLink',
        link: {
          kind: 'veth',
          name: 'va',
          netns,
          peer: { name: 'eth0', index: 7, up: true, netns: { inode: 34 } as Stack },
        },
      }),
    )
    expect(lines).toEqual([
      `16 flags 605 ${'00'.repeat(16)}`,
      '  3: va',
      '  18: ',
      '    1: veth',
      '    2: ',
      `      1: ${'00'.repeat(4)}07000000${'00'.repeat(8)}`,
      '        3: eth0',
      '        28: 22000000',
      '  28: 21000000',
    ])
  })

  test('a link is moved', () => {
    const lines = tree(encode({ op: 'setLink', link: 'va', netns }))
    expect(lines).toEqual([`16 flags 5 ${'00'.repeat(16)}`, '  3: va', '  28: 21000000'])
  })

  test('a veth peer cannot be up before the pair is tied, so that is a second message', () => {
    const link = { kind: 'veth', name: 'va', up: true, peer: { name: 'vb', up: true } } as const
    const lines = tree(encode({ op: 'addLink', link }))
    expect(lines[0]).toBe(`16 flags 605 ${'00'.repeat(8)}0100000001000000`)
    expect(lines).toContain(`      1: ${'00'.repeat(16)}`)
    expect(lines.slice(-2)).toEqual([`16 flags 5 ${'00'.repeat(8)}0100000001000000`, '  3: vb'])
  })

  test('an alias is a second message, except for a link that is not born here', () => {
    const link = { kind: 'dummy', name: 'd0', alias: 'web' } as const
    expect(tree(encode({ op: 'addLink', link })).slice(4)).toEqual([
      `16 flags 5 ${'00'.repeat(16)}`,
      '  3: d0',
      '  20: web',
    ])
    expect(tree(encode({ op: 'addLink', link: { ...link, netns } }))).toHaveLength(5)
  })
})

test('links are found by name where the message can carry one', () => {
  for (const change of [
    { op: 'setLink', link: 'eth0', up: true },
    { op: 'removeLink', link: 'eth0' },
  ] as Change[])
    expect(tree(encode(change))).toContain('  3: eth0')
  const writer = new Writer()
  encodeGetLink(writer, 'eth0')
  expect(tree(writer.take())).toEqual([`18 flags 5 ${'00'.repeat(16)}`, '  3: eth0'])
})

test('an IPv4 route by an IPv6 gateway (RFC 5549)', () => {
  const lines = tree(
    encode(route({ destination: '10.61.0.0/16', gateway: 'fd00::9', link: va, scope: 'global' })),
  )
  expect(lines).toContain('  18: 0a00fd000000000000000000000000000009')
})

describe('bucketOf', () => {
  test('a burst of ten milliseconds, at least ten frames; fifty milliseconds of waiting', () => {
    expect(bucketOf({ bitsPerSecond: 1e9 })).toEqual({
      rate: 125e6,
      burst: 1_250_000,
      limit: 6_250_000 + 1_250_000,
      ticks: 156_250,
    })
    expect(bucketOf({ bitsPerSecond: 1e6 }).burst).toBe(15_140)
  })

  test('above 34 Gbit/s the rate needs 64 bits; nothing else outgrows its field', () => {
    const bucket = bucketOf({ bitsPerSecond: 400e9, latencyMs: 1000 })
    expect(bucket).toMatchObject({ rate: 50e9, limit: 0xffffffff, burst: 500e6 })
    const lines = tree(encode({ op: 'setShaper', link: va, rate: { bitsPerSecond: 400e9 } }))
    expect(lines).toContain('    4: 00743ba40b000000')
  })
})
