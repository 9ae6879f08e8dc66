/** Output of containers: kept for `docker logs`, passed on to whoever is attached, in the frames of Docker's API. */
import type { ChildProcess } from 'node:child_process'
import type { Writable } from 'node:stream'

export type Source = 'stdout' | 'stderr'

export interface Entry {
  source: Source
  data: Buffer
  /** Milliseconds since the epoch. */
  time: number
}

/** Bytes of output that are kept per container. */
const KEPT = 1024 * 1024

/** Bytes that may wait for a reader. One that is slower loses its connection rather than our memory. */
const BACKLOG = 16 * 1024 * 1024

/** Docker's multiplexed stream: source, three zeros, length (big endian), data. */
export function frame(source: Source, data: Buffer): Buffer {
  const header = Buffer.alloc(8)
  header[0] = source === 'stdout' ? 1 : 2
  header.writeUInt32BE(data.length, 4)
  return Buffer.concat([header, data])
}

export interface Reader {
  entry(entry: Entry): void
  end(): void
}

export class Output {
  #entries: Entry[] = []
  #size = 0
  readonly #readers = new Set<Reader>()

  /** Everything that a process writes until it ends. */
  collect({ stdout, stderr }: ChildProcess): void {
    stdout?.on('data', (data: Buffer) => this.#add({ source: 'stdout', data, time: Date.now() }))
    stderr?.on('data', (data: Buffer) => this.#add({ source: 'stderr', data, time: Date.now() }))
  }

  #add(entry: Entry): void {
    this.#entries.push(entry)
    this.#size += entry.data.length
    while (this.#size > KEPT && this.#entries.length > 1)
      this.#size -= this.#entries.shift()?.data.length ?? 0
    for (const reader of [...this.#readers]) reader.entry(entry)
  }

  /** The process has ended: so have its readers. */
  end(): void {
    for (const reader of [...this.#readers]) reader.end()
    this.#readers.clear()
  }

  read(reader: Reader): () => void {
    this.#readers.add(reader)
    return () => void this.#readers.delete(reader)
  }

  get entries(): readonly Entry[] {
    return this.#entries
  }

  /** The last lines of what was written, one entry each. */
  lines(tail = Number.POSITIVE_INFINITY): Entry[] {
    const lines: Entry[] = []
    const open: Partial<Record<Source, Entry>> = {}
    for (const { source, data, time } of this.#entries)
      for (const piece of data.toString('latin1').split(/(?<=\n)/)) {
        const begun = open[source]
        const entry: Entry = begun ?? { source, data: Buffer.alloc(0), time }
        if (!begun) lines.push(entry)
        entry.data = Buffer.concat([entry.data, Buffer.from(piece, 'latin1')])
        open[source] = piece.endsWith('\n') ? undefined : entry
      }
    return tail === 0 ? [] : lines.slice(-tail)
  }
}

export interface Selection {
  stdout: boolean
  stderr: boolean
  /** Raw, without frames: from a terminal there is one source only. */
  terminal: boolean
  timestamps?: boolean
}

export function writeEntry(to: Writable, { source, data, time }: Entry, how: Selection): void {
  if (!how[source] || !to.writable) return
  const stamped = how.timestamps
    ? Buffer.concat([Buffer.from(`${new Date(time).toISOString()} `), data])
    : data
  to.write(how.terminal ? stamped : frame(source, stamped))
}

/** Resolves when the process has ended or the reader is gone. */
export function follow(output: Output, to: Writable, how: Selection, gone: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const entry = (next: Entry) => {
      writeEntry(to, next, how)
      if (to.writableLength > BACKLOG) to.destroy()
    }
    const leave = output.read({ entry, end: () => stop() })
    const stop = () => {
      leave()
      gone.removeEventListener('abort', stop)
      to.off('close', stop)
      resolve()
    }
    to.once('close', stop)
    gone.addEventListener('abort', stop, { once: true })
    if (gone.aborted) stop()
  })
}
