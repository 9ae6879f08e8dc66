/** `SPACE/ADDRESS/LEN` for a pool, `SPACE/ADDRESS/LEN/ADDRESS/LEN` for one with a subpool. */
import { CnmError } from '../base/errors'

export interface PoolId {
  space: string
  /** CIDR. */
  pool: string
  /** CIDR. */
  subPool?: string
}

export const formatPoolId = ({ space, pool, subPool }: PoolId): string =>
  subPool === undefined ? `${space}/${pool}` : `${space}/${pool}/${subPool}`

/** The form only, not whether there is such a pool. Throws ERR_POOL_INVALID. */
export function parsePoolId(id: string): PoolId {
  const [space, address, length, subAddress, subLength, ...rest] = id.split('/')
  const whole = subLength !== undefined || subAddress === undefined
  if (!space || !address || !length || !whole || subAddress === '' || subLength === '' || rest.length > 0)
    throw new CnmError(
      'ERR_POOL_INVALID',
      `${JSON.stringify(id)} is not a pool id; it should be SPACE/ADDRESS/LEN or SPACE/ADDRESS/LEN/ADDRESS/LEN`,
      { poolId: id },
    )
  const pool = `${address}/${length}`
  return subAddress === undefined ? { space, pool } : { space, pool, subPool: `${subAddress}/${subLength}` }
}
