/** Controllers on a real etcd that has its troubles; the kernels are modelled. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, type ControllerInput, type Network, serveDriver } from 'libcnm'
import { MockDriver, MockKernel } from 'libcnm/testing'
import { Certificates } from '../../support/certificates'
import { Line, TestEtcd } from '../../support/etcd'
import { until } from '../../support/underlay'

jest.setTimeout(180_000)

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const act of cleanup.splice(0).reverse()) await act()
})
const later = (act: () => unknown): void => void cleanup.push(act)

type ClusterInput = Partial<NonNullable<NonNullable<ControllerInput>['cluster']>>

interface Host {
  kernel: MockKernel
  controller: Controller
  lost: unknown[]
}

async function host(
  name: string,
  cluster: ClusterInput,
  more: Exclude<ControllerInput, undefined> = {},
): Promise<Host> {
  const number = name.charCodeAt(0) - 96
  const address = `192.0.2.${number}`
  const kernel = new MockKernel({ hardware: [{ name: 'eth0', addresses: [`${address}/24`] }] })
  const controller = await Controller.open({
    kernel,
    name,
    hostId: name,
    ...more,
    runDir: `/run/libcnm-${name}`,
    cluster: { lease: 30, timeout: 4_000, host: { name, address }, ...cluster } as never,
  })
  later(() => controller.close())
  const lost: unknown[] = []
  controller.on('cluster.lost', ({ error }) => lost.push(error))
  return { kernel, controller, lost }
}

const connected = ({ controller }: Host) => controller.cluster?.connected === true

async function start(...options: string[]): Promise<TestEtcd> {
  const etcd = await TestEtcd.start(...options)
  later(() => etcd.stop())
  return etcd
}

async function networkOn(all: Host[], name: string): Promise<Network[]> {
  const [first] = all as [Host]
  await first.controller.createNetwork({ name, driver: 'overlay', internal: true })
  await until(
    () => all.every(({ controller }) => controller.networks().some(each => each.name === name)),
    name,
  )
  return all.map(({ controller }) => controller.network(name))
}

async function joinOn({ controller }: Host, network: string, name: string): Promise<void> {
  const sandbox = await controller.createSandbox({ containerId: name, files: false, resolver: false })
  const endpoint = await controller.network(network).createEndpoint({ name })
  await endpoint.join(sandbox)
}

/** Does the host's sandbox `from` know the name? */
const knows = ({ controller }: Host, from: string, name: string) =>
  controller.sandbox(from).resolveName(name).length === 1
const knowing = (all: [Host, string][], name: string) =>
  until(() => all.every(([each, from]) => knows(each, from, name)), `${name} is known`)

test('three members: the leader is killed and comes back, and all the while work goes on', async () => {
  const members = await TestEtcd.members(3)
  later(() => Promise.all(members.map(member => member.stop())))
  const endpoints = members.map(({ endpoint }) => endpoint)
  const [a, b] = [await host('a', { endpoints }), await host('b', { endpoints })]
  await networkOn([a, b], 'web')
  await joinOn(a, 'web', 'one')
  await joinOn(b, 'web', 'two')
  await knowing([[a, 'one']], 'two')
  for (const member of members) {
    await member.kill()
    await joinOn(a, 'web', `during-${member.endpoint}`.replace(/\W+/g, '-'))
    await member.run()
  }
  await until(() => connected(a) && connected(b), 'both are connected')
  await joinOn(b, 'web', 'after')
  await knowing(
    [
      [a, 'one'],
      [b, 'two'],
    ],
    'after',
  )
  expect(a.controller.network('web').endpoints()).toHaveLength(4)
  // Nobody was withdrawn.
  for (const { endpoint } of members)
    expect(knows(b, 'two', `during-${endpoint}`.replace(/\W+/g, '-'))).toBe(true)
})

