import { openNames, openResolver } from '../../../lib/dns/resolver'
import type { SandboxResolver } from '../../../lib/dns/contract'
import type { Stack } from '../../../lib/kernel/kernel'
import { Scene, view } from './scene'

const RESOLV_CONF = 'nameserver 127.0.0.11\noptions ndots:0\n'

describe('a resolver inside a sandbox', () => {
  let scene: Scene
  let stack: Stack
  let path: string
  let resolver: SandboxResolver
  const names = openNames()

  beforeAll(async () => {
    scene = await Scene.open()
    ;({ stack, path } = await scene.sandbox('box', 71))
    names.setNetwork('net1', { name: 'shop', internal: false, serves: true })
    names.setEndpoint({
      endpointId: 'e1',
      networkId: 'net1',
      networkName: 'shop',
      names: ['web', 'www', '0123456789ab'],
      ipv4: '10.9.0.2',
      ipv6: 'fd00:9::2',
    })
    names.setEndpoint({
      endpointId: 'e2',
      networkId: 'net1',
      networkName: 'shop',
      names: ['db'],
      ipv4: '10.9.0.3',
    })
    resolver = await openResolver({ names, stack, host: scene.host, view: view() })
  })
  afterAll(async () => {
    await resolver?.close()
    await scene?.close()
  })

  test('answers dig by UDP and by TCP', async () => {
    expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'web')).toBe('10.9.0.2\n')
    expect(await scene.run(path, 'dig', '+short', '+tcp', '@127.0.0.11', 'WEB.shop', 'AAAA')).toBe(
      'fd00:9::2\n',
    )
  })
})
