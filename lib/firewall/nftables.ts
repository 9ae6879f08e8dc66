import { CnmError, isCnmError } from '../base/errors'
import type { Logger } from '../base/log'
import type { Stack } from '../kernel/kernel'
import { checkedTable } from './check'
import {
  type Firewall,
  type FirewallChange,
  type FirewallLink,
  type FirewallNetwork,
  type FirewallProblem,
  goingNetworks,
  type ServedPort,
} from './contract'
import { Firewalld } from './firewalld'
import { elementChanges } from './elements'
import { foreignProblems } from './foreign'
import { Forwarding } from './forwarding'
import { Healer, type ProblemListener } from './heal'
import { DockerHooks } from './hooks'
import { type Delta, Model, type Plan } from './model'
import { nftRenderer } from './nftables/items'
import { expectedListing, type Listing, parseListing, renderCorrection } from './nftables/listing'
import { renderDelta, renderRemoval, renderTable, renderUserTable } from './nftables/text'

export interface FirewallParts {
  /** Of the table, and of whatever else is made. */
  name: string
  /** The host. */
  stack: Stack
  /** May IP forwarding be turned on? */
  ipForward: boolean
  log: Logger
  /** Socket of the bus on which firewalld is looked for; none: it is not spoken with. */
  bus?: string
}

/**
 * The firewall as one nftables table, changed by element updates through libnftables. Everything between planning a change
 * and making it the state is synchronous, so that operations cannot come between one another.
 */
export class NftablesFirewall implements Firewall {
  readonly backend = 'nftables'
  private model = new Model(nftRenderer)
  private readonly forwarding: Forwarding
  private readonly healer: Healer
  private readonly hooks: DockerHooks
  private readonly firewalld: Firewalld | undefined
  private started = false
  /** The table was found as an earlier run left it, and holds elements that the model does not know (yet). */
  private adopted = false
  /** By the proxy. */
  private served: () => readonly ServedPort[] = () => []

  constructor(private readonly parts: FirewallParts) {
    const { name, stack, log } = parts
    checkedTable(name)
    this.forwarding = new Forwarding(stack, parts.ipForward)
    this.hooks = new DockerHooks(stack, name, () => ({ links: this.links(), partial: this.adopted }))
    this.firewalld = parts.bus ? new Firewalld(name, parts.bus, log, () => this.healer.anew()) : undefined
    const table = `${name}-probe-${process.pid}`
    this.healer = new Healer({
      stack,
      log,
      owns: (family, other) => family === 'inet' && (other === name || other === `${name}-user`),
      heal: async () => this.heal(),
      foreign: () => this.lookForForeign(true),
      probe: { table, commands: `add table inet ${table}\ndelete table inet ${table}` },
    })
  }

  async start(): Promise<void> {
    const listing = this.listing()
    this.adopted =
      listing !== undefined && listing.frame === expectedListing(this.parts.name, new Map()).frame
    if (!this.adopted) this.install()
    else if (!this.userTableExists()) this.nft(renderUserTable(this.parts.name))
    this.started = true
    this.healer.start()
    await this.firewalld?.start()
    // Before the first network: it is let through from its beginning.
    await this.healer.lookAround()
  }

  async apply(change: FirewallChange): Promise<void> {
    this.mustBeStarted()
    await this.forwarding.need(change.addNetworks ?? [])
    const plan = this.model.plan(change)
    const gone = goingNetworks(change)
    const closed = this.forwarding.closeLocal(gone)
    try {
      this.take(plan)
    } catch (error) {
      this.forwarding.reopenLocal(closed)
      throw error
    }
    this.forwarding.forget(gone)
    this.forwarding.allowLocal(plan.mappings, id => this.network(id))
    this.relay([...(change.addLinks ?? []), ...(change.removeLinks ?? [])])
    if (change.addNetworks?.length || change.removeNetworks?.length) await this.neighbours()
  }

  /**
   * Normally a few elements. If the kernel refuses, the table may not be what we think it is (somebody flushed it a moment
   * ago), so the whole of it is sent once; when that is refused as well, nothing has happened.
   */
  private take(plan: Plan): void {
    if (!this.adopted)
      try {
        this.send(plan)
        plan.commit()
        return
      } catch (error) {
        if (!isCnmError(error, 'ERR_FIREWALL')) throw error
        this.parts.log.debug('the firewall refused a change; sending the whole table', { error })
      }
    const before = this.model.state()
    plan.commit()
    try {
      this.install()
      this.adopted = false
    } catch (error) {
      this.model = modelOf(before)
      throw error
    }
  }

  private send(delta: Delta): void {
    if (delta.removed.length + delta.added.length === 0) return
    const { name, stack } = this.parts
    if (stack.nftElements) stack.nftElements(name, elementChanges(delta))
    else this.nft(renderDelta(name, delta))
  }

  state(): ReturnType<Firewall['state']> {
    return this.model.state()
  }

  async reset(state: FirewallChange): Promise<void> {
    this.mustBeStarted()
    await this.forwarding.need(state.addNetworks ?? [])
    const before = this.model
    const next = new Model(nftRenderer)
    const plan = next.plan(state)
    plan.commit()
    this.model = next
    try {
      this.bring()
    } catch (error) {
      this.model = before
      throw error
    }
    this.adopted = false
    this.forwarding.allowLocal(plan.mappings, id => this.network(id))
    this.relay(state.addLinks ?? [])
    await this.neighbours()
  }

