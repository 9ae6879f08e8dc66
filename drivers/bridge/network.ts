import {
  addressOf,
  type Cidr,
  contains,
  type Family,
  overlaps,
  parseCidr,
  parseIp,
} from '../../lib/base/cidr'
import { CnmError } from '../../lib/base/errors'
import { randomMac } from '../../lib/base/ids'
import type {
  DriverNetwork,
  HostView,
  NetworkPool,
  NetworkSpec,
  NetworkState,
  Plan,
} from '../../lib/driver/contract'
import type { FirewallNetwork, GatewayMode } from '../../lib/firewall/contract'
import type { Change, Link } from '../../lib/kernel/kernel'
import type { BridgeOptions } from './options'

type Spec = NetworkSpec<BridgeOptions>
type Others = DriverNetwork<BridgeOptions>[]

/** The driver's own part of the state. */
export interface BridgeData extends Record<string, unknown> {
  /** The bridge was there before us: it is never deleted. */
  adopted: boolean
  /** What we added to an adopted bridge, and what takes it away again. */
  added: Change[]
  restore: Change[]
  /** Container ports reflect packets to themselves; only needed where bridged packets pass the IP firewall. */
  hairpin: boolean
}

export const modeOf = (options: BridgeOptions, family: Family): GatewayMode =>
  family === 4 ? options.gatewayModeIpv4 : options.gatewayModeIpv6

export function skipsGateway({ options, internal }: Omit<Spec, 'pools'>): Family[] {
  const skipped: Family[] = []
  if (options.gatewayModeIpv4 === 'isolated' || (options.inhibitIpv4 && internal)) skipped.push(4)
  if (options.gatewayModeIpv6 === 'isolated') skipped.push(6)
  return skipped
}

export async function createNetwork(
  spec: Spec,
  host: HostView,
  others: Others,
  usualMtu?: number,
): Promise<{ state: NetworkState; plan: Plan }> {
  validate(spec, others)
  const link = spec.options.name ?? `br-${spec.id.slice(0, 12)}`
  refuseTwins(spec, link, others)
  const existing = await host.link(link)
  if (existing && existing.kind !== 'bridge')
    throw new CnmError(
      'ERR_LINK_CONFLICT',
      `existing interface ${link} is not a bridge (it is ${existing.kind ?? 'a device'})`,
      {
        link,
        kind: existing.kind,
      },
    )
  const knowsIpv6 = host.sysctl('net/ipv6/conf/all/disable_ipv6') !== undefined
  if (spec.ipv6 && !knowsIpv6)
    throw new CnmError(
      'ERR_UNSUPPORTED',
      `network ${spec.name}: this kernel has no IPv6 (/proc/sys/net/ipv6 is missing); create it with ipv6: false`,
      { network: spec.id },
    )
  const mtu = spec.options.mtu ?? (existing ? existing.mtu : (usualMtu ?? (await defaultMtu(host))))
  const gateways = spec.pools.filter(pool => pool.gateway && bearsAddress(spec, pool))
  const plan = existing
    ? await adoptBridge(spec, existing, gateways, host)
    : buildBridge(spec, link, mtu, gateways, knowsIpv6)
  const data: BridgeData = {
    adopted: existing !== undefined,
    added: existing ? (plan.changes ?? []) : [],
    restore: existing ? (plan.undo ?? []) : [],
    hairpin: bridgedPacketsAreFiltered(host),
  }
  return {
    plan,
    state: {
      link,
      mtu,
      interfacePrefix: spec.options.interfacePrefix,
      modes: modes(spec),
      defaultHostIp: spec.options.hostBindingIpv4,
      firewall: firewallOf(spec, link),
      data,
    },
  }
}

export async function deleteNetwork({ state }: DriverNetwork<BridgeOptions>): Promise<Plan> {
  const link = state.link as string
  const { adopted, added, restore } = state.data as BridgeData
  return adopted
    ? { changes: restore, undo: added }
    : { changes: [{ op: 'removeLink', link, ifExists: true }] }
}

