/** The option schemas of the public methods. Parsed once, there; inside, types are trusted. */
import { z } from 'zod'
import type { Logger } from './base/log'
import type { Backend } from './cluster/contract'
import { cidr, coded, ip, ipv4, ipv6, linkName, mac, subnet } from './base/parse'
import type { IpamDriver } from './ipam/contract'
import type { Driver } from './driver/contract'
import { DEFAULT_NAME } from './firewall/contract'
import type { Kernel } from './kernel/kernel'
import { parseUpstream } from './dns/upstream'
import { portBinding } from './ports/spec'

const controlCharacters = /[\u0000-\u001f\u007f]/

/** A text for which `fault` finds no fault; else the error has the code ERR_INVALID_NAME. */
const name = (fault: (text: string) => string | undefined) =>
  z.string().superRefine((text, context) => {
    const message = fault(text)
    if (message !== undefined) context.addIssue(coded('ERR_INVALID_NAME', message))
  })

/** What Docker allows, less what no terminal, file or log should be shown. */
function faultOfName(text: string): string | undefined {
  if (text === '') return 'must not be empty'
  if (text.length > 255) return `must have at most 255 characters, not ${text.length}`
  if (text.trim() === '') return 'must not be blank'
  if (controlCharacters.test(text)) return 'must not contain control characters'
  return undefined
}

export const networkName = () => name(faultOfName).describe('1-255 characters')

/** Of endpoints, which are named as their containers. */
const faultOfSlash = (text: string): string | undefined =>
  text.includes('/') ? 'must not contain "/"' : undefined

/** Whoever could take such a name would stand among the tasks of a service, which are asked for by it. */
const faultOfReserved = (text: string): string | undefined =>
  /^tasks\./i.test(text) ? 'must not begin with "tasks.", which leads to the tasks of a service' : undefined

const endpointName = () =>
  name(text => faultOfName(text) ?? faultOfSlash(text) ?? faultOfReserved(text)).describe('1-255 characters')
const containerId = () =>
  name(text =>
    /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/.test(text)
      ? undefined
      : 'must start with a letter or digit, then letters, digits, "_", "." or "-"',
  )

/** Lists longer than this are a slip, or an attack. */
const MANY = 4096

const driverName = () =>
  name(text =>
    /^[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,127}$/.test(text)
      ? undefined
      : 'must be 1-128 letters, digits, "_", ".", ":", "/" or "-", a letter or digit first',
  )

