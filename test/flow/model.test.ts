/**
 * Random sequences of public operations, several at a time, against a model a page long. The model says what each is to
 * answer; afterwards both say the same, and the kernel is as the library says.
 */
import fc from 'fast-check'
import { Controller, isCnmError, type Network, type Sandbox } from 'libcnm'
import { MockKernel } from 'libcnm/testing'
import { RUN } from './scene'

type NetworkName = 'n1' | 'n2' | 'n3'
/** No hexadecimal digits: a name must not be taken for the beginning of an id. */
type Container = 'x1' | 'x2' | 'x3'

interface Model {
  networks: Map<NetworkName, Map<string, { at?: Container; priority: number }>>
  containers: Set<Container>
}
interface Real {
  kernel: MockKernel
  controller: Controller
}

const SUBNET: Record<NetworkName, string> = { n1: '10.1.0.0/24', n2: '10.2.0.0/24', n3: '10.3.0.0/24' }

/** One operation: what the model answers (`ok` or a code), changing the model; and the real thing. */
interface Operation {
  name: string
  expect(model: Model): string
  run(real: Real): Promise<unknown>
}

const networkOf = ({ controller }: Real, name: NetworkName): Network => controller.network(name)
const sandboxOf = ({ controller }: Real, id: Container): Sandbox => controller.sandbox(id)

