import { constants } from 'node:os'
import type { Change, LinkSpec, Stack } from '../kernel'
import { encodeAddress } from './address'
import {
  type Completion,
  encodeAddLink,
  encodeCompletion,
  encodeRemoveLink,
  encodeSetLink,
  encodeSetPort,
} from './link'
import type { Writer } from './message'
import { encodeFdb, encodeNeighbour } from './neighbour'
import { encodeIngress, encodeMirrorFilter, encodeShaper } from './qdisc'
import type { Resolver } from './resolver'
import { encodeRoute } from './route'
import { encodeRule } from './rule'
import { encodeAddState, encodeRemovePolicy, encodeRemoveState, encodeSetPolicy } from './xfrm'

/**
 * One change → one message, or more where the kernel takes no less. What completes a link that was born in another
 * namespace is not among them: that message belongs there (see {@link completions}).
 */
export function encodeChange(w: Writer, change: Change, resolve: Resolver): void {
  switch (change.op) {
    case 'addLink':
      encodeAddLink(w, change.link, resolve)
      for (const { netns, completion } of completions(change.link))
        if (!netns) encodeCompletion(w, completion)
      break
    case 'removeLink':
      encodeRemoveLink(w, change.link)
      break
    case 'setLink':
      encodeSetLink(w, change, resolve)
      break
    case 'setPort':
      encodeSetPort(w, change, resolve)
      break
    case 'addAddress':
    case 'removeAddress':
      encodeAddress(w, change, resolve)
      break
    case 'addRoute':
    case 'replaceRoute':
    case 'removeRoute':
      encodeRoute(w, change, resolve)
      break
    case 'addRule':
    case 'removeRule':
      encodeRule(w, change.op === 'addRule', change.rule)
      break
    case 'setNeighbour':
    case 'removeNeighbour':
      encodeNeighbour(w, change, resolve)
      break
    case 'setFdb':
    case 'removeFdb':
      encodeFdb(w, change, resolve)
      break
    case 'setShaper':
      encodeShaper(w, change, resolve)
      break
    case 'setIngressMirror':
      encodeIngress(w, change, resolve)
      if (change.target !== null)
        encodeMirrorFilter(w, resolve.link(change.link), resolve.link(change.target))
      break
    case 'addIpsecState':
      encodeAddState(w, change.state)
      break
    case 'removeIpsecState':
      encodeRemoveState(w, change.state)
      break
    case 'setIpsecPolicy':
      encodeSetPolicy(w, change.policy)
      break
    case 'removeIpsecPolicy':
      encodeRemovePolicy(w, change.policy)
      break
  }
}

/** Which of the kernel's interfaces takes it: routes and links, or IPsec. */
export const familyOfChange = ({ op }: Change): 'route' | 'xfrm' => (op.includes('Ipsec') ? 'xfrm' : 'route')

/** What must be said once the link is there: its alias; that the veth's peer is up. By namespace, when it is not the same. */
export function completions(link: LinkSpec): { netns: Stack | undefined; completion: Completion }[] {
  const list: { netns: Stack | undefined; completion: Completion }[] = []
  if (link.alias !== undefined)
    list.push({ netns: link.netns, completion: { name: link.name, alias: link.alias } })
  if (link.kind === 'veth' && link.peer.up)
    list.push({ netns: link.peer.netns, completion: { name: link.peer.name, up: true } })
  return list
}

const { ENOENT, ENODEV, EINVAL } = constants.errno

/** Does this error only say that what was to be removed is not there, where the change takes that for done? */
export function isDone(change: Change, errno: number): boolean {
  switch (change.op) {
    case 'removeLink':
      return change.ifExists === true && errno === ENODEV
    case 'setShaper':
      return change.rate === null && errno === ENOENT
    case 'setIngressMirror':
      return change.target === null && (errno === ENOENT || errno === EINVAL)
    default:
      return false
  }
}

/**
 * Changes that the kernel carries out in tens or hundreds of microseconds. The others wait for a grace period of its own
 * (a link that goes, goes down or moves) or have not been measured.
 */
export function isShort(change: Change): boolean {
  switch (change.op) {
    case 'addLink':
      return change.link.kind === 'veth'
    case 'setLink':
      return change.up !== false && change.netns === undefined && change.master === undefined
    case 'setPort':
    case 'addAddress':
    case 'removeAddress':
    case 'addRoute':
    case 'replaceRoute':
    case 'removeRoute':
    case 'setNeighbour':
    case 'setFdb':
      return true
    default:
      return false
  }
}

/** The change in words, for messages: `add veth vethabc`, `add macvlan eth0 on enp3s0`, `add address 10.0.0.1/24 to eth0`. */
export function describeChange(change: Change): string {
  switch (change.op) {
    case 'addLink': {
      const { kind, name } = change.link
      const parent = 'parent' in change.link ? change.link.parent : undefined
      return `add ${kind} ${name}${parent === undefined ? '' : ` on ${parent}`}`
    }
    case 'removeLink':
      return `remove link ${change.link}`
    case 'setLink':
    case 'setPort': {
      const { op, link, ...fields } = change
      const list = Object.entries(fields).flatMap(([name, value]) =>
        value === undefined ? [] : [name === 'netns' ? 'netns' : `${name} ${value}`],
      )
      return `set ${op === 'setPort' ? 'port' : 'link'} ${link} (${list.join(', ')})`
    }
    case 'addAddress':
      return `add address ${change.address} to ${change.link}`
    case 'removeAddress':
      return `remove address ${change.address} from ${change.link}`
    case 'addRoute':
    case 'replaceRoute':
    case 'removeRoute': {
      const { destination, type, gateway, link, metric, table } = change.route
      const verb = change.op.slice(0, -'Route'.length)
      return [
        `${verb} ${type && type !== 'unicast' ? `${type} ` : ''}route ${destination}`,
        gateway && `via ${gateway}`,
        link !== undefined && `dev ${link}`,
        metric !== undefined && `metric ${metric}`,
        table !== undefined && `table ${table}`,
      ]
        .filter(Boolean)
        .join(' ')
    }
    case 'addRule':
    case 'removeRule':
      return `${change.op === 'addRule' ? 'add' : 'remove'} rule ${change.rule.priority} for table ${change.rule.table}`
    case 'setNeighbour':
    case 'removeNeighbour':
      return `${change.op === 'setNeighbour' ? 'set' : 'remove'} neighbour ${change.address} of ${change.link}`
    case 'setFdb':
    case 'removeFdb': {
      const remote = change.remote === undefined ? '' : ` to ${change.remote}`
      return `${change.op === 'setFdb' ? 'set' : 'remove'} FDB entry ${change.mac}${remote} of ${change.link}`
    }
    case 'setShaper':
      return change.rate === null
        ? `remove shaper of ${change.link}`
        : `set shaper of ${change.link} to ${change.rate.bitsPerSecond} bit/s`
    case 'setIngressMirror':
      return change.target === null
        ? `remove ingress mirror of ${change.link}`
        : `set ingress mirror of ${change.link} to ${change.target}`
    case 'addIpsecState':
    case 'removeIpsecState': {
      const { source, destination, spi } = change.state
      return `${change.op === 'addIpsecState' ? 'add' : 'remove'} IPsec state ${spi.toString(16)} from ${source} to ${destination}`
    }
    case 'setIpsecPolicy':
    case 'removeIpsecPolicy': {
      const { source, destination, port } = change.policy
      return `${change.op === 'setIpsecPolicy' ? 'set' : 'remove'} IPsec policy for UDP port ${port} from ${source} to ${destination}`
    }
  }
}
