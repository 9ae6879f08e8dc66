import { join as joinPath } from 'node:path'
import type { Undo } from '../../base/undo'
import type { SandboxResolver, SandboxView } from '../../dns/contract'
import type { FollowedUpstreams, SandboxFiles } from '../../dns/files/contract'
import { linkEnvironment, linkHosts } from '../../dns/files/links'
import type { Endpoint } from '../../endpoint'
import type { Stack } from '../../kernel/kernel'
import { exposedPorts } from '../../ports/spec'
import type { Sandbox, SandboxHooks } from '../../sandbox'
import type { SandboxOptions } from '../../options'
import { dnsNames, hostsEntries, namedPorts, nameRecord } from '../names'
import type { Interior } from './interior'
import type { WayOut } from './way-out'

/** A sandbox's names: its files, its resolver, and what its endpoints are called on their networks. */
export class SandboxNames {
  readonly #in: Interior
  readonly #wayOut: WayOut
  readonly #hooks: SandboxHooks
  files: SandboxFiles | undefined
  resolver: SandboxResolver | undefined
  #upstreams: FollowedUpstreams | undefined

  constructor(interior: Interior, wayOut: WayOut, hooks: SandboxHooks) {
    this.#in = interior
    this.#wayOut = wayOut
    this.#hooks = hooks
  }

