/**
 * The seam between this library and Linux. Everything that touches the system goes through here, so that the mocked
 * kernel (libcnm/testing) can stand in for the real one. Verbs: add, remove, set, list, watch; handles open and close.
 *
 * A {@link Kernel} makes and opens network namespaces; a {@link Stack} is the network stack of one. Changes are plain
 * data, so that they can be batched, compared, logged and replayed. Addresses are canonical text, prefixes `ADDR/LEN`.
 */
import type { Family } from '../base/cidr'
import type { Datagrams } from './binding'

export interface Kernel {
  /** True for a model of Linux: its sockets carry nothing, so no server can live on them. */
  readonly simulated?: boolean
  /** Opens the namespace bound to (or found at) `path`; the process's own when absent. Throws ERR_NETNS_NOT_FOUND. */
  open(path?: string): Promise<Stack>
  /**
   * Makes a new namespace, binds it to `path` (parents are made), sets `lo` up. Without a path it is for stock: made in
   * nobody's time, and gone with the stack. Throws ERR_NETNS_EXISTS, ERR_PRIVILEGE.
   */
  create(path?: string): Promise<Stack>
  /**
   * Binds the namespace found at `source` (say `/proc/PID/ns/net`) to `path` as well, replacing what was bound there. A
   * stack from stock is itself the answer: from then on it has the path; it replaces nothing (ERR_NETNS_EXISTS).
   */
  bind(source: string | Stack, path: string): Promise<Stack>
  /** Unbinds `path` and removes the file. The namespace dies when nothing else holds it. Absent: does nothing. */
  remove(path: string): Promise<void>
  /** The paths in a directory to which a namespace is bound. */
  list(directory: string): Promise<string[]>
  /**
   * Carries out steps in order, in one journey. A step that fails stops the later steps; within a step the kernel goes
   * on after a change that failed. Throws the error of the first failing change, with
   * `details: { step, change, errno, op }`; the caller undoes what took effect.
   */
  transact(steps: Step[]): Promise<void>
}

export interface Step {
  stack: Stack
  changes: Change[]
}

/** The network stack of one namespace. */
export interface Stack {
  /** Where it is bound; undefined for the process's own. */
  readonly path: string | undefined
  /** Inode number of the namespace: its identity. */
  readonly inode: number
  /** {@link Kernel.transact} with one step. */
  apply(changes: Change[]): Promise<void>

  links(): Promise<Link[]>
  link(nameOrIndex: string | number): Promise<Link | undefined>
  addresses(link?: number): Promise<Address[]>
  routes(filter?: { family?: Family; table?: number }): Promise<Route[]>
  /** All links, addresses and routes, asked for in one journey. */
  survey(): Promise<Survey>
  /** Policy routing rules. */
  rules(): Promise<Rule[]>
  /** ARP and ND entries; `bridge: true` for the forwarding database entries (FDB). */
  neighbours(filter?: { link?: number; bridge?: boolean }): Promise<Neighbour[]>
  /** Links with a token bucket ({@link Change} `setShaper`), or whose incoming packets are redirected (`setIngressMirror`). */
  shapers(): Promise<Shaper[]>
  /** IPsec ESP, transport mode. Throws ERR_UNSUPPORTED on a kernel without XFRM. Keys are not told. */
  ipsecStates(): Promise<IpsecState[]>
  /** Those for outgoing UDP. Throws as {@link ipsecStates} does. */
  ipsecPolicies(): Promise<IpsecPolicy[]>
  /** Which route a packet to `destination` takes; undefined when there is none. */
  routeTo(destination: string): Promise<Route | undefined>

  /** Reads `/proc/sys/KEY` (slashes, say `net/ipv4/ip_forward`) inside the namespace; undefined when it does not exist. */
  sysctl(key: string): string | undefined
  /** Writes them in order; values that are right already are not written. Throws ERR_KERNEL with `details.key`. */
  setSysctls(values: Record<string, string>): void

  /** Events of this namespace until closed. The listener must not throw. */
  watch(topics: Topic[], listener: (event: KernelEvent) => void): Watch

  /**
   * Hears what other namespaces lose, by one socket for all that are followed: links that went or were set down, addresses and
   * routes that were removed. `key`: whose it is, as given to `follow`; undefined with an overrun. The listener must not throw.
   * Throws ERR_PRIVILEGE without CAP_NET_BROADCAST.
   */
  watchLosses(listener: (event: LossEvent, key: string | undefined) => void): LossWatch

