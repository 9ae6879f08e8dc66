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
import type { Endpoint } from '../endpoint'
import type { Network } from '../network'
import type { Sandbox } from '../sandbox'
import { type Context } from './context'
import { Definitions, type SpanningWorld } from './definitions'
import type { Difference } from './difference'
import { Discovery } from './discovery'
import { Encryption } from './encryption'
import { dnsNames } from './names'
import { Parts, type PartsProtection } from './parts'
import { tellProblem } from './problem'
import type { NetworkRecord } from './records'
import { TunnelGuard } from './tunnel-guard'

/** Milliseconds between two looks at the age of the keys, at most. */
const LONGEST_LOOK = 60_000

export class Spanning {
  readonly #context: Context
  readonly #cluster: Cluster
  readonly #world: SpanningWorld
  readonly #parts: Parts
  readonly #definitions: Definitions
  readonly #keys: Keys
  /** Of the driver that has encrypted networks. */
  readonly #encryption: Encryption | undefined
  readonly #look: NodeJS.Timeout | undefined
  #following: Promise<unknown> = Promise.resolve()
  #settled = false
  readonly #guard: TunnelGuard
  readonly #discovery: Discovery

  constructor(context: Context, cluster: Cluster, keys: Keys, world: SpanningWorld) {
    this.#context = context
    this.#cluster = cluster
    this.#world = world
    this.#keys = keys
    this.#definitions = new Definitions(context, cluster, keys, world)
    this.#guard = new TunnelGuard(context, {
      networks: () => world.networks(),
      ends: () => cluster.all('host').map(({ address }) => address),
      isEncrypted: network => this.#parts.isEncrypted(network),
      isHere: ({ id }) => this.#parts.has(id),
    })
    const protection: PartsProtection = { guard: this.#guard }
    this.#parts = new Parts(context, cluster, world, protection)
    const driver = [...context.drivers.values()].find(({ spanning }) => spanning?.encryption)?.spanning
    if (driver?.encryption) {
      this.#encryption = new Encryption(context, keys, driver.encryption, () => this.#parts.needs(driver))
      protection.encryption = this.#encryption
      const lifetime = 1000 * (context.settings.cluster?.keyLifetime ?? 0)
      this.#look = setInterval(
        () => void this.#renewKeys(lifetime).catch((error: unknown) => this.#report(error)),
        Math.min(LONGEST_LOOK, lifetime / 4),
      ).unref()
    }
    this.#discovery = new Discovery(context, cluster)
    context.drivers.onAdded(({ name }) => {
      this.#discovery.follow()
      this.#later(() => this.#definitions.adoptMissing(name))
    })
    cluster.onChange(changes => this.#follow(changes))
    context.events.on('cluster.connected', () => this.#connected())
    context.events.on('firewall.repaired', () => this.#guard.look())
  }

  /** {@link Definitions.define} */
  define(record: NetworkRecord, undo: Undo): Promise<void> {
    return this.#definitions.define(record, undo)
  }

  /** This host has the network that it defined. The others' definitions come by the cluster. */
  made(): void {
    this.#guard.follow()
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
    await this.#context.locks.run(`presence ${network.id}`, () => this.#parts.settle(network))
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
      if (others.length === 0) await this.#parts.unsettle(network)
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

  /** @internal The host's part was lost and is made anew, for endpoints that are joined. */
  async rebuild(network: Network): Promise<void> {
    await this.#context.locks.run(`presence ${network.id}`, async () => {
      this.#parts.forget(network.id)
      await this.#parts.settle(network)
    })
  }

  /* ------------------------------------------------------------------ endpoints elsewhere */

  /** Changes are followed one batch after the other, in the background. */
  #follow(changes: ClusterChange[]): void {
    this.#later(() => this.#carry(changes))
    if (changes.some(({ kind }) => kind === 'host')) this.#discovery.follow()
  }

  #later(body: () => Promise<unknown>): void {
    this.#following = this.#following.then(body).catch((error: unknown) => this.#report(error))
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
      if (!network || !this.#parts.has(networkId)) continue
      await this.#context.locks
        .run(`presence ${networkId}`, () => this.#parts.sync(network, ids))
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

  /* ------------------------------------------------------------------ encrypted networks */

  /** The keys have changed, or are known at last: then networks whose ends could not be made reachable are looked at, too. */
  async #rekey(): Promise<void> {
    try {
      await this.#encryption?.follow()
      for (const { id } of this.#parts.secrets())
        await this.#context.locks.run(`presence ${id}`, async () => {
          const network = this.#world.networkById(id)
          if (network) await this.#parts.sync(network)
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

  /* ------------------------------------------------------------------ start and end */

  /** The stored state is back: what is joined here is told to the others as soon as the store is there. */
  restored(): void {
    for (const network of this.#world.networks()) {
      if (!network.spanning) continue
      const joined = network.endpoints().filter(({ sandbox }) => sandbox !== undefined)
      this.#parts.restored(network, joined.length > 0)
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
          if (network.spanning && !this.#cluster.get('network', network.id))
            await this.#definitions.vanish(network)
        await this.#context.services?.reconcile()
        this.#guard.follow()
        if (this.#guard.isNeeded) await this.#keys.ensure()
        if (!first) return this.#definitions.adoptMissing()
        await this.#cluster.claims.sweep(this.#cluster.all('network'))
        this.#encryption?.distrust()
        for (const id of this.#parts.ids()) {
          const network = this.#world.networkById(id)
          if (network) await this.#context.locks.run(`presence ${id}`, () => this.#parts.sync(network))
        }
        await this.#encryption?.follow()
      })
      .catch((error: unknown) => this.#report(error))
  }

  async close(): Promise<void> {
    clearInterval(this.#look)
    await this.idle()
    await this.#definitions.idle()
    await this.#discovery.idle()
    this.#encryption?.close()
    this.#guard.close()
  }

  /** Until what the mirror has told so far is in the kernel. */
  async idle(): Promise<void> {
    await this.#following
  }
}
