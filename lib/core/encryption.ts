/** What a host has of IPsec for encrypted networks: brought to what they need, as hosts and keys come and go. */
import { isCnmError } from '../base/errors'
import type { Keys } from '../cluster/keys'
import type { DriverNetwork, Encryption as EncryptionDriver, Protection } from '../driver/contract'
import type { Change, IpsecPolicy, IpsecState, Watch } from '../kernel/kernel'
import { applyLeniently, type Context } from './context'
import type { Difference } from './difference'
import { tellProblem } from './problem'

/**
 * Milliseconds that a state is kept after the policy that named it: packets that the policy was asked for before are on
 * their way to it.
 */
const GRACE = 2_000

/** Milliseconds. Several removals mostly come together. */
const PAUSE = 20

/** Packets after which a key is changed: a state ends at 2^32, where its nonces would begin again. */
const MOST_PACKETS = 2 ** 31

export interface EncryptionNeeds {
  /** That this host has a part of. */
  networks: DriverNetwork[]
  /** Where the tunnels of the other hosts end. */
  remotes: string[]
  /** False: there may be more, so nothing is removed yet. */
  complete: boolean
}

export class Encryption {
  readonly #context: Context
  readonly #keys: Keys
  readonly #driver: EncryptionDriver
  readonly #needs: () => EncryptionNeeds
  /** The kernel has, or may have, something of ours. */
  #touched = false
  #later: NodeJS.Timeout | undefined
  #watch: Watch | undefined
  #look: NodeJS.Timeout | undefined

  constructor(context: Context, keys: Keys, driver: EncryptionDriver, needs: () => EncryptionNeeds) {
    this.#context = context
    this.#keys = keys
    this.#driver = driver
    this.#needs = needs
  }

  /**
   * The kernel gets what it lacks, then loses what nobody needs, in an order that loses no packet: states to receive with,
   * states to send with, policies. Without keys it stays as it is.
   */
  follow(): Promise<void> {
    return this.#context.locks.run('encryption', () => this.#follow())
  }

