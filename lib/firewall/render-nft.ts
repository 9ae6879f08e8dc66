/**
 * The nftables backend's text. One table of family inet with a fixed number of chains and rules; everything that is per
 * network, endpoint or port is an element of a map or set. Pure. ARCHITECTURE.md walks a packet through it.
 */
import { contains, familyOf, parseCidr, type Family } from '../base/cidr'
import { CnmError } from '../base/errors'
import { checkedCidr, checkedIp, checkedLink, checkedPort, checkedProtocol, checkedTable } from './check'
import type { FirewallEndpoint, FirewallLink, FirewallNetwork, Mapping, Protocol } from './contract'
import type { Delta, Item, Renderer } from './model'

/**
 * Ports. Larger ranges whose host and container ports are the same become one element of an interval map, whose updates
 * slow down with the number of its elements; smaller ones become elements of the hash map, whose updates do not.
 * (An interval cannot shift ports, so ranges that do are always written out.)
 */
const INTERVAL_FROM = 33

const FAMILIES = [4, 6] as const
const ADDR: Record<Family, string> = { 4: 'ipv4_addr', 6: 'ipv6_addr' }
const IP: Record<Family, string> = { 4: 'ip', 6: 'ip6' }
const PROTO: Record<Family, string> = { 4: 'ipv4', 6: 'ipv6' }
const ANY: Record<Family, string> = { 4: '0.0.0.0', 6: '::' }

/** The sets and maps, in the order of the listing: name → type, and whether its keys are intervals. */
export const SETS: { name: string; kind: 'set' | 'map'; type: string; interval?: boolean }[] = [
  { name: 'links', kind: 'set', type: 'ifname' },
  { name: 'same', kind: 'set', type: 'ifname . ifname' },
  { name: 'within', kind: 'map', type: 'ifname . ifname : verdict' },
  { name: 'from', kind: 'map', type: 'ifname : verdict' },
  { name: 'toward', kind: 'map', type: 'nf_proto . ifname : verdict' },
  { name: 'masqueraded', kind: 'set', type: 'nf_proto . ifname' },
  ...FAMILIES.flatMap(f => {
    const ip = ADDR[f]
    return [
      // The family in the key says nothing new, but makes it a concatenation: libnftables reads all elements of all
      // plain interval sets of a table before each change, and 1,000 networks would cost every one of them 2 ms.
      { name: `guarded${f}`, kind: 'set' as const, type: `${ip} . nf_proto`, interval: true },
      { name: `reach${f}`, kind: 'set' as const, type: `${ip} . ifname`, interval: true },
      { name: `self${f}`, kind: 'set' as const, type: `${ip} . ${ip}` },
      { name: `source${f}`, kind: 'map' as const, type: `ifname : ${ip}` },
      { name: `ports${f}`, kind: 'map' as const, type: `inet_proto . inet_service : ${ip} . inet_service` },
      {
        name: `ports${f}-at`,
        kind: 'map' as const,
        type: `${ip} . inet_proto . inet_service : ${ip} . inet_service`,
      },
      { name: `ranges${f}`, kind: 'map' as const, type: `inet_proto . inet_service : ${ip}`, interval: true },
      {
        name: `ranges${f}-at`,
        kind: 'map' as const,
        type: `${ip} . inet_proto . inet_service : ${ip}`,
        interval: true,
      },
      { name: `limited${f}`, kind: 'set' as const, type: 'inet_proto . inet_service', interval: true },
      {
        name: `limited${f}-at`,
        kind: 'set' as const,
        type: `${ip} . inet_proto . inet_service`,
        interval: true,
      },
      {
        name: `allowed${f}`,
        kind: 'set' as const,
        type: `inet_proto . inet_service . ${ip}`,
        interval: true,
      },
      {
        name: `allowed${f}-at`,
        kind: 'set' as const,
        type: `${ip} . inet_proto . inet_service . ${ip}`,
        interval: true,
      },
      { name: `open${f}`, kind: 'set' as const, type: `${ip} . inet_proto . inet_service` },
      {
        name: `open-ranges${f}`,
        kind: 'set' as const,
        type: `${ip} . inet_proto . inet_service`,
        interval: true,
      },
      { name: `linked${f}`, kind: 'set' as const, type: `${ip} . ${ip} . inet_proto . inet_service` },
    ]
  }),
]

