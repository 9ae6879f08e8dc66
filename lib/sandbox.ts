import type { InspectOptions } from 'node:util'
import { SHOWN, shown } from './base/shown'
import { z } from 'zod'
import type { Family } from './base/cidr'
import { CnmError } from './base/errors'
import { ip, parse } from './base/parse'
import { atomically, type Undo } from './base/undo'
import { type Context } from './core/context'
import type { Limits } from './core/pacing'
import type { SandboxRecord } from './core/records'
import { Bandwidth } from './core/sandbox/bandwidth'
import { Ending } from './core/sandbox/ending'
import { inspectSandbox, type SandboxInspect } from './core/sandbox/inspect'
import { Interfaces } from './core/sandbox/interfaces'
import { Interior } from './core/sandbox/interior'
import { Membership } from './core/sandbox/membership'
import { Moving } from './core/sandbox/moving'
import { SandboxNames } from './core/sandbox/names'
import { SandboxPorts } from './core/sandbox/ports'
import { SandboxServices } from './core/sandbox/services'
import { WayOut } from './core/sandbox/way-out'
import type { SandboxResolver, SandboxView } from './dns/contract'
import type { FilePaths } from './dns/files/contract'
import type { Endpoint } from './endpoint'
import type { LinkStatistics, RouteSpec, Stack } from './kernel/kernel'
import { type JoinOptions, SandboxOptions } from './options'
import type { PublishedPort } from './ports/contract'

/** The network stack of one container: a namespace, the interfaces of its endpoints, its names. Made by `controller.createSandbox`. */
export class Sandbox {
  readonly #in: Interior
  readonly #hooks: SandboxHooks
  readonly #wayOut: WayOut
  readonly #ports: SandboxPorts
  readonly #names: SandboxNames
  readonly #services: SandboxServices
  readonly #bandwidth: Bandwidth
  readonly #interfaces: Interfaces
  readonly #membership: Membership
  readonly #moving: Moving
  readonly #ending: Ending

