/** Drivers of global scope that are not built in, and plugins of Docker's: what they hear of a cluster. */
import { join } from 'node:path'
import type { Controller, ControllerInput } from 'libcnm'
import { type MemoryBackend, MemoryCluster, MockDriver, MockKernel } from 'libcnm/testing'
import { type Script, ScriptedPlugin } from './remote-plugin'
import { directory, joined, later, open, sandboxOf } from './scene'

interface Host {
  controller: Controller
  backend: MemoryBackend
  problems: string[]
}

let store: MemoryCluster
beforeEach(() => {
  store = new MemoryCluster()
  later(() => store.close())
})

type Options = Exclude<ControllerInput, undefined>

const kernelOf = (n: number) =>
  new MockKernel({
    hardware: [{ name: 'eth0', addresses: [`192.0.2.${n}/24`], gateways: ['192.0.2.254'] }],
  })

async function host(n: number, more: Options, kernel = kernelOf(n)): Promise<Host> {
  const [name, address] = [`h${n}`, `192.0.2.${n}`]
  const backend = store.backend()
  const cluster = { backend, host: { name, address }, timeout: 300 }
  const controller = await open(kernel, { hostId: name, ...more, cluster })
  const problems: string[] = []
  controller.on('problem', ({ message, error }) => problems.push(`${message}: ${(error as Error).message}`))
  return { controller, backend, problems }
}

const wide = () =>
  new MockDriver({ name: 'wide', capabilities: { dataScope: 'global', connectivityScope: 'global' } })

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('in vain')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

const has = ({ controller }: Host, name: string) =>
  controller.networks().some(network => network.name === name)

/** `+ADDRESS` came, `-ADDRESS` went, `*` after the host itself. */
const heard = (driver: MockDriver) =>
  driver
    .callsOf('discover')
    .map(({ change, node }) => `${change === 'new' ? '+' : '-'}${node.address}${node.self ? '*' : ''}`)

