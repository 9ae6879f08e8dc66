/** The real docker client against the API: each option of `docker network create`, and the other verbs. */
import { spawn } from 'node:child_process'
import { Controller } from 'libcnm'
import { type Api, createApi } from 'libcnm/api'
import { Scene, until } from './scene'

let scene: Scene
let controller: Controller
let api: Api
/** What this client knows: Debian 12 has 20.10, others newer ones. */
let knows: { ipv4: boolean; gwPriority: boolean }

beforeAll(async () => {
  scene = await Scene.open()
  controller = await Controller.open({
    name: 'docker-test',
    host: scene.host.path,
    runDir: `${scene.directory}/run`,
    predefined: true,
    addressPools: [{ base: '10.200.0.0/16', size: 24 }],
  })
  api = createApi(controller)
  await api.listen(scene.socket)
  const [create, connect] = await Promise.all([
    scene.docker('network', 'create', '--help'),
    scene.docker('network', 'connect', '--help'),
  ])
  knows = { ipv4: create.out.includes('--ipv4'), gwPriority: connect.out.includes('--gw-priority') }
})
afterAll(async () => {
  await api?.close()
  await controller?.close()
  await scene.close()
})
afterEach(async () => {
  for (const sandbox of controller.sandboxes()) await sandbox.delete({ force: true })
  for (const network of controller
    .networks({ type: 'custom' })
    .sort((a, b) => Number(a.configOnly) - Number(b.configOnly)))
    await network.delete()
  expect(await controller.check()).toEqual([])
})

const ok = async (...words: string[]): Promise<string> => {
  const { code, out, error } = await scene.docker(...words)
  expect([code, error]).toEqual([0, ''])
  return out.trim()
}
const refused = async (...words: string[]): Promise<string> => {
  const { code, error } = await scene.docker(...words)
  expect(code).toBe(1)
  return error.trim().replace(/\nexit status 1$/, '')
}
const inspect = async (name: string) => JSON.parse(await ok('network', 'inspect', name))[0]

test('version and info', async () => {
  expect(
    await ok('version', '--format', '{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}}'),
  ).toBe('1.48 1.24 linux')
  expect(await ok('info', '--format', '{{.Containers}} {{.Plugins.Network}}')).toMatch(/^0 \[.*bridge.*\]$/)
  expect((await scene.docker('info')).code).toBe(0)
})

test('ls, with every filter', async () => {
  const table = (await ok('network', 'ls')).split('\n')
  expect(table[0]).toMatch(/^NETWORK ID\s+NAME\s+DRIVER\s+SCOPE$/)
  expect(table.slice(1).map(line => line.split(/\s+/).slice(1).join(' '))).toEqual([
    'bridge bridge local',
    'host host local',
    'none null local',
  ])
  await ok('network', 'create', '--label', 'team=blue', 'web')
  const { id } = controller.network('web')
  const names = (...filters: string[]) =>
    ok('network', 'ls', '--format', '{{.Name}}', ...filters.flatMap(filter => ['--filter', filter]))
  expect(await names('driver=host')).toBe('host')
  expect(await names(`id=${id.slice(0, 12)}`)).toBe('web')
  expect(await names('label=team')).toBe('web')
  expect(await names('label=team=red')).toBe('')
  expect(await names('name=we')).toBe('web')
  expect(await names('name=host', 'name=none')).toBe('host\nnone')
  expect(await names('scope=swarm')).toBe('')
  expect(await names('type=custom')).toBe('web')
  expect(await names('type=builtin')).toBe('bridge\nhost\nnone')
  expect(await names('dangling=true')).toBe('web')
  expect(await ok('network', 'ls', '-q', '--no-trunc', '--filter', 'name=web')).toBe(id)
  expect(await refused('network', 'ls', '--filter', 'colour=red')).toMatch(/invalid filter 'colour'/)
})

