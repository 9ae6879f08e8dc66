import type { Context } from '../context'
import type { World } from '../world'
import { HostWatch } from './host'
import { InsideWatch } from './inside'
import { Look } from './look'

/** Listens to the kernel, on the host and in the sandboxes: tells when something of ours was changed by somebody else. */
export class DriftWatch {
  readonly #look: Look
  readonly #host: HostWatch
  readonly #inside: InsideWatch

  constructor(context: Context, world: World) {
    this.#look = new Look(context, world)
    this.#host = new HostWatch(context, world, this.#look)
    this.#inside = new InsideWatch(context, world, this.#look)
  }

  async start(): Promise<void> {
    this.#inside.start()
    await this.#host.start()
  }

  stop(): void {
    this.#look.close()
    this.#host.stop()
    this.#inside.stop()
  }
}
