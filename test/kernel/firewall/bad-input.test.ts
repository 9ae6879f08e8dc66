/** What nobody should ask for, asked through the public methods: a typed error, and the rules are, byte for byte, what they were. */
import type { Controller, Endpoint, ErrorCode, Network, Sandbox } from 'libcnm'
import { CLIENT, makeHost, type TestHost, UPLINK } from '../../support/host'

const HOSTILE = '"; flush ruleset; }\n-F #'

interface Scene {
  controller: Controller
  web: Network
  inner: Network
  sandbox: Sandbox
  joined: Endpoint
}
type Row = [what: string, act: (scene: Scene) => Promise<unknown>, code: ErrorCode, message?: RegExp]

/** As a caller without types would hand it in. */
const any = (value: unknown) => value as never
const network =
  (config: object) =>
  ({ controller }: Scene) =>
    controller.createNetwork(any({ name: 'new', ...config }))
const endpoint =
  (config: object) =>
  ({ web }: Scene) =>
    web.createEndpoint(any({ name: 'new', ...config }))
const ports = (...bindings: unknown[]) => endpoint({ ports: bindings })
/** What only shows where the port is to be had: at the join. */
const joining =
  (config: object) =>
  async ({ web, sandbox }: Scene) => {
    const made = await web.createEndpoint(any({ name: 'new', ...config }))
    try {
      await made.join(sandbox)
    } finally {
      await made.delete()
    }
  }

const ROWS: Row[] = [
  ['a hostile name of a network', network({ name: HOSTILE }), 'ERR_INVALID_NAME'],
  ['a hostile bridge', network({ options: { name: 'br";drop' } }), 'ERR_INVALID_NAME'],
  ['a bridge that is a wildcard', network({ options: { name: 'br*' } }), 'ERR_INVALID_NAME'],
  ['a bridge that is an option', network({ options: { name: '-F' } }), 'ERR_INVALID_NAME'],
  ['a hostile trusted link', network({ options: { trustedHostInterfaces: 'eth0:a}b' } }), 'ERR_INVALID_NAME'],
  ['a hostile source address', network({ options: { hostIpv4: HOSTILE } }), 'ERR_INVALID_ADDRESS'],
  [
    'a source address of the other family',
    network({ options: { hostIpv4: 'fd00::1' } }),
    'ERR_INVALID_ADDRESS',
  ],
  ['an unknown mode', network({ options: { gatewayModeIpv4: 'open' } }), 'ERR_INVALID_OPTION'],
  ['a hostile subnet', network({ ipam: { config: [{ subnet: '10.9.0.0/24 }' }] } }), 'ERR_INVALID_CIDR'],
  ['a hostile name of an endpoint', endpoint({ name: HOSTILE }), 'ERR_INVALID_NAME'],
  ['a hostile alias', endpoint({ aliases: ['a; drop'] }), 'ERR_INVALID_NAME'],
  ['a hostile address', endpoint({ ipv4: '10.77.1.9 }' }), 'ERR_INVALID_ADDRESS'],
  ['container port 0', ports('8081:0'), 'ERR_INVALID_PORT', /0/],
  ['port 65536', ports('65536:80'), 'ERR_INVALID_PORT', /65536/],
  ['container port 65536', ports('80:65536'), 'ERR_INVALID_PORT', /65536/],
  ['a reversed range', ports('8090-8081:80-89'), 'ERR_INVALID_PORT', /8090-8081/],
  ['ranges of unequal length', ports('8081-8090:80-85'), 'ERR_INVALID_PORT', /8081-8090:80-85/],
  ['an unknown protocol', ports('8081:80/icmp'), 'ERR_INVALID_PORT', /icmp/],
  ['a hostile port', ports(`8081:80/tcp${HOSTILE}`), 'ERR_INVALID_PORT'],
  [
    'a port that is an object of something else',
    ports({ containerPort: 80, hostPort: HOSTILE }),
    'ERR_INVALID_OPTION',
  ],
  [
    'a hostile allow-list',
    ports({ containerPort: 80, allowFrom: ['10.0.0.0/8 }; flush ruleset'] }),
    'ERR_INVALID_PORT',
  ],
  ['a multicast host address', joining({ ports: ['224.0.0.1:8081:80'] }), 'ERR_INVALID_PORT', /224\.0\.0\.1/],
  [
    'an address of somebody else',
    joining({ ports: [`${CLIENT[4]}:8081:80`] }),
    'ERR_INVALID_PORT',
    /no address/,
  ],
  [
    'an address of somebody else, IPv6',
    joining({ ports: [`[${CLIENT[6]}]:8081:80`] }),
    'ERR_INVALID_PORT',
    /no address/,
  ],
  ['the same port twice', joining({ ports: ['8081:80', '8081:81'] }), 'ERR_INVALID_PORT', /twice/],
  [
    'a port that we publish already',
    joining({ ports: ['8080:81'] }),
    'ERR_PORT_IN_USE',
    /web.*8080|8080.*c1|endpoint/,
  ],
  ['a port that another process has', joining({ ports: ['8070:80'] }), 'ERR_PORT_IN_USE', /in use by/],
  ['a range with a busy port in it', joining({ ports: ['8060-8075:60-75'] }), 'ERR_PORT_IN_USE', /8070/],
  [
    'ports of an internal network',
    ({ inner }) => inner.createEndpoint(any({ name: 'new', ports: ['8081:80'] })),
    'ERR_INVALID_PORT',
    /internal/,
  ],
  ['a change to a busy port', ({ joined }) => joined.updatePorts(['8080:80', '8070:81']), 'ERR_PORT_IN_USE'],
  [
    'a change to a foreign address',
    ({ joined }) => joined.updatePorts([`${CLIENT[4]}:8081:80`]),
    'ERR_INVALID_PORT',
  ],
]

