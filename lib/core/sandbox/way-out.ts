import { familyOf, type Family } from '../../base/cidr'
import type { Attachment } from '../../driver/contract'
import type { Endpoint } from '../../endpoint'
import type { Change, RouteSpec, Stack } from '../../kernel/kernel'
import { applyTolerantly } from '../context'
import { byRank, type Candidate, defaultRoute } from '../gateway'
import { addressesOf } from '../inside'
import { gatewayChanges, NO_PROXY_6TO4, sandboxOptions } from '../outside'
import { FALLBACK_LABEL } from '../ways-out'
import type { Elected, Interior } from './interior'

/** The way out of a sandbox: who stands for election, the default routes that follow, and telling drivers elsewhere. */
export class WayOut {
  readonly #in: Interior

  constructor(interior: Interior) {
    this.#in = interior
  }

  /** Joined endpoints, the best gateway first. */
  ranked(): Endpoint[] {
    const rank = new Map(
      this.candidates()
        .sort(byRank)
        .map(({ endpointId }, at) => [endpointId, at]),
    )
    return [...this.#in.endpoints.values()].sort((a, b) => (rank.get(a.id) ?? 0) - (rank.get(b.id) ?? 0))
  }

  /**
   * Drivers elsewhere hear which endpoint is the way out. Their failures are reported and stop nothing. `leaving`: one
   * that is no longer among the joined.
   */
  async tell(before: Elected, after: Elected, leaving: Endpoint[] = []): Promise<void> {
    for (const { endpointId, families } of gatewayChanges(before, after)) {
      const endpoint = this.#in.endpoints.get(endpointId) ?? leaving.find(({ id }) => id === endpointId)
      const driver = endpoint?.network.implementation
      if (!endpoint || !driver?.externalConnectivity) continue
      const divided = families.includes(4) && after[6] !== undefined && after[6].endpointId !== endpointId
      const options = {
        ...sandboxOptions(endpoint.record.config),
        ...(divided && { [NO_PROXY_6TO4]: true }),
      }
      await driver
        .externalConnectivity(endpoint.network.forDriver, endpoint.spec, families, options)
        .catch((error: unknown) =>
          this.#in.context.log.warn(`driver ${driver.name} was told of the way out and failed`, {
            error,
            endpoint: endpointId,
          }),
        )
    }
  }

  /** Changes inside that lead from one set of default routes to another. */
  rerouting(before: Elected, after: Elected): Change[] {
    if (this.#in.mode === 'host') return []
    const changes: Change[] = []
    for (const family of [4, 6] as const) {
      const [old, now] = [before[family], after[family]]
      if (old?.endpointId === now?.endpointId && old?.gateways[family] === now?.gateways[family]) continue
      if (old) changes.push({ op: 'removeRoute', route: defaultRoute(family, old) })
      if (now) changes.push({ op: 'addRoute', route: defaultRoute(family, now) })
    }
    return changes
  }

  async rerouteLeniently(stack: Stack, from: Elected, to: Elected): Promise<void> {
    await applyTolerantly(stack, this.rerouting(from, to))
  }

  candidates(): Candidate[] {
    return [...this.#in.endpoints.values()].flatMap(({ id, network, record: { join } }) => {
      if (!join?.attachment) return []
      return [
        {
          endpointId: id,
          networkName: network.name,
          priority: join.options.priority,
          internal: network.internal,
          fallback: network.labels[FALLBACK_LABEL] !== undefined,
          gateways: this.#gatewaysOf(join.attachment, id),
          interfaceName: join.interfaceName,
        },
      ]
    })
  }

  /** A gateway of a family in which the endpoint has no address leads nowhere. */
  #gatewaysOf(attachment: Attachment, endpointId: string): Partial<Record<Family, string>> {
    const endpoint = this.#in.endpoints.get(endpointId) as Endpoint
    const families = new Set(addressesOf(endpoint.spec, attachment).map(familyOf))
    const { network, spec } = endpoint
    const { 4: four = network.internal ? undefined : spec.settings?.gateway, 6: six } =
      attachment.gateways ?? {}
    return { 4: families.has(4) ? four : undefined, 6: families.has(6) ? six : undefined }
  }

  /** Default routes as they should be inside. */
  wantedDefaults(): RouteSpec[] {
    if (this.#in.mode === 'host') return []
    return ([4, 6] as const).flatMap(family => {
      const elected = this.#in.elected[family]
      return elected ? [defaultRoute(family, elected)] : []
    })
  }
}
