/** What iptables-save prints: read, told whose it is, and compared with what should be. Pure. */
import type { Family } from '../../base/cidr'
import type { Item } from '../model'
import { fixedItems, ownChains, place, TABLES } from './chains'

/** What iptables-save printed: rules by `TABLE CHAIN`, without the `-A CHAIN`; chains without rules are there too. */
export type Saved = Map<string, string[]>

export function parseSave(text: string): Saved {
  const saved: Saved = new Map()
  let table = ''
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1)
    const chain = /^:(\S+) /.exec(line)
    if (chain) saved.set(`${table} ${chain[1]}`, [])
    const rule = /^-A (\S+) (.*)$/.exec(line)
    if (rule) saved.get(`${table} ${rule[1]}`)?.push(rule[2] ?? '')
  }
  return saved
}

/** Links whose rules an earlier run left in chains of ours: rules in the built-in chains that name them are ours too. */
function ownLinks(saved: Saved, prefix: string, known: Map<string, Item[]>[], family: Family): Set<string> {
  const links = new Set<string>()
  const read = (rule: string) => {
    for (const match of rule.matchAll(/-[io] (\S+)/g)) if (match[1]) links.add(match[1])
  }
  for (const chain of ['-BRIDGE', '-INTERNAL', '-CT'].map(suffix => prefix + suffix)) {
    for (const rule of saved.get(`filter ${chain}`) ?? []) read(rule)
    for (const items of known) for (const item of items.get(`${family} filter ${chain}`) ?? []) read(item.key)
  }
  return links
}

const SHAPES: [chain: string, pattern: RegExp][] = [
  ['nat POSTROUTING', /^-s \S+ ! -o (\S+) -j (?:MASQUERADE|SNAT --to-source \S+)$/],
  ['nat POSTROUTING', /^-s \S+ -o (\S+) (?:-m conntrack --ctstate DNAT )?-j MASQUERADE$/],
  ['raw PREROUTING', /^-d \S+ (?:! )?-i (\S+) -j DROP$/],
  ['mangle PREROUTING', /^-d \S+ ! -i (\S+) -m conntrack --ctstate NEW -j DROP$/],
]

/** The rules in built-in chains that we, or an earlier run of ours, put there. */
export function ownRules(
  saved: Saved,
  prefix: string,
  known: Map<string, Item[]>[],
  family: Family,
): [string, string][] {
  const links = ownLinks(saved, prefix, known, family)
  const found: [string, string][] = []
  const guarded = new Set<string>()
  for (const [chain, pattern] of SHAPES)
    for (const rule of saved.get(chain) ?? []) {
      const link = pattern.exec(rule)?.[1]
      if (link === undefined || !links.has(link)) continue
      found.push([chain, rule])
      guarded.add(`${chain} ${rule.split(' ')[1]}`)
    }
  for (const chain of ['raw PREROUTING', 'mangle PREROUTING'])
    for (const rule of saved.get(chain) ?? [])
      if (/^-d \S+ -i \S+ -j ACCEPT$/.test(rule) && guarded.has(`${chain} ${rule.split(' ')[1]}`))
        found.push([chain, rule])
  const fixed = new Set(fixedItems(prefix).map(item => `${item.set} ${item.key}`))
  for (const [chain, rules] of saved)
    for (const rule of rules)
      if (/ (PREROUTING|OUTPUT|FORWARD)$/.test(chain) && fixed.has(`${family} ${chain} ${rule}`))
        found.push([chain, rule])
  return found
}

/** Rules that should be there and are not, and rules in our chains that should not. */
export function compareSaved(
  prefix: string,
  items: Map<string, Item[]>,
  saved: Saved,
  family: Family,
): { lost: string[]; strange: string[] } {
  const wanted = new Map<string, Set<string>>()
  for (const item of [...fixedItems(prefix), ...[...items.values()].flat()]) {
    const target = place(item)
    if (target.family !== family) continue
    const chain = `${target.table} ${target.chain}`
    const rules = wanted.get(chain) ?? new Set()
    wanted.set(chain, rules)
    rules.add(item.key)
  }
  const lost: string[] = []
  const strange: string[] = []
  for (const [chain, rules] of wanted) {
    const there = new Set(saved.get(chain))
    for (const rule of rules) if (!there.has(rule)) lost.push(`${chain}: ${rule}`)
  }
  const chains = ownChains(prefix)
  for (const table of TABLES)
    for (const chain of chains[table]) {
      const name = `${table} ${chain}`
      if (!saved.has(name)) lost.push(`${name}: the chain`)
      for (const rule of saved.get(name) ?? [])
        if (!wanted.get(name)?.has(rule)) strange.push(`${name}: ${rule}`)
    }
  return { lost, strange }
}

/** The bridges whose packets for 127.0.0.0/8 are dropped. */
export const guardedLinks = (saved: Saved): string[] =>
  (saved.get('raw PREROUTING') ?? []).flatMap(
    rule => /^-d 127\.0\.0\.0\/8 -i (\S+) -j DROP$/.exec(rule)?.[1] ?? [],
  )
