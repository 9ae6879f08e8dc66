/**
 * The host among the containers of a macvlan or ipvlan network. The kernel lets nothing pass between a parent and its own
 * sub-interfaces; so the host gets a sub-interface too, with an address of its own, and a route to each endpoint over it.
 */
import { addressOf, familyOf } from '../../lib/base/cidr'
import { CnmError } from '../../lib/base/errors'
import type {
  DriverNetwork,
  EndpointSpec,
  HostLink,
  NetworkSpec,
  NetworkState,
  Plan,
} from '../../lib/driver/contract'
import type { Change, LinkSpec, RouteSpec } from '../../lib/kernel/kernel'

/** Of the auxiliary address that is the host's. */
export const HOST_ADDRESS = 'host'

interface Made {
  state: NetworkState
  plan?: Plan
}

/** 3 characters and 12 digits of the id: IFNAMSIZ. */
export const hostLinkName = (prefix: 'hm-' | 'hi-', { id }: NetworkSpec<unknown>) =>
  `${prefix}${id.slice(0, 12)}`

/** Adds the host's link to what is made of the network. */
export function withHostLink({ state, plan }: Made, network: NetworkSpec<unknown>, spec: LinkSpec): Made {
  const { name } = spec
  // Without its prefix: the way to the rest of the subnet stays that of the parent.
  const addresses = network.pools.map(({ family, subnet, auxiliary: { [HOST_ADDRESS]: own } }) => {
    if (own === undefined)
      throw new CnmError(
        'ERR_INVALID_OPTION',
        `hostAccess: subnet ${subnet} has no auxiliary address "${HOST_ADDRESS}", by which the host would be reached`,
        { subnet },
      )
    return alone(own, family)
  })
  const link: LinkSpec = { ...spec, ...(state.mtu !== undefined && { mtu: state.mtu }), up: true }
  const hostLink: HostLink = {
    spec: link,
    addresses,
    // Else it would answer the whole LAN in place of the parent when that is asked for (arp_ignore, ip-sysctl.rst).
    sysctls: { [`net/ipv4/conf/${name}/arp_ignore`]: '1' },
  }
  return {
    state: { ...state, hostLink },
    plan: {
      changes: [
        ...(plan?.changes ?? []),
        { op: 'addLink', link },
        ...addresses.map((address): Change => ({ op: 'addAddress', link: name, address })),
      ],
      sysctls: hostLink.sysctls,
      undo: [{ op: 'removeLink', link: name, ifExists: true }, ...(plan?.undo ?? [])],
    },
  }
}

/** With the parent, when that goes, goes what is on it. */
export const withoutHostLink = ({ state: { hostLink } }: DriverNetwork, plan: Plan): Plan =>
  hostLink && !plan.changes?.length
    ? { changes: [{ op: 'removeLink', link: hostLink.spec.name, ifExists: true }] }
    : plan

/** The host's ways to an endpoint, and how they go again. */
export function hostWays({ state: { hostLink } }: DriverNetwork, { ipv4, ipv6 }: EndpointSpec) {
  if (!hostLink) return { add: [], remove: [] }
  const routes = [ipv4, ipv6].flatMap((address): RouteSpec[] =>
    address === undefined
      ? []
      : [{ destination: alone(address, familyOf(addressOf(address))), link: hostLink.spec.name }],
  )
  return {
    add: routes.map((route): Change => ({ op: 'replaceRoute', route })),
    remove: routes.map((route): Change => ({ op: 'removeRoute', route })),
  }
}

const alone = (address: string, family: 4 | 6) => `${addressOf(address)}/${family === 4 ? 32 : 128}`
