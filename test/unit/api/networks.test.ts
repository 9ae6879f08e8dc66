/** The network routes, over a real socket, on the mocked kernel. */
import { serve, type Served } from './scene'

let served: Served
const ask: Served['ask'] = (...words) => served.ask(...words)
beforeEach(async () => {
  served = await serve()
})
afterEach(() => served.close())

const create = (body: object, path = '/v1.48/networks/create') => ask('POST', path, body)

test('create answers 201 with the id; inspect shows what Docker shows, in its order', async () => {
  const made = await create({
    Name: 'web',
    Driver: 'bridge',
    EnableIPv6: true,
    IPAM: {
      Driver: 'default',
      Options: {},
      Config: [
        { Subnet: '10.10.0.0/24', IPRange: '10.10.0.128/25', AuxiliaryAddresses: { router: '10.10.0.2' } },
        { Subnet: 'fd00:10::/64', Gateway: 'fd00:10::9' },
      ],
    },
    Attachable: true,
    Options: { 'com.docker.network.driver.mtu': '1400' },
    Labels: { team: 'blue' },
  })
  expect(made.status).toBe(201)
  expect(made.json).toEqual({ Id: expect.stringMatching(/^[0-9a-f]{64}$/), Warning: '' })
  const { json } = await ask('GET', '/v1.48/networks/web')
  expect(json).toEqual({
    Name: 'web',
    Id: made.json.Id,
    Created: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    Scope: 'local',
    Driver: 'bridge',
    EnableIPv4: true,
    EnableIPv6: true,
    IPAM: {
      Driver: 'default',
      Options: {},
      Config: [
        {
          Subnet: '10.10.0.0/24',
          IPRange: '10.10.0.128/25',
          Gateway: expect.stringMatching(/^10\.10\.0\./),
          AuxiliaryAddresses: { router: '10.10.0.2' },
        },
        { Subnet: 'fd00:10::/64', Gateway: 'fd00:10::9' },
      ],
    },
    Internal: false,
    Attachable: true,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: {},
    Options: { 'com.docker.network.driver.mtu': '1400' },
    Labels: { team: 'blue' },
  })
  expect(Object.keys(json)).toEqual(
    'Name Id Created Scope Driver EnableIPv4 EnableIPv6 IPAM Internal Attachable Ingress ConfigFrom ConfigOnly Containers Options Labels'.split(
      ' ',
    ),
  )
})

test('EnableIPv4 appears from API 1.48 on', async () => {
  expect((await ask('GET', '/v1.47/networks/bridge')).json).not.toHaveProperty('EnableIPv4')
  expect((await ask('GET', '/v1.48/networks/bridge')).json).toHaveProperty('EnableIPv4', true)
  expect((await ask('GET', '/networks/bridge')).json).toHaveProperty('EnableIPv4', true)
})

test('a network of the controller’s choice shows the pool it got', async () => {
  await create({ Name: 'auto' })
  const { json } = await ask('GET', '/networks/auto')
  expect(json.IPAM.Config).toEqual([
    { Subnet: expect.stringMatching(/^172\.\d+\.0\.0\/16$/), Gateway: expect.stringMatching(/\.0\.1$/) },
  ])
  expect(json.EnableIPv6).toBe(false)
  for (const name of ['host', 'none'])
    expect((await ask('GET', `/networks/${name}`)).json.IPAM).toEqual({
      Driver: 'default',
      Options: null,
      Config: null,
    })
})

test('options of address management are told as they were given: not at all, none, some', async () => {
  const of = async (IPAM: object | undefined) => {
    await create({ Name: 'x', IPAM })
    const list = (await ask('GET', '/networks')).json as { Name: string; IPAM: object }[]
    const { json } = await ask('GET', '/networks/x')
    expect(list.find(({ Name }) => Name === 'x')?.IPAM).toEqual(json.IPAM)
    await ask('DELETE', '/networks/x')
    return json.IPAM.Options
  }
  for (const none of [undefined, {}, { Driver: 'default', Config: [] }, { Options: null }])
    expect(await of(none)).toBeNull()
  expect(await of({ Options: {} })).toEqual({})
  expect(await of({ Options: { foo: 'bar' } })).toEqual({ foo: 'bar' })
  await create({ Name: 'conf', ConfigOnly: true })
  expect((await ask('GET', '/networks/conf')).json.IPAM).toEqual({
    Driver: 'default',
    Options: null,
    Config: null,
  })
})

