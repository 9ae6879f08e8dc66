/** The options of `docker network create` that only mean something on networks that span hosts, by the real client. */
import { Controller } from 'libcnm'
import { type Api, createApi } from 'libcnm/api'
import { MemoryCluster } from 'libcnm/testing'
import { Scene } from './scene'

let scene: Scene
let store: MemoryCluster
let controller: Controller
let api: Api

beforeAll(async () => {
  scene = await Scene.open()
  store = new MemoryCluster()
  controller = await Controller.open({
    name: 'swarm-test',
    host: scene.host.path,
    runDir: `${scene.directory}/run`,
    predefined: true,
    cluster: { backend: store.backend(), host: { name: 'a', address: '192.0.2.1' } },
  })
  api = createApi(controller)
  await api.listen(scene.socket)
})
afterAll(async () => {
  await api?.close()
  for (const sandbox of controller.sandboxes()) await sandbox.delete({ force: true })
  for (const network of controller.networks({ type: 'custom' })) await network.delete()
  await controller?.close()
  store.close()
  await scene.close()
})

const create = (...words: string[]) => scene.docker('network', 'create', '-d', 'overlay', ...words)
const inspect = async (name: string) =>
  JSON.parse((await scene.docker('network', 'inspect', '--verbose', name)).out)[0]

test('--attachable: containers may be connected by hand, and to no other', async () => {
  expect(await create('--attachable', '--subnet', '10.77.0.0/24', 'open')).toMatchObject({ code: 0 })
  expect(await create('--subnet', '10.78.0.0/24', 'closed')).toMatchObject({ code: 0 })
  expect([(await inspect('open')).Attachable, (await inspect('closed')).Attachable]).toEqual([true, false])
  const sandbox = await controller.createSandbox({ containerId: 'c1' })
  expect(await scene.docker('network', 'connect', 'closed', 'c1')).toMatchObject({
    code: 1,
    error: expect.stringContaining('Could not attach to network closed: network is not manually attachable'),
  })
  expect(await scene.docker('network', 'connect', 'open', 'c1')).toMatchObject({ code: 0 })
  const link = await sandbox.stack?.link('eth0')
  const addresses = (await sandbox.stack?.addresses())?.filter(address => address.link === link?.index)
  expect(addresses?.map(({ address }) => address)).toContainEqual(
    expect.stringMatching(/^10\.77\.0\.\d+\/24$/),
  )
  expect(Object.keys((await inspect('open')).Containers)).toEqual(['c1'])
})

test('--ingress, --scope', async () => {
  expect(await create('--ingress', '--subnet', '10.79.0.0/24', 'mesh')).toMatchObject({ code: 0 })
  expect(await inspect('mesh')).toMatchObject({ Ingress: true, Driver: 'overlay' })
  expect((await scene.docker('network', 'prune', '-f')).out).not.toContain('mesh')
  expect(await create('--scope', 'swarm', '--subnet', '10.80.0.0/24', 'wide')).toMatchObject({ code: 0 })
  expect((await inspect('wide')).Scope).toBe('swarm')
  const { out } = await scene.docker('network', 'ls', '--filter', 'scope=swarm', '--format', '{{.Name}}')
  expect(out).toContain('wide\n')
  expect(await create('--scope', 'local', 'narrow')).toMatchObject({
    code: 1,
    error: expect.stringContaining('cannot downgrade network scope for overlay networks'),
  })
})
