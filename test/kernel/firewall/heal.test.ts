/** Others change the ruleset; the firewall notices and puts it right. The programs nft and iptables are the others. */
import type { Firewall, FirewallProblem } from '../../../lib/firewall/contract'
import { openFirewall } from '../../../lib/firewall/select'
import { ADDRESS, network, Scene } from './scene'

/** Milliseconds. Typically some tens; the issue promises less than a second, and a busy machine gets more. */
const PATIENCE = 15_000

const STATE = {
  addNetworks: [network('A'), network('B', { internal: true })],
  addEndpoints: [{ id: 'a1', networkId: 'network-A', addresses: [ADDRESS.a1[4], ADDRESS.a1[6]] }],
  addMappings: ([4, 6] as const).map(f => ({
    networkId: 'network-A',
    endpointId: 'a1',
    protocol: 'tcp' as const,
    hostIp: f === 4 ? '0.0.0.0' : '::',
    hostPort: 8080,
    hostPortEnd: 8080,
    containerIp: ADDRESS.a1[f],
    containerPort: 80,
  })),
}

const DAMAGES = {
  nftables: [
    ['flush ruleset', 'nft', 'flush', 'ruleset'],
    ['our table deleted', 'nft', 'delete', 'table', 'inet', 'libcnm'],
    ['a chain flushed', 'nft', 'flush', 'chain', 'inet', 'libcnm', 'closed'],
    ['an element deleted', 'nft', 'delete', 'element', 'inet', 'libcnm', 'ports4', '{ tcp . 8080 }'],
    ['a set flushed', 'nft', 'flush', 'set', 'inet', 'libcnm', 'guarded6'],
    ['a strange element', 'nft', 'add', 'element', 'inet', 'libcnm', 'open4', '{ 10.1.0.2 . tcp . 22 }'],
    ['a strange rule', 'nft', 'insert', 'rule', 'inet', 'libcnm', 'forward', 'accept'],
    ['the user table deleted', 'nft', 'delete', 'table', 'inet', 'libcnm-user'],
    [
      'forwarding of 127.0.0.1 and our table',
      'sh',
      '-c',
      'echo 0 > /proc/sys/net/ipv4/conf/brA/route_localnet; nft flush ruleset',
    ],
  ],
  iptables: [
    ['iptables -F', 'iptables', '-F'],
    ['iptables -t nat -F', 'iptables', '-t', 'nat', '-F'],
    ['ip6tables -F DOCKER', 'ip6tables', '-F', 'DOCKER'],
    ['flush ruleset', 'nft', 'flush', 'ruleset'],
    [
      'one rule deleted',
      'iptables',
      '-t',
      'raw',
      '-D',
      'PREROUTING',
      '-d',
      '10.1.0.2/32',
      '!',
      '-i',
      'brA',
      '-j',
      'DROP',
    ],
    ['a strange rule', 'iptables', '-I', 'DOCKER', '-j', 'ACCEPT'],
  ],
} as const

describe.each(['nftables', 'iptables'] as const)('%s', backend => {
  const scene = new Scene()
  let firewall: Firewall
  let told: { problems: FirewallProblem[]; repaired: boolean; after: number }[] = []
  let since = 0
  const waiting = new Set<() => void>()

  beforeAll(async () => {
    await scene.build()
    await scene.serve('a1', 'tcp', 80, '0.0.0.0')
    firewall = openFirewall({ backend, stack: scene.at('host') })
    firewall.onProblem((problems, repaired) => {
      told.push({ problems, repaired, after: Date.now() - since })
      for (const wake of waiting) wake()
    })
    await firewall.start()
    await firewall.reset(STATE)
  })
  afterAll(async () => {
    await firewall.stop({ remove: true })
    await scene.close()
  })
  beforeEach(() => {
    told = []
    since = Date.now()
  })

  const repaired = () =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('nothing was repaired')), PATIENCE)
      const wake = () => {
        if (!told.some(one => one.repaired)) return
        clearTimeout(timer)
        waiting.delete(wake)
        resolve()
      }
      waiting.add(wake)
      wake()
    })

  test.each<readonly [string, ...string[]]>(DAMAGES[backend])(
    '%s: is noticed and repaired',
    async (_, ...command) => {
      const [program = '', ...parameters] = command
      expect(scene.run('host', program, ...parameters)).toBeDefined()
      await repaired()
      expect((await firewall.check()).filter(problem => problem.kind !== 'foreign-drop')).toEqual([])
      expect(await scene.probe('lan', 'tcp', ADDRESS.host[4], 8080)).toBe(ADDRESS.lan[4])
      expect(await scene.probe('host', 'tcp', '127.0.0.1', 8080)).toBe('10.1.0.1')
      expect(told.every(one => one.problems.length > 0)).toBe(true)
    },
  )

  test('our own changes, and those of others elsewhere, are no damage', async () => {
    expect(scene.run('host', 'nft', 'add', 'table', 'inet', 'elsewhere')).toBeDefined()
    for (let i = 0; i < 5; i++) {
      await firewall.apply({ removeMappings: STATE.addMappings })
      await firewall.apply({ addMappings: STATE.addMappings })
    }
    await new Promise(resolve => setTimeout(resolve, 300))
    expect(told).toEqual([])
  })

  test('a change that finds its ground gone puts everything back', async () => {
    scene.at('host').nft('flush ruleset') // by this very process: no event is heeded
    await firewall.apply({ removeMappings: STATE.addMappings })
    await firewall.apply({ addMappings: STATE.addMappings })
    // A flush takes the user's table as well, which is no ground that a change stands on.
    await firewall.repair()
    expect(await firewall.repair()).toBe(false)
    expect(await scene.probe('lan', 'tcp', ADDRESS.host[4], 8080)).toBe(ADDRESS.lan[4])
  })

  test('somebody who fights us is not fought a thousand times', async () => {
    const damage = backend === 'nftables' ? 'nft flush ruleset' : 'iptables -t nat -F'
    scene.run(
      'host',
      'sh',
      '-c',
      `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do ${damage}; sleep 0.02; done`,
    )
    await repaired()
    expect(told.filter(one => one.repaired).length).toBeLessThan(12)
    await firewall.repair()
    expect(await scene.probe('lan', 'tcp', ADDRESS.host[4], 8080)).toBe(ADDRESS.lan[4])
  })

  test('what an earlier run left stays in force until the first change, and is then replaced', async () => {
    await firewall.reset(STATE)
    await firewall.stop()
    const next = openFirewall({ backend, stack: scene.at('host') })
    await next.start()
    expect(await scene.probe('lan', 'tcp', ADDRESS.host[4], 8080)).toBe(ADDRESS.lan[4])
    await next.reset({ addNetworks: [network('A')] })
    expect(await scene.closed('lan', 'tcp', ADDRESS.host[4], 8080)).toBe('closed')
    expect((await next.check()).filter(problem => problem.kind !== 'foreign-drop')).toEqual([])
    await next.stop()
    await firewall.start()
    await firewall.reset(STATE)
  })

  test('forwarding that was turned off is noticed', async () => {
    scene.at('host').setSysctls({ 'net/ipv4/ip_forward': '0' })
    expect(await firewall.check()).toEqual([expect.objectContaining({ kind: 'forwarding-off' })])
    expect(await firewall.repair()).toBe(true)
    expect(scene.at('host').sysctl('net/ipv4/ip_forward')).toBe('1')
  })
})