  /**
   * Opens a socket inside the namespace and returns its descriptor, for `dgram.bind({ fd })` or `net.listen({ fd })`.
   * Throws ERR_KERNEL with `details.errno` ('EADDRINUSE', 'EADDRNOTAVAIL', ...). Close with `closeFd`.
   */
  openSocket(options: SocketOptions): number
  closeFd(fd: number): void
  /**
   * Serves a UDP socket of {@link openSocket} in batches, from then on its owner; see {@link Datagrams}. `onHeard` is told how many
   * datagrams have come, or a negative errno. Throws ERR_KERNEL.
   */
  serveDatagrams(fd: number, onHeard: (count: number) => void): Datagrams

  /**
   * Sends and hears whole Ethernet frames on a link, from under the link's own use of them (an AF_PACKET socket): `hear` gets
   * what the filter accepts, also what passes to or from others. The frame is the listener's own. Absent: this kernel carries
   * none. Throws ERR_KERNEL, ERR_LINK_NOT_FOUND.
   */
  openPackets?(options: PacketOptions, hear: (frame: Uint8Array) => void): Packets

  /** Runs nftables commands as one transaction; returns what they print. Throws ERR_KERNEL with libnftables' message. */
  nft(commands: string): string
  /**
   * Sends ready nftables messages (batch begin and end included, one asking for an acknowledgement) as one transaction: for
   * rules that never differ, where reading text would cost more than the kernel does. Absent: use `nft`. Throws ERR_FIREWALL
   * with `details.errno`.
   */
  nftBatch?(messages: Uint8Array): void
  /**
   * Adds and removes elements of sets and maps of an nftables table of family inet, in order, as one transaction: a tenth
   * of what `nft` costs. Absent: use `nft`. Throws ERR_FIREWALL with `details.errno`, or ERR_PRIVILEGE.
   */
  nftElements?(table: string, changes: readonly ElementChange[]): void
  /**
   * The rules of a table as the kernel's messages, back to back; none when there is no such table. Absent together with
   * `nftBatch`. Throws ERR_FIREWALL, ERR_PRIVILEGE.
   */
  nftRules?(family: 'ip' | 'inet', table: string): Uint8Array
  /** Deletes conntrack entries that match any of the filters (all given fields of one must match); resolves to how many. */
  flushConntrack(filters: ConntrackFilter[]): Promise<number>
  /** Enters the namespace, runs `body` (which must not await), comes home. For libraries that open sockets themselves. */
  run<T>(body: () => T): T

  /** Lets go of the descriptors; the namespace lives on as long as it is bound or used. */
  close(): void
}

export interface Survey {
  links: Link[]
  addresses: Address[]
  routes: Route[]
}

export interface Watch {
  close(): void
}

export interface LossWatch extends Watch {
  /** From now on the namespace of a stack is listened to; another one of the same key no more. */
  follow(key: string, stack: Stack): void
  forget(key: string): void
}

export type { Datagrams }

export interface SocketOptions {
  type: 'udp' | 'tcp' | 'sctp'
  /** Canonical address; its family decides the socket's. IPv6 sockets are V6ONLY. */
  address: string
  port: number
  /** TCP and SCTP: listen with this backlog. */
  listen?: number
  reuseAddress?: boolean
  /** IP_FREEBIND / IPV6_FREEBIND: the address need not exist yet. */
  freeBind?: boolean
  /** Drops every packet (classic BPF): the socket only reserves the port. */
  dropAll?: boolean
  /** IP_TRANSPARENT: may answer for foreign addresses. */
  transparent?: boolean
  /** UDP: connected to it, so that it hears nobody else, and of what does not arrive there. */
  peer?: { address: string; port: number }
}

/**
 * Elements of one nftables set or map that are added or removed, packed: keys, ends and values lie back to back, as the kernel
 * has them (network order; the fields of a concatenation padded to four bytes each).
 */
export interface ElementChange {
  change: 'add' | 'remove'
  set: string
  count: number
  keys: Uint8Array
  /** The last key of each interval: sets of intervals have it in every element. */
  ends?: Uint8Array
  /** What a map leads to: one of these. A removal does not need it. */
  values?: Uint8Array
  verdicts?: Verdict[]
}

export type Verdict = { verdict: 'accept' | 'drop' } | { verdict: 'goto'; chain: string }

export interface PacketOptions {
  /** Index of the link. */
  link: number
  /** A classic BPF program (linux/filter.h) over the frame, Ethernet header first: code, jt, jf, k of each instruction. */
  filter: readonly (readonly [code: number, jt: number, jf: number, k: number])[]
  /** The link hears what is for other MAC addresses too, as long as this is open. */
  promiscuous?: boolean
}

export interface Packets {
  /** What the link cannot take (it is down, its queue is full) is lost, as on any wire. */
  send(frame: Uint8Array): void
  /** Again: does nothing. */
  close(): void
}

export interface ConntrackFilter {
  family: Family
  protocol?: 'tcp' | 'udp' | 'sctp'
  /** Original direction. */
  source?: string
  destination?: string
  destinationPort?: number
  /** Reply direction's source: the container that a translated flow ends at. */
  replySource?: string
}

