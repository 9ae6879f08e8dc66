/** Three hosts, one etcd, real packets: who reaches whom, by address and by name. */
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import type { Stack } from 'libcnm'
import { THROUGH } from '../../support/host'
import { Underlay, until, WORLD } from '../../support/underlay'

jest.setTimeout(120_000)

let net: Underlay
type Container = Awaited<ReturnType<Underlay['container']>>
const on: Container[] = []

beforeAll(async () => {
  net = await Underlay.build(3)
  await net.host(1).controller.createNetwork({
    name: 'web',
    driver: 'overlay',
    ipv6: true,
    ipam: { config: [{ subnet: '10.20.0.0/24' }, { subnet: '10.21.0.0/24' }, { subnet: 'fd20::/64' }] },
  })
  await net.host(2).controller.createNetwork({ name: 'db', driver: 'overlay', ipv6: true })
  await net.host(3).controller.createNetwork({ name: 'inner', driver: 'overlay', internal: true })
  for (const name of ['web', 'db', 'inner']) await net.everywhere(name)
  for (const host of net.hosts)
    on.push(
      await net.container(host, 'web', `web${host.number}`, { aliases: ['shared', `alias${host.number}`] }),
    )
  for (const { stack } of on) await net.base.serve(stack, 80)
})
afterAll(async () => {
  try {
    await net?.clear()
  } finally {
    await net?.close()
  }
})

const container = (number: number) => on[number - 1] as Container
const know = (from: Container, name: string) =>
  until(() => from.sandbox.resolveName(name).length > 0, `${name} is known`)

test('every container reaches every other by ping, TCP and UDP, over IPv4 and IPv6', async () => {
  for (const from of on)
    for (const to of on) {
      if (from === to) continue
      await know(from, to.endpoint.name)
      expect(await net.base.reaches(from.stack, to.ipv4, 80)).toEqual(THROUGH)
      expect(await net.base.reaches(from.stack, to.ipv6, 80)).toEqual(THROUGH)
      // Nobody stands between them.
      expect(await net.base.tcp(from.stack, to.ipv4, 80)).toContain(from.ipv4)
      expect(await net.base.tcp(from.stack, to.ipv6, 80)).toContain(from.ipv6)
    }
})

test('packets of the full MTU pass whole; it is the underlay’s less the tunnel', async () => {
  expect(net.host(1).controller.network('web').inspect().mtu).toBe(1450)
  const [from, to] = [container(1), container(2)]
  expect(await net.base.ping(from.stack, to.ipv4, { size: 1450 - 28 })).toBe(true)
  expect(await net.base.ping(from.stack, to.ipv4, { size: 1450 - 27, seconds: 1 })).toBe(false)
})

test('a second subnet of the network is on the same wire', async () => {
  const far = await net.container(net.host(3), 'web', 'far', { ipv4: '10.21.0.9' })
  await net.base.serve(far.stack, 80)
  await know(container(1), 'far')
  expect(await net.base.reaches(container(1).stack, '10.21.0.9', 80)).toEqual(THROUGH)
  await far.sandbox.delete()
  await until(() => container(1).sandbox.resolveName('far').length === 0, 'far is forgotten')
  expect(await net.base.reachesNot(container(1).stack, '10.21.0.9', 80)).toBe(true)
})

test('names and aliases of containers on other hosts, as a container asks for them', async () => {
  const { stack } = container(1)
  await know(container(1), 'web3')
  expect(await resolve(stack, 'web2', 'A')).toEqual([container(2).ipv4])
  expect(await resolve(stack, 'alias3', 'AAAA')).toEqual([container(3).ipv6])
  expect((await resolve(stack, 'shared', 'A')).sort()).toEqual(on.map(({ ipv4 }) => ipv4).sort())
  expect(container(1).sandbox.resolveIp(container(2).ipv4)[0]).toBe('web2.web')
})

test('a name is visible on every host within a second of the join', async () => {
  // The quickest of some: the machine may be busy with other things.
  const times: number[] = []
  for (let n = 0; n < 3; n++) {
    const name = `quick${n}`
    const { sandbox } = await net.container(net.host(2), 'web', name)
    const joined = performance.now()
    await until(() => on.every(each => each.sandbox.resolveName(name).length === 1), 'it is known everywhere')
    times.push(performance.now() - joined)
    await sandbox.delete()
    await until(() => on.every(each => each.sandbox.resolveName(name).length === 0), 'it is forgotten')
  }
  expect(Math.min(...times)).toBeLessThan(1_000)
})

test('an endpoint that is unhealthy answers nowhere', async () => {
  await container(3).endpoint.setHealth(false)
  await until(() => container(1).sandbox.resolveName('web3').length === 0, 'web3 is left out')
  await container(3).endpoint.setHealth(true)
  await know(container(1), 'web3')
})

test('networks are apart: another overlay is not reached, nor its names', async () => {
  const other = await net.container(net.host(2), 'db', 'db2')
  const friend = await net.container(net.host(1), 'db', 'db1')
  await net.base.serve(other.stack, 80)
  await know(friend, 'db2')
  expect(await net.base.reaches(friend.stack, other.ipv4, 80)).toEqual(THROUGH)
  for (const address of [other.ipv4, other.ipv6])
    expect(await net.base.reachesNot(container(1).stack, address, 80)).toBe(true)
  expect(container(1).sandbox.resolveName('db2')).toEqual([])
  await other.sandbox.delete()
  await friend.sandbox.delete()
})

