import { mkdirSync, writeFileSync } from 'node:fs'
import { request as requestOf } from 'node:http'
import { join } from 'node:path'
import { bridge, Controller, type EndpointSpec, type NetworkSpec, serveDriver, serveIpamDriver } from 'libcnm'
import { faultSweep, MockDriver, MockKernel } from 'libcnm/testing'
import { Plugins } from '../../drivers/remote/client'
import { findPlugin } from '../../drivers/remote/discovery'
import { loadDriver, loadIpamDriver } from '../../drivers/remote'
import type { RemoteDriver } from '../../drivers/remote/driver'
import type { RemoteIpamDriver } from '../../drivers/ipam/remote'
import { DefaultIpamDriver } from '../../lib/ipam/default'
import { LOUD, SILENT } from './misbehaviours'
import * as exchanges from './remote-exchanges'
import { type Script, ScriptedPlugin } from './remote-plugin'
import {
  addressesOn,
  defaults,
  directory,
  inside,
  later,
  linkNames,
  networkOf,
  open,
  refusal,
  sandboxOf,
  state,
} from './scene'

const NETWORK = 'a'.repeat(64)
const ENDPOINT = 'b'.repeat(64)

const spec: NetworkSpec<Record<string, unknown>> = {
  id: NETWORK,
  name: 'net',
  internal: true,
  ipv4: true,
  ipv6: true,
  pools: [
    { family: 4, subnet: '10.1.0.0/24', gateway: '10.1.0.1/24', auxiliary: { router: '10.1.0.9/24' } },
    { family: 6, subnet: 'fd00:1::/64', gateway: 'fd00:1::1/64', auxiliary: {} },
  ],
  labels: {},
  options: { 'com.example.zone': 'east', depth: '3' },
}
const network = { spec, state: {} }
const endpoint: EndpointSpec = {
  id: ENDPOINT,
  name: 'web',
  mac: '02:00:00:00:00:01',
  macGiven: true,
  ipv4: '10.1.0.2/24',
  ipv6: 'fd00:1::2/64',
  linkLocal: [],
  options: { color: 'red' },
}
const joining = { sandboxId: 's', sandboxKey: '/run/ns/s', interfaceName: 'eth0', sandboxOptions: { x: 1 } }

/** Milliseconds: for a plugin that is known not to answer, and for one that answers on a busy machine. */
const SHORT = 150
const LONG = 10_000

const limits = (waited: number[] = [], answerTime = LONG) => ({
  answerTime,
  size: 65536,
  wait: async (milliseconds: number) => void waited.push(milliseconds),
})

async function scripted(script: Record<string, Script> = {}, answerTime = LONG) {
  const plugin = new ScriptedPlugin(script)
  const folder = directory()
  await plugin.listen(join(folder, 'far.sock'))
  const plugins = new Plugins([folder], limits([], answerTime))
  return {
    plugin,
    folder,
    plugins,
    driver: async () => (await loadDriver(plugins, 'far')) as RemoteDriver,
    ipam: async () => (await loadIpamDriver(plugins, 'far')) as RemoteIpamDriver,
  }
}