const faultOfDnsName = (text: string): string | undefined =>
  /^(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$/.test(text)
    ? undefined
    : 'must be labels of 1-63 letters, digits, "-" or "_", separated by dots'

export const dnsName = () => name(faultOfDnsName)

/** One that an endpoint or a service may answer to. */
const servedName = () => name(text => faultOfDnsName(text) ?? faultOfReserved(text))

/** `[DOMAIN=]ADDRESS[#PORT]`: with a domain it is asked for names in that domain only (split DNS). */
const upstream = () =>
  z
    .string()
    .max(512)
    .superRefine((text, context) => {
      try {
        parseUpstream(text, 'sandbox')
      } catch (error) {
        context.addIssue({ code: 'custom', message: (error as Error).message })
      }
    })

const labels = () => z.record(z.string().min(1), z.string()).default({})
const driverOptions = () => z.record(z.string(), z.unknown()).default({})

const IpamConfig = z.strictObject({
  /** Absent, or `0.0.0.0/24` for any of that size: one is chosen. */
  subnet: subnet().optional(),
  /** Dynamic addresses come from here. */
  ipRange: subnet().optional(),
  gateway: ip().optional(),
  auxAddresses: z.record(z.string().min(1), ip()).default({}),
})

export const NetworkOptions = z
  .strictObject({
    name: networkName(),
    id: z
      .string()
      .regex(/^[0-9a-f]{64}$/, 'must be 64 hexadecimal digits')
      .optional(),
    driver: driverName().default('bridge'),
    ipv4: z.boolean().optional().describe('default true'),
    ipv6: z.boolean().optional().describe('default: true when an IPv6 subnet is configured'),
    internal: z.boolean().default(false),
    attachable: z.boolean().default(false),
    ingress: z.boolean().default(false),
    configOnly: z.boolean().default(false),
    /** Name or id of a configOnly network whose configuration is taken. */
    configFrom: z.string().optional(),
    scope: z.enum(['local', 'global', 'swarm']).optional(),
    labels: labels(),
    options: driverOptions(),
    ipam: z
      .strictObject({
        driver: driverName().default('default'),
        config: z.array(IpamConfig).max(MANY).default([]),
        /** Absent is as good as empty; it is told as it was given. */
        options: z.record(z.string(), z.string()).optional(),
        /** Take an explicit subnet although the host has a route that overlaps it. */
        force: z.boolean().default(false),
      })
      .prefault({}),
    dns: z
      .strictObject({
        /** Name servers for endpoints of this network, `[DOMAIN=]ADDRESS[#PORT]`; default: the sandbox's, then the host's. */
        servers: z.array(upstream()).default([]),
        records: z
          .array(
            z
              .strictObject({
                name: z.string(),
                type: z.enum(['A', 'AAAA', 'CNAME', 'TXT', 'SRV']),
                value: z.string(),
                ttl: z.number().int().min(0).max(86400).optional(),
                priority: z.number().int().min(0).max(65535).optional(),
                weight: z.number().int().min(0).max(65535).optional(),
                port: z.number().int().min(0).max(65535).optional(),
              })
              .refine(({ type, port }) => type !== 'SRV' || port !== undefined, {
                path: ['port'],
                error: 'an SRV record needs a port, 0 to 65535',
              }),
          )
          .default([]),
      })
      .prefault({}),
  })
  .describe('options of createNetwork')
export type NetworkOptions = z.output<typeof NetworkOptions>
export type NetworkInput = z.input<typeof NetworkOptions>

export const NetworkUpdate = z.strictObject({
  labels: z.record(z.string().min(1), z.string()).optional(),
  dns: z
    .strictObject({
      // Without the defaults of createNetwork: what is not named stays.
      servers: NetworkOptions.shape.dns.unwrap().shape.servers.unwrap().optional(),
      records: NetworkOptions.shape.dns.unwrap().shape.records.unwrap().optional(),
    })
    .optional(),
})
export type NetworkUpdate = z.output<typeof NetworkUpdate>

const rate = () =>
  z.number().int().min(1000).nullable().optional().describe('bits per second; null: no limit')

/** A task's share of the new flows of its service; 0: none, it is being drained. */
export const weight = () => z.number().int().min(0).max(1000)

export const EndpointOptions = z.strictObject({
  name: endpointName(),
  id: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'must be 64 hexadecimal digits')
    .optional(),
  aliases: z.array(servedName()).max(MANY).default([]),
  ipv4: ipv4().optional(),
  ipv6: ipv6().optional(),
  /** Link-local addresses in addition; 169.254.0.0/16 and fe80::/64. */
  linkLocal: z.array(ip()).max(MANY).default([]),
  mac: mac().optional(),
  ports: z.array(portBinding).max(MANY).default([]),
  /** `80/tcp`: what the container listens on; published all at once with publishAll. */
  exposed: z.array(z.string().max(64)).max(MANY).default([]),
  /** Publish every exposed port on a chosen host port. */
  publishAll: z.boolean().default(false),
  /** alias → name of another endpoint: seen by this endpoint's sandbox only. */
  links: z.record(dnsName(), z.string()).default({}),
  labels: labels(),
  options: driverOptions(),
  /** Answer no names for it. */
  disableResolution: z.boolean().default(false),
  bandwidth: z.strictObject({ ingress: rate(), egress: rate() }).prefault({}),
  /** The service of this network whose task it is, by name or id. */
  service: z
    .union([
      z
        .string()
        .min(1)
        .max(255)
        .transform(name => ({ name, weight: 1 })),
      z.strictObject({ name: z.string().min(1).max(255), weight: weight().default(1) }),
    ])
    .optional(),
})
export type EndpointOptions = z.output<typeof EndpointOptions>
export type EndpointInput = z.input<typeof EndpointOptions>

const port = () => z.number().int().min(1).max(65535)

