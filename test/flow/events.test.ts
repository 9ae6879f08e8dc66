/** Every change is told, typed, in order. */
import type { CnmEvent, CnmEventOf } from 'libcnm'
import { fresh, joined, networkOf, sandboxOf } from './scene'

test('the story of a network, a sandbox and an endpoint', async () => {
  const { kernel, controller } = await fresh()
  const told: CnmEvent[] = []
  controller.on('*', event => told.push(event))
  const network = await networkOf(controller, 'web', 1)
  await network.update({ labels: { a: '1' } })
  const sandbox = await sandboxOf(controller, 'c1')
  const endpoint = await joined(network, sandbox)
  await endpoint.updatePorts(['8080:80'])
  await endpoint.setBandwidth({ egress: 1_000_000 })
  await sandbox.refresh({ hostname: 'box' })
  await sandbox.rename('anew')
  await sandbox.setKey(kernel.spawn().path)
  await endpoint.leave()
  await endpoint.join(sandbox)
  await sandbox.delete()
  await network.delete()
  expect(told.map(({ type }) => type)).toEqual([
    'network.create',
    'network.update',
    'sandbox.create',
    'endpoint.create',
    'endpoint.join',
    'endpoint.update', // ports
    'endpoint.update', // bandwidth
    'sandbox.update', // refresh
    'endpoint.update', // rename
    'sandbox.update',
    'sandbox.update', // setKey
    'endpoint.leave',
    'endpoint.join',
    'endpoint.leave',
    'endpoint.delete',
    'sandbox.delete',
    'network.delete',
  ])
  const join = told.find((event): event is CnmEventOf<'endpoint.join'> => event.type === 'endpoint.join')
  expect(join).toEqual({
    type: 'endpoint.join',
    time: expect.any(Number),
    network: { id: network.id, name: 'web', driver: 'bridge' },
    endpoint: { id: endpoint.id, name: 'c1' },
    sandbox: { id: sandbox.id, containerId: 'c1' },
  })
  expect(Math.abs(Date.now() - told[0]!.time)).toBeLessThan(60_000)
})

test('what is refused or fails is not told', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const sandbox = await sandboxOf(controller, 'c1')
  const endpoint = await network.createEndpoint({ name: 'c1' })
  const told: string[] = []
  controller.on('*', ({ type }) => told.push(type))
  await expect(networkOf(controller, 'web', 2)).rejects.toThrow()
  await expect(network.delete()).rejects.toThrow()
  kernel.failNext('EIO', 'addLink')
  await expect(endpoint.join(sandbox)).rejects.toThrow()
  expect(told).toEqual([])
})

test('a listener hears its type until it is taken off, once hears one, and a bad one harms nobody', async () => {
  const { controller } = await fresh()
  const heard: string[] = []
  const created = ({ network: { name } }: CnmEventOf<'network.create'>) => heard.push(name)
  controller.on('network.create', () => {
    throw new Error('mine')
  })
  controller.on('network.create', created)
  controller.once('network.create', ({ network }) => heard.push(`once ${network.name}`))
  const never = () => heard.push('never')
  controller.once('network.create', never)
  controller.off('network.create', never)
  await networkOf(controller, 'a', 1)
  await networkOf(controller, 'b', 2)
  controller.off('network.create', created)
  await networkOf(controller, 'c', 3)
  expect(heard).toEqual(['a', 'once a', 'b'])
})

describe('events()', () => {
  test('yields all from the call on, until the signal aborts', async () => {
    const { controller } = await fresh()
    const stop = new AbortController()
    const events = controller.events(stop.signal)
    await networkOf(controller, 'a', 1) // before anybody reads
    await sandboxOf(controller, 'c1')
    const types: string[] = []
    for await (const { type } of events) {
      types.push(type)
      if (type === 'sandbox.create') setTimeout(() => void controller.sandbox('c1').delete(), 1)
      if (type === 'sandbox.delete') setTimeout(() => stop.abort(), 1)
    }
    expect(types).toEqual(['network.create', 'sandbox.create', 'sandbox.delete'])
  })

  test('ends at once with a signal that was aborted, with a break, and with the controller', async () => {
    const { controller } = await fresh()
    const read = async (events: AsyncIterable<CnmEvent>) => {
      let count = 0
      for await (const _ of events) count++
      return count
    }
    expect(await read(controller.events(AbortSignal.abort()))).toBe(0)
    const broken = controller.events()
    await networkOf(controller, 'a', 1)
    for await (const event of broken) if (event.type === 'network.create') break
    const open = controller.events()
    const reading = read(open)
    await sandboxOf(controller, 'c1')
    await controller.close()
    expect(await reading).toBe(1)
  })
})
