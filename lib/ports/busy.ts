/** Why a port cannot be had, in words: who has it, or what the host lacks. */
import { familyOf } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import type { Logger } from '../base/log'
import type { Protocol } from '../firewall/contract'
import type { Stack } from '../kernel/kernel'
import type { PortRange } from './allocator'
import { addressesClash, type Cell } from './cells'
import type { PublishedPort } from './contract'
import { conflictingSockets, processOf } from './holders'
import type { Plan } from './plan'
import { formatPublished } from './spec'

/** Where one looks. */
interface Seen {
  stack: Stack
  log: Logger
}

export const errnoOf = (error: unknown): string =>
  isCnmError(error, 'ERR_KERNEL') ? String(error.details.errno) : ''

/** What the kernel said of a socket that it refused. */
export async function explainSocket(
  { stack, log }: Seen,
  error: unknown,
  port: PublishedPort,
  address: string,
  hostPort: number,
  nameHolder: boolean,
): Promise<unknown> {
  const { protocol } = port
  const text = `${hostPort}/${protocol} on ${address}`
  const details = { hostIp: address, hostPort, protocol, errno: errnoOf(error) }
  switch (errnoOf(error)) {
    case 'EADDRINUSE': {
      const holder = nameHolder
        ? await holderOf({ stack, log }, protocol, address, hostPort)
        : 'another process'
      return new CnmError(
        'ERR_PORT_IN_USE',
        `host port ${text} is in use by ${holder}`,
        { ...details, holder },
        { cause: error },
      )
    }
    case 'EADDRNOTAVAIL':
      return new CnmError(
        'ERR_INVALID_PORT',
        `port ${JSON.stringify(formatPublished(port))}: the host has no address ${address}; use one of its own, 0.0.0.0 or ::`,
        { ...details, field: 'hostIp', value: address },
        { cause: error },
      )
    case 'EAFNOSUPPORT':
      return new CnmError(
        'ERR_INVALID_PORT',
        `port ${JSON.stringify(formatPublished(port))}: this host has no IPv${familyOf(address)}`,
        { ...details, field: 'hostIp', value: address },
        { cause: error },
      )
    case 'EACCES':
    case 'EPERM':
      return new CnmError('ERR_PRIVILEGE', `not allowed to bind host port ${text}`, details, {
        cause: error,
      })
    default:
      return error
  }
}

export async function holderOf(
  { stack, log }: Seen,
  protocol: Protocol,
  address: string,
  port: number,
): Promise<string> {
  try {
    const range = { first: port, last: port }
    const inodes = conflictingSockets(stack, protocol, [address], range).map(entry => entry.inode)
    return await processOf(inodes)
  } catch (error) {
    log.debug(`who holds port ${port} could not be found`, { error })
    return 'another process'
  }
}

/** A port, or one of a range, that we hold already: for somebody else, or for another line (`before`) of the same request. */
export function takenByUs(
  { cells, busy }: { cells: Iterable<Cell>; busy: number | undefined },
  port: PublishedPort,
  range: PortRange,
  before: readonly PublishedPort[],
): CnmError {
  const clash = [...cells].find(
    cell =>
      cell.protocol === port.protocol &&
      busy !== undefined &&
      cell.range.first <= busy &&
      busy <= cell.range.last &&
      addressesClash(cell.address, port.hostIp),
  )
  const holder = clash?.users.at(-1)?.port
  const text = `${busy ?? range.first}/${port.protocol} on ${port.hostIp}`
  if (holder && before.includes(holder))
    return new CnmError(
      'ERR_INVALID_PORT',
      `host port ${text} is asked for twice: by ${formatPublished(holder)} and by ${formatPublished(port)}; leave one out`,
      { field: 'hostPort', value: busy, hostIp: port.hostIp, protocol: port.protocol },
    )
  return new CnmError(
    'ERR_PORT_IN_USE',
    `host port ${text} is in use: endpoint ${holder?.endpointId ?? '?'} of network ${holder?.networkId ?? '?'} publishes ${holder ? formatPublished(holder) : 'it'}`,
    {
      hostIp: port.hostIp,
      hostPort: busy,
      protocol: port.protocol,
      networkId: holder?.networkId,
      endpointId: holder?.endpointId,
    },
  )
}

/** `failure`: the last of the ports that were tried. */
export async function exhausted(
  seen: Seen,
  plan: Plan,
  range: PortRange,
  addresses: string[],
  failure: CnmError | undefined,
): Promise<CnmError> {
  const wanted = plan.length === 1 ? 'no port' : `no run of ${plan.length} ports`
  let last = ''
  if (failure) {
    const { hostIp, hostPort } = failure.details as { hostIp: string; hostPort: number }
    last = `; ${hostPort} on ${hostIp}, for one, is in use by ${await holderOf(seen, plan.protocol, hostIp, hostPort)}`
  }
  return new CnmError(
    'ERR_PORTS_EXHAUSTED',
    `${wanted} of ${range.first}-${range.last}/${plan.protocol} is free on ${addresses.join(' and ')}${last}`,
    { range, protocol: plan.protocol, addresses, containerPort: plan.containerPort },
    { cause: failure },
  )
}
