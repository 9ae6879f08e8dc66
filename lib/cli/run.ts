/** From words to a verb, and from what became of it to an exit code. */
import { isCnmError } from '../base/errors'
import { nearest } from '../base/nearest'
import { VERSION } from '../api/version'
import { parseArgs, UsageError } from './args'
import type { Client } from './client'
import { type Command, CONNECTION } from './command'
import { cniCommand } from './commands/cni'
import { graphCommand } from './commands/graph'
import { networkCommands } from './commands/network'
import { sandboxCommands } from './commands/sandbox'
import { serveCommand } from './commands/serve'
import { upkeepCommands } from './commands/upkeep'
import { watchCommand } from './commands/watch'
import { completion, SHELLS, type Shell } from './completion'
import { connect } from './connection'
import { groupHelp, helpOf, optionsOf, overview } from './help'
import type { Io } from './output'

const completionCommand: Command = {
  name: 'completion',
  summary: 'Print the completion script for a shell',
  operands: SHELLS.join('|'),
  least: 1,
  most: 1,
  standalone: true,
  options: [],
  examples: ['source <(cnm completion bash)'],
  async run({ args, io }) {
    const shell = SHELLS.find(name => name === args[0])
    if (!shell) throw new UsageError(`completion is for ${SHELLS.join(', ')}, not ${JSON.stringify(args[0])}`)
    io.out(completion(shell as Shell, COMMANDS))
    return 0
  },
}

export const COMMANDS: readonly Command[] = [
  serveCommand,
  ...networkCommands,
  ...sandboxCommands,
  ...upkeepCommands,
  watchCommand,
  graphCommand,
  cniCommand,
  completionCommand,
]

/** Exit codes. 125 as `docker run` has it: it is not the command that failed, but what was to run it. */
const REFUSED = 1
const USAGE = 2
const UNREACHABLE = 125

/** Resolves to the exit code; never rejects. */
export async function run(words: readonly string[], io: Io): Promise<number> {
  try {
    return await dispatch(words, io)
  } catch (error) {
    return explain(error, io)
  }
}

async function dispatch(line: readonly string[], io: Io): Promise<number> {
  const { before, words } = fromVerb(line)
  const [first] = words
  if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
    const asked = words.slice(1).join(' ')
    const topic = asked
      ? COMMANDS.find(({ name, aliases }) => name === asked || aliases?.includes(asked))
      : undefined
    const group = groupOf(asked)
    if (!topic && group.length) {
      io.out(groupHelp(asked, group, io.columns))
      return 0
    }
    if (asked && !topic) throw new UsageError(`no such command: ${asked}`)
    const text = topic ? helpOf(topic, io.columns) : overview(COMMANDS, io.columns)
    if (first === undefined) io.error(text)
    else io.out(text)
    return first === undefined ? USAGE : 0
  }
  if (first === '--version' || first === 'version') {
    io.out(`cnm ${VERSION}\n`)
    return 0
  }
  const group = groupOf(first)
  if (group.length && (words[1] === '--help' || words[1] === '-h')) {
    io.out(groupHelp(first, group, io.columns))
    return 0
  }
  const { command, rest } = find(words)
  try {
    return await invoke(command, [...before, ...rest], io)
  } catch (error) {
    throw pointTo(error, command.name)
  }
}

/** `cnm -H unix://PATH network ls`, as with docker: what is said of the connection may stand before the verb. */
function fromVerb(line: readonly string[]): { before: readonly string[]; words: readonly string[] } {
  let at = 0
  for (let word = line[0]; word?.startsWith('-'); word = line[at]) {
    const [name = ''] = word.split('=')
    const alone = CONNECTION.some(option => name === `--${option.name}` || name === `-${option.short}`)
    const whole = CONNECTION.some(({ short }) => short && name.startsWith(`-${short}`))
    if (!alone && !whole) break
    at += alone && !word.includes('=') ? 2 : 1
  }
  return { before: line.slice(0, at), words: line.slice(at) }
}

/** Whose help tells more of it. */
function pointTo(error: unknown, name: string): unknown {
  if ((error as Error).name === 'UsageError') (error as UsageError).about = name
  return error
}

async function invoke(command: Command, rest: readonly string[], io: Io): Promise<number> {
  const options = optionsOf(command)
  if (!command.stopAtWord && rest.some(word => word === '--help' || word === '-h')) {
    io.out(helpOf(command, io.columns))
    return 0
  }
  const { values, args } = parseArgs(rest, options, { stopAtWord: command.stopAtWord })
  if (values.flag('help')) {
    io.out(helpOf(command, io.columns))
    return 0
  }
  if (args.length < command.least || args.length > command.most)
    throw new UsageError(
      command.most === 0
        ? `cnm ${command.name} takes no words beside its options, not ${JSON.stringify(args[0])}`
        : `cnm ${command.name} takes ${command.operands}; ${args.length} given`,
    )
  let connected: Promise<Client> | undefined
  const client = () => (connected ??= connect(values, io.env))
  try {
    return (await command.run({ values, args, io, client })) ?? 0
  } finally {
    await connected?.then(
      open => open.close(),
      () => {},
    )
  }
}

/** The verbs that begin with this word; none for a verb of one word. */
const groupOf = (word: string) => COMMANDS.filter(({ name }) => name.startsWith(`${word} `))

function find(words: readonly string[]): { command: Command; rest: readonly string[] } {
  for (const length of [2, 1]) {
    const name = words.slice(0, length).join(' ')
    const command = COMMANDS.find(candidate => candidate.name === name || candidate.aliases?.includes(name))
    if (command) return { command, rest: words.slice(length) }
  }
  const [first = ''] = words
  const group = groupOf(first)
  if (group.length) {
    const verbs = group.map(({ name }) => name.slice(first.length + 1))
    const near = words[1] && nearest(words[1], verbs)
    const hint = near ? `; did you mean ${near}?` : ''
    throw pointTo(new UsageError(`cnm ${first} is followed by ${verbs.join(', ')}${hint}`), first)
  }
  const near = nearest(first, new Set(COMMANDS.map(({ name }) => name.split(' ')[0] as string)))
  throw new UsageError(`no such command: ${first}${near ? `; did you mean ${near}?` : ''}`)
}

function explain(error: unknown, io: Io): number {
  const { name, message } = error as Error
  if (name === 'UsageError') {
    const { about } = error as UsageError
    io.error(`cnm: ${message}\nSee "cnm ${about ? `${about} ` : ''}--help".\n`)
    return USAGE
  }
  if (name === 'ApiError') {
    io.error(`cnm: ${message}\n`)
    return REFUSED
  }
  io.error(`cnm: ${message ?? String(error)}${isCnmError(error) ? `\n(${error.code}: ${error.next})` : ''}\n`)
  return name === 'ConnectionError' || isCnmError(error) ? UNREACHABLE : REFUSED
}
