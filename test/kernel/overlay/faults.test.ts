/** What goes wrong between hosts: a host dies, etcd dies, links are cut. Three hosts over an IPv6 underlay. */
import { THROUGH } from '../../support/host'
import { Underlay, type UnderlayHost, until } from '../../support/underlay'

jest.setTimeout(120_000)

let net: Underlay
type Container = Awaited<ReturnType<Underlay['container']>>
const on: Container[] = []

beforeAll(async () => {
  net = await Underlay.build(3, { family: 6, lease: 5 })
  await net.host(1).controller.createNetwork({ name: 'web', driver: 'overlay', ipv6: true })
  await net.everywhere('web')
  for (const host of net.hosts) on.push(await net.container(host, 'web', `web${host.number}`))
  for (const { stack } of on) await net.base.serve(stack, 80)
  for (const each of on) await allKnown(each)
})
afterAll(async () => {
  try {
    await net?.clear()
  } finally {
    await net?.close()
  }
})

const container = (number: number) => on[number - 1] as Container
const knows = (from: Container, name: string) => from.sandbox.resolveName(name).length > 0
const allKnown = (from: Container) =>
  until(() => on.every(each => knows(from, each.endpoint.name)), 'all names are known')
/** By and by: on a busy machine a host may have missed its lease, and is on its way back. */
async function reach(from: number, to: number) {
  await until(async () => {
    const answers = await net.base.reaches(container(from).stack, container(to).ipv4, 80)
    return Object.values(answers).every(Boolean)
  }, `${from} reaches ${to}`)
  return THROUGH
}
const connected = (host: UnderlayHost) => host.controller.cluster?.connected === true

test('over an IPv6 underlay the tunnel takes 20 bytes more; both families get through', async () => {
  expect(net.host(1).controller.network('web').inspect().mtu).toBe(1430)
  for (const [from, to] of [
    [1, 2],
    [2, 3],
    [3, 1],
  ] as const) {
    expect(await reach(from, to)).toEqual(THROUGH)
    expect(await net.base.reaches(container(from).stack, container(to).ipv6, 80)).toEqual(THROUGH)
  }
  expect(await net.base.ping(container(1).stack, container(2).ipv4, { size: 1430 - 28 })).toBe(true)
})

test('etcd is killed and comes back: traffic goes on, changes are refused, then all is well', async () => {
  await net.etcd.kill()
  await until(() => net.hosts.every(host => !connected(host)), 'everybody notices')
  expect(await reach(1, 2)).toEqual(THROUGH)
  const network = net.host(2).controller.network('web')
  const refused = [
    () => network.createEndpoint({ name: 'late' }),
    () => net.host(1).controller.createNetwork({ name: 'late', driver: 'overlay' }),
  ]
  for (const act of refused) await expect(act()).rejects.toMatchObject({ code: 'ERR_CLUSTER_UNAVAILABLE' })
  const local = await net.host(2).controller.createNetwork({ name: 'local' })
  await local.delete()
  await net.etcd.run()
  await until(() => net.hosts.every(connected), 'everybody is back')
  const late = await net.container(net.host(2), 'web', 'late')
  await until(() => knows(container(1), 'late'), 'late is known')
  expect(await net.base.ping(container(1).stack, late.ipv4)).toBe(true)
  await late.sandbox.delete()
})

test('a host that is cut off from etcd for longer than its lease is withdrawn; when it is back, so is all it has', async () => {
  const host = net.host(3)
  const gone = new Promise<string>(resolve =>
    net.host(1).controller.once('host.leave', event => resolve(event.host.name)),
  )
  host.line.cut()
  await until(() => !connected(host), 'it notices')
  expect(await gone).toBe('host3')
  await until(() => !knows(container(1), 'web3'), 'web3 is withdrawn')
  expect(await net.base.reachesNot(container(1).stack, container(3).ipv4, 80)).toBe(true)
  // It has not lost what it knew, and what it does alone goes on.
  expect(knows(container(3), 'web1')).toBe(true)
  await host.controller.createSandbox({ containerId: 'alone' }).then(sandbox => sandbox.delete())
  host.line.heal()
  await until(() => connected(host), 'it is back')
  await allKnown(container(1))
  expect(await reach(1, 3)).toEqual(THROUGH)
  expect(await reach(3, 2)).toEqual(THROUGH)
})

test('an etcd that does not answer at all: the same, and within its time', async () => {
  const host = net.host(2)
  host.line.freeze()
  await expect(host.controller.network('web').createEndpoint({ name: 'x' })).rejects.toMatchObject({
    code: 'ERR_CLUSTER_UNAVAILABLE',
  })
  expect(await reach(2, 1)).toEqual(THROUGH)
  host.line.heal()
  await until(() => connected(host), 'it is back')
  await allKnown(container(1))
})

test('the underlay is cut between hosts, and healed', async () => {
  const host = net.host(1)
  await net.link(host, false)
  expect(await net.base.reachesNot(container(1).stack, container(2).ipv4, 80)).toBe(true)
  expect(await reach(2, 3)).toEqual(THROUGH)
  await net.link(host, true)
  await until(
    async () => net.base.ping(container(1).stack, container(2).ipv4, { seconds: 1 }),
    'it is healed',
  )
  expect(await reach(1, 2)).toEqual(THROUGH)
})

test('a controller restarts: flows live on, and what it missed meanwhile is made good', async () => {
  const host = net.host(1)
  await host.controller.close()
  expect(await reach(2, 1)).toEqual(THROUGH)
  const fresh = await net.container(net.host(2), 'web', 'fresh')
  await net.restart(host)
  const sandbox = host.controller.sandbox('web1')
  on[0] = { ...container(1), sandbox, endpoint: host.controller.network('web').endpoint('web1') }
  await until(() => sandbox.resolveName('fresh').length > 0, 'fresh is known')
  on[0] = { ...container(1), stack: await net.base.kernel.open(sandbox.key) }
  expect(await net.base.ping(container(1).stack, fresh.ipv4)).toBe(true)
  expect(await reach(1, 3)).toEqual(THROUGH)
  expect(await host.controller.check()).toEqual([])
  await fresh.sandbox.delete()
  container(1).stack.close()
})

test('the bridge of the network is deleted by somebody: repair makes this host’s part anew', async () => {
  const { controller, stack } = net.host(2)
  await stack.apply([{ op: 'removeLink', link: controller.network('web').link as string }])
  expect((await controller.repair()).length).toBeGreaterThan(0)
  expect(await controller.check()).toEqual([])
  expect(await reach(2, 3)).toEqual(THROUGH)
  expect(await reach(3, 2)).toEqual(THROUGH)
})
