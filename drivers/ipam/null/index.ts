/** The IPAM driver `null`: for networks whose endpoints get no address from us (host, null, DHCP). */
import { CnmError } from '../../../lib/base/errors'
import type {
  AddressAnswer,
  AddressRequest,
  AddressSpaces,
  IpamDriver,
  PoolAnswer,
  PoolRequest,
  PoolStatus,
} from '../../../lib/ipam/contract'

const SPACE = 'null'
const POOLS = { 4: '0.0.0.0/0', 6: '::/0' } as const

/** Every pool is the one pool of its family, and no address is ever given; both may be released any number of times. */
export class NullIpamDriver implements IpamDriver {
  readonly name = 'null'
  readonly capabilities = { requiresMac: false, requiresReplay: false }

  async defaultAddressSpaces(): Promise<AddressSpaces> {
    return { local: SPACE, global: SPACE }
  }

  async requestPool({ space, family, pool, subPool }: PoolRequest): Promise<PoolAnswer> {
    if (space !== SPACE)
      throw new CnmError(
        'ERR_ADDRESS_SPACE',
        `the null IPAM driver has no address space ${JSON.stringify(space)}; it has ${SPACE}`,
        { space },
      )
    if (pool || subPool)
      throw new CnmError(
        'ERR_POOL_INVALID',
        `the null IPAM driver gives no particular pool; ${pool || subPool} was asked for`,
        { pool, subPool },
      )
    return { id: `${SPACE}/${POOLS[family]}`, pool: POOLS[family], data: {} }
  }

  async releasePool(id: string): Promise<void> {
    known(id)
  }

  async requestAddress(poolId: string, { address }: AddressRequest): Promise<AddressAnswer> {
    known(poolId)
    if (address)
      throw new CnmError(
        'ERR_ADDRESS_OUT_OF_RANGE',
        `the null IPAM driver gives no addresses; ${address} was asked for`,
        { address, poolId },
      )
    return { address: '', data: {} }
  }

  async releaseAddress(poolId: string, _address: string, _owner: string): Promise<void> {
    known(poolId)
  }

  async status(poolId: string): Promise<PoolStatus> {
    known(poolId)
    return { inUse: 0n, dynamicAvailable: 0n }
  }
}

export const nullIpam = (): IpamDriver => new NullIpamDriver()

function known(id: string): void {
  if (id !== `${SPACE}/${POOLS[4]}` && id !== `${SPACE}/${POOLS[6]}`)
    throw new CnmError('ERR_POOL_NOT_FOUND', `the null IPAM driver has no pool ${JSON.stringify(id)}`, {
      poolId: id,
    })
}
