/** Published ports: what is asked for (a binding) and what is made of it (a mapping, lib/firewall). */
import type { Family } from '../base/cidr'
import type { Mapping, Protocol } from '../firewall/contract'

/** What a caller asks for. `hostPort` absent or 0: a port is chosen from the host's dynamic range. */
export interface PortBinding {
  containerPort: number
  /** Last port of a container range; equal length host range, or one port chosen for it from a longer host range. */
  containerPortEnd?: number
  protocol: Protocol
  /** Absent: every address of the host, IPv4 and IPv6. */
  hostIp?: string
  hostPort?: number
  hostPortEnd?: number
  /** Sources that may use it (CIDR). */
  allowFrom?: string[]
  /** The userland proxy announces the client with a PROXY protocol v2 header. */
  proxyProtocol?: boolean
}

/** Where the bindings end: an endpoint on a network. */
export interface PublishTarget {
  networkId: string
  endpointId: string
  /** The container's addresses (no prefix); a family that is absent is not published (or is proxied to the other one). */
  ipv4?: string
  ipv6?: string
  /** Per family, from the driver; absent: `nat`. `routed`: no host port is taken. */
  modes: Partial<Record<Family, 'nat' | 'nat-unprotected' | 'routed' | 'isolated'>>
  /** Used when a binding names no host address; default `0.0.0.0` and `::`. */
  defaultHostIp?: string
}

/** A binding as it stands, as `docker port` and inspect show it. */
export interface PublishedPort extends Mapping {
  /** True when the userland proxy carries it (the kernel cannot). */
  proxied: boolean
  proxyProtocol?: boolean
}

export interface PortPublisher {
  /**
   * Chooses and reserves ports; changes nothing else. Throws ERR_PORT_IN_USE (naming the holder), ERR_PORTS_EXHAUSTED, ERR_INVALID_PORT.
   * `replacing`: ports that the caller will release after this (a change of allowFrom, say): the same port of the same
   * host address is shared with them instead of being in use.
   */
  reserve(
    target: PublishTarget,
    bindings: PortBinding[],
    replacing?: PublishedPort[],
  ): Promise<PublishedPort[]>
  /** Takes exactly these (restore). Ports that cannot be had any more are left out of the answer. */
  readopt(ports: PublishedPort[]): Promise<PublishedPort[]>
  /** Starts proxies for those that need one. The firewall change is the caller's, before this. If it throws, release the ports. */
  start(ports: PublishedPort[]): Promise<void>
  /** Those that the proxy carries for clients beyond the host. */
  readonly served: PublishedPort[]
  /** Ends proxies and frees the reservations. Never throws. */
  release(ports: PublishedPort[]): Promise<void>
  close(): Promise<void>
}
