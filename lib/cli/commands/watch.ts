/** cnm watch. */
import type { CnmEvent, CnmEventType } from '../../core/events'
import { type Command, count, OBJECT_FORMAT } from '../command'
import { formatObjects, painter, visible } from '../output'

/** A record, so that the compiler misses none. */
const TYPES: Record<CnmEventType, true> = {
  'network.create': true,
  'network.update': true,
  'network.delete': true,
  'network.shadowed': true,
  'address.lost': true,
  'address.regained': true,
  'endpoint.create': true,
  'endpoint.update': true,
  'endpoint.delete': true,
  'endpoint.join': true,
  'endpoint.leave': true,
  'sandbox.create': true,
  'sandbox.update': true,
  'sandbox.delete': true,
  'service.create': true,
  'service.update': true,
  'service.delete': true,
  drift: true,
  'firewall.repaired': true,
  'firewall.problem': true,
  'cluster.connected': true,
  'cluster.lost': true,
  'cluster.garbage': true,
  'host.join': true,
  'host.leave': true,
  problem: true,
}
const EVENT_TYPES = Object.keys(TYPES)

export const watchCommand: Command = {
  name: 'watch',
  summary: 'Show what happens, as it happens',
  operands: '',
  least: 0,
  most: 0,
  options: [
    OBJECT_FORMAT,
    {
      name: 'type',
      kind: 'many',
      value: 'TYPE',
      choices: EVENT_TYPES,
      help: `only these: ${EVENT_TYPES.join(', ')}`,
    },
    { name: 'count', short: 'n', kind: 'one', value: 'NUMBER', help: 'end after so many' },
  ],
  description:
    'Ends with Ctrl-C, or when the server does. Standard error tells when it has begun: what was before is not shown.',
  async run({ values, io, client }) {
    const limit = count(values.one('count'), 'count')
    const types = values.many('type')
    const paint = painter(io)
    let seen = 0
    const events = await (await client()).stream<CnmEvent>('/libcnm/events', io.signal)
    io.error('watching; Ctrl-C ends\n')
    for await (const event of events) {
      if (types.length && !types.includes(event.type)) continue
      const format = values.one('format')
      if (format) io.out(formatObjects([event], format))
      else
        io.out(
          `${paint('dim', new Date(event.time).toISOString())} ${paint('cyan', event.type)} ${visible(describe(event))}\n`,
        )
      if (++seen === limit) break
    }
    return 0
  },
}

function describe(event: CnmEvent): string {
  if ('sandbox' in event && 'endpoint' in event)
    return `${event.endpoint.name} network=${event.network.name} container=${event.sandbox.containerId}`
  if ('endpoint' in event) return `${event.endpoint.name} network=${event.network.name}`
  if ('service' in event) return `${event.service.name} network=${event.network.name}`
  if ('sandbox' in event) return event.sandbox.containerId
  if (event.type === 'network.shadowed') return `${event.network.name} ${event.subnet} by ${event.route}`
  if ('network' in event) return `${event.network.name} driver=${event.network.driver}`
  if ('differences' in event) return event.differences.map(({ message }) => message).join('; ')
  if ('problems' in event) return event.problems.map(({ message }) => message).join('; ')
  if ('store' in event) return `${event.host} ${event.store}`
  if ('host' in event) return `${event.host.name} ${event.host.address}`
  if ('key' in event) return `${event.key}: ${event.reason}`
  return event.message
}