test('the world is reached through the host, as the host; not from an internal network', async () => {
  await net.base.serve(net.wire, 7000)
  const { stack } = container(2)
  expect(await net.base.reaches(stack, '192.0.2.254', 7000)).toEqual(THROUGH)
  expect(await net.base.ping(stack, WORLD[4])).toBe(true)
  expect(await net.base.tcp(stack, WORLD[4], 7000)).toContain('192.0.2.2')
  expect(await net.base.ping(stack, WORLD[6])).toBe(true)
  expect(await net.base.tcp(stack, WORLD[6], 7000)).toContain('2001:db8::2')
  const hidden = await net.container(net.host(2), 'inner', 'hidden')
  for (const address of [WORLD[4], WORLD[6]])
    expect(await net.base.reachesNot(hidden.stack, address, 7000)).toBe(true)
  await hidden.sandbox.delete()
})

test('a published port answers at the host, from elsewhere; not at other hosts', async () => {
  const { sandbox, stack, endpoint } = await net.container(net.host(3), 'web', 'published', {
    ports: [{ containerPort: 80, hostPort: 8080 }],
  })
  await net.base.serve(stack, 80)
  expect(endpoint.ports[0]).toMatchObject({ hostPort: 8080 })
  expect(await net.base.tcp(net.wire, '192.0.2.3', 8080)).toContain('192.0.2.254')
  expect(await net.base.tcp(net.wire, '192.0.2.1', 8080, 300)).toBe('closed')
  expect(await net.base.tcp(net.wire, '2001:db8::3', 8080)).toContain('2001:db8::fe')
  expect(await net.base.tcp(net.wire, '2001:db8::1', 8080, 300)).toBe('closed')
  await endpoint.updatePorts([{ containerPort: 80, hostPort: 8081 }])
  expect(await net.base.tcp(net.wire, '192.0.2.3', 8081)).toContain('192.0.2.254')
  expect(await net.base.tcp(net.wire, '192.0.2.3', 8080, 300)).toBe('closed')
  await sandbox.delete()
})

test('containers of one host that only share the way out do not reach one another by it', async () => {
  const other = await net.container(net.host(1), 'db', 'db1')
  await net.base.serve(other.stack, 80)
  const way = other.sandbox.endpoints().find(({ network }) => network.name === 'docker_gwbridge')
  expect(await net.base.reachesNot(container(1).stack, way?.ipv4?.replace(/\/.*/, '') as string, 80)).toBe(
    true,
  )
  await other.sandbox.delete()
})

test('a container cannot write into a tunnel by sending datagrams to hosts', async () => {
  const host = net.host(2)
  const victim = await net.container(host, 'db', 'victim')
  const { vni } = host.controller.network('db').record.state.data as { vni: number }
  // A whole frame for the victim, with an ARP question that it would answer; counted where it would come out.
  const mac = (text: string) => Buffer.from(text.replace(/:/g, ''), 'hex')
  const header = Buffer.from([8, 0, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0])
  const frame = Buffer.concat([
    header,
    mac(victim.endpoint.mac),
    mac('02:00:00:00:00:99'),
    Buffer.alloc(60, 8),
  ])
  const received = async () =>
    (await host.stack.links()).find(({ name }) => name === `vx-${victim.endpoint.network.id.slice(0, 12)}`)
      ?.statistics.rxPackets
  const before = await received()
  const send = async (from: Stack, address: string) => {
    const socket = createSocket('udp4')
    await new Promise<void>(ready =>
      socket.bind({ fd: from.openSocket({ type: 'udp', address: '0.0.0.0', port: 0 }) }, () => ready()),
    )
    for (let n = 0; n < 5; n++) await new Promise(sent => socket.send(frame, 4789, address, sent))
    socket.close()
  }
  await send(container(1).stack, host.address) // by way of its own host, whose address it would bear
  await send(container(2).stack, host.address) // on the very host
  await send(net.wire, host.address) // from a machine that is no host of the cluster
  await new Promise(resolve => setTimeout(resolve, 200))
  expect(await received()).toEqual(before)
  await send(net.host(1).stack, host.address) // a host of the cluster may: the test can tell
  await until(async () => (await received()) !== before, 'a frame comes through')
  await victim.sandbox.delete()
})

test('of 60 joins on three hosts at once, no two get one address, and all can be asked', async () => {
  const made = await Promise.all(
    Array.from({ length: 60 }, async (_, n) => {
      const host = net.host((n % 3) + 1)
      return net.container(host, 'db', `many${n}`)
    }),
  )
  expect(new Set(made.map(({ ipv4 }) => ipv4)).size).toBe(60)
  expect(new Set(made.map(({ ipv6 }) => ipv6)).size).toBe(60)
  const first = made[0] as Container
  const unknown = () => made.filter(({ endpoint }) => first.sandbox.resolveName(endpoint.name).length !== 1)
  await until(
    () => unknown().length === 0,
    async () =>
      `all names: ${unknown().map(({ endpoint, ipv4 }) => `${endpoint.name} ${ipv4}: ${first.sandbox.resolveName(endpoint.name)}`)}`,
  )
  const pings = await Promise.all(made.slice(1, 12).map(({ ipv4 }) => net.base.ping(first.stack, ipv4)))
  expect(pings).toEqual(Array(11).fill(true))
  await Promise.all(made.map(({ sandbox }) => sandbox.delete()))
})

/** As a program inside asks: at 127.0.0.11, which this process serves (so it must not wait for the answer). */
function resolve(where: Stack, name: string, type: 'A' | 'AAAA'): Promise<string[]> {
  const child = where.run(() =>
    spawn('dig', ['@127.0.0.11', '+short', '+tries=1', name, type], { stdio: ['ignore', 'pipe', 'ignore'] }),
  )
  let text = ''
  child.stdout.on('data', data => {
    text += String(data)
  })
  return new Promise((done, reject) => {
    child.on('error', reject)
    child.on('close', () => done(text.split('\n').filter(Boolean)))
  })
}
