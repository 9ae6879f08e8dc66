/** JSON, refused in the words of Go's encoding/json: clients show them, and their tests compare them. */

/** Arrays and objects in each other; Go allows as many. */
const DEPTH = 10_000
const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d])
const ESCAPED = new Set([...'"\\/bfnrt'].map(code))
const LITERALS = new Map(['true', 'false', 'null'].map(word => [code(word), word]))

function code(text: string): number {
  return text.charCodeAt(0)
}

const isDigit = (byte: number | undefined) => byte !== undefined && byte >= 0x30 && byte <= 0x39
const isHex = (byte: number) => /^[0-9a-fA-F]$/.test(String.fromCharCode(byte))

/** The first value, and whether more comes after it. The message of what it throws is Go's. */
export function parseGoJson(bytes: Buffer): { value: unknown; more: boolean } {
  const end = new Scanner(bytes).value()
  const value: unknown = JSON.parse(bytes.toString('utf8', 0, end))
  return { value, more: bytes.subarray(end).some(byte => !SPACE.has(byte)) }
}

/** Walks over one value, byte by byte and without recursion. */
class Scanner {
  #at = 0

  constructor(private readonly bytes: Buffer) {}

  /** Where it ends. */
  value(): number {
    /** Of each array or object that is open, its closing bracket. */
    const open: number[] = []
    for (;;) {
      const byte = this.#peek()
      const close = byte === code('{') ? code('}') : byte === code('[') ? code(']') : undefined
      if (close !== undefined) {
        if (open.length === DEPTH) throw new Error('exceeded max depth')
        this.#at++
        if (this.#peek() !== close) {
          open.push(close)
          if (close === code('}')) this.#key()
          continue
        }
        this.#at++
      } else this.#scalar(byte)
      // A value is over: so may be those around it.
      for (;;) {
        const around = open.at(-1)
        if (around === undefined) return this.#at
        const next = this.#peek()
        if (next === code(',')) {
          this.#at++
          if (around === code('}')) this.#key()
          break
        }
        if (next !== around)
          this.#refuse(around === code('}') ? 'after object key:value pair' : 'after array element')
        this.#at++
        open.pop()
      }
    }
  }

  #key(): void {
    if (this.#peek() !== code('"')) this.#refuse('looking for beginning of object key string')
    this.#string()
    if (this.#peek() !== code(':')) this.#refuse('after object key')
    this.#at++
  }

  #scalar(byte: number): void {
    const literal = LITERALS.get(byte)
    if (literal) this.#literal(literal)
    else if (byte === code('"')) this.#string()
    else if (byte === code('-') || isDigit(byte)) this.#number()
    else this.#refuse('looking for beginning of value')
  }

  #literal(word: string): void {
    for (const letter of word) {
      if (this.#byte() !== code(letter)) this.#refuse(`in literal ${word} (expecting '${letter}')`)
      this.#at++
    }
  }

  #string(): void {
    this.#at++
    for (;;) {
      const byte = this.#byte()
      if (byte < 0x20) this.#refuse('in string literal')
      this.#at++
      if (byte === code('"')) return
      if (byte === code('\\')) this.#escape()
    }
  }

  #escape(): void {
    const byte = this.#byte()
    if (byte !== code('u') && !ESCAPED.has(byte)) this.#refuse('in string escape code')
    this.#at++
    if (byte !== code('u')) return
    for (let digit = 0; digit < 4; digit++) {
      if (!isHex(this.#byte())) this.#refuse('in \\u hexadecimal character escape')
      this.#at++
    }
  }

  #number(): void {
    if (this.#byte() === code('-')) this.#at++
    if (this.#byte() === code('0')) this.#at++
    else this.#digits('in numeric literal')
    if (this.bytes[this.#at] === code('.')) {
      this.#at++
      this.#digits('after decimal point in numeric literal')
    }
    const exponent = this.bytes[this.#at]
    if (exponent !== code('e') && exponent !== code('E')) return
    this.#at++
    if ([code('+'), code('-')].includes(this.#byte())) this.#at++
    this.#digits('in exponent of numeric literal')
  }

  #digits(where: string): void {
    if (!isDigit(this.#byte())) this.#refuse(where)
    while (isDigit(this.bytes[this.#at])) this.#at++
  }

  /** The next byte that is no space. */
  #peek(): number {
    while (SPACE.has(this.bytes[this.#at] ?? 0)) this.#at++
    return this.#byte()
  }

  #byte(): number {
    const byte = this.bytes[this.#at]
    if (byte === undefined) throw new Error('unexpected EOF')
    return byte
  }

  #refuse(where: string): never {
    throw new Error(`invalid character ${quoted(this.#byte())} ${where}`)
  }
}

const NAMED: Record<string, string> = {
  "'": `'\\''`,
  '\\': `'\\\\'`,
  '\b': `'\\b'`,
  '\f': `'\\f'`,
  '\n': `'\\n'`,
  '\r': `'\\r'`,
  '\t': `'\\t'`,
  '\x07': `'\\a'`,
  '\v': `'\\v'`,
}

/** A byte as Go writes it: those above 127 are taken for Latin-1. */
function quoted(byte: number): string {
  const letter = String.fromCharCode(byte)
  const hex = (digits: number) => byte.toString(16).padStart(digits, '0')
  if (NAMED[letter]) return NAMED[letter]
  if (byte < 0x20 || byte === 0x7f) return `'\\x${hex(2)}'`
  return (byte >= 0x80 && byte <= 0xa0) || byte === 0xad ? `'\\u${hex(4)}'` : `'${letter}'`
}
