/**
 * Published ports of services, on every host and to any task: a sandbox of our own on each host that publishes services.
 * It is on the gateway bridge, where the host's ports lead to it, and on each network that has such services, where it
 * balances as every sandbox does. Tasks see its address, so their answers come back by it. State, not events: whatever
 * changes, what should be is compared with what is.
 */
import { CnmError, isCnmError } from '../base/errors'
import type { Endpoint } from '../endpoint'
import type { Network } from '../network'
import type { SandboxInput } from '../options'
import type { PortBinding } from '../ports/contract'
import type { Sandbox } from '../sandbox'
import type { Context } from './context'
import { tellProblem } from './problem'
import type { ServiceRecord } from './records'
import { INGRESS_LABEL } from './ways-out'

export interface IngressWorld {
  networkById(id: string): Network | undefined
  sandboxes(): Sandbox[]
  makeSandbox(input: SandboxInput): Promise<Sandbox>
}

/** A port that this host could not publish. */
export interface Refusal {
  /** `8080/tcp` */
  port: string
  error: unknown
}

/** Milliseconds until a port that could not be had is tried again. */
const RETRY = 2_000

export class Ingress {
  readonly #context: Context
  readonly #world: IngressWorld
  #work: Promise<unknown> = Promise.resolve()
  #again = false
  /** Ports that are known not to be had here. */
  #told = new Set<string>()
  #retry: NodeJS.Timeout | undefined

  constructor(context: Context, world: IngressWorld) {
    this.#context = context
    this.#world = world
  }

  /** Brings this host to what the services want published, after what is under way. Resolves to what could not be had. */
  follow(): Promise<Refusal[]> {
    const next = this.#work.then(() => this.#follow())
    this.#work = next.catch(() => {})
    return next
  }

  /** The same in the background. Changes that come together are followed together. */
  followLater(): void {
    if (this.#again || (!this.#sandbox && this.#published().length === 0)) return
    this.#again = true
    this.#work = this.#work
      .then(async () => {
        this.#again = false
        if (this.#context.closing) return
        this.#tell(await this.#follow())
      })
      .catch((error: unknown) =>
        tellProblem(this.#context, 'the published ports of services cannot be followed', error),
      )
  }

  /** Each once, as long as it lasts; and it is tried again, since whoever has the port may let it go. */
  #tell(refused: Refusal[]): void {
    for (const { port, error } of refused)
      if (!this.#told.has(port))
        tellProblem(this.#context, `port ${port} of a service cannot be published on this host`, error)
    this.#told = new Set(refused.map(({ port }) => port))
    clearTimeout(this.#retry)
    if (refused.length) this.#retry = setTimeout(() => this.followLater(), RETRY).unref()
  }

  async idle(): Promise<void> {
    await this.#work
  }

  #published(): { record: ServiceRecord; binding: PortBinding }[] {
    return (this.#context.services?.all() ?? []).flatMap(record =>
      record.ports.flatMap(({ publishedPort, protocol, mode }) =>
        publishedPort !== undefined && mode === 'ingress'
          ? [{ record, binding: { containerPort: publishedPort, hostPort: publishedPort, protocol } }]
          : [],
      ),
    )
  }

  get #sandbox(): Sandbox | undefined {
    return this.#world.sandboxes().find(({ labels }) => labels[INGRESS_LABEL] !== undefined)
  }

  async #follow(): Promise<Refusal[]> {
    if (this.#context.services?.blind) return [] // with the first connection
    const published = this.#published()
    if (published.length === 0) {
      await this.#sandbox?.delete({ force: true })
      return []
    }
    const sandbox = this.#sandbox ?? (await this.#make())
    const wanted = new Set(published.map(({ record }) => record.networkId))
    const door = await this.#join(sandbox, await this.#gatewayNetwork(), true)
    const present = new Set<string>()
    for (const endpoint of sandbox.endpoints())
      if (endpoint === door) continue
      else if (wanted.has(endpoint.network.id)) present.add(endpoint.network.id)
      else await endpoint.delete({ force: true })
    for (const id of wanted) {
      const network = this.#world.networkById(id)
      if (network && !present.has(id)) await this.#join(sandbox, network, false)
    }
    // Which ports come in here may differ though the networks are the same.
    sandbox.followServices()
    return this.#publish(
      door,
      published.map(({ binding }) => binding),
    )
  }

  async #make(): Promise<Sandbox> {
    const sandbox = await this.#world.makeSandbox({
      containerId: `${this.#context.name}-ingress`,
      labels: { [INGRESS_LABEL]: '' },
      files: false,
      resolver: false,
    })
    sandbox.stack?.setSysctls({
      'net/ipv4/ip_forward': '1',
      ...(this.#context.hasIpv6 && { 'net/ipv6/conf/all/forwarding': '1' }),
    })
    return sandbox
  }

  #gatewayNetwork(): Promise<Network> {
    const { waysOut } = this.#context
    if (!waysOut) throw new CnmError('ERR_INTERNAL', 'there are no ways out yet')
    return waysOut.network()
  }

  /** Its endpoint on the network, made and joined if it is not. `door`: the one where packets from outside come in. */
  async #join(sandbox: Sandbox, network: Network, door: boolean): Promise<Endpoint> {
    const name = `ingress_${this.#context.cluster?.host.name ?? this.#context.name}`
    const known = network.endpoints().find(endpoint => endpoint.labels[INGRESS_LABEL] !== undefined)
    const endpoint =
      known ??
      (await network.createEndpoint({ name, disableResolution: true, labels: { [INGRESS_LABEL]: '' } }))
    if (endpoint.sandbox) return endpoint
    try {
      await endpoint.join(sandbox, { priority: door ? 1_000_000 : 0 })
    } catch (error) {
      await endpoint.delete({ force: true })
      throw error
    }
    return endpoint
  }

  /** All at once; if there is one among them that cannot be had, one by one. */
  async #publish(door: Endpoint, bindings: PortBinding[]): Promise<Refusal[]> {
    const text = ({ hostPort, protocol }: PortBinding) => `${hostPort}/${protocol}`
    const before = door.record.config.ports
    const had = new Set(before.map(text))
    if (bindings.length === had.size && bindings.every(binding => had.has(text(binding)))) return []
    try {
      await door.updatePorts(bindings)
      return []
    } catch (error) {
      if (!isCnmError(error, 'ERR_PORT_IN_USE')) throw error
    }
    const kept = bindings.filter(binding => had.has(text(binding)))
    await door.updatePorts(kept)
    const refused: Refusal[] = []
    for (const binding of bindings) {
      if (kept.includes(binding)) continue
      try {
        await door.updatePorts([...kept, binding])
        kept.push(binding)
      } catch (error) {
        refused.push({ port: text(binding), error })
      }
    }
    return refused
  }
}