describe('what is sent and understood', () => {
  test('every call of a network driver, as recorded', async () => {
    const { plugin, driver } = await scripted(exchanges.network.answers)
    const remote = await driver()
    expect(remote.capabilities).toEqual({ dataScope: 'global', connectivityScope: 'local' })
    const { pools: _, ...unpooled } = spec
    expect(await remote.skipsGateway(unpooled)).toEqual([6])
    expect(await remote.allocateNetwork({ ...spec, options: { a: 'b' } })).toEqual({ a: 'b', vni: '7' })
    await remote.createNetwork(spec)
    const bare = { ...endpoint, macGiven: false, ipv4: undefined, ipv6: undefined }
    expect(await remote.createEndpoint(network, bare)).toEqual({
      mac: '02:00:00:00:00:07',
      ipv4: '10.1.0.7/24',
      ipv6: 'fd00:1::7/64',
      data: { mac: '02:00:00:00:00:07' },
    })
    expect(await remote.info(network, endpoint)).toEqual({ tunnel: 'up' })
    expect(await remote.join(network, endpoint, joining)).toEqual({
      interface: { arrives: 'moved', source: 'tap7', prefix: 'tun', mac: '02:00:00:00:00:01' },
      gateways: { 4: '10.1.0.1', 6: 'device' },
      routes: [
        { destination: '10.9.0.0/16', gateway: '10.1.0.4' },
        { destination: '10.8.0.0/16', scope: 'link' },
      ],
      disableGatewayService: true,
    })
    await remote.externalConnectivity(network, endpoint, [4], { p: 1 })
    await remote.externalConnectivity(network, endpoint, [], {})
    await remote.leave(network, endpoint)
    await remote.deleteEndpoint(network, endpoint)
    await remote.deleteNetwork(network)
    await remote.freeNetwork(spec)
    await remote.discover('new', { address: '192.0.2.1', self: true })
    await remote.discover('delete', { address: '192.0.2.1', self: false })
    expect(
      plugin.asked.map(({ method, body }) => (body === undefined ? { method } : { method, body })),
    ).toEqual(exchanges.network.asked)
    expect(plugin.headers[0]).toMatchObject({
      accept: 'application/vnd.docker.plugins.v1.2+json',
      host: 'plugin.moby.localhost',
    })
  })

  test('every call of an IPAM driver, as recorded', async () => {
    const { plugin, ipam } = await scripted(exchanges.ipam.answers)
    const remote = await ipam()
    expect(remote.capabilities).toEqual({ requiresMac: true, requiresReplay: true })
    expect(await remote.defaultAddressSpaces()).toEqual({ local: 'here', global: 'there' })
    expect(
      await remote.requestPool({
        space: 'here',
        family: 4,
        pool: '10.1.0.0/16',
        subPool: '10.1.1.0/24',
        options: { o: 'p' },
      }),
    ).toEqual({
      id: 'p1',
      pool: '10.1.0.0/16',
      data: { 'com.docker.network.gateway': '10.1.0.254/16', extra: 'yes' },
    })
    expect(
      await remote.requestAddress('p1', { owner: NETWORK, purpose: 'gateway', address: '10.1.1.5' }),
    ).toEqual({ address: '10.1.1.5/16', data: { d: 'e' } })
    await remote.requestAddress('p1', {
      owner: ENDPOINT,
      purpose: 'endpoint',
      mac: '02:00:00:00:00:01',
      name: 'web',
      options: { q: 'r' },
    })
    await remote.releaseAddress('p1', '10.1.1.5/16')
    await remote.releasePool('p1')
    expect(
      plugin.asked.map(({ method, body }) => (body === undefined ? { method } : { method, body })),
    ).toEqual(exchanges.ipam.asked)
  })

  test('an absent ConnectivityScope is the Scope; methods that need not be there may be absent', async () => {
    const { driver } = await scripted()
    const remote = await driver()
    expect(remote.capabilities).toEqual({ dataScope: 'local', connectivityScope: 'local' })
    const { pools: _, ...unpooled } = spec
    expect(await remote.skipsGateway(unpooled)).toEqual([])
    await remote.externalConnectivity(network, endpoint, [4], {})
    await remote.externalConnectivity(network, endpoint, [], {})
    await remote.discover('new', { address: '192.0.2.1', self: true })
    expect(await remote.allocateNetwork(spec)).toEqual(spec.options)
    await remote.freeNetwork(spec)
  })

  test('a route to everywhere is a gateway, unless there is one', async () => {
    const everywhere = { Destination: '0.0.0.0/0', RouteType: 0, NextHop: '10.1.0.4' }
    const { plugin, driver } = await scripted({ 'NetworkDriver.Join': { StaticRoutes: [everywhere] } })
    const remote = await driver()
    expect(await remote.join(network, endpoint, joining)).toMatchObject({
      gateways: { 4: '10.1.0.4' },
      routes: [],
    })
    plugin.set('NetworkDriver.Join', { Gateway: '10.1.0.1', StaticRoutes: [everywhere] })
    expect(await remote.join(network, endpoint, joining)).toMatchObject({
      gateways: { 4: '10.1.0.1' },
      routes: [],
    })
  })

  test('pools of its choice that clash with the host are held, and given back at the end', async () => {
    let n = 0
    const { plugin, ipam } = await scripted({
      'IpamDriver.RequestPool': response =>
        void response.end(JSON.stringify({ PoolID: `p${n}`, Pool: `10.${n++}.0.0/16` })),
      'IpamDriver.ReleasePool': {},
    })
    const remote = await ipam()
    const exclude = ['10.0.0.0/24', '10.1.5.0/24']
    expect((await remote.requestPool({ space: 's', family: 4, exclude })).pool).toBe('10.2.0.0/16')
    expect(plugin.methods().slice(-5)).toEqual([
      'RequestPool',
      'RequestPool',
      'RequestPool',
      'ReleasePool',
      'ReleasePool',
    ])
    expect(
      (await remote.requestPool({ space: 's', family: 4, pool: '10.3.0.0/16', exclude: ['10.0.0.0/8'] }))
        .pool,
    ).toBe('10.3.0.0/16')
    await expect(remote.requestPool({ space: 's', family: 4, exclude: ['10.0.0.0/8'] })).rejects.toEqual(
      refusal('ERR_PLUGIN', /none of 64 pools is free/),
    )
  })
})

