/** A sandbox without a namespace, and the runtime that brings one later; and a sandbox that moves. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Controller, type Sandbox } from 'libcnm'
import { MockKernel } from 'libcnm/testing'
import {
  addressesOn,
  defaults,
  directory,
  fresh,
  inside,
  joined,
  later,
  linkNames,
  networkOf,
  open,
  refusal,
  sandboxOf,
  state,
} from './scene'

const names = (sandbox: Sandbox) => sandbox.endpoints().map(({ interfaceName }) => interfaceName)

test('what was joined before the namespace exists appears when it is handed over', async () => {
  const { kernel, controller } = await fresh()
  const web = await networkOf(controller, 'web', 1, { ipv6: true })
  const db = await networkOf(controller, 'db', 2)
  const sandbox = await sandboxOf(controller, 'c1', 'deferred')
  expect(sandbox.key).toBeUndefined()
  await kernel.settle()
  const before = kernel.snapshot()
  await joined(web, sandbox)
  const second = await joined(db, sandbox, { priority: 1 })
  expect(names(sandbox).sort()).toEqual(['eth0', 'eth1'])
  expect(sandbox.gateway).toEqual({})
  expect(await sandbox.statistics()).toEqual({})
  expect(kernel.snapshot()).toEqual(before)

  const runtime = kernel.spawn()
  const theirs = await kernel.open(runtime.path)
  await theirs.apply([{ op: 'setLink', link: 'lo', up: false }]) // as unshare leaves it
  theirs.close()
  await sandbox.setKey(runtime.path)
  const view = inside(kernel, sandbox)
  expect(view.links.find(({ name }) => name === 'lo')).toMatchObject({ up: true })
  expect(view.paths).toContain(runtime.path)
  expect(linkNames(view)).toEqual(['eth0', 'eth1', 'lo'])
  expect(defaults(view)).toEqual(['via 10.2.0.1 dev eth1', 'via fd00:1::1 dev eth0'])
  expect(sandbox.gateway.ipv4).toBe(second)
  expect(addressesOn(view, 'eth0').sort()).toEqual(['10.1.0.2/24', 'fd00:1::2/64'])

  await sandbox.delete()
  runtime.exit()
  await controller.settle()
  await kernel.settle()
  expect(kernel.snapshot()).toEqual(before)
})

test('an endpoint may leave again before there is a namespace, and its name of an interface is free', async () => {
  const { controller } = await fresh()
  const [a, b] = [await networkOf(controller, 'a', 1), await networkOf(controller, 'b', 2)]
  const sandbox = await sandboxOf(controller, 'c1', 'deferred')
  const first = await joined(a, sandbox)
  await first.leave()
  await joined(b, sandbox)
  expect(names(sandbox)).toEqual(['eth0'])
  await sandbox.delete()
  expect(b.endpoints()).toEqual([])
})

test.each(['own', 'deferred'])('setKey moves everything from one namespace to another (%s)', async mode => {
  const { kernel, controller } = await fresh({ firewall: 'none' })
  const network = await networkOf(controller, 'web', 1, { ipv6: true })
  const sandbox = await sandboxOf(controller, 'c1', mode)
  const endpoint = await network.createEndpoint({ name: 'c1', ports: ['8080:80'] })
  await endpoint.join(sandbox)
  const [first, second] = [kernel.spawn(), kernel.spawn()]
  if (mode === 'deferred') await sandbox.setKey(first.path)
  const before = { key: sandbox.key, ports: endpoint.ports, mac: endpoint.mac }
  expect(endpoint.ports).not.toEqual([])
  const watcher = await sandboxOf(controller, 'watcher')
  await joined(network, watcher)

  await sandbox.setKey(second.path)
  expect(sandbox.key).not.toBe(before.key)
  expect(kernel.netns(before.key)).toBeUndefined()
  expect(inside(kernel, sandbox).paths).toContain(second.path)
  expect(linkNames(inside(kernel, sandbox))).toEqual(['eth0', 'lo'])
  expect(defaults(inside(kernel, sandbox))).toEqual(['via 10.1.0.1 dev eth0', 'via fd00:1::1 dev eth0'])
  expect(endpoint).toMatchObject({ mac: before.mac, ports: before.ports })
  expect(watcher.resolveName('c1')).toEqual(['10.1.0.2'])
  expect(linkNames(kernel.netns(first.path))).toEqual(['lo'])
  expect(kernel.netns()?.links.filter(({ master }) => master === network.link)).toHaveLength(2)
  expect(await controller.check()).toEqual([])

  const key = sandbox.key
  await sandbox.setKey(second.path) // the same once more: nothing to do
  expect(sandbox.key).toBe(key)
  expect(await controller.check()).toEqual([])
  await joined(await networkOf(controller, 'db', 2), sandbox)
  expect(names(sandbox).sort()).toEqual(['eth0', 'eth1'])
})

test('a namespace that has links, or an index, of its own is no obstacle; a name that is taken is', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const sandbox = await sandboxOf(controller, 'c1')
  const runtime = kernel.spawn()
  const stack = await kernel.open(runtime.path)
  later(() => stack.close())
  await stack.apply([{ op: 'addLink', link: { kind: 'dummy', name: 'own0', index: 2 } }])
  await sandbox.setKey(runtime.path)
  const endpoint = await joined(network, sandbox)
  expect(linkNames(inside(kernel, sandbox))).toEqual(['eth0', 'lo', 'own0'])
  await endpoint.leave()
  await controller.settle()
  await stack.apply([{ op: 'addLink', link: { kind: 'dummy', name: 'eth0' } }])
  const before = state(kernel, controller)
  await expect(endpoint.join(sandbox)).rejects.toEqual(refusal('ERR_LINK_EXISTS'))
  expect(state(kernel, controller)).toEqual(before)
})

test('a route of the namespace that covers the network is refused', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const sandbox = await sandboxOf(controller, 'c1', 'deferred')
  await joined(network, sandbox)
  const runtime = kernel.spawn()
  const stack = await kernel.open(runtime.path)
  later(() => stack.close())
  await stack.apply([
    { op: 'addLink', link: { kind: 'dummy', name: 'vpn0', up: true } },
    { op: 'addRoute', route: { destination: '10.0.0.0/8', link: 'vpn0' } },
  ])
  const before = state(kernel, controller)
  await expect(sandbox.setKey(runtime.path)).rejects.toEqual(
    refusal('ERR_ROUTE_CONFLICT', /10\.1\.0\.2\/24.*10\.0\.0\.0\/8.*in the namespace/),
  )
  expect(state(kernel, controller)).toEqual(before)
  await stack.apply([{ op: 'removeRoute', route: { destination: '10.0.0.0/8', link: 'vpn0' } }])
  await sandbox.setKey(runtime.path)
})

test.each(['own', 'deferred'])(
  'a setKey that fails changes nothing, in memory, kernel and store (%s)',
  async mode => {
    const dataDir = directory()
    const kernel = new MockKernel()
    const controller = await open(kernel, { dataDir })
    const [a, b] = [
      await networkOf(controller, 'a', 1, { ipv6: true }),
      await networkOf(controller, 'b', 2, { ipv6: true }),
    ]
    const sandbox = await sandboxOf(controller, 'c1', mode)
    const endpoint = await a.createEndpoint({ name: 'c1', ports: ['8080:80'] })
    await endpoint.join(sandbox)
    await joined(b, sandbox)
    const watcher = await sandboxOf(controller, 'watcher')
    await joined(a, watcher)
    const runtime = kernel.spawn()
    await kernel.settle()
    const before = state(kernel, controller)
    const answers = () => [watcher.resolveName('c1'), sandbox.resolveName('watcher')]
    const heard = answers()

    // the second endpoint's veth cannot be made: the first one has moved already
    let born = 0
    kernel.failAt(call => call.op === 'addLink' && ++born === 2, 'ENOMEM')
    await expect(sandbox.setKey(runtime.path)).rejects.toMatchObject({ details: { errno: 'ENOMEM' } })
    await kernel.settle()
    expect(state(kernel, controller)).toEqual(before)
    expect(answers()).toEqual(heard)
    expect(await controller.check()).toEqual([])

    await controller.close()
    const again = await open(kernel, { dataDir })
    expect(again.network('a').endpoint('c1').inspect()).toEqual(
      (before as { endpoints: { id: string }[] }).endpoints.find(({ id }) => id === endpoint.id),
    )
    await again.sandbox('c1').setKey(runtime.path)
    expect(linkNames(inside(kernel, again.sandbox('c1')))).toEqual(['eth0', 'eth1', 'lo'])
    expect(await again.check()).toEqual([])
  },
)

test('the key must be a namespace, and the path absolute', async () => {
  const { kernel, controller } = await fresh()
  const sandbox = await sandboxOf(controller, 'c1', 'deferred')
  const before = state(kernel, controller)
  await expect(sandbox.setKey('/proc/424242/ns/net')).rejects.toEqual(refusal('ERR_NETNS_NOT_FOUND'))
  await expect(sandbox.setKey('netns')).rejects.toEqual(refusal('ERR_INVALID_OPTION', /absolute path/))
  expect(state(kernel, controller)).toEqual(before)
})

test('the files of a sandbox are there from the start and follow the move', async () => {
  const runDir = directory()
  const kernel = new MockKernel()
  const controller = await Controller.open({ kernel, runDir, hostId: 'flow' })
  later(() => controller.close())
  const network = await networkOf(controller, 'web', 1)
  const sandbox = await controller.createSandbox({ containerId: 'c1', hostname: 'box', mode: 'deferred' })
  const hosts = () => readFileSync(sandbox.files?.hosts ?? '', 'utf8')
  expect(readFileSync(sandbox.files?.hostname ?? '', 'utf8')).toBe('box\n')
  await joined(network, sandbox)
  await sandbox.setKey(kernel.spawn().path)
  expect(hosts()).toMatch(/^10\.1\.0\.2\s+box$/m)
  kernel.failNext('EIO', 'addLink')
  await expect(sandbox.setKey(kernel.spawn().path)).rejects.toMatchObject({ code: 'ERR_KERNEL' })
  expect(hosts()).toMatch(/^10\.1\.0\.2\s+box$/m)
  await sandbox.delete()
  expect(existsSync(join(runDir, 'files', sandbox.id.slice(0, 12)))).toBe(false)
})
