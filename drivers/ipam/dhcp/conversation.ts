/** What a client says next, given what it heard or that it heard nothing (RFC 2131, figure 5). Pure but for chance. */
import type { Question, Reply } from './protocol'

export type Purpose =
  /** An address, whichever, or `wanted`; `only` that one. */
  | { kind: 'acquire'; wanted?: string; only?: boolean }
  /** This address again, of whatever server: after a restart, or when the one that gave it is silent. */
  | { kind: 'confirm'; wanted: string }
  /** More time, of the server that gave the address. */
  | { kind: 'renew'; wanted: string }

export type Heard = Reply & { fromMac: string }

export type Step =
  /** Say it (again), and listen for so many milliseconds. */
  | { say: Omit<Question, 'xid' | 'mac' | 'seconds' | 'hostname'>; wait: number }
  /** Listen on. */
  | 'listen'
  | { granted: Heard }
  | { refused: Heard }

/** Milliseconds; doubled with each silence. RFC 2131 begins with 4 s, in days of slow bridges. */
const PATIENCE = 500
const LONGEST = 8_000
/** Silences after which a server that made an offer counts as gone. */
const GIVE_UP = 4

export class Conversation {
  /** Why the last answers were no good: for people, when there is no good one. */
  readonly complaints: string[] = []
  #offer: Heard | undefined
  #silences = 0
  /** Offers that came to nothing. */
  #disappointments = 0

  /** `chance`: 0 to 1, so that machines which begin at once do not speak at once. */
  constructor(
    readonly purpose: Purpose,
    private readonly chance: () => number = Math.random,
  ) {}

  begin(): Step {
    return this.#speak()
  }

  silence(): Step {
    this.#silences++
    if (this.#offer && this.#silences >= GIVE_UP) {
      this.#complain(`server ${this.#offer.server} offered ${this.#offer.address} and then was silent`)
      this.#offer = undefined
      this.#silences = 0
    }
    return this.#speak()
  }

  /** An answer to this conversation: xid and MAC were compared. */
  hear(reply: Heard): Step {
    const { purpose } = this
    const offer = this.#offer
    if (purpose.kind === 'acquire' && !offer)
      return reply.type === 'offer' ? this.#consider(reply, purpose) : 'listen'
    if (offer && reply.server !== offer.server) return 'listen'
    if (reply.type === 'offer') return 'listen'
    if (reply.type === 'nak') {
      if (!offer) return { refused: reply }
      this.#complain(`server ${reply.server} took its offer back${reply.message ? `: ${reply.message}` : ''}`)
      this.#offer = undefined
      this.#disappointments++
      return 'listen' // begins anew after the pause: else two that disagree would talk as fast as they can
    }
    const expected = offer ? offer.address : purpose.wanted
    if (reply.address === expected) return { granted: reply }
    this.#complain(`server ${reply.server} gave ${reply.address} instead of ${expected}`)
    return 'listen'
  }

  #consider(offer: Heard, { wanted, only }: Purpose & { kind: 'acquire' }): Step {
    if (only && offer.address !== wanted) {
      this.#complain(`server ${offer.server} offers ${offer.address}, not ${wanted}`)
      return 'listen'
    }
    this.#offer = offer
    this.#silences = 0
    return this.#speak()
  }

  #speak(): Step {
    const usual = Math.min(PATIENCE * 2 ** (this.#silences + this.#disappointments), LONGEST)
    const wait = Math.round(usual * (0.9 + 0.2 * this.chance()))
    const { kind, wanted } = this.purpose
    if (this.#offer) {
      const { address, server } = this.#offer
      return { say: { type: 'request', requested: address, server }, wait }
    }
    if (kind === 'acquire') return { say: { type: 'discover', requested: wanted }, wait }
    // Who fills in his address is answered at it: so only where the answer is heard, and asked for by broadcast otherwise.
    return {
      say: kind === 'renew' ? { type: 'request', address: wanted } : { type: 'request', requested: wanted },
      wait,
    }
  }

  #complain(text: string): void {
    if (!this.complaints.includes(text) && this.complaints.length < 8) this.complaints.push(text)
  }
}
