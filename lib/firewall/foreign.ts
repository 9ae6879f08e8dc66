/**
 * Rules of others. Every base chain at a hook has its say, and an accept in our table does not undo a drop in another: so
 * where somebody else drops what is forwarded, published ports do not work, and nobody is told why. This tells. The same
 * goes for what comes in to the host itself, where the userland proxy serves a port.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { familyOf } from '../base/cidr'
import type { Stack } from '../kernel/kernel'
import type { FirewallProblem, ServedPort } from './contract'

type Hook = 'forward' | 'input'

interface BaseChain {
  family: string
  table: string
  chain: string
  hook: Hook
}

export interface Drop extends BaseChain {
  /** `policy drop`, or the unconditional rule. */
  verdict: string
}

/** Base chains at a hook, in `nft list chains`, with their policy. */
export function baseChains(listing: string): (BaseChain & { policy: string })[] {
  const found: (BaseChain & { policy: string })[] = []
  let [family, table, chain] = ['', '', '']
  for (const line of listing.split('\n')) {
    const tableLine = /^table (\S+) (\S+) \{/.exec(line)
    if (tableLine) [family, table] = [tableLine[1] ?? '', tableLine[2] ?? '']
    const chainLine = /^\s+chain (\S+) \{/.exec(line)
    if (chainLine) chain = chainLine[1] ?? ''
    const hook = /^\s+type filter hook (forward|input) priority [^;]+;(?: policy (\w+);)?/.exec(line)
    if (hook) found.push({ family, table, chain, hook: hook[1] as Hook, policy: hook[2] ?? 'accept' })
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

/** Chains of others that drop what is forwarded, or comes in, unless a rule of theirs says otherwise. */
function findDrops(stack: Stack, own: string[], hooks: readonly Hook[]): Drop[] {
  const drops: Drop[] = []
  for (const { policy, ...base } of baseChains(stack.nft('list chains'))) {
    const { family, table, chain, hook } = base
    if (!hooks.includes(hook) || (family === 'inet' && own.includes(table))) continue
    if (policy === 'drop') {
      drops.push({ ...base, verdict: 'policy drop' })
      continue
    }
    if (!/^[\w.-]+$/.test(table + chain)) continue
    const rule = unconditionalDrop(stack.nft(`list chain ${family} ${table} ${chain}`))
    if (rule) drops.push({ ...base, verdict: rule })
  }
  return [...drops, ...legacyDrops(stack, hooks)]
}

const LEGACY = 'filter (legacy)'

/** The old xtables are no nftables: the kernel tells of them only by name, and the rest through their own tool. */
function legacyDrops(stack: Stack, hooks: readonly Hook[]): Drop[] {
  const drops: Drop[] = []
  for (const [file, tool, family] of [
    ['ip_tables_names', 'iptables-legacy', 'ip'],
    ['ip6_tables_names', 'ip6tables-legacy', 'ip6'],
  ] as const) {
    const rules = stack.run(() => {
      try {
        if (!/^filter$/m.test(readFileSync(`/proc/thread-self/net/${file}`, 'utf8'))) return undefined
      } catch {
        return undefined // the kernel has no legacy tables
      }
      return spawnSync(tool, ['-w', '5', '-S'], { encoding: 'utf8', timeout: 10_000 }).stdout
    })
    for (const hook of hooks) {
      const chain = hook.toUpperCase()
      if (rules?.split('\n').includes(`-P ${chain} DROP`))
        drops.push({ family, table: LEGACY, chain, hook, verdict: 'policy drop' })
    }
  }
  return drops
}

/** Which iptables has the chain, if one has: the old xtables, or the one that makes nftables of what it is told. */
export function iptablesOf({ family, table, chain, hook }: BaseChain): 'legacy' | 'nft' | undefined {
  if (family === 'inet' || chain !== hook.toUpperCase()) return undefined
  return table === LEGACY ? 'legacy' : table === 'filter' ? 'nft' : undefined
}

/**
 * What others drop of ours: forwarded packets, unless `minded`, and what comes in to ports that the proxy serves. `own`: tables of
 * family inet that are not others'.
 */
export async function foreignProblems(
  stack: Stack,
  own: string[],
  served: readonly ServedPort[],
  minded: (drop: Drop) => boolean | Promise<boolean>,
): Promise<FirewallProblem[]> {
  const problems: FirewallProblem[] = []
  for (const drop of findDrops(stack, own, served.length ? ['forward', 'input'] : ['forward'])) {
    const { family, hook } = drop
    const cut = served.filter(
      ({ hostIp }) => family === 'inet' || family === (familyOf(hostIp) === 4 ? 'ip' : 'ip6'),
    )
    if (hook === 'input' ? cut.length > 0 : !(await minded(drop))) problems.push(dropProblem(drop, cut))
  }
  return problems
}

/** As a problem, with what to do. `served`: those that are cut off by a drop of what comes in. */
function dropProblem(drop: Drop, served: readonly ServedPort[]): FirewallProblem {
  const { family, table, chain, hook, verdict } = drop
  const place = `chain ${chain} of table ${family} ${table}`
  const details = { family, table, chain, verdict }
  const first = served[0]
  if (hook === 'forward' || !first)
    return {
      kind: 'foreign-drop',
      message: `${place} drops forwarded packets (${verdict}): containers and published ports are cut off unless a rule there accepts them`,
      remedy: remedy(drop, 'iifname BRIDGE', '-i BRIDGE', FORWARDED, 'the bridges of your networks'),
      details,
    }
  const ports = served.map(({ hostIp, hostPort, hostPortEnd, protocol }) => {
    const range = hostPortEnd > hostPort ? `${hostPort}-${hostPortEnd}` : hostPort
    return `${hostIp.includes(':') ? `[${hostIp}]` : hostIp}:${range}/${protocol}`
  })
  const { protocol, hostPort } = first
  return {
    kind: 'foreign-drop',
    message: `${place} drops what comes in to the host (${verdict}): published ports that the userland proxy serves (${ports.join(', ')}) are cut off from outside unless a rule there accepts them`,
    remedy: remedy(
      drop,
      `${protocol} dport ${hostPort}`,
      `-p ${protocol} --dport ${hostPort}`,
      { also: '', ufw: `ufw allow ${hostPort}/${protocol}` },
      'each of them',
    ),
    details: { ...details, ports },
  }
}

const FORWARDED = {
  also: ' and the same with -o BRIDGE',
  ufw: 'ufw route allow in on BRIDGE" and "ufw route allow out on BRIDGE',
}

function remedy(
  drop: Drop,
  nft: string,
  iptables: string,
  { also, ufw }: { also: string; ufw: string },
  forWhom: string,
): string {
  const { family, table, chain, hook } = drop
  const variant = iptablesOf(drop)
  if (variant) {
    const tool = `${family === 'ip6' ? 'ip6tables' : 'iptables'}${variant === 'legacy' ? '-legacy' : ''}`
    return `${tool} -I ${chain} ${iptables} -j ACCEPT${also}, for ${forWhom} (ufw: "${ufw}"), or policy ACCEPT`
  }
  const both = hook === 'forward' ? ', and the same with oifname,' : ''
  const firewalld = table.startsWith('firewalld') && hook === 'input' ? ' (firewall-cmd --add-port)' : ''
  return `nft insert rule ${family} ${table} ${chain} ${nft} accept${both} for ${forWhom}${firewalld}`
}
