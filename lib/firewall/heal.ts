/**
 * Watches the host's ruleset and has it put right after somebody else changed it: `nft flush ruleset`, a deleted chain,
 * a firewall reload. Knows nothing of rules.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Logger } from '../base/log'
import type { KernelEvent, Stack, Watch } from '../kernel/kernel'
import type { FirewallProblem } from './contract'

/** Milliseconds. What belongs together (a reload is many transactions) is looked at once. */
const DEBOUNCE = 10
/** Milliseconds. Other tables matter less than ours, and reading them takes longer. */
const FOREIGN_DEBOUNCE = 250
/** Milliseconds. Repairs that follow upon one another wait twice as long each time, up to this; somebody fights us. */
const LONGEST_WAIT = 2_000
/** Milliseconds without a repair after which the waiting begins anew. */
const CALM = 5_000
/** This many repairs may follow closely before the waiting begins. */
const FREE = 5

export type ProblemListener = (problems: FirewallProblem[], repaired: boolean) => void

export interface Patient {
  stack: Stack
  log: Logger
  /** Does a change of this table concern our own rules? */
  owns(family: string, table: string): boolean
  /** Looks and repairs; resolves to what was wrong. */
  heal(): Promise<FirewallProblem[]>
  /** Others have chains in the tables that concern our rules. */
  shared?: boolean
  /** Looks for rules of others that drop our traffic. */
  foreign(): Promise<FirewallProblem[]>
  /** Was it a child process of ours that changed the ruleset? */
  isOwn?(pid: number): boolean
  /** A table name that nobody uses, for learning which process id we have in the kernel's eyes. */
  probe?: { table: string; commands: string }
  /** Milliseconds between checks without an event; for backends of which the kernel tells nothing. */
  period?: number
}

export class Healer {
  private readonly listeners = new Set<ProblemListener>()
  private watch: Watch | undefined
  private timer: NodeJS.Timeout | undefined
  private foreignTimer: NodeJS.Timeout | undefined
  private ticker: NodeJS.Timeout | undefined
  /** In the initial pid namespace, which need not be ours; `process.pid` until learned. */
  private pid = process.pid
  private learned = false
  private repairs = 0
  private lastRepair = 0
  /** What others dropped when it was looked for last. */
  foreign: FirewallProblem[] = []
  private busy = false
  private again = false

  constructor(private readonly patient: Patient) {}

  on(listener: ProblemListener): void {
    this.listeners.add(listener)
  }

  start(): void {
    if (this.watch) return
    const { stack, probe, period, log } = this.patient
    try {
      this.watch = stack.watch(['nft'], event => this.hear(event))
      if (probe) stack.nft(probe.commands)
    } catch (error) {
      log.warn('the ruleset of the host cannot be watched', { error })
    }
    if (period) {
      this.ticker = setInterval(() => this.anew(), period)
      this.ticker.unref()
    }
  }

  stop(): void {
    this.watch?.close()
    this.watch = undefined
    clearTimeout(this.timer)
    clearTimeout(this.foreignTimer)
    clearInterval(this.ticker)
    this.timer = this.foreignTimer = this.ticker = undefined
  }

  tell(problems: FirewallProblem[], repaired: boolean): void {
    for (const listener of this.listeners)
      try {
        listener(problems, repaired)
      } catch (error) {
        this.patient.log.error('a listener for firewall problems threw', { error })
      }
  }

  /** Somebody may have changed our rules: look soon. */
  soon(): void {
    if (this.timer || !this.watch) return
    const now = Date.now()
    if (now - this.lastRepair > CALM) this.repairs = 0
    const wait =
      this.repairs < FREE ? DEBOUNCE : Math.min(LONGEST_WAIT, DEBOUNCE << (this.repairs - FREE + 4))
    this.timer = setTimeout(() => void this.look(), wait)
    this.timer.unref()
  }

  /** The host's rules were loaded anew: look soon at ours, and at those of others. */
  anew(): void {
    this.soon()
    this.foreignSoon()
  }

  /** Others, or what of ours they may drop, changed. */
  foreignSoon(): void {
    if (this.foreignTimer || !this.watch) return
    this.foreignTimer = setTimeout(() => void this.lookAround(), FOREIGN_DEBOUNCE)
    this.foreignTimer.unref()
  }

  private hear(event: KernelEvent): void {
    if (event.topic === 'overrun') this.anew()
    if (event.topic !== 'nft') return
    const { table, family, pid } = event
    if (!this.learned && table !== undefined && table === this.patient.probe?.table) {
      this.learned = true
      if (pid !== undefined) this.pid = pid
      return
    }
    if (table === undefined || pid === this.pid || (pid !== undefined && this.patient.isOwn?.(pid))) return
    const concerns = this.patient.owns(family, table)
    if (concerns) this.soon()
    if ((!concerns || this.patient.shared) && event.object !== 'element') this.foreignSoon()
  }

  private async look(): Promise<void> {
    this.timer = undefined
    if (this.busy) {
      this.again = true
      return
    }
    this.busy = true
    try {
      const problems = await this.patient.heal()
      if (problems.length) {
        this.repairs++
        this.lastRepair = Date.now()
        this.patient.log.warn('the firewall had been changed by somebody else and was repaired', { problems })
        this.tell(problems, true)
      }
    } catch (error) {
      this.repairs++
      this.lastRepair = Date.now()
      this.patient.log.error('the firewall cannot be repaired', { error })
      this.tell([failure(error)], false)
      this.again = true
    } finally {
      this.busy = false
      if (this.again) {
        this.again = false
        this.soon()
      }
    }
  }

  /** Looks at the rules of others, and tells what is new. */
  async lookAround(): Promise<void> {
    clearTimeout(this.foreignTimer)
    this.foreignTimer = undefined
    try {
      const problems = await this.patient.foreign()
      if (isDeepStrictEqual(problems, this.foreign)) return
      this.foreign = problems
      if (problems.length === 0) return
      this.patient.log.warn('others drop what is ours', { problems })
      this.tell(problems, false)
    } catch (error) {
      this.patient.log.warn('the rules of others could not be read', { error })
    }
  }
}

function failure(error: unknown): FirewallProblem {
  const { message = String(error), next } = error as { message?: string; next?: string }
  return {
    kind: 'missing',
    message: `rules are missing and could not be restored: ${message}`,
    remedy: next ?? 'see the message; repair() tries again',
    details: { error: message },
  }
}
