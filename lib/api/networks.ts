/** The routes below /networks. */
import { parseBoolean } from '../base/booleans'
import { contains, parseCidr, parseIp } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { atomically } from '../base/undo'
import type { Controller } from '../controller'
import type { Endpoint } from '../endpoint'
import type { Network } from '../network'
import { type ContainerRef, type Containers, noSuchContainer } from './containers'
import { HttpError } from './errors'
import type { EventHub } from './events'
import { badValue, booleanFilter, parseFilters, timeFilter } from './filters'
import { networkJson } from './network-json'
import {
  ConnectRequest,
  CreateRequest,
  DisconnectRequest,
  type EndpointSettings,
  endpointInput,
  networkInput,
} from './requests'
import type { Exchange, Router } from './router'

export function addNetworkRoutes(
  router: Router,
  controller: Controller,
  containers: Containers,
  events: EventHub,
): void {
  const routes = new NetworkRoutes(controller, containers, events)
  router
    .route('GET', '/networks', routes.list)
    .route('GET', '/networks/', routes.list)
    .route('GET', '/networks/{id}', routes.inspect)
    .route('POST', '/networks/create', routes.create)
    .route('POST', '/networks/prune', routes.prune)
    .route('POST', '/networks/{id}/connect', routes.connect)
    .route('POST', '/networks/{id}/disconnect', routes.disconnect)
    .route('DELETE', '/networks/{id}', routes.remove)
}

const LIST_FILTERS = ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type'] as const

class NetworkRoutes {
  #pruning = false

  constructor(
    private readonly controller: Controller,
    private readonly containers: Containers,
    private readonly events: EventHub,
  ) {}

  list = (exchange: Exchange) => {
    const filters = parseFilters(exchange.query.get('filters'), LIST_FILTERS)
    const dangling = booleanFilter(filters, 'dangling')
    const types = filters.get('type') ?? []
    if (types.some(type => type !== 'builtin' && type !== 'custom')) throw badValue('type', types)
    const plain = Object.fromEntries(
      LIST_FILTERS.filter(key => key !== 'dangling').flatMap(key => {
        const values = filters.get(key)
        return values?.length ? [[key, [...values]]] : []
      }),
    )
    const showIpv4 = !exchange.olderThan('1.48')
    const detailed = exchange.olderThan('1.28')
    return this.controller
      .networks({ ...plain, dangling })
      .map(network => networkJson(network, { detailed, showIpv4 }))
  }

  inspect = (exchange: Exchange) => {
    const { id = '' } = exchange.params
    const verbose = strictFlag(exchange.query.get('verbose'), 'verbose')
    const scope = exchange.query.get('scope')
    const network = this.controller.network(id)
    if (scope && network.scope !== scope) throw notFound(id)
    return {
      ...networkJson(network, { detailed: true, showIpv4: !exchange.olderThan('1.48') }),
      ...(verbose && network.scope === 'swarm' && { Services: {} }),
    }
  }

  create = async (exchange: Exchange) => {
    const given = await exchange.json(CreateRequest, 'CreateRequest')
    const request = exchange.olderThan('1.48') ? { ...given, EnableIPv4: undefined } : given
    this.#needsSwarm(request)
    const network = await this.controller.createNetwork(networkInput(request))
    exchange.send(201, { Id: network.id, Warning: '' })
  }

