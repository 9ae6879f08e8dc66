/**
 * Balancing inside a sandbox, as nftables text. A packet that the sandbox sends to a virtual IP goes to one of the tasks;
 * connection tracking keeps its flow there. A chain for each port of each service says which; what changes later is one
 * transaction of the chains and elements that differ, so a service costs the others nothing. Pure.
 */
import type { Family } from '../base/cidr'
import type { Balanced, ServicePort, ServiceProtocol } from './contract'
import { shares, sticky } from './slots'

export const SERVICES_TABLE = 'libcnm-services'
const TABLE = `inet ${SERVICES_TABLE}`

/** A published port of the host and the service port that it leads to: in the sandbox where such flows come in. */
export interface Entrance {
  serviceId: string
  port: ServicePort
}

/** What of the table is a matter of the services. Maps keep their order, so that two of one content print alike. */
export interface Rules {
  /** Lets flows in from the host, and hides the clients from the tasks. */
  entrance: boolean
  /** Chain → its rule. */
  chains: Map<string, string>
  /** Chain → where its rule leads to: the same as data. */
  targets: Map<string, Target>
  /** Set → element → chain that it leads to, or '' in a set that is no map. */
  elements: Map<string, Map<string, string>>
}

export interface Target {
  family: Family
  /** Absent: whatever the protocol and the port are. */
  protocol?: ServiceProtocol
  port?: number
  /** One for each value of the random number, or of the client's hash. */
  addresses: string[]
  sticky: boolean
}

const FAMILIES = [4, 6] as const
const TYPES: Record<Family, { address: string; head: string; nat: string; ping: string }> = {
  4: { address: 'ipv4_addr', head: 'ip', nat: 'ip', ping: 'icmp type echo-request' },
  6: { address: 'ipv6_addr', head: 'ip6', nat: 'ip6', ping: 'icmpv6 type echo-request' },
}
/** The client's hash is the same on every host. */
export const SEED = 1

export function rulesOf(services: readonly Balanced[], entrances: readonly Entrance[] = []): Rules {
  const rules: Rules = {
    entrance: entrances.length > 0,
    chains: new Map(),
    targets: new Map(),
    elements: new Map(),
  }
  const element = (set: string, key: string, chain = '') => {
    const present = rules.elements.get(set)
    if (present) present.set(key, chain)
    else rules.elements.set(set, new Map([[key, chain]]))
  }
  for (const service of [...services].sort((a, b) => (a.id < b.id ? -1 : 1)))
    for (const family of FAMILIES) {
      const vip = service.vips[family]
      if (vip === undefined) continue
      element(`vips${family}`, vip)
      const whole = chain(rules, service, family)
      if (whole === undefined) continue
      element(`pings${family}`, vip, whole)
      if (service.ports.length === 0) element(`all${family}`, vip, whole)
      for (const port of service.ports)
        element(
          `ports${family}`,
          `${vip} . ${port.protocol} . ${port.port}`,
          chain(rules, service, family, port),
        )
    }
  for (const { serviceId, port } of entrances)
    for (const family of FAMILIES) {
      const service = services.find(({ id }) => id === serviceId)
      const target = service && chain(rules, service, family, port)
      if (target === undefined) continue
      element(`published${family}`, `${port.protocol} . ${port.publishedPort}`, target)
    }
  return rules
}

/** The chain that leads to the tasks: to one port, or whatever the port is. Undefined: there is nobody to lead to. */
function chain(rules: Rules, service: Balanced, family: Family, port?: ServicePort): string | undefined {
  const tasks = service.backends.filter(({ addresses }) => addresses[family] !== undefined)
  if (tasks.length === 0) return undefined
  const name = `to${family}-${service.id.slice(0, 12)}${port ? `-${port.protocol}-${port.targetPort}` : ''}`
  if (rules.chains.has(name)) return name
  const slots = service.sticky ? sticky(tasks) : shares(tasks)
  const goal = (address: string | undefined) => (port ? `${address} . ${port.targetPort}` : address)
  const { head, nat } = TYPES[family]
  const number = service.sticky
    ? `jhash ${head} saddr mod ${slots.length} seed 0x${SEED.toString(16)}`
    : `numgen random mod ${slots.length}`
  const list = slots.map(({ addresses }, slot) => `${slot} : ${goal(addresses[family])}`)
  const match = port ? `meta l4proto ${port.protocol} ` : ''
  rules.targets.set(name, {
    family,
    ...(port && { protocol: port.protocol, port: port.targetPort }),
    addresses: slots.map(({ addresses }) => addresses[family] as string),
    sticky: service.sticky,
  })
  rules.chains.set(name, `${match}dnat ${nat} to ${number} map { ${list.join(', ')} }`)
  return name
}

export const isEmpty = ({ elements, entrance }: Rules): boolean => elements.size === 0 && !entrance

/** The whole table, in the place of whatever is there. */
export const renderWhole = (rules: Rules): string => `${renderNone()}${renderTable(rules)}`

export const renderNone = (): string => `table ${TABLE}\ndelete table ${TABLE}\n`

export interface Difference {
  /** Chains whose rule is another; `fresh`: they are not there yet. */
  made: { name: string; fresh: boolean }[]
  /** Elements that go, and those that come: in this order, as one may lead elsewhere now. */
  taken: { set: string; keys: string[] }[]
  given: { set: string; entries: [key: string, chain: string][] }[]
  /** Chains that go. */
  dropped: string[]
}

