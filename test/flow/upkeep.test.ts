/** What somebody else breaks is found, named, told and mended; what belongs to nobody is swept. */
import { existsSync, rmSync } from 'node:fs'
import type { Change, CnmEventOf, Controller, Stack } from 'libcnm'
import { anonymous, type MockKernel } from 'libcnm/testing'
import { directory, fresh, inside, joined, linkNames, networkOf, open, sandboxOf } from './scene'

/** Two networks, two sandboxes; c1 on both. */
async function scene(options: Parameters<typeof fresh>[0] = {}, mock: Parameters<typeof fresh>[1] = {}) {
  const { kernel, controller } = await fresh(options, mock)
  const web = await networkOf(controller, 'web', 1, { ipv6: true })
  const db = await networkOf(controller, 'db', 2, { options: { icc: false } })
  const [c1, c2] = [await sandboxOf(controller, 'c1'), await sandboxOf(controller, 'c2')]
  await joined(web, c1)
  const onDb = await joined(db, c1)
  const onWeb = await joined(web, c2, { routes: [{ destination: '172.30.0.0/16', gateway: '10.1.0.9' }] })
  await kernel.settle()
  return { kernel, controller, web, db, c1, c2, onDb, onWeb }
}
type Scene = Awaited<ReturnType<typeof scene>>
const port = (endpoint: Scene['onDb']) => endpoint.record.join?.attachment?.interface?.source ?? ''
const host = (kernel: MockKernel) => kernel.open()

/** Acts behind the library's back. */
async function meddle(open: Promise<Stack>, ...changes: Change[]): Promise<void> {
  const stack = await open
  try {
    await stack.apply(changes)
  } finally {
    stack.close()
  }
}

/** The state without random names and MACs, without what only the next link would inherit, and who made a route. */
const likeness = (kernel: MockKernel) =>
  anonymous(
    JSON.parse(
      JSON.stringify(kernel.snapshot(), (key, value) =>
        key === INHERITED || key === 'protocol' ? undefined : value,
      ),
    ),
  )
const INHERITED = 'net/ipv6/conf/default/disable_ipv6'

const CASES: [string, (scene: Scene) => Promise<unknown>, RegExp[]][] = [
  [
    'an interface in a sandbox',
    ({ kernel, c1 }) => meddle(kernel.open(c1.key), { op: 'removeLink', link: 'eth0' }),
    [/eth0 of sandbox c1 \(network web\) is gone/],
  ],
  [
    'the host’s end of a pair',
    ({ kernel, onDb }) => meddle(host(kernel), { op: 'removeLink', link: port(onDb) }),
    [/eth1 of sandbox c1 \(network db\) is gone/],
  ],
  [
    'an address in a sandbox',
    ({ kernel, c2 }) =>
      meddle(kernel.open(c2.key), { op: 'removeAddress', link: 'eth0', address: '10.1.0.3/24' }),
    [/eth0 of sandbox c2 lacks 10\.1\.0\.3\/24/],
  ],
  [
    'a default route',
    ({ kernel, c1 }) =>
      meddle(kernel.open(c1.key), {
        op: 'removeRoute',
        route: { destination: '0.0.0.0/0', gateway: '10.1.0.1', link: 'eth0' },
      }),
    [/sandbox c1 lacks its default route via 10\.1\.0\.1 dev eth0/],
  ],
  [
    'a static route',
    ({ kernel, c2 }) =>
      meddle(kernel.open(c2.key), {
        op: 'removeRoute',
        route: { destination: '172.30.0.0/16', gateway: '10.1.0.9', link: 'eth0' },
      }),
    [/sandbox c2 lacks its route to 172\.30\.0\.0\/16/],
  ],
  [
    'an interface that is down',
    ({ kernel, c2 }) => meddle(kernel.open(c2.key), { op: 'setLink', link: 'eth0', up: false }),
    [/eth0 of sandbox c2 is down/],
  ],
  [
    'a port that is down',
    ({ kernel, onDb }) => meddle(host(kernel), { op: 'setLink', link: port(onDb), up: false }),
    [/veth[0-9a-f]+ is down/],
  ],
  [
    'a port that left its bridge',
    ({ kernel, onDb }) => meddle(host(kernel), { op: 'setLink', link: port(onDb), master: null }),
    [/veth[0-9a-f]+ is no port of br-/],
  ],
  [
    'a port that is no longer isolated',
    ({ kernel, onDb }) => meddle(host(kernel), { op: 'setPort', link: port(onDb), isolated: false }),
    [/veth[0-9a-f]+ is not set as it should be: isolated/],
  ],
  [
    'a bridge',
    ({ kernel, db }) => meddle(host(kernel), { op: 'removeLink', link: db.link ?? '' }),
    [/bridge br-[0-9a-f]{12} of network db is gone/],
  ],
  [
    'a bridge’s address',
    ({ kernel, web }) =>
      meddle(host(kernel), { op: 'removeAddress', link: web.link ?? '', address: '10.1.0.1/24' }),
    [/lacks its address 10\.1\.0\.1\/24/],
  ],
  [
    'the host’s way to a network',
    ({ kernel, web }) =>
      meddle(
        host(kernel),
        { op: 'removeRoute', route: { destination: '10.1.0.0/24', link: web.link ?? '' } },
        { op: 'removeRoute', route: { destination: 'fd00:1::/64', link: web.link ?? '' } },
      ),
    [/the host lacks its route to 10\.1\.0\.0\/24 of network web/, /to fd00:1::\/64 of network web/],
  ],
  [
    'a bridge that is down',
    ({ kernel, web }) => meddle(host(kernel), { op: 'setLink', link: web.link ?? '', up: false }),
    [/br-[0-9a-f]{12} of network web is down/],
  ],
  [
    'a bridge’s MTU',
    ({ kernel, web }) => meddle(host(kernel), { op: 'setLink', link: web.link ?? '', mtu: 1280 }),
    [/MTU of 1280, not 1500/],
  ],
  [
    'everything on a network at once',
    async ({ kernel, web, c1, c2 }) => {
      await meddle(kernel.open(c1.key), { op: 'removeLink', link: 'eth0' })
      await meddle(kernel.open(c2.key), { op: 'removeLink', link: 'eth0' })
      await meddle(host(kernel), { op: 'removeLink', link: web.link ?? '' })
    },
    [/bridge br-.* is gone/, /eth0 of sandbox c1/, /eth0 of sandbox c2/],
  ],
]

