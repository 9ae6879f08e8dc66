import type { z } from 'zod'
import { CnmError } from '../base/errors'
import type { RecordKind, StoredRecord } from './contract'

/** What a kind of record looks like today, and how to get there from what it looked like before. */
export interface KindSchema {
  /** The version that is written today. */
  version: number
  schema: z.ZodType
  /** `migrations[n]` turns a value of version n into one of version n + 1. */
  migrations?: Readonly<Record<number, (value: unknown) => unknown>>
}

/** The table of kinds. A kind that is not in it is handed on as it was written. */
export type Schemas = Partial<Record<RecordKind, KindSchema>>

export const KINDS: readonly RecordKind[] = ['meta', 'network', 'endpoint', 'sandbox', 'service']

export interface Damaged {
  kind: string
  id: string
  reason: string
  /** What was found, as it was found. */
  raw: string
}

/** What was read under a kind and id: `body` is undefined when not even the frame around it could be read. */
export interface RawRecord {
  kind: string
  id: string
  body: unknown
  raw: string
}

export interface Decoded {
  records: StoredRecord[]
  /** Those of `records` that an older version had written. */
  migrated: StoredRecord[]
  damaged: Damaged[]
}

/**
 * Brings everything that was read to today's versions, in the order of restoring.
 * Throws ERR_STORE_VERSION if any record is newer than this library: to read around it would lose it.
 */
export function decode(found: Iterable<RawRecord>, schemas: Schemas): Decoded {
  const records: StoredRecord[] = []
  const migrated: StoredRecord[] = []
  const damaged: Damaged[] = []
  for (const { kind, id, body, raw } of found) {
    const result = decodeOne(kind, id, body, schemas)
    if (typeof result === 'string') damaged.push({ kind, id, reason: result, raw })
    else {
      records.push(result.record)
      if (result.migrated) migrated.push(result.record)
    }
  }
  const rank = new Map(KINDS.map((kind, i) => [kind, i]))
  records.sort((a, b) => rank.get(a.kind)! - rank.get(b.kind)! || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
  return { records, migrated, damaged }
}

/** The record, or why it cannot be read. */
function decodeOne(
  kind: string,
  id: string,
  body: unknown,
  schemas: Schemas,
): string | { record: StoredRecord; migrated: boolean } {
  if (!isBody(body)) return 'the checksum or the form of the record is wrong'
  if (!isKind(kind)) throw newer(kind, id, body.version, 'none: this kind is not known')
  const today = schemas[kind]
  if (!today) return { record: { kind, id, version: body.version, value: body.value }, migrated: false }
  if (body.version > today.version) throw newer(kind, id, body.version, String(today.version))
  let value = body.value
  for (let version = body.version; version < today.version; version++) {
    const migrate = today.migrations?.[version]
    if (!migrate) return `there is no migration from version ${version} to ${version + 1}`
    try {
      value = migrate(value)
    } catch (error) {
      return `the migration from version ${version} failed: ${(error as Error)?.message ?? String(error)}`
    }
  }
  const parsed = today.schema.safeParse(value)
  if (!parsed.success)
    return parsed.error.issues
      .map(issue => `${['value', ...issue.path.map(String)].join('.')}: ${issue.message}`)
      .join('; ')
  return {
    record: { kind, id, version: today.version, value: parsed.data },
    migrated: body.version < today.version,
  }
}

function newer(kind: string, id: string, version: number, known: string): CnmError {
  return new CnmError(
    'ERR_STORE_VERSION',
    `the store holds ${kind} ${id} in version ${version}; this library reads up to version ${known}`,
    { kind, id, version, known },
  )
}

const isKind = (kind: string): kind is RecordKind => (KINDS as readonly string[]).includes(kind)

/** How a record's value is kept, whichever the store. */
export const encodeBody = (version: number, value: unknown): string => JSON.stringify({ version, value })

function isBody(body: unknown): body is { version: number; value: unknown } {
  const version = (body as { version?: unknown } | null | undefined)?.version
  return typeof version === 'number' && Number.isInteger(version) && version >= 1
}
