import { addressOf, contains, type Family, parseCidr, parseIp } from '../../base/cidr'
import { CnmError, isCnmError } from '../../base/errors'
import type { Undo } from '../../base/undo'
import type { AddressAnswer, AddressRequest, IpamDriver } from '../../ipam/contract'
import type { Network } from '../../network'
import type { Context } from '../context'
import { bare } from '../inside'

/** From the first pool that has one. Undefined: from a driver that gives none. */
export async function claimAddress(
  context: Context,
  network: Network,
  family: Family,
  request: AddressRequest,
  undo: Undo,
): Promise<(AddressAnswer & { poolId: string }) | undefined> {
  const wanted = request.address
  const ipam = await context.ipam.get(network.record.config.ipam.driver)
  const pools = network.record.pools.filter(pool => pool.family === family)
  const fitting = wanted ? pools.filter(pool => contains(parseCidr(pool.subnet), parseIp(wanted))) : pools
  if (fitting.length === 0)
    throw new CnmError(
      'ERR_ADDRESS_OUT_OF_RANGE',
      `no subnet of network ${network.name} contains ${wanted} (there are: ${pools.map(pool => pool.subnet).join(', ')})`,
      { network: network.id, address: wanted },
    )
  const shy = network.implementation.capabilities.onLan && !wanted && !ipam.capabilities.lends
  const taken = new Set(shy ? bare((await context.host.addresses()).map(({ address }) => address)) : [])
  let full: unknown
  for (const pool of fitting) {
    try {
      const answer = await requestUntaken(ipam, pool.poolId, request, taken)
      if (!answer.address) return undefined
      const trusted = context.ipam.isBuiltIn(ipam.name)
      // Before it could be given back: to do so would take it from its holder.
      if (!trusted) refuseHeld(network, ipam.name, answer.address)
      undo.push(`release ${answer.address}`, () =>
        ipam.releaseAddress(pool.poolId, answer.address, request.owner),
      )
      if (!trusted) refuseForeign(pool.subnet, ipam.name, answer.address)
      return { ...answer, poolId: pool.poolId }
    } catch (error) {
      if (isCnmError(error, 'ERR_ADDRESS_IN_USE')) throw namingHolder(context, network, error, wanted)
      if (!isCnmError(error, 'ERR_POOL_EXHAUSTED')) throw error
      full = error
    }
  }
  throw full
}

/** Those that are taken are asked for until another one comes, and given back; a driver that gives one twice insists on it. */
async function requestUntaken(
  ipam: IpamDriver,
  poolId: string,
  request: AddressRequest,
  taken: ReadonlySet<string>,
): Promise<AddressAnswer> {
  const refused = new Set<string>()
  try {
    for (;;) {
      const answer = await ipam.requestAddress(poolId, request)
      const address = answer.address && addressOf(answer.address)
      if (!taken.has(address) || refused.delete(address)) return answer
      refused.add(address)
    }
  } finally {
    for (const address of refused) await ipam.releaseAddress(poolId, address, request.owner)
  }
}

/** What a driver of somebody else's gives must be what the pool is for, and nobody's yet. Throws ERR_IPAM_DRIVER. */
function refuseForeign(subnet: string, driver: string, address: string): void {
  const pool = parseCidr(subnet)
  const { family, value } = parseIp(addressOf(address))
  if (family !== pool.family || !contains(pool, { family, value }))
    throw broken(driver, `gave ${address}, which is not in ${subnet}`, { address, subnet })
}

function refuseHeld(network: Network, driver: string, address: string): void {
  const given = addressOf(address)
  const isIt = (text: string | undefined) => text !== undefined && addressOf(text) === given
  const endpoint = network.endpoints().find(({ ipv4, ipv6 }) => isIt(ipv4) || isIt(ipv6))
  const own = network.record.pools.some(
    ({ gateway, auxiliary }) => isIt(gateway) || Object.values(auxiliary).some(isIt),
  )
  if (!endpoint && !own) return
  const holder = endpoint ? `endpoint ${endpoint.name}` : `network ${network.name} itself`
  throw broken(driver, `gave ${given}, which ${holder} has already`, { address, network: network.id })
}

const broken = (driver: string, what: string, details: Record<string, unknown>) =>
  new CnmError('ERR_IPAM_DRIVER', `IPAM driver ${driver} ${what}`, { driver, ...details })

/** IPAM knows owners by their ids; people know them by their names. */
function namingHolder(
  context: Context,
  network: Network,
  error: CnmError,
  address: string | undefined,
): CnmError {
  const { holder } = error.details as { holder?: unknown }
  const endpoint = typeof holder === 'string' ? network.holds(holder) : undefined
  const service = typeof holder === 'string' ? context.services?.get(holder) : undefined
  const who = endpoint
    ? `endpoint ${endpoint.name} (${endpoint.id.slice(0, 12)})`
    : service
      ? `service ${service.name}`
      : holder === network.id
        ? 'the network itself (its gateway or an auxiliary address)'
        : undefined
  if (who === undefined) return error
  return new CnmError(
    'ERR_ADDRESS_IN_USE',
    `address ${address} of network ${network.name} is held by ${who}`,
    { ...error.details, network: network.id },
    { cause: error },
  )
}