const servicePort = z
  .strictObject({
    /** Of SRV records: `_NAME._tcp.SERVICE`. */
    name: z
      .string()
      .regex(
        /^[A-Za-z0-9]([A-Za-z0-9-]{0,13}[A-Za-z0-9])?$/,
        'must be 1-15 letters, digits or "-" (RFC 6335)',
      )
      .optional(),
    /** Where the tasks listen. */
    targetPort: port(),
    /** Of the virtual IP; default: targetPort. */
    port: port().optional(),
    protocol: z.enum(['tcp', 'udp', 'sctp']).default('tcp'),
    /** Of the hosts; absent: not published. */
    publishedPort: port().optional(),
    /**
     * `ingress`: it answers on every host, and any task may get it, which sees the host's address. `host`: on the hosts of the
     * tasks only, which see the client's address; one task a host.
     */
    mode: z.enum(['ingress', 'host']).default('ingress'),
  })
  .transform(({ port: wanted, ...rest }) => ({ ...rest, port: wanted ?? rest.targetPort }))

const serviceFields = {
  /** Further names. */
  aliases: z.array(servedName()).max(MANY).default([]),
  /** None: every port of the virtual IP leads to the same port of a task. Some: only these. */
  ports: z.array(servicePort).max(256).default([]),
  /** `client`: a client's flows go to one task as long as it is there. */
  affinity: z.enum(['none', 'client']).default('none'),
  labels: labels(),
}

export const ServiceOptions = z
  .strictObject({
    name: servedName(),
    /** Name or id of the network that the tasks are on. Default: the ingress network of the cluster, made on first use; it serves no names. */
    network: z.string().min(1).max(255).optional(),
    /** `vip`: the name leads to a virtual IP that balances. `dnsrr`: to all tasks. */
    endpointMode: z.enum(['vip', 'dnsrr']).default('vip'),
    /** The virtual IPs; default: addresses of the network's pools. */
    ipv4: ipv4().optional(),
    ipv6: ipv6().optional(),
    ...serviceFields,
  })
  .superRefine(({ endpointMode, ports, ipv4: four, ipv6: six }, context) => {
    const refuse = (message: string) => context.addIssue({ code: 'custom', message })
    if (endpointMode === 'dnsrr' && (four ?? six) !== undefined) refuse('a virtual IP needs endpointMode vip')
    if (endpointMode === 'dnsrr' && ports.some(each => each.publishedPort && each.mode === 'ingress'))
      refuse('port published with ingress mode cannot be used with endpointMode dnsrr; use mode host')
    for (const twin of twins(ports)) refuse(twin)
  })
  .describe('options of createService')
export type ServiceOptions = z.output<typeof ServiceOptions>
export type ServiceInput = z.input<typeof ServiceOptions>

export const ServiceUpdate = z
  .strictObject({
    aliases: serviceFields.aliases.unwrap().optional(),
    ports: serviceFields.ports.unwrap().optional(),
    affinity: serviceFields.affinity.unwrap().optional(),
    labels: serviceFields.labels.unwrap().optional(),
  })
  .superRefine(({ ports = [] }, context) => {
    for (const message of twins(ports)) context.addIssue({ code: 'custom', message })
  })
export type ServiceUpdate = z.output<typeof ServiceUpdate>

/** Ports that are in the list twice. */
function twins(ports: z.output<typeof servicePort>[]): string[] {
  const found: string[] = []
  const seen = new Set<string>()
  for (const { port: own, protocol, publishedPort } of ports)
    for (const each of [
      `port ${own}/${protocol}`,
      publishedPort && `published port ${publishedPort}/${protocol}`,
    ]) {
      if (each && seen.has(each)) found.push(`${each} is listed twice`)
      if (each) seen.add(each)
    }
  return found
}

export const JoinOptions = z
  .strictObject({
    /** The endpoint of highest priority is the sandbox's gateway. */
    priority: z
      .number()
      .int()
      .min(-(2 ** 31))
      .max(2 ** 31 - 1)
      .default(0),
    interfaceName: linkName()
      .optional()
      .describe('default: the prefix of the network and the lowest free number'),
    /** `net.ipv4.conf.IFNAME.rp_filter` → value; IFNAME stands for the interface. */
    sysctls: z
      .record(
        z.string().regex(/^net\.[a-z0-9_]+\.[a-z0-9_]+\.IFNAME\.[a-z0-9_]+$/, 'must be net.X.Y.IFNAME.Z'),
        z.string().regex(/^[^\n]*$/),
      )
      .default({}),
    /** Routes beside that of the subnet and the default. */
    routes: z
      .array(
        z.strictObject({
          destination: subnet(),
          gateway: ip().optional(),
          type: z.enum(['unicast', 'blackhole', 'unreachable', 'prohibit']).default('unicast'),
          metric: z.number().int().min(0).optional(),
        }),
      )
      .default([]),
  })
  .prefault({})
