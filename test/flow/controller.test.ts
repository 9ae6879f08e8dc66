/** Predefined networks, configuration networks, lists and what is pruned from them, drivers. */
import { LinuxKernel, type NetworkInput } from 'libcnm'
import { MockDriver, MockKernel } from 'libcnm/testing'
import { directory, fresh, joined, linkNames, networkOf, open, refusal, sandboxOf, state } from './scene'

describe('predefined networks', () => {
  test('bridge, host and none are there, and stay', async () => {
    const { kernel, controller } = await fresh({ predefined: true })
    expect(controller.networks().map(({ name, driver, predefined }) => [name, driver, predefined])).toEqual([
      ['none', 'null', true],
      ['host', 'host', true],
      ['bridge', 'bridge', true],
    ])
    expect(linkNames(kernel.netns())).toContain('docker0')
    const before = state(kernel, controller)
    for (const name of ['bridge', 'host', 'none'])
      await expect(controller.network(name).delete()).rejects.toEqual(
        refusal('ERR_PREDEFINED', new RegExp(`${name} is a pre-defined network`)),
      )
    for (const name of ['bridge', 'host', 'none', 'default'])
      await expect(controller.createNetwork({ name })).rejects.toEqual(refusal('ERR_PREDEFINED'))
    for (const [name, driver] of Object.entries({ second: 'host', third: 'null' }))
      await expect(controller.createNetwork({ name, driver })).rejects.toEqual(
        refusal('ERR_SINGLE_INSTANCE', new RegExp(`only one instance of "${driver}"`)),
      )
    expect(await controller.pruneNetworks()).toEqual([])
    expect(state(kernel, controller)).toEqual(before)
  })

  test('the bridge is set up as told', async () => {
    const { kernel, controller } = await fresh({
      predefined: {
        bridge: 'cnm0',
        bip: '10.5.0.9/16',
        fixedCidr: '10.5.1.0/24',
        defaultGateway: '10.5.0.10',
        bip6: 'fd00:5::9/64',
        icc: false,
      },
    })
    const network = controller.network('bridge')
    expect(network).toMatchObject({ link: 'cnm0', ipv6: true })
    expect(
      kernel
        .netns()
        ?.addresses.filter(({ link }) => link === 'cnm0')
        .map(({ address }) => address),
    ).toEqual(expect.arrayContaining(['10.5.0.9/16', 'fd00:5::9/64']))
    const endpoint = await joined(network, await sandboxOf(controller, 'c1'))
    expect(endpoint.ipv4).toMatch(/^10\.5\.1\.\d+\/16$/)
    expect(kernel.netns()?.links.find(({ master }) => master === 'cnm0')?.port).toMatchObject({
      isolated: true,
    })
  })

  test('without them the names are free, and host and null are still one each', async () => {
    const { controller } = await fresh()
    await networkOf(controller, 'bridge', 1)
    const host = await controller.createNetwork({ name: 'host', driver: 'host' })
    await expect(controller.createNetwork({ name: 'host2', driver: 'host' })).rejects.toEqual(
      refusal('ERR_SINGLE_INSTANCE'),
    )
    await expect(host.delete()).rejects.toEqual(refusal('ERR_SINGLE_INSTANCE', /cannot be deleted/))
  })

  test('they are the same after a restart', async () => {
    const dataDir = directory()
    const kernel = new MockKernel()
    const first = await open(kernel, { dataDir, predefined: true })
    const ids = first.networks().map(({ id }) => id)
    await first.close()
    const second = await open(kernel, { dataDir, predefined: true })
    expect(second.networks().map(({ id }) => id)).toEqual(ids)
    await expect(second.network('bridge').delete()).rejects.toEqual(refusal('ERR_PREDEFINED'))
  })
})

