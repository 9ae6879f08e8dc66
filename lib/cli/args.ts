/** Command lines, from tables: the same tables make the help and the completions. */
import { parseBoolean } from '../base/booleans'
import { nearest } from '../base/nearest'

/** What there are names of. */
export type Noun = 'network' | 'sandbox'

export interface Option {
  /** Without the dashes. */
  name: string
  short?: string
  /** A flag takes no value but may be told `=false`; `many` may be given several times. */
  kind: 'flag' | 'one' | 'many'
  /** What stands for the value in the help. */
  value?: string
  help: string
  choices?: readonly string[]
  /** What completes its value: names of networks or of sandboxes. */
  completes?: Noun
  /** Names that people try in its place: the refusal tells this one. */
  insteadOf?: readonly string[]
}

export interface Values {
  flag(name: string): boolean
  /** The flag as it was given; undefined when it was not. */
  given(name: string): boolean | undefined
  one(name: string): string | undefined
  many(name: string): string[]
}

export interface ParsedArgs {
  values: Values
  args: string[]
}

/** What is wrong with the command line: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  /** The verb or group of verbs whose help tells more. */
  about?: string
}

export interface ParseOptions {
  /** Everything from the first word that is no option on belongs to somebody else (`exec`). */
  stopAtWord?: number
}

/** `--name VALUE`, `--name=VALUE`, `-n VALUE`, `-nVALUE`, `-abc`, `--flag=false`; `--` ends the options. */
export function parseArgs(
  words: readonly string[],
  options: readonly Option[],
  { stopAtWord }: ParseOptions = {},
): ParsedArgs {
  const given = new Map<string, string[]>()
  const args: string[] = []
  const rest = [...words]
  const put = (option: Option, value: string) => {
    if (option.choices && !option.choices.includes(value))
      throw new UsageError(
        `--${option.name} must be one of ${option.choices.join(', ')}, not ${JSON.stringify(value)}`,
      )
    const before = option.kind === 'many' ? (given.get(option.name) ?? []) : []
    given.set(option.name, [...before, value])
  }
  const take = (option: Option, inline: string | undefined, shown: string) => {
    const value = option.kind === 'flag' ? boolean(inline ?? 'true', shown) : (inline ?? rest.shift())
    if (value === undefined) throw new UsageError(`${shown} needs a value: ${option.value ?? 'VALUE'}`)
    put(option, value)
  }
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') {
      args.push(...rest.splice(0))
    } else if (word.startsWith('--')) {
      const at = word.indexOf('=')
      const name = word.slice(2, at < 0 ? undefined : at)
      take(long(options, name), at < 0 ? undefined : word.slice(at + 1), `--${name}`)
    } else if (word.startsWith('-') && word !== '-') {
      shorts(word.slice(1), options, take)
    } else {
      args.push(word)
      if (stopAtWord !== undefined && args.length > stopAtWord) args.push(...rest.splice(0))
    }
  }
  return { values: valuesOf(given), args }
}

function long(options: readonly Option[], name: string): Option {
  const found = options.find(option => option.name === name)
  if (found) return found
  const meant = options.find(({ insteadOf }) => insteadOf?.includes(name))
  const near =
    meant?.name ??
    nearest(
      name,
      options.map(option => option.name),
    )
  throw new UsageError(`unknown option --${name}${near ? `; did you mean --${near}?` : ''}`)
}

function shorts(
  letters: string,
  options: readonly Option[],
  take: (option: Option, inline: string | undefined, shown: string) => void,
): void {
  for (let at = 0; at < letters.length; at++) {
    const letter = letters[at] as string
    const option = options.find(({ short }) => short === letter)
    if (!option) throw new UsageError(`unknown option -${letter}`)
    const rest = letters.slice(at + 1)
    const last = option.kind !== 'flag' || rest.startsWith('=')
    take(option, last && rest ? rest.replace(/^=/, '') : undefined, `-${letter}`)
    if (last) break
  }
}

function boolean(text: string, shown: string): string {
  const value = parseBoolean(text)
  if (value !== undefined) return String(value)
  throw new UsageError(`${shown} is a flag: true or false, not ${JSON.stringify(text)}`)
}

const valuesOf = (given: ReadonlyMap<string, string[]>): Values => ({
  flag: name => given.get(name)?.at(-1) === 'true',
  given: name => (given.has(name) ? given.get(name)?.at(-1) === 'true' : undefined),
  one: name => given.get(name)?.at(-1),
  many: name => given.get(name) ?? [],
})

/** `key=value` pairs; a key alone has an empty value. Throws UsageError for an empty key. */
export function pairs(texts: readonly string[], option: string): Record<string, string> {
  return Object.fromEntries(
    texts.map(text => {
      const at = text.indexOf('=')
      const key = at < 0 ? text : text.slice(0, at)
      if (!key) throw new UsageError(`--${option} takes KEY=VALUE, not ${JSON.stringify(text)}`)
      return [key, at < 0 ? '' : text.slice(at + 1)]
    }),
  )
}
