import { CnmError } from '../base/errors'
import type { RecordKind, Store, StoredRecord, StoreWrite } from './contract'
import { decode, encodeBody, type Schemas } from './migrate'

/** What a memory store holds; hand the same one to a second store to play a restart. Key `KIND/ID`, value JSON. */
export type MemoryRecords = Map<string, string>

/** Keeps records for the life of the process (or of `records`). Values are copied when written, as a disk would. */
export class MemoryStore implements Store {
  readonly name = 'memory'
  readonly #records: MemoryRecords
  readonly #schemas: Schemas
  #closed = false

  constructor(options: { records?: MemoryRecords; schemas?: Schemas } = {}) {
    this.#records = options.records ?? new Map()
    this.#schemas = options.schemas ?? {}
  }

  async load() {
    this.#mustBeOpen()
    const { records, damaged } = decode(
      [...this.#records].map(([key, raw]) => ({ ...splitKey(key), body: parsed(raw), raw })),
      this.#schemas,
    )
    return { records, damaged }
  }

  async write({ put = [], remove = [] }: StoreWrite): Promise<void> {
    this.#mustBeOpen()
    const encoded = put.map(record => [recordKey(record), encode(record)] as const)
    const removed = remove.map(recordKey)
    for (const [key, json] of encoded) this.#records.set(key, json)
    for (const key of removed) this.#records.delete(key)
  }

  async close(): Promise<void> {
    this.#closed = true
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new CnmError('ERR_CLOSED', 'the store is closed')
  }
}

/** LMDB takes keys of up to 1978 bytes; shorter here, so that what one store takes every store takes. */
const MAX_KEY = 1024

export function recordKey({ kind, id }: { kind: RecordKind; id: string }): string {
  const key = `${kind}/${id}`
  if (id === '' || Buffer.byteLength(key) > MAX_KEY)
    throw new CnmError(
      'ERR_STORE',
      `the id of a record is 1 to ${MAX_KEY - kind.length - 1} bytes, not ${JSON.stringify(id)}`,
    )
  return key
}

export function splitKey(key: string): { kind: string; id: string } {
  const slash = key.indexOf('/')
  return { kind: key.slice(0, slash), id: key.slice(slash + 1) }
}

/** The body of a record as JSON. Throws ERR_STORE for what JSON cannot hold. */
export function encode({ kind, id, version, value }: StoredRecord): string {
  try {
    return encodeBody(version, value)
  } catch (cause) {
    throw new CnmError('ERR_STORE', `${kind} ${id} cannot be written as JSON`, { kind, id }, { cause })
  }
}

function parsed(raw: string): unknown {
  try {
    return JSON.parse(raw)
  } catch {
    return undefined
  }
}
