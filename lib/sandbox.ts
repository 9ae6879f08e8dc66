import { rmSync } from 'node:fs'
import { join as joinPath } from 'node:path'
import { familyOf, type Family } from './base/cidr'
import { CnmError, isCnmError } from './base/errors'
import { parse } from './base/parse'
import { atomically, type Undo } from './base/undo'
import { applyLeniently, applyTolerantly, carryOut, type Context, isAbsent } from './core/context'
import type { FilePaths, SandboxFiles } from './dns/files/contract'
import { type Candidate, byRank, defaultRoute, elect } from './core/gateway'
import {
  addressesOf,
  arrival,
  bare,
  departure,
  equip,
  lowestFree,
  refuseConflicts,
  refuseGateways,
  silence,
  sysctlsFor,
} from './core/inside'
import { markOf } from './core/mark'
import { dnsNames, hostsEntries, nameRecord } from './core/names'
import { FALLBACK_LABEL } from './core/ways-out'
import { gatewayChanges, NO_PROXY_6TO4, sandboxOptions } from './core/outside'
import type { JoinRecord, SandboxRecord } from './core/records'
import type { SandboxResolver, SandboxView } from './dns/contract'
import { linkEnvironment, linkHosts } from './dns/files/links'
import type { Attachment } from './driver/contract'
import type { Endpoint } from './endpoint'
import { type FirewallChange, invert, type Mapping } from './firewall/contract'
import type { Change, LinkStatistics, RouteSpec, Stack, Step } from './kernel/kernel'
import { type JoinOptions, SandboxOptions } from './options'
import type { PortBinding, PublishedPort, PublishTarget } from './ports/contract'
import { exposedPorts } from './ports/spec'
import { z } from 'zod'

export interface SandboxInspect {
  id: string
  containerId: string
  mode: string
  key?: string
  created: string
  hostname: string
  labels: Record<string, string>
  files?: FilePaths
  gateway: { ipv4?: string; ipv6?: string }
  endpoints: {
    id: string
    name: string
    network: string
    interfaceName: string
    ipv4?: string
    ipv6?: string
    mac: string
  }[]
}

/** The network stack of one container: a namespace, the interfaces of its endpoints, its names. Made by `controller.createSandbox`. */
export class Sandbox {
  readonly #context: Context
  readonly #record: SandboxRecord
  readonly #hooks: SandboxHooks
  #stack: Stack | undefined
  /** Joined endpoints, in the order of joining. */
  readonly #endpoints = new Map<string, Endpoint>()
  /** The elected gateway endpoints and the default routes that stand for them. */
  #elected: Partial<Record<Family, Candidate>> = {}
  /** What the firewall translates now, by endpoint. */
  readonly #mapped = new Map<string, Mapping[]>()
  #files: SandboxFiles | undefined
  #resolver: SandboxResolver | undefined
  /** Value of net.ipv6.conf.default.disable_ipv6 inside, as far as we know. */
  #ipv6Default: string | undefined
  /** A link was put into its namespace once. */
  #hadLinks = false
  #gone = false

  /** @internal */
  constructor(context: Context, record: SandboxRecord, stack: Stack | undefined, hooks: SandboxHooks) {
    this.#context = context
    this.#record = record
    this.#stack = stack
    this.#hooks = hooks
  }

  get id(): string {
    return this.#record.id
  }
  get containerId(): string {
    return this.#record.containerId
  }
  /** `own`, `host`, `deferred` or `container:ID`. */
  get mode(): string {
    return this.#record.config.mode
  }
  /** Path of the network namespace, for the OCI runtime. Undefined while `deferred` and before `setKey`. */
  get key(): string | undefined {
    return this.#hooks.owner(this)?.key ?? this.#record.key
  }
  get hostname(): string {
    return this.#record.config.hostname ?? this.containerId.slice(0, 12)
  }
  get labels(): Readonly<Record<string, string>> {
    return this.#record.config.labels
  }
  /** To be mounted over /etc/hosts, /etc/resolv.conf and /etc/hostname. */
  get files(): FilePaths | undefined {
    return this.#hooks.owner(this)?.files ?? this.#files?.paths
  }
  /** The endpoints through which packets leave, per family. */
  get gateway(): { ipv4?: Endpoint; ipv6?: Endpoint } {
    const of = (family: Family) => {
      const elected = this.#elected[family]
      return elected && this.#endpoints.get(elected.endpointId)
    }
    return { ipv4: of(4), ipv6: of(6) }
  }

