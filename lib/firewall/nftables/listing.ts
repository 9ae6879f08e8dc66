/** What `nft list table` prints, beside what it should: and what puts the one right by the other. */
import { checkedTable } from '../check'
import type { Item } from '../model'
import { NUMBER_OF } from './protocols'
import { element, renderTable } from './text'

/** A listing taken apart: the chains as text (without white space at line ends), the sets' elements one by one. */
export interface Listing {
  /** Everything but the elements, one line each, without indentation. */
  frame: string
  elements: Map<string, Set<string>>
}

/** Reads what `nft list table` prints. */
export function parseListing(text: string): Listing {
  const frame: string[] = []
  const elements = new Map<string, Set<string>>()
  let set = ''
  let inside: string[] | undefined
  for (const raw of text.split('\n')) {
    let line = raw.trim()
    if (!line) continue
    const opening = /^(?:set|map) (\S+) \{$/.exec(line)
    if (opening) set = opening[1] ?? ''
    if (line.startsWith('elements = {')) {
      inside = []
      line = line.slice('elements = {'.length)
    }
    if (!inside) {
      frame.push(line)
      continue
    }
    const end = line.endsWith('}')
    inside.push(end ? line.slice(0, -1) : line)
    if (!end) continue
    elements.set(
      set,
      new Set(
        inside
          .join(' ')
          .split(',')
          .map(part => numbered(part.trim()))
          .filter(Boolean),
      ),
    )
    inside = undefined
  }
  return { frame: numbered(frame.join('\n')), elements }
}

/** Names of protocols, if the listing has them, as numbers. */
const numbered = (text: string): string =>
  text.replace(/(?<=[ {]|^)(tcp|udp|sctp|icmp|ipv6-icmp)(?=[ ,])/g, name => String(NUMBER_OF[name]))

/** The listing that the state should give. */
export function expectedListing(name: string, items: Map<string, Item[]>): Listing {
  const { frame } = parseListing(renderTable(name, new Map()).split('\n').slice(2).join('\n'))
  const elements = new Map<string, Set<string>>()
  for (const [set, list] of items) elements.set(set, new Set(list.map(element)))
  return { frame, elements }
}

/** What makes a table with such elements hold those of `items`, in one transaction; empty when it does already. */
export function renderCorrection(name: string, there: Listing, items: Map<string, Item[]>): string {
  const table = `inet ${checkedTable(name)}`
  const lines: string[] = []
  const wanted = expectedListing(name, items)
  for (const [set, elements] of there.elements) {
    const keep = wanted.elements.get(set)
    const strange = [...elements].filter(each => !keep?.has(each)).map(each => each.split(' : ')[0])
    if (strange.length) lines.push(`delete element ${table} ${set} { ${strange.join(', ')} }`)
  }
  for (const [set, list] of items) {
    const has = there.elements.get(set)
    const lost = list.map(element).filter(each => !has?.has(each))
    if (lost.length) lines.push(`add element ${table} ${set} { ${lost.join(', ')} }`)
  }
  return lines.join('\n')
}
