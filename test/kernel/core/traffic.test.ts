/** What gets through and what does not, by ping, TCP and UDP over IPv4 and IPv6. */
import type { Controller, EndpointInput, Network, Sandbox } from 'libcnm'
import { bare, CLIENT, hostForEach, stackOf, THROUGH, UPLINK } from '../../support/host'

const host = hostForEach({ mtu: 1400 })
const PORT = 8080

async function join(
  controller: Controller,
  network: Network,
  containerId: string,
  options: Partial<EndpointInput> = {},
) {
  const sandbox: Sandbox =
    controller.sandboxes().find(each => each.containerId === containerId) ??
    (await controller.createSandbox({ containerId, files: false, resolver: false }))
  const endpoint = await network.createEndpoint({ name: containerId, ...options })
  await endpoint.join(sandbox)
  return { sandbox, endpoint, ipv4: bare(endpoint.ipv4), ipv6: bare(endpoint.ipv6) }
}

const network = (controller: Controller, name: string, n: number, more: object = {}) =>
  controller.createNetwork({
    name,
    ipam: { config: [{ subnet: `10.77.${n}.0/24` }, { subnet: `fd77:${n}::/64` }] },
    ...more,
  })

async function end(controller: Controller): Promise<void> {
  for (const sandbox of controller.sandboxes()) await sandbox.delete()
  for (const each of controller.networks()) {
    for (const endpoint of each.endpoints()) await endpoint.delete()
    await each.delete()
  }
  await controller.settle()
}

test('two sandboxes on a bridge reach one another, the host and the world', async () => {
  const h = host()
  const controller = await h.open()
  const web = await network(controller, 'web', 1)
  const a = await join(controller, web, 'a')
  const b = await join(controller, web, 'b')
  await Promise.all([h.serve(stackOf(b.sandbox), PORT), h.serve(h.host, PORT), h.serve(h.client, PORT)])
  for (const address of [b.ipv4, b.ipv6, '10.77.1.1', 'fd77:1::1', CLIENT[4], CLIENT[6]])
    expect([address, await h.reaches(stackOf(a.sandbox), address, PORT)]).toEqual([address, THROUGH])
  expect(await h.tcp(stackOf(a.sandbox), b.ipv4, PORT)).toBe(a.ipv4)
  expect(await h.tcp(stackOf(a.sandbox), b.ipv6, PORT)).toBe(a.ipv6)
  // outside, the host's address is seen
  expect(await h.tcp(stackOf(a.sandbox), CLIENT[4], PORT)).toBe(UPLINK[4])
  expect(await h.tcp(stackOf(a.sandbox), CLIENT[6], PORT)).toBe(UPLINK[6])
  const statistics = (await a.sandbox.statistics()).eth0
  expect(statistics?.txPackets).toBeGreaterThan(5)
  expect(statistics?.rxBytes).toBeGreaterThan(100)

  await b.endpoint.leave()
  expect(await h.reachesNot(stackOf(a.sandbox), b.ipv4, PORT)).toBe(true)
  await b.endpoint.join(b.sandbox)
  expect(await h.reaches(stackOf(a.sandbox), b.ipv4, PORT)).toEqual(THROUGH)
  await end(controller)
})

test('two networks are apart; a sandbox on both reaches both', async () => {
  const h = host()
  const controller = await h.open()
  const [web, db] = [await network(controller, 'web', 1), await network(controller, 'db', 2)]
  const front = await join(controller, web, 'front')
  const store = await join(controller, db, 'store')
  const api = await join(controller, web, 'api')
  await join(controller, db, 'api')
  await h.serve(stackOf(store.sandbox), PORT)
  await h.serve(stackOf(front.sandbox), PORT)
  for (const address of [store.ipv4, store.ipv6]) {
    expect([address, await h.reachesNot(stackOf(front.sandbox), address, PORT)]).toEqual([address, true])
    expect([address, await h.reaches(stackOf(api.sandbox), address, PORT)]).toEqual([address, THROUGH])
  }
  expect(await h.reaches(stackOf(api.sandbox), front.ipv6, PORT)).toEqual(THROUGH)
  await end(controller)
})

test('internal: reached from within and by the host, and nothing beyond', async () => {
  const h = host()
  const controller = await h.open()
  const inner = await network(controller, 'inner', 1, { internal: true })
  const a = await join(controller, inner, 'a')
  const b = await join(controller, inner, 'b')
  await Promise.all([h.serve(stackOf(b.sandbox), PORT), h.serve(h.client, PORT)])
  expect(a.sandbox.gateway).toEqual({})
  for (const address of [b.ipv4, b.ipv6]) {
    expect(await h.reaches(stackOf(a.sandbox), address, PORT)).toEqual(THROUGH)
    expect(await h.reaches(h.host, address, PORT)).toEqual(THROUGH)
    expect(await h.reachesNot(h.client, address, PORT)).toBe(true)
  }
  // not even with a route of its own making
  await stackOf(a.sandbox).apply([
    { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: '10.77.1.1' } },
    { op: 'addRoute', route: { destination: '::/0', gateway: 'fd77:1::1' } },
  ])
  for (const address of [CLIENT[4], CLIENT[6]])
    expect(await h.reachesNot(stackOf(a.sandbox), address, PORT)).toBe(true)
  await end(controller)
})

