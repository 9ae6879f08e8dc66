import { closeSync, fsyncSync, openSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Database, open, type RootDatabase } from 'lmdb'
import { CnmError, isCnmError } from '../base/errors'
import { makeFolder } from '../base/folder'
import { type Logger, SILENT } from '../base/log'
import type { Store, StoredRecord, StoreWrite } from './contract'
import { crc32, frame, unframe } from './frame'
import { Journal, type JournalEntry } from './journal'
import { lockFile, type Unlock } from './lock'
import { encode, recordKey, splitKey } from './memory'
import { type Damaged, decode, type RawRecord, type Schemas } from './migrate'
import { mustBeSound } from './sound'

/*
 * What a write costs was measured (ext4 on a virtual disk, 1.2 KB records): an LMDB commit with its fdatasync 310 us of
 * the caller's time, 550 us through LMDB's own worker; LMDB without sync 16 us, but then a crash of the machine can
 * leave meta pages that point to pages which were never written. So a write is appended to a journal (5 us; survives the death of
 * the process) and LMDB, always synced, takes over what has gathered there every now and then, last value per record
 * only: a create and its delete cancel out. What must survive the machine too waits for one fdatasync of the journal,
 * shared by all that wait.
 */

/** Bytes of journal that bring it forward. */
const CHECKPOINT_AT = 4 << 20
/** Records per commit: some 3 ms of the event loop. */
const PORTION = 500
/** Version of the layout of the files. */
const FORMAT = 1

export interface LmdbOptions {
  dataDir: string
  schemas?: Schemas
  log?: Logger
  /** Milliseconds after the first write until the journal is taken over into LMDB; 1000 when absent. */
  checkpointAfter?: number
}

type Inverse = () => unknown
type Changes = Map<string, string | null>

/** Records in one LMDB file, `store.mdb`, and what has not reached it yet in `store.journal.0` or `.1`. */
export class LmdbStore implements Store {
  readonly name = 'lmdb'
  readonly #schemas: Schemas
  readonly #log: Logger
  readonly #unlock: Unlock
  readonly #file: string
  readonly #checkpointAfter: number
  readonly #root: RootDatabase<string, string>
  readonly #records: Database<string, string>
  readonly #setAside: Database<string, string>
  readonly #meta: Database<string, string>
  readonly #damaged = new Map<string, Damaged>()
  #active: Journal
  #other: Journal
  /** LMDB has all that the other journal holds. */
  #otherSpent: boolean
  #seq: number
  /** In the journal, not in LMDB yet; keyed as the records are. */
  #dirty: Changes = new Map()
  /** Being written to LMDB. */
  #inFlight: Changes = new Map()
  /** Changes to what is set aside that LMDB has not seen; null: forgotten. */
  #damagedDirty = new Map<string, Damaged | null>()
  #queue: JournalEntry['changes'][] = []
  #turn: Promise<void> | undefined
  #syncing: Promise<void> = Promise.resolve()
  #nextSync: Promise<void> | undefined
  #checkpointing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false