  /** @internal */
  constructor(context: Context, record: SandboxRecord, stack: Stack | undefined, hooks: SandboxHooks) {
    this.#in = new Interior(context, record, stack)
    this.#hooks = hooks
    this.#wayOut = new WayOut(this.#in)
    this.#ports = new SandboxPorts(this.#in)
    this.#names = new SandboxNames(this.#in, this.#wayOut, hooks)
    this.#services = new SandboxServices(this.#in)
    this.#bandwidth = new Bandwidth(this.#in)
    this.#interfaces = new Interfaces(
      this.#in,
      this.#wayOut,
      this.#ports,
      this.#names,
      this.#services,
      this.#bandwidth,
    )
    this.#membership = new Membership(
      this.#in,
      this.#wayOut,
      this.#ports,
      this.#names,
      this.#services,
      this.#interfaces,
    )
    this.#moving = new Moving(this.#in, this.#names, this.#services, this.#interfaces)
    this.#ending = new Ending(
      this.#in,
      this.#wayOut,
      this.#ports,
      this.#names,
      this.#interfaces,
      this.#membership,
    )
  }

  get id(): string {
    return this.#in.record.id
  }
  get containerId(): string {
    return this.#in.record.containerId
  }
  /** `own`, `host`, `deferred` or `container:ID`. */
  get mode(): string {
    return this.#in.record.config.mode
  }
  /** Path of the network namespace, for the OCI runtime. Undefined while `deferred` and before `setKey`. */
  get key(): string | undefined {
    return this.#hooks.owner(this)?.key ?? this.#in.record.key
  }
  get hostname(): string {
    return this.#in.record.config.hostname ?? this.containerId.slice(0, 12)
  }
  get labels(): Readonly<Record<string, string>> {
    return this.#in.record.config.labels
  }
  /** To be mounted over /etc/hosts, /etc/resolv.conf and /etc/hostname. */
  get files(): FilePaths | undefined {
    return this.#hooks.owner(this)?.files ?? this.#names.files?.paths
  }
  /** The endpoints through which packets leave, per family. */
  get gateway(): { ipv4?: Endpoint; ipv6?: Endpoint } {
    const of = (family: Family) => {
      const elected = this.#in.elected[family]
      return elected && this.#in.endpoints.get(elected.endpointId)
    }
    return { ipv4: of(4), ipv6: of(6) }
  }

  /** Joined endpoints, the best gateway first. */
  endpoints(): Endpoint[] {
    return this.#wayOut.ranked()
  }

  /** @internal */
  get record(): SandboxRecord {
    return this.#in.record
  }
  /** @internal */
  get stack(): Stack | undefined {
    return this.#hooks.owner(this)?.stack ?? this.#in.stack
  }
  /** @internal */
  get resolver(): SandboxResolver | undefined {
    return this.#names.resolver
  }

  /* ------------------------------------------------------------------ joining and leaving */

  /** @internal Endpoint.join, under the locks of both. */
  async attach(endpoint: Endpoint, options: JoinOptions, undo: Undo): Promise<void> {
    this.#mustLive()
    await this.#membership.attach(endpoint, options, undo)
  }

  /** @internal Endpoint.leave, under the locks of both. */
  detach(endpoint: Endpoint): Promise<void> {
    return this.#membership.detach(endpoint)
  }

  /** @internal An endpoint that the store says is in here: taken over as it is, nothing is touched. */
  adopt(endpoint: Endpoint): Promise<void> {
    return this.#membership.adopt(endpoint)
  }

  /** @internal Makes an endpoint's interface anew, with the same name, addresses, MAC and ports. */
  reattach(endpoint: Endpoint): Promise<void> {
    return this.#exclusively(() => this.#membership.reattach(endpoint))
  }

  /* ------------------------------------------------------------------ ports and names */

  /** @internal */
  publishedBy(endpoint: Endpoint): PublishedPort[] {
    return this.#ports.publishedBy(endpoint)
  }

  /** @internal Endpoint.updatePorts: from the old reservation to the new one, keeping what is in both. */
  republish(endpoint: Endpoint, undo: Undo): Promise<void> {
    return this.#ports.republish(endpoint, undo)
  }

  /** @internal Puts limits on the endpoint's interface. */
  shape(endpoint: Endpoint, limits: Limits): Promise<void> {
    return this.#bandwidth.shape(endpoint, limits)
  }

  /** @internal What the firewall should hold for this sandbox; which are served by {@link servePorts}. */
  wantedRules(): ReturnType<SandboxPorts['wantedRules']> {
    return this.#ports.wantedRules()
  }

  /** @internal Starts what serves the published ports; after the firewall has its rules. */
  servePorts(): Promise<void> {
    return this.#ports.servePorts()
  }

  /** @internal Default routes as they should be inside. */
  wantedDefaults(): RouteSpec[] {
    return this.#wayOut.wantedDefaults()
  }

  /**
   * The variables that Docker's `--link` gives to the linking container, `NAME=value`: hand them to the runtime.
   * `environmentOf`: what a linked container was started with.
   */
  linkEnvironment(environmentOf: (containerId: string) => string[] = () => []): string[] {
    return this.#names.linkEnvironment(environmentOf)
  }

  /** @internal A container that this one links to has another address now. */
  rewriteLinks(): void {
    this.#names.rewriteLinks()
  }

  /** @internal Files and, where wanted, the resolver; for a sandbox that is made or restored (then it may `inherit` rules). */
  openNames(inherit = false): Promise<void> {
    return this.#names.openNames(inherit)
  }

  /** Addresses of a name as this sandbox's resolver would answer it from its networks; empty when it would have to ask elsewhere. */
  resolveName(name: string, family: 4 | 6 = 4): string[] {
    return this.#names.resolveName(parse(z.string(), name, 'name'), family)
  }

  /** Names of an address on this sandbox's networks; with or without a prefix length. */
  resolveIp(address: string): string[] {
    return this.#names.resolveIp(parse(ADDRESS, address, 'address'))
  }

  /** @internal The endpoint's ports are others now: SRV records follow. */
  renewNames(endpoint: Endpoint): void {
    this.#names.renew(endpoint)
  }

  /** @internal The services of its networks changed. */
  followServices(): void {
    this.#services.follow()
  }

  /** @internal Are the rules of its services as they should be? */
  servicesIntact(): boolean {
    return this.#services.intact()
  }

  /** @internal The rules of its services are made anew. */
  async repairServices(): Promise<void> {
    await this.#exclusively(async () => this.#services.restore())
  }

  /** @internal A network, or what came with an address, changed how it resolves. */
  async refreshResolver(): Promise<void> {
    if (!this.#in.gone) await this.#names.refresh()
  }

  /** @internal Files and resolver as they should be. */
  async repairNames(): Promise<void> {
    await this.#exclusively(() => this.#names.reopen())
  }

  /* ------------------------------------------------------------------ the sandbox itself */

  /**
   * Hands over the namespace that the runtime made (`/proc/PID/ns/net`), or another one: everything joined appears there.
   * Throws ERR_NETNS_NOT_FOUND, and what a join can throw; then all is as before.
   */
  async setKey(path: string): Promise<void> {
    const source = parse(z.string().startsWith('/', 'must be an absolute path'), path, 'path')
    await this.#exclusively(async () => {
      if (this.mode === 'host' || this.mode.startsWith('container:'))
        throw new CnmError(
          'ERR_INVALID_OPTION',
          `sandbox ${this.containerId} shares the namespace of another; it takes no key`,
        )
      const moved = await this.#moving.to(source)
      if (moved) this.#in.context.events.emit({ type: 'sandbox.update', sandbox: this.#ref() })
    })
  }

  /** Changes host name, DNS settings, extra hosts or labels; files and resolver follow. */
  async refresh(input: Partial<z.input<typeof SandboxOptions>>): Promise<void> {
    const given = parse(REFRESHABLE, input)
    // Only what was named: the schema fills in defaults for the rest.
    const changes = Object.fromEntries(
      Object.entries(given).filter(([field]) => input[field as keyof typeof input] !== undefined),
    )
    await this.#exclusively(async () => {
      await atomically(async undo => {
        const before = this.#in.record.config
        undo.push('old settings', async () => {
          this.#in.record.config = before
          await this.save()
          await this.#names.reopen()
        })
        this.#in.record.config = { ...before, ...changes }
        await this.save()
        await this.#names.reopen()
      })
      this.#in.context.events.emit({ type: 'sandbox.update', sandbox: this.#ref() })
    })
  }

  /** The container was renamed: its endpoints and DNS names follow. Throws ERR_ENDPOINT_EXISTS; then nothing changed. */
  async rename(name: string): Promise<void> {
    await this.#exclusively(async () => {
      await atomically(async undo => {
        for (const endpoint of this.#in.endpoints.values()) {
          const old = endpoint.name
          undo.push(`name ${old}`, () => endpoint.network.renameEndpoint(endpoint, old))
          await endpoint.network.renameEndpoint(endpoint, name)
        }
        undo.push('names as before', () => this.#names.reopen())
        await this.#names.reopen()
      })
      for (const endpoint of this.#in.endpoints.values()) endpoint.tellUpdate()
      this.#in.context.events.emit({ type: 'sandbox.update', sandbox: this.#ref() })
    })
  }

  /** Counters of the interfaces that the endpoints have inside, by interface name. */
  async statistics(): Promise<Record<string, LinkStatistics>> {
    this.#mustLive()
    if (!this.#in.stack) return {}
    const ours = new Set([...this.#in.endpoints.values()].map(({ interfaceName }) => interfaceName))
    const links = await this.#in.stack.links()
    return Object.fromEntries(
      links.filter(({ name }) => ours.has(name)).map(({ name, statistics }) => [name, statistics]),
    )
  }

  toJSON(): SandboxInspect {
    return this.inspect()
  }

  [SHOWN](_depth: number, options: InspectOptions): string {
    const { containerId, mode, key } = this
    return shown(
      'Sandbox',
      {
        containerId,
        id: this.id.slice(0, 12),
        mode,
        key,
        endpoints: this.endpoints().map(({ network, name }) => `${network.name}/${name}`),
        deleted: this.#in.gone || undefined,
      },
      options,
    )
  }

  inspect(): SandboxInspect {
    return inspectSandbox(this)
  }

  /**
   * Ends it: its endpoints leave and are deleted, its namespace and files are removed.
   * Throws ERR_SANDBOX_IN_USE while other sandboxes share its namespace, unless `force`.
   */
  async delete({ force = false }: { force?: boolean } = {}): Promise<void> {
    await this.#exclusively(async () => {
      if (this.#in.gone && !this.#in.context.closing) return
      this.#mustLive()
      const sharers = this.#hooks.sharers(this)
      if (sharers.length && !force)
        throw new CnmError(
          'ERR_SANDBOX_IN_USE',
          `sandbox ${this.containerId} is shared by ${sharers.join(', ')}`,
          { sandbox: this.id, sharers },
        )
      await this.#ending.dissolve(this.key)
      this.#hooks.forget(this)
      this.#in.context.events.emit({ type: 'sandbox.delete', sandbox: this.#ref() })
    }, true)
  }

  /** @internal The controller closes: descriptors and sockets go, the sandbox stays. */
  async release(): Promise<void> {
    await this.#names.resolver?.close({ keepRules: true })
    this.#names.resolver = undefined
    this.#names.closeFiles()
    if (this.mode !== 'host' && !this.mode.startsWith('container:')) this.#in.stack?.close()
    this.#in.stack = undefined
    this.#in.gone = true
  }

  /** @internal */
  save(): Promise<void> {
    return this.#in.save()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#in.gone) await this.delete()
  }

  /** Runs with the locks of the sandbox and, if asked, of the endpoints that are in it then. */
  async #exclusively<T>(body: () => Promise<T>, withEndpoints = false): Promise<T> {
    for (;;) {
      const held = withEndpoints ? [...this.#in.endpoints.keys()] : []
      const again = Symbol('again')
      const result = await this.#in.context.locks.runAll(
        [`sandbox ${this.id}`, ...held.map(id => `endpoint ${id}`)],
        async () => {
          if (withEndpoints && [...this.#in.endpoints.keys()].some(id => !held.includes(id))) return again
          if (this.#in.gone && !withEndpoints) this.#mustLive()
          return body()
        },
      )
      if (result !== again) return result as T
    }
  }

  #ref() {
    return { id: this.id, containerId: this.containerId }
  }

  #mustLive(): void {
    this.#in.context.mustBeOpen()
    if (this.#in.gone)
      throw new CnmError('ERR_GONE', `sandbox ${this.containerId} was deleted`, { sandbox: this.id })
  }
}

/** What a sandbox asks of its controller. */
export interface SandboxHooks {
  forget(sandbox: Sandbox): void
  /** Container ids of those that share its namespace. */
  sharers(sandbox: Sandbox): string[]
  /** The sandbox whose namespace this one shares, when it does. */
  owner(sandbox: Sandbox): Sandbox | undefined
  servesNames(networkId: string): boolean
  resolveName(view: SandboxView, name: string, family: Family): string[]
  resolveIp(view: SandboxView, address: string): string[]
  /** What `host-gateway` stands for. */
  hostGateway(): string | undefined
}

/** As `endpoint.ipv4` has it, or bare. */
const ADDRESS = z
  .string()
  .transform(text => text.replace(/\/\d+$/, ''))
  .pipe(ip())

const REFRESHABLE = SandboxOptions.pick({
  hostname: true,
  domainname: true,
  dns: true,
  extraHosts: true,
  labels: true,
}).partial()