test.each(CASES)('%s: check names it, repair mends it', async (_, break_, messages) => {
  const all = await scene()
  const { kernel, controller } = all
  expect(await controller.check()).toEqual([])
  const before = likeness(kernel)
  const inspected = controller.networks().map(network => network.inspect())
  await break_(all)
  await kernel.settle()
  const broken = kernel.snapshot()
  const found = await controller.check()
  expect(kernel.snapshot()).toEqual(broken) // looking changes nothing
  const text = found.map(({ message }) => message).join('\n')
  for (const message of messages) expect(text).toMatch(message)
  expect(await controller.repair()).toEqual(found)
  await controller.settle()
  await kernel.settle()
  expect(await controller.check()).toEqual([])
  expect(likeness(kernel)).toEqual(before)
  expect(controller.networks().map(network => network.inspect())).toEqual(inspected)
})

test('files of a sandbox that were deleted are written again', async () => {
  const { controller } = await fresh({ runDir: directory() })
  const sandbox = await controller.createSandbox({ containerId: 'c1' })
  const hosts = sandbox.files?.hosts ?? ''
  rmSync(hosts)
  expect((await controller.check())[0]?.message).toContain(hosts)
  await controller.repair()
  expect(existsSync(hosts)).toBe(true)
  expect(await controller.check()).toEqual([])
})

test('a sandbox whose namespace is gone can only be deleted', async () => {
  const { kernel, controller, c1, web } = await scene()
  await kernel.remove(c1.key ?? '')
  expect((await controller.check()).map(({ message }) => message).join()).toMatch(
    /namespace of sandbox c1 is no longer/,
  )
  await controller.repair()
  expect(controller.sandboxes().map(({ containerId }) => containerId)).toEqual(['c2'])
  expect(web.endpoints().map(({ name }) => name)).toEqual(['c2'])
  await controller.settle()
  expect(await controller.check()).toEqual([])
})

test('strays: what bears our mark and belongs to nobody is swept; what others made is not', async () => {
  const { kernel, controller } = await scene()
  await meddle(
    host(kernel),
    { op: 'addLink', link: { kind: 'dummy', name: 'veth1234567', alias: 'libcnm:0123456789ab' } },
    { op: 'addLink', link: { kind: 'dummy', name: 'other0', alias: 'somebody:0123456789ab' } },
    { op: 'addLink', link: { kind: 'bridge', name: 'br-0123456789ab' } },
  )
  ;(await kernel.create('/run/libcnm-flow/netns/0123456789ab')).close()
  ;(await kernel.create('/run/other/netns/0123456789ab')).close()
  const found = await controller.check()
  expect(found.map(({ kind, problem }) => `${kind} ${problem}`).sort()).toEqual([
    'netns unwanted',
    'stray unwanted',
  ])
  await controller.repair()
  expect(await controller.check()).toEqual([])
  expect(linkNames(kernel.netns())).toEqual(expect.arrayContaining(['other0', 'br-0123456789ab']))
  expect(linkNames(kernel.netns())).not.toContain('veth1234567')
  expect(kernel.netns('/run/other/netns/0123456789ab')).toBeDefined()
})

