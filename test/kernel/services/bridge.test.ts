/** Services on a network of one host, by traffic. */
import { createSocket } from 'node:dgram'
import type { Controller, Endpoint, Network, Sandbox, Service, Stack } from 'libcnm'
import { bare, hostForEach, stackOf } from '../../support/host'
import { ask, Caller, type Speaker, speak, tally, tallyUdp } from '../../support/tasks'

jest.setTimeout(60_000)

const host = hostForEach()

describe('services of one host', () => {
  let controller: Controller
  let network: Network
  const speakers: Speaker[] = []

  interface Task {
    name: string
    endpoint: Endpoint
    sandbox: Sandbox
    stack: Stack
  }

  beforeEach(async () => {
    controller = await host().open()
    network = await controller.createNetwork({ name: 'web', ipv6: true })
  })
  afterEach(async () => {
    for (const speaker of speakers.splice(0)) speaker.close()
    await controller.close({ remove: true })
  })

  async function join(
    name: string,
    options: Partial<Parameters<Network['createEndpoint']>[0]> = {},
  ): Promise<Task> {
    const sandbox = await controller.createSandbox({ containerId: name })
    const endpoint = await network.createEndpoint({ name, ...options })
    await endpoint.join(sandbox)
    return { name, endpoint, sandbox, stack: stackOf(sandbox) }
  }

  async function task(
    name: string,
    service: { name: string; weight?: number } | string,
    port = 8080,
  ): Promise<Task> {
    const made = await join(name, { service })
    speakers.push(await speak(made.stack, port, name))
    return made
  }

  const web = (options: Partial<Parameters<Controller['createService']>[0]> = {}): Promise<Service> =>
    controller.createService({
      name: 'web',
      network: 'web',
      ports: [
        { port: 80, targetPort: 8080 },
        { port: 80, targetPort: 8080, protocol: 'udp' },
      ],
      ...options,
    })

  test('new flows to the virtual IP are shared among the tasks, over TCP, UDP, ping, IPv4 and IPv6', async () => {
    const client = await join('client')
    const service = await web()
    const names = ['one', 'two', 'three']
    for (const name of names) await task(name, 'web')
    expect(client.sandbox.resolveName('web')).toEqual([service.ipv4])
    expect(client.sandbox.resolveName('web', 6)).toEqual([service.ipv6])
    expect(client.sandbox.resolveName('tasks.web').sort()).toEqual(
      service
        .tasks()
        .map(({ ipv4 }) => ipv4)
        .sort(),
    )
    for (const vip of [service.ipv4, service.ipv6] as string[]) {
      expect(Object.keys(await tally(client.stack, vip, 80, 40)).sort()).toEqual([...names].sort())
      expect(Object.keys(await tallyUdp(host(), client.stack, vip, 80, 40)).sort()).toEqual([...names].sort())
      expect(await host().ping(client.stack, vip)).toBe(true)
      // The tasks see who it is.
      expect(await ask(client.stack, vip, 80)).toContain(
        bare(vip.includes(':') ? client.endpoint.ipv6 : client.endpoint.ipv4),
      )
    }
    // A task may ask its own service, itself included.
    const own = stackOf(controller.sandbox('one'))
    expect(Object.keys(await tally(own, service.ipv4 as string, 80, 40)).sort()).toEqual([...names].sort())
  })

  test('weights are shares; a change of them concerns new flows only', async () => {
    const client = await join('client')
    const service = await web()
    const vip = service.ipv4 as string
    const heavy = await task('heavy', { name: 'web', weight: 3 })
    const light = await task('light', { name: 'web', weight: 1 })
    const before = await tally(client.stack, vip, 80, 200)
    expect(before.heavy).toBeGreaterThan(110) // 150 of 200, of which 40 are more than six deviations
    expect(before.light).toBeGreaterThan(10)
    // Drained: who is there stays, who comes goes elsewhere.
    const held = await callersOf(client.stack, vip, 'heavy')
    await heavy.endpoint.setWeight(0)
    expect(service.tasks().find(({ name }) => name === 'heavy')).toMatchObject({ weight: 0, healthy: true })
    expect(await tally(client.stack, vip, 80, 30)).toEqual({ light: 30 })
    expect(await held.ask()).toMatch(/^heavy /)
    expect(client.sandbox.resolveName('tasks.web')).toEqual([light.endpoint.ipv4?.replace(/\/.*/, '')])
    await heavy.endpoint.setWeight(1)
    expect(Object.keys(await tally(client.stack, vip, 80, 40)).sort()).toEqual(['heavy', 'light'])
    expect(await held.ask()).toMatch(/^heavy /)
    held.close()
  })

  test('a task that is unhealthy, or leaves, gets no new flows; without any, callers are refused at once', async () => {
    const client = await join('client')
    const service = await web()
    const vips = [service.ipv4, service.ipv6] as string[]
    const refused = async () => {
      for (const vip of vips) expect(await ask(client.stack, vip, 80)).toBe('ECONNREFUSED')
      expect(await host().ping(client.stack, vips[0] as string, { seconds: 1 })).toBe(false)
    }
    await refused()
    const one = await task('one', 'web')
    const two = await task('two', 'web')
    await one.endpoint.setHealth(false)
    for (const vip of vips) expect(await tally(client.stack, vip, 80, 20)).toEqual({ two: 20 })
    expect(
      service
        .tasks()
        .map(({ name, healthy }) => `${name} ${healthy}`)
        .sort(),
    ).toEqual(['one false', 'two true'])
    await one.endpoint.setHealth(true)
    await two.endpoint.leave()
    for (const vip of vips) expect(await tally(client.stack, vip, 80, 20)).toEqual({ one: 20 })
    await one.sandbox.delete()
    await refused()
    expect(client.sandbox.resolveName('web')).toEqual([service.ipv4])
    expect(client.sandbox.resolveName('tasks.web')).toEqual([])
    // Back again.
    await two.endpoint.join(two.sandbox)
    for (const vip of vips) expect(await tally(client.stack, vip, 80, 10)).toEqual({ two: 10 })
  })

  test('datagrams of one client port go elsewhere when their task is gone', async () => {
    const client = await join('client')
    const service = await web()
    const tasks = [await task('one', 'web'), await task('two', 'web')]
    const fd = client.stack.openSocket({ type: 'udp', address: '0.0.0.0', port: 0 })
    const socket = createSocket('udp4')
    await new Promise<void>(resolve => socket.bind({ fd }, () => resolve()))
    // Numbered, for an answer that comes late is one to an earlier question.
    let question = 0
    const asks = async () => {
      for (let attempt = 0; attempt < 40; attempt++) {
        const mine = ` ${++question}`
        const answer = new Promise<string>(resolve => {
          const end = (text: string) => {
            clearTimeout(timer)
            socket.off('message', heard)
            resolve(text)
          }
          const heard = (data: Buffer) => String(data).endsWith(mine) && end(String(data))
          const timer = setTimeout(() => end(''), 250)
          socket.on('message', heard)
        })
        socket.send(mine, 80, service.ipv4 as string)
        const [name] = (await answer).split(' ')
        if (name) return name
      }
      return 'silence'
    }
    const first = await asks()
    expect(await asks()).toBe(first)
    await tasks.find(({ name }) => name === first)?.sandbox.delete()
    const other = first === 'one' ? 'two' : 'one'
    expect(await asks()).toBe(other)
    socket.close()
  })

  test('with affinity, all flows of a client go to one task; when another one goes they stay', async () => {
    const service = await web({ affinity: 'client' })
    const names = ['one', 'two', 'three']
    for (const name of names) await task(name, 'web')
    const clients = await Promise.all(Array.from({ length: 8 }, (_, n) => join(`client${n}`)))
    const choices = async () => {
      const found: string[] = []
      for (const { stack } of clients) {
        const answers = Object.keys(await tally(stack, service.ipv4 as string, 80, 8))
        expect(answers).toHaveLength(1)
        found.push(answers[0] as string)
      }
      return found
    }
    const before = await choices()
    const gone = before[0] as string
    await controller.sandbox(gone).delete()
    const after = await choices()
    expect(after).not.toContain(gone)
    expect(after.filter((name, at) => before[at] !== gone && name !== before[at])).toEqual([])
  })

  test('only the ports that it lists answer; a service that lists none leads all of them as they are', async () => {
    const client = await join('client')
    const service = await web()
    const plain = await controller.createService({ name: 'plain', network: 'web', ipv4: '172.17.9.9' })
    expect(plain.ipv4).toBe('172.17.9.9')
    await task('one', 'web')
    const two = await task('two', 'plain', 9000)
    speakers.push(await speak(two.stack, 9001, 'other'))
    expect(await ask(client.stack, service.ipv4 as string, 8080)).toBe('ECONNREFUSED')
    expect(await ask(client.stack, '172.17.9.9', 9000)).toMatch(/^two /)
    expect(await ask(client.stack, '172.17.9.9', 9001)).toMatch(/^other /)
    expect(await tallyUdp(host(), client.stack, '172.17.9.9', 9001, 3)).toEqual({ other: 3 })
  })

  test('another network does not reach it, and the name is unknown there; both networks, both services', async () => {
    const other = await controller.createNetwork({ name: 'other' })
    const service = await web()
    await task('one', 'web')
    const stranger = await controller.createSandbox({ containerId: 'stranger' })
    await (await other.createEndpoint({ name: 'stranger' })).join(stranger)
    expect(await host().reachesNot(stackOf(stranger), service.ipv4 as string, 80)).toBe(true)
    expect(stranger.resolveName('web')).toEqual([])
    const endpoint = await network.createEndpoint({ name: 'stranger' })
    await endpoint.join(stranger)
    expect(await ask(stackOf(stranger), service.ipv4 as string, 80)).toMatch(/^one /)
    expect(stranger.resolveName('web')).toEqual([service.ipv4])
    await endpoint.leave()
    expect(await host().reachesNot(stackOf(stranger), service.ipv4 as string, 80)).toBe(true)
    expect(stackOf(stranger).nft('list tables')).not.toContain('libcnm-services')
  })

  test('endpointMode dnsrr: the name leads to all healthy tasks', async () => {
    const client = await join('client')
    const service = await web({ endpointMode: 'dnsrr' })
    expect(service.ipv4).toBeUndefined()
    const one = await task('one', 'web')
    const two = await task('two', 'web')
    const addresses = [one, two].map(({ endpoint }) => bare(endpoint.ipv4)).sort()
    expect(client.sandbox.resolveName('web').sort()).toEqual(addresses)
    expect(client.sandbox.resolveName('tasks.web').sort()).toEqual(addresses)
    await one.endpoint.setHealth(false)
    expect(client.sandbox.resolveName('web')).toEqual([bare(two.endpoint.ipv4)])
    expect(client.stack.nft('list tables')).not.toContain('libcnm-services')
  })

  test('a service that is deleted is gone: its names, its address, its rules; its tasks stay', async () => {
    const client = await join('client')
    const service = await web()
    const one = await task('one', 'web')
    const vip = service.ipv4 as string
    expect(await ask(client.stack, vip, 80)).toMatch(/^one /)
    await expect(network.delete()).rejects.toMatchObject({ code: 'ERR_NETWORK_IN_USE' })
    await service.delete()
    expect(await host().reachesNot(client.stack, vip, 80)).toBe(true)
    expect(client.sandbox.resolveName('web')).toEqual([])
    expect(client.stack.nft('list tables')).not.toContain('libcnm-services')
    expect(await ask(client.stack, bare(one.endpoint.ipv4), 8080)).toMatch(/^one /)
    expect(controller.services()).toEqual([])
    await expect(service.update({ labels: {} })).rejects.toMatchObject({ code: 'ERR_GONE' })
    // Its address and name are free.
    const again = await web({ ipv4: vip })
    expect(again.ipv4).toBe(vip)
  })

  test('what others do to the rules is found, and put right; flows live on', async () => {
    const client = await join('client')
    const service = await web()
    await task('one', 'web')
    const vip = service.ipv4 as string
    const held = new Caller(client.stack, vip, 80)
    expect(await held.ask()).toMatch(/^one /)
    expect(await controller.check()).toEqual([])
    for (const harm of [
      'flush ruleset',
      `delete element inet libcnm-services ports4 { ${vip} . tcp . 80 }`,
    ]) {
      client.stack.nft(harm)
      const found = await controller.check()
      expect(found.map(({ kind }) => kind)).toContain('services')
      expect(new Set(found.map(({ sandboxId }) => sandboxId))).toEqual(new Set([client.sandbox.id]))
      await controller.repair()
      expect(await controller.check()).toEqual([])
      expect(await ask(client.stack, vip, 80)).toMatch(/^one /)
      expect(await held.ask()).toMatch(/^one /)
    }
    // A change that meets a table of somebody else's making is whole all the same.
    client.stack.nft('delete table inet libcnm-services')
    await task('two', 'web')
    expect(Object.keys(await tally(client.stack, vip, 80, 30)).sort()).toEqual(['one', 'two'])
    held.close()
  })

  test('tasks in a sandbox whose namespace is handed over later, and moved', async () => {
    const client = await join('client')
    const service = await web()
    const sandbox = await controller.createSandbox({ containerId: 'late', mode: 'deferred' })
    await (await network.createEndpoint({ name: 'late', service: 'web' })).join(sandbox)
    expect(service.tasks()).toEqual([])
    expect(await ask(client.stack, service.ipv4 as string, 80)).toBe('ECONNREFUSED')
    const made = await host().namespace('late')
    await sandbox.setKey(made.path as string)
    speakers.push(await speak(made, 8080, 'late'))
    expect(await ask(client.stack, service.ipv4 as string, 80)).toMatch(/^late /)
    expect(await ask(made, service.ipv4 as string, 80)).toMatch(/^late /)
  })

  /** A connection that a certain task answers. */
  async function callersOf(from: Stack, vip: string, name: string): Promise<Caller> {
    for (let attempt = 0; attempt < 100; attempt++) {
      const caller = new Caller(from, vip, 80)
      if ((await caller.ask()).startsWith(`${name} `)) return caller
      caller.close()
    }
    throw new Error(`${name} never answers`)
  }
})

