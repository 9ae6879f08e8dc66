import { isDeepStrictEqual } from 'node:util'
import { type Family, familyOf } from '../../base/cidr'
import { isCnmError } from '../../base/errors'
import type { Undo } from '../../base/undo'
import type { Endpoint } from '../../endpoint'
import { type FirewallChange, invert, type Mapping } from '../../firewall/contract'
import type { PortBinding, PublishedPort, PublishTarget } from '../../ports/contract'
import { exposedPorts } from '../../ports/spec'
import { flagsFrom, portFlags } from '../apart'
import { addressesOf, bare } from '../inside'
import { linksOf, linksWith } from '../links'
import type { JoinRecord } from '../records'
import type { Interior } from './interior'

/** A sandbox's endpoints in the firewall: their published ports, what is translated now. */
export class SandboxPorts {
  readonly #in: Interior
  /** What the firewall translates now, by endpoint. */
  readonly #mapped = new Map<string, Mapping[]>()

  constructor(interior: Interior) {
    this.#in = interior
  }

  /** Mappings of an endpoint that the firewall itself carries out. */
  translatedOf(endpoint: Endpoint): Mapping[] {
    return (this.#mapped.get(endpoint.id) ?? []).filter(mapping => !isProxied(mapping))
  }

  /** They were taken out of the firewall. */
  forget(endpoint: Endpoint): void {
    this.#mapped.delete(endpoint.id)
  }

  publishedBy(endpoint: Endpoint): PublishedPort[] {
    const live = new Set((this.#mapped.get(endpoint.id) ?? []).map(mappingKey))
    return (endpoint.record.join?.published ?? []).filter(port => live.has(mappingKey(port)))
  }

  /** Takes the host ports that the endpoint's bindings name. */
  async reserve(endpoint: Endpoint, undo: Undo): Promise<PublishedPort[]> {
    const { publisher } = this.#in.context
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
      const elected = this.#in.elected[family] ?? (family === 6 ? this.#in.elected[4] : undefined)
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
    for (const endpoint of this.#in.endpoints.values()) next.set(endpoint.id, this.#wantedMappings(endpoint))
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
  async open(endpoint: Endpoint, undo: Undo): Promise<void> {
    const wall = endpoint.network.record.state.firewall
    const addresses = bare(addressesOf(endpoint.spec, endpoint.record.join?.attachment ?? {}))
    await this.filter(
      wall && addresses.length
        ? {
            addEndpoints: [{ id: endpoint.id, networkId: endpoint.network.id, addresses }],
            addLinks: linksWith(endpoint, this.#in.containerId),
          }
        : {},
      undo,
    )
  }

  async close(endpoint: Endpoint, join: JoinRecord, undo: Undo): Promise<void> {
    const wall = endpoint.network.record.state.firewall
    const addresses = bare(addressesOf(endpoint.spec, join.attachment ?? {}))
    await this.filter(wall && addresses.length ? this.withdrawal([{ endpoint, addresses }]) : {}, undo)
  }

  /** What takes endpoints out of the firewall, with the links that end at them. */
  withdrawal(leaving: { endpoint: Endpoint; addresses: string[] }[]): FirewallChange {
    const apart = leaving.filter(({ endpoint }) => endpoint.network.record.state.firewall?.icc === false)
    const links = apart.length ? this.#in.context.firewall.state().addLinks : []
    return {
      removeEndpoints: leaving.map(({ endpoint, addresses }) => ({
        id: endpoint.id,
        networkId: endpoint.network.id,
        addresses,
      })),
      removeLinks: apart.flatMap(({ endpoint, addresses }) => linksOf(links, endpoint.network.id, addresses)),
    }
  }

  /** One firewall transaction: the given change, and what follows from the present election. */
  async filter(change: FirewallChange, undo: Undo): Promise<void> {
    const { firewall, publisher } = this.#in.context
    const { addMappings, removeMappings, next } = this.#mappingChange()
    const kernelOnly = <T extends Mapping>(mappings: T[]) => mappings.filter(mapping => !isProxied(mapping))
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
    if ([...addMappings, ...removeMappings].some(isProxied)) firewall.serve(() => publisher.served)
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
    await this.#in.context.host
      .flushConntrack(filters)
      .catch((error: unknown) => this.#in.context.log.warn('cannot flush stale UDP flows', { error }))
  }

  /** Endpoint.updatePorts: from the old reservation to the new one, keeping what is in both. */
  async republish(endpoint: Endpoint, undo: Undo): Promise<void> {
    const join = endpoint.record.join as JoinRecord
    if (!this.#in.stack) return
    const { publisher } = this.#in.context
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
    const { context } = this.#in
    const flags = portFlags(context, endpoint)
    join.published = [...kept, ...added]
    undo.push('old ports', () => {
      join.published = before
    })
    const flagged = portFlags(context, endpoint)
    if (!isDeepStrictEqual(flagged, flags)) {
      undo.push('old flags of the port', () => context.host.apply(flagsFrom(flagged, flags)))
      await context.host.apply(flagsFrom(flags, flagged))
    }
    await this.filter({}, undo)
    await publisher.release(dropped)
  }

  /** Reserves ports while those that they replace are still held; if they cannot stand side by side, one after the other. */
  async #exchange(
    target: PublishTarget,
    wanted: PortBinding[],
    dropped: PublishedPort[],
    undo: Undo,
  ): Promise<PublishedPort[]> {
    const { publisher } = this.#in.context
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

  /** What the firewall should hold for this sandbox; which are served by {@link servePorts}. */
  async wantedRules(): Promise<Required<Pick<FirewallChange, 'addEndpoints' | 'addMappings' | 'addLinks'>>> {
    const { next } = this.#mappingChange()
    const ports = [...next.values()].flat()
    this.#setMapped(next)
    return {
      addMappings: ports.filter(({ proxied }) => !proxied),
      addLinks: [...this.#in.endpoints.values()].flatMap(endpoint =>
        linksWith(endpoint, this.#in.containerId),
      ),
      addEndpoints: [...this.#in.endpoints.values()].flatMap(endpoint => {
        const { attachment } = endpoint.record.join as JoinRecord
        const addresses = bare(addressesOf(endpoint.spec, attachment ?? {}))
        if (!attachment || !endpoint.network.record.state.firewall || addresses.length === 0) return []
        return [{ id: endpoint.id, networkId: endpoint.network.id, addresses }]
      }),
    }
  }

  /** Starts what serves the published ports; after the firewall has its rules. */
  async servePorts(): Promise<void> {
    const { firewall, publisher } = this.#in.context
    const ports = [...this.#mapped.values()].flat()
    await publisher.start(ports as PublishedPort[])
    if (ports.some(isProxied)) firewall.serve(() => publisher.served)
  }
}

const isProxied = (mapping: Mapping): boolean => (mapping as PublishedPort).proxied

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