/* ---------------------------------------------------------------- what there is */

export interface Link {
  index: number
  name: string
  /** `bridge`, `veth`, `vxlan`, `macvlan` ...; undefined for lo and hardware. */
  kind: string | undefined
  mac: string | undefined
  mtu: number
  up: boolean
  /** IFF_LOWER_UP: has carrier. */
  carrier: boolean
  loopback: boolean
  /** Index of the bridge that it is a port of. */
  master: number | undefined
  /** Index of the parent or peer (IFLA_LINK); may be in another namespace. */
  parent: number | undefined
  alias: string | undefined
  /** Bridge port state, when it is one. */
  port?: { hairpin: boolean; isolated: boolean; learning: boolean; state: number }
  /** The kind's own data, decoded where it is known. */
  info?: LinkInfo
  statistics: LinkStatistics
}

export interface LinkInfo {
  vxlan?: { id: number; port: number; local?: string; learning: boolean; proxy: boolean; parent?: number }
  /** Packets that may wait to be copied for everybody on the parent; receivers up to which none waits (Linux 6.4). */
  macvlan?: { mode: MacvlanMode; broadcastQueue: number; broadcastCutoff?: number }
  ipvlan?: { mode: IpvlanMode; flag: IpvlanFlag }
  vlan?: { id: number }
}

export interface LinkStatistics {
  rxBytes: number
  txBytes: number
  rxPackets: number
  txPackets: number
  rxErrors: number
  txErrors: number
  rxDropped: number
  txDropped: number
}

export interface Address {
  link: number
  /** ADDRESS/LENGTH */
  address: string
  scope: Scope
  /** IPv6: still in duplicate address detection. */
  tentative: boolean
  permanent: boolean
}

export type Scope = 'global' | 'site' | 'link' | 'host' | 'nowhere'
export type RouteType =
  | 'unicast'
  | 'local'
  | 'broadcast'
  | 'anycast'
  | 'multicast'
  | 'blackhole'
  | 'unreachable'
  | 'prohibit'

export interface Route {
  family: Family
  /** Subnet; `0.0.0.0/0` and `::/0` for the default. */
  destination: string
  type: RouteType
  gateway?: string
  link?: number
  source?: string
  metric: number
  /** 254 main, 255 local. */
  table: number
  scope: Scope
  /** Who made it: linux/rtnetlink.h RTPROT_*: 2 kernel, 3 boot, 4 static, 186 bgp ... */
  protocol: number
  onLink?: boolean
  mtu?: number
}

export interface Rule {
  family: Family
  priority: number
  table: number
  source?: string
  destination?: string
  mark?: number
  iif?: string
  oif?: string
}

export interface Neighbour {
  link: number
  /** IP address: the neighbour's, or (FDB) the remote tunnel end. */
  address?: string
  mac?: string
  permanent: boolean
  /** FDB entry of the device itself rather than of its bridge. */
  self?: boolean
  vlan?: number
}

/** What paces a link. */
export interface Shaper {
  link: number
  /** Of the token bucket on what leaves. */
  bitsPerSecond?: number
  /** Index of the link to which all that enters is redirected. */
  mirror?: number
}

/** How packets from one address to another are encrypted: ESP in transport mode, AES-GCM (RFC 4106). */
export interface IpsecState {
  source: string
  destination: string
  /** Security parameters index, 256 and more: with the destination it tells the state. */
  spi: number
  /** Whose it is: policies ask for states of theirs. */
  reqid: number
  /** Hexadecimal: 16, 24 or 32 bytes of AES, then 4 of salt. Absent in what the kernel tells. */
  key?: string
  /** That it has served; told by the kernel. */
  packets?: number
}

/** Which packets must be encrypted: outgoing UDP with a firewall mark, by which state. */
export interface IpsecPolicy {
  source: string
  destination: string
  /** UDP, of the destination. */
  port: number
  mark: number
  reqid: number
  spi: number
}

/* ---------------------------------------------------------------- what can be changed */

/** A link by name or index. A name is resolved by the kernel itself (IFLA_IFNAME), in the order of the batch. */
export type LinkRef = string | number

export type MacvlanMode = 'private' | 'vepa' | 'bridge' | 'passthru' | 'source'
export type IpvlanMode = 'l2' | 'l3' | 'l3s'
export type IpvlanFlag = 'bridge' | 'private' | 'vepa'

interface NewLink {
  name: string
  /** Chosen index; the kernel's choice when absent. */
  index?: number
  mac?: string
  mtu?: number
  /** Bridge to be a port of. */
  master?: LinkRef
  up?: boolean
  alias?: string
  /** Where it is born instead of in the stack itself (IFLA_NET_NS_FD). */
  netns?: Stack
}

