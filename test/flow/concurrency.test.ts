/** Many operations at once on the same things: each is whole or refused, and the end is consistent. */
import { type Controller, type Endpoint, isCnmError, type Sandbox } from 'libcnm'
import type { MockKernel } from 'libcnm/testing'
import { addressesOn, fresh, inside, joined, linkNames, networkOf, sandboxOf } from './scene'

/** What must hold whenever nothing is under way. */
export async function consistent(kernel: MockKernel, controller: Controller): Promise<void> {
  await controller.settle()
  await kernel.settle()
  expect(await controller.check()).toEqual([])
  const endpoints = controller.networks().flatMap(network => network.endpoints())
  for (const network of controller.networks()) {
    const addresses = network.endpoints().flatMap(({ ipv4 }) => ipv4 ?? [])
    expect(new Set(addresses).size).toBe(addresses.length)
    const names = network.endpoints().map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
  }
  for (const sandbox of controller.sandboxes()) {
    const inThere = endpoints.filter(endpoint => endpoint.sandbox === sandbox)
    expect(sandbox.endpoints().sort(byId)).toEqual(inThere.sort(byId))
    if (!sandbox.stack || sandbox.mode === 'host') continue
    const view = inside(kernel, sandbox)
    expect(linkNames(view)).toEqual(
      ['lo', ...inThere.map(({ interfaceName }) => interfaceName as string)].sort(),
    )
    for (const { interfaceName, ipv4 } of inThere)
      if (ipv4) expect(addressesOn(view, interfaceName as string)).toContain(ipv4)
  }
  const veths = kernel.netns()?.links.filter(({ kind }) => kind === 'veth') ?? []
  expect(veths).toHaveLength(
    endpoints.filter(({ sandbox, network }) => sandbox?.stack && network.driver === 'bridge').length,
  )
}

const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1)

/** Waits for all; errors must be refusals of the model, not accidents. */
async function settled(work: Promise<unknown>[]): Promise<string[]> {
  return (await Promise.allSettled(work)).map(outcome => {
    if (outcome.status === 'fulfilled') return 'ok'
    if (!isCnmError(outcome.reason)) throw outcome.reason
    expect(outcome.reason.rollback).toBeUndefined()
    expect(['internal', 'kernel']).not.toContain(outcome.reason.kind)
    return outcome.reason.code
  })
}

test('two hundred endpoints made, joined, left and deleted at once on one network', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const work = Array.from({ length: 200 }, async (_, n) => {
    const sandbox = await sandboxOf(controller, `c${n}`)
    const endpoint = await joined(network, sandbox)
    if (n % 2) return endpoint
    await endpoint.leave()
    if (n % 4) await endpoint.join(sandbox)
    else await endpoint.delete()
    return endpoint
  })
  expect(await settled(work)).toEqual(Array.from({ length: 200 }, () => 'ok'))
  await consistent(kernel, controller)
  expect(network.endpoints()).toHaveLength(150)
  expect(new Set(network.endpoints().map(({ ipv4 }) => ipv4)).size).toBe(150)
  await settled(controller.sandboxes().map(sandbox => sandbox.delete()))
  await network.delete()
  await controller.settle()
  await kernel.settle()
  expect(linkNames(kernel.netns())).toEqual(['eth0', 'lo'])
  expect(kernel.snapshot().namespaces).toHaveLength(1)
})

