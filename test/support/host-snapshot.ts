import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

/**
 * What a host (a network namespace and some directories) looks like, by the words of ip, nft and /proc rather than of
 * this library: plain sorted lines, without what changes by itself (indices, counters, lifetimes, carrier).
 */
export interface HostSnapshot {
  /** `NAME KIND mtu N master NAME up|down` */
  links: string[]
  /** `NAME ADDRESS/LENGTH` */
  addresses: string[]
  routes: string[]
  rules: string[]
  /** Forwarding database and neighbours that were set by somebody. */
  neighbours: string[]
  /** Of the whole ruleset: tables, chains, rules, sets, and each element of a set or map on its own. */
  nft: string[]
  /** Switches that a container network library is tempted to throw. */
  sysctls: string[]
  /** `tcp 0.0.0.0:8080` and the like: everything bound. */
  sockets: string[]
  /** What is mounted below the directories. */
  mounts: string[]
  /** Files and directories below the directories. */
  files: string[]
  /** Processes whose network namespace is this host, or bound below the directories. */
  processes: string[]
}

const run = promisify(execFile)

const SYSCTLS = [
  'net/ipv4/ip_forward',
  'net/ipv4/conf/all/forwarding',
  'net/ipv4/conf/default/forwarding',
  'net/ipv4/conf/all/route_localnet',
  'net/ipv4/conf/all/rp_filter',
  'net/ipv6/conf/all/forwarding',
  'net/ipv6/conf/default/forwarding',
  'net/ipv6/conf/all/disable_ipv6',
  'net/ipv6/conf/default/disable_ipv6',
  'net/ipv6/conf/default/accept_ra',
  'net/bridge/bridge-nf-call-iptables',
  'net/bridge/bridge-nf-call-ip6tables',
]

/** Each ip answers its lines with one line of JSON each. */
const OF_A_STACK = [
  "printf 'link show\naddress show\nneigh show nud permanent\n' | ip -j -d -batch -",
  "printf 'route show table all\nrule show\n' | ip -j -4 -batch -",
  "printf 'route show table all\nrule show\n' | ip -j -6 -batch -",
]
const OF_A_HOST = [
  ...OF_A_STACK,
  'bridge -j fdb show',
  'nft -j list ruleset',
  `for key in ${SYSCTLS.join(' ')}; do [ -e /proc/sys/$key ] && echo $key = $(cat /proc/sys/$key); done`,
  'cd /proc/self/net; for f in tcp tcp6 udp udp6 raw raw6; do [ -e $f ] && sed "1d; s/^/$f /" $f; done',
]
const MARK = '\u0001'

/** `netns`: path of the namespace; absent: that of this process. */
export async function snapshotHost(netns: string | undefined, directories: string[]): Promise<HostSnapshot> {
  const answers = await ask(netns, OF_A_HOST)
  const [both, four, six, fdb, nft, sysctls, sockets] = answers
  const [, , neighbours] = lines(both)
  const [[, rules4], [, rules6]] = [lines(four), lines(six)]
  return {
    ...readStack(answers),
    rules: [...json<object>(rules4), ...json<object>(rules6)].map(rule => JSON.stringify(rule)).sort(),
    neighbours: [
      ...json<{ dst: string; dev: string; lladdr?: string }>(neighbours).map(
        ({ dst, dev, lladdr }) => `${dev} ${dst} ${lladdr ?? ''}`,
      ),
      // permanent ones are the kernel's own, for the addresses of the ports; those with a destination are tunnels'
      ...json<{ mac: string; ifname: string; state?: string; dst?: string }>(fdb)
        .filter(({ state, dst }) => state !== 'permanent' && dst !== undefined)
        .map(({ ifname, mac, dst }) => `${ifname} ${mac} ${dst}`),
    ].sort(),
    nft: formatRuleset(nft ?? ''),
    sysctls: lines(sysctls),
    sockets: lines(sockets).map(formatSocket).sort(),
    ...outside(netns, directories),
  }
}

export type StackSnapshot = Pick<HostSnapshot, 'links' | 'addresses' | 'routes'>