  async announce(endpoint: Endpoint, undo: Undo): Promise<void> {
    const { names } = this.#in.context
    const named = { ...identity(endpoint), aliases: endpoint.record.config.aliases }
    undo.push('forget the names', () => names.removeEndpoint(endpoint.network.id, endpoint.id))
    this.register(endpoint)
    undo.push('files as before', () => this.forgetEntries(endpoint))
    this.files?.setEntries(
      endpoint.id,
      hostsEntries(named, this.#in.hostname, this.#in.record.config.domainname),
    )
    undo.push('resolver as before', () => this.refresh())
    await this.refresh()
    for (const other of endpoint.network.endpoints())
      if (Object.values(other.record.config.links).includes(endpoint.name)) other.sandbox?.rewriteLinks()
  }

  forgetEntries(endpoint: Endpoint): void {
    this.files?.removeEntries(endpoint.id)
  }

  /** True when a network that serves names is joined. */
  get #wantsResolver(): boolean {
    return (
      this.#in.record.config.resolver &&
      this.#in.mode !== 'host' &&
      this.#in.stack !== undefined &&
      [...this.#in.endpoints.values()].some(({ network }) => this.#hooks.servesNames(network.id))
    )
  }

  async refresh(inherit = false): Promise<void> {
    const wanted = this.#wantsResolver
    if (wanted && !this.resolver)
      this.resolver = await this.#in.context.openResolver({
        names: this.#in.context.names,
        stack: this.#in.stack as Stack,
        host: this.#in.context.host,
        view: this.view(),
        inherit,
        log: this.#in.context.log,
      })
    else if (wanted) this.resolver?.update(this.view())
    else if (this.resolver) {
      const resolver = this.resolver
      this.resolver = undefined
      await resolver.close()
    }
    this.writeFiles()
  }

  /** Links to containers on networks without DNS (the default bridge): targets that are joined now. */
  #links(all = false): { parent: string; alias: string; target: Endpoint }[] {
    return [...this.#in.endpoints.values()].flatMap(({ name, network, record }) => {
      if (!all && this.#hooks.servesNames(network.id)) return []
      return Object.entries(record.config.links).flatMap(([alias, wanted]) => {
        const target = network
          .endpoints()
          .find(candidate => candidate.name === wanted || candidate.sandbox?.containerId === wanted)
        return target?.sandbox && target.address4 ? [{ parent: name, alias, target }] : []
      })
    })
  }

  /**
   * The variables that Docker's `--link` gives to the linking container, `NAME=value`: hand them to the runtime.
   * `environmentOf`: what a linked container was started with.
   */
  linkEnvironment(environmentOf: (containerId: string) => string[] = () => []): string[] {
    return this.#links(true).flatMap(link => linkEnvironment(describeLink(link, environmentOf)))
  }

  /** A container that this one links to has another address now. */
  rewriteLinks(): void {
    if (!this.#in.gone) this.writeFiles()
  }

  writeFiles(): void {
    this.files?.setDns(this.#dns)
    this.files?.setLinks(this.#links().map(link => linkHosts(describeLink(link, () => []))))
    const resolver = this.#in.mode === 'host' ? 'host' : this.resolver ? 'embedded' : 'legacy'
    this.files?.write(resolver, this.#in.context.hasIpv6) // ::1 is there on every loopback
  }

  /** The sandbox's own DNS settings, else those that came with an address, else the controller's. */
  get #dns(): SandboxOptions['dns'] {
    const { dns } = this.#in.record.config
    const { settings } = this.#in.context
    const lent = this.#wayOut.ranked().flatMap(({ spec }) => spec.settings?.dns ?? [])
    const first = (what: 'servers' | 'search') =>
      [dns, ...lent].find(each => each[what].length)?.[what] ?? settings.dns[what]
    return {
      servers: first('servers'),
      search: first('search'),
      options: dns.options.length ? dns.options : settings.dns.options,
    }
  }

  view(): SandboxView {
    const resolved = this.#upstreams?.resolvedBy(this.#dns)
    const links = Object.assign(
      {},
      ...[...this.#in.endpoints.values()].map(endpoint => endpoint.record.config.links),
    )
    return {
      sandboxId: this.#in.id,
      networks: this.#wayOut.ranked().map(({ network }) => network.id),
      links,
      upstreams: resolved?.upstreams ?? [],
      searchDomains: resolved?.search ?? [],
      ndotsFromUser: resolved?.ndotsFromUser ?? false,
      external: this.#in.elected[4] !== undefined || this.#in.elected[6] !== undefined,
    }
  }

  /** Files and, where wanted, the resolver; for a sandbox that is made or restored (then it may `inherit` rules). */
  async openNames(inherit = false): Promise<void> {
    const { config } = this.#in.record
    const { settings, openFiles, followUpstreams } = this.#in.context
    const gateway = this.#hooks.hostGateway()
    if (config.files && !this.#in.mode.startsWith('container:'))
      this.files = openFiles({
        directory: this.directory,
        hostname: this.#in.hostname,
        domainname: config.domainname,
        extraHosts: config.extraHosts,
        dns: this.#dns,
        resolvConf: settings.resolvConf,
        hostGateway: gateway,
      })
    // After the files, so that they are written when the resolver hears of it; and without files too.
    this.#upstreams = followUpstreams(settings.resolvConf, () => this.resolver?.update(this.view()))
    for (const endpoint of this.#in.endpoints.values())
      this.files?.setEntries(
        endpoint.id,
        hostsEntries({ ...identity(endpoint), aliases: [] }, this.#in.hostname, config.domainname),
      )
    await this.refresh(inherit)
  }

  get directory(): string {
    return joinPath(this.#in.context.runDir, 'files', this.#in.id.slice(0, 12))
  }

  /** Addresses of a name as this sandbox's resolver would answer it from its networks; empty when it would have to ask elsewhere. */
  resolveName(name: string, family: 4 | 6 = 4): string[] {
    return this.#hooks.resolveName(this.view(), name, family)
  }

  /** Names of an address on this sandbox's networks. */
  resolveIp(address: string): string[] {
    return this.#hooks.resolveIp(this.view(), address)
  }

  /** What its network answers for an endpoint, unless it shall not be resolved. */
  register(endpoint: Endpoint): void {
    const { aliases, disableResolution, exposed, ports } = endpoint.record.config
    if (disableResolution) return
    const named = { ...identity(endpoint), aliases }
    const { containerId, hostname, context } = this.#in
    const record = nameRecord(named, endpoint.network, dnsNames(named, containerId, hostname))
    context.names.setEndpoint({ ...record, ports: namedPorts([...exposedPorts(exposed), ...ports]) })
    if (!endpoint.healthy) context.names.setHealth(endpoint.id, false)
  }

  /** The endpoint's ports are others now: SRV records follow. */
  renew(endpoint: Endpoint): void {
    if (endpoint.record.join?.attachment) this.register(endpoint)
  }

  closeFiles(): void {
    this.#upstreams?.close()
    this.#upstreams = undefined
    this.files?.close()
  }

  async reopen(): Promise<void> {
    // The way to it may be broken: then it is made anew.
    if (this.resolver && !(await this.resolver.answers())) {
      await this.resolver.close({ keepRules: true })
      this.resolver = undefined
    }
    this.closeFiles()
    this.files = undefined
    for (const endpoint of this.#in.endpoints.values()) this.renew(endpoint)
    await this.openNames()
  }
}

const identity = (endpoint: Endpoint) => ({
  id: endpoint.id,
  name: endpoint.name,
  ipv4: endpoint.ipv4,
  ipv6: endpoint.ipv6,
})

function describeLink(
  { parent, alias, target }: { parent: string; alias: string; target: Endpoint },
  environmentOf: (containerId: string) => string[],
) {
  const sandbox = target.sandbox as Sandbox
  const { config } = target.record
  const exposed = [...exposedPorts(config.exposed), ...config.ports]
  const ports = new Map(
    exposed.map(({ containerPort, protocol }) => [
      `${containerPort}/${protocol}`,
      { port: containerPort, protocol },
    ]),
  )
  return {
    parent,
    alias,
    target: {
      name: target.name,
      hostname: sandbox.hostname,
      address: target.address4 as string,
      ports: [...ports.values()],
      environment: environmentOf(sandbox.containerId),
    },
  }
}