  private constructor(options: LmdbOptions, unlock: Unlock, undo: Inverse[]) {
    this.#schemas = options.schemas ?? {}
    this.#log = options.log ?? SILENT
    this.#unlock = unlock
    this.#checkpointAfter = options.checkpointAfter ?? 1000
    this.#file = join(options.dataDir, 'store.mdb')

    const journals = [0, 1].map(n => {
      const journal = new Journal(join(options.dataDir, `store.journal.${n}`))
      undo.push(() => journal.close())
      return { journal, ...journal.read() }
    })
    const entries = journals.flatMap(({ entries }) => entries).sort((a, b) => a.seq - b.seq)
    mustBeSound(this.#file, Math.max(0, ...entries.map(entry => entry.size ?? 0)))

    this.#root = open<string, string>({
      path: this.#file,
      encoding: 'string',
      cache: false,
      overlappingSync: false,
    })
    undo.push(() => this.#root.close())
    const sub = (name: string) =>
      this.#root.openDB<string, string>({ name, encoding: 'string', cache: false })
    this.#records = sub('records')
    this.#setAside = sub('damaged')
    this.#meta = sub('meta')
    const format = Number(this.#meta.get('format') ?? FORMAT)
    if (format !== FORMAT)
      throw new CnmError(
        'ERR_STORE_VERSION',
        `${this.#file} has format ${format}; this library reads ${FORMAT}`,
        {
          path: this.#file,
          format,
        },
      )
    for (const { key, value } of this.#setAside.getRange()) {
      const damaged = unframe(value) as Damaged | undefined
      const reason = 'what was set aside earlier cannot be read any more'
      this.#damaged.set(key, damaged ?? { kind: 'damaged', id: key, reason, raw: value })
    }

    const applied = Number(this.#meta.get('applied') ?? 0)
    for (const { seq, changes } of entries)
      if (seq > applied) for (const [key, body] of changes) this.#dirty.set(key, body)
    for (const { journal, damaged } of journals)
      for (const raw of damaged) {
        const id = crc32(Buffer.from(raw)).toString(16)
        this.#keepAside({ kind: 'journal', id, reason: `a line of ${journal.path} cannot be read`, raw })
      }
    this.#seq = Math.max(applied, ...entries.map(({ seq }) => seq))

    const last = ({ entries }: { entries: JournalEntry[] }) => entries.at(-1)?.seq ?? -1
    const [older, newer] = journals.sort((a, b) => last(a) - last(b))
    this.#active = newer!.journal
    this.#other = older!.journal
    this.#otherSpent = older!.damaged.length === 0 && last(older!) <= applied
    this.#schedule()
  }

  /** Throws ERR_STORE_LOCKED, ERR_STORE_VERSION, ERR_STORE; nothing is changed then. */
  static async open(options: LmdbOptions): Promise<LmdbStore> {
    const { dataDir } = options
    const undo: Inverse[] = []
    try {
      makeFolder(dataDir, 0o700)
      const unlock = lockFile(join(dataDir, 'store.lock'))
      undo.push(unlock)
      const store = new LmdbStore(options, unlock, undo)
      syncDirectory(dataDir)
      return store
    } catch (cause) {
      for (const inverse of undo.reverse()) await inverse()
      if (isCnmError(cause)) throw cause
      throw new CnmError(
        'ERR_STORE',
        `the store in ${dataDir} cannot be opened: ${text(cause)}`,
        { dataDir },
        { cause },
      )
    }
  }

  async load(): Promise<{ records: StoredRecord[]; damaged: Damaged[] }> {
    this.#mustBeOpen()
    const { records, migrated, damaged } = decode(this.#found(), this.#schemas)
    for (const one of damaged) {
      this.#keepAside(one)
      this.#dirty.set(`${one.kind}/${one.id}`, null)
      this.#log.error(`record set aside: ${one.kind} ${one.id}: ${one.reason}`, {
        kind: one.kind,
        id: one.id,
      })
    }
    for (const record of migrated) this.#dirty.set(recordKey(record), encode(record))
    await this.#checkpoint()
    return { records, damaged: [...this.#damaged.values()] }
  }

  async write({ put = [], remove = [] }: StoreWrite, { flush = false } = {}): Promise<void> {
    this.#mustBeOpen()
    const changes: JournalEntry['changes'] = []
    for (const record of put) changes.push([recordKey(record), encode(record)])
    for (const record of remove) changes.push([recordKey(record), null])
    if (changes.length > 0) {
      this.#queue.push(changes)
      this.#turn ??= Promise.resolve().then(() => this.#commit())
      await this.#turn
    }
    if (flush) await this.#sync()
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#turn?.catch(() => undefined) // whoever wrote hears of it
    await this.#checkpoint()
    clearTimeout(this.#timer)
    await this.#syncing.catch(() => undefined)
    await this.#root.close()
    this.#active.close()
    this.#other.close()
    this.#unlock()
  }

  /** Every record as it stands: LMDB's, and over it what has not got there yet. */
  *#found(): Iterable<RawRecord> {
    const bodies: Changes = new Map([...this.#inFlight, ...this.#dirty])
    for (const { key, value: raw } of this.#records.getRange())
      if (!bodies.has(key)) yield { ...splitKey(key), body: unframe(raw), raw }
    for (const [key, raw] of bodies)
      if (raw !== null) yield { ...splitKey(key), body: JSON.parse(raw) as unknown, raw }
  }

  /** One append for all writes of this turn. */
  #commit(): void {
    const queue = this.#queue
    this.#queue = []
    this.#turn = undefined
    try {
      this.#active.append(queue.map((changes, i) => ({ seq: this.#seq + 1 + i, changes })))
    } catch (cause) {
      const { path } = this.#active
      throw new CnmError(
        'ERR_STORE',
        `${path} cannot be written: ${text(cause)}; nothing was changed`,
        { path },
        { cause },
      )
    }
    this.#seq += queue.length
    for (const changes of queue)
      for (const [key, body] of changes) {
        this.#dirty.set(key, body)
        if (body === null && this.#damaged.size > 0) this.#forgetAside(key)
      }
    this.#schedule()
  }

  /** Those who come while one sync is under way share the next. */
  #sync(): Promise<void> {
    if (!this.#nextSync) {
      const next = this.#syncing
        .catch(() => undefined)
        .then(async () => {
          this.#syncing = next
          this.#nextSync = undefined
          try {
            await Promise.all([this.#active.sync(), this.#other.sync()])
          } catch (cause) {
            throw new CnmError(
              'ERR_STORE',
              `${this.#active.path} was written, but the disk does not confirm it: ${text(cause)}`,
              {},
              { cause },
            )
          }
        })
      this.#nextSync = next
    }
    return this.#nextSync
  }

  #schedule(): void {
    if (this.#closed || (this.#dirty.size === 0 && this.#damagedDirty.size === 0)) return
    if (this.#active.length > CHECKPOINT_AT) void this.#checkpoint()
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      void this.#checkpoint().then(() => this.#schedule())
    }, this.#checkpointAfter).unref()
  }

  /** Takes the journal over into LMDB. A failure loses nothing: the journal stays, and it is tried again. */
  async #checkpoint(): Promise<void> {
    if (this.#checkpointing) await this.#checkpointing
    if (this.#dirty.size === 0 && this.#damagedDirty.size === 0) return
    this.#checkpointing ??= this.#takeOver().finally(() => {
      this.#checkpointing = undefined
    })
    await this.#checkpointing
  }

  async #takeOver(): Promise<void> {
    const changes = this.#dirty
    const aside = this.#damagedDirty
    const applied = this.#seq
    this.#inFlight = changes
    this.#dirty = new Map()
    this.#damagedDirty = new Map()
    // it is not spent when an earlier attempt failed: then it is cleared this time, and the active one the next
    if (this.#otherSpent) [this.#active, this.#other] = [this.#other, this.#active]
    this.#otherSpent = false
    try {
      // what a crash between the portions leaves is put right by the journal, which is read from its beginning then
      for (const portion of portions([...changes]))
        await this.#transact(() => {
          for (const [key, body] of portion)
            if (body === null) void this.#records.remove(key)
            else void this.#records.put(key, frame(body))
        })
      await this.#transact(() => {
        for (const [key, damaged] of aside)
          if (damaged === null) void this.#setAside.remove(key)
          else void this.#setAside.put(key, frame(JSON.stringify(damaged)))
        void this.#meta.put('format', String(FORMAT))
        void this.#meta.put('applied', String(applied))
      })
      this.#other.clear()
      this.#otherSpent = true
      this.#other.append([{ seq: applied, changes: [], size: statSync(this.#file).size }])
    } catch (error) {
      if (!this.#otherSpent) {
        this.#dirty = new Map([...changes, ...this.#dirty])
        this.#damagedDirty = new Map([...aside, ...this.#damagedDirty])
      }
      this.#log.warn(`${this.#file} could not take over its journal; it will be tried again`, { error })
    } finally {
      this.#inFlight = new Map()
    }
  }

  /**
   * One synced commit on the calling thread: through LMDB's worker a failed commit ends the process (an exception that
   * nobody can catch). Lets others run first.
   */
  async #transact(body: () => void): Promise<void> {
    await new Promise(resolve => setImmediate(resolve))
    this.#root.transactionSync(body)
  }

  #keepAside(damaged: Damaged): void {
    const key = `${damaged.kind}/${damaged.id}#${crc32(Buffer.from(damaged.raw)).toString(16)}`
    this.#damaged.set(key, damaged)
    this.#damagedDirty.set(key, damaged)
  }

  /** Removing a record also drops what was set aside under its kind and id: somebody has dealt with it. */
  #forgetAside(recordKey: string): void {
    for (const [key, { kind, id }] of this.#damaged)
      if (`${kind}/${id}` === recordKey) {
        this.#damaged.delete(key)
        this.#damagedDirty.set(key, null)
      }
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new CnmError('ERR_CLOSED', 'the store is closed')
  }
}

function* portions<T>(all: T[]): Iterable<T[]> {
  for (let at = 0; at < all.length; at += PORTION) yield all.slice(at, at + PORTION)
}

/** New files survive a crash of the machine only when their directory has been synced too. */
function syncDirectory(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

const text = (error: unknown): string => (error as Error | undefined)?.message ?? String(error)