describe('plugins that misbehave', () => {
  test.each([...SILENT.map(row => [...row, SHORT] as const), ...LOUD.map(row => [...row, LONG] as const)])(
    'one that %s gets a clear error, in every call',
    async (_, script, message, answerTime) => {
      const { plugin, driver } = await scripted({}, answerTime)
      const remote = await driver()
      const calls: [string, () => Promise<unknown>][] = [
        ['CreateNetwork', () => remote.createNetwork(spec)],
        ['DeleteNetwork', () => remote.deleteNetwork(network)],
        ['CreateEndpoint', () => remote.createEndpoint(network, endpoint)],
        ['DeleteEndpoint', () => remote.deleteEndpoint(network, endpoint)],
        ['EndpointOperInfo', () => remote.info(network, endpoint)],
        ['Join', () => remote.join(network, endpoint, joining)],
        ['Leave', () => remote.leave(network, endpoint)],
        ['ProgramExternalConnectivity', () => remote.externalConnectivity(network, endpoint, [4], {})],
      ]
      for (const [name] of calls) plugin.set(`NetworkDriver.${name}`, {})
      await Promise.all(
        calls.map(async ([name, call]) => {
          plugin.set(`NetworkDriver.${name}`, script)
          await expect(call()).rejects.toEqual(refusal('ERR_PLUGIN', message))
        }),
      )
    },
  )

  const lies: [string, string, object, string, RegExp][] = [
    [
      'an address that was given',
      'CreateEndpoint',
      { Interface: { Address: '10.1.0.3/24' } },
      'DeleteEndpoint',
      /given already.*; rolled back$/,
    ],
    [
      'a MAC that was given',
      'CreateEndpoint',
      { Interface: { MacAddress: '02:00:00:00:00:09' } },
      'DeleteEndpoint',
      /; rolled back$/,
    ],
    [
      'an address that is none',
      'CreateEndpoint',
      { Interface: { Address: 'x' } },
      'DeleteEndpoint',
      /Interface\.Address/,
    ],
    [
      'a multicast MAC',
      'CreateEndpoint',
      { Interface: { MacAddress: 'ff:ff:ff:ff:ff:ff' } },
      'DeleteEndpoint',
      /MacAddress/,
    ],
    ['a gateway that is none', 'Join', { Gateway: '10.1.0' }, 'Leave', /Gateway/],
    [
      'a gateway of the other family',
      'Join',
      { Gateway: 'fd00::1' },
      'Leave',
      /not an IPv4 address; rolled back/,
    ],
    ['an interface with a path', 'Join', { InterfaceName: { SrcName: '../../x' } }, 'Leave', /SrcName/],
    [
      'a prefix with a path',
      'Join',
      { InterfaceName: { SrcName: 'x', DstPrefix: '/' } },
      'Leave',
      /DstPrefix/,
    ],
    ['a route to nowhere', 'Join', { StaticRoutes: [{ Destination: 'x' }] }, 'Leave', /Destination/],
    [
      'a route without next hop',
      'Join',
      { StaticRoutes: [{ Destination: '10.9.0.0/16', RouteType: 0 }] },
      'Leave',
      /no next hop.*; rolled back/,
    ],
    [
      'a route of an unknown type',
      'Join',
      { StaticRoutes: [{ Destination: '10.9.0.0/16', RouteType: 5 }] },
      'Leave',
      /RouteType/,
    ],
  ]
  test.each(lies)('%s is refused and taken back', async (_, name, answer, inverse, message) => {
    const { plugin, driver } = await scripted({
      [`NetworkDriver.${name}`]: answer,
      [`NetworkDriver.${inverse}`]: {},
    })
    const remote = await driver()
    const call =
      name === 'Join' ? remote.join(network, endpoint, joining) : remote.createEndpoint(network, endpoint)
    await expect(call).rejects.toEqual(refusal('ERR_PLUGIN', message))
    expect(plugin.methods().slice(-2)).toEqual([name, inverse])
  })

  test('a scope that does not exist keeps the driver from being used', async () => {
    const { driver } = await scripted({ 'NetworkDriver.GetCapabilities': { Scope: 'galaxy' } })
    await expect(driver()).rejects.toEqual(refusal('ERR_PLUGIN', /Scope/))
  })

  test('a plugin of another kind is named as such', async () => {
    const { driver, ipam } = await scripted({ 'Plugin.Activate': { Implements: ['VolumeDriver'] } })
    await expect(driver()).rejects.toEqual(
      refusal('ERR_PLUGIN', /does not implement NetworkDriver.*VolumeDriver/),
    )
    await expect(ipam()).rejects.toEqual(refusal('ERR_PLUGIN', /does not implement IpamDriver/))
  })

  const ipamLies: [string, string, object, string, RegExp][] = [
    [
      'a pool of the other family',
      'RequestPool',
      { PoolID: 'p', Pool: 'fd00::/64' },
      'ReleasePool',
      /not an IPv4/,
    ],
    [
      'a gateway outside',
      'RequestPool',
      { PoolID: 'p', Pool: '10.1.0.0/16', Data: { 'com.docker.network.gateway': '10.2.0.1/16' } },
      'ReleasePool',
      /no address of/,
    ],
    [
      'another address',
      'RequestAddress',
      { Address: '10.1.0.8/16' },
      'ReleaseAddress',
      /asked for 10.1.0.7, it gave 10.1.0.8/,
    ],
    ['no address', 'RequestAddress', { Address: '' }, 'ReleaseAddress', /no address was returned/],
  ]
  test.each(ipamLies)('IPAM: %s is refused and given back', async (_, name, answer, inverse, message) => {
    const { plugin, ipam } = await scripted({ [`IpamDriver.${name}`]: answer, [`IpamDriver.${inverse}`]: {} })
    const remote = await ipam()
    const call =
      name === 'RequestPool'
        ? remote.requestPool({ space: 's', family: 4 })
        : remote.requestAddress('p', { owner: 'o', purpose: 'endpoint', address: '10.1.0.7' })
    await expect(call).rejects.toEqual(refusal('ERR_PLUGIN', message))
    expect(plugin.methods().slice(-2)).toEqual([name, inverse])
  })

  test('IPAM complaints come in a field of their own', async () => {
    const { ipam } = await scripted({ 'IpamDriver.ReleasePool': { Error: 'never heard of it' } })
    const remote = await ipam()
    await expect(remote.releasePool('p')).rejects.toEqual(refusal('ERR_PLUGIN', /never heard of it/))
  })

  test('a plugin that is not there yet is tried again, less and less often, for 30 seconds', async () => {
    const { folder, plugin } = await scripted()
    writeFileSync(join(folder, 'dead.spec'), `unix://${join(folder, 'dead.socket')}`)
    const waited: number[] = []
    const plugins = new Plugins([folder], limits(waited))
    await expect(loadDriver(plugins, 'dead')).rejects.toEqual(
      refusal('ERR_PLUGIN', /cannot be connected to \(ENOENT\) at .*dead\.socket/),
    )
    expect(waited).toEqual([1000, 2000, 4000, 8000])
    const again = new Plugins([folder], {
      wait: async milliseconds => {
        if (milliseconds === 4000) await plugin.listen(join(folder, 'dead.socket'))
      },
    })
    expect((await loadDriver(again, 'dead'))?.name).toBe('dead')
  })
})

