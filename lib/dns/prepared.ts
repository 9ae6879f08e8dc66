import { randomInt } from 'node:crypto'
import type { Template } from './wire/answer'

const HEADER = 12

interface Entry {
  template: Template
  /** Another question of the same hash. */
  next: Entry | undefined
}

/**
 * Answers laid out, found by the question's bytes as they stand in a message: no string is made to look one up. The
 * spelling is part of the question, since the answer repeats it (clients may check: 0x20).
 */
export class Prepared {
  readonly #entries = new Map<number, Entry>()
  /** So that nobody can know which questions share a hash. */
  readonly #seed = randomInt(2 ** 31)
  #size = 0

  /** `most`: answers kept; one more, and all are forgotten. */
  constructor(readonly most: number) {}

  get size(): number {
    return this.#size
  }

  /** For the message at `base`, whose question ends `end` bytes behind that. */
  find(message: Uint8Array, base: number, end: number): Template | undefined {
    let entry = this.#entries.get(this.#hash(message, base, end))
    while (entry && !same(entry.template, message, base, end)) entry = entry.next
    return entry?.template
  }

  add(template: Template): void {
    if (this.#size >= this.most) this.clear()
    const hash = this.#hash(template.bytes, 0, template.end)
    this.#entries.set(hash, { template, next: this.#entries.get(hash) })
    this.#size++
  }

  clear(): void {
    this.#entries.clear()
    this.#size = 0
  }

  /** FNV-1a, by 32 bit words' multiplication. */
  #hash(message: Uint8Array, base: number, end: number): number {
    let hash = this.#seed
    for (let at = base + HEADER; at < base + end; at++)
      hash = Math.imul(hash ^ (message[at] as number), 16777619)
    return hash ^ (hash >>> 15)
  }
}

function same({ bytes, end }: Template, message: Uint8Array, base: number, length: number): boolean {
  if (end !== length) return false
  for (let at = HEADER; at < end; at++) if (bytes[at] !== message[base + at]) return false
  return true
}
