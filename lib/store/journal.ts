import { closeSync, constants, fdatasync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { frame, unframe } from './frame'

/** One write, whole: what becomes of which key. Null: removed. */
export interface JournalEntry {
  /** Rises by one with each write, over both journals. */
  seq: number
  changes: [key: string, body: string | null][]
  /** Bytes that the database file had after the last checkpoint. It never shrinks, so a shorter one has been cut. */
  size?: number
}

const LINE_FEED = 10

export interface JournalContent {
  entries: JournalEntry[]
  /** Lines that cannot be read. */
  damaged: string[]
}

/**
 * A file to which writes are appended, one framed line each. An append is in the page cache when it returns: it
 * survives the death of the process; `sync` makes it survive that of the machine.
 */
export class Journal {
  readonly path: string
  readonly #fd: number
  #length: number

  constructor(path: string) {
    this.path = path
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
    const found = readFileSync(path)
    // what follows the last line feed is a write during which the process died: nobody was told that it had happened
    this.#length = found.lastIndexOf(LINE_FEED) + 1
    if (this.#length < found.length) ftruncateSync(this.#fd, this.#length)
  }

  /** Bytes. */
  get length(): number {
    return this.#length
  }

  read(): JournalContent {
    const lines = readFileSync(this.path, 'utf8').split('\n')
    lines.pop()
    const entries: JournalEntry[] = []
    const damaged: string[] = []
    for (const line of lines) {
      const entry = unframe(line)
      if (isEntry(entry)) entries.push(entry)
      else damaged.push(line)
    }
    return { entries, damaged }
  }

  /** All of them or none. Throws what write(2) throws, or ENOSPC when it wrote only a part. */
  append(entries: JournalEntry[]): void {
    const bytes = Buffer.from(entries.map(entry => `${frame(JSON.stringify(entry))}\n`).join(''))
    try {
      let done = 0
      while (done < bytes.length)
        done += writeSync(this.#fd, bytes, done, bytes.length - done, this.#length + done)
    } catch (error) {
      ftruncateSync(this.#fd, this.#length)
      throw error
    }
    this.#length += bytes.length
  }

  /** What has been appended before the call survives a crash of the machine once this resolves. */
  sync(): Promise<void> {
    return new Promise((resolve, reject) => fdatasync(this.#fd, error => (error ? reject(error) : resolve())))
  }

  clear(): void {
    ftruncateSync(this.#fd)
    this.#length = 0
  }

  close(): void {
    closeSync(this.#fd)
  }
}

function isEntry(entry: unknown): entry is JournalEntry {
  const { seq, changes } = (entry ?? {}) as Partial<JournalEntry>
  return (
    Number.isInteger(seq) &&
    Array.isArray(changes) &&
    changes.every(
      change =>
        Array.isArray(change) &&
        typeof change[0] === 'string' &&
        (change[1] === null || typeof change[1] === 'string'),
    )
  )
}