export function difference(before: Rules, after: Rules): Difference {
  const found: Difference = { made: [], taken: [], given: [], dropped: [] }
  for (const [name, rule] of after.chains)
    if (before.chains.get(name) !== rule) found.made.push({ name, fresh: !before.chains.has(name) })
  for (const name of before.chains.keys()) if (!after.chains.has(name)) found.dropped.push(name)
  for (const set of SETS) {
    const [old, now] = [before.elements.get(set) ?? NONE, after.elements.get(set) ?? NONE]
    const keys = [...old].filter(([key, to]) => now.get(key) !== to).map(([key]) => key)
    const entries = [...now].filter(([key, to]) => old.get(key) !== to)
    if (keys.length) found.taken.push({ set, keys })
    if (entries.length) found.given.push({ set, entries })
  }
  return found
}

/** From one to the other, as commands of one transaction; '' when they are alike. Both have the table. */
export function renderChange(before: Rules, after: Rules): string {
  if (before.entrance !== after.entrance) return renderWhole(after)
  const { made, taken, given, dropped } = difference(before, after)
  return [
    ...made.map(({ name, fresh }) => `${fresh ? 'add' : 'flush'} chain ${TABLE} ${name}`),
    ...made.map(({ name }) => `add rule ${TABLE} ${name} ${after.chains.get(name)}`),
    ...taken.map(({ set, keys }) => `delete element ${TABLE} ${set} { ${keys.join(', ')} }`),
    ...given.map(({ set, entries }) => `add element ${TABLE} ${set} { ${entries.map(text).join(', ')} }`),
    ...dropped.map(name => `delete chain ${TABLE} ${name}`),
  ]
    .map(line => `${line}\n`)
    .join('')
}

const NONE: ReadonlyMap<string, string> = new Map()
const text = ([key, to]: [string, string]): string => (to ? `${key} : goto ${to}` : key)

const SETS = FAMILIES.flatMap(family =>
  ['vips', 'pings', 'all', 'ports', 'published'].map(set => `${set}${family}`),
)

/** As the kernel lists it, but for the breaking of lines and the order of elements. */
function renderTable({ entrance, chains, elements }: Rules): string {
  const set = (name: string, kind: 'set' | 'map', type: string): string => {
    const list = [...(elements.get(name) ?? NONE)].map(text)
    const content = list.length ? `\n\t\telements = { ${list.join(', ')} }` : ''
    return `\t${kind} ${name} {\n\t\ttype ${type}${kind === 'map' ? ' : verdict' : ''}${content}\n\t}\n`
  }
  const block = (name: string, ...lines: (string | false)[]): string =>
    `\tchain ${name} {\n${lines
      .filter(line => line !== false)
      .map(line => `\t\t${line}\n`)
      .join('')}\t}\n`
  const each = (body: (family: Family, types: (typeof TYPES)[Family]) => string): string[] =>
    FAMILIES.map(family => body(family, TYPES[family]))
  return [
    `table ${TABLE} {\n`,
    ...each((family, { address }) =>
      [
        set(`vips${family}`, 'set', address),
        set(`pings${family}`, 'map', address),
        set(`all${family}`, 'map', address),
        set(`ports${family}`, 'map', `${address} . inet_proto . inet_service`),
        set(`published${family}`, 'map', 'inet_proto . inet_service'),
      ].join(''),
    ),
    ...[...chains].map(([name, rule]) => block(name, rule)),
    block(
      'balance',
      ...each((family, { head }) => `${head} daddr . meta l4proto . th dport vmap @ports${family}`),
      ...each((family, { head }) => `${head} daddr vmap @all${family}`),
      ...each((family, { head, ping }) => `${ping} ${head} daddr vmap @pings${family}`),
    ),
    // What the sandbox itself sends, and what it passes on for containers inside it.
    block('output', 'type nat hook output priority -100; policy accept;', 'goto balance'),
    block(
      'prerouting',
      'type nat hook prerouting priority dstnat; policy accept;',
      ...(entrance
        ? each(
            family =>
              `fib daddr type local meta nfproto ipv${family} meta l4proto . th dport vmap @published${family}`,
          )
        : []),
      'goto balance',
    ),
    // No task took it: the caller is told at once.
    block(
      'refuse',
      'type filter hook output priority filter; policy accept;',
      ...each((family, { head }) => `meta l4proto tcp ${head} daddr @vips${family} reject with tcp reset`),
      'ip daddr @vips4 reject with icmp port-unreachable',
      'ip6 daddr @vips6 reject with icmpv6 port-unreachable',
    ),
    ...(entrance
      ? [
          // The tasks answer this sandbox, which knows the way back to the client; and nobody uses it as a router.
          block(
            'postrouting',
            'type nat hook postrouting priority srcnat; policy accept;',
            'ct status dnat masquerade',
          ),
          block(
            'forward',
            'type filter hook forward priority filter; policy drop;',
            'ct state established,related accept',
            'ct status dnat accept',
          ),
        ]
      : []),
    '}\n',
  ].join('')
}

/** Two listings of one table are alike in this form: without layout, chains and elements in order. */
export const normalized = (listing: string): string =>
  [...listing.matchAll(/^\t(?:set|map|chain) [\s\S]*?^\t}/gm)]
    .map(([block]) =>
      block.replace(/\s+/g, ' ').replace(
        /elements = \{([^}]*)\}/,
        (_, list: string) =>
          `elements = ${list
            .split(',')
            .map(each => each.trim())
            .sort()
            .join()}`,
      ),
    )
    .sort()
    .join('\n')

/** What `nft list table` should print of it, {@link normalized}. */
export const expected = (rules: Rules): string => normalized(renderTable(rules))