describe('a driver of global scope', () => {
  test('hears of the hosts, itself first, and of each that comes and goes', async () => {
    const [one, two, local] = [wide(), wide(), new MockDriver()]
    await host(1, { drivers: [one, local] })
    await until(() => heard(one).length === 1)
    const b = await host(2, { drivers: [two] })
    await until(() => heard(one).length === 2 && heard(two).length === 2)
    expect(heard(two)).toEqual(['+192.0.2.2*', '+192.0.2.1'])
    await b.controller.close()
    store.expire('2') // a host that closed keeps its containers, and so its place, until its lease ends
    await until(() => heard(one).length === 3)
    expect(heard(one)).toEqual(['+192.0.2.1*', '+192.0.2.2', '-192.0.2.2'])
    expect(heard(local)).toEqual([])
  })

  test('one that is registered later hears of those that are there; what failed is told again', async () => {
    const a = await host(1, {})
    await host(2, {})
    const late = wide().reply('discover', new Error('not now'))
    a.controller.registerDriver(late)
    await until(() => a.problems.length === 1)
    expect(a.problems).toEqual(['driver wide cannot be told which hosts there are: not now'])
    await host(3, {})
    await until(() => heard(late).length === 4)
    expect(heard(late)).toEqual(['+192.0.2.1*', '+192.0.2.1*', '+192.0.2.2', '+192.0.2.3'])
  })

  test('what it allocates once is in the options of the network on every host, and freed once', async () => {
    const drivers = [wide(), wide()] as const
    drivers[0].reply('allocateNetwork', ({ spec }) => ({ ...(spec.options as object), vni: 7 }))
    const [a, b] = [await host(1, { drivers: [drivers[0]] }), await host(2, { drivers: [drivers[1]] })]
    const made: string[] = []
    for (const [at, { controller }] of [a, b].entries())
      controller.on('network.create', ({ network }) => made.push(`${network.name} on ${at}`))
    const web = await a.controller.createNetwork({ name: 'web', driver: 'wide', options: { zone: 'east' } })
    await until(() => has(b, 'web'))
    expect(made.sort()).toEqual(['web on 0', 'web on 1'])
    expect(drivers[0].callsOf('createNetwork').map(({ spec }) => spec.options)).toEqual([
      { zone: 'east', vni: 7 },
    ])
    const [adopted] = drivers[1].callsOf('adopt')
    expect(adopted?.network.spec).toEqual({ ...web.forDriver.spec, options: { zone: 'east', vni: 7 } })
    expect(drivers.map(driver => driver.callsOf('allocateNetwork').length)).toEqual([1, 0])
    // Names are known across hosts, as those of any network that spans them.
    const [one, two] = [await sandboxOf(a.controller, 'one'), await sandboxOf(b.controller, 'two')]
    const here = await joined(web, one)
    const there = await joined(b.controller.network('web'), two)
    await until(() => one.resolveName('two').length === 1)
    expect(two.resolveName('one')).toEqual([here.ipv4?.replace(/\/.*/, '')])
    expect(here.ipv4).not.toBe(there.ipv4)
    await expect(web.delete()).rejects.toMatchObject({ code: 'ERR_NETWORK_IN_USE' })
    await one.delete()
    await two.delete()
    await b.controller.network('web').delete()
    await until(() => !has(a, 'web'))
    await until(() => drivers[0].callsOf('dismiss').length === 1)
    expect(drivers.map(driver => driver.callsOf('freeNetwork').length)).toEqual([0, 1])
    expect(drivers.map(driver => driver.callsOf('deleteNetwork').length)).toEqual([0, 1])
    expect(Object.keys(store.snapshot()).filter(key => !/state\/host|pools-guard/.test(key))).toEqual([])
    expect([a.problems, b.problems]).toEqual([[], []])
  })

  test.each(['allocateNetwork', 'createNetwork'] as const)(
    'a failure in %s leaves nothing, here or elsewhere',
    async method => {
      const [one, two] = [wide().reply(method, new Error('no')), wide()]
      const [a, b] = [await host(1, { drivers: [one] }), await host(2, { drivers: [two] })]
      await expect(a.controller.createNetwork({ name: 'web', driver: 'wide' })).rejects.toThrow('no')
      expect(one.callsOf('freeNetwork')).toHaveLength(method === 'allocateNetwork' ? 0 : 1)
      await a.controller.createNetwork({ name: 'web', driver: 'wide' })
      await until(() => has(b, 'web'))
      expect(two.callsOf('adopt')).toHaveLength(1)
      expect([a.problems, b.problems]).toEqual([[], []])
    },
  )

  test('a host without the driver has the network as soon as it is there', async () => {
    const [a, b] = [await host(1, { drivers: [wide()] }), await host(2, {})]
    await a.controller.createNetwork({ name: 'web', driver: 'wide' })
    await until(() => b.problems.length > 0)
    expect(b.problems[0]).toMatch(/network web of the cluster cannot be had here: .*"wide" is not registered/)
    const late = wide()
    b.controller.registerDriver(late)
    await until(() => has(b, 'web'))
    expect(late.callsOf('adopt')).toHaveLength(1)
  })

  test('without a cluster its networks are the host’s own, and stay so when there is one', async () => {
    const dataDir = directory()
    const kernel = new MockKernel()
    const first = await open(kernel, { hostId: 'h1', dataDir, drivers: [wide()] })
    await first.createNetwork({ name: 'old', driver: 'wide', ipam: { config: [{ subnet: '10.9.0.0/24' }] } })
    await first.close()
    const driver = wide()
    const a = await host(1, { dataDir, drivers: [driver] })
    const b = await host(2, { drivers: [wide()] })
    await a.controller.createNetwork({ name: 'new', driver: 'wide' })
    await until(() => has(b, 'new'))
    expect(
      a.controller
        .networks()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['new', 'old'])
    expect(has(b, 'old')).toBe(false)
    await a.controller.network('old').delete()
    expect(driver.callsOf('freeNetwork')).toEqual([])
  })
})

const METHODS = [
  ...['CreateNetwork', 'DeleteNetwork', 'FreeNetwork', 'DiscoverNew', 'DiscoverDelete'],
  ...['CreateEndpoint', 'Join', 'Leave', 'DeleteEndpoint', 'ProgramExternalConnectivity'],
]

