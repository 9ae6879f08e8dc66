/**
 * What each version of the API, from 1.24 to 1.48, shows and takes: the routes of networks one after the other, by a
 * client of that version. By the history of Docker's API, and as Engine 28 answers such clients.
 */
import { serve, type Served } from './scene'

const VERSIONS = Array.from({ length: 48 - 24 + 1 }, (_, at) => 24 + at)

/** In Docker's order. EnableIPv4 came with 1.48. */
const NETWORK_FIELDS = [
  'Name',
  'Id',
  'Created',
  'Scope',
  'Driver',
  'EnableIPv4',
  'EnableIPv6',
  'IPAM',
  'Internal',
  'Attachable',
  'Ingress',
  'ConfigFrom',
  'ConfigOnly',
  'Containers',
  'Options',
  'Labels',
]
const ENDPOINT_FIELDS = ['Name', 'EndpointID', 'MacAddress', 'IPv4Address', 'IPv6Address']

let served: Served
beforeAll(async () => {
  served = await serve()
  await served.controller.createSandbox({ containerId: 'c1', files: false })
})
afterAll(() => served.close())

/** What the old clients do not know. */
interface Differences {
  /** Fields of a network. */
  fields: string[]
  /** The list shows who is on a network. */
  listShowsContainers: boolean
  /** A network can be made without IPv4. */
  takesEnableIpv4: boolean
}

const differencesOf = (minor: number): Differences => ({
  fields: NETWORK_FIELDS.filter(field => field !== 'EnableIPv4' || minor >= 48),
  listShowsContainers: minor < 28,
  takesEnableIpv4: minor >= 48,
})

const filtered = (filters: object) => `filters=${encodeURIComponent(JSON.stringify(filters))}`

