/** Networks that span hosts, on modelled hosts and a store in memory: what users' programs can do without root or etcd. */
import { CnmError, type Controller, type ControllerInput, type Network } from 'libcnm'
import { faultSweep, MemoryCluster, type MemoryBackend, MockKernel } from 'libcnm/testing'
import { directory, joined, later, open, sandboxOf } from './scene'

interface Host {
  name: string
  kernel: MockKernel
  backend: MemoryBackend
  controller: Controller
  options: Exclude<ControllerInput, undefined>
}

let store: MemoryCluster
beforeEach(() => {
  store = new MemoryCluster()
  later(() => store.close())
})

async function host(name: string, n: number, more: Exclude<ControllerInput, undefined> = {}): Promise<Host> {
  const address = `192.0.2.${n}`
  const kernel = new MockKernel({
    hardware: [{ name: 'eth0', addresses: [`${address}/24`], gateways: ['192.0.2.254'] }],
  })
  const backend = store.backend()
  const options = { hostId: name, ...more, cluster: { backend, host: { name, address }, timeout: 300 } }
  return { name, kernel, backend, options, controller: await open(kernel, options) }
}

const hosts = (...names: string[]) => Promise.all(names.map((name, at) => host(name, at + 1)))

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('in vain')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

const has = ({ controller }: Host, name: string) =>
  controller.networks().some(network => network.name === name)

async function everywhere(all: Host[], name: string): Promise<Network[]> {
  await until(() => all.every(each => has(each, name)))
  return all.map(({ controller }) => controller.network(name))
}

/** What the host's tunnel knows: `ADDRESS at MAC` and `MAC to TUNNEL END`. */
const known = ({ kernel }: Host): string[] => {
  const { links = [], neighbours = [], fdb = [] } = kernel.netns(undefined) ?? {}
  const tunnel = links.find(({ kind }) => kind === 'vxlan')?.name
  return [
    ...neighbours.filter(({ link }) => link === tunnel).map(({ address, mac }) => `${address} at ${mac}`),
    ...fdb.flatMap(({ link, mac, remote }) => (link === tunnel && remote ? [`${mac} to ${remote}`] : [])),
  ].sort()
}

test('a network made on one host is there on all, and gone from all', async () => {
  const all = await hosts('a', 'b', 'c')
  const told: string[] = []
  for (const { name, controller } of all) controller.on('network.create', () => told.push(name))
  const web = await (all[0] as Host).controller.createNetwork({ name: 'web', driver: 'overlay', ipv6: true })
  const networks = await everywhere(all, 'web')
  expect(networks[0]).toBe(web) // who makes it does not take it in once more when the cluster tells of it
  expect(told.sort()).toEqual(['a', 'b', 'c'])
  const views = networks.map(network => network.inspect())
  expect(views[1]).toEqual(views[0])
  expect(views[2]).toEqual(views[0])
  expect(views[0]).toMatchObject({
    scope: 'global',
    mtu: 1450,
    ipam: { config: [{ subnet: '10.0.0.0/24' }, {}] },
  })
  // Nothing of it is in the kernel of any host yet.
  for (const each of all)
    expect(each.kernel.netns(undefined)?.links.map(({ name }) => name)).toEqual(['eth0', 'lo'])
  await expect(
    (all[1] as Host).controller.createNetwork({ name: 'web', driver: 'overlay' }),
  ).rejects.toMatchObject({ code: 'ERR_NETWORK_EXISTS' })
  await (networks[2] as Network).delete()
  await until(() => all.every(each => !has(each, 'web')))
  await expect(web.createEndpoint({ name: 'late' })).rejects.toMatchObject({ code: 'ERR_GONE' })
  expect(Object.keys(store.snapshot()).filter(key => !/state\/host|pools-guard/.test(key))).toEqual([])
})

