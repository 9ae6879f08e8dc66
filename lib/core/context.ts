import type { Locks } from '../base/locks'
import type { Logger } from '../base/log'
import { isCnmError } from '../base/errors'
import type { Undo } from '../base/undo'
import type { Names, ResolverOptions, SandboxResolver } from '../dns/contract'
import type { OpenFiles } from '../dns/files/contract'
import type { Driver, Plan } from '../driver/contract'
import type { Registry } from '../driver/registry'
import type { Firewall } from '../firewall/contract'
import type { IpamDriver } from '../ipam/contract'
import type { Change, Kernel, Stack } from '../kernel/kernel'
import type { ControllerOptions } from '../options'
import type { PortPublisher } from '../ports/contract'
import type { Store } from '../store/contract'
import type { Events } from './events'
import type { Reaper } from './reaper'
import type { Warm } from './warm'

/** What a controller's nouns share: the parts, and the settings they were made with. */
export interface Context {
  readonly name: string
  readonly settings: ControllerOptions
  readonly runDir: string
  readonly kernel: Kernel
  /** The host's stack. */
  readonly host: Stack
  readonly store: Store
  readonly drivers: Registry<Driver>
  readonly ipam: Registry<IpamDriver>
  readonly firewall: Firewall
  readonly publisher: PortPublisher
  readonly names: Names
  readonly openResolver: (options: ResolverOptions) => Promise<SandboxResolver>
  readonly openFiles: OpenFiles
  readonly events: Events
  readonly locks: Locks
  readonly reaper: Reaper
  readonly warm: Warm
  /** Names of the links on the host that should be there: of networks and of joined endpoints. */
  readonly wantedLinks: Set<string>
  /** The kernel has IPv6. */
  readonly hasIpv6: boolean
  /** Keys of namespaces whose sandbox is being made. */
  readonly unborn: Set<string>
  readonly log: Logger
  /** No new operation begins any more. */
  closing: boolean
  /** Throws ERR_CLOSED while {@link closing}. */
  mustBeOpen(): void
}

/** Acts on a driver's plan; its inverse is pushed first, so that a part done is undone too. */
export async function carryOut(host: Stack, plan: Plan | undefined, what: string, undo: Undo): Promise<void> {
  if (!plan) return
  const { changes, sysctls, undo: inverse } = plan
  if (inverse?.length) undo.push(what, () => applyLeniently(host, inverse))
  if (changes?.length) await host.apply(changes)
  if (sysctls) host.setSysctls(sysctls)
}

/** What the kernel answers when the thing to be removed is not there. */
const ABSENT = new Set(['ENODEV', 'ENOENT', 'ESRCH', 'EADDRNOTAVAIL', 'ENXIO'])

export const isAbsent = (error: unknown): boolean =>
  isCnmError(error, 'ERR_LINK_NOT_FOUND', 'ERR_NETNS_NOT_FOUND') ||
  (isCnmError(error) && ABSENT.has(String(error.details.errno)))

/** Removal that does not mind what is gone already. Goes on after a failure; throws the first real one at the end. */
export async function applyLeniently(stack: Stack, changes: Change[]): Promise<void> {
  let failure: unknown
  for (const change of changes) {
    try {
      await stack.apply([change])
    } catch (error) {
      if (!isAbsent(error)) failure ??= error
    }
  }
  if (failure) throw failure
}

/** Puts things back: what is there already, or can no longer be, is no failure. Stops at the first real one. */
export async function applyTolerantly(stack: Stack, changes: Change[]): Promise<void> {
  for (const change of changes) {
    try {
      await stack.apply([change])
    } catch (error) {
      if (!isAbsent(error) && !(isCnmError(error) && error.details.errno === 'EEXIST')) throw error
    }
  }
}
