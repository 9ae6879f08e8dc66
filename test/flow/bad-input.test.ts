/** Bad input changes nothing, and says which field, which value, why, and what would be right. */
import { Controller, type ErrorCode } from 'libcnm'
import { MockKernel, type MockKernelOptions } from 'libcnm/testing'
import { fresh, joined, later, networkOf, RUN, refusal, sandboxOf, state } from './scene'

async function scene(kernel: MockKernelOptions = {}) {
  const { kernel: mock, controller } = await fresh({}, kernel)
  const network = await networkOf(controller, 'web', 1, { ipv6: true })
  const sandbox = await sandboxOf(controller, 'c1')
  const endpoint = await joined(network, sandbox)
  const spare = await network.createEndpoint({ name: 'spare' })
  return { kernel: mock, controller, network, sandbox, endpoint, spare }
}
type Scene = Awaited<ReturnType<typeof scene>>
type Row = [what: string, act: (scene: Scene) => unknown, code: ErrorCode, ...message: RegExp[]]

/** As a caller without types would hand it in. */
const any = (value: unknown) => value as never
const pollution = JSON.parse('{"name":"x","__proto__":{"polluted":true}}') as object

const net = (config: object) => (s: Scene) => s.controller.createNetwork(any({ name: 'new', ...config }))
const subnet = (config: object) => net({ ipam: { config: [config] } })
const end = (config: object) => (s: Scene) => s.network.createEndpoint(any({ name: 'new', ...config }))
const box = (config: object) => (s: Scene) =>
  s.controller.createSandbox(any({ containerId: 'new', ...config }))
const join = (config: unknown) => (s: Scene) => s.spare.join(s.sandbox, any(config))

const OPTIONS: Row[] = [
  ['not an object', s => s.controller.createNetwork(any(7)), 'ERR_INVALID_OPTION', /options: .*object/],
  ['nothing', s => s.controller.createNetwork(any(undefined)), 'ERR_INVALID_OPTION', /options/],
  [
    'unknown option',
    net({ intrenal: true }),
    'ERR_INVALID_OPTION',
    /options\.intrenal is not an option; did you mean internal\?/,
  ],
  [
    'unknown option with no near name',
    net({ zzzzzzzz: 1 }),
    'ERR_INVALID_OPTION',
    /options\.zzzzzzzz.*known: .*ipam/,
  ],
  [
    'unknown option in depth',
    subnet({ subnt: '10.2.0.0/24' }),
    'ERR_INVALID_OPTION',
    /options\.ipam\.config\.0\.subnt.*did you mean subnet/,
  ],
  [
    'unknown option of a driver',
    net({ options: { mtuu: 1 } }),
    'ERR_INVALID_OPTION',
    /options\.options\.mtuu.*did you mean mtu/,
  ],
  ['unknown option of an endpoint', end({ alias: [] }), 'ERR_INVALID_OPTION', /did you mean aliases/],
  [
    'unknown driver option of an endpoint',
    end({ options: { x: 1 } }),
    'ERR_INVALID_OPTION',
    /options\.options\.x/,
  ],
  ['unknown option of a sandbox', box({ hostnam: 'x' }), 'ERR_INVALID_OPTION', /did you mean hostname/],
  ['unknown option of a join', join({ prioritty: 1 }), 'ERR_INVALID_OPTION', /did you mean priority/],
  [
    'wrong type',
    net({ internal: 'yes' }),
    'ERR_INVALID_OPTION',
    /options\.internal: .*boolean.*\(got "yes"\)/,
  ],
  [
    'bad driver option',
    net({ options: { mtu: 'big' } }),
    'ERR_INVALID_OPTION',
    /options\.options\.mtu.*"big"/,
  ],
  ['MTU too small', net({ options: { mtu: 67 } }), 'ERR_INVALID_OPTION', /mtu.*>=68.*67/],
  [
    'bad flag in a label',
    net({ options: { 'com.docker.network.bridge.enable_icc': 'maybe' } }),
    'ERR_INVALID_OPTION',
    /icc.*must be true or false.*"maybe"/,
  ],
  [
    'an unknown option where true would do, too',
    () => Controller.open(any({ kernel: new MockKernel(), predefined: { brigde: 'cnm0' } })),
    'ERR_INVALID_OPTION',
    /options\.predefined\.brigde is not an option; did you mean bridge\?/,
  ],
  [
    "a label of Docker's, misspelt",
    net({ options: { 'com.docker.network.bridge.nmae': 'x' } }),
    'ERR_INVALID_OPTION',
    /options\.com\.docker\.network\.bridge\.nmae is not an option; did you mean com\.docker\.network\.bridge\.name\?/,
  ],
  [
    "a label of Docker's for endpoints, misspelt",
    end({ options: { 'com.docker.network.endpoint.ifnam': 'x' } }),
    'ERR_INVALID_OPTION',
    /did you mean com\.docker\.network\.endpoint\.ifname/,
  ],
  [
    'an option of address management, misspelt',
    net({ ipam: { options: { 'com.docker.network.ipam.seriel': 'true' } } }),
    'ERR_INVALID_OPTION',
    /did you mean com\.docker\.network\.ipam\.serial/,
  ],
  [
    'an option of address management in the wrong place',
    net({ options: { 'libcnm.ipam.sticky': 'true' } }),
    'ERR_INVALID_OPTION',
    /libcnm\.ipam\.sticky is not an option; .*ipam\.options/,
  ],
  [
    'a name of the tasks of a service',
    end({ name: 'tasks.web' }),
    'ERR_INVALID_NAME',
    /options\.name: must not begin with "tasks\."/,
  ],
  [
    'an alias among the tasks of a service',
    end({ aliases: ['Tasks.web'] }),
    'ERR_INVALID_NAME',
    /options\.aliases\.0: must not begin with "tasks\."/,
  ],
  [
    'not a mode',
    box({ mode: 'bridge' }),
    'ERR_INVALID_OPTION',
    /options\.mode: must be own, host, deferred or container:ID \(got "bridge"\)/,
  ],
  [
    'join of something else',
    s => s.spare.join(any({})),
    'ERR_INVALID_OPTION',
    /sandbox: must be one that createSandbox made/,
  ],
  ['join of nothing', s => s.spare.join(any(undefined)), 'ERR_INVALID_OPTION', /sandbox/],
  ['priority out of range', join({ priority: 2 ** 40 }), 'ERR_INVALID_OPTION', /options\.priority/],
  [
    'interface name too long',
    join({ interfaceName: 'a'.repeat(16) }),
    'ERR_INVALID_NAME',
    /options\.interfaceName.*1 to 15.*a{16}/,
  ],
  [
    'interface name with a slash',
    join({ interfaceName: '../eth0' }),
    'ERR_INVALID_NAME',
    /options\.interfaceName/,
  ],
  [
    'bridge name too long',
    net({ options: { name: 'a'.repeat(16) } }),
    'ERR_INVALID_NAME',
    /options\.options\.name/,
  ],
  [
    'sysctl of another interface',
    join({ sysctls: { 'net.ipv4.ip_forward': '1' } }),
    'ERR_INVALID_OPTION',
    /options\.sysctls\.net.* must be net\.X\.Y\.IFNAME\.Z/,
  ],
  [
    'limit below what makes sense',
    s => s.endpoint.setBandwidth({ egress: 1 }),
    'ERR_INVALID_OPTION',
    /bandwidth\.egress.*1000.*1/,
  ],
]

