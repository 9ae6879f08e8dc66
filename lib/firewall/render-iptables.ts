/**
 * The iptables backend's text, in Docker's chains and in the form in which iptables-save prints rules, so that what is there
 * can be compared with what should be. An item is a rule: `set` is `FAMILY TABLE CHAIN`, `value` says at which end of the
 * chain it goes. Pure.
 */
import { createHash } from 'node:crypto'
import { familyOf, type Family } from '../base/cidr'
import { checkedCidr, checkedIp, checkedLink, checkedPort, checkedProtocol } from './check'
import {
  DEFAULT_NAME,
  type FirewallEndpoint,
  type FirewallLink,
  type FirewallNetwork,
  type Mapping,
  type Protocol,
} from './contract'
import type { Delta, Item, Renderer } from './model'
import { inspect, outermost } from './mapping'

export const FAMILIES = [4, 6] as const
const ANY: Record<Family, string> = { 4: '0.0.0.0', 6: '::' }
const HOST_BITS: Record<Family, string> = { 4: '/32', 6: '/128' }
const ICMP: Record<Family, string> = { 4: 'icmp', 6: 'ipv6-icmp' }

export type Table = 'raw' | 'mangle' | 'nat' | 'filter'
/** The order in which a packet meets them. */
export const TABLES: Table[] = ['raw', 'mangle', 'nat', 'filter']

const DOCKER = 'DOCKER'
/** Letters. A chain's name has 28 at most (XT_EXTENSION_MAXNAMELEN), and the longest of ours ends in `-INTERNAL`. */
const PREFIX_LENGTH = 19

/**
 * First part of the chains' names: Docker's own for the usual controller, so that tools which know Docker find what they look
 * for; its name for another one, so that several live side by side.
 */
export function chainPrefix(controller: string): string {
  if (controller === DEFAULT_NAME) return DOCKER
  if (controller.length <= PREFIX_LENGTH) return controller
  const digest = createHash('sha256').update(controller).digest('hex').slice(0, 6)
  return `${controller.slice(0, PREFIX_LENGTH - digest.length - 1)}-${digest}`
}

/**
 * Docker's chains let out what comes from their own bridges before anybody behind them is asked where it goes to. So whoever is
 * not the usual controller drops what must not come into its networks in the table that is asked before, and lets out
 * at the very end.
 */
const beside = (prefix: string): boolean => prefix !== DOCKER

/** Ours in each table; the first is the one that Docker has there too. */
export function ownChains(prefix: string): Record<Table, string[]> {
  return {
    raw: [],
    mangle: beside(prefix) ? [prefix] : [],
    nat: [prefix],
    filter: [
      prefix,
      `${prefix}-FORWARD`,
      `${prefix}-BRIDGE`,
      `${prefix}-CT`,
      `${prefix}-INTERNAL`,
      ...(beside(prefix) ? [`${prefix}-OUT`] : []),
    ],
  }
}

/** The host's own chain, run before ours, never changed. */
export const userChain = (prefix: string): string => `${prefix}-USER`

const head = (rule: string) => ({ key: rule, value: 'I' })
const tail = (rule: string) => ({ key: rule, value: 'A' })

/** The rules that are there as long as the controller is. */
export function fixedItems(prefix: string): Item[] {
  return FAMILIES.flatMap(f => [
    // A packet from outside for 127.0.0.0/8 is never translated.
    {
      set: `${f} nat PREROUTING`,
      ...tail(`${f === 4 ? '! -d 127.0.0.0/8 ' : ''}-m addrtype --dst-type LOCAL -j ${prefix}`),
    },
    // There is no leave for packets from ::1 to a bridge, as there is for 127.0.0.1.
    {
      set: `${f} nat OUTPUT`,
      ...tail(`${f === 6 ? '! -d ::1/128 ' : ''}-m addrtype --dst-type LOCAL -j ${prefix}`),
    },
    ...(beside(prefix)
      ? [
          { set: `${f} mangle FORWARD`, ...tail(`-j ${prefix}`) },
          { set: `${f} filter FORWARD`, ...tail(`-j ${prefix}-OUT`) },
        ]
      : []),
    { set: `${f} filter FORWARD`, ...head(`-j ${prefix}-FORWARD`) },
    { set: `${f} filter FORWARD`, ...head(`-j ${userChain(prefix)}`) },
    { set: `${f} filter ${prefix}-FORWARD`, ...tail(`-j ${prefix}-CT`) },
    { set: `${f} filter ${prefix}-FORWARD`, ...tail(`-j ${prefix}-INTERNAL`) },
    { set: `${f} filter ${prefix}-FORWARD`, ...tail(`-j ${prefix}-BRIDGE`) },
  ])
}

