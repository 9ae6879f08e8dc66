/** Messages of D-Bus (specification 0.43) as bytes, with the types that firewalld uses. Pure. */

export type Variant = { signature: string; value: Value }
export type Value = string | number | bigint | boolean | Value[] | Variant | Map<string, Value>

/** Message types. */
export const CALL = 1
export const RETURN = 2
export const ERROR = 3
export const SIGNAL = 4
/** Header fields. */
export const PATH = 1
export const INTERFACE = 2
export const MEMBER = 3
export const ERROR_NAME = 4
export const REPLY_SERIAL = 5
export const DESTINATION = 6
export const SIGNATURE = 8
/** Bytes; the specification allows 128 MiB, firewalld needs some KiB. */
const LONGEST = 16 << 20

const ALIGNMENT: Record<string, number> = {
  y: 1,
  g: 1,
  v: 1,
  n: 2,
  q: 2,
  b: 4,
  i: 4,
  u: 4,
  s: 4,
  o: 4,
  a: 4,
  x: 8,
  t: 8,
  d: 8,
  '(': 8,
  '{': 8,
}

/** The complete types that a signature begins with, one after the other. */
export function splitSignature(signature: string): string[] {
  const types: string[] = []
  for (let at = 0; at < signature.length; ) {
    const start = at
    while (signature[at] === 'a') at++
    if (signature[at] === '(' || signature[at] === '{') {
      let depth = 0
      do {
        if ('({'.includes(signature[at] ?? '')) depth++
        if (')}'.includes(signature[at] ?? '')) depth--
        at++
      } while (depth > 0 && at < signature.length)
    } else at++
    types.push(signature.slice(start, at))
  }
  return types
}

/** Little endian. */
export class DbusWriter {
  private bytes: number[] = []

  get length(): number {
    return this.bytes.length
  }

  align(to: number): void {
    while (this.bytes.length % to) this.bytes.push(0)
  }

  u32(value: number): void {
    this.align(4)
    this.bytes.push(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, (value >>> 24) & 255)
  }

  write(type: string, value: Value): void {
    switch (type[0]) {
      case 'y':
        this.bytes.push(Number(value))
        break
      case 'b':
      case 'u':
      case 'i':
        this.u32(Number(value))
        break
      case 's':
      case 'o': {
        const text = Buffer.from(String(value))
        this.u32(text.length)
        this.bytes.push(...text, 0)
        break
      }
      case 'g': {
        const text = Buffer.from(String(value))
        this.bytes.push(text.length, ...text, 0)
        break
      }
      case 'v': {
        const { signature, value: inner } = value as Variant
        this.write('g', signature)
        this.write(signature, inner)
        break
      }
      case 'a': {
        this.u32(0)
        const at = this.bytes.length - 4
        const element = type.slice(1)
        this.align(ALIGNMENT[element[0] ?? ''] ?? 1)
        const start = this.bytes.length
        const items: Value[] =
          value instanceof Map ? [...value].map(entry => entry as Value[]) : (value as Value[])
        for (const item of items) this.write(element, item)
        const size = this.bytes.length - start
        for (let i = 0; i < 4; i++) this.bytes[at + i] = (size >>> (8 * i)) & 255
        break
      }
      case '(':
      case '{':
        this.align(8)
        splitSignature(type.slice(1, -1)).forEach((inner, i) => {
          this.write(inner, (value as Value[])[i] ?? '')
        })
        break
      default:
        throw new Error(`D-Bus type ${type} is not written`)
    }
  }

  take(): Buffer {
    return Buffer.from(this.bytes)
  }
}

export class DbusReader {
  private at = 0
  private readonly view: DataView

  constructor(
    private readonly data: Uint8Array,
    private readonly little = true,
  ) {
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  }

  align(to: number): void {
    this.at = Math.ceil(this.at / to) * to
  }

  u32(): number {
    this.align(4)
    this.at += 4
    return this.view.getUint32(this.at - 4, this.little)
  }

