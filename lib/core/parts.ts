/**
 * This host's parts of networks that span hosts: made when the first endpoint joins here, gone with the last. What the kernel
 * and the zones know of endpoints elsewhere is brought to what the mirror says: state, not events.
 */
import type { Cluster } from '../cluster/cluster'
import type { EndpointRecord as RemoteEndpoint } from '../cluster/records'
import type { Peer, Spanning as SpanningDriver } from '../driver/contract'
import type { Change } from '../kernel/kernel'
import type { Network } from '../network'
import { applyLeniently, type Context } from './context'
import { type SpanningWorld, spanningOf } from './definitions'
import type { Encryption } from './encryption'
import type { TunnelGuard } from './tunnel-guard'

/** A network's part on this host. */
interface Presence {
  /** Endpoints elsewhere, as the kernel knows them. */
  readonly applied: Map<string, RemoteEndpoint>
  /** The kernel may know more than `applied`, from before a restart. */
  unknown: boolean
  /** Of the hosts that these are on, and of those that are just being made reachable. */
  ends: Set<string>
}

/** Who keeps plain packets of encrypted networks off, and encrypts. */
export interface PartsProtection {
  guard: TunnelGuard
  /** Of the driver that has encrypted networks. */
  encryption?: Encryption
}

export class Parts {
  readonly #context: Context
  readonly #cluster: Cluster
  readonly #world: SpanningWorld
  readonly #protection: PartsProtection
  readonly #present = new Map<string, Presence>()

  /** `protection` may get its parts later, but before the first use. */
  constructor(context: Context, cluster: Cluster, world: SpanningWorld, protection: PartsProtection) {
    this.#context = context
    this.#cluster = cluster
    this.#world = world
    this.#protection = protection
  }

  has(networkId: string): boolean {
    return this.#present.has(networkId)
  }

