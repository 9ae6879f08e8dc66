/**
 * The zones of all networks, in memory, and the look-up in them: no input or output here. A sandbox asks with the
 * networks that it is on (in gateway priority order) and its links; other networks do not exist for it.
 */
import { ipText, type Family } from '../base/cidr'
import type {
  CustomRecord,
  NamedPort,
  NameRecord,
  Names,
  NetworkNames,
  SandboxView,
  ServiceNames,
  Upstream,
} from './contract'
import { addressRecord, nameRecord, reversedAddress, srvRecord, zoneName } from './records'
import { parseUpstream } from './upstream'
import type { Resource } from './wire/answer'
import { encodeName, TYPE } from './wire/message'
import { type Node, TASKS, Zone } from './zone'

/** Who asks: of a {@link SandboxView} only what names depend on. */
export type Asker = Pick<SandboxView, 'networks' | 'links'>

/** What we know ourselves. Without records: the name exists, but not in this type or family. */
export interface LocalAnswer {
  records: Resource[]
  additional: Resource[]
  /** A CNAME leads to this name, which is not ours: the rest is to be asked upstream. */
  onward?: string
}

/** CNAMEs that are followed in one answer. */
const MAX_CHAIN = 8
export class Zones implements Names {
  generation = 0
  readonly #zones = new Map<string, Zone>()
  readonly #unhealthy = new Set<string>()

  setNetwork(networkId: string, options: NetworkNames): void {
    for (const upstream of options.upstreams ?? [])
      if (typeof upstream === 'string') parseUpstream(upstream, 'sandbox')
    this.#zone(networkId, options.name).configure(options)
    this.generation++
  }

  removeNetwork(networkId: string): void {
    this.#zones.delete(networkId)
    this.generation++
  }

  setEndpoint(record: NameRecord): void {
    this.#zone(record.networkId, record.networkName).setMember(record)
    this.generation++
  }