/** Links, addresses and routes alone: a good deal cheaper. */
export async function snapshotStack(netns: string | undefined): Promise<StackSnapshot> {
  return readStack(await ask(netns, OF_A_STACK))
}

async function ask(netns: string | undefined, questions: string[]): Promise<string[]> {
  const script = questions.map(question => `(${question}); printf '${MARK}'`).join('\n')
  const [command, ...args] = [...(netns ? ['nsenter', `--net=${netns}`] : []), 'bash', '-c', script]
  const { stdout } = await run(command!, args, { maxBuffer: 256 << 20 })
  return stdout.split(MARK)
}

function readStack([both, four, six]: string[]): StackSnapshot {
  const [links, addresses] = lines(both)
  const [[routes4], [routes6]] = [lines(four), lines(six)]
  return {
    links: json<IpLink>(links).map(formatLink).sort(),
    addresses: json<IpAddress>(addresses)
      .flatMap(({ ifname, addr_info }) => addr_info.map(info => `${ifname} ${info.local}/${info.prefixlen}`))
      .sort(),
    routes: [...json<IpRoute>(routes4), ...json<IpRoute>(routes6)].map(formatRoute).sort(),
  }
}

/** What differs, one line each: `< before`, `> after`. */
export function compareSnapshots(
  before: Partial<HostSnapshot>,
  after: HostSnapshot,
  except: readonly (keyof HostSnapshot)[] = [],
): string[] {
  const found: string[] = []
  for (const key of Object.keys(before) as (keyof HostSnapshot)[]) {
    if (except.includes(key)) continue
    const [was, is] = [before[key] ?? [], after[key]]
    found.push(...without(was, is).map(line => `< ${key}: ${line}`))
    found.push(...without(is, was).map(line => `> ${key}: ${line}`))
  }
  return found
}

