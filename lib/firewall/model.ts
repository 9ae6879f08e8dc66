/**
 * The desired state: the objects that were applied, and the items (map elements, rules) that a backend makes of them.
 * Items are counted, since two objects may want the same one (two host ports that lead to one container port). Pure.
 */
import { CnmError } from '../base/errors'
import type {
  Firewall,
  FirewallChange,
  FirewallEndpoint,
  FirewallLink,
  FirewallNetwork,
  Mapping,
} from './contract'

/** One element of a set or map, or one rule of a chain: `set` says which, `key` is unique within it. */
export interface Item {
  set: string
  key: string
  /** What the key maps to, for maps. */
  value?: string
  /**
   * For sets of port intervals: the kernel refuses intervals that overlap, so what is put there is the union of all of a
   * group. `key` is the group, and {@link spanKey} writes an interval of it.
   */
  span?: Span
}

export interface Span {
  from: number
  to: number
}

/** How a backend sees objects. `network` is there for those that belong to one. */
export interface Renderer {
  network(network: FirewallNetwork): Item[]
  endpoint(endpoint: FirewallEndpoint, network: FirewallNetwork): Item[]
  mapping(mapping: Mapping, network: FirewallNetwork): Item[]
  link(link: FirewallLink, network: FirewallNetwork): Item[]
}

/** What one transaction does; items in `removed` come first. */
export interface Delta {
  removed: Item[]
  added: Item[]
}

export interface Plan extends Delta {
  /** Mappings that are new, for whoever must prepare the host for them. */
  mappings: Mapping[]
  /** Makes it the state: called when the kernel has taken it. */
  commit(): void
}

type Kind = 'network' | 'endpoint' | 'mapping' | 'link'
type Subject = FirewallNetwork | FirewallEndpoint | Mapping | FirewallLink

interface Held {
  subject: Subject
  /** As they were added: the network may have changed or gone when they are removed. */
  items: Item[]
}

interface Count {
  value: string | undefined
  count: number
}

const KINDS: Kind[] = ['network', 'endpoint', 'mapping', 'link']

export class Model {
  private readonly held: Record<Kind, Map<string, Held>> = {
    network: new Map(),
    endpoint: new Map(),
    mapping: new Map(),
    link: new Map(),
  }
  private readonly counts = new Map<string, Map<string, Count>>()
  /** `SET KEY` → `FROM-TO` → how often. */
  private readonly spans = new Map<string, Map<string, Span & { count: number }>>()

  constructor(private readonly renderer: Renderer) {}

  /** What a change would do. Removing what is not there and adding what is there already are nothing. */
  plan(change: FirewallChange): Plan {
    const overlay = new Overlay(this.counts, this.spans)
    const held: Record<Kind, Map<string, Held | undefined>> = {
      network: new Map(),
      endpoint: new Map(),
      mapping: new Map(),
      link: new Map(),
    }
    const find = (kind: Kind, id: string) =>
      held[kind].has(id) ? held[kind].get(id) : this.held[kind].get(id)
    const remove = (kind: Kind, id: string) => {
      const old = find(kind, id)
      if (!old) return
      overlay.remove(old.items)
      held[kind].set(id, undefined)
    }
    for (const kind of [...KINDS].reverse())
      for (const subject of subjects(change, kind, 'remove')) remove(kind, identity(kind, subject))
    const mappings: Mapping[] = []
    for (const kind of KINDS)
      for (const subject of subjects(change, kind, 'add')) {
        const id = identity(kind, subject)
        remove(kind, id)
        const items = this.render(
          kind,
          subject,
          networkId => find('network', networkId)?.subject as FirewallNetwork,
        )
        overlay.add(items)
        held[kind].set(id, { subject, items })
        if (kind === 'mapping') mappings.push(subject as Mapping)
      }
    return {
      ...overlay.delta(),
      mappings,
      commit: () => {
        overlay.commit()
        for (const kind of KINDS)
          for (const [id, value] of held[kind]) {
            if (value) this.held[kind].set(id, value)
            else this.held[kind].delete(id)
          }
      },
    }
  }

  private render(
    kind: Kind,
    subject: Subject,
    networkOf: (id: string) => FirewallNetwork | undefined,
  ): Item[] {
    if (kind === 'network') return this.renderer.network(subject as FirewallNetwork)
    const { networkId } = subject as { networkId: string }
    const network = networkOf(networkId)
    if (!network)
      throw new CnmError('ERR_INTERNAL', `the firewall does not know network ${networkId}`, {
        networkId,
        kind,
      })
    if (kind === 'endpoint') return this.renderer.endpoint(subject as FirewallEndpoint, network)
    if (kind === 'mapping') return this.renderer.mapping(subject as Mapping, network)
    return this.renderer.link(subject as FirewallLink, network)
  }

  /** The objects, as a change that would make this state out of nothing. */
  state(): ReturnType<Firewall['state']> {
    const all = <T>(kind: Kind) => [...this.held[kind].values()].map(({ subject }) => subject as T)
    return {
      addNetworks: all<FirewallNetwork>('network'),
      addEndpoints: all<FirewallEndpoint>('endpoint'),
      addMappings: all<Mapping>('mapping'),
      addLinks: all<FirewallLink>('link'),
    }
  }

  /** All items, by set, in the order in which they were added. */
  items(): Map<string, Item[]> {
    const all = new Map<string, Item[]>()
    const push = (item: Item) => {
      const list = all.get(item.set)
      if (list) list.push(item)
      else all.set(item.set, [item])
    }
    for (const [set, keys] of this.counts) for (const [key, { value }] of keys) push({ set, key, value })
    for (const [group, spans] of this.spans)
      for (const span of union(spans.values())) push({ ...splitGroup(group), span })
    return all
  }

