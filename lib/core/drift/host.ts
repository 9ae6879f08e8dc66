import { overlaps, parseCidr } from '../../base/cidr'
import type { KernelEvent, Link, Route, Rule, Watch } from '../../kernel/kernel'
import { LOCAL_TABLE, MAIN_TABLE, shadowed } from '../../ipam/host'
import type { Look } from './look'
import type { World } from '../world'
import type { Context } from '../context'

/** Listens to the host: something of ours may have been changed by somebody else, or a route now covers a network. */
export class HostWatch {
  readonly #context: Context
  readonly #world: World
  readonly #look: Look
  #watch: Watch | undefined
  /** Links of the host by index, as the events tell them: a route's link is told before the route. */
  readonly #links = new Map<number, Link>()

  constructor(context: Context, world: World, look: Look) {
    this.#context = context
    this.#world = world
    this.#look = look
  }

  async start(): Promise<void> {
    this.#watch = this.#context.host.watch(['link', 'address', 'route', 'rule'], event => this.#hear(event))
    for (const link of await this.#context.host.links())
      if (!this.#links.has(link.index)) this.#links.set(link.index, link)
  }

  stop(): void {
    this.#watch?.close()
    this.#watch = undefined
  }

  #hear(event: KernelEvent): void {
    const before = event.topic === 'link' ? this.#links.get(event.link.index) : undefined
    if (event.topic === 'link') {
      if (event.change === 'set') this.#links.set(event.link.index, event.link)
      else {
        this.#links.delete(event.link.index)
        this.#context.reaper.gone(this.#context.host, event.link.name)
      }
    }
    if (event.topic === 'route') {
      if (event.change === 'set') this.#weigh(event.route)
      else if (event.route.table === MAIN_TABLE && this.#isWanted(event.route.link)) this.#look.atAll()
    } else if (event.topic === 'rule') {
      if (event.change === 'set') void this.#follow(event.rule)
    } else if (event.topic === 'overrun' || this.#concerns(event, before)) this.#look.atAll()
  }

  /** Only what takes something of ours away, or changes it. `before`: the link until now. */
  #concerns(event: KernelEvent, before: Link | undefined): boolean {
    if (event.topic === 'link') {
      const { name, up, carrier, kind } = event.link
      // A pair loses its carrier when the end in the sandbox goes down; a bridge, when its last port has left.
      const lost = kind !== 'bridge' && before?.carrier === true && !carrier
      if (event.change === 'set' && up && !lost) return false
      return this.#context.wantedLinks.has(name)
    }
    return event.topic === 'address' && event.change === 'removed' && this.#isWanted(event.address.link)
  }

  #isWanted(link: number | undefined): boolean {
    const name = link === undefined ? undefined : this.#links.get(link)?.name
    return name !== undefined && this.#context.wantedLinks.has(name)
  }

  /** A new route: whether one outside the main table takes anything is for the rules to say. */
  #weigh(route: Route): void {
    // Each new link brings some of these, and they lead nowhere but to its neighbours.
    if (/^(fe80|ff[0-9a-f]{2}):/.test(route.destination) || !this.#touches(route)) return
    if (route.table === MAIN_TABLE) this.#tell([route], [])
    else void this.#later(async () => this.#tell([route], await this.#context.host.rules()))
  }

  /** Is it somebody else's, and does it overlap a subnet of ours? The kernel is asked for its rules only then. */
  #touches({ table, destination, link }: Route): boolean {
    if (table === LOCAL_TABLE) return false // an address of the host itself, which every gateway has
    const networks = this.#networks()
    const name = link === undefined ? undefined : this.#links.get(link)?.name
    if (name !== undefined && networks.some(({ hostLinks }) => hostLinks.includes(name))) return false
    const claim = parseCidr(destination)
    return networks.some(({ ipam }) => ipam.some(({ subnet }) => overlaps(parseCidr(subnet), claim)))
  }

  /** A new rule: from now on the routes of its table may take what they did not take before. */
  #follow({ family, table }: Rule): Promise<void> {
    if (table === MAIN_TABLE || !this.#networks().length) return Promise.resolve()
    return this.#later(async () => {
      const { host } = this.#context
      const [routes, rules] = await Promise.all([host.routes(), host.rules()])
      const led = routes.filter(route => route.table === table && route.family === family)
      this.#tell(led, rules)
    })
  }

  #networks() {
    return this.#world.networks().filter(({ ipam }) => ipam.length)
  }

  #tell(routes: readonly Route[], rules: readonly Rule[]): void {
    const networks = this.#networks()
    const candidates = networks.map(({ id, name, ipam }) => ({
      id,
      name,
      subnets: ipam.map(({ subnet }) => subnet),
    }))
    // Our own bridges have routes to our subnets, too.
    const own = networks.flatMap(({ hostLinks }) => hostLinks)
    const links = [...this.#links.values()]
    for (const each of routes)
      for (const { network, subnet, route } of shadowed(candidates, each, rules, own, links)) {
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

  async #later(act: () => Promise<void>): Promise<void> {
    try {
      await act()
    } catch (error) {
      if (this.#watch)
        this.#context.events.emit({
          type: 'problem',
          message: 'cannot see whether a new route of the host takes the traffic of a network',
          error,
        })
    }
  }
}
