/** What a sandbox holds: interfaces and their names, the way out, routes, IPv6, names; and the modes that it can have. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Controller, Network, Sandbox } from 'libcnm'
import { MockDriver } from 'libcnm/testing'
import {
  addressesOn,
  defaults,
  directory,
  fresh,
  inside,
  joined,
  linkNames,
  networkOf,
  refusal,
  sandboxOf,
  state,
} from './scene'

const interfaces = (sandbox: { endpoints(): { interfaceName?: string; network: Network }[] }) =>
  Object.fromEntries(sandbox.endpoints().map(({ interfaceName, network }) => [network.name, interfaceName]))

describe('interfaces', () => {
  test('take the lowest free number of their prefix', async () => {
    const { kernel, controller } = await fresh()
    const nets = await Promise.all([1, 2, 3].map(n => networkOf(controller, `n${n}`, n)))
    const ham = await networkOf(controller, 'ham', 4, {
      options: { 'com.docker.network.container_iface_prefix': 'ham' },
    })
    const sandbox = await sandboxOf(controller, 'c1')
    const [, second] = [await joined(nets[0]!, sandbox), await joined(nets[1]!, sandbox)]
    await joined(ham, sandbox)
    await joined(nets[2]!, sandbox)
    expect(interfaces(sandbox)).toEqual({ n1: 'eth0', n2: 'eth1', ham: 'ham0', n3: 'eth2' })
    await second.leave()
    await second.join(sandbox) // while the old eth1 is still being taken away
    expect(second.interfaceName).toBe('eth1')
    await controller.settle()
    expect(linkNames(inside(kernel, sandbox)).sort()).toEqual(['eth0', 'eth1', 'eth2', 'ham0', 'lo'])
  })

  test('have the name that was asked for, which then counts as taken', async () => {
    const { kernel, controller } = await fresh()
    const [a, b, c] = await Promise.all([1, 2, 3].map(n => networkOf(controller, `n${n}`, n)))
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(a!, sandbox, { interfaceName: 'eth0' })
    await joined(b!, sandbox)
    expect(interfaces(sandbox)).toEqual({ n1: 'eth0', n2: 'eth1' })
    const third = await c!.createEndpoint({ name: 'c1' })
    const before = state(kernel, controller)
    for (const interfaceName of ['eth1', 'lo'])
      await expect(third.join(sandbox, { interfaceName })).rejects.toEqual(
        refusal('ERR_LINK_EXISTS', new RegExp(`c1 has an interface ${interfaceName} already`)),
      )
    expect(state(kernel, controller)).toEqual(before)
    await third.join(sandbox, { interfaceName: 'uplink' })
    expect(linkNames(inside(kernel, sandbox))).toContain('uplink')
  })

  test('tell their statistics by name', async () => {
    const { controller } = await fresh()
    const sandbox = await sandboxOf(controller, 'c1')
    expect(await sandbox.statistics()).toEqual({})
    await joined(await networkOf(controller, 'web', 1), sandbox, { interfaceName: 'web0' })
    expect(Object.keys(await sandbox.statistics())).toEqual(['web0'])
    expect((await sandbox.statistics()).web0).toEqual(
      expect.objectContaining({
        rxBytes: expect.any(Number),
        txPackets: expect.any(Number),
        rxDropped: expect.any(Number),
      }),
    )
  })

  test('have their own sysctls and routes', async () => {
    const { kernel, controller } = await fresh()
    const sandbox = await sandboxOf(controller, 'c1')
    const endpoint = await joined(await networkOf(controller, 'web', 1), sandbox, {
      sysctls: { 'net.ipv4.conf.IFNAME.rp_filter': '2' },
      routes: [
        { destination: '172.30.0.0/16', gateway: '10.1.0.9' },
        { destination: '172.31.0.0/16', type: 'blackhole' },
      ],
    })
    const view = inside(kernel, sandbox)
    expect(view.sysctls).toMatchObject({ 'net/ipv4/conf/eth0/rp_filter': '2' })
    expect(view.routes).toContainEqual(
      expect.objectContaining({ destination: '172.30.0.0/16', gateway: '10.1.0.9', link: 'eth0' }),
    )
    expect(view.routes).toContainEqual(
      expect.objectContaining({ destination: '172.31.0.0/16', type: 'blackhole' }),
    )
    await endpoint.leave()
    expect(inside(kernel, sandbox).routes.filter(({ table }) => table === 254)).toEqual([])
  })

  test('IPv6 is off on an interface without an IPv6 address, on on one with', async () => {
    const { kernel, controller } = await fresh()
    const four = await networkOf(controller, 'four', 1)
    const both = await networkOf(controller, 'both', 2, { ipv6: true })
    const lone = await networkOf(controller, 'lone', 3)
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(four, sandbox)
    await joined(both, sandbox)
    const third = await lone.createEndpoint({ name: 'c1', linkLocal: ['fe80::5'] })
    await third.join(sandbox)
    const { stack } = sandbox
    const off = (name: string) => stack?.sysctl(`net/ipv6/conf/${name}/disable_ipv6`)
    expect([off('eth0'), off('eth1'), off('eth2')]).toEqual(['1', '0', '0'])
    expect(addressesOn(inside(kernel, sandbox), 'eth1')).toContain('fd00:2::2/64')
  })

  test('a kernel without IPv6 is no obstacle to IPv4', async () => {
    const { kernel, controller } = await fresh({}, { lacks: ['ipv6'] })
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(await networkOf(controller, 'web', 1), sandbox)
    await joined(await networkOf(controller, 'db', 2), sandbox)
    expect(addressesOn(inside(kernel, sandbox), 'eth1')).toEqual(['10.2.0.2/24'])
  })
})

describe('the way out', () => {
  const gatewayNames = (sandbox: {
    gateway: { ipv4?: { network: Network }; ipv6?: { network: Network } }
  }) => [sandbox.gateway.ipv4?.network.name, sandbox.gateway.ipv6?.network.name]

  /** Joins networks in this order, and tells who is elected in each family. */
  async function elect(
    make: (controller: Controller) => Promise<[Network, { priority?: number }?][]>,
  ): Promise<unknown[]> {
    const { kernel, controller } = await fresh()
    const sandbox = await sandboxOf(controller, 'c1')
    for (const [network, options] of await make(controller)) await joined(network, sandbox, options)
    expect(defaults(inside(kernel, sandbox))).toHaveLength(gatewayNames(sandbox).filter(Boolean).length)
    return gatewayNames(sandbox)
  }

  test('the highest priority wins, whatever the order of joining', async () => {
    expect(
      await elect(async c => [
        [await networkOf(c, 'a', 1), { priority: 1 }],
        [await networkOf(c, 'b', 2), { priority: 3 }],
        [await networkOf(c, 'c', 3), { priority: 2 }],
      ]),
    ).toEqual(['b', undefined])
    expect(
      await elect(async c => [[await networkOf(c, 'a', 1)], [await networkOf(c, 'b', 2), { priority: -1 }]]),
    ).toEqual(['a', undefined])
  })

  test('then the one with more gateways, then the name in ascending order', async () => {
    expect(
      await elect(async c => [
        [await networkOf(c, 'a', 1)],
        [await networkOf(c, 'b', 2, { ipv6: true })],
        [await networkOf(c, 'c', 3, { ipv6: true })],
      ]),
    ).toEqual(['b', 'b'])
    expect(await elect(async c => [[await networkOf(c, 'z', 1)], [await networkOf(c, 'y', 2)]])).toEqual([
      'y',
      undefined,
    ])
  })

  test('each family is elected on its own', async () => {
    expect(
      await elect(async c => [
        [await networkOf(c, 'both', 1, { ipv6: true })],
        [await networkOf(c, 'four', 2), { priority: 9 }],
      ]),
    ).toEqual(['four', 'both'])
  })

  test('an internal network is none, not even with priority', async () => {
    expect(
      await elect(async c => [
        [await networkOf(c, 'in', 1, { internal: true }), { priority: 100 }],
        [await networkOf(c, 'out', 2)],
      ]),
    ).toEqual(['out', undefined])
    expect(await elect(async c => [[await networkOf(c, 'in', 1, { internal: true, ipv6: true })]])).toEqual([
      undefined,
      undefined,
    ])
  })

  test('moves when a better one comes, and back when it leaves', async () => {
    const { kernel, controller } = await fresh()
    const a = await networkOf(controller, 'a', 1, { ipv6: true })
    const b = await networkOf(controller, 'b', 2, { ipv6: true })
    const sandbox = await sandboxOf(controller, 'c1')
    const first = await joined(a, sandbox)
    expect(defaults(inside(kernel, sandbox))).toEqual(['via 10.1.0.1 dev eth0', 'via fd00:1::1 dev eth0'])
    const second = await joined(b, sandbox, { priority: 1 })
    expect(defaults(inside(kernel, sandbox))).toEqual(['via 10.2.0.1 dev eth1', 'via fd00:2::1 dev eth1'])
    expect(sandbox.endpoints()).toEqual([second, first])
    expect(second.inspect().sandbox?.gateway).toEqual({ ipv4: true, ipv6: true })
    await second.leave()
    expect(defaults(inside(kernel, sandbox))).toEqual(['via 10.1.0.1 dev eth0', 'via fd00:1::1 dev eth0'])
    await first.leave()
    expect(defaults(inside(kernel, sandbox))).toEqual([])
  })

  test('a gateway of a user, other than the bridge, is used', async () => {
    const { kernel, controller } = await fresh()
    const network = await controller.createNetwork({
      name: 'web',
      ipam: {
        config: [{ subnet: '10.1.0.0/24', auxAddresses: { DefaultGatewayIPv4: '10.1.0.254' } }],
      },
    })
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(network, sandbox)
    expect(defaults(inside(kernel, sandbox))).toEqual(['via 10.1.0.254 dev eth0'])
    expect(kernel.netns()?.addresses).toContainEqual(
      expect.objectContaining({ link: network.link, address: '10.1.0.1/24' }),
    )
  })

  test('a driver may name the device itself', async () => {
    const driver = new MockDriver()
    const { kernel, controller } = await fresh({ drivers: [driver] })
    const network = await networkOf(controller, 'web', 1, { driver: 'mock' })
    driver.reply('join', ({ endpoint, request }) => ({
      plan: {
        changes: [
          {
            op: 'addLink',
            link: {
              kind: 'veth',
              name: 'mock0',
              up: true,
              peer: { name: request.interfaceName, netns: request.netns, mac: endpoint.mac },
            },
          },
        ],
        undo: [{ op: 'removeLink', link: 'mock0', ifExists: true }],
      },
      interface: { arrives: 'born', source: 'mock0' },
      gateways: { 4: 'device' },
    }))
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(network, sandbox)
    expect(defaults(inside(kernel, sandbox))).toEqual(['via undefined dev eth0'])
  })
})

