/**
 * The last gate before text for a firewall: values here were parsed at the border, or made by us. What does not look
 * like what it should be is a defect (or a link name that no firewall can quote), and nothing is sent.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { canonicalIp, type Family } from '../base/cidr'
import { CnmError } from '../base/errors'
import type { Protocol } from './contract'

/**
 * What both nft and iptables take literally in a quoted name. The kernel allows more (quotes, braces, `*`, `+`, which
 * are wildcards there); such links cannot be named in rules.
 */
const LINK = /^[A-Za-z0-9_.@=~,-]{1,15}$/
const TABLE = /^[A-Za-z][A-Za-z0-9_-]{0,30}$/
const DECIMAL = /^(0|[1-9]\d{0,2})$/

export function checkedLink(name: string): string {
  if (LINK.test(name) && name !== '.' && name !== '..' && !name.startsWith('-')) return name
  throw new CnmError(
    'ERR_INVALID_NAME',
    `the interface name ${JSON.stringify(name)} cannot stand in a firewall rule; use 1 to 15 of A-Z a-z 0-9 _ . @ = ~ , - (not first)`,
    { name },
  )
}

export function checkedTable(name: string): string {
  if (TABLE.test(name)) return name
  throw new CnmError(
    'ERR_INVALID_NAME',
    `${JSON.stringify(name)} cannot name a firewall table; use a letter and up to 30 of A-Z a-z 0-9 _ -`,
    { name },
  )
}

export function checkedIp(text: string, family: Family): string {
  if (family === 4 && isIPv4(text)) return text
  // What is compared with listings must be in the form of listings.
  if (family === 6 && isIPv6(text) && !text.includes('%')) return canonicalIp(text)
  throw defect('address', text)
}

export function checkedCidr(text: string, family: Family): string {
  const slash = text.indexOf('/')
  const tail = text.slice(slash + 1)
  if (slash > 0 && DECIMAL.test(tail) && Number(tail) <= (family === 4 ? 32 : 128)) {
    return `${checkedIp(text.slice(0, slash), family)}/${tail}`
  }
  throw defect('subnet', text)
}

export function checkedProtocol(protocol: Protocol): Protocol {
  if (protocol === 'tcp' || protocol === 'udp' || protocol === 'sctp') return protocol
  throw defect('protocol', protocol)
}

export function checkedPort(port: number): number {
  if (Number.isInteger(port) && port >= 1 && port <= 65535) return port
  throw defect('port', port)
}

const defect = (what: string, value: unknown): CnmError =>
  new CnmError('ERR_INTERNAL', `${JSON.stringify(value)} is no ${what}; nothing was sent to the firewall`, {
    what,
    value,
  })
