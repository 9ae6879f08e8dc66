/**
 * Whole or nothing on the real kernel: each call that changes something fails in turn, before it has done anything or
 * when half of it is done. Afterwards the kernel says what it said before, and trying again succeeds. Each time it is
 * asked over netlink and in /proc, which takes a millisecond; `ip` and `nft` have the last word on the whole sweep.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { type Controller, type Endpoint, isCnmError, type Network, type Sandbox, type Stack } from 'libcnm'
import { compareSnapshots, type HostSnapshot, settled } from '../../support/host-snapshot'
import { type FaultyKernel, faulty, makeHost, type TestHost } from '../../support/host'

interface Scene {
  controller: Controller
  network: Network
  sandbox: Sandbox
  endpoint: Endpoint
  /** The sandbox's namespace, by a kernel without faults. */
  inside: Stack
}

let host: TestHost
let kernel: FaultyKernel
let scene: Scene
/** By `ip` and `nft`, before anything was joined. */
let first: HostSnapshot
beforeAll(async () => {
  host = await makeHost()
  kernel = faulty(host.kernel)
  const controller = await host.open({ kernel, dataDir: host.dataDir })
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1', ports: ['18080:80', '18081:81/udp'] })
  const inside = await host.kernel.open(sandbox.key)
  scene = { controller, network, sandbox, endpoint, inside }
  first = await bySight()
})
afterAll(async () => {
  scene.inside.close()
  await host.close()
})

/** Of the host, and of the sandbox of the scene: one line for each thing that there is. */
async function picture(): Promise<string[]> {
  const namespaces = await host.kernel.list(`${host.runDir}/netns`)
  const files = readdirSync(host.runDir, { recursive: true })
  return [
    ...(await ofStack(host.host)).map(line => `host: ${line}`),
    ...(await ofStack(scene.inside)).map(line => `inside: ${line}`),
    ...ruleset(host.host),
    ...namespaces.map(path => `namespace ${path}`),
    ...files.map(file => `file ${String(file)}`),
  ].sort()
}

/** The host by the words of `ip`, `nft` and /proc; a bridge has its link-local address from its first port on. */
async function bySight(): Promise<HostSnapshot> {
  const seen = await host.snapshot()
  const lasting = (lines: string[]) => lines.filter(line => !/ (fe80:|ff00::)/.test(line))
  return { ...seen, addresses: lasting(seen.addresses), routes: lasting(seen.routes) }
}

async function ofStack(stack: Stack): Promise<string[]> {
  const links = await stack.links()
  const nameOf = (index: number | undefined) => links.find(link => link.index === index)?.name ?? '-'
  const [addresses, routes] = [await stack.addresses(), await stack.routes()]
  const lines = [
    ...links.map(
      ({ name, kind, mtu, up, master, alias = '' }) =>
        `link ${name} ${kind} mtu ${mtu} ${up ? 'up' : 'down'} master ${nameOf(master)} ${alias}`,
    ),
    ...addresses.map(({ link, address }) => `address ${nameOf(link)} ${address}`),
    ...routes.map(
      ({ type, destination, gateway = '-', link, metric, table }) =>
        `route ${type} ${destination} via ${gateway} dev ${nameOf(link)} metric ${metric} table ${table}`,
    ),
    ...['tcp', 'tcp6', 'udp', 'udp6'].flatMap(protocol => socketsOf(stack, protocol)),
    ...['ipv4/ip_forward', 'ipv6/conf/all/forwarding', 'ipv6/conf/default/disable_ipv6'].map(
      key => `sysctl ${key} ${stack.sysctl(`net/${key}`) ?? 'absent'}`,
    ),
  ]
  return lines.filter(line => !ITS_OWN.test(line))
}

/** What the kernel makes and unmakes when it sees fit: link-local addresses, multicast routes, its own table. */
const ITS_OWN = /\bfe80:|\bff00::|\btable 255\b/

/** Protocol, local address, state (the fourth field of a line of /proc/net/tcp and its like). */
const socketsOf = (stack: Stack, protocol: string): string[] =>
  stack
    .run(() => readFileSync(`/proc/thread-self/net/${protocol}`, 'utf8'))
    .split('\n')
    .slice(1, -1)
    .map(line => line.trim().split(/\s+/))
    .map(([, local, , state]) => `socket ${protocol} ${local} ${state}`)

/** In lines, without counters; each element of a set or map is one. */
const ruleset = (stack: Stack): string[] =>
  stack
    .nft('list ruleset')
    .replace(/ packets \d+ bytes \d+/g, '')
    .replace(/elements = \{([^}]*)\}/g, (_, elements: string) =>
      elements
        .split(',')
        .map(element => `element ${element.trim()}`)
        .join('\n'),
    )
    .split('\n')
    .map(line => `nft ${line.trim()}`)

