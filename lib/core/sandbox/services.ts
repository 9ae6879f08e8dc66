import { changeBatch } from '../../services/batch'
import {
  expected,
  isEmpty,
  normalized,
  renderChange,
  renderNone,
  renderWhole,
  type Rules,
  SERVICES_TABLE,
} from '../../services/rules'
import type { Stack } from '../../kernel/kernel'
import { INGRESS_LABEL } from '../ways-out'
import type { Interior } from './interior'

/** Services inside a sandbox: the rules that lead what is sent to a virtual IP to a task. */
export class SandboxServices {
  readonly #in: Interior
  /** What the namespace has; undefined: it is not known (after a restart). */
  applied: Rules | undefined = NOTHING

  constructor(interior: Interior) {
    this.#in = interior
  }

  get #networks(): string[] {
    return [...new Set([...this.#in.endpoints.values()].map(({ network }) => network.id))]
  }

  get #wanted(): Rules {
    const { context, record } = this.#in
    const entrance = record.config.labels[INGRESS_LABEL] !== undefined
    return context.services?.rulesFor(this.#networks, entrance) ?? NOTHING
  }

  get #balances(): boolean {
    const { mode, gone, stack, context } = this.#in
    const own = stack !== undefined && !gone && mode !== 'host' && !mode.startsWith('container:')
    return own && !context.services?.isBlindOn(this.#networks)
  }

  /** Brings the namespace to what the services are now, in one transaction. At once: nobody comes between. */
  follow(): void {
    const { stack } = this.#in
    if (!stack || !this.#balances) return
    const [before, wanted] = [this.applied, this.#wanted]
    if (before === wanted) return
    if (isEmpty(wanted)) {
      if (before ? !isEmpty(before) : hasRules(stack)) stack.nft(renderNone())
    } else if (!before || isEmpty(before)) stack.nft(renderWhole(wanted))
    else {
      try {
        change(stack, before, wanted)
      } catch {
        stack.nft(renderWhole(wanted)) // somebody changed the table
      }
    }
    this.applied = wanted
  }

  /** Is the table in the namespace as it should be? */
  intact(): boolean {
    const { stack } = this.#in
    const wanted = this.#wanted
    if (!stack || !this.#balances || isEmpty(wanted)) return true
    try {
      const listing = stack.nft(`list table inet ${SERVICES_TABLE}`)
      // A modelled kernel that keeps no rules prints nothing; a real one prints the table, or refuses.
      return listing === '' || normalized(listing) === expected(wanted)
    } catch {
      return false
    }
  }

  /** Whatever is there, the rules are made anew. */
  restore(): void {
    this.applied = undefined
    this.follow()
  }
}

/** Ready messages where the stack takes them. */
function change(stack: Stack, before: Rules, wanted: Rules): void {
  const ready = stack.nftBatch && batchOf(before, wanted)
  const text = ready ? '' : renderChange(before, wanted)
  if (ready) stack.nftBatch?.(ready)
  else if (text) stack.nft(text)
}

/** By what was and what is to be: many sandboxes share both. */
const batches = new WeakMap<Rules, WeakMap<Rules, Buffer | undefined>>()

function batchOf(before: Rules, wanted: Rules): Buffer | undefined {
  const known = batches.get(before) ?? new WeakMap<Rules, Buffer | undefined>()
  batches.set(before, known)
  if (!known.has(wanted)) known.set(wanted, changeBatch(before, wanted))
  return known.get(wanted)
}

/** Only where something stands is there anything to take away. */
const hasRules = (stack: Stack): boolean =>
  !stack.nftRules || stack.nftRules('inet', SERVICES_TABLE).length > 0

const NOTHING: Rules = { entrance: false, chains: new Map(), targets: new Map(), elements: new Map() }
