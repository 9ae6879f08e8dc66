/** Bytes of a body as they come. In one piece: a million chunks of one byte would otherwise be a million objects. */
export class Gathered {
  #bytes = Buffer.alloc(4096)
  #length = 0

  get length(): number {
    return this.#length
  }

  add(more: Buffer): void {
    const length = this.#length + more.length
    if (length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(length, 2 * this.#bytes.length))
      this.#bytes.copy(larger, 0, 0, this.#length)
      this.#bytes = larger
    }
    more.copy(this.#bytes, this.#length)
    this.#length = length
  }

  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }
}
