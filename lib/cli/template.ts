/**
 * The part of Go's text/template that people write after --format: fields, variables, pipelines, parentheses,
 * if/else/range/with, and the functions that Docker adds. Pure; a template is parsed once and run over each row.
 */
export class TemplateError extends Error {
  override readonly name = 'TemplateError'
}

/**
 * `known`: the fields that the data may have, in any case. Any other one is refused; without it, what is not there is
 * `<no value>`, as it always is further inside.
 */
export function parseTemplate(source: string, known?: readonly string[]): (data: unknown) => string {
  const nodes = new Parser(tokenise(source)).whole()
  return data => {
    const out: string[] = []
    run(nodes, data, new Scope(data, known, new Map([['$', data]])), out)
    return out.join('')
  }
}

/* -------------------------------------------------------------------- text and actions */

type Token = { text: string } | { action: string[] }

function tokenise(source: string): Token[] {
  const tokens: Token[] = []
  let at = 0
  let trim = false
  for (;;) {
    const open = source.indexOf('{{', at)
    let text = source.slice(at, open < 0 ? undefined : open)
    if (trim) text = text.replace(/^\s+/, '')
    if (open < 0) {
      if (text) tokens.push({ text })
      return tokens
    }
    const close = endOfAction(source, open + 2)
    let body = source.slice(open + 2, close)
    if (/^-\s/.test(body)) {
      text = text.replace(/\s+$/, '')
      body = body.slice(1)
    }
    trim = /\s-$/.test(body)
    if (trim) body = body.slice(0, -1)
    if (text) tokens.push({ text })
    if (!/^\s*\/\*[\s\S]*\*\/\s*$/.test(body)) tokens.push({ action: words(body) })
    at = close + 2
  }
}

/** `}}` outside of quotes. */
function endOfAction(source: string, from: number): number {
  let quote = ''
  for (let at = from; at < source.length; at++) {
    const c = source[at] as string
    if (quote) {
      if (c === '\\' && quote === '"') at++
      else if (c === quote) quote = ''
    } else if (c === '"' || c === '`') quote = c
    else if (source.startsWith('}}', at)) return at
  }
  throw new TemplateError('unclosed action: "{{" without "}}"')
}

const WORD =
  /\s*("(?:[^"\\]|\\.)*"|`[^`]*`|-?\d+(?:\.\d+)?|:=|[(),|]|\$?(?:[\p{L}_][\p{L}\p{N}_]*)?(?:\.[\p{L}_][\p{L}\p{N}_]*)+|\$(?:[\p{L}_][\p{L}\p{N}_]*)?|[\p{L}_][\p{L}\p{N}_]*|\.)/uy

function words(body: string): string[] {
  const found: string[] = []
  WORD.lastIndex = 0
  while (body.slice(WORD.lastIndex).trim() !== '') {
    const at = WORD.lastIndex
    const match = WORD.exec(body)
    if (!match)
      throw new TemplateError(`unexpected ${JSON.stringify(body.slice(at).trim().slice(0, 20))} in action`)
    found.push(match[1] as string)
  }
  return found
}

/* -------------------------------------------------------------------- parsing */

type Node =
  | { type: 'text'; text: string }
  | { type: 'print'; pipe: Pipe }
  | { type: 'set'; name: string; pipe: Pipe }
  | { type: 'if' | 'with'; pipe: Pipe; then: Node[]; otherwise: Node[] }
  | { type: 'range'; names: string[]; pipe: Pipe; then: Node[]; otherwise: Node[] }

type Pipe = Call[]
type Call = Operand[]
type Operand =
  | { type: 'value'; value: unknown }
  | { type: 'path'; from: string; fields: string[] }
  | { type: 'function'; name: string }
  | { type: 'pipe'; pipe: Pipe; fields: string[] }

const KEYWORDS = new Set(['if', 'else', 'end', 'range', 'with'])

class Parser {
  #at = 0
  constructor(private readonly tokens: Token[]) {}

