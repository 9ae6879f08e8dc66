import { CnmError } from '../../base/errors'
import { atomically, type Undo } from '../../base/undo'
import type { Attachment } from '../../driver/contract'
import type { Endpoint } from '../../endpoint'
import type { Change, Stack } from '../../kernel/kernel'
import type { JoinOptions } from '../../options'
import { applyLeniently, applyTolerantly, isAbsent } from '../context'
import { elect } from '../gateway'
import { addressesOf, equip, lowestFree, refuseConflicts, refuseGateways, silence } from '../inside'
import type { JoinRecord } from '../records'
import type { Interfaces } from './interfaces'
import type { Elected, Interior } from './interior'
import type { SandboxNames } from './names'
import type { SandboxPorts } from './ports'
import type { SandboxServices } from './services'
import type { WayOut } from './way-out'

/** Who is in a sandbox: endpoints that join, leave, are taken over after a restart, or are made anew. */
export class Membership {
  readonly #in: Interior
  readonly #wayOut: WayOut
  readonly #ports: SandboxPorts
  readonly #names: SandboxNames
  readonly #services: SandboxServices
  readonly #interfaces: Interfaces

  constructor(
    interior: Interior,
    wayOut: WayOut,
    ports: SandboxPorts,
    names: SandboxNames,
    services: SandboxServices,
    interfaces: Interfaces,
  ) {
    this.#in = interior
    this.#wayOut = wayOut
    this.#ports = ports
    this.#names = names
    this.#services = services
    this.#interfaces = interfaces
  }

