import type { Locks } from '../base/locks'
import type { Logger } from '../base/log'
import type {
  HostListener,
  HostListenerOptions,
  Names,
  ResolveIp,
  ResolveName,
  ResolverOptions,
  SandboxResolver,
} from '../dns/contract'
import type { FollowUpstreams, OpenFiles } from '../dns/files/contract'
import type { Driver } from '../driver/contract'
import type { Registry } from '../driver/registry'
import type { Firewall } from '../firewall/contract'
import type { IpamDriver } from '../ipam/contract'
import type { Kernel, Stack } from '../kernel/kernel'
import type { ControllerOptions } from '../options'
import type { PortPublisher } from '../ports/contract'
import type { Store } from '../store/contract'
import type { Cluster } from '../cluster/cluster'
import type { Keys } from '../cluster/keys'
import type { Events } from './events'
import type { Ingress } from './ingress'
import type { Reaper } from './reaper'
import type { Services } from './services'
import type { Spanning } from './spanning'
import type { Warm } from './warm'
import type { WaysOut } from './ways-out'

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
  readonly resolveName: ResolveName
  readonly resolveIp: ResolveIp
  readonly openHostListener: (options: HostListenerOptions) => Promise<HostListener>
  readonly openResolver: (options: ResolverOptions) => Promise<SandboxResolver>
  readonly openFiles: OpenFiles
  readonly followUpstreams: FollowUpstreams
  readonly events: Events
  readonly locks: Locks
  readonly reaper: Reaper
  readonly warm: Warm
  /** Names of the links on the host that should be there: of networks and of joined endpoints. */
  readonly wantedLinks: Set<string>
  /** The kernel has IPv6. */
  readonly hasIpv6: boolean
  /** Keys of namespaces whose sandbox is being made, and bridges whose network is being made or deleted. */
  readonly unborn: Set<string>
  readonly log: Logger
  /** This host's place in a cluster. */
  readonly cluster?: Cluster
  /** Of encrypted networks; there when {@link cluster} is. */
  readonly keys?: Keys
  /** Networks that span hosts; there when {@link cluster} is, from the controller's start on. */
  spanning?: Spanning
  /** The stored state is back: global addresses are from now on asked of the cluster. */
  readonly joinCluster?: () => void
  /** There from the controller's start on. */
  services?: Services
  /** Published ports of services; there from the controller's start on. */
  ingress?: Ingress
  /** Ways out for sandboxes whose networks have none. */
  waysOut?: WaysOut
  /** No new operation begins any more. */
  closing: boolean
  /** Throws ERR_CLOSED while {@link closing}. */
  mustBeOpen(): void
}

export { applyLeniently, applyTolerantly, carryOut, isAbsent } from '../driver/carry-out'
