/**
 * Networks that span hosts, between the cluster and the nouns: a host has its part of a network while endpoints are joined
 * there, and then follows where the others are.
 */
import { CnmError } from '../base/errors'
import type { Undo } from '../base/undo'
import type { ClusterChange } from '../cluster/mirror'
import type { Cluster } from '../cluster/cluster'
import type { Keys } from '../cluster/keys'
import type { EndpointRecord as RemoteEndpoint } from '../cluster/records'
import type { Peer, Spanning as SpanningDriver } from '../driver/contract'
import type { Endpoint } from '../endpoint'
import type { Change } from '../kernel/kernel'
import type { Network } from '../network'
import type { Sandbox } from '../sandbox'
import { applyLeniently, type Context } from './context'
import { Definitions, type SpanningWorld, spanningOf } from './definitions'
import type { Difference } from './difference'
import { Encryption } from './encryption'
import { dnsNames } from './names'
import { tellProblem } from './problem'
import type { NetworkRecord } from './records'
import { TunnelGuard } from './tunnel-guard'

/** A network's part on this host. */
interface Presence {
  /** Endpoints elsewhere, as the kernel knows them. */
  readonly applied: Map<string, RemoteEndpoint>
  /** The kernel may know more than `applied`, from before a restart. */
  unknown: boolean
  /** Of the hosts that these are on, and of those that are just being made reachable. */
  ends: Set<string>
}

/** Milliseconds between two looks at the age of the keys, at most. */
const LONGEST_LOOK = 60_000

export class Spanning {
  readonly #context: Context
  readonly #cluster: Cluster
  readonly #world: SpanningWorld
  readonly #present = new Map<string, Presence>()
  readonly #definitions: Definitions
  readonly #keys: Keys
  /** Of the driver that has encrypted networks. */
  readonly #encryption: Encryption | undefined
  readonly #look: NodeJS.Timeout | undefined
  #following: Promise<unknown> = Promise.resolve()
  #settled = false
  readonly #guard: TunnelGuard