describe('an address that overlaps a route in the sandbox is refused', () => {
  test('when it is on the subnet of another endpoint', async () => {
    const driver = new MockDriver()
    const { kernel, controller } = await fresh({ drivers: [driver] })
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(await networkOf(controller, 'web', 1), sandbox)
    const clash = await controller.createNetwork({ name: 'clash', driver: 'mock' })
    clash.record.pools.splice(0) // this driver gives addresses itself
    driver.reply('createEndpoint', { ipv4: '10.1.0.99/25' })
    const endpoint = await clash.createEndpoint({ name: 'c1' })
    const before = state(kernel, controller)
    await expect(endpoint.join(sandbox)).rejects.toEqual(
      refusal('ERR_ROUTE_CONFLICT', /10\.1\.0\.99\/25.*10\.1\.0\.2\/24.*web, eth0/),
    )
    expect(state(kernel, controller)).toEqual(before)
  })

  test('when a route that was set with an endpoint covers it', async () => {
    const { kernel, controller } = await fresh()
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(await networkOf(controller, 'web', 1), sandbox, {
      routes: [{ destination: '10.2.0.0/16', gateway: '10.1.0.9' }],
    })
    const db = await networkOf(controller, 'db', 2)
    const endpoint = await db.createEndpoint({ name: 'c1' })
    const before = state(kernel, controller)
    await expect(endpoint.join(sandbox)).rejects.toEqual(
      refusal('ERR_ROUTE_CONFLICT', /10\.2\.0\.2\/24.*10\.2\.0\.0\/16/),
    )
    expect(state(kernel, controller)).toEqual(before)
  })
})

