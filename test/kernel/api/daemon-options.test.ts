/** The options of `cnm serve`, which are dockerd's, by what they do to a host. */
import { readFileSync } from 'node:fs'
import { Controller, type Endpoint, type Sandbox, type Stack } from 'libcnm'
import { parseArgs } from '../../../lib/cli/args'
import { controllerInput, SERVE_OPTIONS } from '../../../lib/cli/serve-options'
import { closeServer, connectIn, outcome, readAll, serveIn } from '../ports/scene'
import { run, Scene } from './scene'

let scene: Scene
let controller: Controller | undefined
beforeEach(async () => {
  scene = await Scene.open()
})
afterEach(async () => {
  for (const sandbox of controller?.sandboxes() ?? []) await sandbox.delete({ force: true })
  await controller?.close()
  controller = undefined
  await scene.close()
})

async function open(...words: string[]): Promise<Controller> {
  const options = [
    '--name',
    'daemon-test',
    '--netns',
    scene.host.path ?? '',
    '--run-dir',
    `${scene.directory}/run`,
  ]
  const dataDir = words.some(word => word.startsWith('--data-dir')) ? [] : ['--data-dir=']
  controller = await Controller.open(
    controllerInput(parseArgs([...options, ...dataDir, ...words], SERVE_OPTIONS).values),
  )
  return controller
}

/** A container on a network. */
async function container(id: string, network = 'bridge', ports: string[] = []): Promise<[Sandbox, Endpoint]> {
  const sandbox = await (controller as Controller).createSandbox({ containerId: id })
  const endpoint = await (controller as Controller).network(network).createEndpoint({ name: id, ports })
  await endpoint.join(sandbox)
  return [sandbox, endpoint]
}

const addressesOf = async (stack: Stack, name: string) => {
  const link = await stack.link(name)
  return (await stack.addresses())
    .filter(address => address.link === link?.index)
    .map(({ address }) => address)
}
const defaults = async (sandbox: Sandbox) =>
  (await (sandbox.stack as Stack).routes())
    .filter(({ destination, family, table }) => destination === '0.0.0.0/0' && family === 4 && table === 254)
    .map(({ gateway }) => gateway)
const bare = (cidr = '') => cidr.replace(/\/.*/, '')
const ruleset = async () => (await run('nsenter', [`--net=${scene.host.path}`, 'nft', 'list', 'ruleset'])).out

const pings = async (from: Sandbox, address: string) =>
  (await run('nsenter', [`--net=${from.key}`, 'ping', '-c', '1', '-W', '1', address])).code === 0

test('--bridge --bip --fixed-cidr --default-gateway', async () => {
  await open(
    ...'--bridge br7 --bip 10.7.0.1/16 --fixed-cidr 10.7.9.0/24 --default-gateway 10.7.0.9'.split(' '),
  )
  expect(await addressesOf(scene.host, 'br7')).toContain('10.7.0.1/16')
  const [sandbox, endpoint] = await container('c1')
  expect(endpoint.ipv4).toMatch(/^10\.7\.9\.\d+\/16$/)
  expect(await defaults(sandbox)).toEqual(['10.7.0.9'])
})

test('--bridge none: no network of that kind; without it docker0 with an address from the pools', async () => {
  const dataDir = `--data-dir=${scene.directory}/data`
  await open(dataDir)
  expect(await addressesOf(scene.host, 'docker0')).toContain('172.17.0.1/16')
  await controller?.close()
  await open(dataDir, '--bip', '10.7.0.1/24')
  expect(await addressesOf(scene.host, 'docker0')).toContain('10.7.0.1/24')
  await container('c1')
  await controller?.close()
  await open(dataDir, '--bip', '10.8.0.1/24')
  // c1 is on it: it stays as it is
  expect(await addressesOf(scene.host, 'docker0')).toContain('10.7.0.1/24')
  await controller?.sandbox('c1').delete({ force: true })
  await controller?.close()
  await open(dataDir, '--bridge', 'none')
  expect(controller?.networks().map(({ name }) => name)).toEqual(['none', 'host'])
  expect(await scene.host.link('docker0')).toBeUndefined()
})

test('--ipv6 --bip6 --fixed-cidr-v6', async () => {
  await open(...'--ipv6 --bip6 fd00:7::1/64 --fixed-cidr-v6 fd00:7::/80 --bip 10.7.0.1/24'.split(' '))
  expect(await addressesOf(scene.host, 'docker0')).toContain('fd00:7::1/64')
  const [, endpoint] = await container('c1')
  expect(endpoint.ipv6).toBe('fd00:7::2/64')
})

