/**
 * The contract between the core and the drivers. A driver looks (through {@link HostView}) and answers with values:
 * what to change and how to undo it. Only the core acts, so every driver is whole-or-nothing without writing a line
 * for it, and can be tested without a kernel. A driver that acts elsewhere (a remote plugin) does so in these calls and
 * undoes it in their opposites.
 */
import type { z } from 'zod'
import type { Family } from '../base/cidr'
import type { FirewallNetwork, GatewayMode } from '../firewall/contract'
import type { AddressSettings } from '../ipam/contract'
import type { Change, IpsecPolicy, IpsecState, LinkSpec, Neighbour, RouteSpec, Stack } from '../kernel/kernel'

/** What a driver may ask about the host. */
export type HostView = Pick<
  Stack,
  'links' | 'link' | 'addresses' | 'routes' | 'routeTo' | 'rules' | 'neighbours' | 'sysctl'
>

/** What should be done to the host, as data. `undo` must tolerate that nothing, or only a part, was done. */
export interface Plan {
  /** Carried out in order, in one batch. */
  changes?: Change[]
  /** Written after the changes. */
  sysctls?: Record<string, string>
  undo?: Change[]
}

/** One subnet of a network, as IPAM gave it. */
export interface NetworkPool {
  family: Family
  /** Subnet, CIDR. */
  subnet: string
  /** ADDRESS/LENGTH; absent when no gateway was allocated. */
  gateway?: string
  /** Reserved addresses by name, ADDRESS/LENGTH. */
  auxiliary: Record<string, string>
}

export interface NetworkSpec<O = unknown> {
  id: string
  name: string
  internal: boolean
  ipv4: boolean
  ipv6: boolean
  pools: NetworkPool[]
  labels: Record<string, string>
  /** Output of the driver's own schema. */
  options: O
}

/** What the driver made of a network. Plain data: it is stored and handed back after a restart. */
export interface NetworkState {
  /** The interface on the host that stands for the network, when there is one. */
  link?: string
  /** A link by which the host itself takes part in the network; `check` and `repair` look after it. Made by the plan. */
  hostLink?: HostLink
  /** Interfaces in sandboxes are called this and the lowest free number. Default `eth`. */
  interfacePrefix?: string
  /** Bytes. */
  mtu?: number
  /** True when the driver decided that nothing outside can be reached (a macvlan without parent). */
  internal?: boolean
  /** What the network wants from the firewall; absent: nothing. */
  firewall?: FirewallNetwork
  /** Ports cannot be published on networks without a mode for the family. */
  modes?: Partial<Record<Family, GatewayMode>>
  /** Used when a published port names no host address. */
  defaultHostIp?: string
  /** Of the host, as the plan set them; the core keeps them for `check`. */
  sysctls?: Record<string, string>
  /** The driver's own. */
  data?: Record<string, unknown>
}

export interface HostLink {
  spec: LinkSpec
  /** ADDRESS/LENGTH */
  addresses: string[]
  /** Written whenever it is made. */
  sysctls?: Record<string, string>
}

export interface DriverNetwork<O = unknown> {
  spec: NetworkSpec<O>
  state: NetworkState
}

export interface EndpointSpec {
  id: string
  name: string
  /** Chosen by the caller or by the core; a driver without MAC handling ignores it. */
  mac: string
  /** The caller named this MAC. */
  macGiven: boolean
  /** ADDRESS/LENGTH */
  ipv4?: string
  ipv6?: string
  linkLocal: string[]
  /** What its addresses come with (a DHCP server says so). The core sees to it. */
  settings?: AddressSettings
  /** Output of the driver's endpointOptions schema. */
  options: Record<string, unknown>
  /** What the driver's createEndpoint answered. */
  data?: Record<string, unknown>
}

/** What the driver wants changed in an endpoint that is being made. It may fill in what the core left open, never replace it. */
export interface EndpointAnswer {
  mac?: string
  ipv4?: string
  ipv6?: string
  data?: Record<string, unknown>
}

export interface JoinRequest {
  /** Sandbox id. */
  sandboxId: string
  /** Path of the sandbox's namespace. */
  sandboxKey: string
  /** Its network stack, to give birth to links in. Undefined for a sandbox that is the host itself. */
  netns?: Stack
  /** The name that the interface will have inside. */
  interfaceName: string
  /** The index that it should have inside; the kernel's choice when absent. */
  interfaceIndex?: number
  /** The options of the sandbox that Docker hands to drivers (exposed ports, port maps), for remote ones. */
  sandboxOptions: Record<string, unknown>
}

