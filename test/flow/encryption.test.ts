/** Encrypted networks on modelled hosts: what the kernel is given, in which order, and that it is gone with the need. */
import type { Controller, ControllerInput, Network, Sandbox } from 'libcnm'
import { faultSweep, type MemoryBackend, MemoryCluster, MockKernel } from 'libcnm/testing'
import { directory, joined, later, open, sandboxOf } from './scene'

interface Host {
  kernel: MockKernel
  backend: MemoryBackend
  controller: Controller
  options: Exclude<ControllerInput, undefined>
}

let store: MemoryCluster
beforeEach(() => {
  store = new MemoryCluster()
  later(() => store.close())
})

interface Settings {
  lacks?: string[]
  keyLifetime?: number
  dataDir?: string
}

async function host(name: string, n: number, { lacks, keyLifetime, dataDir }: Settings = {}): Promise<Host> {
  const address = `192.0.2.${n}`
  const kernel = new MockKernel({
    lacks,
    hardware: [{ name: 'eth0', addresses: [`${address}/24`], gateways: ['192.0.2.254'] }],
  })
  const backend = store.backend()
  const cluster = { backend, host: { name, address }, timeout: 300, keyLifetime }
  const options = { name: `cnm-${name}`, hostId: name, dataDir, cluster }
  return { kernel, backend, options, controller: await open(kernel, options) }
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('in vain')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

const states = ({ kernel }: Host) => kernel.netns(undefined)?.ipsecStates ?? []
const policies = ({ kernel }: Host) => kernel.netns(undefined)?.ipsecPolicies ?? []
const out = (from: Host, to: string) => states(from).filter(({ destination }) => destination === to)
const tables = ({ kernel }: Host) => kernel.netns(undefined)?.transactions.at(-1) ?? ''

async function scene(settings: Settings = {}): Promise<{ all: Host[]; sandboxes: Sandbox[] }> {
  const all = await Promise.all(['a', 'b', 'c'].map((name, at) => host(name, at + 1, settings)))
  const [a] = all as [Host]
  await a.controller.createNetwork({ name: 'web', driver: 'overlay', options: { encrypted: true } })
  const sandboxes: Sandbox[] = []
  for (const each of all) {
    await until(() => each.controller.networks().some(({ name }) => name === 'web'))
    const sandbox = await sandboxOf(each.controller, 'one')
    await joined(each.controller.network('web') as Network, sandbox)
    sandboxes.push(sandbox)
  }
  await until(() => all.every(each => states(each).length >= 4 && policies(each).length === 2))
  return { all, sandboxes }
}

test('each pair of hosts has two states, with keys of their own, and a policy for what is marked', async () => {
  const { all, sandboxes } = await scene()
  const [a, b] = all as [Host, Host, Host]
  const [sent] = out(a, '192.0.2.2')
  const bare = ({ reqid: _, ...state }: NonNullable<typeof sent>) => state
  // The other host's reqid is its own affair.
  expect(out(b, '192.0.2.2').map(bare)).toContainEqual(bare(sent as NonNullable<typeof sent>))
  expect(policies(a).find(({ destination }) => destination === '192.0.2.2')).toEqual({
    source: '192.0.2.1',
    destination: '192.0.2.2',
    port: 4789,
    mark: sent?.reqid,
    reqid: sent?.reqid,
    spi: sent?.spi,
  })
  expect(new Set(all.flatMap(states).map(({ key }) => key)).size).toBe(6)
  const rules = tables(a)
  for (const rule of [
    `ipsec in reqid ${sent?.reqid} goto known`,
    '{ 4096 } drop',
    `meta mark set ${sent?.reqid}`,
    'rt ipsec missing drop',
  ])
    expect(rules).toContain(rule)
  expect(a.controller.network('web').inspect().mtu).toBe(1416)
  expect(await a.controller.check()).toEqual([])

  await sandboxes[2]?.delete()
  await until(() => states(a).length === 2 && states(b).length === 2)
  await sandboxes[0]?.delete()
  await sandboxes[1]?.delete()
  await until(() => all.every(each => states(each).length === 0 && policies(each).length === 0))
  expect(tables(a)).not.toContain('mark')
  expect(tables(a)).toContain('{ 4096 } drop')
})

test('keys change: nobody sends with one that the receiver has not got; then the oldest is forgotten', async () => {
  const { all } = await scene()
  const [a] = all as [Host]
  const early: string[] = []
  const at = (address: string) => all[Number(address.split('.')[3]) - 1] as Host
  for (const { kernel } of all)
    kernel.failAt(({ op, details }) => {
      const { policy } = details as { policy?: { destination: string; spi: number } }
      if (
        op === 'setIpsecPolicy' &&
        policy &&
        !states(at(policy.destination)).some(each => each.spi === policy.spi)
      )
        early.push(policy.destination)
      return false
    })
  const spis = () => all.flatMap(policies).map(({ spi }) => spi)
  const first = spis()
  expect(await a.controller.cluster?.rotateKeys()).toBe(2)
  expect(spis().filter(spi => first.includes(spi))).toEqual([])
  expect(await all[1]?.controller.cluster?.rotateKeys()).toBe(3)
  expect(early).toEqual([])
  // In a while only the last two keys are received with, and one is sent with.
  await until(() => all.every(each => states(each).length === 6))
  for (const each of all) expect(await each.controller.check()).toEqual([])
})

test('a host that cannot follow holds the change back, and is named; one that dies does not', async () => {
  const { all } = await scene()
  const [a, b, c] = all as [Host, Host, Host]
  const before = policies(a).map(({ spi }) => spi)
  c.kernel.failAt(({ op }) => op === 'addIpsecState', 'ENOMEM', 1000)
  const problems: string[] = []
  c.controller.on('problem', ({ message }) => problems.push(message))
  const changing = a.controller.cluster?.rotateKeys()
  await until(() => problems.length > 0 && states(b).length === 6)
  expect(policies(a).map(({ spi }) => spi)).toEqual(before)
  await c.controller.close()
  store.expire('3')
  expect(await changing).toBe(2)
})

test('keys change by themselves', async () => {
  const { all } = await scene({ keyLifetime: 1 })
  const before = policies(all[0] as Host).map(({ spi }) => spi)
  await until(() => policies(all[0] as Host).every(({ spi }) => !before.includes(spi)))
})

test('what was removed or added by others: check tells, repair mends', async () => {
  const { all } = await scene()
  const [a] = all as [Host]
  const stack = await a.kernel.open()
  const [policy] = policies(a)
  const [state] = states(a)
  const stray = { ...(state as NonNullable<typeof state>), destination: '192.0.2.99', spi: 4711 }
  await stack.apply([
    { op: 'removeIpsecPolicy', policy: policy as NonNullable<typeof policy> },
    { op: 'removeIpsecState', state: state as NonNullable<typeof state> },
    { op: 'addIpsecState', state: stray },
    { op: 'addIpsecState', state: { ...stray, reqid: 5, spi: 4712 } },
  ])
  const before = [policies(a), states(a)]
  const found = await a.controller.check()
  expect(found.map(({ kind, problem }) => `${kind} ${problem}`).sort()).toEqual([
    'encryption missing',
    'encryption missing',
    'encryption unwanted',
  ])
  await a.controller.repair()
  expect(await a.controller.check()).toEqual([])
  expect([policies(a), states(a)]).not.toEqual(before)
  // Those of others are left alone.
  expect(states(a).map(({ spi }) => spi)).toContain(4712)
  stack.close()
})

test('a controller restarts: nothing of it is touched', async () => {
  const a = await host('x', 11, { dataDir: directory() })
  const b = await host('y', 12)
  await a.controller.createNetwork({ name: 'vpn', driver: 'overlay', options: { encrypted: true } })
  await until(() => b.controller.networks().length === 1)
  await joined(a.controller.network('vpn'), await sandboxOf(a.controller, 'one'))
  await joined(b.controller.network('vpn'), await sandboxOf(b.controller, 'two'))
  await until(() => states(a).length === 2 && policies(a).length === 1)
  const before = [states(a), policies(a)]
  await a.controller.close()
  const from = a.kernel.journal.length
  const backend = store.backend()
  const again = await open(a.kernel, { ...a.options, cluster: { ...a.options.cluster, backend } as never })
  await until(() => again.cluster?.connected === true)
  await again.settle()
  expect(await again.check()).toEqual([])
  expect([states(a), policies(a)]).toEqual(before)
  expect(a.kernel.journal.slice(from).filter(({ op }) => /Ipsec(State|Policy)$/.test(op))).toEqual([])
  expect(tables(a)).toContain('rt ipsec missing drop')
})

test('a store that lost everything gets the keys back that are in use', async () => {
  const { all } = await scene()
  const before = all.flatMap(states)
  const ring = store.snapshot()['/libcnm/state/key/ring']
  await store.backend().transact({ removePrefixes: ['/libcnm/'] })
  store.breakWatches()
  await until(() => store.snapshot()['/libcnm/state/key/ring'] === ring)
  await until(() => Object.keys(store.snapshot()).filter(key => key.includes('/endpoint/')).length === 3)
  await until(() => all.every(each => states(each).length === 4))
  expect(all.flatMap(states)).toEqual(before)
})

test('a kernel without ESP: said at once, nothing is left; other networks are none the worse', async () => {
  const poor = await host('poor', 7, { lacks: ['esp'] })
  const create = (encrypted: boolean) =>
    poor.controller.createNetwork({ name: `n${encrypted}`, driver: 'overlay', options: { encrypted } })
  await expect(create(true)).rejects.toMatchObject({
    code: 'ERR_UNSUPPORTED',
    message: expect.stringContaining('ESP'),
  })
  expect(Object.keys(store.snapshot()).filter(key => /network|segments|pools\//.test(key))).toEqual([])
  await joined(await create(false), await sandboxOf(poor.controller, 'one'))
  // One that another host made: it is known, and a join says why not.
  const rich = await host('rich', 8)
  await rich.controller.createNetwork({ name: 'vpn', driver: 'overlay', options: { encrypted: true } })
  await until(() => poor.controller.networks().some(({ name }) => name === 'vpn'))
  const endpoint = await poor.controller.network('vpn').createEndpoint({ name: 'two' })
  const before = poor.kernel.snapshot()
  await expect(endpoint.join(await sandboxOf(poor.controller, 'two'))).rejects.toMatchObject({
    code: 'ERR_UNSUPPORTED',
  })
  await poor.controller.sandbox('two').delete()
  await poor.controller.settle()
  expect(poor.kernel.snapshot()).toEqual(before)
  expect(tables(poor)).not.toContain('ipsec')
})

test('a join that fails at any call for the encryption leaves nothing, and can be tried again', async () => {
  await faultSweep(
    async kernel => {
      const fresh = new MemoryCluster()
      later(() => fresh.close())
      // Known keys, so that all runs are alike.
      const value = { keys: [{ tag: 1, key: '5a'.repeat(32) }], primary: 1 }
      fresh.put('/libcnm/state/key/ring', JSON.stringify({ version: 1, value }))
      const cluster = (name: string, address: string) => ({
        backend: fresh.backend(),
        host: { name, address },
      })
      const controller = await open(kernel, { name: 'a', cluster: cluster('a', '192.0.2.10') })
      await controller.createNetwork({ name: 'web', driver: 'overlay', options: { encrypted: true } })
      const away = new MockKernel({ hardware: [{ name: 'eth0', addresses: ['192.0.2.11/24'] }] })
      const other = await open(away, { name: 'b', cluster: cluster('b', '192.0.2.11') })
      await until(() => other.networks().length === 1)
      await joined(other.network('web'), await sandboxOf(other, 'two'))
      // The gateway bridge stays once it is made; it is no part of the join.
      const plain = await controller.createNetwork({ name: 'plain', driver: 'overlay' })
      await joined(plain, await sandboxOf(controller, 'other'))
      const sandbox = await sandboxOf(controller, 'one')
      const endpoint = await controller.network('web').createEndpoint({ name: 'one' })
      return () => endpoint.join(sandbox)
    },
    { skip: ({ op }) => !/Ipsec|nft/.test(op) },
  )
})

test('states and policies that somebody removes are there again at once, and it is told', async () => {
  const { all } = await scene()
  const [a] = all as [Host]
  const before = { states: states(a).length, policies: policies(a) }
  const told: string[] = []
  a.controller.on('firewall.repaired', ({ problems }) => told.push(...problems.map(({ message }) => message)))
  const stack = await a.kernel.open()
  for (const state of await stack.ipsecStates()) await stack.apply([{ op: 'removeIpsecState', state }])
  for (const policy of policies(a)) await stack.apply([{ op: 'removeIpsecPolicy', policy }])
  expect(states(a)).toEqual([])
  await until(() => states(a).length === before.states && policies(a).length === before.policies.length)
  await until(() => told.length > 0)
  expect(told.join()).toMatch(/the host lacks the IPsec (state|policy)/)
  expect(await a.controller.check()).toEqual([])
})
