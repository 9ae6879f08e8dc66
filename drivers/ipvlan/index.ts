import { z } from 'zod'
import { CnmError } from '../../lib/base/errors'
import type { Driver } from '../../lib/driver/contract'
import { gatewaysOf } from '../macvlan/parent'
import { commonOptions, subInterfaces } from '../macvlan/sub-interface'

const { parent, mtu, hostAccess } = commonOptions('mode l2, flag bridge only')
const IpvlanOptions = z.strictObject({
  parent,
  mode: z.enum(['l2', 'l3', 'l3s']).default('l2'),
  flag: z.enum(['bridge', 'private', 'vepa']).default('bridge'),
  mtu,
  hostAccess,
})
type IpvlanOptions = z.output<typeof IpvlanOptions>

/** Endpoints share the MAC of the parent and are told apart by address. */
export const ipvlan = (): Driver<IpvlanOptions> =>
  subInterfaces<IpvlanOptions>({
    name: 'ipvlan',
    options: IpvlanOptions,
    labels: { ipvlan_mode: 'mode', ipvlan_flag: 'flag' },
    prefixes: { dummy: 'di-', host: 'hi-' },
    sharedMac: true,
    apart: ({ mode, flag }) =>
      mode === 'l2' && flag === 'bridge'
        ? undefined
        : `it needs mode l2 and flag bridge, not ${mode} and ${flag}`,
    // Mode and flag are the parent's: the last one that is set is everybody's.
    share: () => false,
    conflict: ({ parent: wanted }, { spec }) =>
      `network ${spec.name} (${spec.id}) is already using parent interface ${wanted}`,
    link: ({ mode, flag }) => ({ kind: 'ipvlan', mode, flag }),
    gateways: network =>
      network.spec.options.mode === 'l2'
        ? gatewaysOf(network)
        : network.state.internal
          ? {}
          : Object.fromEntries(network.spec.pools.map(({ family }) => [family, 'device'])),
    unpaced: ({ mode }) =>
      mode === 'l3s'
        ? 'in mode l3s packets come in by the host and pass no interface of the container where they could wait; use mode l2 or l3'
        : undefined,
    async createEndpoint(_network, { macGiven, mac }) {
      if (macGiven)
        throw new CnmError(
          'ERR_UNSUPPORTED',
          `mac: ipvlan interfaces do not support custom mac address assignment (got "${mac}"), all have the parent's; leave it out, or use macvlan`,
          { mac },
        )
      return {}
    },
  })
