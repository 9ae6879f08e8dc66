/** Services over three hosts, one etcd, real packets: virtual IPs from anywhere to anywhere, and published ports. */
import type { Service, Stack } from 'libcnm'
import { bare } from '../../support/host'
import { ask, Caller, type Speaker, speak, tally, tallyUdp } from '../../support/tasks'
import { Underlay, type UnderlayHost, until } from '../../support/underlay'

jest.setTimeout(180_000)

let net: Underlay
let service: Service
type Container = Awaited<ReturnType<Underlay['container']>>
const clients: Container[] = []
const tasks: (Container & { name: string; speaker: Speaker })[] = []

const NAMES = ['task1', 'task2', 'task3']

async function task(
  host: UnderlayHost,
  name: string,
  on = 'web',
  of = 'api',
): Promise<(typeof tasks)[number]> {
  const made = await net.container(host, on, name, { service: of })
  return { ...made, name, speaker: await speak(made.stack, 8080, name) }
}

/** Every host's view of the service. */
const views = (name = 'api') =>
  net.hosts.flatMap(({ controller }) => controller.services().filter(each => each.name === name))
const known = (count: number, name = 'api') =>
  until(
    () => views(name).length === 3 && views(name).every(each => each.tasks().length === count),
    async () => `${count} tasks of ${name}: ${views(name).map(each => each.tasks().length)}`,
  )

beforeAll(async () => {
  net = await Underlay.build(3)
  await net.host(1).controller.createNetwork({ name: 'web', driver: 'overlay', ipv6: true })
  await net.host(2).controller.createNetwork({ name: 'db', driver: 'overlay' })
  for (const name of ['web', 'db']) await net.everywhere(name)
  service = await net.host(2).controller.createService({
    name: 'api',
    network: 'web',
    aliases: ['backend'],
    ports: [
      { port: 80, targetPort: 8080 },
      { port: 80, targetPort: 8080, protocol: 'udp' },
    ],
  })
  await until(() => views().length === 3, 'the service on all hosts')
  for (const host of net.hosts) clients.push(await net.container(host, 'web', `client${host.number}`))
  for (const host of net.hosts) tasks.push(await task(host, `task${host.number}`))
  await known(3)
})
afterAll(async () => {
  for (const { speaker } of tasks) speaker.close()
  try {
    if (net) {
      for (const each of views()) await each.delete()
      await net.clear()
    }
  } finally {
    await net?.close()
  }
})

const client = (number: number) => clients[number - 1] as Container
const taskOn = (number: number) => tasks[number - 1] as (typeof tasks)[number]

test('the name leads to one virtual IP on every host, which leads to the tasks of all hosts', async () => {
  expect(views().map(({ ipv4 }) => ipv4)).toEqual(Array(3).fill(service.ipv4))
  for (const { sandbox, stack } of clients) {
    expect(sandbox.resolveName('api')).toEqual([service.ipv4])
    expect(sandbox.resolveName('backend', 6)).toEqual([service.ipv6])
    expect(sandbox.resolveName('tasks.api').sort()).toEqual(tasks.map(({ ipv4 }) => ipv4).sort())
    for (const vip of [service.ipv4, service.ipv6] as string[]) {
      expect(Object.keys(await tally(stack, vip, 80, 40)).sort()).toEqual(NAMES)
      expect(Object.keys(await tallyUdp(net.base, stack, vip, 80, 30)).sort()).toEqual(NAMES)
      expect(await net.base.ping(stack, vip)).toBe(true)
    }
  }
  // Nobody stands between: the tasks see who asks.
  expect(await ask(client(1).stack, service.ipv4 as string, 80)).toContain(client(1).ipv4)
})

test('another network reaches neither the virtual IP nor the name', async () => {
  const stranger = await net.container(net.host(1), 'db', 'stranger')
  expect(await net.base.reachesNot(stranger.stack, service.ipv4 as string, 80)).toBe(true)
  expect(stranger.sandbox.resolveName('api')).toEqual([])
  await stranger.sandbox.delete()
})

test('drained on one host, on all hosts new flows go elsewhere and old ones live on; unhealthy the same', async () => {
  const vip = service.ipv4 as string
  const held = await callerOf(client(1).stack, vip, 'task3')
  const spared = async () => {
    await until(async () => {
      const answers = await tally(client(1).stack, vip, 80, 12)
      return answers.task3 === undefined
    }, 'task3 is spared by host 1')
    for (const { stack } of clients)
      expect(Object.keys(await tally(stack, vip, 80, 24)).sort()).toEqual(['task1', 'task2'])
  }
  await taskOn(3).endpoint.setWeight(0)
  await spared()
  expect(await held.ask()).toMatch(/^task3 /)
  held.close()
  await taskOn(3).endpoint.setWeight(1)
  await until(() => views().every(each => each.tasks().every(({ weight }) => weight === 1)), 'it serves')
  await taskOn(3).endpoint.setHealth(false)
  await spared()
  expect(client(1).sandbox.resolveName('tasks.api')).not.toContain(taskOn(3).ipv4)
  await taskOn(3).endpoint.setHealth(true)
  await until(() => views().every(each => each.tasks().every(({ healthy }) => healthy)), 'it is well')
  expect(Object.keys(await tally(client(1).stack, vip, 80, 40)).sort()).toEqual(NAMES)
})