  /** Networks that span hosts need a driver that does so; Docker's needs a swarm. */
  #needsSwarm({ Driver, Scope, Ingress, ConfigOnly }: CreateRequest): void {
    if (this.controller.cluster || ConfigOnly) return
    const forbidden = (message: string) => new HttpError(403, message)
    if (Driver === 'overlay')
      throw forbidden(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
      )
    if (Ingress) throw forbidden('Ingress network can only be global scope network')
    if (Scope === 'swarm') throw forbidden('cannot create a swarm scoped network when swarm is not active')
  }

  remove = async (exchange: Exchange) => {
    const network = this.controller.network(exchange.params.id ?? '')
    try {
      await network.delete()
    } catch (error) {
      if (isCnmError(error, 'ERR_NETWORK_IN_USE'))
        throw new CnmError(error.code, `error while removing network: ${error.message}`, error.details)
      throw error
    }
    exchange.send(204)
  }

  prune = async (exchange: Exchange) => {
    const filters = parseFilters(exchange.query.get('filters'), ['label', 'label!', 'until'])
    const until = timeFilter(filters, 'until', Date.now())
    if (this.#pruning) throw new HttpError(409, 'a prune operation is already running')
    this.#pruning = true
    try {
      const gone = await this.controller.pruneNetworks({
        label: [...(filters.get('label') ?? [])],
        notLabel: [...(filters.get('label!') ?? [])],
        ...(until !== undefined && { until: new Date(until) }),
      })
      this.events.publish({
        Type: 'network',
        Action: 'prune',
        Actor: { ID: '', Attributes: { reclaimed: '0' } },
      })
      return { NetworksDeleted: gone.length ? gone : null }
    } finally {
      this.#pruning = false
    }
  }

  connect = async (exchange: Exchange) => {
    const { Container = '', EndpointConfig = {} } = await exchange.json(ConnectRequest, 'ConnectRequest')
    refuseNoName(Container)
    const container = await this.containers.resolve(Container)
    if (!container) throw noSuchContainer(Container)
    const network = this.controller.network(exchange.params.id ?? '')
    await connectContainer(this.containers, container, network, EndpointConfig)
    exchange.send(200)
  }

  disconnect = async (exchange: Exchange) => {
    const { Container = '', Force = false } = await exchange.json(DisconnectRequest, 'DisconnectRequest')
    refuseNoName(Container)
    const container = await this.containers.resolve(Container)
    if (!container && !Force) throw noSuchContainer(Container)
    const network = this.controller.network(exchange.params.id ?? '')
    await (container
      ? disconnectContainer(this.containers, container, network, Force)
      : network.endpoint(Container).delete({ force: true }))
    exchange.send(200)
  }
}

/* -------------------------------------------------------------------- containers */

/**
 * `docker network connect`: an endpoint for a running container, or a note for the next start of one that is not.
 * Throws what Docker refuses; then nothing has changed.
 */
export async function connectContainer(
  containers: Containers,
  container: ContainerRef,
  network: Network,
  settings: EndpointSettings,
): Promise<void> {
  refuseModes(container, network)
  checkSettings(network, settings)
  const { sandbox, running } = container
  if (!running || !sandbox) {
    if (!containers.connected) throw new HttpError(409, `container ${container.id} is not running`)
    await containers.connected(container, network, settings)
    return
  }
  const { endpoint: asked, join } = endpointInput(container.name, settings)
  const own = containers.endpoint?.(container, network) ?? {}
  await atomically(async undo => {
    const endpoint = await network.createEndpoint({
      ...own,
      ...asked,
      // As in Docker: its ports are published on its other networks.
      ...(network.internal ? { ports: [], publishAll: false } : {}),
      links: { ...own.links, ...asked.links },
      aliases: [
        ...new Set([...(asked.aliases ?? []), ...(own.aliases ?? []), ...shortName(container, network)]),
      ],
    })
    undo.push('delete the endpoint', () => endpoint.delete({ force: true }))
    await endpoint.join(sandbox, join)
    await containers.connected?.(container, network, settings)
  })
}

/** A container answers to the first digits of its id, but on the default bridge. */
function shortName({ id, name }: ContainerRef, network: Network): string[] {
  return id !== name && !isDefaultBridge(network) ? [id.slice(0, 12)] : []
}