describe('modes', () => {
  test('host: the sandbox is the host itself, and only the host network fits', async () => {
    const { kernel, controller } = await fresh({ predefined: true })
    const before = kernel.netns()?.links
    const sandbox = await sandboxOf(controller, 'c1', 'host')
    expect(sandbox.key).toBe('/proc/1/ns/net')
    const endpoint = await joined(controller.network('host'), sandbox)
    expect(endpoint).toMatchObject({ ipv4: undefined, ipv6: undefined, sandbox })
    const web = await (await networkOf(controller, 'web', 1)).createEndpoint({ name: 'c1' })
    await expect(web.join(sandbox)).rejects.toEqual(refusal('ERR_INVALID_OPTION', /cannot be connected/))
    const own = await sandboxOf(controller, 'c2')
    const second = await controller.network('host').createEndpoint({ name: 'c2' })
    await expect(second.join(own)).rejects.toEqual(
      refusal('ERR_INVALID_OPTION', /cannot connect.*host network/),
    )
    await expect(sandbox.setKey('/proc/1/ns/net')).rejects.toEqual(refusal('ERR_INVALID_OPTION'))
    await sandbox.delete()
    await own.delete()
    await controller.network('web').endpoint('c1').delete()
    await controller.network('web').delete()
    expect(kernel.netns()?.links).toEqual(before)
  })

  test('none: nothing but the loopback', async () => {
    const { kernel, controller } = await fresh({ predefined: true })
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(controller.network('none'), sandbox)
    expect(linkNames(inside(kernel, sandbox))).toEqual(['lo'])
    expect(sandbox.endpoints()).toHaveLength(1)
    expect(sandbox.gateway).toEqual({})
  })

  test('shared: a second container lives in the first one’s sandbox', async () => {
    const { kernel, controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const first = await sandboxOf(controller, 'first')
    await joined(network, first)
    const sharer = await sandboxOf(controller, 'sharer', 'container:fir') // a prefix will do
    expect(sharer).toMatchObject({ key: first.key, mode: 'container:first' })
    const endpoint = await network.createEndpoint({ name: 'sharer' })
    await expect(endpoint.join(sharer)).rejects.toEqual(
      refusal('ERR_INVALID_OPTION', /sharing network namespace/),
    )
    await expect(sandboxOf(controller, 'third', 'container:sharer')).rejects.toEqual(
      refusal('ERR_INVALID_OPTION', /sharer has no namespace of its own/),
    )
    await expect(sandboxOf(controller, 'third', 'container:nobody')).rejects.toEqual(
      refusal('ERR_SANDBOX_NOT_FOUND'),
    )
    await expect(first.delete()).rejects.toEqual(refusal('ERR_SANDBOX_IN_USE', /shared by sharer/))
    const { path } = kernel.spawn()
    await first.setKey(path)
    expect(sharer.key).toBe(first.key) // it moves along
    await sharer.delete()
    expect(linkNames(inside(kernel, first))).toContain('eth0') // and takes nothing with it
    await first.delete()
  })

  test('shared: the first one may be deleted by force, or be gone before the second is there', async () => {
    const { controller } = await fresh()
    const first = await sandboxOf(controller, 'first')
    const [sharing, deleting] = await Promise.allSettled([
      sandboxOf(controller, 'sharer', 'container:first'),
      first.delete(),
    ])
    // whoever came first, no sharer is left without the one it shares with
    expect([sharing.status, deleting.status].sort()).toEqual(['fulfilled', 'rejected'])
    const again = controller.sandboxes().some(({ containerId }) => containerId === 'first')
      ? first
      : await sandboxOf(controller, 'first')
    await again.delete({ force: true })
    await controller.gc({ containerIds: [] })
    expect(controller.sandboxes()).toEqual([])
  })
})

describe('names', () => {
  test('a sandbox finds the others on its networks by name, alias and address', async () => {
    const { controller } = await fresh()
    const web = await networkOf(controller, 'web', 1, { ipv6: true })
    const db = await networkOf(controller, 'db', 2)
    const front = await sandboxOf(controller, 'front')
    const store = await sandboxOf(controller, 'store')
    await joined(web, front)
    const endpoint = await web.createEndpoint({ name: 'store', aliases: ['data'] })
    await endpoint.join(store)
    const other = await joined(db, await sandboxOf(controller, 'other'))
    for (const name of ['store', 'data', 'STORE', 'store.web']) {
      expect(front.resolveName(name)).toEqual(['10.1.0.3'])
      expect(front.resolveName(name, 6)).toEqual(['fd00:1::3'])
    }
    for (const address of ['10.1.0.3', '10.1.0.3/24']) expect(front.resolveIp(address)[0]).toMatch(/^store/)
    expect(front.resolveName(other.name)).toEqual([])
    await endpoint.setHealth(false)
    expect(front.resolveName('data')).toEqual([])
    await endpoint.setHealth(true)
    await endpoint.leave()
    expect(front.resolveName('store')).toEqual([])
  })

  test('rename takes endpoints and names along, whole or not at all', async () => {
    const { controller } = await fresh()
    const [a, b] = [await networkOf(controller, 'a', 1), await networkOf(controller, 'b', 2)]
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(a, sandbox)
    await joined(b, sandbox)
    const watcher = await sandboxOf(controller, 'watcher')
    await joined(a, watcher)
    await sandbox.rename('fresh')
    expect(sandbox.endpoints().map(({ name }) => name)).toEqual(['fresh', 'fresh'])
    expect(watcher.resolveName('fresh')).toEqual(['10.1.0.2'])
    await b.createEndpoint({ name: 'taken' })
    await expect(sandbox.rename('taken')).rejects.toEqual(refusal('ERR_ENDPOINT_EXISTS', /taken.*network b/))
    expect(sandbox.endpoints().map(({ name }) => name)).toEqual(['fresh', 'fresh'])
    expect([a.endpoint('fresh').name, b.endpoint('fresh').name]).toEqual(['fresh', 'fresh'])
    expect(() => a.endpoint('taken')).toThrow(refusal('ERR_ENDPOINT_NOT_FOUND'))
    expect(watcher.resolveName('fresh')).toEqual(['10.1.0.2'])
    await expect(sandbox.rename('a\nb')).rejects.toEqual(refusal('ERR_INVALID_NAME', /control characters/))
    await a.createEndpoint({ name: 'c1' }) // the old name is free
  })

  test('a rename and a create of one name: one of them wins', async () => {
    const { controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const sandbox = await sandboxOf(controller, 'c1')
    await joined(network, sandbox)
    const outcome = await Promise.allSettled([network.createEndpoint({ name: 'x' }), sandbox.rename('x')])
    expect(outcome.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(network.endpoints().filter(({ name }) => name === 'x')).toHaveLength(1)
  })

  test('refresh changes what it names and keeps the rest', async () => {
    const { controller } = await fresh()
    const sandbox = await controller.createSandbox({
      containerId: 'c1',
      labels: { a: '1' },
      extraHosts: ['gate:192.0.2.9'],
      dns: { servers: ['192.0.2.53'] },
      files: false,
    })
    const network = await networkOf(controller, 'web', 1)
    await joined(network, sandbox)
    await sandbox.refresh({ hostname: 'anew' })
    expect(sandbox).toMatchObject({ hostname: 'anew', labels: { a: '1' } })
    expect(sandbox.record.config).toMatchObject({
      extraHosts: ['gate:192.0.2.9'],
      dns: { servers: ['192.0.2.53'] },
    })
    await sandbox.refresh({ labels: { b: '2' } })
    expect(sandbox).toMatchObject({ hostname: 'anew', labels: { b: '2' } })
    expect(sandbox.resolveName('anew')).toEqual(['10.1.0.2'])
    await expect(sandbox.refresh({ hostname: '-bad' })).rejects.toEqual(
      refusal('ERR_INVALID_NAME', /hostname/),
    )
    await expect(sandbox.refresh({ mode: 'host' } as object)).rejects.toEqual(
      refusal('ERR_INVALID_OPTION', /mode is not an option/),
    )
  })
})

describe('whom the resolver asks on', () => {
  const asked = (sandbox: Sandbox) =>
    sandbox.resolver?.statistics().upstreams.map(({ from, address, port }) => `${from} ${address}#${port}`)

  test.each([
    ['the host, without files too', [], ['host 192.0.2.1#53']],
    ['its own instead of the host', ['192.0.2.53#5353'], ['sandbox 192.0.2.53#5353']],
    [
      'its own for one domain beside the host',
      ['corp.example=192.0.2.53'],
      ['sandbox 192.0.2.53#53', 'host 192.0.2.1#53'],
    ],
  ])('%s', async (_, servers, expected) => {
    const resolvConf = join(directory(), 'resolv.conf')
    writeFileSync(resolvConf, 'nameserver 192.0.2.1\n')
    const { controller } = await fresh({ resolvConf })
    const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, dns: { servers } })
    await joined(await networkOf(controller, 'web', 1), sandbox)
    expect(asked(sandbox)).toEqual(expected)
  })

  test('a server that is no address is refused', async () => {
    const { controller } = await fresh()
    await expect(
      controller.createSandbox({ containerId: 'c1', files: false, dns: { servers: ['corp=nowhere'] } }),
    ).rejects.toEqual(refusal('ERR_INVALID_OPTION', /must be an IP address/))
  })
})