function validate({ options, internal, pools, name }: Spec, others: Others): void {
  if (pools.length === 0)
    throw new CnmError('ERR_INVALID_CONFIG', `network ${name}: IPv4 or IPv6 must be enabled`)
  for (const family of [4, 6] as const) {
    const own = pools.filter(pool => pool.family === family)
    if (own.length > 1)
      throw new CnmError(
        'ERR_INVALID_CONFIG',
        `network ${name}: a bridge network has one IPv${family} subnet, not ${own.length} (${own.map(p => p.subnet).join(', ')})`,
      )
    if (own.length && modeOf(options, family) === 'isolated' && !internal)
      throw new CnmError(
        'ERR_INVALID_CONFIG',
        `network ${name}: gateway mode "isolated" is for internal networks only`,
      )
  }
  for (const pool of pools) {
    const subnet = parseCidr(pool.subnet)
    if (subnet.length === 0)
      throw new CnmError(
        'ERR_INVALID_CONFIG',
        `network ${name}: the IPv${pool.family} pool ${pool.subnet} is no subnet; a bridge needs one: name it in ipam.config`,
      )
    if (pool.family === 6 && (contains(parseCidr('ff00::/8'), subnet) || badLinkLocal(subnet)))
      throw new CnmError('ERR_INVALID_CONFIG', `network ${name}: ${pool.subnet} is no subnet for hosts`)
    const wanted = pool.auxiliary[`DefaultGatewayIPv${pool.family}`]
    if (wanted && internal)
      throw new CnmError('ERR_INVALID_CONFIG', `network ${name}: an internal network has no default gateway`)
  }
  for (const pool of pools)
    for (const other of others)
      for (const theirs of other.spec.pools)
        if (theirs.family === pool.family && overlaps(parseCidr(pool.subnet), parseCidr(theirs.subnet)))
          throw new CnmError(
            'ERR_POOL_OVERLAP',
            `network ${name}: subnet ${pool.subnet} overlaps ${theirs.subnet} of network ${other.spec.name} (bridge ${other.state.link})`,
            { subnet: pool.subnet, other: theirs.subnet, network: other.spec.id },
          )
}

/** fe80::/64 itself is allowed on a bridge, other overlaps with it are not. */
const badLinkLocal = (subnet: Cidr): boolean => {
  const linkLocal = parseCidr('fe80::/64')
  return overlaps(subnet, linkLocal) && subnet.length !== 64
}

function refuseTwins(spec: Spec, link: string, others: Others): void {
  const twin = others.find(other => other.state.link === link)
  if (twin)
    throw new CnmError(
      'ERR_LINK_CONFLICT',
      `network ${spec.name}: bridge ${link} belongs to network ${twin.spec.name}`,
      {
        link,
        network: twin.spec.id,
      },
    )
}

/** Does the host get an address on the bridge in this pool's family? */
const bearsAddress = ({ options }: Spec, pool: NetworkPool): boolean =>
  modeOf(options, pool.family) !== 'isolated' && !(pool.family === 4 && options.inhibitIpv4)

const nodeIpv6 = (spec: Spec): boolean =>
  spec.pools.some(pool => pool.family === 6 && bearsAddress(spec, pool))

function buildBridge(
  spec: Spec,
  link: string,
  mtu: number,
  gateways: NetworkPool[],
  knowsIpv6: boolean,
): Plan {
  const changes: Change[] = [
    // A MAC of its own keeps the bridge from taking that of its lowest port, and from changing when ports come and go.
    { op: 'addLink', link: { kind: 'bridge', name: link, mac: randomMac() } },
  ]
  for (const { gateway } of gateways) changes.push({ op: 'addAddress', link, address: gateway as string })
  // An MTU given at creation would follow that of the ports; set afterwards, it stays.
  changes.push({ op: 'setLink', link, mtu, up: true })
  return {
    changes,
    sysctls: knowsIpv6
      ? {
          [`net/ipv6/conf/${link}/accept_ra`]: '0',
          ...(nodeIpv6(spec) ? {} : { [`net/ipv6/conf/${link}/disable_ipv6`]: '1' }),
        }
      : {},
    undo: [{ op: 'removeLink', link, ifExists: true }],
  }
}