describe.each(['nftables', 'iptables'] as const)('%s', backend => {
  let h: TestHost
  let scene: Scene

  beforeAll(async () => {
    h = await makeHost()
    await h.serve(h.host, 8070)
    const controller = await h.open({ firewall: backend })
    const web = await controller.createNetwork({
      name: 'web',
      ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
    })
    const inner = await controller.createNetwork({ name: 'inner', internal: true })
    const first = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
    const joined = await web.createEndpoint({ name: 'c1', ports: ['8080:80'] })
    await joined.join(first)
    const sandbox = await controller.createSandbox({ containerId: 'c2', files: false, resolver: false })
    scene = { controller, web, inner, sandbox, joined }
  })
  afterAll(async () => {
    await scene.controller.close({ remove: true })
    await h.close()
  })
  /** Without counters and times, which are not rules. */
  const rules = () =>
    (backend === 'nftables'
      ? h.run(h.host, 'nft', '-s', 'list', 'ruleset')
      : h.run(h.host, 'sh', '-ec', 'iptables-save; ip6tables-save')
    ).replace(/^#.*\n|\[\d+:\d+\]/gm, '')

  test.each(ROWS)('%s', async (_what, act, code, message = /./) => {
    const before = rules()
    expect(before).toContain('10.77.1.2')
    const error = await act(scene).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toMatchObject({ name: 'CnmError', code, message: expect.stringMatching(message) })
    expect(rules()).toBe(before)
  })

  test('after all of that: nothing of it is there, and what was published is', async () => {
    expect(scene.web.endpoints().map(({ name }) => name)).toEqual(['c1'])
    expect(scene.controller.networks().map(({ name }) => name)).toEqual(['web', 'inner'])
    expect(await scene.controller.check()).toEqual([])
    await h.serve(await h.kernel.open(scene.controller.sandbox('c1').key), 80)
    expect(await h.tcp(h.client, UPLINK[4], 8080)).toBe(CLIENT[4])
  })
})
