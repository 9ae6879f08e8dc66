/** DNS over TCP: each message behind its length in two bytes (RFC 1035 4.2.2). */

export function frame(message: Buffer): Buffer {
  const out = Buffer.allocUnsafe(message.length + 2)
  out.writeUInt16BE(message.length, 0)
  message.copy(out, 2)
  return out
}

/** Puts messages together from the pieces in which they come. Holds at most one unfinished message. */
export class Frames {
  #held = Buffer.alloc(0)
  #size = 0

  /** `largest`: bytes of a message that is still taken. */
  constructor(readonly largest = 65535) {}

  /** The messages that are whole now; undefined when one is larger than allowed: the stream is of no use then. */
  push(chunk: Buffer): Buffer[] | undefined {
    let all = chunk
    if (this.#size > 0) {
      this.#hold(chunk)
      all = this.#held.subarray(0, this.#size)
    }
    const messages: Buffer[] = []
    while (all.length >= 2) {
      const length = all.readUInt16BE(0)
      if (length > this.largest) return undefined
      if (all.length < 2 + length) break
      messages.push(Buffer.from(all.subarray(2, 2 + length)))
      all = all.subarray(2 + length)
    }
    if (this.#size === 0 || messages.length > 0) {
      const rest = Buffer.from(all)
      this.#size = 0
      this.#held = Buffer.alloc(0)
      if (rest.length > 0) this.#hold(rest)
    }
    return messages
  }

  /** Bytes held for an unfinished message. */
  get pending(): number {
    return this.#size
  }

  /** Grows by doubling: a client that sends byte by byte costs no quadratic copying. */
  #hold(chunk: Buffer): void {
    const size = this.#size + chunk.length
    if (size > this.#held.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(64, size, this.#held.length * 2))
      this.#held.copy(grown, 0, 0, this.#size)
      this.#held = grown
    }
    chunk.copy(this.#held, this.#size)
    this.#size = size
  }
}
