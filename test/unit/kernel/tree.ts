import { Messages, type Attributes } from '../../../lib/kernel/netlink/message'

/** Bytes before the attributes, and which attributes hold attributes. */
interface Shape {
  fixed: number
  nested?: Record<number, Shape>
  texts?: number[]
}

const peer: Shape = { fixed: 16, texts: [3] }
const link: Shape = {
  fixed: 16,
  texts: [3, 20],
  nested: { 12: { fixed: 0 }, 18: { fixed: 0, texts: [1], nested: { 2: { fixed: 0 } } } },
}
const veth: Shape = {
  ...link,
  nested: { 18: { fixed: 0, texts: [1], nested: { 2: { fixed: 0, nested: { 1: peer } } } } },
}
const action: Shape = { fixed: 0, texts: [1], nested: { 2: { fixed: 0 } } }
const traffic: Shape = {
  fixed: 20,
  texts: [1],
  nested: { 2: { fixed: 0, nested: { 7: { fixed: 0, nested: { 1: action } } } } },
}

/** By message type without NEW/DEL/GET/SET. */
const SHAPES: Record<number, Shape> = {
  4: link,
  5: { fixed: 8 },
  6: { fixed: 12, nested: { 8: { fixed: 0 } } },
  7: { fixed: 12 },
  8: { fixed: 12, texts: [3, 17] },
  9: traffic,
  11: traffic,
}

/**
 * A message as text that does not depend on the order of attributes, nor on the NUL behind a text, which iproute2 leaves out
 * of some and the kernel does not miss.
 */
export function tree(bytes: Uint8Array): string[] {
  const messages = new Messages(bytes)
  const lines: string[] = []
  while (messages.next()) {
    const isVeth = Buffer.from(bytes).includes('veth')
    const shape = messages.type >> 2 === 4 && isVeth ? veth : (SHAPES[messages.type >> 2] ?? { fixed: 0 })
    let fixed = ''
    for (let i = 0; i < shape.fixed; i++) fixed += messages.u8(i).toString(16).padStart(2, '0')
    lines.push(`${messages.type} flags ${messages.flags.toString(16)} ${fixed}`)
    lines.push(...walk(messages.attributes(shape.fixed), shape, '  '))
  }
  return lines
}

function walk(attributes: Attributes, shape: Shape, indent: string): string[] {
  const entries: { type: number; lines: string[] }[] = []
  while (attributes.next()) {
    const { type } = attributes
    const inner = shape.nested?.[type]
    if (inner) {
      const head = Buffer.from(attributes.bytes()).subarray(0, inner.fixed).toString('hex')
      const below = walk(attributes.nested(inner.fixed), inner, `${indent}  `)
      entries.push({ type, lines: [`${indent}${type}: ${head}`, ...below] })
    } else {
      const text = shape.texts?.includes(type)
      const value = text ? attributes.text() : Buffer.from(attributes.bytes()).toString('hex')
      entries.push({ type, lines: [`${indent}${type}: ${value}`] })
    }
  }
  return entries.sort((a, b) => a.type - b.type).flatMap(entry => entry.lines)
}
