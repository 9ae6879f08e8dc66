import { familyOf } from '../../base/cidr'
import type { Undo } from '../../base/undo'
import type { Attachment } from '../../driver/contract'
import type { Endpoint } from '../../endpoint'
import type { Change, Stack, Step } from '../../kernel/kernel'
import { portFlags } from '../apart'
import { applyLeniently, carryOut } from '../context'
import { elect } from '../gateway'
import {
  addressesOf,
  arrival,
  departure,
  equip,
  lowestFree,
  refuseConflicts,
  silence,
  sysctlsFor,
} from '../inside'
import { markOf } from '../mark'
import { sandboxOptions } from '../outside'
import type { JoinRecord } from '../records'
import type { Bandwidth } from './bandwidth'
import type { Interior } from './interior'
import type { SandboxNames } from './names'
import type { SandboxPorts } from './ports'
import type { SandboxServices } from './services'
import type { WayOut } from './way-out'

/** The interfaces of a sandbox: making an endpoint's in the kernel, and taking it out again. */
export class Interfaces {
  readonly #in: Interior
  readonly #wayOut: WayOut
  readonly #ports: SandboxPorts
  readonly #names: SandboxNames
  readonly #services: SandboxServices
  readonly #bandwidth: Bandwidth
  /** Host's ends of pairs that left: if the namespace is dropped before they are reaped, it takes them along. */
  readonly #doomed = new Set<string>()
  /** Interface names whose link is still being deleted. */
  readonly #leaving = new Set<string>()

  constructor(
    interior: Interior,
    wayOut: WayOut,
    ports: SandboxPorts,
    names: SandboxNames,
    services: SandboxServices,
    bandwidth: Bandwidth,
  ) {
    this.#in = interior
    this.#wayOut = wayOut
    this.#ports = ports
    this.#names = names
    this.#services = services
    this.#bandwidth = bandwidth
  }