  whole(): Node[] {
    const { nodes, stop } = this.#list()
    if (stop) throw new TemplateError(`unexpected {{${stop.join(' ')}}}`)
    return nodes
  }

  /** Up to `{{end}}` or `{{else …}}`, which is taken and returned. */
  #list(): { nodes: Node[]; stop?: string[] } {
    const nodes: Node[] = []
    for (;;) {
      const token = this.tokens[this.#at++]
      if (!token) return { nodes }
      if ('text' in token) nodes.push({ type: 'text', text: token.text })
      else {
        const [word] = token.action
        if (word === 'end' || word === 'else') return { nodes, stop: token.action }
        nodes.push(this.#action(token.action))
      }
    }
  }

  #action(action: string[]): Node {
    const [word, ...rest] = action
    if (word === 'if' || word === 'with' || word === 'range') return this.#block(word, rest)
    if (action[1] === ':=' && word?.startsWith('$'))
      return { type: 'set', name: word, pipe: pipe(action.slice(2)) }
    return { type: 'print', pipe: pipe(action) }
  }

  #block(type: 'if' | 'with' | 'range', action: string[]): Node {
    const assign = action.indexOf(':=')
    const names = assign < 0 ? [] : action.slice(0, assign).filter(word => word !== ',')
    if (names.some(name => !/^\$./.test(name)) || names.length > (type === 'range' ? 2 : 1))
      throw new TemplateError(`bad variables in {{${type} ${action.join(' ')}}}`)
    const source = pipe(action.slice(assign + 1))
    const { nodes: then, stop } = this.#list()
    if (!stop) throw new TemplateError(`{{${type}}} without {{end}}`)
    let otherwise: Node[] = []
    if (stop[0] === 'else') {
      const [, next, ...rest] = stop
      if (next === 'if' || next === 'with') otherwise = [this.#block(next, rest)]
      else {
        const tail = this.#list()
        if (tail.stop?.[0] !== 'end') throw new TemplateError(`{{${type}}} without {{end}}`)
        otherwise = tail.nodes
      }
    }
    if (type === 'range') return { type, names, pipe: source, then, otherwise }
    return { type, pipe: source, then, otherwise }
  }
}

function pipe(action: string[]): Pipe {
  if (action.length === 0) throw new TemplateError('missing value in action')
  const { calls, at } = callsOf(action, 0)
  if (at < action.length) throw new TemplateError(`unexpected ${action[at]} in {{${action.join(' ')}}}`)
  return calls
}

function callsOf(action: string[], from: number): { calls: Call[]; at: number } {
  const calls: Call[] = []
  let call: Call = []
  let at = from
  const finish = () => {
    if (call.length === 0) throw new TemplateError(`missing command in {{${action.join(' ')}}}`)
    calls.push(call)
    call = []
  }
  for (; at < action.length && action[at] !== ')'; at++) {
    const word = action[at] as string
    if (word === '|') finish()
    else if (word === '(') {
      const inner = callsOf(action, at + 1)
      if (action[inner.at] !== ')') throw new TemplateError(`unclosed ( in {{${action.join(' ')}}}`)
      at = inner.at
      const next = action[at + 1]
      const fields = next && /^\../.test(next) ? next.slice(1).split('.') : []
      if (fields.length) at++
      call.push({ type: 'pipe', pipe: inner.calls, fields })
    } else call.push(operand(word))
  }
  finish()
  return { calls, at }
}

function operand(word: string): Operand {
  if (word.startsWith('"')) {
    try {
      return { type: 'value', value: JSON.parse(word) }
    } catch {
      throw new TemplateError(`bad string ${word}`)
    }
  }
  if (word.startsWith('`')) return { type: 'value', value: word.slice(1, -1) }
  if (/^-?\d/.test(word)) return { type: 'value', value: Number(word) }
  if (word === 'true' || word === 'false') return { type: 'value', value: word === 'true' }
  if (word === 'nil') return { type: 'value', value: null }
  if (word === '.') return { type: 'path', from: '', fields: [] }
  if (word.startsWith('.')) return { type: 'path', from: '', fields: word.slice(1).split('.') }
  if (word.startsWith('$')) {
    const [from = '$', ...fields] = word.split('.')
    return { type: 'path', from, fields }
  }
  if (KEYWORDS.has(word) || !Object.hasOwn(FUNCTIONS, word))
    throw new TemplateError(
      `function ${JSON.stringify(word)} is not defined; there are: ${Object.keys(FUNCTIONS).join(', ')}`,
    )
  return { type: 'function', name: word }
}

