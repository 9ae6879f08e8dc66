/** Bridges on the real kernel: what is made on the host, what is adopted, what is refused. */
import { hostForEach, stackOf } from '../../support/host'

const host = hostForEach()
const config = (n: number) => ({ config: [{ subnet: `10.77.${n}.0/24` }] })

test('names as in Docker’s world: br- and 12 digits of the id, veth and 7 digits; a mark on the port', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({ name: 'web', ipam: config(1) })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1' })
  await endpoint.join(sandbox)
  const links = await h.host.links()
  const bridge = links.find(({ name }) => name === `br-${network.id.slice(0, 12)}`)
  expect(bridge).toMatchObject({ kind: 'bridge', up: true })
  const port = links.find(({ master }) => master === bridge?.index)
  expect(port).toMatchObject({ kind: 'veth', up: true, alias: `libcnm:${endpoint.id.slice(0, 12)}` })
  expect(port?.name).toMatch(/^veth[0-9a-f]{7}$/)
  expect((await stackOf(sandbox).links()).map(({ name }) => name)).toEqual(['lo', 'eth0'])
  // its MAC is its own, and does not change with its ports
  const { mac } = bridge as { mac: string }
  await endpoint.leave()
  await controller.settle()
  expect((await h.host.link(bridge?.name as string))?.mac).toBe(mac)
  await sandbox.delete()
  await endpoint.delete()
  await network.delete()
})