  private text(length: number): string {
    const text = Buffer.from(this.data.subarray(this.at, this.at + length)).toString()
    this.at += length + 1
    return text
  }

  read(type: string): Value {
    this.align(ALIGNMENT[type[0] ?? ''] ?? 1)
    const at = this.at
    switch (type[0]) {
      case 'y':
        this.at += 1
        return this.view.getUint8(at)
      case 'n':
        this.at += 2
        return this.view.getInt16(at, this.little)
      case 'q':
        this.at += 2
        return this.view.getUint16(at, this.little)
      case 'b':
        return this.u32() !== 0
      case 'i':
        this.at += 4
        return this.view.getInt32(at, this.little)
      case 'u':
        return this.u32()
      case 'x':
        this.at += 8
        return this.view.getBigInt64(at, this.little)
      case 't':
        this.at += 8
        return this.view.getBigUint64(at, this.little)
      case 'd':
        this.at += 8
        return this.view.getFloat64(at, this.little)
      case 's':
      case 'o':
        return this.text(this.u32())
      case 'g': {
        this.at += 1
        return this.text(this.view.getUint8(at))
      }
      case 'v': {
        const signature = this.read('g') as string
        return { signature, value: this.read(signature) }
      }
      case 'a': {
        const size = this.u32()
        const element = type.slice(1)
        this.align(ALIGNMENT[element[0] ?? ''] ?? 1)
        const end = this.at + size
        if (end > this.data.length) throw new Error('a D-Bus array is longer than its message')
        const items: Value[] = []
        while (this.at < end) items.push(this.read(element))
        return element[0] === '{' ? new Map(items.map(item => item as [string, Value])) : items
      }
      case '(':
      case '{':
        return splitSignature(type.slice(1, -1)).map(inner => this.read(inner))
      default:
        throw new Error(`D-Bus type ${type} is unknown`)
    }
  }
}

export interface DbusMessage {
  type: number
  serial: number
  fields: Map<number, Value>
  body: Value[]
}

/** The header's fields as `[code, variant]`, and the body. */
export function encodeMessage(
  type: number,
  serial: number,
  fields: [code: number, signature: string, value: Value][],
  signature: string,
  values: Value[],
): Buffer {
  const body = new DbusWriter()
  splitSignature(signature).forEach((one, i) => {
    body.write(one, values[i] ?? '')
  })
  const all = signature ? [...fields, [SIGNATURE, 'g', signature] as (typeof fields)[number]] : fields
  const head = new DbusWriter()
  for (const byte of [0x6c, type, 0, 1]) head.write('y', byte)
  head.u32(body.length)
  head.u32(serial)
  head.write(
    'a(yv)',
    all.map(([code, kind, value]) => [code, { signature: kind, value }]),
  )
  head.align(8)
  return Buffer.concat([head.take(), body.take()])
}

/** The first message of a stream and its length; undefined while it is not complete. */
export function decodeMessage(data: Uint8Array): { message: DbusMessage; length: number } | undefined {
  if (data.length < 16) return undefined
  const little = data[0] === 0x6c
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const headLength = (16 + view.getUint32(12, little) + 7) & ~7
  const bodyLength = view.getUint32(4, little)
  const length = headLength + bodyLength
  if (length > LONGEST) throw new Error(`a D-Bus message of ${length} bytes`)
  if (data.length < length) return undefined
  const reader = new DbusReader(data.subarray(0, headLength), little)
  for (let i = 0; i < 4; i++) reader.read('y')
  reader.u32()
  const serial = reader.u32()
  const fields = new Map(
    (reader.read('a(yv)') as [number, Variant][]).map(([code, { value }]) => [code, value] as const),
  )
  const body = new DbusReader(data.subarray(headLength, length), little)
  const values = splitSignature((fields.get(SIGNATURE) as string | undefined) ?? '').map(type =>
    body.read(type),
  )
  return { message: { type: data[1] ?? 0, serial, fields, body: values }, length }
}
