import { z } from 'zod'
import { cidr, ip, mac } from '../../../lib/base/parse'
import { GATEWAY_DATA, type IpamDriver } from '../../../lib/ipam/contract'
import { method, type PluginServer, type PluginServerOptions, servePlugin } from '../../remote/server'

/** The protocol does not say for whom an address is: one owner stands for all. */
const OWNER = 'plugin'

const optional = <T extends z.ZodType<unknown, string>>(schema: T) =>
  z.union([z.literal('').transform(() => undefined), schema]).nullish()
const options = () =>
  z
    .record(z.string(), z.string())
    .nullish()
    .transform(value => value ?? {})
const PoolId = z.looseObject({ PoolID: z.string().min(1).max(4096) })
const PoolWanted = z.looseObject({
  AddressSpace: z.string().max(256),
  Pool: optional(cidr()),
  SubPool: optional(cidr()),
  Options: options(),
  V6: z.boolean().default(false),
})
const AddressWanted = PoolId.extend({ Address: optional(ip()), Options: options() })
const AddressGiven = PoolId.extend({ Address: z.string().max(64) })

const MAC = 'com.docker.network.endpoint.macaddress'
const NAME = 'com.docker.network.endpoint.name'
const TYPE = 'RequestAddressType'

/** Offers an IPAM driver over Docker's plugin protocol. */
export function serveIpamDriver(driver: IpamDriver, where: PluginServerOptions): Promise<PluginServer> {
  const methods = {
    GetCapabilities: method(z.unknown(), async () => ({
      RequiresMACAddress: driver.capabilities.requiresMac,
      RequiresRequestReplay: driver.capabilities.requiresReplay,
    })),
    GetDefaultAddressSpaces: method(z.unknown(), async () => {
      const { local, global } = await driver.defaultAddressSpaces()
      return { LocalDefaultAddressSpace: local, GlobalDefaultAddressSpace: global }
    }),
    RequestPool: method(PoolWanted, async ({ AddressSpace, Pool, SubPool, Options, V6 }) => {
      const { id, pool, data } = await driver.requestPool({
        space: AddressSpace,
        family: V6 ? 6 : 4,
        pool: Pool ?? undefined,
        subPool: SubPool ?? undefined,
        options: Options,
      })
      return { PoolID: id, Pool: pool, Data: data }
    }),
    ReleasePool: method(PoolId, async ({ PoolID }) => {
      await driver.releasePool(PoolID)
      return {}
    }),
    RequestAddress: method(AddressWanted, async ({ PoolID, Address, Options }) => {
      const { [MAC]: given, [NAME]: name, [TYPE]: type, ...rest } = Options
      const known = mac().safeParse(given)
      const { address, data } = await driver.requestAddress(PoolID, {
        address: Address ?? undefined,
        owner: OWNER,
        purpose: type === GATEWAY_DATA ? 'gateway' : 'endpoint',
        mac: known.success ? known.data : undefined,
        name,
        options: rest,
      })
      return { Address: address, Data: data }
    }),
    ReleaseAddress: method(AddressGiven, async ({ PoolID, Address }) => {
      await driver.releaseAddress(PoolID, Address, OWNER)
      return {}
    }),
  }
  return servePlugin('IpamDriver', methods, where, async () => {})
}
