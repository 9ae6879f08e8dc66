/** hostAccess: the host and its macvlan containers reach one another, which the kernel alone does not let them. */
import type { Controller, Endpoint, Network, Sandbox } from 'libcnm'
import { bare, hostForEach, stackOf } from '../../support/host'

const host = hostForEach()

const LAN = [
  { subnet: '192.0.2.0/24', ipRange: '192.0.2.64/26' },
  { subnet: '2001:db8::/64', ipRange: '2001:db8::64:0/112' },
]

const create = (controller: Controller, hostAccess: boolean, options: Record<string, unknown> = {}) =>
  controller.createNetwork({
    name: 'lan',
    driver: 'macvlan',
    options: { parent: 'uplink', hostAccess, ...options },
    ipam: { config: LAN },
  })

async function join(controller: Controller, network: Network, name: string) {
  const sandbox = await controller.createSandbox({ containerId: name, files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name })
  await endpoint.join(sandbox)
  return { sandbox, endpoint }
}

const addressOf = (network: Network, family: 4 | 6) =>
  bare(network.ipam.find(pool => pool.family === family)?.auxiliary.host)

/** In both families, both directions. */
async function together(network: Network, { sandbox, endpoint }: { sandbox: Sandbox; endpoint: Endpoint }) {
  const inside = stackOf(sandbox)
  for (const [family, address] of [
    [4, endpoint.ipv4],
    [6, endpoint.ipv6],
  ] as const) {
    const own = addressOf(network, family)
    expect(await host().tcp(host().host, bare(address), 80)).toBe(own)
    expect(await host().tcp(inside, own, 81)).toBe(bare(address))
    expect(await host().ping(inside, own)).toBe(true)
  }
}

const shim = (network: Network) => `hm-${network.id.slice(0, 12)}`
const routes = async (network: Network) => {
  const link = await host().host.link(shim(network))
  return (await host().host.routes())
    .filter(route => route.link === link?.index && route.table === 254 && route.protocol !== 2)
    .map(({ destination }) => destination)
}

test('without it they do not reach one another; with it they do, and the LAN still does', async () => {
  const controller = await host().open({ firewall: 'none' })
  const plain = await create(controller, false)
  const alone = await join(controller, plain, 'alone')
  await host().serve(stackOf(alone.sandbox), 80)
  expect(await host().reachesNot(host().host, bare(alone.endpoint.ipv4), 80)).toBe(true)
  await alone.sandbox.delete()
  await plain.delete()
  await controller.settle()

  const network = await create(controller, true)
  await host().serve(host().host, 81)
  const [a, b] = [await join(controller, network, 'a'), await join(controller, network, 'b')]
  for (const { sandbox } of [a, b]) await host().serve(stackOf(sandbox), 80)
  await together(network, a)
  await together(network, b)
  for (const address of [a.endpoint.ipv4, a.endpoint.ipv6])
    expect(await host().tcp(host().client, bare(address), 80)).not.toBe('closed')
  // The LAN goes on finding the host's own address at the host's own MAC.
  expect(await host().ping(host().client, '192.0.2.1')).toBe(true)
  const seen = (await host().client.neighbours()).find(({ address }) => address === '192.0.2.1')
  expect(seen?.mac).toBe((await host().host.link('uplink'))?.mac)
  expect(await controller.check()).toEqual([])

  expect(await routes(network)).toHaveLength(4)
  await a.endpoint.leave()
  expect(await routes(network)).toEqual([`${bare(b.endpoint.ipv4)}/32`, `${bare(b.endpoint.ipv6)}/128`])
  await b.sandbox.delete()
  expect(await routes(network)).toEqual([])
  await a.sandbox.delete()
  await a.endpoint.delete()
  await network.delete()
  await controller.settle()
  expect(await host().host.link(shim(network))).toBeUndefined()
})

test('what somebody takes away is found and mended, also after a restart', async () => {
  const dataDir = host().dataDir
  const first = await host().open({ firewall: 'none', dataDir })
  const made = await create(first, true)
  const a = await join(first, made, 'a')
  await host().serve(stackOf(a.sandbox), 80)
  await host().serve(host().host, 81)
  const name = shim(made)
  const way = { destination: `${bare(a.endpoint.ipv4)}/32`, link: name }
  await host().host.apply([{ op: 'removeRoute', route: way }])
  expect(await first.check()).toMatchObject([{ kind: 'route', problem: 'missing' }])
  await first.repair()
  await together(made, a)
  await host().host.apply([{ op: 'setLink', link: name, up: false }])
  expect(await first.check()).toContainEqual(expect.objectContaining({ kind: 'link', problem: 'wrong' }))
  await first.repair()
  expect(await first.check()).toEqual([])
  await together(made, a)
  await first.close()

  await host().host.apply([{ op: 'removeLink', link: name }])
  const next = await host().open({ firewall: 'none', dataDir })
  expect(await next.check()).toEqual([])
  const network = next.network('lan')
  expect(addressOf(network, 4)).toBe(addressOf(made, 4))
  expect(host().host.sysctl(`net/ipv4/conf/${name}/arp_ignore`)).toBe('1')
  await together(network, { sandbox: next.sandbox('a'), endpoint: network.endpoint('a') })
  await next.sandbox('a').delete()
  for (const endpoint of network.endpoints()) await endpoint.delete()
  await network.delete()
  await next.settle()
})

test('the address can be named; modes that isolate are refused, and nothing is left', async () => {
  const controller = await host().open({ firewall: 'none' })
  const before = (await host().host.links()).map(({ name }) => name)
  for (const mode of ['private', 'vepa', 'passthru'])
    await expect(create(controller, true, { mode })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  expect((await host().host.links()).map(({ name }) => name)).toEqual(before)
  const network = await controller.createNetwork({
    name: 'named',
    driver: 'macvlan',
    options: { parent: 'uplink', hostAccess: 'true' },
    ipam: { config: [{ subnet: '198.51.100.0/24', auxAddresses: { host: '198.51.100.250' } }] },
  })
  const { sandbox } = await join(controller, network, 'a')
  expect(await host().ping(stackOf(sandbox), '198.51.100.250')).toBe(true)
  await sandbox.delete()
  await network.delete()
  await controller.settle()
})