/** Asks again until nothing differs or the time is up: the kernel removes namespaces and their links in the background. */
export async function settled(
  differences: () => Promise<string[]>,
  { timeout = 10_000 }: { timeout?: number } = {},
): Promise<string[]> {
  const until = Date.now() + timeout
  for (;;) {
    const found = await differences()
    if (found.length === 0 || Date.now() > until) return found
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** Each line counts as often as it is there. */
function without(lines: string[], others: string[]): string[] {
  const count = new Map<string, number>()
  for (const line of others) count.set(line, (count.get(line) ?? 0) + 1)
  return lines.filter(line => {
    const left = count.get(line) ?? 0
    count.set(line, left - 1)
    return left <= 0
  })
}

/* ---------------------------------------------------------------- ip */

interface IpLink {
  ifname: string
  mtu: number
  flags: string[]
  master?: string
  ifalias?: string
  linkinfo?: { info_kind?: string }
}
interface IpAddress {
  ifname: string
  addr_info: { local: string; prefixlen: number }[]
}
interface IpRoute {
  type?: string
  dst: string
  gateway?: string
  dev?: string
  table?: string
  metric?: number
  prefsrc?: string
}

export const formatLink = ({ ifname, mtu, flags, master, ifalias, linkinfo }: IpLink): string =>
  [
    ifname,
    linkinfo?.info_kind ?? '-',
    `mtu ${mtu}`,
    ...(master ? [`master ${master}`] : []),
    flags.includes('UP') ? 'up' : 'down',
    ...(ifalias ? [`alias ${ifalias}`] : []),
  ].join(' ')

const formatRoute = ({ type = 'unicast', dst, gateway, dev, table, metric, prefsrc }: IpRoute): string =>
  [
    type,
    dst,
    ...(gateway ? ['via', gateway] : []),
    ...(dev ? ['dev', dev] : []),
    ...(prefsrc ? ['src', prefsrc] : []),
    'table',
    table ?? 'main',
    ...(metric === undefined ? [] : ['metric', metric]),
  ].join(' ')

const json = <T>(text: string | undefined): T[] => {
  const trimmed = (text ?? '').trim()
  return trimmed === ''
    ? []
    : (JSON.parse(trimmed) as T[]).filter(entry => Object.keys(entry ?? {}).length > 0)
}
const lines = (text: string | undefined): string[] =>
  (text ?? '').split('\n').filter(line => line.trim() !== '')

/* ---------------------------------------------------------------- nft */

function formatRuleset(text: string): string[] {
  if (text.trim() === '') return []
  const { nftables } = JSON.parse(text) as { nftables: Record<string, Record<string, unknown>>[] }
  return nftables
    .flatMap(entry => {
      const [kind, body] = Object.entries(entry)[0] ?? ['', {}]
      if (kind === 'metainfo') return []
      const { elem, handle: _, ...rest } = body
      const name = `${String(body.family)} ${String(body.table ?? body.name)} ${String(body.name ?? '')}`
      const elements = Array.isArray(elem) ? elem.map(one => `${kind} ${name} element ${stable(one)}`) : []
      return [`${kind} ${stable(rest)}`, ...elements]
    })
    .sort()
}

/** JSON with sorted keys and without counters. */
function stable(value: unknown): string {
  return JSON.stringify(value, (key, inner: unknown) => {
    if (key === 'packets' || key === 'bytes' || key === 'handle') return undefined
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}

/* ---------------------------------------------------------------- /proc */

/** A line of /proc/net/tcp and its like: `tcp  0: 0100007F:1F90 00000000:0000 0A ...` */
function formatSocket(line: string): string {
  const [protocol, , local = '', , state] = line.trim().split(/\s+/)
  const [address = '', port = ''] = local.split(':')
  const kind = (protocol ?? '').replace('6', '')
  return `${kind} ${hexAddress(address)}:${Number.parseInt(port, 16)}${kind === 'tcp' && state !== '0A' ? ` state ${state}` : ''}`
}

/** 32-bit words in host order, which is little endian on every machine that this runs on. */
function hexAddress(hex: string): string {
  const bytes = [...Buffer.from(hex, 'hex')]
  const inOrder: number[] = []
  for (let at = 0; at < bytes.length; at += 4) inOrder.push(...bytes.slice(at, at + 4).reverse())
  if (inOrder.length === 4) return inOrder.join('.')
  const words: string[] = []
  for (let at = 0; at < inOrder.length; at += 2)
    words.push(((inOrder[at]! << 8) | inOrder[at + 1]!).toString(16))
  return `[${words.join(':').replace(/^0:0:0:0:0:0:0:0$/, '::')}]`
}

function outside(netns: string | undefined, directories: string[]) {
  const below = (path: string) => directories.some(dir => path === dir || path.startsWith(`${dir}/`))
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => line.split(' ')[4] ?? '')
    .filter(below)
  const namespaces = new Set<string>()
  for (const path of [...(netns ? [netns] : []), ...mounts]) {
    const stat = statSync(path, { throwIfNoEntry: false })
    if (stat) namespaces.add(`net:[${stat.ino}]`)
  }
  return {
    mounts: mounts.sort(),
    files: directories.flatMap(tree).sort(),
    processes: netns ? processesIn(namespaces) : [],
  }
}

function tree(directory: string): string[] {
  if (!statSync(directory, { throwIfNoEntry: false })) return []
  return readdirSync(directory, { withFileTypes: true }).flatMap(entry => {
    const path = join(directory, entry.name)
    return entry.isDirectory() ? [path, ...tree(path)] : [path]
  })
}

function processesIn(namespaces: Set<string>): string[] {
  const found: string[] = []
  for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
    try {
      if (namespaces.has(readlinkSync(`/proc/${pid}/ns/net`)))
        found.push(`${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim()}`)
    } catch {
      // it has ended meanwhile
    }
  }
  return found.sort()
}

/** Descriptors of this process that are network namespaces or sockets: what a close must let go of. */
export function heldDescriptors(): { namespaces: number; sockets: number } {
  let namespaces = 0
  let sockets = 0
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`)
      if (target.startsWith('net:[')) namespaces++
      if (target.startsWith('socket:[')) sockets++
    } catch {
      // the descriptor of the listing itself
    }
  }
  return { namespaces, sockets }
}