describe('a plugin of global scope', () => {
  interface PluginHost extends Host {
    plugin: ScriptedPlugin
    /** The controller's next run. */
    reopen(more?: Options): Promise<Host>
  }
  async function pluginHost(
    n: number,
    script: Record<string, Script> = {},
    more: Options = {},
  ): Promise<PluginHost> {
    const [folder, kernel] = [directory(), kernelOf(n)]
    const plugin = new ScriptedPlugin({
      'NetworkDriver.GetCapabilities': { Scope: 'global' },
      ...Object.fromEntries(METHODS.map(method => [`NetworkDriver.${method}`, {}])),
      'NetworkDriver.AllocateNetwork': { Options: { vni: '7' } },
      ...script,
    })
    await plugin.listen(join(folder, 'far.sock'))
    const reopen = (other: Options = {}) =>
      host(n, { pluginDirectories: [folder], ...more, ...other }, kernel)
    return { plugin, reopen, ...(await reopen()) }
  }
  const bodies = (plugin: ScriptedPlugin, method: string) =>
    plugin.asked.filter(each => each.method === `NetworkDriver.${method}`).map(({ body }) => body)

  test('allocates once; each host’s plugin makes the network, knows the hosts, and deletes it', async () => {
    const [a, b] = [await pluginHost(1), await pluginHost(2)]
    const web = await a.controller.createNetwork({
      name: 'web',
      driver: 'far',
      options: { 'x.zone': 'east' },
    })
    await until(() => has(b, 'web'))
    const generic = { 'x.zone': 'east', vni: '7' }
    const wanted = { NetworkID: web.id, Options: { 'com.docker.network.generic': generic } }
    for (const { plugin } of [a, b]) expect(bodies(plugin, 'CreateNetwork')).toMatchObject([wanted])
    expect(bodies(b.plugin, 'CreateNetwork')).toEqual(bodies(a.plugin, 'CreateNetwork'))
    expect(bodies(a.plugin, 'AllocateNetwork')).toMatchObject([
      { NetworkID: web.id, Options: { 'x.zone': 'east' }, IPv4Data: [{ AddressSpace: 'GlobalDefault' }] },
    ])
    await until(() => bodies(b.plugin, 'DiscoverNew').length === 2)
    expect(bodies(b.plugin, 'DiscoverNew')).toEqual([
      { DiscoveryType: 1, DiscoveryData: { Address: '192.0.2.2', Self: true } },
      { DiscoveryType: 1, DiscoveryData: { Address: '192.0.2.1', Self: false } },
    ])
    await web.delete()
    await until(() => bodies(b.plugin, 'DeleteNetwork').length === 1)
    expect(bodies(a.plugin, 'FreeNetwork')).toEqual([{ NetworkID: web.id }])
    expect(bodies(b.plugin, 'FreeNetwork')).toEqual([])
    await b.controller.close()
    store.expire('2')
    await until(() => bodies(a.plugin, 'DiscoverDelete').length === 1)
  })

  test('a restart: its endpoints are known to the others again; without its plugin a network stays, everywhere', async () => {
    const dataDir = directory()
    const a = await pluginHost(1, {}, { dataDir })
    const b = await pluginHost(2)
    const web = await a.controller.createNetwork({ name: 'web', driver: 'far' })
    const left = await a.controller.createNetwork({ name: 'left', driver: 'far' })
    await until(() => has(b, 'web') && has(b, 'left'))
    const [one, two] = [await sandboxOf(a.controller, 'one'), await sandboxOf(b.controller, 'two')]
    await joined(web, one)
    await joined(b.controller.network('web'), two)
    expect(two.resolveName('one')).toHaveLength(1)
    await a.controller.close()
    const again = await a.reopen()
    await until(() => again.controller.sandbox('one').resolveName('two').length === 1)
    expect(two.resolveName('one')).toHaveLength(1)
    expect(bodies(a.plugin, 'CreateNetwork')).toHaveLength(2)
    expect(bodies(a.plugin, 'AllocateNetwork')).toHaveLength(2)
    await again.controller.close()
    const without = await a.reopen({ pluginDirectories: [directory()] })
    await expect(without.controller.network(left.id).delete()).rejects.toMatchObject({
      code: 'ERR_DRIVER_NOT_FOUND',
    })
    expect([has(without, 'left'), has(b, 'left')]).toEqual([true, true])
    await without.controller.close()
    const last = await a.reopen()
    await last.controller.network(left.id).delete()
    await until(() => !has(b, 'left'))
    expect([a, again, without, last, b].flatMap(({ problems }) => problems)).toEqual([])
  })

  test('one that hangs keeps nobody from following the cluster; what went meanwhile is not left behind', async () => {
    let answer: () => void = () => {}
    const hung = (response: { end(text: string): unknown }) => {
      answer = () => void response.end('{}')
    }
    const [a, b] = [await pluginHost(1), await pluginHost(2, { 'NetworkDriver.CreateNetwork': hung })]
    const web = await a.controller.createNetwork({ name: 'web', driver: 'far' })
    await until(() => bodies(b.plugin, 'CreateNetwork').length === 1)
    await a.controller.createNetwork({ name: 'span', driver: 'overlay' })
    await until(() => has(b, 'span'))
    expect(has(b, 'web')).toBe(false)
    await web.delete()
    await a.controller.network('span').delete()
    await until(() => !has(b, 'span'))
    answer()
    await until(() => bodies(b.plugin, 'DeleteNetwork').length === 1)
    expect(has(b, 'web')).toBe(false)
    expect(b.problems).toEqual([])
  })

  test('one that refuses: told, and tried again when the cluster is back', async () => {
    const [a, b] = [
      await pluginHost(1),
      await pluginHost(2, { 'NetworkDriver.CreateNetwork': { Err: 'not today' } }),
    ]
    await a.controller.createNetwork({ name: 'web', driver: 'far' })
    await until(() => b.problems.length > 0)
    expect(b.problems[0]).toMatch(/network web of the cluster cannot be had here: .*far.*not today/)
    b.plugin.set('NetworkDriver.CreateNetwork', {})
    store.breakWatches()
    await until(() => has(b, 'web'))
  })
})
