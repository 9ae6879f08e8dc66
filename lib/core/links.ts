/** What Docker's `--link` opens where the endpoints of a network are kept apart (icc off): the ports that the other one tells of. */
import type { Endpoint } from '../endpoint'
import type { FirewallLink } from '../firewall/contract'
import { exposedPorts } from '../ports/spec'

/** Links between an endpoint and those of its network that are joined, in both directions. `containerId`: of its sandbox. */
export function linksWith(endpoint: Endpoint, containerId: string): FirewallLink[] {
  const { network } = endpoint
  if (network.record.state.firewall?.icc !== false) return []
  const self = { endpoint, containerId }
  return network.endpoints().flatMap(other => {
    if (other === endpoint || !other.sandbox) return []
    const peer = { endpoint: other, containerId: other.sandbox.containerId }
    return [...between(self, peer), ...between(peer, self)]
  })
}

interface End {
  endpoint: Endpoint
  containerId: string
}

/** IPv4, as links have always been. */
function between({ endpoint: source }: End, { endpoint: target, containerId }: End): FirewallLink[] {
  const wanted = Object.values(source.record.config.links)
  const [from, to] = [source.address4, target.address4]
  if (!from || !to || !wanted.some(name => name === target.name || name === containerId)) return []
  const { exposed, ports } = target.record.config
  const open = [...exposedPorts(exposed), ...ports].flatMap(
    ({ containerPort, containerPortEnd = containerPort, protocol }) =>
      Array.from({ length: containerPortEnd - containerPort + 1 }, (_, i) => ({
        protocol,
        port: containerPort + i,
      })),
  )
  return open.length ? [{ networkId: target.network.id, from, to, ports: open }] : []
}

/** Those of the links that end at one of the addresses. */
export const linksOf = (links: FirewallLink[], networkId: string, addresses: string[]): FirewallLink[] =>
  links.filter(
    link => link.networkId === networkId && (addresses.includes(link.from) || addresses.includes(link.to)),
  )
