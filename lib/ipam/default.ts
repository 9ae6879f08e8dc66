/** The built-in IPAM driver `default`: {@link Allocator} behind the contract. */
import { z } from 'zod'
import { parse } from '../base/parse'
import { Allocator, SPACES } from './allocator'
import type {
  AddressAnswer,
  AddressRequest,
  AddressSpaces,
  IpamDriver,
  PoolAnswer,
  PoolRequest,
  PoolStatus,
} from './contract'

const PoolList = z.array(
  z.strictObject({
    base: z.string().describe('CIDR that pools are cut from'),
    size: z.number().int().min(1).max(128).describe('prefix length of each pool'),
  }),
)

export const DefaultIpamOptions = z.strictObject({
  localPools: PoolList.optional().describe('for networks of this host; 31 private IPv4 subnets when absent'),
  globalPools: PoolList.optional().describe('for networks that span hosts; 10.0.0.0/8 in /24 when absent'),
  hostId: z
    .string()
    .min(1)
    .optional()
    .describe('lasting id of this host; gives it an IPv6 default: a unique local /48 cut into /64'),
  quarantine: z
    .number()
    .int()
    .min(0)
    .max(604_800_000)
    .optional()
    .describe('milliseconds for which a released address is not chosen again; 0 when absent'),
  now: z
    .custom<() => number>(value => typeof value === 'function', 'must be a function')
    .optional()
    .describe('monotonic clock in milliseconds, for tests'),
})
export type DefaultIpamOptions = z.input<typeof DefaultIpamOptions>

/**
 * Pools and addresses in memory, chosen lowest first. The core replays what it knows at a restart by ordinary explicit
 * requests; nothing is written here.
 *
 * Where it differs from libnetwork's default driver, on purpose:
 * - subpools of a pool that overlap are refused (ERR_POOL_OVERLAP), as is a subpool whose pool overlaps another pool;
 * - a subpool outside its pool is refused (ERR_POOL_INVALID);
 * - releasing an address that is free, or somebody else's, is an error; so a stray release harms nobody;
 * - /127 has two addresses and /128 one (RFC 6164).
 */
export class DefaultIpamDriver implements IpamDriver {
  readonly name: string = 'default'
  readonly capabilities = { requiresMac: false, requiresReplay: true }
  /** The same, without promises. */
  readonly allocator: Allocator

  /** Throws ERR_INVALID_OPTION, ERR_POOL_INVALID. */
  constructor(options: DefaultIpamOptions = {}) {
    this.allocator = new Allocator(parse(DefaultIpamOptions, options, 'ipam'))
  }

  async defaultAddressSpaces(): Promise<AddressSpaces> {
    return { ...SPACES }
  }

  async requestPool(request: PoolRequest): Promise<PoolAnswer> {
    return this.allocator.requestPool(request)
  }

  async releasePool(id: string): Promise<void> {
    this.allocator.releasePool(id)
  }

  async requestAddress(poolId: string, request: AddressRequest): Promise<AddressAnswer> {
    return this.allocator.requestAddress(poolId, request)
  }

  async releaseAddress(poolId: string, address: string, owner: string): Promise<void> {
    this.allocator.releaseAddress(poolId, address, owner)
  }

  async status(poolId: string): Promise<PoolStatus> {
    return this.allocator.status(poolId)
  }
}
