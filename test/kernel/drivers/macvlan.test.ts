/** macvlan on the real kernel, by traffic: sandboxes stand in the LAN of their parent, beside a machine that is no container. */
import type { Controller, Endpoint, Network, NetworkInput, Sandbox } from 'libcnm'
import { bare, CLIENT, hostForEach, stackOf } from '../../support/host'

const host = hostForEach()

let controller: Controller
beforeEach(async () => {
  controller = await host().open({ firewall: 'none' })
})

const LAN = [
  { subnet: '192.0.2.0/24', ipRange: '192.0.2.64/26' },
  { subnet: '2001:db8::/64', ipRange: '2001:db8::64:0/112' },
]
/** A machine of the LAN has it too; only a router leads there. */
const BEYOND = '203.0.113.9'

const create = (options: Record<string, unknown>, more: Partial<NetworkInput> = {}) =>
  controller.createNetwork({
    name: 'lan',
    driver: 'macvlan',
    options: { parent: 'uplink', ...options },
    ipam: { config: LAN, force: true },
    ...more,
  })

interface Inhabitant {
  sandbox: Sandbox
  endpoint: Endpoint
}

async function inhabit(network: Network, ...names: string[]): Promise<Inhabitant[]> {
  const made: Inhabitant[] = []
  for (const name of names) {
    const sandbox = await controller.createSandbox({ containerId: name, files: false, resolver: false })
    const endpoint = await network.createEndpoint({ name })
    await endpoint.join(sandbox)
    made.push({ sandbox, endpoint })
  }
  return made
}

async function end(...networks: Network[]): Promise<void> {
  expect(await controller.check()).toEqual([])
  for (const sandbox of controller.sandboxes()) await sandbox.delete()
  for (const network of networks) {
    for (const endpoint of network.endpoints()) await endpoint.delete()
    await network.delete()
  }
  await controller.settle()
}

const pings = (from: Inhabitant, address: string | undefined, seconds = 4) =>
  host().ping(stackOf(from.sandbox), bare(address), { seconds })

/** In both families. */
const meet = async (a: Inhabitant, b: Inhabitant, seconds = 4) => {
  const [four, six] = [await pings(a, b.endpoint.ipv4, seconds), await pings(a, b.endpoint.ipv6, seconds)]
  expect(six).toBe(four)
  return four
}

/** The client becomes a switch as well: a bridge has the other end of the uplink, and the client's addresses. */
async function beSwitch(): Promise<void> {
  const { client } = host()
  await client.apply([
    { op: 'addLink', link: { kind: 'bridge', name: 'switch', up: true, multicastSnooping: false } },
    { op: 'removeAddress', link: 'eth0', address: `${CLIENT[4]}/24` },
    { op: 'removeAddress', link: 'eth0', address: `${CLIENT[6]}/64` },
    { op: 'setLink', link: 'eth0', master: 'switch' },
    { op: 'addAddress', link: 'switch', address: `${CLIENT[4]}/24` },
    { op: 'addAddress', link: 'switch', address: `${CLIENT[6]}/64` },
  ])
}
const hairpin = (on: boolean) => host().client.apply([{ op: 'setPort', link: 'eth0', hairpin: on }])

const defaults = async ({ sandbox }: Inhabitant) =>
  (await stackOf(sandbox).routes({ table: 254 }))
    .filter(({ destination }) => destination === '0.0.0.0/0' || destination === '::/0')
    .map(({ gateway }) => gateway)

