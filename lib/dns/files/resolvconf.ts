import { isIP } from 'node:net'
import { RESOLVER_ADDRESS } from '../contract'
import type { FileUpstreams } from './contract'

/** What resolv.conf(5) says, line by line. */
export interface ResolvConf {
  /** As written; IPv6 may carry a zone id. */
  servers: string[]
  search: string[]
  options: string[]
  /** Directives that mean nothing to us, verbatim. */
  others: string[]
}

/** A container cannot reach the loopback of its host; when nothing else is left, these are named. */
const PUBLIC = ['8.8.8.8', '8.8.4.4']
const PUBLIC6 = ['2001:4860:4860::8888', '2001:4860:4860::8844']

export function parseResolvConf(text: string): ResolvConf {
  const conf: ResolvConf = { servers: [], search: [], options: [], others: [] }
  for (const raw of text.split('\n')) {
    const line = raw.trim()
    if (line === '' || line.startsWith('#') || line.startsWith(';')) continue
    const [directive, ...rest] = line.split(/\s+/) as [string, ...string[]]
    const values = rest.slice(0, comment(rest))
    if (directive === 'nameserver') {
      const [address] = values
      if (address !== undefined && isIP(address) !== 0) conf.servers.push(address)
    } else if (directive === 'search' || directive === 'domain') {
      conf.search = directive === 'domain' ? values.slice(0, 1) : values // the last one counts
    } else if (directive === 'options') conf.options.push(...values)
    else conf.others.push(line)
  }
  return conf
}

/** Where a comment begins among the words of a line. */
function comment(words: string[]): number {
  const at = words.findIndex(word => word.startsWith('#') || word.startsWith(';'))
  return at < 0 ? words.length : at
}

export function formatResolvConf({ servers, search, options, others }: ResolvConf): string {
  const lines = servers.map(server => `nameserver ${server}`)
  if (search.length > 0) lines.push(`search ${search.join(' ')}`)
  if (options.length > 0) lines.push(`options ${options.join(' ')}`)
  lines.push(...others)
  return lines.map(line => `${line}\n`).join('')
}

export interface Overrides {
  servers: string[]
  search: string[]
  options: string[]
}

/** Each list that is given replaces the host's completely; a search list of `.` empties it. */
export function override(conf: ResolvConf, { servers, search, options }: Overrides): ResolvConf {
  return {
    servers: servers.length > 0 ? servers : conf.servers,
    search: (search.length > 0 ? search : conf.search).filter(domain => domain !== '.'),
    options: options.length > 0 ? options : conf.options,
    others: conf.others,
  }
}

const isLoopback = (address: string) => address.startsWith('127.') || address === '::1'
const isNdots = (option: string) => option === 'ndots' || option.startsWith('ndots:')

/** For a container with our resolver: only that is named. Names with any number of dots are asked as they are. */
export function forEmbedded(conf: ResolvConf): ResolvConf {
  const options = conf.options.filter(option => !isNdots(option) || /^ndots:\d{1,3}$/.test(option))
  return {
    ...conf,
    servers: [RESOLVER_ADDRESS],
    options: options.some(isNdots) ? options : [...options, 'ndots:0'],
  }
}

/** For a container that asks servers itself. Undefined: the host's file will do as it is. */
export function forLegacy(conf: ResolvConf, overrides: Overrides, ipv6: boolean): ResolvConf | undefined {
  const changed = overrides.servers.length + overrides.search.length + overrides.options.length > 0
  const result = override(conf, overrides)
  if (overrides.servers.length > 0) return result
  const reachable = conf.servers.filter(address => !isLoopback(address) && (ipv6 || !address.includes(':')))
  if (!changed && reachable.length > 0 && reachable.length === conf.servers.length) return undefined
  return { ...result, servers: reachable.length > 0 ? reachable : [...PUBLIC, ...(ipv6 ? PUBLIC6 : [])] }
}

/** Whom our resolver asks on: explicit servers from the sandbox, the host's from the host. */
export function upstreamsOf(conf: ResolvConf, overrides: Overrides): FileUpstreams {
  const { servers, search, options } = override(conf, overrides)
  const from = overrides.servers.length > 0 ? 'sandbox' : 'host'
  return {
    servers: servers.filter(address => address !== RESOLVER_ADDRESS).map(address => ({ address, from })),
    search,
    ndotsFromUser: options.some(option => /^ndots:\d{1,3}$/.test(option)),
  }
}