export type LinkSpec = NewLink &
  (
    | { kind: 'bridge'; vlanFiltering?: boolean; multicastSnooping?: boolean }
    /** The peer is born in its own namespace: never visible here. */
    | {
        kind: 'veth'
        peer: { name: string; index?: number; mac?: string; mtu?: number; netns?: Stack; up?: boolean }
      }
    | {
        kind: 'macvlan'
        parent: LinkRef
        mode: MacvlanMode
        broadcastQueue?: number
        broadcastCutoff?: number
      }
    | { kind: 'ipvlan'; parent: LinkRef; mode: IpvlanMode; flag?: IpvlanFlag }
    | { kind: 'vlan'; parent: LinkRef; id: number }
    | {
        kind: 'vxlan'
        id: number
        port?: number
        local?: string
        parent?: LinkRef
        learning?: boolean
        proxy?: boolean
        l2miss?: boolean
        l3miss?: boolean
      }
    | { kind: 'dummy' | 'ifb' }
  )

/** One change. Absent fields are left as they are (or at the kernel's default). */
export type Change =
  | { op: 'addLink'; link: LinkSpec }
  /** Absent link: ENODEV, unless `ifExists`. */
  | { op: 'removeLink'; link: LinkRef; ifExists?: boolean }
  | {
      op: 'setLink'
      link: LinkRef
      up?: boolean
      rename?: string
      mtu?: number
      mac?: string
      /** null: leave the bridge. */
      master?: LinkRef | null
      alias?: string
      netns?: Stack
      promiscuous?: boolean
    }
  | {
      op: 'setPort'
      link: LinkRef
      hairpin?: boolean
      isolated?: boolean
      learning?: boolean
      flood?: boolean
      neighbourSuppression?: boolean
    }
  /** IPv6 addresses are added without duplicate address detection (IFA_F_NODAD) unless `dad`. */
  | {
      op: 'addAddress' | 'removeAddress'
      link: LinkRef
      address: string
      dad?: boolean
      scope?: Scope
      noPrefixRoute?: boolean
    }
  | { op: 'addRoute' | 'replaceRoute' | 'removeRoute'; route: RouteSpec }
  | { op: 'addRule' | 'removeRule'; rule: Rule }
  | { op: 'setNeighbour' | 'removeNeighbour'; link: LinkRef; address: string; mac: string }
  /** FDB: frames to `mac` leave by the port, or (vxlan) through the tunnel to `remote`. */
  | { op: 'setFdb' | 'removeFdb'; link: LinkRef; mac: string; remote?: string; self?: boolean }
  /** Token bucket on what leaves by the link, or a redirect of what enters it to an ifb link; null removes. Bits per second. */
  | {
      op: 'setShaper'
      link: LinkRef
      rate: { bitsPerSecond: number; burstBytes?: number; latencyMs?: number } | null
    }
  | { op: 'setIngressMirror'; link: LinkRef; target: LinkRef | null }
  /** One of the same destination and SPI: EEXIST. */
  | { op: 'addIpsecState' | 'removeIpsecState'; state: IpsecState }
  /** At once in the place of one of the same addresses, port and mark. */
  | { op: 'setIpsecPolicy' | 'removeIpsecPolicy'; policy: IpsecPolicy }

export interface RouteSpec {
  destination: string
  type?: RouteType
  gateway?: string
  link?: LinkRef
  source?: string
  metric?: number
  table?: number
  scope?: Scope
  onLink?: boolean
  mtu?: number
}

/* ---------------------------------------------------------------- what happens */

export type Topic = 'link' | 'address' | 'route' | 'rule' | 'neighbour' | 'nft' | 'ipsec'

export type KernelEvent =
  | { topic: 'link'; change: 'set' | 'removed'; link: Link }
  | { topic: 'address'; change: 'set' | 'removed'; address: Address }
  | { topic: 'route'; change: 'set' | 'removed'; route: Route }
  | { topic: 'rule'; change: 'set' | 'removed'; rule: Rule }
  | { topic: 'neighbour'; change: 'set' | 'removed'; neighbour: Neighbour }
  /** Somebody (perhaps we) changed the ruleset: `table` is the table touched, `pid` the netlink port of the changer if known. */
  | { topic: 'nft'; change: 'set' | 'removed'; object: string; family: string; table?: string; pid?: number }
  /** A state or policy of IPsec went: which, look for yourself. */
  | { topic: 'ipsec'; change: 'removed' }
  /** The socket overran (ENOBUFS): some events were lost; look for yourself. */
  | { topic: 'overrun' }

/** See {@link Stack.watchLosses}. */
export type LossEvent = Extract<KernelEvent, { topic: 'link' | 'address' | 'route' | 'overrun' }>
