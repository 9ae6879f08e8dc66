import { z } from 'zod'
import { type Family, formatCidr, parseCidr } from '../../lib/base/cidr'
import { CnmError } from '../../lib/base/errors'
import { randomHex, randomMac } from '../../lib/base/ids'
import { Locks } from '../../lib/base/locks'
import { cidr, mac, parse } from '../../lib/base/parse'
import { atomically } from '../../lib/base/undo'
import { applyLeniently, carryOut } from '../../lib/driver/carry-out'
import type {
  Attachment,
  Driver,
  DriverNetwork,
  EndpointSpec,
  NetworkPool,
  NetworkSpec,
} from '../../lib/driver/contract'
import { fromLabels } from '../../lib/driver/options'
import type { Kernel, RouteSpec, Stack } from '../../lib/kernel/kernel'
import { LinuxKernel } from '../../lib/kernel/linux'
import { optionsAsText } from './driver'
import { type Method, method, type PluginServer, type PluginServerOptions, servePlugin } from './server'

export interface ServeDriverOptions extends PluginServerOptions {
  kernel?: Kernel
  /** Path of the network namespace in which the driver works. Default: the process's own. */
  host?: string
}

const id = () => z.string().regex(/^[a-zA-Z0-9_.-]{1,128}$/, 'must be an id')
const optional = <T extends z.ZodType<unknown, string>>(schema: T) =>
  z.union([z.literal('').transform(() => undefined), schema]).nullish()
const bag = () =>
  z
    .record(z.string(), z.unknown())
    .nullish()
    .transform(value => value ?? {})
const data = () =>
  z
    .array(
      z.looseObject({
        Pool: cidr(),
        Gateway: optional(cidr()),
        AuxAddresses: z.record(z.string(), z.string()).nullish(),
      }),
    )
    .nullish()
    .transform(value => value ?? [])

const OfNetwork = z.looseObject({ NetworkID: id() })
const OfEndpoint = OfNetwork.extend({ EndpointID: id() })
const Creation = OfNetwork.extend({ Options: bag(), IPv4Data: data(), IPv6Data: data() })
const EndpointCreation = OfEndpoint.extend({
  Options: bag(),
  Interface: z
    .looseObject({ Address: optional(cidr()), AddressIPv6: optional(cidr()), MacAddress: optional(mac()) })
    .nullish(),
})
const Joining = OfEndpoint.extend({ SandboxKey: z.string().max(4096).default(''), Options: bag() })
/** Options as text, from managers of a cluster. */
const Allocation = Creation.extend({ Options: z.record(z.string(), z.string()).nullish() })
/** libnetwork/discoverapi: nodes; other types are none of a plugin's business. */
const NODE_DISCOVERY = 1
const Discovery = z.looseObject({
  DiscoveryType: z.number().int(),
  DiscoveryData: z
    .looseObject({ Address: z.string().default(''), Self: z.boolean().default(false) })
    .nullish(),
})
const WithOptions = z.looseObject({ Options: bag() })

const GENERIC = 'com.docker.network.generic'

interface Held {
  spec: EndpointSpec
  attachment?: Attachment
  /** The end that Docker moves. */
  source?: string
}
interface HeldNetwork {
  network: DriverNetwork
  endpoints: Map<string, Held>
}

/**
 * Offers a network driver over Docker's plugin protocol and carries out its plans on the host. Rules of the firewall and
 * published ports are not part of the protocol: they stay with whoever asks.
 */
export async function serveDriver<O>(driver: Driver<O>, options: ServeDriverOptions): Promise<PluginServer> {
  const kernel = options.kernel ?? new LinuxKernel()
  const host = await kernel.open(options.host)
  try {
    const served = new Host(driver as Driver, host)
    return await servePlugin('NetworkDriver', served.methods(), options, async () => host.close())
  } catch (error) {
    host.close()
    throw error
  }
}

/** Does what a driver answers. */
class Host {
  readonly #networks = new Map<string, HeldNetwork>()
  readonly #locks = new Locks()
  /** What freeNetwork is to be asked with. */
  readonly #allocated = new Map<string, NetworkSpec>()

  constructor(
    private readonly driver: Driver,
    private readonly host: Stack,
  ) {}

