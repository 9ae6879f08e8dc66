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
export function helpOf(command: Command, columns: number): string {
  const own = command.options
  const shared = optionsOf(command).filter(option => !own.includes(option))
  return sections(columns, [
    ['NAME', [`cnm ${command.name} - ${command.summary}`]],
    [
      'SYNOPSIS',
      [`cnm ${command.name}${own.length || shared.length ? ' [OPTIONS]' : ''} ${command.operands}`.trimEnd()],
    ],
    ['ALIASES', (command.aliases ?? []).map(alias => `cnm ${alias}`)],
    ['DESCRIPTION', command.description?.split('\n') ?? []],
    ['OPTIONS', optionLines(own, columns)],
    ['COMMON OPTIONS', optionLines(shared, columns)],
    ['EXAMPLES', [...(command.examples ?? [])]],
    ['EXIT STATUS', pairs(EXIT_STATUS, columns)],
  ])
}

const EXIT_STATUS: [string, string][] = [
  ['0', 'done'],
  ['1', 'refused, or differences were found; standard error says why'],
  ['2', 'the command line is wrong'],
  ['125', 'no controller can be reached or opened'],
]

const ENVIRONMENT: [string, string][] = [
  ['CNM_HOST', 'the socket of "cnm serve", unix://PATH; default unix:///run/libcnm/api.sock'],
  ['NO_COLOR', 'no colours'],
]

export function overview(commands: readonly Command[], columns: number): string {
  return sections(columns, [
    ['NAME', ["cnm - networks of containers, by the words of Docker's Container Network Model"]],
    ['SYNOPSIS', ['cnm COMMAND [OPTIONS] ...', 'cnm --host unix://PATH COMMAND ...']],
    ['COMMANDS', summaries(commands, columns)],
    ['ENVIRONMENT', pairs(ENVIRONMENT, columns)],
    ['EXIT STATUS', pairs(EXIT_STATUS, columns)],
    ['SEE ALSO', ['cnm COMMAND --help']],
  ])
}

/** The verbs below one word: `cnm network --help`. */
export function groupHelp(group: string, commands: readonly Command[], columns: number): string {
  return sections(columns, [
    ['SYNOPSIS', [`cnm ${group} COMMAND [OPTIONS] ...`]],
    ['COMMANDS', summaries(commands, columns)],
    ['EXIT STATUS', pairs(EXIT_STATUS, columns)],
    ['SEE ALSO', [`cnm ${group} COMMAND --help`]],
  ])
}

const sections = (columns: number, list: [string, string[]][]) =>
  list
    .filter(([, lines]) => lines.length)
    .map(([title, lines]) => {
      const wrapped = title === 'DESCRIPTION' ? lines.flatMap(line => wrap(line, roomOf(columns))) : lines
      return `${title}\n${wrapped.map(line => `${INDENT}${line}\n`).join('')}`
    })
    .join('\n')

const INDENT = '  '
/** Beside the indent; not so narrow that words are torn one from the other, nor wider than one reads at ease. */
const roomOf = (columns: number) => Math.max(60, Math.min(columns, 120)) - INDENT.length

const summaries = (commands: readonly Command[], columns: number) =>
  pairs(
    commands.map(({ name, summary }) => [name, summary]),
    columns,
  )

const optionLines = (options: readonly Option[], columns: number) =>
  pairs(
    options.map(({ name, short, kind, value, help }) => [
      `${short ? `-${short}, ` : '    '}--${name}${kind === 'flag' ? '' : ` ${value ?? 'VALUE'}`}`,
      help,
    ]),
    columns,
  )

/** Two columns; a head that is too long for the first has a line of its own. */
function pairs(list: readonly (readonly [string, string])[], columns: number): string[] {
  const width = Math.min(32, Math.max(0, ...list.map(([head]) => head.length)))
  return list.flatMap(([head, text]) => {
    const lines = wrap(text, roomOf(columns) - width - 2)
    const heads = head.length > width ? [head, ''] : [head]
    return Array.from({ length: heads.length - 1 + lines.length }, (_, at) => {
      const line = lines[at - heads.length + 1] ?? ''
      return `${(heads[at] ?? '').padEnd(width)}  ${line}`.trimEnd()
    })
  })
}

/** Lines of at most so many letters, broken between words. */
function wrap(text: string, room: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + 1 + word.length <= room)
      lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}