describe('discovery', () => {
  test('sockets first, then .spec, then .json, in each directory in turn', async () => {
    const [one, two] = [directory(), directory()]
    const find = (name = 'p') => findPlugin(name, [one, two])
    expect(await find()).toBeUndefined()
    mkdirSync(join(two, 'p'))
    writeFileSync(join(two, 'p', 'p.json'), JSON.stringify({ Name: 'other', Addr: 'tcp://[::1]:7' }))
    expect(await find()).toEqual({ host: '::1', port: 7 })
    writeFileSync(join(two, 'p.spec'), 'tcp://localhost:99\n')
    expect(await find()).toEqual({ host: 'localhost', port: 99 })
    writeFileSync(join(one, 'p.json'), JSON.stringify({ Addr: 'unix:///run/x.sock' }))
    expect(await find()).toEqual({ socket: '/run/x.sock' })
    writeFileSync(join(two, 'p.sock'), '')
    expect(await find()).toEqual({ socket: '/run/x.sock' })
    await new ScriptedPlugin().listen(join(two, 'p', 'p.sock'))
    expect(await find()).toEqual({ socket: join(two, 'p', 'p.sock') })
  })

  test('TLS', async () => {
    const folder = directory()
    writeFileSync(join(folder, 'ca'), 'CA')
    const write = (tls: object) =>
      writeFileSync(join(folder, 'p.json'), JSON.stringify({ Addr: 'tcp://h:1', TLSConfig: tls }))
    const find = () => findPlugin('p', [folder])
    write({ CAFile: join(folder, 'ca'), CertFile: join(folder, 'ca'), KeyFile: join(folder, 'ca') })
    const bytes = Buffer.from('CA')
    expect(await find()).toEqual({
      host: 'h',
      port: 1,
      tls: { insecure: false, ca: bytes, cert: bytes, key: bytes },
    })
    write({})
    expect(await find()).toMatchObject({ tls: { insecure: true } })
    write({ CAFile: join(folder, 'ca'), InsecureSkipVerify: true })
    expect(await find()).toMatchObject({ tls: { insecure: true } })
    write({ CAFile: '/nowhere' })
    await expect(find()).rejects.toEqual(refusal('ERR_PLUGIN', /nowhere cannot be read/))
  })

  test.each(['localhost:99', 'ftp://x', 'unix://relative', '', 'x'.repeat(70_000)])(
    'no address: %.20s',
    async text => {
      const folder = directory()
      writeFileSync(join(folder, 'p.spec'), text)
      await expect(findPlugin('p', [folder])).rejects.toEqual(refusal('ERR_PLUGIN', /p\.spec/))
    },
  )

  test.each(['../p', 'a/b', '.hidden', '', 'a\0b', 'x'.repeat(129), '/etc/passwd', '..'])(
    'a name with tricks is refused: %.20s',
    async name => {
      await expect(findPlugin(name, ['/'])).rejects.toEqual(refusal('ERR_INVALID_NAME'))
      expect(await loadDriver(new Plugins(['/']), name)).toBeUndefined()
    },
  )

  test('over TCP', async () => {
    const plugin = new ScriptedPlugin()
    const port = await plugin.listen()
    const folder = directory()
    writeFileSync(join(folder, 'far.spec'), `tcp://127.0.0.1:${port}`)
    expect((await loadDriver(new Plugins([folder]), 'far'))?.name).toBe('far')
    expect(plugin.headers[0]?.host).toBe(`127.0.0.1:${port}`)
  })
})

