/**
 * A way out for sandboxes on networks that have none (Docker's docker_gwbridge): a second interface, on a bridge of this
 * host that is made when the first one needs it. The published ports of such endpoints are published there.
 */
import { isCnmError } from '../base/errors'
import type { Undo } from '../base/undo'
import type { Endpoint } from '../endpoint'
import type { Network } from '../network'
import { JoinOptions, type NetworkInput } from '../options'
import { exposedPorts } from '../ports/spec'
import type { Sandbox } from '../sandbox'

export const GATEWAY_NETWORK = 'docker_gwbridge'

/** Networks with this label only give sandboxes a way out: any other network's gateway is preferred. */
export const FALLBACK_LABEL = 'libcnm.fallback-gateway'

/** The sandbox with this label, where published ports of services come in, has a way out of its own. */
export const INGRESS_LABEL = 'libcnm.ingress'

export interface WaysOutWorld {
  /** The kernel has IPv6: then the way out has it, too, whichever network comes first. */
  readonly hasIpv6: boolean
  findNetwork(name: string): Network | undefined
  makeNetwork(input: NetworkInput): Promise<Network>
}

export class WaysOut {
  readonly #world: WaysOutWorld

  constructor(world: WaysOutWorld) {
    this.#world = world
  }

  /** After a join, a leave, or a change of ports. The caller holds the sandbox's lock. */
  async follow(sandbox: Sandbox, undo: Undo): Promise<void> {
    if (sandbox.labels[INGRESS_LABEL] !== undefined) return
    const served = sandbox.endpoints().filter(needsWayOut)
    const present = wayOutOf(sandbox)
    if (served.length === 0) {
      if (present) await this.#remove(sandbox, present)
    } else if (present) await this.#publish(present, served)
    else await this.#make(sandbox, served, undo)
  }

  async #make(sandbox: Sandbox, served: Endpoint[], undo: Undo): Promise<void> {
    if (sandbox.mode === 'host') return
    const network = await this.network()
    const endpoint = await network.createEndpoint({
      name: `gateway_${sandbox.id.slice(0, 12)}`,
      ports: portsOf(served),
      disableResolution: true,
    })
    undo.push('delete the gateway endpoint', () => endpoint.removeLocked())
    await sandbox.attach(endpoint, JoinOptions.parse({}), undo)
  }

  /** The bridge of all ways out, made if it is not there. */
  async network(): Promise<Network> {
    const present = this.#world.findNetwork(GATEWAY_NETWORK)
    if (present) return present
    try {
      return await this.#world.makeNetwork({
        name: GATEWAY_NETWORK,
        driver: 'bridge',
        ipv6: this.#world.hasIpv6,
        labels: { [FALLBACK_LABEL]: '' },
        options: { name: GATEWAY_NETWORK, icc: false },
      })
    } catch (error) {
      // Two sandboxes may need the first one at once.
      const made = isCnmError(error, 'ERR_NETWORK_EXISTS') && this.#world.findNetwork(GATEWAY_NETWORK)
      if (made) return made
      throw error
    }
  }

  async #publish(wayOut: Endpoint, served: Endpoint[]): Promise<void> {
    const wanted = portsOf(served)
    if (JSON.stringify(wayOut.record.config.ports) !== JSON.stringify(wanted))
      await wayOut.publishLocked(wanted)
  }

  async #remove(sandbox: Sandbox, wayOut: Endpoint): Promise<void> {
    await sandbox.detach(wayOut)
    await wayOut.removeLocked()
  }
}

const needsWayOut = ({ network }: Endpoint): boolean =>
  (network.spanning?.gatewayBridge ?? false) && !network.internal

export const wayOutOf = (sandbox: Sandbox): Endpoint | undefined =>
  sandbox.endpoints().find(({ network }) => network.labels[FALLBACK_LABEL] !== undefined)

const portsOf = (endpoints: Endpoint[]) =>
  endpoints.flatMap(({ record: { config } }) => [
    ...config.ports,
    ...(config.publishAll ? exposedPorts(config.exposed) : []),
  ])