test('a subnet that is chosen is none of the underlay, of the host or of its other networks; nor the other way round', async () => {
  const at = async (name: string, address: string) =>
    open(new MockKernel({ hardware: [{ name: 'eth0', addresses: [`${address}/24`, '10.0.3.9/24'] }] }), {
      hostId: name,
      cluster: { backend: store.backend(), host: { name, address } },
    })
  const a = await at('a', '10.0.0.1')
  const joined = new Promise(resolve =>
    a.on('host.join', ({ host }) => void (host.name === 'b' && resolve(host))),
  )
  const b = await at('b', '10.0.1.1')
  await joined
  const subnetOf = (network: Network) => network.ipam[0]?.subnet
  expect(subnetOf(await a.createNetwork({ name: 'one', driver: 'overlay' }))).toBe('10.0.2.0/24')
  expect(subnetOf(await a.createNetwork({ name: 'two', driver: 'overlay' }))).toBe('10.0.4.0/24')
  const named = (subnet: string, more = {}) =>
    a.createNetwork({ name: 'named', driver: 'overlay', ipam: { config: [{ subnet }], ...more } })
  await expect(named('10.0.0.0/16')).rejects.toMatchObject({ code: 'ERR_HOST_ROUTE_CONFLICT' })
  // A sandbox may be on both.
  const seen = await named('172.17.0.0/16')
  await until(() => b.networks().length === 3)
  const own = await Promise.all([a, b].map(each => each.createNetwork({ name: 'own' })))
  expect(own.map(subnetOf)).toEqual(['172.18.0.0/16', '172.18.0.0/16'])
  await seen.delete()
  await expect(named('172.18.0.0/16')).rejects.toMatchObject({
    code: 'ERR_HOST_ROUTE_CONFLICT',
    message: expect.stringContaining('dev br-'),
  })
  expect(subnetOf(await named('172.18.0.0/16', { force: true }))).toBe('172.18.0.0/16')
})