describe('in a controller', () => {
  /** A plugin that serves a driver of ours on the same model of a host. */
  async function served(driver: Parameters<typeof serveDriver>[0] = bridge()) {
    const kernel = new MockKernel()
    const folder = directory()
    const server = await serveDriver(driver, { socket: join(folder, 'far.sock'), kernel })
    later(() => server.close())
    const controller = await open(kernel, { pluginDirectories: [folder] })
    return { kernel, folder, server, controller }
  }

  test('a served bridge is used as the built-in one would be, and leaves nothing', async () => {
    const { kernel, controller } = await served()
    const before = state(kernel, controller)
    const net = await networkOf(controller, 'n', 1, {
      driver: 'far',
      ipv6: true,
      options: { name: 'br-far', 'com.docker.network.driver.mtu': '1400' },
    })
    const sandbox = await sandboxOf(controller, 'c1')
    const web = await net.createEndpoint({ name: 'web' })
    await web.join(sandbox)
    const view = inside(kernel, sandbox)
    expect(linkNames(view).sort()).toEqual(['eth0', 'lo'])
    expect(addressesOn(view, 'eth0')).toEqual(['10.1.0.2/24', 'fd00:1::2/64'])
    expect(defaults(view)).toEqual(['via 10.1.0.1 dev eth0', 'via fd00:1::1 dev eth0'])
    const host = kernel.netns() ?? { links: [] }
    expect(host.links.map(({ name }) => name)).toContain('br-far')
    expect(view.links.find(({ name }) => name === 'eth0')).toMatchObject({ mac: web.mac, mtu: 1400 })
    await web.leave()
    expect(linkNames(inside(kernel, sandbox))).toEqual(['lo'])
    await web.join(sandbox)
    await sandbox.delete()
    await net.delete()
    await controller.settle()
    expect(state(kernel, controller)).toEqual(before)
  })

  test('an unknown driver is still unknown, and the near one is named', async () => {
    const { controller } = await served()
    await expect(networkOf(controller, 'n', 1, { driver: 'bridg' })).rejects.toEqual(
      refusal('ERR_DRIVER_NOT_FOUND', /did you mean "bridge"/),
    )
  })

  test('errors of the driver behind the server arrive', async () => {
    const { controller } = await served(new MockDriver().reply('createNetwork', new Error('not today')))
    await expect(networkOf(controller, 'n', 1, { driver: 'far' })).rejects.toEqual(
      refusal('ERR_PLUGIN', /^remote: plugin far, NetworkDriver.CreateNetwork: not today$/),
    )
  })

  async function scriptedController(script: Record<string, Script>) {
    const { plugin, folder } = await scripted({
      'NetworkDriver.CreateNetwork': {},
      'NetworkDriver.DeleteNetwork': {},
      'NetworkDriver.CreateEndpoint': {},
      'NetworkDriver.DeleteEndpoint': {},
      'NetworkDriver.Leave': {},
      'NetworkDriver.ProgramExternalConnectivity': {},
      'NetworkDriver.RevokeExternalConnectivity': {},
      ...script,
    })
    const kernel = new MockKernel()
    const controller: Controller = await open(kernel, { pluginDirectories: [folder] })
    return { plugin, kernel, controller }
  }
  const tap = (name: string): ConstructorParameters<typeof ScriptedPlugin>[0] => ({
    'NetworkDriver.Join': { InterfaceName: { SrcName: name, DstPrefix: 'tun' }, Gateway: '10.1.0.1' },
  })
  const makeTap = async (kernel: MockKernel, name: string) => {
    const host = await kernel.open()
    await host.apply([{ op: 'addLink', link: { kind: 'dummy', name } }])
  }

  test('the interface is moved in under the prefix of the plugin, and back at the end', async () => {
    const { plugin, kernel, controller } = await scriptedController({ ...tap('tap0') })
    await makeTap(kernel, 'tap0')
    const before = kernel.snapshot()
    const net = await networkOf(controller, 'n', 1, { driver: 'far' })
    const sandbox = await sandboxOf(controller, 'c')
    const web = await net.createEndpoint({ name: 'web', ports: ['80:8080'] })
    await web.join(sandbox)
    expect(web.interfaceName).toBe('tun0')
    expect(linkNames(inside(kernel, sandbox))).toEqual(['lo', 'tun0'])
    expect(defaults(inside(kernel, sandbox))).toEqual(['via 10.1.0.1 dev tun0'])
    expect(await controller.check()).toEqual([])
    expect(plugin.bodyOf('NetworkDriver.ProgramExternalConnectivity')).toMatchObject({
      EndpointID: web.id,
      Options: { 'com.docker.network.portmap': [{ Proto: 6, Port: 8080, HostPort: 80 }] },
    })
    await web.leave()
    await web.delete()
    await sandbox.delete()
    await net.delete()
    expect(plugin.methods()).toEqual([
      'Plugin.Activate',
      'GetCapabilities',
      'CreateNetwork',
      'CreateEndpoint',
      'Join',
      'ProgramExternalConnectivity',
      'RevokeExternalConnectivity',
      'Leave',
      'DeleteEndpoint',
      'DeleteNetwork',
    ])
    expect(kernel.snapshot()).toEqual(before)
  })

  test('drivers hear when the way out moves to another endpoint, once', async () => {
    const { plugin, kernel, controller } = await scriptedController({ ...tap('tap0') })
    await makeTap(kernel, 'tap0')
    const far = await networkOf(controller, 'far', 1, { driver: 'far' })
    const near = await networkOf(controller, 'near', 2)
    const sandbox = await sandboxOf(controller, 'c')
    const one = await far.createEndpoint({ name: 'one' })
    const two = await near.createEndpoint({ name: 'two' })
    await one.join(sandbox)
    await two.join(sandbox, { priority: 10 })
    await two.leave()
    await sandbox.delete()
    expect(plugin.methods().filter(name => name.endsWith('Connectivity'))).toEqual([
      'ProgramExternalConnectivity',
      'RevokeExternalConnectivity',
      'ProgramExternalConnectivity',
      'RevokeExternalConnectivity',
    ])
  })

  test('a failure to hear it stops nothing', async () => {
    const { kernel, controller } = await scriptedController({
      ...tap('tap0'),
      'NetworkDriver.ProgramExternalConnectivity': { Err: 'deaf' },
      'NetworkDriver.RevokeExternalConnectivity': () => {},
    })
    await makeTap(kernel, 'tap0')
    const net = await networkOf(controller, 'n', 1, { driver: 'far' })
    const sandbox = await sandboxOf(controller, 'c')
    const web = await net.createEndpoint({ name: 'web' })
    await web.join(sandbox)
    expect(sandbox.gateway.ipv4).toBe(web)
  })

  const failing: [string, Script, RegExp][] = [
    ['promises an interface that is not there', { InterfaceName: { SrcName: 'tap9' } }, /tap9/],
    ['answers garbage', response => void response.end('}{'), /is not JSON/],
    ['crashes', response => void response.socket?.destroy(), /hang up/],
  ]
  test.each(failing)('a join whose plugin %s leaves all as it was', async (_, script, message) => {
    const { plugin, kernel, controller } = await scriptedController({ 'NetworkDriver.Join': script })
    const net = await networkOf(controller, 'n', 1, { driver: 'far' })
    const sandbox = await sandboxOf(controller, 'c')
    const web = await net.createEndpoint({ name: 'web' })
    const before = state(kernel, controller)
    await expect(web.join(sandbox)).rejects.toMatchObject({ message: expect.stringMatching(message) })
    expect(state(kernel, controller)).toEqual(before)
    expect(plugin.methods().slice(-2)).toEqual(['Join', 'Leave'])
  })

  test('a join of an interface that is moved in is whole or nothing, whichever call fails', async () => {
    const { folder } = await scripted({
      'NetworkDriver.CreateNetwork': {},
      'NetworkDriver.CreateEndpoint': {},
      'NetworkDriver.Leave': {},
      ...tap('tap0'),
    })
    const { rounds } = await faultSweep(async kernel => {
      await makeTap(kernel, 'tap0')
      const controller = await Controller.open({
        kernel,
        runDir: '/run/sweep',
        hostId: 'flow',
        pluginDirectories: [folder],
      })
      const net = await networkOf(controller, 'n', 1, { driver: 'far' })
      const sandbox = await sandboxOf(controller, 'c')
      const web = await net.createEndpoint({ name: 'web' })
      return { run: () => web.join(sandbox), close: () => controller.close() }
    })
    expect(rounds).toBeGreaterThan(2)
  })

  test('a served IPAM driver gives pools and addresses', async () => {
    const folder = directory()
    const driver = new DefaultIpamDriver({ hostId: 'flow' })
    const server = await serveIpamDriver(driver, { socket: join(folder, 'pool.sock') })
    later(() => server.close())
    const controller = await open(new MockKernel(), { pluginDirectories: [folder] })
    const net = await controller.createNetwork({
      name: 'n',
      ipam: { driver: 'pool', config: [{ subnet: '10.1.0.0/24', ipRange: '10.1.0.128/25' }] },
    })
    expect(net.ipam[0]).toMatchObject({ subnet: '10.1.0.0/24', gateway: '10.1.0.128/24' })
    const [a, b] = [
      await net.createEndpoint({ name: 'a' }),
      await net.createEndpoint({ name: 'b', ipv4: '10.1.0.7' }),
    ]
    expect([a.ipv4, b.ipv4]).toEqual(['10.1.0.129/24', '10.1.0.7/24'])
    await expect(net.createEndpoint({ name: 'c', ipv4: '10.1.0.7' })).rejects.toEqual(
      refusal('ERR_PLUGIN', /10\.1\.0\.7/),
    )
    await a.delete()
    await b.delete()
    await net.delete()
    const again = await controller.createNetwork({
      name: 'n',
      ipam: { driver: 'pool', config: [{ subnet: '10.1.0.0/24' }] },
    })
    expect((await again.createEndpoint({ name: 'b', ipv4: '10.1.0.7' })).ipv4).toBe('10.1.0.7/24')
  })
})

