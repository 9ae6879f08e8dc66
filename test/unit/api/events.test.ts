/** GET /events, as a client reads it; and upgraded connections, as a runtime uses them. */
import { request } from 'node:http'
import { connect } from 'node:net'
import { serve, type Served } from './scene'

let served: Served
beforeEach(async () => {
  served = await serve({
    api: {
      routes: router =>
        router.route('POST', '/exec/{id}/start', async exchange => {
          const body = (await exchange.body()).toString()
          const stream = exchange.hijack()
          if (exchange.upgradable && 'pipe' in stream) {
            stream.write(`${body}|`)
            stream.pipe(stream)
          } else stream.end(`plain ${body}`)
        }),
    },
  })
})
afterEach(() => served.close())

interface Event {
  Type: string
  Action: string
  Actor: { ID: string; Attributes: Record<string, string> }
  scope: string
  time: number
  timeNano: number
}

/** Opens the stream; resolves when its headers are there, which is before any event. */
async function stream(query = ''): Promise<{ next(): Promise<Event>; all: Promise<Event[]>; stop(): void }> {
  const events: Event[] = []
  let wake = () => {}
  let taken = 0
  return new Promise((resolve, reject) => {
    const asked = request(
      { socketPath: served.path, path: `/v1.48/events${query}`, agent: false },
      response => {
        let rest = ''
        response.setEncoding('utf8').on('data', (text: string) => {
          const lines = (rest + text).split('\n')
          rest = lines.pop() ?? ''
          events.push(...lines.map(line => JSON.parse(line) as Event))
          wake()
        })
        const all = new Promise<Event[]>(done => response.once('close', () => done(events)))
        resolve({
          all,
          stop: () => asked.destroy(),
          async next() {
            while (events.length <= taken)
              await new Promise<void>(again => {
                wake = again
              })
            return events[taken++] as Event
          },
        })
      },
    )
    asked.on('error', reject)
    asked.end()
  })
}

const filtered = (filters: object, more = '') =>
  `?filters=${encodeURIComponent(JSON.stringify(filters))}${more}`

test('create, connect, disconnect, destroy, prune, in Docker’s words', async () => {
  const { next, stop } = await stream()
  const { Id } = (await served.ask('POST', '/networks/create', { Name: 'web' })).json
  await served.controller.createSandbox({ containerId: 'c1', files: false })
  await served.ask('POST', '/networks/web/connect', { Container: 'c1' })
  await served.ask('POST', '/networks/web/disconnect', { Container: 'c1' })
  await served.ask('DELETE', '/networks/web')
  await served.ask('POST', '/networks/prune')
  const seen = [await next(), await next(), await next(), await next(), await next()]
  const web = { name: 'web', type: 'bridge' }
  expect(seen.map(({ Type, Action, Actor }) => ({ Type, Action, Actor }))).toEqual([
    { Type: 'network', Action: 'create', Actor: { ID: Id, Attributes: web } },
    { Type: 'network', Action: 'connect', Actor: { ID: Id, Attributes: { container: 'c1', ...web } } },
    { Type: 'network', Action: 'disconnect', Actor: { ID: Id, Attributes: { container: 'c1', ...web } } },
    { Type: 'network', Action: 'destroy', Actor: { ID: Id, Attributes: web } },
    { Type: 'network', Action: 'prune', Actor: { ID: '', Attributes: { reclaimed: '0' } } },
  ])
  expect(Object.keys(seen[0] as Event)).toEqual(['Type', 'Action', 'Actor', 'scope', 'time', 'timeNano'])
  expect(seen[0]?.scope).toBe('local')
  expect(Math.floor((seen[0]?.timeNano ?? 0) / 1e9)).toBe(seen[0]?.time)
  stop()
})

