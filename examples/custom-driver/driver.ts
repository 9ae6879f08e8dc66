/**
 * A network driver of one's own: no bridge, every container has a private cable to the host, which routes between them
 * and answers ARP for all (as some routed container networks do). It only answers with values; the library acts.
 */
import { CnmError, type Driver, type DriverNetwork, flag } from 'libcnm'
import { z } from 'zod'

const Options = z.strictObject({
  /** Switch forwarding on, so that the containers reach one another. */
  forward: flag().default(true),
})
type Options = z.output<typeof Options>

const bare = (address: string): string => address.replace(/\/.*/, '')
const gatewayOf = ({ spec }: DriverNetwork<Options>): string => bare(spec.pools[0]?.gateway ?? '')

/** Named after the endpoint, so that a driver that was restarted knows it again. 15 bytes at most. */
const cableOf = (endpointId: string): string => `rt${endpointId.slice(0, 12)}`

export function routed(): Driver<Options> {
  return {
    name: 'routed',
    capabilities: { dataScope: 'local', connectivityScope: 'local' },
    options: Options,
    labels: { 'com.example.routed.forward': 'forward' },

    async createNetwork(spec) {
      const [pool, ...more] = spec.pools
      if (!pool?.gateway || pool.family !== 4 || more.length > 0)
        throw new CnmError(
          'ERR_INVALID_CONFIG',
          `network ${spec.name}: routed wants one IPv4 subnet with a gateway`,
        )
      return {
        state: { interfacePrefix: 'eth' },
        plan: spec.options.forward ? { sysctls: { 'net/ipv4/ip_forward': '1' } } : undefined,
      }
    },

    async deleteNetwork() {
      return {}
    },

    async join(network, endpoint, { netns, interfaceName, interfaceIndex }) {
      const cable = cableOf(endpoint.id)
      const gateway = gatewayOf(network)
      return {
        plan: {
          changes: [
            {
              op: 'addLink',
              link: {
                kind: 'veth',
                name: cable,
                up: true,
                peer: { name: interfaceName, index: interfaceIndex, netns, mac: endpoint.mac },
              },
            },
            { op: 'addAddress', link: cable, address: `${gateway}/32` },
            {
              op: 'addRoute',
              route: { destination: `${bare(endpoint.ipv4 ?? '')}/32`, link: cable, scope: 'link' },
            },
          ],
          // The host answers for the neighbours, at once.
          sysctls: {
            [`net/ipv4/conf/${cable}/proxy_arp`]: '1',
            [`net/ipv4/neigh/${cable}/proxy_delay`]: '0',
          },
          undo: [{ op: 'removeLink', link: cable, ifExists: true }],
        },
        interface: { arrives: 'born', source: cable, mac: endpoint.mac },
        gateways: { 4: gateway },
      }
    },

    async leave(_network, endpoint) {
      return { changes: [{ op: 'removeLink', link: cableOf(endpoint.id), ifExists: true }] }
    },
  }
}
