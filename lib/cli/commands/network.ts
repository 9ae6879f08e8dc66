/** cnm network …: the verbs and options of docker network. */
import type { NetworkJson } from '../../api/network-json'
import { pairs, UsageError } from '../args'
import type { Client } from '../client'
import {
  type Command,
  FILTER,
  filters,
  flag,
  FORMAT,
  type Invocation,
  labelText,
  many,
  NO_TRUNC,
  one,
  QUIET,
} from '../command'
import { type Column, formatList } from '../output'
import { createCommand } from './network-create'
import { inspectCommand, removeCommand } from './of-names'

const path = (name: string) => `/networks/${encodeURIComponent(name)}`
const NETWORK = { noun: 'network', operand: 'NETWORK', path } as const

const remove = removeCommand(NETWORK, {
  summary: 'Delete networks',
  force: 'no error if there is none',
  async remove(api, where, force) {
    try {
      await api.delete(where)
    } catch (error) {
      if (!(force && (error as { status?: number }).status === 404)) throw error
    }
  },
})

const inspect = inspectCommand(NETWORK, {
  options: [{ ...flag('verbose', 'services and tasks too'), short: 'v' }],
  examples: [`cnm network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' web`],
  optional: ['EnableIPv4', 'Peers', 'Services'],
  query: values => (values.flag('verbose') ? '?verbose=true' : ''),
})

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
  Labels: labelText(Labels),
  Subnets: (IPAM.Config ?? []).map(({ Subnet }) => Subnet ?? '').join(','),
  Label: (key: unknown) => Labels?.[String(key)] ?? '',
})

const connect: Command = {
  name: 'network connect',
  summary: 'Connect a container to a network',
  operands: 'NETWORK CONTAINER',
  least: 2,
  most: 2,
  completes: ['network', 'sandbox'],
  options: [
    many('alias', 'NAME', 'another name of the container on this network'),
    many('driver-opt', 'KEY=VALUE', 'an option for the driver'),
    one('gw-priority', 'NUMBER', 'the network of highest priority is the way out'),
    one('ip', 'ADDRESS', 'IPv4 address'),
    one('ip6', 'ADDRESS', 'IPv6 address'),
    {
      ...many('link', 'CONTAINER[:ALIAS]', 'see another container under a name of its own'),
      completes: 'sandbox',
    },
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
    await api.post(`${path(name)}/connect`, {
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
  completes: ['network', 'sandbox'],
  options: [{ name: 'force', short: 'f', kind: 'flag', help: 'even if there is no such container any more' }],
  async run({ values, args, client }) {
    const [name = '', Container] = args
    const api = await client()
    await api.post(`${path(name)}/disconnect`, {
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

export const networkCommands: Command[] = [connect, createCommand, disconnect, inspect, list, prune, remove]
