import { type Family, familyOf, formatIp, parseIp } from '../base/cidr'
import { CnmError } from '../base/errors'
import type {
  Address,
  Change,
  ConntrackFilter,
  IpsecPolicy,
  IpsecState,
  KernelEvent,
  Link,
  LossEvent,
  LossWatch,
  Neighbour,
  Route,
  Rule,
  Shaper,
  SocketOptions,
  Stack,
  Survey,
  Topic,
  Watch,
} from '../kernel/kernel'
import { asked } from './asked'
import type { MockKernel } from './mock-kernel'
import { restartIpv6, showAddress, showLink, showRoute, stopIpv6 } from './model'
import { findLink } from './model/links'
import { MockLosses } from './model/losses'
import { allRoutes, lookup } from './model/routes'
import { bindSocket } from './model/sockets'
import type { Listener, Netns } from './model/state'
import { readSysctl, writeSysctl } from './model/sysctls'

/** The handle of a namespace of a {@link MockKernel}: what a `Stack` of the real kernel is, in memory. */
export class MockStack implements Stack {
  private closed = false
  private readonly watches = new Set<Listener>()

  constructor(
    private readonly kernel: MockKernel,
    /** The model behind it, for the kernel's own use; tests look through {@link MockKernel.netns}. */
    readonly netns: Netns,
    public path: string | undefined,
  ) {
    netns.holders++
  }

  get inode(): number {
    return this.netns.inode
  }

  /** @internal */
  isOf(kernel: MockKernel): boolean {
    return this.kernel === kernel
  }

  apply(changes: Change[]): Promise<void> {
    return this.kernel.transact([{ stack: this, changes }])
  }

  links(): Promise<Link[]> {
    return this.ask('links', {}, () => [...this.netns.links.values()].map(showLink))
  }

  link(nameOrIndex: string | number): Promise<Link | undefined> {
    return this.ask('link', { link: nameOrIndex }, () => {
      const link = findLink(this.netns, nameOrIndex)
      return link && showLink(link)
    })
  }

  addresses(link?: number): Promise<Address[]> {
    return this.ask('addresses', { link }, () =>
      [...this.netns.links.values()]
        .filter(each => link === undefined || each.index === link)
        .flatMap(each => each.addresses.map(record => showAddress(each, record))),
    )
  }

  routes(filter: { family?: Family; table?: number } = {}): Promise<Route[]> {
    return this.ask('routes', { filter }, () =>
      allRoutes(this.netns)
        .filter(
          route =>
            (filter.family === undefined || route.family === filter.family) &&
            (filter.table === undefined || route.table === filter.table),
        )
        .map(showRoute),
    )
  }

  async survey(): Promise<Survey> {
    const [links, addresses, routes] = await Promise.all([this.links(), this.addresses(), this.routes()])
    return { links, addresses, routes }
  }

  /** With the three IPv4 and two IPv6 rules that every namespace begins with. */
  rules(): Promise<Rule[]> {
    return this.ask('rules', {}, () =>
      [
        ...[0, 32766, 32767].map(
          (priority, i): Rule => ({ family: 4, priority, table: [255, 254, 253][i]! }),
        ),
        ...[0, 32766].map((priority, i): Rule => ({ family: 6, priority, table: [255, 254][i]! })),
        ...this.netns.rules.map(rule => ({ ...rule })),
      ].sort((a, b) => a.family - b.family || a.priority - b.priority),
    )
  }

  neighbours(filter: { link?: number; bridge?: boolean } = {}): Promise<Neighbour[]> {
    return this.ask('neighbours', { filter }, () => {
      const found: Neighbour[] = []
      for (const link of this.netns.links.values()) {
        if (filter.link !== undefined && link.index !== filter.link) continue
        if (filter.bridge)
          for (const { mac, remote, self } of link.fdb)
            found.push({
              link: link.index,
              mac,
              permanent: true,
              self,
              ...(remote !== undefined && { address: remote }),
            })
        else
          for (const { address, mac } of link.neighbours.values())
            found.push({ link: link.index, address, mac, permanent: true })
      }
      return found
    })
  }

  shapers(): Promise<Shaper[]> {
    return this.ask('shapers', {}, () =>
      [...this.netns.links.values()].flatMap(({ index, shaper, ingressMirror }) =>
        shaper || ingressMirror
          ? [
              {
                link: index,
                ...(shaper && { bitsPerSecond: shaper.bitsPerSecond }),
                ...(ingressMirror && { mirror: ingressMirror.index }),
              },
            ]
          : [],
      ),
    )
  }

  ipsecStates(): Promise<IpsecState[]> {
    return this.ask('ipsecStates', {}, () =>
      this.netns.ipsecStates.map(({ key: _, ...state }) => ({ packets: 0, ...state })),
    )
  }