test('maps are in order, and the bridge of the daemon shows what the daemon gave it', async () => {
  await create({ Name: 'x', Labels: { b: '1', a: '2' }, Options: { 'z.z': '1', 'a.a': '2' } })
  const { Labels, Options } = (await ask('GET', '/networks/x')).json
  expect([Object.keys(Labels), Object.keys(Options)]).toEqual([
    ['a', 'b'],
    ['a.a', 'z.z'],
  ])
  const bridge = (await ask('GET', '/networks/bridge')).json
  expect(Object.entries(bridge.Options)).toEqual([
    ['com.docker.network.bridge.default_bridge', 'true'],
    ['com.docker.network.bridge.enable_icc', 'true'],
    ['com.docker.network.bridge.enable_ip_masquerade', 'true'],
    ['com.docker.network.bridge.host_binding_ipv4', '0.0.0.0'],
    ['com.docker.network.bridge.name', 'docker0'],
    ['com.docker.network.driver.mtu', '1500'],
  ])
})

test('ids, prefixes and names; a slash is a letter of a name', async () => {
  const { Id } = (await create({ Name: 'web' })).json
  for (const term of [Id, Id.slice(0, 12), 'web'])
    expect((await ask('GET', `/networks/${term}`)).json.Id).toBe(Id)
  expect((await ask('GET', '/networks/web/')).json).toEqual({ message: 'network web/ not found' })
  await served.controller.createSandbox({ containerId: 'c1', files: false })
  for (const name of ['a/b', '/', 'web/', 'x/connect', '../web']) {
    expect((await create({ Name: name })).status).toBe(201)
    expect((await ask('GET', `/networks/${encodeURIComponent(name)}`)).json.Name).toBe(name)
    const path = `/networks/${name}`
    if (name !== '/') expect((await ask('GET', path)).json.Name).toBe(name)
    for (const verb of ['connect', 'disconnect'])
      expect((await ask('POST', `${path}/${verb}`, { Container: 'c1' })).status).toBe(200)
    expect((await ask('DELETE', path)).status).toBe(204)
  }
  expect((await ask('GET', '/networks/a/b%2Fc')).json).toEqual({ message: 'network a/b/c not found' })
  expect((await ask('GET', '/networks/nix')).status).toBe(404)
  expect((await ask('GET', '/networks/web?scope=swarm')).status).toBe(404)
  expect((await ask('GET', '/networks/web?scope=local&verbose=true')).status).toBe(200)
  expect((await ask('GET', '/networks/web?verbose=perhaps')).json.message).toMatch(
    /^invalid value for verbose: perhaps/,
  )
})