const operations = {
  createNetwork: (name: NetworkName): Operation => ({
    name: `create network ${name}`,
    expect(model) {
      if (model.networks.has(name)) return 'ERR_NETWORK_EXISTS'
      model.networks.set(name, new Map())
      return 'ok'
    },
    run: ({ controller }) => controller.createNetwork({ name, ipam: { config: [{ subnet: SUBNET[name] }] } }),
  }),
  deleteNetwork: (name: NetworkName): Operation => ({
    name: `delete network ${name}`,
    expect(model) {
      const endpoints = model.networks.get(name)
      if (!endpoints) return 'ERR_NETWORK_NOT_FOUND'
      if (endpoints.size) return 'ERR_NETWORK_IN_USE'
      model.networks.delete(name)
      return 'ok'
    },
    run: async real => networkOf(real, name).delete(),
  }),
  createSandbox: (id: Container): Operation => ({
    name: `create sandbox ${id}`,
    expect(model) {
      if (model.containers.has(id)) return 'ERR_SANDBOX_EXISTS'
      model.containers.add(id)
      return 'ok'
    },
    run: ({ controller }) => controller.createSandbox({ containerId: id, files: false }),
  }),
  deleteSandbox: (id: Container): Operation => ({
    name: `delete sandbox ${id}`,
    expect(model) {
      if (!model.containers.delete(id)) return 'ERR_SANDBOX_NOT_FOUND'
      for (const endpoints of model.networks.values())
        for (const [name, { at }] of endpoints) if (at === id) endpoints.delete(name)
      return 'ok'
    },
    run: async real => sandboxOf(real, id).delete(),
  }),
  createEndpoint: (on: NetworkName, name: string): Operation => ({
    name: `create endpoint ${name} on ${on}`,
    expect(model) {
      const endpoints = model.networks.get(on)
      if (!endpoints) return 'ERR_NETWORK_NOT_FOUND'
      if (endpoints.has(name)) return 'ERR_ENDPOINT_EXISTS'
      endpoints.set(name, { priority: 0 })
      return 'ok'
    },
    run: async real => networkOf(real, on).createEndpoint({ name }),
  }),
  join: (on: NetworkName, name: string, id: Container, priority: number): Operation => ({
    name: `join ${name} on ${on} to ${id} with priority ${priority}`,
    expect(model) {
      const endpoints = model.networks.get(on)
      if (!endpoints) return 'ERR_NETWORK_NOT_FOUND'
      const endpoint = endpoints.get(name)
      if (!endpoint) return 'ERR_ENDPOINT_NOT_FOUND'
      if (!model.containers.has(id)) return 'ERR_SANDBOX_NOT_FOUND'
      if (endpoint.at) return 'ERR_ENDPOINT_JOINED'
      if ([...endpoints.values()].some(({ at }) => at === id)) return 'ERR_ROUTE_CONFLICT' // one subnet, once
      Object.assign(endpoint, { at: id, priority })
      return 'ok'
    },
    run: async real => networkOf(real, on).endpoint(name).join(sandboxOf(real, id), { priority }),
  }),
  leave: (on: NetworkName, name: string, force: boolean): Operation => ({
    name: `${force ? 'force ' : ''}leave ${name} on ${on}`,
    expect(model) {
      const endpoints = model.networks.get(on)
      if (!endpoints) return 'ERR_NETWORK_NOT_FOUND'
      const endpoint = endpoints.get(name)
      if (!endpoint) return 'ERR_ENDPOINT_NOT_FOUND'
      if (!endpoint.at && !force) return 'ERR_ENDPOINT_NOT_JOINED'
      endpoint.at = undefined
      return 'ok'
    },
    run: async real => networkOf(real, on).endpoint(name).leave({ force }),
  }),
  deleteEndpoint: (on: NetworkName, name: string, force: boolean): Operation => ({
    name: `${force ? 'force ' : ''}delete ${name} on ${on}`,
    expect(model) {
      const endpoints = model.networks.get(on)
      if (!endpoints) return 'ERR_NETWORK_NOT_FOUND'
      const endpoint = endpoints.get(name)
      if (!endpoint) return 'ERR_ENDPOINT_NOT_FOUND'
      if (endpoint.at && !force) return 'ERR_ENDPOINT_IN_USE'
      endpoints.delete(name)
      return 'ok'
    },
    run: async real => networkOf(real, on).endpoint(name).delete({ force }),
  }),
  rename: (id: Container, to: string): Operation => ({
    name: `rename ${id} to ${to}`,
    expect(model) {
      if (!model.containers.has(id)) return 'ERR_SANDBOX_NOT_FOUND'
      const mine = [...model.networks.values()].flatMap(endpoints =>
        [...endpoints].filter(([, { at }]) => at === id).map(([name]) => ({ endpoints, name })),
      )
      if (mine.some(({ endpoints, name }) => name !== to && endpoints.has(to))) return 'ERR_ENDPOINT_EXISTS'
      for (const { endpoints, name } of mine) {
        const endpoint = endpoints.get(name)
        endpoints.delete(name)
        if (endpoint) endpoints.set(to, endpoint)
      }
      return 'ok'
    },
    run: async real => sandboxOf(real, id).rename(to),
  }),
  setKey: (id: Container): Operation => ({
    name: `set the key of ${id}`,
    expect: model => (model.containers.has(id) ? 'ok' : 'ERR_SANDBOX_NOT_FOUND'),
    run: async real => sandboxOf(real, id).setKey(real.kernel.spawn().path),
  }),
  upkeep: (repair: boolean): Operation => ({
    name: repair ? 'repair' : 'check',
    expect: () => 'ok',
    run: async ({ controller }) =>
      expect(await (repair ? controller.repair() : controller.check())).toEqual([]),
  }),
}

const network = fc.constantFrom<NetworkName>('n1', 'n2', 'n3')
const container = fc.constantFrom<Container>('x1', 'x2', 'x3')
const endpointName = fc.constantFrom('web', 'old', 'other')
const flag = fc.boolean()
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 3, arbitrary: network.map(operations.createNetwork) },
  { weight: 1, arbitrary: network.map(operations.deleteNetwork) },
  { weight: 3, arbitrary: container.map(operations.createSandbox) },
  { weight: 1, arbitrary: container.map(operations.deleteSandbox) },
  { weight: 5, arbitrary: fc.tuple(network, endpointName).map(args => operations.createEndpoint(...args)) },
  {
    weight: 8,
    arbitrary: fc
      .tuple(network, endpointName, container, fc.integer({ min: 0, max: 2 }))
      .map(args => operations.join(...args)),
  },
  { weight: 3, arbitrary: fc.tuple(network, endpointName, flag).map(args => operations.leave(...args)) },
  {
    weight: 2,
    arbitrary: fc.tuple(network, endpointName, flag).map(args => operations.deleteEndpoint(...args)),
  },
  { weight: 1, arbitrary: fc.tuple(container, endpointName).map(args => operations.rename(...args)) },
  { weight: 1, arbitrary: container.map(operations.setKey) },
  { weight: 1, arbitrary: flag.map(operations.upkeep) },
)