  /** Only the elements that differ are sent; a table that is as it should be is not touched. */
  private bring(): void {
    const { name } = this.parts
    const there = this.listing()
    const items = this.model.items()
    const wanted = expectedListing(name, items)
    if (there?.frame !== wanted.frame) {
      this.install()
      return
    }
    const text = renderCorrection(name, there, items)
    try {
      if (text) this.nft(text)
    } catch (error) {
      if (!isCnmError(error, 'ERR_FIREWALL')) throw error
      this.parts.log.debug('the firewall refused a correction; sending the whole table', { error })
      this.install()
      return
    }
    if (!this.userTableExists()) this.nft(renderUserTable(name))
  }

  async check(): Promise<FirewallProblem[]> {
    return [...this.missing(), ...this.forwarding.check(), ...(await this.lookForForeign(false))]
  }

  async repair(): Promise<boolean> {
    this.mustBeStarted()
    return (await this.heal()).length > 0
  }

  private heal(): FirewallProblem[] {
    const problems = this.missing()
    if (problems.length) {
      this.install()
      this.adopted = false
    }
    return [...problems, ...this.forwarding.repair()]
  }

  get foreign(): readonly FirewallProblem[] {
    return this.healer.foreign
  }

  onProblem(listener: ProblemListener): void {
    this.healer.on(listener)
  }

  async stop({ remove = false } = {}): Promise<void> {
    this.healer.stop()
    this.started = false
    if (remove) await this.firewalld?.sync([])
    this.firewalld?.stop()
    if (!remove) return
    const { addNetworks } = this.model.state()
    this.forwarding.closeLocal(addNetworks)
    this.forwarding.forget(addNetworks)
    this.nft(renderRemoval(this.parts.name))
    this.adopted = false
    await this.hooks.sync()
    this.model = new Model(nftRenderer)
  }

  private install(): void {
    const { name } = this.parts
    this.nft(`${renderTable(name, this.model.items())}\n${renderUserTable(name)}`)
  }

  /** What the kernel has of ours; undefined when the table is not there. */
  private listing(): Listing | undefined {
    try {
      return parseListing(this.nft(`list table inet ${this.parts.name}`))
    } catch (error) {
      if (isCnmError(error, 'ERR_FIREWALL') && error.details.errno === 'ENOENT') return undefined
      throw error
    }
  }

  private missing(): FirewallProblem[] {
    const { name } = this.parts
    const there = this.listing()
    const table = `inet ${name}`
    if (!there) return [missing(`the table ${table} is gone`, { table })]
    if (this.adopted) return []
    const wanted = expectedListing(name, this.model.items())
    const problems: FirewallProblem[] = []
    if (there.frame !== wanted.frame)
      problems.push(missing(`chains or rules of the table ${table} were changed`, { table }))
    for (const set of new Set([...there.elements.keys(), ...wanted.elements.keys()])) {
      const has = there.elements.get(set) ?? new Set()
      const wants = wanted.elements.get(set) ?? new Set()
      const lost = [...wants].filter(element => !has.has(element))
      const strange = [...has].filter(element => !wants.has(element))
      if (lost.length || strange.length)
        problems.push(
          missing(
            `the set ${set} of the table ${table} lacks ${lost.length} elements and has ${strange.length} strange ones`,
            {
              table,
              set,
              lost: lost.slice(0, 20),
              strange: strange.slice(0, 20),
            },
          ),
        )
    }
    if (problems.length === 0 && !this.userTableExists())
      problems.push(missing(`the table ${table}-user is gone`, { table: `${table}-user` }))
    return problems
  }

  private userTableExists(): boolean {
    try {
      this.nft(`list chain inet ${this.parts.name}-user forward`)
      return true
    } catch (error) {
      if (isCnmError(error, 'ERR_FIREWALL')) return false
      throw error
    }
  }

  /** Rules of others that drop our traffic, once those that their owners let us in by are dealt with. */
  private async lookForForeign(act: boolean): Promise<FirewallProblem[]> {
    const { name, stack } = this.parts
    return foreignProblems(
      stack,
      [name, `${name}-user`],
      this.served(),
      // firewalld rejects what is in no zone; our bridges are in one.
      async drop => this.firewalld?.minds(drop.table) === true || this.hooks.solve(drop, act),
    )
  }

  serve(ports: () => readonly ServedPort[]): void {
    this.served = ports
    this.healer.foreignSoon()
  }

  /** Those whose own rules must know our bridges. */
  private async neighbours(): Promise<void> {
    if (this.hooks.present) await this.hooks.sync()
    await this.firewalld?.sync(this.links())
  }

  private links(): string[] {
    return this.started ? [...new Set(this.model.state().addNetworks.map(network => network.link))] : []
  }

  private relay(changed: FirewallLink[]): void {
    this.forwarding.relay(
      changed.map(({ networkId }) => networkId),
      () => this.model.state().addLinks,
      id => this.network(id),
    )
  }

  private network(id: string): FirewallNetwork | undefined {
    return this.model.network(id)
  }

  private nft(commands: string): string {
    return this.parts.stack.nft(commands)
  }

  private mustBeStarted(): void {
    if (!this.started) throw new CnmError('ERR_CLOSED', `the firewall ${this.parts.name} is not started`)
  }
}

function modelOf(state: FirewallChange): Model {
  const model = new Model(nftRenderer)
  model.plan(state).commit()
  return model
}

const missing = (message: string, details: Record<string, unknown>): FirewallProblem => ({
  kind: 'missing',
  message,
  remedy: 'repair() puts it back; find out who changes the rules of this controller',
  details,
})
