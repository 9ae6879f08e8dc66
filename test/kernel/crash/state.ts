import type { Controller } from '../../../lib/index'
import type { WorldState } from './protocol'

/** All objects of a controller, as far as an acknowledged operation must have left them. */
export function stateOf(controller: Controller): WorldState {
  const state: WorldState = { networks: {}, sandboxes: {}, endpoints: {} }
  for (const network of controller.networks()) {
    state.networks[network.name] = { id: network.id }
    for (const endpoint of network.endpoints())
      state.endpoints[`${network.name}/${endpoint.name}`] = {
        id: endpoint.id,
        network: network.name,
        ports: endpoint.ports.map(({ hostPort }) => hostPort).sort(),
        sandbox: endpoint.sandbox?.containerId,
      }
  }
  for (const sandbox of controller.sandboxes()) state.sandboxes[sandbox.containerId] = { id: sandbox.id }
  return state
}

/**
 * Where `found` contradicts what was acknowledged. Objects that an operation was working on since may have changed:
 * `touched` has their names; an endpoint hangs on its network and its sandbox.
 */
export function contradictions(acknowledged: WorldState, touched: Set<string>, found: WorldState): string[] {
  const problems: string[] = []
  const compare = <T>(
    kind: string,
    before: Record<string, T>,
    after: Record<string, T>,
    free: (key: string) => boolean,
  ) => {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      if (free(key)) continue
      const [was, is] = [JSON.stringify(before[key]), JSON.stringify(after[key])]
      if (was !== is) problems.push(`${kind} ${key} was ${was ?? 'absent'} and is ${is ?? 'absent'}`)
    }
  }
  compare('network', acknowledged.networks, found.networks, name => touched.has(name))
  compare('sandbox', acknowledged.sandboxes, found.sandboxes, id => touched.has(id))
  compare('endpoint', acknowledged.endpoints, found.endpoints, key => {
    const { network, sandbox } = acknowledged.endpoints[key] ?? found.endpoints[key]!
    return touched.has(network) || (sandbox !== undefined && touched.has(sandbox))
  })
  return problems
}
