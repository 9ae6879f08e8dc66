/**
 * Two controllers on a host where Docker and the host's owner are at work already: nobody's bridges, routes, rules or
 * tables are touched by anybody else, in a whole life with a crash in the middle.
 */
import { UPLINK, CLIENT, hostForEach, type TestHost } from '../../support/host'
import { Daemon } from './scene'

const host = hostForEach()

/** As dockerd with one bridge leaves it, and what an owner may have: a bridge, routes, a policy rule, an nftables table. */
const OTHERS = `
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip link set docker0 up
ip link add lab type bridge
ip addr add 10.99.0.1/24 dev lab
ip link set lab up
ip route add 10.98.0.0/24 via 10.99.0.7 dev lab
ip route add 10.97.0.0/24 via 10.99.0.8 dev lab table 77
ip rule add from 10.99.0.0/24 lookup 77 priority 1077
for tool in iptables ip6tables; do
  $tool-nft-restore --noflush <<'RULES'
*filter
:FORWARD DROP
:DOCKER -
:DOCKER-FORWARD -
:DOCKER-BRIDGE -
:DOCKER-CT -
:DOCKER-INTERNAL -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
COMMIT
*nat
:DOCKER -
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
RULES
done
iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp --dport 9000 -j DNAT --to-destination 172.17.0.2:80
iptables-nft -A DOCKER -d 172.17.0.2 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
nft -f - <<'TABLE'
table inet owner {
  set friends { type ipv4_addr; elements = { 10.99.0.7, 10.99.0.8 } }
  chain input { type filter hook input priority 5; ip saddr @friends counter accept; tcp dport 2222 counter drop; }
  chain forward { type filter hook forward priority 5; iifname "lab" oifname "docker0" counter drop; }
}
TABLE
`
const GONE = `
ip rule del priority 1077
ip link del lab
ip link del docker0
nft flush ruleset
`

/** Everything on the host that is not of these controllers, as its programs print it. */
function others(h: TestHost, ...controllers: string[]): string[] {
  const text = h.run(
    h.host,
    'sh',
    '-ec',
    `for link in docker0 lab; do ip -o link show $link | sed 's/ state .*//'; ip -o address show $link scope global; ip route show dev $link; done
     ip route show table 77; ip rule show; ip -6 rule show
     for tool in iptables ip6tables; do $tool-nft-save | sed 's/ \\[[0-9]*:[0-9]*\\]$//'; done
     nft -s list table inet owner`,
  )
  const theirs = (line: string) => controllers.some(name => belongs(line, name))
  return text.split('\n').filter(line => line !== '' && !line.startsWith('#') && !theirs(line))
}

/** A rule that a controller leaves in a chain of the host, or in one of its own. */
const belongs = (line: string, name: string): boolean => line.includes(` --comment ${name} -j `)

/** All that a controller keeps in firewall tables, without counters. */
const own = (h: TestHost, name: string): string[] => [
  h.run(h.host, 'nft', '-s', 'list', 'table', 'inet', name),
  ...h
    .run(h.host, 'sh', '-ec', 'iptables-nft-save; ip6tables-nft-save')
    .split('\n')
    .filter(line => belongs(line, name)),
]

test('two controllers, one of which dies and comes back, beside Docker and the host’s own', async () => {
  const h = host()
  h.run(h.host, 'sh', '-ec', OTHERS)
  try {
    const before = others(h)
    const untouched = () => expect(others(h, 'alpha', 'beta')).toEqual(before)
    const options = (name: string) => ({
      name,
      host: h.path,
      runDir: `${h.runDir}/${name}`,
      dataDir: `${h.dataDir}/${name}`,
      firewall: 'nftables' as const,
      userlandProxy: false,
    })

    // both at work
    const daemon = Daemon.start({ options: options('beta'), subnet: '10.77.2.0/24', ports: ['8082:80'] })
    const alpha = await h.open(options('alpha'))
    const network = await alpha.createNetwork({ name: 'web', ipam: { config: [{ subnet: '10.77.1.0/24' }] } })
    const sandbox = await alpha.createSandbox({ containerId: 'c1' })
    const endpoint = await network.createEndpoint({ name: 'c1', ports: ['8081:80'] })
    await endpoint.join(sandbox)
    const child = await daemon
    const inside = [await h.kernel.open(sandbox.key), await h.kernel.open(child.key)] as const
    const answers = async () => [
      await h.tcp(h.client, UPLINK[4], 8081),
      await h.tcp(h.client, UPLINK[4], 8082),
    ]
    try {
      for (const stack of inside) await h.serve(stack, 80)
      untouched()
      expect(await answers()).toEqual([CLIENT[4], CLIENT[4]])

      // one dies; whatever the other does, the dead one's things stand
      await child.kill()
      const dead = own(h, 'beta')
      expect(await alpha.check()).toEqual([])
      expect(await alpha.repair()).toEqual([])
      expect(await alpha.gc({ containerIds: ['c1'] })).toEqual([])
      await endpoint.updatePorts(['8081:80', '8083:80/udp'])
      await endpoint.leave()
      await endpoint.join(sandbox)
      expect(own(h, 'beta')).toEqual(dead)
      untouched()
      expect(await answers()).toEqual([CLIENT[4], CLIENT[4]])

      // it comes back, loses its containers, and goes for good
      const living = own(h, 'alpha')
      const beta = await h.open(options('beta'))
      expect(await beta.check()).toEqual([])
      expect(await beta.repair()).toEqual([])
      expect(own(h, 'beta')).toEqual(dead)
      expect(await answers()).toEqual([CLIENT[4], CLIENT[4]])
      expect(await beta.gc({ containerIds: [] })).toEqual(['c1'])
      await beta.createNetwork({ name: 'more', ipv6: true })
      untouched()
      await beta.network('more').delete()
      await beta.close({ remove: true })
      expect(own(h, 'alpha')).toEqual(living)
      expect(h.run(h.host, 'nft', 'list', 'tables')).not.toMatch(/ beta$/m)
      expect(await h.tcp(h.client, UPLINK[4], 8081)).toBe(CLIENT[4])
      expect(await alpha.check()).toEqual([])
      untouched()
    } finally {
      for (const stack of inside) stack.close()
    }
    await alpha.close({ remove: true })
    expect(others(h)).toEqual(before)
  } finally {
    h.run(h.host, 'sh', '-ec', GONE)
    for (const name of ['alpha', 'beta'])
      for (const path of await h.kernel.list(`${h.runDir}/${name}/netns`)) await h.kernel.remove(path)
  }
}, 120_000)
