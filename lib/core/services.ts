/**
 * Services of all networks that this host has: their records (this host's own, or the cluster's), their tasks, and what
 * follows from them: names, and the rules inside the sandboxes. What follows is state, made anew from what is so now
 * whenever something has changed; a missed change is no loss.
 */
import { addressOf, type Family, familyOf } from '../base/cidr'
import { CnmError } from '../base/errors'
import { newId } from '../base/ids'
import { atomically, type Undo } from '../base/undo'
import type { ClusterChange } from '../cluster/mirror'
import type { ServiceRecord } from '../cluster/records'
import type { Endpoint } from '../endpoint'
import type { Network } from '../network'
import type { ServiceOptions } from '../options'
import type { Sandbox } from '../sandbox'
import type { Backend, Balanced, ServiceTask } from '../services/contract'
import { type Entrance, type Rules, rulesOf } from '../services/rules'
import type { Context } from './context'
import { serviceNames } from './names'
import { tellProblem } from './problem'

export interface ServicesWorld {
  networks(): Network[]
  networkById(id: string): Network | undefined
}

export class Services {
  readonly #context: Context
  readonly #world: ServicesWorld
  /** Of networks that are this host's alone. */
  readonly #local = new Map<string, ServiceRecord>()
  /** What sandboxes of a network balance, as of the last {@link refresh}. */
  readonly #balanced = new Map<string, Balanced[]>()
  /** What the zones were told: network → service → text. */
  readonly #named = new Map<string, Map<string, string>>()
  /** Tasks that are about to leave, and get no new flows. */
  readonly #retired = new Set<string>()
  /** Sandboxes whose rules could not be brought up to date. */
  readonly #behind = new Set<Sandbox>()
  #again: NodeJS.Timeout | undefined
  /** Rules by the networks that a sandbox is on: most sandboxes are on the same. */
  readonly #rules = new Map<string, Rules>()

  constructor(context: Context, world: ServicesWorld) {
    this.#context = context
    this.#world = world
    this.blind = context.cluster !== undefined
    context.events.on('cluster.connected', () => {
      this.blind = false
      this.refreshAll()
    })
  }

  /** The cluster has not been seen since the start: what there is of its services is left as it is. */
  blind: boolean

