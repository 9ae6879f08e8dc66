/**
 * Who reaches what, as one table: for each kind of network, from outside, from a trusted link, from another network, from the
 * same one and from the host; over TCP and UDP, IPv4 and IPv6; by both backends, with and without br_netfilter, and on a host
 * whose FORWARD policy is DROP as Docker leaves it.
 */
import type { Controller, Stack } from 'libcnm'
import { bare, CLIENT, makeHost, stackOf, type TestHost, UPLINK } from '../../support/host'

const FAMILIES = [4, 6] as const
type Family = (typeof FAMILIES)[number]
const VPN = { host: { 4: '192.0.3.1', 6: '2001:db8:3::1' }, client: { 4: '192.0.3.2', 6: '2001:db8:3::2' } }
const LOOPBACK = { 4: '127.0.0.1', 6: '::1' }
/** Milliseconds for what should be dropped; what should get through has more. */
const SHORT = 300

/** Options of the network that is asked about. The other one is as networks are by default. */
const KINDS: Record<string, object> = {
  nat: {},
  'nat, own sources': { masquerade: false },
  'nat, given source': { hostIpv4: VPN.host[4], hostIpv6: VPN.host[6] },
  'nat, no icc': { icc: false },
  'nat, trusted link': { trustedHostInterfaces: ['vpn0'] },
  'nat-unprotected': { gatewayModeIpv4: 'nat-unprotected', gatewayModeIpv6: 'nat-unprotected' },
  routed: { gatewayModeIpv4: 'routed', gatewayModeIpv6: 'routed' },
  internal: { internal: true },
  'internal, isolated': { internal: true, gatewayModeIpv4: 'isolated', gatewayModeIpv6: 'isolated' },
}

/**
 * `8080` is published (`8080:80`), asked at an address of the host; `:80` and `:81` are ports of the container at its own address,
 * of which nobody published :81. `+`: through. `-`: not. `out`: whom a server outside takes the container for.
 */
const TABLE = `
                    | lan  lan  lan  | vpn  vpn  | other other other | same same | self | host host  |
                    | 8080 :80  :81  | 8080 :80  | 8080  :80   :81   | 8080 :81  | 8080 | :81  local | out
nat                 | +    -    -    | +    -    | +     -     -     | +    +    | +    | +    +     | host
nat, own sources    | +    -    -    | +    -    | +     -     -     | +    +    | +    | +    +     | own
nat, given source   | +    -    -    | +    -    | +     -     -     | +    +    | +    | +    +     | given
nat, no icc         | +    -    -    | +    -    | +     -     -     | +    -    | +    | +    +     | host
nat, trusted link   | +    -    -    | +    +    | +     -     -     | +    +    | +    | +    +     | host
nat-unprotected     | +    +    +    | +    +    | +     +     +     | +    +    | +    | +    +     | host
routed              | -    +    -    | -    +    | -     +     -     | -    +    | -    | +    -     | own
internal            | -    -    -    | -    -    | -     -     -     | -    +    | -    | +    -     | -
internal, isolated  | -    -    -    | -    -    | -     -     -     | -    +    | -    | -    -     | -
`

interface Row {
  kind: string
  cells: { from: string; to: string; sign: string }[]
  out: string
}

function rows(): Row[] {
  const [from = '', to = '', ...lines] = TABLE.trim()
    .split('\n')
    .map(line => line.slice(line.indexOf('|')))
  const words = (line: string) => line.replaceAll('|', ' ').trim().split(/\s+/)
  const kinds = TABLE.trim()
    .split('\n')
    .slice(2)
    .map(line => line.slice(0, line.indexOf('|')).trim())
  return lines.map((line, i) => {
    const values = words(line)
    return {
      kind: kinds[i] ?? '',
      cells: words(from).map((place, n) => ({
        from: place,
        to: words(to)[n] ?? '',
        sign: values[n] ?? '',
      })),
      out: values.at(-1) ?? '',
    }
  })
}

