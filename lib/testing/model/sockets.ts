import { familyOf } from '../../base/cidr'
import type { SocketOptions } from '../../kernel/kernel'
import { refuse } from './refusal'
import { isLocal, lookup } from './routes'
import type { Machine, Netns, SocketRecord } from './state'

const isWildcard = (address: string) => address === '0.0.0.0' || address === '::'
const isMulticast = (address: string) => /^(22[4-9]|23\d)\.|^ff/i.test(address)

export function bindSocket(machine: Machine, netns: Netns, fd: number, options: SocketOptions): void {
  const family = familyOf(options.address)
  if (options.type === 'sctp' && machine.lacks.has('sctp')) refuse('EPROTONOSUPPORT')
  if (family === 6 && machine.lacks.has('ipv6')) refuse('EAFNOSUPPORT')
  if (!bindable(netns, options)) refuse('EADDRNOTAVAIL')
  const port = options.port || ephemeral(netns, options)
  const record: SocketRecord = { fd, options, family, port }
  for (const other of netns.sockets.values()) if (conflicts(record, other)) refuse('EADDRINUSE')
  netns.sockets.set(fd, record)
}

function bindable(netns: Netns, { type, address, freeBind, transparent }: SocketOptions): boolean {
  if (isWildcard(address) || freeBind || transparent) return true
  if (type === 'udp' && isMulticast(address)) return true
  if (isLocal(netns, address)) return true
  return type === 'udp' && lookup(netns, address)?.type === 'broadcast'
}

/** Two sockets clash when their addresses overlap, unless both may share (TCP: and the one that is there does not listen). */
function conflicts(wanted: SocketRecord, there: SocketRecord): boolean {
  const [x, y] = [wanted.options, there.options]
  if (wanted.port !== there.port || wanted.family !== there.family || x.type !== y.type) return false
  if (x.address !== y.address && !isWildcard(x.address) && !isWildcard(y.address)) return false
  if (!x.reuseAddress || !y.reuseAddress) return true
  return x.type !== 'udp' && y.listen !== undefined
}

function ephemeral(netns: Netns, options: SocketOptions): number {
  const taken = new Set(
    [...netns.sockets.values()].filter(s => s.options.type === options.type).map(s => s.port),
  )
  for (let port = 32768; port <= 60999; port++) if (!taken.has(port)) return port
  return refuse('EADDRINUSE')
}
