import { z } from 'zod'
import { CnmError } from '../../lib/base/errors'
import { linkName } from '../../lib/base/parse'
import type { Driver } from '../../lib/driver/contract'
import { integer } from '../../lib/driver/options'
import { dropParent, gatewaysOf, makeParent } from '../macvlan/parent'

const IpvlanOptions = z.strictObject({
  parent: linkName().optional().describe('link on the host; eth0.10 is made when absent; default: a dummy'),
  mode: z.enum(['l2', 'l3', 'l3s']).default('l2'),
  flag: z.enum(['bridge', 'private', 'vepa']).default('bridge'),
  mtu: integer(68, 65535).optional().describe("bytes; default: the parent's"),
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
    async createNetwork(spec, host, others) {
      const { parent } = spec.options
      const rival = others.find(other => parent !== undefined && other.state.link === parent)
      if (rival)
        throw new CnmError(
          'ERR_LINK_CONFLICT',
          `network ${rival.spec.name} (${rival.spec.id}) is already using parent interface ${parent}`,
          { parent, network: rival.spec.id },
        )
      return makeParent(spec, host, 'di-', others)
    },
    deleteNetwork: async (network, _host, others) => dropParent(network, others),
    async createEndpoint(_network, endpoint) {
      if (endpoint.macGiven)
        throw new CnmError(
          'ERR_UNSUPPORTED',
          'ipvlan interfaces do not support custom mac address assignment',
          {
            mac: endpoint.mac,
          },
        )
      return {}
    },
    async join(network, _endpoint, { netns, interfaceName, interfaceIndex }) {
      const { state, spec } = network
      const { mode, flag } = spec.options
      return {
        plan: {
          changes: [
            {
              op: 'addLink',
              link: {
                kind: 'ipvlan',
                name: interfaceName,
                index: interfaceIndex,
                parent: state.link as string,
                mode,
                flag,
                mtu: state.mtu,
                netns,
              },
            },
          ],
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
    leave: async () => ({}),
  }
}