/** How an endpoint appears in a sandbox. The core adds what is inside; `plan` is for the host. */
export interface Attachment {
  /** Host side. Carried out first, in the same journey as the inside. */
  plan?: Plan
  /** Absent: nothing appears in the sandbox (host, null). */
  interface?: {
    /** `born`: the plan gives birth to it in the sandbox, under its final name. `moved`: the core moves `source` in and renames it. */
    arrives: 'born' | 'moved'
    /** Link on the host: the one to move, or the other end of the pair. */
    source?: string
    /** `moved`: the interface is called this and the lowest free number, unless the caller named it. */
    prefix?: string
    mac?: string
    mtu?: number
    /** Why the rate of what it receives cannot be kept inside, if it cannot; matters where it has no end on the host. */
    ingressUnpaced?: string
  }
  /** ADDRESS/LENGTH; default: those of the endpoint. */
  addresses?: string[]
  /** Gateway per family: an address, or `device` for a default route without one. */
  gateways?: Partial<Record<Family, string>>
  /** Routes of the interface itself, apart from the default. `link` is filled in by the core. */
  routes?: RouteSpec[]
  neighbours?: Pick<Neighbour, 'address' | 'mac'>[]
  /** Written inside; `IFNAME` in a key stands for the interface. */
  sysctls?: Record<string, string>
  /** The sandbox needs no other way out (no gateway endpoint is made for it). */
  disableGatewayService?: boolean
}

export interface Capabilities {
  /** `global`: addresses come from the cluster's address space and are unique across hosts. */
  dataScope: 'local' | 'global'
  connectivityScope: 'local' | 'global' | ''
  /** False: networks of this driver have no addresses (host, null). Default true. */
  addresses?: boolean
  /** At most one network of this driver; it cannot be deleted. */
  single?: boolean
  /** The driver has endpoints with no MAC address of their own (ipvlan). */
  sharedMac?: boolean
  /** Endpoints stand among the machines of a LAN that the host is on: no address of the host's is chosen for one. */
  onLan?: boolean
}

/** An endpoint of the network that is on another host. */
export interface Peer {
  id: string
  name: string
  mac: string
  /** ADDRESS/LENGTH */
  ipv4?: string
  ipv6?: string
  /** Where tunnels to its host end. */
  vtep: string
}

/** A host of the cluster, as {@link Driver.discover} tells it. */
export interface ClusterNode {
  /** Where the others reach it. */
  address: string
  /** It is this one. */
  self: boolean
}

/** Keys that all hosts of a cluster have, hexadecimal. Received with each, sent with the primary one. */
export interface KeyRing {
  keys: { tag: number; key: string }[]
  /** Its tag. */
  primary: number
}

/** What a kernel must have so that packets between hosts are encrypted. */
export interface Protection {
  states: IpsecState[]
  policies: IpsecPolicy[]
}

/** Networks whose packets are encrypted between hosts. */
export interface Encryption<O = unknown> {
  /** Is it one of these? */
  of(network: DriverNetwork<O>): boolean
  /** States and policies with it are ours. */
  readonly reqid: number
  /** Between this host and the others (addresses where their tunnels end), for the networks that it has a part of. */
  protect(networks: DriverNetwork<O>[], remotes: string[], ring: KeyRing): Protection
}

/**
 * Networks that span the hosts of a cluster. One host creates them; every other one is told, and makes its part when the
 * first endpoint joins there. The core keeps what a host needs to reach endpoints elsewhere.
 */
export interface Spanning<O = unknown> {
  /** What other hosts must know of `state.data`; checked when it is read. */
  readonly data: z.ZodType<Record<string, unknown>>
  /** Sandboxes get a second interface, the way out, unless the network is internal. */
  readonly gatewayBridge: boolean
  /** What is on this host while endpoints are joined here: the plan before the first, its `undo` after the last. */
  settle(network: DriverNetwork<O>, host: HostView): Promise<Plan>
  /** The link that stands for it there, if one does. */
  link(network: DriverNetwork<O>): string | undefined
  /**
   * This host has a network that another one made; or has it no more, since another one deleted it. For a driver that keeps
   * networks of its own (a plugin); the host that makes or deletes it says createNetwork and deleteNetwork instead.
   */
  adopt?(network: DriverNetwork<O>): Promise<void>
  dismiss?(network: DriverNetwork<O>): Promise<void>
  /** How an endpoint elsewhere is reached. May be carried out again. */
  reach(network: DriverNetwork<O>, peer: Peer): { changes: Change[]; undo: Change[] }
  /** Removes what leads to none of the peers. */
  prune(network: DriverNetwork<O>, host: HostView, peers: Peer[]): Promise<Change[]>
  /**
   * nftables text that leaves the host's networks of this driver open to its tunnels alone: `ends` are the addresses of all
   * hosts; networks with `state.link` have their part here. One transaction, which replaces what an earlier one made; no networks: it only removes that.
   */
  guard?(table: string, networks: DriverNetwork<O>[], ends: string[]): string
  readonly encryption?: Encryption<O>
  /** Takes again, from a store that lost it, what the network has of it. */
  reclaim(network: DriverNetwork<O>): Promise<void>
}