export function iptablesRenderer(prefix: string): Renderer {
  return {
    network: network => FAMILIES.flatMap(f => networkItems(prefix, network, f)),
    endpoint: endpointItems,
    mapping: (mapping, network) => mappingItems(prefix, mapping, network),
    link: (link, network) => linkItems(prefix, link, network),
  }
}

function networkItems(prefix: string, network: FirewallNetwork, f: Family): Item[] {
  const link = checkedLink(network.link)
  network.trustedLinks.forEach(checkedLink)
  const family = network.families.find(candidate => candidate.family === f)
  const filter = (chain: string) => `${f} filter ${prefix}${chain}`
  const within: Item[] = network.icc
    ? []
    : [
        { set: filter('-FORWARD'), ...tail(`-i ${link} -o ${link} -m conntrack --ctstate DNAT -j ACCEPT`) },
        { set: filter('-FORWARD'), ...tail(`-i ${link} -o ${link} -j DROP`) },
      ]
  if (network.internal || !family || family.mode === 'isolated') {
    const [subnet, more] = family?.subnets ?? []
    // Docker tells inside from outside by the subnet (on IPv6, by the link as well).
    const inside =
      subnet !== undefined && more === undefined && f === 4
        ? [`! -d ${checkedCidr(subnet, f)} -i ${link}`, `! -s ${subnet} -o ${link}`]
        : [`-i ${link} ! -o ${link}`, `! -i ${link} -o ${link}`]
    return [
      ...(beside(prefix) && (network.internal || family)
        ? [{ set: `${f} mangle ${prefix}`, ...tail(`! -i ${link} -o ${link} -j DROP`) }]
        : []),
      ...inside.map(match => ({ set: filter('-INTERNAL'), ...head(`${match} -j DROP`) })),
      ...within.filter(() => network.internal || family !== undefined),
      ...(network.icc && family
        ? [{ set: filter('-FORWARD'), ...tail(`-i ${link} -o ${link} -j ACCEPT`) }]
        : []),
    ]
  }
  const items: Item[] = [
    {
      set: filter('-CT'),
      ...tail(`-o ${link} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`),
    },
    { set: filter('-BRIDGE'), ...tail(`-o ${link} -j ${prefix}`) },
    {
      set: filter(''),
      ...tail(`! -i ${link} -o ${link} -j ${family.mode === 'nat-unprotected' ? 'ACCEPT' : 'DROP'}`),
    },
    ...(family.mode === 'routed' ? [{ set: filter(''), ...head(`-o ${link} -p ${ICMP[f]} -j ACCEPT`) }] : []),
    ...within,
    {
      set: filter(beside(prefix) ? '-OUT' : '-FORWARD'),
      ...tail(`-i ${link}${network.icc ? '' : ` ! -o ${link}`} -j ACCEPT`),
    },
  ]
  if (family.mode === 'routed' && beside(prefix))
    items.push(
      { set: `${f} mangle ${prefix}`, ...head(`-o ${link} -p ${ICMP[f]} -j RETURN`) },
      {
        set: `${f} mangle ${prefix}`,
        ...tail(`! -i ${link} -o ${link} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP`),
      },
    )
  if (family.mode === 'routed') return items
  const postrouting = `${f} nat POSTROUTING`
  if (f === 4) {
    items.push({ set: `${f} raw PREROUTING`, ...tail(`-d 127.0.0.0/8 -i ${link} -j DROP`) })
    items.push({ set: postrouting, ...tail(`-s 127.0.0.0/8 -o ${link} -j MASQUERADE`) })
  }
  for (const text of family.subnets) {
    const subnet = checkedCidr(text, f)
    if (family.masquerade !== false) {
      const target =
        family.masquerade === true ? 'MASQUERADE' : `SNAT --to-source ${checkedIp(family.masquerade, f)}`
      items.push({ set: postrouting, ...head(`-s ${subnet} ! -o ${link} -j ${target}`) })
    }
    items.push({
      set: postrouting,
      ...tail(`-s ${subnet} -o ${link} -m conntrack --ctstate DNAT -j MASQUERADE`),
    })
  }
  return items
}

