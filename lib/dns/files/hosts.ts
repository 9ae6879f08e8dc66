import { isIP } from 'node:net'
import { canonicalIp } from '../../base/cidr'
import { CnmError } from '../../base/errors'
import type { HostsEntry } from './contract'

const LOOPBACK: HostsEntry[] = [{ address: '127.0.0.1', names: ['localhost'] }]
/** As Docker writes them. */
const LOOPBACK6: HostsEntry[] = [
  { address: '::1', names: ['localhost', 'ip6-localhost', 'ip6-loopback'] },
  { address: 'fe00::0', names: ['ip6-localnet'] },
  { address: 'ff00::0', names: ['ip6-mcastprefix'] },
  { address: 'ff02::1', names: ['ip6-allnodes'] },
  { address: 'ff02::2', names: ['ip6-allrouters'] },
]

const line = ({ address, names }: HostsEntry): string => `${address}\t${names.join(' ')}`

/** The lines of /etc/hosts, without line ends. */
export function hostsLines(ipv6: boolean, ...groups: HostsEntry[][]): string[] {
  return [...LOOPBACK, ...(ipv6 ? LOOPBACK6 : []), ...groups.flat()].map(line)
}

/**
 * The file after a change of our lines, when somebody else has edited it meanwhile: their lines stay where they are, ours
 * that are no longer wanted go, new ones come at the end.
 */
export function mergeHosts(current: string, before: string[], wanted: string[]): string {
  const stale = new Set(before.filter(each => !wanted.includes(each)))
  const lines = current.split('\n')
  if (lines[lines.length - 1] === '') lines.pop()
  const kept = lines.filter(each => !stale.has(each))
  const present = new Set(kept)
  // A line of ours that they took out stays out.
  const fresh = wanted.filter(each => !present.has(each) && !before.includes(each))
  return [...kept, ...fresh].map(each => `${each}\n`).join('')
}

/** `--add-host`. Throws ERR_INVALID_OPTION. */
export function parseExtraHost(text: string, gateways: string[]): HostsEntry[] {
  const refuse = (why: string): never => {
    throw new CnmError('ERR_INVALID_OPTION', `extra host ${JSON.stringify(text)}: ${why}`, { value: text })
  }
  const [, name, written] = /^([^:=\s]+)[:=](.+)$/.exec(text) ?? refuse('must be NAME:ADDRESS')
  if (name === undefined || written === undefined) return refuse('must be NAME:ADDRESS')
  if (written === 'host-gateway') {
    if (gateways.length === 0) refuse('there is no host gateway: no network has an address on the host')
    return gateways.map(address => ({ address, names: [name] }))
  }
  const address = written.replace(/^\[(.*)\]$/, '$1')
  if (isIP(address) === 0) refuse('the address must be an IP address, or host-gateway')
  return [{ address: canonicalIp(address), names: [name] }]
}
