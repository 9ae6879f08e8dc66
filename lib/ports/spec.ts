/**
 * The textual form of a published port, as `docker run -p` takes it, and the checks that do not need a host:
 * `[HOST-IP:][HOST-PORT[-END]:]CONTAINER-PORT[-END][/PROTOCOL]`, an IPv6 address in brackets.
 */
import { z } from 'zod'
import { type Ip, contains, formatCidr, formatIp, network, parseCidr, parseIp } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { nearest } from '../base/nearest'
import type { Protocol } from '../firewall/contract'
import type { PortBinding, PublishedPort } from './contract'

/** In the order in which bindings are sorted. */
export const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp', 'sctp']

const FORM = '[HOST-IP:][HOST-PORT[-END]:]CONTAINER-PORT[-END][/tcp|udp|sctp]'

/** What a caller writes; {@link PortBinding} is what is made of it. */
export type PortBindingInput = Omit<PortBinding, 'protocol'> & { protocol?: Protocol }

/** Parses and checks one textual binding. Throws ERR_INVALID_PORT. */
export function parsePort(text: string): PortBinding {
  const slash = text.lastIndexOf('/')
  const protocol = slash < 0 ? 'tcp' : text.slice(slash + 1).toLowerCase()
  const { hostIp, host, container } = splitSpec(text, slash < 0 ? text : text.slice(0, slash))
  const [containerPort, containerPortEnd] = portRange(text, 'containerPort', container)
  const [hostPort, hostPortEnd] = host === '' ? [] : portRange(text, 'hostPort', host)
  return checkBinding(
    { containerPort, containerPortEnd, protocol: protocol as Protocol, hostIp, hostPort, hostPortEnd },
    text,
  )
}

/** Several at once, for a command line. */
export const parsePorts = (texts: readonly string[]): PortBinding[] => texts.map(parsePort)

/**
 * Ports that an image says it serves, `PORT[-END][/PROTOCOL]`: as bindings to any port of the host, which is what
 * "publish all" makes of them. Throws ERR_INVALID_PORT.
 */
export function exposedPorts(texts: readonly string[]): PortBinding[] {
  return texts.map(text => {
    if (text.includes(':')) throw malformed(text, 'an exposed port names no host port', 'exposed')
    return parsePort(text)
  })
}

function splitSpec(whole: string, text: string): { hostIp?: string; host: string; container: string } {
  const bracketed = /^\[([^\]]*)\]:(.*)$/.exec(text)
  const parts = (bracketed ? bracketed[2]! : text).split(':')
  if (bracketed) {
    if (parts.length !== 2) throw malformed(whole, 'after [HOST-IP] there must be HOST-PORT:CONTAINER-PORT')
    return { hostIp: bracketed[1], host: parts[0]!, container: parts[1]! }
  }
  if (parts.length > 3) throw malformed(whole, 'an IPv6 address goes in brackets, [::1]:8080:80')
  const container = parts.pop()!
  const host = parts.pop() ?? ''
  return { hostIp: parts[0] || undefined, host, container }
}

function portRange(whole: string, field: string, text: string): [number, number | undefined] {
  const match = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(text)
  if (!match) throw malformed(whole, `${JSON.stringify(text)} is not a port or FIRST-LAST`, field, text)
  return [Number(match[1]), match[2] === undefined ? undefined : Number(match[2])]
}

const malformed = (whole: string, why: string, field = 'spec', value: string = whole) =>
  new CnmError('ERR_INVALID_PORT', `port ${JSON.stringify(whole)}: ${why}; the form is ${FORM}`, {
    field,
    value,
  })

/**
 * Checks a binding and makes it canonical: addresses as text of one form, ends of ranges absent when they say nothing,
 * a source given as a bare address widened to a prefix. Throws ERR_INVALID_PORT with `details: { field, value }`.
 */
