/** What the drivers of sub-interfaces (macvlan, ipvlan) have in common: each endpoint is a link on the network's parent. */
import { CnmError } from '../../lib/base/errors'
import { linkName } from '../../lib/base/parse'
import type { Attachment, Driver, DriverNetwork } from '../../lib/driver/contract'
import { flag, integer } from '../../lib/driver/options'
import type { LinkSpec } from '../../lib/kernel/kernel'
import { HOST_ADDRESS, hostLinkName, hostWays, withHostLink, withoutHostLink } from './host-access'
import { dropParent, indexOfItsOwn, makeParent } from './parent'

/** Of every such network. */
export const commonOptions = (hostAccess: string) => ({
  parent: linkName().optional().describe('link on the host; eth0.10 is made when absent; default: a dummy'),
  mtu: integer(68, 65535).optional().describe("bytes; default: the parent's"),
  hostAccess: flag().default(false).describe(`the host and the containers reach one another; ${hostAccess}`),
})
interface CommonOptions {
  parent?: string
  mtu?: number
  hostAccess: boolean
}

/** What a link has besides its name and its parent. */
type Own<L = LinkSpec> = L extends { kind: 'macvlan' | 'ipvlan' } ? Omit<L, 'name' | 'parent'> : never

/** Where one kind differs from the other. */
interface Kind<O> extends Pick<Driver<O>, 'name' | 'options' | 'createEndpoint'> {
  labels: Record<string, string>
  /** Of the links that it makes on the host, by what they are. */
  prefixes: { dummy: 'dm-' | 'di-'; host: 'hm-' | 'hi-' }
  /** Its endpoints have the MAC of the parent. */
  sharedMac: boolean
  /** Why the host cannot be among the containers, if it cannot. */
  apart(options: O): string | undefined
  /** May both be on one parent? */
  share(one: O, other: O): boolean
  /** What is told to whoever may not. */
  conflict(options: O, rival: DriverNetwork<O>): string
  link(options: O): Own
  gateways(network: DriverNetwork<O>): Attachment['gateways']
  /** Why the rate of what an interface receives cannot be kept inside, if it cannot. */
  unpaced?(options: O): string | undefined
}

export function subInterfaces<O extends CommonOptions>(kind: Kind<O>): Driver<O> {
  const on = (network: DriverNetwork<O>, name: string): LinkSpec => ({
    ...kind.link(network.spec.options),
    name,
    parent: network.state.link as string,
  })
  return {
    name: kind.name,
    capabilities: {
      dataScope: 'local',
      connectivityScope: 'global',
      onLan: true,
      ...(kind.sharedMac && { sharedMac: true }),
    },
    options: kind.options,
    labels: { ...kind.labels, 'com.docker.network.driver.mtu': 'mtu' },
    skipsGateway: () => [4, 6],
    reserves: ({ options }) => (options.hostAccess ? [HOST_ADDRESS] : []),
    async createNetwork(spec, host, others) {
      const { options } = spec
      const { parent, hostAccess } = options
      const apart = hostAccess ? kind.apart(options) : undefined
      if (apart !== undefined) throw new CnmError('ERR_INVALID_OPTION', `hostAccess: ${apart}`, { parent })
      const rival = others.find(
        other =>
          parent !== undefined &&
          other.state.link === parent &&
          !kind.share(options, other.spec.options as O),
      ) as DriverNetwork<O> | undefined
      if (rival)
        throw new CnmError(
          'ERR_LINK_CONFLICT',
          `${kind.conflict(options, rival)}; name another parent, a VLAN of it (${parent?.split('.')[0]}.10), say`,
          { parent, network: rival.spec.id },
        )
      const made = await makeParent(spec, host, kind.prefixes.dummy, others)
      if (!hostAccess) return made
      const link = on({ spec, state: made.state }, hostLinkName(kind.prefixes.host, spec))
      return withHostLink(made, spec, link)
    },
    deleteNetwork: async (network, _host, others) => withoutHostLink(network, dropParent(network, others)),
    createEndpoint: kind.createEndpoint,
    async join(network, endpoint, { netns, interfaceName }) {
      const { mtu } = network.state
      const mac = kind.sharedMac ? undefined : endpoint.mac
      const ways = hostWays(network, endpoint)
      const link = { ...on(network, interfaceName), index: indexOfItsOwn(), mac, mtu, netns }
      return {
        plan: { changes: [{ op: 'addLink', link }, ...ways.add], undo: ways.remove },
        interface: { arrives: 'born', mac, mtu, ingressUnpaced: kind.unpaced?.(network.spec.options) },
        gateways: kind.gateways(network),
        disableGatewayService: true,
      }
    },
    leave: async (network, endpoint) => ({ changes: hostWays(network, endpoint).remove }),
  }
}
