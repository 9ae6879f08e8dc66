/**
 * What services are: records of this host's own, in its store, for networks that are its alone; the cluster's for those that
 * span hosts. The latter are kept here, too, for a cluster that loses its data.
 */
import { addressOf, type Family } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { newId } from '../base/ids'
import type { Undo } from '../base/undo'
import type { Cluster, ClusterWrite } from '../cluster/cluster'
import type { ClusterChange } from '../cluster/mirror'
import { poolOf } from '../cluster/pool-id'
import type { ServiceRecord } from '../cluster/records'
import type { Network } from '../network'
import type { ServiceOptions } from '../options'
import type { Context } from './context'
import { tellProblem } from './problem'

export interface ServicesWorld {
  networks(): Network[]
  networkById(id: string): Network | undefined
}

/** With the machine's crash in mind: a service is there, or is not, once the call has returned. */
const DURABLY = { flush: true }

export class ServiceRecords {
  readonly #context: Context
  readonly #world: ServicesWorld
  /** Of networks that are this host's alone. */
  readonly #local = new Map<string, ServiceRecord>()
  /** The cluster's, as they were known last; they are in this host's store as well. */
  readonly #kept = new Map<string, ServiceRecord>()
  /** Those that the cluster has lost and is to have again. */
  readonly #lost = new Set<string>()

  /** The cluster has been there since the start. */
  #seen = false

  constructor(context: Context, world: ServicesWorld) {
    this.#context = context
    this.#world = world
    context.events.on('cluster.connected', () => {
      this.#seen = true
    })
  }

  /** Of networks that this host has. */
  all(networkId?: string): ServiceRecord[] {
    const shared = this.#context.cluster?.all('service') ?? []
    return [...this.#local.values(), ...shared, ...this.#toComeBack()].filter(record =>
      networkId === undefined
        ? this.#world.networkById(record.networkId) !== undefined
        : record.networkId === networkId,
    )
  }

  /** The cluster has lost them, and gets them again from here: until then nothing changes for those who use them. */
  #toComeBack(): ServiceRecord[] {
    const { cluster } = this.#context
    if (!cluster || !this.#seen) return []
    return [...this.#kept.values()].filter(record => {
      if (cluster.get('service', sharedId(record))) return false
      const inUse = this.#world.networkById(record.networkId)?.endpoints().length
      return this.#lost.has(record.id) || (!cluster.get('network', record.networkId) && inUse)
    })
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

  /** What the store held. */
  restored(record: ServiceRecord): void {
    const spans = this.#world.networkById(record.networkId)?.spanning !== undefined
    const records = spans ? this.#kept : this.#local
    records.set(record.id, record)
  }

  async create(network: Network, options: ServiceOptions, undo: Undo): Promise<ServiceRecord> {
    const { name, endpointMode, aliases, affinity, labels, ports } = options
    if (!network.ipam.length)
      throw new CnmError(
        'ERR_INVALID_OPTION',
        `options.network: network ${network.name} has no addresses, and so no services`,
        { network: network.id },
      )
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
    return record
  }

  async update(
    network: Network,
    before: ServiceRecord,
    changes: Partial<ServiceRecord>,
    undo: Undo,
  ): Promise<ServiceRecord> {
    const record = { ...before, ...changes }
    this.#refuseTwin(record)
    await this.#put(network, record, before, undo)
    return record
  }