/* -------------------------------------------------------------------- running */

class Scope {
  readonly #lower: ReadonlySet<string> | undefined

  constructor(
    private readonly root: unknown,
    private readonly known: readonly string[] | undefined,
    readonly variables: Map<string, unknown>,
  ) {
    this.#lower = known && new Set(known.map(name => name.toLowerCase()))
  }

  inner(): Scope {
    return new Scope(this.root, this.known, new Map(this.variables))
  }

  /** Refuses a field that the data cannot have. */
  check(of: unknown, name: string | undefined): void {
    if (of !== this.root || name === undefined || !this.#lower || this.#lower.has(name.toLowerCase())) return
    throw new TemplateError(`there is no field ${name}; there are: ${this.known?.join(', ')}`)
  }
}

function run(nodes: readonly Node[], dot: unknown, outer: Scope, out: string[]): void {
  const scope = outer.inner()
  for (const node of nodes) {
    if (node.type === 'text') out.push(node.text)
    else if (node.type === 'print') out.push(show(evaluate(node.pipe, dot, scope)))
    else if (node.type === 'set') scope.variables.set(node.name, evaluate(node.pipe, dot, scope))
    else if (node.type === 'range') range(node, dot, scope, out)
    else {
      const value = evaluate(node.pipe, dot, scope)
      if (truth(value)) run(node.then, node.type === 'with' ? value : dot, scope, out)
      else run(node.otherwise, dot, scope, out)
    }
  }
}

function range(node: Node & { type: 'range' }, dot: unknown, scope: Scope, out: string[]): void {
  const value = evaluate(node.pipe, dot, scope)
  const entries = entriesOf(value)
  if (entries.length === 0) run(node.otherwise, dot, scope, out)
  for (const [key, item] of entries) {
    const inner = scope.inner()
    const [first, second] = node.names
    if (second) inner.variables.set(first as string, key).set(second, item)
    else if (first) inner.variables.set(first, item)
    run(node.then, item, inner, out)
  }
}

function entriesOf(value: unknown): [unknown, unknown][] {
  if (value === null || value === undefined) return []
  if (Array.isArray(value)) return value.map((item, at) => [at, item])
  if (typeof value === 'object') return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  throw new TemplateError(`range can't iterate over ${show(value)}`)
}

function evaluate(pipe: Pipe, dot: unknown, scope: Scope): unknown {
  let piped: unknown[] = []
  for (const call of pipe) piped = [invoke(call, dot, scope, piped)]
  return piped[0]
}

function invoke(call: Call, dot: unknown, scope: Scope, piped: unknown[]): unknown {
  const [head, ...rest] = call as [Operand, ...Operand[]]
  const args = [...rest.map(item => value(item, dot, scope)), ...piped]
  if (head.type === 'function') return (FUNCTIONS[head.name] as Function_)(...args)
  const found = value(head, dot, scope)
  if (typeof found === 'function') return (found as Function_)(...args)
  if (args.length) throw new TemplateError(`can't give arguments to ${show(found)}`)
  return found
}

function value(operand: Operand, dot: unknown, scope: Scope): unknown {
  if (operand.type === 'value') return operand.value
  if (operand.type === 'function') return (FUNCTIONS[operand.name] as Function_)()
  if (operand.type === 'pipe') return operand.fields.reduce(field, evaluate(operand.pipe, dot, scope))
  if (operand.from && !scope.variables.has(operand.from))
    throw new TemplateError(`undefined variable ${JSON.stringify(operand.from)}`)
  const start = operand.from ? scope.variables.get(operand.from) : dot
  scope.check(start, operand.fields[0])
  return operand.fields.reduce(field, start)
}

/** Docker's templates say .ID where its JSON says Id: the case of a name is no reason to find nothing. */
function field(of: unknown, name: string): unknown {
  if (of === null || of === undefined) return undefined
  if (typeof of !== 'object') throw new TemplateError(`can't evaluate field ${name} in ${show(of)}`)
  if (Object.hasOwn(of, name)) return (of as Record<string, unknown>)[name]
  const key = Object.keys(of).find(candidate => candidate.toLowerCase() === name.toLowerCase())
  return key === undefined ? undefined : (of as Record<string, unknown>)[key]
}

function truth(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0
  return Boolean(value)
}

/** As Go prints it. */
function show(value: unknown): string {
  if (value === undefined) return '<no value>'
  if (value === null) return '<nil>'
  if (Array.isArray(value)) return `[${value.map(show).join(' ')}]`
  if (typeof value === 'object')
    return `map[${entriesOf(value)
      .map(([key, item]) => `${String(key)}:${show(item)}`)
      .join(' ')}]`
  return String(value)
}

type Function_ = (...args: unknown[]) => unknown

const text = (value: unknown) => (typeof value === 'string' ? value : show(value))
const compare = (a: unknown, b: unknown): number =>
  typeof a === 'number' && typeof b === 'number' ? a - b : text(a) < text(b) ? -1 : text(a) > text(b) ? 1 : 0

const FUNCTIONS: Record<string, Function_> = {
  json: value => JSON.stringify(value ?? null),
  len: value => {
    if (typeof value === 'string') return Buffer.byteLength(value)
    if (typeof value === 'object' && value !== null)
      return Array.isArray(value) ? value.length : Object.keys(value).length
    throw new TemplateError(`len of ${show(value)}`)
  },
  index: (value, ...keys) =>
    keys.reduce((at: unknown, key) => {
      if (Array.isArray(at)) {
        const number = Number(key)
        if (!Number.isInteger(number) || number < 0 || number >= at.length)
          throw new TemplateError(`index out of range: ${show(key)}`)
        return at[number]
      }
      if (typeof at === 'object' && at !== null)
        return Object.hasOwn(at, text(key)) ? (at as Record<string, unknown>)[text(key)] : ''
      throw new TemplateError(`can't index ${show(at)}`)
    }, value),
  join: (list, separator = '') => (Array.isArray(list) ? list.map(text).join(text(separator)) : text(list)),
  split: (value, separator) => text(value).split(text(separator)),
  upper: value => text(value).toUpperCase(),
  lower: value => text(value).toLowerCase(),
  title: value => text(value).replace(/(^|\s)\S/g, letter => letter.toUpperCase()),
  pad: (value, before, after) => `${' '.repeat(bounded(before))}${text(value)}${' '.repeat(bounded(after))}`,
  truncate: (value, length) => [...text(value)].slice(0, bounded(length)).join(''),
  print: (...values) => values.map(text).join(' '),
  println: (...values) => `${values.map(text).join(' ')}\n`,
  printf: (format, ...values) => {
    let at = 0
    return text(format).replace(
      /%(-?)(\d{0,3})([sdvq%])/g,
      (_, left: string, width: string, verb: string) => {
        if (verb === '%') return '%'
        const value = values[at++]
        const shown = verb === 'q' ? JSON.stringify(text(value)) : text(value)
        return left ? shown.padEnd(Number(width)) : shown.padStart(Number(width))
      },
    )
  },
  eq: (a, ...others) => others.some(b => compare(a, b) === 0),
  ne: (a, b) => compare(a, b) !== 0,
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
  and: (...values) => values.find(value => !truth(value)) ?? values.at(-1),
  or: (...values) => values.find(truth) ?? values.at(-1),
  not: value => !truth(value),
}

const bounded = (count: unknown) => Math.max(0, Math.min(10_000, Number(count) || 0))
