/** Drivers that reach other hosts by ways of their own are told which hosts the cluster has. */
import type { Cluster } from '../cluster/cluster'
import type { Driver, ClusterNode } from '../driver/contract'
import type { Context } from './context'
import { tellProblem } from './problem'

/** What a driver knows, and whether somebody is telling it. */
interface Listener {
  readonly told: Map<string, ClusterNode>
  busy?: Promise<void>
}

/** State, not events: a driver is told what differs from what it was told, one host after the other, itself first. */
export class Discovery {
  readonly #context: Context
  readonly #cluster: Cluster
  readonly #listeners = new Map<Driver, Listener>()

  constructor(context: Context, cluster: Cluster) {
    this.#context = context
    this.#cluster = cluster
  }

  /** The hosts may have changed, or the drivers. Nobody waits: a plugin may take its time. */
  follow(): void {
    const drivers = this.#context.drivers.values().filter(isConcerned)
    for (const driver of this.#listeners.keys()) if (!drivers.includes(driver)) this.#listeners.delete(driver)
    for (const driver of drivers) {
      const listener = this.#listeners.get(driver) ?? { told: new Map<string, ClusterNode>() }
      this.#listeners.set(driver, listener)
      if (!listener.busy && this.#next(listener.told)) listener.busy = this.#tell(driver, listener)
    }
  }

  async #tell(driver: Driver, listener: Listener): Promise<void> {
    const { told } = listener
    try {
      for (let next = this.#next(told); next && !this.#context.closing; next = this.#next(told)) {
        const { change, name, node } = next
        await driver.discover?.(change, node)
        if (change === 'new') told.set(name, node)
        else told.delete(name)
      }
    } catch (error) {
      tellProblem(this.#context, `driver ${driver.name} cannot be told which hosts there are`, error)
    } finally {
      listener.busy = undefined
    }
  }

  #next(
    told: Map<string, ClusterNode>,
  ): { change: 'new' | 'delete'; name: string; node: ClusterNode } | undefined {
    const self = this.#cluster.host.name
    const hosts = new Map(this.#cluster.all('host').map(({ name, address }) => [name, address]))
    if (!told.has(self) && !hosts.has(self)) return undefined
    for (const [name, node] of told)
      if (hosts.get(name) !== node.address) return { change: 'delete', name, node }
    const names = [...hosts.keys()].sort((a, b) => Number(b === self) - Number(a === self))
    for (const name of names)
      if (!told.has(name))
        return { change: 'new', name, node: { address: hosts.get(name) as string, self: name === self } }
    return undefined
  }

  /** Until nobody is being told anything. */
  async idle(): Promise<void> {
    await Promise.all([...this.#listeners.values()].map(({ busy }) => busy))
  }
}

const isConcerned = ({ discover, capabilities }: Driver): boolean =>
  discover !== undefined && capabilities.connectivityScope === 'global'