describe.each([
  ['bridge', true, true],
  ['private', false, false],
  ['vepa', false, true],
])('%s', (mode, direct, bySwitch) => {
  test(`the LAN is reached; neighbours: ${direct}, by a switch that turns frames round: ${bySwitch}`, async () => {
    await beSwitch()
    const network = await create({ mode })
    const [a, b] = (await inhabit(network, 'a', 'b')) as [Inhabitant, Inhabitant]
    expect((await stackOf(a.sandbox).link('eth0'))?.info?.macvlan?.mode).toBe(mode)
    for (const address of [CLIENT[4], CLIENT[6]]) expect(await pings(a, address)).toBe(true)
    expect(await meet(a, b, direct ? 4 : 1)).toBe(direct)
    await hairpin(true)
    // Whoever was asked for in vain a moment ago is not asked for again at once.
    for (const { sandbox } of [a, b]) host().run(stackOf(sandbox), 'ip', 'neighbour', 'flush', 'all')
    expect(await meet(a, b, bySwitch ? 4 : 1)).toBe(bySwitch)
    await hairpin(false)
    if (!direct) expect(await meet(a, b, 1)).toBe(false)
    await a.endpoint.leave()
    await a.endpoint.join(a.sandbox)
    expect(await pings(a, CLIENT[4])).toBe(true)
    await end(network)
  })
})

test('passthru: one interface has the parent; a second one, and other networks, are refused with the reason', async () => {
  const network = await create({ mode: 'passthru' })
  const [a] = (await inhabit(network, 'a')) as [Inhabitant]
  for (const address of [CLIENT[4], CLIENT[6]]) expect(await pings(a, address)).toBe(true)
  await host().serve(stackOf(a.sandbox), 80)
  expect(await host().tcp(host().client, bare(a.endpoint.ipv4), 80)).toBe(CLIENT[4])
  const second = await controller.createSandbox({ containerId: 'b', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'b' })
  const before = await host().snapshot()
  await expect(endpoint.join(second)).rejects.toMatchObject({
    code: 'ERR_LINK_CONFLICT',
    message: expect.stringMatching(/passthru.*alone.*give each its own/),
  })
  await host().assertAs(before, ['sysctls', 'files', 'nft', 'sockets'])
  for (const mode of ['bridge', 'passthru'])
    await expect(
      create({ mode }, { name: 'other', ipam: { config: [{ subnet: '10.9.0.0/24' }] } }),
    ).rejects.toMatchObject({
      code: 'ERR_LINK_CONFLICT',
      message: expect.stringMatching(/network lan .*already using parent interface uplink/),
    })
  // Whoever comes after it has the parent, whether it left or its sandbox ended.
  await a.endpoint.leave()
  await endpoint.join(second)
  expect(await host().ping(stackOf(second), CLIENT[4])).toBe(true)
  await second.delete()
  await a.endpoint.join(a.sandbox)
  expect(await pings(a, CLIENT[4])).toBe(true)
  await end(network)
})

test('two networks share a parent; the end of one is nothing to the other', async () => {
  const one = await create({})
  const two = await create(
    { mode: 'private' },
    { name: 'two', ipam: { config: [{ subnet: '10.9.0.0/24' }] } },
  )
  const [a] = (await inhabit(one, 'a')) as [Inhabitant]
  const [b] = (await inhabit(two, 'b')) as [Inhabitant]
  await host().client.apply([{ op: 'addAddress', link: 'eth0', address: '10.9.0.250/24' }])
  expect(await pings(b, '10.9.0.250')).toBe(true)
  await expect(
    create({ mode: 'passthru' }, { name: 'three', ipam: { config: [{ subnet: '10.8.0.0/24' }] } }),
  ).rejects.toMatchObject({ code: 'ERR_LINK_CONFLICT' })
  await b.sandbox.delete()
  await b.endpoint.delete()
  await two.delete()
  expect(await pings(a, CLIENT[4])).toBe(true)
  await end(one)
})

