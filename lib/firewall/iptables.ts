import { type Family } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { Locks } from '../base/locks'
import type { Stack } from '../kernel/kernel'
import { checkedTable } from './check'
import {
  DEFAULT_NAME,
  type Firewall,
  type FirewallChange,
  type FirewallLink,
  type FirewallProblem,
  goingNetworks,
  type ServedPort,
} from './contract'
import { Firewalld } from './firewalld'
import { type Drop, foreignProblems, iptablesOf } from './foreign'
import { closeLocal, Forwarding } from './forwarding'
import { Healer, type ProblemListener } from './heal'
import { type Delta, Model } from './model'
import type { FirewallParts } from './nftables'
import { inPath, runProgram } from './program'
import { chainPrefix, FAMILIES, TABLES } from './iptables/chains'
import { iptablesRenderer } from './iptables/items'
import { compareSaved, guardedLinks, parseSave, type Saved } from './iptables/saved'
import { renderIptablesDelta, renderIptablesReset } from './iptables/text'

const PROGRAMS: Record<Family, { restore: string; save: string }> = {
  4: { restore: 'iptables-restore', save: 'iptables-save' },
  6: { restore: 'ip6tables-restore', save: 'ip6tables-save' },
}
/** Seconds to wait for the lock that all users of the old xtables share. */
const LOCK_WAIT = '10'
/** Milliseconds. The old xtables tell nobody when they change. */
const PERIOD = 30_000
/** Process ids of our own children that are remembered, so that their changes are not taken for somebody else's. */
const REMEMBERED = 64

/** Why iptables cannot be used; undefined if it can. */
export function iptablesProblem(_stack: Stack): CnmError | undefined {
  const absent = Object.values(PROGRAMS)
    .flatMap(({ restore, save }) => [restore, save])
    .filter(program => !inPath(program))
  if (absent.length === 0) return undefined
  return new CnmError(
    'ERR_FIREWALL_UNAVAILABLE',
    `${absent.join(', ')} not found in PATH; "apt-get install iptables" installs them`,
    { absent },
  )
}

/** The same firewall for hosts without libnftables: one iptables-restore per family and operation, in Docker's chains. */
export class IptablesFirewall implements Firewall {
  readonly backend = 'iptables'
  private readonly prefix: string
  private model: Model
  private readonly forwarding: Forwarding
  private readonly healer: Healer
  private readonly firewalld: Firewalld | undefined
  private readonly locks = new Locks()
  private readonly children: number[] = []
  private started = false
  /** What an earlier run left stands until the first change says what should. */
  private adopted = false
  /** By the proxy. */
  private served: () => readonly ServedPort[] = () => []

  constructor(private readonly parts: FirewallParts) {
    this.prefix = chainPrefix(checkedTable(parts.name))
    this.model = this.newModel()
    this.forwarding = new Forwarding(parts.stack, parts.ipForward)
    this.healer = new Healer({
      stack: parts.stack,
      log: parts.log,
      owns: (family, table) => (family === 'ip' || family === 'ip6') && (TABLES as string[]).includes(table),
      isOwn: pid => this.children.includes(pid),
      heal: () => this.exclusive(() => this.heal()),
      foreign: () => this.lookForForeign(),
      shared: true,
      period: PERIOD,
    })
    const { name, bus, log } = parts
    this.firewalld = bus ? new Firewalld(name, bus, log, () => this.healer.anew()) : undefined
  }

  start(): Promise<void> {
    return this.exclusive(async () => {
      const saved = await this.saved(4)
      this.adopted = saved.has(`filter ${this.prefix}-FORWARD`)
      if (!this.adopted) await this.install()
      this.started = true
      this.healer.start()
      await this.firewalld?.start()
      await this.healer.lookAround()
    })
  }

