/** cnm network …: the verbs and options of docker network. */
import type { NetworkJson } from '../../api/network-json'
import { contains, network, parseCidr, parseIp } from '../../base/cidr'
import { type Option, pairs, UsageError } from '../args'
import type { Client } from '../client'
import {
  type Command,
  each,
  FILTER,
  filters,
  FORMAT,
  type Invocation,
  NO_TRUNC,
  QUIET,
  SHORT_FORMAT,
} from '../command'
import { type Column, formatList, formatObjects } from '../output'

const one = (name: string, value: string, help: string): Option => ({ name, kind: 'one', value, help })
const many = (name: string, value: string, help: string): Option => ({ name, kind: 'many', value, help })
const flag = (name: string, help: string): Option => ({ name, kind: 'flag', help })

const create: Command = {
  name: 'network create',
  summary: 'Create a network',
  operands: 'NETWORK',
  least: 1,
  most: 1,
  options: [
    flag('attachable', 'containers may be connected by hand (networks that span hosts)'),
    many('aux-address', 'NAME=ADDRESS', 'an address that nobody gets'),
    one('config-from', 'NETWORK', 'take the configuration of a config-only network'),
    flag('config-only', 'only hold configuration for other networks'),
    { ...one('driver', 'DRIVER', 'default: bridge'), short: 'd' },
    many('gateway', 'ADDRESS', 'of a subnet; default: its first free address'),
    flag('ingress', 'the network of the routing mesh'),
    flag('internal', 'no way out, no way in'),
    many('ip-range', 'CIDR', 'the part of a subnet that addresses are chosen from'),
    one('ipam-driver', 'DRIVER', 'default: default'),
    many('ipam-opt', 'KEY=VALUE', 'an option for the IPAM driver'),
    flag('ipv4', 'addresses of IPv4; default: true'),
    flag('ipv6', 'addresses of IPv6; default: false'),
    many('label', 'KEY=VALUE', 'a label'),
    { ...many('opt', 'KEY=VALUE', 'an option for the driver'), short: 'o' },
    one('scope', 'SCOPE', 'local, global or swarm'),
    many('subnet', 'CIDR', 'a subnet; default: one is chosen'),
  ],
  examples: [
    'cnm network create web',
    'cnm network create --subnet 10.10.0.0/24 --ip-range 10.10.0.128/25 --gateway 10.10.0.1 db',
    'cnm network create --ipv6 --internal --opt com.docker.network.driver.mtu=1450 back',
  ],
  async run({ values, args, io, client }) {
    const api = await client()
    const { Id, Warning } = await api.post<{ Id: string; Warning: string }>('/networks/create', {
      Name: args[0],
      Driver: values.one('driver') ?? (values.flag('config-only') ? '' : 'bridge'),
      Scope: values.one('scope'),
      EnableIPv4: values.given('ipv4'),
      EnableIPv6: values.given('ipv6'),
      IPAM: {
        Driver: values.one('ipam-driver') ?? 'default',
        Options: pairs(values.many('ipam-opt'), 'ipam-opt'),
        Config: ipamConfig({
          subnets: values.many('subnet'),
          ranges: values.many('ip-range'),
          gateways: values.many('gateway'),
          auxiliary: pairs(values.many('aux-address'), 'aux-address'),
        }),
      },
      Internal: values.flag('internal'),
      Attachable: values.flag('attachable'),
      Ingress: values.flag('ingress'),
      ConfigOnly: values.flag('config-only'),
      ConfigFrom: values.one('config-from') ? { Network: values.one('config-from') } : undefined,
      Options: pairs(values.many('opt'), 'opt'),
      Labels: pairs(values.many('label'), 'label'),
    })
    if (Warning) io.error(`cnm: ${Warning}\n`)
    io.out(`${Id}\n`)
    return 0
  },
}

interface IpamWords {
  subnets: string[]
  ranges: string[]
  gateways: string[]
  auxiliary: Record<string, string>
}

/** Ranges, gateways and auxiliary addresses go to the subnet that they lie in: the API checks the details. */
export function ipamConfig({ subnets, ranges, gateways, auxiliary }: IpamWords) {
  if (!subnets.length && (ranges.length || gateways.length || Object.keys(auxiliary).length))
    throw new UsageError('--ip-range, --gateway and --aux-address need a --subnet')
  const configs = subnets.map(subnet => ({
    Subnet: subnet,
    IPRange: undefined as string | undefined,
    Gateway: undefined as string | undefined,
    AuxiliaryAddresses: {} as Record<string, string>,
  }))
  const home = (address: string, option: string) => {
    const found =
      configs.find(({ Subnet }) => holds(Subnet, address)) ?? (configs.length === 1 ? configs[0] : undefined)
    if (!found) throw new UsageError(`no --subnet fits --${option} ${address}`)
    return found
  }
  const claim = (field: 'IPRange' | 'Gateway', option: string, address: string) => {
    const config = home(address, option)
    if (config[field]) throw new UsageError(`more than one --${option} for subnet ${config.Subnet}`)
    config[field] = address
  }
  for (const range of ranges) claim('IPRange', 'ip-range', range)
  for (const gateway of gateways) claim('Gateway', 'gateway', gateway)
  for (const [name, address] of Object.entries(auxiliary))
    home(address, 'aux-address').AuxiliaryAddresses[name] = address
  return configs
}