const PORT = 'meta l4proto . th dport'

/** By number: names are looked up in /etc/protocols, which a small image has not. */
const PROTOCOL: Record<Protocol, number> = { tcp: 6, udp: 17, sctp: 132 }
const NUMBER_OF: Record<string, number> = { ...PROTOCOL, icmp: 1, 'ipv6-icmp': 58 }

const each = (rule: (f: Family, ip: string) => string | string[]): string[] =>
  FAMILIES.flatMap(f => rule(f, `${IP[f]} daddr`))

/** Chains and their rules as `nft list` prints them (but for names of protocols): what is there is compared as text. */
const CHAINS: { name: string; hook?: string; rules: string[] }[] = [
  {
    name: 'guard',
    hook: 'type filter hook prerouting priority mangle; policy accept;',
    rules: [
      'ct state established,related accept',
      'iifname @links ip daddr 127.0.0.0/8 drop',
      ...each(
        (f, daddr) =>
          `${daddr} . meta nfproto @guarded${f} ${daddr} . iifname != @reach${f} fib daddr type != local drop`,
      ),
    ],
  },
  {
    name: 'prerouting',
    hook: 'type nat hook prerouting priority dstnat; policy accept;',
    rules: ['ip daddr 127.0.0.0/8 return', 'fib daddr type local jump publish'],
  },
  {
    name: 'output',
    hook: 'type nat hook output priority -100; policy accept;',
    rules: ['ip6 daddr ::1 return', 'fib daddr type local jump publish'],
  },
  {
    name: 'forward',
    hook: 'type filter hook forward priority filter; policy accept;',
    rules: [
      'ct state established,related accept',
      'iifname . oifname vmap @within',
      'iifname vmap @from',
      'meta nfproto . oifname vmap @toward',
    ],
  },
  {
    name: 'postrouting',
    hook: 'type nat hook postrouting priority srcnat; policy accept;',
    rules: [
      'ct status dnat iifname . oifname @same masquerade',
      'iifname . oifname @same return',
      // Bridged by br_netfilter after translation: no input interface is known here.
      ...FAMILIES.map(f => `ct status dnat ${IP[f]} saddr . ${IP[f]} daddr @self${f} masquerade`),
      'oifname @links ip saddr 127.0.0.0/8 masquerade',
      'meta nfproto . iifname @masqueraded masquerade',
      ...FAMILIES.map(f => `snat ${IP[f]} to iifname map @source${f}`),
    ],
  },
  {
    name: 'publish',
    rules: ['meta nfproto vmap { ipv4 : goto publish4, ipv6 : goto publish6 }'],
  },
  ...FAMILIES.map(f => {
    const [daddr, saddr, to] = [`${IP[f]} daddr`, `${IP[f]} saddr`, `dnat ${IP[f]} to`]
    return {
      name: `publish${f}`,
      rules: [
        // Packets with a link-local source cannot be routed back (RFC 4291, 2.5.6).
        ...(f === 6 ? ['ip6 saddr fe80::/10 return'] : []),
        `${PORT} @limited${f} ${PORT} . ${saddr} != @allowed${f} drop`,
        `${daddr} . ${PORT} @limited${f}-at ${daddr} . ${PORT} . ${saddr} != @allowed${f}-at drop`,
        `${to} ${daddr} . ${PORT} map @ports${f}-at`,
        `${to} ${PORT} map @ports${f}`,
        `${to} ${daddr} . ${PORT} map @ranges${f}-at`,
        `${to} ${PORT} map @ranges${f}`,
      ],
    }
  }),
  {
    name: 'apart',
    rules: [
      ...each((f, daddr) => `${IP[f]} saddr . ${daddr} . ${PORT} @linked${f} accept`),
      'ct status dnat goto closed',
      'drop',
    ],
  },
  {
    name: 'routed',
    rules: [
      'meta l4proto { 1, 58 } accept',
      ...each(
        (f, daddr) =>
          `${daddr} . ${PORT} @limited${f}-at ${daddr} . ${PORT} . ${IP[f]} saddr != @allowed${f}-at drop`,
      ),
      'goto closed',
    ],
  },
  {
    name: 'closed',
    rules: [
      ...each((f, daddr) => [
        `${daddr} . ${PORT} @open${f} accept`,
        `${daddr} . ${PORT} @open-ranges${f} accept`,
      ]),
      'drop',
    ],
  },
]