/** An existing bridge keeps all it has; we add what is missing and refuse what contradicts. */
async function adoptBridge(spec: Spec, link: Link, gateways: NetworkPool[], host: HostView): Promise<Plan> {
  const present = await host.addresses(link.index)
  const changes: Change[] = []
  const undo: Change[] = []
  for (const { gateway, family } of gateways) {
    if (present.some(({ address }) => address === gateway)) continue
    const ofFamily = present.filter(
      ({ address, scope }) => parseCidr(address).family === family && scope !== 'link',
    )
    if (ofFamily.length && family === 4)
      throw new CnmError(
        'ERR_LINK_CONFLICT',
        `network ${spec.name}: bridge ${link.name} has address ${ofFamily.map(a => a.address).join(', ')}, not ${gateway}`,
        { link: link.name, addresses: ofFamily.map(a => a.address), gateway },
      )
    changes.push({ op: 'addAddress', link: link.name, address: gateway as string })
    undo.push({ op: 'removeAddress', link: link.name, address: gateway as string })
  }
  const wasUp = link.up
  if (spec.options.mtu !== undefined && spec.options.mtu !== link.mtu) {
    changes.push({ op: 'setLink', link: link.name, mtu: spec.options.mtu })
    undo.push({ op: 'setLink', link: link.name, mtu: link.mtu })
  }
  if (!wasUp) {
    changes.push({ op: 'setLink', link: link.name, up: true })
    undo.push({ op: 'setLink', link: link.name, up: false })
  }
  return { changes, undo }
}

/** Bytes. The link that the host's default route uses decides; 1500 where there is none. */
async function defaultMtu(host: HostView): Promise<number> {
  const route = (await host.routes({ table: 254 }))
    .filter(
      ({ destination, link }) =>
        (destination === '0.0.0.0/0' || destination === '::/0') && link !== undefined,
    )
    .sort((a, b) => a.family - b.family || a.metric - b.metric)[0]
  const link = route?.link === undefined ? undefined : await host.link(route.link)
  return route?.mtu ?? link?.mtu ?? 1500
}

/** br_netfilter hands bridged packets to the IP firewall: a translated packet may then have to leave by the port it came in. */
const bridgedPacketsAreFiltered = (host: HostView): boolean =>
  ['net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables'].some(
    key => host.sysctl(key)?.trim() === '1',
  )

function modes(spec: Spec): NetworkState['modes'] {
  if (spec.internal) return {}
  return Object.fromEntries(spec.pools.map(({ family }) => [family, modeOf(spec.options, family)]))
}

function firewallOf(spec: Spec, link: string): FirewallNetwork {
  const { options } = spec
  return {
    id: spec.id,
    link,
    internal: spec.internal,
    icc: options.icc,
    trustedLinks: options.trustedHostInterfaces,
    families: spec.pools.map(pool => ({
      family: pool.family,
      subnets: [pool.subnet],
      gateway: pool.gateway && bearsAddress(spec, pool) ? addressOf(pool.gateway) : undefined,
      mode: modeOf(options, pool.family),
      masquerade: snat(options, pool.family),
    })),
  }
}

function snat(options: BridgeOptions, family: Family): boolean | string {
  if (modeOf(options, family) === 'routed' || !options.masquerade) return false
  return (family === 4 ? options.hostIpv4 : options.hostIpv6) ?? true
}

/** The gateway that endpoints are given: DefaultGatewayIPv4/6 among the auxiliary addresses wins over the bridge's own. */
export function gatewayFor(spec: Spec, family: Family): string | undefined {
  if (spec.internal || modeOf(spec.options, family) === 'isolated') return undefined
  const pool = spec.pools.find(candidate => candidate.family === family)
  const given = pool?.auxiliary[`DefaultGatewayIPv${family}`] ?? pool?.gateway
  if (!given) return undefined
  const address = addressOf(given)
  if (!contains(parseCidr((pool as NetworkPool).subnet), parseIp(address)))
    throw new CnmError('ERR_INVALID_ADDRESS', `default gateway ${address} must be part of ${pool?.subnet}`)
  return address
}
