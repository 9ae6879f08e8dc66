/** Plugins that hang, lie, crash or talk nonsense: a clear error, nothing left, and all is well once they are. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { MockKernel } from 'libcnm/testing'
import { loadDriver, loadIpamDriver } from '../../drivers/remote'
import { Plugins } from '../../drivers/remote/client'
import { Certificates } from '../support/certificates'
import { LACKS, LOUD, SILENT } from './misbehaviours'
import { type Script, ScriptedPlugin } from './remote-plugin'
import { directory, later, networkOf, open, refusal, sandboxOf, state } from './scene'

/** Milliseconds for a plugin that is known not to answer. */
const SHORT = 150

async function scripted(script: Record<string, Script> = {}, answerTime = SHORT) {
  const plugin = new ScriptedPlugin(script)
  const folder = directory()
  await plugin.listen(join(folder, 'far.sock'))
  return { plugin, folder, plugins: new Plugins([folder], { answerTime }) }
}

describe.each([
  ...SILENT.map(row => [...row, SHORT] as const),
  ...[...LOUD, LACKS].map(row => [...row, 10_000] as const),
])('a plugin that %s', (_, script, message, answerTime) => {
  test.each(['Plugin.Activate', 'NetworkDriver.GetCapabilities'])(
    'in %s is not used; when it is well, it is',
    async method => {
      const { plugin, plugins } = await scripted({}, answerTime)
      const well = method.startsWith('Plugin') ? { Implements: ['NetworkDriver'] } : { Scope: 'global' }
      plugin.set(method, script)
      await expect(loadDriver(plugins, 'far')).rejects.toEqual(refusal('ERR_PLUGIN', message))
      plugin.set(method, well)
      expect((await loadDriver(plugins, 'far'))?.name).toBe('far')
    },
  )

  test('address management: a clear error in every call', async () => {
    const { plugin, plugins } = await scripted({ 'IpamDriver.GetCapabilities': script }, answerTime)
    const ipam = await loadIpamDriver(plugins, 'far')
    if (!ipam) throw new Error('capabilities need not be told')
    expect(ipam.capabilities).toEqual({ requiresMac: false, requiresReplay: false })
    const calls: [string, () => Promise<unknown>][] = [
      ['GetDefaultAddressSpaces', () => ipam.defaultAddressSpaces()],
      ['RequestPool', () => ipam.requestPool({ space: 's', family: 4 })],
      ['ReleasePool', () => ipam.releasePool('p')],
      ['RequestAddress', () => ipam.requestAddress('p', { owner: 'o', purpose: 'endpoint' })],
      ['ReleaseAddress', () => ipam.releaseAddress('p', '10.1.0.7')],
    ]
    for (const [name, call] of calls) {
      plugin.set(`IpamDriver.${name}`, script)
      await expect(call()).rejects.toEqual(refusal('ERR_PLUGIN', message))
    }
  })
})

describe('over TLS', () => {
  let certificates: Certificates
  beforeAll(() => {
    certificates = new Certificates()
  })
  afterAll(() => certificates.remove())

  /** One that talks to those alone who have a certificate of its authority. */
  async function secure(tls: (file: (name: string) => string) => object, scheme = 'tcp') {
    const { ca } = certificates.client
    const { readFileSync } = await import('node:fs')
    const plugin = new ScriptedPlugin()
    const port = await plugin.listen(undefined, {
      key: readFileSync(certificates.file('server.key')),
      cert: readFileSync(certificates.file('server.crt')),
      ca,
      requestCert: true,
      rejectUnauthorized: true,
    })
    const folder = directory()
    const description = {
      Addr: `${scheme}://127.0.0.1:${port}`,
      TLSConfig: tls(name => certificates.file(name)),
    }
    writeFileSync(join(folder, 'far.json'), JSON.stringify(description))
    return loadDriver(new Plugins([folder]), 'far')
  }

  const own = (file: (name: string) => string) => ({
    CertFile: file('client.crt'),
    KeyFile: file('client.key'),
  })

  test.each(['tcp', 'https'])('%s: both sides have certificates of one authority', async scheme => {
    const driver = await secure(file => ({ ...own(file), CAFile: file('ca.crt') }), scheme)
    expect(driver?.capabilities.dataScope).toBe('local')
  })

  test('a plugin of another authority is refused, unless nobody is asked', async () => {
    const other = new Certificates()
    later(() => other.remove())
    const config = (file: (name: string) => string) => ({ ...own(file), CAFile: other.file('ca.crt') })
    await expect(secure(config)).rejects.toEqual(refusal('ERR_PLUGIN', /Plugin\.Activate.*certificate/))
    expect(await secure(file => ({ ...config(file), InsecureSkipVerify: true }))).toBeDefined()
    expect(await secure(own)).toBeDefined()
  })

  test('without a certificate of our own it does not talk to us', async () => {
    await expect(secure(file => ({ CAFile: file('ca.crt') }))).rejects.toEqual(
      refusal('ERR_PLUGIN', /remote: plugin far, Plugin\.Activate/),
    )
  })
})

/** A network driver and address management in one, which do as they should. */
const WELL: Record<string, Script> = {
  'NetworkDriver.CreateNetwork': {},
  'NetworkDriver.DeleteNetwork': {},
  'NetworkDriver.CreateEndpoint': {},
  'NetworkDriver.DeleteEndpoint': {},
  'NetworkDriver.Join': { InterfaceName: { SrcName: 'tap0', DstPrefix: 'tun' } },
  'NetworkDriver.Leave': {},
  'IpamDriver.GetDefaultAddressSpaces': { LocalDefaultAddressSpace: 'l', GlobalDefaultAddressSpace: 'g' },
  'IpamDriver.RequestPool': {
    PoolID: 'p1',
    Pool: '10.1.0.0/24',
    Data: { 'com.docker.network.gateway': '10.1.0.1/24' },
  },
  'IpamDriver.ReleasePool': {},
  'IpamDriver.RequestAddress': { Address: '10.1.0.7/24' },
  'IpamDriver.ReleaseAddress': {},
}
const CRASH: Script = response => void response.socket?.destroy()