  async #follow(): Promise<void> {
    const { host } = this.#context
    const needs = this.#needs()
    const wanted = this.#wanted(needs)
    if (!wanted) return
    if (wanted.states.length || this.#touched) {
      const present = await this.#present()
      this.#touched = true
      this.#hear()
      const { add, remove } = differences(wanted, present)
      if (add.length) await host.apply(add)
      const switched = add.some(({ op }) => op === 'setIpsecPolicy')
      if (needs.complete && remove.length) {
        if (switched && needs.remotes.length) this.#again(GRACE)
        else await applyLeniently(host, remove)
      }
      if (needs.complete && wanted.states.length === 0) this.#touched = false
    }
    const { ring } = this.#keys
    if (ring) this.#keys.confirm(ring)
  }

  /** Undefined while the keys are not known. */
  #wanted({ networks, remotes }: EncryptionNeeds): Protection | undefined {
    if (remotes.length === 0) return { states: [], policies: [] }
    const { ring } = this.#keys
    return ring && this.#driver.protect(networks, remotes, ring)
  }

  /** Ours. A kernel without IPsec has none. */
  async #present(): Promise<Protection> {
    const { host } = this.#context
    const ours = ({ reqid }: { reqid: number }) => reqid === this.#driver.reqid
    try {
      const [states, policies] = await Promise.all([host.ipsecStates(), host.ipsecPolicies()])
      return { states: states.filter(ours), policies: policies.filter(ours) }
    } catch (error) {
      if (isCnmError(error, 'ERR_UNSUPPORTED')) return { states: [], policies: [] }
      throw error
    }
  }

  #again(milliseconds: number): void {
    clearTimeout(this.#later)
    this.#later = setTimeout(() => {
      this.#later = undefined
      if (this.#context.closing) return
      this.follow().catch((error: unknown) => this.report(error))
    }, milliseconds).unref()
  }

  /** What others take away is noticed. What we take away comes here, too: then there is nothing to do. */
  #hear(): void {
    if (this.#watch) return
    try {
      this.#watch = this.#context.host.watch(['ipsec'], ({ topic }) => {
        if (topic !== 'ipsec' && topic !== 'overrun') return
        this.#look ??= setTimeout(() => {
          this.#look = undefined
          this.#mend().catch((error: unknown) => this.report(error))
        }, PAUSE).unref()
      })
    } catch (error) {
      // A kernel without IPsec has nothing to tell.
      if (!isCnmError(error, 'ERR_KERNEL', 'ERR_UNSUPPORTED')) throw error
    }
  }

  async #mend(): Promise<void> {
    if (this.#context.closing) return
    const lost = (await this.check()).filter(({ problem }) => problem === 'missing')
    if (lost.length === 0 || this.#context.closing) return
    await this.follow()
    this.#context.log.warn('states or policies of IPsec were removed by somebody else, and were made anew')
    this.#context.events.emit({
      type: 'firewall.repaired',
      problems: lost.map(({ message }) => ({
        kind: 'missing',
        message,
        remedy: 'none: it was made anew',
        details: {},
      })),
    })
  }

  report(error: unknown): void {
    tellProblem(this.#context, 'what hosts send one another cannot be encrypted as it should be', error)
  }

  /** What an earlier life may have left is looked at by the next {@link follow}. */
  distrust(): void {
    this.#touched = true
  }

  async check(): Promise<Difference[]> {
    return this.#context.locks.run('encryption', async () => {
      const needs = this.#needs()
      const wanted = this.#wanted(needs)
      if (!needs.complete || !wanted || (!wanted.states.length && !this.#touched)) return []
      const { add, remove } = differences(wanted, await this.#present())
      const told = (problem: 'missing' | 'unwanted', change: Change): Difference => ({
        kind: 'encryption',
        problem,
        message: `${problem === 'missing' ? 'the host lacks' : 'the host has no use for'} ${describe(change)}`,
        fix: { by: 'encryption' },
      })
      return [
        ...add.map(change => told('missing', change)),
        // For a moment after a change of keys.
        ...(this.#later ? [] : remove.map(change => told('unwanted', change))),
      ]
    })
  }

  /** Has a state served so long that the keys should be changed? */
  async worn(): Promise<boolean> {
    if (!this.#touched) return false
    const { states } = await this.#present()
    return states.some(({ packets = 0 }) => packets > MOST_PACKETS)
  }

  close(): void {
    clearTimeout(this.#later)
    clearTimeout(this.#look)
    this.#watch?.close()
  }
}

function differences(wanted: Protection, present: Protection): { add: Change[]; remove: Change[] } {
  const states = { wanted: by(wanted.states, stateKey), present: by(present.states, stateKey) }
  const policies = { wanted: by(wanted.policies, policyKey), present: by(present.policies, policyKey) }
  return {
    add: [
      ...missing(states.wanted, states.present).map((state): Change => ({ op: 'addIpsecState', state })),
      ...[...policies.wanted]
        .filter(([key, policy]) => policies.present.get(key)?.spi !== policy.spi)
        .map(([, policy]): Change => ({ op: 'setIpsecPolicy', policy })),
    ],
    remove: [
      ...missing(policies.present, policies.wanted).map(
        (policy): Change => ({ op: 'removeIpsecPolicy', policy }),
      ),
      ...missing(states.present, states.wanted).map((state): Change => ({ op: 'removeIpsecState', state })),
    ],
  }
}

const stateKey = ({ source, destination, spi }: IpsecState) => `${source} ${destination} ${spi}`
const policyKey = ({ source, destination, port, mark }: IpsecPolicy) =>
  `${source} ${destination} ${port} ${mark}`

const by = <T>(list: T[], key: (each: T) => string): Map<string, T> =>
  new Map(list.map(each => [key(each), each]))

const missing = <T>(from: Map<string, T>, to: Map<string, T>): T[] =>
  [...from].filter(([key]) => !to.has(key)).map(([, each]) => each)

function describe(change: Change): string {
  if ('state' in change)
    return `the IPsec state ${change.state.spi.toString(16)} from ${change.state.source} to ${change.state.destination}`
  if ('policy' in change)
    return `the IPsec policy from ${change.policy.source} to ${change.policy.destination}`
  return change.op
}
