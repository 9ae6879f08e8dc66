/** What gets through and what does not: the same suite for both backends, with and without br_netfilter. */
import type { Firewall, FirewallNetwork, Mapping } from '../../../lib/firewall/contract'
import { openFirewall } from '../../../lib/firewall/select'
import { legacyIptables, preferLegacy } from './legacy'
import { ADDRESS, network, type Place, type Protocol, Scene } from './scene'

const FAMILIES = [4, 6] as const
const PROTOCOLS = ['tcp', 'udp'] as const
const ANY = { 4: '0.0.0.0', 6: '::' } as const
type F = 4 | 6

const endpoint = (id: 'a1' | 'a2' | 'b1') => ({
  id,
  networkId: id === 'b1' ? 'network-B' : 'network-A',
  addresses: [ADDRESS[id][4], ADDRESS[id][6]],
})
const ENDPOINTS = (['a1', 'a2', 'b1'] as const).map(endpoint)

/** Mappings of both families and protocols. */
function publish(
  to: 'a1' | 'a2' | 'b1',
  hostPort: number,
  containerPort: number,
  over: {
    at?: Record<F, string>
    families?: F[]
    protocols?: Protocol[]
    size?: number
    allowFrom?: Record<F, string[]>
  } = {},
): Mapping[] {
  return (over.families ?? FAMILIES).flatMap(f =>
    (over.protocols ?? PROTOCOLS).map(protocol => ({
      networkId: endpoint(to).networkId,
      endpointId: to,
      protocol,
      hostIp: over.at?.[f] ?? ANY[f],
      hostPort,
      hostPortEnd: hostPort + (over.size ?? 1) - 1,
      containerIp: ADDRESS[to][f],
      containerPort,
      ...(over.allowFrom ? { allowFrom: over.allowFrom[f] } : {}),
    })),
  )
}

/** Network A with some family settings changed. */
function withMode(which: 'A' | 'B', change: Partial<FirewallNetwork['families'][number]>): FirewallNetwork {
  const base = network(which)
  return { ...base, families: base.families.map(family => ({ ...family, ...change })) }
}