/** Chains that rules jump to must be known before: the listing's order is the order of creation. */
const ORDERED = ['closed', 'routed', 'apart', 'publish4', 'publish6', 'publish'].map(
  name => CHAINS.find(chain => chain.name === name)!,
)
const CREATED = [...ORDERED, ...CHAINS.filter(chain => !ORDERED.includes(chain))]

/** What a network, an endpoint, a mapping puts into the maps. */
export const nftRenderer: Renderer = {
  network(network: FirewallNetwork): Item[] {
    const link = quoted(network.link)
    network.trustedLinks.forEach(checkedLink)
    const items: Item[] = [
      { set: 'links', key: link },
      { set: 'same', key: `${link} . ${link}` },
      { set: 'within', key: `${link} . ${link}`, value: network.icc ? 'accept' : 'goto apart' },
    ]
    if (network.internal) items.push({ set: 'from', key: link, value: 'drop' })
    for (const f of FAMILIES) {
      const family = network.families.find(candidate => candidate.family === f)
      const mode = network.internal ? 'isolated' : family?.mode
      const verdict =
        mode === 'nat'
          ? 'goto closed'
          : mode === 'routed'
            ? 'goto routed'
            : mode === 'nat-unprotected'
              ? 'accept'
              : 'drop'
      items.push({ set: 'toward', key: `${PROTO[f]} . ${link}`, value: verdict })
      if (!family || (mode !== 'nat' && mode !== 'nat-unprotected')) continue
      // By subnet, not by endpoint: so an endpoint that publishes nothing costs no transaction.
      if (mode === 'nat')
        for (const subnet of family.subnets.map(text => checkedCidr(text, f))) {
          items.push({ set: `guarded${f}`, key: `${subnet} . ${PROTO[f]}` })
          for (const inward of [network.link, ...network.trustedLinks])
            items.push({ set: `reach${f}`, key: `${subnet} . ${quoted(inward)}` })
        }
      if (family.masquerade === true) items.push({ set: 'masqueraded', key: `${PROTO[f]} . ${link}` })
      else if (family.masquerade !== false)
        items.push({ set: `source${f}`, key: link, value: checkedIp(family.masquerade, f) })
    }
    return items
  },

  /** Checked, but nothing: the network guards its whole subnets. */
  endpoint(endpoint: FirewallEndpoint): Item[] {
    for (const address of endpoint.addresses) checkedIp(address, familyOf(address))
    return []
  },

  mapping(mapping: Mapping, network: FirewallNetwork): Item[] {
    const f = familyOf(mapping.containerIp)
    const { mode, size } = inspect(mapping, network)
    const container = checkedIp(mapping.containerIp, f)
    const protocol = PROTOCOL[checkedProtocol(mapping.protocol)]
    const items: Item[] = []
    if (size >= INTERVAL_FROM) {
      const span = { from: mapping.containerPort, to: mapping.containerPort + size - 1 }
      items.push({ set: `open-ranges${f}`, key: `${container} . ${protocol}`, span })
    } else
      for (let i = 0; i < size; i++)
        items.push({ set: `open${f}`, key: `${container} . ${protocol} . ${mapping.containerPort + i}` })

    const hostIp = checkedIp(mapping.hostIp, f)
    const at = mode === 'routed' ? container : hostIp === ANY[f] ? undefined : hostIp
    const first = mode === 'routed' ? mapping.containerPort : mapping.hostPort
    const [suffix, prefix] = at === undefined ? ['', ''] : ['-at', `${at} . `]
    const ports = `${prefix}${protocol} . ${size === 1 ? first : `${first}-${first + size - 1}`}`
    if (mapping.allowFrom) {
      items.push({ set: `limited${f}${suffix}`, key: ports })
      for (const cidr of outermost(mapping.allowFrom.map(text => checkedCidr(text, f))))
        items.push({ set: `allowed${f}${suffix}`, key: `${ports} . ${cidr}` })
    }
    if (mode === 'routed') return items
    items.push({ set: `self${f}`, key: `${container} . ${container}` })
    if (size >= INTERVAL_FROM && mapping.hostPort === mapping.containerPort)
      items.push({ set: `ranges${f}${suffix}`, key: ports, value: container })
    else
      for (let i = 0; i < size; i++)
        items.push({
          set: `ports${f}${suffix}`,
          key: `${prefix}${protocol} . ${first + i}`,
          value: `${container} . ${mapping.containerPort + i}`,
        })
    return items
  },

  link(link: FirewallLink): Item[] {
    const f = familyOf(link.from)
    const pair = `${checkedIp(link.from, f)} . ${checkedIp(link.to, f)}`
    return link.ports.map(({ protocol, port }) => ({
      set: `linked${f}`,
      key: `${pair} . ${PROTOCOL[checkedProtocol(protocol)]} . ${checkedPort(port)}`,
    }))
  },
}