test('check and repair while everything moves find nothing and harm nothing', async () => {
  const { kernel, controller } = await fresh({}, { latencyMs: 1 })
  const drifts: CnmEventOf<'drift'>[] = []
  controller.on('drift', event => drifts.push(event))
  const web = await networkOf(controller, 'web', 1)
  const busy = Array.from({ length: 10 }, async (_, n) => {
    for (let round = 0; round < 3; round++) {
      const sandbox = await sandboxOf(controller, `c${n}`)
      const endpoint = await joined(web, sandbox)
      if (round === 1) await endpoint.leave()
      if (round === 2) await sandbox.delete()
      else {
        await endpoint.delete({ force: true })
        await sandbox.delete()
      }
    }
  })
  let working = true
  const found: unknown[] = []
  const looking = (async () => {
    while (working) found.push(...(await controller.check()), ...(await controller.repair()))
  })()
  await Promise.all(busy)
  working = false
  await looking
  expect(found).toEqual([])
  expect(drifts).toEqual([])
  await controller.settle()
  await web.delete()
  await kernel.settle()
  expect(linkNames(kernel.netns())).toEqual(['eth0', 'lo'])
})

describe('drift', () => {
  const next = (controller: Controller) =>
    new Promise<CnmEventOf<'drift'>>(resolve => controller.once('drift', resolve))

  test('is told when something of ours is taken away', async () => {
    const { kernel, controller, db } = await scene()
    const heard = next(controller)
    await meddle(host(kernel), { op: 'removeLink', link: db.link ?? '' })
    expect((await heard).differences.map(({ message }) => message).join()).toMatch(/of network db is gone/)
    await controller.repair()
    expect(await controller.check()).toEqual([])
  })

  test.each<[string, Change[], RegExp]>([
    [
      'an address',
      [{ op: 'removeAddress', link: 'eth0', address: '10.1.0.3/24' }],
      /^eth0 of sandbox c2 lacks 10\.1\.0\.3\/24/,
    ],
    [
      'a route',
      [{ op: 'removeRoute', route: { destination: '172.30.0.0/16', gateway: '10.1.0.9', link: 'eth0' } }],
      /^sandbox c2 lacks its route to 172\.30\.0\.0\/16$/,
    ],
    [
      'the way out',
      [{ op: 'removeRoute', route: { destination: '0.0.0.0/0', gateway: '10.1.0.1', link: 'eth0' } }],
      /^sandbox c2 lacks its default route via 10\.1\.0\.1 dev eth0$/,
    ],
  ])('is told when %s is taken away inside a sandbox, also after a restart', async (_, changes, message) => {
    const dataDir = directory()
    const { kernel, controller, c2 } = await scene({ dataDir })
    const key = c2.key
    let heard = next(controller)
    await meddle(kernel.open(key), ...changes)
    const found = (await heard).differences
    expect(found[0]?.message).toMatch(message)
    await controller.repair()
    await controller.close()
    const again = await open(kernel, { dataDir })
    heard = next(again)
    await meddle(kernel.open(key), ...changes)
    expect((await heard).differences.map(each => each.message)).toEqual(found.map(each => each.message))
    await again.repair()
    expect(await again.check()).toEqual([])
  })

  test('is told in the namespace to which a sandbox has moved, and no more in the old one', async () => {
    const { kernel, controller, c2 } = await scene()
    const old = await kernel.open(c2.key)
    const runtime = await kernel.create('/run/runtime')
    await c2.setKey('/run/runtime')
    const heard = next(controller)
    await meddle(kernel.open(c2.key), { op: 'setLink', link: 'eth0', up: false })
    expect((await heard).differences.map(each => each.message).join()).toMatch(/^eth0 of sandbox c2 is down/)
    for (const stack of [old, runtime]) stack.close()
  })

  test('is not told of what a container has and takes away itself, nor of a better way out', async () => {
    const { kernel, controller, c2 } = await scene()
    const drifts: unknown[] = []
    controller.on('drift', event => drifts.push(event))
    await meddle(
      kernel.open(c2.key),
      { op: 'addLink', link: { kind: 'dummy', name: 'own0', up: true } },
      { op: 'addAddress', link: 'own0', address: '10.8.0.1/24' },
      { op: 'addRoute', route: { destination: '10.7.0.0/16', gateway: '10.8.0.9' } },
      { op: 'removeRoute', route: { destination: '10.7.0.0/16', gateway: '10.8.0.9' } },
      { op: 'removeAddress', link: 'own0', address: '10.8.0.1/24' },
      { op: 'removeLink', link: 'own0' },
    )
    const lan = await networkOf(controller, 'lan', 3)
    const better = await joined(lan, c2, { priority: 9 })
    await better.leave()
    await new Promise(resolve => setTimeout(resolve, 120)) // longer than the pause before a look
    expect(drifts).toEqual([])
  })

  test('of something that happens during a look is told after it', async () => {
    const { kernel, controller, c1, c2 } = await scene({}, { latencyMs: 10 })
    const messages: string[] = []
    const told = new Promise<void>(resolve =>
      controller.on('drift', ({ differences }) => {
        messages.push(...differences.map(({ message }) => message))
        if (messages.some(message => /^eth1 of sandbox c1 lacks 10\.2\.0\.2/.test(message))) resolve()
      }),
    )
    const [one, two] = [await kernel.open(c1.key), await kernel.open(c2.key)]
    kernel.journal.splice(0)
    await two.apply([{ op: 'removeAddress', link: 'eth0', address: '10.1.0.3/24' }])
    while (!kernel.journal.some(({ op }) => op === 'links'))
      await new Promise(resolve => setTimeout(resolve, 1))
    await one.apply([{ op: 'removeAddress', link: 'eth1', address: '10.2.0.2/24' }])
    await told
    expect(messages).toContain('eth0 of sandbox c2 lacks 10.1.0.3/24')
    one.close()
    two.close()
  })

  test('is not told of what we do ourselves', async () => {
    const { controller, web, c1, c2 } = await scene()
    const drifts: unknown[] = []
    controller.on('drift', event => drifts.push(event))
    await c1.delete()
    await web.endpoint('c2').delete({ force: true })
    await c2.delete()
    await web.delete()
    await controller.settle()
    await new Promise(resolve => setTimeout(resolve, 120)) // longer than the pause before a look
    expect(drifts).toEqual([])
  })

  test('a route of the host that now covers a network is told', async () => {
    const { kernel, controller, web } = await scene()
    const heard = new Promise<CnmEventOf<'network.shadowed'>>(resolve =>
      controller.once('network.shadowed', resolve),
    )
    await meddle(
      host(kernel),
      { op: 'addLink', link: { kind: 'dummy', name: 'vpn0', up: true } },
      { op: 'addRoute', route: { destination: '10.1.0.0/25', link: 'vpn0' } },
    )
    expect(await heard).toMatchObject({ network: { id: web.id }, subnet: '10.1.0.0/24' })
  })

  test('a wider route is not, until a rule asks its table before the main one', async () => {
    const { kernel, controller, web } = await scene()
    const heard: string[] = []
    const told = new Promise<void>(resolve => {
      controller.on('network.shadowed', ({ network, route }) => {
        heard.push(route)
        if (network.id === web.id) resolve()
      })
    })
    await meddle(
      host(kernel),
      { op: 'addLink', link: { kind: 'dummy', name: 'vpn0', up: true } },
      { op: 'addRoute', route: { destination: '10.0.0.0/8', link: 'vpn0' } },
      { op: 'addRoute', route: { destination: '10.0.0.0/8', link: 'vpn0', table: 52 } },
    )
    await meddle(host(kernel), { op: 'addRule', rule: { family: 4, priority: 5270, table: 52 } })
    await told
    expect(new Set(heard)).toEqual(new Set(['route 10.0.0.0/8 dev vpn0 table 52']))
  })
})