  /** True while it cannot be said what a sandbox on these networks should balance. */
  isBlindOn(networkIds: string[]): boolean {
    return this.blind && networkIds.some(id => this.#world.networkById(id)?.implementation.spanning)
  }

  /* ------------------------------------------------------------------ records */

  /** Of networks that this host has. */
  all(networkId?: string): ServiceRecord[] {
    const shared = this.#context.cluster?.all('service') ?? []
    return [...this.#local.values(), ...shared].filter(record =>
      networkId === undefined
        ? this.#world.networkById(record.networkId) !== undefined
        : record.networkId === networkId,
    )
  }

  get(id: string): ServiceRecord | undefined {
    return this.#local.get(id) ?? this.all().find(record => record.id === id)
  }

  /** By id, name or unique prefix of the id, on one network or on all. Throws ERR_SERVICE_NOT_FOUND, ERR_AMBIGUOUS. */
  find(term: string, network?: Network): ServiceRecord {
    const all = this.all(network?.id)
    const named = all.filter(({ id, name }) => id === term || name === term)
    const found = named.length || !term ? named : all.filter(({ id }) => id.startsWith(term))
    if (found.length > 1)
      throw new CnmError('ERR_AMBIGUOUS', `service ${term} is ambiguous (${found.length} matches)`, { term })
    if (!found[0])
      throw new CnmError(
        'ERR_SERVICE_NOT_FOUND',
        `service ${term} not found${network ? ` on network ${network.name}` : ''}`,
        { service: term, network: network?.id },
      )
    return found[0]
  }

  /** @internal What the store held. */
  restored(record: ServiceRecord): void {
    this.#local.set(record.id, record)
  }

  /** The caller holds the network's lock. Whole or nothing. */
  create(network: Network, options: ServiceOptions): Promise<ServiceRecord> {
    const { name, endpointMode, aliases, affinity, labels, ports } = options
    if (!network.ipam.length)
      throw new CnmError(
        'ERR_INVALID_OPTION',
        `options.network: network ${network.name} has no addresses, and so no services`,
        { network: network.id },
      )
    return atomically(async undo => {
      const record: ServiceRecord = {
        id: newId(),
        networkId: network.id,
        name,
        created: new Date().toISOString(),
        aliases,
        endpointMode,
        affinity,
        ports,
        vips: {},
        labels,
      }
      this.#refuseTwin(record)
      if (endpointMode === 'vip') await this.#claimAddresses(network, record, options, undo)
      await this.#put(network, record, undefined, undo)
      undo.push('sandboxes as before', () => this.refresh(network.id))
      this.refresh(network.id)
      return record
    })
  }

  /** The caller holds the network's lock. */
  async update(
    network: Network,
    before: ServiceRecord,
    changes: Partial<ServiceRecord>,
  ): Promise<ServiceRecord> {
    const record = { ...before, ...changes }
    this.#refuseTwin(record)
    return atomically(async undo => {
      await this.#put(network, record, before, undo)
      undo.push('sandboxes as before', () => this.refresh(network.id))
      this.refresh(network.id)
      return record
    })
  }

  /** The caller holds the network's lock. From here on it goes forward only. */
  async remove(network: Network, record: ServiceRecord): Promise<void> {
    const { store, cluster, log } = this.#context
    if (network.implementation.spanning && cluster)
      await cluster.write({
        remove: [{ kind: 'service', id: sharedId(record) }],
        removeClaims: this.#claimsOf(record),
      })
    else await store.write({ remove: [{ kind: 'service', id: record.id }] }, { flush: true })
    this.#local.delete(record.id)
    this.refresh(network.id)
    const ipam = await this.#context.ipam.get(network.record.config.ipam.driver)
    for (const { address, poolId } of vipsOf(record))
      await ipam
        .releaseAddress(poolId, address, record.id)
        .catch((error: unknown) => log.warn(`cannot release ${address} of service ${record.name}`, { error }))
  }

  #refuseTwin({ id, networkId, name, ports }: ServiceRecord): void {
    for (const other of this.all()) {
      if (other.id === id) continue
      if (other.networkId === networkId && other.name === name)
        throw new CnmError('ERR_SERVICE_EXISTS', `service ${name} already exists on this network`, {
          service: other.id,
          name,
        })
      const taken = published(other).find(claim => published({ ports }).includes(claim))
      if (taken)
        throw new CnmError('ERR_PORT_IN_USE', `port ${taken} is published by service ${other.name}`, {
          service: other.id,
          port: taken,
        })
    }
  }