export function checkBinding(
  input: PortBindingInput,
  shown: string = describeBinding(input as PortBinding),
): PortBinding {
  const refuse = (field: string, value: unknown, why: string) =>
    new CnmError('ERR_INVALID_PORT', `port ${JSON.stringify(shown)}: ${field} ${why}`, { field, value })
  const port = (field: string, value: number, least: number) => {
    if (!Number.isInteger(value) || value < least || value > 65535)
      throw refuse(field, value, `${value} is out of range; a port is 1-65535`)
  }
  const { containerPort, allowFrom, proxyProtocol } = input
  const containerPortEnd = input.containerPortEnd ?? containerPort
  const protocol = input.protocol ?? 'tcp'
  const hostPort = input.hostPort ?? 0 // 0: to be chosen
  const hostPortEnd = input.hostPortEnd ?? hostPort

  if (!PROTOCOLS.includes(protocol))
    throw refuse('protocol', protocol, `${JSON.stringify(protocol)} is unknown; use ${PROTOCOLS.join(', ')}`)
  port('containerPort', containerPort, 1)
  port('containerPortEnd', containerPortEnd, 1)
  if (containerPortEnd < containerPort)
    throw refuse('containerPortEnd', containerPortEnd, `is below containerPort ${containerPort}; swap them`)
  port('hostPort', hostPort, 0)
  port('hostPortEnd', hostPortEnd, hostPort === 0 && input.hostPortEnd === undefined ? 0 : 1)
  if (hostPort === 0 && hostPortEnd !== 0)
    throw refuse('hostPort', input.hostPort, 'must be 1-65535 when hostPortEnd is given')
  if (hostPortEnd < hostPort)
    throw refuse('hostPortEnd', hostPortEnd, `is below hostPort ${hostPort}; swap them`)
  const wanted = containerPortEnd - containerPort + 1
  const offered = hostPortEnd - hostPort + 1
  if (hostPort !== 0 && wanted > 1 && wanted !== offered)
    throw refuse(
      'hostPortEnd',
      hostPortEnd,
      `makes ${offered} host ports for ${wanted} container ports; the ranges must be of equal length`,
    )
  if (proxyProtocol && protocol !== 'tcp')
    throw refuse('proxyProtocol', proxyProtocol, `goes with tcp only, not ${protocol}`)

  return {
    containerPort,
    ...(wanted > 1 && { containerPortEnd }),
    protocol,
    ...(input.hostIp !== undefined && { hostIp: checkHostIp(input.hostIp, refuse) }),
    ...(hostPort !== 0 && { hostPort }),
    ...(offered > 1 && { hostPortEnd }),
    ...(allowFrom && { allowFrom: checkSources(allowFrom, refuse) }),
    ...(proxyProtocol && { proxyProtocol }),
  }
}

type Refuse = (field: string, value: unknown, why: string) => CnmError

/** Addresses that no host can have as its own, or that a socket cannot be bound to without saying the link. */
const UNUSABLE: [string, string][] = [
  ['224.0.0.0/4', 'is a multicast address'],
  ['255.255.255.255/32', 'is the broadcast address'],
  ['ff00::/8', 'is a multicast address'],
  ['fe80::/10', 'is a link-local address, which is ambiguous without its link'],
  ['::ffff:0:0/96', 'is an IPv4 address in IPv6 clothes; give the IPv4 address'],
]
const UNUSABLE_PREFIXES = UNUSABLE.map(([text, why]) => ({ prefix: parseCidr(text), why }))

function checkHostIp(text: string, refuse: Refuse): string {
  let ip: Ip
  try {
    ip = parseIp(text)
  } catch {
    throw refuse('hostIp', text, `${JSON.stringify(text)} is not an IP address`)
  }
  const bad = UNUSABLE_PREFIXES.find(({ prefix }) => contains(prefix, ip))
  if (bad) throw refuse('hostIp', text, `${text} ${bad.why}; give an address of this host`)
  return formatIp(ip)
}

function checkSources(sources: string[], refuse: Refuse): string[] {
  if (sources.length === 0)
    throw refuse('allowFrom', sources, 'is empty, so nobody could use the port; leave it out for everybody')
  const prefixes = sources.map(source => {
    try {
      if (!source.includes('/')) {
        const ip = parseIp(source)
        return formatCidr({ ...ip, length: ip.family === 4 ? 32 : 128 })
      }
      const prefix = parseCidr(source)
      if (network(prefix).value !== prefix.value)
        throw refuse(
          'allowFrom',
          source,
          `${source} has host bits set; it should be ${formatCidr(network(prefix))}`,
        )
      return formatCidr(prefix)
    } catch (error) {
      if (isCnmError(error, 'ERR_INVALID_PORT')) throw error
      throw refuse('allowFrom', source, `${JSON.stringify(source)} is not ADDRESS/LENGTH`)
    }
  })
  return [...new Set(prefixes)]
}

const range = (first: number, last: number | undefined) =>
  last === undefined || last === first ? `${first}` : `${first}-${last}`

/** The text of a host address before a port. */
const bracket = (ip: string) => (ip.includes(':') ? `[${ip}]` : ip)

