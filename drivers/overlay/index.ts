import { contains, familyOf, parseCidr } from '../../lib/base/cidr'
import { CnmError } from '../../lib/base/errors'
import type { ClusterHost, Segments } from '../../lib/cluster/contract'
import type { Attachment, Driver, EndpointSpec, JoinRequest, NetworkSpec } from '../../lib/driver/contract'
import { joinByPair, leaveByPair } from '../../lib/driver/pair'
import type { RouteSpec } from '../../lib/kernel/kernel'
import { protect, tested } from './encryption'
import { guard } from './guard'
import { LABELS, OverlayData, OverlayOptions } from './options'
import { bridgeOf, dataOf, mtuFor, type Network, prune, reach, settle } from './tunnel'

/** IANA's, for VXLAN (RFC 7348). */
const PORT = 4789

export interface OverlaySettings {
  /** Absent: this host is in no cluster, and cannot have such networks. */
  cluster?: { host: ClusterHost; segments: Segments }
  /** UDP port of the tunnels; the same on all hosts. */
  port?: number
  /** Firewall mark of what is to be encrypted, and number of what IPsec has for it: this controller's own on its host. */
  mark?: number
}

/** 32 bits, as a netlink attribute holds them. */
const MARK = 0xc17a_77ed

/**
 * A network that spans hosts: on each host a bridge and a VXLAN tunnel, an endpoint a veth pair as with the bridge driver.
 * Where endpoints of other hosts are is told by the cluster: nothing is learned from packets.
 */
export function overlay({ cluster, port = PORT, mark = MARK }: OverlaySettings = {}): Driver<OverlayOptions> {
  const needed = () => {
    if (cluster) return cluster
    throw new CnmError(
      'ERR_CLUSTER_REQUIRED',
      'overlay networks span hosts: this controller is in no cluster',
    )
  }
  return {
    name: 'overlay',
    capabilities: { dataScope: 'global', connectivityScope: 'global' },
    options: OverlayOptions,
    labels: LABELS,
    macFromAddress: true,
    async createNetwork(spec, host) {
      const { host: self, segments } = needed()
      validate(spec)
      const { encrypted } = spec.options
      const mtu = spec.options.mtu ?? (await mtuFor(self.address, host, encrypted))
      if (spec.ipv6 && mtu < 1280)
        throw new CnmError(
          'ERR_INVALID_CONFIG',
          `network ${spec.name}: IPv6 needs an MTU of 1280 (RFC 8200), and there are ${mtu} bytes`,
          { mtu },
        )
      const vni = await segments.take(spec.id, spec.options.id)
      return { state: { mtu, data: { vni, port } }, ...(encrypted && { plan: tested(self.address) }) }
    },
    async deleteNetwork(network) {
      await needed().segments.giveBack(network.spec.id, dataOf(network).vni)
      return {}
    },
    async join(network, endpoint, request) {
      return join(network, endpoint, request)
    },
    async leave(_network, _endpoint, attachment) {
      return leaveByPair(attachment)
    },
    async info(network) {
      return { vni: dataOf(network).vni }
    },
    spanning: {
      data: OverlayData,
      gatewayBridge: true,
      async settle(network, host) {
        const { address } = needed().host
        const plan = await settle(network, address, host)
        return network.spec.options.encrypted ? tested(address, plan) : plan
      },
      link: bridgeOf,
      reach,
      prune,
      guard: (table, networks, ends) => guard(table, networks, ends, mark),
      encryption: {
        of: ({ spec }) => spec.options.encrypted,
        reqid: mark,
        protect: (networks, remotes, ring) => protect(networks, needed().host.address, remotes, ring, mark),
      },
      async reclaim(network) {
        await needed().segments.take(network.spec.id, dataOf(network).vni)
      },
    },
  }
}

function validate({ name, pools }: NetworkSpec<OverlayOptions>): void {
  if (pools.length === 0)
    throw new CnmError('ERR_INVALID_CONFIG', `network ${name}: IPv4 or IPv6 must be enabled`)
  for (const { family, subnet } of pools)
    if (subnet.endsWith('/0'))
      throw new CnmError(
        'ERR_INVALID_CONFIG',
        `network ${name}: the IPv${family} pool ${subnet} is no subnet; an overlay answers for addresses that it knows: name one in ipam.config`,
      )
}

function join(network: Network, endpoint: EndpointSpec, request: JoinRequest): Attachment {
  const own = [endpoint.ipv4, endpoint.ipv6].flatMap(cidr => (cidr ? [cidr] : []))
  return { ...joinByPair(network, endpoint, request), routes: routesTo(network.spec, own) }
}

/** The network's other subnets are on the same wire. */
function routesTo({ pools }: NetworkSpec<OverlayOptions>, own: string[]): RouteSpec[] {
  const families = new Set(own.map(familyOf))
  const direct = (subnet: string) =>
    own.some(cidr => cidr.endsWith(subnet.slice(subnet.indexOf('/'))) && inside(cidr, subnet))
  return pools
    .filter(({ family, subnet }) => families.has(family) && !direct(subnet))
    .map(({ subnet }) => ({ destination: subnet, scope: 'link' as const }))
}

const inside = (cidr: string, subnet: string): boolean => contains(parseCidr(subnet), parseCidr(cidr))
