/** Scripts for the shells' completion, made from the tables of the verbs. Pure. */
import type { Noun, Option } from './args'
import { type Command, CONNECTION } from './command'
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

const groupsOf = (commands: readonly Command[]) =>
  [...tree(commands)].flatMap(([group, list]) => (list.some(tail) ? [group] : []))
const tail = ({ name }: Command) => name.split(' ').slice(1).join(' ')
const namesOf = ({ name, aliases = [] }: Command) => [name, ...aliases]
const takesValue = ({ kind }: Option) => kind !== 'flag'
/** `--format`, and `-f` where it has a letter. */
const spellings = ({ name, short }: Option) => [`--${name}`, ...(short ? [`-${short}`] : [])]

const NAMES: Record<Noun, string> = {
  network: "cnm network ls --format '{{.Name}}' 2>/dev/null",
  sandbox: "cnm sandbox ls --format '{{.Container}}' 2>/dev/null",
}
/** Each word that may follow, in turn; `...` after the last one that may be repeated. */
const nounsOf = ({ completes = [], most }: Command) => [
  ...completes,
  ...(most > completes.length ? ['...'] : []),
]

/** What may stand before the verb. */
const LEADING = CONNECTION.flatMap(spellings)
const LEADING_JOINED = CONNECTION.flatMap(({ name, short }) => [
  `--${name}=*`,
  ...(short ? [`-${short}?*`] : []),
])

/* ----------------------------------------------------------------------- bash */

function bash(commands: readonly Command[]): string {
  const words = (list: readonly string[]) => `'${list.join(' ')}'`
  const groups = groupsOf(commands)
  const verbs = groups.map(
    group => `    ${group}) words=${words((tree(commands).get(group) ?? []).map(tail))} ;;`,
  )
  const cases = commands.map(command => {
    const options = optionsOf(command)
    const takes = options.filter(takesValue).flatMap(spellings)
    return `    ${namesOf(command)
      .map(name => `'${name}'`)
      .join('|')})
      options=${words(options.map(({ name }) => `--${name}`))}
      takes=${words(takes)}
      nouns=${words(nounsOf(command))} ;;`
  })
  const values = commands.flatMap(command =>
    optionsOf(command).flatMap(option => {
      const offer = option.choices
        ? words(option.choices)
        : option.completes && `"$(_cnm_names ${option.completes})"`
      if (!offer) return []
      const patterns = namesOf(command).flatMap(name => spellings(option).map(word => `'${name} ${word}'`))
      return [`    ${patterns.join('|')}) words=${offer} ;;`]
    }),
  )
  return `# bash completion for cnm: source <(cnm completion bash)
_cnm_names() {
  case $1 in
    network) ${NAMES.network} ;;
    sandbox) ${NAMES.sandbox} ;;
  esac
}
_cnm_offer() { COMPREPLY=($(compgen -W "$1" -- "\${COMP_WORDS[COMP_CWORD]}")); }
_cnm() {
  local at=2 words='' options='' takes='' nouns='' place=0 word
  # The shell takes = and : for words of their own.
  local -a said=()
  for word in "\${COMP_WORDS[@]:0:COMP_CWORD}"; do
    if [[ $word == [=:]* || ( \${#said[@]} -gt 1 && \${said[-1]} == *[=:] ) ]]; then said[-1]+=$word; else said+=("$word"); fi
  done
  COMPREPLY=()
  while :; do
    case "\${said[1]}" in
      ${LEADING.join('|')})
        ((\${#said[@]} > 2)) || return
        said=("\${said[0]}" "\${said[@]:3}") ;;
      ${LEADING_JOINED.join('|')}) said=("\${said[0]}" "\${said[@]:2}") ;;
      *) break ;;
    esac
  done
  local verb="\${said[1]}" here=\${#said[@]}
  if ((here == 1)); then
    _cnm_offer ${words([...tree(commands).keys(), '--help', '--host', '--version'])}
    return
  fi
  if ((here == 2)); then
    case "$verb" in
${verbs.map(line => `  ${line}`).join('\n')}
    esac
    [[ $words ]] && { _cnm_offer "$words"; return; }
  fi
  case "$verb" in
    ${groups.join('|')}) verb+=" \${said[2]}"; at=3 ;;
  esac
  case "$verb" in
${cases.join('\n')}
    *) return ;;
  esac
  local previous="\${said[-1]}"
  case "$verb $previous" in
${values.join('\n')}
  esac
  [[ $words ]] && { _cnm_offer "$words"; return; }
  # The value of an option: what the shell offers by itself, files.
  [[ " $takes " == *" $previous "* ]] && return
  if [[ \${COMP_WORDS[COMP_CWORD]} == -* ]]; then
    _cnm_offer "$options"
    return
  fi
  for ((; at < here; at++)); do
    word="\${said[at]}"
    if [[ $word != -* ]]; then ((place++))
    elif [[ " $takes " == *" $word "* ]]; then ((at++)); fi
  done
  local -a list=($nouns)
  local noun="\${list[place]}"
  [[ -z $noun && \${list[-1]} == ... ]] && noun=...
  [[ $noun == ... ]] && { ((\${#list[@]} > 1)) && noun="\${list[-2]}" || noun=''; }
  if [[ $noun ]]; then _cnm_offer "$(_cnm_names "$noun")"
  elif [[ -z $nouns ]]; then _cnm_offer "$options"; fi
}
complete -o default -F _cnm cnm
`
}