describe('the server', () => {
  const post = (socketPath: string, path: string, body: string, method = 'POST') =>
    new Promise<{ status?: number; text: string }>((resolve, reject) => {
      const request = requestOf({ socketPath, path, method, agent: false }, response => {
        let text = ''
        response.on('data', chunk => {
          text += chunk
        })
        response.on('error', reject)
        response.on('end', () => resolve({ status: response.statusCode, text }))
      })
      request.on('error', reject)
      request.end(body)
    })

  test('what makes no sense is refused, and it serves on', async () => {
    const folder = directory()
    const socket = join(folder, 'deep', 's.sock')
    const kernel = new MockKernel()
    const before = kernel.snapshot()
    const server = await serveDriver(bridge(), { socket, kernel })
    later(() => server.close())
    const create = '/NetworkDriver.CreateNetwork'
    const bad: [string, string, number][] = [
      ['/NetworkDriver.Nonsense', '{}', 404],
      ['/etc/passwd', '', 404],
      [create, '{', 400],
      [create, '[]', 500],
      [create, '{"NetworkID":"../x"}', 500],
      [create, '{"NetworkID":"n","IPv4Data":[{"Pool":"x"}]}', 500],
      [create, '{"NetworkID":"n","IPv4Data":[{"Pool":"fd00::/64"}]}', 500],
      [create, '{"NetworkID":"n","Options":{"com.docker.network.generic":{"bogus":"1"}}}', 500],
      ['/NetworkDriver.Join', '{"NetworkID":"n","EndpointID":"e"}', 500],
      ['/NetworkDriver.DeleteNetwork', '{"NetworkID":"n"}', 500],
    ]
    for (const [path, body, status] of bad) {
      const answer = await post(socket, path, body)
      expect([path, body, answer.status]).toEqual([path, body, status])
      expect(JSON.parse(answer.text).Err).toMatch(/./)
    }
    expect((await post(socket, create, '', 'GET')).status).toBe(404)
    await post(socket, create, `"${'x'.repeat(2_000_000)}"`).catch(() => undefined)
    expect((await post(socket, '/Plugin.Activate', '')).text).toBe('{"Implements":["NetworkDriver"]}')
    expect(kernel.snapshot()).toEqual(before)
  })

  test('a socket in use is refused, one left behind is replaced', async () => {
    const socket = join(directory(), 's.sock')
    const kernel = new MockKernel()
    const first = await serveDriver(bridge(), { socket, kernel })
    await expect(serveDriver(bridge(), { socket, kernel })).rejects.toEqual(
      refusal('ERR_PLUGIN', /another plugin listens/),
    )
    await first.close()
    await first.close()
    writeFileSync(socket, '')
    await expect(serveDriver(bridge(), { socket, kernel })).rejects.toEqual(
      refusal('ERR_PLUGIN', /no socket/),
    )
  })
})
