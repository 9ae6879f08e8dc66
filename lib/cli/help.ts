/** What --help shows, made from the tables of the verbs. Pure. */
import type { Option } from './args'
import { type Command, CONNECTION } from './command'

export const HELP: Option = { name: 'help', short: 'h', kind: 'flag', help: 'show this' }

export const optionsOf = (command: Command): Option[] => [
  ...command.options,
  ...(command.standalone
    ? []
    : CONNECTION.filter(({ name }) => !command.options.some(own => own.name === name))),
  HELP,
]

/** As a page of the manual has it: NAME, SYNOPSIS, DESCRIPTION, OPTIONS, EXAMPLES, EXIT STATUS. */
export function helpOf(command: Command): string {
  const own = command.options
  const shared = optionsOf(command).filter(option => !own.includes(option))
  return sections([
    ['NAME', [`cnm ${command.name} - ${command.summary}`]],
    [
      'SYNOPSIS',
      [`cnm ${command.name}${own.length || shared.length ? ' [OPTIONS]' : ''} ${command.operands}`.trimEnd()],
    ],
    ['ALIASES', (command.aliases ?? []).map(alias => `cnm ${alias}`)],
    ['DESCRIPTION', command.description?.split('\n') ?? []],
    ['OPTIONS', optionLines(own)],
    ['COMMON OPTIONS', optionLines(shared)],
    ['EXAMPLES', [...(command.examples ?? [])]],
    ['EXIT STATUS', EXIT_STATUS],
  ])
}

const EXIT_STATUS = [
  '0    done',
  '1    refused, or differences were found; standard error says why',
  '2    the command line is wrong',
  '125  no controller can be reached or opened',
]

export function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length))
  return sections([
    ['NAME', ["cnm - networks of containers, by the words of Docker's Container Network Model"]],
    ['SYNOPSIS', ['cnm COMMAND [OPTIONS] ...']],
    ['COMMANDS', commands.map(({ name, summary }) => `${name.padEnd(width)}  ${summary}`)],
    [
      'ENVIRONMENT',
      [
        'CNM_HOST   the socket of "cnm serve", unix://PATH; default unix:///run/libcnm/api.sock',
        'NO_COLOR   no colours',
      ],
    ],
    ['EXIT STATUS', EXIT_STATUS],
    ['SEE ALSO', ['cnm COMMAND --help']],
  ])
}

/** The verbs below one word: `cnm network --help`. */
export function groupHelp(group: string, commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length))
  return sections([
    ['SYNOPSIS', [`cnm ${group} COMMAND [OPTIONS] ...`]],
    ['COMMANDS', commands.map(({ name, summary }) => `${name.padEnd(width)}  ${summary}`)],
    ['EXIT STATUS', EXIT_STATUS],
    ['SEE ALSO', [`cnm ${group} COMMAND --help`]],
  ])
}

const sections = (list: [string, string[]][]) =>
  list
    .filter(([, lines]) => lines.length)
    .map(([title, lines]) => `${title}\n${lines.map(line => `  ${line}\n`).join('')}`)
    .join('\n')

function optionLines(options: readonly Option[]): string[] {
  const heads = options.map(
    ({ name, short, kind, value }) =>
      `${short ? `-${short}, ` : '    '}--${name}${kind === 'flag' ? '' : ` ${value ?? 'VALUE'}`}`,
  )
  const width = Math.min(32, Math.max(0, ...heads.map(head => head.length)))
  return options.flatMap(({ help }, at) => {
    const head = heads[at] as string
    return head.length > width ? [head, `${' '.repeat(width)}  ${help}`] : [`${head.padEnd(width)}  ${help}`]
  })
}
