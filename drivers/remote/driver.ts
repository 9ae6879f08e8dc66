import { z } from 'zod'
import { type Family, familyOf } from '../../lib/base/cidr'
import { CnmError, isCnmError } from '../../lib/base/errors'
import { cidr, ip, linkName, mac, subnet } from '../../lib/base/parse'
import type {
  Attachment,
  Capabilities,
  Driver,
  DriverNetwork,
  EndpointAnswer,
  EndpointSpec,
  JoinRequest,
  NetworkPool,
  NetworkSpec,
  NetworkState,
  ClusterNode,
  Plan,
  Spanning,
} from '../../lib/driver/contract'
import type { RouteSpec } from '../../lib/kernel/kernel'
import { isMissingMethod, type PluginClient } from './client'

type Options = Record<string, unknown>
type Spec = NetworkSpec<Options>
type Network = DriverNetwork<Options>

/** Go writes absent values as empty text. */
const orEmpty = <T extends z.ZodType<unknown, string>>(schema: T) =>
  z.union([z.literal('').transform(() => undefined), schema]).nullish()

const Nothing = z.looseObject({})
const Scopes = z.looseObject({
  Scope: z.enum(['local', 'global']),
  ConnectivityScope: z.enum(['local', 'global', '']).default(''),
  GwAllocChecker: z.boolean().default(false),
})
const Allocated = z.looseObject({ Options: z.record(z.string(), z.string()).nullish() })
const Skipped = z.looseObject({
  SkipIPv4: z.boolean().default(false),
  SkipIPv6: z.boolean().default(false),
})
const Interface = z.looseObject({
  Interface: z
    .looseObject({ Address: orEmpty(cidr()), AddressIPv6: orEmpty(cidr()), MacAddress: orEmpty(mac()) })
    .nullish(),
})
const Told = z.looseObject({ Value: z.record(z.string(), z.unknown()).nullish() })
/** libnetwork/types: how a static route is reached. */
const NEXT_HOP = 0
const CONNECTED = 1
const Joined = z.looseObject({
  InterfaceName: z
    .looseObject({
      SrcName: orEmpty(linkName()),
      DstPrefix: orEmpty(z.string().regex(/^[a-zA-Z][a-zA-Z0-9_.-]{0,11}$/, 'must begin an interface name')),
    })
    .nullish(),
  Gateway: orEmpty(ip()),
  GatewayIPv6: orEmpty(ip()),
  StaticRoutes: z
    .array(
      z.looseObject({
        Destination: subnet(),
        RouteType: z.union([z.literal(NEXT_HOP), z.literal(CONNECTED)]).default(NEXT_HOP),
        NextHop: orEmpty(ip()),
      }),
    )
    .max(4096)
    .nullish(),
  DisableGatewayService: z.boolean().nullish(),
})

/** libnetwork/discoverapi: the only type that plugins are told. */
const NODE_DISCOVERY = 1

/** A driver in another process, reached by Docker's plugin protocol. It acts itself; the core moves in the interface that it made. */
export class RemoteDriver implements Driver<Options> {
  readonly options = z.record(z.string(), z.unknown())
  readonly endpointOptions = z.record(z.string(), z.unknown())
  /** Options are the plugin's business, whatever their names. */
  readonly takesLabels = true
  /** Of a plugin with global scope: each host's plugin has the network, and reaches the others by its own ways. */
  readonly spanning?: Spanning<Options>

  private constructor(
    readonly name: string,
    readonly capabilities: Capabilities,
    private readonly client: PluginClient,
    private readonly asksGateway: boolean,
  ) {
    if (capabilities.dataScope === 'global') this.spanning = this.#spanning()
  }

  /** Asks the plugin what it can do. Throws ERR_PLUGIN. */
  static async open(client: PluginClient): Promise<RemoteDriver> {
    const answer = await client.call('NetworkDriver.GetCapabilities', undefined, Scopes)
    return new RemoteDriver(
      client.name,
      { dataScope: answer.Scope, connectivityScope: answer.ConnectivityScope || answer.Scope },
      client,
      answer.GwAllocChecker,
    )
  }

  async skipsGateway(network: Omit<Spec, 'pools'>): Promise<Family[]> {
    if (!this.asksGateway) return []
    const { SkipIPv4, SkipIPv6 } = await this.#ask('GwAllocCheck', { Options: optionsOf(network) }, Skipped)
    return [...(SkipIPv4 ? [4 as const] : []), ...(SkipIPv6 ? [6 as const] : [])]
  }

