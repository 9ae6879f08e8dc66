/** The `filters` parameter: JSON, `{"label":{"a=b":true}}` or, from old clients, `{"label":["a=b"]}`. */
import { HttpError } from './errors'

export type Filters = ReadonlyMap<string, readonly string[]>

/** Throws for what is neither form, and for keys that are not among the accepted ones; without those any key will do. */
export function parseFilters(parameter: string | null, accepted?: readonly string[]): Filters {
  const filters = new Map<string, string[]>()
  if (!parameter) return filters
  let given: unknown
  try {
    given = JSON.parse(parameter)
  } catch (error) {
    throw invalid((error as Error).message)
  }
  if (given === null) return filters // to Go an empty map
  if (typeof given !== 'object' || Array.isArray(given)) throw invalid('must be an object')
  for (const [key, values] of Object.entries(given)) {
    if (accepted && !accepted.includes(key)) throw new HttpError(400, `invalid filter '${key}'`)
    filters.set(key, valuesOf(key, values))
  }
  return filters
}

function valuesOf(key: string, given: unknown): string[] {
  if (Array.isArray(given) && given.every(value => typeof value === 'string')) return given
  if (typeof given === 'object' && given !== null && !Array.isArray(given)) {
    const entries = Object.entries(given)
    if (entries.every(([, chosen]) => typeof chosen === 'boolean')) return entries.map(([value]) => value)
  }
  throw invalid(`values of ${JSON.stringify(key)} must be a list of strings or an object of booleans`)
}

const invalid = (why: string) => new HttpError(400, `invalid filter: ${why}`)

/** A filter that takes one boolean. Undefined when it is not given. */
export function booleanFilter(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key)
  if (!values?.length) return undefined
  const read = new Set(values.map(value => BOOLEANS.get(value.toLowerCase())))
  if (read.size !== 1 || read.has(undefined)) throw badValue(key, values)
  return [...read][0]
}

/** A filter that takes one moment. */
export function timeFilter(filters: Filters, key: string, now: number): number | undefined {
  const values = filters.get(key)
  if (!values?.length) return undefined
  if (values.length > 1) throw new HttpError(400, `more than one ${key} filter specified`)
  return parseTime(values[0] as string, now)
}

export const badValue = (key: string, values: readonly string[]) =>
  new HttpError(400, `invalid filter '${key}=${values.join(',')}'`)

const BOOLEANS = new Map([
  ['1', true],
  ['true', true],
  ['0', false],
  ['false', false],
])

/**
 * A moment in milliseconds since the epoch, from what Docker takes: seconds since the epoch with a fraction, RFC 3339, a
 * date, or a Go duration before now (`10m`, `1h30m`).
 */
export function parseTime(text: string, now: number): number {
  if (/^\d{1,12}(\.\d{1,9})?$/.test(text)) return Number(text) * 1000
  const duration = parseDuration(text)
  if (duration !== undefined) return now - duration
  if (/^\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d:\d\d)?)?$/.test(text)) {
    const whole = text.replace(/T(\d\d)(?=$|Z|[+-])/, 'T$1:00')
    const moment = Date.parse(whole.replace(/(\.\d{3})\d+/, '$1'))
    if (!Number.isNaN(moment)) return moment
  }
  throw new HttpError(400, `invalid time ${JSON.stringify(text.slice(0, 64))}`)
}

/** Milliseconds. */
const UNITS: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}

function parseDuration(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined
  let total = 0
  for (const [, number, , unit] of text.matchAll(/(\d+(\.\d+)?)(ns|us|µs|ms|s|m|h)/g))
    total += Number(number) * (UNITS[unit as string] as number)
  return total
}
