/** What the host uses beside us, on the real kernel: avoided, refused by name, and told when it comes later. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { CnmEventOf, Controller } from 'libcnm'
import { hostForEach, stackOf, type TestHost } from '../../support/host'

const host = hostForEach()
const ip = (h: TestHost, ...words: string[]) => h.run(h.host, 'ip', ...words)

/** As a VPN client sets it up: a link of its own, whose other end is the client here, at 10.66.0.2. */
async function vpn(h: TestHost): Promise<void> {
  await h.kernel.transact([
    {
      stack: h.host,
      changes: [
        {
          op: 'addLink',
          link: { kind: 'veth', name: 'vpn0', up: true, peer: { name: 'vpn0', netns: h.client, up: true } },
        },
        { op: 'addAddress', link: 'vpn0', address: '10.66.0.1/24' },
      ],
    },
    { stack: h.client, changes: [{ op: 'addAddress', link: 'vpn0', address: '10.66.0.2/24' }] },
  ])
}

/** A network 10.77.1.0/24 with a container at .200 that the host pings. */
async function scene(h: TestHost) {
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  await (await network.createEndpoint({ name: 'c1', ipv4: '10.77.1.200' })).join(sandbox)
  const told: CnmEventOf<'network.shadowed'>[] = []
  controller.on('network.shadowed', event => told.push(event))
  const end = async () => {
    await sandbox.delete()
    await network.delete()
    ip(h, 'link', 'del', 'vpn0')
  }
  return { controller, network, sandbox, told, end }
}

