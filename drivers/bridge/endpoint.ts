import { randomHex } from '../../lib/base/ids'
import type { Attachment, DriverNetwork, EndpointSpec, JoinRequest, Plan } from '../../lib/driver/contract'
import { gatewayFor, type BridgeData } from './network'
import type { BridgeOptions } from './options'
import type { Change } from '../../lib/kernel/kernel'

type Network = DriverNetwork<BridgeOptions>

export async function join(
  { spec, state }: Network,
  endpoint: EndpointSpec,
  request: JoinRequest,
): Promise<Attachment> {
  const port = `veth${randomHex(7)}`
  const changes: Change[] = [
    {
      op: 'addLink',
      link: {
        kind: 'veth',
        name: port,
        mtu: state.mtu,
        master: state.link,
        up: true,
        peer: {
          name: request.interfaceName,
          index: request.interfaceIndex,
          netns: request.netns,
          mac: endpoint.mac,
          mtu: state.mtu,
        },
      },
    },
  ]
  const isolated = !spec.options.icc
  const { hairpin } = state.data as BridgeData
  if (isolated || hairpin) changes.push({ op: 'setPort', link: port, isolated, hairpin })
  return {
    plan: { changes, undo: [{ op: 'removeLink', link: port, ifExists: true }] },
    interface: { arrives: 'born', source: port, mac: endpoint.mac, mtu: state.mtu },
    gateways: { 4: gatewayFor(spec, 4), 6: gatewayFor(spec, 6) },
  }
}

export async function leave(
  _network: Network,
  _endpoint: EndpointSpec,
  attachment: Attachment,
): Promise<Plan> {
  const port = attachment.interface?.source
  return port ? { changes: [{ op: 'removeLink', link: port, ifExists: true }] } : {}
}
