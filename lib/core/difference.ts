import type { Change } from '../kernel/kernel'

/** One way in which the system is not as it should be. */
export interface Difference {
  /** What is concerned. */
  kind:
    | 'link'
    | 'address'
    | 'route'
    | 'port'
    | 'bandwidth'
    | 'sysctl'
    | 'netns'
    | 'firewall'
    | 'file'
    | 'resolver'
    | 'services'
    | 'encryption'
    | 'stray'
  problem: 'missing' | 'wrong' | 'unwanted'
  /** In words. */
  message: string
  networkId?: string
  endpointId?: string
  sandboxId?: string
  /** What would put it right. */
  fix: Fix
}

export type Fix =
  /** Changes to the host's stack or to the sandbox's. */
  | {
      by: 'changes'
      where: 'host' | 'sandbox'
      changes: Change[]
      /** Written after the changes. */
      sysctls?: Record<string, string>
    }
  | { by: 'sysctls'; where: 'host' | 'sandbox'; sysctls: Record<string, string> }
  /** The endpoint is attached afresh. */
  | { by: 'reattach' }
  | { by: 'rebuild-network' }
  | { by: 'firewall' }
  | { by: 'files' }
  | { by: 'resolver' }
  /** The rules of the sandbox's services are made anew. */
  | { by: 'services' }
  /** Rules, states and policies of encrypted networks. */
  | { by: 'encryption' }
  /** A namespace that belongs to nobody is let go. */
  | { by: 'unbind'; path: string }
  /** The namespace is gone: the sandbox can only be deleted. */
  | { by: 'delete-sandbox' }
