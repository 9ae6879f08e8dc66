/** Services on modelled hosts: what users' programs can do without root or etcd; every refusal, and what is left after it. */
import { CnmError, type Controller, type ControllerInput, type ServiceInput } from 'libcnm'
import { faultSweep, type KernelCall, MemoryBackend, MemoryCluster, MockKernel } from 'libcnm/testing'
import { LmdbStore } from '../../lib/store/lmdb'
import { directory, fresh, inside, joined, later, networkOf, open, refusal, sandboxOf, state } from './scene'

const published = (port: number) => [{ targetPort: 1, publishedPort: port }]
const PORTS = [{ port: 80, targetPort: 8080 }]

async function task(
  controller: Controller,
  name: string,
  service: { name: string; weight?: number } | string,
) {
  const sandbox = await sandboxOf(controller, name)
  const endpoint = await controller.network('web').createEndpoint({ name, service })
  await endpoint.join(sandbox)
  return { sandbox, endpoint }
}

test('a service, its tasks, its names and its rules', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1, { ipv6: true })
  const client = await sandboxOf(controller, 'client')
  await joined(network, client)
  const events: string[] = []
  controller.on('*', ({ type }) => type.startsWith('service') && events.push(type))
  const service = await controller.createService({
    name: 'api',
    network: 'web',
    aliases: ['backend'],
    ports: PORTS,
    labels: { tier: 'one' },
  })
  const { endpoint } = await task(controller, 'one', 'api')
  await task(controller, 'two', { name: service.id, weight: 0 })
  expect(controller.service('api').inspect()).toEqual({
    id: service.id,
    name: 'api',
    network: { id: network.id, name: 'web', driver: 'bridge' },
    created: expect.any(String),
    endpointMode: 'vip',
    affinity: 'none',
    aliases: ['backend'],
    labels: { tier: 'one' },
    ports: [{ port: 80, targetPort: 8080, protocol: 'tcp', mode: 'ingress' }],
    ipv4: expect.stringMatching(/^10\.1\.0\.\d+$/),
    ipv6: expect.stringMatching(/^fd00:1::/),
    tasks: [
      expect.objectContaining({ name: 'one', weight: 1, healthy: true, ipv4: endpoint.ipv4?.slice(0, -3) }),
      expect.objectContaining({ name: 'two', weight: 0, healthy: true }),
    ],
  })
  expect(client.resolveName('backend')).toEqual([service.ipv4])
  expect(client.resolveName('tasks.api')).toEqual([endpoint.ipv4?.slice(0, -3)])
  const texts = () => inside(kernel, client).transactions
  expect(texts().join('\n')).toContain(
    `${service.ipv4} . tcp . 80 : goto to4-${service.id.slice(0, 12)}-tcp-8080`,
  )
  // One transaction a change.
  const before = texts().length
  await endpoint.setHealth(false)
  expect(texts()).toHaveLength(before + 1)
  await service.update({ labels: { tier: 'two' } })
  expect(texts()).toHaveLength(before + 1)
  await controller.service(service.id.slice(0, 10)).delete()
  expect(texts()).toHaveLength(before + 2)
  expect(events).toEqual(['service.create', 'service.update', 'service.delete'])
  expect(endpoint.task?.serviceId).toBe(service.id)
})