test('an ambiguous prefix', async () => {
  await served.controller.createNetwork({ name: 'a', id: `abc${'0'.repeat(61)}` })
  await served.controller.createNetwork({ name: 'b', id: `abc${'1'.repeat(61)}` })
  const { status, json } = await ask('GET', '/networks/abc')
  expect(status).toBe(400)
  expect(json.message).toMatch(/^network abc is ambiguous \(2 matches found/)
})

describe('refusals', () => {
  test.each<[string, object, number, RegExp]>([
    ['no name', {}, 400, /^invalid name: name is empty$/],
    ['a blank name', { Name: '  ' }, 400, /^invalid name: name is empty$/],
    ['predefined', { Name: 'host' }, 403, /^operation is not permitted on predefined host network $/],
    [
      'no such driver',
      { Name: 'x', Driver: 'nix' },
      404,
      /^plugin "nix" not found \(network driver "nix" is not/,
    ],
    [
      'no such IPAM driver',
      { Name: 'x', IPAM: { Driver: 'nix' } },
      404,
      /^plugin "nix" not found \(IPAM driver/,
    ],
    ['a long name', { Name: 'x'.repeat(256) }, 400, /^name: must have at most 255 characters/],
    ['overlay', { Name: 'x', Driver: 'overlay' }, 403, /^This node is not a swarm manager/],
    ['ingress', { Name: 'x', Ingress: true }, 403, /^Ingress network can only be global scope network$/],
    ['scope', { Name: 'x', Scope: 'galaxy' }, 400, /^invalid scope "galaxy"/],
    [
      'another host network',
      { Name: 'x', Driver: 'host' },
      403,
      /^only one instance of "host" network is allowed$/,
    ],
    [
      'no configuration',
      { Name: 'x', ConfigFrom: { Network: 'nix' } },
      404,
      /^configuration network "nix" does not exist$/,
    ],
    [
      'an option that is none',
      { Name: 'x', Options: { 'com.docker.network.driver.mtu': 'wide' } },
      400,
      /mtu/,
    ],
    ['taken name', { Name: 'web' }, 409, /^network with name web already exists$/],
    [
      'overlap',
      { Name: 'x', IPAM: { Config: [{ Subnet: '10.10.0.0/16' }] } },
      403,
      /^invalid pool request: Pool overlaps with other one on this address space \(.*10\.10\.0\.0\/24/,
    ],
  ])('%s', async (_, body, status, message) => {
    await create({ Name: 'web', IPAM: { Config: [{ Subnet: '10.10.0.0/24' }] } })
    const before = served.kernel.snapshot()
    const answer = await create(body)
    expect([answer.status, answer.json.message]).toEqual([status, expect.stringMatching(message)])
    expect(served.kernel.snapshot()).toEqual(before)
  })

  test('every fault of an IPAM configuration at once', async () => {
    const { status, json } = await create({
      Name: 'x',
      IPAM: {
        Config: [
          {
            Subnet: '10.10.0.5/24',
            IPRange: '10.10.1.0/25',
            Gateway: '10.11.0.1',
            AuxiliaryAddresses: { a: 'fd00::1' },
          },
          { Subnet: 'nix' },
          { Subnet: '10.20.0.0/24', IPRange: '10.20.0.0/16' },
          { Subnet: '10.30.0.0/24', IPRange: 'fd00::/64', Gateway: 'door' },
          { Subnet: '10.40.0.0/24', IPRange: '10.40.0.9/29' },
          { Subnet: 'fd00::9/64' },
        ],
      },
    })
    expect(status).toBe(400)
    expect(json.message.split('\n')).toEqual([
      'invalid network config:',
      'invalid subnet 10.10.0.5/24: it should be 10.10.0.0/24',
      "invalid ip-range 10.10.1.0/25: parent subnet 10.10.0.5/24 doesn't contain ip-range",
      "invalid gateway 10.11.0.1: parent subnet 10.10.0.5/24 doesn't contain this address",
      'invalid auxiliary address a: parent subnet is an IPv4 block',
      'invalid subnet nix: invalid CIDR block notation',
      'invalid ip-range 10.20.0.0/16: CIDR block is bigger than its parent subnet 10.20.0.0/24',
      'invalid ip-range fd00::/64: parent subnet is an IPv4 block',
      'invalid gateway door: invalid address',
      'invalid ip-range 10.40.0.9/29: it should be 10.40.0.8/29',
    ])
  })
})

test('IPv6 subnets do not count while IPv6 is off, nor IPv4 ones while IPv4 is', async () => {
  const Config = [{ Subnet: '10.10.0.0/24' }, { Subnet: 'fd00:10::/64' }]
  await create({ Name: 'four', IPAM: { Config } })
  expect((await ask('GET', '/networks/four')).json).toMatchObject({
    EnableIPv6: false,
    IPAM: { Config: [{ Subnet: '10.10.0.0/24' }] },
  })
  await create({ Name: 'six', EnableIPv4: false, EnableIPv6: true, IPAM: { Config } })
  expect((await ask('GET', '/networks/six')).json).toMatchObject({
    EnableIPv4: false,
    EnableIPv6: true,
    IPAM: { Config: [{ Subnet: 'fd00:10::/64' }] },
  })
  await create({ Name: 'labelled', Options: { 'com.docker.network.enable_ipv6': 'true' } })
  expect((await ask('GET', '/networks/labelled')).json.EnableIPv6).toBe(true)
})

test('a configuration network and one made from it', async () => {
  await create({
    Name: 'conf',
    ConfigOnly: true,
    IPAM: { Config: [{ Subnet: '10.10.0.0/24', Gateway: '10.10.0.254' }] },
    Labels: { a: 'b' },
  })
  expect((await ask('GET', '/networks/conf')).json).toMatchObject({
    Driver: 'null',
    ConfigOnly: true,
    IPAM: { Config: [{ Subnet: '10.10.0.0/24', Gateway: '10.10.0.254' }] },
  })
  // as the docker client says it: empty lists and maps, EnableIPv6 absent
  const made = await create({
    Name: 'web',
    Driver: 'bridge',
    IPAM: { Driver: 'default', Options: {}, Config: [] },
    ConfigFrom: { Network: 'conf' },
    Options: {},
    Labels: {},
  })
  expect(made.status).toBe(201)
  expect((await ask('GET', '/networks/web')).json).toMatchObject({
    Driver: 'bridge',
    ConfigFrom: { Network: 'conf' },
    IPAM: { Config: [{ Subnet: '10.10.0.0/24', Gateway: '10.10.0.254' }] },
    Labels: { a: 'b' },
  })
  const refused = await ask('DELETE', '/networks/conf')
  expect([refused.status, refused.json.message]).toEqual([
    403,
    'error while removing network: configuration network "conf" is in use by web',
  ])
})

test('delete: 204, 403 for predefined and used ones, 404', async () => {
  await create({ Name: 'web' })
  const sandbox = await served.controller.createSandbox({ containerId: 'c1', files: false })
  await (await served.controller.network('web').createEndpoint({ name: 'c1' })).join(sandbox)
  const used = await ask('DELETE', '/networks/web')
  expect([used.status, used.json.message]).toEqual([
    403,
    expect.stringMatching(
      /^error while removing network: network web has active endpoints \(name:"c1" id:"[0-9a-f]{12}"\)$/,
    ),
  ])
  await sandbox.delete()
  const gone = await ask('DELETE', '/networks/web')
  expect([gone.status, gone.text]).toEqual([204, ''])
  expect((await ask('DELETE', '/networks/web')).status).toBe(404)
  const predefined = await ask('DELETE', '/networks/bridge')
  expect([predefined.status, predefined.json.message]).toEqual([
    403,
    'bridge is a pre-defined network and cannot be removed',
  ])
})

describe('list', () => {
  const names = async (filters: unknown) => {
    const { status, json } = await ask(
      'GET',
      `/networks?filters=${encodeURIComponent(JSON.stringify(filters))}`,
    )
    expect(status).toBe(200)
    return json.map(({ Name }: { Name: string }) => Name).sort()
  }

  test('filters in both forms', async () => {
    await create({ Name: 'web', Labels: { team: 'blue', tier: 'front' } })
    await create({ Name: 'db', Labels: { team: 'blue' }, Internal: true })
    expect(await names({})).toEqual(['bridge', 'db', 'host', 'none', 'web'])
    expect(await names({ name: { web: true } })).toEqual(['web'])
    expect(await names({ name: ['web', 'db'] })).toEqual(['db', 'web'])
    expect(await names({ name: { '^b': true } })).toEqual(['bridge'])
    expect(await names({ driver: ['host', 'null'] })).toEqual(['host', 'none'])
    expect(await names({ label: { team: true } })).toEqual(['db', 'web'])
    expect(await names({ label: { 'team=blue': true, tier: true } })).toEqual(['web'])
    expect(await names({ type: ['builtin'] })).toEqual(['bridge', 'host', 'none'])
    expect(await names({ type: ['custom'], scope: ['local'] })).toEqual(['db', 'web'])
    expect(await names({ dangling: ['true'] })).toEqual(['db', 'web'])
    expect(await names({ dangling: { '0': true } })).toEqual(['bridge', 'host', 'none'])
    expect(await names({ id: [served.controller.network('db').id.slice(0, 10)] })).toEqual(['db'])
  })

  test('filters that are null are none', async () => {
    expect((await ask('GET', '/networks?filters=null')).json).toHaveLength(3)
  })

  test.each<[string, string, RegExp]>([
    ['unknown key', '{"colour":["red"]}', /^invalid filter 'colour'$/],
    ['no JSON', '{', /^invalid filter: /],
    ['a list', '[]', /^invalid filter: must be an object$/],
    ['wrong values', '{"name":7}', /^invalid filter: values of "name"/],
    ['wrong flags', '{"name":{"a":1}}', /^invalid filter: values of "name"/],
    ['dangling twice', '{"dangling":["true","false"]}', /^invalid filter 'dangling=true,false'$/],
    ['dangling like a member of every object', '{"dangling":["constructor"]}', /^invalid filter 'dangling=/],
    ['dangling perhaps', '{"dangling":["perhaps"]}', /^invalid filter 'dangling=perhaps'$/],
    ['type', '{"type":["weird"]}', /^invalid filter 'type=weird'$/],
  ])('refused: %s', async (_, filters, message) => {
    const { status, json } = await ask('GET', `/networks?filters=${encodeURIComponent(filters)}`)
    expect([status, json.message]).toEqual([400, expect.stringMatching(message)])
  })

  test('shows containers to clients before 1.28 only', async () => {
    await create({ Name: 'web' })
    const sandbox = await served.controller.createSandbox({ containerId: 'c1', files: false })
    await (await served.controller.network('web').createEndpoint({ name: 'c1' })).join(sandbox)
    const seen = async (version: string) =>
      (await ask('GET', `/v${version}/networks?filters={"name":["web"]}`)).json[0].Containers
    expect(Object.keys(await seen('1.27'))).toEqual(['c1'])
    expect(await seen('1.28')).toEqual({})
  })
})

test('prune', async () => {
  for (const [Name, Labels] of [
    ['a', { keep: 'no' }],
    ['b', { keep: 'yes' }],
    ['c', {}],
  ] as const)
    await create({ Name, Labels })
  const prune = async (filters: object) =>
    (await ask('POST', `/networks/prune?filters=${encodeURIComponent(JSON.stringify(filters))}`)).json
  expect(await prune({ until: ['1h'] })).toEqual({ NetworksDeleted: null })
  expect(await prune({ label: { 'keep=no': true } })).toEqual({ NetworksDeleted: ['a'] })
  expect(await prune({ 'label!': ['keep'] })).toEqual({ NetworksDeleted: ['c'] })
  expect(await prune({ nix: ['1'] })).toEqual({ message: "invalid filter 'nix'" })
  expect(await prune({ until: ['tomorrow'] })).toEqual({ message: 'invalid time "tomorrow"' })
  expect(await prune({ until: ['1h', '2h'] })).toEqual({ message: 'more than one until filter specified' })
  expect(await prune({})).toEqual({ NetworksDeleted: ['b'] })
})

describe('connect and disconnect', () => {
  const connect = (network: string, body: object) => ask('POST', `/networks/${network}/connect`, body)
  const disconnect = (network: string, body: object) => ask('POST', `/networks/${network}/disconnect`, body)

  beforeEach(async () => {
    await create({ Name: 'web', IPAM: { Config: [{ Subnet: '10.10.0.0/24' }] } })
    await served.controller.createSandbox({ containerId: 'c1', files: false })
  })

  test('a container comes and goes', async () => {
    const joined = await connect('web', {
      Container: 'c1',
      EndpointConfig: {
        IPAMConfig: { IPv4Address: '10.10.0.77' },
        Aliases: ['api'],
        MacAddress: '02:00:00:00:00:77',
        DriverOpts: { 'com.docker.network.endpoint.ifname': 'lan7' },
        GwPriority: 5,
      },
    })
    expect([joined.status, joined.text]).toEqual([200, ''])
    const endpoint = served.controller.sandbox('c1').endpoints()[0]
    expect(endpoint?.interfaceName).toBe('lan7')
    expect(endpoint?.inspect().aliases).toEqual(['api'])
    expect(endpoint?.inspect().sandbox?.priority).toBe(5)
    expect((await ask('GET', '/networks/web')).json.Containers).toEqual({
      c1: {
        Name: 'c1',
        EndpointID: endpoint?.id,
        MacAddress: '02:00:00:00:00:77',
        IPv4Address: '10.10.0.77/24',
        IPv6Address: '',
      },
    })
    expect((await disconnect('web', { Container: 'c1' })).status).toBe(200)
    expect((await ask('GET', '/networks/web')).json.Containers).toEqual({})
    const again = await disconnect('web', { Container: 'c1' })
    expect([again.status, again.json.message]).toEqual([500, 'container c1 is not connected to network web'])
  })

  test('an endpoint in no sandbox has a key of its own; force removes it', async () => {
    const { id } = await served.controller.network('web').createEndpoint({ name: 'lonely' })
    expect(Object.keys((await ask('GET', '/networks/web')).json.Containers)).toEqual([`ep-${id}`])
    expect((await disconnect('web', { Container: 'lonely' })).json.message).toBe('No such container: lonely')
    expect((await disconnect('web', { Container: 'lonely', Force: true })).status).toBe(200)
    expect((await disconnect('web', { Container: 'lonely', Force: true })).status).toBe(404)
  })

  test.each<[string, string, object, number, RegExp]>([
    ['no container', 'web', { Container: 'nix' }, 404, /^No such container: nix$/],
    ['no name', 'web', {}, 400, /^invalid name or ID supplied: ""$/],
    ['no network', 'nix', { Container: 'c1' }, 404, /^network nix not found$/],
    [
      'host',
      'host',
      { Container: 'c1' },
      400,
      /^cannot connect container to host network - container must be/,
    ],
    [
      'an address on the default bridge',
      'bridge',
      { Container: 'c1', EndpointConfig: { IPAMConfig: { IPv4Address: '172.17.0.9' } } },
      400,
      /^invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only$/,
    ],
    [
      'an alias on the default bridge',
      'bridge',
      { Container: 'c1', EndpointConfig: { Aliases: ['x'] } },
      400,
      /^invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks$/,
    ],
    [
      'an address outside',
      'web',
      { Container: 'c1', EndpointConfig: { IPAMConfig: { IPv4Address: '10.11.0.1' } } },
      400,
      /^invalid endpoint settings:\nno configured subnet contains IP address 10\.11\.0\.1$/,
    ],
    [
      'addresses that are none',
      'web',
      { Container: 'c1', EndpointConfig: { IPAMConfig: { IPv4Address: 'x', IPv6Address: '1.2.3.4' } } },
      400,
      /^invalid endpoint settings:\ninvalid IPv4 address: x\ninvalid IPv6 address: 1\.2\.3\.4$/,
    ],
    [
      'the gateway',
      'web',
      { Container: 'c1', EndpointConfig: { IPAMConfig: { IPv4Address: '10.10.0.1' } } },
      403,
      /^Address already in use/,
    ],
    [
      'a MAC that is none',
      'web',
      { Container: 'c1', EndpointConfig: { MacAddress: 'x' } },
      400,
      /MAC|mac|octets/,
    ],
    [
      'a link that is none',
      'web',
      { Container: 'c1', EndpointConfig: { Links: ['a:b:c'] } },
      400,
      /^invalid link/,
    ],
    [
      'a sysctl that is none',
      'web',
      { Container: 'c1', EndpointConfig: { DriverOpts: { 'com.docker.network.endpoint.sysctls': 'x' } } },
      400,
      /^invalid sysctl "x"/,
    ],
  ])('refused: %s', async (_, network, body, status, message) => {
    const before = served.kernel.snapshot()
    const answer = await connect(network, body)
    expect([answer.status, answer.json.message]).toEqual([status, expect.stringMatching(message)])
    expect(served.kernel.snapshot()).toEqual(before)
    expect(served.controller.sandbox('c1').endpoints()).toEqual([])
  })

  test('twice is refused', async () => {
    await connect('web', { Container: 'c1' })
    const again = await connect('web', { Container: 'c1' })
    expect([again.status, again.json.message]).toEqual([
      403,
      'endpoint with name c1 already exists in network web',
    ])
  })

  test('modes that cannot be mixed', async () => {
    await served.controller.createSandbox({ containerId: 'h', mode: 'host', files: false })
    await served.controller.createSandbox({ containerId: 's', mode: 'container:c1', files: false })
    for (const Container of ['h', 's'])
      expect((await connect('web', { Container })).json.message).toBe(
        'container sharing network namespace with another container or host cannot be connected to any other network',
      )
    expect((await connect('host', { Container: 'h' })).status).toBe(200)
    expect((await disconnect('host', { Container: 'h' })).json.message).toBe(
      'cannot disconnect container from host network - container was created in host network mode',
    )
    await connect('web', { Container: 'c1' })
    expect((await connect('none', { Container: 'c1' })).json.message).toBe(
      'container cannot be connected to multiple networks with one of the networks in private (none) mode',
    )
  })
})

test('of concurrent creates of one name one succeeds; the others are conflicts', async () => {
  const answers = await Promise.all(Array.from({ length: 8 }, () => create({ Name: 'web' })))
  expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(7).fill(409)])
  expect(served.controller.networks({ name: 'web' })).toHaveLength(1)
})
