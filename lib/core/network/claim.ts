import { contains, type Family, parseCidr, parseIp } from '../../base/cidr'
import { CnmError, isCnmError } from '../../base/errors'
import type { Undo } from '../../base/undo'
import type { AddressAnswer, AddressRequest } from '../../ipam/contract'
import type { Network } from '../../network'
import type { Context } from '../context'

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
  let full: unknown
  for (const pool of fitting) {
    try {
      const answer = await ipam.requestAddress(pool.poolId, request)
      if (!answer.address) return undefined
      undo.push(`release ${answer.address}`, () =>
        ipam.releaseAddress(pool.poolId, answer.address, request.owner),
      )
      return { ...answer, poolId: pool.poolId }
    } catch (error) {
      if (isCnmError(error, 'ERR_ADDRESS_IN_USE')) throw namingHolder(context, network, error, wanted)
      if (!isCnmError(error, 'ERR_POOL_EXHAUSTED')) throw error
      full = error
    }
  }
  throw full
}

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
