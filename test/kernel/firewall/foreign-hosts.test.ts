/**
 * Hosts where somebody else drops what is forwarded, or what comes in, by traffic: told with the chain, and what the remedy says
 * helps. By both backends.
 */
import type { CnmEventOf } from 'libcnm'
import { CLIENT, hostForEach, stackOf, UPLINK } from '../../support/host'
import { unpackUfw } from '../../support/ufw'
import { legacyIptables } from './legacy'

const host = hostForEach()
const BACKENDS = ['nftables', 'iptables'] as const
const FAMILIES = [4, 6] as const
/** Milliseconds for what should be dropped. */
const SHORT = 400
const PATIENCE = 120_000

const shell = (script: string) => host().run(host().host, 'sh', '-e', '-c', script)

interface Told {
  message: string
  remedy: string
}

/** A controller on a host that is as it is already: a network, and a port that somebody publishes. */
async function begin(firewall: (typeof BACKENDS)[number], six = true) {
  const h = host()
  const told: Told[] = []
  const controller = await h.open({ firewall })
  controller.on('firewall.problem', ({ problems }: CnmEventOf<'firewall.problem'>) => {
    told.splice(0, told.length, ...problems)
  })
  const config = [{ subnet: '10.77.1.0/24' }, ...(six ? [{ subnet: 'fd77:1::/64' }] : [])]
  const network = await controller.createNetwork({ name: 'web', ipv6: six, ipam: { config } })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1', ports: ['8080:80'] })
  await endpoint.join(sandbox)
  const inside = stackOf(sandbox)
  await h.serve(inside, 80)
  await h.serve(h.client, 7)
  /** In and out, IPv4 and IPv6. */
  const ways = async (patience?: number) => {
    const answers = await Promise.all([
      ...FAMILIES.map(f => h.tcp(h.client, UPLINK[f], 8080, patience)),
      ...FAMILIES.map(f => h.tcp(inside, CLIENT[f], 7, patience)),
    ])
    return answers.map(answer => (answer === 'closed' ? '-' : '+')).join('')
  }
  const end = async () => {
    await sandbox.delete()
    await network.delete()
    await controller.close({ remove: true })
  }
  return { told, ways, end, bridge: network.inspect().link as string, endpoint }
}

const until = async (what: () => boolean) => {
  for (const deadline = Date.now() + 10_000; !what() && Date.now() < deadline; )
    await new Promise(resolve => setTimeout(resolve, 20))
  expect(what()).toBe(true)
}

/** What the remedy says, word by word, for the bridge. */
const follow = (remedy: string, bridge: string) => {
  const [, iptables] =
    /^(ip6?tables\S* -I FORWARD -i BRIDGE -j ACCEPT) and the same with -o BRIDGE/.exec(remedy) ?? []
  const [, nft] = /^(nft insert rule .* iifname BRIDGE accept), and the same with oifname/.exec(remedy) ?? []
  const first = iptables ?? nft ?? ''
  for (const command of [first, iptables ? first.replace('-i ', '-o ') : first.replace('iifname', 'oifname')])
    shell(command.replace('BRIDGE', bridge))
}

const DROPPED = [
  {
    what: 'a policy of DROP by the iptables that is nftables',
    drop: 'iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP',
    chains: ['FORWARD of table ip filter', 'FORWARD of table ip6 filter'],
    own: true,
  },
  ...(legacyIptables()
    ? [
        {
          what: 'a policy of DROP by the old iptables',
          drop: 'iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP',
          chains: ['FORWARD of table ip filter (legacy)', 'FORWARD of table ip6 filter (legacy)'],
          own: false,
        },
      ]
    : []),
  {
    what: "a table of Debian's name with a policy of drop",
    drop: "nft 'add table inet filter; add chain inet filter forward { type filter hook forward priority 0; policy drop; }'",
    chains: ['forward of table inet filter'],
    own: false,
  },
]
const CASES = DROPPED.flatMap(each => BACKENDS.map(firewall => ({ ...each, firewall })))