describe('configuration networks', () => {
  test('hold what others take', async () => {
    const { kernel, controller } = await fresh()
    const links = linkNames(kernel.netns())
    const config = await controller.createNetwork({
      name: 'template',
      configOnly: true,
      labels: { team: 'a' },
      options: { mtu: 1400 },
      ipam: { config: [{ subnet: '10.1.0.0/24' }, { subnet: 'fd00:1::/64' }] },
    })
    expect(config).toMatchObject({ configOnly: true, driver: 'null', scope: 'local', ipam: [] })
    expect(linkNames(kernel.netns())).toEqual(links)
    await expect(config.createEndpoint({ name: 'c1' })).rejects.toEqual(refusal('ERR_CONFIG_ONLY'))
    const network = await controller.createNetwork({ name: 'web', configFrom: 'template', attachable: true })
    expect(network.inspect()).toMatchObject({
      configFrom: 'template',
      labels: { team: 'a' },
      attachable: true,
      mtu: 1400,
      ipv6: true,
      ipam: { config: [{ subnet: '10.1.0.0/24' }, { subnet: 'fd00:1::/64' }] },
    })
    await expect(config.delete()).rejects.toEqual(
      refusal('ERR_NETWORK_IN_USE', /"template" is in use by web/),
    )
    await network.delete()
    await config.delete()
    expect(controller.networks()).toEqual([])
  })

  test.each<[string, NetworkInput, RegExp]>([
    ['both', { name: 'x', configOnly: true, configFrom: 'template' }, /cannot depend on another/],
    ['ingress', { name: 'x', configOnly: true, ingress: true }, /ingress/],
    ['internal', { name: 'x', configOnly: true, internal: true }, /internal/],
    ['attachable', { name: 'x', configOnly: true, attachable: true }, /attachable/],
    ['scope', { name: 'x', configOnly: true, scope: 'local' }, /scope/],
    [
      'own labels',
      { name: 'x', configFrom: 'template', labels: { a: '1' } },
      /depends on a configuration.*labels/,
    ],
    [
      'own subnets',
      { name: 'x', configFrom: 'template', ipam: { config: [{ subnet: '10.9.0.0/24' }] } },
      /ipam/,
    ],
    ['own family', { name: 'x', configFrom: 'template', ipv6: true }, /ipv6/],
    ['own options', { name: 'x', configFrom: 'template', options: { mtu: 1400 } }, /options/],
  ])('what may not be combined: %s', async (_, input, message) => {
    const { kernel, controller } = await fresh()
    await controller.createNetwork({ name: 'template', configOnly: true })
    const before = state(kernel, controller)
    await expect(controller.createNetwork(input)).rejects.toEqual(refusal('ERR_INVALID_CONFIG', message))
    expect(state(kernel, controller)).toEqual(before)
  })

  test('the source must be there, and be one', async () => {
    const { controller } = await fresh()
    await networkOf(controller, 'plain', 1)
    for (const configFrom of ['nobody', 'plain'])
      await expect(controller.createNetwork({ name: 'x', configFrom })).rejects.toEqual(
        refusal('ERR_NETWORK_NOT_FOUND', new RegExp(`configuration network "${configFrom}" does not exist`)),
      )
  })

  test('deleted while somebody takes it: one of the two is refused', async () => {
    const { controller } = await fresh()
    const config = await controller.createNetwork({
      name: 'template',
      configOnly: true,
      ipam: { config: [{ subnet: '10.1.0.0/24' }] },
    })
    const outcome = await Promise.allSettled([
      controller.createNetwork({ name: 'web', configFrom: 'template' }),
      config.delete(),
    ])
    expect(outcome.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(controller.networks()).toHaveLength(outcome[0].status === 'fulfilled' ? 2 : 0)
  })
})

test('order of checks: the form first, then the name, the configuration, the driver, its scope, its options, IPAM', async () => {
  const { controller } = await fresh()
  await networkOf(controller, 'web', 1)
  const wrong = {
    form: { mtu: 1 },
    name: { name: 'web' },
    configuration: { configFrom: 'nobody' },
    driver: { driver: 'brdige' },
    scope: { ingress: true },
    options: { options: { nonsense: 1 } },
    ipam: { ipam: { config: [{ subnet: '10.1.0.0/25' }] } },
  }
  const codes = [
    'ERR_INVALID_OPTION',
    'ERR_NETWORK_EXISTS',
    'ERR_INVALID_CONFIG',
    'ERR_DRIVER_NOT_FOUND',
    'ERR_SCOPE',
  ]
  codes.push('ERR_INVALID_OPTION', 'ERR_POOL_OVERLAP')
  const faults = Object.values(wrong)
  for (const [at, code] of codes.entries()) {
    const input = Object.assign({ name: 'fresh' }, ...faults.slice(at).reverse()) as NetworkInput
    await expect(controller.createNetwork(input)).rejects.toMatchObject({ code })
  }
})

test('a scope that the driver has not', async () => {
  const { controller } = await fresh({
    drivers: [new MockDriver({ name: 'wide', capabilities: { dataScope: 'global' } })],
  })
  await expect(networkOf(controller, 'x', 1, { driver: 'wide', scope: 'local' })).rejects.toEqual(
    refusal('ERR_SCOPE', /cannot downgrade network scope for wide/),
  )
  expect((await networkOf(controller, 'y', 2, { driver: 'wide', ingress: true })).scope).toBe('global')
})

describe('lists', () => {
  async function scene() {
    const { controller } = await fresh({ predefined: true, drivers: [new MockDriver()] })
    const web = await networkOf(controller, 'web', 1, { labels: { team: 'a', tier: 'front' } })
    const db = await networkOf(controller, 'db', 2, { labels: { team: 'b' } })
    const mock = await networkOf(controller, 'mock-web', 3, { driver: 'mock', labels: { team: 'a' } })
    await web.createEndpoint({ name: 'c1' })
    return { controller, web, db, mock }
  }
  const names = (list: { name: string }[]) => list.map(({ name }) => name).sort()

  test('filters: alternatives within a key, all keys, all labels', async () => {
    const { controller, web } = await scene()
    const list = (filters?: Parameters<typeof controller.networks>[0]) => names(controller.networks(filters))
    expect(list()).toEqual(['bridge', 'db', 'host', 'mock-web', 'none', 'web'])
    expect(list({ driver: 'mock' })).toEqual(['mock-web'])
    expect(list({ driver: ['mock', 'null'] })).toEqual(['mock-web', 'none'])
    expect(list({ name: 'web' })).toEqual(['mock-web', 'web'])
    expect(list({ name: '^web$' })).toEqual(['web'])
    expect(list({ id: web.id.slice(0, 12) })).toEqual(['web'])
    expect(list({ label: 'team' })).toEqual(['db', 'mock-web', 'web'])
    expect(list({ label: ['team=a', 'tier=front'] })).toEqual(['web'])
    expect(list({ label: 'team=c' })).toEqual([])
    for (const key of ['constructor', '__proto__', 'toString']) expect(list({ label: key })).toEqual([])
    expect(list({ type: 'builtin' })).toEqual(['bridge', 'host', 'none'])
    expect(list({ type: 'custom', driver: 'bridge' })).toEqual(['db', 'web'])
    expect(list({ dangling: true })).toEqual(['db', 'mock-web'])
    expect(list({ dangling: false })).toEqual(['bridge', 'host', 'none', 'web'])
    expect(list({ scope: 'local' })).toHaveLength(6)
    expect(list({ name: '(' })).toEqual([])
    expect(() => list({ type: 'other' })).toThrow(refusal('ERR_INVALID_OPTION', /builtin or custom/))
    expect(() => list({ nmae: 'x' } as object)).toThrow(refusal('ERR_INVALID_OPTION', /did you mean name/))
  })

  test('prune deletes what nobody uses, and only what the filters pick', async () => {
    const { controller, db } = await scene()
    expect(await controller.pruneNetworks({ until: new Date(db.created.getTime() - 60_000) })).toEqual([])
    expect(await controller.pruneNetworks({ label: 'team=c' })).toEqual([])
    expect(await controller.pruneNetworks({ notLabel: 'team=a' })).toEqual(['db'])
    expect(await controller.pruneNetworks()).toEqual(['mock-web'])
    expect(names(controller.networks())).toEqual(['bridge', 'host', 'none', 'web'])
  })
})

describe('drivers', () => {
  test('are listed, registered and not replaced when they are built in', async () => {
    const { controller } = await fresh()
    const before = controller.drivers()
    expect(before).toMatchObject({
      network: expect.arrayContaining(['bridge', 'host', 'null']),
      ipam: expect.arrayContaining(['default', 'null']),
    })
    controller.registerDriver(new MockDriver({ name: 'own' }))
    expect(controller.drivers().network).toContain('own')
    expect(() => controller.registerDriver(new MockDriver({ name: 'bridge' }))).toThrow(
      refusal('ERR_DRIVER_EXISTS', /"bridge" is built in/),
    )
    expect(() => controller.registerDriver(new MockDriver({ name: 'no way' }))).toThrow(
      refusal('ERR_INVALID_NAME'),
    )
    expect(() => controller.registerDriver({ name: 'x' } as never)).toThrow(
      refusal('ERR_INVALID_OPTION', /must have a method createNetwork/),
    )
    await networkOf(controller, 'web', 1, { driver: 'own' })
  })

  test('a driver that answers what was settled already is told so', async () => {
    const driver = new MockDriver()
    const { kernel, controller } = await fresh({ drivers: [driver] })
    const network = await networkOf(controller, 'web', 1, { driver: 'mock' })
    const before = state(kernel, controller)
    driver.reply('createEndpoint', { ipv4: '10.1.0.9/24' })
    await expect(network.createEndpoint({ name: 'c1' })).rejects.toEqual(
      refusal('ERR_PLUGIN', /given already/),
    )
    driver.reply('createEndpoint', { mac: '02:00:00:00:00:99' })
    await expect(network.createEndpoint({ name: 'c1', mac: '02:00:00:00:00:01' })).rejects.toEqual(
      refusal('ERR_PLUGIN'),
    )
    expect(state(kernel, controller)).toEqual(before)
    driver.reply('createEndpoint', { mac: '02:00:00:00:00:99', data: { tag: 7 } })
    expect((await network.createEndpoint({ name: 'c1' })).mac).toBe('02:00:00:00:00:99')
    expect(driver.callsOf('deleteEndpoint')).toHaveLength(2) // of those that were refused
  })

  test('a driver that fails half way through leaves no trace', async () => {
    const driver = new MockDriver()
    const { kernel, controller } = await fresh({ drivers: [driver] })
    const before = state(kernel, controller)
    driver.reply('createNetwork', new Error('no'))
    await expect(networkOf(controller, 'web', 1, { driver: 'mock' })).rejects.toThrow('no')
    expect(state(kernel, controller)).toEqual(before)
    const network = await networkOf(controller, 'web', 1, { driver: 'mock' }) // name and subnet are free
    const endpoint = await network.createEndpoint({ name: 'c1' })
    const sandbox = await sandboxOf(controller, 'c1')
    const unjoined = state(kernel, controller)
    driver.reply('join', new Error('no'))
    await expect(endpoint.join(sandbox)).rejects.toThrow('no')
    expect(state(kernel, controller)).toEqual(unjoined)
    await endpoint.join(sandbox)
  })
})

test('LinuxKernel is the default, and a kernel may be handed in', () => {
  expect(new LinuxKernel()).toHaveProperty('transact')
})
