/** A process that ends, and the next one that takes over what it left: same kernel, same store. */
import { type Controller, isCnmError } from 'libcnm'
import { anonymous, MockDriver, MockIpamDriver, MockKernel } from 'libcnm/testing'
import { LmdbStore } from '../../lib/store/lmdb'
import { directory, inside, joined, linkNames, networkOf, open, refusal, sandboxOf, state } from './scene'

type Options = Parameters<typeof open>[1]

/** Two networks, two sandboxes, three endpoints of which one is not joined. */
async function scene(options: Options = {}) {
  const kernel = new MockKernel()
  const dataDir = directory()
  const controller = await open(kernel, { dataDir, ...options })
  const web = await networkOf(controller, 'web', 1, { ipv6: true, labels: { a: '1' } })
  const db = await networkOf(controller, 'db', 2, { internal: true })
  const c1 = await controller.createSandbox({ containerId: 'c1', files: false, labels: { b: '2' } })
  const c2 = await sandboxOf(controller, 'c2')
  const published = await web.createEndpoint({ name: 'c1', ports: ['8080:80'], aliases: ['api'] })
  await published.join(c1, { priority: 3, routes: [{ destination: '172.30.0.0/16', gateway: '10.1.0.9' }] })
  await joined(db, c1)
  await joined(web, c2)
  await db.createEndpoint({ name: 'spare' })
  await kernel.settle()
  return { kernel, dataDir, controller, again: () => open(kernel, { dataDir, ...options }) }
}

const names = (list: { name: string }[]) => list.map(({ name }) => name).sort()

test('everything is as it was, and nothing is touched', async () => {
  const { kernel, controller, again } = await scene()
  const before = state(kernel, controller)
  await controller.close()
  expect(kernel.openStacks()).toEqual([])
  const next = await again()
  expect(state(kernel, next)).toEqual(before)
  expect(await next.check()).toEqual([])
  expect(next.network('web').endpoint('c1').sandbox).toBe(next.sandbox('c1'))
  expect(next.sandbox('c1').gateway.ipv4).toBe(next.network('web').endpoint('c1'))
  expect(next.sandbox('c2').resolveName('api')).toEqual(['10.1.0.2'])
  expect(next.network('web').created).toEqual(controller.network('web').created)
})

test('what was taken stays taken, and all can go on and end', async () => {
  const { kernel, controller, again } = await scene()
  await controller.close()
  const next = await again()
  const web = next.network('web')
  await expect(networkOf(next, 'other', 1)).rejects.toEqual(refusal('ERR_POOL_OVERLAP'))
  await expect(web.createEndpoint({ name: 'x', ipv4: '10.1.0.3' })).rejects.toEqual(
    refusal('ERR_ADDRESS_IN_USE'),
  )
  await expect(sandboxOf(next, 'c1')).rejects.toEqual(refusal('ERR_SANDBOX_EXISTS'))
  const fourth = await joined(web, await sandboxOf(next, 'c3'))
  expect(fourth.ipv4).toBe('10.1.0.4/24')
  for (const sandbox of next.sandboxes()) await sandbox.delete()
  for (const network of next.networks()) {
    for (const endpoint of network.endpoints()) await endpoint.delete()
    await network.delete()
  }
  await next.settle()
  await kernel.settle()
  expect(linkNames(kernel.netns())).toEqual(['eth0', 'lo'])
  expect(kernel.snapshot().namespaces).toHaveLength(1)
})

test('a shared namespace is that sandbox’s, not that of whoever has the container’s name later', async () => {
  const kernel = new MockKernel()
  const dataDir = directory()
  const controller = await open(kernel, { dataDir })
  const first = await sandboxOf(controller, 'first')
  await sandboxOf(controller, 'kept', 'container:first')
  await first.delete({ force: true })
  const second = await sandboxOf(controller, 'first')
  await sandboxOf(controller, 'sharer', 'container:first')
  expect(controller.sandbox('kept').key).toBeUndefined()
  expect(controller.sandbox('sharer').key).toBe(second.key)
  await controller.sandbox('sharer').delete()
  await second.delete()
  const third = await sandboxOf(controller, 'first')
  await sandboxOf(controller, 'sharer', 'container:first')
  await controller.close()
  const next = await open(kernel, { dataDir })
  expect(names(next.sandboxes().map(({ containerId }) => ({ name: containerId })))).toEqual([
    'first',
    'sharer',
  ])
  expect(next.sandbox('sharer').key).toBe(third.key)
})

