/** Transactions as text of nftables: the whole table, a change of it, its removal. */
import { checkedTable } from '../check'
import type { Delta, Item } from '../model'
import { CREATED } from './chains'
import { SETS } from './sets'

/** `KEY` or `KEY : VALUE`, as it is written and as `nft list` prints it. */
export function element(item: Item): string {
  return item.value === undefined ? keyText(item) : `${keyText(item)} : ${item.value}`
}

export const keyText = ({ key, span }: Item): string => (span ? spanKey(key, span) : key)

const spanKey = (key: string, { from, to }: { from: number; to: number }): string =>
  `${key} . ${from === to ? from : `${from}-${to}`}`

/** A change as one transaction: deletions first. Empty text when there is nothing to do. */
export function renderDelta(name: string, delta: Delta): string {
  const table = `inet ${checkedTable(name)}`
  const lines: string[] = []
  for (const [set, items] of bySet(delta.removed)) {
    const keys = items.map(keyText)
    lines.push(`delete element ${table} ${set} { ${keys.join(', ')} }`)
  }
  for (const [set, items] of bySet(delta.added))
    lines.push(`add element ${table} ${set} { ${items.map(element).join(', ')} }`)
  return lines.join('\n')
}

/** In the order in which the sets first come. */
export function bySet(items: Item[]): Map<string, Item[]> {
  const sets = new Map<string, Item[]>()
  for (const item of items) {
    const list = sets.get(item.set)
    if (list) list.push(item)
    else sets.set(item.set, [item])
  }
  return sets
}

/** The whole table, replacing whatever there is by its name, in one transaction. */
export function renderTable(name: string, items: Map<string, Item[]>): string {
  const table = `inet ${checkedTable(name)}`
  const lines = [`add table ${table}`, `delete table ${table}`, `table ${table} {`]
  for (const { name: set, kind, type, interval } of SETS) {
    lines.push(`  ${kind} ${set} {`, `    type ${type}`)
    if (interval) lines.push('    flags interval')
    const elements = items.get(set) ?? []
    if (elements.length) lines.push(`    elements = { ${elements.map(element).join(', ')} }`)
    lines.push('  }')
  }
  for (const { name: chain, hook, rules } of CREATED) {
    lines.push(`  chain ${chain} {`)
    if (hook) lines.push(`    ${hook}`)
    lines.push(...rules.map(rule => `    ${rule}`), '  }')
  }
  lines.push('}')
  return lines.join('\n')
}

/** The table for the host's own rules. Made if it is missing, and never touched again: what stands in it runs before ours. */
export function renderUserTable(name: string): string {
  const table = `inet ${checkedTable(name)}-user`
  return [
    `add table ${table}`,
    `add chain ${table} forward { type filter hook forward priority filter - 10; policy accept; }`,
  ].join('\n')
}

export function renderRemoval(name: string): string {
  const table = `inet ${checkedTable(name)}`
  return `add table ${table}\ndelete table ${table}`
}
