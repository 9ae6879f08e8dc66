/** Which endpoint is the way out of a sandbox. Pure. */
import type { Family } from '../base/cidr'
import type { RouteSpec } from '../kernel/kernel'

/** What the election needs to know of a joined endpoint. */
export interface Candidate {
  endpointId: string
  networkName: string
  priority: number
  internal: boolean
  /** Of the network that only gives sandboxes without one a way out (docker_gwbridge). */
  fallback: boolean
  /** An address, or `device`. */
  gateways: Partial<Record<Family, string>>
  interfaceName: string
}

/**
 * Best first: higher priority, no fallback network, not internal, more gateways, then the name of the network in
 * ascending order (as libnetwork orders endpoints).
 */
export function byRank(a: Candidate, b: Candidate): number {
  return (
    b.priority - a.priority ||
    Number(a.fallback) - Number(b.fallback) ||
    Number(a.internal) - Number(b.internal) ||
    count(b) - count(a) ||
    (a.networkName < b.networkName ? -1 : a.networkName > b.networkName ? 1 : 0)
  )
}

const count = ({ gateways }: Candidate): number =>
  Number(gateways[4] !== undefined) + Number(gateways[6] !== undefined)

/** The gateway endpoint of each family; they may differ. */
export function elect(candidates: Candidate[]): Partial<Record<Family, Candidate>> {
  const ranked = [...candidates].sort(byRank)
  const first = (family: Family) => ranked.find(({ gateways }) => gateways[family] !== undefined)
  return { 4: first(4), 6: first(6) }
}

export function defaultRoute(family: Family, { gateways, interfaceName }: Candidate): RouteSpec {
  const gateway = gateways[family]
  const destination = family === 4 ? '0.0.0.0/0' : '::/0'
  return gateway === 'device'
    ? { destination, link: interfaceName, scope: 'link' }
    : { destination, gateway, link: interfaceName }
}