test('two hundred operations of every kind thrown at one sandbox and one network', async () => {
  for (let seed = 1; seed <= 3; seed++) {
    const { kernel, controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const sandbox = await sandboxOf(controller, 'c1')
    const endpoints: Endpoint[] = [await network.createEndpoint({ name: 'e0' })]
    let state = seed
    const random = (below: number) => {
      state = (state * 1103515245 + 12345) % 2 ** 31
      return Math.floor((state / 2 ** 31) * below)
    }
    const pick = () => endpoints[random(endpoints.length)] as Endpoint
    const acts: (() => Promise<unknown>)[] = [
      async () => endpoints.push(await network.createEndpoint({ name: `e${random(20)}` })),
      () => pick().join(sandbox),
      () => pick().leave(),
      () => pick().leave({ force: true }),
      () => pick().delete(),
      () => pick().delete({ force: true }),
      () => pick().updatePorts(random(2) ? ['8080:80'] : []),
      () => sandbox.rename(`r${random(5)}`),
      () => sandbox.refresh({ hostname: `h${random(5)}` }),
      () => sandbox.setKey(kernel.spawn().path),
      () => network.update({ labels: { n: String(random(9)) } }),
      () => network.delete(),
      () => controller.repair(),
      () => controller.gc({ containerIds: ['c1'] }),
    ]
    await settled(Array.from({ length: 200 }, () => acts[random(acts.length)]?.() ?? Promise.resolve()))
    await consistent(kernel, controller)
  }
})

test('operations on one endpoint take effect in the order in which they were asked for', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const [one, two] = [await sandboxOf(controller, 'one'), await sandboxOf(controller, 'two')]
  const endpoint = await network.createEndpoint({ name: 'c1' })
  expect(
    await settled([
      endpoint.join(one),
      endpoint.leave(),
      endpoint.join(two),
      endpoint.join(one),
      endpoint.leave(),
      endpoint.leave(),
      endpoint.join(one),
      endpoint.delete(),
      endpoint.delete({ force: true }),
      endpoint.join(one),
    ]),
  ).toEqual([
    'ok',
    'ok',
    'ok',
    'ERR_ENDPOINT_JOINED',
    'ok',
    'ERR_ENDPOINT_NOT_JOINED',
    'ok',
    'ERR_ENDPOINT_IN_USE',
    'ok',
    'ERR_GONE',
  ])
  await consistent(kernel, controller)
})

test('of many that want one name, one container, one address, one endpoint: one gets it', async () => {
  const { kernel, controller } = await fresh()
  const winners = (codes: string[], loser: string) => {
    expect(codes.filter(code => code === 'ok')).toHaveLength(1)
    expect(new Set(codes)).toEqual(new Set(['ok', loser]))
  }
  const ten = <T>(make: (n: number) => Promise<T>) => Array.from({ length: 10 }, (_, n) => make(n))
  winners(await settled(ten(n => networkOf(controller, 'web', n + 1))), 'ERR_NETWORK_EXISTS')
  winners(await settled(ten(n => networkOf(controller, `same${n}`, 100))), 'ERR_POOL_OVERLAP')
  winners(
    await settled(ten(n => networkOf(controller, `bridge${n}`, n + 120, { options: { name: 'mybr0' } }))),
    'ERR_LINK_CONFLICT',
  )
  winners(await settled(ten(() => sandboxOf(controller, 'c1'))), 'ERR_SANDBOX_EXISTS')
  const network = controller.network('web')
  const subnet = network.ipam[0]?.subnet.replace(/0\/24$/, '') ?? ''
  winners(await settled(ten(() => network.createEndpoint({ name: 'c1' }))), 'ERR_ENDPOINT_EXISTS')
  winners(
    await settled(ten(n => network.createEndpoint({ name: `a${n}`, ipv4: `${subnet}99` }))),
    'ERR_ADDRESS_IN_USE',
  )
  const sandboxes: Sandbox[] = []
  for (let n = 0; n < 10; n++) sandboxes.push(await sandboxOf(controller, `s${n}`))
  const endpoint = network.endpoint('c1')
  winners(await settled(sandboxes.map(sandbox => endpoint.join(sandbox))), 'ERR_ENDPOINT_JOINED')
  await consistent(kernel, controller)
})

test('a network that is deleted while its bridge name is asked for again: never a network without its bridge', async () => {
  for (let round = 0; round < 10; round++) {
    const { kernel, controller } = await fresh()
    const old = await networkOf(controller, 'old', 1, { options: { name: 'mybr0' } })
    const codes = await settled([
      old.delete(),
      networkOf(controller, 'new', 2, { options: { name: 'mybr0' } }),
    ])
    expect(codes[0]).toBe('ok')
    expect(linkNames(kernel.netns()).includes('mybr0')).toBe(codes[1] === 'ok')
    expect(await controller.check()).toEqual([])
  }
})

test('deleting a sandbox while others join it: who is too late is told so', async () => {
  const { kernel, controller } = await fresh()
  const networks = await Promise.all([1, 2, 3, 4].map(n => networkOf(controller, `n${n}`, n)))
  const sandbox = await sandboxOf(controller, 'c1')
  const endpoints = await Promise.all(networks.map(network => network.createEndpoint({ name: 'c1' })))
  const codes = await settled([
    ...endpoints.slice(0, 2).map(endpoint => endpoint.join(sandbox)),
    sandbox.delete(),
    ...endpoints.slice(2).map(endpoint => endpoint.join(sandbox)),
  ])
  expect(codes.filter(code => code !== 'ok')).toEqual(codes.filter(code => code === 'ERR_GONE'))
  expect(controller.sandboxes()).toEqual([])
  await consistent(kernel, controller)
})
