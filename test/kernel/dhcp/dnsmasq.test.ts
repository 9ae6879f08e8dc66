/** Addresses of a LAN from its own DHCP server (dnsmasq): on macvlan, and on a bridge that has the uplink as a port. */
import { readFileSync } from 'node:fs'
import type { Controller, Endpoint, Network, NetworkInput } from 'libcnm'
import { bare, CLIENT, hostForEach, stackOf } from '../../support/host'
import { type DhcpServer, output, startDnsmasq, until } from './scene'

// A server that is busy answers late, and a question that it missed is asked again after seconds.
jest.setTimeout(240_000)

const host = hostForEach()

const RANGE = '--dhcp-range=192.0.2.100,192.0.2.110,255.255.255.0,10m'
const SETTINGS = [
  '--dhcp-option=option:router,192.0.2.2',
  '--dhcp-option=option:dns-server,192.0.2.2,192.0.2.3',
  '--dhcp-option=option:domain-search,lan.example,example.org',
  '--dhcp-option=option:mtu,1400',
  '--dhcp-option=121,198.51.100.0/24,192.0.2.2,0.0.0.0/0,192.0.2.2',
]

/** T1 is a second less. */
const SOON = ['--dhcp-option=option:T2,5']

/** When the lease is to be renewed next. Later than before: an answer was heard meanwhile. */
const due = (endpoint: Endpoint) => Number(endpoint.record.addresses[4]?.state?.renewal)

/** Waits for a renewal that was answered and heard. `before`: what was due until then. */
async function renewal(endpoint: Endpoint, server: DhcpServer, before = due(endpoint)): Promise<void> {
  await until(
    () => due(endpoint) > before,
    () => `the renewal was not heard:\n${server.log()}`,
  )
}

const create = (controller: Controller, more: Partial<NetworkInput> = {}): Promise<Network> =>
  controller.createNetwork({
    name: 'lan',
    driver: 'macvlan',
    options: { parent: 'uplink' },
    ipam: { driver: 'dhcp' },
    ...more,
  })

test('macvlan: address, routes, MTU and DNS are what the server says; given back at the end', async () => {
  const server = await startDnsmasq(
    host(),
    host().client,
    RANGE,
    '--address=/where.example/203.0.113.7',
    ...SETTINGS,
  )
  await using controller = await host().open({ firewall: 'none' })
  const network = await create(controller)
  const endpoint = await network.createEndpoint({ name: 'web' })
  expect(endpoint.ipv4).toMatch(/^192\.0\.2\.1\d\d\/24$/)
  await until(
    () => server.leases().length === 1,
    () => server.log(),
  )
  expect(server.leases()[0]).toMatch(
    new RegExp(`^\\d+ ${endpoint.mac} ${bare(endpoint.ipv4)} web 01:${endpoint.mac}$`),
  )

  const sandbox = await controller.createSandbox({ containerId: 'c1' })
  await endpoint.join(sandbox)
  const inside = stackOf(sandbox)
  const link = await inside.link('eth0')
  expect(link).toMatchObject({ mtu: 1400, mac: endpoint.mac })
  const routes = (await inside.routes({ family: 4, table: 254 })).map(({ destination, gateway }) => [
    destination,
    gateway,
  ])
  expect(routes).toContainEqual(['0.0.0.0/0', '192.0.2.2'])
  expect(routes).toContainEqual(['198.51.100.0/24', '192.0.2.2'])
  expect(await host().ping(inside, CLIENT[4])).toBe(true)
  const text = readFileSync(sandbox.files?.resolvConf as string, 'utf8')
  expect(text).toMatch(/^search lan\.example example\.org$/m)
  expect(await output(inside, 'dig', '+short', '+tries=1', '@127.0.0.11', 'where.example')).toBe(
    '203.0.113.7\n',
  )
  expect(await controller.check()).toEqual([])

  await sandbox.delete()
  await endpoint.delete()
  await until(
    () => server.leases().length === 0,
    () => server.log(),
  )
  await network.delete()
})

