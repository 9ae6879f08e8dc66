/** What drivers that act elsewhere are told of the way out of a sandbox, in Docker's terms. Pure. */
import type { Family } from '../base/cidr'
import type { PortBinding } from '../ports/contract'
import { exposedPorts } from '../ports/spec'
import type { Candidate } from './gateway'

type Elected = Partial<Record<Family, Candidate>>

/** Endpoints that became, or ceased to be, a way out, and for which families they are one now; those that ceased come first. */
export function gatewayChanges(
  before: Elected,
  after: Elected,
): { endpointId: string; families: Family[] }[] {
  const of = (elected: Elected, id: string) =>
    ([4, 6] as const).filter(family => elected[family]?.endpointId === id)
  const ids = new Set([before[4], before[6], after[4], after[6]].flatMap(each => each?.endpointId ?? []))
  return [...ids]
    .filter(id => of(before, id).join() !== of(after, id).join())
    .map(endpointId => ({ endpointId, families: of(after, endpointId) }))
    .sort((a, b) => a.families.length - b.families.length)
}

/** IANA protocol numbers. */
const PROTOCOLS = { tcp: 6, udp: 17, sctp: 132 } as const

/** The options of a sandbox as Docker hands them to drivers: libnetwork's labels for port maps and exposed ports. */
export function sandboxOptions({
  ports,
  exposed,
}: {
  ports: PortBinding[]
  exposed: string[]
}): Record<string, unknown> {
  return {
    'com.docker.network.portmap': ports.map(port => ({
      Proto: PROTOCOLS[port.protocol],
      IP: '',
      Port: port.containerPort,
      HostIP: port.hostIp ?? '',
      HostPort: port.hostPort ?? 0,
      HostPortEnd: port.hostPortEnd ?? port.hostPort ?? 0,
    })),
    'com.docker.network.endpoint.exposedports': exposedPorts(exposed).map(port => ({
      Proto: PROTOCOLS[port.protocol],
      Port: port.containerPort,
    })),
  }
}

/** Docker's note for the gateway of IPv4 that another endpoint is the gateway of IPv6: do not serve one by the other. */
export const NO_PROXY_6TO4 = 'com.docker.network.driver.private.no_proxy_6to4'