function holds(subnet: string, address: string): boolean {
  try {
    const outer = parseCidr(subnet)
    return contains(network(outer), parseIp(address.replace(/\/.*/, '')))
  } catch {
    return false
  }
}

const remove: Command = {
  name: 'network rm',
  aliases: ['network remove'],
  summary: 'Delete networks',
  operands: 'NETWORK [NETWORK...]',
  least: 1,
  most: Number.POSITIVE_INFINITY,
  completes: 'network',
  options: [{ name: 'force', short: 'f', kind: 'flag', help: 'no error if there is none' }],
  async run({ values, args, io, client }) {
    const api = await client()
    return each({ args, io }, async name => {
      try {
        await api.delete(`/networks/${encodeURIComponent(name)}`)
      } catch (error) {
        if (!(values.flag('force') && (error as { status?: number }).status === 404)) throw error
      }
      return name
    })
  },
}

const list: Command = {
  name: 'network ls',
  aliases: ['network list'],
  summary: 'List networks',
  operands: '',
  least: 0,
  most: 0,
  options: [{ ...FILTER, short: 'f' }, FORMAT, NO_TRUNC, QUIET],
  description:
    'Filters: driver, id, label, name, scope, type (builtin, custom), dangling (true, false).\nFields: .ID .Name .Driver .Scope .IPv4 .IPv6 .Internal .CreatedAt .Labels .Subnets, .Label "KEY".',
  examples: [
    'cnm network ls --filter type=custom',
    `cnm network ls --format 'table {{.Name}}\\t{{.Subnets}}'`,
  ],
  async run({ values, io, client }) {
    const networks = await (await client()).networks(filters(values.many('filter')))
    networks.sort((a, b) => (a.Name < b.Name ? -1 : 1))
    const full = values.flag('no-trunc')
    const id = ({ Id }: NetworkJson) => (full ? Id : Id.slice(0, 12))
    const columns: Column<NetworkJson>[] = [
      { title: 'NETWORK ID', field: 'ID', value: id },
      { title: 'NAME', field: 'Name', value: ({ Name }) => Name },
      { title: 'DRIVER', field: 'Driver', value: ({ Driver }) => Driver },
      { title: 'SCOPE', field: 'Scope', value: ({ Scope }) => Scope },
    ]
    const how = { format: values.one('format'), quiet: values.flag('quiet') }
    io.out(formatList(networks, columns, how, id, listExtras))
    return 0
  },
}