describe.each([
  { backend: 'nftables' as const, bridged: false, legacy: false },
  { backend: 'nftables' as const, bridged: true, legacy: false },
  { backend: 'iptables' as const, bridged: false, legacy: false },
  { backend: 'iptables' as const, bridged: true, legacy: false },
  ...(legacyIptables() ? [{ backend: 'iptables' as const, bridged: false, legacy: true }] : []),
])('$backend, br_netfilter $bridged, legacy $legacy', ({ backend, bridged, legacy }) => {
  const scene = new Scene()
  let firewall: Firewall
  let preferUsual = () => {}

  beforeAll(async () => {
    await scene.build(bridged)
    if (legacy) preferUsual = preferLegacy()
    await scene.serveAll('a1', 80, 81, 20_050)
    await scene.serveAll('a2', 80, 81)
    await scene.serveAll('b1', 80)
    await scene.serveAll('lan', 7)
    await scene.serve('host', 'udp', 99, '127.0.0.1')
    firewall = openFirewall({ backend, stack: scene.at('host') })
    await firewall.start()
  })
  afterAll(async () => {
    await firewall.stop({ remove: true })
    preferUsual()
    await scene.close()
  })

  const set = (mappings: Mapping[], a = network('A'), b = network('B')) =>
    firewall.reset({ addNetworks: [a, b], addEndpoints: ENDPOINTS, addMappings: mappings })

  type Ask = [from: Place, to: string, port: number]
  /** Asks over TCP and UDP; the answers as `FROM TO PORT/PROTOCOL: ANSWER`. */
  async function ask(
    open: boolean,
    asks: Ask[],
    protocols: readonly Protocol[] = PROTOCOLS,
  ): Promise<string[]> {
    const answers = asks.flatMap(([from, to, port]) =>
      protocols.map(async protocol => {
        const answer = await (open
          ? scene.probe(from, protocol, to, port)
          : scene.closed(from, protocol, to, port))
        return `${from} ${to} ${port}/${protocol}: ${answer}`
      }),
    )
    return Promise.all(answers)
  }
  async function expectOpen(asks: Ask[], protocols = PROTOCOLS as readonly Protocol[]): Promise<void> {
    const answers = await ask(true, asks, protocols)
    expect(answers.filter(answer => answer.endsWith(': closed'))).toEqual([])
  }
  async function expectClosed(asks: Ask[], protocols = PROTOCOLS as readonly Protocol[]): Promise<void> {
    const answers = await ask(false, asks, protocols)
    expect(answers.filter(answer => !answer.endsWith(': closed'))).toEqual([])
  }
  const both = (make: (f: F) => Ask[]) => FAMILIES.flatMap(make)

  /** What does not depend on br_netfilter is asked once. */
  const once = (name: string, body: () => Promise<void>) => {
    if (!bridged && !legacy) test(name, body)
  }
  /** As {@link once}, and of legacy iptables too: what needs yet another match or target of it. */
  const onceEach = (name: string, body: () => Promise<void>) => {
    if (!bridged) test(name, body)
  }

  test('a published port is reached from everywhere, and clients keep their address', async () => {
    await set(publish('a1', 8080, 80))
    await expectOpen(
      both(f =>
        (['lan', 'vpn', 'host', 'a1', 'a2', 'b1'] as const).map(from => [from, ADDRESS.host[f], 8080]),
      ),
    )
    await expectOpen(
      both(f => [
        ['a2', ADDRESS.gatewayA[f], 8080],
        ['b1', ADDRESS.gatewayA[f], 8080],
        ['lan', ADDRESS.host2[f], 8080],
      ]),
    )
    await expectOpen([['host', '127.0.0.1', 8080]])
    for (const from of ['lan', 'vpn'] as const)
      for (const f of FAMILIES)
        for (const protocol of PROTOCOLS)
          expect(await scene.probe(from, protocol, ADDRESS.host[f], 8080)).toBe(ADDRESS[from][f])
  })

  once('what is not published is closed from outside, and containers are not reached directly', async () => {
    await set(publish('a1', 8080, 80))
    await expectClosed(
      both(f =>
        (['lan', 'vpn', 'b1'] as const).flatMap(from => [
          [from, ADDRESS.a1[f], 81],
          [from, ADDRESS.a1[f], 80],
          [from, ADDRESS.host[f], 81],
        ]),
      ),
    )
    await expectOpen(
      both(f => [
        ['host', ADDRESS.a1[f], 81],
        ['a2', ADDRESS.a1[f], 81],
      ]),
    )
    const pings = await Promise.all(
      both(f => [
        ['lan', ADDRESS.a1[f], 0],
        ['b1', ADDRESS.a1[f], 0],
      ]).map(([from, to]) => scene.ping(from, to, 1)),
    )
    expect(pings).toEqual([false, false, false, false])
    expect(await scene.ping('a2', ADDRESS.a1[6], 8)).toBe(true)
  })

  once('a port bound to one address of the host is open there only', async () => {
    await set(publish('a1', 8080, 80, { at: ADDRESS.host2 }))
    await expectOpen(
      both(f => [
        ['lan', ADDRESS.host2[f], 8080],
        ['host', ADDRESS.host2[f], 8080],
      ]),
    )
    await expectClosed(
      both(f => [
        ['lan', ADDRESS.host[f], 8080],
        ['host', ADDRESS.host[f], 8080],
        ['vpn', ADDRESS.hostVpn[f], 8080],
      ]),
    )
  })

  onceEach('a port bound to 127.0.0.1 is for the host alone, whatever a neighbour sends', async () => {
    await set([
      ...publish('a1', 8080, 80, { at: { 4: '127.0.0.1', 6: '::' }, families: [4] }),
      ...publish('a1', 8081, 81),
    ])
    await expectOpen([
      ['host', '127.0.0.1', 8080],
      ['host', '127.0.0.1', 8081],
    ])
    await expectClosed([
      ['lan', ADDRESS.host[4], 8080],
      ['a2', ADDRESS.host[4], 8080],
      ['a2', ADDRESS.gatewayA[4], 8080],
      ['host', ADDRESS.host[4], 8080],
    ])
    // Neighbours that take 127.0.0.0/8 for a subnet behind the host. Answers would not find back; what arrives counts.
    for (const [place, via] of [
      ['lan', ADDRESS.host[4]],
      ['a2', ADDRESS.gatewayA[4]],
    ] as const)
      expect(
        scene.run(
          place,
          'sh',
          '-c',
          `ip route del table local 127.0.0.1; ip route del table local 127.0.0.0/8; ip route replace 127.0.0.0/8 via ${via}; ip route get 127.0.0.1`,
        ),
      ).toContain(`via ${via}`)
    scene.heard.clear()
    await expectClosed(
      [8080, 8081, 99].flatMap(port => [
        ['lan', '127.0.0.1', port],
        ['a2', '127.0.0.1', port],
      ]),
      ['udp'],
    )
    expect([...scene.heard]).toEqual([])
    expect(await scene.probe('host', 'udp', '127.0.0.1', 99)).toBe('127.0.0.1')
  })

  once('networks are apart from each other', async () => {
    await set([])
    await expectClosed(
      both(f => [
        ['b1', ADDRESS.a1[f], 80],
        ['a1', ADDRESS.b1[f], 80],
      ]),
    )
    await expectOpen(
      both(f => [
        ['a1', ADDRESS.a2[f], 80],
        ['host', ADDRESS.b1[f], 80],
      ]),
    )
  })

  onceEach('packets on their way out bear the address of the host, a given one, or their own', async () => {
    const seen = async (f: F) =>
      Promise.all(PROTOCOLS.map(protocol => scene.probe('a1', protocol, ADDRESS.lan[f], 7)))
    await set([])
    // Of two addresses the kernel may choose either.
    for (const f of FAMILIES)
      for (const answer of await seen(f)) expect([ADDRESS.host[f], ADDRESS.host2[f]]).toContain(answer)
    for (const f of FAMILIES) {
      const base = network('A')
      await set([], {
        ...base,
        families: base.families.map(family => ({ ...family, masquerade: ADDRESS.hostVpn[family.family] })),
      })
      await scene.at('host').flushConntrack([{ family: f, source: ADDRESS.a1[f] }])
      expect(await seen(f)).toEqual([ADDRESS.hostVpn[f], ADDRESS.hostVpn[f]])
    }
    await set([], withMode('A', { masquerade: false }))
    for (const f of FAMILIES) expect(await seen(f)).toEqual([ADDRESS.a1[f], ADDRESS.a1[f]])
    await expectClosed(both(f => [['lan', ADDRESS.a1[f], 80]]))
  })

  test('without icc endpoints do not reach each other, but they are published and get out', async () => {
    await scene.isolate(true)
    try {
      await set(publish('a1', 8080, 80), network('A', { icc: false }))
      await expectClosed(
        both(f => [
          ['a1', ADDRESS.a2[f], 80],
          ['a2', ADDRESS.a1[f], 80],
          ['a2', ADDRESS.a1[f], 81],
        ]),
      )
      await expectOpen(
        both(f => [
          ['lan', ADDRESS.host[f], 8080],
          ['host', ADDRESS.host[f], 8080],
          ['b1', ADDRESS.host[f], 8080],
          ['a1', ADDRESS.lan[f], 7],
        ]),
      )
      // With br_netfilter the translated packet stays within the bridge, and isolated ports do not hear each other: so the
      // core does not isolate a port behind which something is published (test/kernel/firewall/apart.test.ts).
      if (bridged)
        await scene.at('host').apply([{ op: 'setPort', link: 'vethA1', isolated: false, hairpin: true }])
      await expectOpen(
        both(f => [
          ['a2', ADDRESS.host[f], 8080],
          ['a1', ADDRESS.host[f], 8080],
        ]),
      )
      await expectClosed(both(f => [['a2', ADDRESS.a1[f], 80] as Ask]))
    } finally {
      await scene.isolate(false)
    }
  })

  test('the rules alone keep endpoints apart where bridged packets are filtered', async () => {
    await set([], network('A', { icc: false }))
    const asks = both(f => [['a1', ADDRESS.a2[f], 80]] as Ask[])
    await (bridged ? expectClosed(asks) : expectOpen(asks))
  })

  onceEach('an internal network has no outside', async () => {
    await set([], network('A', { internal: true }))
    await expectClosed(
      both(f => [
        ['a1', ADDRESS.lan[f], 7],
        ['lan', ADDRESS.a1[f], 80],
        ['b1', ADDRESS.a1[f], 80],
        ['a1', ADDRESS.b1[f], 80],
      ]),
    )
    await expectOpen(
      both(f => [
        ['a2', ADDRESS.a1[f], 80],
        ['host', ADDRESS.a1[f], 80],
      ]),
    )
    await set(publish('b1', 8080, 80), network('A', { internal: true }))
    await expectClosed(both(f => [['a1', ADDRESS.host[f], 8080]]))
    await expect(set(publish('a1', 8080, 80), network('A', { internal: true }))).rejects.toMatchObject({
      code: 'ERR_INVALID_PORT',
    })
    await expectOpen(both(f => [['lan', ADDRESS.host[f], 8080]]))
  })

  once('nat-unprotected: all ports are open to those who know the way', async () => {
    await set(publish('a1', 8080, 80), withMode('A', { mode: 'nat-unprotected' }))
    await expectOpen(
      both(f => [
        ['lan', ADDRESS.host[f], 8080],
        ['lan', ADDRESS.a1[f], 81],
        ['b1', ADDRESS.a1[f], 81],
        ['a1', ADDRESS.host[f], 8080],
      ]),
    )
    for (const f of FAMILIES)
      expect([ADDRESS.host[f], ADDRESS.host2[f]]).toContain(await scene.probe('a1', 'tcp', ADDRESS.lan[f], 7))
  })

  once('routed: published ports are open at the own address, nothing is translated', async () => {
    const limited = { allowFrom: { 4: [`${ADDRESS.vpn[4]}/32`], 6: [`${ADDRESS.vpn[6]}/128`] } }
    await set(
      [...publish('a1', 80, 80), ...publish('a2', 81, 81, limited)],
      withMode('A', { mode: 'routed' }),
    )
    for (const f of FAMILIES) {
      expect(await scene.probe('lan', 'tcp', ADDRESS.a1[f], 80)).toBe(ADDRESS.lan[f])
      expect(await scene.probe('a1', 'udp', ADDRESS.lan[f], 7)).toBe(ADDRESS.a1[f])
    }
    await expectOpen(
      both(f => [
        ['lan', ADDRESS.a1[f], 80],
        ['vpn', ADDRESS.a2[f], 81],
      ]),
    )
    await expectClosed(
      both(f => [
        ['lan', ADDRESS.a1[f], 81],
        ['lan', ADDRESS.host[f], 80],
        ['lan', ADDRESS.a2[f], 81],
        ['lan', ADDRESS.a2[f], 80],
      ]),
    )
    expect(await Promise.all(FAMILIES.map(f => scene.ping('lan', ADDRESS.a1[f], 8)))).toEqual([true, true])
  })

  once('from a trusted link published ports are reached directly, and no others', async () => {
    await set(publish('a1', 8080, 80), network('A', { trustedLinks: ['vpn0'] }))
    await expectOpen(
      both(f => [
        ['vpn', ADDRESS.a1[f], 80],
        ['vpn', ADDRESS.hostVpn[f], 8080],
      ]),
    )
    await expectClosed(
      both(f => [
        ['vpn', ADDRESS.a1[f], 81],
        ['lan', ADDRESS.a1[f], 80],
      ]),
    )
  })

  onceEach('a port with a list of sources is closed to others', async () => {
    const allowFrom = { 4: ['192.168.50.0/25', '192.168.50.2/32'], 6: ['fd50::/64'] }
    await set([
      ...publish('a1', 8080, 80, { allowFrom }),
      ...publish('a1', 8081, 81, { allowFrom, at: ADDRESS.host }),
      ...publish('a2', 8082, 80),
    ])
    await expectOpen(
      both(f => [
        ['lan', ADDRESS.host[f], 8080],
        ['lan', ADDRESS.host[f], 8081],
        ['vpn', ADDRESS.hostVpn[f], 8082],
      ]),
    )
    await expectClosed(
      both(f => [
        ['vpn', ADDRESS.hostVpn[f], 8080],
        ['vpn', ADDRESS.host[f], 8081],
        ['b1', ADDRESS.host[f], 8080],
      ]),
    )
  })

  onceEach('ranges, small and large, with the same and with other container ports', async () => {
    await set([
      ...publish('a1', 8000, 79, { size: 3 }), // 8001 -> 80, 8002 -> 81
      ...publish('a1', 20_000, 20_000, { size: 100 }), // 20050
      ...publish('a1', 30_000, 20_000, { size: 100, at: ADDRESS.host2 }), // 30050 -> 20050
    ])
    await expectOpen(
      both(f => [
        ['lan', ADDRESS.host[f], 8001],
        ['lan', ADDRESS.host[f], 8002],
        ['lan', ADDRESS.host[f], 20_050],
        ['host', ADDRESS.host[f], 20_050],
        ['lan', ADDRESS.host2[f], 30_050],
      ]),
    )
    await expectClosed(
      both(f => [
        ['lan', ADDRESS.host[f], 30_050],
        ['lan', ADDRESS.host2[f], 30_051],
        ['lan', ADDRESS.host[f], 8003],
      ]),
    )
  })

  once('the same port over TCP and UDP may lead to different endpoints', async () => {
    await set([
      ...publish('a1', 8080, 80, { protocols: ['tcp'] }),
      ...publish('b1', 8080, 80, { protocols: ['udp'] }),
    ])
    await expectOpen(both(f => [['lan', ADDRESS.host[f], 8080]]))
    await firewall.apply({ removeMappings: publish('a1', 8080, 80, { protocols: ['tcp'] }) })
    await expectOpen(
      both(f => [['lan', ADDRESS.host[f], 8080]]),
      ['udp'],
    )
    await expectClosed(
      both(f => [['lan', ADDRESS.host[f], 8080]]),
      ['tcp'],
    )
  })

  once('connections live on while ports come and go, and when everything is loaded anew', async () => {
    await set([...publish('a1', 8080, 80), ...publish('a1', 8081, 81)])
    const stream = scene.connect('lan', ADDRESS.host[4], 8080)
    const hear = (wanted: string) =>
      new Promise<void>((resolve, reject) => {
        stream.on('data', data => {
          if (data.toString().includes(wanted)) resolve()
        })
        stream.on('error', reject)
      })
    await hear(ADDRESS.lan[4])
    await firewall.apply({ removeMappings: publish('a1', 8081, 81), addMappings: publish('a2', 8082, 80) })
    let heard = hear('still')
    stream.write('still')
    await heard
    await firewall.reset(firewall.state() as Parameters<Firewall['reset']>[0])
    heard = hear('there')
    stream.write('there')
    await heard
    stream.destroy()
    await expectClosed(both(f => [['lan', ADDRESS.host[f], 8081]]))
    await expectOpen(both(f => [['lan', ADDRESS.host[f], 8082]]))
  })

  onceEach('rules of the host run before ours and stay', async () => {
    const rule =
      backend === 'nftables'
        ? ['nft', 'add', 'rule', 'inet', 'libcnm-user', 'forward', 'iifname', 'lan0', 'drop']
        : ['iptables', '-A', 'DOCKER-USER', '-i', 'lan0', '-j', 'DROP']
    const [program = '', ...parameters] = rule
    expect(scene.run('host', program, ...parameters)).toBeDefined()
    if (backend === 'iptables') scene.run('host', 'ip6tables', ...parameters)
    try {
      await set(publish('a1', 8080, 80))
      await firewall.apply({ addMappings: publish('a2', 8081, 80) })
      await expectClosed(
        both(f => [
          ['lan', ADDRESS.host[f], 8080],
          ['lan', ADDRESS.host[f], 8081],
        ]),
      )
      await expectOpen(both(f => [['vpn', ADDRESS.hostVpn[f], 8080]]))
    } finally {
      if (backend === 'nftables') scene.run('host', 'nft', 'flush', 'chain', 'inet', 'libcnm-user', 'forward')
      else for (const tool of ['iptables', 'ip6tables']) scene.run('host', tool, '-F', 'DOCKER-USER')
    }
  })

  once(
    'a UDP client that goes on sending follows a port to its new endpoint once stale entries are flushed',
    async () => {
      await set(publish('a1', 8080, 80))
      const host = scene.at('host')
      expect(await scene.probe('lan', 'udp', ADDRESS.host[4], 8080)).toBe(ADDRESS.lan[4])
      expect(
        await host.flushConntrack([
          { family: 4, protocol: 'udp', destinationPort: 8080, replySource: ADDRESS.a2[4] },
        ]),
      ).toBe(0)
      expect(
        await host.flushConntrack([
          { family: 4, protocol: 'udp', destinationPort: 8080, replySource: ADDRESS.a1[4] },
        ]),
      ).toBeGreaterThan(0)
      expect(
        await host.flushConntrack([
          { family: 4, protocol: 'udp', destinationPort: 8080, replySource: ADDRESS.a1[4] },
        ]),
      ).toBe(0)
      expect(await scene.probe('lan', 'tcp', ADDRESS.host[6], 8080)).toBe(ADDRESS.lan[6])
      const many = Array.from({ length: 20 }, (_, i) => ({
        family: 6 as const,
        protocol: 'tcp' as const,
        destination: ADDRESS.host[6],
        destinationPort: 8061 + i,
      }))
      expect(await host.flushConntrack(many)).toBeGreaterThan(0)
    },
  )

  onceEach('taken down, nothing of ours is left', async () => {
    await set(publish('a1', 8080, 80))
    await firewall.stop({ remove: true })
    const rules =
      backend === 'nftables'
        ? scene.run('host', 'nft', 'list', 'tables')
        : `${scene.run('host', 'iptables-save')}${scene.run('host', 'ip6tables-save')}`
    if (backend === 'nftables') expect(rules).not.toMatch(/inet libcnm$/m)
    else expect(rules?.split('\n').filter(line => line.startsWith('-A'))).toEqual([])
    await firewall.start()
    await firewall.reset({})
    expect(await firewall.check()).toEqual([])
  })
})