  /** Endpoint.join, under the locks of both. */
  async attach(endpoint: Endpoint, options: JoinOptions, undo: Undo): Promise<void> {
    this.#refuseMode(endpoint)
    const join: JoinRecord = {
      sandboxId: this.#in.id,
      options,
      interfaceName: this.#chooseName(endpoint, options),
      published: [],
    }
    refuseGateways([...addressesOf(endpoint.spec, {}), ...endpoint.spec.linkLocal], options.routes)
    if (this.#in.mode !== 'host')
      refuseConflicts(
        addressesOf(endpoint.spec, {}),
        [...this.#in.endpoints.values()].flatMap(other =>
          addressesOf(other.spec, other.record.join?.attachment ?? {}).map(address => ({
            address,
            owner: `network ${other.network.name}, ${other.interfaceName}`,
          })),
        ),
      )
    endpoint.record.join = join
    this.#in.endpoints.set(endpoint.id, endpoint)
    undo.push('forget the join', () => {
      endpoint.record.join = undefined
      this.#in.endpoints.delete(endpoint.id)
      this.#in.elected = elect(this.#wayOut.candidates())
    })
    if (this.#in.stack) await this.#interfaces.plumb(endpoint, undo)
    else await this.#interfaces.saveJoin(endpoint, undo)
  }

  #refuseMode(endpoint: Endpoint): void {
    const special = endpoint.network.driver === 'host'
    if (this.#in.mode.startsWith('container:'))
      throw new CnmError(
        'ERR_INVALID_OPTION',
        'container sharing network namespace with another container or host cannot be connected to any other network',
        { sandbox: this.#in.id },
      )
    if (this.#in.mode === 'host' && !special)
      throw new CnmError(
        'ERR_INVALID_OPTION',
        'container sharing network namespace with another container or host cannot be connected to any other network',
        { sandbox: this.#in.id },
      )
    if (special && this.#in.mode !== 'host')
      throw new CnmError(
        'ERR_INVALID_OPTION',
        'cannot connect container to host network - container must be created in host network mode',
        {
          sandbox: this.#in.id,
        },
      )
  }

  #chooseName(endpoint: Endpoint, { interfaceName }: JoinOptions): string {
    const taken = new Set([...this.#in.endpoints.values()].map(other => other.interfaceName as string))
    if (interfaceName === undefined)
      return lowestFree(endpoint.network.record.state.interfacePrefix ?? 'eth', taken)
    if (taken.has(interfaceName) || interfaceName === 'lo')
      throw new CnmError(
        'ERR_LINK_EXISTS',
        `sandbox ${this.#in.containerId} has an interface ${interfaceName} already`,
        {
          sandbox: this.#in.id,
          interfaceName,
        },
      )
    return interfaceName
  }

  /** Endpoint.leave, under the locks of both. */
  async detach(endpoint: Endpoint): Promise<void> {
    const join = endpoint.record.join as JoinRecord
    const { unhealthy } = endpoint.record
    const elected = this.#in.elected
    await atomically(async undo => {
      const { attachment } = join
      undo.push('joined again', () => {
        Object.assign(endpoint.record, { join, unhealthy })
        this.#in.endpoints.set(endpoint.id, endpoint)
      })
      Object.assign(endpoint.record, { join: undefined, unhealthy: undefined })
      this.#in.endpoints.delete(endpoint.id)
      undo.push('old record', () => {
        Object.assign(endpoint.record, { join, unhealthy })
        return endpoint.save()
      })
      await endpoint.save()
      if (!this.#in.stack || !attachment) return
      const stack = this.#in.stack
      const before = this.#in.elected
      this.#in.elected = elect(this.#wayOut.candidates())
      undo.push('old gateway', () => {
        this.#in.elected = before
      })
      await this.#ports.close(endpoint, join, undo)
      const changes = [
        ...this.#wayOut.rerouting(before, this.#in.elected),
        ...silence(endpoint.spec, attachment, join.interfaceName, join.options),
      ]
      if (changes.length) {
        undo.push('equip it again', () => this.#equipLeniently(stack, endpoint, join, before))
        // Taking the address away takes routes with it; what is gone by then is no failure.
        await applyTolerating(stack, changes)
      }
    })
    await this.#afterDetach(endpoint, join, elected)
  }

  /**
   * The sandbox goes, and its addresses are free at once. A process that outlives it keeps the namespace, and the links in
   * there for a while: with those addresses it would answer in the place of whoever gets them next.
   */
  async fallSilent(
    joined: readonly { endpoint: Endpoint; join: JoinRecord }[],
    elected: Elected,
    undo: Undo,
  ): Promise<void> {
    const { stack } = this.#in
    const changes = joined.flatMap(({ endpoint, join: { attachment, interfaceName, options } }) =>
      attachment ? silence(endpoint.spec, attachment, interfaceName, options) : [],
    )
    if (!stack || changes.length === 0) return
    undo.push('equip them again', async () => {
      for (const { endpoint, join } of joined)
        if (join.attachment) await this.#equipLeniently(stack, endpoint, join, elected)
    })
    await applyTolerating(stack, changes)
  }

  async #equipLeniently(stack: Stack, endpoint: Endpoint, join: JoinRecord, elected: Elected): Promise<void> {
    const now = this.#in.elected
    await applyTolerantly(stack, [
      ...equip(endpoint.spec, join.attachment as Attachment, join.interfaceName, join.options),
      ...this.#wayOut.rerouting(now, elected),
    ])
  }

  /** What follows a leave that can no longer fail: it only goes forward, and what goes wrong is reported. */
  async #afterDetach(endpoint: Endpoint, join: JoinRecord, elected: Elected): Promise<void> {
    const { publisher, names, log } = this.#in.context
    await publisher.release(join.published)
    names.removeEndpoint(endpoint.network.id, endpoint.id)
    this.#names.forgetEntries(endpoint)
    await this.#wayOut.tell(elected, this.#in.elected, [endpoint])
    try {
      this.#services.follow()
      await this.#interfaces.driverLeaves(endpoint, join)
      await this.#names.refresh()
    } catch (error) {
      log.warn(`${endpoint.name} left ${this.#in.containerId}, but not all of it could be cleared`, { error })
    }
  }

  /** An endpoint that the store says is in here: taken over as it is, nothing is touched. */
  async adopt(endpoint: Endpoint): Promise<void> {
    const join = endpoint.record.join as JoinRecord
    this.#in.endpoints.set(endpoint.id, endpoint)
    this.#in.elected = elect(this.#wayOut.candidates())
    this.#in.hadLinks = true
    this.#services.applied = undefined
    if (!join.attachment) return
    this.#interfaces.expect(join.attachment)
    join.published = await this.#in.context.publisher.readopt(join.published)
    this.#names.register(endpoint)
  }

  /** Makes an endpoint's interface anew, with the same name, addresses, MAC and ports. */
  async reattach(endpoint: Endpoint): Promise<void> {
    const join = endpoint.record.join
    const stack = this.#in.stack
    if (!join || !stack || !this.#in.endpoints.has(endpoint.id)) return
    const { host, firewall } = this.#in.context
    if (join.attachment) {
      const { attachment } = join
      if (attachment.interface?.source) this.#in.context.wantedLinks.delete(attachment.interface.source)
      const plan = await endpoint.network.implementation.leave(
        endpoint.network.forDriver,
        endpoint.spec,
        attachment,
      )
      await applyLeniently(host, plan.changes ?? [])
      await this.#interfaces.takeOut(stack, attachment, join, endpoint)
      if (attachment.interface)
        await applyLeniently(stack, [{ op: 'removeLink', link: join.interfaceName, ifExists: true }])
      const mapped = this.#ports.translatedOf(endpoint)
      if (mapped.length) await firewall.apply({ removeMappings: mapped })
      this.#ports.forget(endpoint)
      await this.#in.context.publisher.release(join.published)
      join.attachment = undefined
      // The default routes went with the interface.
      this.#in.elected = elect(this.#wayOut.candidates())
      for (const route of this.#wayOut.wantedDefaults()) {
        try {
          await stack.apply([{ op: 'replaceRoute', route }])
        } catch (error) {
          if (!isAbsent(error)) throw error
        }
      }
    }
    this.#in.ipv6Default = undefined
    // No undo: a repair that fails half way leaves the record as it should be, for the next one.
    await this.#interfaces.plumb(endpoint, { push() {} })
  }
}

/** One batch; failures because something is gone already are none. */
async function applyTolerating(stack: Stack, changes: Change[]): Promise<void> {
  try {
    await stack.apply(changes)
  } catch (error) {
    if (!isAbsent(error)) throw error
    await applyLeniently(stack, changes)
  }
}