test('a task that joins gets flows from every host within a second; one that leaves, none', async () => {
  const vip = service.ipv4 as string
  const times: number[] = []
  for (let n = 0; n < 3; n++) {
    const fourth = await task(net.host(2), 'task4')
    const joined = performance.now()
    await known(4)
    times.push(performance.now() - joined)
    expect(Object.keys(await tally(client(3).stack, vip, 80, 60))).toContain('task4')
    await fourth.sandbox.delete()
    await known(3)
    expect(Object.keys(await tally(client(3).stack, vip, 80, 40)).sort()).toEqual(NAMES)
    fourth.speaker.close()
  }
  expect(Math.min(...times)).toBeLessThan(1_000)
})

test('a host cut off from the store goes on balancing, and converges', async () => {
  const vip = service.ipv4 as string
  const host = net.host(1)
  host.line.cut()
  await until(() => host.controller.cluster?.connected === false, 'it notices')
  expect(Object.keys(await tally(client(1).stack, vip, 80, 40)).sort()).toEqual(NAMES)
  // What it knows itself counts at once.
  await taskOn(1).endpoint.setHealth(false)
  expect(Object.keys(await tally(client(1).stack, vip, 80, 30)).sort()).toEqual(['task2', 'task3'])
  await expect(host.controller.createService({ name: 'late', network: 'web' })).rejects.toMatchObject({
    code: 'ERR_CLUSTER_UNAVAILABLE',
  })
  host.line.heal()
  await until(() => host.controller.cluster?.connected === true, 'it is back')
  await until(
    () => views().every(each => each.tasks().some(({ healthy }) => !healthy)),
    'the others know that task1 is unhealthy',
  )
  await taskOn(1).endpoint.setHealth(true)
  await until(() => views().every(each => each.tasks().every(({ healthy }) => healthy)), 'it is well')
})

test('a controller that starts again finds the service as it is', async () => {
  const vip = service.ipv4 as string
  const host = net.host(2)
  const stack = await net.base.kernel.open(client(2).stack.path)
  const held = new Caller(stack, vip, 80)
  const first = await held.ask()
  await net.restart(host)
  expect(await held.ask()).toBe(first)
  await known(3)
  expect(await host.controller.check()).toEqual([])
  expect(Object.keys(await tally(stack, vip, 80, 40)).sort()).toEqual(NAMES)
  held.close()
  stack.close()
})

async function callerOf(from: Stack, vip: string, name: string): Promise<Caller> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const caller = new Caller(from, vip, 80)
    if ((await caller.ask()).startsWith(`${name} `)) return caller
    caller.close()
  }
  throw new Error(`${name} never answers`)
}

