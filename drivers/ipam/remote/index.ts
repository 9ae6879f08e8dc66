import { z } from 'zod'
import { addressOf, contains, familyOf, overlaps, parseCidr, parseIp } from '../../../lib/base/cidr'
import { CnmError, isCnmError } from '../../../lib/base/errors'
import { cidr, subnet } from '../../../lib/base/parse'
import {
  type AddressAnswer,
  type AddressRequest,
  type AddressSpaces,
  GATEWAY_DATA,
  type IpamCapabilities,
  type IpamDriver,
  type PoolAnswer,
  type PoolRequest,
} from '../../../lib/ipam/contract'
import type { PluginClient } from '../../remote/client'

const Nothing = z.looseObject({})
const Needs = z.looseObject({
  RequiresMACAddress: z.boolean().default(false),
  RequiresRequestReplay: z.boolean().default(false),
})
const Spaces = z.looseObject({
  LocalDefaultAddressSpace: z.string().max(256),
  GlobalDefaultAddressSpace: z.string().max(256),
})
const Data = z.record(z.string(), z.string()).nullish()
const Pool = z.looseObject({ PoolID: z.string().min(1).max(4096), Pool: subnet(), Data })
const Address = z.looseObject({
  Address: z.string().min(1, 'no address was returned').pipe(cidr()),
  Data,
})

/** How many pools that clash with the host are held back before the search is given up. */
const HELD_LIMIT = 64

/** An IPAM driver in another process, reached by Docker's plugin protocol. */
export class RemoteIpamDriver implements IpamDriver {
  private constructor(
    readonly name: string,
    readonly capabilities: IpamCapabilities,
    private readonly client: PluginClient,
  ) {}

  /** A plugin that does not tell its capabilities has none. */
  static async open(client: PluginClient): Promise<RemoteIpamDriver> {
    const needs = await client
      .call('IpamDriver.GetCapabilities', undefined, Needs)
      .catch(() => ({ RequiresMACAddress: false, RequiresRequestReplay: false }))
    return new RemoteIpamDriver(
      client.name,
      { requiresMac: needs.RequiresMACAddress, requiresReplay: needs.RequiresRequestReplay },
      client,
    )
  }

  async defaultAddressSpaces(): Promise<AddressSpaces> {
    const answer = await this.client.call('IpamDriver.GetDefaultAddressSpaces', undefined, Spaces)
    return { local: answer.LocalDefaultAddressSpace, global: answer.GlobalDefaultAddressSpace }
  }

  /** A pool of the plugin's choice that clashes with the host is held while another is asked for. */
  async requestPool(request: PoolRequest): Promise<PoolAnswer> {
    const held: string[] = []
    try {
      for (;;) {
        const answer = await this.#requestOne(request)
        const clash = request.pool === undefined && this.#clash(answer.pool, request.exclude)
        if (!clash) return answer
        held.push(answer.id)
        if (held.length === HELD_LIMIT)
          throw new CnmError(
            'ERR_PLUGIN',
            `remote: plugin ${this.name}: none of ${HELD_LIMIT} pools is free on this host; the last, ${answer.pool}, overlaps ${clash}`,
            { plugin: this.name, pool: answer.pool, overlaps: clash },
          )
      }
    } finally {
      for (const id of held) await this.releasePool(id).catch(() => undefined)
    }
  }

  #clash(pool: string, exclude: string[] = []): string | undefined {
    const subnetOfPool = parseCidr(pool)
    if (subnetOfPool.length === 0) return undefined // no subnet, but the plugin's way to say that it has none
    return exclude.find(other => overlaps(parseCidr(other), subnetOfPool))
  }

  async #requestOne({ space, family, pool, subPool, options }: PoolRequest): Promise<PoolAnswer> {
    const answer = await this.client.call(
      'IpamDriver.RequestPool',
      {
        AddressSpace: space,
        Pool: pool ?? '',
        SubPool: subPool ?? '',
        Options: options ?? {},
        V6: family === 6,
      },
      Pool,
    )
    const { PoolID: id, Pool: given, Data: data } = answer
    const gateway = data?.[GATEWAY_DATA]
    const wrong =
      familyOf(given) !== family
        ? `pool ${given} is not an IPv${family} subnet`
        : gateway !== undefined && gateway !== '' && !this.#isInside(gateway, given)
          ? `gateway ${JSON.stringify(gateway.slice(0, 80))} is no address of ${given}`
          : undefined
    if (wrong) {
      await this.releasePool(id).catch(() => undefined)
      throw new CnmError('ERR_PLUGIN', `remote: plugin ${this.name}: ${wrong}`, {
        plugin: this.name,
        poolId: id,
      })
    }
    return { id, pool: given, data: data ?? {} }
  }

  #isInside(address: string, pool: string): boolean {
    const parsed = cidr().safeParse(address)
    return parsed.success && contains(parseCidr(pool), parseIp(addressOf(parsed.data)))
  }

  async releasePool(id: string): Promise<void> {
    await this.client.call('IpamDriver.ReleasePool', { PoolID: id }, Nothing)
  }

  async requestAddress(poolId: string, request: AddressRequest): Promise<AddressAnswer> {
    const { address = '', purpose, mac, name, options } = request
    const sent = {
      PoolID: poolId,
      Address: address,
      Options: {
        ...options,
        ...(purpose === 'gateway' && { RequestAddressType: GATEWAY_DATA }),
        ...(mac && { 'com.docker.network.endpoint.macaddress': mac }),
        ...(name && { 'com.docker.network.endpoint.name': name }),
      },
    }
    const answer = await this.client.call('IpamDriver.RequestAddress', sent, Address).catch(async error => {
      // Nobody knows whether it is taken now. What was chosen by the plugin cannot be named, so not given back either.
      if (address && isCnmError(error) && error.details.uncertain)
        await this.releaseAddress(poolId, address).catch(() => undefined)
      throw error
    })
    const given = addressOf(answer.Address)
    if (address && given !== address) {
      await this.releaseAddress(poolId, given).catch(() => undefined)
      throw new CnmError(
        'ERR_PLUGIN',
        `remote: plugin ${this.name}: asked for ${address}, it gave ${given}`,
        {
          plugin: this.name,
          poolId,
        },
      )
    }
    return { address: answer.Address, data: answer.Data ?? {} }
  }

  async releaseAddress(poolId: string, address: string): Promise<void> {
    const bare = address.includes('/') ? addressOf(address) : address
    await this.client.call('IpamDriver.ReleaseAddress', { PoolID: poolId, Address: bare }, Nothing)
  }
}
