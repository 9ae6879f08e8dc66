/** macvlan and ipvlan by traffic: modes, flags, VLANs that are made on the fly, parents that are absent. */
import type { Controller, Endpoint, Network, NetworkInput, Sandbox } from 'libcnm'
import { bare, CLIENT, hostForEach, stackOf } from '../support/host'

const host = hostForEach()

let controller: Controller
beforeEach(async () => {
  controller = await host().open({ firewall: 'none' })
})

/** In the LAN of the uplink, or (layer 3) behind it. */
const lan = { config: [range('192.0.2.0/24', '192.0.2.64/26'), range('2001:db8::/64', '2001:db8::64:0/112')] }
const behind = { config: [{ subnet: '10.9.0.0/24' }, { subnet: 'fd00:9::/64' }] }
function range(subnet: string, ipRange: string) {
  return { subnet, ipRange }
}

const create = (driver: string, options: Record<string, unknown>, more: Partial<NetworkInput> = {}) =>
  controller.createNetwork({ name: 'lan', driver, options, ipam: { ...lan, force: true }, ...more })

interface Inhabitant {
  sandbox: Sandbox
  endpoint: Endpoint
}

async function inhabit(network: Network, ...names: string[]): Promise<Inhabitant[]> {
  const made: Inhabitant[] = []
  for (const name of names) {
    const sandbox = await controller.createSandbox({ containerId: name, files: false, resolver: false })
    const endpoint = await network.createEndpoint({ name })
    await endpoint.join(sandbox)
    made.push({ sandbox, endpoint })
  }
  return made
}

async function end(network: Network): Promise<void> {
  expect(await controller.check()).toEqual([])
  for (const sandbox of controller.sandboxes()) await sandbox.delete()
  await network.delete()
  await controller.settle()
}

const pings = (from: Inhabitant, address: string | undefined, seconds = 5) =>
  host().ping(stackOf(from.sandbox), bare(address), { seconds })

const links = async () => (await host().host.links()).map(({ name }) => name)

describe.each(['l2', 'l3', 'l3s'])('ipvlan %s', mode => {
  test.each(['bridge', 'private', 'vepa'])('%s', async flag => {
    const network = await create(
      'ipvlan',
      { parent: 'uplink', mode, flag },
      mode === 'l2' ? {} : { ipam: behind },
    )
    const [a, b] = (await inhabit(network, 'a', 'b')) as [Inhabitant, Inhabitant]
    const stack = stackOf(a.sandbox)
    const inside = await stack.link('eth0')
    expect(inside?.info?.ipvlan).toEqual({ mode, flag })
    expect(inside?.mac).toBe((await host().host.link('uplink'))?.mac) // all share the parent's
    const defaults = (await stack.routes()).filter(
      ({ destination, table }) => table === 254 && ['0.0.0.0/0', '::/0'].includes(destination),
    )
    expect(defaults.map(({ gateway }) => gateway)).toEqual(mode === 'l2' ? [] : [undefined, undefined])
    expect(await pings(a, CLIENT[4])).toBe(true)
    // Strictly layer 3 hands what comes in to the host's IPv6 stack, whose routes to the subnet are the user's business.
    if (mode !== 'l3s') expect(await pings(a, CLIENT[6])).toBe(true)
    await host().serve(stackOf(b.sandbox), 80)
    expect(await host().tcp(host().client, bare(b.endpoint.ipv4), 80)).toBe(CLIENT[4])
    const among = flag === 'bridge'
    for (const address of [b.endpoint.ipv4, b.endpoint.ipv6])
      expect(await pings(a, address, among ? 5 : 1)).toBe(among)
    await end(network)
  })
})