test('two of three members are gone: what spans hosts is refused, and resumes with the second', async () => {
  const members = await TestEtcd.members(3)
  later(() => Promise.all(members.map(member => member.stop())))
  const a = await host('a', { endpoints: members.map(({ endpoint }) => endpoint), timeout: 1_000 })
  const [web] = (await networkOn([a], 'web')) as [Network]
  await Promise.all(members.slice(1).map(member => member.kill()))
  await expect(web.createEndpoint({ name: 'x' })).rejects.toMatchObject({ code: 'ERR_CLUSTER_UNAVAILABLE' })
  await (await a.controller.createNetwork({ name: 'local' })).delete()
  // Each needs the other to be healthy.
  await Promise.all(members.slice(1).map(member => member.run()))
  await until(() => connected(a), 'it is back')
  await joinOn(a, 'web', 'one')
})

test('users: a wrong password is told at once; rights that are taken away refuse, and serve again when they are back', async () => {
  const etcd = await start()
  const post = (path: string, body: object) => etcd.post(`/v3/auth/${path}`, body)
  await post('user/add', { name: 'root', password: 'r' })
  await post('user/grant', { user: 'root', role: 'root' })
  await post('role/add', { name: 'libcnm' })
  const right = { key: base64('/libcnm/'), range_end: base64('/libcnm0') }
  await post('role/grant', { name: 'libcnm', perm: { permType: 2, ...right } })
  await post('user/add', { name: 'libcnm', password: 'p' })
  await post('user/grant', { user: 'libcnm', role: 'libcnm' })
  await post('enable', {})
  const endpoints = [etcd.endpoint]
  const as = (username: string, password: string) => ({ endpoints, credentials: { username, password } })
  await expect(host('a', as('libcnm', 'wrong'))).rejects.toMatchObject({ code: 'ERR_CLUSTER_DENIED' })
  await expect(host('a', { endpoints })).rejects.toMatchObject({ code: 'ERR_CLUSTER_DENIED' })
  const elsewhere = { ...as('libcnm', 'p'), prefix: '/elsewhere' }
  await expect(host('a', elsewhere)).rejects.toMatchObject({ code: 'ERR_CLUSTER_DENIED' })

  const a = await host('a', as('libcnm', 'p'))
  const [web] = (await networkOn([a], 'web')) as [Network]
  await joinOn(a, 'web', 'one')
  const { token } = (await post('authenticate', { name: 'root', password: 'r' })) as { token: string }
  const asRoot = (path: string, body: object) => etcd.post(`/v3/auth/${path}`, body, { Authorization: token })
  await asRoot('role/revoke', { role: 'libcnm', ...right })
  await expect(web.createEndpoint({ name: 'x' })).rejects.toMatchObject({ code: 'ERR_CLUSTER_DENIED' })
  await asRoot('role/grant', { name: 'libcnm', perm: { permType: 2, ...right } })
  await until(
    () =>
      web.createEndpoint({ name: 'x' }).then(
        () => true,
        () => false,
      ),
    'the rights are back',
  )
})

test('TLS with certificates on both sides', async () => {
  const certificates = new Certificates()
  later(() => certificates.remove())
  const etcd = await start(...certificates.server)
  const [a, b] = [
    await host('a', { endpoints: [etcd.endpoint], tls: certificates.client }),
    await host('b', { endpoints: [etcd.endpoint], tls: certificates.client }),
  ]
  await networkOn([a, b], 'web')
  await joinOn(a, 'web', 'one')
  await joinOn(b, 'web', 'two')
  await knowing([[a, 'one']], 'two')
  // Without a certificate one is not let in: as if the store were not there.
  const stranger = await host('c', { endpoints: [etcd.endpoint], tls: { ca: certificates.client.ca } })
  await expect(stranger.controller.createNetwork({ name: 'x', driver: 'overlay' })).rejects.toMatchObject({
    code: 'ERR_CLUSTER_UNAVAILABLE',
  })
})