test('what was broken meanwhile is mended at the start', async () => {
  const { kernel, controller, again } = await scene()
  const before = anonymous(kernel.snapshot())
  const { key } = controller.sandbox('c1')
  const bridge = controller.network('web').link ?? ''
  await controller.close()
  const [host, sandbox] = [await kernel.open(), await kernel.open(key)]
  await host.apply([{ op: 'removeLink', link: bridge }])
  await sandbox.apply([{ op: 'removeLink', link: 'eth1' }])
  for (const stack of [host, sandbox]) stack.close()
  const next = await again()
  expect(await next.check()).toEqual([])
  await kernel.settle()
  expect(anonymous(kernel.snapshot())).toEqual(before)
})

test('containers whose namespace is gone, or that are not named as alive, are swept', async () => {
  const { kernel, controller, dataDir } = await scene()
  await kernel.remove(controller.sandbox('c1').key ?? '')
  await controller.close()
  const next = await open(kernel, { dataDir })
  expect(next.sandboxes().map(({ containerId }) => containerId)).toEqual(['c2'])
  expect(names(next.network('web').endpoints())).toEqual(['c2'])
  await next.settle()
  expect(await next.check()).toEqual([])
  await next.close()
  const last = await open(kernel, { dataDir, activeSandboxes: [] })
  expect(last.sandboxes()).toEqual([])
  await last.settle()
  expect(names(last.networks())).toEqual(['db', 'web'])
  expect(await last.check()).toEqual([])
})

test('after a reboot networks are made anew, and sandboxes are gone', async () => {
  const { kernel, controller, again } = await scene()
  const [web, db] = [controller.network('web'), controller.network('db')]
  await controller.close()
  kernel.reboot()
  const next = await again()
  expect(names(next.networks())).toEqual(['db', 'web'])
  expect(next.sandboxes()).toEqual([])
  expect(names(next.network('db').endpoints())).toEqual(['spare'])
  expect(linkNames(kernel.netns())).toEqual([web.link, db.link, 'eth0', 'lo'].sort())
  expect(await next.check()).toEqual([])
})

test('deferred, moved, host and shared sandboxes come back as they are', async () => {
  const kernel = new MockKernel()
  const dataDir = directory()
  const controller = await open(kernel, { dataDir, predefined: true })
  const web = await networkOf(controller, 'web', 1)
  const waiting = await sandboxOf(controller, 'waiting', 'deferred')
  await joined(web, waiting)
  const moved = await sandboxOf(controller, 'moved', 'deferred')
  await joined(web, moved)
  const runtime = kernel.spawn()
  await moved.setKey(runtime.path)
  await joined(controller.network('host'), await sandboxOf(controller, 'hosted', 'host'))
  await sandboxOf(controller, 'sharer', 'container:moved')
  const before = state(kernel, controller)
  await controller.close()
  const next = await open(kernel, { dataDir, predefined: true })
  expect(state(kernel, next)).toEqual(before)
  expect(next.sandbox('sharer').key).toBe(next.sandbox('moved').key)
  await next.sandbox('waiting').setKey(kernel.spawn().path)
  expect(linkNames(inside(kernel, next.sandbox('waiting')))).toEqual(['eth0', 'lo'])
  expect(await next.check()).toEqual([])
})

