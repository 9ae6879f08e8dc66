import type { Family } from '../../base/cidr'
import type {
  ConntrackFilter,
  IpvlanFlag,
  IpvlanMode,
  KernelEvent,
  MacvlanMode,
  Route,
  Rule,
  IpsecPolicy,
  IpsecState,
  Scope,
  SocketOptions,
} from '../../kernel/kernel'

/** An address with prefix, parsed once: {@link lookup} compares numbers. */
export interface Prefix {
  family: Family
  value: bigint
  length: number
}

export interface AddressRecord {
  /** ADDRESS/LENGTH */
  text: string
  ip: string
  prefix: Prefix
  scope: Scope
  tentative: boolean
  noPrefixRoute: boolean
  /** IPv4: another address of the same subnet came first; it goes when that one goes (unless promote_secondaries). */
  secondary: boolean
}

export interface NeighbourRecord {
  address: string
  mac: string
}

export interface FdbRecord {
  mac: string
  remote?: string
  self: boolean
}

export interface Shaper {
  bitsPerSecond: number
  burstBytes?: number
  latencyMs?: number
}

export interface PortFlags {
  hairpin: boolean
  isolated: boolean
  learning: boolean
  flood: boolean
  neighbourSuppression: boolean
}

/** What a kind keeps besides the fields that all links have. */
export interface KindData {
  vxlan?: { id: number; port: number; local?: string; learning: boolean; proxy: boolean; parent?: LinkRecord }
  macvlan?: { mode: MacvlanMode; broadcastQueue: number; broadcastCutoff: number }
  ipvlan?: { mode: IpvlanMode; flag: IpvlanFlag }
  vlan?: { id: number }
  bridge?: { vlanFiltering: boolean; multicastSnooping: boolean }
}

export interface LinkRecord {
  netns: Netns
  index: number
  name: string
  /** undefined: lo and hardware, which cannot be removed. */
  kind: string | undefined
  mac: string
  /** Somebody chose it: a bridge then no longer follows its ports' lowest. */
  macSet: boolean
  mtu: number
  /** Somebody changed it later: a bridge then no longer follows its ports. What it was made with does not count. */
  mtuSet: boolean
  up: boolean
  promiscuous: boolean
  alias: string | undefined
  master: LinkRecord | undefined
  ports: Set<LinkRecord>
  /** A bridge has carrier from the start, but once it had ports only through one of them. */
  hadPorts: boolean
  /** veth: the other end. */
  peer: LinkRecord | undefined
  /** macvlan, ipvlan, vlan: the link below. */
  parent: LinkRecord | undefined
  children: Set<LinkRecord>
  port: PortFlags | undefined
  data: KindData
  addresses: AddressRecord[]
  routes: Set<RouteRecord>
  neighbours: Map<string, NeighbourRecord>
  fdb: FdbRecord[]
  shaper: Shaper | undefined
  ingressMirror: LinkRecord | undefined
  /** IPv6 was started on it: it is up, has carrier and its link-local address was made. */
  ipv6Ready: boolean
}

export interface RouteRecord extends Omit<Route, 'link'> {
  prefix: Prefix
  link: LinkRecord | undefined
}

export interface SocketRecord {
  fd: number
  options: SocketOptions
  family: Family
  port: number
}

/** An entry of the connection tracker; tests put them into {@link Netns.conntrack}. */
export type ConntrackEntry = Required<Pick<ConntrackFilter, 'family'>> & Omit<ConntrackFilter, 'family'>

export interface Listener {
  topics: ReadonlySet<string>
  deliver: (event: KernelEvent) => void
}

/** A network namespace. Dead once no path is bound to it and no handle is open. */
export interface Netns {
  inode: number
  /** Bound paths, oldest first. */
  paths: Set<string>
  /** Open stacks and the process's own use. */
  holders: number
  alive: boolean
  links: Map<number, LinkRecord>
  names: Map<string, LinkRecord>
  nextIndex: number
  /** By `family table destination`. */
  routes: Map<string, RouteRecord[]>
  /** Routes of users that prefer a source address: they go with it. */
  sourced: Set<RouteRecord>
  rules: Rule[]
  /** Without keys of states that are only told. */
  ipsecStates: IpsecState[]
  ipsecPolicies: IpsecPolicy[]
  /** Written or per-interface values; {@link readSysctl} knows the defaults. */
  sysctls: Map<string, string>
  sockets: Map<number, SocketRecord>
  nft: string[]
  conntrack: ConntrackEntry[]
  listeners: Set<Listener>
}

/** The machine that the namespaces are on. */
export interface Machine {
  /** Kinds and features that this kernel lacks: `ipvlan`, `br_netfilter`, `esp` ... */
  lacks: ReadonlySet<string>
  liveRename: boolean
  emit(netns: Netns, event: KernelEvent): void
  /** Runs later, in order with the events: the end of duplicate address detection. */
  later(act: () => void): void
}

export function newNetns(inode: number): Netns {
  return {
    inode,
    paths: new Set(),
    holders: 0,
    alive: true,
    links: new Map(),
    names: new Map(),
    nextIndex: 1,
    routes: new Map(),
    sourced: new Set(),
    rules: [],
    ipsecStates: [],
    ipsecPolicies: [],
    sysctls: new Map(),
    sockets: new Map(),
    nft: [],
    conntrack: [],
    listeners: new Set(),
  }
}
