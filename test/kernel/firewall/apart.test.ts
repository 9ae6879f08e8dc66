/**
 * Networks with icc off: what is published is reached by neighbours, too, and by the container itself, through an address of
 * the host, as everybody else reaches it; nothing else is. By both backends, with and without br_netfilter, and when
 * somebody loads br_netfilter or turns it off later.
 */
import type { Controller, Stack } from 'libcnm'
import { bare, hostForEach, stackOf, UPLINK } from '../../support/host'

const host = hostForEach()
const FAMILIES = [4, 6] as const
/** Milliseconds for what should be dropped. */
const SHORT = 300
/** Milliseconds. By iptables a change is several processes. */
const PATIENCE = 120_000

const filterBridged = (on: boolean) =>
  host().host.setSysctls({
    'net/bridge/bridge-nf-call-iptables': on ? '1' : '0',
    'net/bridge/bridge-nf-call-ip6tables': on ? '1' : '0',
  })

async function inhabit(controller: Controller, icc: boolean) {
  await controller.createNetwork({
    name: 'web',
    options: { icc },
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const join = async (name: string, ports: string[] = []) => {
    const sandbox = await controller.createSandbox({ containerId: name, files: false, resolver: false })
    const endpoint = await controller.network('web').createEndpoint({ name, ports })
    await endpoint.join(sandbox)
    const stack = stackOf(sandbox)
    for (const port of [80, 81]) await host().serve(stack, port)
    return { stack, endpoint, address: { 4: bare(endpoint.ipv4), 6: bare(endpoint.ipv6) } }
  }
  return {
    server: await join('server', ['8080:80', '8080:80/udp']),
    other: await join('other', ['8081:80']),
    client: await join('client'),
  }
}
type People = Awaited<ReturnType<typeof inhabit>>

/** The asks that do not end as they should. `published`: is 8080 of the server? */
async function wrong({ server, other, client }: People, published = true): Promise<string[]> {
  const h = host()
  const asks: [what: string, through: boolean, from: Stack, to: string, port: number][] = FAMILIES.flatMap(
    f => [
      [`IPv${f} neighbour`, published, client.stack, UPLINK[f], 8080],
      [
        `IPv${f} neighbour by the gateway`,
        published,
        client.stack,
        f === 4 ? '10.77.1.1' : 'fd77:1::1',
        8080,
      ],
      [`IPv${f} neighbour that publishes`, published, other.stack, UPLINK[f], 8080],
      [`IPv${f} self`, published, server.stack, UPLINK[f], 8080],
      [`IPv${f} outside`, published, h.client, UPLINK[f], 8080],
      [`IPv${f} what is not published`, false, client.stack, server.address[f], 81],
      [`IPv${f} what is published, directly`, false, client.stack, server.address[f], 80],
      [`IPv${f} among those that publish`, false, other.stack, server.address[f], 81],
      [`IPv${f} who publishes nothing`, false, server.stack, client.address[f], 80],
    ],
  )
  const answers = await Promise.all(
    asks.map(async ([what, through, from, to, port]) => {
      const seen = await h.tcp(from, to, port, through ? undefined : SHORT)
      return (seen !== 'closed') === through ? [] : [what]
    }),
  )
  return answers.flat()
}

async function end(controller: Controller): Promise<void> {
  for (const sandbox of controller.sandboxes()) await sandbox.delete()
  for (const network of controller.networks()) await network.delete()
  await controller.close({ remove: true })
}

const isolated = async ({ endpoint }: People['server']) =>
  (await host().host.link(endpoint.record.join?.attachment?.interface?.source as string))?.port?.isolated

test.each(['nftables', 'iptables'] as const)(
  'by %s: what is published, and nothing else; br_netfilter comes and goes',
  async firewall => {
    filterBridged(true)
    const controller = await host().open({ firewall })
    const people = await inhabit(controller, false)
    const { server, client } = people
    expect([await isolated(server), await isolated(client)]).toEqual([false, true])
    expect(await wrong(people)).toEqual([])
    expect(await host().udp(client.stack, UPLINK[4], 8080)).not.toBe('closed')
    expect(await controller.check()).toEqual([])

    // What has nothing published any more is isolated again; and back.
    await server.endpoint.updatePorts([])
    expect(await isolated(server)).toBe(true)
    expect(await wrong(people, false)).toEqual([])
    await server.endpoint.updatePorts(['8080:80'])
    expect(await isolated(server)).toBe(false)
    expect(await wrong(people)).toEqual([])

    // Turned off: no rule hears of bridged packets now, the ports must keep them apart.
    filterBridged(false)
    expect((await controller.check()).map(({ kind }) => kind)).toEqual(['port', 'port'])
    await controller.repair()
    expect(await isolated(server)).toBe(true)
    expect(await wrong(people)).toEqual([])
    // For one family only: the other one's neighbours would not be kept apart by rules.
    host().host.setSysctls({ 'net/bridge/bridge-nf-call-iptables': '1' })
    await controller.repair()
    expect(await isolated(server)).toBe(true)
    filterBridged(true)
    await controller.repair()
    expect(await controller.check()).toEqual([])
    expect(await wrong(people)).toEqual([])
    await end(controller)
  },
  PATIENCE,
)

test('with icc on a container reaches what it publishes when br_netfilter comes after its network', async () => {
  filterBridged(false)
  const controller = await host().open()
  const { server } = await inhabit(controller, true)
  const ask = () => Promise.all(FAMILIES.map(f => host().tcp(server.stack, UPLINK[f], 8080, 2_000)))
  expect(await ask()).not.toContain('closed')
  filterBridged(true)
  expect((await controller.repair()).map(({ kind }) => kind)).toEqual(['port', 'port'])
  expect(await ask()).not.toContain('closed')
  await server.endpoint.updatePorts([])
  expect(await controller.check()).toEqual([])
  await end(controller)
})

test('without a firewall nothing but the ports keeps neighbours apart', async () => {
  filterBridged(true)
  const controller = await host().open({ firewall: 'none' })
  const { server, client } = await inhabit(controller, false)
  expect([await isolated(server), await isolated(client)]).toEqual([true, true])
  for (const f of FAMILIES) {
    expect(await host().tcp(client.stack, server.address[f], 81, SHORT)).toBe('closed')
    expect(await host().tcp(client.stack, UPLINK[f], 8080)).not.toBe('closed')
  }
  await end(controller)
})
