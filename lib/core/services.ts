/**
 * Services of all networks that this host has: their tasks, and what follows from these and from the records: names, and the
 * rules inside the sandboxes. What follows is state, made anew from what is so now
 * whenever something has changed; a missed change is no loss.
 */
import { addressOf, type Family, familyOf } from '../base/cidr'
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
import { ServiceRecords, type ServicesWorld } from './service-records'

export class Services {
  readonly #context: Context
  readonly #world: ServicesWorld
  readonly #records: ServiceRecords
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
    this.#records = new ServiceRecords(context, world)
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
    return this.blind && networkIds.some(id => this.#world.networkById(id)?.spanning)
  }

  /* ------------------------------------------------------------------ records */

  /** {@link ServiceRecords.all} */
  all(networkId?: string): ServiceRecord[] {
    return this.#records.all(networkId)
  }

  get(id: string): ServiceRecord | undefined {
    return this.#records.get(id)
  }

  /** {@link ServiceRecords.find} */
  find(term: string, network?: Network): ServiceRecord {
    return this.#records.find(term, network)
  }

  /** @internal What the store held. */
  restored(record: ServiceRecord): void {
    this.#records.restored(record)
  }

  /** The caller holds the network's lock. Whole or nothing. */
  create(network: Network, options: ServiceOptions): Promise<ServiceRecord> {
    return this.#followed(network, undo => this.#records.create(network, options, undo))
  }

  /** The caller holds the network's lock. */
  update(network: Network, before: ServiceRecord, changes: Partial<ServiceRecord>): Promise<ServiceRecord> {
    return this.#followed(network, undo => this.#records.update(network, before, changes, undo))
  }

  #followed({ id }: Network, write: (undo: Undo) => Promise<ServiceRecord>): Promise<ServiceRecord> {
    return atomically(async undo => {
      const record = await write(undo)
      undo.push('sandboxes as before', () => this.refresh(id))
      this.refresh(id)
      return record
    })
  }

  /** The caller holds the network's lock. From here on it goes forward only. */
  async remove(network: Network, record: ServiceRecord): Promise<void> {
    await this.#records.remove(network, record, () => this.refresh(network.id))
  }

  /** {@link ServiceRecords.redefine} */
  redefine(network: Network): Promise<void> {
    return this.#records.redefine(network)
  }

  /** {@link ServiceRecords.reconcile} */
  reconcile(): Promise<void> {
    return this.#records.reconcile()
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
    if (endpoint.network.spanning) this.#context.spanning?.changed(endpoint)
    if (endpoint.task) this.refresh(endpoint.network.id)
  }

  /* ------------------------------------------------------------------ what follows */

  /** After changes of the cluster. */
  follow(changes: ClusterChange[]): void {
    this.#records.follow(changes)
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

const entrancesOf = (records: ServiceRecord[]): Entrance[] =>
  records.flatMap(({ id, ports }) =>
    ports
      .filter(({ publishedPort, mode }) => publishedPort !== undefined && mode === 'ingress')
      .map(port => ({ serviceId: id, port })),
  )

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