test('a full etcd: nothing new, but leaving works; when there is room, all is well', async () => {
  const etcd = await start('--quota-backend-bytes', String(4 << 20))
  const endpoints = [etcd.endpoint]
  const [a, b] = [await host('a', { endpoints }), await host('b', { endpoints })]
  const [web] = (await networkOn([a, b], 'web')) as [Network]
  for (const name of ['one', 'gone']) await joinOn(a, 'web', name)
  await joinOn(b, 'web', 'two')
  await knowing([[b, 'two']], 'gone')
  const put = (n: number) =>
    etcd.post('/v3/kv/put', { key: base64(`/fill/${n}`), value: base64('x'.repeat(500_000)) })
  for (let n = 0; n < 20; n++) await put(n)
  await expect(web.createEndpoint({ name: 'x' })).rejects.toMatchObject({ code: 'ERR_CLUSTER_FULL' })
  await expect(a.controller.createNetwork({ name: 'y', driver: 'overlay' })).rejects.toMatchObject({
    code: 'ERR_CLUSTER_FULL',
  })
  expect(
    web
      .endpoints()
      .map(({ name }) => name)
      .sort(),
  ).toEqual(['gone', 'one'])
  await a.controller.sandbox('gone').delete()
  await until(() => b.controller.sandbox('two').resolveName('gone').length === 0, 'it is withdrawn')
  // What the README tells: compact, defragment, disarm.
  await etcd.post('/v3/kv/deleterange', { key: base64('/fill/'), range_end: base64('/fill0') })
  const status = (await etcd.post('/v3/maintenance/status', {})) as {
    header: { revision: string; member_id: string }
  }
  await etcd.post('/v3/kv/compaction', { revision: status.header.revision, physical: true })
  await etcd.post('/v3/maintenance/defragment', {})
  await etcd.post('/v3/maintenance/alarm', {
    action: 'DEACTIVATE',
    alarm: 'NOSPACE',
    memberID: status.header.member_id,
  })
  await until(
    () =>
      web.createEndpoint({ name: 'room' }).then(
        () => true,
        () => false,
      ),
    'there is room',
  )
  await joinOn(a, 'web', 'again')
  await knowing([[b, 'two']], 'again')
})

test('compacted while a host was away: it lists anew, and misses nothing', async () => {
  const etcd = await start()
  const line = await Line.to(etcd.port)
  later(() => line.close())
  const [a, b] = [
    await host('a', { endpoints: [etcd.endpoint] }),
    await host('b', { endpoints: [line.endpoint] }),
  ]
  await networkOn([a, b], 'web')
  await joinOn(b, 'web', 'two')
  await joinOn(a, 'web', 'early')
  await knowing([[b, 'two']], 'early')
  line.cut()
  await until(() => !connected(b), 'it notices')
  await a.controller.sandbox('early').delete()
  await joinOn(a, 'web', 'late')
  const status = (await etcd.post('/v3/maintenance/status', {})) as { header: { revision: string } }
  await etcd.post('/v3/kv/compaction', { revision: status.header.revision, physical: true })
  line.heal()
  await until(() => connected(b), 'it is back')
  await knowing([[b, 'two']], 'late')
  expect(knows(b, 'two', 'early')).toBe(false)
})

test('a host that is killed between the claim of a virtual IP and its service gives the address back', async () => {
  const etcd = await start()
  const dataDir = mkdtempSync(join(tmpdir(), 'libcnm-dies-'))
  later(() => rmSync(dataDir, { recursive: true, force: true }))
  const addresses = async () => {
    const [from, to] = [base64('/libcnm/claims/addresses/'), base64('/libcnm/claims/addresses0')]
    const { kvs = [] } = await etcd.post('/v3/kv/range', { key: from, range_end: to })
    return (kvs as { key: string }[]).map(({ key }) => Buffer.from(key, 'base64').toString())
  }
  const child = spawn(
    process.execPath,
    ['-r', join(__dirname, '../../support/ts-child.cjs'), join(__dirname, 'dies.ts'), etcd.endpoint, dataDir],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  )
  const [, signal] = (await once(child, 'exit')) as [number | null, string | null]
  expect(signal).toBe('SIGKILL')
  const claimed = await addresses()
  expect(claimed).toHaveLength(2) // the gateway, and the virtual IP
  const controller = await Controller.open({
    kernel: new MockKernel(),
    name: 'a',
    hostId: 'a',
    runDir: '/run/libcnm-a',
    dataDir,
    cluster: { endpoints: [etcd.endpoint], host: { name: 'a', address: '192.0.2.10' } },
  })
  later(() => controller.close())
  expect(controller.services()).toEqual([])
  expect(await addresses()).toEqual(claimed.filter(key => key.endsWith('.1')))
  const service = await controller.createService({ name: 'api', network: 'web' })
  expect(claimed).toContainEqual(expect.stringMatching(new RegExp(`/${service.ipv4}$`)))
})