describe.each([
  { backend: 'nftables', bridged: false, policy: 'ACCEPT' },
  { backend: 'iptables', bridged: false, policy: 'ACCEPT' },
  { backend: 'nftables', bridged: true, policy: 'ACCEPT' },
  { backend: 'iptables', bridged: true, policy: 'ACCEPT' },
  { backend: 'nftables', bridged: false, policy: 'DROP' },
  { backend: 'iptables', bridged: false, policy: 'DROP' },
] as const)('$backend, br_netfilter $bridged, FORWARD policy $policy', ({ backend, bridged, policy }) => {
  let h: TestHost
  let vpn: Stack
  let controller: Controller

  beforeAll(async () => {
    h = await makeHost()
    for (const key of ['net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables'])
      if (h.host.sysctl(key) !== undefined) h.host.setSysctls({ [key]: bridged ? '1' : '0' })
    vpn = await h.namespace('vpn')
    vpn.setSysctls({ 'net/ipv6/conf/default/accept_dad': '0' })
    await h.host.apply([
      {
        op: 'addLink',
        link: { kind: 'veth', name: 'vpn0', up: true, peer: { name: 'eth0', netns: vpn, up: true } },
      },
      { op: 'addAddress', link: 'vpn0', address: `${VPN.host[4]}/24` },
      { op: 'addAddress', link: 'vpn0', address: `${VPN.host[6]}/64` },
    ])
    await vpn.apply([
      { op: 'addAddress', link: 'eth0', address: `${VPN.client[4]}/24` },
      { op: 'addAddress', link: 'eth0', address: `${VPN.client[6]}/64` },
      { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: VPN.host[4], link: 'eth0' } },
      { op: 'addRoute', route: { destination: '::/0', gateway: VPN.host[6], link: 'eth0' } },
    ])
    await h.serve(h.client, 7)
    if (policy === 'DROP')
      for (const tool of ['iptables', 'ip6tables'])
        for (const rule of ['-P FORWARD DROP', '-N DOCKER-USER', '-I FORWARD -j DOCKER-USER'])
          h.run(h.host, tool, ...rule.split(' '))
    controller = await h.open({ firewall: backend })
  })
  afterAll(async () => {
    await controller.close({ remove: true })
    await h.close()
  })

  afterEach(async () => {
    for (const sandbox of controller.sandboxes()) await sandbox.delete()
    for (const network of controller.networks()) {
      for (const endpoint of network.endpoints()) await endpoint.delete()
      await network.delete()
    }
    await controller.settle()
  })

  async function join(network: string, containerId: string, ports: string[] = []) {
    const sandbox = await controller.createSandbox({ containerId, files: false, resolver: false })
    const endpoint = await controller.network(network).createEndpoint({ name: containerId, ports })
    await endpoint.join(sandbox)
    const stack = stackOf(sandbox)
    await h.serve(stack, 80)
    await h.serve(stack, 81)
    return { stack, address: { 4: bare(endpoint.ipv4), 6: bare(endpoint.ipv6) } }
  }

  /** What each of the two protocols finds, as one sign. */
  async function probe(from: Stack, to: string, port: number, hopeful: boolean): Promise<string> {
    const patience = hopeful ? undefined : SHORT
    const seen = await Promise.all([h.tcp(from, to, port, patience), h.udp(from, to, port, patience)])
    return seen[0] === seen[1] ? seen[0] : seen.join(' by TCP, by UDP ')
  }

  test.each(rows())('$kind', async ({ kind, cells, out }) => {
    const { internal = false, ...options } = KINDS[kind] as { internal?: boolean }
    await controller.createNetwork({
      name: 'asked',
      internal,
      options,
      ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
    })
    await controller.createNetwork({
      name: 'other',
      ipam: { config: [{ subnet: '10.77.2.0/24' }, { subnet: 'fd77:2::/64' }] },
    })
    const self = await join('asked', 'self', internal ? [] : ['8080:80', '8080:80/udp'])
    const same = await join('asked', 'same')
    const other = await join('other', 'other')
    const places: Record<string, Stack> = {
      lan: h.client,
      vpn,
      other: other.stack,
      same: same.stack,
      self: self.stack,
      host: h.host,
    }
    const aim = (f: Family, from: string, to: string): [address: string, port: number] => {
      if (to === 'local') return [LOOPBACK[f], 8080]
      if (to === '8080') return [(from === 'vpn' ? VPN.host : UPLINK)[f], 8080]
      return [self.address[f], Number(to.slice(1))]
    }
    const asked = cells.map(({ from, to, sign }) => ({
      from,
      to,
      through: sign === '+',
    }))
    const answers = asked.flatMap(({ from, to, through }) =>
      FAMILIES.map(async f => {
        const seen = await probe(places[from] as Stack, ...aim(f, from, to), through)
        return `IPv${f} ${from} to ${to}: ${seen === 'closed' ? '-' : seen.includes('closed') ? seen : '+'}`
      }),
    )
    const wanted = asked.flatMap(({ from, to, through }) =>
      FAMILIES.map(f => `IPv${f} ${from} to ${to}: ${through ? '+' : '-'}`),
    )
    expect(await Promise.all(answers)).toEqual(wanted)

    for (const f of FAMILIES) {
      const known = { [UPLINK[f]]: 'host', [self.address[f]]: 'own', [VPN.host[f]]: 'given', closed: '-' }
      const seen = await probe(self.stack, CLIENT[f], 7, out !== '-')
      expect(`IPv${f} ${known[seen] ?? seen}`).toBe(`IPv${f} ${out}`)
      // Clients are seen as they are, whatever is translated.
      if (!internal && kind !== 'routed') expect(await probe(h.client, UPLINK[f], 8080, true)).toBe(CLIENT[f])
    }
  })
})