test.each(['macvlan', 'ipvlan'])(
  '%s on uplink.10: tagged frames of that VLAN only; gone with the network',
  async driver => {
    await host().client.apply([
      { op: 'addLink', link: { kind: 'vlan', name: 'eth0.10', parent: 'eth0', id: 10, up: true } },
      { op: 'addAddress', link: 'eth0.10', address: '10.10.0.1/24' },
      { op: 'addLink', link: { kind: 'vlan', name: 'eth0.11', parent: 'eth0', id: 11, up: true } },
      { op: 'addAddress', link: 'eth0.11', address: '10.11.0.1/24' },
    ])
    // Else it would answer for its address on VLAN 11 to whoever asks on VLAN 10.
    host().client.setSysctls({ 'net/ipv4/conf/all/arp_ignore': '1' })
    const before = await links()
    const tagged = { ipam: { config: [{ subnet: '10.10.0.0/24', gateway: '10.10.0.1' }] } }
    const network = await create(driver, { parent: 'uplink.10' }, tagged)
    expect((await host().host.link('uplink.10'))?.info?.vlan).toEqual({ id: 10 })
    const [a, b] = (await inhabit(network, 'a', 'b')) as [Inhabitant, Inhabitant]
    expect(await pings(a, '10.10.0.1')).toBe(true)
    expect(await pings(a, b.endpoint.ipv4)).toBe(true)
    await stackOf(a.sandbox).apply([{ op: 'addRoute', route: { destination: '10.11.0.0/24', link: 'eth0' } }])
    expect(await pings(a, '10.11.0.1', 1)).toBe(false)
    await host().host.apply([{ op: 'setLink', link: 'uplink.10', up: false }])
    expect(await controller.check()).toMatchObject([{ kind: 'link', problem: 'wrong' }])
    await controller.repair()
    expect(await pings(a, '10.10.0.1')).toBe(true)
    await end(network)
    expect(await links()).toEqual(before)
  },
)

test.each([
  ['macvlan', 'dm-'],
  ['ipvlan', 'di-'],
])('%s without a parent: a dummy, internal', async (driver, prefix) => {
  const before = await links()
  const network = await create(
    driver,
    {},
    { ipam: { config: [{ subnet: '10.9.0.0/24', gateway: '10.9.0.1' }] } },
  )
  expect((await host().host.link(`${prefix}${network.id.slice(0, 12)}`))?.kind).toBe('dummy')
  const [a, b] = (await inhabit(network, 'a', 'b')) as [Inhabitant, Inhabitant]
  expect(await pings(a, b.endpoint.ipv4)).toBe(true)
  expect(
    (await stackOf(a.sandbox).routes()).filter(({ destination }) => destination === '0.0.0.0/0'),
  ).toEqual([])
  await end(network)
  expect(await links()).toEqual(before)
})

test('two macvlan networks share a VLAN, which goes with the second one', async () => {
  const one = await create(
    'macvlan',
    { parent: 'uplink.10' },
    { ipam: { config: [{ subnet: '10.9.1.0/24' }] } },
  )
  const two = await create(
    'macvlan',
    { parent: 'uplink.10' },
    { name: 'two', ipam: { config: [{ subnet: '10.9.2.0/24' }] } },
  )
  await one.delete()
  expect(await links()).toContain('uplink.10')
  await two.delete()
  expect(await links()).not.toContain('uplink.10')
})

test('what cannot be is refused, and nothing is left', async () => {
  const before = await host().snapshot()
  const refused = (driver: string, options: Record<string, unknown>, code: string) =>
    expect(create(driver, options)).rejects.toMatchObject({ code })
  for (const driver of ['macvlan', 'ipvlan']) {
    await refused(driver, { parent: 'lo' }, 'ERR_INVALID_OPTION')
    await refused(driver, { parent: 'uplink.4095' }, 'ERR_INVALID_OPTION')
    await refused(driver, { parent: 'uplink.1.2' }, 'ERR_INVALID_OPTION')
    await refused(driver, { parent: 'nowhere.10' }, 'ERR_LINK_NOT_FOUND')
    await refused(driver, { mode: 'l4' }, 'ERR_INVALID_OPTION')
  }
  // The kernel itself refuses an ipvlan beside a macvlan.
  const macvlan = await create('macvlan', { parent: 'uplink' })
  const ipvlan = await create('ipvlan', { parent: 'uplink' }, { name: 'two', ipam: behind })
  const [first] = (await inhabit(macvlan, 'a')) as [Inhabitant]
  const sandbox = await controller.createSandbox({ containerId: 'b', files: false, resolver: false })
  const endpoint = await ipvlan.createEndpoint({ name: 'b' })
  await expect(endpoint.join(sandbox)).rejects.toMatchObject({ details: { errno: 'EBUSY' } })
  await first.sandbox.delete()
  await controller.settle()
  await endpoint.join(sandbox)
  await sandbox.delete()
  await endpoint.delete()
  await ipvlan.delete()
  await macvlan.delete()
  await controller.settle()
  await host().assertAs(before, ['sysctls', 'files', 'nft', 'sockets'])
})
