import type { SandboxResolver, Upstream } from '../../../lib/dns/contract'
import { openHostListener, openNames, openResolver } from '../../../lib/dns/resolver'
import type { Stack } from '../../../lib/kernel/kernel'
import { Scene, view } from './scene'

/** A real server upstream: dnsmasq, on the loopback of the host and on the host's side of the sandbox's link. */
describe('names of the world outside', () => {
  let scene: Scene
  let stack: Stack
  let path: string
  const onHost: Upstream = { address: '127.0.0.1', from: 'host' }
  const fromSandbox: Upstream = { address: '10.81.0.1', from: 'sandbox' }
  const names = openNames()

  beforeAll(async () => {
    scene = await Scene.open()
    ;({ stack, path } = await scene.sandbox('box', 81))
    await scene.host.apply([{ op: 'addAddress', link: 'v81', address: '10.81.0.53/24' }])
    const text = Array.from({ length: 8 }, (_, i) => String(i).repeat(240)).join(',')
    await scene.start(
      scene.hostPath,
      /started, version/,
      'dnsmasq',
      '--keep-in-foreground',
      '--log-facility=-',
      '--conf-file=/dev/null',
      '--user=root',
      '--pid-file=',
      '--no-resolv',
      '--no-hosts',
      '--bind-interfaces',
      '--listen-address=127.0.0.1,10.81.0.1',
      '--local=/test/',
      '--address=/www.test/198.51.100.7',
      '--address=/www.test/2001:db8::7',
      `--txt-record=big.test,${text}`,
      '--local-ttl=60',
    )
    names.setNetwork('net1', { name: 'shop', internal: false, serves: true })
  })
  afterAll(() => scene?.close())

  let resolver: SandboxResolver
  const open = async (upstreams: Upstream[], over: Parameters<typeof view>[0] = {}) => {
    resolver = await openResolver({ names, stack, host: scene.host, view: view({ upstreams, ...over }) })
  }
  afterEach(() => resolver?.close())
  const dig = (...args: string[]) => scene.run(path, 'dig', '@127.0.0.11', '+tries=1', '+timeout=6', ...args)

  test.each([
    ['from the host, whose loopback the sandbox cannot reach', onHost],
    ['from the sandbox', fromSandbox],
  ])('are asked %s, and kept', async (_, upstream) => {
    await open([upstream])
    expect(await dig('+short', 'www.test')).toBe('198.51.100.7\n')
    expect(await dig('+short', 'WWW.test', 'AAAA')).toBe('2001:db8::7\n')
    expect(await dig('+short', '+tcp', 'www.test')).toBe('198.51.100.7\n')
    expect(resolver.statistics()).toMatchObject({
      forwarded: 2,
      cached: 1,
      queries: 3,
      tcpQueries: 1,
      inFlight: 0,
    })
  })

  test('that do not exist are said not to', async () => {
    await open([onHost])
    expect(await dig('no.test')).toMatch(/status: NXDOMAIN/)
  })

  test('with answers too large for UDP are fetched by TCP, and given as the client can take them', async () => {
    await open([onHost])
    const whole = await dig('+noedns', 'big.test', 'TXT') // dig retries by TCP on its own
    expect(whole).toMatch(/Truncated, retrying in TCP/)
    expect(whole).toMatch(/7{240}/)
    expect(await dig('+ignore', '+noedns', 'big.test', 'TXT')).toMatch(/flags: qr[^;]* tc[^;]*;/)
    expect(await dig('+ignore', '+bufsize=4096', 'big.test', 'TXT')).toMatch(/7{240}/)
    expect(resolver.statistics()).toMatchObject({ forwarded: 1 })
  })

  test('are not asked for from an internal network', async () => {
    await open([onHost], { external: false })
    expect(await dig('leak.test')).toMatch(/status: SERVFAIL/)
    expect(resolver.statistics()).toMatchObject({ forwarded: 0, failed: 1, upstreams: [] })
    await resolver.close()
    await open([onHost, fromSandbox], { external: false })
    expect(await dig('+short', 'www.test')).toBe('198.51.100.7\n')
    expect(resolver.statistics().upstreams.map(({ from }) => from)).toEqual(['sandbox'])
  })

  test('come from the next server when the first is dead', async () => {
    await open([{ address: '10.81.0.77', from: 'sandbox' }, fromSandbox]) // nobody has that address
    const start = performance.now()
    expect(await dig('+short', 'www.test')).toBe('198.51.100.7\n')
    expect(performance.now() - start).toBeLessThan(3000)
  })

  test('are SERVFAIL when nobody listens there, and when nobody answers', async () => {
    await open([{ address: '10.81.0.53', port: 5353, from: 'sandbox' }])
    expect(await dig('www.test')).toMatch(/status: SERVFAIL/)
    await resolver.close()
    await open([{ address: '10.81.0.77', from: 'sandbox' }])
    expect(await dig('www.test')).toMatch(/status: SERVFAIL/)
  })

  test('come from other servers as soon as the sandbox has others', async () => {
    await open([{ address: '10.81.0.53', port: 5353, from: 'sandbox' }])
    expect(await dig('www.test')).toMatch(/status: SERVFAIL/)
    resolver.update(view({ upstreams: [fromSandbox] }))
    expect(await dig('+short', 'www.test')).toBe('198.51.100.7\n')
  })

  test('and those of our networks can be asked for on the host itself', async () => {
    names.setEndpoint({
      endpointId: 'e1',
      networkId: 'net1',
      networkName: 'shop',
      names: ['web'],
      ipv4: '10.9.0.2',
    })
    const listener = await openHostListener({ names, stack: scene.host, address: '127.0.0.54', port: 0 })
    const ask = (...args: string[]) =>
      scene.run(scene.hostPath, 'dig', '@127.0.0.54', '-p', String(listener.port), '+tries=1', ...args)
    expect(await ask('+short', 'web.shop')).toBe('10.9.0.2\n')
    expect(await ask('+short', '+tcp', '-x', '10.9.0.2')).toBe('web.shop.\n')
    expect(await ask('www.test')).toMatch(/status: REFUSED/)
    await listener.close()
    expect(await ask('web.shop')).toMatch(/refused|no servers/)
    const other = await openHostListener({
      names,
      stack: scene.host,
      address: '127.0.0.54',
      port: 53,
      networks: ['net2'],
      upstreams: [onHost],
    })
    expect(await scene.run(scene.hostPath, 'dig', '+short', '@127.0.0.54', 'www.test')).toBe('198.51.100.7\n')
    expect(await scene.run(scene.hostPath, 'dig', '@127.0.0.54', 'web.shop')).toMatch(
      /status: (REFUSED|NXDOMAIN)/,
    )
    await other.close()
  })
})
