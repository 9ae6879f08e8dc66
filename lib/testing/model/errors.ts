import { CnmError, type ErrorCode } from '../../base/errors'
import type { Change } from '../../kernel/kernel'

/** What was tried, in words: "add link web0 (veth, peer eth0)". */
export function describeChange(change: Change): string {
  switch (change.op) {
    case 'addLink': {
      const { link } = change
      return `add link ${link.name} (${link.kind === 'veth' ? `veth, peer ${link.peer.name}` : link.kind})`
    }
    case 'removeLink':
      return `remove link ${change.link}`
    case 'setLink': {
      const { op: _, link, netns, ...rest } = change
      const parts = Object.entries(rest).map(([key, value]) => `${key} ${value}`)
      if (netns) parts.push(`netns ${netns.path ?? 'of the process'}`)
      return `set link ${link}: ${parts.join(', ')}`
    }
    case 'setPort':
      return `set port flags of ${change.link}`
    case 'addAddress':
      return `add address ${change.address} to link ${change.link}`
    case 'removeAddress':
      return `remove address ${change.address} from link ${change.link}`
    case 'addRoute':
    case 'replaceRoute':
    case 'removeRoute': {
      const { destination, gateway, link } = change.route
      const verb = change.op.slice(0, -'Route'.length)
      return `${verb} route ${destination}${gateway ? ` via ${gateway}` : ''}${link === undefined ? '' : ` dev ${link}`}`
    }
    case 'addRule':
    case 'removeRule':
      return `${change.op.slice(0, -'Rule'.length)} rule ${change.rule.priority} for table ${change.rule.table}`
    case 'setNeighbour':
    case 'removeNeighbour':
      return `${change.op.slice(0, -'Neighbour'.length)} neighbour ${change.address} (${change.mac}) on link ${change.link}`
    case 'setFdb':
    case 'removeFdb':
      return `${change.op.slice(0, -'Fdb'.length)} FDB entry ${change.mac}${change.remote ? ` to ${change.remote}` : ''} on link ${change.link}`
    case 'setShaper':
      return `set the shaper of link ${change.link}`
    case 'setIngressMirror':
      return `redirect what enters link ${change.link} to ${change.target ?? 'nothing'}`
  }
}

function codeOf(op: string, errno: string): ErrorCode {
  if (errno === 'EPERM') return 'ERR_PRIVILEGE'
  if (errno === 'EEXIST' && (op === 'addLink' || op === 'setLink')) return 'ERR_LINK_EXISTS'
  if (errno === 'ENODEV') return 'ERR_LINK_NOT_FOUND'
  if (errno === 'EOPNOTSUPP' && op === 'addLink') return 'ERR_UNSUPPORTED'
  return 'ERR_KERNEL'
}

/** The error for a refused change, or (without `change`) for another call of the seam. */
export function kernelError(failure: {
  errno: string
  /** The kernel's own explanation. */
  text?: string
  op: string
  /** What was tried, in words. */
  what: string
  details?: Record<string, unknown>
}): CnmError {
  const { errno, text, op, what, details } = failure
  return new CnmError(codeOf(op, errno), `cannot ${what}: ${text ? `${text} (${errno})` : errno}`, {
    op,
    errno,
    ...details,
  })
}
