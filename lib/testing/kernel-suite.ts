import { join } from 'node:path'
import type { Change, Kernel, KernelEvent, LinkSpec, RouteSpec, Stack } from '../kernel/kernel'

/** A kernel to be examined. */
export interface KernelUnderTest {
  kernel: Kernel
  /** A directory that may hold namespaces; the suite removes what it binds there. */
  directory: string
  /** What this kernel lacks (link kinds): those tests are left out. */
  lacks?: readonly string[]
  /** Called after each test. */
  dispose?(): Promise<void>
}

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

/** Refusals in a namespace that has: va-vb (veth, both up), 10.0.0.1/24 and fd00::1/64 on va, br0 and br1 (up). */
const SCENE: Change[] = [
  { op: 'addLink', link: { kind: 'veth', name: 'va', up: true, peer: { name: 'vb' } } },
  { op: 'setLink', link: 'vb', up: true },
  { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
  { op: 'addLink', link: { kind: 'bridge', name: 'br1', up: true } },
  { op: 'addAddress', link: 'va', address: '10.0.0.1/24' },
  { op: 'addAddress', link: 'va', address: 'fd00::1/64' },
]

/** Before Linux 6.2 a link that is up keeps its name (EBUSY). */
const DOWN: Change = { op: 'setLink', link: 'va', up: false }

const add = (link: LinkSpec): Change => ({ op: 'addLink', link })
const bridge = (name: string): Change => add({ kind: 'bridge', name })
const route = (destination: string, more: Omit<RouteSpec, 'destination'> = {}): Change => ({
  op: 'addRoute',
  route: { destination, ...more },
})
const vxlan = (name: string, id: number, port = 4789): Change => add({ kind: 'vxlan', name, id, port })
const macvlan = (name: string, parent: string, mode: 'bridge' | 'passthru' = 'bridge'): Change =>
  add({ kind: 'macvlan', name, parent, mode })

const EXISTS = 'ERR_LINK_EXISTS'
const ABSENT = 'ERR_LINK_NOT_FOUND'

const REFUSALS: Refusal[] = [
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

/**
 * The contract of the kernel seam, for any implementation: what is made reads back, what is refused is refused with the
 * same errno and code, and what happens is told. Runs inside the caller's `describe`. {@link MockKernel} is held to the
 * real kernel by running it on both.
 */
export function kernelSuite(makeKernel: () => Promise<KernelUnderTest>): void {
  let under: KernelUnderTest
  let kernel: Kernel
  let host: Stack
  let opened: Stack[]
  const at = (name: string) => join(under.directory, name)
  const open = (stack: Stack): Stack => {
    opened.push(stack)
    return stack
  }

  beforeEach(async () => {
    under = await makeKernel()
    ;({ kernel } = under)
    opened = []
    host = open(await kernel.create(at('host')))
  })

  afterEach(async () => {
    for (const stack of opened) stack.close()
    for (const path of await kernel.list(under.directory)) await kernel.remove(path)
    await under.dispose?.()
  })

  const lacks = (kinds: string[] = []) => kinds.some(kind => under.lacks?.includes(kind))

  const indexOf = async (stack: Stack, name: string) => (await stack.link(name))?.index
  const addressesOf = async (stack: Stack, name: string) => {
    const index = await indexOf(stack, name)
    return (await stack.addresses(index)).map(address => address.address).sort()
  }
  /** Routes of the main table as `ip route` prints them, more or less. */
  const routesOf = async (stack: Stack, family: 4 | 6, table = 254) => {
    const names = new Map((await stack.links()).map(link => [link.index, link.name]))
    return (await stack.routes({ family, table }))
      .filter(each => !/^fe80|^ff00/.test(each.destination))
      .map(each =>
        [
          each.type === 'unicast' ? '' : each.type,
          each.destination,
          each.gateway && `via ${each.gateway}`,
          each.link !== undefined && `dev ${names.get(each.link)}`,
          each.source && `src ${each.source}`,
          `scope ${each.scope} proto ${each.protocol} metric ${each.metric}`,
        ]
          .filter(Boolean)
          .join(' '),
      )
      .sort()
  }

  describe('namespaces', () => {
    test('a new one has lo, up, with its addresses', async () => {
      expect(await host.links()).toMatchObject([
        { name: 'lo', index: 1, up: true, loopback: true, kind: undefined },
      ])
      expect(await addressesOf(host, 'lo')).toEqual(['127.0.0.1/8', '::1/128'])
      expect(await routesOf(host, 4)).toEqual([])
      expect(host.path).toBe(at('host'))
    })

    test('a path is bound once', async () => {
      await expect(kernel.create(at('host'))).rejects.toMatchObject({ code: 'ERR_NETNS_EXISTS' })
      await expect(kernel.open(at('nope'))).rejects.toMatchObject({ code: 'ERR_NETNS_NOT_FOUND' })
      await expect(kernel.bind(at('nope'), at('b'))).rejects.toMatchObject({ code: 'ERR_NETNS_NOT_FOUND' })
    })

    test('opened again, or bound to another path, it is the same', async () => {
      const again = open(await kernel.open(at('host')))
      expect(again.inode).toBe(host.inode)
      const alias = open(await kernel.bind(at('host'), at('alias')))
      expect(alias.inode).toBe(host.inode)
      const other = open(await kernel.create(at('other')))
      expect(other.inode).not.toBe(host.inode)
      expect(await kernel.list(under.directory)).toEqual([at('alias'), at('host'), at('other')])
    })

    test('binding replaces what was bound', async () => {
      open(await kernel.create(at('other')))
      const bound = open(await kernel.bind(at('host'), at('other')))
      expect(bound.inode).toBe(host.inode)
      expect(open(await kernel.open(at('other'))).inode).toBe(host.inode)
    })

    test('removal of an absent path does nothing', async () => {
      await kernel.remove(at('nope'))
      await kernel.remove(at('host'))
      await kernel.remove(at('host'))
      expect(await kernel.list(under.directory)).toEqual([])
    })

    test('a namespace that dies takes its links and the peers elsewhere along', async () => {
      const inner = await kernel.create(at('inner'))
      await host.apply([add({ kind: 'veth', name: 'va', up: true, peer: { name: 'eth0', netns: inner } })])
      expect(await inner.link('eth0')).toMatchObject({ name: 'eth0', kind: 'veth', up: false })
      inner.close()
      expect(await host.link('va')).toBeDefined()
      await kernel.remove(at('inner'))
      await eventually(async () => expect(await host.link('va')).toBeUndefined())
    })

    test('an open handle keeps a namespace alive', async () => {
      const inner = await kernel.create(at('inner'))
      await host.apply([add({ kind: 'veth', name: 'va', peer: { name: 'eth0', netns: inner } })])
      await kernel.remove(at('inner'))
      expect(await inner.link('eth0')).toBeDefined()
      expect(await host.link('va')).toBeDefined()
      inner.close()
      await eventually(async () => expect(await host.link('va')).toBeUndefined())
    })

    test('a closed handle refuses to be used', async () => {
      const again = await kernel.open(at('host'))
      again.close()
      again.close()
      await expect(again.links()).rejects.toMatchObject({ code: 'ERR_CLOSED' })
      await expect(again.apply([bridge('br0')])).rejects.toMatchObject({ code: 'ERR_CLOSED' })
      expect(() => again.sysctl('net/ipv4/ip_forward')).toThrow(
        expect.objectContaining({ code: 'ERR_CLOSED' }),
      )
    })
  })

  describe('what is made reads back', () => {
    test('bridge and veth', async () => {
      await host.apply([
        add({ kind: 'bridge', name: 'br0', mac: '02:00:00:00:00:01', mtu: 1400, up: true, alias: 'web' }),
        add({
          kind: 'veth',
          name: 'va',
          master: 'br0',
          up: true,
          mtu: 1300,
          peer: { name: 'vb', mac: '02:00:00:00:00:02', mtu: 1200 },
        }),
      ])
      expect((await host.links()).map(link => link.name).sort()).toEqual(['br0', 'lo', 'va', 'vb'])
      const br0 = await host.link('br0')
      expect(br0).toMatchObject({
        name: 'br0',
        kind: 'bridge',
        mac: '02:00:00:00:00:01',
        // the MTU that a bridge is made with does not last: it follows its ports until it is set
        mtu: 1300,
        up: true,
        alias: 'web',
        master: undefined,
      })
      const va = await host.link('va')
      const vb = await host.link('vb')
      expect(va).toMatchObject({
        kind: 'veth',
        mtu: 1300,
        up: true,
        carrier: false,
        master: br0?.index,
        parent: vb?.index,
      })
      expect(vb).toMatchObject({
        kind: 'veth',
        mtu: 1200,
        up: false,
        mac: '02:00:00:00:00:02',
        parent: va?.index,
        master: undefined,
      })
      expect(va?.port).toMatchObject({ hairpin: false, isolated: false, learning: true })
      await host.apply([
        { op: 'setPort', link: 'va', hairpin: true, isolated: true, learning: false },
        { op: 'setLink', link: 'vb', up: true },
      ])
      expect((await host.link('va'))?.port).toMatchObject({ hairpin: true, isolated: true, learning: false })
      expect(await host.link('va')).toMatchObject({ carrier: true })
      expect(await host.link(va?.index ?? 0)).toMatchObject({ name: 'va' })
      expect(await host.link('nope')).toBeUndefined()
      expect(await host.link(4711)).toBeUndefined()
    })

    test('rename, MTU, MAC, alias, leaving the bridge', async () => {
      await host.apply(SCENE)
      await host.apply([
        DOWN,
        {
          op: 'setLink',
          link: 'va',
          rename: 'eth0',
          mtu: 1400,
          mac: '02:00:00:00:00:09',
          alias: 'hello',
          master: 'br0',
        },
      ])
      const br0 = await indexOf(host, 'br0')
      expect(await host.link('eth0')).toMatchObject({
        mtu: 1400,
        mac: '02:00:00:00:00:09',
        alias: 'hello',
        master: br0,
      })
      expect(await host.link('va')).toBeUndefined()
      await host.apply([{ op: 'setLink', link: 'eth0', master: 'br1' }])
      expect(await host.link('eth0')).toMatchObject({ master: await indexOf(host, 'br1') })
      await host.apply([
        { op: 'setLink', link: 'eth0', master: null },
        { op: 'setLink', link: 'eth0', master: null },
      ])
      expect(await host.link('eth0')).toMatchObject({ master: undefined })
      expect((await host.link('eth0'))?.port).toBeUndefined()
    })

    test('removal of one end removes the other; ifExists tolerates absence', async () => {
      await host.apply(SCENE)
      await host.apply([
        { op: 'removeLink', link: 'va' },
        { op: 'removeLink', link: 'va', ifExists: true },
      ])
      expect(await host.link('vb')).toBeUndefined()
      expect(await routesOf(host, 4)).toEqual([])
    })

    test('a bridge that goes frees its ports', async () => {
      await host.apply([...SCENE, { op: 'setLink', link: 'va', master: 'br0' }])
      await host.apply([{ op: 'removeLink', link: 'br0' }])
      expect(await host.link('va')).toMatchObject({ master: undefined, up: true })
    })

    test('addresses and the routes that come and go with them', async () => {
      await host.apply(SCENE)
      expect(await routesOf(host, 4)).toEqual(['10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0'])
      expect(await routesOf(host, 4, 255)).toEqual(
        expect.arrayContaining([
          'local 10.0.0.1/32 dev va src 10.0.0.1 scope host proto 2 metric 0',
          'broadcast 10.0.0.255/32 dev va src 10.0.0.1 scope link proto 2 metric 0',
          'local 127.0.0.0/8 dev lo src 127.0.0.1 scope host proto 2 metric 0',
        ]),
      )
      expect(await routesOf(host, 6)).toEqual(['fd00::/64 dev va scope global proto 2 metric 256'])
      await host.apply([
        { op: 'addAddress', link: 'va', address: '10.0.0.2/24' },
        { op: 'addAddress', link: 'va', address: '10.1.0.1/32' },
        { op: 'addAddress', link: 'va', address: '10.2.0.0/31' },
        { op: 'addAddress', link: 'va', address: '10.3.0.1/24', noPrefixRoute: true },
        { op: 'addAddress', link: 'va', address: 'fd00:3::1/64', noPrefixRoute: true },
        { op: 'addAddress', link: 'br0', address: 'fd00:4::1/128' },
      ])
      expect(await routesOf(host, 4)).toEqual([
        '10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0',
        '10.2.0.0/31 dev va src 10.2.0.0 scope link proto 2 metric 0',
      ])
      expect(await routesOf(host, 6)).toEqual([
        'fd00:4::1/128 dev br0 scope global proto 2 metric 256',
        'fd00::/64 dev va scope global proto 2 metric 256',
      ])
      await host.apply([
        { op: 'removeAddress', link: 'va', address: '10.0.0.1/24' },
        { op: 'removeAddress', link: 'va', address: 'fd00::1/64' },
      ])
      expect(await routesOf(host, 4)).toEqual(['10.2.0.0/31 dev va src 10.2.0.0 scope link proto 2 metric 0'])
      expect(await routesOf(host, 6)).toEqual(['fd00:4::1/128 dev br0 scope global proto 2 metric 256'])
      // the secondary 10.0.0.2 went with its primary
      expect((await addressesOf(host, 'va')).filter(a => /^10/.test(a))).toEqual([
        '10.1.0.1/32',
        '10.2.0.0/31',
        '10.3.0.1/24',
      ])
    })

    test('the last IPv4 address takes all IPv4 routes of the link along', async () => {
      await host.apply([...SCENE, route('10.9.0.0/16', { link: 'va' }), route('fd00:9::/64', { link: 'va' })])
      await host.apply([{ op: 'removeAddress', link: 'va', address: '10.0.0.1/24' }])
      expect(await routesOf(host, 4)).toEqual([])
      expect(await routesOf(host, 6)).toHaveLength(2)
    })

    test('a link that goes down loses its routes and IPv6 addresses; up again, only the connected ones come back', async () => {
      await host.apply([
        ...SCENE,
        route('10.9.0.0/16', { gateway: '10.0.0.5' }),
        route('fd00:9::/64', { gateway: 'fd00::5' }),
      ])
      await host.apply([{ op: 'setLink', link: 'va', up: false }])
      expect(await routesOf(host, 4)).toEqual([])
      expect(await routesOf(host, 6)).toEqual([])
      expect(await addressesOf(host, 'va')).toEqual(['10.0.0.1/24'])
      await host.apply([{ op: 'setLink', link: 'va', up: true }])
      expect(await routesOf(host, 4)).toEqual(['10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0'])
    })

    test('routes', async () => {
      await host.apply([
        ...SCENE,
        route('0.0.0.0/0', { gateway: '10.0.0.254' }),
        route('10.9.0.0/16', { gateway: '10.77.0.1', link: 'va', onLink: true }),
        route('10.9.0.0/16', { gateway: '10.0.0.5', metric: 5 }),
        route('10.8.0.0/16', { link: 'va', source: '10.0.0.1' }),
        route('10.7.0.0/16', { type: 'blackhole' }),
        route('10.6.0.0/16', { type: 'prohibit' }),
        route('10.5.0.0/16', { gateway: '10.0.0.1' }),
        route('::/0', { gateway: 'fd00::fe' }),
        route('fd00:8::/64', { gateway: 'fe80::1', link: 'va' }),
        route('fd00:7::/64', { type: 'unreachable' }),
        route('10.4.0.0/16', { link: 'va', table: 100 }),
      ])
      expect(await routesOf(host, 4)).toEqual(
        [
          '0.0.0.0/0 via 10.0.0.254 dev va scope global proto 4 metric 0',
          '10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0',
          '10.5.0.0/16 via 10.0.0.1 dev va scope global proto 4 metric 0',
          '10.8.0.0/16 dev va src 10.0.0.1 scope link proto 4 metric 0',
          '10.9.0.0/16 via 10.0.0.5 dev va scope global proto 4 metric 5',
          '10.9.0.0/16 via 10.77.0.1 dev va scope global proto 4 metric 0',
          'blackhole 10.7.0.0/16 scope global proto 4 metric 0',
          'prohibit 10.6.0.0/16 scope global proto 4 metric 0',
        ].sort(),
      )
      expect(await routesOf(host, 4, 100)).toEqual(['10.4.0.0/16 dev va scope link proto 4 metric 0'])
      expect(await routesOf(host, 6)).toEqual(
        [
          '::/0 via fd00::fe dev va scope global proto 4 metric 1024',
          'fd00:8::/64 via fe80::1 dev va scope global proto 4 metric 1024',
          'fd00::/64 dev va scope global proto 2 metric 256',
          'unreachable fd00:7::/64 dev lo scope global proto 4 metric 1024',
        ].sort(),
      )
      await host.apply([
        { op: 'replaceRoute', route: { destination: '0.0.0.0/0', gateway: '10.0.0.253' } },
        { op: 'replaceRoute', route: { destination: '::/0', gateway: 'fd00::fd' } },
        { op: 'replaceRoute', route: { destination: '10.3.0.0/16', link: 'va' } },
        { op: 'removeRoute', route: { destination: '10.8.0.0/16' } },
        { op: 'removeRoute', route: { destination: '10.7.0.0/16', type: 'blackhole' } },
        { op: 'removeRoute', route: { destination: 'fd00:8::/64' } },
      ])
      const now = [...(await routesOf(host, 4)), ...(await routesOf(host, 6))].join('\n')
      expect(now).toMatch('0.0.0.0/0 via 10.0.0.253')
      expect(now).toMatch('::/0 via fd00::fd')
      expect(now).toMatch('10.3.0.0/16 dev va')
      expect(now).not.toMatch(/10\.8\.|10\.7\.|fd00:8|\.254|fd00::fe /)
    })

    test('which way a packet takes', async () => {
      await host.apply([
        ...SCENE,
        route('0.0.0.0/0', { gateway: '10.0.0.254' }),
        route('10.9.0.0/16', { gateway: '10.0.0.5' }),
        route('10.9.1.0/24', { gateway: '10.0.0.6' }),
        route('10.9.2.0/24', { gateway: '10.0.0.7', metric: 9 }),
        route('10.9.2.0/24', { gateway: '10.0.0.8', metric: 3 }),
        route('10.6.0.0/16', { type: 'prohibit' }),
      ])
      const via = async (to: string) => (await host.routeTo(to))?.gateway
      expect(await via('8.8.8.8')).toBe('10.0.0.254')
      expect(await via('10.9.9.9')).toBe('10.0.0.5')
      expect(await via('10.9.1.1')).toBe('10.0.0.6')
      expect(await via('10.9.2.1')).toBe('10.0.0.8')
      expect(await host.routeTo('10.0.0.9')).toMatchObject({
        type: 'unicast',
        link: await indexOf(host, 'va'),
        source: '10.0.0.1',
      })
      expect(await host.routeTo('10.0.0.1')).toMatchObject({
        type: 'local',
        link: await indexOf(host, 'va'),
        destination: '10.0.0.1/32',
      })
      expect(await host.routeTo('10.6.0.1')).toBeUndefined()
      expect(await host.routeTo('2001:db8::1')).toBeUndefined()
    })

    test('neighbours, FDB entries, policy rules', async () => {
      await host.apply([
        ...SCENE,
        { op: 'setLink', link: 'vb', master: 'br0' },
        { op: 'setNeighbour', link: 'va', address: '10.0.0.9', mac: '02:00:00:00:00:09' },
        { op: 'setNeighbour', link: 'va', address: '10.0.0.9', mac: '02:00:00:00:00:10' },
        { op: 'setFdb', link: 'vb', mac: '02:00:00:00:00:11' },
        { op: 'addRule', rule: { family: 4, priority: 100, table: 100, source: '10.0.0.0/8' } },
      ])
      const va = await indexOf(host, 'va')
      const vb = await indexOf(host, 'vb')
      expect((await host.neighbours({ link: va ?? 0 })).filter(n => n.address === '10.0.0.9')).toMatchObject([
        { link: va, mac: '02:00:00:00:00:10', permanent: true },
      ])
      expect(await host.neighbours({ link: vb ?? 0, bridge: true })).toEqual(
        expect.arrayContaining([expect.objectContaining({ mac: '02:00:00:00:00:11' })]),
      )
      expect(await host.rules()).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ family: 4, priority: 100, table: 100, source: '10.0.0.0/8' }),
          expect.objectContaining({ family: 4, priority: 0, table: 255 }),
          expect.objectContaining({ family: 4, priority: 32766, table: 254 }),
          expect.objectContaining({ family: 6, priority: 32766, table: 254 }),
        ]),
      )
      await host.apply([
        { op: 'removeNeighbour', link: 'va', address: '10.0.0.9', mac: '02:00:00:00:00:10' },
        { op: 'removeFdb', link: 'vb', mac: '02:00:00:00:00:11' },
        { op: 'removeRule', rule: { family: 4, priority: 100, table: 100, source: '10.0.0.0/8' } },
      ])
      expect((await host.neighbours({ link: va ?? 0 })).filter(n => n.address === '10.0.0.9')).toEqual([])
      expect((await host.rules()).filter(rule => rule.priority === 100)).toEqual([])
    })

    test('vxlan, and where its frames go', async () => {
      if (lacks(['vxlan'])) return
      await host.apply([
        add({ kind: 'vxlan', name: 'vx0', id: 5, port: 4789, learning: false, proxy: true, up: true }),
        vxlan('vx1', 5, 4790),
        vxlan('vx2', 6),
        { op: 'setFdb', link: 'vx0', mac: '02:00:00:00:00:09', remote: '192.0.2.9' },
        { op: 'setFdb', link: 'vx0', mac: '02:00:00:00:00:09', remote: '192.0.2.10' },
        { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.9' },
        { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.10' },
        { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.10' },
      ])
      const vx0 = await host.link('vx0')
      expect(vx0).toMatchObject({
        kind: 'vxlan',
        info: { vxlan: { id: 5, port: 4789, learning: false, proxy: true } },
      })
      const entries = (await host.neighbours({ link: vx0?.index ?? 0, bridge: true }))
        .filter(entry => entry.address !== undefined)
        .map(entry => `${entry.mac} ${entry.address}`)
      expect(entries.sort()).toEqual([
        '00:00:00:00:00:00 192.0.2.10',
        '00:00:00:00:00:00 192.0.2.9',
        '02:00:00:00:00:09 192.0.2.10',
      ])
    })

    test('an FDB entry of the device itself', async () => {
      await host.apply([...SCENE, { op: 'setFdb', link: 'va', mac: '02:00:00:00:00:08', self: true }])
      const va = await indexOf(host, 'va')
      expect(await host.neighbours({ link: va ?? 0, bridge: true })).toEqual(
        expect.arrayContaining([expect.objectContaining({ mac: '02:00:00:00:00:08', self: true })]),
      )
      await host.apply([{ op: 'removeFdb', link: 'va', mac: '02:00:00:00:00:08', self: true }])
    })

    test('macvlan', async () => {
      if (lacks(['macvlan'])) return
      await host.apply([
        ...SCENE,
        { op: 'setLink', link: 'va', up: false },
        macvlan('mv0', 'va'),
        { op: 'setLink', link: 'mv0', up: true },
        { op: 'setLink', link: 'va', up: true },
        macvlan('mv1', 'mv0'),
      ])
      const va = await indexOf(host, 'va')
      expect(await host.link('mv0')).toMatchObject({
        kind: 'macvlan',
        parent: va,
        info: { macvlan: { mode: 'bridge' } },
      })
      expect(await host.link('mv1')).toMatchObject({ parent: va })
      await host.apply([{ op: 'removeLink', link: 'va' }])
      expect((await host.links()).map(link => link.name).sort()).toEqual(['br0', 'br1', 'lo'])
    })

    test('ipvlan, vlan and dummy', async () => {
      if (lacks(['ipvlan', 'vlan', 'dummy'])) return
      await host.apply([
        ...SCENE,
        add({ kind: 'ipvlan', name: 'iv0', parent: 'va', mode: 'l3' }),
        add({ kind: 'vlan', name: 'vl0', parent: 'vb', id: 7 }),
        add({ kind: 'dummy', name: 'd0', up: true }),
      ])
      expect(await host.link('iv0')).toMatchObject({ kind: 'ipvlan', info: { ipvlan: { mode: 'l3' } } })
      expect(await host.link('vl0')).toMatchObject({ kind: 'vlan', info: { vlan: { id: 7 } } })
      expect(await host.link('d0')).toMatchObject({ kind: 'dummy', up: true, carrier: true })
    })

    test('a bridge takes the lowest MAC and MTU of its ports, unless they were chosen', async () => {
      await host.apply([
        bridge('br0'),
        add({ kind: 'bridge', name: 'br1', mac: '02:00:00:00:00:ff' }),
        add({
          kind: 'veth',
          name: 'va',
          mac: '02:00:00:00:00:05',
          mtu: 1400,
          master: 'br0',
          peer: { name: 'vb' },
        }),
        add({
          kind: 'veth',
          name: 'vc',
          mac: '02:00:00:00:00:04',
          mtu: 1450,
          master: 'br0',
          peer: { name: 'vd', mac: '02:00:00:00:00:01', mtu: 1300 },
        }),
        { op: 'setLink', link: 'vd', master: 'br1' },
      ])
      expect(await host.link('br0')).toMatchObject({ mac: '02:00:00:00:00:04', mtu: 1400 })
      expect(await host.link('br1')).toMatchObject({ mac: '02:00:00:00:00:ff', mtu: 1300 })
      await host.apply([{ op: 'setLink', link: 'vc', master: null }])
      expect(await host.link('br0')).toMatchObject({ mac: '02:00:00:00:00:05' })
      await host.apply([
        { op: 'setLink', link: 'br0', mtu: 1444 },
        { op: 'setLink', link: 'vc', master: 'br0', mtu: 1200 },
      ])
      expect(await host.link('br0')).toMatchObject({ mtu: 1444 })
    })

    test('a link moves to another namespace and loses its addresses', async () => {
      const inner = open(await kernel.create(at('inner')))
      await host.apply(SCENE)
      await host.apply([{ op: 'setLink', link: 'va', netns: inner }])
      expect(await host.link('va')).toBeUndefined()
      expect(await inner.link('va')).toMatchObject({ up: false, master: undefined })
      expect(await addressesOf(inner, 'va')).toEqual([])
      expect(await routesOf(host, 4)).toEqual([])
      await expect(host.apply([{ op: 'setLink', link: 'br0', netns: inner }])).rejects.toMatchObject({
        details: { errno: 'EINVAL' },
      })
    })
  })

  describe('IPv6 on links', () => {
    const linkLocal = async (name: string) =>
      (await addressesOf(host, name)).filter(a => a.startsWith('fe80'))

    test('a link with carrier gets a link-local address made of its MAC', async () => {
      await host.apply([
        add({ kind: 'veth', name: 'va', mac: '02:00:00:00:00:05', up: true, peer: { name: 'vb' } }),
      ])
      expect(await linkLocal('va')).toEqual([])
      await host.apply([{ op: 'setLink', link: 'vb', up: true }])
      await eventually(async () => expect(await linkLocal('va')).toEqual(['fe80::ff:fe00:5/64']))
      await eventually(async () => expect(await linkLocal('vb')).toHaveLength(1))
    })

    test('none with disable_ipv6 or without address generation', async () => {
      await host.apply([
        add({ kind: 'veth', name: 'va', peer: { name: 'vb' } }),
        add({ kind: 'veth', name: 'vc', up: true, peer: { name: 'vd' } }),
        { op: 'setLink', link: 'vd', up: true },
      ])
      host.setSysctls({ 'net/ipv6/conf/va/disable_ipv6': '1', 'net/ipv6/conf/vb/addr_gen_mode': '1' })
      await host.apply([
        { op: 'setLink', link: 'va', up: true },
        { op: 'setLink', link: 'vb', up: true },
      ])
      await eventually(async () => expect(await linkLocal('vc')).toHaveLength(1))
      expect(await linkLocal('va')).toEqual([])
      expect(await linkLocal('vb')).toEqual([])
    })

    test('disable_ipv6 removes addresses and routes, and forbids new ones', async () => {
      await host.apply([...SCENE, route('fd00:9::/64', { gateway: 'fd00::5' })])
      host.setSysctls({ 'net/ipv6/conf/va/disable_ipv6': '1' })
      expect(await addressesOf(host, 'va')).toEqual(['10.0.0.1/24'])
      expect(await routesOf(host, 6)).toEqual([])
      await expect(
        host.apply([{ op: 'addAddress', link: 'va', address: 'fd00::1/64' }]),
      ).rejects.toMatchObject({
        details: { errno: 'EACCES' },
      })
      await expect(host.apply([route('fd00:9::/64', { link: 'va' })])).rejects.toMatchObject({
        details: { errno: 'EACCES' },
      })
      host.setSysctls({ 'net/ipv6/conf/va/disable_ipv6': '0' })
      await host.apply([{ op: 'addAddress', link: 'va', address: 'fd00::1/64' }])
      expect(await routesOf(host, 6)).toEqual(['fd00::/64 dev va scope global proto 2 metric 256'])
    })
  })

  describe('what is refused', () => {
    test.each(REFUSALS)('$title: $errno', async ({ needs, given = [], change, errno, code, text }) => {
      if (lacks(needs)) return
      await host.apply([...SCENE, ...given])
      const before = await survey(host)
      const error = await host.apply([change]).then(
        () => undefined,
        e => e as { code: string; message: string; details: Record<string, unknown> },
      )
      expect(error).toMatchObject({ details: { errno, op: change.op, step: 0, change: 0 } })
      if (code) expect(error?.code).toBe(code)
      if (text) expect(error?.message).toContain(text)
      expect(await survey(host)).toEqual(before)
    })

    test('the 1024th port of a bridge', async () => {
      const pairs = Array.from({ length: 512 }, (_, i): Change[] => [
        add({ kind: 'veth', name: `a${i}`, master: 'br0', peer: { name: `b${i}` } }),
        { op: 'setLink', link: `b${i}`, master: 'br0' },
      ]).flat()
      await host.apply([bridge('br0'), ...pairs.slice(0, -1)])
      const br0 = await indexOf(host, 'br0')
      expect((await host.links()).filter(link => link.master === br0)).toHaveLength(1023)
      await expect(host.apply(pairs.slice(-1))).rejects.toMatchObject({
        code: 'ERR_KERNEL',
        details: { number: 54 },
      })
    })

    test('a refused link leaves nothing behind, not even its peer', async () => {
      await host.apply([bridge('br0'), add({ kind: 'veth', name: 'va', peer: { name: 'vb' } })])
      await expect(
        host.apply([add({ kind: 'veth', name: 'vc', master: 'va', peer: { name: 'vd' } })]),
      ).rejects.toMatchObject({ details: { errno: 'EOPNOTSUPP' } })
      expect((await host.links()).map(link => link.name).sort()).toEqual(['br0', 'lo', 'va', 'vb'])
    })
  })

  describe('transactions', () => {
    test('within a step the rest goes on, later steps do not run, the first failure is told', async () => {
      const inner = open(await kernel.create(at('inner')))
      const error = await kernel
        .transact([
          { stack: inner, changes: [bridge('x0')] },
          { stack: host, changes: [bridge('br0'), bridge('br0'), bridge('lo'), bridge('br1')] },
          { stack: inner, changes: [bridge('x1')] },
        ])
        .catch(e => e as object)
      expect(error).toMatchObject({
        code: 'ERR_LINK_EXISTS',
        details: { step: 1, change: 1, errno: 'EEXIST', op: 'addLink' },
      })
      expect((await host.links()).map(link => link.name).sort()).toEqual(['br0', 'br1', 'lo'])
      expect((await inner.links()).map(link => link.name).sort()).toEqual(['lo', 'x0'])
    })

    test('a peer that an earlier step made can be used by name in a later one', async () => {
      const inner = open(await kernel.create(at('inner')))
      await kernel.transact([
        {
          stack: host,
          changes: [
            { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
            add({
              kind: 'veth',
              name: 'va',
              master: 'br0',
              up: true,
              peer: { name: 'eth0', netns: inner, up: true },
            }),
          ],
        },
        {
          stack: inner,
          changes: [
            { op: 'addAddress', link: 'eth0', address: '10.0.0.2/24' },
            route('0.0.0.0/0', { gateway: '10.0.0.1' }),
          ],
        },
      ])
      expect(await routesOf(inner, 4)).toEqual([
        '0.0.0.0/0 via 10.0.0.1 dev eth0 scope global proto 4 metric 0',
        '10.0.0.0/24 dev eth0 src 10.0.0.2 scope link proto 2 metric 0',
      ])
    })

    test('two hundred at once do not get into each other', async () => {
      await Promise.all(Array.from({ length: 200 }, (_, i) => host.apply([bridge(`b${i}`)])))
      expect(await host.links()).toHaveLength(201)
    })
  })

  describe('sysctls', () => {
    test('read and write', async () => {
      await host.apply([bridge('br0')])
      expect(host.sysctl('net/ipv4/ip_forward')).toBe('0')
      expect(host.sysctl('net/ipv4/conf/br0/route_localnet')).toBe('0')
      expect(host.sysctl('net/ipv6/conf/br0/disable_ipv6')).toBe('0')
      expect(host.sysctl('net/ipv4/conf/nope/forwarding')).toBeUndefined()
      expect(host.sysctl('net/ipv4/nope')).toBeUndefined()
      host.setSysctls({ 'net/ipv4/conf/br0/route_localnet': '1', 'net/ipv4/conf/default/rp_filter': '2' })
      expect(host.sysctl('net/ipv4/conf/br0/route_localnet')).toBe('1')
      await host.apply([bridge('br1')])
      expect(host.sysctl('net/ipv4/conf/br1/rp_filter')).toBe('2')
      expect(host.sysctl('net/ipv4/conf/br1/route_localnet')).toBe('0')
    })

    test('ip_forward is the forwarding of every link', async () => {
      await host.apply([bridge('br0')])
      host.setSysctls({ 'net/ipv4/ip_forward': '1' })
      for (const name of ['all', 'default', 'br0'])
        expect(host.sysctl(`net/ipv4/conf/${name}/forwarding`)).toBe('1')
      await host.apply([bridge('br1')])
      expect(host.sysctl('net/ipv4/conf/br1/forwarding')).toBe('1')
      host.setSysctls({ 'net/ipv6/conf/all/forwarding': '1' })
      expect(host.sysctl('net/ipv6/conf/br0/forwarding')).toBe('1')
    })

    test('disable_ipv6 of all is that of every link, and of later ones', async () => {
      await host.apply([bridge('br0')])
      host.setSysctls({ 'net/ipv6/conf/all/disable_ipv6': '1' })
      await host.apply([bridge('br1')])
      for (const name of ['br0', 'br1', 'lo', 'default'])
        expect(host.sysctl(`net/ipv6/conf/${name}/disable_ipv6`)).toBe('1')
      expect(await addressesOf(host, 'lo')).toEqual(['127.0.0.1/8'])
    })

    test('a link takes its sysctls along when it is renamed', async () => {
      await host.apply([bridge('br0')])
      host.setSysctls({ 'net/ipv4/conf/br0/route_localnet': '1' })
      await host.apply([{ op: 'setLink', link: 'br0', rename: 'br1' }])
      expect(host.sysctl('net/ipv4/conf/br0/route_localnet')).toBeUndefined()
      expect(host.sysctl('net/ipv4/conf/br1/route_localnet')).toBe('1')
    })

    test('refusals name the key', () => {
      for (const [key, value, errno] of [
        ['net/ipv4/conf/nope/forwarding', '1', 'ENOENT'],
        ['net/ipv4/ip_forward', 'yes', 'EINVAL'],
      ] as const) {
        expect(() => host.setSysctls({ [key]: value })).toThrow(
          expect.objectContaining({ code: 'ERR_KERNEL', details: expect.objectContaining({ key, errno }) }),
        )
      }
    })
  })

  describe('sockets', () => {
    const fds: number[] = []
    const bind = (type: 'udp' | 'tcp', address: string, port: number, more: object = {}): string => {
      try {
        fds.push(host.openSocket({ type, address, port, ...(type === 'tcp' && { listen: 8 }), ...more }))
        return 'ok'
      } catch (error) {
        return (error as { details: { errno: string } }).details.errno
      }
    }
    afterEach(() => {
      for (const fd of fds.splice(0)) host.closeFd(fd)
    })

    test('a port is taken once: the wildcard overlaps every address', () => {
      expect(bind('tcp', '0.0.0.0', 80)).toBe('ok')
      expect(bind('tcp', '0.0.0.0', 80)).toBe('EADDRINUSE')
      expect(bind('tcp', '127.0.0.1', 80)).toBe('EADDRINUSE')
      expect(bind('udp', '127.0.0.1', 80)).toBe('ok')
      expect(bind('udp', '0.0.0.0', 80)).toBe('EADDRINUSE')
      expect(bind('udp', '127.0.0.2', 80)).toBe('ok')
      expect(bind('tcp', '::', 80)).toBe('ok')
      expect(bind('tcp', '::1', 80)).toBe('EADDRINUSE')
      expect(bind('tcp', '0.0.0.0', 81)).toBe('ok')
    })

    test('closed, it is free again', () => {
      const fd = host.openSocket({ type: 'udp', address: '0.0.0.0', port: 80 })
      expect(bind('udp', '0.0.0.0', 80)).toBe('EADDRINUSE')
      host.closeFd(fd)
      expect(bind('udp', '0.0.0.0', 80)).toBe('ok')
    })

    test('SO_REUSEADDR: UDP shares, TCP does not share with a listener', () => {
      const more = { reuseAddress: true }
      expect(bind('udp', '0.0.0.0', 80, more)).toBe('ok')
      expect(bind('udp', '127.0.0.1', 80, more)).toBe('ok')
      expect(bind('udp', '127.0.0.1', 80)).toBe('EADDRINUSE')
      expect(bind('tcp', '0.0.0.0', 80, more)).toBe('ok')
      expect(bind('tcp', '127.0.0.1', 80, more)).toBe('EADDRINUSE')
      expect(bind('tcp', '127.0.0.1', 81, { ...more, listen: undefined })).toBe('ok')
      expect(bind('tcp', '0.0.0.0', 81, { ...more, listen: undefined })).toBe('ok')
    })

    test('the address must be here, unless FREEBIND', async () => {
      expect(bind('udp', '10.0.0.1', 80)).toBe('EADDRNOTAVAIL')
      expect(bind('udp', '10.0.0.1', 80, { freeBind: true })).toBe('ok')
      expect(bind('tcp', 'fd00::1', 80)).toBe('EADDRNOTAVAIL')
      expect(bind('tcp', 'fd00::1', 80, { freeBind: true })).toBe('ok')
      expect(bind('tcp', '127.5.0.1', 80)).toBe('ok')
      await host.apply(SCENE)
      expect(bind('tcp', '10.0.0.1', 81)).toBe('ok')
      expect(bind('tcp', 'fd00::1', 81)).toBe('ok')
    })

    test('each namespace has its own ports', async () => {
      const other = open(await kernel.create(at('other')))
      expect(bind('tcp', '0.0.0.0', 80)).toBe('ok')
      fds.push(other.openSocket({ type: 'tcp', address: '0.0.0.0', port: 80, listen: 1 }))
    })
  })

  describe('events', () => {
    const seen: KernelEvent[] = []
    const told = (match: (event: KernelEvent) => boolean) =>
      eventually(() => expect(seen.some(match)).toBe(true))
    beforeEach(() => void seen.splice(0))

    test('links, addresses and routes, until closed', async () => {
      const watch = host.watch(['link', 'address', 'route'], event => seen.push(event))
      await host.apply(SCENE)
      await told(e => e.topic === 'link' && e.change === 'set' && e.link.name === 'va' && e.link.up)
      await told(e => e.topic === 'address' && e.change === 'set' && e.address.address === '10.0.0.1/24')
      await told(e => e.topic === 'route' && e.change === 'set' && e.route.destination === '10.0.0.0/24')
      await host.apply([
        route('10.9.0.0/16', { gateway: '10.0.0.5' }),
        { op: 'removeRoute', route: { destination: '10.9.0.0/16' } },
      ])
      await told(e => e.topic === 'route' && e.change === 'removed' && e.route.destination === '10.9.0.0/16')
      await host.apply([{ op: 'removeAddress', link: 'va', address: '10.0.0.1/24' }])
      await told(e => e.topic === 'address' && e.change === 'removed' && e.address.address === '10.0.0.1/24')
      await host.apply([{ op: 'removeLink', link: 'va' }])
      await told(e => e.topic === 'link' && e.change === 'removed' && e.link.name === 'va')
      await told(e => e.topic === 'link' && e.change === 'removed' && e.link.name === 'vb')
      watch.close()
      seen.splice(0)
      await host.apply([bridge('br9')])
      await new Promise(done => setTimeout(done, 20))
      expect(seen).toEqual([])
    })

    test('only of the topics asked for, only of this namespace, in order', async () => {
      const other = open(await kernel.create(at('other')))
      const watch = host.watch(['link'], event => seen.push(event))
      await other.apply([bridge('x0')])
      await host.apply([
        bridge('b1'),
        bridge('b2'),
        { op: 'addAddress', link: 'b1', address: '10.0.0.1/24' },
        bridge('b3'),
      ])
      await told(e => e.topic === 'link' && e.link.name === 'b3')
      expect(seen.filter(e => e.topic !== 'link')).toEqual([])
      const names = seen.flatMap(e => (e.topic === 'link' ? [e.link.name] : []))
      expect([...new Set(names)]).toEqual(['b1', 'b2', 'b3'])
      watch.close()
    })

    test('the end of another namespace, by the peer that goes', async () => {
      const inner = await kernel.create(at('inner'))
      await host.apply([add({ kind: 'veth', name: 'va', peer: { name: 'eth0', netns: inner } })])
      host.watch(['link'], event => seen.push(event))
      inner.close()
      await kernel.remove(at('inner'))
      await told(e => e.topic === 'link' && e.change === 'removed' && e.link.name === 'va')
    })
  })

  test('run enters, and comes home with what the body returns or throws', () => {
    expect(host.run(() => 42)).toBe(42)
    expect(() =>
      host.run(() => {
        throw new Error('from inside')
      }),
    ).toThrow('from inside')
  })
}

/** What a refused change must leave as it was. */
async function survey(stack: Stack): Promise<unknown> {
  const text = (items: object[]) => items.map(item => JSON.stringify(item)).sort()
  const [links, addresses, routes, rules] = await Promise.all([
    stack.links(),
    stack.addresses(),
    stack.routes(),
    stack.rules(),
  ])
  return {
    links: links.map(({ name, kind, mac, mtu, up, master, alias }) => ({
      name,
      kind,
      mac,
      mtu,
      up,
      master,
      alias,
    })),
    // link-local addresses come in their own time
    addresses: text(
      addresses
        .filter(each => !each.address.startsWith('fe80'))
        .map(({ link, address }) => ({ link, address })),
    ),
    // and so do IPv6's local routes
    routes: text(
      routes.filter(
        each => !/^(fe80|ff00)/.test(each.destination) && !(each.family === 6 && each.table === 255),
      ),
    ),
    rules: text(rules),
  }
}

/** Tries again until it passes; the kernel does some things in its own time. */
async function eventually(check: () => void | Promise<void>, patienceMs = 5000): Promise<void> {
  const end = Date.now() + patienceMs
  for (;;) {
    try {
      await check()
      return
    } catch (error) {
      if (Date.now() > end) throw error
      await new Promise(done => setTimeout(done, 5))
    }
  }
}