  apply(change: FirewallChange): Promise<void> {
    return this.exclusive(async () => {
      this.mustBeStarted()
      await this.forwarding.need(change.addNetworks ?? [])
      const plan = this.model.plan(change)
      const gone = goingNetworks(change)
      const closed = this.forwarding.closeLocal(gone)
      try {
        await this.take(plan, plan.commit)
      } catch (error) {
        this.forwarding.reopenLocal(closed)
        throw error
      }
      this.forwarding.forget(gone)
      this.forwarding.allowLocal(plan.mappings, id => this.model.network(id))
      this.relay([...(change.addLinks ?? []), ...(change.removeLinks ?? [])])
      if (change.addNetworks?.length || change.removeNetworks?.length)
        await this.firewalld?.sync(this.links())
    })
  }

  /** A few lines; if they are refused, rules that we count on may be gone, so everything is sent once. */
  private async take(delta: Delta, commit: () => void): Promise<void> {
    if (!this.adopted)
      try {
        await this.restoreDelta(delta)
        commit()
        return
      } catch (error) {
        if (!isCnmError(error, 'ERR_FIREWALL')) throw error
        this.parts.log.debug('the firewall refused a change; sending everything', { error })
      }
    const before = this.model.state()
    commit()
    try {
      await this.install()
      this.adopted = false
    } catch (error) {
      this.model = this.newModel(before)
      throw error
    }
  }

  private async restoreDelta(delta: Delta): Promise<void> {
    const first = renderIptablesDelta(delta, 4)
    const second = renderIptablesDelta(delta, 6)
    if (first) await this.restore(4, first)
    try {
      if (second) await this.restore(6, second)
    } catch (error) {
      // Each family is a transaction of its own.
      if (first) await this.restore(4, renderIptablesDelta({ removed: delta.added, added: delta.removed }, 4))
      throw error
    }
  }

  state(): ReturnType<Firewall['state']> {
    return this.model.state()
  }

  reset(state: FirewallChange): Promise<void> {
    return this.exclusive(async () => {
      this.mustBeStarted()
      await this.forwarding.need(state.addNetworks ?? [])
      const before = this.model
      this.model = this.newModel(state)
      try {
        await this.install(before.items())
      } catch (error) {
        this.model = before
        throw error
      }
      this.adopted = false
      this.forwarding.allowLocal(state.addMappings ?? [], id => this.model.network(id))
      this.relay(state.addLinks ?? [])
      await this.firewalld?.sync(this.links())
    })
  }

  check(): Promise<FirewallProblem[]> {
    return this.exclusive(async () => [
      ...(await this.missing()),
      ...this.forwarding.check(),
      ...(await this.lookForForeign()),
    ])
  }

  repair(): Promise<boolean> {
    return this.exclusive(async () => {
      this.mustBeStarted()
      return (await this.heal()).length > 0
    })
  }

  private async heal(): Promise<FirewallProblem[]> {
    if (!this.started) return []
    const problems = await this.missing()
    if (problems.length) {
      await this.install()
      this.adopted = false
    }
    return [...problems, ...this.forwarding.repair()]
  }

  get foreign(): readonly FirewallProblem[] {
    return this.healer.foreign
  }

  onProblem(listener: ProblemListener): void {
    this.healer.on(listener)
  }

  stop({ remove = false } = {}): Promise<void> {
    this.healer.stop()
    return this.exclusive(async () => {
      this.started = false
      if (remove) await this.firewalld?.sync([])
      this.firewalld?.stop()
      if (!remove) return
      const { addNetworks } = this.model.state()
      this.forwarding.closeLocal(addNetworks)
      this.forwarding.forget(addNetworks)
      for (const family of FAMILIES)
        await this.restore(
          family,
          renderIptablesReset(this.prefix, this.model.items(), await this.saved(family), family, {
            remove: true,
          }),
        )
      this.model = this.newModel()
    })
  }

  private newModel(state?: FirewallChange): Model {
    const model = new Model(iptablesRenderer(this.prefix))
    if (state) model.plan(state).commit()
    return model
  }