test('MAC and MTU are what was asked for, seen from the LAN; the host itself is out of reach', async () => {
  const network = await create({ mtu: 1400 })
  const sandbox = await controller.createSandbox({ containerId: 'a', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'a', mac: '02:00:00:00:12:34' })
  await endpoint.join(sandbox)
  const a = { sandbox, endpoint }
  expect(await stackOf(sandbox).link('eth0')).toMatchObject({ mac: '02:00:00:00:12:34', mtu: 1400 })
  expect(await host().ping(host().client, bare(endpoint.ipv4))).toBe(true)
  const seen = (await host().client.neighbours()).find(({ address }) => address === bare(endpoint.ipv4))
  expect(seen?.mac).toBe('02:00:00:00:12:34')
  expect(await host().ping(stackOf(sandbox), CLIENT[4], { size: 1400 - 28 })).toBe(true)
  expect(await host().ping(stackOf(sandbox), CLIENT[4], { size: 1401 - 28, seconds: 1 })).toBe(false)
  expect(await pings(a, '192.0.2.1', 1)).toBe(false)
  await end(network)
})

test.each([
  ['named', {}, true],
  ['none named', { gateway: false }, false],
  ['named, but internal', { internal: true }, false],
])(
  'the way beyond the LAN, gateway %s',
  async (_, {
    gateway = true,
    internal = false,
  }: {
    gateway?: boolean
    internal?: boolean
  }, beyond) => {
    await host().client.apply([{ op: 'addAddress', link: 'eth0', address: `${BEYOND}/32` }])
    const config = [{ ...LAN[0], ...(gateway && { gateway: CLIENT[4] }) }]
    const network = await create({}, { internal, ipam: { config, force: true } })
    const [a] = (await inhabit(network, 'a')) as [Inhabitant]
    expect(await defaults(a)).toEqual(beyond ? [CLIENT[4]] : [])
    expect(await pings(a, CLIENT[4])).toBe(true)
    expect(await pings(a, BEYOND, beyond ? 4 : 1)).toBe(beyond)
    await end(network)
  },
)

/** Whoever listens hears what is sent to a group; how many may, before it is queued, is a matter of the parent. */
test.each([
  [
    { broadcastCutoff: -1, broadcastQueue: 10 },
    { broadcastCutoff: -1, broadcastQueue: 10 },
  ],
  [{ broadcastCutoff: '8' }, { broadcastCutoff: 8, broadcastQueue: 1000 }],
  [
    { bclim: '0', bcqueuelen: '64' },
    { broadcastCutoff: 0, broadcastQueue: 64 },
  ],
])('broadcasts as configured: %j', async (options, wanted) => {
  const network = await create(options)
  const made = (await inhabit(network, 'a', 'b', 'c')) as [Inhabitant, Inhabitant, Inhabitant]
  expect((await stackOf(made[0].sandbox).link('eth0'))?.info?.macvlan).toEqual({ mode: 'bridge', ...wanted })
  // Who is asked as one of all answers with the address that it has; ping ends with the first answer, and others may be late.
  const wantedFrom = made.map(({ endpoint }) => `from ${bare(endpoint.ipv6)}`)
  let heard = ''
  for (let asked = 0; asked < 10 && !wantedFrom.every(from => heard.includes(from)); asked++)
    heard += host().run(host().client, 'ping', '-c', '2', '-W', '4', '-I', 'eth0', 'ff02::1')
  for (const from of wantedFrom) expect(heard).toContain(from)
  await end(network)
})

test.each([
  ['lo', 'ERR_INVALID_OPTION', /lo is not a valid parent/],
  ['nowhere', 'ERR_INVALID_OPTION', /there is no link nowhere.*eth0\.10/],
  ['uplink.0', 'ERR_INVALID_OPTION', /uplink\.0 must be between 1 and 4094/],
  ['uplink.4095', 'ERR_INVALID_OPTION', /uplink\.4095 must be between 1 and 4094/],
  ['nowhere.10', 'ERR_LINK_NOT_FOUND', /no link nowhere to make nowhere\.10 on/],
  ['../uplink', 'ERR_INVALID_NAME', /parent/],
])('parent %s is refused, and nothing is left', async (parent, code, message) => {
  const before = await host().snapshot()
  await expect(create({ parent })).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
  expect(controller.networks()).toEqual([])
  await host().assertAs(before, ['sysctls', 'files', 'nft', 'sockets'])
})
