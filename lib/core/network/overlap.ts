import { overlaps, parseCidr } from '../../base/cidr'
import { CnmError, isCnmError } from '../../base/errors'
import type { Network } from '../../network'

/** IPAM knows pools; people know the networks that have them. `networks`: those of the same address space. */
export function namingNetwork(error: unknown, networks: readonly Network[]): unknown {
  if (!isCnmError(error, 'ERR_POOL_OVERLAP')) return error
  const { space, pool, subPool } = error.details as { space?: string; pool?: string; subPool?: string }
  if (space === undefined || pool === undefined) return error // it is the new network's own
  const meets = (a: string, b: string) => overlaps(parseCidr(a), parseCidr(b))
  const holder = networks.find(({ record }) =>
    record.pools.some(other =>
      subPool === undefined
        ? meets(other.subnet, pool)
        : other.subnet === pool && other.subPool !== undefined && meets(other.subPool, subPool),
    ),
  )
  if (!holder) return error
  return new CnmError(
    'ERR_POOL_OVERLAP',
    `${error.message}: network ${holder.name} has it`,
    { ...error.details, network: holder.id },
    { cause: error },
  )
}