describe('published ports', () => {
  let published: Service
  const web: (typeof tasks)[number][] = []
  const WORLD_SIDE = '192.0.2.254'

  beforeAll(async () => {
    published = await net.host(1).controller.createService({
      name: 'shop',
      network: 'web',
      ports: [
        { targetPort: 8080, publishedPort: 9000 },
        { targetPort: 8080, publishedPort: 9000, protocol: 'udp', port: 8080 },
      ],
    })
    await until(() => views('shop').length === 3, 'the shop on all hosts')
    for (const number of [1, 2]) web.push(await task(net.host(number), `shop${number}`, 'web', 'shop'))
    await known(2, 'shop')
    await until(async () => (await ask(net.wire, '192.0.2.3', 9000)).startsWith('shop'), 'host 3 answers')
  })
  afterAll(async () => {
    for (const { speaker, sandbox } of web) {
      speaker.close()
      await sandbox.delete()
    }
    for (const each of views('shop').slice(0, 1)) await each.delete()
  })

  test('every host answers, one without a task as well, and any task may get it', async () => {
    for (const { number, address } of net.hosts) {
      expect(Object.keys(await tally(net.wire, address, 9000, 30)).sort()).toEqual(['shop1', 'shop2'])
      expect(Object.keys(await tallyUdp(net.base, net.wire, address, 9000, 20)).sort()).toEqual([
        'shop1',
        'shop2',
      ])
      // By IPv6, too.
      expect(await ask(net.wire, `2001:db8::${number}`, 9000)).toMatch(/^shop/)
      // The host itself.
      expect(await ask(net.host(number).stack, address, 9000)).toMatch(/^shop/)
    }
    // Tasks see a host of the mesh, not the client.
    expect(await ask(net.wire, '192.0.2.3', 9000)).not.toContain(WORLD_SIDE)
    // Containers reach it by a host's address as the world does.
    expect(await ask(client(3).stack, '192.0.2.1', 9000)).toMatch(/^shop/)
  })

  test('drained and unhealthy tasks get no new flows by any host; without tasks, callers are refused', async () => {
    const [first, second] = web as [(typeof web)[number], (typeof web)[number]]
    await first.endpoint.setWeight(0)
    await until(
      async () => (await tally(net.wire, '192.0.2.3', 9000, 12)).shop1 === undefined,
      'shop1 is spared',
    )
    expect(await tally(net.wire, '192.0.2.1', 9000, 12)).toEqual({ shop2: 12 })
    await second.endpoint.setHealth(false)
    await until(async () => (await ask(net.wire, '192.0.2.3', 9000)) === 'ECONNREFUSED', 'nobody is left')
    await first.endpoint.setWeight(1)
    await second.endpoint.setHealth(true)
    await until(
      async () => Object.keys(await tally(net.wire, '192.0.2.3', 9000, 20)).length === 2,
      'both serve',
    )
  })

  test('the mesh is no way from one network to another', async () => {
    const entrance = net
      .host(1)
      .controller.sandboxes()
      .find(({ containerId }) => containerId.endsWith('-ingress'))
    const leg = entrance?.endpoints().find(({ network }) => network.name === 'web')
    const stranger = await net.container(net.host(1), 'db', 'stranger')
    const way = entrance?.endpoints().find(({ network }) => network.name === 'docker_gwbridge')
    await stranger.stack.apply([
      {
        op: 'replaceRoute',
        route: { destination: `${web[0]?.ipv4}/32`, gateway: bare(way?.ipv4), link: 'eth1' },
      },
    ])
    expect(leg).toBeDefined()
    expect(await net.base.reachesNot(stranger.stack, web[0]?.ipv4 as string, 8080)).toBe(true)
    await stranger.sandbox.delete()
  })

  test('a port that another service publishes is refused, on any host; and one that the host has given away', async () => {
    await expect(
      net.host(3).controller.createService({
        name: 'rival',
        network: 'db',
        ports: [{ targetPort: 1, publishedPort: 9000 }],
      }),
    ).rejects.toMatchObject({ code: 'ERR_PORT_IN_USE', message: expect.stringContaining('shop') })
    const taken = net.host(3).stack.openSocket({ type: 'tcp', address: '0.0.0.0', port: 9001, listen: 1 })
    await expect(
      net.host(3).controller.createService({
        name: 'rival',
        network: 'db',
        ports: [{ targetPort: 1, publishedPort: 9001 }],
      }),
    ).rejects.toMatchObject({ code: 'ERR_PORT_IN_USE' })
    net.host(3).stack.closeFd(taken)
    await until(() => views('rival').length === 0, 'nothing of it is left')
  })

  test('ports of mode host are published where the tasks are, and the tasks see the client', async () => {
    const edge = await net.host(1).controller.createService({
      name: 'edge',
      network: 'web',
      endpointMode: 'dnsrr',
      ports: [{ targetPort: 8080, publishedPort: 9100, mode: 'host' }],
    })
    await until(() => views('edge').length === 3, 'edge on all hosts')
    const made = await task(net.host(3), 'edge3', 'web', 'edge')
    expect(await ask(net.wire, '192.0.2.3', 9100)).toBe(`edge3 ${WORLD_SIDE}`)
    expect(await ask(net.wire, '192.0.2.1', 9100, 500)).toBe('ECONNREFUSED')
    made.speaker.close()
    await made.sandbox.delete()
    await edge.delete()
    await until(() => views('edge').length === 0, 'edge is gone')
  })

  test('unpublished, the port is closed everywhere; published again, it answers', async () => {
    await published.update({ ports: [{ targetPort: 8080 }] })
    for (const { address } of net.hosts)
      await until(
        async () => (await ask(net.wire, address, 9000, 500)) === 'ECONNREFUSED',
        `${address} is closed`,
      )
    for (const { controller } of net.hosts)
      await until(
        () => !controller.sandboxes().some(({ containerId }) => containerId.endsWith('-ingress')),
        'no entrance',
      )
    await published.update({ ports: [{ targetPort: 8080, publishedPort: 9000 }] })
    for (const { address } of net.hosts)
      await until(
        async () => (await ask(net.wire, address, 9000, 500)).startsWith('shop'),
        `${address} answers`,
      )
  })
})
