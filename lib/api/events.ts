/** GET /events: what happens to networks, as Docker tells it; a runtime publishes what happens to its containers. */
import type { Controller } from '../controller'
import type { CnmEvent } from '../core/events'
import { HttpError } from './errors'
import { type Filters, parseFilters, parseTime } from './filters'
import type { Exchange } from './router'

export interface EventMessage {
  Type: string
  Action: string
  Actor: { ID: string; Attributes: Record<string, string> }
}

interface Told {
  /** Milliseconds since the epoch. */
  time: number
  message: EventMessage
  line: string
  /** For the filter `label`; they are no part of the message. */
  labels: Readonly<Record<string, string>>
}

type Listener = (told: Told) => void

/** How many past events `since` can bring back, as in Docker. */
const KEPT = 256

/** Bytes that may wait for a reader. One that is slower loses its connection rather than our memory. */
const BACKLOG = 4 * 1024 * 1024

export class EventHub {
  readonly #controller: Controller
  readonly #kept: Told[] = []
  readonly #listeners = new Set<Listener>()
  /** Labels are wanted for events of networks that are gone by then. */
  readonly #labels = new Map<string, Readonly<Record<string, string>>>()
  readonly #onEvent = (event: CnmEvent) => this.#translate(event)

  constructor(controller: Controller) {
    this.#controller = controller
    for (const { id, labels } of controller.networks()) this.#labels.set(id, labels)
    controller.on('*', this.#onEvent)
  }

  close(): void {
    this.#controller.off('*', this.#onEvent)
  }

  publish(message: EventMessage, labels: Readonly<Record<string, string>> = {}, time = Date.now()): void {
    const line = `${JSON.stringify({
      ...message,
      scope: 'local',
      time: Math.floor(time / 1000),
      timeNano: '\u0000',
    }).replace('"\\u0000"', `${time}000000`)}\n` // beyond what a JavaScript number holds exactly
    const told = { time, message, line, labels }
    this.#kept.push(told)
    if (this.#kept.length > KEPT) this.#kept.shift()
    for (const listener of [...this.#listeners]) listener(told)
  }

  #translate(event: CnmEvent): void {
    const action = ACTIONS[event.type]
    if (!action || !('network' in event)) return
    const { id, name, driver } = event.network
    if (event.type === 'network.create' || event.type === 'network.update')
      this.#labels.set(id, this.#controller.networks().find(network => network.id === id)?.labels ?? {})
    const container: Record<string, string> =
      'sandbox' in event ? { container: event.sandbox.containerId } : {}
    this.publish(
      {
        Type: 'network',
        Action: action,
        Actor: { ID: id, Attributes: { ...container, name, type: driver } },
      },
      this.#labels.get(id),
      event.time,
    )
    if (event.type === 'network.delete') this.#labels.delete(id)
  }

  /** Streams until the client leaves, `until` comes, or the server closes. */
  stream = async (exchange: Exchange): Promise<void> => {
    const { query, response, signal } = exchange
    const now = Date.now()
    const filters = parseFilters(query.get('filters')) // of keys that it does not know Docker says nothing
    const [since, until] = ['since', 'until'].map(name => moment(query.get(name), now))
    if (since !== undefined && until !== undefined && since > until)
      throw new HttpError(
        400,
        `\`since\` time (${query.get('since')}) cannot be after \`until\` time (${query.get('until')})`,
      )
    response.writeHead(200, { 'Content-Type': 'application/json' })
    response.flushHeaders()
    const write = (told: Told) => {
      if (until !== undefined && told.time > until) return
      if (!admits(filters, told)) return
      response.write(told.line)
      if (response.writableLength > BACKLOG) response.destroy()
    }
    if (since !== undefined || until !== undefined)
      for (const told of this.#kept) if (told.time >= (since ?? now)) write(told)
    if (until === undefined || until > now) {
      this.#listeners.add(write)
      await ended(signal, until === undefined ? undefined : until - now)
      this.#listeners.delete(write)
    }
    response.end()
  }
}

const ACTIONS: Partial<Record<CnmEvent['type'], string>> = {
  'network.create': 'create',
  'network.update': 'update',
  'network.delete': 'destroy',
  'endpoint.join': 'connect',
  'endpoint.leave': 'disconnect',
}

/** Kinds of objects that may be named in a filter by id or name. */
const OBJECTS = [
  'config',
  'container',
  'daemon',
  'image',
  'network',
  'node',
  'plugin',
  'secret',
  'service',
  'volume',
]

function admits(filters: Filters, { message, labels }: Told): boolean {
  const { Type, Action, Actor } = message
  const one = (key: string, test: (value: string) => boolean) => {
    const values = filters.get(key)
    return !values?.length || values.some(test)
  }
  return (
    one('type', value => value === Type) &&
    one('event', value => value === Action || Action.startsWith(`${value}:`)) &&
    one('scope', value => value === 'local') &&
    OBJECTS.every(kind =>
      one(kind, value => names(message, kind).some(name => name === value || name.startsWith(value))),
    ) &&
    (filters.get('label') ?? []).every(wanted => hasLabel({ ...labels, ...Actor.Attributes }, wanted))
  )
}

/** What a filter of that kind may mean by a name. A connect is an affair of the container, too. */
function names({ Type, Actor }: EventMessage, kind: string): string[] {
  const { name, container } = Actor.Attributes
  if (Type === kind) return [Actor.ID, ...(name ? [name] : [])]
  return kind === 'container' && container ? [container] : []
}

function hasLabel(labels: Readonly<Record<string, string>>, wanted: string): boolean {
  const at = wanted.indexOf('=')
  return at < 0 ? Object.hasOwn(labels, wanted) : labels[wanted.slice(0, at)] === wanted.slice(at + 1)
}

const moment = (text: string | null, now: number): number | undefined =>
  text ? parseTime(text, now) : undefined

/** setTimeout takes no more. Milliseconds. */
const LONGEST = 2 ** 31 - 1

function ended(signal: AbortSignal, after: number | undefined): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) return resolve()
    const finish = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', finish)
      resolve()
    }
    const timer = after === undefined ? undefined : setTimeout(finish, Math.min(after, LONGEST))
    signal.addEventListener('abort', finish, { once: true })
  })
}