describe.each(VERSIONS)('1.%i', minor => {
  const { fields, listShowsContainers, takesEnableIpv4 } = differencesOf(minor)
  const ask = (method: string, path: string, body?: unknown) =>
    served.ask(method, `/v1.${minor}${path}`, body)

  afterEach(async () => {
    for (const network of served.controller.networks({ type: 'custom' })) {
      for (const endpoint of network.endpoints()) await endpoint.delete({ force: true })
      await network.delete()
    }
  })

  test('create: the id and no warning; a second of that name is refused, whatever CheckDuplicate says', async () => {
    const body = { Name: 'web', CheckDuplicate: false, Labels: { a: 'b' } }
    const made = await ask('POST', '/networks/create', body)
    expect([made.status, Object.keys(made.json), made.json.Warning]).toEqual([201, ['Id', 'Warning'], ''])
    const again = await ask('POST', '/networks/create', body)
    expect([again.status, again.json]).toEqual([409, { message: 'network with name web already exists' }])
  })

  test('create: EnableIPv4, where it is known', async () => {
    const body = { Name: 'six', EnableIPv4: false, EnableIPv6: true }
    expect((await ask('POST', '/networks/create', body)).status).toBe(201)
    const { ipv4, ipv6 } = served.controller.network('six')
    expect([ipv4, ipv6]).toEqual([!takesEnableIpv4, true])
    const { IPAM } = (await ask('GET', '/networks/six')).json
    expect(IPAM.Config).toHaveLength(takesEnableIpv4 ? 1 : 2)
  })

  test('connect, inspect, list, disconnect, delete', async () => {
    const { Id } = (await ask('POST', '/networks/create', { Name: 'web' })).json
    const connected = await ask('POST', '/networks/web/connect', {
      Container: 'c1',
      EndpointConfig: { Aliases: ['api'], GwPriority: 7 },
    })
    expect([connected.status, connected.text]).toEqual([200, ''])
    expect((await ask('POST', '/networks/web/connect', { Container: 'c1' })).status).toBe(403)
    expect((await ask('POST', '/networks/web/connect', { Container: 'nix' })).json).toEqual({
      message: 'No such container: nix',
    })

    for (const path of ['/networks/web', `/networks/${Id}?verbose=true`, `/networks/${Id.slice(0, 9)}`]) {
      const { status, json } = await ask('GET', path)
      expect([status, Object.keys(json)]).toEqual([200, fields])
      expect(Object.keys(json.Containers)).toEqual(['c1'])
      expect(Object.keys(json.Containers.c1)).toEqual(ENDPOINT_FIELDS)
    }
    expect((await ask('GET', '/networks/web?scope=swarm')).status).toBe(404)

    const list = (await ask('GET', '/networks')).json as Record<string, object>[]
    expect(list.map(({ Name }) => Name)).toEqual(['none', 'host', 'bridge', 'web'])
    for (const each of list) expect(Object.keys(each)).toEqual(fields)
    expect(Object.keys(list[3]?.Containers ?? {})).toEqual(listShowsContainers ? ['c1'] : [])

    const used = await ask('DELETE', '/networks/web')
    expect([used.status, used.json.message]).toEqual([403, expect.stringMatching(/has active endpoints/)])
    const gone = await ask('POST', '/networks/web/disconnect', { Container: 'c1' })
    expect([gone.status, gone.text]).toEqual([200, ''])
    expect((await ask('POST', '/networks/web/disconnect', { Container: 'c1' })).status).toBe(500)
    const deleted = await ask('DELETE', '/networks/web')
    expect([deleted.status, deleted.text]).toEqual([204, ''])
    expect((await ask('DELETE', '/networks/web')).json).toEqual({ message: 'network web not found' })
  })

  test('list: each filter, in both of its forms', async () => {
    await ask('POST', '/networks/create', { Name: 'web', Labels: { team: 'blue' } })
    const { id } = served.controller.network('web')
    const names = async (filters: object) => {
      const { status, json } = await ask('GET', `/networks?${filtered(filters)}`)
      return [status, ...(json as { Name: string }[]).map(({ Name }) => Name)]
    }
    for (const [key, value] of [
      ['driver', 'bridge'],
      ['id', id.slice(0, 12)],
      ['label', 'team=blue'],
      ['name', 'we'],
      ['scope', 'local'],
      ['type', 'custom'],
      ['dangling', 'true'],
    ] as const) {
      const found = await names({ [key]: [value], name: ['web'] })
      expect([key, ...found]).toEqual([key, 200, 'web'])
      expect(await names({ [key]: { [value]: true }, name: { web: true } })).toEqual(found)
    }
    expect((await ask('GET', `/networks?${filtered({ nix: ['1'] })}`)).json).toEqual({
      message: "invalid filter 'nix'",
    })
  })

  test('prune: null when nothing went', async () => {
    await ask('POST', '/networks/create', { Name: 'a', Labels: { keep: '' } })
    await ask('POST', '/networks/create', { Name: 'b' })
    const prune = async (filters: object) => (await ask('POST', `/networks/prune?${filtered(filters)}`)).json
    expect(await prune({ until: ['10m'] })).toEqual({ NetworksDeleted: null })
    expect(await prune({ 'label!': ['keep'] })).toEqual({ NetworksDeleted: ['b'] })
    expect(await prune({ label: ['keep'] })).toEqual({ NetworksDeleted: ['a'] })
    expect((await ask('POST', `/networks/prune?${filtered({ dangling: ['1'] })}`)).status).toBe(400)
  })

  test('events: the same fields; filters by type, event, network, container and label; others are ignored', async () => {
    const from = Date.now()
    await ask('POST', '/networks/create', { Name: `e${minor}`, Labels: { team: 'blue' } })
    await ask('POST', `/networks/e${minor}/connect`, { Container: 'c1' })
    await ask('POST', `/networks/e${minor}/disconnect`, { Container: 'c1' })
    await ask('DELETE', `/networks/e${minor}`)
    const told = async (filters: object) => {
      const window = `since=${(from - 1) / 1000}&until=${(Date.now() + 1) / 1000}`
      const { status, text } = await ask('GET', `/events?${window}&${filtered(filters)}`)
      expect(status).toBe(200)
      const all = text
        .split('\n')
        .filter(Boolean)
        .map(line => JSON.parse(line) as { Action: string; Actor: { Attributes: { name?: string } } })
      for (const event of all)
        expect(Object.keys(event)).toEqual(['Type', 'Action', 'Actor', 'scope', 'time', 'timeNano'])
      return all.filter(({ Actor }) => Actor.Attributes.name === `e${minor}`).map(({ Action }) => Action)
    }
    const whole = ['create', 'connect', 'disconnect', 'destroy']
    expect(await told({})).toEqual(whole)
    expect(await told({ type: ['network'], scope: ['local'] })).toEqual(whole)
    expect(await told({ type: ['container'] })).toEqual([])
    expect(await told({ event: ['destroy', 'create'] })).toEqual(['create', 'destroy'])
    expect(await told({ network: [`e${minor}`] })).toEqual(whole)
    expect(await told({ container: ['c1'] })).toEqual(['connect', 'disconnect'])
    expect(await told({ label: ['team=blue'] })).toEqual(whole)
    expect(await told({ label: ['team=red'] })).toEqual([])
    expect(await told({ colour: ['red'] })).toEqual(whole)
  })
})
