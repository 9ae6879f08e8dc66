import type { IpsecPolicy, IpsecState } from '../../kernel/kernel'
import { hasCarrier } from './links'
import { showRoute } from './routes'
import type { LinkRecord, Machine, Netns } from './state'
import { defaultSysctl } from './sysctls'

/** Everything there is, as plain sorted data. */
export interface Snapshot {
  namespaces: NamespaceSnapshot[]
}

export interface LinkSnapshot {
  name: string
  kind?: string
  mac: string
  mtu: number
  up: boolean
  /** Not of bridges: whether one without ports has carrier depends on its past, which is no state to compare. */
  carrier?: boolean
  /** Name of the bridge. */
  master?: string
  /** Name of the link below; with the namespace's name in front when it is another's. */
  parent?: string
  peer?: string
  alias?: string
  promiscuous?: true
  port?: Record<string, boolean>
  info?: Record<string, unknown>
  shaper?: Record<string, number>
  ingressMirror?: string
}

export interface NamespaceSnapshot {
  /** Its first path; `own` for the process's, `anonymous` when only handles hold it. */
  name: string
  paths: string[]
  links: LinkSnapshot[]
  addresses: { link: string; address: string; scope: string }[]
  routes: Record<string, unknown>[]
  rules: Record<string, unknown>[]
  ipsecStates: IpsecState[]
  ipsecPolicies: IpsecPolicy[]
  neighbours: { link: string; address: string; mac: string }[]
  fdb: { link: string; mac: string; remote?: string; self: boolean }[]
  sockets: { type: string; address: string; port: number }[]
  /** Those that do not have their default. */
  sysctls: Record<string, string>
  /** What the ruleset model says is loaded; absent without one. */
  nft?: unknown
}

const nameOf = (netns: Netns, own?: string): string => own ?? [...netns.paths][0] ?? 'anonymous'

export function snapshotOf(
  machine: Machine,
  netns: Netns,
  own: string | undefined,
  nft: unknown,
): NamespaceSnapshot {
  const links = [...netns.links.values()]
  const snapshot: NamespaceSnapshot = {
    name: nameOf(netns, own),
    paths: [...netns.paths].sort(),
    links: sorted(links.map(link => describeLink(link))),
    addresses: sorted(
      links.flatMap(link =>
        link.addresses.map(({ text, scope }) => ({ link: link.name, address: text, scope })),
      ),
    ),
    routes: sorted(
      [...netns.routes.values()].flat().map(route => {
        const { link: _, ...rest } = showRoute(route)
        return { ...rest, ...(route.link && { link: route.link.name }) }
      }),
    ),
    rules: sorted(netns.rules.map(rule => defined<Record<string, unknown>>({ ...rule }))),
    ipsecStates: sorted(netns.ipsecStates.map(state => ({ ...state }))),
    ipsecPolicies: sorted(netns.ipsecPolicies.map(policy => ({ ...policy }))),
    neighbours: sorted(
      links.flatMap(link => [...link.neighbours.values()].map(entry => ({ link: link.name, ...entry }))),
    ),
    fdb: sorted(links.flatMap(link => link.fdb.map(entry => ({ link: link.name, ...entry })))),
    sockets: sorted(
      [...netns.sockets.values()].map(({ options, port }) => ({
        type: options.type,
        address: options.address,
        port,
      })),
    ),
    sysctls: Object.fromEntries(
      [...netns.sysctls]
        .filter(([key, value]) => defaultSysctl(machine, netns, key) !== value)
        .sort(([a], [b]) => (a < b ? -1 : 1)),
    ),
  }
  if (nft !== undefined) snapshot.nft = nft
  return snapshot
}

function describeLink(link: LinkRecord): LinkSnapshot {
  const far = (other: LinkRecord) =>
    other.netns === link.netns ? other.name : `${nameOf(other.netns)}: ${other.name}`
  const { vxlan, ...data } = link.data
  const info = { ...data, ...(vxlan && { vxlan: { ...vxlan, parent: vxlan.parent && far(vxlan.parent) } }) }
  const shown: Cleared<LinkSnapshot> = {
    name: link.name,
    kind: link.kind,
    mac: link.mac,
    mtu: link.mtu,
    up: link.up,
    carrier: link.kind === 'bridge' ? undefined : hasCarrier(link),
    master: link.master?.name,
    parent: link.parent && far(link.parent),
    peer: link.peer && far(link.peer),
    alias: link.alias,
    promiscuous: link.promiscuous ? true : undefined,
    port: link.port && { ...link.port },
    info: Object.keys(info).length > 0 ? info : undefined,
    shaper: link.shaper && { ...link.shaper },
    ingressMirror: link.ingressMirror?.name,
  }
  return defined(shown)
}

/** Absent fields may be spelled out as undefined. */
type Cleared<T> = { [K in keyof T]: T[K] | undefined }

/** A deep copy without the fields that are undefined. */
function defined<T>(object: Cleared<T>): T {
  return JSON.parse(JSON.stringify(object)) as T
}

/** By the text of each element, so that order never depends on history. */
export function sorted<T>(items: T[]): T[] {
  return items
    .map(item => ({ item, text: JSON.stringify(item) }))
    .sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0))
    .map(({ item }) => item)
}
