import type { LossEvent, LossWatch } from '../../kernel/kernel'
import type { JoinOptions } from '../../options'
import type { Sandbox } from '../../sandbox'
import type { Context } from '../context'
import { equip } from '../inside'
import type { World } from '../world'
import type { Look } from './look'

/**
 * Listens to the namespaces of sandboxes: an interface, an address or a route of ours may have been taken away in there. What
 * we take away ourselves is no longer wanted by then, and what containers have of their own never was.
 */
export class InsideWatch {
  readonly #context: Context
  readonly #world: World
  readonly #look: Look
  #losses: LossWatch | undefined

  constructor(context: Context, world: World, look: Look) {
    this.#context = context
    this.#world = world
    this.#look = look
  }

  start(): void {
    const { host, events, log } = this.#context
    try {
      this.#losses = host.watchLosses((event, id) => this.#hear(event, id))
    } catch (error) {
      log.warn('what is taken away inside sandboxes raises no drift event', { error })
      return
    }
    for (const sandbox of this.#world.sandboxes()) this.#follow(sandbox)
    events.on('*', event => {
      if (event.type === 'sandbox.create' || event.type === 'sandbox.update')
        this.#follow(this.#world.sandbox(event.sandbox.id))
      else if (event.type === 'sandbox.delete') this.#losses?.forget(event.sandbox.id)
    })
  }

  stop(): void {
    this.#losses?.close()
    this.#losses = undefined
  }

  #follow(sandbox: Sandbox | undefined): void {
    const { stack, mode, id } = sandbox ?? {}
    if (!stack || !id || mode === 'host' || mode?.startsWith('container:')) return
    if (stack.inode !== this.#context.host.inode) this.#losses?.follow(id, stack)
  }

  #hear(event: LossEvent, id: string | undefined): void {
    const sandbox = id === undefined ? undefined : this.#world.sandbox(id)
    if (event.topic === 'overrun') this.#look.atAll()
    else if (sandbox && !this.#look.isComing(sandbox) && isWanted(sandbox, event)) this.#look.at(sandbox)
  }
}

/** Should what is gone be there? */
function isWanted(sandbox: Sandbox, event: Exclude<LossEvent, { topic: 'overrun' }>): boolean {
  if (event.topic === 'link') return sandbox.endpoints().some(each => each.interfaceName === event.link.name)
  if (event.topic === 'route') {
    const { destination, gateway } = event.route
    const same = (wanted: { destination: string; gateway?: string }) =>
      wanted.destination === destination && wanted.gateway === gateway
    return (
      sandbox.wantedDefaults().some(same) ||
      changesOf(sandbox).some(change => change.op === 'addRoute' && same(change.route))
    )
  }
  const { address } = event.address
  return changesOf(sandbox).some(change => change.op === 'addAddress' && change.address === address)
}

/** What was done inside for its endpoints. */
const changesOf = (sandbox: Sandbox) =>
  sandbox
    .endpoints()
    .flatMap(({ spec, record: { join } }) =>
      join?.attachment ? equip(spec, join.attachment, join.interfaceName, join.options as JoinOptions) : [],
    )