function endpointItems(endpoint: FirewallEndpoint, network: FirewallNetwork): Item[] {
  if (network.internal) return []
  const link = checkedLink(network.link)
  return endpoint.addresses.flatMap(address => {
    const f = familyOf(address)
    const family = network.families.find(candidate => candidate.family === f)
    if (family?.mode !== 'nat') return []
    const to = `-d ${checkedIp(address, f)}${HOST_BITS[f]}`
    // Without masquerading answers come to the container's own address; connections must be known to let them pass.
    const [set, fresh] =
      family.masquerade === false
        ? [`${f} mangle PREROUTING`, '-m conntrack --ctstate NEW ']
        : [`${f} raw PREROUTING`, '']
    return [
      ...network.trustedLinks.map(trusted => ({
        set,
        ...tail(`${to} -i ${checkedLink(trusted)} -j ACCEPT`),
      })),
      { set, ...tail(`${to} ! -i ${link} ${fresh}-j DROP`) },
    ]
  })
}

function mappingItems(prefix: string, mapping: Mapping, network: FirewallNetwork): Item[] {
  const f = familyOf(mapping.containerIp)
  const { mode, size } = inspect(mapping, network)
  const link = checkedLink(network.link)
  const container = checkedIp(mapping.containerIp, f)
  const sources = mapping.allowFrom && outermost(mapping.allowFrom.map(text => checkedCidr(text, f)))
  const from = sources?.map(text => `-s ${text.includes('/') ? text : text + HOST_BITS[f]} `)
  const open = transport(mapping.protocol, mapping.containerPort, size)
  const opened = (source: string, table = 'filter', target = 'ACCEPT'): Item => ({
    set: `${f} ${table} ${prefix}`,
    ...head(`${source}-d ${container}${HOST_BITS[f]} ! -i ${link} -o ${link} ${open} -j ${target}`),
  })
  if (mode === 'routed')
    return (from ?? ['']).flatMap(source => [
      opened(source),
      ...(beside(prefix) ? [opened(source, 'mangle', 'RETURN')] : []),
    ])
  const hostIp = checkedIp(mapping.hostIp, f)
  const at = hostIp === ANY[f] ? '' : `-d ${hostIp}${HOST_BITS[f]} `
  const bracketed = f === 6 ? `[${container}]` : container
  const to =
    size === 1
      ? `${bracketed}:${mapping.containerPort}`
      : mapping.hostPort === mapping.containerPort
        ? container
        : `${bracketed}:${mapping.containerPort}-${mapping.containerPort + size - 1}/${mapping.hostPort}`
  // Packets with a link-local source cannot be routed back.
  const anyone = f === 6 ? ['! -s fe80::/10 '] : ['']
  return [
    ...(mode === 'nat' ? [opened('')] : []),
    ...(from ?? anyone).map(source => ({
      set: `${f} nat ${prefix}`,
      ...tail(
        `${source}${at}${transport(mapping.protocol, mapping.hostPort, size)} -j DNAT --to-destination ${to}`,
      ),
    })),
  ]
}

