import type { Endpoint } from '../../endpoint'
import { type Limits, pacingChanges, pacingsOf, pacingSysctls, refusePacing } from '../pacing'
import type { JoinRecord } from '../records'
import type { Interior } from './interior'

/** The rates of a sandbox's endpoints, in the kernel. */
export class Bandwidth {
  readonly #in: Interior

  constructor(interior: Interior) {
    this.#in = interior
  }

  /** Puts limits on the endpoint's interface: by default those that it should have. */
  async shape(endpoint: Endpoint, limits?: Limits): Promise<void> {
    const { stack, context } = this.#in
    if (!stack) return
    refusePacing(endpoint, limits ?? endpoint.record.config.bandwidth)
    for (const pacing of pacingsOf(endpoint, limits)) {
      const where = pacing.where === 'host' ? context.host : stack
      const made = pacing.entering !== undefined && (await stack.link(pacing.link)) !== undefined
      await where.apply(pacingChanges(pacing, made))
      if (context.hasIpv6) where.setSysctls(pacingSysctls(pacing))
    }
  }

  /** What does not go with the interface itself. */
  remains(endpoint: Endpoint, join?: JoinRecord): { op: 'removeLink'; link: string; ifExists: true }[] {
    return pacingsOf(endpoint, undefined, join).flatMap(({ link, entering }) =>
      entering === undefined ? [] : [{ op: 'removeLink' as const, link, ifExists: true as const }],
    )
  }
}