class Act implements fc.AsyncCommand<Model, Real> {
  constructor(readonly operation: Operation) {}
  check = () => true
  async run(model: Model, real: Real): Promise<void> {
    const wanted = this.operation.expect(model)
    expect(await answer(this.operation.run(real))).toBe(wanted)
    same(model, real)
  }
  toString = () => this.operation.name
}

async function answer(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'ok'
  } catch (error) {
    if (!isCnmError(error)) throw error
    expect(error.rollback).toBeUndefined()
    return error.code
  }
}

/** The library says what the model says: who is where, and who is the way out. */
function same({ networks, containers }: Model, { controller }: Real): void {
  const told = Object.fromEntries(
    controller
      .networks()
      .map(each => [
        each.name,
        Object.fromEntries(each.endpoints().map(({ name, sandbox }) => [name, sandbox?.containerId])),
      ]),
  )
  const known = Object.fromEntries(
    [...networks].map(([name, endpoints]) => [
      name,
      Object.fromEntries([...endpoints].map(([endpoint, { at }]) => [endpoint, at])),
    ]),
  )
  expect(told).toEqual(known)
  expect(
    controller
      .sandboxes()
      .map(({ containerId }) => containerId)
      .sort(),
  ).toEqual([...containers].sort())
  for (const id of containers) {
    const joined = [...networks].flatMap(([name, endpoints]) =>
      [...endpoints.values()].filter(({ at }) => at === id).map(({ priority }) => ({ name, priority })),
    )
    const best = joined.sort((a, b) => b.priority - a.priority || (a.name < b.name ? -1 : 1))[0]
    expect(controller.sandbox(id).gateway.ipv4?.network.name).toBe(best?.name)
  }
}

const open = (kernel: MockKernel) => Controller.open({ kernel, runDir: RUN, hostId: 'model' })

/** Nothing is under way: the kernel is as it should be, and when all is deleted nothing is left. */
async function finish({ kernel, controller }: Real): Promise<void> {
  await controller.settle()
  await kernel.settle()
  expect(await controller.check()).toEqual([])
  for (const sandbox of controller.sandboxes()) await sandbox.delete()
  for (const each of controller.networks()) {
    for (const endpoint of each.endpoints()) await endpoint.delete()
    await each.delete()
  }
  await controller.settle()
  await kernel.settle()
  const links = kernel.netns()?.links.map(({ name }) => name)
  expect(links).toEqual(['eth0', 'lo'])
  await controller.close()
  expect(kernel.openStacks()).toEqual([])
}

test('one after the other: every answer is the model’s', () =>
  fc.assert(
    fc.asyncProperty(
      fc.commands([operation.map(each => new Act(each))], { maxCommands: 60, size: '+1' }),
      async commands => {
        const kernel = new MockKernel()
        const real: Real = { kernel, controller: await open(kernel) }
        await fc.asyncModelRun(
          () => ({ model: { networks: new Map(), containers: new Set() } as Model, real }),
          commands,
        )
        await finish(real)
      },
    ),
    { numRuns: 40, seed: 20261124, endOnFailure: true },
  ))

test('several at once, with every order in which the kernel may answer: whole or refused, and consistent', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(operation, { minLength: 1, maxLength: 8 }), { maxLength: 8 }),
      fc.scheduler(),
      async (rounds, scheduler) => {
        const kernel = new MockKernel()
        const real: Real = { kernel, controller: await open(kernel) }
        for (const round of rounds) {
          const work = round.map(async each => {
            await scheduler.schedule(Promise.resolve(), each.name)
            return each.name === 'check' || each.name === 'repair' ? 'ok' : answer(each.run(real))
          })
          await scheduler.waitFor(Promise.all(work))
        }
        for (const sandbox of real.controller.sandboxes())
          expect(sandbox.endpoints().every(endpoint => endpoint.sandbox === sandbox)).toBe(true)
        await finish(real)
      },
    ),
    { numRuns: 40, seed: 20261124, endOnFailure: true },
  ))