export interface Driver<O = unknown> {
  readonly name: string
  readonly capabilities: Capabilities
  /** Of `createNetwork({ options })`. Strict: an unknown option is an error. */
  readonly options: z.ZodType<O>
  /** Docker's labels that stand for options: label → option. */
  readonly labels?: Readonly<Record<string, string>>
  /** Of `createEndpoint({ options })`. */
  readonly endpointOptions?: z.ZodType<Record<string, unknown>>
  readonly endpointLabels?: Readonly<Record<string, string>>
  /** Labels of others among the options reach it too, as they are (a plugin knows what we do not). Default: they are dropped. */
  readonly takesLabels?: boolean

  /**
   * An endpoint's MAC follows from its IPv4 address, unless somebody wants a certain one: so whoever remembers the MAC of an
   * address still reaches it when another endpoint has the address. Default: MACs are random.
   */
  readonly macFromAddress?: boolean

  /** Families for which the network wants no gateway address from IPAM. Default none. */
  skipsGateway?(network: Omit<NetworkSpec<O>, 'pools'>): Family[] | Promise<Family[]>
  /**
   * Names of auxiliary addresses that it wants of every pool: taken as the user named them, or any free one. They come back
   * in `pools[].auxiliary`.
   */
  reserves?(network: Omit<NetworkSpec<O>, 'pools'>): string[]
  /** Checks, looks, answers. `others` are this driver's networks. Throws conflicts with the conflicting object named. */
  createNetwork(
    spec: NetworkSpec<O>,
    host: HostView,
    others: DriverNetwork<O>[],
  ): Promise<{ state: NetworkState; plan?: Plan }>
  /** Changes that remove it; must tolerate that parts are gone. Throwing `denied` refuses; other errors are logged. */
  deleteNetwork(network: DriverNetwork<O>, host: HostView, others: DriverNetwork<O>[]): Promise<Plan>
  createEndpoint?(network: DriverNetwork<O>, endpoint: EndpointSpec): Promise<EndpointAnswer>
  deleteEndpoint?(network: DriverNetwork<O>, endpoint: EndpointSpec): Promise<void>
  join(network: DriverNetwork<O>, endpoint: EndpointSpec, request: JoinRequest): Promise<Attachment>
  /** Changes on the host that remove what join made there. The core takes care of the inside. */
  leave(network: DriverNetwork<O>, endpoint: EndpointSpec, attachment: Attachment): Promise<Plan>
  /** What a driver tells of an endpoint (Docker's EndpointOperInfo). */
  info?(network: DriverNetwork<O>, endpoint: EndpointSpec): Promise<Record<string, unknown>>
  /** After a restart: the networks that exist. The core re-applies plans itself; this is for a driver with state of its own. */
  restore?(networks: DriverNetwork<O>[]): Promise<void>
  /** Remote plugins: the endpoint became, or ceased to be, the way out of its sandbox. */
  externalConnectivity?(
    network: DriverNetwork<O>,
    endpoint: EndpointSpec,
    families: Family[],
    options: Record<string, unknown>,
  ): Promise<void>
  /**
   * In a cluster, for a network that spans hosts: takes what it needs once for all of them. Asked on the host that makes it,
   * before createNetwork; the answer stands for its options from then on, on every host.
   */
  allocateNetwork?(network: NetworkSpec<O>): Promise<O>
  /** The inverse: the network is gone from the cluster. May come again after a crash. */
  freeNetwork?(network: NetworkSpec<O>): Promise<void>
  /**
   * In a cluster, for drivers with `connectivityScope: 'global'`: a host came (this one first) or went. One after the other;
   * what failed is told again with the next change.
   */
  discover?(change: 'new' | 'delete', node: ClusterNode): Promise<void>
  /** Present: networks of this driver are known to all hosts of the cluster. */
  readonly spanning?: Spanning<O>
  close?(): Promise<void>
}
