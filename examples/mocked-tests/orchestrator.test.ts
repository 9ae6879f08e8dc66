/**
 * How to test a program that uses libcnm: without root, without a network, in milliseconds. `MockKernel` is a model of
 * Linux in memory; everything else is the library itself. So a test asks what is there, not what was called.
 */
import { Controller } from 'libcnm'
import { MockDriver, MockKernel } from 'libcnm/testing'
import { Orchestrator } from './orchestrator'

let kernel: MockKernel
let controller: Controller
let orchestrator: Orchestrator

beforeEach(async () => {
  kernel = new MockKernel({
    // The machine of the test: one card, and the way to the world.
    hardware: [{ name: 'eth0', addresses: ['192.0.2.10/24'], gateways: ['192.0.2.1'] }],
  })
  // No dataDir: nothing is written. The paths are those of the model.
  controller = await Controller.open({ kernel, runDir: '/run/example' })
  orchestrator = new Orchestrator(controller)
})
afterEach(() => controller.close())

test('a service has an interface on each of its networks; the first one is its way out', async () => {
  const key = await orchestrator.start({ name: 'api', networks: ['web', 'db'] })

  // What `ip` would show inside the container:
  const inside = kernel.netns(key)
  expect(inside?.links.map(({ name }) => name)).toEqual(['eth0', 'eth1', 'lo'])
  const address = controller.network('web').endpoint('api').ipv4
  expect(inside?.addresses).toContainEqual(expect.objectContaining({ link: 'eth0', address }))
  expect(inside?.routes).toContainEqual(expect.objectContaining({ destination: '0.0.0.0/0', link: 'eth0' }))

  // ... and on the host: a bridge for each network, with one port each.
  const links = kernel.netns()?.links ?? []
  for (const network of controller.networks())
    expect(links.filter(({ master }) => master === network.link)).toHaveLength(1)
})

test('services on one network find one another by name', async () => {
  await orchestrator.start({ name: 'api', networks: ['web'] })
  await orchestrator.start({ name: 'front', networks: ['web'] })
  const [address] = controller.network('web').endpoint('api').ipv4?.split('/') ?? []
  expect(controller.sandbox('front').resolveName('api')).toEqual([address])
})

test('stopping the last service of a network removes the network, and leaves the machine as it was', async () => {
  const before = kernel.snapshot() // all there is, as plain data
  await orchestrator.start({ name: 'api', networks: ['web', 'db'] })
  await orchestrator.start({ name: 'front', networks: ['web'] })
  await orchestrator.stop('api')
  expect(controller.networks().map(({ name }) => name)).toEqual(['web'])
  await orchestrator.stop('front')
  await controller.settle() // links are deleted in the background
  expect(kernel.snapshot()).toEqual(before)
})

test('when a published port is taken, nothing of the service is left', async () => {
  await orchestrator.start({ name: 'first', networks: ['web'], ports: ['8080:80'] })
  const before = kernel.snapshot()
  await expect(
    orchestrator.start({ name: 'second', networks: ['lonely'], ports: ['8080:80'] }),
  ).rejects.toMatchObject({ code: 'ERR_PORT_IN_USE' })
  await controller.settle()
  expect(kernel.snapshot()).toEqual(before)
  expect(controller.networks().map(({ name }) => name)).toEqual(['web'])
})

test('whichever call of the kernel fails, the service is there whole or not at all', async () => {
  const service = { name: 'api', networks: ['web', 'db'] }
  const first = kernel.calls
  await orchestrator.start(service)
  const calls = kernel.calls - first
  await orchestrator.stop('api')
  await controller.settle()
  const before = kernel.snapshot()

  for (let n = 1; n <= calls; n++) {
    kernel.failAt(kernel.calls + n, 'ENOMEM') // the n-th call from now, once
    const started = await orchestrator.start(service).then(
      () => true,
      () => false,
    )
    kernel.clearFaults()
    if (started) await orchestrator.stop('api')
    await controller.settle()
    expect(kernel.snapshot()).toEqual(before)
  }
})

test('a driver of somebody else’s, played by a script', async () => {
  const driver = new MockDriver({ name: 'sdn' })
  controller.registerDriver(driver)
  await controller.createNetwork({ name: 'fabric', driver: 'sdn' })

  driver.reply('join', new Error('no port left on the switch'))
  await expect(orchestrator.start({ name: 'api', networks: ['fabric'] })).rejects.toThrow('no port left')
  expect(controller.sandboxes()).toEqual([])
  expect(driver.callsOf('deleteEndpoint')).toHaveLength(1) // the driver was told that it came to nothing
  driver.assertNothingPending()
})

test('what somebody else breaks is found and mended', async () => {
  const key = await orchestrator.start({ name: 'api', networks: ['web'] })
  const container = await kernel.open(key)
  await container.apply([{ op: 'removeLink', link: 'eth0' }]) // a clumsy program in the container
  container.close()

  expect((await controller.check()).map(({ message }) => message)).toEqual([
    'eth0 of sandbox api (network web) is gone',
  ])
  await controller.repair()
  expect(kernel.netns(key)?.links.map(({ name }) => name)).toEqual(['eth0', 'lo'])
})