  /** `gone`: nobody is led to its virtual IPs any more, before they are free for others. */
  async remove(network: Network, record: ServiceRecord, gone: () => void): Promise<void> {
    const { store, log } = this.#context
    const cluster = this.#clusterOf(network)
    if (cluster)
      await cluster.write({
        // If another host was faster, its virtual IPs may be somebody else's by now.
        if: [{ key: cluster.keyOf('service', sharedId(record)), is: 'present' }],
        remove: [{ kind: 'service', id: sharedId(record) }],
        removeClaims: [...this.#claimsOf(record), ...this.#addressesOf(record).map(({ key }) => key)],
      })
    else await store.write({ remove: [{ kind: 'service', id: record.id }] }, DURABLY)
    this.#local.delete(record.id)
    gone()
    const ipam = await this.#context.ipam.get(network.record.config.ipam.driver)
    for (const { address, poolId } of vipsOf(record)) {
      if (cluster && poolOf(poolId) !== undefined) continue // went with the record
      await ipam
        .releaseAddress(poolId, address, record.id)
        .catch((error: unknown) => log.warn(`cannot release ${address} of service ${record.name}`, { error }))
    }
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
    const cluster = this.#clusterOf(network)
    if (cluster) {
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
      await this.#share(cluster, network, record, before)
      return
    }
    const { store } = this.#context
    const put = (value: ServiceRecord) =>
      store.write({ put: [{ kind: 'service', id: value.id, version: 1, value }] }, DURABLY)
    undo.push('the record as before', async () => {
      if (before) this.#local.set(record.id, before)
      else this.#local.delete(record.id)
      await (before ? put(before) : store.write({ remove: [{ kind: 'service', id: record.id }] }, DURABLY))
    })
    await put(record)
    this.#local.set(record.id, record)
  }

  /**
   * In one transaction with all that is the service's alone. Its virtual IPs were claimed for this host, which loses them if it
   * dies before; with the record they become the service's, which outlives the host.
   * Throws ERR_SERVICE_EXISTS, ERR_PORT_IN_USE, ERR_GONE, ERR_CLUSTER_CONFLICT, ERR_CLUSTER_UNAVAILABLE.
   */
  async #share(
    cluster: Cluster,
    network: Network,
    record: ServiceRecord,
    before: ServiceRecord | undefined,
  ): Promise<void> {
    const key = cluster.keyOf('service', sharedId(record))
    const held = before ? this.#claimsOf(before) : []
    const wanted = this.#claimsOf(record)
    const fresh = wanted.filter(claim => !held.includes(claim))
    const addresses = before ? NOTHING : cluster.claims.handOver(slotsOf(record), record.id)
    const done = await cluster.write({
      if: [
        { key: cluster.keyOf('network', network.id), is: 'present' },
        { key, is: before ? 'present' : 'absent' },
        ...fresh.map(claim => ({ key: claim, is: 'absent' as const })),
        ...addresses.if,
      ],
      put: [{ kind: 'service', value: record }],
      putClaims: [...fresh.map(claim => ({ key: claim, value: record.id })), ...addresses.putClaims],
      removeClaims: [...held.filter(claim => !wanted.includes(claim)), ...addresses.removeClaims],
    })
    if (done) {
      if (!before) cluster.claims.handedOver(slotsOf(record))
      return
    }
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

  #clusterOf(network: Network): Cluster | undefined {
    return network.spanning && this.#context.cluster
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

  /** Its virtual IPs, as the cluster has them. */
  #addressesOf(record: ServiceRecord): { key: string; value: string }[] {
    const { cluster } = this.#context
    if (!cluster) return []
    return slotsOf(record).map(({ pool, address }) => cluster.claims.lasting(pool, address, record.id))
  }

  /* ------------------------------------------------------------------ a cluster that loses its data */

