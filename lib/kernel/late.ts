import type { ConntrackFilter } from './kernel'

/** Loaded at first use: most stacks never need them, and libnftables may be absent. */

export interface NftContext {
  run(commands: string): string
  close(): void
}

/** To be called inside the namespace: the context's socket belongs to where it is opened. */
export function openNft(): NftContext {
  const { Nft } = require('./nft') as typeof import('./nft')
  return new Nft()
}

type Exchange = (messages: Uint8Array, count: number) => Promise<{ data: Uint8Array; errors: number[] }>

export function flushConntrackBy(exchange: Exchange, filters: ConntrackFilter[]): Promise<number> {
  const { flushConntrack } = require('./netlink/conntrack') as typeof import('./netlink/conntrack')
  return flushConntrack(exchange, filters)
}