const WRONG: [string, ServiceInput, Parameters<typeof refusal>][] = [
  ['no network of that name', { name: 'a', network: 'nowhere' }, ['ERR_NETWORK_NOT_FOUND']],
  ['a name that is none', { name: '-a-', network: 'web' }, ['ERR_INVALID_NAME']],
  ['a port that is none', { name: 'a', network: 'web', ports: [{ targetPort: 0 }] }, ['ERR_INVALID_OPTION']],
  [
    'one port twice',
    {
      name: 'a',
      network: 'web',
      ports: [
        { targetPort: 1, port: 80 },
        { targetPort: 2, port: 80 },
      ],
    },
    ['ERR_INVALID_OPTION', /port 80\/tcp is listed twice/],
  ],
  [
    'one published port twice',
    {
      name: 'a',
      network: 'web',
      ports: [
        { targetPort: 1, publishedPort: 80 },
        { targetPort: 2, publishedPort: 80 },
      ],
    },
    ['ERR_INVALID_OPTION', /published port 80\/tcp is listed twice/],
  ],
  [
    'an option with a slip',
    { name: 'a', network: 'web', endpointmode: 'vip' } as ServiceInput,
    ['ERR_INVALID_OPTION', /did you mean endpointMode/],
  ],
  [
    'dnsrr with a virtual IP',
    { name: 'a', network: 'web', endpointMode: 'dnsrr', ipv4: '10.1.0.9' },
    ['ERR_INVALID_OPTION', /needs endpointMode vip/],
  ],
  [
    'dnsrr in the mesh',
    { name: 'a', network: 'web', endpointMode: 'dnsrr', ports: [{ targetPort: 1, publishedPort: 2 }] },
    ['ERR_INVALID_OPTION', /use mode host/],
  ],
  [
    'a virtual IP of elsewhere',
    { name: 'a', network: 'web', ipv4: '10.9.0.9' },
    ['ERR_ADDRESS_OUT_OF_RANGE'],
  ],
  [
    'a virtual IP of a missing family',
    { name: 'a', network: 'web', ipv6: 'fd00::9' },
    ['ERR_ADDRESS_OUT_OF_RANGE'],
  ],
  [
    'a virtual IP that a container has',
    { name: 'a', network: 'web', ipv4: '10.1.0.2' },
    ['ERR_ADDRESS_IN_USE'],
  ],
  ['a name that is taken', { name: 'taken', network: 'web' }, ['ERR_SERVICE_EXISTS', /taken/]],
  [
    'a published port that another service has',
    { name: 'a', network: 'web', ports: published(9000) },
    ['ERR_PORT_IN_USE', /taken/],
  ],
  ['a network without addresses', { name: 'a', network: 'host' }, ['ERR_INVALID_OPTION', /no addresses/]],
  ['a configuration', { name: 'a', network: 'config' }, ['ERR_CONFIG_ONLY']],
]

test('what cannot be is refused with a typed error, and nothing has changed', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  await controller.createNetwork({ name: 'host', driver: 'host' })
  await controller.createNetwork({ name: 'config', configOnly: true })
  await joined(network, await sandboxOf(controller, 'client'))
  await controller.createService({
    name: 'taken',
    network: 'web',
    ports: published(9000),
  })
  const before = {
    ...(state(kernel, controller) as object),
    services: controller.services().map(each => each.inspect()),
  }
  for (const [what, input, error] of WRONG) {
    await expect(Promise.resolve(what).then(() => controller.createService(input))).rejects.toEqual(
      refusal(...error),
    )
    const after = {
      ...(state(kernel, controller) as object),
      services: controller.services().map(each => each.inspect()),
    }
    expect(after).toEqual(before)
  }
  await expect(network.createEndpoint({ name: 'x', service: 'nobody' })).rejects.toEqual(
    refusal('ERR_SERVICE_NOT_FOUND', /nobody/),
  )
  await expect(network.createEndpoint({ name: 'x', service: { name: 'taken', weight: -1 } })).rejects.toEqual(
    refusal('ERR_INVALID_OPTION'),
  )
  await expect(network.endpoint('client').setWeight(2)).rejects.toEqual(
    refusal('ERR_INVALID_OPTION', /no task/),
  )
  expect(() => controller.service('nobody')).toThrow(refusal('ERR_SERVICE_NOT_FOUND'))
  await expect(network.delete()).rejects.toEqual(refusal('ERR_NETWORK_IN_USE', /services \(taken\)/))
})

const background = ({ op }: KernelCall) =>
  op === 'removeLink' || op === 'links' || op === 'addresses' || op === 'routes'

test('a join in a sandbox that is to balance, and one of a task: whole or nothing', async () => {
  await faultSweep(
    async kernel => {
      const controller = await open(kernel)
      await networkOf(controller, 'web', 1)
      await controller.createService({ name: 'api', network: 'web', ports: PORTS })
      const sandbox = await sandboxOf(controller, 'one')
      const endpoint = await controller.network('web').createEndpoint({ name: 'one', service: 'api' })
      return { run: () => endpoint.join(sandbox), close: () => controller.close() }
    },
    // What flows from it in sandboxes that are there already is tried again, in the background.
    { mayAbsorb: background, skip: ({ details }) => String(details.commands).startsWith('add chain') },
  )
})