/** The mode of a mapping's family and the number of its ports; throws if it cannot be. Both backends use it. */
export function inspect(mapping: Mapping, network: FirewallNetwork): { mode: string; size: number } {
  const f = familyOf(mapping.containerIp)
  const mode = network.families.find(family => family.family === f)?.mode
  if (network.internal || mode === undefined || mode === 'isolated')
    throw new CnmError(
      'ERR_INVALID_PORT',
      `network ${network.id} is internal or has no IPv${f}: port ${mapping.containerPort}/${mapping.protocol} cannot be published`,
      { networkId: network.id, mapping },
    )
  const size = mapping.hostPortEnd - mapping.hostPort + 1
  const last = mapping.containerPort + size - 1
  checkedPort(mapping.containerPort)
  if (size >= 1) checkedPort(last)
  if (mode !== 'routed') {
    checkedPort(mapping.hostPort)
    checkedPort(mapping.hostPortEnd)
  }
  if (size < 1)
    throw new CnmError(
      'ERR_INTERNAL',
      `the range ${mapping.hostPort}-${mapping.hostPortEnd} runs backwards`,
      { mapping },
    )
  return { mode, size }
}

/** The subnets that no other one of them contains: the kernel refuses overlapping intervals. Canonical, without /32 and /128. */
export function outermost(cidrs: string[]): string[] {
  const parsed = [...new Set(cidrs)].map(text => ({ text, cidr: parseCidr(text) }))
  return parsed
    .filter(({ cidr }) => !parsed.some(other => other.cidr !== cidr && contains(other.cidr, cidr)))
    .map(({ text }) => text.replace(/^([^:]*)\/32$|^(.*:.*)\/128$/, '$1$2'))
}

const quoted = (name: string): string => `"${checkedLink(name)}"`

/** `KEY` or `KEY : VALUE`, as it is written and as `nft list` prints it. */
export function element(item: Item): string {
  return item.value === undefined ? keyText(item) : `${keyText(item)} : ${item.value}`
}

export const keyText = ({ key, span }: Item): string => (span ? spanKey(key, span) : key)

const spanKey = (key: string, { from, to }: { from: number; to: number }): string =>
  `${key} . ${from === to ? from : `${from}-${to}`}`

/** A change as one transaction: deletions first. Empty text when there is nothing to do. */
export function renderDelta(name: string, delta: Delta): string {
  const table = `inet ${checkedTable(name)}`
  const lines: string[] = []
  for (const [set, items] of bySet(delta.removed)) {
    const keys = items.map(keyText)
    lines.push(`delete element ${table} ${set} { ${keys.join(', ')} }`)
  }
  for (const [set, items] of bySet(delta.added))
    lines.push(`add element ${table} ${set} { ${items.map(element).join(', ')} }`)
  return lines.join('\n')
}

/** In the order in which the sets first come. */
export function bySet(items: Item[]): Map<string, Item[]> {
  const sets = new Map<string, Item[]>()
  for (const item of items) {
    const list = sets.get(item.set)
    if (list) list.push(item)
    else sets.set(item.set, [item])
  }
  return sets
}

