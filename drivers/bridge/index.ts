import type { Driver } from '../../lib/driver/contract'
import { join, leave } from './endpoint'
import { createNetwork, deleteNetwork, skipsGateway } from './network'
import { BridgeOptions, LABELS } from './options'

/**
 * A network is a Linux bridge on the host; an endpoint is a veth pair, one end a port of the bridge, the other born in
 * the sandbox. Traffic leaves the host routed and (unless told otherwise) masqueraded.
 * `mtu`: bytes, of networks that name none; default: that of the host's default route.
 */
export function bridge({ mtu }: { mtu?: number } = {}): Driver<BridgeOptions> {
  return {
    name: 'bridge',
    capabilities: { dataScope: 'local', connectivityScope: 'local' },
    options: BridgeOptions,
    labels: LABELS,
    macFromAddress: true,
    skipsGateway,
    createNetwork: (spec, host, others) => createNetwork(spec, host, others, mtu),
    deleteNetwork,
    join,
    leave,
  }
}