  async createNetwork(spec: Spec): Promise<{ state: NetworkState }> {
    const request = { NetworkID: spec.id, Options: optionsOf(spec), ...this.#data(spec.pools) }
    await this.#ask('CreateNetwork', request, Nothing).catch(error =>
      this.#afterDoubt(error, 'DeleteNetwork', { NetworkID: spec.id }),
    )
    return { state: {} }
  }

  async deleteNetwork({ spec }: Network): Promise<Plan> {
    await this.#ask('DeleteNetwork', { NetworkID: spec.id }, Nothing)
    return {}
  }

  async createEndpoint({ spec }: Network, endpoint: EndpointSpec): Promise<EndpointAnswer> {
    const ids = { NetworkID: spec.id, EndpointID: endpoint.id }
    const given = {
      Address: endpoint.ipv4 ?? '',
      AddressIPv6: endpoint.ipv6 ?? '',
      MacAddress: endpoint.macGiven ? endpoint.mac : '',
    }
    const request = { ...ids, Interface: given, Options: endpoint.options }
    const { Interface: answer } = await this.#ask('CreateEndpoint', request, Interface).catch(error =>
      this.#afterDoubt(error, 'DeleteEndpoint', ids),
    )
    const { Address: ipv4, AddressIPv6: ipv6, MacAddress: address } = answer ?? {}
    for (const field of ['Address', 'AddressIPv6', 'MacAddress'] as const)
      if (answer?.[field] && given[field])
        return this.#rollBack(
          'DeleteEndpoint',
          ids,
          `${field} ${answer[field]} was given already: it is ${given[field]}`,
        )
    if (ipv4 && familyOf(ipv4) !== 4)
      return this.#rollBack('DeleteEndpoint', ids, `Address ${ipv4} is not an IPv4 address`)
    if (ipv6 && familyOf(ipv6) !== 6)
      return this.#rollBack('DeleteEndpoint', ids, `AddressIPv6 ${ipv6} is not an IPv6 address`)
    return {
      mac: address ?? undefined,
      ipv4: ipv4 ?? undefined,
      ipv6: ipv6 ?? undefined,
      data: { mac: address },
    }
  }

  async deleteEndpoint({ spec }: Network, { id }: EndpointSpec): Promise<void> {
    await this.#ask('DeleteEndpoint', { NetworkID: spec.id, EndpointID: id }, Nothing)
  }

  async info({ spec }: Network, { id }: EndpointSpec): Promise<Record<string, unknown>> {
    const { Value } = await this.#ask('EndpointOperInfo', { NetworkID: spec.id, EndpointID: id }, Told)
    return Value ?? {}
  }

  async join({ spec }: Network, endpoint: EndpointSpec, request: JoinRequest): Promise<Attachment> {
    const ids = { NetworkID: spec.id, EndpointID: endpoint.id }
    const sent = {
      ...ids,
      SandboxKey: request.sandboxKey,
      Options: { ...request.sandboxOptions, ...endpoint.options },
    }
    const answer = await this.#ask('Join', sent, Joined).catch(error => this.#afterDoubt(error, 'Leave', ids))
    const { SrcName: source, DstPrefix: prefix } = answer.InterfaceName ?? {}
    const gateways: Partial<Record<Family, string>> = {}
    for (const [family, gateway] of [
      [4, answer.Gateway],
      [6, answer.GatewayIPv6],
    ] as const) {
      if (!gateway) continue
      if (familyOf(gateway) !== family)
        return this.#rollBack('Leave', ids, `gateway ${gateway} is not an IPv${family} address`)
      gateways[family] = gateway
    }
    const routes: RouteSpec[] = []
    for (const { Destination: destination, RouteType, NextHop: gateway } of answer.StaticRoutes ?? []) {
      const family = familyOf(destination)
      const direct = RouteType === CONNECTED
      if (!direct && (!gateway || familyOf(gateway) !== family))
        return this.#rollBack('Leave', ids, `the route to ${destination} has no next hop of its family`)
      // One to everywhere is a gateway: it takes part in the election, and gives way to that of another network.
      if (destination.endsWith('/0')) gateways[family] ??= direct ? 'device' : (gateway ?? undefined)
      else
        routes.push(direct ? { destination, scope: 'link' } : { destination, gateway: gateway ?? undefined })
    }
    const named = endpoint.macGiven || typeof endpoint.data?.mac === 'string'
    return {
      ...(source && {
        interface: {
          arrives: 'moved',
          source,
          prefix: prefix ?? undefined,
          mac: named ? endpoint.mac : undefined,
        },
      }),
      gateways,
      routes,
      disableGatewayService: answer.DisableGatewayService ?? false,
    }
  }

  async leave({ spec }: Network, { id }: EndpointSpec): Promise<Plan> {
    await this.#ask('Leave', { NetworkID: spec.id, EndpointID: id }, Nothing)
    return {}
  }

  async externalConnectivity(
    { spec }: Network,
    { id }: EndpointSpec,
    families: Family[],
    options: Record<string, unknown>,
  ): Promise<void> {
    const ids = { NetworkID: spec.id, EndpointID: id }
    if (families.length) await this.#askIfThere('ProgramExternalConnectivity', { ...ids, Options: options })
    else await this.#askIfThere('RevokeExternalConnectivity', ids)
  }

  /** What was given stays beside what the plugin answers. One that takes nothing need not have the method. */
  async allocateNetwork({ id, options, pools }: Spec): Promise<Options> {
    const request = { NetworkID: id, Options: optionsAsText(options), ...this.#data(pools) }
    const allocated = await this.#ask('AllocateNetwork', request, Allocated).catch(error =>
      isMissingMethod(error) ? undefined : this.#afterDoubt(error, 'FreeNetwork', { NetworkID: id }),
    )
    return { ...options, ...allocated?.Options }
  }

  async freeNetwork({ id }: Spec): Promise<void> {
    await this.#askIfThere('FreeNetwork', { NetworkID: id })
  }

  /** Tells the plugin of a node that came, or went. One that does not care need not have the method. */
  async discover(change: 'new' | 'delete', { address, self }: ClusterNode): Promise<void> {
    const request = { DiscoveryType: NODE_DISCOVERY, DiscoveryData: { Address: address, Self: self } }
    await this.#askIfThere(change === 'new' ? 'DiscoverNew' : 'DiscoverDelete', request)
  }

  #spanning(): Spanning<Options> {
    return {
      data: z.record(z.string(), z.unknown()).default({}),
      gatewayBridge: false,
      settle: async () => ({}),
      link: () => undefined,
      reach: () => ({ changes: [], undo: [] }),
      prune: async () => [],
      reclaim: async () => {},
      adopt: async ({ spec }) => void (await this.createNetwork(spec)),
      dismiss: async network => void (await this.deleteNetwork(network)),
    }
  }

  async #askIfThere(method: string, body: object): Promise<void> {
    try {
      await this.#ask(method, body, Nothing)
    } catch (error) {
      if (!isMissingMethod(error)) throw error
    }
  }

  #ask<S extends z.ZodType>(method: string, body: object, answer: S): Promise<z.output<S>> {
    return this.client.call(`NetworkDriver.${method}`, body, answer)
  }

  /** The plugin may have done it all the same: it is told to take it back, and the failure goes on. */
  async #afterDoubt(error: unknown, inverse: string, ids: object): Promise<never> {
    if (isCnmError(error) && error.details.uncertain)
      await this.#ask(inverse, ids, Nothing).catch(() => undefined)
    throw error
  }

  async #rollBack(inverse: string, ids: object, why: string): Promise<never> {
    const outcome = await this.#ask(inverse, ids, Nothing).then(
      () => 'rolled back',
      (error: Error) => `roll back failed: ${error.message}`,
    )
    throw new CnmError('ERR_PLUGIN', `remote: plugin ${this.name}: ${why}; ${outcome}`, {
      plugin: this.name,
      ...ids,
    })
  }

  #data(pools: NetworkPool[]) {
    const space = this.capabilities.dataScope === 'global' ? 'GlobalDefault' : 'LocalDefault'
    const of = (family: Family) =>
      pools
        .filter(pool => pool.family === family)
        .map(({ subnet: pool, gateway = '', auxiliary }) => ({
          AddressSpace: space,
          Pool: pool,
          Gateway: gateway,
          AuxAddresses: auxiliary,
        }))
    return { IPv4Data: of(4), IPv6Data: of(6) }
  }
}

/** AllocateNetwork takes and answers text only. */
export const optionsAsText = (options: Options): Record<string, string> =>
  Object.fromEntries(
    Object.entries(options)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
  )

function optionsOf({ options, ipv4, ipv6, internal }: Omit<Spec, 'pools'>): Record<string, unknown> {
  return {
    'com.docker.network.enable_ipv4': ipv4,
    'com.docker.network.enable_ipv6': ipv6,
    ...(internal && { 'com.docker.network.internal': true }),
    'com.docker.network.generic': options,
  }
}
