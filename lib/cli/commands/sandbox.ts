/** cnm sandbox …: network stacks of containers. */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { SandboxInspect } from '../../sandbox'
import { pairs } from '../args'
import { type Command, each, FORMAT, NO_TRUNC, QUIET, SHORT_FORMAT } from '../command'
import { type Column, formatList } from '../output'
import { inspectAll } from './network'

const path = (name: string) => `/libcnm/sandboxes/${encodeURIComponent(name)}`

const create: Command = {
  name: 'sandbox create',
  summary: 'Create the network stack of a container',
  operands: 'CONTAINER',
  least: 1,
  most: 1,
  options: [
    { name: 'add-host', kind: 'many', value: 'NAME:ADDRESS', help: 'a line of /etc/hosts' },
    { name: 'dns', kind: 'many', value: 'ADDRESS', help: 'a name server' },
    { name: 'dns-opt', kind: 'many', value: 'OPTION', help: 'an option of resolv.conf' },
    { name: 'dns-search', kind: 'many', value: 'DOMAIN', help: 'a search domain' },
    { name: 'domainname', kind: 'one', value: 'DOMAIN', help: 'of the container' },
    { name: 'hostname', kind: 'one', value: 'NAME', help: 'default: the first 12 characters of CONTAINER' },
    { name: 'label', kind: 'many', value: 'KEY=VALUE', help: 'a label' },
    {
      name: 'mode',
      kind: 'one',
      value: 'MODE',
      help: 'own (a new namespace), host, deferred (given later) or container:ID; default own',
    },
    { name: 'network', kind: 'many', value: 'NETWORK', help: 'connect it at once; the first is the way out' },
    { name: 'publish', short: 'p', kind: 'many', value: 'PORT', help: 'on the first network' },
  ],
  description: 'Prints the path of the namespace.',
  examples: ['cnm sandbox create --network web -p 8080:80 c1'],
  async run({ values, args, io, client }) {
    const api = await client()
    const made = await api.post<SandboxInspect>('/libcnm/sandboxes', {
      containerId: args[0],
      mode: values.one('mode'),
      hostname: values.one('hostname'),
      domainname: values.one('domainname'),
      dns: {
        servers: values.many('dns'),
        search: values.many('dns-search'),
        options: values.many('dns-opt'),
      },
      extraHosts: values.many('add-host'),
      labels: pairs(values.many('label'), 'label'),
    })
    try {
      let ports = values.many('publish')
      for (const network of values.many('network')) {
        await api.post('/libcnm/endpoints', { network, sandbox: made.id, endpoint: { ports } })
        ports = []
      }
    } catch (error) {
      await api.delete(`${path(made.id)}?force=true`)
      throw error
    }
    io.out(`${made.key ?? made.id}\n`)
    return 0
  },
}

const remove: Command = {
  name: 'sandbox rm',
  aliases: ['sandbox remove'],
  summary: 'Delete sandboxes, with their endpoints',
  operands: 'CONTAINER [CONTAINER...]',
  least: 1,
  most: Number.POSITIVE_INFINITY,
  completes: 'sandbox',
  options: [{ name: 'force', short: 'f', kind: 'flag', help: 'whatever the drivers say' }],
  async run({ values, args, io, client }) {
    const api = await client()
    return each({ args, io }, async name => {
      await api.delete(`${path(name)}${values.flag('force') ? '?force=true' : ''}`)
      return name
    })
  },
}

const list: Command = {
  name: 'sandbox ls',
  aliases: ['sandbox list'],
  summary: 'List sandboxes',
  operands: '',
  least: 0,
  most: 0,
  options: [FORMAT, NO_TRUNC, QUIET],
  description: 'Fields: .ID .Container .Mode .Networks .Addresses .Namespace .CreatedAt .Labels.',
  async run({ values, io, client }) {
    const sandboxes = await (await client()).get<SandboxInspect[]>('/libcnm/sandboxes')
    const full = values.flag('no-trunc')
    const id = (sandbox: SandboxInspect) => (full ? sandbox.id : sandbox.id.slice(0, 12))
    const columns: Column<SandboxInspect>[] = [
      { title: 'SANDBOX ID', field: 'ID', value: id },
      {
        title: 'CONTAINER',
        field: 'Container',
        value: ({ containerId }) =>
          full ? containerId : containerId.replace(/^([0-9a-f]{12})[0-9a-f]{52}$/, '$1'),
      },
      { title: 'MODE', field: 'Mode', value: ({ mode }) => mode },
      {
        title: 'NETWORKS',
        field: 'Networks',
        value: ({ endpoints }) => endpoints.map(({ network }) => network).join(','),
      },
      {
        title: 'ADDRESSES',
        field: 'Addresses',
        value: ({ endpoints }) =>
          endpoints.flatMap(({ ipv4, ipv6 }) => [ipv4 ?? [], ipv6 ?? []].flat()).join(','),
      },
    ]
    const how = { format: values.one('format'), quiet: values.flag('quiet') }
    io.out(
      formatList(sandboxes, columns, how, id, ({ key, created, labels }) => ({
        Namespace: key ?? '',
        CreatedAt: created,
        Labels: Object.entries(labels)
          .map(([name, value]) => `${name}=${value}`)
          .join(','),
      })),
    )
    return 0
  },
}

const inspect: Command = {
  name: 'sandbox inspect',
  summary: 'Show sandboxes in detail',
  operands: 'CONTAINER [CONTAINER...]',
  least: 1,
  most: Number.POSITIVE_INFINITY,
  completes: 'sandbox',
  options: [SHORT_FORMAT],
  async run({ values, args, io, client }) {
    const api = await client()
    return inspectAll(args, values.one('format'), io, name => api.get(path(name)))
  },
}

/** Puts the sandbox's files in the place of the machine's, in a mount namespace of the command's own. */
const MOUNT = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'

const exec: Command = {
  name: 'sandbox exec',
  summary: 'Run a command in a sandbox',
  operands: 'CONTAINER COMMAND [ARGUMENT...]',
  least: 2,
  most: Number.POSITIVE_INFINITY,
  completes: 'sandbox',
  stopAtWord: 1,
  options: [
    { name: 'no-files', kind: 'flag', help: "leave the machine's /etc/hosts and /etc/resolv.conf in place" },
  ],
  description:
    'Needs root. The exit code is that of the command; 126 if it cannot be run, 127 if there is none, 128 and the number of the signal that ended it.',
  examples: ['cnm sandbox exec c1 ip address', 'cnm sandbox exec c1 ping -c 1 c2'],
  async run({ values, args, io, client }) {
    const [name = '', ...command] = args
    const { key, files } = await (await client()).get<SandboxInspect>(path(name))
    if (!key) {
      io.error(`cnm: sandbox ${name} has no namespace yet\n`)
      return 126
    }
    const inside =
      files && !values.flag('no-files')
        ? ['unshare', '--mount', 'sh', '-c', MOUNT, 'sh', files.hosts, files.resolvConf, ...command]
        : command
    return new Promise<number>(resolve => {
      const child = spawn('nsenter', [`--net=${key}`, '--', ...inside], { stdio: 'inherit' })
      child.once('error', error => {
        io.error(`cnm: nsenter: ${error.message}\n`)
        resolve(126)
      })
      child.once('close', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)))
    })
  },
}

export const sandboxCommands: Command[] = [create, exec, inspect, list, remove]