  ids(): string[] {
    return [...this.#present.keys()]
  }

  /** It is there from before a restart, and may know more than it should. */
  restored(network: Network, joined: boolean): void {
    if (joined) this.#present.set(network.id, { applied: new Map(), unknown: true, ends: new Set() })
    this.expect(network, joined ? spanningOf(network).link(network.forDriver) : undefined)
  }

  /** It is gone, whoever took it. */
  forget(networkId: string): void {
    this.#present.delete(networkId)
  }

  async settle(network: Network): Promise<void> {
    if (this.#present.has(network.id)) return
    const { host } = this.#context
    const driver = spanningOf(network)
    const plan = await driver.settle(network.forDriver, host)
    const secret = this.isEncrypted(network)
    try {
      await host.apply(plan.changes ?? [])
      if (plan.sysctls) host.setSysctls(plan.sysctls)
      this.expect(network, driver.link(network.forDriver))
      this.#present.set(network.id, { applied: new Map(), unknown: false, ends: new Set() })
      if (secret) this.#protection.guard.follow({ strictly: true })
      await this.sync(network)
    } catch (error) {
      this.#present.delete(network.id)
      this.expect(network, undefined)
      await applyLeniently(host, plan.undo ?? [])
      if (secret) await this.#relax()
      throw error
    }
  }

  expect(network: Network, link: string | undefined): void {
    const { state } = network.record
    if (state.link) this.#context.wantedLinks.delete(state.link)
    if (link) this.#context.wantedLinks.add(link)
    state.link = link
  }

  async unsettle(network: Network): Promise<void> {
    const presence = this.#present.get(network.id)
    if (!presence) return
    const { host, names, log } = this.#context
    this.#present.delete(network.id)
    for (const id of presence.applied.keys()) names.removeEndpoint(network.id, id)
    this.expect(network, undefined)
    try {
      const plan = await spanningOf(network).settle(network.forDriver, host)
      await applyLeniently(host, plan.undo ?? [])
      if (this.isEncrypted(network)) await this.#relax()
    } catch (error) {
      log.warn(`this host's part of network ${network.name} could not be removed`, { error })
    }
  }

  /** Kernel and names are brought to what the mirror says: of all endpoints elsewhere, or of those named. */
  async sync(network: Network, ids?: Set<string>): Promise<void> {
    const presence = this.#present.get(network.id)
    if (!presence) return
    const { host } = this.#context
    const driver = spanningOf(network)
    const { applied } = presence
    const wanted = new Map(
      (ids
        ? [...ids].flatMap(id => this.#cluster.get('endpoint', `${network.id}/${id}`) ?? [])
        : this.#cluster.endpointsOf(network.id)
      )
        .filter(endpoint => endpoint.host !== this.#cluster.host.name)
        .map(endpoint => [endpoint.id, endpoint]),
    )
    // Endpoints of this host are none of these: their names are their own affair.
    const concerned = [...(ids ?? new Set([...applied.keys(), ...wanted.keys()]))].filter(
      id => applied.has(id) || wanted.has(id),
    )
    const changes: Change[] = []
    const gone: Change[] = []
    for (const id of concerned) {
      const [before, after] = [applied.get(id), wanted.get(id)]
      if (before && after && sameWay(before, after)) continue
      if (before) gone.push(...driver.reach(network.forDriver, before).undo)
      if (after) changes.push(...driver.reach(network.forDriver, after).changes)
    }
    const secret = this.isEncrypted(network)
    if (gone.length) await applyLeniently(host, gone)
    // Encrypted before it is reachable.
    if (secret) for (const { vtep } of wanted.values()) presence.ends.add(vtep)
    if (secret && changes.length) await this.#protection.encryption?.follow()
    if (changes.length) await host.apply(changes)
    for (const id of concerned) {
      const after = wanted.get(id)
      if (after) applied.set(id, after)
      else applied.delete(id)
      this.#name(network, id, after)
    }
    if (presence.unknown && this.#cluster.connected) {
      await applyLeniently(host, await driver.prune(network.forDriver, host, [...applied.values()]))
      presence.unknown = false
    }
    if (secret) {
      const before = presence.ends
      presence.ends = new Set([...applied.values()].map(({ vtep }) => vtep))
      if (before.size !== presence.ends.size || !ids) await this.#protection.encryption?.follow()
    }
  }

  isEncrypted(network: Network): boolean {
    return network.spanning?.encryption?.of(network.forDriver) ?? false
  }

  /** Encrypted networks that this host has a part of. */
  secrets(): Network[] {
    return [...this.#present.keys()]
      .flatMap(id => this.#world.networkById(id) ?? [])
      .filter(network => this.isEncrypted(network))
  }

  needs(driver: SpanningDriver) {
    const networks = this.secrets().filter(({ spanning }) => spanning === driver)
    const present = networks.map(({ id }) => this.#present.get(id) as Presence)
    const remotes = new Set(present.flatMap(({ ends }) => [...ends]))
    return {
      networks: networks.map(({ forDriver }) => forDriver),
      remotes: [...remotes],
      complete: present.every(({ unknown }) => !unknown),
    }
  }

  /** An encrypted network has no part here any more. */
  async #relax(): Promise<void> {
    this.#protection.guard.follow()
    await this.#protection.encryption
      ?.follow()
      .catch((error: unknown) => this.#protection.encryption?.report(error))
  }

  #name(network: Network, id: string, endpoint: RemoteEndpoint | undefined): void {
    const { names } = this.#context
    if (!endpoint?.resolvable) {
      names.removeEndpoint(network.id, id)
      return
    }
    const bare = (cidr: string | undefined) => cidr?.replace(/\/.*/, '')
    names.setEndpoint({
      endpointId: id,
      networkId: network.id,
      networkName: network.name,
      names: endpoint.names,
      ipv4: bare(endpoint.ipv4),
      ipv6: bare(endpoint.ipv6),
    })
    names.setHealth(id, endpoint.healthy)
  }
}

const sameWay = (a: Peer, b: Peer): boolean =>
  a.mac === b.mac && a.vtep === b.vtep && a.ipv4 === b.ipv4 && a.ipv6 === b.ipv6
