import type { KernelEvent, Link, Watch } from '../kernel/kernel'
import { shadowed } from '../ipam/host'
import { check, type World } from './check'
import type { Context } from './context'

/** Milliseconds. Several events mostly come together. */
const PAUSE = 50

/** Listens to the kernel: tells when something of ours was changed by somebody else, or a route now covers a network. */
export class DriftWatch {
  readonly #context: Context
  readonly #world: World
  #watch: Watch | undefined
  #timer: NodeJS.Timeout | undefined
  #running = false
  /** Links of the host by index, as the events tell them: a route's link is told before the route. */
  readonly #links = new Map<number, Link>()

  constructor(context: Context, world: World) {
    this.#context = context
    this.#world = world
  }

  async start(): Promise<void> {
    this.#watch = this.#context.host.watch(['link', 'address', 'route'], event => this.#hear(event))
    for (const link of await this.#context.host.links())
      if (!this.#links.has(link.index)) this.#links.set(link.index, link)
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#watch?.close()
    this.#watch = undefined
  }

  #hear(event: KernelEvent): void {
    if (event.topic === 'link') {
      if (event.change === 'set') this.#links.set(event.link.index, event.link)
      else {
        this.#links.delete(event.link.index)
        this.#context.reaper.gone(this.#context.host, event.link.name)
      }
    }
    if (event.topic === 'route') this.#look(event)
    else if (event.topic === 'overrun' || this.#concerns(event)) this.#arm()
  }

  /** Only what takes something of ours away, or changes it. */
  #concerns(event: KernelEvent): boolean {
    if (event.topic === 'link') {
      const { name, up } = event.link
      if (event.change === 'set' && up) return false
      return this.#context.wantedLinks.has(name)
    }
    if (event.topic !== 'address' || event.change !== 'removed') return false
    return this.#context.wantedLinks.has(this.#links.get(event.address.link)?.name ?? '')
  }

  #look(event: KernelEvent): void {
    const networks = this.#world.networks().filter(({ ipam }) => ipam.length)
    const candidates = networks.map(({ id, name, ipam }) => ({
      id,
      name,
      subnets: ipam.map(({ subnet }) => subnet),
    }))
    if (shadowed(candidates, event).length === 0) return
    // Our own bridges have routes to our subnets, too.
    const own = networks.flatMap(({ hostLinks }) => hostLinks)
    for (const { network, subnet, route, loser } of shadowed(candidates, event, own, [
      ...this.#links.values(),
    ])) {
      // A wider route that only leads past the network takes nothing from it.
      if (loser !== 'network') continue
      const found = networks.find(({ id }) => id === network)
      if (found)
        this.#context.events.emit({
          type: 'network.shadowed',
          network: { id: found.id, name: found.name, driver: found.driver },
          subnet,
          route,
        })
    }
  }

  #arm(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      void this.#check()
    }, PAUSE).unref()
  }

  async #check(): Promise<void> {
    if (this.#running || !this.#watch) return
    this.#running = true
    try {
      const differences = (await check(this.#context, this.#world)).filter(({ kind }) => kind !== 'firewall')
      if (differences.length && this.#watch) this.#context.events.emit({ type: 'drift', differences })
    } catch (error) {
      if (this.#watch)
        this.#context.events.emit({
          type: 'problem',
          message: 'cannot compare the kernel with the desired state',
          error,
        })
    } finally {
      this.#running = false
    }
  }
}