test('ICC off: sandboxes of one network do not reach one another, but the world', async () => {
  const h = host()
  const controller = await h.open()
  const web = await network(controller, 'web', 1, { options: { icc: false } })
  const a = await join(controller, web, 'a')
  const b = await join(controller, web, 'b')
  await Promise.all([h.serve(stackOf(b.sandbox), PORT), h.serve(h.client, PORT)])
  for (const address of [b.ipv4, b.ipv6])
    expect(await h.reachesNot(stackOf(a.sandbox), address, PORT)).toBe(true)
  for (const address of [CLIENT[4], CLIENT[6]])
    expect(await h.reaches(stackOf(a.sandbox), address, PORT)).toEqual(THROUGH)
  await end(controller)
})

test('MTU: that of the host’s default route, or the one given; larger packets do not fit', async () => {
  const h = host()
  const controller = await h.open()
  const usual = await network(controller, 'usual', 1)
  const small = await network(controller, 'small', 2, { options: { mtu: 1280 } })
  for (const [each, mtu] of [
    [usual, 1400],
    [small, 1280],
  ] as const) {
    const a = await join(controller, each, `a${mtu}`)
    const b = await join(controller, each, `b${mtu}`)
    expect(await stackOf(a.sandbox).link('eth0')).toMatchObject({ mtu })
    expect(await h.host.link(each.link as string)).toMatchObject({ mtu })
    const fits = mtu - 28 // IPv4 and ICMP headers, bytes
    expect(await h.ping(stackOf(a.sandbox), b.ipv4, { size: fits })).toBe(true)
    expect(await h.ping(stackOf(a.sandbox), b.ipv4, { size: fits + 1, seconds: 1 })).toBe(false)
  }
  await end(controller)
})

test('static addresses and MAC, and link-local addresses, are what others see', async () => {
  const h = host()
  const controller = await h.open()
  const web = await network(controller, 'web', 1)
  const a = await join(controller, web, 'a', {
    ipv4: '10.77.1.50',
    ipv6: 'fd77:1::50',
    mac: '02:42:00:00:00:50',
    linkLocal: ['169.254.9.50', 'fe80::50'],
  })
  const b = await join(controller, web, 'b', { linkLocal: ['169.254.9.51'] })
  await h.serve(stackOf(a.sandbox), PORT)
  for (const address of ['10.77.1.50', 'fd77:1::50', '169.254.9.50'])
    expect([address, await h.reaches(stackOf(b.sandbox), address, PORT)]).toEqual([address, THROUGH])
  expect(await h.ping(stackOf(b.sandbox), 'fe80::50%eth0')).toBe(true)
  const seen = await stackOf(b.sandbox).neighbours()
  expect(seen.find(({ address }) => address === '10.77.1.50')?.mac).toBe('02:42:00:00:00:50')
  await end(controller)
})

test('the gateway endpoint leaves: the world is reached through the other network', async () => {
  const h = host()
  const controller = await h.open()
  const [web, db] = [await network(controller, 'web', 1), await network(controller, 'db', 2)]
  const a = await join(controller, web, 'a')
  const second = await db.createEndpoint({ name: 'a' })
  await second.join(a.sandbox, { priority: 1 })
  await h.serve(h.client, PORT)
  expect(a.sandbox.gateway).toEqual({ ipv4: second, ipv6: second })
  for (let round = 0; round < 2; round++) {
    for (const address of [CLIENT[4], CLIENT[6]])
      expect(await h.reaches(stackOf(a.sandbox), address, PORT)).toEqual(THROUGH)
    if (round === 0) await second.leave()
  }
  expect(a.sandbox.gateway.ipv4).toBe(a.endpoint)
  await end(controller)
})

test('host and null: the host’s own stack, and none', async () => {
  const h = host()
  const controller = await h.open({ predefined: { bridge: 'testbr0' } })
  const shared = await controller.createSandbox({ containerId: 'shared', mode: 'host', files: false })
  await (await controller.network('host').createEndpoint({ name: 'shared' })).join(shared)
  expect(stackOf(shared).inode).toBe(h.host.inode)
  await h.serve(h.client, PORT)
  expect(await h.tcp(stackOf(shared), CLIENT[4], PORT)).toBe(UPLINK[4])
  const alone = await controller.createSandbox({ containerId: 'alone', files: false })
  await (await controller.network('none').createEndpoint({ name: 'alone' })).join(alone)
  expect((await stackOf(alone).links()).map(({ name }) => name)).toEqual(['lo'])
  expect(await h.ping(stackOf(alone), '127.0.0.1')).toBe(true)
  expect(await h.reachesNot(stackOf(alone), CLIENT[4], PORT)).toBe(true)
  const plain = await controller.createSandbox({ containerId: 'plain', files: false, resolver: false })
  await (await controller.network('bridge').createEndpoint({ name: 'plain' })).join(plain)
  expect(await h.tcp(stackOf(plain), CLIENT[4], PORT)).toBe(UPLINK[4])
  for (const sandbox of controller.sandboxes()) await sandbox.delete()
  await controller.settle()
  await h.host.apply([{ op: 'removeLink', link: 'testbr0' }])
})