function linkItems(prefix: string, link: FirewallLink, network: FirewallNetwork): Item[] {
  const f = familyOf(link.from)
  const bridge = checkedLink(network.link)
  const match = `-s ${checkedIp(link.from, f)}${HOST_BITS[f]} -d ${checkedIp(link.to, f)}${HOST_BITS[f]} -i ${bridge} -o ${bridge}`
  return link.ports.map(({ protocol, port }) => ({
    set: `${f} filter ${prefix}`,
    ...head(`${match} ${transport(protocol, checkedPort(port), 1)} -j ACCEPT`),
  }))
}

function transport(protocol: Protocol, port: number, size: number): string {
  const name = checkedProtocol(protocol)
  const ports = size === 1 ? checkedPort(port) : `${checkedPort(port)}:${checkedPort(port + size - 1)}`
  return `-p ${name} -m ${name} --dport ${ports}`
}

function place(item: Item): { family: Family; table: Table; chain: string } {
  const [family, table, chain] = item.set.split(' ')
  return { family: family === '6' ? 6 : 4, table: table as Table, chain: chain ?? '' }
}

/** A change as input of `iptables-restore --noflush`, per family; empty when there is nothing to do. */
export function renderIptablesDelta(delta: Delta, family: Family): string {
  const lines = new Map<Table, string[]>()
  const push = (item: Item, command: string) => {
    const at = place(item)
    if (at.family !== family) return
    const list = lines.get(at.table) ?? []
    lines.set(at.table, list)
    list.push(`${command} ${at.chain} ${item.key}`)
  }
  for (const item of delta.removed) push(item, '-D')
  for (const item of delta.added) push(item, `-${item.value}`)
  return restoreText(lines)
}

function restoreText(tables: Map<Table, string[]>): string {
  return TABLES.flatMap(table => {
    const lines = tables.get(table)
    return lines?.length ? [`*${table}`, ...lines, 'COMMIT'] : []
  })
    .map(line => `${line}\n`)
    .join('')
}

/** What iptables-save printed: rules by `TABLE CHAIN`, without the `-A CHAIN`; chains without rules are there too. */
export type Saved = Map<string, string[]>

export function parseSave(text: string): Saved {
  const saved: Saved = new Map()
  let table = ''
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1)
    const chain = /^:(\S+) /.exec(line)
    if (chain) saved.set(`${table} ${chain[1]}`, [])
    const rule = /^-A (\S+) (.*)$/.exec(line)
    if (rule) saved.get(`${table} ${rule[1]}`)?.push(rule[2] ?? '')
  }
  return saved
}

/** Links whose rules an earlier run left in chains of ours: rules in the built-in chains that name them are ours too. */
function ownLinks(saved: Saved, prefix: string, known: Map<string, Item[]>[], family: Family): Set<string> {
  const links = new Set<string>()
  const read = (rule: string) => {
    for (const match of rule.matchAll(/-[io] (\S+)/g)) if (match[1]) links.add(match[1])
  }
  for (const chain of ['-BRIDGE', '-INTERNAL', '-CT'].map(suffix => prefix + suffix)) {
    for (const rule of saved.get(`filter ${chain}`) ?? []) read(rule)
    for (const items of known) for (const item of items.get(`${family} filter ${chain}`) ?? []) read(item.key)
  }
  return links
}

const SHAPES: [chain: string, pattern: RegExp][] = [
  ['nat POSTROUTING', /^-s \S+ ! -o (\S+) -j (?:MASQUERADE|SNAT --to-source \S+)$/],
  ['nat POSTROUTING', /^-s \S+ -o (\S+) (?:-m conntrack --ctstate DNAT )?-j MASQUERADE$/],
  ['raw PREROUTING', /^-d \S+ (?:! )?-i (\S+) -j DROP$/],
  ['mangle PREROUTING', /^-d \S+ ! -i (\S+) -m conntrack --ctstate NEW -j DROP$/],
]

