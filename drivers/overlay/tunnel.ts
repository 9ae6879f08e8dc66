/** A network on one host: a bridge, and a tunnel that is one of its ports. Pure, but for looking. */
import { addressOf } from '../../lib/base/cidr'
import { CnmError } from '../../lib/base/errors'
import { randomMac } from '../../lib/base/ids'
import type { DriverNetwork, HostView, Peer, Plan } from '../../lib/driver/contract'
import type { Change } from '../../lib/kernel/kernel'
import type { OverlayData, OverlayOptions } from './options'

/** What ESP adds: 8 of header, 8 of nonce, 16 of integrity check; the payload, with 2 of trailer, in words of 4 bytes. */
const mtuInside = (left: number, tunnel: number): number => Math.floor((left - 32) / 4) * 4 - 2 - tunnel

export type Network = DriverNetwork<OverlayOptions>

/** Interface names have at most 15 characters. */
export const bridgeOf = ({ spec }: Network): string => `ov-${spec.id.slice(0, 12)}`
export const tunnelOf = ({ spec }: Network): string => `vx-${spec.id.slice(0, 12)}`
export const dataOf = ({ state }: Network): OverlayData => state.data as OverlayData

/**
 * What the tunnel carries beside the packet inside, bytes: Ethernet 14, VXLAN 8, UDP 8 (RFC 7348), and IPv4 20 or IPv6 40.
 */
export const overheadOf = (vtep: string): number => (vtep.includes(':') ? 70 : 50)

/** The link that has the address which tunnels to this host end at. */
async function underlayOf(vtep: string, host: HostView): Promise<{ name: string; mtu: number }> {
  const address = (await host.addresses()).find(candidate => addressOf(candidate.address) === vtep)
  const link = address && (await host.link(address.link))
  if (!link)
    throw new CnmError(
      'ERR_INVALID_OPTION',
      `cluster.host.address: this host has no address ${vtep}; overlay networks need one that the other hosts can reach`,
      { address: vtep },
    )
  return link
}

/** The most that a network's packets may have, bytes. */
export async function mtuFor(vtep: string, host: HostView, encrypted: boolean): Promise<number> {
  const { mtu } = await underlayOf(vtep, host)
  if (!encrypted) return mtu - overheadOf(vtep)
  const header = vtep.includes(':') ? 40 : 20
  return mtuInside(mtu - header, overheadOf(vtep) - header)
}

/**
 * Nothing is learned and nothing is flooded: the tunnel answers for addresses that it knows (`proxy`: ARP and ND), sends
 * frames where the forwarding database says, and drops the rest.
 */
export async function settle(network: Network, vtep: string, host: HostView): Promise<Plan> {
  const [bridge, tunnel] = [bridgeOf(network), tunnelOf(network)]
  const { vni, port } = dataOf(network)
  await underlayOf(vtep, host)
  const links = await host.links()
  const other = links.find(
    ({ name, info }) => info?.vxlan?.id === vni && info.vxlan.port === port && name !== tunnel,
  )
  if (other)
    throw new CnmError(
      'ERR_LINK_CONFLICT',
      `network ${network.spec.name}: ${other.name} of this host is a VXLAN device of id ${vni} and port ${port} already; remove it, or give the network another id`,
      { link: other.name, vni, port },
    )
  const { mtu } = network.state
  const away: Change[] = [
    { op: 'removeLink', link: tunnel, ifExists: true },
    { op: 'removeLink', link: bridge, ifExists: true },
  ]
  // Those that a crash left behind are in an unknown state.
  const left = away.filter(change =>
    links.some(({ name }) => change.op === 'removeLink' && name === change.link),
  )
  const changes: Change[] = [
    ...left,
    { op: 'addLink', link: { kind: 'bridge', name: bridge, mac: randomMac(), multicastSnooping: false } },
    {
      op: 'addLink',
      link: {
        kind: 'vxlan',
        name: tunnel,
        id: vni,
        port,
        local: vtep,
        learning: false,
        proxy: true,
        mtu,
        master: bridge,
      },
    },
    { op: 'setPort', link: tunnel, learning: false, flood: false },
    { op: 'setLink', link: bridge, mtu, up: true },
    { op: 'setLink', link: tunnel, up: true },
  ]
  const knowsIpv6 = host.sysctl('net/ipv6/conf/all/disable_ipv6') !== undefined
  return {
    changes,
    // The host itself is not on the network. The tunnel needs IPv6 to answer for neighbours, but no address.
    sysctls: knowsIpv6
      ? {
          [`net/ipv6/conf/${bridge}/disable_ipv6`]: '1',
          [`net/ipv6/conf/${tunnel}/disable_ipv6`]: network.spec.ipv6 ? '0' : '1',
        }
      : {},
    undo: away,
  }
}

/** How an endpoint on another host is reached, and its addresses answered for. */
export function reach(network: Network, peer: Peer): { changes: Change[]; undo: Change[] } {
  const link = tunnelOf(network)
  const { mac, vtep } = peer
  const addresses = [peer.ipv4, peer.ipv6].flatMap(cidr => (cidr ? [addressOf(cidr)] : []))
  return {
    changes: [
      { op: 'setFdb', link, mac, remote: vtep, self: true },
      { op: 'setFdb', link, mac },
      ...addresses.map(address => ({ op: 'setNeighbour' as const, link, address, mac })),
    ],
    undo: [
      ...addresses.map(address => ({ op: 'removeNeighbour' as const, link, address, mac })),
      { op: 'removeFdb', link, mac },
      { op: 'removeFdb', link, mac, remote: vtep, self: true },
    ],
  }
}

/** Entries of the tunnel that lead to none of the peers: what this host missed while it was away. */
export async function prune(network: Network, host: HostView, peers: Peer[]): Promise<Change[]> {
  const link = tunnelOf(network)
  const index = (await host.link(link))?.index
  if (index === undefined) return []
  const ends = new Set(peers.map(({ mac, vtep }) => `${mac} ${vtep}`))
  const macs = new Set(peers.map(({ mac }) => mac))
  const answers = new Set(
    peers.flatMap(({ mac, ipv4, ipv6 }) =>
      [ipv4, ipv6].flatMap(cidr => (cidr ? [`${addressOf(cidr)} ${mac}`] : [])),
    ),
  )
  const own = (await host.link(link))?.mac
  const changes: Change[] = []
  for (const { address, mac, permanent } of await host.neighbours({ link: index }))
    if (permanent && address && mac && !answers.has(`${address} ${mac}`))
      changes.push({ op: 'removeNeighbour', link, address, mac })
  for (const { mac, address, self } of await host.neighbours({ link: index, bridge: true })) {
    if (!mac || mac === own || (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1) continue
    if (self && address && !ends.has(`${mac} ${address}`))
      changes.push({ op: 'removeFdb', link, mac, remote: address, self: true })
    else if (!self && !macs.has(mac)) changes.push({ op: 'removeFdb', link, mac })
  }
  return changes
}