test('IPv6 is on inside where there is an address of it, and off where there is none', async () => {
  const h = host()
  const controller = await h.open()
  const four = await controller.createNetwork({ name: 'four', ipam: config(1) })
  const both = await controller.createNetwork({
    name: 'both',
    ipam: { config: [{ subnet: '10.77.2.0/24' }, { subnet: 'fd77:2::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  for (const network of [four, both]) await (await network.createEndpoint({ name: 'c1' })).join(sandbox)
  const addresses = await stackOf(sandbox).addresses()
  const on = async (name: string) => {
    const index = (await stackOf(sandbox).link(name))?.index
    return addresses.filter(({ link }) => link === index).map(({ address }) => address)
  }
  expect((await on('eth0')).filter(each => each.includes(':'))).toEqual([])
  expect(await on('eth1')).toEqual(expect.arrayContaining(['10.77.2.2/24', 'fd77:2::2/64']))
  expect(addresses.filter(({ scope, tentative }) => scope === 'global' && tentative)).toEqual([])
  await sandbox.delete()
  for (const network of [four, both]) await network.delete()
})

test('inhibitIpv4: the bridge has no address; endpoints still reach one another', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    options: { inhibitIpv4: true },
    ipam: config(1),
  })
  const bridge = await h.host.link(network.link as string)
  expect((await h.host.addresses(bridge?.index)).filter(({ address }) => !address.includes(':'))).toEqual([])
  const sandboxes = []
  for (const containerId of ['a', 'b']) {
    const sandbox = await controller.createSandbox({ containerId, files: false, resolver: false })
    await (await network.createEndpoint({ name: containerId })).join(sandbox)
    sandboxes.push(sandbox)
  }
  expect(await h.ping(stackOf(sandboxes[0]!), '10.77.1.3')).toBe(true)
  for (const sandbox of sandboxes) await sandbox.delete()
  await network.delete()
})

test('an existing bridge is adopted as it is, given what it lacks, and never deleted', async () => {
  const h = host()
  const controller = await h.open()
  await h.host.apply([
    { op: 'addLink', link: { kind: 'bridge', name: 'mine0', mac: '02:00:00:00:00:77' } },
    { op: 'setLink', link: 'mine0', mtu: 1300 },
    { op: 'addAddress', link: 'mine0', address: '192.168.99.1/24' },
  ])
  const before = await h.snapshot()
  const network = await controller.createNetwork({
    name: 'web',
    options: { 'com.docker.network.bridge.name': 'mine0' },
    ipam: { config: [{ subnet: '192.168.99.0/24', gateway: '192.168.99.1' }, { subnet: 'fd77:9::/64' }] },
  })
  expect(await h.host.link('mine0')).toMatchObject({ up: true, mtu: 1300, mac: '02:00:00:00:00:77' })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  await (await network.createEndpoint({ name: 'c1' })).join(sandbox)
  expect(await h.ping(stackOf(sandbox), '192.168.99.1')).toBe(true)
  expect(await h.ping(stackOf(sandbox), 'fd77:9::1')).toBe(true)
  await sandbox.delete()
  await network.delete()
  await controller.settle()
  await h.assertAs(before, ['nft', 'sysctls', 'files', 'sockets'])
  await h.host.apply([{ op: 'removeLink', link: 'mine0' }])
})

test('what does not fit is refused, the other thing is named, and nothing has changed', async () => {
  const h = host()
  const controller = await h.open()
  await h.host.apply([
    { op: 'addLink', link: { kind: 'veth', name: 'taken0', peer: { name: 'taken1' }, up: true } },
    { op: 'addLink', link: { kind: 'bridge', name: 'other0', up: true } },
    { op: 'addAddress', link: 'other0', address: '10.99.0.1/24' },
  ])
  const before = await h.snapshot()
  const refused: [object, string, RegExp][] = [
    [
      { options: { name: 'taken0' }, ipam: config(1) },
      'ERR_LINK_CONFLICT',
      /taken0 is not a bridge \(it is veth\)/,
    ],
    [
      { options: { name: 'other0' }, ipam: config(1) },
      'ERR_LINK_CONFLICT',
      /other0 has address 10\.99\.0\.1\/24, not 10\.77\.1\.1\/24/,
    ],
    [
      { ipam: { config: [{ subnet: '10.99.0.0/16' }] } },
      'ERR_HOST_ROUTE_CONFLICT',
      /10\.99\.0\.0\/16.*other0/,
    ],
    [{ ipam: { config: [{ subnet: '192.0.2.128/25' }] } }, 'ERR_HOST_ROUTE_CONFLICT', /uplink/],
  ]
  for (const [options, code, message] of refused)
    await expect(controller.createNetwork({ name: 'web', ...options })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    })
  await h.assertAs(before)
  await h.host.apply([
    { op: 'removeLink', link: 'taken0' },
    { op: 'removeLink', link: 'other0' },
  ])
})

test('an interface name of one’s own, a prefix, sysctls and routes are there as `ip` sees them', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    options: { interfacePrefix: 'net' },
    ipam: config(1),
  })
  const other = await controller.createNetwork({ name: 'db', ipam: config(2) })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  await (await network.createEndpoint({ name: 'c1' })).join(sandbox, {
    sysctls: { 'net.ipv4.conf.IFNAME.arp_ignore': '1' },
    routes: [
      { destination: '172.30.0.0/16', gateway: '10.77.1.9' },
      { destination: '172.31.0.0/16', type: 'blackhole' },
    ],
  })
  const endpoint = await other.createEndpoint({ name: 'c1' })
  await endpoint.join(sandbox, { interfaceName: 'backend' })
  const links = JSON.parse(h.run(stackOf(sandbox), 'ip', '-j', 'link')) as { ifname: string }[]
  expect(links.map(({ ifname }) => ifname)).toEqual(['lo', 'net0', 'backend'])
  expect(stackOf(sandbox).sysctl('net/ipv4/conf/net0/arp_ignore')).toBe('1')
  const routes = h.run(stackOf(sandbox), 'ip', 'route')
  expect(routes).toMatch(/172\.30\.0\.0\/16 via 10\.77\.1\.9 dev net0/)
  expect(routes).toMatch(/blackhole 172\.31\.0\.0\/16/)
  expect(routes).toMatch(/default via 10\.77\.2\.1 dev backend/)
  await sandbox.delete()
  for (const each of [network, other]) await each.delete()
})
