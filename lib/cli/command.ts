/** What a verb of cnm consists of. */
import { type Noun, type Option, UsageError, type Values } from './args'
import type { Client } from './client'
import type { Io } from './output'

export interface Invocation {
  values: Values
  args: string[]
  io: Io
  /** Connects to what is served, or opens a controller in this process. Closed by the caller. */
  client(): Promise<Client>
}

export interface Command {
  /** `network create` */
  name: string
  /** One line. */
  summary: string
  /** What follows the options in the usage line: `NETWORK [NETWORK...]`. */
  operands: string
  /** How many words there may be. */
  least: number
  most: number
  options: readonly Option[]
  description?: string
  examples?: readonly string[]
  /** Other names of it. */
  aliases?: readonly string[]
  /** What completes its words, one after the other; the last completes all that follow where there may be more. */
  completes?: readonly Noun[]
  /** Words after this many belong to somebody else. */
  stopAtWord?: number
  /** It does not talk to a controller: no --host, no --data-dir. */
  standalone?: boolean
  /** Resolves to the exit code; nothing is 0. */
  run(invocation: Invocation): Promise<number | undefined>
}

/** The kinds of option. */
export const one = (name: string, value: string, help: string): Option => ({ name, kind: 'one', value, help })
export const many = (name: string, value: string, help: string): Option => ({
  name,
  kind: 'many',
  value,
  help,
})
export const flag = (name: string, help: string): Option => ({ name, kind: 'flag', help })

export const FIREWALL_BACKENDS = ['auto', 'nftables', 'iptables', 'none'] as const

export const FORMAT: Option = {
  name: 'format',
  kind: 'one',
  value: 'TEMPLATE',
  help: 'json, table, "table TEMPLATE" or a Go template: {{.Name}}, {{json .}}, {{range .List}}…{{end}}',
}
/** Of what is no list; where there are no filters, docker has a letter for it. */
export const OBJECT_FORMAT: Option = {
  ...FORMAT,
  short: 'f',
  help: 'json (a line each) or a Go template: {{.Name}}, {{json .}}, {{range .List}}…{{end}}',
}
export const QUIET: Option = { name: 'quiet', short: 'q', kind: 'flag', help: 'show ids only' }
export const NO_TRUNC: Option = { name: 'no-trunc', kind: 'flag', help: 'show ids in full' }
export const FILTER: Option = {
  name: 'filter',
  kind: 'many',
  value: 'KEY=VALUE',
  help: 'show only what fits; may be given several times',
}

/** Where the controller is: options of every verb that needs one. */
export const CONNECTION: readonly Option[] = [
  {
    name: 'host',
    short: 'H',
    kind: 'one',
    value: 'unix://PATH',
    help: 'the socket of "cnm serve"; default: $CNM_HOST, then unix:///run/libcnm/api.sock',
    insteadOf: ['socket', 'sock', 'context'],
  },
  {
    name: 'data-dir',
    kind: 'one',
    value: 'DIR',
    help: 'do not ask a server: open the state in this folder in this process',
  },
  {
    name: 'run-dir',
    kind: 'one',
    value: 'DIR',
    help: 'with --data-dir: where namespaces are; default /run/NAME',
  },
  { name: 'name', kind: 'one', value: 'NAME', help: 'with --data-dir: of the controller; default libcnm' },
  {
    name: 'netns',
    kind: 'one',
    value: 'PATH',
    help: 'with --data-dir: the network namespace to use as the host; default: the own one',
  },
  {
    name: 'firewall-backend',
    kind: 'one',
    value: 'BACKEND',
    choices: FIREWALL_BACKENDS,
    help: 'with --data-dir: auto, nftables, iptables or none',
  },
]

/** `a=b,c=d`, as Docker's lists show labels. */
export const labelText = (labels: Readonly<Record<string, string>> | null): string =>
  Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(',')

/** The value of an option that takes a whole number above 0. */
export function count(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new UsageError(`--${option} must be a number above 0, not ${JSON.stringify(text)}`)
  return Number(text)
}

/** `k=v` and `k!=v` as the API takes filters. */
export function filters(texts: readonly string[]): Record<string, string[]> {
  const result: Record<string, string[]> = {}
  for (const text of texts) {
    const at = text.indexOf('=')
    const key = at < 0 ? text : text.slice(0, at)
    const list = Object.hasOwn(result, key) ? (result[key] as string[]) : []
    result[key] = [...list, at < 0 ? '' : text.slice(at + 1)]
  }
  return result
}

/** Runs each; says which failed and why; the exit code of all. */
export async function each(
  { args, io }: Pick<Invocation, 'args' | 'io'>,
  act: (argument: string) => Promise<string>,
): Promise<number> {
  let code = 0
  for (const argument of args) {
    try {
      io.out(`${await act(argument)}\n`)
    } catch (error) {
      if ((error as Error).name !== 'ApiError') throw error
      io.error(`cnm: ${(error as Error).message}\n`)
      code = 1
    }
  }
  return code
}