  async #claimAddresses(
    network: Network,
    record: ServiceRecord,
    wish: { ipv4?: string; ipv6?: string },
    undo: Undo,
  ): Promise<void> {
    for (const [family, address] of [[4, wish.ipv4] as const, [6, wish.ipv6] as const]) {
      if (!network.ipam.some(pool => pool.family === family) && address === undefined) continue
      const claimed = await network.claimVirtualIp(record.id, family, address, undo)
      if (claimed) record.vips[family] = claimed
    }
  }

  /** Stored, as the one there is. `before`: what it takes the place of. */
  async #put(
    network: Network,
    record: ServiceRecord,
    before: ServiceRecord | undefined,
    undo: Undo,
  ): Promise<void> {
    const { store, cluster } = this.#context
    if (network.implementation.spanning && cluster) {
      undo.push('the shared record as before', () =>
        cluster.write({
          if: [{ key: cluster.keyOf('service', sharedId(record)), is: 'present' }],
          ...(before ? { put: [{ kind: 'service' as const, value: before }] } : {}),
          ...(before ? {} : { remove: [{ kind: 'service' as const, id: sharedId(record) }] }),
          removeClaims: this.#claimsOf(record).filter(
            claim => !before || !this.#claimsOf(before).includes(claim),
          ),
        }),
      )
      await this.#share(network, record, before)
      return
    }
    const put = (value: ServiceRecord) =>
      store.write({ put: [{ kind: 'service', id: value.id, version: 1, value }] }, { flush: true })
    undo.push('the record as before', async () => {
      if (before) this.#local.set(record.id, before)
      else this.#local.delete(record.id)
      await (before
        ? put(before)
        : store.write({ remove: [{ kind: 'service', id: record.id }] }, { flush: true }))
    })
    await put(record)
    this.#local.set(record.id, record)
  }

  /** Throws ERR_SERVICE_EXISTS, ERR_PORT_IN_USE, ERR_GONE, ERR_CLUSTER_CONFLICT, ERR_CLUSTER_UNAVAILABLE. */
  async #share(network: Network, record: ServiceRecord, before: ServiceRecord | undefined): Promise<void> {
    const cluster = this.#context.cluster as NonNullable<Context['cluster']>
    const key = cluster.keyOf('service', sharedId(record))
    const held = before ? this.#claimsOf(before) : []
    const wanted = this.#claimsOf(record)
    const fresh = wanted.filter(claim => !held.includes(claim))
    const done = await cluster.write({
      if: [
        { key: cluster.keyOf('network', network.id), is: 'present' },
        { key, is: before ? 'present' : 'absent' },
        ...fresh.map(claim => ({ key: claim, is: 'absent' as const })),
      ],
      put: [{ kind: 'service', value: record }],
      putClaims: fresh.map(claim => ({ key: claim, value: record.id })),
      removeClaims: held.filter(claim => !wanted.includes(claim)),
    })
    if (done) return
    this.#refuseTwin(record)
    if (before ? !cluster.get('service', sharedId(record)) : !cluster.get('network', network.id))
      throw new CnmError('ERR_GONE', `service ${record.name} or its network was deleted by another host`, {
        network: network.id,
      })
    throw new CnmError(
      'ERR_CLUSTER_CONFLICT',
      `service ${record.name} or a port of it is being made by another host`,
      { network: network.id, name: record.name },
    )
  }

  /** What only one service of the cluster may have: its name on the network, and its published ports. */
  #claimsOf(record: ServiceRecord): string[] {
    const claims = this.#context.cluster?.claims
    if (!claims) return []
    return [
      claims.serviceKey(record.networkId, record.name),
      ...published(record).map(port => claims.publishedKey(port)),
    ]
  }

  /* ------------------------------------------------------------------ tasks */

  /** Those that are joined, on all hosts. */
  tasksOf({ id, networkId }: ServiceRecord): ServiceTask[] {
    return this.#tasks(networkId).get(id) ?? []
  }

  #tasks(networkId: string): Map<string, ServiceTask[]> {
    const found = new Map<string, ServiceTask[]>()
    const add = (serviceId: string, task: ServiceTask) =>
      found.set(serviceId, [...(found.get(serviceId) ?? []), task])
    const { cluster } = this.#context
    for (const endpoint of this.#world.networkById(networkId)?.endpoints() ?? [])
      if (endpoint.task && this.isServing(endpoint))
        add(endpoint.task.serviceId, {
          endpointId: endpoint.id,
          name: endpoint.name,
          ...(cluster && { host: cluster.host.name }),
          ipv4: endpoint.address4,
          ipv6: endpoint.address6,
          weight: endpoint.task.weight,
          healthy: endpoint.healthy,
        })
    for (const { id, name, host, ipv4, ipv6, task, healthy } of cluster?.endpointsOf(networkId) ?? [])
      if (task && host !== cluster?.host.name)
        add(task.serviceId, {
          endpointId: id,
          name,
          host,
          ipv4: ipv4 && addressOf(ipv4),
          ipv6: ipv6 && addressOf(ipv6),
          weight: task.weight,
          healthy,
        })
    return found
  }

  /** It is joined, and stays. */
  isServing({ id, task, record }: Endpoint): boolean {
    return task !== undefined && record.join?.attachment !== undefined && !this.#retired.has(id)
  }

  /** A task joined: from now on it gets flows. On other hosts as soon as they hear of it. */
  joined(endpoint: Endpoint): void {
    if (!endpoint.task) return
    this.#context.spanning?.changed(endpoint)
    this.refresh(endpoint.network.id)
  }

  /** A task is about to leave: it gets no flows any more, and then it goes. */
  retire(endpoint: Endpoint, undo: Undo): void {
    if (!endpoint.task) return
    undo.push('it serves again', () => {
      this.#retired.delete(endpoint.id)
      this.changed(endpoint)
    })
    this.#retired.add(endpoint.id)
    this.changed(endpoint)
  }

  /** It has left. */
  left(endpoint: Endpoint): void {
    this.#retired.delete(endpoint.id)
    if (endpoint.task) this.refresh(endpoint.network.id)
  }

  /** Its weight or health is another. */
  changed(endpoint: Endpoint): void {
    if (endpoint.network.implementation.spanning) this.#context.spanning?.changed(endpoint)
    if (endpoint.task) this.refresh(endpoint.network.id)
  }

  /* ------------------------------------------------------------------ what follows */

  /** After changes of the cluster. */
  follow(changes: ClusterChange[]): void {
    const touched = new Set<string>()
    for (const { kind, before, after } of changes) {
      if (kind === 'service') touched.add(((after ?? before) as ServiceRecord).networkId)
      else if (kind === 'network') touched.add(((after ?? before) as { id: string }).id)
      else if (kind === 'endpoint' && (before?.task || after?.task))
        touched.add((after ?? before)?.networkId as string)
    }
    for (const id of touched) this.refresh(id)
    this.#context.ingress?.followLater()
  }

  /** Names and sandboxes of the network follow. What goes wrong in one is told, and stops nothing. */
  refresh(networkId: string): void {
    const network = this.#world.networkById(networkId)
    const records = network ? this.all(networkId) : []
    const before = this.#balanced.get(networkId)
    if (!before && records.length === 0) return
    const tasks = this.#tasks(networkId)
    this.#name(networkId, records, tasks)
    const balanced = records
      .filter(({ endpointMode }) => endpointMode === 'vip')
      .map(record => balancedOf(record, tasks.get(record.id) ?? []))
    if (records.length) this.#balanced.set(networkId, balanced)
    else this.#balanced.delete(networkId)
    this.#rules.clear()
    const present = new Set(
      [...tasks.values()].flat().flatMap(({ healthy, ipv4, ipv6 }) => (healthy ? [ipv4, ipv6] : [])),
    )
    const sandboxes = new Set(network?.endpoints().map(({ sandbox }) => sandbox))
    for (const sandbox of sandboxes) if (sandbox) this.#followIn(sandbox)
    const gone = [...reachable(before ?? [])].filter(address => !present.has(address))
    if (gone.length) for (const sandbox of sandboxes) if (sandbox) this.#forgetDatagrams(sandbox, gone)
  }

  /** A flow of datagrams ends by silence only, and a client that is not silent would be led to a task that is gone. */
  #forgetDatagrams({ stack }: Sandbox, addresses: string[]): void {
    const filters = addresses.map(address => ({
      family: familyOf(address),
      protocol: 'udp' as const,
      replySource: address,
    }))
    void stack?.flushConntrack(filters).catch(() => {})
  }

  #followIn(sandbox: Sandbox): void {
    try {
      sandbox.followServices()
      this.#behind.delete(sandbox)
    } catch (error) {
      const told = this.#behind.has(sandbox)
      this.#behind.add(sandbox)
      this.#again ??= setTimeout(() => {
        this.#again = undefined
        if (!this.#context.closing) for (const each of this.#behind) this.#followIn(each)
      }, AGAIN).unref()
      if (told) return
      tellProblem(
        this.#context,
        `the services of sandbox ${sandbox.containerId} could not be brought up to date`,
        error,
      )
    }
  }

  #name(networkId: string, records: ServiceRecord[], tasks: Map<string, ServiceTask[]>): void {
    const { names } = this.#context
    const told = this.#named.get(networkId) ?? new Map<string, string>()
    for (const record of records) {
      const service = serviceNames(record, tasks.get(record.id) ?? [])
      const text = JSON.stringify(service)
      if (told.get(record.id) === text) continue
      told.set(record.id, text)
      names.setService(networkId, service)
    }
    for (const id of told.keys())
      if (!records.some(record => record.id === id)) {
        told.delete(id)
        names.removeService(networkId, id)
      }
    if (told.size) this.#named.set(networkId, told)
    else this.#named.delete(networkId)
  }

  /** What a sandbox on these networks balances; `entrance`: what comes in by published ports, too. The same object as long as it is the same. */
  rulesFor(networkIds: string[], entrance = false): Rules {
    const key = `${[...networkIds].sort().join()} ${entrance}`
    const present = this.#rules.get(key)
    if (present) return present
    const rules = rulesOf(
      networkIds.flatMap(id => this.#balanced.get(id) ?? []),
      entrance ? networkIds.flatMap(id => entrancesOf(this.all(id))) : [],
    )
    this.#rules.set(key, rules)
    return rules
  }

  /** @internal The stored state is back. */
  refreshAll(): void {
    const networks = this.#world.networks()
    for (const network of networks) this.refresh(network.id)
    // Of services that are gone meanwhile.
    for (const network of networks)
      for (const { sandbox } of network.endpoints()) if (sandbox) this.#followIn(sandbox)
  }
}