/** The rules in built-in chains that we, or an earlier run of ours, put there. */
export function ownRules(
  saved: Saved,
  prefix: string,
  known: Map<string, Item[]>[],
  family: Family,
): [string, string][] {
  const links = ownLinks(saved, prefix, known, family)
  const found: [string, string][] = []
  const guarded = new Set<string>()
  for (const [chain, pattern] of SHAPES)
    for (const rule of saved.get(chain) ?? []) {
      const link = pattern.exec(rule)?.[1]
      if (link === undefined || !links.has(link)) continue
      found.push([chain, rule])
      guarded.add(`${chain} ${rule.split(' ')[1]}`)
    }
  for (const chain of ['raw PREROUTING', 'mangle PREROUTING'])
    for (const rule of saved.get(chain) ?? [])
      if (/^-d \S+ -i \S+ -j ACCEPT$/.test(rule) && guarded.has(`${chain} ${rule.split(' ')[1]}`))
        found.push([chain, rule])
  const fixed = new Set(fixedItems(prefix).map(item => `${item.set} ${item.key}`))
  for (const [chain, rules] of saved)
    for (const rule of rules)
      if (/ (PREROUTING|OUTPUT|FORWARD)$/.test(chain) && fixed.has(`${family} ${chain} ${rule}`))
        found.push([chain, rule])
  return found
}

/**
 * Everything anew, given what there is: as input of `iptables-restore --noflush`. `before`: items that were wanted until now;
 * `remove`: nothing in their place.
 */
export function renderIptablesReset(
  prefix: string,
  items: Map<string, Item[]>,
  saved: Saved,
  family: Family,
  { before = items, remove = false }: { before?: Map<string, Item[]>; remove?: boolean } = {},
): string {
  const lines = new Map<Table, string[]>(TABLES.map(table => [table, []]))
  const chains = ownChains(prefix)
  const at = (table: Table) => lines.get(table) ?? []
  for (const table of TABLES)
    for (const chain of chains[table])
      if (!remove || saved.has(`${table} ${chain}`)) at(table).push(`:${chain} - [0:0]`)
  if (!remove && !saved.has(`filter ${userChain(prefix)}`)) at('filter').push(`:${userChain(prefix)} - [0:0]`)
  for (const [place, rule] of ownRules(saved, prefix, [items, before], family)) {
    const [table, chain] = place.split(' ')
    at(table as Table).push(`-D ${chain} ${rule}`)
  }
  if (remove) {
    for (const table of TABLES)
      for (const chain of chains[table]) if (saved.has(`${table} ${chain}`)) at(table).push(`-X ${chain}`)
    return restoreText(lines)
  }
  for (const item of [...fixedItems(prefix), ...[...items.values()].flat()]) {
    const target = place(item)
    if (target.family === family) at(target.table).push(`-${item.value} ${target.chain} ${item.key}`)
  }
  return restoreText(lines)
}

/** Rules that should be there and are not, and rules in our chains that should not. */
export function compareSaved(
  prefix: string,
  items: Map<string, Item[]>,
  saved: Saved,
  family: Family,
): { lost: string[]; strange: string[] } {
  const wanted = new Map<string, Set<string>>()
  for (const item of [...fixedItems(prefix), ...[...items.values()].flat()]) {
    const target = place(item)
    if (target.family !== family) continue
    const chain = `${target.table} ${target.chain}`
    const rules = wanted.get(chain) ?? new Set()
    wanted.set(chain, rules)
    rules.add(item.key)
  }
  const lost: string[] = []
  const strange: string[] = []
  for (const [chain, rules] of wanted) {
    const there = new Set(saved.get(chain))
    for (const rule of rules) if (!there.has(rule)) lost.push(`${chain}: ${rule}`)
  }
  const chains = ownChains(prefix)
  for (const table of TABLES)
    for (const chain of chains[table]) {
      const name = `${table} ${chain}`
      if (!saved.has(name)) lost.push(`${name}: the chain`)
      for (const rule of saved.get(name) ?? [])
        if (!wanted.get(name)?.has(rule)) strange.push(`${name}: ${rule}`)
    }
  return { lost, strange }
}
