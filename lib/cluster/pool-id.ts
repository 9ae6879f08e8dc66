/** Ids of the pools that a cluster allots: `cluster/SUBNET/LENGTH[/SUBNET/LENGTH]`, the second for a range of it. */

/** Address space of the cluster's IPAM driver. */
export const SPACE = 'cluster'

export const isOurs = (poolId: string): boolean => poolId.startsWith(`${SPACE}/`)

/** The pool of the cluster that an id means; undefined for another driver's. */
export const poolOf = (poolId: string): string | undefined =>
  isOurs(poolId) ? readPoolId(poolId).pool : undefined

export function readPoolId(poolId: string): { pool: string; part: string } {
  const [, address, length, subAddress, subLength] = poolId.split('/')
  const pool = `${address}/${length}`
  return { pool, part: subAddress === undefined ? pool : `${subAddress}/${subLength}` }
}