describe('create', () => {
  test('--subnet --ip-range --gateway --aux-address', async () => {
    const id = await ok(
      ...'network create --subnet 10.10.0.0/24 --ip-range 10.10.0.128/25 --gateway 10.10.0.9 --aux-address router=10.10.0.129 web'.split(
        ' ',
      ),
    )
    expect(await inspect('web')).toMatchObject({
      Id: id,
      Driver: 'bridge',
      Scope: 'local',
      IPAM: {
        Driver: 'default',
        Options: {},
        Config: [
          {
            Subnet: '10.10.0.0/24',
            IPRange: '10.10.0.128/25',
            Gateway: '10.10.0.9',
            AuxiliaryAddresses: { router: '10.10.0.129' },
          },
        ],
      },
    })
    await controller.createSandbox({ containerId: 'c1' })
    await ok('network', 'connect', 'web', 'c1')
    expect((await inspect('web')).Containers.c1.IPv4Address).toBe('10.10.0.128/24')
    const bridge = (await scene.host.links()).find(({ name }) => name === `br-${id.slice(0, 12)}`)
    expect(
      (await scene.host.addresses())
        .filter(({ link }) => link === bridge?.index)
        .map(({ address }) => address),
    ).toContain('10.10.0.9/24')
  })

  test('--ipv6, --ipv4', async () => {
    await ok('network', 'create', '--ipv6', '--subnet', 'fd00:10::/64', 'six')
    expect(await inspect('six')).toMatchObject({ EnableIPv6: true })
    expect((await inspect('six')).IPAM.Config.map(({ Subnet }: { Subnet: string }) => Subnet)).toEqual([
      '10.200.1.0/24',
      'fd00:10::/64',
    ])
    if (knows.ipv4) {
      await ok('network', 'create', '--ipv4=false', '--ipv6', 'only')
      const { EnableIPv4, EnableIPv6, IPAM } = await inspect('only')
      expect([EnableIPv4, EnableIPv6, IPAM.Config.length]).toEqual([false, true, 1])
      expect(IPAM.Config[0].Subnet).toMatch(/^fd[0-9a-f:]+\/64$/)
    }
  })

  test('--internal: no way out', async () => {
    await ok('network', 'create', '--internal', 'web')
    expect(await inspect('web')).toMatchObject({ Internal: true })
    const sandbox = await controller.createSandbox({ containerId: 'c1' })
    await ok('network', 'connect', 'web', 'c1')
    expect((await sandbox.stack?.routes())?.filter(({ destination }) => destination === '0.0.0.0/0')).toEqual(
      [],
    )
  })

  test('--attachable --label --opt --driver --scope', async () => {
    await ok(
      ...'network create -d bridge --attachable --scope local --label a=b --label c -o com.docker.network.bridge.name=br-web -o com.docker.network.driver.mtu=1400 web'.split(
        ' ',
      ),
    )
    expect(await inspect('web')).toMatchObject({
      Driver: 'bridge',
      Attachable: true,
      Scope: 'local',
      Labels: { a: 'b', c: '' },
      Options: { 'com.docker.network.bridge.name': 'br-web', 'com.docker.network.driver.mtu': '1400' },
    })
    expect((await scene.host.link('br-web'))?.mtu).toBe(1400)
    const sandbox = await controller.createSandbox({ containerId: 'c1' })
    await ok('network', 'connect', 'web', 'c1')
    expect((await sandbox.stack?.link('eth0'))?.mtu).toBe(1400)
  })

  test('--ipam-driver --ipam-opt', async () => {
    await ok(
      ...'network create --ipam-driver default --ipam-opt com.docker.network.ipam.serial=true --subnet 10.10.0.0/24 web'.split(
        ' ',
      ),
    )
    expect((await inspect('web')).IPAM).toMatchObject({
      Driver: 'default',
      Options: { 'com.docker.network.ipam.serial': 'true' },
    })
    await controller.createSandbox({ containerId: 'c1' })
    const addresses: string[] = []
    for (let at = 0; at < 3; at++) {
      await ok('network', 'connect', 'web', 'c1')
      addresses.push((await inspect('web')).Containers.c1.IPv4Address)
      await ok('network', 'disconnect', 'web', 'c1')
    }
    expect(addresses).toEqual(['10.10.0.2/24', '10.10.0.3/24', '10.10.0.4/24'])
    expect(await refused('network', 'create', '--ipam-driver', 'null', 'bare')).toMatch(
      /0\.0\.0\.0\/0 is no subnet/,
    )
    expect(await refused('network', 'create', '--ipam-driver', 'nix', 'x')).toMatch(/nix/)
  })

  test('--config-only --config-from', async () => {
    await ok('network', 'create', '--config-only', '--subnet', '10.10.0.0/24', '--label', 'a=b', 'conf')
    expect(await inspect('conf')).toMatchObject({
      Driver: 'null',
      ConfigOnly: true,
      IPAM: { Config: [{ Subnet: '10.10.0.0/24' }] },
    })
    await ok('network', 'create', '--config-from', 'conf', 'web')
    expect(await inspect('web')).toMatchObject({
      ConfigFrom: { Network: 'conf' },
      ConfigOnly: false,
      Labels: { a: 'b' },
      IPAM: { Config: [{ Subnet: '10.10.0.0/24' }] },
    })
    expect(await refused('network', 'rm', 'conf')).toMatch(/configuration network "conf" is in use/)
    expect(await refused('network', 'create', '--config-from', 'nix', 'x')).toMatch(
      /configuration network "nix" does not exist/,
    )
    await controller.createSandbox({ containerId: 'c1' })
    expect(await refused('network', 'connect', 'conf', 'c1')).toMatch(/only holds configuration/)
  })

  test.each<[string, string[], RegExp]>([
    ['--ingress', ['--ingress', 'x'], /Ingress network can only be global scope network/],
    ['overlay', ['-d', 'overlay', 'x'], /This node is not a swarm manager/],
    [
      '--scope swarm',
      ['--scope', 'swarm', 'x'],
      /cannot create a swarm scoped network when swarm is not active/,
    ],
    [
      'a driver that is none',
      ['-d', 'nix', 'x'],
      /^Error response from daemon: plugin "nix" not found \(network driver "nix" is not registered/,
    ],
    ['predefined', ['bridge'], /operation is not permitted on predefined bridge network/],
    [
      'host bits',
      ['--subnet', '10.10.0.5/24', 'x'],
      /invalid network config:\s+invalid subnet 10\.10\.0\.5\/24: it should be 10\.10\.0\.0\/24/,
    ],
    [
      'an overlap with the host',
      ['--subnet', '192.0.2.0/24', 'x'],
      /Pool overlaps with other one on this address space \(.*192\.0\.2\.0\/24/,
    ],
    [
      'a bad option',
      ['-o', 'com.docker.network.driver.mtu=wide', 'x'],
      /^Error response from daemon: mtu: must be a whole number \(got "wide"\)$/,
    ],
  ])('refused: %s', async (_, words, message) => {
    expect(await refused('network', 'create', ...words)).toMatch(message)
    expect(controller.networks({ type: 'custom' })).toEqual([])
  })

  test('a name with a slash, as Docker takes it', async () => {
    const id = await ok('network', 'create', 'team/web')
    expect((await inspect('team/web')).Id).toBe(id)
    await controller.createSandbox({ containerId: 'c1' })
    await ok('network', 'connect', 'team/web', 'c1')
    await ok('network', 'disconnect', 'team/web', 'c1')
    expect(await ok('network', 'rm', 'team/web')).toBe('team/web')
  })

  test('a taken name', async () => {
    await ok('network', 'create', 'web')
    expect(await refused('network', 'create', 'web')).toBe(
      'Error response from daemon: network with name web already exists',
    )
  })
})

test('connect with every option, disconnect', async () => {
  await ok('network', 'create', '--ipv6', '--subnet', '10.10.0.0/24', '--subnet', 'fd00:10::/64', 'web')
  await ok('network', 'create', '--subnet', '10.20.0.0/24', 'db')
  const sandbox = await controller.createSandbox({ containerId: 'c1' })
  await controller.createSandbox({ containerId: 'c2' })
  await ok('network', 'connect', 'web', 'c2')
  await ok(
    ...'network connect --ip 10.10.0.77 --ip6 fd00:10::77 --alias api --alias www --link c2:store --link-local-ip 169.254.7.7 --driver-opt com.docker.network.endpoint.ifname=lan0 --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.arp_notify=1 web c1'.split(
      ' ',
    ),
  )
  const { Containers } = await inspect('web')
  expect(Containers.c1).toMatchObject({
    Name: 'c1',
    IPv4Address: '10.10.0.77/24',
    IPv6Address: 'fd00:10::77/64',
  })
  expect(sandbox.endpoints()[0]?.interfaceName).toBe('lan0')
  expect(sandbox.stack?.sysctl('net/ipv4/conf/lan0/arp_notify')).toBe('1')
  expect((await sandbox.stack?.addresses())?.map(({ address }) => address)).toContain('169.254.7.7/16')
  const other = controller.sandbox('c2')
  for (const name of ['c1', 'api', 'www']) expect(await other.resolveName(name, 4)).toEqual(['10.10.0.77'])
  expect(await sandbox.resolveName('store', 4)).toEqual([expect.stringMatching(/^10\.10\.0\./)])
  await ok('network', 'connect', ...(knows.gwPriority ? ['--gw-priority', '10'] : []), 'db', 'c1')
  if (knows.gwPriority) expect(sandbox.gateway.ipv4?.network.name).toBe('db')
  expect(await refused('network', 'connect', 'db', 'c1')).toMatch(
    /endpoint with name c1 already exists in network db/,
  )
  expect(await refused('network', 'connect', '--ip', '10.99.0.1', 'db', 'c2')).toMatch(
    /no configured subnet contains IP address 10\.99\.0\.1/,
  )
  expect(await refused('network', 'connect', 'host', 'c2')).toMatch(
    /container must be created in host network mode/,
  )
  expect(await refused('network', 'rm', 'web')).toMatch(/network web has active endpoints/)
  await ok('network', 'disconnect', 'web', 'c1')
  expect(await refused('network', 'disconnect', 'web', 'c1')).toMatch(/is not connected to network web/)
  expect(await refused('network', 'disconnect', 'web', 'nix')).toMatch(/No such container: nix/)
  await ok('network', 'disconnect', '-f', 'web', 'c2')
})

test('rm of several: each is told', async () => {
  await ok('network', 'create', 'a')
  await ok('network', 'create', 'b')
  const { code, out, error } = await scene.docker('network', 'rm', 'a', 'nix', 'host', 'b')
  expect([code, out]).toEqual([1, 'a\nb\n'])
  expect(error).toMatch(/network nix not found|No such network: nix/)
  expect(error).toMatch(/host is a pre-defined network and cannot be removed/)
})

test('prune', async () => {
  await ok('network', 'create', '--label', 'keep', 'a')
  await ok('network', 'create', 'b')
  expect(await ok('network', 'prune', '-f', '--filter', 'until=10m')).toBe('')
  expect(await ok('network', 'prune', '-f', '--filter', 'label!=keep')).toBe('Deleted Networks:\nb')
  expect(await ok('network', 'prune', '-f')).toBe('Deleted Networks:\na')
})

test('inspect: formats, prefixes, what is not there', async () => {
  const id = await ok('network', 'create', '--subnet', '10.10.0.0/24', 'web')
  expect(
    await ok(
      'network',
      'inspect',
      '--verbose',
      '-f',
      '{{.ID}} {{range .IPAM.Config}}{{.Gateway}}{{end}}',
      id.slice(0, 10),
    ),
  ).toBe(`${id} 10.10.0.1`)
  const { code, out, error } = await scene.docker('network', 'inspect', 'web', 'nix')
  expect(code).toBe(1)
  expect(JSON.parse(out)).toHaveLength(1)
  expect(error).toMatch(/network nix not found|No such network: nix/)
})

test('events', async () => {
  const env = {
    PATH: process.env.PATH,
    HOME: scene.directory,
    DOCKER_CONFIG: `${scene.directory}/docker-config`,
  }
  const words = [
    '-H',
    `unix://${scene.socket}`,
    'events',
    '--filter',
    'type=network',
    '--format',
    '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.container}}',
  ]
  const child = spawn('docker', words, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  let seen = ''
  child.stdout.setEncoding('utf8').on('data', text => {
    seen += text
  })
  const closed = new Promise(resolve => child.once('close', resolve))
  try {
    // The client takes a moment to ask: something happens until it hears of it.
    await until(async () => {
      await (await controller.createNetwork({ name: 'hello' })).delete()
      return seen.includes('destroy hello')
    }, 'first event')
    await controller.createSandbox({ containerId: 'c1' })
    await ok('network', 'create', 'web')
    await ok('network', 'connect', 'web', 'c1')
    await ok('network', 'disconnect', 'web', 'c1')
    await ok('network', 'rm', 'web')
    await until(() => seen.includes('destroy web'), 'last event')
  } finally {
    child.kill('SIGTERM')
    await closed
  }
  const about = seen.split('\n').filter(line => line.includes(' web '))
  expect(about).toEqual([
    'create web <no value>',
    'connect web c1',
    'disconnect web c1',
    'destroy web <no value>',
  ])
})