/** The whole table, replacing whatever there is by its name, in one transaction. */
export function renderTable(name: string, items: Map<string, Item[]>): string {
  const table = `inet ${checkedTable(name)}`
  const lines = [`add table ${table}`, `delete table ${table}`, `table ${table} {`]
  for (const { name: set, kind, type, interval } of SETS) {
    lines.push(`  ${kind} ${set} {`, `    type ${type}`)
    if (interval) lines.push('    flags interval')
    const elements = items.get(set) ?? []
    if (elements.length) lines.push(`    elements = { ${elements.map(element).join(', ')} }`)
    lines.push('  }')
  }
  for (const { name: chain, hook, rules } of CREATED) {
    lines.push(`  chain ${chain} {`)
    if (hook) lines.push(`    ${hook}`)
    lines.push(...rules.map(rule => `    ${rule}`), '  }')
  }
  lines.push('}')
  return lines.join('\n')
}

/** The table for the host's own rules. Made if it is missing, and never touched again: what stands in it runs before ours. */
export function renderUserTable(name: string): string {
  const table = `inet ${checkedTable(name)}-user`
  return [
    `add table ${table}`,
    `add chain ${table} forward { type filter hook forward priority filter - 10; policy accept; }`,
  ].join('\n')
}

export function renderRemoval(name: string): string {
  const table = `inet ${checkedTable(name)}`
  return `add table ${table}\ndelete table ${table}`
}

/** A listing taken apart: the chains as text (without white space at line ends), the sets' elements one by one. */
export interface Listing {
  /** Everything but the elements, one line each, without indentation. */
  frame: string
  elements: Map<string, Set<string>>
}

/** Reads what `nft list table` prints. */
export function parseListing(text: string): Listing {
  const frame: string[] = []
  const elements = new Map<string, Set<string>>()
  let set = ''
  let inside: string[] | undefined
  for (const raw of text.split('\n')) {
    let line = raw.trim()
    if (!line) continue
    const opening = /^(?:set|map) (\S+) \{$/.exec(line)
    if (opening) set = opening[1] ?? ''
    if (line.startsWith('elements = {')) {
      inside = []
      line = line.slice('elements = {'.length)
    }
    if (!inside) {
      frame.push(line)
      continue
    }
    const end = line.endsWith('}')
    inside.push(end ? line.slice(0, -1) : line)
    if (!end) continue
    elements.set(
      set,
      new Set(
        inside
          .join(' ')
          .split(',')
          .map(part => numbered(part.trim()))
          .filter(Boolean),
      ),
    )
    inside = undefined
  }
  return { frame: numbered(frame.join('\n')), elements }
}

/** Names of protocols, if the listing has them, as numbers. */
const numbered = (text: string): string =>
  text.replace(/(?<=[ {]|^)(tcp|udp|sctp|icmp|ipv6-icmp)(?=[ ,])/g, name => String(NUMBER_OF[name]))

/** The listing that the state should give. */
export function expectedListing(name: string, items: Map<string, Item[]>): Listing {
  const { frame } = parseListing(renderTable(name, new Map()).split('\n').slice(2).join('\n'))
  const elements = new Map<string, Set<string>>()
  for (const [set, list] of items) elements.set(set, new Set(list.map(element)))
  return { frame, elements }
}

/** What makes a table with such elements hold those of `items`, in one transaction; empty when it does already. */
export function renderCorrection(name: string, there: Listing, items: Map<string, Item[]>): string {
  const table = `inet ${checkedTable(name)}`
  const lines: string[] = []
  const wanted = expectedListing(name, items)
  for (const [set, elements] of there.elements) {
    const keep = wanted.elements.get(set)
    const strange = [...elements].filter(each => !keep?.has(each)).map(each => each.split(' : ')[0])
    if (strange.length) lines.push(`delete element ${table} ${set} { ${strange.join(', ')} }`)
  }
  for (const [set, list] of items) {
    const has = there.elements.get(set)
    const lost = list.map(element).filter(each => !has?.has(each))
    if (lost.length) lines.push(`add element ${table} ${set} { ${lost.join(', ')} }`)
  }
  return lines.join('\n')
}