  methods(): Record<string, Method> {
    const { driver } = this
    return {
      GetCapabilities: method(z.unknown(), async () => ({
        Scope: driver.capabilities.dataScope,
        ConnectivityScope: driver.capabilities.connectivityScope,
        GwAllocChecker: driver.skipsGateway !== undefined,
      })),
      GwAllocCheck: method(WithOptions, async ({ Options }) => {
        const { pools: _, ...spec } = this.#spec('', Options, [])
        const skipped = (await driver.skipsGateway?.(spec)) ?? []
        return { SkipIPv4: skipped.includes(4), SkipIPv6: skipped.includes(6) }
      }),
      AllocateNetwork: method(Allocation, request => this.#allocate(request)),
      FreeNetwork: method(OfNetwork, request => this.#free(request)),
      CreateNetwork: method(Creation, request =>
        this.#locks.run('networks', () => this.#createNetwork(request)),
      ),
      DeleteNetwork: method(OfNetwork, request =>
        this.#locks.runAll(['networks', `network ${request.NetworkID}`], () => this.#deleteNetwork(request)),
      ),
      CreateEndpoint: method(EndpointCreation, request =>
        this.#inNetwork(request, held => this.#createEndpoint(held, request)),
      ),
      DeleteEndpoint: method(OfEndpoint, request =>
        this.#inNetwork(request, held => this.#deleteEndpoint(held, request.EndpointID)),
      ),
      EndpointOperInfo: method(OfEndpoint, request =>
        this.#inNetwork(request, async held => {
          const { spec } = this.#endpoint(held, request.EndpointID)
          return { Value: (await driver.info?.(held.network, spec)) ?? {} }
        }),
      ),
      Join: method(Joining, request => this.#inNetwork(request, held => this.#join(held, request))),
      Leave: method(OfEndpoint, request =>
        this.#inNetwork(request, held => this.#leave(held, this.#endpoint(held, request.EndpointID))),
      ),
      ProgramExternalConnectivity: method(OfEndpoint.extend({ Options: bag() }), request =>
        this.#inNetwork(request, async held => {
          const { spec, attachment } = this.#endpoint(held, request.EndpointID)
          const { 4: four, 6: six } = attachment?.gateways ?? {}
          const families: Family[] = [...(four ? [4 as const] : []), ...(six ? [6 as const] : [])]
          await driver.externalConnectivity?.(held.network, spec, families, request.Options)
          return {}
        }),
      ),
      RevokeExternalConnectivity: method(OfEndpoint, request =>
        this.#inNetwork(request, async held => {
          const { spec } = this.#endpoint(held, request.EndpointID)
          await driver.externalConnectivity?.(held.network, spec, [], {})
          return {}
        }),
      ),
      DiscoverNew: method(Discovery, request => this.#discover('new', request)),
      DiscoverDelete: method(Discovery, request => this.#discover('delete', request)),
    }
  }

  #inNetwork(
    { NetworkID }: { NetworkID: string },
    body: (held: HeldNetwork) => Promise<object>,
  ): Promise<object> {
    return this.#locks.run(`network ${NetworkID}`, () => body(this.#network(NetworkID)))
  }

  #network(networkId: string): HeldNetwork {
    const held = this.#networks.get(networkId)
    if (!held) throw new CnmError('ERR_NETWORK_NOT_FOUND', `network ${networkId} not found`)
    return held
  }

  #endpoint(held: HeldNetwork, endpointId: string): Held {
    const found = held.endpoints.get(endpointId)
    if (!found) throw new CnmError('ERR_ENDPOINT_NOT_FOUND', `endpoint ${endpointId} not found`)
    return found
  }

  /** The protocol carries no name of a network: the id stands for it. */
  #bare(id: string): Omit<NetworkSpec, 'options'> {
    return { id, name: id.slice(0, 12), internal: false, ipv4: false, ipv6: false, pools: [], labels: {} }
  }

  #spec(networkId: string, given: Record<string, unknown>, pools: NetworkPool[]): NetworkSpec {
    const { driver } = this
    const generic = parse(bag(), given[GENERIC], GENERIC)
    return {
      ...this.#bare(networkId),
      internal: given['com.docker.network.internal'] === true,
      ipv4: pools.some(({ family }) => family === 4),
      ipv6: pools.some(({ family }) => family === 6),
      pools,
      options: parse(driver.options, fromLabels(generic, driver.labels ?? {}, driver.takesLabels), 'options'),
    }
  }

  #others(): DriverNetwork[] {
    return [...this.#networks.values()].map(({ network }) => network)
  }

  async #createNetwork(request: z.output<typeof Creation>): Promise<object> {
    const networkId = request.NetworkID
    if (this.#networks.has(networkId))
      throw new CnmError('ERR_NETWORK_EXISTS', `network with id ${networkId} already exists`)
    const pools = [...poolsOf(4, request.IPv4Data), ...poolsOf(6, request.IPv6Data)]
    const spec = this.#spec(networkId, request.Options, pools)
    await atomically(async undo => {
      const { state, plan } = await this.driver.createNetwork(spec, this.host, this.#others())
      const network = { spec, state }
      undo.push('the driver deletes it', () => this.driver.deleteNetwork(network, this.host, this.#others()))
      await carryOut(this.host, plan, `network ${networkId}`, undo)
      this.#networks.set(networkId, { network, endpoints: new Map() })
    })
    return {}
  }

  /**
   * A manager (Docker's swarm) asks it once for all hosts, and each host's CreateNetwork gets what is answered here and nothing
   * else: so what was given is part of it.
   */
  async #allocate({ NetworkID, Options, IPv4Data, IPv6Data }: z.output<typeof Allocation>): Promise<object> {
    const given = Options ?? {}
    if (!this.driver.allocateNetwork) return { Options: given }
    const pools = [...poolsOf(4, IPv4Data), ...poolsOf(6, IPv6Data)]
    const spec = this.#spec(NetworkID, { [GENERIC]: given }, pools)
    const options = (await this.driver.allocateNetwork(spec)) as Record<string, unknown>
    this.#allocated.set(NetworkID, { ...spec, options })
    return { Options: { ...given, ...optionsAsText(options) } }
  }

  /** One that it does not know was allocated before this process began: its id is all that is left of it. */
  async #free({ NetworkID }: { NetworkID: string }): Promise<object> {
    const spec = this.#allocated.get(NetworkID) ?? { ...this.#bare(NetworkID), options: {} }
    await this.driver.freeNetwork?.(spec)
    this.#allocated.delete(NetworkID)
    return {}
  }

  async #discover(
    change: 'new' | 'delete',
    { DiscoveryType, DiscoveryData: node }: z.output<typeof Discovery>,
  ): Promise<object> {
    if (DiscoveryType === NODE_DISCOVERY && node?.Address)
      await this.driver.discover?.(change, { address: node.Address, self: node.Self })
    return {}
  }

  async #deleteNetwork({ NetworkID }: { NetworkID: string }): Promise<object> {
    const held = this.#network(NetworkID)
    if (held.endpoints.size)
      throw new CnmError(
        'ERR_NETWORK_IN_USE',
        `network ${NetworkID} has endpoints: ${[...held.endpoints.keys()].join(', ')}`,
      )
    const others = this.#others().filter(other => other !== held.network)
    const plan = await this.driver.deleteNetwork(held.network, this.host, others)
    await applyLeniently(this.host, plan.changes ?? [])
    this.#networks.delete(NetworkID)
    return {}
  }

  async #createEndpoint(held: HeldNetwork, request: z.output<typeof EndpointCreation>): Promise<object> {
    const { driver } = this
    const endpointId = request.EndpointID
    if (held.endpoints.has(endpointId))
      throw new CnmError('ERR_ENDPOINT_EXISTS', `endpoint ${endpointId} already exists`)
    const { Address, AddressIPv6, MacAddress } = request.Interface ?? {}
    const own = driver.endpointOptions
    const options = own ? parse(own, fromLabels(request.Options, driver.endpointLabels ?? {}), 'options') : {}
    const chosen = MacAddress ?? randomMac()
    const spec: EndpointSpec = {
      id: endpointId,
      name: endpointId.slice(0, 12),
      mac: chosen,
      macGiven: MacAddress !== undefined && MacAddress !== null,
      ipv4: Address ?? undefined,
      ipv6: AddressIPv6 ?? undefined,
      linkLocal: [],
      options,
    }
    const answer = (await driver.createEndpoint?.(held.network, spec)) ?? {}
    Object.assign(spec, {
      mac: answer.mac ?? spec.mac,
      ipv4: spec.ipv4 ?? answer.ipv4,
      ipv6: spec.ipv6 ?? answer.ipv6,
      data: answer.data,
    })
    held.endpoints.set(endpointId, { spec })
    // Only what was left open may be answered.
    return {
      Interface: {
        Address: Address ? '' : (spec.ipv4 ?? ''),
        AddressIPv6: AddressIPv6 ? '' : (spec.ipv6 ?? ''),
        MacAddress: MacAddress || driver.capabilities.sharedMac ? '' : spec.mac,
      },
    }
  }

  async #deleteEndpoint(held: HeldNetwork, endpointId: string): Promise<object> {
    const endpoint = this.#endpoint(held, endpointId)
    if (endpoint.attachment) await this.#leave(held, endpoint)
    await this.driver.deleteEndpoint?.(held.network, endpoint.spec)
    held.endpoints.delete(endpointId)
    return {}
  }

  /** What would be born in the sandbox is born on the host, under a name of ours: Docker moves it and names it. */
  async #join(held: HeldNetwork, request: z.output<typeof Joining>): Promise<object> {
    const endpoint = this.#endpoint(held, request.EndpointID)
    if (endpoint.attachment)
      throw new CnmError('ERR_ENDPOINT_JOINED', `endpoint ${request.EndpointID} is joined already`)
    const { driver, host } = this
    const born = `cnm${randomHex(10)}`
    const attachment = await atomically(async undo => {
      const made = await driver.join(held.network, endpoint.spec, {
        sandboxId: request.EndpointID,
        sandboxKey: request.SandboxKey,
        netns: host,
        interfaceName: born,
        sandboxOptions: request.Options,
      })
      undo.push('the driver leaves', async () => {
        const plan = await driver.leave(held.network, endpoint.spec, made)
        await applyLeniently(host, plan.changes ?? [])
      })
      await carryOut(host, made.plan, `endpoint ${request.EndpointID}`, undo)
      return made
    })
    endpoint.attachment = attachment
    endpoint.source = attachment.interface?.arrives === 'born' ? born : attachment.interface?.source
    const prefix = attachment.interface?.prefix ?? held.network.state.interfacePrefix ?? 'eth'
    const { 4: four, 6: six } = attachment.gateways ?? {}
    const device = (gateway: string | undefined, destination: string) =>
      gateway === 'device' ? [{ Destination: destination, RouteType: 1, NextHop: '' }] : []
    const address = (gateway: string | undefined) => (gateway === 'device' ? '' : (gateway ?? ''))
    return {
      InterfaceName: {
        SrcName: endpoint.source ?? '',
        DstName: '',
        DstPrefix: endpoint.source ? prefix : '',
      },
      Gateway: address(four),
      GatewayIPv6: address(six),
      StaticRoutes: [
        ...(attachment.routes ?? []).map(staticRoute),
        ...device(four, '0.0.0.0/0'),
        ...device(six, '::/0'),
      ],
      DisableGatewayService: attachment.disableGatewayService ?? false,
    }
  }

  async #leave(held: HeldNetwork, endpoint: Held): Promise<object> {
    const { attachment, source } = endpoint
    if (!attachment) return {}
    const plan = await this.driver.leave(held.network, endpoint.spec, attachment)
    await applyLeniently(this.host, plan.changes ?? [])
    // One end of a pair is gone with the other; a macvlan is alone.
    if (source && attachment.interface?.arrives === 'born')
      await applyLeniently(this.host, [{ op: 'removeLink', link: source, ifExists: true }])
    endpoint.attachment = undefined
    endpoint.source = undefined
    return {}
  }
}

const staticRoute = ({ destination, gateway }: RouteSpec) => ({
  Destination: destination,
  RouteType: gateway ? 0 : 1,
  NextHop: gateway ?? '',
})

function poolsOf(family: Family, entries: z.output<ReturnType<typeof data>>): NetworkPool[] {
  return entries.map(({ Pool, Gateway, AuxAddresses }) => {
    const pool = parseCidr(Pool)
    if (pool.family !== family)
      throw new CnmError('ERR_POOL_INVALID', `${Pool} is not an IPv${family} subnet`)
    const auxiliary = Object.entries(AuxAddresses ?? {}).map(([name, address]) => [
      name,
      formatCidr(parseCidr(address.includes('/') ? address : `${address}/${pool.length}`)),
    ])
    return { family, subnet: Pool, gateway: Gateway ?? undefined, auxiliary: Object.fromEntries(auxiliary) }
  })
}
