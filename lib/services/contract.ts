/** Services: names behind which several endpoints stand as tasks. What the balancing inside a sandbox is made from. */
import type { Family } from '../base/cidr'

export type ServiceProtocol = 'tcp' | 'udp' | 'sctp'

/** One port of a service, parsed. */
export interface ServicePort {
  /** For SRV records. */
  name?: string
  /** Of the virtual IP. */
  port: number
  /** Of the tasks. */
  targetPort: number
  protocol: ServiceProtocol
  /** Of the hosts; absent: not published. */
  publishedPort?: number
  /** `ingress`: on every host, to any task. `host`: on the hosts of the tasks, each to its own. */
  mode: 'ingress' | 'host'
}

/** An endpoint that stands for a service. */
export interface ServiceTask {
  endpointId: string
  name: string
  /** In a cluster: whose it is. */
  host?: string
  /** Without a prefix. */
  ipv4?: string
  ipv6?: string
  /** Share of the new flows among the tasks; 0: none (it is being drained). */
  weight: number
  healthy: boolean
}

/** Where new flows may go: a task that is healthy and not being drained. */
export interface Backend {
  id: string
  weight: number
  addresses: Partial<Record<Family, string>>
}

/** A service as a sandbox balances it. */
export interface Balanced {
  id: string
  /** Without a prefix. */
  vips: Partial<Record<Family, string>>
  /** None: every port, as it is. */
  ports: readonly ServicePort[]
  /** The same client comes to the same task as long as it is there. */
  sticky: boolean
  backends: readonly Backend[]
}