/** Until it is so; the kernel's events take a moment. */
async function until(so: () => boolean): Promise<void> {
  for (const limit = Date.now() + 8_000; !so(); ) {
    if (Date.now() > limit) throw new Error('it did not come about')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** A later change of the same kind that is told: so what came before it has been looked at. */
async function flush(h: TestHost, { told }: { told: unknown[] }): Promise<void> {
  const before = told.length
  ip(h, 'route', 'add', '10.77.1.77/32', 'dev', 'vpn0')
  await until(() => told.length > before)
  ip(h, 'route', 'del', '10.77.1.77/32', 'dev', 'vpn0')
  told.pop()
}

describe('a route of a VPN that comes later', () => {
  test('inside a subnet: it takes the packets of the container, and the event names network and route', async () => {
    const h = host()
    const all = await scene(h)
    await vpn(h)
    expect(await h.ping(h.host, '10.77.1.200')).toBe(true)
    ip(h, 'route', 'add', '10.77.1.128/25', 'via', '10.66.0.2', 'dev', 'vpn0')
    await until(() => all.told.length > 0)
    expect(all.told).toEqual([
      expect.objectContaining({
        type: 'network.shadowed',
        network: { id: all.network.id, name: 'web', driver: 'bridge' },
        subnet: '10.77.1.0/24',
        route: 'route 10.77.1.128/25 via 10.66.0.2 dev vpn0',
      }),
    ])
    // it is as the event says: the kernel sends what is meant for the container into the VPN
    expect(ip(h, 'route', 'get', '10.77.1.200')).toMatch(/dev vpn0/)
    expect(await h.ping(h.host, '10.77.1.200', { seconds: 1 })).toBe(false)
    ip(h, 'route', 'del', '10.77.1.128/25')
    expect(await h.ping(h.host, '10.77.1.200')).toBe(true)

    ip(h, '-6', 'route', 'add', 'fd77:1:0:0:8000::/65', 'dev', 'vpn0')
    await until(() => all.told.length > 1)
    expect(all.told[1]).toMatchObject({ subnet: 'fd77:1::/64', route: 'route fd77:1:0:0:8000::/65 dev vpn0' })
    await all.end()
  })

  test('wider, equal but behind ours, or a default in halves: the container is reached, and nothing is told', async () => {
    const h = host()
    const all = await scene(h)
    await vpn(h)
    ip(h, 'route', 'add', '10.0.0.0/8', 'via', '10.66.0.2')
    ip(h, 'route', 'add', '10.77.1.0/24', 'via', '10.66.0.2', 'metric', '50')
    ip(h, 'route', 'add', '0.0.0.0/1', 'via', '10.66.0.2')
    ip(h, 'route', 'add', '10.0.0.0/8', 'via', '10.66.0.2', 'table', '52')
    await flush(h, all)
    expect(all.told).toEqual([])
    expect(await h.ping(h.host, '10.77.1.200')).toBe(true)
    await all.end()
  })

  test('in a table of its own: told when the rule comes that leads there', async () => {
    const h = host()
    const all = await scene(h)
    await vpn(h)
    ip(h, 'route', 'add', '10.0.0.0/8', 'via', '10.66.0.2', 'table', '52')
    await flush(h, all)
    expect(all.told).toEqual([])
    ip(h, 'rule', 'add', 'pref', '5270', 'lookup', '52')
    await until(() => all.told.length > 0)
    expect(all.told[0]).toMatchObject({ route: 'route 10.0.0.0/8 via 10.66.0.2 dev vpn0 table 52' })
    expect(ip(h, 'route', 'get', '10.77.1.200')).toMatch(/dev vpn0/)
    ip(h, 'rule', 'del', 'pref', '5270')
    await all.end()
  })
})

describe('what is there already', () => {
  const used = (h: TestHost) => {
    const resolvConf = join(h.directory, 'resolv.conf')
    writeFileSync(resolvConf, 'nameserver 172.19.5.5\nnameserver 127.0.0.53\n')
    ip(h, 'route', 'add', '172.17.9.0/24', 'dev', 'vpn0', 'table', '52')
    ip(h, 'rule', 'add', 'pref', '5270', 'to', '172.18.0.0/20', 'lookup', '53')
    ip(h, 'address', 'add', '172.20.3.1/24', 'dev', 'vpn0')
    ip(h, 'link', 'add', 'stray0', 'type', 'bridge')
    ip(h, 'address', 'add', '172.21.0.1/16', 'dev', 'stray0')
    return resolvConf
  }
  const explicit = (controller: Controller, subnet: string, force = false) =>
    controller.createNetwork({ name: 'mine', ipam: { config: [{ subnet }], force } })

  test('a subnet that is chosen avoids routes of every table, rules, addresses, resolvers and bridges', async () => {
    const h = host()
    await vpn(h)
    const controller = await h.open({ resolvConf: used(h) })
    const network = await controller.createNetwork({ name: 'web' })
    // 17: table 52; 18: the rule; 19: the resolver; 20: the address; 21: the bridge that is down
    expect(network.ipam.map(({ subnet }) => subnet)).toEqual(['172.22.0.0/16'])
    await network.delete()
    for (const link of ['vpn0', 'stray0']) ip(h, 'link', 'del', link)
    ip(h, 'rule', 'del', 'pref', '5270')
  })

  test('one that is asked for is refused by what it clashes with, unless forced', async () => {
    const h = host()
    await vpn(h)
    const controller = await h.open({ resolvConf: used(h) })
    for (const [subnet, named] of [
      ['172.17.0.0/16', /route 172\.17\.9\.0\/24 dev vpn0 table 52/],
      ['172.18.1.0/24', /rule 5270 to 172\.18\.0\.0\/20 table 53/],
      ['172.19.0.0/16', /resolver 172\.19\.5\.5/],
      ['172.20.3.128/25', /172\.20\.3\.0\/24 dev vpn0/],
      ['172.21.7.0/24', /172\.21\.0\.1\/16 dev stray0/],
    ] as const)
      await expect(explicit(controller, subnet)).rejects.toMatchObject({
        code: 'ERR_HOST_ROUTE_CONFLICT',
        message: expect.stringMatching(named),
      })
    const network = await explicit(controller, '172.17.0.0/16', true)
    const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
    await (await network.createEndpoint({ name: 'c1' })).join(sandbox)
    expect(await h.ping(stackOf(sandbox), '172.17.0.1')).toBe(true)
    await sandbox.delete()
    await network.delete()
    for (const link of ['vpn0', 'stray0']) ip(h, 'link', 'del', link)
    ip(h, 'rule', 'del', 'pref', '5270')
  })
})