/* ------------------------------------------------------------------------ zsh */

function zsh(commands: readonly Command[]): string {
  const quote = (text: string) => text.replace(/'/g, `'\\''`).replace(/[:[\]]/g, '\\$&')
  const groups = groupsOf(commands)
  const described = (list: readonly (readonly [string, string])[]) =>
    list.map(([name, summary]) => `'${name}:${quote(summary)}'`).join(' ')
  const value = (option: Option) => {
    if (!takesValue(option)) return ''
    const action = option.choices
      ? `(${option.choices.join(' ')})`
      : option.completes
        ? `_cnm_${option.completes}`
        : /^(FILE|DIR|PATH)$/.test(option.value ?? '')
          ? '_files'
          : ' '
    return `:${quote(option.value ?? 'VALUE')}:${action}`
  }
  const specs = (option: Option) => {
    const many = option.kind === 'many' ? '*' : ''
    const rest = `[${quote(option.help)}]${value(option)}`
    const [equals, joined] = takesValue(option) ? ['=', '+'] : ['', '']
    return [
      `'${many}--${option.name}${equals}${rest}'`,
      ...(option.short ? [`'${many}-${option.short}${joined}${rest}'`] : []),
    ]
  }
  const operands = (command: Command) => {
    const { completes = [], most, stopAtWord } = command
    const rest = stopAtWord === undefined ? `_cnm_${completes.at(-1)}` : '_normal'
    return [
      ...completes.map((noun, at) => `'${at + 1}:${noun}:_cnm_${noun}'`),
      ...(completes.length && most > completes.length
        ? [`'*:${stopAtWord === undefined ? '' : ':'}${completes.at(-1)}:${rest}'`]
        : []),
    ]
  }
  const cases = commands.map(
    command =>
      `    ${namesOf(command)
        .map(name => `'${name}'`)
        .join('|')}) _arguments ${[...optionsOf(command).flatMap(specs), ...operands(command)].join(' ')} ;;`,
  )
  const firsts = [...tree(commands)].map(
    ([group, list]) => [group, list.some(tail) ? `commands of ${group}` : (list[0]?.summary ?? '')] as const,
  )
  const seconds = groups.map(
    group =>
      `      ${group}) verbs=(${described((tree(commands).get(group) ?? []).map(command => [tail(command), command.summary]))}) ;;`,
  )
  return `#compdef cnm