  /** Joined endpoints, the best gateway first. */
  endpoints(): Endpoint[] {
    const rank = new Map(
      this.#candidates()
        .sort(byRank)
        .map(({ endpointId }, at) => [endpointId, at]),
    )
    return [...this.#endpoints.values()].sort((a, b) => (rank.get(a.id) ?? 0) - (rank.get(b.id) ?? 0))
  }

  /** @internal */
  get record(): SandboxRecord {
    return this.#record
  }
  /** @internal */
  get stack(): Stack | undefined {
    return this.#hooks.owner(this)?.stack ?? this.#stack
  }
  /** @internal */
  get resolver(): SandboxResolver | undefined {
    return this.#resolver
  }
  /** @internal */
  publishedBy(endpoint: Endpoint): PublishedPort[] {
    const live = new Set((this.#mapped.get(endpoint.id) ?? []).map(mappingKey))
    return (endpoint.record.join?.published ?? []).filter(port => live.has(mappingKey(port)))
  }

  /* ------------------------------------------------------------------ joining */

  /** @internal Endpoint.join, under the locks of both. */
  async attach(endpoint: Endpoint, options: JoinOptions, undo: Undo): Promise<void> {
    this.#mustLive()
    this.#refuseMode(endpoint)
    const join: JoinRecord = {
      sandboxId: this.id,
      options,
      interfaceName: this.#chooseName(endpoint, options),
      published: [],
    }
    refuseGateways([...addressesOf(endpoint.spec, {}), ...endpoint.spec.linkLocal], options.routes)
    if (this.mode !== 'host')
      refuseConflicts(
        addressesOf(endpoint.spec, {}),
        [...this.#endpoints.values()].flatMap(other =>
          addressesOf(other.spec, other.record.join?.attachment ?? {}).map(address => ({
            address,
            owner: `network ${other.network.name}, ${other.interfaceName}`,
          })),
        ),
      )
    endpoint.record.join = join
    this.#endpoints.set(endpoint.id, endpoint)
    undo.push('forget the join', () => {
      endpoint.record.join = undefined
      this.#endpoints.delete(endpoint.id)
      this.#elected = elect(this.#candidates())
    })
    if (this.#stack) await this.#plumb(endpoint, undo)
    else await this.#saveJoin(endpoint, undo)
  }

  #refuseMode(endpoint: Endpoint): void {
    const special = endpoint.network.driver === 'host'
    if (this.mode.startsWith('container:'))
      throw new CnmError(
        'ERR_INVALID_OPTION',
        'container sharing network namespace with another container or host cannot be connected to any other network',
        { sandbox: this.id },
      )
    if (this.mode === 'host' && !special)
      throw new CnmError(
        'ERR_INVALID_OPTION',
        'container sharing network namespace with another container or host cannot be connected to any other network',
        { sandbox: this.id },
      )
    if (special && this.mode !== 'host')
      throw new CnmError(
        'ERR_INVALID_OPTION',
        'cannot connect container to host network - container must be created in host network mode',
        {
          sandbox: this.id,
        },
      )
  }

  #chooseName(endpoint: Endpoint, { interfaceName }: JoinOptions): string {
    const taken = new Set([...this.#endpoints.values()].map(other => other.interfaceName as string))
    if (interfaceName === undefined)
      return lowestFree(endpoint.network.record.state.interfacePrefix ?? 'eth', taken)
    if (taken.has(interfaceName) || interfaceName === 'lo')
      throw new CnmError(
        'ERR_LINK_EXISTS',
        `sandbox ${this.containerId} has an interface ${interfaceName} already`,
        {
          sandbox: this.id,
          interfaceName,
        },
      )
    return interfaceName
  }

  /**
   * The endpoint's interface in the kernel, its ports, its names. Pushes the inverse of each act. `moving`: only the
   * interface, since ports and names stay what they are when the namespace is another.
   */
  async #plumb(endpoint: Endpoint, undo: Undo, moving = false): Promise<void> {
    const { kernel, host, reaper } = this.#context
    const stack = this.#stack as Stack
    const { network } = endpoint
    const driver = network.implementation
    const join = endpoint.record.join as JoinRecord
    if (reaper.isDoomed(stack, join.interfaceName) || this.#leaving.has(join.interfaceName))
      await reaper.settle()
    await this.#refuseRoutes(endpoint, stack)
    const attachment = await driver.join(network.forDriver, endpoint.spec, {
      sandboxId: this.id,
      sandboxKey: this.key ?? '',
      netns: this.mode === 'host' ? undefined : stack,
      interfaceName: join.interfaceName,
      interfaceIndex: await this.#freeIndex(stack),
      sandboxOptions: driver.externalConnectivity ? sandboxOptions(endpoint.record.config) : {},
    })
    undo.push(`driver ${driver.name} leaves`, async () => {
      const plan = await driver.leave(network.forDriver, endpoint.spec, attachment)
      await applyLeniently(host, plan.changes ?? [])
    })
    this.#rename(join, attachment)
    join.attachment = storable(attachment)
    if (!moving) join.published = await this.#reserve(endpoint, undo)
    await this.#saveJoin(endpoint, undo)

    const before = this.#elected
    this.#elected = elect(this.#candidates())
    const detour = this.#rerouting(before, this.#elected)
    if (detour.length)
      undo.push('old default routes', () => this.#rerouteLeniently(stack, this.#elected, before))
    if (attachment.interface) {
      const inside = [...equip(endpoint.spec, attachment, join.interfaceName, join.options), ...detour]
      const sysctls = sysctlsFor(attachment, join.options, join.interfaceName)
      const hostward: Step = {
        stack: host,
        changes: [
          ...(attachment.plan?.changes ?? []),
          ...arrival(attachment, join.interfaceName, stack),
          ...this.#mark(attachment, endpoint.id),
        ],
      }
      this.#prepareIpv6(stack, endpoint, attachment, undo)
      undo.push('take the interface out', () => this.#takeOut(stack, attachment, join))
      if (attachment.plan?.undo?.length)
        undo.push('host side', () => applyLeniently(host, attachment.plan?.undo as Change[]))
      if (
        Object.keys(sysctls).length ||
        attachment.plan?.sysctls ||
        attachment.interface.arrives === 'moved'
      ) {
        await kernel.transact([hostward])
        if (attachment.plan?.sysctls) host.setSysctls(attachment.plan.sysctls)
        stack.setSysctls({ ...this.#ipv6Of(attachment, endpoint, join.interfaceName), ...sysctls })
        await kernel.transact([{ stack, changes: inside }])
      } else await kernel.transact([hostward, { stack, changes: inside }])
    } else {
      await carryOut(host, attachment.plan, 'host side', undo)
      if (detour.length) await stack.apply(detour)
    }
    this.#expect(attachment, undo)
    await this.shape(endpoint)
    if (!moving) {
      await this.#open(endpoint, undo)
      await this.#announce(endpoint, undo)
    }
    const after = this.#elected
    undo.push('the way out as before', () => this.#tellWayOut(after, before))
    await this.#tellWayOut(before, after)
  }

  /** A driver elsewhere may say how its interfaces are called. */
  #rename(join: JoinRecord, { interface: made }: Attachment): void {
    if (!made?.prefix || join.options.interfaceName !== undefined) return
    const others = [...this.#endpoints.values()].filter(({ record }) => record.join !== join)
    join.interfaceName = lowestFree(made.prefix, new Set(others.map(other => other.interfaceName as string)))
  }

  /**
   * Drivers elsewhere hear which endpoint is the way out. Their failures are reported and stop nothing. `leaving`: one
   * that is no longer among the joined.
   */
  async #tellWayOut(
    before: Partial<Record<Family, Candidate>>,
    after: Partial<Record<Family, Candidate>>,
    leaving: Endpoint[] = [],
  ): Promise<void> {
    for (const { endpointId, families } of gatewayChanges(before, after)) {
      const endpoint = this.#endpoints.get(endpointId) ?? leaving.find(({ id }) => id === endpointId)
      const driver = endpoint?.network.implementation
      if (!endpoint || !driver?.externalConnectivity) continue
      const divided = families.includes(4) && after[6] !== undefined && after[6].endpointId !== endpointId
      const options = {
        ...sandboxOptions(endpoint.record.config),
        ...(divided && { [NO_PROXY_6TO4]: true }),
      }
      await driver
        .externalConnectivity(endpoint.network.forDriver, endpoint.spec, families, options)
        .catch((error: unknown) =>
          this.#context.log.warn(`driver ${driver.name} was told of the way out and failed`, {
            error,
            endpoint: endpointId,
          }),
        )
    }
  }

  /** A namespace that others had their hands in may have routes of its own: none may cover, or lie in, the endpoint's subnets. */
  async #refuseRoutes(endpoint: Endpoint, stack: Stack): Promise<void> {
    const addresses = addressesOf(endpoint.spec, {})
    if (this.mode === 'host' || addresses.length === 0 || (this.mode === 'own' && !this.#hadLinks)) return
    const routes = await stack.routes({ table: MAIN_TABLE })
    refuseConflicts(
      addresses,
      routes
        .filter(({ destination, type }) => type === 'unicast' && !SPARED.has(destination))
        .map(({ destination }) => ({ address: destination, owner: 'in the namespace' })),
    )
  }

  /** From now on its absence is drift. */
  #expect({ interface: { source, arrives } = {} as never }: Attachment, undo?: Undo): void {
    if (!source || arrives === 'moved') return // one that was moved in is no longer on the host
    undo?.push('expect the link no more', () => this.#context.wantedLinks.delete(source))
    this.#context.wantedLinks.add(source)
  }

  /** Says on the host's end whose it is: `ip link` shows it, and what a crash left behind can be told from what others made. */
  #mark(attachment: Attachment, endpointId: string): Change[] {
    const { arrives, source } = attachment.interface ?? {}
    return arrives === 'born' && source
      ? [{ op: 'setLink', link: source, alias: markOf(this.#context.name, endpointId) }]
      : []
  }

  /** A small one, as people expect of eth0. In a namespace that only we have put links in, no question to the kernel. */
  async #freeIndex(stack: Stack): Promise<number | undefined> {
    if (this.mode === 'host') return undefined
    if (this.mode === 'own' && !this.#hadLinks) {
      this.#hadLinks = true
      return 2 // after lo
    }
    return Math.max(...(await stack.links()).map(({ index }) => index)) + 1
  }

  /** A fresh link inherits `default`: one write there, rarely, instead of one for every link. */
  #prepareIpv6(stack: Stack, endpoint: Endpoint, attachment: Attachment, undo: Undo): void {
    if (!this.#context.hasIpv6 || this.mode === 'host' || attachment.interface?.arrives !== 'born') return
    const value = this.#needsIpv6(endpoint, attachment) ? '0' : '1'
    const before = this.#ipv6Default
    if (before === value) return
    undo.push('default of IPv6', () => {
      stack.setSysctls({ [IPV6_DEFAULT]: before ?? '0' })
      this.#ipv6Default = before
    })
    stack.setSysctls({ [IPV6_DEFAULT]: value })
    this.#ipv6Default = value
  }

  #needsIpv6(endpoint: Endpoint, attachment: Attachment): boolean {
    return [...addressesOf(endpoint.spec, attachment), ...endpoint.spec.linkLocal].some(
      address => familyOf(address) === 6,
    )
  }

  #ipv6Of(attachment: Attachment, endpoint: Endpoint, interfaceName: string): Record<string, string> {
    if (!this.#context.hasIpv6) return {}
    return {
      [`net/ipv6/conf/${interfaceName}/disable_ipv6`]: this.#needsIpv6(endpoint, attachment) ? '0' : '1',
    }
  }

  async #takeOut(stack: Stack, attachment: Attachment, join: JoinRecord): Promise<void> {
    await applyLeniently(
      stack,
      silence({ linkLocal: [] } as never, { ...attachment, addresses: [] }, join.interfaceName, join.options),
    )
    await applyLeniently(stack, departure(attachment, join.interfaceName, this.#context.host))
    if (attachment.interface?.arrives === 'born' && !attachment.interface.source)
      await applyLeniently(stack, [{ op: 'removeLink', link: join.interfaceName, ifExists: true }])
  }

  /** Changes inside that lead from one set of default routes to another. */
  #rerouting(
    before: Partial<Record<Family, Candidate>>,
    after: Partial<Record<Family, Candidate>>,
  ): Change[] {
    if (this.mode === 'host') return []
    const changes: Change[] = []
    for (const family of [4, 6] as const) {
      const [old, now] = [before[family], after[family]]
      if (old?.endpointId === now?.endpointId && old?.gateways[family] === now?.gateways[family]) continue
      if (old) changes.push({ op: 'removeRoute', route: defaultRoute(family, old) })
      if (now) changes.push({ op: 'addRoute', route: defaultRoute(family, now) })
    }
    return changes
  }

  async #rerouteLeniently(
    stack: Stack,
    from: Partial<Record<Family, Candidate>>,
    to: Partial<Record<Family, Candidate>>,
  ): Promise<void> {
    await applyTolerantly(stack, this.#rerouting(from, to))
  }

  #candidates(): Candidate[] {
    return [...this.#endpoints.values()].flatMap(({ id, network, record: { join } }) => {
      if (!join?.attachment) return []
      return [
        {
          endpointId: id,
          networkName: network.name,
          priority: join.options.priority,
          internal: network.internal,
          fallback: network.labels[FALLBACK_LABEL] !== undefined,
          gateways: this.#gatewaysOf(join.attachment, id),
          interfaceName: join.interfaceName,
        },
      ]
    })
  }

  /** A gateway of a family in which the endpoint has no address leads nowhere. */
  #gatewaysOf(attachment: Attachment, endpointId: string): Partial<Record<Family, string>> {
    const endpoint = this.#endpoints.get(endpointId) as Endpoint
    const families = new Set(addressesOf(endpoint.spec, attachment).map(familyOf))
    const { 4: four, 6: six } = attachment.gateways ?? {}
    return { 4: families.has(4) ? four : undefined, 6: families.has(6) ? six : undefined }
  }

  async #saveJoin(endpoint: Endpoint, undo: Undo): Promise<void> {
    undo.push('record without the join', async () => {
      endpoint.record.join = undefined
      await endpoint.save()
    })
    await endpoint.save()
  }

  /* ------------------------------------------------------------------ ports */

  /** Takes the host ports that the endpoint's bindings name. */
  async #reserve(endpoint: Endpoint, undo: Undo): Promise<PublishedPort[]> {
    const { publisher } = this.#context
    const { state } = endpoint.network.record
    const { config } = endpoint.record
    const bindings = [...config.ports, ...(config.publishAll ? exposedPorts(config.exposed) : [])]
    if (bindings.length === 0 || endpoint.network.internal || !state.modes) return []
    const held = endpoint.record.join?.published ?? []
    if (held.length) return publisher.readopt(held)
    const ports = await publisher.reserve(
      {
        networkId: endpoint.network.id,
        endpointId: endpoint.id,
        ipv4: endpoint.address4,
        ipv6: endpoint.address6,
        modes: state.modes,
        defaultHostIp: state.defaultHostIp,
      },
      bindings,
    )
    undo.push('free the host ports', () => publisher.release(ports))
    return ports
  }

  /** What the firewall should translate for an endpoint: only while it is the way out in that family. */
  #wantedMappings(endpoint: Endpoint): PublishedPort[] {
    const { join } = endpoint.record
    const isGateway = (family: Family) => {
      const elected = this.#elected[family] ?? (family === 6 ? this.#elected[4] : undefined)
      return elected?.endpointId === endpoint.id
    }
    return (join?.published ?? []).filter(port => isGateway(familyOf(port.containerIp)))
  }

  /** The change that leads from what is translated to what should be, for all endpoints of the sandbox. */
  #mappingChange(): {
    addMappings: PublishedPort[]
    removeMappings: Mapping[]
    next: Map<string, PublishedPort[]>
  } {
    const addMappings: PublishedPort[] = []
    const removeMappings: Mapping[] = []
    const next = new Map<string, PublishedPort[]>()
    for (const endpoint of this.#endpoints.values()) next.set(endpoint.id, this.#wantedMappings(endpoint))
    for (const id of new Set([...this.#mapped.keys(), ...next.keys()])) {
      const old = this.#mapped.get(id) ?? []
      const now = next.get(id) ?? []
      const [oldKeys, newKeys] = [new Set(old.map(mappingKey)), new Set(now.map(mappingKey))]
      removeMappings.push(...old.filter(mapping => !newKeys.has(mappingKey(mapping))))
      addMappings.push(...now.filter(mapping => !oldKeys.has(mappingKey(mapping))))
    }
    return { addMappings, removeMappings, next }
  }

  /** Opens the endpoint in the firewall, and moves published ports with the gateway. */
  async #open(endpoint: Endpoint, undo: Undo): Promise<void> {
    const wall = endpoint.network.record.state.firewall
    const addresses = bare(addressesOf(endpoint.spec, endpoint.record.join?.attachment ?? {}))
    await this.#filter(
      wall && addresses.length
        ? { addEndpoints: [{ id: endpoint.id, networkId: endpoint.network.id, addresses }] }
        : {},
      undo,
    )
  }

  /** One firewall transaction: the given change, and what follows from the present election. */
  async #filter(change: FirewallChange, undo: Undo): Promise<void> {
    const { firewall, publisher } = this.#context
    const { addMappings, removeMappings, next } = this.#mappingChange()
    const kernelOnly = <T extends Mapping>(mappings: T[]) =>
      mappings.filter(mapping => !(mapping as unknown as PublishedPort).proxied)
    const whole: FirewallChange = {
      ...change,
      addMappings: kernelOnly(addMappings),
      removeMappings: kernelOnly(removeMappings),
    }
    const before = new Map(this.#mapped)
    if (Object.values(whole).some(list => list?.length)) {
      undo.push('firewall', async () => {
        await firewall.apply(invert(whole))
        this.#setMapped(before)
      })
      await firewall.apply(whole)
      await this.#flushFlows([...addMappings, ...removeMappings])
    }
    this.#setMapped(next)
    // After the rules: a socket that serves would otherwise answer before they say who may ask.
    if (addMappings.length) await publisher.start(addMappings)
  }

  #setMapped(mappings: Map<string, Mapping[]>): void {
    this.#mapped.clear()
    for (const [id, list] of mappings) if (list.length) this.#mapped.set(id, list)
  }