test('gc keeps the containers that live, and deletes the others with all they have', async () => {
  const { kernel, controller, web, db } = await scene()
  await sandboxOf(controller, 'sharer', 'container:c1')
  ;(await kernel.create('/run/libcnm-flow/netns/0123456789ab')).close()
  expect((await controller.gc({ containerIds: ['c2', 'unknown'] })).sort()).toEqual(['c1', 'sharer'])
  expect(controller.sandboxes().map(({ containerId }) => containerId)).toEqual(['c2'])
  expect(web.endpoints().map(({ name }) => name)).toEqual(['c2'])
  expect(db.endpoints()).toEqual([])
  expect(kernel.netns('/run/libcnm-flow/netns/0123456789ab')).toBeUndefined()
  await controller.settle()
  expect(await controller.check()).toEqual([])
  expect(linkNames(inside(kernel, controller.sandbox('c2')))).toEqual(['eth0', 'lo'])
})

test('the loss of a bridge with many endpoints takes no more looks at the host than with few', async () => {
  const looks = async (endpoints: number): Promise<number> => {
    const { kernel, controller } = await fresh()
    const web = await networkOf(controller, 'web', 1, { options: { icc: false } })
    for (let n = 0; n < endpoints; n++) await joined(web, await sandboxOf(controller, `c${n}`))
    await kernel.settle()
    await meddle(host(kernel), { op: 'removeLink', link: web.link as string })
    const first = kernel.calls
    expect((await controller.repair()).length).toBeGreaterThan(endpoints)
    const calls = kernel.journal.slice(first)
    expect(await controller.check()).toEqual([])
    await controller.close()
    return calls.filter(({ op, netns }) => op === 'links' && netns === undefined).length
  }
  expect(await looks(40)).toBe(await looks(4))
})
