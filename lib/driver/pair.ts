import { randomHex } from '../base/ids'
import type { Change } from '../kernel/kernel'
import type { Attachment, DriverNetwork, EndpointSpec, JoinRequest, Plan } from './contract'

/**
 * An endpoint by a pair of links: one is a port of the network's bridge (`state.link`), the other is born in the sandbox,
 * never visible on the host. `onPort`: what is to be done to the port besides.
 */
export function joinByPair(
  { state }: DriverNetwork,
  { mac }: EndpointSpec,
  { interfaceName, interfaceIndex, netns }: JoinRequest,
  onPort: (port: string) => Change[] = () => [],
): Attachment {
  const port = `veth${randomHex(7)}`
  const { mtu, link: master } = state
  const peer = { name: interfaceName, index: interfaceIndex, netns, mac, mtu }
  return {
    plan: {
      changes: [
        { op: 'addLink', link: { kind: 'veth', name: port, mtu, master, up: true, peer } },
        ...onPort(port),
      ],
      undo: [{ op: 'removeLink', link: port, ifExists: true }],
    },
    interface: { arrives: 'born', source: port, mac, mtu },
  }
}

/** The inverse of {@link joinByPair}: the pair goes with either of its ends. */
export const leaveByPair = ({ interface: made }: Attachment): Plan =>
  made?.source ? { changes: [{ op: 'removeLink', link: made.source, ifExists: true }] } : {}