test('a sandbox that could not be brought up to date is tried again, and told once', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const client = await sandboxOf(controller, 'client')
  await joined(network, client)
  const problems: string[] = []
  controller.on('problem', ({ message }) => problems.push(message))
  kernel.failAt(({ op }) => op === 'nft', 'ENOMEM', 2)
  const service = await controller.createService({ name: 'api', network: 'web', ports: PORTS })
  expect(problems).toEqual(['the services of sandbox client could not be brought up to date'])
  const rules = () => inside(kernel, client).transactions.join('\n')
  expect(rules()).not.toContain(service.ipv4)
  const deadline = Date.now() + 10_000
  while (!rules().includes(service.ipv4 as string) && Date.now() < deadline)
    await new Promise(resolve => setTimeout(resolve, 50))
  expect(rules()).toContain(service.ipv4)
  expect(problems).toHaveLength(1)
})

test('createService with a published port: whole or nothing', async () => {
  await faultSweep(
    async kernel => {
      const controller = await open(kernel)
      await networkOf(controller, 'web', 1)
      // The bridge of all ways out stays, once it is there.
      await (
        await controller.createService({ name: 'first', network: 'web', ports: published(9001) })
      ).delete()
      await controller.settle()
      return {
        run: () =>
          controller.createService({
            name: 'api',
            network: 'web',
            ports: published(9000),
          }),
        close: () => controller.close(),
      }
    },
    {
      mayAbsorb: background,
      // A bridge that had a port once shows carrier otherwise than one that never had.
      normalise: snapshot =>
        JSON.parse(JSON.stringify(snapshot, (key, value) => (key === 'carrier' ? undefined : value))),
    },
  )
})

test('after a restart all is as it was', async () => {
  const dataDir = directory()
  const kernel = new MockKernel()
  let controller = await open(kernel, { dataDir })
  await networkOf(controller, 'web', 1)
  await controller.createService({
    name: 'api',
    network: 'web',
    ports: published(9000),
  })
  await task(controller, 'one', { name: 'api', weight: 3 })
  const before = controller.service('api').inspect()
  const sandboxes = controller.sandboxes().map(({ containerId }) => containerId)
  await controller.close()
  controller = await open(kernel, { dataDir, activeSandboxes: ['one'] })
  expect(controller.service('api').inspect()).toEqual(before)
  expect(
    controller
      .sandboxes()
      .map(({ containerId }) => containerId)
      .sort(),
  ).toEqual(sandboxes.sort())
  await controller.service('api').delete()
  expect(controller.sandboxes()).toHaveLength(1)
})

test('health is remembered until the task leaves, in names and in the balancing', async () => {
  const dataDir = directory()
  const kernel = new MockKernel()
  let controller = await open(kernel, { dataDir })
  await networkOf(controller, 'web', 1)
  await controller.createService({ name: 'api', network: 'web', ports: PORTS })
  const { endpoint } = await task(controller, 'one', 'api')
  await endpoint.setHealth(false)
  await controller.close()
  controller = await open(kernel, { dataDir })
  const [one, sandbox] = [controller.network('web').endpoint('one'), controller.sandbox('one')]
  expect(one.healthy).toBe(false)
  expect(controller.service('api').tasks()).toMatchObject([{ name: 'one', healthy: false }])
  expect(sandbox.resolveName('one')).toEqual([])
  expect(sandbox.resolveName('tasks.api')).toEqual([])
  await one.leave()
  await one.join(sandbox)
  expect(sandbox.resolveName('tasks.api')).toEqual([one.ipv4?.slice(0, -3)])
  await controller.close()
  controller = await open(kernel, { dataDir })
  expect(controller.network('web').endpoint('one').healthy).toBe(true)
})