/** The textual form; the inverse of {@link parsePort} but for `allowFrom` and `proxyProtocol`, which have none. */
export function formatPort(binding: PortBinding): string {
  const host = binding.hostPort ? range(binding.hostPort, binding.hostPortEnd) : ''
  const container = range(binding.containerPort, binding.containerPortEnd)
  const front = binding.hostIp === undefined ? host : `${bracket(binding.hostIp)}:${host}`
  return `${front && `${front}:`}${container}/${binding.protocol}`
}

/** As {@link formatPort}, for messages about input that may be malformed. */
function describeBinding(binding: PortBinding): string {
  return formatPort({ ...binding, protocol: binding.protocol ?? 'tcp' })
}

/** As `docker port` prints it: `80/tcp -> 0.0.0.0:8080`; a port of a routed network has no host port. */
export function formatPublished(port: PublishedPort): string {
  const length = port.hostPortEnd - port.hostPort
  const container = `${range(port.containerPort, port.containerPort + length)}/${port.protocol}`
  if (port.hostPort === 0) return `${container} -> ${bracket(port.containerIp)}`
  return `${container} -> ${bracket(port.hostIp)}:${range(port.hostPort, port.hostPortEnd)}`
}

const shape = z.strictObject({
  containerPort: z.number().describe('a port of the container, 1-65535'),
  containerPortEnd: z.number().optional().describe('last port of a range'),
  protocol: z.string().default('tcp').describe('tcp, udp or sctp'),
  hostIp: z.string().max(64).optional().describe('an address of the host; absent: all'),
  hostPort: z.number().optional().describe('a port of the host; absent or 0: one is chosen'),
  hostPortEnd: z.number().optional().describe('last port of a range'),
  allowFrom: z.array(z.string().max(64)).max(4096).optional().describe('sources that may use it, CIDR'),
  proxyProtocol: z.boolean().optional().describe('announce the client with a PROXY protocol v2 header'),
})

/**
 * For the option schemas of the core: an object or its textual form → a checked {@link PortBinding}.
 * A wrong port is thrown as ERR_INVALID_PORT; a wrong shape becomes an ordinary issue of zod.
 */
export const portBinding: z.ZodType<PortBinding, string | PortBindingInput> = z
  .custom<string | PortBindingInput>(
    input => typeof input === 'string' || (typeof input === 'object' && input !== null),
    `must be a port binding, an object or text of the form ${FORM}`,
  )
  .transform((input, context): PortBinding => {
    if (typeof input === 'string') return parsePort(input)
    const result = shape.safeParse(input)
    if (result.success) return checkBinding(result.data as PortBindingInput)
    for (const issue of result.error.issues) {
      const near = issue.code === 'unrecognized_keys' ? issue.keys.map(hint).join('; ') : undefined
      context.addIssue({ code: 'custom', path: issue.path, message: near ?? issue.message })
    }
    return z.NEVER
  })
  .describe(`a port binding, as an object or ${FORM}`)

function hint(key: string): string {
  const known = Object.keys(shape.shape)
  const near = nearest(key, known)
  return `${key} is not an option of a port binding; ${near ? `did you mean ${near}?` : `known: ${known.join(', ')}`}`
}

/**
 * Two bindings of one list that ask for the same port of the host. A host port with a range to choose from is none: there
 * may be room for both. Throws ERR_INVALID_PORT.
 */
export function refuseTwins(bindings: readonly PortBinding[]): void {
  const fixed = bindings.filter(({ hostPort, hostPortEnd, containerPort, containerPortEnd }) => {
    const wanted = (containerPortEnd ?? containerPort) - containerPort
    return hostPort !== undefined && (hostPortEnd ?? hostPort) - hostPort === wanted
  })
  fixed.sort((a, b) => (a.hostPort ?? 0) - (b.hostPort ?? 0))
  for (const [i, binding] of fixed.entries()) {
    const end = binding.hostPortEnd ?? binding.hostPort ?? 0
    for (let j = i + 1; j < fixed.length; j++) {
      const other = fixed[j]!
      if ((other.hostPort ?? 0) > end) break
      if (other.protocol !== binding.protocol || !shareAddress(binding.hostIp, other.hostIp)) continue
      throw new CnmError(
        'ERR_INVALID_PORT',
        `host port ${other.hostPort}/${other.protocol} is asked for twice: ${describeBinding(binding)} and ${describeBinding(other)}`,
        { field: 'hostPort', value: other.hostPort },
      )
    }
  }
}

/** Absent: every address of both families. */
function shareAddress(a: string | undefined, b: string | undefined): boolean {
  if (a === undefined || b === undefined || a === b) return true
  const family = (text: string) => text.includes(':')
  const any = (text: string) => text === '0.0.0.0' || text === '::'
  return family(a) === family(b) && (any(a) || any(b))
}