  /** `before`: the items whose rules may be there still. */
  private async install(before = this.model.items()): Promise<void> {
    const items = this.model.items()
    for (const family of FAMILIES) {
      const saved = await this.saved(family)
      await this.restore(family, renderIptablesReset(this.prefix, items, saved, family, { before }))
    }
  }

  private async missing(): Promise<FirewallProblem[]> {
    if (this.adopted) return []
    const problems: FirewallProblem[] = []
    for (const family of FAMILIES) {
      const { lost, strange } = compareSaved(
        this.prefix,
        this.model.items(),
        await this.saved(family),
        family,
      )
      if (lost.length === 0 && strange.length === 0) continue
      problems.push({
        kind: 'missing',
        message: `IPv${family}: ${lost.length} iptables rules are missing and ${strange.length} strange ones stand in our chains`,
        remedy: 'repair() puts it right; find out who changes the rules of this controller',
        details: { family, lost: lost.slice(0, 20), strange: strange.slice(0, 20) },
      })
    }
    return problems
  }

  serve(ports: () => readonly ServedPort[]): void {
    this.served = ports
    this.healer.foreignSoon()
  }

  private async lookForForeign(): Promise<FirewallProblem[]> {
    const { stack } = this.parts
    try {
      const chain = `\tchain ${this.prefix}-FORWARD {`
      const variant = stack.nft('list chains').split('\n').includes(chain) ? 'nft' : 'legacy'
      return await foreignProblems(stack, [], this.served(), drop => this.isPassed(drop, variant))
    } catch (error) {
      // Without libnftables the tables of others cannot be read; that is why this backend is there.
      if (isCnmError(error, 'ERR_FIREWALL_UNAVAILABLE', 'ERR_FIREWALL')) return []
      throw error
    }
  }

  /**
   * Our own rules stand in the chain that drops, in the same one of the two iptables, and let our traffic through before. A
   * controller of another name than the usual lets out at the end only: before a policy, not before a rule.
   */
  private isPassed(drop: Drop, variant: 'nft' | 'legacy'): boolean {
    if (iptablesOf(drop) === variant)
      return drop.verdict === 'policy drop' || this.prefix === chainPrefix(DEFAULT_NAME)
    return this.firewalld?.minds(drop.table) === true
  }

  private relay(changed: FirewallLink[]): void {
    this.forwarding.relay(
      changed.map(({ networkId }) => networkId),
      () => this.model.state().addLinks,
      id => this.model.network(id),
    )
  }

  private links(): string[] {
    return [...new Set(this.model.state().addNetworks.map(network => network.link))]
  }

  private async saved(family: Family): Promise<Saved> {
    return parseSave(
      await runProgram(this.parts.stack, PROGRAMS[family].save, [], '', pid => this.remember(pid)),
    )
  }

  private async restore(family: Family, text: string): Promise<void> {
    await runProgram(this.parts.stack, PROGRAMS[family].restore, ['--noflush', '-w', LOCK_WAIT], text, pid =>
      this.remember(pid),
    )
  }

  private remember(pid: number): void {
    this.children.push(pid)
    if (this.children.length > REMEMBERED) this.children.shift()
  }

  private exclusive<T>(body: () => Promise<T>): Promise<T> {
    return this.locks.run('', body)
  }

  private mustBeStarted(): void {
    if (!this.started) throw new CnmError('ERR_CLOSED', `the firewall ${this.parts.name} is not started`)
  }
}

/** Takes away what a run of this backend left behind. */
export async function removeIptables(stack: Stack, prefix: string): Promise<void> {
  for (const family of FAMILIES) {
    const saved = parseSave(await runProgram(stack, PROGRAMS[family].save))
    if (!saved.has(`filter ${prefix}-FORWARD`)) continue
    closeLocal(stack, guardedLinks(saved))
    await runProgram(
      stack,
      PROGRAMS[family].restore,
      ['--noflush', '-w', LOCK_WAIT],
      renderIptablesReset(prefix, new Map(), saved, family, { remove: true }),
    )
  }
}