  removeEndpoint(networkId: string, endpointId: string): void {
    const zone = this.#zones.get(networkId)
    if (!zone) return
    zone.dropMember(endpointId)
    if (zone.empty && !zone.declared) this.#zones.delete(networkId)
    if (this.#unhealthy.has(endpointId))
      if (![...this.#zones.values()].some(other => other.members.has(endpointId)))
        this.#unhealthy.delete(endpointId)
    this.generation++
  }

  setHealth(endpointId: string, healthy: boolean): void {
    if (healthy) this.#unhealthy.delete(endpointId)
    else this.#unhealthy.add(endpointId)
    this.generation++
  }

  setRecords(networkId: string, records: CustomRecord[]): void {
    this.#zone(networkId, '').setRecords(records)
    this.generation++
  }

  setService(networkId: string, service: ServiceNames): void {
    this.#zone(networkId, '').setService(service)
    this.generation++
  }

  removeService(networkId: string, serviceId: string): void {
    const zone = this.#zones.get(networkId)
    if (!zone) return
    zone.dropService(serviceId)
    this.generation++
  }

  /* ------------------------------------------------------------------------------------------ look-up */

  /** Undefined: not our name, ask upstream. */
  answer(asker: Asker, name: string, type: number): LocalAnswer | undefined {
    if (name.endsWith('.arpa')) {
      const address = reversedAddress(name)
      const names = address ? this.reverse(asker, address) : []
      if (names.length > 0)
        return {
          records:
            type === TYPE.PTR || type === TYPE.ANY ? names.map(each => nameRecord(TYPE.PTR, each)) : [],
          additional: [],
        }
    }
    const nodes = this.#nodes(asker, name)
    if (nodes.length > 0) return this.#follow(asker, nodes, type)
    return this.#service(asker, name, type)
  }

  addresses(asker: Asker, name: string, family: Family): string[] {
    const known = zoneName(name)
    const answer =
      known === undefined ? undefined : this.answer(asker, known, family === 4 ? TYPE.A : TYPE.AAAA)
    const found = answer?.records.filter(({ type }) => type === TYPE.A || type === TYPE.AAAA) ?? []
    return found.map(({ data }) => ipText(data))
  }

  /** `name.network` of the endpoints that have the address. */
  reverse(asker: Asker, address: string): string[] {
    const names: string[] = []
    for (const zone of this.#serving(asker))
      for (const member of zone.byAddress.get(address) ?? []) {
        const [first] = member.names
        if (first !== undefined) names.push(zone.qualified(first))
      }
    return names
  }

  /** The servers that the asker's networks name, in the order of the networks. */
  upstreams(asker: Asker): Upstream[] {
    const found: Upstream[] = []
    for (const id of asker.networks)
      for (const upstream of this.#zones.get(id)?.options.upstreams ?? [])
        found.push(typeof upstream === 'string' ? parseUpstream(upstream, 'sandbox') : upstream)
    return found
  }

  networkIds(): string[] {
    return [...this.#zones.keys()]
  }

  /**
   * `a.b.c` is looked for as `a.b.c` in every network, then as `a.b` in network `c`, then as `a` in network `b.c`.
   * Links of this sandbox come before what the networks say.
   */
  #nodes(asker: Asker, name: string): Node[] {
    const zones = this.#serving(asker)
    for (let dot = name.length; dot > 0; dot = name.lastIndexOf('.', dot - 1)) {
      const host = name.slice(0, dot)
      const network = name.slice(dot + 1)
      const among = network === '' ? zones : zones.filter(zone => zone.name === network)
      if (among.length === 0) continue
      const target = link(asker, host)
      const wanted = target ?? host
      const exact = among.flatMap(zone => zone.node(wanted) ?? [])
      if (exact.length > 0) return exact
      const wild = among.flatMap(zone => zone.wildcard(wanted) ?? [])
      if (wild.length > 0) return wild
    }
    return []
  }

  #serving(asker: Asker): Zone[] {
    const zones: Zone[] = []
    for (const id of asker.networks) {
      const zone = this.#zones.get(id)
      if (zone?.options.serves) zones.push(zone)
    }
    return zones
  }

  /** The records of the first network that has some of the type; follows a CNAME as far as it is ours. */
  #follow(asker: Asker, from: Node[], type: number): LocalAnswer {
    const records: Resource[] = []
    let nodes = from
    let owner: Buffer | undefined
    for (let hop = 0; hop < MAX_CHAIN; hop++) {
      for (const node of nodes) {
        const found = this.#records(node, type)
        if (found.length > 0) {
          records.push(...found.map(record => ({ ...record, owner })))
          return { records, additional: type === TYPE.SRV ? this.#targets(asker, nodes) : [] }
        }
      }
      const alias = nodes.flatMap(node => node.records).find(({ resource }) => resource.type === TYPE.CNAME)
      if (!alias?.target) break
      records.push({ ...alias.resource, owner })
      owner = encodeName(alias.target)
      nodes = this.#nodes(asker, alias.target)
      if (nodes.length === 0) return { records, additional: [], onward: alias.target }
    }
    return { records, additional: [] }
  }

  #records(node: Node, type: number): Resource[] {
    if (type === TYPE.ANY) {
      // One record set is answer enough (RFC 8482).
      for (const each of [TYPE.A, TYPE.AAAA, TYPE.CNAME, TYPE.TXT, TYPE.SRV]) {
        const found = this.#records(node, each)
        if (found.length > 0) return found
      }
      return []
    }
    const own = node.records.filter(({ resource }) => resource.type === type).map(({ resource }) => resource)
    if (type !== TYPE.A && type !== TYPE.AAAA) return own
    const family = type === TYPE.A ? 4 : 6
    return [...this.#addresses(node, family).map(address => addressRecord(address)), ...own]
  }

  #addresses({ members, service, tasks }: Node, family: Family): string[] {
    const pick = (each: { ipv4?: string; ipv6?: string }) => (family === 4 ? each.ipv4 : each.ipv6)
    const found: (string | undefined)[] = members
      .filter(({ record }) => !this.#unhealthy.has(record.endpointId))
      .map(({ record }) => pick(record))
    const vips = service?.service.vips ?? []
    if (vips.length > 0) found.push(...vips.filter(vip => vip.includes(':') === (family === 6)))
    for (const asked of [vips.length > 0 ? undefined : service, tasks])
      for (const task of asked?.service.tasks ?? [])
        if (!this.#unhealthy.has(task.endpointId)) found.push(pick(task))
    return [...new Set(found)].filter((address): address is string => address !== undefined)
  }

  /** `_port._protocol.name`: the named ports of what bears the name. */
  #service(asker: Asker, name: string, type: number): LocalAnswer | undefined {
    const parts = /^_([^.]+)\._([^.]+)\.(.+)$/.exec(name)
    if (!parts) return undefined
    const [, wanted, protocol, base] = parts as unknown as [string, string, string, string]
    const nodes = this.#nodes(asker, base)
    if (nodes.length === 0) return undefined
    if (type !== TYPE.SRV && type !== TYPE.ANY) return { records: [], additional: [] }
    const matches = (ports: NamedPort[] | undefined) =>
      (ports ?? []).filter(port => port.name.toLowerCase() === wanted && port.protocol === protocol)
    const records: Resource[] = []
    const additional: Resource[] = []
    const point = (target: string, port: number, addresses: (string | undefined)[]) => {
      records.push(srvRecord(target, port))
      const owner = encodeName(target)
      for (const address of addresses) if (address) additional.push({ ...addressRecord(address), owner })
    }
    for (const node of nodes) {
      for (const { record, names } of node.members) {
        const [first] = names
        if (first === undefined || this.#unhealthy.has(record.endpointId)) continue
        for (const { port } of matches(record.ports))
          point(node.zone.qualified(first), port, [record.ipv4, record.ipv6])
      }
      const service = node.service ?? node.tasks
      const [first] = service?.names ?? []
      if (service && first !== undefined)
        for (const { port } of matches(service.service.ports))
          point(node.zone.qualified(node.service ? first : TASKS + first), port, [
            ...this.#addresses(node, 4),
            ...this.#addresses(node, 6),
          ])
      if (records.length > 0) break
    }
    return { records, additional }
  }

  /** The addresses of what SRV records of one's own point to, where we know them. */
  #targets(asker: Asker, nodes: Node[]): Resource[] {
    const targets = new Set(nodes.flatMap(node => node.records.flatMap(({ target }) => target ?? [])))
    return [...targets].flatMap(target => {
      const owner = encodeName(target)
      return ([4, 6] as const)
        .flatMap(family =>
          this.#nodes(asker, target).flatMap(node => this.#records(node, family === 4 ? TYPE.A : TYPE.AAAA)),
        )
        .map(record => ({ ...record, owner }))
    })
  }

  /* ------------------------------------------------------------------------------------------ upkeep */

  #zone(networkId: string, name: string): Zone {
    let zone = this.#zones.get(networkId)
    if (!zone) {
      zone = new Zone({ name, internal: false, serves: true })
      this.#zones.set(networkId, zone)
    } else if (zone.name === '' && name !== '' && !zone.declared) zone.name = zoneName(name) ?? ''
    return zone
  }
}

function link(asker: Asker, host: string): string | undefined {
  for (const alias in asker.links)
    if (alias.length === host.length && zoneName(alias) === host)
      return zoneName(asker.links[alias] as string)
  return undefined
}