export type JoinOptions = z.output<typeof JoinOptions>
export type JoinInput = z.input<typeof JoinOptions>

/** Both are written into resolv.conf as they are. */
const searchDomains = () =>
  z.array(z.string().regex(/^(\.|[A-Za-z0-9._-]{1,253})$/, 'must be a domain, or "."')).default([])
const resolvOptions = () =>
  z.array(z.string().regex(/^[a-z0-9:_-]{1,64}$/i, 'must be an option of resolv.conf(5)')).default([])

export const SandboxOptions = z.strictObject({
  containerId: containerId(),
  /**
   * `own`: a new namespace. `host`: the host's. `deferred`: none until `setKey` hands over the runtime's.
   * `container:ID`: that of another sandbox.
   */
  mode: z
    .string()
    .regex(/^(own|host|deferred|container:.{1,255})$/, 'must be own, host, deferred or container:ID')
    .default('own'),
  hostname: dnsName().optional().describe('default: the first 12 characters of the container id'),
  domainname: dnsName().optional(),
  dns: z
    .strictObject({
      /** `[DOMAIN=]ADDRESS[#PORT]`, asked from the sandbox; those with a domain beside the others (split DNS). */
      servers: z.array(upstream()).default([]),
      search: searchDomains(),
      options: resolvOptions(),
    })
    .prefault({}),
  /** `name:ip`; the address may be `host-gateway`. */
  extraHosts: z
    .array(z.string().regex(/^[^:\s]+[:=](host-gateway|[0-9a-fA-F:.[\]]+)$/, 'must be NAME:ADDRESS'))
    .default([]),
  labels: labels(),
  /** Keep /etc/hosts, resolv.conf and hostname files for the container. */
  files: z.boolean().default(true),
  /** Serve names at 127.0.0.11 inside. */
  resolver: z.boolean().default(true),
})
export type SandboxOptions = z.output<typeof SandboxOptions>
export type SandboxInput = z.input<typeof SandboxOptions>

const addressPool = z.strictObject({ base: cidr(), size: z.number().int().min(0).max(128) })
const instance = <T>(what: string) =>
  z.custom<T>(value => typeof value === 'object' && value !== null, `must be ${what}`)

const pem = () => z.union([z.string(), instance<Buffer>('text or a Buffer')])

