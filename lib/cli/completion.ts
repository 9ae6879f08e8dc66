/** Scripts for the shells' completion, made from the tables of the verbs. Pure. */
import type { Command } from './command'
import { optionsOf } from './help'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

export function completion(shell: Shell, commands: readonly Command[]): string {
  return { bash, zsh, fish }[shell](commands)
}

/** `network` → `create`, `ls`, …; verbs of one word lead to nothing. */
function tree(commands: readonly Command[]): Map<string, Command[]> {
  const groups = new Map<string, Command[]>()
  for (const command of commands) {
    const [first = ''] = command.name.split(' ')
    groups.set(first, [...(groups.get(first) ?? []), command])
  }
  return groups
}

const longs = (command: Command) => optionsOf(command).map(({ name }) => `--${name}`)
const tail = ({ name }: Command) => name.split(' ').slice(1).join(' ')

const NAMES = {
  network: "cnm network ls --format '{{.Name}}' 2>/dev/null",
  sandbox: "cnm sandbox ls --format '{{.Container}}' 2>/dev/null",
}

function bash(commands: readonly Command[]): string {
  const cases = commands.map(command => {
    const names = command.completes ? ` $(${NAMES[command.completes]})` : ''
    return `    '${command.name}') words="${longs(command).join(' ')}${names}" ;;`
  })
  const groups = [...tree(commands)].flatMap(([group, list]) =>
    list.some(tail) ? [`    '${group}') words="${list.map(tail).join(' ')}" ;;`] : [],
  )
  return `# bash completion for cnm: source <(cnm completion bash)
_cnm() {
  local words='' current="\${COMP_WORDS[COMP_CWORD]}" path=()
  local at
  for ((at = 1; at < COMP_CWORD && at <= 2; at++)); do
    [[ \${COMP_WORDS[at]} == -* ]] && break
    path+=("\${COMP_WORDS[at]}")
  done
  case "\${path[*]}" in
    '') words="${[...tree(commands).keys()].join(' ')} --help --version" ;;
${groups.join('\n')}
${cases.join('\n')}
    *)
      case "\${path[0]}" in
${commands
  .filter(command => !tail(command))
  .map(command => `        '${command.name}') words="${longs(command).join(' ')}" ;;`)
  .join('\n')}
      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _cnm cnm
`
}

function zsh(commands: readonly Command[]): string {
  const quote = (text: string) => text.replace(/'/g, `'\\''`).replace(/[:[\]]/g, '\\$&')
  const groups = [...tree(commands)]
  const firsts = groups.map(([group, list]) => {
    const [command] = list
    return `    '${group}:${quote(list.some(tail) ? `commands of ${group}` : (command?.summary ?? ''))}'`
  })
  const verbs = groups.flatMap(([group, list]) =>
    list.some(tail)
      ? [
          `    ${group}) _values 'command' ${list.map(command => `'${tail(command)}[${quote(command.summary)}]'`).join(' ')} ;;`,
        ]
      : [],
  )
  const cases = commands.map(command => {
    const options = optionsOf(command).map(
      ({ name, kind, help }) => `'--${name}${kind === 'flag' ? '' : '='}[${quote(help)}]'`,
    )
    const names = command.completes ? ` '*:name:($(${NAMES[command.completes].replace(/'/g, '"')}))'` : ''
    return `    '${command.name}') _arguments ${options.join(' ')}${names} ;;`
  })
  return `#compdef cnm
# zsh completion for cnm: source <(cnm completion zsh)
_cnm() {
  local -a firsts
  firsts=(
${firsts.join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe 'command' firsts
    return
  fi
  if ((CURRENT == 3)); then
    case $words[2] in
${verbs.join('\n')}
    esac
  fi
  local verb=$words[2]
  [[ $words[3] != -* && -n $words[3] ]] && case $verb in
    ${groups.flatMap(([group, list]) => (list.some(tail) ? [group] : [])).join('|')}) verb="$verb $words[3]" ;;
  esac
  case $verb in
${cases.join('\n')}
  esac
}
compdef _cnm cnm
`
}

function fish(commands: readonly Command[]): string {
  const quote = (text: string) => `'${text.replace(/\\/g, '\\\\').replace(/'/g, "\\'")}'`
  const lines = [...tree(commands)].flatMap(([group, list]) => [
    `complete -c cnm -n __fish_use_subcommand -a ${group} -d ${quote(list.some(tail) ? `commands of ${group}` : (list[0]?.summary ?? ''))}`,
    ...list.flatMap(command => {
      const verb = tail(command)
      const siblings = list.map(tail).join(' ')
      const here = verb
        ? `'__fish_seen_subcommand_from ${group}; and __fish_seen_subcommand_from ${verb}'`
        : `'__fish_seen_subcommand_from ${group}'`
      return [
        ...(verb
          ? [
              `complete -c cnm -n '__fish_seen_subcommand_from ${group}; and not __fish_seen_subcommand_from ${siblings}' -a ${verb} -d ${quote(command.summary)}`,
            ]
          : []),
        ...optionsOf(command).map(
          ({ name, short, kind, help }) =>
            `complete -c cnm -n ${here} -l ${name}${short ? ` -s ${short}` : ''}${kind === 'flag' ? '' : ' -r'} -d ${quote(help)}`,
        ),
        ...(command.completes
          ? [`complete -c cnm -n ${here} -a ${quote(`(${NAMES[command.completes].replace(/'/g, '"')})`)}`]
          : []),
      ]
    }),
  ])
  return `# fish completion for cnm: cnm completion fish | source\ncomplete -c cnm -f\n${lines.join('\n')}\n`
}