test.each([
  ['true', true],
  ['false', false],
])('--icc=%s', async (value, reach) => {
  await open(`--icc=${value}`)
  const [one] = await container('c1')
  const [, two] = await container('c2')
  expect(await pings(one, bare(two.ipv4))).toBe(reach)
})

test('--ip-forward', async () => {
  const sysctl = () => scene.host.sysctl('net/ipv4/ip_forward')
  scene.host.setSysctls({ 'net/ipv4/ip_forward': '0' })
  await expect(open('--ip-forward=false')).rejects.toMatchObject({ code: 'ERR_FORWARDING' })
  expect(sysctl()).toBe('0')
  await open()
  expect(sysctl()).toBe('1')
})

test.each(['nftables', 'iptables', 'none'])('--firewall-backend %s', async backend => {
  await open('--firewall-backend', backend)
  const nft = await ruleset()
  const iptables = (await run('nsenter', [`--net=${scene.host.path}`, 'iptables-save'])).out
  expect(controller?.firewallBackend).toBe(backend)
  expect(/table inet daemon-test|table inet daemon_test/.test(nft)).toBe(backend === 'nftables')
  // Docker's names are for the usual controller; this one has another name.
  expect(/^:daemon-test-FORWARD /m.test(iptables)).toBe(backend === 'iptables')
})

test('--iptables=false: no rule is made', async () => {
  await open('--iptables=false')
  await container('c1', 'bridge', ['8080:80'])
  expect(await ruleset()).toBe('')
})

test.each([
  ['true', '192.0.2.1'],
  ['false', '172.17.0.2'],
])('--ip-masq=%s: a server outside sees %s', async (value, seen) => {
  await open(`--ip-masq=${value}`)
  await scene.lan.apply([{ op: 'addRoute', route: { destination: '172.17.0.0/16', gateway: '192.0.2.1' } }])
  const [sandbox] = await container('c1')
  const server = await serveIn(scene.lan, '192.0.2.2', 7000, socket =>
    socket.end(String(socket.remoteAddress)),
  )
  const client = connectIn(sandbox.stack as Stack, '192.0.2.2', 7000)
  expect((await readAll(client)).toString()).toBe(seen)
  client.destroy()
  await closeServer(server)
})

test('--mtu', async () => {
  await open('--mtu', '1400')
  const [sandbox] = await container('c1')
  expect((await sandbox.stack?.link('eth0'))?.mtu).toBe(1400)
  await controller?.createNetwork({ name: 'web', options: { mtu: 1300 } })
  const [other] = await container('c2', 'web')
  expect((await other.stack?.link('eth0'))?.mtu).toBe(1300)
})

test('--dns --dns-opt --dns-search', async () => {
  await open(...'--dns 192.0.2.53 --dns 192.0.2.54 --dns-opt ndots:3 --dns-search corp.example'.split(' '))
  const [sandbox] = await container('c1')
  const lines = readFileSync(sandbox.files?.resolvConf ?? '', 'utf8').split('\n')
  expect(lines).toEqual(
    expect.arrayContaining(['nameserver 192.0.2.53', 'nameserver 192.0.2.54', 'search corp.example']),
  )
  expect(lines.join('\n')).toMatch(/^options .*ndots:3/m)
})

test('--default-address-pool', async () => {
  await open(
    ...'--default-address-pool base=10.200.0.0/16,size=24 --default-address-pool size=28,base=10.201.0.0/27'.split(
      ' ',
    ),
  )
  await controller?.createNetwork({ name: 'web' })
  const subnets = controller
    ?.networks({ driver: 'bridge' })
    .flatMap(({ ipam }) => ipam.map(({ subnet }) => subnet))
  expect(subnets).toEqual(['10.200.0.0/24', '10.200.1.0/24'])
})

test.each([
  ['true', 'open'],
  ['false', 'ECONNREFUSED'],
])('--userland-proxy=%s: [::1] of the host is %s', async (value, expected) => {
  await open(`--userland-proxy=${value}`)
  const [sandbox] = await container('c1', 'bridge', ['8080:80'])
  const server = await serveIn(sandbox.stack as Stack, '0.0.0.0', 80, socket => socket.end('hello'))
  const socket = connectIn(scene.host, '::1', 8080)
  expect(await outcome(socket)).toBe(expected)
  socket.destroy()
  await closeServer(server)
})

test('--ip: published ports that name no address are on this one', async () => {
  await open('--ip', '192.0.2.1')
  const [, endpoint] = await container('c1', 'bridge', ['8080:80'])
  expect(endpoint.ports.map(({ hostIp, hostPort }) => [hostIp, hostPort])).toEqual([['192.0.2.1', 8080]])
})
