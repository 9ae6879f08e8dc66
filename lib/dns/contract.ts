/**
 * Names of containers: what the core tells, what a resolver answers with. One {@link Names} per controller holds the
 * zones of all networks in memory; one {@link SandboxResolver} per sandbox answers on 127.0.0.11:53 from those of the
 * networks that the sandbox is on. Records derive from live endpoints only: nothing here is stored.
 *
 * Names are DNS names in any case, without the trailing dot. Addresses are canonical text without prefix length.
 */
import type { Family } from '../base/cidr'
import type { Logger } from '../base/log'
import type { Stack } from '../kernel/kernel'

/** Where the resolver of a sandbox answers, as containers know it from Docker. */
export const RESOLVER_ADDRESS = '127.0.0.11'

/** Seconds. Short, because an address can move to another endpoint as soon as this one leaves. */
export const RECORD_TTL = 5

/** An endpoint as its network's zone knows it. */
export interface NameRecord {
  endpointId: string
  networkId: string
  networkName: string
  /** In order: name, aliases, short container id, hostname. The first is what PTR answers with (`name.network`). */
  names: string[]
  ipv4?: string
  ipv6?: string
  /** Named ports, for SRV: `_http._tcp.web`. */
  ports?: NamedPort[]
  /** Name of the service whose task this is; `tasks.` names come from {@link Names.setService}. */
  service?: string
}

export interface NamedPort {
  name: string
  protocol: 'tcp' | 'udp' | 'sctp'
  port: number
}

/**
 * A record of one's own. `name` may begin with `*.`: then it stands for every name below that has no record of its own.
 * `ttl` in seconds; {@link RECORD_TTL} when absent.
 */
export type CustomRecord = { name: string; ttl?: number } & (
  | { type: 'A' | 'AAAA'; address: string }
  | { type: 'CNAME'; target: string }
  | { type: 'TXT'; text: string | string[] }
  | { type: 'SRV'; target: string; port: number; priority?: number; weight?: number }
)

/** A DNS server that knows the names which we do not. */
export interface Upstream {
  address: string
  /** 53 when absent. */
  port?: number
  /** In whose namespace it is asked: `host` for those of the host's resolv.conf, `sandbox` for explicit ones. */
  from: 'host' | 'sandbox'
  /** Split DNS: asked for names in these domains only, and then before all that have none. */
  domains?: string[]
}

export interface NetworkNames {
  name: string
  /** Asked by the sandboxes of this network that have none of their own. Text: {@link parseUpstream}, asked from the sandbox. */
  upstreams?: (string | Upstream)[]
  internal: boolean
  /** False: no names are served (the default bridge network, docker_gwbridge, ingress). */
  serves: boolean
}

export interface ServiceNames {
  id: string
  name: string
  aliases: string[]
  /** Absent or empty: the name gives the tasks' addresses (endpoint mode dnsrr). */
  vips?: string[]
  tasks: { endpointId: string; ipv4?: string; ipv6?: string }[]
  ports?: NamedPort[]
}

/** The zones of all networks. A change is visible to the very next query. */
export interface Names {
  /** Grows with every change: what was derived from an older generation is stale. */
  readonly generation: number
  setEndpoint(record: NameRecord): void
  removeEndpoint(networkId: string, endpointId: string): void
  /** An unhealthy endpoint is left out of the answers (its names stay known). Healthy when nothing was said. */
  setHealth(endpointId: string, healthy: boolean): void
  /** Replaces the network's own records. Throws ERR_INVALID_OPTION naming the record that cannot be. */
  setRecords(networkId: string, records: CustomRecord[]): void
  setNetwork(networkId: string, options: NetworkNames): void
  removeNetwork(networkId: string): void
  setService(networkId: string, service: ServiceNames): void
  removeService(networkId: string, serviceId: string): void
}

/** How one sandbox sees the world of names. */
export interface SandboxView {
  sandboxId: string
  /** Network ids, in gateway priority order. */
  networks: string[]
  /** Alias → name of the target; seen by this sandbox only. */
  links: Record<string, string>
  upstreams: Upstream[]
  searchDomains: string[]
  /** The user set `ndots`: unknown single-label names then get an empty answer, so that the stub tries its search list. */
  ndotsFromUser: boolean
  /** Has a gateway. If not, upstreams are never asked from the host: queries must not leak out of an internal network. */
  external: boolean
}

/**
 * `redirect` (the default): the resolver listens on a random port, and rules in the sandbox lead 127.0.0.11:53 there and
 * back, so that a container can bind 0.0.0.0:53 itself. `direct`: it listens on 127.0.0.11:53; no rules, but a
 * container's own server on 0.0.0.0:53 meets EADDRINUSE.
 */
export type ListenMode = 'redirect' | 'direct'

export interface ResolverOptions {
  names: Names
  /** The sandbox's stack. */
  stack: Stack
  /** The host's stack: from there the host's upstreams are asked. */
  host: Stack
  view: SandboxView
  mode?: ListenMode
  /** The sandbox had a resolver before: where its rules still stand, its ports are taken again and the rules left alone. */
  inherit?: boolean
  log?: Logger
}

export interface SandboxResolver {
  update(view: SandboxView): void
  /** Asks itself, by the way that a container's question takes. */
  answers(): Promise<boolean>
  statistics(): ResolverStatistics
  /** Closes the sockets and (unless the sandbox is going anyway: `keepRules`) removes the rules. */
  close(options?: { keepRules?: boolean }): Promise<void>
}

export interface ResolverStatistics {
  /** Questions heard. */
  queries: number
  tcpQueries: number
  /** Answered from the zones. */
  local: number
  /** Answered from what an upstream said earlier. */
  cached: number
  /** Asked of upstreams. */
  forwarded: number
  /** SERVFAIL for want of an answer. */
  failed: number
  /** REFUSED: too many at once. */
  refused: number
  /** Packets that were no proper question: dropped or FORMERR. */
  malformed: number
  truncated: number
  /** Answers by UDP that the kernel did not take: no room, no way. */
  unsent: number
  inFlight: number
  cacheEntries: number
  upstreams: UpstreamStatistics[]
}

export interface UpstreamStatistics {
  address: string
  port: number
  from: 'host' | 'sandbox'
  asked: number
  answered: number
  failed: number
  /** Milliseconds, smoothed; undefined before the first answer. */
  roundTrip: number | undefined
  /** Did not answer lately: asked last. */
  down: boolean
}

/** A listener for the host itself, in the host's namespace: it answers for the given networks (all when absent). */
export interface HostListenerOptions {
  names: Names
  stack: Stack
  address: string
  port: number
  networks?: string[]
  /** Asked for other names; without any, those are REFUSED, so that a stub goes to its next server. */
  upstreams?: Upstream[]
  log?: Logger
}

export interface HostListener {
  readonly address: string
  /** The one chosen, when 0 was asked for. */
  readonly port: number
  statistics(): ResolverStatistics
  close(): Promise<void>
}

export type ResolveName = (names: Names, view: SandboxView, name: string, family: Family) => string[]
export type ResolveIp = (names: Names, view: SandboxView, ip: string) => string[]