/** Of the controller itself. Half a driver would be found out only when somebody needs it. */
const CONTROLLER: Row[] = [
  [
    'an event that there is not',
    s => s.controller.on(any('endpoint.joined'), () => {}),
    'ERR_INVALID_OPTION',
    /event type: endpoint\.joined is none; did you mean endpoint\.join\?/,
  ],
  ['once, likewise', s => s.controller.once(any('drfit'), () => {}), 'ERR_INVALID_OPTION', /mean drift\?/],
  [
    'a listener that is none',
    s => s.controller.on('drift', any(undefined)),
    'ERR_INVALID_OPTION',
    /listener of drift: must be a function \(got undefined\)/,
  ],
  [
    'a signal that is none',
    s => s.controller.events(any('drift')),
    'ERR_INVALID_OPTION',
    /signal: must be an AbortSignal/,
  ],
  [
    'an IPAM driver without methods',
    s => s.controller.registerIpamDriver(any({ name: 'mine' })),
    'ERR_INVALID_OPTION',
    /IPAM driver: must have a method defaultAddressSpaces/,
  ],
  [
    'an IPAM driver without methods, at the start',
    () => Controller.open(any({ kernel: new MockKernel(), ipamDrivers: [{ name: 'mine' }] })),
    'ERR_INVALID_OPTION',
    /IPAM driver: must have a method/,
  ],
  [
    'a driver without a name',
    s => {
      const act = () => {}
      s.controller.registerDriver(
        any({ createNetwork: act, deleteNetwork: act, join: act, leave: act, capabilities: {} }),
      )
    },
    'ERR_INVALID_OPTION',
    /driver: must have a name/,
  ],
  [
    'a search domain with a line of its own for resolv.conf',
    () => Controller.open(any({ kernel: new MockKernel(), dns: { search: ['a\nnameserver 192.0.2.66'] } })),
    'ERR_INVALID_OPTION',
    /options\.dns\.search\.0: must be a domain/,
  ],
]

