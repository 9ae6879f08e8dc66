import { MemoryCluster } from 'libcnm/testing'
import { serve, type Served } from './scene'

let store: MemoryCluster
let served: Served
beforeEach(async () => {
  store = new MemoryCluster()
  const cluster = { backend: store.backend(), host: { name: 'a', address: '192.0.2.10' } }
  served = await serve({ controller: { cluster } })
})
afterEach(async () => {
  await served.close()
  store.close()
})

test('overlay networks by Docker’s API; only attachable ones take containers by hand', async () => {
  const { ask, controller } = served
  for (const [Name, Attachable] of [
    ['open', true],
    ['closed', false],
  ])
    expect((await ask('POST', '/networks/create', { Name, Driver: 'overlay', Attachable })).status).toBe(201)
  expect((await ask('GET', '/networks/open')).json).toMatchObject({ Driver: 'overlay', Attachable: true })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false })
  const refused = await ask('POST', '/networks/closed/connect', { Container: 'c1' })
  expect([refused.status, refused.json.message]).toEqual([
    403,
    'Could not attach to network closed: network is not manually attachable',
  ])
  expect((await ask('POST', '/networks/open/connect', { Container: 'c1' })).status).toBe(200)
  expect(sandbox.endpoints().map(({ network }) => network.name)).toContain('open')
})
