/**
 * Bodies of requests, read as Go's encoding/json reads them into a struct: names of fields in any case, null is as good as
 * absent, unknown fields are ignored, a wrong type is refused in Go's words.
 */
import type { IncomingMessage } from 'node:http'
import { z } from 'zod'
import { HttpError } from './errors'
import { Gathered } from './gathered'
import { parseGoJson } from './json'

/** Bytes. The largest sensible request is a few KiB. */
export const BODY_LIMIT = 1024 * 1024

/** Collects the body; refuses a long one as soon as it is known to be long. */
export function readBody(request: IncomingMessage, limit = BODY_LIMIT): Promise<Buffer> {
  const tooLarge = () =>
    new HttpError(413, `request body is larger than ${limit} bytes`, { Connection: 'close' })
  if (Number(request.headers['content-length'] ?? 0) > limit) return Promise.reject(tooLarge())
  // Not by iteration: leaving that destroys the connection, and the refusal with it.
  return new Promise((resolve, reject) => {
    const body = new Gathered()
    const collect = (chunk: Buffer) => {
      if (body.length + chunk.length <= limit) body.add(chunk)
      else settle(() => reject(tooLarge()))
    }
    const finish = () => settle(() => resolve(body.bytes()))
    const fail = () => settle(() => reject(new HttpError(400, 'unexpected EOF')))
    const settle = (outcome: () => void) => {
      request.off('data', collect).off('end', finish).off('error', fail).off('close', fail)
      request.on('error', () => {}) // of a client that goes after all
      outcome()
    }
    request.on('data', collect).once('end', finish).once('error', fail).once('close', fail)
  })
}

/** Refuses what is no JSON; an empty body is an empty object. */
export function parseJson(contentType: string | undefined, body: Buffer): unknown {
  if (contentType === undefined && body.length === 0) return {}
  const type = (contentType ?? '').split(';')[0]?.trim().toLowerCase()
  if (type !== 'application/json')
    throw new HttpError(
      400,
      type || contentType === undefined
        ? `unsupported Content-Type header (${contentType ?? ''}): must be 'application/json'`
        : `malformed Content-Type header (${contentType})`,
    )
  if (body.length === 0) return {}
  if (/^[ \t\r\n]*$/.test(body.toString('latin1')))
    throw new HttpError(400, 'invalid JSON: got EOF while reading request body')
  const { value, more } = readJson(body)
  if (more) throw new HttpError(400, 'unexpected content after JSON')
  return value
}

function readJson(body: Buffer) {
  try {
    return parseGoJson(body)
  } catch (error) {
    throw new HttpError(400, `invalid JSON: ${(error as Error).message}`)
  }
}

/** A Go struct. Fields that are absent or null are undefined; others are ignored. */
export function struct<S extends z.core.$ZodLooseShape>(shape: S) {
  const names = new Map(Object.keys(shape).map(name => [name.toLowerCase(), name]))
  const rename = (given: unknown): unknown => {
    if (typeof given !== 'object' || given === null || Array.isArray(given)) return given
    return Object.fromEntries(
      Object.entries(given).flatMap(([key, value]) => {
        const name = names.get(key.toLowerCase())
        return name === undefined || value === null ? [] : [[name, value]]
      }),
    )
  }
  return z.preprocess(rename, z.object(shape))
}

const absent = (value: unknown) => (value === null ? undefined : value)
/** The scalar and container types of Go, each optional. `.meta({ go })` is what a refusal calls it. */
export const text = () => z.string().optional().meta({ go: 'string' })
export const flag = () => z.boolean().optional().meta({ go: 'bool' })
export const int = () =>
  z.number().int().min(Number.MIN_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER).optional().meta({ go: 'int' })
/** map[string]string: null values are empty strings. */
export const texts = () =>
  z
    .record(
      z.string(),
      z.preprocess(value => value ?? '', z.string().meta({ go: 'string' })),
    )
    .optional()
    .meta({ go: 'map[string]string' })
export const listOf = <T extends z.ZodType>(item: T) =>
  z.array(z.preprocess(absent, item)).optional().meta({ go: 'slice' })

/** `name` is what Go calls the struct: it is part of the message. */
export function decode<S extends z.ZodType>(schema: S, given: unknown, name: string): z.output<S> {
  const value = given === null ? {} : given
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const path = (issue?.path ?? []).map(String)
  const found = path.reduce<unknown>((at, key) => fieldOf(at, key), value)
  const target = goType(schema, path, issue)
  const into = path.filter(part => !/^\d+$/.test(part)).join('.')
  const where = into ? `Go struct field ${name}.${into}` : 'Go value'
  throw new HttpError(
    400,
    `invalid JSON: json: cannot unmarshal ${kindOf(found)} into ${where} of type ${into ? target : name}`,
  )
}

function fieldOf(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  const found = Object.entries(value).find(([name]) => name.toLowerCase() === key.toLowerCase())
  return found?.[1]
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'array'
  switch (typeof value) {
    case 'boolean':
      return 'bool'
    case 'number':
      return Number.isInteger(value) ? 'number' : `number ${value}`
    case 'object':
      return 'object'
    default:
      return 'string'
  }
}

/** What zod expected there, in Go's words. */
function goType(schema: z.ZodType, path: string[], issue: z.core.$ZodIssue | undefined): string {
  const expected = issue && 'expected' in issue ? String(issue.expected) : ''
  const simple: Record<string, string> = {
    string: 'string',
    boolean: 'bool',
    number: 'int',
    int: 'int',
    record: 'map[string]string',
    array: `[]${path.at(-1) ?? ''}`,
    object: path.at(-1) ?? '',
  }
  return simple[expected] ?? String(schema.meta()?.go ?? (expected || 'value'))
}
