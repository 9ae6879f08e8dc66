/** The picture's parts: networks on the left, sandboxes on the right, a line for each endpoint. Pure. */
import type { Topology } from '../../api/topology'

export interface GraphNetwork {
  name: string
  /** `bridge br-1234, internal` */
  kind: string
  /** `10.10.0.0/24 (gateway 10.10.0.1)` */
  lines: string[]
  internal: boolean
}

export interface GraphSandbox {
  name: string
  mode: string
}

export interface GraphEdge {
  /** Positions in the lists. */
  network: number
  sandbox: number
  /** The host's end of the pair and the end inside. */
  from: string
  to: string
  addresses: string[]
  /** `8080 -> 80/tcp` */
  ports: string[]
  /** The sandbox's way out. */
  gateway: boolean
}

export interface Graph {
  title: string
  networks: GraphNetwork[]
  sandboxes: GraphSandbox[]
  edges: GraphEdge[]
}

export function modelOf(topology: Topology, { all = false } = {}): Graph {
  const used = new Set(topology.sandboxes.flatMap(({ endpoints }) => endpoints.map(({ network }) => network)))
  const networks = topology.networks
    .filter(({ name }) => all || used.has(name))
    .sort((a, b) => compare(a.name, b.name))
  const sandboxes = [...topology.sandboxes].sort((a, b) => compare(a.containerId, b.containerId))
  const place = new Map(networks.map(({ name }, at) => [name, at]))
  const edges = sandboxes.flatMap(({ endpoints }, sandbox) =>
    endpoints.flatMap(endpoint => {
      const network = place.get(endpoint.network)
      if (network === undefined) return []
      const { hostLink = '', interfaceName, ipv4, ipv6, ports, gateway } = endpoint
      const addresses = [ipv4, ipv6].filter((address): address is string => address !== undefined)
      return [{ network, sandbox, from: hostLink, to: interfaceName, addresses, ports, gateway }]
    }),
  )
  return {
    title: `${topology.controller} (firewall: ${topology.firewall})`,
    networks: networks.map(({ name, driver, link, internal, subnets }) => ({
      name,
      kind: [driver, link].filter(Boolean).join(' ') + (internal ? ', internal' : ''),
      lines: subnets.map(({ subnet, gateway }) => (gateway ? `${subnet} (gateway ${gateway})` : subnet)),
      internal,
    })),
    sandboxes: sandboxes.map(({ containerId, mode }) => ({
      name: containerId.replace(/^([0-9a-f]{12})[0-9a-f]{52}$/, '$1'),
      mode,
    })),
    edges: edges.sort((a, b) => a.network - b.network || a.sandbox - b.sandbox),
  }
}

/** `web-2` before `web-10`. */
const { compare } = new Intl.Collator('en', { numeric: true })
