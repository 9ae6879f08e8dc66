/** Whole or nothing: each kernel call of each operation fails in turn; then everything is as before, and a retry succeeds. */
import { Controller, type Sandbox } from 'libcnm'
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

test('network.createEndpoint makes no kernel call', async () => {
  const { calls } = await sweep(async kernel => {
    const { network } = await scene(kernel)
    return () => network.createEndpoint({ name: 'c2' })
  })
  expect(calls).toBe(0)
})

test('endpoint.delete by force', () =>
  sweep(
    async kernel => {
      const { controller, sandbox, endpoint } = await scene(kernel)
      await endpoint.join(sandbox)
      return async () => {
        await endpoint.delete({ force: true })
        await controller.settle()
      }
    },
    { mayAbsorb: background },
  ))

test('endpoint.leave of the gateway, with another one to take over', () =>
  sweep(
    async kernel => {
      const { controller, sandbox, endpoint } = await scene(kernel)
      await endpoint.join(sandbox)
      const db = await controller.createNetwork({
        name: 'db',
        ipam: { config: [{ subnet: '10.20.0.0/24' }] },
      })
      await (await db.createEndpoint({ name: 'c1' })).join(sandbox)
      return async () => {
        await endpoint.leave()
        await controller.settle()
      }
    },
    { mayAbsorb: background },
  ))

test('endpoint.join with sysctls, routes, limits and link-local addresses', () =>
  sweep(async kernel => {
    const { network, sandbox } = await scene(kernel)
    const endpoint = await network.createEndpoint({
      name: 'c2',
      linkLocal: ['169.254.7.7'],
      bandwidth: { ingress: 1_000_000, egress: 2_000_000 },
    })
    return () =>
      endpoint.join(sandbox, {
        sysctls: { 'net.ipv4.conf.IFNAME.rp_filter': '2' },
        routes: [
          { destination: '172.30.0.0/16', gateway: '10.10.0.9' },
          { destination: '172.31.0.0/16', type: 'unreachable' },
        ],
      })
  }))

test('endpoint.setBandwidth, from none and from some', async () => {
  for (const bandwidth of [{}, { ingress: 5_000_000, egress: 6_000_000 }])
    await sweep(async kernel => {
      const { network, sandbox } = await scene(kernel)
      const endpoint = await network.createEndpoint({ name: 'c2', bandwidth })
      await endpoint.join(sandbox)
      return () => endpoint.setBandwidth({ ingress: 1_000_000, egress: 2_000_000 })
    })
})

test('limits of an interface that has no end on the host: join, setBandwidth, leave, repair', async () => {
  const bandwidth = { ingress: 5_000_000, egress: 6_000_000 }
  const alone = async (kernel: MockKernel, limits: object) => {
    const { controller, sandbox } = await scene(kernel)
    const host = await kernel.open()
    await host.apply([{ op: 'addLink', link: { kind: 'dummy', name: 'lan0', up: true } }])
    const network = await controller.createNetwork({
      name: 'lan',
      driver: 'macvlan',
      options: { parent: 'lan0' },
    })
    return { controller, sandbox, endpoint: await network.createEndpoint({ name: 'c3', bandwidth: limits }) }
  }
  await sweep(async kernel => {
    const { endpoint, sandbox } = await alone(kernel, bandwidth)
    return () => endpoint.join(sandbox)
  })
  for (const limits of [{}, bandwidth])
    for (const wanted of [{ ingress: 1_000_000 }, { ingress: null, egress: null }])
      await sweep(async kernel => {
        const { endpoint, sandbox } = await alone(kernel, limits)
        await endpoint.join(sandbox)
        return () => endpoint.setBandwidth(wanted)
      })
  await sweep(
    async kernel => {
      const { controller, endpoint, sandbox } = await alone(kernel, bandwidth)
      await endpoint.join(sandbox)
      return async () => {
        await endpoint.leave()
        await controller.settle()
      }
    },
    { mayAbsorb: background },
  )
})

test('sandbox.rename and sandbox.refresh', async () => {
  for (const act of [
    (sandbox: Sandbox) => sandbox.rename('anew'),
    (sandbox: Sandbox) => sandbox.refresh({ hostname: 'box' }),
  ])
    await sweep(async kernel => {
      const { sandbox, endpoint } = await scene(kernel)
      await endpoint.join(sandbox)
      return () => act(sandbox)
    })
})

test.each(['own', 'deferred'])('sandbox.setKey (%s)', mode =>
  sweep(
    async kernel => {
      const { controller, network } = await scene(kernel)
      const db = await controller.createNetwork({
        name: 'db',
        ipam: { config: [{ subnet: '10.20.0.0/24' }] },
      })
      const sandbox = await controller.createSandbox({ containerId: 'c2', mode, files: false })
      for (const each of [network, db]) await (await each.createEndpoint({ name: 'c2' })).join(sandbox)
      const { path } = kernel.spawn()
      return () => sandbox.setKey(path)
    },
    // The old namespace is left behind when the new one works: what cannot be cleared there is for check and repair.
    {
      skip: ({ op, details }) =>
        op === 'removeLink' || (op === 'remove' && !String(details.path).endsWith('-b')),
    },
  ),
)

test('createNetwork that adopts a bridge, and its delete', async () => {
  const adopted = { ...NETWORK, options: { name: 'mybr0', mtu: 1400 } }
  const withBridge = async (kernel: MockKernel) => {
    const host = await kernel.open()
    await host.apply([{ op: 'addLink', link: { kind: 'bridge', name: 'mybr0' } }])
    host.close()
    return open(kernel)
  }
  await sweep(async kernel => {
    const controller = await withBridge(kernel)
    return () => controller.createNetwork(adopted)
  })
  await sweep(async kernel => {
    const controller = await withBridge(kernel)
    const network = await controller.createNetwork(adopted)
    return () => network.delete()
  })
})

test('Controller.open with the predefined networks and warm sandboxes', () =>
  sweep(
    async kernel => {
      let controller: Controller | undefined
      return {
        run: async () => {
          controller = await Controller.open({
            kernel,
            runDir: '/run/libcnm-test',
            hostId: 'test',
            predefined: true,
            warmSandboxes: 2,
          })
        },
        close: () => controller?.close(),
      }
    },
    // Without it a controller works as well; only some losses are found by check() alone.
    { mayAbsorb: ({ op }) => op === 'watchLosses' },
  ))
