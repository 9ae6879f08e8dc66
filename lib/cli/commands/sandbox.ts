/** cnm sandbox …: network stacks of containers. */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { SandboxInspect } from '../../core/sandbox/inspect'
import { pairs } from '../args'
import { type Command, flag, FORMAT, labelText, many, NO_TRUNC, one, QUIET } from '../command'
import { type Column, formatList } from '../output'
import { inspectCommand, removeCommand } from './of-names'

const path = (name: string) => `/libcnm/sandboxes/${encodeURIComponent(name)}`
const SANDBOX = { noun: 'sandbox', operand: 'CONTAINER', path } as const

const create: Command = {
  name: 'sandbox create',
  summary: 'Create the network stack of a container',
  operands: 'CONTAINER',
  least: 1,
  most: 1,
  options: [
    many('add-host', 'NAME:ADDRESS', 'a line of /etc/hosts'),
    many('dns', 'ADDRESS', 'a name server'),
    many('dns-opt', 'OPTION', 'an option of resolv.conf'),
    many('dns-search', 'DOMAIN', 'a search domain'),
    one('domainname', 'DOMAIN', 'of the container'),
    one('hostname', 'NAME', 'default: the first 12 characters of CONTAINER'),
    many('label', 'KEY=VALUE', 'a label'),
    one('mode', 'MODE', 'own (a new namespace), host, deferred (given later) or container:ID; default own'),
    {
      ...many('network', 'NETWORK', 'connect it at once; the first is the way out'),
      completes: 'network',
    },
    { ...many('publish', 'PORT', 'on the first network'), short: 'p' },
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

const remove = removeCommand(SANDBOX, {
  summary: 'Delete sandboxes, with their endpoints',
  force: 'whatever the drivers say',
  remove: (api, where, force) => api.delete(`${where}${force ? '?force=true' : ''}`),
})

const inspect = inspectCommand(SANDBOX, { optional: ['key', 'files'] })

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
        Labels: labelText(labels),
      })),
    )
    return 0
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
  completes: ['sandbox'],
  stopAtWord: 1,
  options: [flag('no-files', "leave the machine's /etc/hosts and /etc/resolv.conf in place")],
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