async function scene(script: Record<string, Script> = {}, dataDir?: string) {
  const { plugin, folder } = await scripted({ ...WELL, ...script })
  const kernel = new MockKernel()
  await (await kernel.open()).apply([{ op: 'addLink', link: { kind: 'dummy', name: 'tap0' } }])
  const settings = { pluginDirectories: [folder], dataDir }
  return { plugin, folder, kernel, settings, controller: await open(kernel, settings) }
}
const all = (plugin: ScriptedPlugin, script: Script) => {
  for (const method of Object.keys(WELL)) plugin.set(method, script)
}

describe('in a controller', () => {
  const far = { name: 'n', driver: 'far', ipam: { driver: 'far' } } as const

  test.each([...LOUD, LACKS])(
    'one that %s, in whatever call: nothing is left, and it can be tried again',
    async (_, script) => {
      const { plugin, kernel, controller } = await scene()
      const before = state(kernel, controller)
      for (const method of [
        'IpamDriver.GetDefaultAddressSpaces',
        'IpamDriver.RequestPool',
        'NetworkDriver.CreateNetwork',
      ]) {
        plugin.set(method, script)
        await expect(controller.createNetwork(far)).rejects.toEqual(refusal('ERR_PLUGIN'))
        plugin.set(method, WELL[method] as Script)
        expect(state(kernel, controller)).toEqual(before)
      }
      const network = await controller.createNetwork(far)
      const created = state(kernel, controller)
      for (const method of ['IpamDriver.RequestAddress', 'NetworkDriver.CreateEndpoint']) {
        plugin.set(method, script)
        await expect(network.createEndpoint({ name: 'e' })).rejects.toEqual(refusal('ERR_PLUGIN'))
        plugin.set(method, WELL[method] as Script)
        expect(state(kernel, controller)).toEqual(created)
      }
      const endpoint = await network.createEndpoint({ name: 'e' })
      const sandbox = await sandboxOf(controller, 'c')
      const apart = state(kernel, controller)
      plugin.set('NetworkDriver.Join', script)
      await expect(endpoint.join(sandbox)).rejects.toEqual(refusal('ERR_PLUGIN'))
      plugin.set('NetworkDriver.Join', WELL['NetworkDriver.Join'] as Script)
      expect(state(kernel, controller)).toEqual(apart)
      await endpoint.join(sandbox)
      expect(endpoint.interfaceName).toBe('tun0')
    },
  )

  test('one that is gone keeps nobody from clearing up', async () => {
    const { plugin, kernel, controller } = await scene()
    const before = state(kernel, controller)
    const network = await controller.createNetwork(far)
    const sandbox = await sandboxOf(controller, 'c')
    const [one, two] = [
      await network.createEndpoint({ name: 'one' }),
      await network.createEndpoint({ name: 'two', ipv4: '10.1.0.7' }).catch(() => undefined),
    ]
    await two?.delete()
    await one.join(sandbox)
    all(plugin, CRASH)
    await one.leave()
    await one.delete()
    await sandbox.delete()
    await network.delete()
    await controller.settle()
    expect(state(kernel, controller)).toEqual(before)
  })

  const lies: [string, Record<string, Script>, RegExp][] = [
    [
      'an address outside of its pool',
      { 'IpamDriver.RequestAddress': { Address: '10.9.0.7/24' } },
      /10\.9\.0\.7/,
    ],
    ['an address of the other family', { 'IpamDriver.RequestAddress': { Address: 'fd00::7/64' } }, /fd00::7/],
    [
      'the address of the gateway',
      { 'IpamDriver.RequestAddress': { Address: '10.1.0.1/24' } },
      /10\.1\.0\.1/,
    ],
  ]
  test.each(lies)('address management that gives %s', async (_, script, message) => {
    const { kernel, controller } = await scene(script)
    const network = await controller.createNetwork(far)
    const before = state(kernel, controller)
    await expect(network.createEndpoint({ name: 'e' })).rejects.toMatchObject({
      message: expect.stringMatching(message),
    })
    expect(state(kernel, controller)).toEqual(before)
  })

  test('address management that gives one address twice', async () => {
    const { kernel, controller } = await scene()
    const network = await controller.createNetwork(far)
    await network.createEndpoint({ name: 'one' })
    const before = state(kernel, controller)
    await expect(network.createEndpoint({ name: 'two' })).rejects.toMatchObject({
      message: expect.stringMatching(/10\.1\.0\.7/),
    })
    expect(state(kernel, controller)).toEqual(before)
  })

  test('after a restart without its plugin the rest goes on; with it, its networks do', async () => {
    const dataDir = directory()
    const { plugin, kernel, controller, settings } = await scene({}, dataDir)
    await controller.createNetwork(far)
    await networkOf(controller, 'near', 2)
    await controller.close()
    all(plugin, CRASH)
    plugin.set('Plugin.Activate', CRASH)
    const second = await open(kernel, settings)
    expect(second.networks().map(({ name }) => name)).toContain('near')
    await (await sandboxOf(second, 'c')).delete()
    await second.close()
    for (const [method, answer] of Object.entries(WELL)) plugin.set(method, answer)
    plugin.set('Plugin.Activate', { Implements: ['NetworkDriver', 'IpamDriver'] })
    const third = await open(kernel, settings)
    expect((await third.network('n').createEndpoint({ name: 'e' })).ipv4).toBe('10.1.0.7/24')
  })
})