const listExtras = ({ EnableIPv4, EnableIPv6, Internal, Created, Labels, IPAM }: NetworkJson) => ({
  IPv4: EnableIPv4 !== false,
  IPv6: EnableIPv6,
  Internal,
  CreatedAt: Created,
  Labels: Object.entries(Labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(','),
  Subnets: (IPAM.Config ?? []).map(({ Subnet }) => Subnet ?? '').join(','),
  Label: (key: unknown) => Labels?.[String(key)] ?? '',
})

const inspect: Command = {
  name: 'network inspect',
  summary: 'Show networks in detail',
  operands: 'NETWORK [NETWORK...]',
  least: 1,
  most: Number.POSITIVE_INFINITY,
  completes: 'network',
  options: [SHORT_FORMAT, { name: 'verbose', short: 'v', kind: 'flag', help: 'services and tasks too' }],
  examples: [`cnm network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' web`],
  async run({ values, args, io, client }) {
    const api = await client()
    return inspectAll(args, values.one('format'), io, name =>
      api.get(`/networks/${encodeURIComponent(name)}${values.flag('verbose') ? '?verbose=true' : ''}`),
    )
  },
}

/** Shows what is found, and complains of the rest. */
export async function inspectAll(
  names: readonly string[],
  format: string | undefined,
  io: Invocation['io'],
  get: (name: string) => Promise<unknown>,
): Promise<number> {
  const found: unknown[] = []
  const failures: string[] = []
  for (const name of names) {
    try {
      found.push(await get(name))
    } catch (error) {
      if ((error as Error).name !== 'ApiError') throw error
      failures.push((error as Error).message)
    }
  }
  io.out(formatObjects(found, format))
  for (const failure of failures) io.error(`cnm: ${failure}\n`)
  return failures.length ? 1 : 0
}

const connect: Command = {
  name: 'network connect',
  summary: 'Connect a container to a network',
  operands: 'NETWORK CONTAINER',
  least: 2,
  most: 2,
  completes: 'network',
  options: [
    many('alias', 'NAME', 'another name of the container on this network'),
    many('driver-opt', 'KEY=VALUE', 'an option for the driver'),
    one('gw-priority', 'NUMBER', 'the network of highest priority is the way out'),
    one('ip', 'ADDRESS', 'IPv4 address'),
    one('ip6', 'ADDRESS', 'IPv6 address'),
    many('link', 'CONTAINER[:ALIAS]', 'see another container under a name of its own'),
    many('link-local-ip', 'ADDRESS', 'a link-local address in addition'),
    one('mac-address', 'MAC', 'of the interface'),
    { ...many('publish', 'PORT', 'publish a port: [HOST-IP:][HOST-PORT:]PORT[/PROTOCOL]'), short: 'p' },
  ],
  examples: [
    'cnm network connect --ip 10.10.0.9 --alias api web c1',
    'cnm network connect -p 8080:80 web c1',
  ],
  async run({ values, args, client }) {
    const [name = '', Container = ''] = args
    const api = await client()
    const priority = values.one('gw-priority')
    if (priority !== undefined && !/^-?\d+$/.test(priority))
      throw new UsageError(`--gw-priority must be a whole number, not ${JSON.stringify(priority)}`)
    if (values.many('publish').length) return publish(api, name, Container, values)
    await api.post(`/networks/${encodeURIComponent(name)}/connect`, {
      Container,
      EndpointConfig: {
        IPAMConfig: {
          IPv4Address: values.one('ip'),
          IPv6Address: values.one('ip6'),
          LinkLocalIPs: values.many('link-local-ip'),
        },
        Links: values.many('link'),
        Aliases: values.many('alias'),
        MacAddress: values.one('mac-address'),
        DriverOpts: pairs(values.many('driver-opt'), 'driver-opt'),
        GwPriority: Number(priority ?? 0),
      },
    })
    return 0
  },
}

/** Docker's request has no ports; ours has. */
async function publish(api: Client, name: string, sandbox: string, values: Invocation['values']) {
  if (values.many('link').length) throw new UsageError('--link and --publish do not go together')
  await api.post('/libcnm/endpoints', {
    network: name,
    sandbox,
    endpoint: {
      aliases: values.many('alias'),
      ipv4: values.one('ip'),
      ipv6: values.one('ip6'),
      linkLocal: values.many('link-local-ip'),
      mac: values.one('mac-address'),
      options: pairs(values.many('driver-opt'), 'driver-opt'),
      ports: values.many('publish'),
    },
    join: { priority: Number(values.one('gw-priority') ?? 0) },
  })
  return 0
}

const disconnect: Command = {
  name: 'network disconnect',
  summary: 'Disconnect a container from a network',
  operands: 'NETWORK CONTAINER',
  least: 2,
  most: 2,
  completes: 'network',
  options: [{ name: 'force', short: 'f', kind: 'flag', help: 'even if there is no such container any more' }],
  async run({ values, args, client }) {
    const [name = '', Container] = args
    const api = await client()
    await api.post(`/networks/${encodeURIComponent(name)}/disconnect`, {
      Container,
      Force: values.flag('force'),
    })
    return 0
  },
}

const prune: Command = {
  name: 'network prune',
  summary: 'Delete all networks that nobody uses',
  operands: '',
  least: 0,
  most: 0,
  options: [
    { ...FILTER, help: 'until=TIME, label=…, label!=…' },
    { name: 'force', short: 'f', kind: 'flag', help: 'do not ask' },
  ],
  async run({ values, io, client }) {
    const api = await client()
    const wanted = pruneFilters(values.many('filter'))
    const question = 'This will delete all networks that no container uses. Go on? [y/N] '
    if (!values.flag('force') && !(await io.confirm(question))) return 1
    const { NetworksDeleted } = await api.post<{ NetworksDeleted: string[] | null }>(
      `/networks/prune?filters=${encodeURIComponent(JSON.stringify(wanted))}`,
    )
    for (const name of NetworksDeleted ?? []) io.out(`${name}\n`)
    return 0
  },
}

/** `label!=key` is the key `label!`. */
const pruneFilters = (texts: readonly string[]) =>
  filters(texts.map(text => (text.startsWith('label!=') ? `label!${text.slice(6)}` : text)))

export const networkCommands: Command[] = [connect, create, disconnect, inspect, list, prune, remove]