test('after a restart a service is there as it was: address, tasks, weights; flows live on', async () => {
  const options = { dataDir: host().dataDir }
  let controller = await host().open(options)
  const network = await controller.createNetwork({ name: 'web' })
  const sandbox = await controller.createSandbox({ containerId: 'client' })
  await (await network.createEndpoint({ name: 'client' })).join(sandbox)
  const service = await controller.createService({
    name: 'web',
    network: 'web',
    ports: [{ port: 80, targetPort: 8080 }],
    labels: { a: 'b' },
  })
  const open: Speaker[] = []
  for (const [name, weight] of [
    ['one', 1],
    ['two', 0],
  ] as const) {
    const each = await controller.createSandbox({ containerId: name })
    await (await network.createEndpoint({ name, service: { name: 'web', weight } })).join(each)
    open.push(await speak(stackOf(each), 8080, name))
  }
  const client = await host().kernel.open(sandbox.key)
  const before = service.inspect()
  const held = new Caller(client, service.ipv4 as string, 80)
  expect(await held.ask()).toMatch(/^one /)
  await controller.close()
  expect(await ask(client, service.ipv4 as string, 80)).toMatch(/^one /)
  controller = await host().open(options)
  expect(controller.service('web').inspect()).toEqual(before)
  expect(await controller.check()).toEqual([])
  expect(await tally(client, service.ipv4 as string, 80, 10)).toEqual({ one: 10 })
  expect(await held.ask()).toMatch(/^one /)
  await expect(
    controller.network('web').createEndpoint({ name: 'thief', ipv4: before.ipv4 as string }),
  ).rejects.toMatchObject({ code: 'ERR_ADDRESS_IN_USE', message: expect.stringContaining('service web') })
  await controller.network('web').endpoint('two').setWeight(1)
  expect(Object.keys(await tally(client, service.ipv4 as string, 80, 30)).sort()).toEqual(['one', 'two'])
  held.close()
  client.close()
  for (const speaker of open) speaker.close()
  await controller.close({ remove: true })
})
