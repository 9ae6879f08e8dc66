/** All shared records in memory, as of one revision. Fed by one listing and one watch; tells what changed. Pure. */
import type { Change, Listing } from './contract'
import { type ClusterKind, decode, KINDS, type RecordOf } from './records'

export type ClusterChange = {
  [K in ClusterKind]: { kind: K; id: string; before?: RecordOf<K>; after?: RecordOf<K> }
}[ClusterKind]

interface Held {
  text: string
  value: RecordOf<ClusterKind>
}

export class Mirror {
  readonly #root: string
  readonly #garbage: (key: string, reason: string) => void
  readonly #kinds = new Map<ClusterKind, Map<string, Held>>()
  /** Keys whose value was found bad, and that value: each is told once. */
  readonly #bad = new Map<string, string>()
  /** Endpoints by network: networks are asked for theirs, often. */
  readonly #byNetwork = new Map<string, Set<string>>()

  /** `root`: what every key begins with, the last slash included. */
  constructor(root: string, garbage: (key: string, reason: string) => void) {
    this.#root = root
    this.#garbage = garbage
    for (const kind of Object.keys(KINDS) as ClusterKind[]) this.#kinds.set(kind, new Map())
  }

  get<K extends ClusterKind>(kind: K, id: string): RecordOf<K> | undefined {
    return this.#of(kind).get(id)?.value as RecordOf<K> | undefined
  }

  all<K extends ClusterKind>(kind: K): RecordOf<K>[] {
    return [...this.#of(kind).values()].map(({ value }) => value as RecordOf<K>)
  }

  ids(kind: ClusterKind): string[] {
    return [...this.#of(kind).keys()]
  }

  /** Is this what is held, to the letter? */
  holds(kind: ClusterKind, id: string, text: string): boolean {
    return this.#of(kind).get(id)?.text === text
  }

  endpointsOf(networkId: string): RecordOf<'endpoint'>[] {
    return [...(this.#byNetwork.get(networkId) ?? [])].flatMap(id => this.get('endpoint', id) ?? [])
  }

  /** A new listing: what is not in it is gone, except what has become garbage, which stays as it was known. */
  replace({ entries }: Listing): ClusterChange[] {
    const changes: ClusterChange[] = []
    const present = new Set(entries.map(({ key }) => key))
    for (const [kind, held] of this.#kinds)
      for (const id of [...held.keys()])
        if (!present.has(`${this.#root}${kind}/${id}`)) changes.push(...this.#set(kind, id, undefined))
    for (const { key, value } of entries) changes.push(...this.#read(key, value))
    return changes
  }

  apply(changes: Change[]): ClusterChange[] {
    return changes.flatMap(({ key, value }) => this.#read(key, value))
  }

  #of(kind: ClusterKind): Map<string, Held> {
    return this.#kinds.get(kind) as Map<string, Held>
  }

  #read(key: string, text: string | undefined): ClusterChange[] {
    const [, kind, id] = /^([a-z]+)\/(.+)$/.exec(key.slice(this.#root.length)) ?? []
    if (kind === undefined || id === undefined || !Object.hasOwn(KINDS, kind))
      return text === undefined
        ? []
        : this.#refuse(key, text, `there are no records of the kind ${kind ?? '(none)'}`)
    if (text === undefined) {
      this.#bad.delete(key)
      return this.#set(kind as ClusterKind, id, undefined)
    }
    const held = this.#of(kind as ClusterKind).get(id)
    if (held?.text === text) return []
    try {
      const value = decode(kind as ClusterKind, text)
      const own = idOf(kind as ClusterKind, value)
      if (own !== undefined && own !== id) return this.#refuse(key, text, `it calls itself ${own}`)
      this.#bad.delete(key)
      return this.#set(kind as ClusterKind, id, { text, value })
    } catch (error) {
      return this.#refuse(key, text, (error as Error).message)
    }
  }

  #refuse(key: string, text: string, reason: string): [] {
    if (this.#bad.get(key) !== text) {
      this.#bad.set(key, text)
      this.#garbage(key, reason)
    }
    return []
  }

  #set(kind: ClusterKind, id: string, held: Held | undefined): ClusterChange[] {
    const map = this.#of(kind)
    const before = map.get(id)?.value
    if (held) map.set(id, held)
    else if (!map.delete(id)) return []
    if (kind === 'endpoint') this.#index(id, held !== undefined)
    return [{ kind, id, before, after: held?.value } as ClusterChange]
  }

  #index(id: string, there: boolean): void {
    const networkId = id.slice(0, id.indexOf('/'))
    const ids = this.#byNetwork.get(networkId) ?? new Set()
    if (there) ids.add(id)
    else ids.delete(id)
    if (ids.size) this.#byNetwork.set(networkId, ids)
    else this.#byNetwork.delete(networkId)
  }
}

/** The id that a record says it has. */
export function idOf<K extends ClusterKind>(kind: K, value: RecordOf<K>): string | undefined {
  const record = value as Partial<Record<'id' | 'name' | 'networkId' | 'host', string>>
  if (kind === 'host') return record.name
  if (kind === 'receipt') return record.host
  if (kind === 'endpoint' || kind === 'service') return `${record.networkId}/${record.id}`
  if (kind === 'key') return undefined
  return record.id
}
