/** Between a network's record and IPAM: what it has is taken, taken again after a restart, and given back. */
import { readFileSync } from 'node:fs'
import { familyOf, parseCidr } from '../base/cidr'
import {
  allocateNetwork,
  type NetworkIpam,
  type PoolAllocation,
  releaseNetwork as release,
  replayNetwork,
} from '../ipam/network'
import { type OwnNetwork, type UsedSubnet, usedSubnets } from '../ipam/host'
import type { NetworkOptions } from '../options'
import type { Context } from './context'
import type { NetworkRecord, PoolRecord } from './records'
import type { Undo } from '../base/undo'
import type { Stack } from '../kernel/kernel'

interface Wanted {
  id: string
  config: NetworkOptions
  ipv4: boolean
  ipv6: boolean
  scope: 'local' | 'global'
  skipGateway: (4 | 6)[]
  /** See Driver.reserves. */
  reserves: string[]
  /** Links that this network is to use: what they have does not count as used. */
  ownLinks: string[]
  /** Those that there are: neither does what they have on theirs. */
  ownNetworks: OwnNetwork[]
  /** What networks of the other address space have: sandboxes may be on both. */
  avoid: UsedSubnet[]
}

export async function allocatePools(context: Context, wanted: Wanted, undo: Undo): Promise<PoolRecord[]> {
  const { ipam: settings } = wanted.config
  const driver = await context.ipam.get(settings.driver)
  const configs = (family: 4 | 6) => settings.config.filter(config => familyOfConfig(config) === family)
  const used = driver.capabilities.lends ? [] : await lookAround(context, wanted)
  const pools: PoolRecord[] = []
  for (const family of [4, 6] as const) {
    if (!(family === 4 ? wanted.ipv4 : wanted.ipv6)) continue
    const given = configs(family)
    const allocated = await allocateNetwork(driver, {
      owner: wanted.id,
      scope: wanted.scope,
      [family === 4 ? 'ipv4' : 'ipv6']: given,
      options: settings.options,
      subnets: settings.config.flatMap(({ subnet }) => subnet ?? []),
      used,
      avoid: wanted.avoid,
      force: settings.force,
      skipGateway: driver.capabilities.lends || wanted.skipGateway.includes(family),
      reserves: wanted.reserves,
    })
    undo.push(`release the IPv${family} pools`, () => release(driver, allocated, wanted.id))
    const list = family === 4 ? allocated.ipv4 : allocated.ipv6
    pools.push(...list.map((allocation, at) => poolRecord(family, allocation, isExplicit(given[at]?.subnet))))
  }
  return pools
}

/** Did the user name the subnet? `0.0.0.0/24` names a size only. */
const isExplicit = (subnet: string | undefined): boolean =>
  subnet !== undefined && parseCidr(subnet).value !== 0n

const poolRecord = (
  family: 4 | 6,
  { pool, aux, ...rest }: PoolAllocation,
  explicit: boolean,
): PoolRecord => ({
  family,
  subnet: pool,
  auxiliary: aux,
  explicit,
  ...rest,
})

const asIpam = (pools: PoolRecord[]): NetworkIpam => {
  const of = (family: 4 | 6): PoolAllocation[] =>
    pools
      .filter(pool => pool.family === family)
      .map(({ subnet, auxiliary, poolId, subPool, gateway, gatewayFrom, data }) => ({
        poolId,
        pool: subnet,
        subPool,
        gateway,
        gatewayFrom,
        aux: auxiliary,
        data,
      }))
  return { ipv4: of(4), ipv6: of(6) }
}

export async function releaseNetwork(context: Context, record: NetworkRecord): Promise<void> {
  if (record.pools.length === 0) return
  await release(await context.ipam.get(record.config.ipam.driver), asIpam(record.pools), record.id)
}

/** After a restart: asks a driver that remembers nothing for all that the network has. */
export async function replayPools(context: Context, record: NetworkRecord): Promise<void> {
  if (record.pools.length === 0) return
  const driver = await context.ipam.get(record.config.ipam.driver)
  if (!driver.capabilities.requiresReplay) return
  const again = await replayNetwork(driver, asIpam(record.pools), {
    owner: record.id,
    scope: record.scope === 'local' ? 'local' : 'global',
    options: record.config.ipam.options,
  })
  const allocations = [...again.ipv4, ...again.ipv6]
  record.pools = record.pools.map((pool, at) => ({ ...pool, poolId: allocations[at]?.poolId ?? pool.poolId }))
}

export const familyOfConfig = ({
  subnet,
  gateway,
  ipRange,
  auxAddresses,
}: NetworkOptions['ipam']['config'][number]): 4 | 6 =>
  familyOf(subnet ?? ipRange ?? gateway ?? Object.values(auxAddresses)[0] ?? '0.0.0.0')

/** What the host uses already. */
export async function lookAround(
  { host, settings }: { host: Stack; settings: { resolvConf: string } },
  { ownLinks, ownNetworks }: Pick<Wanted, 'ownLinks' | 'ownNetworks'>,
): Promise<UsedSubnet[]> {
  const [links, addresses, routes, rules] = await Promise.all([
    host.links(),
    host.addresses(),
    host.routes(),
    host.rules(),
  ])
  return usedSubnets(
    { links, addresses, routes, rules, resolvers: nameServers(settings.resolvConf) },
    ownLinks,
    ownNetworks,
  )
}

function nameServers(path: string): string[] {
  try {
    return [...readFileSync(path, 'utf8').matchAll(/^\s*nameserver\s+([0-9a-fA-F:.]+)/gm)]
      .map(match => match[1] as string)
      .filter(address => !address.startsWith('127.') && address !== '::1')
  } catch {
    return []
  }
}

/** Does an address with prefix lie in a subnet given for IPv6? Tells whether a network wants IPv6. */
export const wantsFamily = (config: NetworkOptions, family: 4 | 6): boolean =>
  config.ipam.config.some(entry => entry.subnet !== undefined && parseCidr(entry.subnet).family === family)
