import type { KernelEvent, LossEvent, LossWatch, Stack } from '../../kernel/kernel'
import type { Listener, Netns } from './state'

const TOPICS = new Set(['link', 'address', 'route'])

interface Followed {
  stack: Stack
  netns: Netns
  listener: Listener
}

/** What namespaces lose, as the socket filter of the real kernel's picks it out of all that they tell. */
export class MockLosses implements LossWatch {
  readonly #tell: (event: LossEvent, key: string | undefined) => void
  readonly #followed = new Map<string, Followed>()

  constructor(tell: (event: LossEvent, key: string | undefined) => void) {
    this.#tell = tell
  }

  follow(key: string, stack: Stack): void {
    if (this.#followed.get(key)?.stack === stack) return
    this.forget(key)
    const { netns } = stack as Stack & { netns: Netns }
    const up = new Set([...netns.links.values()].filter(link => link.up).map(({ index }) => index))
    const deliver = (event: KernelEvent) => {
      if (isLoss(event, up)) this.#tell(event, key)
    }
    const listener = { topics: TOPICS, deliver }
    netns.listeners.add(listener)
    this.#followed.set(key, { stack, netns, listener })
  }

  forget(key: string): void {
    const { netns, listener } = this.#followed.get(key) ?? {}
    if (listener) netns?.listeners.delete(listener)
    this.#followed.delete(key)
  }

  close(): void {
    for (const key of this.#followed.keys()) this.forget(key)
  }
}

/** `up`: indexes of links that are, as told until now. */
function isLoss(event: KernelEvent, up: Set<number>): event is LossEvent {
  if (event.topic === 'route') return event.change === 'removed' && event.route.protocol !== KERNEL
  if (event.topic !== 'link') return event.topic === 'address' && event.change === 'removed'
  const { index } = event.link
  if (event.change === 'set' && event.link.up) up.add(index)
  else return up.delete(index) || event.change === 'removed'
  return false
}

/** linux/rtnetlink.h RTPROT_KERNEL: routes that come and go with addresses. */
const KERNEL = 2
