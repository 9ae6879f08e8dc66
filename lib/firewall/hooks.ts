/**
 * Where Docker runs beside us with iptables, its FORWARD chain drops what no rule accepts, ours included. It leaves a chain
 * to its neighbours, DOCKER-USER; there (for what comes in to our bridges: our own table judges it) and at the very end of
 * FORWARD (for what leaves them: after Docker has had its say about its own bridges) our traffic is let through.
 */
import type { Family } from '../base/cidr'
import { Locks } from '../base/locks'
import type { Stack } from '../kernel/kernel'
import { checkedLink, checkedTable } from './check'
import { type Drop, iptablesOf } from './foreign'
import { inPath, runProgram } from './program'
import { parseSave } from './iptables/saved'

const FAMILIES = [4, 6] as const
const NFT_FAMILY: Record<Family, string> = { 4: 'ip', 6: 'ip6' }

/** Rules by chain, in the form of iptables-save. */
export function hookRules(name: string, links: string[]): { chain: string; rule: string; at: 'I' | 'A' }[] {
  const comment = `-m comment --comment ${checkedTable(name)}`
  return links.map(checkedLink).flatMap(link => [
    { chain: 'DOCKER-USER', rule: `-o ${link} ${comment} -j ACCEPT`, at: 'I' },
    { chain: 'FORWARD', rule: `-i ${link} ${comment} -j ACCEPT`, at: 'A' },
  ])
}

export interface Bridges {
  links: string[]
  /** Not all of them are known yet: what an earlier run put there for others stands, and their connections with it. */
  partial?: boolean
}

/** What `iptables-restore --noflush` must be told so that exactly these rules of ours are there, once each; empty when they are. */
export function hookChange(name: string, { links, partial }: Bridges, save: string): string | undefined {
  const saved = parseSave(save)
  if (!saved.has('filter DOCKER-USER')) return undefined
  const wanted = hookRules(name, links)
  const lines: string[] = []
  for (const chain of ['DOCKER-USER', 'FORWARD']) {
    const there = (saved.get(`filter ${chain}`) ?? []).filter(rule => rule.includes(` --comment ${name} -j `))
    for (const [at, rule] of there.entries()) {
      const needed = partial || wanted.some(one => one.chain === chain && one.rule === rule)
      if (!needed || there.indexOf(rule) < at) lines.push(`-D ${chain} ${rule}`)
    }
    for (const one of wanted)
      if (one.chain === chain && !there.includes(one.rule)) lines.push(`-${one.at} ${chain} ${one.rule}`)
  }
  return lines.length ? ['*filter', ...lines, 'COMMIT', ''].join('\n') : ''
}

export class DockerHooks {
  /** Families, and whose tables (the old xtables are apart), in which rules of ours stand. */
  private readonly active = new Map<string, { family: Family; legacy: boolean }>()

  /** Looking and acting are two steps; two at a time would both see a rule missing and both add it. */
  private readonly locks = new Locks()

  constructor(
    private readonly stack: Stack,
    private readonly name: string,
    /** Ours, at the moment of asking. */
    private readonly bridges: () => Bridges,
  ) {}

  get present(): boolean {
    return this.active.size > 0
  }

  /** Is this Docker's doing, and is it taken care of? `act`: then see to it. */
  async solve(drop: Drop, act: boolean): Promise<boolean> {
    const variant = iptablesOf(drop)
    if (drop.hook !== 'forward' || !variant) return false
    for (const family of FAMILIES)
      if (NFT_FAMILY[family] === drop.family) {
        const legacy = variant === 'legacy'
        if (!(await this.put(family, legacy, act))) return false
        this.active.set(`${family} ${legacy}`, { family, legacy })
        return true
      }
    return false
  }

  /** After networks came or went. */
  async sync(): Promise<void> {
    for (const [key, { family, legacy }] of this.active)
      if (!(await this.put(family, legacy, true))) this.active.delete(key)
  }

  private put(family: Family, legacy: boolean, act: boolean): Promise<boolean> {
    return this.locks.run(`${family} ${legacy}`, () => this.bring(family, legacy, act))
  }

  private async bring(family: Family, legacy: boolean, act: boolean): Promise<boolean> {
    const tool = (verb: string) => {
      const prefix = family === 6 ? 'ip6tables' : 'iptables'
      const exact = `${prefix}-${legacy ? 'legacy' : 'nft'}-${verb}`
      return inPath(exact) ? exact : `${prefix}-${verb}`
    }
    if (!inPath(tool('save')) || !inPath(tool('restore'))) return false
    const save = await runProgram(this.stack, tool('save'), ['-t', 'filter'])
    const text = hookChange(this.name, this.bridges(), save)
    if (text && !act) return false
    if (text) await runProgram(this.stack, tool('restore'), ['--noflush', '-w', '10'], text)
    return text !== undefined
  }
}
