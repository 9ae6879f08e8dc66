/**
 * Podman at work on the same host, by its own program netavark: neither touches what is the other's, while containers of both
 * come, go, are published and mended.
 */
import { CLIENT, hostForEach, type TestHost, UPLINK } from '../../support/host'
import { PodmanContainer } from '../../support/netavark'

const host = hostForEach()

/** The rules of a host, without counters; `of`: those lines alone. */
const rules = (h: TestHost, of = /./): string[] =>
  h
    .run(h.host, 'sh', '-ec', 'iptables-nft-save; ip6tables-nft-save')
    .split('\n')
    .map(line => line.replace(/ \[\d+:\d+\]$/, ''))
    .filter(line => !/^(#|COMMIT|\*|:(INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) |$)/.test(line))
    .filter(line => of.test(line))
    .sort()

/** Made for the host's owner, whose it is from then on. */
const USER_CHAIN = /^:\S+-USER -$/

/** All that is Podman's, as programs print it. */
const podman = (h: TestHost): string[] => [
  ...rules(h, /netavark|10\.88\./i),
  ...h
    .run(
      h.host,
      'sh',
      '-ec',
      `ip -o link show master podman0 | sed 's/ state .*//; s/^[0-9]*: //'
       ip -o address show podman0 scope global; ip route show dev podman0; ip rule show; ip -6 rule show
       sysctl net.ipv4.conf.podman0.route_localnet net.ipv4.ip_forward`,
    )
    .split('\n'),
]

describe.each(['nftables', 'iptables'] as const)('with %s', firewall => {
  test('containers of both come and go, and all stay reachable', async () => {
    const h = host()
    const first = await PodmanContainer.start(h, 2, 9000)
    const theirs = podman(h)
    const everything = rules(h)
    const options = { firewall, dataDir: h.dataDir, userlandProxy: false }
    let ours = await h.open(options)
    const network = await ours.createNetwork({ name: 'web', ipam: { config: [{ subnet: '10.77.1.0/24' }] } })
    const sandbox = await ours.createSandbox({ containerId: 'c1' })
    const endpoint = await network.createEndpoint({ name: 'c1', ports: ['8081:80'] })
    await endpoint.join(sandbox)
    const inside = await h.kernel.open(sandbox.key as string)
    const client = (port: number) => h.tcp(h.client, UPLINK[4], port)
    try {
      await h.serve(inside, 80)
      await h.serve(inside, 81)
      expect(podman(h)).toEqual(theirs)
      expect([await client(9000), await client(8081)]).toEqual([CLIENT[4], CLIENT[4]])

      // each reaches the other's where it is published, and nowhere else of ours
      expect(await h.tcp(first.stack, UPLINK[4], 8081)).not.toBe('closed')
      expect(await h.tcp(inside, UPLINK[4], 9000)).not.toBe('closed')
      expect(await h.reachesNot(first.stack, '10.77.1.2', 81)).toBe(true)

      // ours changes, is mended, and starts again
      await endpoint.updatePorts(['8081:80', '8083:80/udp'])
      await endpoint.leave()
      await endpoint.join(sandbox)
      await ours.close()
      ours = await h.open(options)
      expect(await ours.check()).toEqual([])
      const again = ours.network('web').endpoint('c1')
      if (firewall === 'nftables') h.run(h.host, 'nft', 'flush', 'map', 'inet', 'libcnm', 'ports4')
      else h.run(h.host, 'sh', '-ec', 'iptables-nft-save -t nat | grep -v 8081 | iptables-nft-restore')
      await ours.repair()
      expect(podman(h)).toEqual(theirs)
      expect([await client(9000), await client(8081)]).toEqual([CLIENT[4], CLIENT[4]])

      // theirs changes: nothing of ours differs, and what went is gone
      const second = await PodmanContainer.start(h, 3, 9001)
      expect(await client(9001)).toBe(CLIENT[4])
      expect(await ours.check()).toEqual([])
      second.stop()
      expect(podman(h)).toEqual(theirs)
      expect(await client(8081)).toBe(CLIENT[4])

      await again.updatePorts([])
      expect(await client(9000)).toBe(CLIENT[4])
      expect(await h.tcp(h.client, UPLINK[4], 8081, 500)).toBe('closed')
      await ours.close({ remove: true })
      expect(rules(h).filter(line => !USER_CHAIN.test(line))).toEqual(everything)
      expect(podman(h)).toEqual(theirs)
      expect(await client(9000)).toBe(CLIENT[4])
      first.stop()
    } finally {
      inside.close()
      h.run(h.host, 'sh', '-ec', 'ip link del podman0 2>/dev/null || true; nft flush ruleset')
    }
  }, 120_000)
})