export const ControllerOptions = z
  .strictObject({
    /** Names this controller: its firewall table, its run directory, the mark on its links. Two on one host need two names. */
    name: z
      .string()
      .regex(/^[a-z][a-z0-9-]{0,30}$/, 'must be 1-31 lower case letters, digits or "-", a letter first')
      .default(DEFAULT_NAME),
    /** State that survives: a folder. Memory only when absent. */
    dataDir: z.string().startsWith('/', 'must be an absolute path').optional(),
    /** Namespaces and files of sandboxes. Default /run/NAME. */
    runDir: z.string().startsWith('/', 'must be an absolute path').optional(),
    /** Path of the network namespace to use as the host. Default: the process's own. */
    host: z.string().startsWith('/', 'must be an absolute path').optional(),
    firewall: z.enum(['auto', 'nftables', 'iptables', 'none']).default('auto'),
    /** Switch IP forwarding on when a network needs it and it is off. */
    ipForward: z.boolean().default(true),
    userlandProxy: z.boolean().default(true),
    /** Cut into subnets for networks that ask for none. Default: Docker's. */
    addressPools: z.array(addressPool).optional(),
    /** MTU of networks that name none; bytes. */
    mtu: z.number().int().min(68).max(65535).optional(),
    dns: z
      .strictObject({
        servers: z.array(ip()).default([]),
        search: searchDomains(),
        options: resolvOptions(),
      })
      .prefault({}),
    /** File that the host's name servers are read from. */
    resolvConf: z.string().default('/etc/resolv.conf'),
    /** Make the networks bridge, host and none; an object sets up the bridge one. */
    predefined: z
      .union([
        z.boolean(),
        z.strictObject({
          bridge: linkName().default('docker0'),
          bip: cidr().optional().describe('address and prefix of the bridge'),
          bip6: cidr().optional(),
          fixedCidr: subnet().optional(),
          fixedCidrV6: subnet().optional(),
          defaultGateway: ipv4().optional(),
          defaultGatewayV6: ipv6().optional(),
          icc: z.boolean().default(true),
          ipMasq: z.boolean().default(true),
          ipv6: z.boolean().default(false),
          hostBinding: ip().optional(),
        }),
      ])
      .default(false),
    /** Containers that are alive: their sandboxes are kept at start, others are swept. Default: those whose namespace is in use. */
    activeSandboxes: z.array(z.string()).optional(),
    /** Bring the kernel to the stored state at start. If not, `check()` tells what differs. */
    repairAtStart: z.boolean().default(true),
    /** How many namespaces to keep ready for createSandbox. */
    warmSandboxes: z.number().int().min(0).max(1024).default(0),
    /** Seed of the ULA prefix for IPv6 networks that ask for no subnet; default: the machine id. */
    hostId: z.string().optional(),
    drivers: z.array(instance<Driver>('a driver')).default([]),
    ipamDrivers: z.array(instance<IpamDriver>('an IPAM driver')).default([]),
    /** Where plugins of Docker's protocol are looked for by name, when a network asks for a driver that nobody registered. */
    pluginDirectories: z
      .array(z.string().startsWith('/', 'must be an absolute path'))
      .optional()
      .describe("default: Docker's"),
    /** Networks that span hosts: their common store, and this host's place among them. */
    cluster: z
      .strictObject({
        /** Of etcd v3: `http://10.0.0.1:2379`, https for TLS. */
        endpoints: z
          .array(z.string().regex(/^https?:\/\/[^/\s]+$/, 'must be http(s)://HOST:PORT'))
          .min(1)
          .optional(),
        /** Instead of etcd: a store of one's own, or the one in memory of libcnm/testing. */
        backend: instance<Backend>('a cluster backend').optional(),
        /** Of all keys. */
        prefix: z
          .string()
          .regex(/^(\/[A-Za-z0-9_.-]+)+$/, 'must be /NAME or /NAME/NAME')
          .default('/libcnm'),
        credentials: z.strictObject({ username: z.string().min(1), password: z.string() }).optional(),
        /** PEM. */
        tls: z
          .strictObject({ ca: pem().optional(), cert: pem().optional(), key: pem().optional() })
          .optional(),
        host: z.strictObject({
          /** Unique in the cluster. */
          name: z
            .string()
            .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/, 'must be 1-128 letters, digits, "_", "." or "-"'),
          /** Where tunnels to this host end: one of its addresses, which the other hosts can reach. */
          address: ip(),
        }),
        /** Seconds that the others wait for a host that is silent before they withdraw its endpoints. */
        lease: z.number().int().min(1).max(3600).default(15),
        /** Milliseconds that one request to the store may take. */
        timeout: z.number().int().min(100).max(60_000).default(5_000),
        /** UDP port of VXLAN; the same on all hosts. */
        tunnelPort: z.number().int().min(1).max(65535).default(4789),
        /** Seconds after which the keys of encrypted networks are changed. */
        keyLifetime: z.number().int().min(1).max(2_592_000).default(43_200),
        /** Cut into subnets for networks that ask for none. Default: 10.0.0.0/8 in /24, and a unique local /48. */
        addressPools: z.array(addressPool).optional(),
      })
      .refine(
        ({ endpoints, backend }) => (endpoints === undefined) !== (backend === undefined),
        'needs endpoints (of etcd)',
      )
      .optional(),
    kernel: instance<Kernel>('a kernel').optional(),
    log: instance<Logger>('a logger').optional(),
  })
  .prefault({})
export type ControllerOptions = z.output<typeof ControllerOptions>
export type ControllerInput = z.input<typeof ControllerOptions>
