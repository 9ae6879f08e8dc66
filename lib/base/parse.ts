import { z } from 'zod'
import { parseCidr, parseIp, canonicalCidr, canonicalIp, network, formatCidr } from './cidr'
import { CnmError, isCnmError } from './errors'
import { nearest } from './nearest'

/**
 * Parses what a caller handed in, once, at the public method. Throws ERR_INVALID_OPTION naming the field, the value,
 * the reason and, for an unknown option, the nearest known one.
 */
export function parse<S extends z.ZodType>(schema: S, input: unknown, what = 'options'): z.output<S> {
  refusePrototypes(input, what)
  const result = schema.safeParse(input)
  if (result.success) return result.data
  const issues = result.error.issues.map(issue => describe(issue, input, schema, what))
  throw new CnmError(
    commonCode(result.error.issues),
    issues.map(issue => issue.message).join('; '),
    { issues },
    { cause: result.error },
  )
}

const SPECIFIC = ['ERR_INVALID_NAME', 'ERR_INVALID_CIDR', 'ERR_INVALID_ADDRESS', 'ERR_INVALID_PORT'] as const
type SpecificCode = (typeof SPECIFIC)[number]

/** The code that every issue carries (see {@link coded}); ERR_INVALID_OPTION when they carry none, or several. */
function commonCode(issues: readonly z.core.$ZodIssue[]): SpecificCode | 'ERR_INVALID_OPTION' {
  const codes = new Set(issues.map(issue => (issue.code === 'custom' ? issue.params?.libcnm : undefined)))
  const [only] = codes
  const known = SPECIFIC.find(code => code === only)
  return codes.size === 1 && known !== undefined ? known : 'ERR_INVALID_OPTION'
}

/** A custom issue that decides the code of the error which {@link parse} throws. */
export const coded = (code: SpecificCode, message: string) =>
  ({ code: 'custom', message, params: { libcnm: code } }) as const

/** `__proto__` as a key comes from hostile JSON only. The schemas would drop it without a word. */
function refusePrototypes(value: unknown, at: string, depth = 0): void {
  if (typeof value !== 'object' || value === null || depth > 8) return
  if (Object.hasOwn(value, '__proto__'))
    throw new CnmError('ERR_INVALID_OPTION', `${at}: __proto__ is not allowed as a name`, { field: at })
  const plain = Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype
  if (plain)
    for (const [key, inner] of Object.entries(value))
      if (typeof inner === 'object') refusePrototypes(inner, `${at}.${key}`, depth + 1)
}

function describe(issue: z.core.$ZodIssue, input: unknown, schema: z.ZodType, what: string) {
  const path = issue.path.map(String)
  const field = [what, ...path.map(printable)].join('.')
  const value = path.reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined)?.[key], input)
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(schema, path)
    const hints = issue.keys.map(key => {
      const near = nearest(key, known)
      return `${field}.${printable(key)} is not an option${near ? `; did you mean ${near}?` : `; known: ${known.join(', ')}`}`
    })
    return { field, value: issue.keys, message: hints.join('; ') }
  }
  if (issue.code === 'invalid_key') {
    const reasons = issue.issues.map(({ message }) => message).join(', ')
    return { field, value: path.at(-1), message: `${field}: the name ${reasons}` }
  }
  return {
    field,
    value,
    message: `${field}: ${issue.message}${value === undefined ? '' : ` (got ${brief(value)})`}`,
  }
}

/** The option names of the object schema that stands at `path` below `schema`. */
function knownKeys(schema: z.ZodType, path: string[]): string[] {
  let at = bare(schema)
  for (const key of path) {
    if (at instanceof z.ZodObject) at = bare(at.shape[key] as z.ZodType | undefined)
    else if (at instanceof z.ZodArray) at = bare(at.element as z.ZodType)
    else return []
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : []
}

function bare(schema: z.ZodType | undefined): z.ZodType | undefined {
  let at: unknown = schema
  for (;;) {
    if (
      at instanceof z.ZodOptional ||
      at instanceof z.ZodDefault ||
      at instanceof z.ZodNullable ||
      at instanceof z.ZodPrefault
    )
      at = at.unwrap()
    else if (at instanceof z.ZodPipe) at = at.in
    // `true`, or an object with more to say
    else if (at instanceof z.ZodUnion)
      at = at.options.find(option => bare(option as z.ZodType) instanceof z.ZodObject)
    else return at as z.ZodType | undefined
  }
}

/** A key as it was given, unless no terminal or log should be shown it. */
export const printable = (key: string): string => (/^[!-~]{1,80}$/.test(key) ? key : brief(key))

const brief = (value: unknown): string => {
  const text = JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? String(v) : v)) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** Lets a function that throws CnmError serve as a zod transform. */
const guarded =
  <T>(read: (text: string) => T) =>
  (text: string, context: z.RefinementCtx): T => {
    try {
      return read(text)
    } catch (error) {
      const specific = SPECIFIC.find(code => isCnmError(error, code))
      const message = isCnmError(error) ? error.message : String(error)
      context.addIssue(specific ? coded(specific, message) : { code: 'custom', message })
      return z.NEVER
    }
  }

/** An IP address, canonicalised. */
export const ip = () => z.string().max(64).transform(guarded(canonicalIp)).describe('an IPv4 or IPv6 address')
export const ipv4 = () =>
  z
    .string()
    .max(64)
    .transform(guarded(text => ofFamily(4, text)))
    .describe('an IPv4 address')
export const ipv6 = () =>
  z
    .string()
    .max(64)
    .transform(guarded(text => ofFamily(6, text)))
    .describe('an IPv6 address')
/** ADDRESS/LENGTH, canonicalised, host bits kept. */
export const cidr = () => z.string().max(64).transform(guarded(canonicalCidr)).describe('ADDRESS/LENGTH')
/** A subnet: ADDRESS/LENGTH with the host bits zero. */
export const subnet = () =>
  z.string().max(64).transform(guarded(strictSubnet)).describe('a subnet, ADDRESS/LENGTH')
/** A MAC address, lower case, colons; unicast. */
export const mac = () =>
  z
    .string()
    .regex(/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/, 'must be six hexadecimal octets separated by colons')
    .transform(text => text.toLowerCase())
    .refine(
      text => (Number.parseInt(text.slice(0, 2), 16) & 1) === 0,
      'must be a unicast address (even first octet)',
    )
    .refine(text => text !== '00:00:00:00:00:00', 'must not be zero')
    .describe('a unicast MAC address')
/** A name for a kernel interface: 1-15 bytes, none of `/`, `:`, `%`, white space or control characters, not `.` or `..`. */
export const linkName = () =>
  z
    .string()
    .superRefine((text, context) => {
      if (!/^(?!\.{1,2}$)[!-$&-.0-9;-~]{1,15}$/.test(text))
        context.addIssue(
          coded('ERR_INVALID_NAME', 'must be 1 to 15 printable characters without "/", ":", "%" or blanks'),
        )
    })
    .describe('a kernel interface name')
export const port = () => z.number().int().min(1).max(65535).describe('a port, 1-65535')

function ofFamily(family: 4 | 6, text: string): string {
  if (parseIp(text).family !== family)
    throw new CnmError('ERR_INVALID_ADDRESS', `${JSON.stringify(text)} is not an IPv${family} address`)
  return canonicalIp(text)
}

function strictSubnet(text: string): string {
  const parsed = parseCidr(text)
  const masked = network(parsed)
  if (masked.value !== parsed.value)
    throw new CnmError('ERR_INVALID_CIDR', `${text} has host bits set; it should be ${formatCidr(masked)}`)
  return formatCidr(masked)
}
