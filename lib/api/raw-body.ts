/** Bodies as they come over a connection: cut out of the stream by length, or put together from chunks (RFC 9112, 7.1). */
import type { IncomingHttpHeaders } from 'node:http'
import { HttpError } from './errors'
import { Gathered } from './gathered'

export interface RawBody {
  /** Takes what has come; returns what follows the body once that is whole. Throws HttpError for what is refused. */
  add(bytes: Buffer): Buffer | undefined
  bytes(): Buffer
}

/** Throws HttpError for a body that is too long, or coded in another way. */
export function rawBodyOf(headers: IncomingHttpHeaders, limit: number): RawBody {
  const coding = headers['transfer-encoding']
  if (coding === undefined) return new SizedBody(Number(headers['content-length'] ?? 0), limit)
  if (coding.trim().toLowerCase() !== 'chunked')
    throw new HttpError(501, `unsupported transfer encoding: ${JSON.stringify(coding)}`, CLOSE)
  return new ChunkedBody(limit)
}

const CLOSE = { Connection: 'close' }
const tooLarge = (limit: number) => new HttpError(413, `request body is larger than ${limit} bytes`, CLOSE)
const malformed = () => new HttpError(400, 'malformed chunked encoding', CLOSE)

class SizedBody implements RawBody {
  readonly #body = new Gathered()
  #missing: number

  constructor(length: number, limit: number) {
    if (!(length <= limit)) throw tooLarge(limit)
    this.#missing = length
  }

  add(bytes: Buffer): Buffer | undefined {
    const own = bytes.subarray(0, this.#missing)
    this.#body.add(own)
    this.#missing -= own.length
    return this.#missing === 0 ? bytes.subarray(own.length) : undefined
  }

  bytes = () => this.#body.bytes()
}

/** Bytes of a line with a size, or of all trailers together. */
const LINE_LIMIT = 4096

class ChunkedBody implements RawBody {
  readonly #body = new Gathered()
  #length = 0
  /** Bytes that are missing of the chunk and of the line end after it; 0 where a line is expected. */
  #missing = 0
  /** What has come of a line. */
  #line = Buffer.alloc(0)
  /** Bytes of trailers; undefined before the last chunk. */
  #trailers: number | undefined

  constructor(private readonly limit: number) {}

  add(bytes: Buffer): Buffer | undefined {
    let rest = bytes
    while (rest.length) {
      if (this.#missing) {
        rest = this.#data(rest)
        continue
      }
      const end = rest.indexOf('\n')
      this.#line = Buffer.concat([this.#line, end < 0 ? rest : rest.subarray(0, end + 1)])
      if (this.#line.length + (this.#trailers ?? 0) > LINE_LIMIT) throw malformed()
      if (end < 0) return undefined
      rest = rest.subarray(end + 1)
      const line = this.#line
      this.#line = Buffer.alloc(0)
      if (this.#take(line)) return rest
    }
    return undefined
  }

  bytes = () => this.#body.bytes()

  #data(bytes: Buffer): Buffer {
    const taken = bytes.subarray(0, this.#missing)
    this.#missing -= taken.length
    // The last two bytes are no data; they may come apart.
    const over = Math.max(0, Math.min(taken.length, LINE_END.length - this.#missing))
    this.#body.add(taken.subarray(0, taken.length - over))
    const from = LINE_END.length - this.#missing - over
    if (!taken.subarray(taken.length - over).equals(LINE_END.subarray(from, from + over))) throw malformed()
    return bytes.subarray(taken.length)
  }

  /** A line with its end. True for the one that ends the body. */
  #take(line: Buffer): boolean {
    if (!line.subarray(-2).equals(LINE_END)) throw malformed()
    if (this.#trailers !== undefined) {
      this.#trailers += line.length
      return line.length === LINE_END.length
    }
    const [, size] = /^([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r]*)?\r\n$/.exec(line.toString('latin1')) ?? []
    if (size === undefined) throw malformed()
    const length = Number.parseInt(size, 16)
    this.#length += length
    if (this.#length > this.limit) throw tooLarge(this.limit)
    if (length) this.#missing = length + LINE_END.length
    else this.#trailers = 0
    return false
  }
}

const LINE_END = Buffer.from('\r\n')
