/**
 * Where a controller keeps what it must not forget. Written, not read, after start: the live objects are the truth.
 * Values are plain JSON-able data; every record carries its kind's schema version and is validated when it is read.
 */

/** The kinds of record, in the order in which they are restored. */
export type RecordKind = 'meta' | 'network' | 'endpoint' | 'sandbox' | 'service'

export interface StoredRecord {
  kind: RecordKind
  id: string
  /** Schema version of the value, starting at 1. */
  version: number
  value: unknown
}

export interface StoreWrite {
  put?: StoredRecord[]
  remove?: { kind: RecordKind; id: string }[]
}

export interface Store {
  readonly name: string
  /** Everything, once, at start. Records that cannot be decoded are in `damaged`, set aside, never dropped. */
  load(): Promise<{
    records: StoredRecord[]
    damaged: { kind: string; id: string; reason: string; raw: string }[]
  }>
  /**
   * All of it or nothing, visible to a later load in the order of the calls.
   * Resolves once the write survives a crash of this *process*; with `flush`, of the machine too.
   * Writes of one turn of the event loop share one commit. Throws ERR_STORE.
   */
  write(write: StoreWrite, options?: { flush?: boolean }): Promise<void>
  /** Waits for all writes, then lets go of files and locks. */
  close(): Promise<void>
}