test('clocks that jump by a day, forward and back, disturb nobody', async () => {
  const etcd = await start()
  const endpoints = [etcd.endpoint]
  const [a, b] = [await host('a', { endpoints, lease: 5 }), await host('b', { endpoints, lease: 5 })]
  await networkOn([a, b], 'web')
  await joinOn(a, 'web', 'one')
  await joinOn(b, 'web', 'two')
  await knowing([[a, 'one']], 'two')
  const withdrawn: string[] = []
  for (const { controller } of [a, b])
    controller.on('host.leave', ({ host: gone }) => withdrawn.push(gone.name))
  const real = Date.now.bind(Date)
  const clock = jest.spyOn(Date, 'now')
  later(() => clock.mockRestore())
  for (const [at, days] of [1, -2, 0].entries()) {
    clock.mockImplementation(() => real() + days * 86_400_000)
    await joinOn(a, 'web', `jump${at}`)
    await knowing([[b, 'two']], `jump${at}`)
    // Longer than a third of the lease: it is renewed by this clock, too.
    await new Promise(resolve => setTimeout(resolve, 2_500))
  }
  expect(withdrawn).toEqual([])
  expect([connected(a), connected(b)]).toEqual([true, true])
})

const base64 = (text: string): string => Buffer.from(text).toString('base64')

test('a driver of global scope behind plugin sockets: allocated once, made on each host, which hears of the others', async () => {
  const etcd = await start()
  const plugin = async (name: string): Promise<[MockDriver, Host]> => {
    const directory = mkdtempSync(join(tmpdir(), 'libcnm-plugin-'))
    later(() => rmSync(directory, { recursive: true, force: true }))
    const driver = new MockDriver({ capabilities: { dataScope: 'global', connectivityScope: 'global' } })
    const server = await serveDriver(driver, {
      socket: join(directory, 'far.sock'),
      kernel: new MockKernel(),
    })
    later(() => server.close())
    return [driver, await host(name, { endpoints: [etcd.endpoint] }, { pluginDirectories: [directory] })]
  }
  const [[one, a], [two, b]] = [await plugin('a'), await plugin('b')]
  one.reply('allocateNetwork', { vni: 7 })
  const web = await a.controller.createNetwork({ name: 'web', driver: 'far', options: { zone: 'east' } })
  await until(() => b.controller.networks().some(({ name }) => name === 'web'), 'web on b')
  const made = [one, two].map(driver => driver.callsOf('createNetwork').map(({ spec }) => spec))
  expect(made[0]).toMatchObject([{ id: web.id, options: { zone: 'east', vni: '7' } }])
  expect(made[1]).toEqual(made[0])
  const heard = () => two.callsOf('discover').map(({ node }) => [node.address, node.self])
  await until(() => heard().length === 2, 'both hosts')
  expect(heard()).toEqual([
    ['192.0.2.2', true],
    ['192.0.2.1', false],
  ])
  await b.controller.network('web').delete()
  await until(() => a.controller.networks().length === 0, 'no network on a')
  await until(() => one.callsOf('deleteNetwork').length === 1, 'a deletes it')
  expect([one, two].map(driver => driver.callsOf('freeNetwork').length)).toEqual([0, 1])
})