test('of two hosts that make a network of one name at once, one does', async () => {
  const all = await hosts('a', 'b')
  const made = await Promise.allSettled(
    all.map(({ controller }) => controller.createNetwork({ name: 'web', driver: 'overlay' })),
  )
  expect(made.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  expect(made.find(({ status }) => status === 'rejected')).toMatchObject({
    reason: { code: 'ERR_NETWORK_EXISTS' },
  })
  await everywhere(all, 'web')
  // The loser gave its pool and its number back.
  expect(Object.keys(store.snapshot()).filter(key => /claims\/(pools|segments)\//.test(key))).toHaveLength(2)
})

test('an endpoint that joins is known on every host that has the network, and only there', async () => {
  const all = await hosts('a', 'b', 'c')
  const [a, b, c] = all as [Host, Host, Host]
  await a.controller.createNetwork({ name: 'web', driver: 'overlay', ipv6: true })
  const [onA, onB] = (await everywhere(all, 'web')) as [Network, Network]
  const [one, two] = [await sandboxOf(a.controller, 'one'), await sandboxOf(b.controller, 'two')]
  const first = await joined(onA, one)
  const second = await joined(onB, two)
  await until(() => known(a).length === 3)
  const way = (endpoint: typeof first, end: string) =>
    [
      `${endpoint.ipv4?.replace(/\/.*/, '')} at ${endpoint.mac}`,
      `${endpoint.ipv6?.replace(/\/.*/, '')} at ${endpoint.mac}`,
      `${endpoint.mac} to ${end}`,
    ].sort()
  expect(known(a)).toEqual(way(second, '192.0.2.2'))
  expect(known(b)).toEqual(way(first, '192.0.2.1'))
  expect(known(c)).toEqual([])
  expect(one.resolveName('two')).toEqual([second.ipv4?.replace(/\/.*/, '')])
  expect(two.resolveIp(first.ipv4?.replace(/\/.*/, '') as string)[0]).toBe('one.web')
  await expect(onA.delete()).rejects.toMatchObject({ code: 'ERR_NETWORK_IN_USE' })
  await second.leave()
  await until(() => known(a).length === 0)
  expect(one.resolveName('two')).toEqual([])
  // The host's part goes with its last endpoint.
  await b.controller.settle()
  expect(b.kernel.netns(undefined)?.links.some(({ kind }) => kind === 'vxlan')).toBe(false)
  await one.delete()
  await until(() => !a.kernel.netns(undefined)?.links.some(({ kind }) => kind === 'vxlan'))
})

test('a network in use elsewhere cannot be deleted, and says where', async () => {
  const all = await hosts('a', 'b')
  await (all[0] as Host).controller.createNetwork({ name: 'web', driver: 'overlay' })
  const [onA, onB] = (await everywhere(all, 'web')) as [Network, Network]
  const endpoint = await joined(onB, await sandboxOf((all[1] as Host).controller, 'two'))
  await expect(onA.delete()).rejects.toMatchObject({
    code: 'ERR_NETWORK_IN_USE',
    message: expect.stringContaining('two on b'),
  })
  await endpoint.leave()
  await expect(onA.delete()).rejects.toMatchObject({
    code: 'ERR_NETWORK_IN_USE',
    message: expect.stringContaining('some of b that are in no sandbox'),
  })
  await endpoint.delete()
  await onA.delete()
})

test('sandboxes get a way out, with their published ports; the last one takes it away', async () => {
  const [a] = (await hosts('a')) as [Host]
  const web = await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  const inner = await a.controller.createNetwork({ name: 'inner', driver: 'overlay', internal: true })
  const sandbox = await sandboxOf(a.controller, 'one')
  const hidden = await joined(inner, sandbox)
  expect(sandbox.endpoints()).toHaveLength(1)
  const endpoint = await web.createEndpoint({ name: 'one', ports: [{ containerPort: 80, hostPort: 8080 }] })
  await endpoint.join(sandbox)
  expect(sandbox.gateway.ipv4?.network.name).toBe('docker_gwbridge')
  expect(endpoint.ports[0]).toMatchObject({ hostPort: 8080, containerPort: 80 })
  expect(sandbox.endpoints().map(({ interfaceName }) => interfaceName)).toEqual(['eth1', 'eth0', 'eth2'])
  await endpoint.updatePorts([{ containerPort: 81, hostPort: 8081 }])
  expect(endpoint.ports[0]).toMatchObject({ hostPort: 8081, containerPort: 81 })
  await endpoint.delete({ force: true })
  expect(sandbox.endpoints()).toEqual([hidden])
  expect(a.controller.network('docker_gwbridge').endpoints()).toEqual([])
  await sandbox.delete()
  for (const name of ['web', 'inner', 'docker_gwbridge']) await a.controller.network(name).delete()
})

test('cut off: local networks and leaving work, what spans hosts is refused, and all is well afterwards', async () => {
  const all = await hosts('a', 'b')
  const [a, b] = all as [Host, Host]
  await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  const [onA, onB] = (await everywhere(all, 'web')) as [Network, Network]
  const sandboxes = [await sandboxOf(a.controller, 'one'), await sandboxOf(b.controller, 'two')] as const
  const first = await joined(onA, sandboxes[0])
  await joined(onB, sandboxes[1])
  await until(() => known(a).length === 2 && known(b).length === 2)
  const ready = await onA.createEndpoint({ name: 'ready' })
  const events: string[] = []
  a.controller.on('*', ({ type }) => events.push(type))
  a.backend.cut = true
  await until(() => events.includes('cluster.lost'))

  const local = await a.controller.createNetwork({ name: 'local' })
  const third = await sandboxOf(a.controller, 'three')
  await joined(local, third)
  for (const refused of [
    () => a.controller.createNetwork({ name: 'other', driver: 'overlay' }),
    () => onA.createEndpoint({ name: 'x' }),
    () => ready.join(third),
    () => onA.delete(),
  ])
    await expect(refused()).rejects.toMatchObject({ kind: expect.stringMatching(/unavailable|denied/) })
  expect(known(a)).toHaveLength(2) // the data path is as it was
  await first.leave()
  await first.delete()

  a.backend.cut = false
  await until(() => events.includes('cluster.connected') && known(b).length === 0)
  const again = await onA.createEndpoint({ name: 'one', ipv4: first.ipv4?.replace(/\/.*/, '') })
  await again.join(sandboxes[0])
  await until(() => known(b).length === 2)
  await ready.join(third)
})

test('a host that dies is withdrawn when its lease ends, and comes back with what it has', async () => {
  const [a, b] = [await host('a', 1, { dataDir: directory() }), await host('b', 2)]
  await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  const [onA, onB] = (await everywhere([a, b], 'web')) as [Network, Network]
  const endpoint = await joined(onA, await sandboxOf(a.controller, 'one'))
  const two = await sandboxOf(b.controller, 'two')
  await joined(onB, two)
  await until(() => known(b).length === 2)
  const gone: string[] = []
  b.controller.on('host.leave', event => gone.push(event.host.name))
  await a.controller.close()
  store.expire('1')
  await until(() => known(b).length === 0)
  expect(gone).toEqual(['a'])
  expect(two.resolveName('one')).toEqual([])
  // Its address is its own all the while.
  await expect(
    onB.createEndpoint({ name: 'thief', ipv4: endpoint.ipv4?.replace(/\/.*/, '') }),
  ).rejects.toMatchObject({ code: 'ERR_ADDRESS_IN_USE' })
  const backend = store.backend()
  const again = await open(a.kernel, { ...a.options, cluster: { ...a.options.cluster, backend } as never })
  await until(() => known(b).length === 2)
  expect(two.resolveName('one')).toEqual([endpoint.ipv4?.replace(/\/.*/, '')])
  await until(() => known({ ...a, controller: again }).length === 2)
})

test('a host that starts while the store is away has its containers, and what it missed is made good', async () => {
  const [a, b] = [await host('a', 1, { dataDir: directory() }), await host('b', 2)]
  await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  const [onA, onB] = (await everywhere([a, b], 'web')) as [Network, Network]
  await joined(onA, await sandboxOf(a.controller, 'one'))
  const two = await joined(onB, await sandboxOf(b.controller, 'two'))
  await until(() => known(a).length === 2)
  await a.controller.close()
  await two.leave()
  const three = await joined(onB, await sandboxOf(b.controller, 'three'))
  const backend = store.backend()
  backend.cut = true
  const again = await open(a.kernel, { ...a.options, cluster: { ...a.options.cluster, backend } as never })
  expect(again.sandbox('one').endpoints()).toHaveLength(2)
  expect(known(a)).toHaveLength(2)
  backend.cut = false
  await until(() => known(a).join().includes(three.mac))
  await until(() => !known(a).join().includes(two.mac))
})

test('a host that crashed while it made a network gives back what it had taken for it', async () => {
  const a = await host('a', 1)
  await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  const claims = () => Object.keys(store.snapshot()).filter(key => /claims\/(pools|segments)\//.test(key))
  const before = claims()
  // As after a crash between the claims and the definition.
  const life = 'a earlier'
  store.put('/libcnm/claims/pools/10.77.0.0_24', life)
  store.put('/libcnm/claims/addresses/10.77.0.0_24/10.77.0.1', '{"owner":"x"}')
  store.put('/libcnm/claims/segments/9999', `${'f'.repeat(64)} ${life}`)
  // Another host's are its own affair.
  store.put('/libcnm/claims/pools/10.78.0.0_24', 'b earlier')
  await a.controller.close()
  const backend = store.backend()
  await open(a.kernel, { ...a.options, cluster: { ...a.options.cluster, backend } as never })
  await until(() => claims().length === before.length + 1)
  expect(claims()).toEqual([...before, '/libcnm/claims/pools/10.78.0.0_24'].sort())
})

test('a store that is full: said so, and all is well when there is room', async () => {
  const [a] = (await hosts('a')) as [Host]
  const web = await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  a.backend.fail(new CnmError('ERR_CLUSTER_FULL', 'mvcc: database space exceeded'))
  await expect(web.createEndpoint({ name: 'x' })).rejects.toMatchObject({
    code: 'ERR_CLUSTER_FULL',
    kind: 'exhausted',
  })
  a.backend.fail(undefined)
  await until(() => a.controller.cluster?.connected === true)
  await joined(web, await sandboxOf(a.controller, 'x'))
})

test('a store that lost everything: networks in use are there again', async () => {
  const all = await hosts('a', 'b')
  const [a, b] = all as [Host, Host]
  await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  const [onA, onB] = (await everywhere(all, 'web')) as [Network, Network]
  await joined(onA, await sandboxOf(a.controller, 'one'))
  await joined(onB, await sandboxOf(b.controller, 'two'))
  await until(() => known(a).length === 2 && known(b).length === 2)
  const before = Object.keys(store.snapshot())
  const backend = store.backend()
  await backend.transact({ removePrefixes: ['/libcnm/'] })
  store.breakWatches()
  await until(() => before.filter(key => !/guard|docker/.test(key)).every(key => key in store.snapshot()))
  await until(() => known(a).length === 2 && known(b).length === 2)
})

test('garbage in the store: an event, and nothing comes of it', async () => {
  const [a] = (await hosts('a')) as [Host]
  const events: string[] = []
  a.controller.on('*', event => events.push(event.type === 'problem' ? event.message : event.type))
  const id = 'e'.repeat(64)
  const definition = (more: object) =>
    JSON.stringify({
      version: 1,
      value: {
        id,
        name: 'evil',
        driver: 'overlay',
        created: '2026-01-01',
        ipv4: true,
        ipv6: false,
        config: { name: 'evil' },
        driverOptions: {},
        pools: [],
        data: { vni: 1, port: 4789 },
        ...more,
      },
    })
  store.put('/libcnm/state/network/x', 'garbage')
  for (const bad of [
    { driver: 'bridge' },
    { driver: '../../x' },
    { config: { name: 1 } },
    { data: { vni: -1, port: 1 } },
    { driverOptions: { id: 'x' } },
  ])
    store.put(`/libcnm/state/network/${id}`, definition(bad))
  await until(() => events.filter(event => /evil/.test(event)).length === 5)
  expect(events).toContain('cluster.garbage')
  expect(a.controller.networks()).toEqual([])
  store.put(`/libcnm/state/network/${id}`, definition({}))
  await until(() => has(a, 'evil'))
})

test('a foreign host defines a network with the VXLAN id of another: the join that would mix them is refused', async () => {
  const [a] = (await hosts('a')) as [Host]
  const web = await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  await joined(web, await sandboxOf(a.controller, 'one'))
  const id = 'd'.repeat(64)
  const key = `/libcnm/state/network/${web.id}`
  const twin = JSON.parse(store.snapshot()[key] as string) as { value: Record<string, unknown> }
  Object.assign(twin.value, { id, name: 'twin', config: { name: 'twin' } })
  store.put(`/libcnm/state/network/${id}`, JSON.stringify(twin))
  await until(() => has(a, 'twin'))
  const before = a.kernel.snapshot()
  const other = await sandboxOf(a.controller, 'two')
  const endpoint = await a.controller.network('twin').createEndpoint({ name: 'two' })
  await expect(endpoint.join(other)).rejects.toMatchObject({
    code: 'ERR_LINK_CONFLICT',
    message: expect.stringContaining('vx-'),
  })
  await other.delete()
  await a.controller.settle()
  expect(a.kernel.snapshot()).toEqual(before)
  expect(await a.controller.check()).toEqual([])
})

test('a slow store: everything takes its time, and is done', async () => {
  const all = await hosts('a', 'b')
  const [a, b] = all as [Host, Host]
  for (const { backend } of all) backend.delay = 150
  await a.controller.createNetwork({ name: 'web', driver: 'overlay' })
  const [onA, onB] = (await everywhere(all, 'web')) as [Network, Network]
  await Promise.all([
    joined(onA, await sandboxOf(a.controller, 'one')),
    joined(onB, await sandboxOf(b.controller, 'two')),
  ])
  await until(() => known(a).length === 2 && known(b).length === 2)
  expect(a.controller.cluster?.connected).toBe(true)
})

test('without a cluster the driver says what is missing', async () => {
  const controller = await open(new MockKernel())
  await expect(controller.createNetwork({ name: 'web', driver: 'overlay' })).rejects.toMatchObject({
    code: 'ERR_CLUSTER_REQUIRED',
  })
})

test('bad input: VXLAN ids that clash, a tunnel address that is not there, an MTU too small, encryption', async () => {
  const [a, b] = (await hosts('a', 'b')) as [Host, Host]
  await a.controller.createNetwork({ name: 'one', driver: 'overlay', options: { id: 77 } })
  await expect(
    b.controller.createNetwork({ name: 'two', driver: 'overlay', options: { id: 77 } }),
  ).rejects.toMatchObject({ code: 'ERR_SEGMENT_IN_USE' })
  await expect(
    b.controller.createNetwork({ name: 'two', driver: 'overlay', options: { id: 2 ** 24 } }),
  ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  await expect(
    b.controller.createNetwork({ name: 'two', driver: 'overlay', ipv6: true, options: { mtu: 1000 } }),
  ).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG' })
  const backend = store.backend()
  const lost = await open(new MockKernel(), {
    name: 'lost',
    cluster: { backend, host: { name: 'lost', address: '198.51.100.9' } },
  })
  await expect(lost.createNetwork({ name: 'two', driver: 'overlay' })).rejects.toMatchObject({
    code: 'ERR_INVALID_OPTION',
    message: expect.stringContaining('198.51.100.9'),
  })
  // Of all that nothing is left.
  expect(
    Object.keys(store.snapshot()).filter(key => /claims\/(pools|segments|names)\//.test(key)),
  ).toHaveLength(3)
})

test('a network without addresses is refused, as nobody could be found on it', async () => {
  const [a] = (await hosts('a')) as [Host]
  const before = store.snapshot()
  await expect(
    a.controller.createNetwork({ name: 'none', driver: 'overlay', ipam: { driver: 'null' } }),
  ).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG', message: expect.stringContaining('is no subnet') })
  expect(store.snapshot()).toEqual(before)
})

test('another VXLAN device of the same id on the host: the join says which', async () => {
  const [a] = (await hosts('a')) as [Host]
  const web = await a.controller.createNetwork({ name: 'web', driver: 'overlay', options: { id: 77 } })
  const stack = await a.kernel.open()
  await stack.apply([{ op: 'addLink', link: { kind: 'vxlan', name: 'theirs', id: 77, port: 4789 } }])
  const sandbox = await sandboxOf(a.controller, 'one')
  await expect(joined(web, sandbox)).rejects.toMatchObject({
    code: 'ERR_LINK_CONFLICT',
    message: expect.stringContaining('theirs'),
  })
  await stack.apply([{ op: 'removeLink', link: 'theirs' }])
  await web.endpoint('one').join(sandbox)
})

test('a join that fails at any call to the kernel leaves nothing, and can be tried again', async () => {
  await faultSweep(async kernel => {
    const fresh = new MemoryCluster()
    later(() => fresh.close())
    const controller = await open(kernel, {
      cluster: { backend: fresh.backend(), host: { name: 'a', address: '192.0.2.10' } },
    })
    const web = await controller.createNetwork({ name: 'web', driver: 'overlay' })
    const sandbox = await sandboxOf(controller, 'one')
    const endpoint = await web.createEndpoint({ name: 'one' })
    // The gateway bridge stays once it is made; it is no part of the join.
    await joined(web, await sandboxOf(controller, 'other'))
    return () => endpoint.join(sandbox)
  })
})