const NAMES: Row[] = [
  ['empty', net({ name: '' }), 'ERR_INVALID_NAME', /options\.name: must not be empty/],
  ['blank', net({ name: ' \t ' }), 'ERR_INVALID_NAME', /options\.name/],
  [
    'control characters',
    net({ name: 'a\u001b[31mb' }),
    'ERR_INVALID_NAME',
    /options\.name: must not contain control characters/,
    /^[^\u0000-\u001f]*$/,
  ],
  ['line feed', end({ name: 'a\nb' }), 'ERR_INVALID_NAME', /must not contain control characters/, /^[^\n]*$/],
  ['slash', end({ name: 'a/b' }), 'ERR_INVALID_NAME', /must not contain "\/"/],
  ['over-long network', net({ name: 'n'.repeat(256) }), 'ERR_INVALID_NAME', /options\.name: .*255/],
  ['over-long endpoint', end({ name: 'n'.repeat(256) }), 'ERR_INVALID_NAME', /255/],
  ['over-long container', box({ containerId: 'n'.repeat(256) }), 'ERR_INVALID_NAME', /options\.containerId/],
  [
    'container id that climbs',
    box({ containerId: '../x' }),
    'ERR_INVALID_NAME',
    /options\.containerId: must start with a letter/,
  ],
  ['host name', box({ hostname: 'a b' }), 'ERR_INVALID_NAME', /options\.hostname: must be labels/],
  ['alias', end({ aliases: ['ok', 'not ok'] }), 'ERR_INVALID_NAME', /options\.aliases\.1.*"not ok"/],
  [
    'extra host',
    box({ extraHosts: ['nocolon'] }),
    'ERR_INVALID_OPTION',
    /options\.extraHosts\.0: must be NAME:ADDRESS/,
  ],
  ['duplicate network', net({ name: 'web' }), 'ERR_NETWORK_EXISTS', /name web already exists/],
  ['duplicate endpoint', end({ name: 'c1' }), 'ERR_ENDPOINT_EXISTS', /c1 already exists in network web/],
  ['duplicate sandbox', box({ containerId: 'c1' }), 'ERR_SANDBOX_EXISTS', /c1 is already present/],
  [
    'id that is none',
    net({ id: 'abc' }),
    'ERR_INVALID_OPTION',
    /options\.id: must be 64 hexadecimal digits \(got "abc"\)/,
  ],
  [
    'unknown driver',
    net({ driver: 'bridg' }),
    'ERR_DRIVER_NOT_FOUND',
    /"bridg" is not registered; did you mean "bridge"\? \(there are: bridge, host, ipvlan, macvlan, null, overlay\)/,
  ],
  [
    'unknown IPAM driver',
    net({ ipam: { driver: 'defualt' } }),
    'ERR_DRIVER_NOT_FOUND',
    /did you mean "default"/,
  ],
  ['unknown configuration', net({ configFrom: 'nobody' }), 'ERR_NETWORK_NOT_FOUND', /"nobody"/],
]

