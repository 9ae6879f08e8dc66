import type { Change, LinkSpec, RouteSpec } from '../../kernel/kernel'

/** What most tests start from: va-vb (veth, both up), 10.0.0.1/24 and fd00::1/64 on va, br0 and br1 (up). */
export const SCENE: Change[] = [
  { op: 'addLink', link: { kind: 'veth', name: 'va', up: true, peer: { name: 'vb' } } },
  { op: 'setLink', link: 'vb', up: true },
  { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
  { op: 'addLink', link: { kind: 'bridge', name: 'br1', up: true } },
  { op: 'addAddress', link: 'va', address: '10.0.0.1/24' },
  { op: 'addAddress', link: 'va', address: 'fd00::1/64' },
]

/** Before Linux 6.2 a link that is up keeps its name (EBUSY). */
export const DOWN: Change = { op: 'setLink', link: 'va', up: false }

export const add = (link: LinkSpec): Change => ({ op: 'addLink', link })
export const bridge = (name: string): Change => add({ kind: 'bridge', name })
export const route = (destination: string, more: Omit<RouteSpec, 'destination'> = {}): Change => ({
  op: 'addRoute',
  route: { destination, ...more },
})
export const vxlan = (name: string, id: number, port = 4789): Change => add({ kind: 'vxlan', name, id, port })
export const macvlan = (name: string, parent: string, mode: 'bridge' | 'passthru' = 'bridge'): Change =>
  add({ kind: 'macvlan', name, parent, mode })
