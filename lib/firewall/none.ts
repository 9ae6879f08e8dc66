import type { Firewall, FirewallChange, FirewallProblem } from './contract'
import { Model, type Renderer } from './model'

/** No items at all: the model only keeps the objects. */
const NOTHING: Renderer = { network: () => [], endpoint: () => [], mapping: () => [], link: () => [] }

/** No rules: containers reach what the host routes, and published ports are carried by the userland proxy. */
export class NoFirewall implements Firewall {
  readonly backend = 'none'
  readonly foreign = []
  private model = new Model(NOTHING)

  async start(): Promise<void> {}

  async apply(change: FirewallChange): Promise<void> {
    this.model.plan(change).commit()
  }

  state(): ReturnType<Firewall['state']> {
    return this.model.state()
  }

  async reset(state: FirewallChange): Promise<void> {
    const next = new Model(NOTHING)
    next.plan(state).commit()
    this.model = next
  }

  async check(): Promise<FirewallProblem[]> {
    return []
  }

  async repair(): Promise<boolean> {
    return false
  }

  serve(): void {}

  onProblem(): void {}

  async stop(): Promise<void> {}
}