const ADDRESSES: Row[] = [
  [
    'no CIDR',
    subnet({ subnet: '10.2.0.0' }),
    'ERR_INVALID_CIDR',
    /options\.ipam\.config\.0\.subnet: "10\.2\.0\.0" is not of the form ADDRESS\/LENGTH/,
  ],
  ['prefix too long', subnet({ subnet: '10.2.0.0/33' }), 'ERR_INVALID_CIDR', /10\.2\.0\.0\/33/],
  ['octal', subnet({ subnet: '010.2.0.0/24' }), 'ERR_INVALID_CIDR', /subnet/],
  [
    'host bits',
    subnet({ subnet: '10.2.0.7/24' }),
    'ERR_INVALID_CIDR',
    /10\.2\.0\.7\/24 has host bits set; it should be 10\.2\.0\.0\/24/,
  ],
  ['host bits, IPv6', subnet({ subnet: 'fd00:2::1/64' }), 'ERR_INVALID_CIDR', /it should be fd00:2::\/64/],
  [
    'gateway outside',
    subnet({ subnet: '10.2.0.0/24', gateway: '10.3.0.1' }),
    'ERR_ADDRESS_OUT_OF_RANGE',
    /10\.3\.0\.1/,
    /10\.2\.0\.0\/24/,
  ],
  [
    'gateway of the other family',
    subnet({ subnet: '10.2.0.0/24', gateway: 'fd00::1' }),
    'ERR_INVALID_ADDRESS',
    /fd00::1/,
  ],
  [
    'range outside',
    subnet({ subnet: '10.2.0.0/24', ipRange: '10.3.0.0/25' }),
    'ERR_POOL_INVALID',
    /10\.3\.0\.0\/25/,
  ],
  [
    'overlap with a network',
    subnet({ subnet: '10.1.0.128/25' }),
    'ERR_POOL_OVERLAP',
    /10\.1\.0\.128\/25/,
    /10\.1\.0\.0\/24.*: network web has it$/,
  ],
  [
    'an SRV record without its port',
    net({ dns: { records: [{ name: '_x._tcp', type: 'SRV', value: 'web' }] } }),
    'ERR_INVALID_OPTION',
    /dns\.records\.0\.port: an SRV record needs a port/,
  ],
  [
    'overlap with itself',
    net({ ipam: { config: [{ subnet: '10.2.0.0/24' }, { subnet: '10.2.0.0/25' }] } }),
    'ERR_POOL_OVERLAP',
    /10\.2\.0\.0/,
  ],
  [
    'overlap with a route of the host',
    subnet({ subnet: '192.0.2.0/25' }),
    'ERR_HOST_ROUTE_CONFLICT',
    /192\.0\.2\.0\/25/,
    /eth0/,
  ],
  [
    'two subnets of a family',
    net({ ipam: { config: [{ subnet: '10.2.0.0/24' }, { subnet: '10.3.0.0/24' }] } }),
    'ERR_INVALID_CONFIG',
    /one IPv4 subnet, not 2 \(10\.2\.0\.0\/24, 10\.3\.0\.0\/24\)/,
  ],
  ['no family', net({ ipv4: false }), 'ERR_INVALID_CONFIG', /IPv4 or IPv6 must be enabled/],
  ['everything', subnet({ subnet: '0.0.0.0/0' }), 'ERR_POOL_INVALID', /large enough for a \/0/],
  [
    'isolated, not internal',
    net({ options: { gatewayModeIpv4: 'isolated' } }),
    'ERR_INVALID_CONFIG',
    /internal networks only/,
  ],
  [
    'address that is none',
    end({ ipv4: '10.1.0.300' }),
    'ERR_INVALID_ADDRESS',
    /options\.ipv4.*"10\.1\.0\.300" is not an IP address/,
  ],
  [
    'address of the other family',
    end({ ipv4: 'fd00:1::9' }),
    'ERR_INVALID_ADDRESS',
    /is not an IPv4 address/,
  ],
  [
    'address outside',
    end({ ipv4: '10.9.0.1' }),
    'ERR_ADDRESS_OUT_OF_RANGE',
    /no subnet of network web contains 10\.9\.0\.1 \(there are: 10\.1\.0\.0\/24\)/,
  ],
  ['address in use', end({ ipv4: '10.1.0.2' }), 'ERR_ADDRESS_IN_USE', /10\.1\.0\.2 .*held by endpoint c1 \(/],
  ['address of the gateway', end({ ipv4: '10.1.0.1' }), 'ERR_ADDRESS_IN_USE', /held by the network itself/],
  [
    'subnet of a family that is off',
    net({ ipv6: false, ipam: { config: [{ subnet: 'fd00:2::/64' }] } }),
    'ERR_INVALID_CONFIG',
    /IPv6 off, but ipam\.config has fd00:2::\/64; set ipv6: true/,
  ],
  ['multicast subnet', subnet({ subnet: '224.1.0.0/24' }), 'ERR_POOL_INVALID', /multicast/],
  ['loopback subnet', subnet({ subnet: '127.1.0.0/24' }), 'ERR_POOL_INVALID', /loopback/],
  ['link-local subnet', subnet({ subnet: 'fe80::/64' }), 'ERR_POOL_INVALID', /link-local/],
  ['mapped subnet', subnet({ subnet: '::ffff:10.2.0.0/120' }), 'ERR_POOL_INVALID', /IPv4-mapped/],
  [
    'range larger than the subnet',
    subnet({ subnet: '10.2.0.0/24', ipRange: '10.2.0.0/16' }),
    'ERR_POOL_INVALID',
    /larger than its subnet 10\.2\.0\.0\/24/,
  ],
  [
    'one address, and a gateway',
    subnet({ subnet: '10.2.0.1/32' }),
    'ERR_POOL_INVALID',
    /one address, which the gateway takes/,
  ],
  [
    'gateway without subnet',
    subnet({ gateway: '10.2.0.1' }),
    'ERR_ADDRESS_OUT_OF_RANGE',
    /the subnet that was chosen; give its subnet/,
  ],
  ['ports given twice', end({ ports: ['8080:80', '8080:81'] }), 'ERR_INVALID_PORT', /8080.*twice/],
  [
    'network address',
    end({ ipv4: '10.1.0.0' }),
    'ERR_ADDRESS_IN_USE',
    /10\.1\.0\.0 .*held by the pool itself/,
  ],
  [
    'link-local that is none',
    end({ linkLocal: ['10.1.0.9'] }),
    'ERR_INVALID_ADDRESS',
    /10\.1\.0\.9 is not a link-local address \(169\.254/,
  ],
  [
    'MAC that is none',
    end({ mac: '02:00' }),
    'ERR_INVALID_OPTION',
    /options\.mac: must be six hexadecimal octets/,
  ],
  ['multicast MAC', end({ mac: '01:00:00:00:00:01' }), 'ERR_INVALID_OPTION', /unicast/],
  [
    'port out of range',
    end({ ports: ['70000:80'] }),
    'ERR_INVALID_PORT',
    /hostPort 70000 is out of range; a port is 1-65535/,
  ],
  [
    'port range of another length',
    end({ ports: ['8000-8010:80-81'] }),
    'ERR_INVALID_PORT',
    /11 host ports for 2 container ports/,
  ],
  [
    'protocol',
    end({ ports: ['8080:80/icmp'] }),
    'ERR_INVALID_PORT',
    /\"icmp\" is unknown; use tcp, udp, sctp/,
  ],
  ['exposed port', end({ exposed: ['http'] }), 'ERR_INVALID_PORT', /http/],
]

/** With a subnet of its own for each network. */
const lan =
  (driver: string, options: object, n = 200) =>
  (s: Scene) =>
    s.controller.createNetwork(
      any({ name: `new${n}`, driver, options, ipam: { config: [{ subnet: `10.${n}.0.0/24` }] } }),
    )
const either = (options: object, ...told: [ErrorCode, ...RegExp[]]): Row[] =>
  ['macvlan', 'ipvlan'].map(driver => [`${driver} ${JSON.stringify(options)}`, lan(driver, options), ...told])

const LANS: Row[] = [
  ...either({ parent: 'lo' }, 'ERR_INVALID_OPTION', /parent: loopback .*got "lo".*name a link/),
  ...either({ parent: 'lo.10' }, 'ERR_INVALID_OPTION', /parent: loopback .*got "lo\.10"/),
  ...either({ parent: '' }, 'ERR_INVALID_NAME', /options\.parent: must be 1 to 15.*got ""/),
  ...either({ parent: '../eth0' }, 'ERR_INVALID_NAME', /options\.parent.*got "\.\.\/eth0"/),
  ...either({ parent: 'a'.repeat(16) }, 'ERR_INVALID_NAME', /options\.parent: must be 1 to 15/),
  ...either({ parent: 7 }, 'ERR_INVALID_OPTION', /options\.parent.*got 7/),
  ...either({ parent: 'nowhere' }, 'ERR_INVALID_OPTION', /no link nowhere.*example formatting is eth0\.10/),
  ...either({ parent: 'nowhere.10' }, 'ERR_LINK_NOT_FOUND', /no link nowhere to make nowhere\.10 on/),
  ...either({ parent: 'eth0.0' }, 'ERR_INVALID_OPTION', /vlan id of eth0\.0 must be between 1 and 4094/),
  ...either({ parent: 'eth0.4095' }, 'ERR_INVALID_OPTION', /eth0\.4095 must be between 1 and 4094/),
  ...either({ parent: 'eth0.99999' }, 'ERR_INVALID_OPTION', /eth0\.99999 must be between 1 and 4094/),
  ...either({ parent: 'eth0.-1' }, 'ERR_INVALID_OPTION', /eth0\.-1.*example formatting is eth0\.10/),
  ...either({ parent: 'eth0.01' }, 'ERR_INVALID_OPTION', /write eth0\.1, not eth0\.01/),
  ...either({ parent: 'eth0.1.2' }, 'ERR_INVALID_OPTION', /eth0\.1\.2.*example formatting is eth0\.10/),
  ...either({ mode: 'l4' }, 'ERR_INVALID_OPTION', /options\.mode.*one of.*got "l4"/),
  ...either({ mode: '' }, 'ERR_INVALID_OPTION', /options\.mode.*got ""/),
  ...either({ mod: 'x' }, 'ERR_INVALID_OPTION', /options\.mod is not an option; did you mean mode\?/),
  ...either(
    { parent: 'eth0', mtu: 1501 },
    'ERR_INVALID_OPTION',
    /mtu: 1501 is more than the 1500 of parent eth0/,
  ),
  ...either(
    { parent: 'eth0.7', mtu: 9000 },
    'ERR_INVALID_OPTION',
    /mtu: 9000 is more than the 1500 of parent eth0/,
  ),
  ...either({ mtu: 67 }, 'ERR_INVALID_OPTION', /options\.mtu.*>=68.*got 67/),
  ...either({ hostAccess: 'perhaps' }, 'ERR_INVALID_OPTION', /hostAccess: must be true or false/),
  [
    'a mode of macvlan only for a filter',
    lan('macvlan', { macvlan_mode: 'source' }),
    'ERR_INVALID_OPTION',
    /"source"/,
  ],
  [
    'a flag for macvlan',
    lan('macvlan', { flag: 'bridge' }),
    'ERR_INVALID_OPTION',
    /options\.flag is not an option/,
  ],
  [
    'an unknown flag',
    lan('ipvlan', { ipvlan_flag: 'l2' }),
    'ERR_INVALID_OPTION',
    /options\.flag.*"bridge"\|"private"\|"vepa".*got "l2"/,
  ],
  ['a cutoff below all', lan('macvlan', { bclim: '-2' }), 'ERR_INVALID_OPTION', /broadcastCutoff.*>=-1/],
  [
    'a queue that is none',
    lan('macvlan', { bcqueuelen: 'long' }),
    'ERR_INVALID_OPTION',
    /broadcastQueue: must be a whole number.*"long"/,
  ],
  ...['private', 'vepa', 'passthru'].map(
    (mode): Row => [
      `hostAccess in mode ${mode}`,
      lan('macvlan', { parent: 'eth0', mode, hostAccess: true }),
      'ERR_INVALID_OPTION',
      new RegExp(`hostAccess: in mode ${mode}.*needs mode bridge`),
    ],
  ),
  [
    'hostAccess in layer 3',
    lan('ipvlan', { parent: 'eth0', mode: 'l3', hostAccess: true }),
    'ERR_INVALID_OPTION',
    /hostAccess: it needs mode l2 and flag bridge, not l3 and bridge/,
  ],
  ...['../p', '.hidden', '/etc/passwd', '..', 'a\0b', 'p%2f', 'x'.repeat(129)].flatMap((driver): Row[] => [
    [
      `plugin ${JSON.stringify(driver.slice(0, 20))}`,
      net({ driver }),
      'ERR_INVALID_NAME',
      /options\.driver: must be 1-128 letters/,
      /^[^\0]*$/,
    ],
    [
      `IPAM plugin ${JSON.stringify(driver.slice(0, 20))}`,
      net({ ipam: { driver } }),
      'ERR_INVALID_NAME',
      /options\.ipam\.driver: must be 1-128 letters/,
      /^[^\0]*$/,
    ],
  ]),
  ['plugin in a folder', net({ driver: 'a/b' }), 'ERR_DRIVER_NOT_FOUND', /"a\/b" is not registered/],
]

const USE: Row[] = [
  [
    'a controller by new',
    () => new (any(Controller) as new () => Controller)(),
    'ERR_INVALID_OPTION',
    /await Controller\.open/,
  ],
  [
    'a health that is no boolean',
    s => s.endpoint.setHealth(any('no')),
    'ERR_INVALID_OPTION',
    /healthy: .*boolean.*got "no"/,
  ],
  ['a name that is none', s => s.sandbox.resolveName(any(undefined)), 'ERR_INVALID_OPTION', /name: .*string/],
  [
    'an address that is none',
    s => s.sandbox.resolveIp('nope'),
    'ERR_INVALID_ADDRESS',
    /address: "nope" is not an IP address/,
  ],
  ['joined twice', s => s.endpoint.join(s.sandbox), 'ERR_ENDPOINT_JOINED', /already in sandbox/],
  ['leave of one not joined', s => s.spare.leave(), 'ERR_ENDPOINT_NOT_JOINED', /spare is in no sandbox/],
  ['delete of a network in use', s => s.network.delete(), 'ERR_NETWORK_IN_USE', /"c1".*"spare"/],
  ['delete of an endpoint in use', s => s.endpoint.delete(), 'ERR_ENDPOINT_IN_USE', /c1/],
  ['interface name taken', join({ interfaceName: 'eth0' }), 'ERR_LINK_EXISTS', /eth0 already/],
  ['subnet there already', join({}), 'ERR_ROUTE_CONFLICT', /10\.1\.0\.3\/24.*10\.1\.0\.2\/24/],
  [
    'bridge name of a device',
    net({ options: { name: 'eth0' } }),
    'ERR_LINK_CONFLICT',
    /eth0 is not a bridge/,
  ],
  [
    'bridge of another network',
    s => net({ options: { name: s.network.link } })(s),
    'ERR_LINK_CONFLICT',
    /belongs to network web/,
  ],
  [
    'gateway of a route that is no neighbour',
    s => unreachable(s),
    'ERR_GATEWAY_UNREACHABLE',
    /172\.16\.0\.1/,
  ],
]

async function unreachable(s: Scene) {
  const lone = s.controller.network('lone')
  await lone
    .endpoint('c1')
    .join(s.sandbox, { routes: [{ destination: '172.30.0.0/16', gateway: '172.16.0.1' }] })
}

const HOSTILE: Row[] = [
  [
    '__proto__ among options',
    s => s.controller.createNetwork(any(pollution)),
    'ERR_INVALID_OPTION',
    /__proto__/,
  ],
  [
    '__proto__ among driver options',
    s => net({ options: JSON.parse('{"__proto__":{"polluted":true}}') })(s),
    'ERR_INVALID_OPTION',
    /__proto__/,
  ],
  [
    'constructor among driver options',
    net({ options: { constructor: 1 } }),
    'ERR_INVALID_OPTION',
    /options\.options\.constructor/,
  ],
  [
    'toString among endpoint options',
    end({ options: { toString: 1 } }),
    'ERR_INVALID_OPTION',
    /options\.options\.toString/,
  ],
  ['huge name', net({ name: 'x'.repeat(10_000_000) }), 'ERR_INVALID_NAME', /^.{0,500}$/s],
  ['huge unknown key', net({ ['k'.repeat(1_000_000)]: 1 }), 'ERR_INVALID_OPTION', /^.{0,800}$/s],
  ['odd unknown key', net({ 'a\u001b[31m\n': 1 }), 'ERR_INVALID_OPTION', /^[^\u0000-\u001f]*$/],
  [
    'huge driver',
    net({ driver: 'd'.repeat(1_000_000) }),
    'ERR_INVALID_NAME',
    /options\.driver/,
    /^.{0,500}$/s,
  ],
  ['huge address', end({ ipv4: '1'.repeat(1_000_000) }), 'ERR_INVALID_OPTION', /^.{0,500}$/s],
  ['huge port', end({ ports: ['1'.repeat(1_000_000)] }), 'ERR_INVALID_PORT', /^.{0,2100}$/s],
  ['huge look-up', s => s.controller.network('n'.repeat(1_000_000)), 'ERR_NETWORK_NOT_FOUND', /^.{0,500}$/s],
  ['driver with control characters', net({ driver: 'a\nb' }), 'ERR_INVALID_NAME', /^[^\n]*$/],
  [
    'thousands of subnets',
    net({ ipam: { config: Array.from({ length: 5_000 }, () => ({})) } }),
    'ERR_INVALID_OPTION',
    /options\.ipam\.config/,
  ],
  [
    'thousands of ports',
    end({ ports: Array.from({ length: 100_000 }, () => '80') }),
    'ERR_INVALID_OPTION',
    /options\.ports/,
  ],
]

describe.each<[string, Row[]]>([
  ['options', OPTIONS],
  ['the controller', CONTROLLER],
  ['names', NAMES],
  ['addresses', ADDRESSES],
  ['macvlan, ipvlan, plugins', LANS],
  ['use', USE],
  ['hostile', HOSTILE],
])('%s', (_, rows) => {
  test.each(rows)('%s', async (_what, act, code, ...messages) => {
    const all = await scene()
    const lone = await networkOf(all.controller, 'lone', 77)
    await lone.createEndpoint({ name: 'c1' })
    await all.kernel.settle()
    const before = state(all.kernel, all.controller)
    const told: unknown[] = []
    all.controller.on('*', event => told.push(event))
    const error = await (async () => act(all))().then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toEqual(refusal(code, messages[0]))
    for (const message of messages) expect((error as Error).message).toMatch(message)
    await all.kernel.settle()
    expect(state(all.kernel, all.controller)).toEqual(before)
    expect(told).toEqual([])
    expect(Object.prototype).not.toHaveProperty('polluted')
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({
      code,
      kind: expect.any(String),
      next: expect.any(String),
    })
  })
})

describe('who shares a parent', () => {
  type Network = [driver: string, options: object]
  const shared: [string, Network, Network, ErrorCode, RegExp][] = [
    [
      'passthru beside another',
      ['macvlan', { parent: 'eth0' }],
      ['macvlan', { parent: 'eth0', mode: 'passthru' }],
      'ERR_LINK_CONFLICT',
      /cannot use mode passthru, macvlan network new201 .*parent interface eth0.*name another parent/,
    ],
    [
      'another beside passthru',
      ['macvlan', { parent: 'eth0.7', mode: 'passthru' }],
      ['macvlan', { parent: 'eth0.7' }],
      'ERR_LINK_CONFLICT',
      /cannot use mode bridge, macvlan network new201 .*parent interface eth0\.7/,
    ],
    [
      'ipvlan beside ipvlan',
      ['ipvlan', { parent: 'eth0' }],
      ['ipvlan', { parent: 'eth0', mode: 'l3' }],
      'ERR_LINK_CONFLICT',
      /network new201 .*parent interface eth0; name another parent/,
    ],
  ]
  test.each(shared)('%s: refused', async (_, first, second, code, message) => {
    const all = await scene()
    await lan(...first, 201)(all)
    const before = state(all.kernel, all.controller)
    await expect(lan(...second, 202)(all)).rejects.toEqual(refusal(code, message))
    expect(state(all.kernel, all.controller)).toEqual(before)
  })

  const inUse: [string, Network, Network, RegExp][] = [
    [
      'a second endpoint in passthru',
      ['macvlan', { parent: 'eth0', mode: 'passthru' }],
      ['', {}],
      /passthru one interface has its parent alone.*give each its own/,
    ],
    [
      'ipvlan beside macvlan',
      ['macvlan', { parent: 'eth0' }],
      ['ipvlan', { parent: 'eth0' }],
      /has a macvlan: give each its own/,
    ],
    [
      'macvlan beside ipvlan',
      ['ipvlan', { parent: 'eth0' }],
      ['macvlan', { parent: 'eth0' }],
      /has an ipvlan: give each its own/,
    ],
  ]
  test.each(inUse)('%s: refused when it joins', async (_, first, second, message) => {
    const all = await scene()
    const one = await lan(...first, 201)(all)
    const two = second[0] ? await lan(...second, 202)(all) : one
    await joined(one, await sandboxOf(all.controller, 'a'))
    const endpoint = await two.createEndpoint({ name: 'b' })
    const sandbox = await sandboxOf(all.controller, 'b')
    const before = state(all.kernel, all.controller)
    await expect(endpoint.join(sandbox)).rejects.toEqual(refusal('ERR_LINK_CONFLICT', message))
    expect(state(all.kernel, all.controller)).toEqual(before)
    await all.controller.sandbox('a').delete()
    await endpoint.join(sandbox) // there is room now
  })

  test('a MAC for an ipvlan is refused, with the way out', async () => {
    const all = await scene()
    const network = await lan('ipvlan', { parent: 'eth0' })(all)
    const before = state(all.kernel, all.controller)
    await expect(network.createEndpoint({ name: 'e', mac: '02:00:00:00:00:01' })).rejects.toEqual(
      refusal('ERR_UNSUPPORTED', /^mac: .*got "02:00:00:00:00:01".*leave it out, or use macvlan$/),
    )
    expect(state(all.kernel, all.controller)).toEqual(before)
  })

  test('a kernel without VLANs says which module it lacks', async () => {
    const { kernel, controller } = await fresh({}, { lacks: ['vlan'] })
    const before = state(kernel, controller)
    await expect(
      controller.createNetwork({ name: 'x', driver: 'macvlan', options: { parent: 'eth0.10' } }),
    ).rejects.toEqual(refusal('ERR_UNSUPPORTED', /eth0\.10.*8021q/))
    expect(state(kernel, controller)).toEqual(before)
  })
})

test('labels that only look dangerous are labels', async () => {
  const { controller } = await fresh()
  const network = await controller.createNetwork({ name: 'x', labels: { constructor: '1', toString: '2' } })
  expect(Object.entries(network.labels).sort()).toEqual([
    ['constructor', '1'],
    ['toString', '2'],
  ])
  expect(controller.networks({ label: 'constructor=1' })).toEqual([network])
})

describe('a machine that cannot', () => {
  test('without privilege: it says which', async () => {
    const kernel = new MockKernel({ privileged: false })
    const controller = await Controller.open({ kernel, runDir: RUN })
    later(() => controller.close())
    const before = state(kernel, controller)
    for (const act of [
      () => controller.createNetwork({ name: 'web' }),
      () => controller.createSandbox({ containerId: 'c1', files: false }),
    ]) {
      const error = await act().catch((thrown: unknown) => thrown)
      expect(error).toEqual(refusal('ERR_PRIVILEGE', /CAP_NET_ADMIN/))
      expect(error).toMatchObject({ kind: 'denied', next: expect.stringContaining('CAP_NET_ADMIN') })
    }
    expect(state(kernel, controller)).toEqual(before)
  })

  test.each([
    ['bridge', /bridge/],
    ['veth', /veth/],
  ])('without %s: it says so', async (kind, message) => {
    const { kernel, controller } = await fresh({}, { lacks: [kind] })
    const before = state(kernel, controller)
    const make = async () => {
      const network = await networkOf(controller, 'web', 1)
      const sandbox = await sandboxOf(controller, 'c1')
      const endpoint = await network.createEndpoint({ name: 'c1' })
      const unjoined = state(kernel, controller)
      await endpoint.join(sandbox).catch((error: unknown) => {
        expect(state(kernel, controller)).toEqual(unjoined)
        throw error
      })
    }
    await expect(make()).rejects.toEqual(refusal('ERR_UNSUPPORTED', message))
    if (kind === 'bridge') expect(state(kernel, controller)).toEqual(before)
  })

  test('without IPv6: a network that wants it is told so', async () => {
    const { kernel, controller } = await fresh({}, { lacks: ['ipv6'] })
    const before = state(kernel, controller)
    await expect(networkOf(controller, 'web', 1, { ipv6: true })).rejects.toEqual(
      refusal('ERR_UNSUPPORTED', /no IPv6.*ipv6: false/),
    )
    expect(state(kernel, controller)).toEqual(before)
  })
})

describe('opening', () => {
  test.each<[string, object, RegExp]>([
    ['unknown option', { datadir: '/x' }, /options\.datadir.*did you mean dataDir/],
    ['relative path', { dataDir: 'state' }, /options\.dataDir: must be an absolute path \(got "state"\)/],
    ['firewall', { firewall: 'pf' }, /options\.firewall/],
    ['name', { name: 'My Net' }, /options\.name: must be 1-31 lower case/],
    ['driver that is none', { drivers: [{ name: 'x' }] }, /must have a method createNetwork/],
    ['address pool', { addressPools: [{ base: '10.0.0.0', size: 24 }] }, /options\.addressPools\.0\.base/],
  ])('%s', async (_, options, message) => {
    const kernel = new MockKernel()
    await expect(Controller.open({ kernel, ...options } as never)).rejects.toEqual(
      refusal(/base/.test(message.source) ? 'ERR_INVALID_CIDR' : 'ERR_INVALID_OPTION', message),
    )
    expect(kernel.openStacks()).toEqual([])
    expect(kernel.journal).toEqual([])
  })

  test('a host that is not there', async () => {
    const kernel = new MockKernel()
    await expect(Controller.open({ kernel, host: '/run/netns/nobody' })).rejects.toEqual(
      refusal('ERR_NETNS_NOT_FOUND', /\/run\/netns\/nobody/),
    )
    expect(kernel.openStacks()).toEqual([])
  })
})
