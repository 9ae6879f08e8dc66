/** The plugin server before the real Docker Engine: networks and containers of docker on drivers of ours. */
import { join } from 'node:path'
import { bridge, macvlan, type PluginServer, serveDriver, serveIpamDriver } from 'libcnm'
import { DefaultIpamDriver } from '../../../lib/ipam/default'
import { routed } from '../../../examples/custom-driver/driver'
import { Dockerd } from '../../support/dockerd'
import { makeHost, type TestHost } from '../../support/host'

let host: TestHost
let engine: Dockerd
const servers: PluginServer[] = []

beforeAll(async () => {
  host = await makeHost()
  engine = new Dockerd(join(host.directory, 'docker'), host.path)
  const at = (name: string) => ({
    socket: join(engine.plugins, `${name}.sock`),
    kernel: host.kernel,
    host: host.path,
  })
  servers.push(await serveDriver(routed(), at('routed')))
  servers.push(await serveDriver(bridge(), at('cnm-bridge')))
  servers.push(await serveDriver(macvlan(), at('cnm-macvlan')))
  servers.push(
    await serveIpamDriver(new DefaultIpamDriver(), { socket: join(engine.plugins, 'cnm-ipam.sock') }),
  )
  await engine.started()
  await engine.image('box')
}, 120_000)

afterAll(async () => {
  await engine?.close()
  for (const server of servers) await server.close()
  await host?.close()
})

const docker = (...words: string[]) => engine.docker(...words)

test.each([
  ['routed', '10.5.0.0/24', '10.5.0.1', []],
  ['cnm-bridge', '10.6.0.0/24', '10.6.0.1', ['-o', 'mtu=1400', '--ipam-driver', 'cnm-ipam']],
])('%s: docker network create, containers, and their traffic', async (driver, subnet, gateway, more) => {
  const before = await host.snapshot()
  await docker('network', 'create', '-d', driver, '--subnet', subnet, '--gateway', gateway, ...more, 'mine')
  expect(JSON.parse(await docker('network', 'inspect', 'mine'))).toMatchObject([
    { Driver: driver, Scope: 'local' },
  ])
  await docker('run', '-d', '--rm', '--name', 'c1', '--network', 'mine', 'box', 'sleep', '600')
  await docker('run', '-d', '--rm', '--name', 'c2', '--network', 'mine', 'box', 'sleep', '600')
  const address = async (name: string) =>
    docker('inspect', '-f', '{{.NetworkSettings.Networks.mine.IPAddress}}', name)
  expect(await docker('exec', 'c1', 'ping', '-c', '1', '-W', '8', await address('c2'))).toContain(
    '1 packets received',
  )
  expect(await docker('exec', 'c1', 'ping', '-c', '1', '-W', '8', gateway)).toContain('1 packets received')
  expect(await host.ping(host.host, await address('c1'))).toBe(true)
  await docker('network', 'disconnect', 'mine', 'c2')
  expect(await docker('exec', 'c2', 'ip', 'link')).not.toContain('eth0')
  await docker('network', 'connect', 'mine', 'c2')
  expect(await docker('exec', 'c2', 'ping', '-c', '1', '-W', '8', await address('c1'))).toContain(
    '1 packets received',
  )
  await docker('kill', 'c1', 'c2')
  for (let tries = 0; tries < 50 && (await docker('ps', '-aq')) !== ''; tries++)
    await new Promise(resolve => setTimeout(resolve, 100))
  await docker('network', 'rm', 'mine')
  await host.assertAs(before, ['sysctls', 'files', 'nft', 'sockets', 'mounts'])
})

test('a refusal of ours reaches the user of docker', async () => {
  await expect(
    docker('network', 'create', '-d', 'cnm-macvlan', '--subnet', '10.7.0.0/24', '-o', 'parent=lo', 'bad'),
  ).rejects.toThrow(/loopback interface lo is not a valid parent/)
  await expect(docker('network', 'create', '-d', 'cnm-bridge', '-o', 'mode=x', 'bad')).rejects.toThrow(/mode/)
  expect(await docker('network', 'ls', '-q', '--filter', 'name=bad')).toBe('')
})
