/** Two controllers on one host by iptables: each has chains of its own name, and neither lets anybody into the other's networks. */
import type { Controller } from 'libcnm'
import { bare, CLIENT, hostForEach, stackOf, UPLINK } from '../../support/host'

const host = hostForEach()

const NETWORKS = {
  nat: {},
  routed: { options: { gatewayModeIpv4: 'routed', gatewayModeIpv6: 'routed' } },
  internal: { internal: true },
}
/** Milliseconds. A change by iptables is several processes, and on a busy machine each takes half a second. */
const PATIENCE = 240_000
/** Milliseconds for what should be dropped. */
const SHORT = 300

const opened: Controller[] = []
afterEach(async () => {
  for (const controller of opened.splice(0)) await controller.close({ remove: true })
})

const subnets = (n: number) => ({
  ipam: { config: [{ subnet: `10.77.${n}.0/24` }, { subnet: `fd77:${n}::/64` }] },
})

async function join(controller: Controller, network: string, containerId: string, ports: string[] = []) {
  const sandbox = await controller.createSandbox({ containerId, files: false, resolver: false })
  const endpoint = await controller.network(network).createEndpoint({ name: containerId, ports })
  await endpoint.join(sandbox)
  const stack = stackOf(sandbox)
  for (const port of [80, 81]) await host().serve(stack, port)
  return { stack, addresses: [bare(endpoint.ipv4), bare(endpoint.ipv6)] }
}

test.each([
  { mine: 'libcnm', theirs: 'beta' },
  { mine: 'beta', theirs: 'libcnm' },
  { mine: 'alpha', theirs: 'a-controller-with-a-long-name' },
])(
  'a container of $mine before networks of $theirs',
  async ({ mine: first, theirs: second }) => {
    const h = host()
    const open = async (name: string) => {
      const controller = await h.open({ name, firewall: 'iptables', runDir: `${h.runDir}/${name}` })
      opened.push(controller)
      return controller
    }
    // The chains of whoever starts last stand first.
    const two = await open(second)
    const one = await open(first)
    const saved = () =>
      ['iptables-save', 'ip6tables-save']
        .flatMap(tool => h.run(h.host, tool).split('\n'))
        .filter(line => /^[:-]/.test(line))
        .map(line => line.replace(/ \[\d+:\d+\]$/, ''))

    await one.createNetwork({ name: 'mine', ...subnets(9) })
    const mine = await join(one, 'mine', 'mine', ['8081:80'])
    const before = saved()
    for (const [n, [name, options]] of Object.entries(NETWORKS).entries()) {
      await two.createNetwork({ name, ...subnets(n + 1), ...options })
      const theirs = await join(two, name, name, name === 'internal' ? [] : ['8082:80'])
      for (const address of theirs.addresses) {
        for (const ask of [h.tcp.bind(h), h.udp.bind(h)])
          expect([name, address, await ask(mine.stack, address, 81, SHORT)]).toEqual([
            name,
            address,
            'closed',
          ])
        const seen = await h.tcp(mine.stack, address, 80, name === 'routed' ? undefined : SHORT)
        expect([name, seen === 'closed']).toEqual([name, name !== 'routed'])
      }
      if (name === 'routed')
        for (const address of theirs.addresses) expect(await h.ping(h.client, address)).toBe(true)
      for (const address of mine.addresses)
        expect([name, address, await h.reachesNot(theirs.stack, address, 81)]).toEqual([name, address, true])
      if (name === 'nat') expect(await h.tcp(h.client, UPLINK[4], 8082)).toBe(CLIENT[4])
      await two.sandbox(name).delete()
    }
    for (const controller of opened) expect(await controller.check()).toEqual([])
    for (const name of Object.keys(NETWORKS)) {
      for (const endpoint of two.network(name).endpoints()) await endpoint.delete()
      await two.network(name).delete()
    }
    expect(saved()).toEqual(before)
    await two.close({ remove: true })
    opened.splice(opened.indexOf(two), 1)
    expect(await h.tcp(h.client, UPLINK[4], 8081)).toBe(CLIENT[4])
    expect(await one.check()).toEqual([])
    await one.close({ remove: true })
    opened.splice(0)
    expect(saved().filter(line => line.startsWith('-A'))).toEqual([])
  },
  PATIENCE,
)
