/** The options of a pool of the default driver, as text from the user, to values. */
import { isIP } from 'node:net'
import { type Cidr, contains, formatIp, network, parseCidr, parseIp } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { nearest } from '../base/nearest'
import type { Offset } from './address-set'
import { POOL_OPTIONS } from './contract'
import type { Numbering } from './numbering'

/** First and last, both included. */
export interface Span {
  first: Offset
  last: Offset
}

export interface PoolSettings {
  serial: boolean
  /** Milliseconds. */
  quarantine: number
  sticky: boolean
  /** Sorted, disjoint. */
  staticRanges: Span[]
}

const OWN_PREFIX = 'libcnm.ipam.'
/** A week, in milliseconds: anything longer is a slip of the unit. */
const MAX_QUARANTINE = 604_800_000

/**
 * Throws ERR_INVALID_OPTION, also for a key of ours or of Docker's that is misspelt. Keys that are neither are left to
 * others.
 */
export function poolSettings(
  options: Record<string, string> | undefined,
  numbering: Numbering,
  quarantine: number,
): PoolSettings {
  const settings: PoolSettings = { serial: false, quarantine, sticky: false, staticRanges: [] }
  for (const [key, value] of Object.entries(options ?? {})) {
    if (key === POOL_OPTIONS.serial) settings.serial = flag(key, value)
    else if (key === POOL_OPTIONS.sticky) settings.sticky = flag(key, value)
    else if (key === POOL_OPTIONS.quarantine) settings.quarantine = milliseconds(key, value)
    else if (key === POOL_OPTIONS.staticRange) settings.staticRanges = ranges(key, value, numbering)
    else {
      const near = nearest(key, Object.values(POOL_OPTIONS))
      if (near !== undefined) throw refused(key, value, `is not an option; did you mean ${near}?`)
      if (key.startsWith(OWN_PREFIX)) throw refused(key, value, 'is not an option')
    }
  }
  return settings
}

/** The options of one pool of several: parts of the static range that lie in another one's subnet are that one's. */
export function optionsWithout(
  options: Record<string, string>,
  others: readonly Cidr[],
): Record<string, string> {
  const { [POOL_OPTIONS.staticRange]: ranges, ...rest } = options
  if (ranges === undefined || others.length === 0) return options
  const own = ranges.split(',').filter(part => {
    const first = part.trim().split(/[-/]/)[0] ?? ''
    // what is no address is kept, and refused where it is read
    return !isIP(first) || !others.some(subnet => subnet.value !== 0n && contains(subnet, parseIp(first)))
  })
  return own.length > 0 ? { ...rest, [POOL_OPTIONS.staticRange]: own.join(',') } : rest
}

function flag(key: string, value: string): boolean {
  if (value === 'true' || value === '1') return true
  if (value === 'false' || value === '0') return false
  throw refused(key, value, "must be 'true' or 'false'")
}

function milliseconds(key: string, value: string): number {
  const number = /^\d{1,9}$/.test(value) ? Number(value) : MAX_QUARANTINE + 1
  if (number > MAX_QUARANTINE) throw refused(key, value, `must be milliseconds, 0 to ${MAX_QUARANTINE}`)
  return number
}

function ranges(key: string, value: string, numbering: Numbering): Span[] {
  const spans = value.split(',').map(part => {
    const text = part.trim()
    try {
      return text.includes('/') ? subnetSpan(text, numbering) : addressSpan(text, numbering)
    } catch (cause) {
      if (!isCnmError(cause)) throw cause
      throw refused(key, value, cause.message, cause)
    }
  })
  spans.sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))
  for (let i = 1; i < spans.length; i++)
    if (spans[i]!.first <= spans[i - 1]!.last) throw refused(key, value, 'has parts that overlap')
  return spans
}

function subnetSpan(text: string, numbering: Numbering): Span {
  const subnet: Cidr = network(parseCidr(text))
  if (!contains(numbering.pool, subnet))
    throw new CnmError('ERR_ADDRESS_OUT_OF_RANGE', `${text} is not inside pool ${numbering.text}`)
  return numbering.span(subnet)
}

function addressSpan(text: string, numbering: Numbering): Span {
  const [low = '', high = low, ...rest] = text.split('-').map(part => part.trim())
  if (rest.length > 0)
    throw new CnmError('ERR_INVALID_ADDRESS', `${text} is neither ADDRESS/LENGTH nor FIRST-LAST`)
  const span = { first: numbering.offsetOf(low), last: numbering.offsetOf(high) }
  if (span.first > span.last)
    throw new CnmError(
      'ERR_INVALID_ADDRESS',
      `${formatIp(parseIp(high))} comes before ${formatIp(parseIp(low))}; FIRST-LAST is ascending`,
    )
  return span
}

const refused = (key: string, value: string, why: string, cause?: unknown) =>
  new CnmError(
    'ERR_INVALID_OPTION',
    `IPAM option ${key}=${JSON.stringify(value)}: ${why}`,
    { option: key, value },
    { cause },
  )