  /** The namespace is dropped: its links go with it, and only if they do not are they deleted. */
  leaveToKernel(): void {
    const { reaper, host } = this.#in.context
    for (const link of this.#doomed) if (reaper.isDoomed(host, link)) reaper.doom(host, link, NAMESPACE_GRACE)
  }

  /**
   * The endpoint's interface in the kernel, its ports, its names. Pushes the inverse of each act. `moving`: only the
   * interface, since ports and names stay what they are when the namespace is another.
   */
  async plumb(endpoint: Endpoint, undo: Undo, moving = false): Promise<void> {
    const { kernel, host, reaper } = this.#in.context
    const stack = this.#in.stack as Stack
    const { network } = endpoint
    const driver = network.implementation
    const join = endpoint.record.join as JoinRecord
    if (reaper.isDoomed(stack, join.interfaceName) || this.#leaving.has(join.interfaceName))
      await reaper.settle()
    await this.#refuseRoutes(endpoint, stack)
    const attachment = await driver.join(network.forDriver, endpoint.spec, {
      sandboxId: this.#in.id,
      sandboxKey: this.#in.key ?? '',
      netns: this.#in.mode === 'host' ? undefined : stack,
      interfaceName: join.interfaceName,
      interfaceIndex: await this.#freeIndex(stack),
      sandboxOptions: driver.externalConnectivity ? sandboxOptions(endpoint.record.config) : {},
    })
    undo.push(`driver ${driver.name} leaves`, async () => {
      const plan = await driver.leave(network.forDriver, endpoint.spec, attachment)
      await applyLeniently(host, plan.changes ?? [])
    })
    this.#rename(join, attachment)
    join.attachment = storable(attachment)
    if (!moving) join.published = await this.#ports.reserve(endpoint, undo)
    await this.saveJoin(endpoint, undo)

    const before = this.#in.elected
    this.#in.elected = elect(this.#wayOut.candidates())
    const detour = this.#wayOut.rerouting(before, this.#in.elected)
    if (detour.length)
      undo.push('old default routes', () => this.#wayOut.rerouteLeniently(stack, this.#in.elected, before))
    if (attachment.interface) {
      const inside = [...equip(endpoint.spec, attachment, join.interfaceName, join.options), ...detour]
      const sysctls = sysctlsFor(attachment, join.options, join.interfaceName)
      const hostward: Step = {
        stack: host,
        changes: [
          ...(attachment.plan?.changes ?? []).filter(({ op }) => op !== 'setPort'),
          ...portFlags(this.#in.context, endpoint),
          ...arrival(attachment, join.interfaceName, stack),
          ...this.#mark(attachment, endpoint.id),
        ],
      }
      this.#prepareIpv6(stack, endpoint, attachment, undo)
      undo.push('take the interface out', () => this.takeOut(stack, attachment, join, endpoint))
      if (attachment.plan?.undo?.length)
        undo.push('host side', () => applyLeniently(host, attachment.plan?.undo as Change[]))
      if (
        Object.keys(sysctls).length ||
        attachment.plan?.sysctls ||
        attachment.interface.arrives === 'moved'
      ) {
        await kernel.transact([hostward])
        if (attachment.plan?.sysctls) host.setSysctls(attachment.plan.sysctls)
        stack.setSysctls({ ...this.#ipv6Of(attachment, endpoint, join.interfaceName), ...sysctls })
        await kernel.transact([{ stack, changes: inside }])
      } else await kernel.transact([hostward, { stack, changes: inside }])
    } else {
      await carryOut(host, attachment.plan, 'host side', undo)
      if (detour.length) await stack.apply(detour)
    }
    this.expect(attachment, undo)
    await this.#bandwidth.shape(endpoint)
    undo.push('services as before', () => this.#services.follow())
    this.#services.follow()
    if (!moving) {
      await this.#ports.open(endpoint, undo)
      await this.#names.announce(endpoint, undo)
    }
    const after = this.#in.elected
    undo.push('the way out as before', () => this.#wayOut.tell(after, before))
    await this.#wayOut.tell(before, after)
  }

  /** A driver elsewhere may say how its interfaces are called. */
  #rename(join: JoinRecord, { interface: made }: Attachment): void {
    if (!made?.prefix || join.options.interfaceName !== undefined) return
    const others = [...this.#in.endpoints.values()].filter(({ record }) => record.join !== join)
    join.interfaceName = lowestFree(made.prefix, new Set(others.map(other => other.interfaceName as string)))
  }

  /** A namespace that others had their hands in may have routes of its own: none may cover, or lie in, the endpoint's subnets. */
  async #refuseRoutes(endpoint: Endpoint, stack: Stack): Promise<void> {
    const addresses = addressesOf(endpoint.spec, {})
    if (this.#in.mode === 'host' || addresses.length === 0 || (this.#in.mode === 'own' && !this.#in.hadLinks))
      return
    const routes = await stack.routes({ table: MAIN_TABLE })
    refuseConflicts(
      addresses,
      routes
        .filter(({ destination, type }) => type === 'unicast' && !SPARED.has(destination))
        .map(({ destination }) => ({ address: destination, owner: 'in the namespace' })),
    )
  }

  /** From now on its absence is drift. */
  expect({ interface: { source, arrives } = {} as never }: Attachment, undo?: Undo): void {
    if (!source || arrives === 'moved') return // one that was moved in is no longer on the host
    undo?.push('expect the link no more', () => this.#in.context.wantedLinks.delete(source))
    this.#in.context.wantedLinks.add(source)
  }

  /** Says on the host's end whose it is: `ip link` shows it, and what a crash left behind can be told from what others made. */
  #mark(attachment: Attachment, endpointId: string): Change[] {
    const { arrives, source } = attachment.interface ?? {}
    return arrives === 'born' && source
      ? [{ op: 'setLink', link: source, alias: markOf(this.#in.context.name, endpointId) }]
      : []
  }

  /** A small one, as people expect of eth0. In a namespace that only we have put links in, no question to the kernel. */
  async #freeIndex(stack: Stack): Promise<number | undefined> {
    if (this.#in.mode === 'host') return undefined
    if (this.#in.mode === 'own' && !this.#in.hadLinks) {
      this.#in.hadLinks = true
      return 2 // after lo
    }
    return Math.max(...(await stack.links()).map(({ index }) => index)) + 1
  }

  /** A fresh link inherits `default`: one write there, rarely, instead of one for every link. */
  #prepareIpv6(stack: Stack, endpoint: Endpoint, attachment: Attachment, undo: Undo): void {
    if (!this.#in.context.hasIpv6 || this.#in.mode === 'host' || attachment.interface?.arrives !== 'born')
      return
    const value = this.#needsIpv6(endpoint, attachment) ? '0' : '1'
    const before = this.#in.ipv6Default
    if (before === value) return
    undo.push('default of IPv6', () => {
      stack.setSysctls({ [IPV6_DEFAULT]: before ?? '0' })
      this.#in.ipv6Default = before
    })
    stack.setSysctls({ [IPV6_DEFAULT]: value })
    this.#in.ipv6Default = value
  }

  #needsIpv6(endpoint: Endpoint, attachment: Attachment): boolean {
    return [...addressesOf(endpoint.spec, attachment), ...endpoint.spec.linkLocal].some(
      address => familyOf(address) === 6,
    )
  }

  #ipv6Of(attachment: Attachment, endpoint: Endpoint, interfaceName: string): Record<string, string> {
    if (!this.#in.context.hasIpv6) return {}
    return {
      [`net/ipv6/conf/${interfaceName}/disable_ipv6`]: this.#needsIpv6(endpoint, attachment) ? '0' : '1',
    }
  }

  async takeOut(stack: Stack, attachment: Attachment, join: JoinRecord, endpoint: Endpoint): Promise<void> {
    await applyLeniently(
      stack,
      silence({ linkLocal: [] } as never, { ...attachment, addresses: [] }, join.interfaceName, join.options),
    )
    await applyLeniently(stack, departure(attachment, join.interfaceName, this.#in.context.host))
    const gone: Change[] = this.#bandwidth.remains(endpoint, join)
    if (attachment.interface?.arrives === 'born' && !attachment.interface.source)
      gone.push({ op: 'removeLink', link: join.interfaceName, ifExists: true })
    await applyLeniently(stack, gone)
  }

  async saveJoin(endpoint: Endpoint, undo: Undo): Promise<void> {
    undo.push('record without the join', async () => {
      endpoint.record.join = undefined
      await endpoint.save()
    })
    await endpoint.save()
  }

  async driverLeaves(endpoint: Endpoint, join: JoinRecord, grace = 20): Promise<void> {
    const { attachment } = join
    if (!attachment || !this.#in.stack) return
    const { host, reaper, log, wantedLinks } = this.#in.context
    if (attachment.interface?.source) wantedLinks.delete(attachment.interface.source)
    const driver = endpoint.network.implementation
    if (this.#in.mode !== 'host')
      await applyLeniently(this.#in.stack, departure(attachment, join.interfaceName, host))
    const plan = await driver
      .leave(endpoint.network.forDriver, endpoint.spec, attachment)
      .catch((error: unknown) => {
        log.warn(`driver ${driver.name} failed to leave`, { error, endpoint: endpoint.id })
        return {}
      })
    const changes: Change[] = []
    for (const change of ('changes' in plan && plan.changes) || [])
      if (change.op === 'removeLink' && typeof change.link === 'string') {
        reaper.doom(host, change.link, grace)
        this.#doomed.add(change.link)
      } else changes.push(change)
    // There is no way back from here, and nobody comes by later for what is not a link: so once more.
    await applyLeniently(host, changes).catch(() => applyLeniently(host, changes))
    // What else paces it must not meet who comes next. Alone on a parent, which may have room for one only (macvlan
    // passthru), or for those of one kind: it goes at once.
    const { stack } = this.#in
    const alone = attachment.interface?.arrives === 'born' && !attachment.interface.source
    const gone = this.#bandwidth.remains(endpoint, join)
    if (alone) gone.push({ op: 'removeLink', link: join.interfaceName, ifExists: true })
    if (gone.length)
      await stack.apply(gone).catch(() => {
        for (const { link } of gone) reaper.doom(stack, link, grace)
      })
    if (attachment.interface?.arrives === 'born') {
      this.#leaving.add(join.interfaceName)
      setTimeout(() => this.#leaving.delete(join.interfaceName), 5_000).unref()
    }
  }
}

/** linux/rtnetlink.h RT_TABLE_MAIN */
const MAIN_TABLE = 254
/** Routes that every namespace has, or may have: the defaults, and those of IPv6's own. */
const SPARED = new Set(['0.0.0.0/0', '::/0', 'fe80::/64', 'ff00::/8'])

const IPV6_DEFAULT = 'net/ipv6/conf/default/disable_ipv6'

/** Milliseconds that the kernel may take to clear a namespace away, many at a time, before we delete its links ourselves. */
export const NAMESPACE_GRACE = 500

/** Plans refer to open stacks. What undoes them, the flags of ports and the routes of the host do not, and are stored. */
const storable = (attachment: Attachment): Attachment => {
  const kept = attachment.plan?.changes?.filter(({ op }) => op === 'setPort' || op === 'replaceRoute') ?? []
  const undo = attachment.plan?.undo
  return {
    ...attachment,
    plan: (undo || kept.length > 0 || undefined) && { undo, ...(kept.length > 0 && { changes: kept }) },
  }
}
