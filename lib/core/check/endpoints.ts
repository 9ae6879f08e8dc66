/** An endpoint's interface: both its ends, what is on them, and the host's routes to it. */
import type { Attachment } from '../../driver/contract'
import type { Endpoint } from '../../endpoint'
import type { Link, RouteSpec } from '../../kernel/kernel'
import type { JoinOptions } from '../../options'
import type { Sandbox } from '../../sandbox'
import { type PortChange, portFlags } from '../apart'
import type { Context } from '../context'
import type { Difference, Fix } from '../difference'
import { equip } from '../inside'
import { addressesOn, type Facts, isRoute } from './facts'

export function checkEndpoint(
  context: Context,
  endpoint: Endpoint,
  sandbox: Sandbox,
  inside: Facts,
  host: Facts,
): Difference[] {
  const { join: joined } = endpoint.record
  const { attachment, interfaceName = '' } = joined ?? {}
  if (!attachment?.interface) return []
  const about = { endpointId: endpoint.id, sandboxId: sandbox.id, networkId: endpoint.network.id }
  const link = inside.links.get(interfaceName)
  if (!link)
    return [
      {
        ...about,
        kind: 'link',
        problem: 'missing',
        message: `${interfaceName} of sandbox ${sandbox.containerId} (network ${endpoint.network.name}) is gone`,
        fix: { by: 'reattach' },
      },
    ]
  const found: Difference[] = []
  const { source, arrives } = attachment.interface
  if (arrives === 'born' && source) {
    const port = host.links.get(source)
    const flags = portFlags(context, endpoint)
    const bridge = endpoint.network.link ? host.links.get(endpoint.network.link) : undefined
    if (!port)
      return [
        {
          ...about,
          kind: 'link',
          problem: 'missing',
          message: `${source}, the host's end of ${interfaceName}, is gone`,
          fix: { by: 'reattach' },
        },
      ]
    if (bridge && port.master !== bridge.index)
      found.push({
        ...about,
        kind: 'port',
        problem: 'wrong',
        message: `${source} is no port of ${bridge.name}`,
        // A port that joins a bridge begins with the flags of a new one.
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'setLink', link: source, master: bridge.name }, ...flags],
        },
      })
    else {
      const wrong = flags.flatMap(change => FLAGS.filter(flag => differs(port, change, flag)))
      if (wrong.length)
        found.push({
          ...about,
          kind: 'port',
          problem: 'wrong',
          message: `${source} is not set as it should be: ${wrong.join(', ')}`,
          fix: { by: 'changes', where: 'host', changes: flags },
        })
    }
    if (!port.up)
      found.push({
        ...about,
        kind: 'link',
        problem: 'wrong',
        message: `${source} is down`,
        fix: { by: 'changes', where: 'host', changes: [{ op: 'setLink', link: source, up: true }] },
      })
  }
  for (const route of hostRoutes(attachment)) {
    const wanted = host.links.get(String(route.link))
    if (wanted && !host.routes.some(each => isRoute(each, route, wanted.index)))
      found.push({
        ...about,
        kind: 'route',
        problem: 'missing',
        message: `the host lacks its route to ${route.destination} of sandbox ${sandbox.containerId}`,
        fix: { by: 'changes', where: 'host', changes: [{ op: 'replaceRoute', route }] },
      })
  }
  if (!link.up)
    found.push({
      ...about,
      kind: 'link',
      problem: 'wrong',
      message: `${interfaceName} of sandbox ${sandbox.containerId} is down`,
      fix: { by: 'changes', where: 'sandbox', changes: [{ op: 'setLink', link: interfaceName, up: true }] },
    })
  const present = addressesOn(inside, link.index)
  for (const change of equip(endpoint.spec, attachment, interfaceName, joined?.options as JoinOptions)) {
    const fix: Fix = { by: 'changes', where: 'sandbox', changes: [change] }
    if (change.op === 'addAddress' && !present.has(change.address))
      found.push({
        ...about,
        kind: 'address',
        problem: 'missing',
        message: `${interfaceName} of sandbox ${sandbox.containerId} lacks ${change.address}`,
        fix,
      })
    if (change.op === 'addRoute' && !inside.routes.some(route => isRoute(route, change.route, link.index)))
      found.push({
        ...about,
        kind: 'route',
        problem: 'missing',
        message: `sandbox ${sandbox.containerId} lacks its route to ${change.route.destination}`,
        fix,
      })
  }
  return found
}

/** The host's own routes to the endpoint. */
const hostRoutes = ({ plan }: Attachment): RouteSpec[] =>
  (plan?.changes ?? []).flatMap(change => (change.op === 'replaceRoute' ? [change.route] : []))

const FLAGS = ['isolated', 'hairpin', 'learning'] as const

const differs = ({ port }: Link, wanted: PortChange, flag: (typeof FLAGS)[number]): boolean =>
  wanted[flag] !== undefined && port?.[flag] !== wanted[flag]
