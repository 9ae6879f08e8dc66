/** Tables, formats and colours. Pure but for the stream that is written to. */
import { UsageError } from './args'
import { parseTemplate, TemplateError } from './template'

export interface Io {
  out(text: string): void
  error(text: string): void
  env: Readonly<Record<string, string | undefined>>
  /** Standard output is a terminal. */
  tty: boolean
  /** Columns of the terminal. */
  columns: number
  /** Aborted by Ctrl-C. */
  signal: AbortSignal
  /** All of standard input, for a question. */
  confirm(question: string): Promise<boolean>
}

export interface Column<T> {
  title: string
  /** The name of the field in a template. */
  field: string
  value(row: T): string
}

export interface ListFormat {
  format?: string
  quiet: boolean
}

/**
 * A list in one of Docker's ways: a table, `table TEMPLATE`, a template a row, `json` (a line a row), or ids alone.
 * `extra` are fields and methods that only templates see.
 */
export function formatList<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  { format, quiet }: ListFormat,
  id: (row: T) => string,
  extra: (row: T) => Record<string, unknown> = () => ({}),
): string {
  if (quiet && !format) return lines(rows.map(id))
  const shown = (row: T) => Object.fromEntries(columns.map(({ field, value }) => [field, value(row)]))
  if (format === 'json')
    return lines(rows.map(row => JSON.stringify({ ...shown(row), ...plain(extra(row)) })))
  if (format === undefined || format === 'table')
    return table([
      columns.map(({ title }) => title),
      ...rows.map(row => columns.map(({ value }) => value(row))),
    ])
  const isTable = /^table\s/.test(format)
  const first = rows[0]
  const extras = first ? Object.keys(extra(first)) : []
  const known = first && [...columns.map(({ field }) => field), ...extras]
  const template = compile(isTable ? format.replace(/^table\s+/, '') : format, known)
  const texts = rows.map(row => template({ ...extra(row), ...shown(row) }))
  if (!isTable) return lines(texts)
  const titles = Object.fromEntries(columns.map(({ field, title }) => [field, title]))
  const heads = {
    ...Object.fromEntries(extras.map(name => [name, name.toUpperCase()])),
    ...titles,
    Label: (key: unknown) => String(key).toUpperCase(),
  }
  return table([template(heads), ...texts].map(line => line.split('\t')))
}

const plain = (values: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => typeof value !== 'function'))

/**
 * One object or several in a template, or all of them as JSON. `optional`: fields that not every object has; with it, a
 * template that names any other that is not there is refused.
 */
export function formatObjects(
  objects: readonly unknown[],
  format: string | undefined,
  optional?: readonly string[],
): string {
  if (format === undefined) return `${JSON.stringify(objects, undefined, 4)}\n`
  if (format === 'json') return lines(objects.map(object => JSON.stringify(object)))
  if (/^table(\s|$)/.test(format))
    throw new UsageError(
      'a table is for lists; here --format takes json or a template, without the word "table"',
    )
  const known = optional && [
    ...new Set([...objects.flatMap(object => Object.keys(object ?? {})), ...optional]),
  ]
  return lines(objects.map(compile(format, known)))
}

/** `\t` and `\n` are what people write in a shell. */
function compile(source: string, known?: readonly string[]): (data: unknown) => string {
  const escaped = source.replace(/\\([tn\\])/g, (_, letter: string) =>
    letter === 't' ? '\t' : letter === 'n' ? '\n' : '\\',
  )
  const guard =
    <A extends unknown[], R>(body: (...args: A) => R) =>
    (...args: A): R => {
      try {
        return body(...args)
      } catch (error) {
        if ((error as Error).name === 'TemplateError')
          throw new UsageError(`template: ${(error as TemplateError).message}`)
        throw error
      }
    }
  return guard(guard(parseTemplate)(escaped, known))
}

const lines = (texts: readonly string[]) => texts.map(text => `${text}\n`).join('')

/** Columns three spaces apart, as Docker's. What has to be a cell stays one: no line breaks, no escape sequences. */
export function table(rows: readonly (readonly string[])[]): string {
  const cells = rows.map(row => row.map(visible))
  const widths: number[] = []
  for (const row of cells)
    row.forEach((cell, at) => {
      widths[at] = Math.max(widths[at] ?? 0, width(cell))
    })
  return lines(
    cells.map(row =>
      row
        .map((cell, at) =>
          at === row.length - 1 ? cell : cell + ' '.repeat((widths[at] ?? 0) - width(cell)),
        )
        .join('   ')
        .trimEnd(),
    ),
  )
}

/** Control characters would let a label paint the terminal. */
export const visible = (text: string): string =>
  text.replace(/[\u0000-\u001f\u007f-\u009f]/g, c => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)

/** Columns of a terminal: wide characters take two (Unicode TR 11, the common blocks), combining ones none. */
export function width(text: string): number {
  let total = 0
  for (const c of text) {
    const code = c.codePointAt(0) as number
    if (/\p{M}|\u200d/u.test(c)) continue
    const wide =
      (code >= 0x1100 && code <= 0x115f) ||
      (code >= 0x2e80 && code <= 0xa4cf) ||
      (code >= 0xac00 && code <= 0xd7a3) ||
      (code >= 0xf900 && code <= 0xfaff) ||
      (code >= 0xff00 && code <= 0xff60) ||
      (code >= 0x1f300 && code <= 0x1faff) ||
      (code >= 0x20000 && code <= 0x3fffd)
    total += wide ? 2 : 1
  }
  return total
}

export type Colour = 'red' | 'green' | 'yellow' | 'blue' | 'magenta' | 'cyan' | 'dim' | 'bold'
const CODES: Record<Colour, number> = {
  bold: 1,
  dim: 2,
  red: 31,
  green: 32,
  yellow: 33,
  blue: 34,
  magenta: 35,
  cyan: 36,
}

/** Colours on a terminal only, and not where NO_COLOR (no-color.org) says so. */
export function painter({ tty, env }: Pick<Io, 'tty' | 'env'>): (colour: Colour, text: string) => string {
  const on = tty && !env.NO_COLOR && env.TERM !== 'dumb'
  return (colour, text) => (on ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text)
}

/** `3 minutes ago` */
export function ago(time: number, now: number): string {
  const seconds = Math.max(0, Math.floor((now - time) / 1000))
  for (const [name, length] of [
    ['day', 86_400],
    ['hour', 3600],
    ['minute', 60],
  ] as const) {
    const count = Math.floor(seconds / length)
    if (count >= 1) return `${count} ${name}${count > 1 ? 's' : ''} ago`
  }
  return seconds === 1 ? '1 second ago' : `${seconds} seconds ago`
}

/** 1.5 kB, 20 MB: powers of 1000, three digits. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let at = 0
  let value = count
  while (value >= 999.5 && at < units.length - 1) {
    value /= 1000
    at++
  }
  return `${at === 0 ? value : Number(value.toPrecision(3))} ${units[at]}`
}
