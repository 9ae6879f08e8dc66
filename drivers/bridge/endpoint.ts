import type { Attachment, DriverNetwork, EndpointSpec, JoinRequest, Plan } from '../../lib/driver/contract'
import { joinByPair, leaveByPair } from '../../lib/driver/pair'
import { gatewayFor, type BridgeData } from './network'
import type { BridgeOptions } from './options'

type Network = DriverNetwork<BridgeOptions>

export async function join(
  network: Network,
  endpoint: EndpointSpec,
  request: JoinRequest,
): Promise<Attachment> {
  const { spec, state } = network
  const isolated = !spec.options.icc
  const { hairpin } = state.data as BridgeData
  return {
    ...joinByPair(network, endpoint, request, port =>
      isolated || hairpin ? [{ op: 'setPort', link: port, isolated, hairpin }] : [],
    ),
    gateways: { 4: gatewayFor(spec, 4), 6: gatewayFor(spec, 6) },
  }
}

export async function leave(
  _network: Network,
  _endpoint: EndpointSpec,
  attachment: Attachment,
): Promise<Plan> {
  return leaveByPair(attachment)
}