test('filters', async () => {
  const make = async (Name: string, Labels = {}) =>
    (await served.ask('POST', '/networks/create', { Name, Labels })).json.Id as string
  const streams = await Promise.all([
    stream(filtered({ event: ['destroy'] })),
    stream(filtered({ network: { web: true } })),
    stream(filtered({ label: ['team=blue'] })),
    stream(filtered({ type: ['container'] })),
  ])
  const web = await make('web', { team: 'blue' })
  await make('db')
  await served.ask('DELETE', '/networks/web')
  await served.ask('DELETE', '/networks/db')
  served.api.events.publish({ Type: 'container', Action: 'start', Actor: { ID: 'c1', Attributes: {} } })
  const seen = async (at: number, count: number) => {
    const list: string[] = []
    for (let i = 0; i < count; i++) {
      const { Action, Actor } = (await (streams[at] as (typeof streams)[0]).next()) as Event
      list.push(`${Action} ${Actor.Attributes.name ?? Actor.ID}`)
    }
    return list
  }
  expect(await seen(0, 2)).toEqual(['destroy web', 'destroy db'])
  expect(await seen(1, 2)).toEqual(['create web', 'destroy web'])
  expect(await seen(2, 2)).toEqual(['create web', 'destroy web'])
  expect(await seen(3, 1)).toEqual(['start c1'])
  expect(web).toMatch(/^[0-9a-f]{64}$/)
  for (const { stop } of streams) stop()
})

test('since and until: what is past is told, then the stream ends', async () => {
  await served.ask('POST', '/networks/create', { Name: 'web' })
  const now = Math.ceil(Date.now() / 1000) + 1
  const past = await stream(`?since=10m&until=${Date.now() / 1000 - 0}`)
  expect((await past.all).map(({ Action }) => Action)).toEqual(['create'])
  const none = await stream(`?since=${now - 3600}&until=${now - 1800}`)
  expect(await none.all).toEqual([])
  const soon = await stream(`?since=${now - 3600}&until=${Date.now() / 1000 + 0.3}`)
  expect((await soon.all).map(({ Action }) => Action)).toEqual(['create'])
})

test.each<[string, RegExp]>([
  ['?since=soon', /^invalid time "soon"$/],
  ['?since=20&until=10', /cannot be after/],
  [filtered({ network: 1 }), /^invalid filter: values of "network"/],
  ['?filters=%7B', /^invalid filter: /],
])('refused: %s', async (query, message) => {
  const { status, json } = await served.ask('GET', `/events${query}`)
  expect([status, json.message]).toEqual([400, expect.stringMatching(message)])
})

test('a reader that goes is forgotten; a slow one loses its connection', async () => {
  const gone = await stream()
  gone.stop()
  await gone.all
  const slow = connect(served.path, () => slow.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n'))
  await new Promise(resolve => slow.once('readable', resolve))
  const closed = new Promise<void>(resolve => void slow.once('close', () => resolve()))
  slow.on('error', () => {})
  const big = { Type: 'container', Action: 'start', Actor: { ID: 'x'.repeat(500_000), Attributes: {} } }
  for (let i = 0; i < 30; i++) served.api.events.publish(big)
  slow.resume()
  await closed
})

test('the runtime’s routes take the raw connection over', async () => {
  const upgraded = await new Promise<string>((resolve, reject) => {
    const socket = connect(served.path)
    let text = ''
    socket.setEncoding('utf8').on('data', (part: string) => {
      text += part
      if (text.endsWith('more')) socket.end()
    })
    socket.once('close', () => resolve(text))
    socket.once('error', reject)
    socket.write(
      'POST /exec/1/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{}',
    )
    socket.write('  more')
  })
  expect(upgraded).toMatch(/^HTTP\/1\.1 101 UPGRADED\r\n/)
  expect(upgraded).toMatch(/Content-Type: application\/vnd\.docker\.raw-stream\r\n/)
  expect(upgraded.split('\r\n\r\n')[1]).toBe('{}  |more')
  const plain = await served.ask('POST', '/exec/1/start', {})
  expect([plain.status, plain.text]).toEqual([200, 'plain {}'])
  const lost = await served.ask('POST', '/nix', undefined, { Connection: 'Upgrade', Upgrade: 'tcp' })
  expect([lost.status, lost.json.message]).toEqual([404, 'page not found'])
})