  constructor(context: Context, cluster: Cluster, keys: Keys, world: SpanningWorld) {
    this.#context = context
    this.#cluster = cluster
    this.#world = world
    this.#keys = keys
    this.#definitions = new Definitions(context, cluster, keys, world)
    this.#guard = new TunnelGuard(context, {
      networks: () => world.networks(),
      ends: () => cluster.all('host').map(({ address }) => address),
      isEncrypted: network => this.#isEncrypted(network),
      isHere: ({ id }) => this.#present.has(id),
    })
    const driver = [...context.drivers.values()].find(({ spanning }) => spanning?.encryption)?.spanning
    if (driver?.encryption) {
      this.#encryption = new Encryption(context, keys, driver.encryption, () => this.#needs(driver))
      const lifetime = 1000 * (context.settings.cluster?.keyLifetime ?? 0)
      this.#look = setInterval(
        () => void this.#renewKeys(lifetime).catch((error: unknown) => this.#report(error)),
        Math.min(LONGEST_LOOK, lifetime / 4),
      ).unref()
    }
    cluster.onChange(changes => this.#follow(changes))
    context.events.on('cluster.connected', () => this.#connected())
    context.events.on('firewall.repaired', () => this.#guard.look())
  }

  /** {@link Definitions.define} */
  define(record: NetworkRecord, undo: Undo): Promise<void> {
    return this.#definitions.define(record, undo)
  }

  /** {@link Definitions.undefine} */
  undefine(network: Network): Promise<void> {
    return this.#definitions.undefine(network)
  }

  /* ------------------------------------------------------------------ endpoints of this host */

  /** Before an endpoint joins here: the host's part of the network is there, and the others know where it is. */
  async enter(endpoint: Endpoint, sandbox: Sandbox, undo: Undo): Promise<void> {
    const { network } = endpoint
    undo.push('leave the network', () => this.left(endpoint, true))
    await this.#context.locks.run(`presence ${network.id}`, () => this.#settle(network))
    const there = await this.#cluster.publish('endpoint', this.#published(endpoint, sandbox), {
      if: [{ key: this.#cluster.keyOf('network', network.id), is: 'present' }],
    })
    if (!there)
      throw new CnmError('ERR_GONE', `network ${network.name} was deleted by another host`, {
        network: network.id,
      })
  }

  /** After the endpoint has left. `undoing`: it never was there. */
  async left(endpoint: Endpoint, undoing = false): Promise<void> {
    const { network } = endpoint
    await this.#cluster.withdraw('endpoint', `${network.id}/${endpoint.id}`)
    await this.#context.locks.run(`presence ${network.id}`, async () => {
      const others = network
        .endpoints()
        .filter(({ record, id }) => record.join && !(undoing && id === endpoint.id))
      if (others.length === 0) await this.#unsettle(network)
    })
  }

  /** What others are told of it has changed. */
  changed(endpoint: Endpoint): void {
    const { sandbox } = endpoint
    if (sandbox) this.#cluster.republish('endpoint', this.#published(endpoint, sandbox))
  }

  #published(endpoint: Endpoint, sandbox: Sandbox): RemoteEndpoint {
    const { id, network, name, mac, ipv4, ipv6, record, labels } = endpoint
    const { host } = this.#cluster
    return {
      id,
      networkId: network.id,
      name,
      names: dnsNames({ id, name, aliases: record.config.aliases }, sandbox.containerId, sandbox.hostname),
      resolvable: !record.config.disableResolution,
      healthy: endpoint.healthy,
      mac,
      ...(ipv4 && { ipv4 }),
      ...(ipv6 && { ipv6 }),
      host: host.name,
      vtep: host.address,
      containerId: sandbox.containerId,
      labels: { ...labels },
      // Not before it can be reached, nor when it is about to leave.
      ...(this.#context.services?.isServing(endpoint) && { task: endpoint.task }),
    }
  }

  async #settle(network: Network): Promise<void> {
    if (this.#present.has(network.id)) return
    const { host } = this.#context
    const driver = spanningOf(network)
    const plan = await driver.settle(network.forDriver, host)
    const secret = this.#isEncrypted(network)
    try {
      await host.apply(plan.changes ?? [])
      if (plan.sysctls) host.setSysctls(plan.sysctls)
      this.#expect(network, driver.link(network.forDriver))
      this.#present.set(network.id, { applied: new Map(), unknown: false, ends: new Set() })
      if (secret) this.#guard.follow({ strictly: true })
      await this.#sync(network)
    } catch (error) {
      this.#present.delete(network.id)
      this.#expect(network, undefined)
      await applyLeniently(host, plan.undo ?? [])
      if (secret) await this.#relax()
      throw error
    }
  }

  #expect(network: Network, link: string | undefined): void {
    const { state } = network.record
    if (state.link) this.#context.wantedLinks.delete(state.link)
    if (link) this.#context.wantedLinks.add(link)
    state.link = link
  }

  async #unsettle(network: Network): Promise<void> {
    const presence = this.#present.get(network.id)
    if (!presence) return
    const { host, names, log } = this.#context
    this.#present.delete(network.id)
    for (const id of presence.applied.keys()) names.removeEndpoint(network.id, id)
    this.#expect(network, undefined)
    try {
      const plan = await spanningOf(network).settle(network.forDriver, host)
      await applyLeniently(host, plan.undo ?? [])
      if (this.#isEncrypted(network)) await this.#relax()
    } catch (error) {
      log.warn(`this host's part of network ${network.name} could not be removed`, { error })
    }
  }

  /** @internal The host's part was lost and is made anew, for endpoints that are joined. */
  async rebuild(network: Network): Promise<void> {
    await this.#context.locks.run(`presence ${network.id}`, async () => {
      this.#present.delete(network.id)
      await this.#settle(network)
    })
  }

  /* ------------------------------------------------------------------ endpoints elsewhere */

  /** Changes are followed one batch after the other, in the background. */
  #follow(changes: ClusterChange[]): void {
    this.#following = this.#following
      .then(() => this.#carry(changes))
      .catch((error: unknown) => this.#report(error))
  }

  #report(error: unknown): void {
    tellProblem(this.#context, 'cannot follow the cluster', error)
  }

  async #carry(changes: ClusterChange[]): Promise<void> {
    const touched = new Map<string, Set<string>>()
    for (const change of changes) {
      if (this.#context.closing) return
      if (change.kind === 'network' && change.after) await this.#definitions.adopt(change.after)
      else if (change.kind === 'network') {
        const network = this.#world.networkById(change.id)
        if (network) await this.#definitions.vanish(network)
      } else if (change.kind === 'host') {
        this.#tellHost(change)
      } else if (change.kind === 'key') {
        await this.#rekey()
      } else if (change.kind === 'endpoint') {
        const { networkId, id } = (change.after ?? change.before) as RemoteEndpoint
        touched.set(networkId, (touched.get(networkId) ?? new Set()).add(id))
      }
    }
    if (changes.some(({ kind }) => kind === 'network' || kind === 'host')) this.#guard.follow()
    for (const [networkId, ids] of touched) {
      const network = this.#world.networkById(networkId)
      if (!network || !this.#present.has(networkId)) continue
      await this.#context.locks
        .run(`presence ${networkId}`, () => this.#sync(network, ids))
        .catch((error: unknown) => this.#report(error))
    }
    this.#context.services?.follow(changes)
  }

  #tellHost({ before, after }: Extract<ClusterChange, { kind: 'host' }>): void {
    if (before && after && before.address === after.address) return
    const host = (after ?? before) as { name: string; address: string }
    this.#context.events.emit({
      type: after ? 'host.join' : 'host.leave',
      host: { name: host.name, address: host.address },
    })
  }

  /** Kernel and names are brought to what the mirror says: of all endpoints elsewhere, or of those named. */
  async #sync(network: Network, ids?: Set<string>): Promise<void> {
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
    const secret = this.#isEncrypted(network)
    if (gone.length) await applyLeniently(host, gone)
    // Encrypted before it is reachable.
    if (secret) for (const { vtep } of wanted.values()) presence.ends.add(vtep)
    if (secret && changes.length) await this.#encryption?.follow()
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
      if (before.size !== presence.ends.size || !ids) await this.#encryption?.follow()
    }
  }

  /* ------------------------------------------------------------------ encrypted networks */

  #isEncrypted(network: Network): boolean {
    return network.implementation.spanning?.encryption?.of(network.forDriver) ?? false
  }

  /** Encrypted networks that this host has a part of. */
  #secrets(): Network[] {
    return [...this.#present.keys()]
      .flatMap(id => this.#world.networkById(id) ?? [])
      .filter(network => this.#isEncrypted(network))
  }

  #needs(driver: SpanningDriver) {
    const networks = this.#secrets().filter(({ implementation }) => implementation.spanning === driver)
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
    this.#guard.follow()
    await this.#encryption?.follow().catch((error: unknown) => this.#encryption?.report(error))
  }

  /** The keys have changed, or are known at last: then networks whose ends could not be made reachable are looked at, too. */
  async #rekey(): Promise<void> {
    try {
      await this.#encryption?.follow()
      for (const { id } of this.#secrets())
        await this.#context.locks.run(`presence ${id}`, async () => {
          const network = this.#world.networkById(id)
          if (network) await this.#sync(network)
        })
    } catch (error) {
      this.#encryption?.report(error)
    }
  }

  /** Keys that have served long, or a state that has served much. */
  async #renewKeys(lifetime: number): Promise<void> {
    if (!this.#keys.ring || !this.#cluster.connected) return
    const old = this.#keys.isFirst && this.#keys.age > lifetime
    if (old || (await this.#encryption?.worn())) await this.#keys.begin()
  }

  /** See {@link Keys.rotate}. */
  rotateKeys(): Promise<number> {
    return this.#keys.rotate()
  }

  async check(): Promise<Difference[]> {
    const found = (await this.#encryption?.check()) ?? []
    if (!this.#guard.isIntact)
      found.push({
        kind: this.#guard.isNeeded ? 'encryption' : 'firewall',
        problem: 'missing',
        message: `table ${this.#context.name}-tunnels of the host is not as it should be: it keeps packets from elsewhere out of the tunnels, and plain ones off encrypted networks`,
        fix: { by: 'encryption' },
      })
    return found
  }

  async repair(): Promise<void> {
    this.#guard.follow({ strictly: true })
    await this.#encryption?.follow()
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

  /* ------------------------------------------------------------------ start and end */

  /** The stored state is back: what is joined here is told to the others as soon as the store is there. */
  restored(): void {
    for (const network of this.#world.networks()) {
      if (!network.implementation.spanning) continue
      const joined = network.endpoints().filter(({ sandbox }) => sandbox !== undefined)
      if (joined.length) this.#present.set(network.id, { applied: new Map(), unknown: true, ends: new Set() })
      this.#expect(network, joined.length ? spanningOf(network).link(network.forDriver) : undefined)
      for (const endpoint of joined) this.changed(endpoint)
    }
  }

  /** The connection is new: what this host has and the mirror has not, and the other way round. */
  #connected(): void {
    const first = !this.#settled
    this.#settled = true
    this.#following = this.#following
      .then(async () => {
        for (const network of this.#world.networks())
          if (network.implementation.spanning && !this.#cluster.get('network', network.id))
            await this.#definitions.vanish(network)
        await this.#context.services?.reconcile()
        this.#guard.follow()
        if (this.#guard.isNeeded) await this.#keys.ensure()
        if (!first) return
        await this.#cluster.claims.sweep(this.#cluster.all('network'))
        this.#encryption?.distrust()
        for (const id of this.#present.keys()) {
          const network = this.#world.networkById(id)
          if (network) await this.#context.locks.run(`presence ${id}`, () => this.#sync(network))
        }
        await this.#encryption?.follow()
      })
      .catch((error: unknown) => this.#report(error))
  }

  async close(): Promise<void> {
    clearInterval(this.#look)
    await this.idle()
    this.#encryption?.close()
    this.#guard.close()
  }

  /** Until what the mirror has told so far is in the kernel. */
  async idle(): Promise<void> {
    await this.#following
  }
}

const sameWay = (a: Peer, b: Peer): boolean =>
  a.mac === b.mac && a.vtep === b.vtep && a.ipv4 === b.ipv4 && a.ipv6 === b.ipv6