# zsh completion for cnm: source <(cnm completion zsh)
_cnm_network() { local -a names=(\${(f)"$(${NAMES.network})"}); compadd -a names; }
_cnm_sandbox() { local -a names=(\${(f)"$(${NAMES.sandbox})"}); compadd -a names; }
_cnm() {
  local -a verbs
  local -i options
  while ((CURRENT > 2)); do
    case $words[2] in
      ${LEADING.join('|')}) options=2 ;;
      ${LEADING_JOINED.join('|')}) options=1 ;;
      *) break ;;
    esac
    ((CURRENT > options + 1)) || { _files; return }
    words=("$words[1]" "\${(@)words[options + 2, -1]}")
    ((CURRENT -= options))
  done
  if ((CURRENT == 2)); then
    verbs=(${described(firsts)})
    _describe 'command' verbs
    return
  fi
  local verb=$words[2]
  case $verb in
    ${groups.join('|')})
      if ((CURRENT == 3)); then
        case $verb in
${seconds.map(line => `    ${line}`).join('\n')}
        esac
        _describe 'command' verbs
        return
      fi
      verb+=" $words[3]"
      shift words
      ((CURRENT--)) ;;
  esac
  shift words
  ((CURRENT--))
  case $verb in
${cases.join('\n')}
  esac
}
compdef _cnm cnm
`
}

/* ----------------------------------------------------------------------- fish */

function fish(commands: readonly Command[]): string {
  const quote = (text: string) => `'${text.replace(/\\/g, '\\\\').replace(/'/g, "\\'")}'`
  const names = (noun: Noun) => quote(`(${NAMES[noun].replace(/'/g, '"')})`)
  const all = commands.flatMap(optionsOf)
  const letters = (short: string) => all.filter(option => option.short === short)
  // A letter that is a flag in one verb and takes a value in another says nothing about the word after it.
  const takes = new Set([
    ...all.filter(takesValue).map(({ name }) => `--${name}`),
    ...all.flatMap(({ short }) => (short && letters(short).every(takesValue) ? [`-${short}`] : [])),
  ])
  const value = (option: Option) => {
    if (!takesValue(option)) return ''
    if (option.choices) return ` -x -a ${quote(option.choices.join(' '))}`
    if (option.completes) return ` -x -a ${names(option.completes)}`
    return /^(FILE|DIR|PATH)$/.test(option.value ?? '') ? ' -r -F' : ' -x'
  }
  const lines = [...tree(commands)].flatMap(([group, list]) => [
    `complete -c cnm -n '__cnm_at 0' -a ${group} -d ${quote(list.some(tail) ? `commands of ${group}` : (list[0]?.summary ?? ''))}`,
    ...list.flatMap(command => {
      const depth = tail(command) ? 2 : 1
      const verbs = namesOf(command).map(name => name.split(' ').join('\\ '))
      const here = `__cnm_in ${verbs.join(' ')}`
      const { completes = [], most } = command
      const last = completes.length - 1
      return [
        ...(tail(command)
          ? [
              `complete -c cnm -n '__cnm_at 1; and __cnm_in ${group}' -a ${tail(command)} -d ${quote(command.summary)}`,
            ]
          : []),
        ...optionsOf(command).map(
          option =>
            `complete -c cnm -n '${here}' -l ${option.name}${option.short ? ` -s ${option.short}` : ''}${value(option)} -d ${quote(option.help)}`,
        ),
        ...completes.map((noun, at) => {
          const more = at === last && most > completes.length && command.stopAtWord === undefined
          return `complete -c cnm -n '${here}; and __cnm_at ${depth + at}${more ? ' more' : ''}' -a ${names(noun)}`
        }),
      ]
    }),
  ])
  return `# fish completion for cnm: cnm completion fish | source
function __cnm_words -d 'the words before this one that are no options'
  set -l skip 0
  for word in (commandline -opc)[2..-1]
    if test $skip = 1
      set skip 0
    else if contains -- $word ${[...takes].join(' ')}
      set skip 1
    else if not string match -q -- '-*' $word
      echo $word
    end
  end
end
function __cnm_at -a place more -d 'so many words before this one, or more'
  set -l count (count (__cnm_words))
  test $count -eq $place; or test -n "$more" -a $count -gt $place
end
function __cnm_in -d 'the verb is one of these'
  set -l said (__cnm_words)
  for verb in $argv
    string match -q -- "$verb *" "$said "; and return 0
  end
  return 1
end
complete -c cnm -f
${lines.join('\n')}
`
}