test('a driver and an IPAM driver without memory are told again', async () => {
  const driver = new MockDriver()
  const kernel = new MockKernel()
  const dataDir = directory()
  const forgetful = () => new MockIpamDriver({ name: 'forgetful', capabilities: { requiresReplay: true } })
  const first = await open(kernel, { dataDir, drivers: [driver], ipamDrivers: [forgetful()] })
  const network = await first.createNetwork({
    name: 'web',
    driver: 'mock',
    ipam: { driver: 'forgetful', config: [{ subnet: '10.1.0.0/24' }] },
  })
  await joined(network, await sandboxOf(first, 'c1'))
  const before = state(kernel, first)
  await first.close()
  const ipam = forgetful()
  const second = await open(kernel, { dataDir, drivers: [new MockDriver()], ipamDrivers: [ipam] })
  expect(state(kernel, second)).toEqual(before)
  await expect(second.network('web').createEndpoint({ name: 'c2', ipv4: '10.1.0.2' })).rejects.toEqual(
    refusal('ERR_ADDRESS_IN_USE'),
  )
  await second.close()

  // without its driver the network is kept; its use says why it fails
  const third = await open(kernel, { dataDir, ipamDrivers: [forgetful()] })
  await expect(third.network('web').createEndpoint({ name: 'c2' })).rejects.toEqual(
    refusal('ERR_DRIVER_NOT_FOUND', /"mock" is not registered/),
  )
  await third.sandbox('c1').delete()
  await expect(third.network('web').delete()).rejects.toEqual(refusal('ERR_DRIVER_NOT_FOUND'))
  third.registerDriver(new MockDriver())
  await third.network('web').delete()
})

test('what networks are is on the disk when the call returns; what dies with the machine waits for no disk', async () => {
  const write = jest.spyOn(LmdbStore.prototype, 'write')
  try {
    const controller = await open(new MockKernel(), { dataDir: directory() })
    /** What is written: `KIND` or `KIND on the disk`. */
    const written = async <T>(work: () => Promise<T>): Promise<[T, string[]]> => {
      write.mockClear()
      const result = await work()
      const kinds = write.mock.calls.flatMap(([{ put = [], remove = [] }, options]) =>
        [...put, ...remove].map(({ kind }) => (options?.flush ? `${kind} on the disk` : kind)),
      )
      return [result, [...new Set(kinds)]]
    }
    const [web, made] = await written(() => networkOf(controller, 'web', 1))
    expect(made).toEqual(['network on the disk'])
    expect((await written(() => web.update({ labels: { a: '1' } })))[1]).toEqual(['network on the disk'])
    const [, lived] = await written(async () => {
      const sandbox = await sandboxOf(controller, 'c1')
      const endpoint = await joined(web, sandbox)
      await endpoint.updatePorts(['8080:80'])
      await endpoint.leave()
      await endpoint.delete()
      await sandbox.delete()
    })
    expect(lived.sort()).toEqual(['endpoint', 'sandbox'])
    expect((await written(() => web.delete()))[1].at(-1)).toBe('network on the disk')
  } finally {
    write.mockRestore()
  }
})

test('a second controller on the same store is refused, and the first is not disturbed', async () => {
  const { kernel, controller, again } = await scene()
  const before = state(kernel, controller)
  await expect(again()).rejects.toEqual(refusal('ERR_STORE_LOCKED'))
  expect(state(kernel, controller)).toEqual(before)
})

test('a start that fails, at whatever call of the kernel, harms nothing; the next one succeeds', async () => {
  const { kernel, controller, again } = await scene()
  const before = state(kernel, controller)
  await controller.close()
  const first = kernel.calls
  const undisturbed = await again()
  const calls = kernel.calls - first
  await undisturbed.close()
  expect(calls).toBeGreaterThan(10)
  for (let call = 1; call <= calls; call++) {
    kernel.failAt(kernel.calls + call, 'EIO')
    const opened: Controller | undefined = await again().catch((error: unknown) => {
      if (!isCnmError(error)) throw error
      return undefined
    })
    kernel.clearFaults()
    await opened?.close()
    const next = await again()
    expect(state(kernel, next)).toEqual(before)
    await next.close()
    expect(kernel.openStacks()).toEqual([])
  }
})
