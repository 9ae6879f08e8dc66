/** The rates of an endpoint: the token buckets that keep them. */
import type { Endpoint } from '../../endpoint'
import type { Sandbox } from '../../sandbox'
import type { Context } from '../context'
import type { Difference } from '../difference'
import { pacingChanges, pacingProblem, pacingsOf, pacingSysctls } from '../pacing'
import type { Facts } from './facts'

export async function checkBandwidth(
  { hasIpv6 }: Context,
  endpoint: Endpoint,
  sandbox: Sandbox,
  inside: Facts,
  host: Facts,
): Promise<Difference[]> {
  const found: Difference[] = []
  for (const pacing of pacingsOf(endpoint)) {
    const { way, where, link, limit } = pacing
    const facts = where === 'host' ? host : inside
    // Its link is gone: that is told already, and with a new one come its rates.
    if (pacing.entering === undefined && !facts.links.has(link)) continue
    const problem = pacingProblem(pacing, facts.links, await facts.shapers())
    if (!problem) continue
    const of = `${way} of ${endpoint.record.join?.interfaceName} of sandbox ${sandbox.containerId}`
    const changes = pacingChanges(pacing, facts.links.has(link))
    found.push({
      endpointId: endpoint.id,
      sandboxId: sandbox.id,
      networkId: endpoint.network.id,
      kind: 'bandwidth',
      problem,
      message: limit ? `${of} is not limited to ${limit} bit/s` : `${of} is limited, and should not be`,
      fix: { by: 'changes', where, changes, ...(hasIpv6 && { sysctls: pacingSysctls(pacing) }) },
    })
  }
  return found
}