function differences(before: string[], after: string[]): string[] {
  const [was, is] = [new Set(before), new Set(after)]
  return [
    ...before.filter(line => !is.has(line)).map(line => `< ${line}`),
    ...after.filter(line => !was.has(line)).map(line => `> ${line}`),
  ]
}

const nouns = () =>
  JSON.stringify(
    scene.controller
      .networks()
      .map(network => [network.inspect(), network.endpoints().map(each => each.inspect())]),
  ) + JSON.stringify(scene.controller.sandboxes().map(sandbox => sandbox.inspect()))

/** Only a list of changes can be half done. */
const moments = (call: string | undefined) =>
  call === 'transact' || call === 'apply' ? (['before', 'half'] as const) : (['before'] as const)

/**
 * May an operation succeed although this call failed? What is found out once is not asked again, so the fault meets
 * nothing; calls are counted whoever makes them, so it may meet the reaper, which removes links in the background and
 * tries again. Never anything else: a change of the operation itself that fails must fail it.
 */
const absorbable = (struck: string[] | undefined): boolean =>
  struck === undefined || (struck[0] === 'apply' && struck.slice(1).every(op => op === 'removeLink'))

/** Fails each changing call of `act` in turn; `back` undoes what it does. */
async function sweep(act: () => Promise<unknown>, back: () => Promise<unknown>): Promise<void> {
  const undone = async () => {
    await back()
    await scene.controller.settle()
  }
  const start = kernel.calls.length
  await kernel.observe(act)
  const calls = kernel.calls.slice(start)
  expect(calls.length).toBeGreaterThan(0)
  await undone()
  let refused = 0
  for (let n = 1; n <= calls.length; n++)
    for (const when of moments(calls[n - 1])) {
      const before = await picture()
      const said = nouns()
      kernel.fail(n, when)
      const error = await kernel.observe(act).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      kernel.heal()
      const story = `call ${n} of ${calls.length} (${calls[n - 1]}) failing ${when}`
      if (error === undefined) {
        expect([story, kernel.struck, absorbable(kernel.struck)]).toEqual([story, kernel.struck, true])
        expect([story, await scene.controller.check()]).toEqual([story, []])
        await undone()
        continue
      }
      if (!isCnmError(error)) throw new Error(`${story}: ${String(error)}`)
      refused++
      if (error.rollback) throw new Error(`${story}: rollback ${JSON.stringify(error.rollback)}`)
      const found = await settled(async () => differences(before, await picture()), { timeout: 5_000 })
      if (found.length) throw new Error(`${story}: the state is not the one before:\n${found.join('\n')}`)
      expect([story, nouns()]).toEqual([story, said])
      await act() // the retry
      expect([story, await scene.controller.check()]).toEqual([story, []])
      await undone()
    }
  expect(refused).toBeGreaterThan(0)
}

test('join', () =>
  sweep(
    () => scene.endpoint.join(scene.sandbox),
    () => scene.endpoint.leave(),
  ))

test('leave', async () => {
  await scene.endpoint.join(scene.sandbox)
  await sweep(
    () => scene.endpoint.leave(),
    () => scene.endpoint.join(scene.sandbox),
  )
  await scene.endpoint.leave()
  await scene.controller.settle()
})

test('create of a network', () => {
  let network: Network
  return sweep(
    async () => {
      network = await scene.controller.createNetwork({
        name: 'more',
        ipam: { config: [{ subnet: '10.77.2.0/24' }, { subnet: 'fd77:2::/64' }] },
      })
    },
    () => network.delete(),
  )
})

test('delete of a network', async () => {
  const make = () =>
    scene.controller.createNetwork({
      name: 'more',
      id: '77'.repeat(32),
      ipam: { config: [{ subnet: '10.77.2.0/24' }] },
    })
  await make()
  await sweep(() => scene.controller.network('more').delete(), make)
  await scene.controller.network('more').delete()
})

test('create and delete of a sandbox', async () => {
  const make = () => scene.controller.createSandbox({ containerId: 'more', files: false, resolver: false })
  await sweep(make, () => scene.controller.sandbox('more').delete())
  await make()
  await sweep(() => scene.controller.sandbox('more').delete(), make)
  await scene.controller.sandbox('more').delete()
})

test('after all of that, ip and nft see what they saw at first', async () => {
  await scene.controller.settle()
  expect(await settled(async () => compareSnapshots(first, await bySight()))).toEqual([])
})