  /** UDP flows outlive their mapping in the connection table: forget them, so that the next packet is looked at afresh. */
  async #flushFlows(mappings: Mapping[]): Promise<void> {
    const udp = mappings.filter(
      ({ protocol, hostPort, hostPortEnd }) => protocol === 'udp' && hostPortEnd - hostPort < 256,
    )
    if (udp.length === 0) return
    const filters = udp.flatMap(({ hostIp, hostPort, hostPortEnd }) =>
      Array.from({ length: hostPortEnd - hostPort + 1 }, (_, at) => ({
        family: familyOf(hostIp),
        protocol: 'udp' as const,
        destinationPort: hostPort + at,
      })),
    )
    await this.#context.host
      .flushConntrack(filters)
      .catch((error: unknown) => this.#context.log.warn('cannot flush stale UDP flows', { error }))
  }

  /** @internal Endpoint.updatePorts: from the old reservation to the new one, keeping what is in both. */
  async republish(endpoint: Endpoint, undo: Undo): Promise<void> {
    const join = endpoint.record.join as JoinRecord
    if (!this.#stack) return
    const { publisher } = this.#context
    const before = join.published
    const { state } = endpoint.network.record
    if (endpoint.network.internal || !state.modes) return
    const { config } = endpoint.record
    const bindings = [...config.ports, ...(config.publishAll ? exposedPorts(config.exposed) : [])]
    const kept = before.filter(port => bindings.some(binding => satisfies(port, binding)))
    const dropped = before.filter(port => !kept.includes(port))
    const fresh = bindings
      .filter(binding => !kept.some(port => satisfies(port, binding)))
      .map(binding => ({ ...binding, hostPort: binding.hostPort ?? sameNumber(dropped, binding) }))
    const target = {
      networkId: endpoint.network.id,
      endpointId: endpoint.id,
      ipv4: endpoint.address4,
      ipv6: endpoint.address6,
      modes: state.modes,
      defaultHostIp: state.defaultHostIp,
    }
    const added = fresh.length ? await this.#exchange(target, fresh, dropped, undo) : []
    undo.push('free the new ports', () => publisher.release(added))
    join.published = [...kept, ...added]
    undo.push('old ports', () => {
      join.published = before
    })
    await this.#filter({}, undo)
    await publisher.release(dropped)
  }

  /** Reserves ports while those that they replace are still held; if they cannot stand side by side, one after the other. */
  async #exchange(
    target: PublishTarget,
    wanted: PortBinding[],
    dropped: PublishedPort[],
    undo: Undo,
  ): Promise<PublishedPort[]> {
    const { publisher } = this.#context
    try {
      return await publisher.reserve(target, wanted, dropped)
    } catch (error) {
      const ours = dropped.some(port => wanted.some(({ hostPort }) => hostPort === port.hostPort))
      if (!ours || !isCnmError(error, 'ERR_PORT_IN_USE')) throw error
      undo.push('take the old ports again', async () => {
        await publisher.start(await publisher.readopt(dropped))
      })
      await publisher.release(dropped)
      return publisher.reserve(target, wanted)
    }
  }