test.each(CASES)(
  '$what, by $firewall',
  async ({ drop, chains, own, firewall }) => {
    shell(drop)
    const { told, ways, bridge, end } = await begin(firewall)
    // In the chain that drops, rules of the iptables backend stand first.
    if (own && firewall === 'iptables') {
      expect(await ways()).toBe('++++')
      expect(told).toEqual([])
    } else {
      expect(await ways(SHORT)).toBe('----')
      await until(() => told.length > 0)
      expect(told.map(({ message }) => /chain (.*) drops forwarded packets/.exec(message)?.[1])).toEqual(
        chains,
      )
      for (const { remedy } of told) follow(remedy, bridge)
      expect(await ways()).toBe('++++')
    }
    await end()
  },
  PATIENCE,
)

test.each(BACKENDS)(
  'beside ufw, by %s: what it forwards, and the ports that the proxy serves',
  async firewall => {
    const h = host()
    const ufw = await unpackUfw(h.directory)
    const say = (...words: string[]) => h.run(h.host, ...(ufw(...words) as [string]))
    say('enable')
    const { told, ways, bridge, end } = await begin(firewall, false)
    const of = (kind: RegExp) => told.filter(({ message }) => kind.test(message))
    // IPv4 is forwarded; to IPv6 of the host answers the proxy, and the container has none to go out by.
    if (firewall === 'nftables') {
      expect(await ways(SHORT)).toBe('----')
      await until(() => of(/drops forwarded/).length > 0)
      expect(of(/drops forwarded/)[0]?.remedy).toContain(
        'ufw: "ufw route allow in on BRIDGE" and "ufw route allow out on BRIDGE"',
      )
      say('route', 'allow', 'in', 'on', bridge)
      say('route', 'allow', 'out', 'on', bridge)
    } else expect(of(/drops forwarded/)).toEqual([])
    expect(await h.tcp(h.client, UPLINK[4], 8080)).toBe(CLIENT[4])
    expect(await h.tcp(h.client, UPLINK[6], 8080, SHORT)).toBe('closed')
    await until(() => of(/drops what comes in/).length > 0)
    expect(of(/drops what comes in/).map(({ message }) => message)).toEqual([
      expect.stringMatching(/chain INPUT of table ip6 filter .*\(\[::\]:8080\/tcp\)/),
    ])
    expect(of(/drops what comes in/)[0]?.remedy).toContain('ufw: "ufw allow 8080/tcp"')
    say('allow', '8080/tcp')
    expect(await ways()).toBe('+++-')
    await end()
    say('disable')
  },
  PATIENCE,
)

test('a policy of drop for what comes in is told when a port is served by the proxy, and until then', async () => {
  const h = host()
  shell(
    [
      "nft 'add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }'",
      "nft 'add rule inet filter input ct state established,related accept'",
      "nft 'add rule inet filter input meta l4proto { icmp, ipv6-icmp } accept'",
    ].join('; '),
  )
  const { told, endpoint, end } = await begin('nftables', false)
  await until(() => told.length > 0)
  expect(await h.tcp(h.client, UPLINK[6], 8080, SHORT)).toBe('closed')
  expect(told).toEqual([
    expect.objectContaining({
      message: expect.stringMatching(/chain input of table inet filter .*\(\[::\]:8080\/tcp\)/),
      remedy: 'nft insert rule inet filter input tcp dport 8080 accept for each of them',
    }),
  ])
  shell(told[0]?.remedy.replace(/ for each.*/, '') as string)
  expect(await h.tcp(h.client, UPLINK[6], 8080)).not.toBe('closed')
  // Nothing is served any more: nobody is told, whatever else is changed there.
  told.splice(0)
  await endpoint.updatePorts(['0.0.0.0:8080:80'])
  shell("nft 'add rule inet filter input tcp dport 1 accept'")
  await new Promise(resolve => setTimeout(resolve, 600))
  expect(told).toEqual([])
  await end()
})