const FAMILIES = [4, 6] as const

/** Milliseconds until what could not be done in a sandbox is tried again. */
const AGAIN = 1_000

const vipsOf = ({ vips }: ServiceRecord) => FAMILIES.flatMap(family => vips[family] ?? [])

const entrancesOf = (records: ServiceRecord[]): Entrance[] =>
  records.flatMap(({ id, ports }) =>
    ports
      .filter(({ publishedPort, mode }) => publishedPort !== undefined && mode === 'ingress')
      .map(port => ({ serviceId: id, port })),
  )

/** `8080/tcp`, of ports that are published on every host. */
const published = ({ ports }: Pick<ServiceRecord, 'ports'>): string[] =>
  ports.flatMap(({ publishedPort, protocol, mode }) =>
    publishedPort !== undefined && mode === 'ingress' ? [`${publishedPort}/${protocol}`] : [],
  )

const sharedId = ({ networkId, id }: ServiceRecord): string => `${networkId}/${id}`

/** Addresses that flows may have been led to. */
const reachable = (services: Balanced[]): Set<string> =>
  new Set(
    services.flatMap(({ backends }) =>
      backends.flatMap(({ addresses }) => [addresses[4], addresses[6]].filter(each => each !== undefined)),
    ),
  )

/** New flows go to those that are healthy and have a weight. */
export const available = (tasks: ServiceTask[]): ServiceTask[] =>
  tasks.filter(({ healthy, weight }) => healthy && weight > 0)

function balancedOf(record: ServiceRecord, tasks: ServiceTask[]): Balanced {
  const vips: Partial<Record<Family, string>> = {}
  for (const family of FAMILIES) {
    const vip = record.vips[family]
    if (vip) vips[family] = addressOf(vip.address)
  }
  return {
    id: record.id,
    vips,
    ports: record.ports,
    sticky: record.affinity === 'client',
    backends: available(tasks).map(
      ({ endpointId, weight, ipv4, ipv6 }): Backend => ({
        id: endpointId,
        weight,
        addresses: { 4: ipv4, 6: ipv6 },
      }),
    ),
  }
}
