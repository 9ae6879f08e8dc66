import { z } from 'zod'
import { CnmError } from '../../lib/base/errors'
import { linkName } from '../../lib/base/parse'
import type { Driver } from '../../lib/driver/contract'
import { flag, integer } from '../../lib/driver/options'
import { HOST_ADDRESS, hostLinkName, hostWays, withHostLink, withoutHostLink } from './host-access'
import { dropParent, gatewaysOf, indexOfItsOwn, makeParent } from './parent'

const MacvlanOptions = z.strictObject({
  parent: linkName().optional().describe('link on the host; eth0.10 is made when absent; default: a dummy'),
  mode: z.enum(['bridge', 'private', 'vepa', 'passthru']).default('bridge'),
  mtu: integer(68, 65535).optional().describe("bytes; default: the parent's"),
  broadcastCutoff: integer(-1, 2147483647)
    .optional()
    .describe(
      'up to so many receivers of a multicast address are served without queueing, -1: all; Linux 6.4',
    ),
  broadcastQueue: integer(0, 4294967295)
    .optional()
    .describe('packets that may wait to be copied to everybody; default: 1000; Linux 5.11'),
  hostAccess: flag()
    .default(false)
    .describe('the host and the containers reach one another; mode bridge only'),
})
type MacvlanOptions = z.output<typeof MacvlanOptions>

/** Each endpoint is a link of its own MAC on the parent, born in the sandbox. */
export function macvlan(): Driver<MacvlanOptions> {
  return {
    name: 'macvlan',
    capabilities: { dataScope: 'local', connectivityScope: 'global' },
    options: MacvlanOptions,
    // Docker's; then what Podman and CNI call the same.
    labels: {
      macvlan_mode: 'mode',
      'com.docker.network.driver.mtu': 'mtu',
      bclim: 'broadcastCutoff',
      bcqueuelen: 'broadcastQueue',
    },
    skipsGateway: () => [4, 6],
    reserves: ({ options }) => (options.hostAccess ? [HOST_ADDRESS] : []),
    async createNetwork(spec, host, others) {
      const { parent, mode, hostAccess } = spec.options
      if (hostAccess && mode !== 'bridge')
        throw new CnmError(
          'ERR_INVALID_OPTION',
          `hostAccess: in mode ${mode} nobody on the parent reaches the containers directly, the host neither; it needs mode bridge`,
          { mode },
        )
      const rival = others.find(
        other =>
          parent !== undefined &&
          other.state.link === parent &&
          (mode === 'passthru' || other.spec.options.mode === 'passthru'),
      )
      if (rival)
        throw new CnmError(
          'ERR_LINK_CONFLICT',
          `cannot use mode ${mode}, macvlan network ${rival.spec.name} (${rival.spec.id}) is already using parent interface ${parent}; in mode passthru a network has it alone: name another parent, a VLAN of it (${parent?.split('.')[0]}.10), say`,
          { parent, network: rival.spec.id },
        )
      const made = await makeParent(spec, host, 'dm-', others)
      if (!hostAccess) return made
      const name = hostLinkName('hm-', spec)
      return withHostLink(made, spec, { kind: 'macvlan', name, parent: made.state.link as string, mode })
    },
    deleteNetwork: async (network, _host, others) => withoutHostLink(network, dropParent(network, others)),
    async join(network, endpoint, { netns, interfaceName }) {
      const { state, spec } = network
      const { mode, broadcastCutoff, broadcastQueue } = spec.options
      const { mac } = endpoint
      const ways = hostWays(network, endpoint)
      return {
        plan: {
          changes: [
            {
              op: 'addLink',
              link: {
                kind: 'macvlan',
                name: interfaceName,
                index: indexOfItsOwn(),
                parent: state.link as string,
                mode,
                broadcastCutoff,
                broadcastQueue,
                mac,
                mtu: state.mtu,
                netns,
              },
            },
            ...ways.add,
          ],
          undo: ways.remove,
        },
        interface: { arrives: 'born', mac, mtu: state.mtu },
        gateways: gatewaysOf(network),
        disableGatewayService: true,
      }
    },
    leave: async (network, endpoint) => ({ changes: hostWays(network, endpoint).remove }),
  }
}