  /** @internal Puts the endpoint's bandwidth limits on its interface. */
  async shape(endpoint: Endpoint): Promise<void> {
    const { ingress, egress } = endpoint.record.config.bandwidth
    const link = endpoint.record.join?.attachment?.interface?.source
    if (!this.#stack || !link || (ingress === undefined && egress === undefined)) return
    const rate = (limit: number | null | undefined) => (limit ? { bitsPerSecond: limit } : null)
    // What leaves the host's end of the pair is what the container receives; what leaves the inner end is what it sends.
    if (ingress !== undefined)
      await this.#context.host.apply([{ op: 'setShaper', link, rate: rate(ingress) }])
    if (egress !== undefined)
      await this.#stack.apply([
        { op: 'setShaper', link: endpoint.interfaceName as string, rate: rate(egress) },
      ])
  }

  /* ------------------------------------------------------------------ names */

  async #announce(endpoint: Endpoint, undo: Undo): Promise<void> {
    const { names } = this.#context
    const named = { ...identity(endpoint), aliases: endpoint.record.config.aliases }
    if (!endpoint.record.config.disableResolution) {
      undo.push('forget the names', () => names.removeEndpoint(endpoint.network.id, endpoint.id))
      names.setEndpoint(nameRecord(named, endpoint.network, dnsNames(named, this.containerId, this.hostname)))
    }
    undo.push('files as before', () => this.#forgetEntries(endpoint))
    this.#files?.setEntries(endpoint.id, hostsEntries(named, this.hostname, this.#record.config.domainname))
    undo.push('resolver as before', () => this.#refreshNames())
    await this.#refreshNames()
    for (const other of endpoint.network.endpoints())
      if (Object.values(other.record.config.links).includes(endpoint.name)) other.sandbox?.rewriteLinks()
  }

  #forgetEntries(endpoint: Endpoint): void {
    this.#files?.removeEntries(endpoint.id)
  }

  /** True when a network that serves names is joined. */
  get #wantsResolver(): boolean {
    return (
      this.#record.config.resolver &&
      this.mode !== 'host' &&
      this.#stack !== undefined &&
      [...this.#endpoints.values()].some(({ network }) => this.#hooks.servesNames(network.id))
    )
  }

  async #refreshNames(): Promise<void> {
    const wanted = this.#wantsResolver
    if (wanted && !this.#resolver)
      this.#resolver = await this.#context.openResolver({
        names: this.#context.names,
        stack: this.#stack as Stack,
        host: this.#context.host,
        view: this.#view(),
        log: this.#context.log,
      })
    else if (wanted) this.#resolver?.update(this.#view())
    else if (this.#resolver) {
      const resolver = this.#resolver
      this.#resolver = undefined
      await resolver.close()
    }
    this.#writeFiles()
  }

  /** Links to containers on networks without DNS (the default bridge): targets that are joined now. */
  #links(all = false): { parent: string; alias: string; target: Endpoint }[] {
    return [...this.#endpoints.values()].flatMap(({ name, network, record }) => {
      if (!all && this.#hooks.servesNames(network.id)) return []
      return Object.entries(record.config.links).flatMap(([alias, wanted]) => {
        const target = network
          .endpoints()
          .find(candidate => candidate.name === wanted || candidate.sandbox?.containerId === wanted)
        return target?.sandbox && target.address4 ? [{ parent: name, alias, target }] : []
      })
    })
  }

  /**
   * The variables that Docker's `--link` gives to the linking container, `NAME=value`: hand them to the runtime.
   * `environmentOf`: what a linked container was started with.
   */
  linkEnvironment(environmentOf: (containerId: string) => string[] = () => []): string[] {
    return this.#links(true).flatMap(link => linkEnvironment(describeLink(link, environmentOf)))
  }

  /** @internal A container that this one links to has another address now. */
  rewriteLinks(): void {
    if (!this.#gone) this.#writeFiles()
  }

  #writeFiles(): void {
    this.#files?.setLinks(this.#links().map(link => linkHosts(describeLink(link, () => []))))
    const resolver = this.mode === 'host' ? 'host' : this.#resolver ? 'embedded' : 'legacy'
    this.#files?.write(resolver, this.#context.hasIpv6) // ::1 is there on every loopback
  }

  #view(): SandboxView {
    const { dns } = this.#record.config
    const upstreams = this.#files?.upstreams()
    const links = Object.assign(
      {},
      ...[...this.#endpoints.values()].map(endpoint => endpoint.record.config.links),
    )
    return {
      sandboxId: this.id,
      networks: this.endpoints().map(({ network }) => network.id),
      links,
      upstreams: upstreams?.servers ?? dns.servers.map(address => ({ address, from: 'sandbox' as const })),
      searchDomains: upstreams?.search ?? dns.search,
      ndotsFromUser: upstreams?.ndotsFromUser ?? dns.options.some(option => option.startsWith('ndots:')),
      external: this.#elected[4] !== undefined || this.#elected[6] !== undefined,
    }
  }

  /** @internal A network changed how it resolves. */
  async refreshResolver(): Promise<void> {
    if (!this.#gone) await this.#refreshNames()
  }

  /** @internal Files and, where wanted, the resolver; for a sandbox that is made or restored. */
  async openNames(): Promise<void> {
    const { config } = this.#record
    const { settings, openFiles } = this.#context
    const gateway = this.#hooks.hostGateway()
    if (config.files && !this.mode.startsWith('container:'))
      this.#files = openFiles({
        directory: this.#directory,
        hostname: this.hostname,
        domainname: config.domainname,
        extraHosts: config.extraHosts,
        dns: {
          servers: config.dns.servers.length ? config.dns.servers : settings.dns.servers,
          search: config.dns.search.length ? config.dns.search : settings.dns.search,
          options: config.dns.options.length ? config.dns.options : settings.dns.options,
        },
        resolvConf: settings.resolvConf,
        hostGateway: gateway,
        changed: () => this.#resolver?.update(this.#view()),
      })
    for (const endpoint of this.#endpoints.values())
      this.#files?.setEntries(
        endpoint.id,
        hostsEntries({ ...identity(endpoint), aliases: [] }, this.hostname, config.domainname),
      )
    await this.#refreshNames()
  }

  get #directory(): string {
    return joinPath(this.#context.runDir, 'files', this.id.slice(0, 12))
  }

  /** Addresses of a name as this sandbox's resolver would answer it from its networks; empty when it would have to ask elsewhere. */
  resolveName(name: string, family: 4 | 6 = 4): string[] {
    return this.#hooks.resolveName(this.#view(), name, family)
  }

  /** Names of an address on this sandbox's networks. */
  resolveIp(address: string): string[] {
    return this.#hooks.resolveIp(this.#view(), address)
  }

  /* ------------------------------------------------------------------ leaving */

  /** Host's ends of pairs that left: if the namespace is dropped before they are reaped, it takes them along. */
  readonly #doomed = new Set<string>()
  /** Interface names whose link is still being deleted. */
  readonly #leaving = new Set<string>()

  /** @internal Endpoint.leave, under the locks of both. */
  async detach(endpoint: Endpoint): Promise<void> {
    const join = endpoint.record.join as JoinRecord
    const elected = this.#elected
    await atomically(async undo => {
      const { attachment } = join
      undo.push('joined again', () => {
        endpoint.record.join = join
        this.#endpoints.set(endpoint.id, endpoint)
      })
      endpoint.record.join = undefined
      this.#endpoints.delete(endpoint.id)
      undo.push('old record', () => {
        endpoint.record.join = join
        return endpoint.save()
      })
      await endpoint.save()
      if (!this.#stack || !attachment) return
      const stack = this.#stack
      const before = this.#elected
      this.#elected = elect(this.#candidates())
      undo.push('old gateway', () => {
        this.#elected = before
      })
      await this.#close(endpoint, join, undo)
      const changes = [
        ...this.#rerouting(before, this.#elected),
        ...silence(endpoint.spec, attachment, join.interfaceName, join.options),
      ]
      if (changes.length) {
        undo.push('equip it again', () => this.#equipLeniently(stack, endpoint, join, before))
        // Taking the address away takes routes with it; what is gone by then is no failure.
        await applyTolerating(stack, changes)
      }
    })
    await this.#afterDetach(endpoint, join, elected)
  }

  async #close(endpoint: Endpoint, join: JoinRecord, undo: Undo): Promise<void> {
    const wall = endpoint.network.record.state.firewall
    const addresses = bare(addressesOf(endpoint.spec, join.attachment ?? {}))
    await this.#filter(
      wall && addresses.length
        ? { removeEndpoints: [{ id: endpoint.id, networkId: endpoint.network.id, addresses }] }
        : {},
      undo,
    )
  }

  async #equipLeniently(
    stack: Stack,
    endpoint: Endpoint,
    join: JoinRecord,
    elected: Partial<Record<Family, Candidate>>,
  ): Promise<void> {
    const now = this.#elected
    await applyTolerantly(stack, [
      ...equip(endpoint.spec, join.attachment as Attachment, join.interfaceName, join.options),
      ...this.#rerouting(now, elected),
    ])
  }

  /** What follows a leave that can no longer fail: it only goes forward, and what goes wrong is reported. */
  async #afterDetach(
    endpoint: Endpoint,
    join: JoinRecord,
    elected: Partial<Record<Family, Candidate>>,
  ): Promise<void> {
    const { publisher, names, log } = this.#context
    await publisher.release(join.published)
    names.removeEndpoint(endpoint.network.id, endpoint.id)
    this.#forgetEntries(endpoint)
    await this.#tellWayOut(elected, this.#elected, [endpoint])
    try {
      await this.#driverLeaves(endpoint, join)
      await this.#refreshNames()
    } catch (error) {
      log.warn(`${endpoint.name} left ${this.containerId}, but not all of it could be cleared`, { error })
    }
  }

  async #driverLeaves(endpoint: Endpoint, join: JoinRecord, grace = 20): Promise<void> {
    const { attachment } = join
    if (!attachment || !this.#stack) return
    const { host, reaper, log, wantedLinks } = this.#context
    if (attachment.interface?.source) wantedLinks.delete(attachment.interface.source)
    const driver = endpoint.network.implementation
    if (this.mode !== 'host')
      await applyLeniently(this.#stack, departure(attachment, join.interfaceName, host))
    const plan = await driver
      .leave(endpoint.network.forDriver, endpoint.spec, attachment)
      .catch((error: unknown) => {
        log.warn(`driver ${driver.name} failed to leave`, { error, endpoint: endpoint.id })
        return {}
      })
    const changes: Change[] = []
    for (const change of ('changes' in plan && plan.changes) || [])
      if (change.op === 'removeLink' && typeof change.link === 'string') {
        reaper.doom(host, change.link, grace)
        this.#doomed.add(change.link)
      } else changes.push(change)
    // There is no way back from here, and nobody comes by later for what is not a link: so once more.
    await applyLeniently(host, changes).catch(() => applyLeniently(host, changes))
    if (attachment.interface?.arrives === 'born') {
      if (!attachment.interface.source) reaper.doom(this.#stack, join.interfaceName, grace)
      this.#leaving.add(join.interfaceName)
      setTimeout(() => this.#leaving.delete(join.interfaceName), 5_000).unref()
    }
  }

  /* ------------------------------------------------------------------ after a restart, and repair */

  /** @internal An endpoint that the store says is in here: taken over as it is, nothing is touched. */
  async adopt(endpoint: Endpoint): Promise<void> {
    const join = endpoint.record.join as JoinRecord
    this.#endpoints.set(endpoint.id, endpoint)
    this.#elected = elect(this.#candidates())
    this.#hadLinks = true
    if (!join.attachment) return
    this.#expect(join.attachment)
    join.published = await this.#context.publisher.readopt(join.published)
    const named = { ...identity(endpoint), aliases: endpoint.record.config.aliases }
    if (!endpoint.record.config.disableResolution)
      this.#context.names.setEndpoint(
        nameRecord(named, endpoint.network, dnsNames(named, this.containerId, this.hostname)),
      )
  }

  /** @internal What the firewall should hold for this sandbox; which are served by {@link servePorts}. */
  async wantedRules(): Promise<Required<Pick<FirewallChange, 'addEndpoints' | 'addMappings'>>> {
    const { next } = this.#mappingChange()
    const ports = [...next.values()].flat()
    this.#setMapped(next)
    return {
      addMappings: ports.filter(({ proxied }) => !proxied),
      addEndpoints: [...this.#endpoints.values()].flatMap(endpoint => {
        const { attachment } = endpoint.record.join as JoinRecord
        const addresses = bare(addressesOf(endpoint.spec, attachment ?? {}))
        if (!attachment || !endpoint.network.record.state.firewall || addresses.length === 0) return []
        return [{ id: endpoint.id, networkId: endpoint.network.id, addresses }]
      }),
    }
  }

  /** @internal Starts what serves the published ports; after the firewall has its rules. */
  async servePorts(): Promise<void> {
    await this.#context.publisher.start([...this.#mapped.values()].flat() as PublishedPort[])
  }

  /** @internal Default routes as they should be inside. */
  wantedDefaults(): RouteSpec[] {
    if (this.mode === 'host') return []
    return ([4, 6] as const).flatMap(family => {
      const elected = this.#elected[family]
      return elected ? [defaultRoute(family, elected)] : []
    })
  }

  /** @internal Makes an endpoint's interface anew, with the same name, addresses, MAC and ports. */
  async reattach(endpoint: Endpoint): Promise<void> {
    await this.#exclusively(async () => {
      const join = endpoint.record.join
      const stack = this.#stack
      if (!join || !stack || !this.#endpoints.has(endpoint.id)) return
      const { host, firewall } = this.#context
      if (join.attachment) {
        const { attachment } = join
        if (attachment.interface?.source) this.#context.wantedLinks.delete(attachment.interface.source)
        const plan = await endpoint.network.implementation.leave(
          endpoint.network.forDriver,
          endpoint.spec,
          attachment,
        )
        await applyLeniently(host, plan.changes ?? [])
        await this.#takeOut(stack, attachment, join)
        if (attachment.interface)
          await applyLeniently(stack, [{ op: 'removeLink', link: join.interfaceName, ifExists: true }])
        const mapped = (this.#mapped.get(endpoint.id) ?? []).filter(
          mapping => !(mapping as PublishedPort).proxied,
        )
        if (mapped.length) await firewall.apply({ removeMappings: mapped })
        this.#mapped.delete(endpoint.id)
        await this.#context.publisher.release(join.published)
        join.attachment = undefined
        // The default routes went with the interface.
        this.#elected = elect(this.#candidates())
        for (const route of this.wantedDefaults()) {
          try {
            await stack.apply([{ op: 'replaceRoute', route }])
          } catch (error) {
            if (!isAbsent(error)) throw error
          }
        }
      }
      this.#ipv6Default = undefined
      // No undo: a repair that fails half way leaves the record as it should be, for the next one.
      await this.#plumb(endpoint, { push() {} })
    })
  }

  /** @internal Files and resolver as they should be. */
  async repairNames(): Promise<void> {
    await this.#exclusively(() => this.#reopenNames())
  }

  /* ------------------------------------------------------------------ the sandbox itself */

  /**
   * Hands over the namespace that the runtime made (`/proc/PID/ns/net`), or another one: everything joined appears there.
   * Throws ERR_NETNS_NOT_FOUND, and what a join can throw; then all is as before.
   */
  async setKey(path: string): Promise<void> {
    const source = parse(z.string().startsWith('/', 'must be an absolute path'), path, 'path')
    await this.#exclusively(async () => {
      if (this.mode === 'host' || this.mode.startsWith('container:'))
        throw new CnmError(
          'ERR_INVALID_OPTION',
          `sandbox ${this.containerId} shares the namespace of another; it takes no key`,
        )
      const moved = await atomically(async undo => {
        const { kernel } = this.#context
        const old: Abode = {
          stack: this.#stack,
          key: this.key,
          inode: this.#record.inode,
          resolver: this.#resolver,
          elected: this.#elected,
          ipv6Default: this.#ipv6Default,
          hadLinks: this.#hadLinks,
          joins: new Map(
            [...this.#endpoints.values()].map(endpoint => [endpoint, endpoint.record.join as JoinRecord]),
          ),
        }
        const key = joinPath(
          this.#context.runDir,
          'netns',
          `${this.id.slice(0, 12)}${old.key?.endsWith('-b') ? '-c' : old.key ? '-b' : ''}`,
        )
        undo.push('unbind the key', () => kernel.remove(key))
        const stack = await kernel.bind(source, key)
        if (stack.inode === old.stack?.inode) {
          stack.close()
          await kernel.remove(key)
          return false // it is there already
        }
        undo.push('old namespace', () => this.#moveBack(old, stack))
        await this.#moveTo(stack, key, old, undo)
        await this.save()
        await this.#leaveBehind(old)
        return true
      })
      if (moved) this.#context.events.emit({ type: 'sandbox.update', sandbox: this.#ref() })
    })
  }

  /** Plumbs every joined endpoint in another namespace. */
  async #moveTo(stack: Stack, key: string, old: Abode, undo: Undo): Promise<void> {
    this.#stack = stack
    this.#resolver = undefined
    this.#ipv6Default = undefined
    this.#elected = {}
    this.#hadLinks = true // whoever made it may have put some in
    Object.assign(this.#record, { key, inode: stack.inode })
    // A runtime may set its loopback up only later; the resolver needs it now.
    if (!(await stack.link('lo'))?.up) {
      undo.push('loopback', () => stack.apply([{ op: 'setLink', link: 'lo', up: false }]))
      await stack.apply([{ op: 'setLink', link: 'lo', up: true }])
    }
    const moving = old.stack !== undefined
    // None of them is there yet, so none can be elected.
    for (const [endpoint, join] of old.joins) endpoint.record.join = { ...join, attachment: undefined }
    for (const endpoint of old.joins.keys()) await this.#plumb(endpoint, undo, moving)
    if (moving) await this.#refreshNames()
  }

  /** After a failure: the new namespace is left as it was, the old one is home again. */
  async #moveBack(old: Abode, stack: Stack): Promise<void> {
    if (this.#resolver !== old.resolver) await this.#resolver?.close()
    stack.close()
    this.#stack = old.stack
    this.#resolver = old.resolver
    this.#elected = old.elected
    this.#ipv6Default = old.ipv6Default
    this.#hadLinks = old.hadLinks
    Object.assign(this.#record, { key: old.key, inode: old.inode })
    for (const [endpoint, join] of old.joins) {
      endpoint.record.join = join
      await endpoint.save()
    }
    this.#writeFiles()
  }

  /** The old namespace, after everything has moved out of it. */
  async #leaveBehind(old: Abode): Promise<void> {
    const { kernel, host, log, reaper, wantedLinks } = this.#context
    if (!old.stack || !old.key) return
    try {
      await old.resolver?.close({ keepRules: true })
      for (const [endpoint, { attachment }] of old.joins) {
        if (!attachment) continue
        if (attachment.interface?.source) wantedLinks.delete(attachment.interface.source)
        const plan = await endpoint.network.implementation.leave(
          endpoint.network.forDriver,
          endpoint.spec,
          attachment,
        )
        await applyLeniently(host, plan.changes ?? [])
      }
      reaper.forget(old.stack)
      old.stack.close()
      await kernel.remove(old.key)
    } catch (error) {
      log.warn(`the old namespace of ${this.containerId} could not be cleared`, { error })
    }
  }

  /** Changes host name, DNS settings, extra hosts or labels; files and resolver follow. */
  async refresh(input: Partial<z.input<typeof SandboxOptions>>): Promise<void> {
    const given = parse(REFRESHABLE, input)
    // Only what was named: the schema fills in defaults for the rest.
    const changes = Object.fromEntries(
      Object.entries(given).filter(([field]) => input[field as keyof typeof input] !== undefined),
    )
    await this.#exclusively(async () => {
      await atomically(async undo => {
        const before = this.#record.config
        undo.push('old settings', async () => {
          this.#record.config = before
          await this.save()
          await this.#reopenNames()
        })
        this.#record.config = { ...before, ...changes }
        await this.save()
        await this.#reopenNames()
      })
      this.#context.events.emit({ type: 'sandbox.update', sandbox: this.#ref() })
    })
  }

  async #reopenNames(): Promise<void> {
    const { names } = this.#context
    this.#files?.close()
    this.#files = undefined
    for (const endpoint of this.#endpoints.values())
      if (!endpoint.record.config.disableResolution && endpoint.record.join?.attachment) {
        const named = { ...identity(endpoint), aliases: endpoint.record.config.aliases }
        names.setEndpoint(
          nameRecord(named, endpoint.network, dnsNames(named, this.containerId, this.hostname)),
        )
      }
    await this.openNames()
  }

  /** The container was renamed: its endpoints and DNS names follow. Throws ERR_ENDPOINT_EXISTS; then nothing changed. */
  async rename(name: string): Promise<void> {
    await this.#exclusively(async () => {
      await atomically(async undo => {
        for (const endpoint of this.#endpoints.values()) {
          const old = endpoint.name
          undo.push(`name ${old}`, () => endpoint.network.renameEndpoint(endpoint, old))
          await endpoint.network.renameEndpoint(endpoint, name)
        }
        undo.push('names as before', () => this.#reopenNames())
        await this.#reopenNames()
      })
      for (const endpoint of this.#endpoints.values()) endpoint.tellUpdate()
      this.#context.events.emit({ type: 'sandbox.update', sandbox: this.#ref() })
    })
  }

  /** Counters of the interfaces that the endpoints have inside, by interface name. */
  async statistics(): Promise<Record<string, LinkStatistics>> {
    this.#mustLive()
    if (!this.#stack) return {}
    const ours = new Set([...this.#endpoints.values()].map(({ interfaceName }) => interfaceName))
    const links = await this.#stack.links()
    return Object.fromEntries(
      links.filter(({ name }) => ours.has(name)).map(({ name, statistics }) => [name, statistics]),
    )
  }

  inspect(): SandboxInspect {
    const { created, config } = this.#record
    const { ipv4, ipv6 } = this.gateway
    return {
      id: this.id,
      containerId: this.containerId,
      mode: this.mode,
      key: this.key,
      created,
      hostname: this.hostname,
      labels: config.labels,
      files: this.files,
      gateway: { ipv4: ipv4?.network.name, ipv6: ipv6?.network.name },
      endpoints: this.endpoints().map(endpoint => ({
        id: endpoint.id,
        name: endpoint.name,
        network: endpoint.network.name,
        interfaceName: endpoint.interfaceName as string,
        ipv4: endpoint.ipv4,
        ipv6: endpoint.ipv6,
        mac: endpoint.mac,
      })),
    }
  }

  /**
   * Ends it: its endpoints leave and are deleted, its namespace and files are removed.
   * Throws ERR_SANDBOX_IN_USE while other sandboxes share its namespace, unless `force`.
   */
  async delete({ force = false }: { force?: boolean } = {}): Promise<void> {
    await this.#exclusively(async () => {
      if (this.#gone && !this.#context.closing) return
      this.#mustLive()
      const sharers = this.#hooks.sharers(this)
      if (sharers.length && !force)
        throw new CnmError(
          'ERR_SANDBOX_IN_USE',
          `sandbox ${this.containerId} is shared by ${sharers.join(', ')}`,
          { sandbox: this.id, sharers },
        )
      await this.#dissolve()
    }, true)
  }

  async #dissolve(): Promise<void> {
    const { kernel, store, events, reaper, publisher, names, log } = this.#context
    const joined = [...this.#endpoints.values()].map(endpoint => ({
      endpoint,
      join: endpoint.record.join as JoinRecord,
    }))
    const owns = this.key !== undefined && this.mode !== 'host' && !this.mode.startsWith('container:')
    const elected = this.#elected
    // What can fail comes first and can be undone: the firewall, then unbinding the namespace.
    await atomically(async undo => {
      undo.push('joined again', () => {
        for (const { endpoint, join } of joined) {
          endpoint.record.join = join
          this.#endpoints.set(endpoint.id, endpoint)
        }
        this.#elected = elected
      })
      for (const { endpoint } of joined) this.#endpoints.delete(endpoint.id)
      this.#elected = {}
      const guarded = joined
        .filter(({ endpoint, join }) => endpoint.network.record.state.firewall && join.attachment)
        .map(({ endpoint, join }) => ({
          id: endpoint.id,
          networkId: endpoint.network.id,
          addresses: bare(addressesOf(endpoint.spec, join.attachment as Attachment)),
        }))
        .filter(({ addresses }) => addresses.length)
      await this.#filter({ removeEndpoints: guarded }, undo)
      if (owns) await kernel.remove(this.key as string)
    })
    await this.#tellWayOut(
      elected,
      {},
      joined.map(({ endpoint }) => endpoint),
    )
    for (const { endpoint, join } of joined) {
      endpoint.record.join = undefined
      await publisher.release(join.published)
      names.removeEndpoint(endpoint.network.id, endpoint.id)
      // The namespace takes its links along; those that stay (a process still lives in it) are reaped later.
      await this.#driverLeaves(endpoint, join, owns ? NAMESPACE_GRACE : 20).catch((error: unknown) =>
        log.warn('leave', { error }),
      )
      events.emit({
        type: 'endpoint.leave',
        network: { id: endpoint.network.id, name: endpoint.network.name, driver: endpoint.network.driver },
        endpoint: { id: endpoint.id, name: endpoint.name },
        sandbox: this.#ref(),
      })
      await endpoint
        .removeLocked()
        .catch((error: unknown) => log.warn(`cannot delete endpoint ${endpoint.name}`, { error }))
    }
    await this.#resolver?.close({ keepRules: owns })
    this.#resolver = undefined
    this.#files?.close()
    this.#files?.remove()
    if (this.#files) rmSync(this.#directory, { recursive: true, force: true })
    if (owns && this.#stack) {
      for (const link of this.#doomed)
        if (reaper.isDoomed(this.#context.host, link)) reaper.doom(this.#context.host, link, NAMESPACE_GRACE)
      reaper.forget(this.#stack)
      this.#stack.close()
    }
    this.#stack = undefined
    await store.write({ remove: [{ kind: 'sandbox', id: this.id }] })
    this.#gone = true
    this.#hooks.forget(this)
    events.emit({ type: 'sandbox.delete', sandbox: this.#ref() })
  }

  /** @internal The controller closes: descriptors and sockets go, the sandbox stays. */
  async release(): Promise<void> {
    await this.#resolver?.close({ keepRules: true })
    this.#resolver = undefined
    this.#files?.close()
    if (this.mode !== 'host' && !this.mode.startsWith('container:')) this.#stack?.close()
    this.#stack = undefined
    this.#gone = true
  }

  /** @internal */
  save(): Promise<void> {
    return this.#context.store.write({
      put: [{ kind: 'sandbox', id: this.id, version: 1, value: this.#record }],
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#gone) await this.delete()
  }

  /** Runs with the locks of the sandbox and, if asked, of the endpoints that are in it then. */
  async #exclusively<T>(body: () => Promise<T>, withEndpoints = false): Promise<T> {
    for (;;) {
      const held = withEndpoints ? [...this.#endpoints.keys()] : []
      const again = Symbol('again')
      const result = await this.#context.locks.runAll(
        [`sandbox ${this.id}`, ...held.map(id => `endpoint ${id}`)],
        async () => {
          if (withEndpoints && [...this.#endpoints.keys()].some(id => !held.includes(id))) return again
          if (this.#gone && !withEndpoints) this.#mustLive()
          return body()
        },
      )
      if (result !== again) return result as T
    }
  }

  #ref() {
    return { id: this.id, containerId: this.containerId }
  }

  #mustLive(): void {
    this.#context.mustBeOpen()
    if (this.#gone)
      throw new CnmError('ERR_GONE', `sandbox ${this.containerId} was deleted`, { sandbox: this.id })
  }
}

/** Where a sandbox lived before `setKey`. */
interface Abode {
  stack?: Stack
  key?: string
  inode?: number
  resolver?: SandboxResolver
  elected: Partial<Record<Family, Candidate>>
  ipv6Default?: string
  hadLinks: boolean
  joins: Map<Endpoint, JoinRecord>
}

/** What a sandbox asks of its controller. */
export interface SandboxHooks {
  forget(sandbox: Sandbox): void
  /** Container ids of those that share its namespace. */
  sharers(sandbox: Sandbox): string[]
  /** The sandbox whose namespace this one shares, when it does. */
  owner(sandbox: Sandbox): Sandbox | undefined
  servesNames(networkId: string): boolean
  resolveName(view: SandboxView, name: string, family: Family): string[]
  resolveIp(view: SandboxView, address: string): string[]
  /** What `host-gateway` stands for. */
  hostGateway(): string | undefined
}

/** linux/rtnetlink.h RT_TABLE_MAIN */
const MAIN_TABLE = 254
/** Routes that every namespace has, or may have: the defaults, and those of IPv6's own. */
const SPARED = new Set(['0.0.0.0/0', '::/0', 'fe80::/64', 'ff00::/8'])

/** Milliseconds that the kernel may take to clear a namespace away, many at a time, before we delete its links ourselves. */
const NAMESPACE_GRACE = 500

const IPV6_DEFAULT = 'net/ipv6/conf/default/disable_ipv6'

const REFRESHABLE = SandboxOptions.pick({
  hostname: true,
  domainname: true,
  dns: true,
  extraHosts: true,
  labels: true,
}).partial()

const identity = (endpoint: Endpoint) => ({
  id: endpoint.id,
  name: endpoint.name,
  ipv4: endpoint.ipv4,
  ipv6: endpoint.ipv6,
})

function describeLink(
  { parent, alias, target }: { parent: string; alias: string; target: Endpoint },
  environmentOf: (containerId: string) => string[],
) {
  const sandbox = target.sandbox as Sandbox
  const { config } = target.record
  const exposed = [...exposedPorts(config.exposed), ...config.ports]
  const ports = new Map(
    exposed.map(({ containerPort, protocol }) => [
      `${containerPort}/${protocol}`,
      { port: containerPort, protocol },
    ]),
  )
  return {
    parent,
    alias,
    target: {
      name: target.name,
      hostname: sandbox.hostname,
      address: target.address4 as string,
      ports: [...ports.values()],
      environment: environmentOf(sandbox.containerId),
    },
  }
}

const mappingKey = (mapping: Mapping): string =>
  [
    mapping.protocol,
    mapping.hostIp,
    mapping.hostPort,
    mapping.hostPortEnd,
    mapping.containerIp,
    mapping.containerPort,
    mapping.allowFrom?.join() ?? '',
  ].join(' ')

/** A binding that leaves the number open keeps the one that it has. */
const sameNumber = (dropped: PublishedPort[], binding: PortBinding): number | undefined =>
  dropped.find(port => port.containerPort === binding.containerPort && port.protocol === binding.protocol)
    ?.hostPort

/** Is the port what this binding asks for, so that it need not be made anew? */
function satisfies(port: PublishedPort, binding: PortBinding): boolean {
  const length = (binding.containerPortEnd ?? binding.containerPort) - binding.containerPort
  const single = length === 0
  const first = binding.hostPort ?? 0
  const inRange =
    first === 0 ||
    (single
      ? port.hostPort >= first && port.hostPort <= (binding.hostPortEnd ?? first)
      : port.hostPort === first)
  return (
    port.protocol === binding.protocol &&
    port.containerPort === binding.containerPort &&
    port.hostPortEnd - port.hostPort === length &&
    inRange &&
    (binding.hostIp === undefined || binding.hostIp === port.hostIp) &&
    (binding.allowFrom?.join() ?? '') === (port.allowFrom?.join() ?? '') &&
    (binding.proxyProtocol ?? false) === (port.proxyProtocol ?? false)
  )
}

/** Plans refer to open stacks. What undoes them, the flags of ports and the routes of the host do not, and are stored. */
const storable = (attachment: Attachment): Attachment => {
  const kept = attachment.plan?.changes?.filter(({ op }) => op === 'setPort' || op === 'replaceRoute') ?? []
  const undo = attachment.plan?.undo
  return {
    ...attachment,
    plan: (undo || kept.length > 0 || undefined) && { undo, ...(kept.length > 0 && { changes: kept }) },
  }
}

/** One batch; failures because something is gone already are none. */
async function applyTolerating(stack: Stack, changes: Change[]): Promise<void> {
  try {
    await stack.apply(changes)
  } catch (error) {
    if (!isAbsent(error)) throw error
    await applyLeniently(stack, changes)
  }
}
