/** A network's part of the host: its bridge, addresses, routes and settings, and the host's own link to it. */
import { addressOf, BITS, familyOf, formatCidr, network, parseCidr } from '../../base/cidr'
import type { HostLink } from '../../driver/contract'
import { MAIN_TABLE } from '../../ipam/host'
import type { Change, Link, RouteSpec } from '../../kernel/kernel'
import type { Network } from '../../network'
import type { Context } from '../context'
import type { Difference, Fix } from '../difference'
import { addressesOn, type Facts } from './facts'
import { checkSysctls } from './sysctls'

export function checkNetwork(context: Context, network: Network, host: Facts): Difference[] {
  const { state } = network.record
  if (!state.link || network.configOnly) return []
  // Of one that spans hosts, this host's part is there while endpoints are joined.
  if (network.spanning && !network.endpoints().some(({ sandbox }) => sandbox)) return []
  const about = { networkId: network.id }
  const link = host.links.get(state.link)
  if (!link)
    return [
      {
        ...about,
        kind: 'link',
        problem: 'missing',
        message: `bridge ${state.link} of network ${network.name} is gone`,
        fix: { by: 'rebuild-network' },
      },
    ]
  const changes: Change[] = []
  const found: Difference[] = []
  const differ = (
    kind: 'link' | 'address' | 'route',
    problem: 'missing' | 'wrong',
    message: string,
    change: Change,
  ) => {
    changes.push(change)
    found.push({ ...about, kind, problem, message, fix: { by: 'changes', where: 'host', changes: [change] } })
  }
  if (!link.up)
    differ('link', 'wrong', `${state.link} of network ${network.name} is down`, {
      op: 'setLink',
      link: state.link,
      up: true,
    })
  const data = state.data as { adopted?: boolean } | undefined
  if (state.mtu !== undefined && link.mtu !== state.mtu && !data?.adopted)
    differ('link', 'wrong', `${state.link} has an MTU of ${link.mtu}, not ${state.mtu}`, {
      op: 'setLink',
      link: state.link,
      mtu: state.mtu,
    })
  const present = addressesOn(host, link.index)
  for (const address of hostAddresses(network))
    if (!present.has(address))
      differ('address', 'missing', `${state.link} of network ${network.name} lacks its address ${address}`, {
        op: 'addAddress',
        link: state.link,
        address,
      })
    else if (link.up && !data?.adopted && !hasWay(host, link, address))
      differ(
        'route',
        'missing',
        `the host lacks its route to ${subnetOf(address)} of network ${network.name}`,
        {
          op: 'replaceRoute',
          route: wayTo(address, state.link),
        },
      )
  found.push(...checkSysctls(context.host, 'host', state.sysctls ?? {}, about))
  if (state.hostLink) found.push(...checkHostLink(network, state.hostLink, host))
  return found
}

const subnetOf = (address: string): string => formatCidr(network(parseCidr(address)))

/** As the kernel makes it (net/ipv4/fib_frontend.c, net/ipv6/addrconf.c: IP6_RT_PRIO_ADDRCONF). */
const wayTo = (address: string, link: string): RouteSpec => ({
  destination: subnetOf(address),
  link,
  ...(familyOf(address) === 4 ? { source: addressOf(address), scope: 'link' } : { metric: 256 }),
})

/** The kernel makes the route with the address, for subnets of more than one. */
function hasWay(host: Facts, { index }: Link, address: string): boolean {
  const { family, length } = parseCidr(address)
  const destination = subnetOf(address)
  return (
    length === BITS[family] ||
    (host.routesBy.get(index) ?? []).some(
      each => each.destination === destination && each.table === MAIN_TABLE,
    )
  )
}

function checkHostLink(
  { id, name: networkName }: Network,
  { spec, addresses, sysctls }: HostLink,
  host: Facts,
): Difference[] {
  const about = { networkId: id }
  const { name } = spec
  const link = host.links.get(name)
  const owned = addressesOn(host, link?.index)
  const address = (text: string): Change => ({ op: 'addAddress', link: name, address: text })
  const fix = (...changes: Change[]): Fix => ({ by: 'changes', where: 'host', changes })
  if (!link)
    return [
      {
        ...about,
        kind: 'link',
        problem: 'missing',
        message: `${name}, the host's own link to network ${networkName}, is gone`,
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'addLink', link: spec }, ...addresses.map(address)],
          sysctls,
        },
      },
    ]
  const found: Difference[] = []
  if (!link.up)
    found.push({
      ...about,
      kind: 'link',
      problem: 'wrong',
      message: `${name}, the host's own link to network ${networkName}, is down`,
      fix: fix({ op: 'setLink', link: name, up: true }),
    })
  for (const missing of addresses.filter(each => !owned.has(each)))
    found.push({
      ...about,
      kind: 'address',
      problem: 'missing',
      message: `${name} of network ${networkName} lacks the host's address ${missing}`,
      fix: fix(address(missing)),
    })
  return found
}

/** The addresses that the host has on the network's link: those of its firewall's gateways. */
function hostAddresses(network: Network): string[] {
  const families = network.record.state.firewall?.families ?? []
  return network.ipam
    .filter(({ family, gateway }) => gateway && families.some(wall => wall.family === family && wall.gateway))
    .map(({ gateway }) => gateway as string)
}
