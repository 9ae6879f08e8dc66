import { existsSync } from 'node:fs'
import { CnmError, isCnmError } from '../base/errors'
import { type Logger, SILENT } from '../base/log'
import type { Stack } from '../kernel/kernel'
import { checkedTable } from './check'
import { DEFAULT_NAME, type Firewall } from './contract'
import { systemBus } from './firewalld'
import { closeLocal } from './forwarding'
import { IptablesFirewall, iptablesProblem, removeIptables } from './iptables'
import { NftablesFirewall } from './nftables'
import { NoFirewall } from './none'
import { chainPrefix } from './iptables/chains'
import { parseListing } from './nftables/listing'
import { renderRemoval } from './nftables/text'

export type Backend = Firewall['backend']

export interface FirewallOptions {
  /** `auto`: nftables if this process and the kernel can, else iptables if its programs are there. */
  backend: Backend | 'auto'
  /** Of the nftables table or the iptables chains; several controllers on one host have several names. Default `libcnm`. */
  name?: string
  /** The stack of the host. */
  stack: Stack
  /** May IP forwarding be turned on when a network needs it? Default: yes. */
  ipForward?: boolean
  /**
   * Socket of the bus on which firewalld is looked for. Default: the system bus, if the host is this process's own namespace
   * (another namespace has nothing to do with the firewalld of this one).
   */
  bus?: string
  log?: Logger
}

/** Chooses the backend and makes the firewall of a host; `start` puts it to work. Throws ERR_FIREWALL_UNAVAILABLE. */
export function openFirewall(options: FirewallOptions): Firewall {
  const { backend, name = DEFAULT_NAME, stack, ipForward = true, log = SILENT } = options
  checkedTable(name)
  const bus =
    options.bus ?? (stack.path === undefined && existsSync(systemBus() ?? '') ? systemBus() : undefined)
  const parts = { name, stack, ipForward, log, ...(bus === undefined ? {} : { bus }) }
  switch (backend) {
    case 'none':
      return new NoFirewall()
    case 'nftables': {
      const problem = nftablesProblem(stack)
      if (problem) throw problem
      return new NftablesFirewall(parts)
    }
    case 'iptables': {
      const problem = iptablesProblem(stack)
      if (problem) throw problem
      return new IptablesFirewall(parts)
    }
    case 'auto': {
      const first = nftablesProblem(stack)
      if (!first) return new NftablesFirewall(parts)
      const second = iptablesProblem(stack)
      if (!second) {
        log.info('firewall: iptables, because nftables cannot be used', { reason: first.message })
        return new IptablesFirewall(parts)
      }
      throw new CnmError(
        'ERR_FIREWALL_UNAVAILABLE',
        `no firewall can be used here. nftables: ${first.message}. iptables: ${second.message}`,
        { nftables: first.message, iptables: second.message },
        { cause: first },
      )
    }
  }
}

/** Why nftables cannot be used in this namespace; undefined if it can. */
export function nftablesProblem(stack: Stack): CnmError | undefined {
  try {
    stack.nft('list tables inet')
    return undefined
  } catch (error) {
    if (isCnmError(error, 'ERR_FIREWALL_UNAVAILABLE', 'ERR_PRIVILEGE')) return error
    return new CnmError(
      'ERR_FIREWALL_UNAVAILABLE',
      `the kernel does not take nftables commands (${(error as Error).message}); it needs the module nf_tables`,
      {},
      { cause: error },
    )
  }
}

/** Takes away what another backend made in an earlier run: when the recorded backend is not the one that starts now. */
export async function removeFirewall(
  backend: Backend,
  options: Omit<FirewallOptions, 'backend'>,
): Promise<void> {
  const { name = DEFAULT_NAME, stack } = options
  if (backend === 'nftables' && !nftablesProblem(stack)) {
    closeLocal(stack, nftablesLinks(stack, name))
    stack.nft(renderRemoval(name))
  }
  if (backend === 'iptables' && !iptablesProblem(stack)) await removeIptables(stack, chainPrefix(name))
}

/** The bridges that the table knows, if it is there. */
function nftablesLinks(stack: Stack, name: string): string[] {
  try {
    const known = parseListing(stack.nft(`list table inet ${name}`)).elements.get('links') ?? []
    return [...known].map(quoted => quoted.slice(1, -1))
  } catch (error) {
    if (isCnmError(error, 'ERR_FIREWALL')) return []
    throw error
  }
}
