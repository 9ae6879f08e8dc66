/** What is held: a cell for each port of each address and protocol, shared while one publication replaces another. Pure. */
import { familyOf } from '../base/cidr'
import type { Protocol } from '../firewall/contract'
import type { PortRange } from './allocator'
import type { PublishedPort } from './contract'
import type { ProxyListener } from './proxy'

/**
 * Ports. A longer range is not held by sockets (10,000 ports in two families would cost 20,000 descriptors): its ports
 * are looked up in the kernel's tables when it is reserved, those found there are tried, and from then on only our own
 * bookkeeping and the firewall's translation hold it.
 */
export const MAX_HELD_RANGE = 256

/**
 * One port of one address and protocol, or one long range of them; what the sockets belong to. Several published
 * ports share it while one replaces another.
 */
export interface Cell {
  key: string
  protocol: Protocol
  address: string
  range: PortRange
  /** By address: one for the address itself, or (a UDP wildcard that is proxied) one for each address of the host. */
  sockets: Map<string, number>
  /** Sockets take no packets: they reserve only. */
  silent: boolean
  /** Those for whom it is held, oldest first; the newest that was started says where the proxy leads. */
  users: { port: PublishedPort; started: boolean }[]
  listener?: ProxyListener
}

export const isWildcard = (address: string) => address === '0.0.0.0' || address === '::'

export const isLoopback = (address: string) => address === '::1' || address.startsWith('127.')

export const addressesClash = (a: string, b: string) =>
  familyOf(a) === familyOf(b) && (a === b || isWildcard(a) || isWildcard(b))

export const isLong = ({ first, last }: PortRange) => last - first >= MAX_HELD_RANGE

export const cellKey = (protocol: Protocol, address: string, { first, last }: PortRange) =>
  `${protocol} ${address} ${first}${last === first ? '' : `-${last}`}`

/** Port by port, so that a range and another one that replaces it can share; a long one whole, unless it is proxied. */
export function* cellRanges({ hostPort, hostPortEnd, proxied }: PublishedPort): Generator<PortRange> {
  if (isLong({ first: hostPort, last: hostPortEnd }) && !proxied) yield { first: hostPort, last: hostPortEnd }
  else for (let port = hostPort; port <= hostPortEnd; port++) yield { first: port, last: port }
}

export type Match = (a: PublishedPort, b: PublishedPort) => boolean

export const isSame: Match = (a, b) => a === b

export const equalPorts: Match = (a, b) =>
  a === b ||
  (a.endpointId === b.endpointId &&
    a.networkId === b.networkId &&
    a.protocol === b.protocol &&
    a.hostIp === b.hostIp &&
    a.hostPort === b.hostPort &&
    a.hostPortEnd === b.hostPortEnd &&
    a.containerIp === b.containerIp &&
    a.containerPort === b.containerPort &&
    a.proxied === b.proxied &&
    (a.proxyProtocol ?? false) === (b.proxyProtocol ?? false) &&
    JSON.stringify(a.allowFrom) === JSON.stringify(b.allowFrom))
