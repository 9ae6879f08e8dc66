import { rmSync } from 'node:fs'
import { atomically } from '../../base/undo'
import type { Attachment } from '../../driver/contract'
import { addressesOf, bare } from '../inside'
import type { JoinRecord } from '../records'
import { type Interfaces, NAMESPACE_GRACE } from './interfaces'
import type { Interior } from './interior'
import type { Membership } from './membership'
import type { SandboxNames } from './names'
import type { SandboxPorts } from './ports'
import type { WayOut } from './way-out'

/** The end of a sandbox: everybody leaves at once, and the namespace takes its links along. */
export class Ending {
  readonly #in: Interior
  readonly #wayOut: WayOut
  readonly #ports: SandboxPorts
  readonly #names: SandboxNames
  readonly #interfaces: Interfaces
  readonly #membership: Membership

  constructor(
    interior: Interior,
    wayOut: WayOut,
    ports: SandboxPorts,
    names: SandboxNames,
    interfaces: Interfaces,
    membership: Membership,
  ) {
    this.#in = interior
    this.#wayOut = wayOut
    this.#ports = ports
    this.#names = names
    this.#interfaces = interfaces
    this.#membership = membership
  }

  /** `key`: path of the namespace, also of one that is another sandbox's. */
  async dissolve(key: string | undefined): Promise<void> {
    const { kernel, store, events, reaper, publisher, names, log } = this.#in.context
    const joined = [...this.#in.endpoints.values()].map(endpoint => ({
      endpoint,
      join: endpoint.record.join as JoinRecord,
    }))
    const { mode } = this.#in
    const owns = key !== undefined && mode !== 'host' && !mode.startsWith('container:')
    const elected = this.#in.elected
    // What can fail comes first and can be undone: the firewall, then unbinding the namespace.
    await atomically(async undo => {
      for (const { endpoint } of joined) this.#in.context.services?.retire(endpoint, undo)
      undo.push('joined again', () => {
        for (const { endpoint, join } of joined) {
          endpoint.record.join = join
          this.#in.endpoints.set(endpoint.id, endpoint)
        }
        this.#in.elected = elected
      })
      for (const { endpoint } of joined) this.#in.endpoints.delete(endpoint.id)
      this.#in.elected = {}
      const guarded = joined
        .filter(({ endpoint, join }) => endpoint.network.record.state.firewall && join.attachment)
        .map(({ endpoint, join }) => ({
          endpoint,
          addresses: bare(addressesOf(endpoint.spec, join.attachment as Attachment)),
        }))
        .filter(({ addresses }) => addresses.length)
      await this.#ports.filter(this.#ports.withdrawal(guarded), undo)
      if (!owns) return
      await this.#membership.fallSilent(joined, elected, undo)
      await kernel.remove(key)
    })
    await this.#wayOut.tell(
      elected,
      {},
      joined.map(({ endpoint }) => endpoint),
    )
    for (const { endpoint, join } of joined) {
      endpoint.record.join = undefined
      await publisher.release(join.published)
      names.removeEndpoint(endpoint.network.id, endpoint.id)
      // The namespace takes its links along; those that stay (a process still lives in it) are reaped later.
      await this.#interfaces
        .driverLeaves(endpoint, join, owns ? NAMESPACE_GRACE : 20)
        .catch((error: unknown) => log.warn('leave', { error }))
      events.emit({
        type: 'endpoint.leave',
        network: { id: endpoint.network.id, name: endpoint.network.name, driver: endpoint.network.driver },
        endpoint: { id: endpoint.id, name: endpoint.name },
        sandbox: { id: this.#in.id, containerId: this.#in.containerId },
      })
      await endpoint
        .removeLocked()
        .catch((error: unknown) => log.warn(`cannot delete endpoint ${endpoint.name}`, { error }))
    }
    await this.#names.resolver?.close({ keepRules: owns })
    this.#names.resolver = undefined
    this.#names.closeFiles()
    this.#names.files?.remove()
    if (this.#names.files) rmSync(this.#names.directory, { recursive: true, force: true })
    if (owns && this.#in.stack) {
      this.#interfaces.leaveToKernel()
      reaper.forget(this.#in.stack)
      this.#in.stack.close()
    }
    this.#in.stack = undefined
    await store.write({ remove: [{ kind: 'sandbox', id: this.#in.id }] })
    this.#in.gone = true
  }
}
