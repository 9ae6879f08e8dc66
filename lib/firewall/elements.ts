/**
 * Items as the kernel has them: keys and values in bytes, for stacks that take element changes without libnftables, which
 * spends ten times what the kernel does on reading text and its cache. The same as `renderDelta` says. Pure.
 */
import { ipBytes } from '../base/cidr'
import type { ElementChange, Verdict } from '../kernel/kernel'
import type { Delta, Item } from './model'
import { SETS } from './nftables/sets'
import { bySet, keyText } from './nftables/text'

/** Writes what `text` says at `at`, whose bytes are zero; `last`: the last value of an interval instead of the first. */
type Write = (into: Buffer, at: number, text: string, last: boolean) => void

/** linux/netfilter.h */
const NFPROTO: Record<string, number> = { ipv4: 2, ipv6: 10 }

/** The types that our sets are made of. Within a concatenation each begins at a multiple of four bytes. */
const FIELDS: Record<string, { size: number; write: Write }> = {
  ifname: { size: 16, write: (into, at, text) => into.write(text.slice(1, -1), at) },
  nf_proto: { size: 1, write: (into, at, text) => (into[at] = NFPROTO[text] ?? 0) },
  inet_proto: { size: 1, write: (into, at, text) => (into[at] = Number(text)) },
  inet_service: {
    size: 2,
    write: (into, at, text, last) => {
      const dash = text.indexOf('-')
      const port = dash < 0 ? text : last ? text.slice(dash + 1) : text.slice(0, dash)
      into.writeUInt16BE(Number(port), at)
    },
  },
  ipv4_addr: { size: 4, write: writeAddress },
  ipv6_addr: { size: 16, write: writeAddress },
}

function writeAddress(into: Buffer, at: number, text: string, last: boolean): void {
  const slash = text.indexOf('/')
  const bytes = ipBytes(slash < 0 ? text : text.slice(0, slash))
  if (last && slash >= 0)
    for (let bit = Number(text.slice(slash + 1)); bit < bytes.length * 8; bit++)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (0x80 >> (bit & 7))
  bytes.copy(into, at)
}

interface Layout {
  size: number
  fields: { at: number; write: Write }[]
}

interface SetLayout {
  key: Layout
  value: Layout | 'verdict' | undefined
  interval: boolean
}

function layout(type: string): Layout {
  const names = type.split(' . ')
  let size = 0
  const fields = names.map(name => {
    const field = FIELDS[name]
    if (!field) throw new TypeError(`no layout for ${name}`)
    const at = size
    size += names.length === 1 ? field.size : (field.size + 3) & ~3
    return { at, write: field.write }
  })
  return { size, fields }
}

const LAYOUTS = new Map<string, SetLayout>(
  SETS.map(({ name, type, interval = false }) => {
    const [key = '', value] = type.split(' : ')
    return [
      name,
      {
        key: layout(key),
        value: value === undefined || value === 'verdict' ? value : layout(value),
        interval,
      },
    ]
  }),
)

/** Writes what `text` says, a field behind the other, from byte `start` on. */
function write({ fields }: Layout, into: Buffer, start: number, text: string, last: boolean): void {
  let from = 0
  for (const { at, write } of fields) {
    const dot = text.indexOf(' . ', from)
    write(into, start + at, dot < 0 ? text.slice(from) : text.slice(from, dot), last)
    from = dot + 3
  }
}

function packed(layout: Layout, texts: string[], last = false): Buffer {
  const into = Buffer.alloc(layout.size * texts.length)
  for (const [i, text] of texts.entries()) write(layout, into, i * layout.size, text, last)
  return into
}

function verdict(text: string): Verdict {
  if (text === 'accept' || text === 'drop') return { verdict: text }
  return { verdict: 'goto', chain: text.slice('goto '.length) }
}

function elementChange(change: ElementChange['change'], set: string, items: Item[]): ElementChange {
  const known = LAYOUTS.get(set)
  if (!known) throw new TypeError(`there is no set ${set}`)
  const { key, value, interval } = known
  const keys = items.map(keyText)
  const made: ElementChange = { change, set, count: items.length, keys: packed(key, keys) }
  if (interval) made.ends = packed(key, keys, true)
  if (change === 'remove' || value === undefined) return made
  const values = items.map(item => item.value ?? '')
  if (value === 'verdict') made.verdicts = values.map(verdict)
  else made.values = packed(value, values)
  return made
}

/** A change as the kernel's transaction: deletions first. Empty when there is nothing to do. */
export function elementChanges(delta: Delta): ElementChange[] {
  const changes = (change: ElementChange['change'], items: Item[]) =>
    [...bySet(items)].map(([set, list]) => elementChange(change, set, list))
  return [...changes('remove', delta.removed), ...changes('add', delta.added)]
}
