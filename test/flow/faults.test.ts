/** Whole or nothing: each kernel call of each operation fails in turn; then everything is as before, and a retry succeeds. */
import { Controller } from 'libcnm'
import {
  faultSweep,
  type FaultSweepOptions,
  type KernelCall,
  type MockKernel,
  type Scene,
  type Snapshot,
} from 'libcnm/testing'

const open = (kernel: MockKernel) => Controller.open({ kernel, runDir: '/run/libcnm-test', hostId: 'test' })
/** A bridge that had a port once shows carrier otherwise than one that never had. */
const sweep = (scene: Scene, options: FaultSweepOptions = {}) =>
  faultSweep(scene, { normalise: withoutCarrier, ...options })
const withoutCarrier = (snapshot: Snapshot) =>
  JSON.parse(JSON.stringify(snapshot, (key, value) => (key === 'carrier' ? undefined : value)))
/** Links are deleted in the background, which tries again. */
const background = (call: KernelCall) => call.op === 'removeLink'

const NETWORK = {
  name: 'web',
  ipv6: true,
  ipam: { config: [{ subnet: '10.10.0.0/24' }, { subnet: 'fd00:10::/64' }] },
}

async function scene(kernel: MockKernel) {
  const controller = await open(kernel)
  const network = await controller.createNetwork(NETWORK)
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false })
  const endpoint = await network.createEndpoint({
    name: 'c1',
    ports: [{ containerPort: 80, hostPort: 8080, protocol: 'tcp' }],
  })
  return { controller, network, sandbox, endpoint }
}

test('createNetwork', () =>
  sweep(async kernel => {
    const controller = await open(kernel)
    return () => controller.createNetwork(NETWORK)
  }))

test('network.delete', () =>
  sweep(async kernel => {
    const { network, endpoint } = await scene(kernel)
    await endpoint.delete()
    return () => network.delete()
  }))

test('createSandbox', () =>
  sweep(async kernel => {
    const controller = await open(kernel)
    return () => controller.createSandbox({ containerId: 'c1', files: false })
  }))

test('sandbox.delete with an endpoint in it', () =>
  sweep(async kernel => {
    const { sandbox, endpoint } = await scene(kernel)
    await endpoint.join(sandbox)
    return () => sandbox.delete()
  }))

test('endpoint.join', () =>
  sweep(async kernel => {
    const { sandbox, endpoint } = await scene(kernel)
    return () => endpoint.join(sandbox)
  }))

test('endpoint.join as a second one that takes over the default route', () =>
  sweep(async kernel => {
    const { controller, sandbox, endpoint } = await scene(kernel)
    await endpoint.join(sandbox)
    const db = await controller.createNetwork({ name: 'db', ipam: { config: [{ subnet: '10.20.0.0/24' }] } })
    const second = await db.createEndpoint({ name: 'c1' })
    return () => second.join(sandbox, { priority: 10 })
  }))

test('endpoint.leave', () =>
  sweep(
    async kernel => {
      const { controller, sandbox, endpoint } = await scene(kernel)
      await endpoint.join(sandbox)
      return async () => {
        await endpoint.leave()
        await controller.settle()
      }
    },
    { mayAbsorb: background },
  ))

test('endpoint.updatePorts', () =>
  sweep(async kernel => {
    const { sandbox, endpoint } = await scene(kernel)
    await endpoint.join(sandbox)
    return () => endpoint.updatePorts(['9090:90', '8080:80'])
  }))
