/** Items as input of `iptables-restore --noflush`: a change, or everything anew. Pure. */
import type { Family } from '../../base/cidr'
import type { Delta, Item } from '../model'
import { fixedItems, ownChains, place, type Table, TABLES, userChain } from './chains'
import { ownRules, type Saved } from './saved'

/** A change as input of `iptables-restore --noflush`, per family; empty when there is nothing to do. */
export function renderIptablesDelta(delta: Delta, family: Family): string {
  const lines = new Map<Table, string[]>()
  const push = (item: Item, command: string) => {
    const at = place(item)
    if (at.family !== family) return
    const list = lines.get(at.table) ?? []
    lines.set(at.table, list)
    list.push(`${command} ${at.chain} ${item.key}`)
  }
  for (const item of delta.removed) push(item, '-D')
  for (const item of delta.added) push(item, `-${item.value}`)
  return restoreText(lines)
}

function restoreText(tables: Map<Table, string[]>): string {
  return TABLES.flatMap(table => {
    const lines = tables.get(table)
    return lines?.length ? [`*${table}`, ...lines, 'COMMIT'] : []
  })
    .map(line => `${line}\n`)
    .join('')
}

/**
 * Everything anew, given what there is: as input of `iptables-restore --noflush`. `before`: items that were wanted until now;
 * `remove`: nothing in their place.
 */
export function renderIptablesReset(
  prefix: string,
  items: Map<string, Item[]>,
  saved: Saved,
  family: Family,
  { before = items, remove = false }: { before?: Map<string, Item[]>; remove?: boolean } = {},
): string {
  const lines = new Map<Table, string[]>(TABLES.map(table => [table, []]))
  const chains = ownChains(prefix)
  const at = (table: Table) => lines.get(table) ?? []
  for (const table of TABLES)
    for (const chain of chains[table])
      if (!remove || saved.has(`${table} ${chain}`)) at(table).push(`:${chain} - [0:0]`)
  if (!remove && !saved.has(`filter ${userChain(prefix)}`)) at('filter').push(`:${userChain(prefix)} - [0:0]`)
  for (const [place, rule] of ownRules(saved, prefix, [items, before], family)) {
    const [table, chain] = place.split(' ')
    at(table as Table).push(`-D ${chain} ${rule}`)
  }
  if (remove) {
    for (const table of TABLES)
      for (const chain of chains[table]) if (saved.has(`${table} ${chain}`)) at(table).push(`-X ${chain}`)
    return restoreText(lines)
  }
  for (const item of [...fixedItems(prefix), ...[...items.values()].flat()]) {
    const target = place(item)
    if (target.family === family) at(target.table).push(`-${item.value} ${target.chain} ${item.key}`)
  }
  return restoreText(lines)
}
