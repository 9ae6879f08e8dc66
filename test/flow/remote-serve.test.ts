/** The plugin server before recorded exchanges: each call of the protocol, as an engine makes it, and its answer. */
import { request as requestOf } from 'node:http'
import { join } from 'node:path'
import { type IpamDriver, serveDriver, serveIpamDriver } from 'libcnm'
import { MockDriver, MockKernel } from 'libcnm/testing'
import * as exchanges from './remote-exchanges'
import { directory, later } from './scene'

const post = (socketPath: string, path: string, body: object | undefined) =>
  new Promise<{ status?: number; type?: string; answer: unknown }>((resolve, reject) => {
    const request = requestOf({ socketPath, path: `/${path}`, method: 'POST', agent: false }, response => {
      let text = ''
      response.on('data', chunk => {
        text += chunk
      })
      response.on('error', reject)
      response.on('end', () =>
        resolve({
          status: response.statusCode,
          type: response.headers['content-type'],
          answer: JSON.parse(text),
        }),
      )
    })
    request.on('error', reject)
    request.end(body && JSON.stringify(body))
  })

/** Every recorded call in its order; what came back, by method. */
async function play(socket: string, asked: readonly { method: string; body?: object }[]) {
  const answers: [string, unknown][] = []
  for (const { method, body } of asked) {
    const { status, type, answer } = await post(socket, method, body)
    expect([method, status, type]).toEqual([method, 200, 'application/vnd.docker.plugins.v1.2+json'])
    answers.push([method, answer])
  }
  return answers
}

/** Has the methods, too, that a driver need not have. */
class WholeDriver extends MockDriver {
  readonly told: unknown[] = []
  skipsGateway() {
    return [6 as const]
  }
  async info() {
    return { tunnel: 'up' }
  }
  async externalConnectivity(_network: unknown, { id }: { id: string }, families: number[], options: object) {
    this.told.push({ id, families, options })
  }
}

test('a network driver: what it is asked is what was sent, what it answers is what was recorded', async () => {
  const { answers, asked } = exchanges.network
  const given = answers['NetworkDriver.CreateEndpoint'].Interface
  const driver = new WholeDriver({ capabilities: { dataScope: 'global' } })
    .reply('createEndpoint', { mac: given.MacAddress, ipv4: given.Address, ipv6: given.AddressIPv6 })
    .reply('join', {
      interface: { arrives: 'moved', source: 'tap7', prefix: 'tun' },
      gateways: { 4: '10.1.0.1', 6: 'device' },
      routes: [
        { destination: '10.9.0.0/16', gateway: '10.1.0.4' },
        { destination: '10.8.0.0/16', scope: 'link' },
      ],
      disableGatewayService: true,
    })
    .reply('leave', {})
    .reply('allocateNetwork', { vni: 7 })
    .reply('freeNetwork', undefined)
    .reply('discover', undefined, 2)
    .disallowUnexpected()
    .reply('createNetwork', { state: {} })
    .reply('deleteNetwork', {})
    .reply('deleteEndpoint', undefined)
  const socket = join(directory(), 's.sock')
  const kernel = new MockKernel()
  const before = kernel.snapshot()
  const server = await serveDriver(driver, { socket, kernel })
  later(() => server.close())
  const routes = answers['NetworkDriver.Join'].StaticRoutes
  const wanted: Record<string, object> = {
    ...answers,
    'Plugin.Activate': { Implements: ['NetworkDriver'] },
    // A manager hands to each host what is answered, and nothing of what was given.
    'NetworkDriver.AllocateNetwork': { Options: { a: 'b', vni: '7' } },
    'NetworkDriver.Join': {
      ...answers['NetworkDriver.Join'],
      InterfaceName: { SrcName: 'tap7', DstName: '', DstPrefix: 'tun' },
      StaticRoutes: routes.map(route => ({ NextHop: '', ...route })),
    },
  }
  for (const [method, answer] of await play(socket, asked))
    expect([method, answer]).toEqual([method, wanted[method]])
  driver.assertNothingPending()
  const [created] = driver.callsOf('createNetwork')
  expect(created?.spec).toMatchObject({
    id: 'a'.repeat(64),
    internal: true,
    options: { depth: '3' },
    pools: [
      { family: 4, subnet: '10.1.0.0/24', gateway: '10.1.0.1/24', auxiliary: { router: '10.1.0.9/24' } },
      { family: 6, subnet: 'fd00:1::/64', gateway: 'fd00:1::1/64', auxiliary: {} },
    ],
  })
  expect(driver.callsOf('createEndpoint')[0]?.endpoint).toMatchObject({ id: 'b'.repeat(64), macGiven: false })
  expect(driver.callsOf('join')[0]).toMatchObject({
    endpoint: { mac: given.MacAddress, ipv4: given.Address, ipv6: given.AddressIPv6 },
    request: { sandboxKey: '/run/ns/s', sandboxOptions: { x: 1, color: 'red' } },
  })
  expect(driver.callsOf('allocateNetwork')[0]?.spec).toMatchObject({ options: { a: 'b' }, ipv6: true })
  expect(driver.callsOf('freeNetwork')[0]?.spec).toMatchObject({ id: 'a'.repeat(64), options: { vni: 7 } })
  expect(driver.callsOf('discover').map(({ change, node }) => [change, node])).toEqual([
    ['new', { address: '192.0.2.1', self: true }],
    ['delete', { address: '192.0.2.1', self: false }],
  ])
  expect(driver.told).toEqual([
    { id: 'b'.repeat(64), families: [4, 6], options: { p: 1 } },
    { id: 'b'.repeat(64), families: [], options: {} },
  ])
  expect(kernel.snapshot()).toEqual(before)
})

test('address management: likewise', async () => {
  const { answers, asked } = exchanges.ipam
  const heard: unknown[] = []
  const note = async <T>(what: unknown, answer: T) => {
    heard.push(what)
    return answer
  }
  const { PoolID: id, Pool: pool, Data: data } = answers['IpamDriver.RequestPool']
  const { Address: address, Data: more } = answers['IpamDriver.RequestAddress']
  const driver: IpamDriver = {
    name: 'recorded',
    capabilities: { requiresMac: true, requiresReplay: true },
    defaultAddressSpaces: async () => ({ local: 'here', global: 'there' }),
    requestPool: request => note(request, { id, pool, data }),
    releasePool: poolId => note({ poolId }, undefined),
    requestAddress: (poolId, request) => note({ poolId, ...request }, { address, data: more }),
    releaseAddress: (poolId, given) => note({ poolId, given }, undefined),
  }
  const socket = join(directory(), 's.sock')
  const server = await serveIpamDriver(driver, { socket })
  later(() => server.close())
  const wanted: Record<string, object> = { ...answers, 'Plugin.Activate': { Implements: ['IpamDriver'] } }
  for (const [method, answer] of await play(socket, asked))
    expect([method, answer]).toEqual([method, wanted[method]])
  expect(JSON.parse(JSON.stringify(heard))).toEqual([
    {
      space: 'here',
      family: 4,
      pool: '10.1.0.0/16',
      subPool: '10.1.1.0/24',
      options: { o: 'p' },
    },
    { poolId: 'p1', address: '10.1.1.5', owner: 'plugin', purpose: 'gateway', options: {} },
    {
      poolId: 'p1',
      owner: 'plugin',
      purpose: 'endpoint',
      mac: '02:00:00:00:00:01',
      name: 'web',
      options: { q: 'r' },
    },
    { poolId: 'p1', given: '10.1.1.5' },
    { poolId: 'p1' },
  ])
})
