/** Rules of others that drop what is forwarded: found, let through where there is a hook for it, and otherwise told. */
import type { Firewall, FirewallProblem } from '../../../lib/firewall/contract'
import { openFirewall } from '../../../lib/firewall/select'
import { ADDRESS, network, Scene } from './scene'

const PATIENCE = 15_000
const MAPPINGS = ([4, 6] as const).map(f => ({
  networkId: 'network-A',
  endpointId: 'a1',
  protocol: 'tcp' as const,
  hostIp: f === 4 ? '0.0.0.0' : '::',
  hostPort: 8080,
  hostPortEnd: 8080,
  containerIp: ADDRESS.a1[f],
  containerPort: 80,
}))
const STATE = {
  addNetworks: [network('A'), network('B')],
  addEndpoints: [{ id: 'a1', networkId: 'network-A', addresses: [ADDRESS.a1[4], ADDRESS.a1[6]] }],
  addMappings: MAPPINGS,
}

const scene = new Scene()
let firewall: Firewall
let told: FirewallProblem[] = []
const waiting = new Set<() => void>()

beforeAll(async () => {
  await scene.build()
  for (const address of ['0.0.0.0', '::']) {
    await scene.serve('a1', 'tcp', 80, address)
    await scene.serve('lan', 'tcp', 7, address)
  }
})
afterAll(() => scene.close())
beforeEach(async () => {
  told = []
  firewall = openFirewall({ backend: 'nftables', stack: scene.at('host') })
  firewall.onProblem(problems => {
    told.push(...problems)
    for (const wake of waiting) wake()
  })
})
afterEach(async () => {
  await firewall.stop({ remove: true })
  scene.run('host', 'nft', 'flush', 'ruleset')
})

const shell = (script: string) => expect(scene.run('host', 'sh', '-e', '-c', script)).toBeDefined()
const until = (condition: () => boolean) =>
  new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not told in time: ${JSON.stringify(told)}`)), PATIENCE)
    const wake = () => {
      if (!condition()) return
      clearTimeout(timer)
      waiting.delete(wake)
      resolve()
    }
    waiting.add(wake)
    wake()
  })

test('a policy of drop and an unconditional reject are told with their place and the remedy', async () => {
  const chains: [string, string, string, string[]][] = [
    ['inet ufw-like', 'forward', 'policy drop;', []],
    ['ip tail', 'f', '', ['ct state established accept', 'counter reject with icmp admin-prohibited']],
    ['inet harmless', 'f', '', ['ip saddr 1.2.3.4 drop']],
  ]
  for (const [table, chain, policy, rules] of chains)
    shell(
      [
        `nft 'add table ${table}; add chain ${table} ${chain} { type filter hook forward priority 5; ${policy} }'`,
        ...rules.map(rule => `nft 'add rule ${table} ${chain} ${rule}'`),
      ].join('; '),
    )
  await firewall.start()
  await firewall.reset(STATE)
  const problems = (await firewall.check()).filter(problem => problem.kind === 'foreign-drop')
  expect(problems.map(problem => problem.details)).toEqual([
    { family: 'inet', table: 'ufw-like', chain: 'forward', verdict: 'policy drop' },
    { family: 'ip', table: 'tail', chain: 'f', verdict: expect.stringContaining('reject') },
  ])
  expect(problems[0]?.remedy).toContain('nft insert rule inet ufw-like forward')
  expect(told).toEqual(problems)
  expect(await scene.closed('lan', 'tcp', ADDRESS.host[4], 8080)).toBe('closed')
})

test('rules that come later are told as well, once', async () => {
  await firewall.start()
  await firewall.reset(STATE)
  expect(told).toEqual([])
  shell(
    "nft 'add table inet late; add chain inet late f { type filter hook forward priority 0; policy drop; }'",
  )
  await until(() => told.length > 0)
  shell("nft 'add rule inet late f accept'")
  await new Promise(resolve => setTimeout(resolve, 400))
  expect(told).toHaveLength(1)
  expect(told[0]).toMatchObject({ kind: 'foreign-drop', details: { table: 'late' } })
})

const DOCKER = ['iptables', 'ip6tables']
  .map(tool => `${tool} -N DOCKER-USER; ${tool} -I FORWARD -j DOCKER-USER; ${tool} -P FORWARD DROP`)
  .join('; ')

test('beside Docker, whose FORWARD policy is DROP, networks work through the chain that it leaves to others', async () => {
  shell(DOCKER)
  await firewall.start()
  await firewall.apply(STATE)
  for (const f of [4, 6] as const) {
    expect(await scene.probe('lan', 'tcp', ADDRESS.host[f], 8080)).toBe(ADDRESS.lan[f])
    expect(await scene.probe('a1', 'tcp', ADDRESS.lan[f], 7)).not.toBe('closed')
    expect(await scene.closed('lan', 'tcp', ADDRESS.a1[f], 80)).toBe('closed')
    expect(await scene.closed('b1', 'tcp', ADDRESS.a1[f], 80)).toBe('closed')
  }
  expect(told).toEqual([])
  expect(await firewall.check()).toEqual([])
  expect(scene.run('host', 'iptables', '-S', 'DOCKER-USER')).toContain('-o brA')
  await firewall.apply({
    removeMappings: MAPPINGS,
    removeEndpoints: STATE.addEndpoints,
    removeNetworks: [network('A')],
  })
  expect(scene.run('host', 'iptables', '-S')).not.toContain('brA')
  expect(scene.run('host', 'iptables', '-S')).toContain('brB')
  await firewall.stop({ remove: true })
  expect(scene.run('host', 'iptables', '-S')).not.toContain('brB')
  await firewall.start()
})

test('a Docker that starts after us is noticed', async () => {
  await firewall.start()
  await firewall.apply(STATE)
  shell(DOCKER)
  const deadline = Date.now() + PATIENCE
  while (!scene.run('host', 'ip6tables', '-S', 'DOCKER-USER')?.includes('brA') && Date.now() < deadline)
    await new Promise(resolve => setTimeout(resolve, 100))
  expect(await scene.probe('lan', 'tcp', ADDRESS.host[4], 8080)).toBe(ADDRESS.lan[4])
  expect(await scene.probe('lan', 'tcp', ADDRESS.host[6], 8080)).toBe(ADDRESS.lan[6])
})
