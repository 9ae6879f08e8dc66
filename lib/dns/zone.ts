/** The zone of one network: what bears which name and address there. */
import type { CustomRecord, NameRecord, NetworkNames, ServiceNames } from './contract'
import { zoneName, zoneRecord, type ZoneRecord } from './records'
import { encodeName } from './wire/message'

/** Names that begin so are those of services' tasks; nothing else can take them. */
export const TASKS = 'tasks.'

interface Member {
  record: NameRecord
  names: string[]
}

interface Service {
  service: ServiceNames
  names: string[]
}

/** All that bears one name in one network. */
export interface Node {
  members: Member[]
  records: ZoneRecord[]
  service?: Service
  /** Asked for by `tasks.NAME`. */
  tasks?: Service
  zone: Zone
}

export class Zone {
  readonly members = new Map<string, Member>()
  readonly byName = new Map<string, Set<Member>>()
  readonly byAddress = new Map<string, Set<Member>>()
  readonly services = new Map<string, Service>()
  readonly serviceByName = new Map<string, Service>()
  records = new Map<string, ZoneRecord[]>()
  name: string
  /** Named by {@link Names.setNetwork}, not only mentioned by an endpoint. */
  declared = false

  constructor(public options: NetworkNames) {
    this.name = zoneName(options.name) ?? ''
  }

  configure(options: NetworkNames): void {
    this.options = options
    this.name = zoneName(options.name) ?? ''
    this.declared = true
  }

  setMember(record: NameRecord): void {
    this.dropMember(record.endpointId)
    const names = ownNames(record.names)
    const member = { record, names }
    this.members.set(record.endpointId, member)
    for (const name of names) add(this.byName, name, member)
    for (const address of [record.ipv4, record.ipv6]) if (address) add(this.byAddress, address, member)
  }

  dropMember(endpointId: string): void {
    const member = this.members.get(endpointId)
    if (!member) return
    this.members.delete(endpointId)
    for (const name of member.names) take(this.byName, name, member)
    for (const address of [member.record.ipv4, member.record.ipv6])
      if (address) take(this.byAddress, address, member)
  }

  setService(service: ServiceNames): void {
    this.dropService(service.id)
    const entry = { service, names: ownNames([service.name, ...service.aliases]) }
    this.services.set(service.id, entry)
    this.#offer(entry)
  }

  dropService(id: string): void {
    const entry = this.services.get(id)
    if (!entry) return
    this.services.delete(id)
    for (const name of entry.names)
      if (this.serviceByName.get(name) === entry) this.serviceByName.delete(name)
    // A service that had to stand back because of an equal name steps forward.
    for (const other of this.services.values()) this.#offer(other)
  }

  #offer(entry: Service): void {
    for (const name of entry.names) if (!this.serviceByName.has(name)) this.serviceByName.set(name, entry)
  }

  setRecords(records: CustomRecord[]): void {
    this.records = new Map()
    for (const record of records.map(zoneRecord)) {
      const present = this.records.get(record.name)
      if (present) present.push(record)
      else this.records.set(record.name, [record])
    }
  }

  get empty(): boolean {
    return this.members.size === 0 && this.services.size === 0 && this.records.size === 0
  }

  node(name: string): Node | undefined {
    const service = this.serviceByName.get(name)
    const members = this.byName.get(name)
    const records = this.records.get(name)
    const tasks = name.startsWith(TASKS) ? this.serviceByName.get(name.slice(TASKS.length)) : undefined
    if (!service && !members && !records && !tasks) return undefined
    return { members: members ? [...members] : [], records: records ?? [], service, tasks, zone: this }
  }

  /** The record set that `*.` some parent offers; a parent that exists itself hides the wildcards above it (RFC 4592). */
  wildcard(name: string): Node | undefined {
    for (let rest = name; ; ) {
      const dot = rest.indexOf('.')
      rest = dot < 0 ? '' : rest.slice(dot + 1)
      const records = this.records.get(rest === '' ? '*' : `*.${rest}`)
      if (records) return { members: [], records, zone: this }
      if (rest === '' || this.node(rest)) return undefined
    }
  }

  /** Where SRV records point: a name that is unambiguous for every sandbox of the network. */
  qualified(name: string): string {
    const full = this.name ? `${name}.${this.name}` : name
    return encodeName(full) ? full : name
  }
}

const ownNames = (names: string[]): string[] =>
  [...new Set(names.map(zoneName))].filter(
    (name): name is string => name !== undefined && !name.startsWith(TASKS),
  )

function add<T>(index: Map<string, Set<T>>, key: string, value: T): void {
  const present = index.get(key)
  if (present) present.add(value)
  else index.set(key, new Set([value]))
}

function take<T>(index: Map<string, Set<T>>, key: string, value: T): void {
  const present = index.get(key)
  present?.delete(value)
  if (present?.size === 0) index.delete(key)
}