test('bridge with an uplink: what LAN and container say passes at layer 2; a MAC has its reserved address', async () => {
  const mac = '02:00:00:00:00:99'
  const server = await startDnsmasq(host(), host().client, RANGE, ...SOON, `--dhcp-host=${mac},192.0.2.77`)
  const lan = host().host
  // The host's own address moves to the bridge, as on a machine set up for this.
  await lan.apply([
    { op: 'addLink', link: { kind: 'bridge', name: 'br-lan', up: true } },
    { op: 'removeAddress', link: 'uplink', address: '192.0.2.1/24' },
    { op: 'setLink', link: 'uplink', master: 'br-lan' },
    { op: 'addAddress', link: 'br-lan', address: '192.0.2.1/24' },
  ])
  try {
    await using controller = await host().open()
    const network = await create(controller, {
      driver: 'bridge',
      options: { name: 'br-lan' },
      ipam: { driver: 'dhcp', config: [{ subnet: '192.0.2.0/24' }] },
    })
    const endpoint = await network.createEndpoint({ name: 'db', mac })
    expect(endpoint.ipv4).toBe('192.0.2.77/24')
    const sandbox = await controller.createSandbox({ containerId: 'c1' })
    await endpoint.join(sandbox)
    expect(await host().ping(stackOf(sandbox), CLIENT[4])).toBe(true)
    expect(await host().ping(host().client, '192.0.2.77')).toBe(true)
    // dnsmasq names itself as the router when it is not told otherwise
    const routes = await stackOf(sandbox).routes({ family: 4, table: 254 })
    expect(routes.find(({ destination }) => destination === '0.0.0.0/0')?.gateway).toBe(CLIENT[4])
    expect((await lan.addresses()).map(({ address }) => address)).toContain('192.0.2.1/24')
    await renewal(endpoint, server) // its answer goes to the container's MAC: the bridge passes it up meanwhile
    await sandbox.delete()
    await endpoint.delete()
    await until(
      () => server.leases().length === 0,
      () => server.log(),
    )
    await network.delete()
  } finally {
    await lan.apply([
      { op: 'removeLink', link: 'br-lan' },
      { op: 'addAddress', link: 'uplink', address: '192.0.2.1/24' },
      { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: CLIENT[4], link: 'uplink' } },
    ])
  }
})

test('renewed at T1; after a restart the lease is restored and confirmed', async () => {
  const server = await startDnsmasq(host(), host().client, RANGE, ...SOON)
  const options = { firewall: 'none', dataDir: host().dataDir } as const
  const first = await host().open(options)
  const network = await create(first)
  const endpoint = await network.createEndpoint({ name: 'web' })
  await endpoint.join(await first.createSandbox({ containerId: 'c1' }))
  const { ipv4 } = endpoint
  await renewal(endpoint, server)
  await first.close()

  const before = due(endpoint)
  const second = await host().open(options)
  const restored = second.network('lan').endpoint('web')
  expect(restored.ipv4).toBe(ipv4)
  await renewal(restored, server, before)
  expect(await second.check()).toEqual([])
  await second.sandbox('c1').delete()
  await until(
    () => server.leases().length === 0,
    () => server.log(),
  )
  await second.network('lan').delete()
  await second.close()
})

test('no server: a typed error in bounded time, and nothing is left', async () => {
  await using controller = await host().open({ firewall: 'none' })
  const network = await create(controller, {
    ipam: { driver: 'dhcp', options: { 'libcnm.dhcp.timeout': '700' } },
  })
  const begun = performance.now()
  await expect(network.createEndpoint({ name: 'web' })).rejects.toMatchObject({
    code: 'ERR_LEASE',
    details: { link: 'uplink' },
  })
  expect(performance.now() - begun).toBeLessThan(10_000)
  expect(network.endpoints()).toEqual([])
  await network.delete()
})

test('an address that somebody on the LAN has is declined, another one taken', async () => {
  await host().client.apply([{ op: 'addAddress', link: 'eth0', address: '192.0.2.100/24' }])
  const server = await startDnsmasq(
    host(),
    host().client,
    '--dhcp-range=192.0.2.100,192.0.2.101,255.255.255.0,10m',
    '--dhcp-sequential-ip',
  )
  await using controller = await host().open({ firewall: 'none' })
  const network = await create(controller)
  const endpoint = await network.createEndpoint({ name: 'web' })
  expect(endpoint.ipv4).toBe('192.0.2.101/24')
  expect(server.log()).toMatch(/DHCPDECLINE\S* 192\.0\.2\.100/)
  await endpoint.delete()
  await network.delete()
})

test('an address by name, and what cannot be', async () => {
  await startDnsmasq(host(), host().client, RANGE)
  await using controller = await host().open({ firewall: 'none' })
  const network = await create(controller, {
    ipam: { driver: 'dhcp', options: { 'libcnm.dhcp.timeout': '5000' } },
  })
  const endpoint = await network.createEndpoint({ name: 'a', ipv4: '192.0.2.105' })
  expect(endpoint.ipv4).toBe('192.0.2.105/24')
  await expect(network.createEndpoint({ name: 'b', ipv4: '192.0.2.200' })).rejects.toMatchObject({
    code: 'ERR_LEASE',
    message: expect.stringContaining('not 192.0.2.200'),
  })
  await endpoint.delete()
  await network.delete()
  const refused = (more: Partial<NetworkInput>, code: string) =>
    expect(create(controller, more)).rejects.toMatchObject({ code })
  await refused({ ipv6: true }, 'ERR_UNSUPPORTED')
  await refused({ driver: 'ipvlan' }, 'ERR_UNSUPPORTED')
  await refused({ driver: 'bridge', options: {} }, 'ERR_INVALID_CONFIG')
  await refused({ ipam: { driver: 'dhcp', options: { 'libcnm.dhcp.timeot': '1' } } }, 'ERR_INVALID_OPTION')
})