  network(id: string): FirewallNetwork | undefined {
    return this.held.network.get(id)?.subject as FirewallNetwork | undefined
  }
}

/** The state of the model with a change laid over it, touched entries only. */
class Overlay {
  private readonly touched = new Map<string, Map<string, Count & { before: Count | undefined }>>()
  private readonly groups = new Map<string, Map<string, Span & { count: number }>>()

  constructor(
    private readonly counts: Map<string, Map<string, Count>>,
    private readonly spans: Map<string, Map<string, Span & { count: number }>>,
  ) {}

  private at(item: Item) {
    let set = this.touched.get(item.set)
    if (!set) {
      set = new Map()
      this.touched.set(item.set, set)
    }
    let entry = set.get(item.key)
    if (!entry) {
      const before = this.counts.get(item.set)?.get(item.key)
      entry = { value: before?.value, count: before?.count ?? 0, before }
      set.set(item.key, entry)
    }
    return entry
  }

  private group(item: Item, span: Span) {
    const name = `${item.set} ${item.key}`
    let group = this.groups.get(name)
    if (!group) {
      group = new Map()
      for (const [key, value] of this.spans.get(name) ?? []) group.set(key, { ...value })
      this.groups.set(name, group)
    }
    const key = `${span.from}-${span.to}`
    const entry = group.get(key) ?? { ...span, count: 0 }
    group.set(key, entry)
    return entry
  }

  add(items: Item[]): void {
    for (const item of items) {
      if (item.span) {
        this.group(item, item.span).count++
        continue
      }
      const entry = this.at(item)
      if (entry.count > 0 && entry.value !== item.value)
        throw new CnmError(
          'ERR_PORT_IN_USE',
          `the firewall maps ${item.key} to ${entry.value} already, not to ${item.value}`,
          { set: item.set, key: item.key, holder: entry.value, wanted: item.value },
        )
      entry.count++
      entry.value = item.value
    }
  }

  remove(items: Item[]): void {
    for (const item of items)
      if (item.span) this.group(item, item.span).count--
      else this.at(item).count--
  }

  delta(): Delta {
    const removed: Item[] = []
    const added: Item[] = []
    for (const [set, keys] of this.touched)
      for (const [key, { value, count, before }] of keys) {
        const had = (before?.count ?? 0) > 0
        const has = count > 0
        if (had && (!has || before?.value !== value)) removed.push({ set, key, value: before?.value })
        if (has && (!had || before?.value !== value)) added.push({ set, key, value })
      }
    for (const [name, group] of this.groups) {
      const before = union(this.spans.get(name)?.values() ?? [])
      const after = union(group.values())
      const item = splitGroup(name)
      const among = (span: Span, list: Span[]) =>
        list.some(other => other.from === span.from && other.to === span.to)
      for (const span of before) if (!among(span, after)) removed.push({ ...item, span })
      for (const span of after) if (!among(span, before)) added.push({ ...item, span })
    }
    return { removed, added }
  }

  commit(): void {
    for (const [set, keys] of this.touched) {
      let base = this.counts.get(set)
      if (!base) {
        base = new Map()
        this.counts.set(set, base)
      }
      for (const [key, { value, count }] of keys) {
        if (count > 0) base.set(key, { value, count })
        else base.delete(key)
      }
      if (base.size === 0) this.counts.delete(set)
    }
    for (const [name, group] of this.groups) {
      for (const [key, { count }] of group) if (count <= 0) group.delete(key)
      if (group.size) this.spans.set(name, group)
      else this.spans.delete(name)
    }
  }
}

function splitGroup(name: string): { set: string; key: string } {
  const space = name.indexOf(' ')
  return { set: name.slice(0, space), key: name.slice(space + 1) }
}

/** Intervals that neither overlap nor touch, in ascending order. */
export function union(spans: Iterable<Span & { count?: number }>): Span[] {
  const sorted = [...spans]
    .filter(({ count = 1 }) => count > 0)
    .sort((a, b) => a.from - b.from || a.to - b.to)
  const merged: Span[] = []
  for (const { from, to } of sorted) {
    const last = merged.at(-1)
    if (last && from <= last.to + 1) last.to = Math.max(last.to, to)
    else merged.push({ from, to })
  }
  return merged
}

const FIELDS = {
  add: { network: 'addNetworks', endpoint: 'addEndpoints', mapping: 'addMappings', link: 'addLinks' },
  remove: {
    network: 'removeNetworks',
    endpoint: 'removeEndpoints',
    mapping: 'removeMappings',
    link: 'removeLinks',
  },
} as const

const subjects = (change: FirewallChange, kind: Kind, verb: 'add' | 'remove'): Subject[] =>
  change[FIELDS[verb][kind]] ?? []

/** By id; mappings and links, which have none, by all that distinguishes them. */
function identity(kind: Kind, subject: Subject): string {
  if (kind === 'network' || kind === 'endpoint') return (subject as FirewallNetwork | FirewallEndpoint).id
  if (kind === 'mapping') {
    const m = subject as Mapping
    return [
      m.endpointId,
      m.protocol,
      m.hostIp,
      m.hostPort,
      m.hostPortEnd,
      m.containerIp,
      m.containerPort,
    ].join(' ')
  }
  const link = subject as FirewallLink
  return [link.networkId, link.from, link.to, ...link.ports.map(p => `${p.port}/${p.protocol}`)].join(' ')
}
