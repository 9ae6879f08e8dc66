/**
 * Beside a real firewalld, which rejects what none of its zones accepts: our zone and policy let traffic through, and it is
 * so again after a reload, which makes firewalld forget them. By traffic, with either backend of ours and of firewalld's.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Firewall, FirewallProblem } from '../../../lib/firewall/contract'
import { openFirewall } from '../../../lib/firewall/select'
import { Firewalld, unpackFirewalld } from '../../support/firewalld'
import { ADDRESS, network, Scene } from './scene'

const FAMILIES = [4, 6] as const
const MAPPINGS = FAMILIES.map(f => ({
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

const directory = mkdtempSync(join(tmpdir(), 'libcnm-firewalld-'))
const scene = new Scene()
let root: string
const ended: (() => unknown)[] = []

beforeAll(async () => {
  root = await unpackFirewalld(directory)
  await scene.build()
  for (const address of ['0.0.0.0', '::']) {
    for (const port of [80, 81]) await scene.serve('a1', 'tcp', port, address)
    await scene.serve('lan', 'tcp', 7, address)
  }
})
afterEach(async () => {
  for (const act of ended.splice(0).reverse()) await act()
  scene.run('host', 'nft', 'flush', 'ruleset')
})
afterAll(async () => {
  await scene.close()
  rmSync(directory, { recursive: true, force: true })
})

async function firewalldWith(backend: 'nftables' | 'iptables'): Promise<Firewalld> {
  const place = mkdtempSync(join(directory, 'run-'))
  const firewalld = await Firewalld.start(root, join(place, 'd'), scene.at('host'), backend)
  ended.push(() => firewalld.stop())
  return firewalld
}

async function started(options: { backend: 'nftables' | 'iptables'; bus?: string }) {
  const firewall: Firewall = openFirewall({ ...options, stack: scene.at('host') })
  ended.push(() => firewall.stop({ remove: true }))
  const told: FirewallProblem[] = []
  firewall.onProblem(problems => void told.push(...problems))
  await firewall.start()
  await firewall.apply(STATE)
  return { firewall, told }
}

/** What is published is reached from outside, containers reach outside, and nothing else gets in. */
async function traffic(): Promise<void> {
  for (const f of FAMILIES) {
    expect(await scene.probe('lan', 'tcp', ADDRESS.host[f], 8080)).toBe(ADDRESS.lan[f])
    expect(await scene.probe('a1', 'tcp', ADDRESS.lan[f], 7)).not.toBe('closed')
    expect(await scene.closed('lan', 'tcp', ADDRESS.a1[f], 80)).toBe('closed')
    expect(await scene.closed('lan', 'tcp', ADDRESS.a1[f], 81)).toBe('closed')
    expect(await scene.closed('b1', 'tcp', ADDRESS.a1[f], 80)).toBe('closed')
  }
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`in vain: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

const bridges = async (firewalld: Firewalld) =>
  (await firewalld.command('--zone=libcnm', '--list-interfaces')).split(/\s+/).sort().join(' ')

test('a firewalld that is not spoken with rejects what containers send, and the rule is named', async () => {
  await firewalldWith('nftables')
  const { firewall, told } = await started({ backend: 'nftables' })
  expect(await scene.closed('a1', 'tcp', ADDRESS.lan[4], 7)).toBe('closed')
  expect((await firewall.check()).map(({ kind }) => kind)).toContain('foreign-drop')
  expect(told.map(({ details }) => details)).toContainEqual(expect.objectContaining({ table: 'firewalld' }))
})

test.each([
  ['nftables', 'nftables'],
  ['iptables', 'nftables'],
  ['iptables', 'iptables'],
] as const)(
  '%s beside a firewalld that uses %s: zone, policy, traffic, and all of it again after a reload',
  async (ours, theirs) => {
    const firewalld = await firewalldWith(theirs)
    const { firewall, told } = await started({ backend: ours, bus: firewalld.bus })
    expect(await bridges(firewalld)).toBe('brA brB')
    expect(await firewalld.command('--permanent', '--zone=libcnm', '--get-target')).toBe('ACCEPT')
    const policy = await firewalld.command('--info-policy=libcnm-fwd')
    for (const line of ['target: ACCEPT', 'ingress-zones: ANY', 'egress-zones: libcnm'])
      expect(policy).toContain(line)
    await traffic()
    expect(await firewall.check()).toEqual([])

    await firewalld.command('--reload')
    await until('the bridges are back in the zone', async () => (await bridges(firewalld)) === 'brA brB')
    await until('nothing is missing', async () => (await firewall.check()).length === 0)
    await traffic()
    // While it reloads it drops everything for a moment; in a table of its own that is no news. (With iptables it
    // does so in tables that anybody may use.)
    if (theirs === 'nftables') expect(told.filter(({ kind }) => kind === 'foreign-drop')).toEqual([])

    await firewall.apply({
      removeMappings: MAPPINGS,
      removeEndpoints: STATE.addEndpoints,
      removeNetworks: [network('A')],
    })
    expect(await bridges(firewalld)).toBe('brB')
  },
)

test('a firewalld that starts after us is noticed', async () => {
  // The bus is there first, as it is at boot.
  const before = await firewalldWith('nftables')
  const { firewall, told } = await started({ backend: 'nftables', bus: before.bus })
  await before.restart()
  await until('the bridges are in the zone', async () => (await bridges(before)) === 'brA brB')
  await until('nothing is missing', async () => (await firewall.check()).length === 0)
  await traffic()
  expect(told.filter(({ kind }) => kind === 'foreign-drop')).toEqual([])
})
