/**
 * The firewall as data. Drivers and the core say what should hold; a backend (nftables, iptables, none) renders a
 * *change* of it into one transaction per operation. Nothing here knows of rules.
 */
import type { Family } from '../base/cidr'

/** Of a controller that is given no name. */
export const DEFAULT_NAME = 'libcnm'

/** Docker's `com.docker.network.bridge.gateway_mode_ipv4/6`. */
export type GatewayMode =
  /** Translated on the way out, published ports on the way in, everything else from outside closed. */
  | 'nat'
  /** As `nat`, but all ports of the containers are open to those who can route to them. */
  | 'nat-unprotected'
  /** No translation; published ports are opened at the container's own address; ICMP passes. */
  | 'routed'
  /** No address on the bridge: internal networks that not even the host is part of. */
  | 'isolated'

/** What one network wants from the firewall of its host. */
export interface FirewallNetwork {
  /** Network id. */
  id: string
  /** Interface on the host that its packets pass: the bridge. */
  link: string
  internal: boolean
  /** May endpoints of this network talk to one another. */
  icc: boolean
  families: {
    family: Family
    subnets: string[]
    /** Address of the host on the bridge (no prefix). */
    gateway?: string
    mode: GatewayMode
    /** `none`: leave source addresses alone. An address: SNAT to it instead of masquerading. */
    masquerade: boolean | string
  }[]
  /** Host interfaces from which container addresses may be reached directly. */
  trustedLinks: string[]
}

/** Addresses of a joined endpoint, to be guarded against direct access from outside. */
export interface FirewallEndpoint {
  /** Endpoint id. */
  id: string
  networkId: string
  /** Canonical, no prefix. */
  addresses: string[]
}

export type Protocol = 'tcp' | 'udp' | 'sctp'

/** A published port, or a range of them (one to one), as it was made. Exact: nothing is left to be chosen. */
export interface Mapping {
  networkId: string
  endpointId: string
  protocol: Protocol
  /** `0.0.0.0`, `::` or an address of the host. Its family is the mapping's. In mode `routed` it and the host port have no meaning. */
  hostIp: string
  hostPort: number
  /** Last port of the range; equal to hostPort for a single one. */
  hostPortEnd: number
  containerIp: string
  containerPort: number
  /** Sources that may use it (CIDR, of hostIp's family); everybody when absent. */
  allowFrom?: string[]
}

/** A port that a process of the host serves for a container: the userland proxy. */
export type ServedPort = Pick<Mapping, 'protocol' | 'hostIp' | 'hostPort' | 'hostPortEnd'>

/** A legacy link: `from` may reach these ports of `to` on a network with icc off. */
export interface FirewallLink {
  networkId: string
  from: string
  to: string
  ports: { protocol: Protocol; port: number }[]
}

/** What a transaction adds to and takes from the desired state. Removals come first. Objects are matched by id / by value. */
export interface FirewallChange {
  addNetworks?: FirewallNetwork[]
  removeNetworks?: FirewallNetwork[]
  addEndpoints?: FirewallEndpoint[]
  removeEndpoints?: FirewallEndpoint[]
  addMappings?: Mapping[]
  removeMappings?: Mapping[]
  addLinks?: FirewallLink[]
  removeLinks?: FirewallLink[]
}

export interface FirewallProblem {
  kind: 'missing' | 'foreign-drop' | 'forwarding-off'
  message: string
  remedy: string
  details: Record<string, unknown>
}

/** A backend at work in one host namespace. */
export interface Firewall {
  readonly backend: 'nftables' | 'iptables' | 'none'
  /** Makes the fixed part (tables, chains, maps); adopts or replaces what an earlier run left. */
  start(): Promise<void>
  /**
   * One transaction: all of it or nothing. Throws ERR_FIREWALL with the backend's message.
   * The desired state kept in memory changes only if the kernel took it.
   */
  apply(change: FirewallChange): Promise<void>
  /** The desired state, as data. */
  state(): Required<Pick<FirewallChange, 'addNetworks' | 'addEndpoints' | 'addMappings' | 'addLinks'>>
  /** Makes whatever there is the given state (restore), in one transaction; what is right already is not touched. */
  reset(state: FirewallChange): Promise<void>
  /** Compares the kernel's ruleset with the desired state. */
  check(): Promise<FirewallProblem[]>
  /** Makes the kernel's ruleset equal to the desired state again, in one transaction; resolves to whether anything was wrong. */
  repair(): Promise<boolean>
  /**
   * What the proxy serves for clients beyond the host is another now; `ports`: asked when it matters. There counts what others
   * drop of what comes in to the host.
   */
  serve(ports: () => readonly ServedPort[]): void
  /** What others drop of ours, as it was seen last. */
  readonly foreign: readonly FirewallProblem[]
  /** Called after something was noticed and repaired, or cannot be. */
  onProblem(listener: (problems: FirewallProblem[], repaired: boolean) => void): void
  /** Stops watching. `remove`: also takes away all that this controller made. */
  stop(options?: { remove?: boolean }): Promise<void>
}

/** The networks that a change takes away and does not bring again in another form. */
export const goingNetworks = ({ addNetworks = [], removeNetworks = [] }: FirewallChange): FirewallNetwork[] =>
  removeNetworks.filter(({ link }) => !addNetworks.some(network => network.link === link))

/** The inverse of a change: what is needed to undo it. */
export function invert(change: FirewallChange): FirewallChange {
  return {
    addNetworks: change.removeNetworks,
    removeNetworks: change.addNetworks,
    addEndpoints: change.removeEndpoints,
    removeEndpoints: change.addEndpoints,
    addMappings: change.removeMappings,
    removeMappings: change.addMappings,
    addLinks: change.removeLinks,
    removeLinks: change.addLinks,
  }
}
