/**
 * Rules of others. Every base chain at a hook has its say, and an accept in our table does not undo a drop in another: so
 * where somebody else drops what is forwarded, published ports do not work, and nobody is told why. This tells.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Stack } from '../kernel/kernel'
import type { FirewallProblem } from './contract'

export interface ForwardChain {
  family: string
  table: string
  chain: string
  /** `policy drop`, or the unconditional rule. */
  verdict: string
}

/** Base chains at the forward hook, in `nft list chains`: their family, table, name and policy. */
export function forwardChains(
  listing: string,
): { family: string; table: string; chain: string; policy: string }[] {
  const found: { family: string; table: string; chain: string; policy: string }[] = []
  let [family, table, chain] = ['', '', '']
  for (const line of listing.split('\n')) {
    const tableLine = /^table (\S+) (\S+) \{/.exec(line)
    if (tableLine) [family, table] = [tableLine[1] ?? '', tableLine[2] ?? '']
    const chainLine = /^\s+chain (\S+) \{/.exec(line)
    if (chainLine) chain = chainLine[1] ?? ''
    const hook = /^\s+type filter hook forward priority [^;]+;(?: policy (\w+);)?/.exec(line)
    if (hook) found.push({ family, table, chain, policy: hook[1] ?? 'accept' })
  }
  return found.filter(entry => ['inet', 'ip', 'ip6'].includes(entry.family))
}

/** A rule of `nft list chain` that drops or rejects whatever comes to it. */
export function unconditionalDrop(listing: string): string | undefined {
  return listing
    .split('\n')
    .map(line => line.trim())
    .find(line =>
      /^(counter( packets \d+ bytes \d+)? )?(log( \S+ ("[^"]*"|\S+))* )?(drop|reject( with .*)?)( comment ".*")?$/.test(
        line,
      ),
    )
}

/** Tables of others that drop forwarded packets unless a rule of theirs says otherwise. */
export function findDrops(stack: Stack, own: string[]): ForwardChain[] {
  const drops: ForwardChain[] = []
  for (const { family, table, chain, policy } of forwardChains(stack.nft('list chains'))) {
    if (family === 'inet' && own.includes(table)) continue
    if (policy === 'drop') {
      drops.push({ family, table, chain, verdict: 'policy drop' })
      continue
    }
    if (!/^[\w.-]+$/.test(table + chain)) continue
    const rule = unconditionalDrop(stack.nft(`list chain ${family} ${table} ${chain}`))
    if (rule) drops.push({ family, table, chain, verdict: rule })
  }
  return [...drops, ...legacyDrops(stack)]
}

/** The old xtables are no nftables: the kernel tells of them only by name, and the rest through their own tool. */
function legacyDrops(stack: Stack): ForwardChain[] {
  const drops: ForwardChain[] = []
  for (const [file, tool, family] of [
    ['ip_tables_names', 'iptables-legacy', 'ip'],
    ['ip6_tables_names', 'ip6tables-legacy', 'ip6'],
  ] as const) {
    const policy = stack.run(() => {
      try {
        if (!/^filter$/m.test(readFileSync(`/proc/thread-self/net/${file}`, 'utf8'))) return undefined
      } catch {
        return undefined // the kernel has no legacy tables
      }
      return spawnSync(tool, ['-w', '5', '-S', 'FORWARD'], { encoding: 'utf8', timeout: 10_000 }).stdout
    })
    if (policy && /^-P FORWARD DROP$/m.test(policy))
      drops.push({ family, table: 'filter (legacy)', chain: 'FORWARD', verdict: 'policy drop' })
  }
  return drops
}

/** As a problem, with what to do. */
export const dropProblem = (drop: ForwardChain): FirewallProblem => ({
  kind: 'foreign-drop',
  message: `chain ${drop.chain} of table ${drop.family} ${drop.table} drops forwarded packets (${drop.verdict}): containers and published ports are cut off unless a rule there accepts them`,
  remedy: remedy(drop),
  details: { ...drop },
})

function remedy({ family, table, chain }: ForwardChain): string {
  if (table.startsWith('filter')) {
    const tool = family === 'ip6' ? 'ip6tables' : 'iptables'
    return `${tool}${table.includes('legacy') ? '-legacy' : ''} -I ${chain} -i BRIDGE -j ACCEPT and the same with -o BRIDGE for the bridges of your networks (ufw: "ufw route allow in on BRIDGE" and "out on BRIDGE"), or policy ACCEPT`
  }
  return `nft insert rule ${family} ${table} ${chain} iifname BRIDGE accept, and the same with oifname, for the bridges of your networks`
}