  /** What is known of the cluster's services is kept; one that was deleted is forgotten. */
  follow(changes: ClusterChange[]): void {
    for (const { kind, before, after } of changes) {
      if (kind !== 'service') continue
      const { id } = (after ?? before) as ServiceRecord
      if (after && this.#world.networkById(after.networkId)) this.#keep(after)
      else if (!after) this.#forgetDeleted(id)
    }
  }

  #keep(record: ServiceRecord): void {
    this.#lost.delete(record.id)
    if (JSON.stringify(this.#kept.get(record.id)) === JSON.stringify(record)) return
    this.#kept.set(record.id, record)
    this.#note({ put: [{ kind: 'service', id: record.id, version: 1, value: record }] })
  }

  /** It is gone from the cluster. If its network is as well, that is no deletion, which the network would have outlived. */
  #forgetDeleted(id: string): void {
    const record = this.#kept.get(id)
    const { cluster } = this.#context
    if (!record || !cluster || this.#lost.has(id) || cluster.get('service', sharedId(record))) return
    if (!cluster.get('network', record.networkId) && this.#world.networkById(record.networkId)) return
    this.#kept.delete(id)
    this.#note({ remove: [{ kind: 'service', id }] })
  }

  #note(write: Parameters<Context['store']['write']>[0]): void {
    this.#context.store
      .write(write)
      .catch((error: unknown) =>
        tellProblem(this.#context, 'a service of the cluster cannot be noted', error),
      )
  }

  /** The network was gone from the cluster and is there again, as it is in use here: so are its services. */
  async redefine(network: Network): Promise<void> {
    for (const record of this.#kept.values()) if (record.networkId === network.id) this.#lost.add(record.id)
    await this.#redefineLost()
  }

  /** The connection is new, and the networks are there: the same for what was not finished, and what went meanwhile is forgotten. */
  async reconcile(): Promise<void> {
    await this.#redefineLost()
    for (const id of [...this.#kept.keys()]) this.#forgetDeleted(id)
  }

  async #redefineLost(): Promise<void> {
    const { cluster, log } = this.#context
    if (!cluster) return
    for (const id of [...this.#lost]) {
      const record = this.#kept.get(id)
      try {
        if (record && (await this.#redefine(cluster, record)))
          log.warn(`service ${record.name} was gone from the cluster and is there again`)
        this.#lost.delete(id)
      } catch (error) {
        if (!isCnmError(error, 'ERR_CLUSTER_UNAVAILABLE')) this.#lost.delete(id)
        tellProblem(this.#context, `service ${record?.name} was lost by the cluster`, error)
      }
    }
  }

  /** False: another host was faster. */
  async #redefine(cluster: Cluster, record: ServiceRecord): Promise<boolean> {
    const key = cluster.keyOf('service', sharedId(record))
    const claims = [
      ...this.#claimsOf(record).map(claim => ({ key: claim, value: record.id })),
      ...this.#addressesOf(record),
    ]
    const done = await cluster.write({
      if: [
        { key: cluster.keyOf('network', record.networkId), is: 'present' },
        { key, is: 'absent' },
        ...claims.map(claim => ({ key: claim.key, is: 'absent' as const })),
      ],
      put: [{ kind: 'service', value: record }],
      putClaims: claims,
    })
    if (done || cluster.get('service', sharedId(record))) return done
    this.#refuseTwin(record)
    throw new CnmError(
      'ERR_CLUSTER_CONFLICT',
      `a virtual IP or a port of service ${record.name} was given to somebody else`,
      { service: record.id },
    )
  }
}

const FAMILIES = [4, 6] as const satisfies Family[]

const NOTHING: Required<Pick<ClusterWrite, 'if' | 'putClaims' | 'removeClaims'>> = {
  if: [],
  putClaims: [],
  removeClaims: [],
}

const vipsOf = ({ vips }: ServiceRecord) => FAMILIES.flatMap(family => vips[family] ?? [])

/** Its virtual IPs that are claims in the cluster, not another IPAM driver's. */
const slotsOf = (record: ServiceRecord): { pool: string; address: string }[] =>
  vipsOf(record).flatMap(({ poolId, address }) => {
    const pool = poolOf(poolId)
    return pool === undefined ? [] : [{ pool, address: addressOf(address) }]
  })

/** `8080/tcp`, of ports that are published on every host. */
const published = ({ ports }: Pick<ServiceRecord, 'ports'>): string[] =>
  ports.flatMap(({ publishedPort, protocol, mode }) =>
    publishedPort !== undefined && mode === 'ingress' ? [`${publishedPort}/${protocol}`] : [],
  )

const sharedId = ({ networkId, id }: ServiceRecord): string => `${networkId}/${id}`
