import { z } from 'zod'
import { CnmError } from '../../lib/base/errors'
import { linkName } from '../../lib/base/parse'
import type { Driver } from '../../lib/driver/contract'
import { flag as boolean, integer } from '../../lib/driver/options'
import { HOST_ADDRESS, hostLinkName, hostWays, withHostLink, withoutHostLink } from '../macvlan/host-access'
import { dropParent, gatewaysOf, indexOfItsOwn, makeParent } from '../macvlan/parent'

const IpvlanOptions = z.strictObject({
  parent: linkName().optional().describe('link on the host; eth0.10 is made when absent; default: a dummy'),
  mode: z.enum(['l2', 'l3', 'l3s']).default('l2'),
  flag: z.enum(['bridge', 'private', 'vepa']).default('bridge'),
  mtu: integer(68, 65535).optional().describe("bytes; default: the parent's"),
  hostAccess: boolean()
    .default(false)
    .describe('the host and the containers reach one another; mode l2, flag bridge only'),
})
type IpvlanOptions = z.output<typeof IpvlanOptions>

/** Endpoints share the MAC of the parent and are told apart by address. */
export function ipvlan(): Driver<IpvlanOptions> {
  return {
    name: 'ipvlan',
    capabilities: { dataScope: 'local', connectivityScope: 'global', sharedMac: true },
    options: IpvlanOptions,
    labels: { ipvlan_mode: 'mode', ipvlan_flag: 'flag', 'com.docker.network.driver.mtu': 'mtu' },
    skipsGateway: () => [4, 6],
    reserves: ({ options }) => (options.hostAccess ? [HOST_ADDRESS] : []),
    async createNetwork(spec, host, others) {
      const { parent, mode, flag, hostAccess } = spec.options
      if (hostAccess && (mode !== 'l2' || flag !== 'bridge'))
        throw new CnmError(
          'ERR_INVALID_OPTION',
          `hostAccess: it needs mode l2 and flag bridge, not ${mode} and ${flag}`,
          { mode, flag },
        )
      const rival = others.find(other => parent !== undefined && other.state.link === parent)
      if (rival)
        throw new CnmError(
          'ERR_LINK_CONFLICT',
          `network ${rival.spec.name} (${rival.spec.id}) is already using parent interface ${parent}; name another one, a VLAN of it (${parent?.split('.')[0]}.10), say`,
          { parent, network: rival.spec.id },
        )
      const made = await makeParent(spec, host, 'di-', others)
      if (!hostAccess) return made
      const name = hostLinkName('hi-', spec)
      return withHostLink(made, spec, { kind: 'ipvlan', name, parent: made.state.link as string, mode, flag })
    },
    deleteNetwork: async (network, _host, others) => withoutHostLink(network, dropParent(network, others)),
    async createEndpoint(_network, endpoint) {
      if (endpoint.macGiven)
        throw new CnmError(
          'ERR_UNSUPPORTED',
          `mac: ipvlan interfaces do not support custom mac address assignment (got "${endpoint.mac}"), all have the parent's; leave it out, or use macvlan`,
          { mac: endpoint.mac },
        )
      return {}
    },
    async join(network, endpoint, { netns, interfaceName }) {
      const { state, spec } = network
      const { mode, flag } = spec.options
      const ways = hostWays(network, endpoint)
      return {
        plan: {
          changes: [
            {
              op: 'addLink',
              link: {
                kind: 'ipvlan',
                name: interfaceName,
                index: indexOfItsOwn(),
                parent: state.link as string,
                mode,
                flag,
                mtu: state.mtu,
                netns,
              },
            },
            ...ways.add,
          ],
          undo: ways.remove,
        },
        interface: { arrives: 'born', mtu: state.mtu },
        gateways:
          mode === 'l2'
            ? gatewaysOf(network)
            : state.internal
              ? {}
              : Object.fromEntries(spec.pools.map(({ family }) => [family, 'device'])),
        disableGatewayService: true,
      }
    },
    leave: async (network, endpoint) => ({ changes: hostWays(network, endpoint).remove }),
  }
}