test('health that cannot be stored is as it was before', async () => {
  const { controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const sandbox = await sandboxOf(controller, 'one')
  const endpoint = await joined(network, sandbox)
  jest.spyOn(endpoint, 'save').mockRejectedValueOnce(new Error('disk full'))
  const setting = endpoint.setHealth(false)
  expect(sandbox.resolveName('one')).toEqual([])
  await expect(setting).rejects.toThrow('disk full')
  expect(sandbox.resolveName('one')).toHaveLength(1)
  expect(endpoint.healthy).toBe(true)
})

test('what services are is on the disk when the call returns', async () => {
  const { controller } = await fresh({ dataDir: directory() })
  await networkOf(controller, 'web', 1)
  const write = jest.spyOn(LmdbStore.prototype, 'write')
  later(() => write.mockRestore())
  const service = await controller.createService({ name: 'api', network: 'web' })
  await service.update({ aliases: ['other'] })
  await service.delete()
  expect(write.mock.calls.map(([, options]) => options?.flush)).toEqual([true, true, true])
})

test('a controller that starts while the store is away leaves the rules of services alone', async () => {
  const kernel = new MockKernel()
  const dataDir = directory()
  const store = new MemoryCluster()
  later(() => store.close())
  const start = (backend = store.backend()) =>
    open(kernel, { dataDir, cluster: { backend, host: { name: 'a', address: '192.0.2.10' }, timeout: 100 } })
  let a = await start()
  await a.createNetwork({ name: 'web', driver: 'overlay' })
  await a.createService({ name: 'api', network: 'web', ports: published(9000) })
  const { sandbox } = await task(a, 'one', 'api')
  const key = sandbox.key as string
  await a.close()
  const before = kernel.netns(key)?.transactions.length
  const backend = store.backend()
  backend.cut = true
  a = await start(backend)
  expect(a.cluster?.connected).toBe(false)
  expect(kernel.netns(key)?.transactions).toHaveLength(before as number)
  expect(
    a
      .sandboxes()
      .map(({ containerId }) => containerId)
      .sort(),
  ).toEqual(['libcnm-ingress', 'one'])
  expect(await a.check()).toEqual([])
  backend.cut = false
  const deadline = Date.now() + 10_000
  while (a.services().length === 0 && Date.now() < deadline)
    await new Promise(resolve => setTimeout(resolve, 10))
  expect(
    a
      .service('api')
      .tasks()
      .map(({ name }) => name),
  ).toEqual(['one'])
  expect(kernel.netns(key)?.transactions.at(-1)).toContain('to4-')
})

test('rules of a service that went while nobody looked go with the next start', async () => {
  const kernel = new MockKernel()
  const dataDir = directory()
  const store = new MemoryCluster()
  later(() => store.close())
  const options = () => ({
    dataDir,
    cluster: { backend: store.backend(), host: { name: 'a', address: '192.0.2.10' } },
  })
  let a = await open(kernel, options())
  const web = await a.createNetwork({ name: 'web', driver: 'overlay' })
  const service = await a.createService({ name: 'api', network: 'web', ports: PORTS })
  const { sandbox } = await task(a, 'one', 'api')
  const { key } = sandbox
  await a.close()
  store.transact({ remove: [`/libcnm/state/service/${web.id}/${service.id}`] })
  a = await open(kernel, options())
  expect(kernel.netns(key)?.transactions.at(-1)).toBe(
    'table inet libcnm-services\ndelete table inet libcnm-services\n',
  )
  expect(a.services()).toEqual([])
})

describe('over hosts', () => {
  let store: MemoryCluster
  beforeEach(() => {
    store = new MemoryCluster()
    later(() => store.close())
  })
  const host = (name: string, n: number, more: Exclude<ControllerInput, undefined> = {}) => {
    const address = `192.0.2.${n}`
    const kernel = new MockKernel({
      hardware: [{ name: 'eth0', addresses: [`${address}/24`], gateways: ['192.0.2.254'] }],
    })
    return open(kernel, {
      hostId: name,
      ...more,
      cluster: { backend: store.backend(), host: { name, address }, timeout: 300, lease: 1 },
    })
  }
  const until = async (condition: () => boolean) => {
    const deadline = Date.now() + 10_000
    while (!condition()) {
      if (Date.now() > deadline) throw new Error('in vain')
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  }

  test('one service for all; of two that are made at once, one is; a port of all hosts is one service’s', async () => {
    const [a, b] = [await host('a', 1), await host('b', 2)]
    await a.createNetwork({ name: 'web', driver: 'overlay' })
    await until(() => b.networks().length > 0)
    const made = await Promise.allSettled(
      [a, b].map(each => each.createService({ name: 'api', network: 'web', ports: published(9000) })),
    )
    expect(made.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    await until(() => a.services().length === 1 && b.services().length === 1)
    expect(a.services()[0]?.inspect()).toEqual(b.services()[0]?.inspect())
    await expect(b.createService({ name: 'rival', network: 'web', ports: published(9000) })).rejects.toEqual(
      refusal('ERR_PORT_IN_USE', /api/),
    )
    const entrances = () => [a, b].map(each => each.sandboxes().length)
    await until(() => entrances().join() === '1,1')
    await b.service('api').delete()
    await until(() => a.services().length === 0 && entrances().join() === '0,0')
    await a.network('web').delete()
    // Nothing of it is left in the store.
    expect(
      Object.keys(store.snapshot()).filter(key => /service|published|addresses|state\/network/.test(key)),
    ).toEqual([])
  })

  test('a port that another host has in use is told there, in one line of log and by an event', async () => {
    const said: unknown[][] = []
    const say = (...words: unknown[]) => void said.push(words)
    const log = { debug() {}, info() {}, warn: say, error: say }
    const [a, b] = [await host('a', 1), await host('b', 2, { log })]
    const problems: { message: string; error: unknown }[] = []
    b.on('problem', ({ message, error }) => problems.push({ message, error }))
    const local = await networkOf(b, 'local', 1)
    const rival = await local.createEndpoint({
      name: 'rival',
      ports: [{ containerPort: 80, hostPort: 9000 }],
    })
    await rival.join(await sandboxOf(b, 'rival'))
    await a.createNetwork({ name: 'web', driver: 'overlay' })
    await until(() => b.networks().some(({ name }) => name === 'web'))
    await a.createService({ name: 'api', network: 'web', ports: published(9000) })
    await until(() => problems.length > 0)
    const message = 'port 9000/tcp of a service cannot be published on this host'
    expect(problems).toEqual([{ message, error: refusal('ERR_PORT_IN_USE') }])
    expect(said).toEqual([[expect.stringMatching(new RegExp(`^${message}: [^\n]*9000[^\n]*$`))]])
    // And had as soon as it is free.
    await rival.updatePorts([])
    const entrance = () => b.sandboxes().find(({ containerId }) => containerId === 'libcnm-ingress')
    await until(
      () =>
        entrance()
          ?.endpoints()[0]
          ?.ports.some(({ hostPort }) => hostPort === 9000) === true,
    )
    expect(problems).toHaveLength(1)
  })

  test('the ports of a host are touched when they change, not with every service', async () => {
    const a = await host('a', 1)
    await a.createNetwork({ name: 'web', driver: 'overlay' })
    const api = await a.createService({ name: 'api', network: 'web', ports: published(9000) })
    const updates: string[] = []
    a.on('endpoint.update', ({ endpoint }) => updates.push(endpoint.name))
    await task(a, 'one', 'api')
    await a.createService({ name: 'other', network: 'web' })
    await a.settle()
    expect(updates).toEqual([])
    await api.update({ ports: published(9001) })
    expect(updates).toEqual(['ingress_a'])
  })

  const claims = () =>
    Object.keys(store.snapshot()).filter(key => /claims\/(addresses|held|hosts)\//.test(key))

  test('a host that dies before a service is there leaves nothing of it: its virtual IPs are free again', async () => {
    const kernel = new MockKernel()
    const dataDir = directory()
    const start = (backend: MemoryBackend) =>
      open(kernel, { dataDir, hostId: 'a', cluster: { backend, host: { name: 'a', address: '192.0.2.10' } } })
    const backend = store.backend()
    const died = await start(backend)
    await died.createNetwork({ name: 'web', driver: 'overlay', ipv6: true })
    const before = claims()
    jest.spyOn(backend, 'transact').mockImplementation(async transaction => {
      if (!transaction.put?.some(({ key }) => key.includes('/state/service/')))
        return MemoryBackend.prototype.transact.call(backend, transaction)
      backend.cut = true // and nothing comes from this process any more
      throw new CnmError('ERR_CLUSTER_UNAVAILABLE', 'it died')
    })
    await expect(died.createService({ name: 'api', network: 'web', ports: PORTS })).rejects.toEqual(
      refusal('ERR_CLUSTER_UNAVAILABLE'),
    )
    expect(claims().length).toBe(before.length + 6)
    await died.close()
    const again = await start(store.backend())
    expect(claims()).toEqual(before)
    // Then it is the service's, whatever becomes of the host; and it goes with the service.
    const service = await again.createService({ name: 'api', network: 'web', ports: PORTS })
    expect(claims().filter(key => /(held|hosts)/.test(key))).toEqual([])
    expect(claims()).toHaveLength(before.length + 2)
    await again.close()
    const third = await start(store.backend())
    expect(third.service('api').ipv4).toBe(service.ipv4)
    expect(claims()).toHaveLength(before.length + 2)
    await third.service('api').delete()
    expect(claims()).toEqual(before)
  })

  test.each(['while it is there', 'while it is away'])(
    'a store that lost everything, with a host %s: the services of networks in use are there again',
    async when => {
      const kernel = new MockKernel()
      const dataDir = directory()
      const start = () =>
        open(kernel, {
          dataDir,
          hostId: 'a',
          cluster: { backend: store.backend(), host: { name: 'a', address: '192.0.2.10' }, lease: 1 },
        })
      let a = await start()
      await a.createNetwork({ name: 'web', driver: 'overlay' })
      const gone = await a.createService({ name: 'gone', network: 'web', ports: PORTS })
      const made = await a.createService({ name: 'api', network: 'web', ports: published(9000) })
      await made.update({ aliases: ['backend'] })
      await task(a, 'one', 'api')
      await gone.delete()
      const content = () =>
        Object.entries(store.snapshot()).filter(([key]) => !/state\/(host|receipt)|pools-guard/.test(key))
      const before = content()
      const told = made.inspect()
      const everything = () => {
        store.transact({ remove: Object.keys(store.snapshot()) })
        store.breakWatches()
      }
      if (when === 'while it is there') {
        everything()
        await until(() => a.services().length === 1 && a.service('api').tasks().length === 1)
      } else {
        await a.close()
        everything()
        a = await start()
        await until(() => a.services().length === 1 && a.service('api').tasks().length === 1)
      }
      expect(a.service('api').inspect()).toEqual(told)
      // Instances differ.
      const keys = (entries: [string, string][]) => entries.map(([key]) => key)
      await until(() => keys(content()).join() === keys(before).join())
      // Who deletes it then has deleted it.
      await a.service('api').delete()
      await a.close()
      a = await start()
      expect(a.services()).toEqual([])
    },
  )

  test('services without a network are on the ingress network, made on first use', async () => {
    const controller = await host('a', 1)
    const one = await controller.createService({
      name: 'one',
      ports: [{ targetPort: 1, publishedPort: 9001 }],
    })
    const two = await controller.createService({
      name: 'two',
      ports: [{ targetPort: 1, publishedPort: 9002 }],
    })
    expect(one.network.name).toBe('ingress')
    expect(two.network.ingress).toBe(true)
    const [entrance] = controller.sandboxes()
    expect(entrance?.containerId).toBe('libcnm-ingress')
    expect(entrance?.endpoints().map(({ network }) => network.name)).toEqual(['docker_gwbridge', 'ingress'])
    expect(new Set(entrance?.endpoints()[0]?.ports.map(({ hostPort }) => hostPort))).toEqual(
      new Set([9001, 9002]),
    )
    // It is nobody's container.
    expect(await controller.gc({ containerIds: [] })).toEqual([])
    await one.delete()
    expect(new Set(entrance?.endpoints()[0]?.ports.map(({ hostPort }) => hostPort))).toEqual(new Set([9002]))
    await two.delete()
    expect(controller.sandboxes()).toEqual([])
    await one.network.delete()
  })

  test('tasks of a host that is lost are tasks no more', async () => {
    const [a, b] = [await host('a', 1), await host('b', 2)]
    await a.createNetwork({ name: 'web', driver: 'overlay' })
    await until(() => b.networks().length > 0)
    const service = await a.createService({ name: 'api', network: 'web', ports: PORTS })
    await until(() => b.services().length === 1)
    await task(a, 'one', 'api')
    await task(b, 'two', 'api')
    const names = () =>
      service
        .tasks()
        .map(({ name }) => name)
        .sort()
        .join()
    await until(() => names() === 'one,two')
    await b.close()
    await until(() => names() === 'one')
  })

  test('a record that is no service is told, and ignored', async () => {
    const a = await host('a', 1)
    const web = await a.createNetwork({ name: 'web', driver: 'overlay' })
    const told: string[] = []
    a.on('cluster.garbage', ({ key }) => told.push(key))
    const key = `/libcnm/state/service/${web.id}/${'1'.repeat(64)}`
    store.put(
      key,
      JSON.stringify({
        version: 1,
        value: { id: '1'.repeat(64), networkId: web.id, name: 'x', ports: 'all' },
      }),
    )
    await until(() => told.length > 0)
    expect(told).toEqual([key])
    expect(a.services()).toEqual([])
  })
})