  ipsecPolicies(): Promise<IpsecPolicy[]> {
    return this.ask('ipsecPolicies', {}, () => this.netns.ipsecPolicies.map(policy => ({ ...policy })))
  }

  routeTo(destination: string): Promise<Route | undefined> {
    return this.ask('routeTo', { destination }, () => {
      const ip = formatIp(parseIp(destination))
      const route = lookup(this.netns, ip)
      if (!route || ['blackhole', 'unreachable', 'prohibit'].includes(route.type)) return undefined
      return showRoute(route)
    })
  }

  sysctl(key: string): string | undefined {
    this.check()
    return readSysctl(this.kernel.machine, this.netns, key)
  }

  setSysctls(values: Record<string, string>): void {
    for (const [key, value] of Object.entries(values))
      this.kernel.act(
        this,
        'setSysctl',
        { key, value },
        asked(`write ${JSON.stringify(value)} to sysctl ${key}`, { key, value }),
        () => {
          const { machine } = this.kernel
          if (readSysctl(machine, this.netns, key) === value) return
          this.kernel.needPrivilege()
          for (const name of writeSysctl(machine, this.netns, key, value)) {
            const link = this.netns.names.get(name)
            if (!link) continue
            if (value.trim() === '0') restartIpv6(machine, link)
            else stopIpv6(machine, link)
          }
        },
      )
  }

  watch(topics: Topic[], listener: (event: KernelEvent) => void): Watch {
    return this.kernel.act(
      this,
      'watch',
      { topics },
      asked(`watch ${topics.join(', ')}`, { path: this.path }),
      () => {
        const entry: Listener = { topics: new Set<string>([...topics, 'overrun']), deliver: listener }
        this.netns.listeners.add(entry)
        this.watches.add(entry)
        return {
          close: () => {
            this.netns.listeners.delete(entry)
            this.watches.delete(entry)
          },
        }
      },
    )
  }

  watchLosses(listener: (event: LossEvent, key: string | undefined) => void): LossWatch {
    return this.kernel.act(
      this,
      'watchLosses',
      {},
      asked('listen to other network namespaces', { path: this.path }),
      () => new MockLosses(listener),
    )
  }

  openSocket(options: SocketOptions): number {
    const { type, address, port } = options
    const context = asked(
      `open ${type} socket at ${familyOf(address) === 6 ? `[${address}]` : address}:${port}`,
      {
        type,
        address,
        port,
      },
    )
    return this.kernel.act(this, 'openSocket', { options: { ...options } }, context, () => {
      const fd = this.kernel.newFd(this)
      bindSocket(this.kernel.machine, this.netns, fd, { ...options })
      return fd
    })
  }

  /** The descriptors of a model carry nothing; see {@link Kernel.simulated}. */
  serveDatagrams(fd: number): never {
    throw new CnmError(
      'ERR_UNSUPPORTED',
      `descriptor ${fd} is one of a modelled kernel: nothing comes by it`,
      {
        fd,
      },
    )
  }

  closeFd(fd: number): void {
    this.kernel.closeFd(fd)
  }

  nft(commands: string): string {
    return this.kernel.act(
      this,
      'nft',
      { commands },
      asked('load nftables commands', { path: this.path }),
      () => {
        this.kernel.needPrivilege()
        const output = this.kernel.ruleset?.run(this, commands) ?? ''
        this.netns.nft.push(commands)
        this.kernel.machine.emit(this.netns, {
          topic: 'nft',
          change: 'set',
          object: 'ruleset',
          family: 'inet',
        })
        return output
      },
    )
  }

  flushConntrack(filters: ConntrackFilter[]): Promise<number> {
    return this.ask('flushConntrack', { filters }, () => {
      const { conntrack } = this.netns
      const rest = conntrack.filter(entry => !filters.some(filter => matches(filter, entry)))
      const gone = conntrack.length - rest.length
      conntrack.splice(0, conntrack.length, ...rest)
      return gone
    })
  }

  run<T>(body: () => T): T {
    return this.kernel.act(this, 'run', {}, asked('enter the network namespace', { path: this.path }), body)
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    for (const entry of this.watches) this.netns.listeners.delete(entry)
    this.kernel.released(this)
  }

  /** @internal */
  check(): void {
    if (this.closed)
      throw new CnmError('ERR_CLOSED', `the stack of ${this.path ?? 'this process'} was closed`, {
        path: this.path,
      })
  }

  private ask<T>(op: string, details: Record<string, unknown>, body: () => T): Promise<T> {
    return this.kernel.actLater(
      this,
      op,
      details,
      asked(`ask the kernel for ${op}`, { path: this.path }),
      body,
    )
  }
}

function matches(filter: ConntrackFilter, entry: ConntrackFilter): boolean {
  return (Object.keys(filter) as (keyof ConntrackFilter)[]).every(
    key => filter[key] === undefined || filter[key] === entry[key],
  )
}
