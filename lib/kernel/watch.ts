import type { Binding } from './binding'
import { systemError } from './errors'
import type { KernelEvent, Topic, Watch } from './kernel'
import { NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM } from './netlink/constants'
import { decodeEvent, NFT_GROUPS, NftTransactions, ROUTE_GROUPS } from './netlink/events'
import { Messages } from './netlink/message'
import { isIpsecRemoval, XFRM_GROUPS } from './netlink/xfrm'

/** Milliseconds after which the events of a ruleset transaction are told although its end was not heard. */
const PATIENCE = 50

/** Listens to the multicast groups of a namespace: at most one socket for links, addresses ..., one for the ruleset, one for IPsec. */
export function watchNetns(
  binding: Binding,
  ns: number,
  topics: readonly Topic[],
  listener: (event: KernelEvent) => void,
): Watch {
  const sources: { close(): void }[] = []
  let closed = false
  const tell = (event: KernelEvent): void => {
    if (!closed) listener(event)
  }
  const close = (): void => {
    if (closed) return
    closed = true
    for (const source of sources) source.close()
  }
  try {
    const groups = topics.flatMap(topic => (topic === 'nft' || topic === 'ipsec' ? [] : ROUTE_GROUPS[topic]))
    if (groups.length > 0) sources.push(watchRoute(binding, ns, groups, tell))
    if (topics.includes('nft')) sources.push(watchRuleset(binding, ns, tell))
    if (topics.includes('ipsec')) sources.push(watchIpsec(binding, ns, tell))
  } catch (error) {
    close()
    throw systemError(error, `watch ${topics.join(', ')}`, { topics })
  }
  return { close }
}

type Tell = (event: KernelEvent) => void

function watchRoute(binding: Binding, ns: number, groups: number[], tell: Tell): Watch {
  return binding.subscribe(ns, NETLINK_ROUTE, groups, data => {
    if (data === null) {
      tell({ topic: 'overrun' })
      return
    }
    const messages = new Messages(data)
    while (messages.next()) {
      const event = decodeEvent(messages)
      if (event) tell(event)
    }
  })
}

function watchIpsec(binding: Binding, ns: number, tell: Tell): Watch {
  return binding.subscribe(ns, NETLINK_XFRM, XFRM_GROUPS, data => {
    if (data === null) return tell({ topic: 'overrun' })
    const messages = new Messages(data)
    while (messages.next()) if (isIpsecRemoval(messages)) tell({ topic: 'ipsec', change: 'removed' })
  })
}

function watchRuleset(binding: Binding, ns: number, tell: Tell): Watch {
  const transactions = new NftTransactions(tell)
  let timer: NodeJS.Timeout | undefined
  const subscription = binding.subscribe(ns, NETLINK_NETFILTER, NFT_GROUPS, data => {
    clearTimeout(timer)
    if (data === null) {
      transactions.flush()
      tell({ topic: 'overrun' })
      return
    }
    transactions.receive(data)
    if (transactions.waiting) timer = setTimeout(() => transactions.flush(), PATIENCE).unref()
  })
  return {
    close: () => {
      clearTimeout(timer)
      subscription.close()
    },
  }
}
