import type { KernelEvent, Topic } from '../kernel'
import { decodeAddress } from './address'
import {
  NFNL_SUBSYS_NFTABLES,
  NFNLGRP_NFTABLES,
  NFT_MSG_NEWGEN,
  NFTA_GEN_PROC_PID,
  NFTA_TABLE,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELNEIGH,
  RTM_DELROUTE,
  RTM_DELRULE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
  RTM_NEWRULE,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_IPV6_RULE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
} from './constants'
import { decodeLink } from './link'
import { Messages } from './message'
import { decodeNeighbour } from './neighbour'
import { decodeRoute } from './route'
import { decodeRule } from './rule'

/** The multicast groups of NETLINK_ROUTE in which the topic is told. */
export const ROUTE_GROUPS: Record<Exclude<Topic, 'nft' | 'ipsec'>, number[]> = {
  link: [RTNLGRP_LINK],
  address: [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR],
  route: [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE],
  rule: [RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE],
  neighbour: [RTNLGRP_NEIGH],
}
export const NFT_GROUPS = [NFNLGRP_NFTABLES]

const set = (is: boolean): 'set' | 'removed' => (is ? 'set' : 'removed')

/** The event that a multicast message of NETLINK_ROUTE tells; undefined when it is none of ours. */
export function decodeEvent(message: Messages): KernelEvent | undefined {
  switch (message.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const link = decodeLink(message)
      return link && { topic: 'link', change: set(message.type === RTM_NEWLINK), link }
    }
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const address = decodeAddress(message)
      return address && { topic: 'address', change: set(message.type === RTM_NEWADDR), address }
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const route = decodeRoute(message)
      return route && { topic: 'route', change: set(message.type === RTM_NEWROUTE), route }
    }
    case RTM_NEWRULE:
    case RTM_DELRULE: {
      const rule = decodeRule(message)
      return rule && { topic: 'rule', change: set(message.type === RTM_NEWRULE), rule }
    }
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: {
      const neighbour = decodeNeighbour(message)
      return neighbour && { topic: 'neighbour', change: set(message.type === RTM_NEWNEIGH), neighbour }
    }
    default:
      return undefined
  }
}

type NftEvent = Extract<KernelEvent, { topic: 'nft' }>

/** linux/netfilter/nf_tables.h enum nf_tables_msg_types: the messages that tell of something new, and of its end. */
const NFT_OBJECTS: Record<number, [object: string, change: 'set' | 'removed']> = {
  0: ['table', 'set'],
  2: ['table', 'removed'],
  3: ['chain', 'set'],
  5: ['chain', 'removed'],
  6: ['rule', 'set'],
  8: ['rule', 'removed'],
  9: ['set', 'set'],
  11: ['set', 'removed'],
  12: ['element', 'set'],
  14: ['element', 'removed'],
  15: ['generation', 'set'],
  18: ['object', 'set'],
  20: ['object', 'removed'],
  22: ['flowtable', 'set'],
  24: ['flowtable', 'removed'],
}

/** linux/netfilter.h NFPROTO_*, in nft's words. */
const NFT_FAMILIES: Record<number, string> = {
  0: 'unspec',
  1: 'inet',
  2: 'ip',
  3: 'arp',
  5: 'netdev',
  7: 'bridge',
  10: 'ip6',
}

export function decodeNftEvent(message: Messages): NftEvent | undefined {
  const kind = NFT_OBJECTS[message.type & 0xff]
  if (message.type >> 8 !== NFNL_SUBSYS_NFTABLES || kind === undefined || message.size < 4) return undefined
  const family = message.u8(0) // struct nfgenmsg
  const event: NftEvent = {
    topic: 'nft',
    change: kind[1],
    object: kind[0],
    family: NFT_FAMILIES[family] ?? String(family),
  }
  const generation = (message.type & 0xff) === NFT_MSG_NEWGEN
  const attributes = message.attributes(4)
  while (attributes.next())
    if (!generation && attributes.type === NFTA_TABLE) event.table = attributes.text()
    else if (generation && attributes.type === NFTA_GEN_PROC_PID) event.pid = attributes.u32be()
  return event
}

/**
 * The kernel tells who changed the ruleset only in the last message of a transaction (the new generation). So the events of
 * a transaction are held back until that comes, and each is told with the process id.
 */
export class NftTransactions {
  private held: NftEvent[] = []

  constructor(private readonly tell: (event: NftEvent) => void) {}

  get waiting(): boolean {
    return this.held.length > 0
  }

  receive(data: Uint8Array): void {
    const messages = new Messages(data)
    while (messages.next()) {
      const event = decodeNftEvent(messages)
      if (!event) continue
      this.held.push(event)
      if (event.object === 'generation') this.flush(event.pid)
    }
  }

  /** Tells what was held back, with or without knowing the process. */
  flush(pid?: number): void {
    const events = this.held
    this.held = []
    for (const event of events) {
      if (pid !== undefined) event.pid = pid
      this.tell(event)
    }
  }
}