/** `docker network disconnect`. `force`: an endpoint of the container's name goes even if it is in no sandbox. */
export async function disconnectContainer(
  containers: Containers,
  container: ContainerRef,
  network: Network,
  force: boolean,
): Promise<void> {
  const { sandbox, running } = container
  if (running && network.driver === 'host' && container.networkMode === 'host')
    throw new HttpError(
      400,
      'cannot disconnect container from host network - container was created in host network mode',
    )
  const joined = sandbox?.endpoints().find(endpoint => endpoint.network === network)
  const endpoint = joined ?? (force ? byName(network, container.name) : undefined)
  if (!endpoint && (running || !containers.disconnected))
    throw new HttpError(500, `container ${container.id} is not connected to network ${network.name}`)
  await endpoint?.delete({ force: true })
  await containers.disconnected?.(container, network)
}

const byName = (network: Network, name: string): Endpoint | undefined =>
  network.endpoints().find(endpoint => endpoint.name === name)

function refuseModes({ networkMode, sandbox }: ContainerRef, network: Network): void {
  const shared = networkMode.startsWith('container:')
  const toHost = network.driver === 'host'
  if (shared || (networkMode === 'host' && !toHost))
    throw new HttpError(
      400,
      'container sharing network namespace with another container or host cannot be connected to any other network',
    )
  if (toHost && networkMode !== 'host')
    throw new HttpError(
      400,
      'cannot connect container to host network - container must be created in host network mode',
    )
  if (network.scope !== 'local' && network.driver === 'overlay' && !network.attachable)
    throw new HttpError(
      403,
      `Could not attach to network ${network.name}: network is not manually attachable`,
    )
  const toNone = network.driver === 'null' && !network.configOnly
  const others = sandbox?.endpoints().some(endpoint => endpoint.network !== network) ?? false
  if ((networkMode === 'none' && !toNone) || (toNone && others))
    throw new HttpError(
      400,
      'container cannot be connected to multiple networks with one of the networks in private (none) mode',
    )
}

const isDefaultBridge = (network: Network) => network.predefined && network.driver === 'bridge'

/** Throws 400 with one line for each fault. */
function checkSettings(network: Network, { IPAMConfig, Aliases }: EndpointSettings): void {
  const { IPv4Address, IPv6Address, LinkLocalIPs = [] } = IPAMConfig ?? {}
  const faults: string[] = []
  if (isDefaultBridge(network)) {
    if (IPv4Address || IPv6Address)
      faults.push('user-specified IP address is supported on user-defined networks only')
    if (Aliases?.some(Boolean))
      faults.push('network-scoped aliases are only supported for user-defined networks')
  }
  const given: string[] = []
  for (const [family, text] of [
    [4, IPv4Address],
    [6, IPv6Address],
  ] as const) {
    if (!text) continue
    if (isIpOf(family, text)) given.push(text)
    else faults.push(`invalid IPv${family} address: ${text}`)
  }
  for (const text of LinkLocalIPs)
    if (text && !isIpOf(4, text) && !isIpOf(6, text)) faults.push(`invalid link-local IP address: ${text}`)
  for (const text of given)
    if (!network.ipam.some(({ subnet }) => contains(parseCidr(subnet), parseIp(text))))
      faults.push(`no configured subnet contains IP address ${text}`)
  if (faults.length) throw new HttpError(400, `invalid endpoint settings:\n${faults.join('\n')}`)
}

function isIpOf(family: 4 | 6, text: string): boolean {
  try {
    const ip = parseIp(text)
    return ip.family === family && ip.value !== 0n
  } catch {
    return false
  }
}

function refuseNoName(container: string): void {
  if (container === '') throw new HttpError(400, 'invalid name or ID supplied: ""')
}

/** Read as Go's ParseBool. */
function strictFlag(text: string | null, name: string): boolean {
  if (!text) return false
  const value = parseBoolean(text)
  if (value !== undefined) return value
  throw new HttpError(
    400,
    `invalid value for ${name}: ${text}: strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`,
  )
}

const notFound = (term: string) =>
  new CnmError('ERR_NETWORK_NOT_FOUND', `network ${term} not found`, { network: term })
