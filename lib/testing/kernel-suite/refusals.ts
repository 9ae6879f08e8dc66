import type { Change } from '../../kernel/kernel'
import { add, bridge, DOWN, macvlan, route, vxlan } from './changes'

/** Text of a refusal that the suite demands: the errno and the code that the caller sees. */
interface Refusal {
  title: string
  /** Kinds that this needs. */
  needs?: string[]
  given?: Change[]
  change: Change
  errno: string
  code?: string
  /** What the kernel explains, in part. */
  text?: string
}

const EXISTS = 'ERR_LINK_EXISTS'
const ABSENT = 'ERR_LINK_NOT_FOUND'
/** What Linux refuses in a namespace in which SCENE was made. */
export const REFUSALS: Refusal[] = [
  // links
  { title: 'a second link of the same name', change: bridge('va'), errno: 'EEXIST', code: EXISTS },
  {
    title: 'a veth whose peer has the name of another link',
    change: add({ kind: 'veth', name: 'vc', peer: { name: 'va' } }),
    errno: 'EEXIST',
    code: EXISTS,
  },
  {
    title: 'a veth whose ends have the same name',
    change: add({ kind: 'veth', name: 'vc', peer: { name: 'vc' } }),
    errno: 'EEXIST',
    code: EXISTS,
  },
  {
    title: 'an index that is taken',
    change: add({ kind: 'bridge', name: 'br2', index: 1 }),
    errno: 'EEXIST',
    code: EXISTS,
  },
  { title: 'a name of 16 bytes', change: bridge('a123456789012345'), errno: 'ERANGE' },
  { title: 'a name with a slash', change: bridge('a/b'), errno: 'EINVAL' },
  { title: 'a name with a colon', change: bridge('a:b'), errno: 'EINVAL' },
  { title: 'a name with a blank', change: bridge('a b'), errno: 'EINVAL' },
  { title: 'the name "."', change: bridge('.'), errno: 'EINVAL' },
  { title: 'the name "all"', change: bridge('all'), errno: 'EINVAL' },
  {
    title: 'removal of an absent link',
    change: { op: 'removeLink', link: 'nope' },
    errno: 'ENODEV',
    code: ABSENT,
  },
  { title: 'removal of lo', change: { op: 'removeLink', link: 'lo' }, errno: 'EOPNOTSUPP' },
  {
    title: 'change of an absent link',
    change: { op: 'setLink', link: 'nope', up: true },
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'change of an absent index',
    change: { op: 'setLink', link: 4711, up: true },
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'a rename to a taken name',
    given: [DOWN],
    change: { op: 'setLink', link: 'va', rename: 'vb' },
    errno: 'EEXIST',
    code: EXISTS,
  },
  {
    title: 'a rename to a bad name',
    given: [DOWN],
    change: { op: 'setLink', link: 'va', rename: 'a/b' },
    errno: 'EINVAL',
  },
  { title: 'an MTU below 68', change: { op: 'setLink', link: 'va', mtu: 67 }, errno: 'EINVAL' },
  { title: 'an MTU above 65535', change: { op: 'setLink', link: 'va', mtu: 65536 }, errno: 'EINVAL' },
  {
    title: 'a multicast MAC',
    change: { op: 'setLink', link: 'va', mac: '01:00:00:00:00:01' },
    errno: 'EADDRNOTAVAIL',
  },
  {
    title: 'a zero MAC',
    change: { op: 'setLink', link: 'va', mac: '00:00:00:00:00:00' },
    errno: 'EADDRNOTAVAIL',
  },
  // bridges
  { title: 'a bridge in a bridge', change: { op: 'setLink', link: 'br1', master: 'br0' }, errno: 'ELOOP' },
  { title: 'lo in a bridge', change: { op: 'setLink', link: 'lo', master: 'br0' }, errno: 'EINVAL' },
  {
    title: 'a master that is no bridge',
    change: { op: 'setLink', link: 'vb', master: 'va' },
    errno: 'EOPNOTSUPP',
  },
  {
    title: 'an absent master',
    change: { op: 'setLink', link: 'va', master: 'nope' },
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'a new link with an absent master',
    change: add({ kind: 'bridge', name: 'x', master: 'nope' }),
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'port flags of what is no port',
    change: { op: 'setPort', link: 'va', hairpin: true },
    errno: 'EOPNOTSUPP',
  },
  // addresses
  {
    title: 'an IPv4 address twice',
    change: { op: 'addAddress', link: 'va', address: '10.0.0.1/24' },
    errno: 'EEXIST',
    code: 'ERR_KERNEL',
  },
  {
    title: 'an IPv6 address twice',
    change: { op: 'addAddress', link: 'va', address: 'fd00::1/64' },
    errno: 'EEXIST',
    code: 'ERR_KERNEL',
  },
  {
    title: 'an IPv6 address twice, with another prefix length',
    change: { op: 'addAddress', link: 'va', address: 'fd00::1/80' },
    errno: 'EEXIST',
  },
  {
    title: 'an address on an absent link',
    change: { op: 'addAddress', link: 'nope', address: '10.0.0.1/24' },
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'removal of an absent IPv4 address',
    change: { op: 'removeAddress', link: 'va', address: '10.0.0.9/24' },
    errno: 'EADDRNOTAVAIL',
  },
  {
    title: 'removal of an IPv4 address with another length',
    change: { op: 'removeAddress', link: 'va', address: '10.0.0.1/16' },
    errno: 'EADDRNOTAVAIL',
  },
  {
    title: 'removal of an absent IPv6 address',
    change: { op: 'removeAddress', link: 'va', address: 'fd00::9/64' },
    errno: 'EADDRNOTAVAIL',
  },
  {
    title: 'an IPv6 multicast address',
    change: { op: 'addAddress', link: 'va', address: 'ff02::5/64' },
    errno: 'EADDRNOTAVAIL',
  },
  // IPv4 routes
  {
    title: 'a gateway that is not on-link',
    change: route('10.9.0.0/16', { gateway: '10.77.0.1' }),
    errno: 'ENETUNREACH',
    text: 'Nexthop has invalid gateway',
  },
  {
    title: 'a gateway that is not on the link named',
    change: route('10.9.0.0/16', { gateway: '10.77.0.1', link: 'va' }),
    errno: 'ENETUNREACH',
  },
  {
    title: 'a gateway that is on another link',
    change: route('10.9.0.0/16', { gateway: '10.0.0.5', link: 'br0' }),
    errno: 'ENETUNREACH',
  },
  {
    title: 'a gateway behind a gateway',
    given: [route('10.9.0.0/16', { gateway: '10.0.0.5' })],
    change: route('10.10.0.0/16', { gateway: '10.9.0.1' }),
    errno: 'ENETUNREACH',
  },
  {
    title: 'a gateway that is a broadcast address',
    change: route('10.9.0.0/16', { gateway: '10.0.0.255' }),
    errno: 'EINVAL',
  },
  {
    title: 'an on-link gateway without a link',
    change: route('10.9.0.0/16', { gateway: '10.77.0.1', onLink: true }),
    errno: 'ENODEV',
  },
  {
    title: 'a route over a link that is down',
    given: [{ op: 'setLink', link: 'va', up: false }],
    change: route('10.9.0.0/16', { link: 'va' }),
    errno: 'ENETDOWN',
  },
  {
    title: 'an on-link gateway over a link that is down',
    given: [{ op: 'setLink', link: 'va', up: false }],
    change: route('10.9.0.0/16', { link: 'va', gateway: '10.0.0.5', onLink: true }),
    errno: 'ENETDOWN',
  },
  {
    title: 'a route twice',
    given: [route('10.9.0.0/16', { gateway: '10.0.0.5' })],
    change: route('10.9.0.0/16', { gateway: '10.0.0.6' }),
    errno: 'EEXIST',
    code: 'ERR_KERNEL',
  },
  {
    title: 'the route of an address once more',
    change: route('10.0.0.0/24', { link: 'va' }),
    errno: 'EEXIST',
  },
  { title: 'a destination with host bits', change: route('10.9.0.1/16', { link: 'va' }), errno: 'EINVAL' },
  {
    title: 'a source address that is not here',
    change: route('10.9.0.0/16', { link: 'va', source: '1.2.3.4' }),
    errno: 'EINVAL',
  },
  {
    title: 'a route over an absent link',
    change: route('10.9.0.0/16', { link: 'nope' }),
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'removal of an absent route',
    change: { op: 'removeRoute', route: { destination: '10.9.0.0/16' } },
    errno: 'ESRCH',
  },
  {
    title: 'removal of a route by another gateway',
    given: [route('10.9.0.0/16', { gateway: '10.0.0.5' })],
    change: { op: 'removeRoute', route: { destination: '10.9.0.0/16', gateway: '10.0.0.6' } },
    errno: 'ESRCH',
  },
  {
    title: 'removal of a route of another metric',
    given: [route('10.9.0.0/16', { gateway: '10.0.0.5' })],
    change: { op: 'removeRoute', route: { destination: '10.9.0.0/16', metric: 7 } },
    errno: 'ESRCH',
  },
  {
    title: 'a dead end twice',
    given: [route('10.7.0.0/16', { type: 'blackhole' })],
    change: route('10.7.0.0/16', { type: 'unreachable' }),
    errno: 'EEXIST',
  },
  // IPv6 routes
  {
    title: 'an IPv6 gateway that is not on-link',
    change: route('fd00:9::/64', { gateway: 'fd00:77::1' }),
    errno: 'EHOSTUNREACH',
  },
  {
    title: 'an IPv6 gateway that is not on the link named',
    change: route('fd00:9::/64', { gateway: 'fd00:77::1', link: 'va' }),
    errno: 'EHOSTUNREACH',
  },
  {
    title: 'an IPv6 gateway of our own',
    change: route('fd00:9::/64', { gateway: 'fd00::1' }),
    errno: 'EINVAL',
    text: 'Gateway can not be a local address',
  },
  {
    title: 'a link-local gateway without a link',
    change: route('fd00:9::/64', { gateway: 'fe80::1' }),
    errno: 'EINVAL',
  },
  {
    title: 'an IPv6 route over a link that is down',
    given: [{ op: 'setLink', link: 'br0', up: false }],
    change: route('fd00:9::/64', { link: 'br0' }),
    errno: 'ENETDOWN',
  },
  {
    title: 'an IPv6 route twice',
    given: [route('fd00:9::/64', { gateway: 'fd00::5' })],
    change: route('fd00:9::/64', { gateway: 'fd00::6' }),
    errno: 'EEXIST',
  },
  {
    title: 'removal of an absent IPv6 route',
    change: { op: 'removeRoute', route: { destination: 'fd00:9::/64' } },
    errno: 'ESRCH',
  },
  // rules, neighbours, FDB
  {
    title: 'a policy rule twice',
    given: [{ op: 'addRule', rule: { family: 4, priority: 100, table: 100, source: '10.0.0.0/8' } }],
    change: { op: 'addRule', rule: { family: 4, priority: 100, table: 100, source: '10.0.0.0/8' } },
    errno: 'EEXIST',
  },
  {
    title: 'removal of an absent policy rule',
    change: { op: 'removeRule', rule: { family: 4, priority: 99, table: 99 } },
    errno: 'ENOENT',
  },
  {
    title: 'removal of an absent neighbour',
    change: { op: 'removeNeighbour', link: 'va', address: '10.0.0.8', mac: '02:00:00:00:00:08' },
    errno: 'ENOENT',
  },
  {
    title: 'an FDB entry of what is no port',
    change: { op: 'setFdb', link: 'va', mac: '02:00:00:00:00:08' },
    errno: 'EOPNOTSUPP',
  },
  {
    title: 'removal of an absent FDB entry',
    given: [{ op: 'setLink', link: 'va', master: 'br0' }],
    change: { op: 'removeFdb', link: 'va', mac: '02:00:00:00:00:08' },
    errno: 'ENOENT',
  },
  // vxlan
  {
    title: 'a VNI twice on a port',
    needs: ['vxlan'],
    given: [vxlan('vx0', 5)],
    change: vxlan('vx1', 5),
    errno: 'EEXIST',
    code: EXISTS,
  },
  {
    title: 'removal of an absent tunnel end',
    needs: ['vxlan'],
    given: [vxlan('vx0', 5)],
    change: { op: 'removeFdb', link: 'vx0', mac: '02:00:00:00:00:08', remote: '192.0.2.9' },
    errno: 'ENOENT',
  },
  // more on links
  {
    title: 'a new link with an MTU below 68',
    change: add({ kind: 'veth', name: 'vc', mtu: 67, peer: { name: 'vd' } }),
    errno: 'EINVAL',
  },
  {
    title: 'a new link whose peer has a bad MTU',
    change: add({ kind: 'veth', name: 'vc', peer: { name: 'vd', mtu: 65536 } }),
    errno: 'EINVAL',
  },
  {
    title: 'a new bridge with a multicast MAC',
    change: add({ kind: 'bridge', name: 'br2', mac: '01:00:00:00:00:01' }),
    errno: 'EADDRNOTAVAIL',
  },
  {
    title: 'a new veth with a zero MAC',
    change: add({ kind: 'veth', name: 'vc', mac: '00:00:00:00:00:00', peer: { name: 'vd' } }),
    errno: 'EADDRNOTAVAIL',
  },
  {
    title: 'a new veth whose peer has a multicast MAC',
    change: add({ kind: 'veth', name: 'vc', peer: { name: 'vd', mac: '01:00:00:00:00:01' } }),
    errno: 'EADDRNOTAVAIL',
  },
  {
    title: 'a peer with a name of 16 bytes',
    change: add({ kind: 'veth', name: 'vc', peer: { name: 'a123456789012345' } }),
    errno: 'ERANGE',
  },
  {
    title: 'a peer with a bad name',
    change: add({ kind: 'veth', name: 'vc', peer: { name: 'a/b' } }),
    errno: 'EINVAL',
  },
  {
    title: 'an index as master that there is none of',
    change: { op: 'setLink', link: 'va', master: 4711 },
    errno: 'EINVAL',
  },
  {
    title: 'removal of an absent index',
    change: { op: 'removeLink', link: 4711 },
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'a rename to 16 bytes',
    change: { op: 'setLink', link: 'va', rename: 'a123456789012345' },
    errno: 'ERANGE',
  },
  {
    title: 'a neighbour on an absent link',
    change: { op: 'setNeighbour', link: 'nope', address: '10.0.0.8', mac: '02:00:00:00:00:08' },
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'a port flag of an absent link',
    change: { op: 'setPort', link: 'nope', hairpin: true },
    errno: 'ENODEV',
    code: ABSENT,
  },
  {
    title: 'a gateway on a link that is down',
    given: [{ op: 'setLink', link: 'va', up: false }],
    change: route('10.9.0.0/16', { link: 'va', gateway: '10.0.0.5' }),
    errno: 'ENETUNREACH',
  },
  { title: 'a route without link and gateway', change: route('10.9.0.0/16'), errno: 'ENODEV' },
  { title: 'an IPv6 route without link and gateway', change: route('fd00:9::/64'), errno: 'ENODEV' },
  {
    title: 'an IPv6 source address that is not here',
    change: route('fd00:9::/64', { link: 'va', source: 'fd00:88::1' }),
    errno: 'EINVAL',
  },
  {
    title: 'an IPv6 gateway on a link that is down',
    given: [{ op: 'setLink', link: 'va', up: false }],
    change: route('fd00:9::/64', { link: 'va', gateway: 'fe80::1' }),
    errno: 'ENETDOWN',
  },
  { title: 'a VNI of more than 24 bits', needs: ['vxlan'], change: vxlan('vx0', 2 ** 24), errno: 'ERANGE' },
  {
    title: 'a VLAN up on a parent that is down',
    needs: ['vlan'],
    given: [
      add({ kind: 'vlan', name: 'vl0', parent: 'va', id: 7 }),
      { op: 'setLink', link: 'va', up: false },
    ],
    change: { op: 'setLink', link: 'vl0', up: true },
    errno: 'ENETDOWN',
  },
  {
    title: 'a macvlan with a larger MTU than its parent',
    needs: ['macvlan'],
    given: [macvlan('mv0', 'va')],
    change: { op: 'setLink', link: 'mv0', mtu: 1501 },
    errno: 'EINVAL',
  },
  {
    title: 'a VLAN on lo',
    needs: ['vlan'],
    change: add({ kind: 'vlan', name: 'vl0', parent: 'lo', id: 7 }),
    errno: 'EOPNOTSUPP',
  },
  {
    title: 'a VLAN id above 4094',
    needs: ['vlan'],
    change: add({ kind: 'vlan', name: 'vl0', parent: 'va', id: 4095 }),
    errno: 'ERANGE',
  },
  {
    title: 'a VLAN with a larger MTU than its parent',
    needs: ['vlan'],
    given: [add({ kind: 'vlan', name: 'vl0', parent: 'va', id: 7 })],
    change: { op: 'setLink', link: 'vl0', mtu: 1501 },
    errno: 'ERANGE',
  },
  {
    title: 'a MAC for an ipvlan',
    needs: ['ipvlan'],
    given: [add({ kind: 'ipvlan', name: 'iv0', parent: 'va', mode: 'l2' })],
    change: { op: 'setLink', link: 'iv0', mac: '02:00:00:00:00:09' },
    errno: 'EOPNOTSUPP',
  },
  {
    title: 'an ipvlan on lo',
    needs: ['ipvlan'],
    change: add({ kind: 'ipvlan', name: 'iv0', parent: 'lo', mode: 'l2' }),
    errno: 'EINVAL',
  },
  // macvlan, ipvlan, vlan
  {
    title: 'a macvlan on an absent parent',
    needs: ['macvlan'],
    change: macvlan('mv0', 'nope'),
    errno: 'ENODEV',
    code: ABSENT,
  },
  { title: 'a macvlan on lo', needs: ['macvlan'], change: macvlan('mv0', 'lo'), errno: 'EINVAL' },
  {
    title: 'a macvlan beside a passthru',
    needs: ['macvlan'],
    given: [macvlan('mv0', 'va', 'passthru')],
    change: macvlan('mv1', 'va'),
    errno: 'EINVAL',
  },
  {
    title: 'a passthru beside a macvlan',
    needs: ['macvlan'],
    given: [macvlan('mv0', 'va')],
    change: macvlan('mv1', 'va', 'passthru'),
    errno: 'EINVAL',
  },
  {
    title: 'a macvlan on a bridge port',
    needs: ['macvlan'],
    given: [{ op: 'setLink', link: 'va', master: 'br0' }],
    change: macvlan('mv0', 'va'),
    errno: 'EBUSY',
  },
  {
    title: 'a macvlan parent as bridge port',
    needs: ['macvlan'],
    given: [macvlan('mv0', 'va')],
    change: { op: 'setLink', link: 'va', master: 'br0' },
    errno: 'EBUSY',
  },
  {
    title: 'an ipvlan on the parent of a macvlan',
    needs: ['macvlan', 'ipvlan'],
    given: [macvlan('mv0', 'va')],
    change: add({ kind: 'ipvlan', name: 'iv0', parent: 'va', mode: 'l2' }),
    errno: 'EBUSY',
  },
  {
    title: 'a macvlan on the parent of an ipvlan',
    needs: ['macvlan', 'ipvlan'],
    given: [add({ kind: 'ipvlan', name: 'iv0', parent: 'va', mode: 'l2' })],
    change: macvlan('mv0', 'va'),
    errno: 'EBUSY',
  },
  {
    title: 'a VLAN id twice on a parent',
    needs: ['vlan'],
    given: [add({ kind: 'vlan', name: 'vl0', parent: 'va', id: 7 })],
    change: add({ kind: 'vlan', name: 'vl1', parent: 'va', id: 7 }),
    errno: 'EEXIST',
    code: EXISTS,
  },
]
