/**
 * Published ports on a host: chooses ports, reserves them with sockets so that no other process takes them, and runs
 * the userland proxy for those that the kernel cannot translate. The firewall is the caller's.
 */
import { familyOf } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { type Logger, SILENT } from '../base/log'
import { type Undo, atomically } from '../base/undo'
import type { Firewall } from '../firewall/contract'
import type { Stack } from '../kernel/kernel'
import { PortAllocator, type PortRange, type PortSet } from './allocator'
import { exhausted, takenByUs } from './busy'
import { type Cell, cellKey, cellRanges, equalPorts, isLong, isLoopback, isSame, type Match } from './cells'
import type { PortBinding, PortPublisher, PublishTarget, PublishedPort } from './contract'
import { conflictingSockets, portsOf } from './holders'
import { HostPorts } from './host-ports'
import { type Plan, planBindings, publishedPort } from './plan'
import { type PortProxy, type ProxyLimits, type ProxyTarget, UserlandProxy } from './proxy'
import { CellSockets } from './sockets'
import { formatPublished } from './spec'

/** Picks of a port, each of which turned out to be busy by another process. */
const ATTEMPTS = 10

export interface PublisherOptions {
  stack: Stack
  backend: Firewall['backend']
  /** False: never. True: for what the kernel cannot do. `always`: for everything. */
  userlandProxy?: boolean | 'always'
  log?: Logger
  limits?: Partial<ProxyLimits>
  /** Instead of the one that it makes for itself; say an {@link InertProxy} on a mocked kernel. */
  proxy?: PortProxy
}

export class Publisher implements PortPublisher {
  readonly #stack: Stack
  readonly #options: Required<Pick<PublisherOptions, 'backend' | 'userlandProxy'>>
  readonly #log: Logger
  readonly #allocator = new PortAllocator()
  readonly #proxy: PortProxy
  readonly #cells = new Map<string, Cell>()
  readonly #sockets: CellSockets
  readonly #host: HostPorts

  constructor(options: PublisherOptions) {
    this.#stack = options.stack
    this.#log = options.log ?? SILENT
    this.#host = new HostPorts(this.#stack)
    this.#sockets = new CellSockets(this.#stack, this.#log, cell => this.#cells.get(cell.key) === cell)
    this.#options = { backend: options.backend, userlandProxy: options.userlandProxy ?? true }
    this.#proxy =
      options.proxy ?? new UserlandProxy({ stack: options.stack, log: this.#log, limits: options.limits })
  }

  /** Connections and UDP clients that the proxy carries now. */
  get load(): { connections: number; sessions: number } {
    return this.#proxy.load
  }

  /** Descriptors that reserve ports or listen for the proxy. */
  get sockets(): number {
    let sum = 0
    for (const cell of this.#cells.values()) sum += cell.sockets.size
    return sum
  }

  get served(): PublishedPort[] {
    const ports = new Set<PublishedPort>()
    for (const { users } of this.#cells.values())
      for (const { port, started } of users)
        if (started && port.proxied && !isLoopback(port.hostIp)) ports.add(port)
    return [...ports]
  }

  async reserve(
    target: PublishTarget,
    bindings: PortBinding[],
    replacing: PublishedPort[] = [],
  ): Promise<PublishedPort[]> {
    if (bindings.length === 0) return []
    const plans = planBindings(target, bindings, {
      ...this.#options,
      hostHasIpv6: () => this.#host.hasIpv6(),
      omitted: message =>
        this.#log.info(message, { networkId: target.networkId, endpointId: target.endpointId }),
    })
    return atomically(async undo => {
      const made: PublishedPort[] = []
      for (const plan of plans) made.push(...(await this.#reservePlan(plan, replacing, made, undo)))
      return made
    })
  }

  /** Reserves one port, or one run of ports, on all the addresses of a plan. */
  async #reservePlan(
    plan: Plan,
    replacing: readonly PublishedPort[],
    before: readonly PublishedPort[],
    undo: Undo,
  ): Promise<PublishedPort[]> {
    const publish = (first: number) => plan.wants.map(want => publishedPort(plan, want, first))
    if (plan.routed) return publish(0)
    if (plan.range && plan.exact) {
      const ports = publish(plan.range.first)
      await this.#hold(ports, { replacing, before, nameHolder: true }, undo)
      return ports
    }
    const range = plan.range ?? this.#host.dynamicRange()
    const avoid = plan.range ? [] : [this.#host.reserved()]
    const addresses = plan.wants.map(want => want.hostIp)
    let failure: CnmError | undefined
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const first = this.#allocator.choose(addresses, plan.protocol, range, plan.length, avoid)
      if (first === undefined) break
      // #hold takes them again before anybody else can
      for (const address of addresses)
        this.#allocator.free(address, plan.protocol, { first, last: first + plan.length - 1 })
      const ports = publish(first)
      try {
        await atomically(inner => this.#hold(ports, { replacing: [], before, nameHolder: false }, inner))
        undo.push(`release ${ports.map(formatPublished).join(', ')}`, () => this.#release(ports, isSame))
        return ports
      } catch (error) {
        if (!isCnmError(error, 'ERR_PORT_IN_USE')) throw error
        failure = error
        // Another process has it. Look once at all that others have, instead of running into one after the other.
        if (attempt === 0)
          avoid.push(portsOf(conflictingSockets(this.#stack, plan.protocol, addresses, range)))
      }
    }
    throw await exhausted({ stack: this.#stack, log: this.#log }, plan, range, addresses, failure)
  }

  /** Takes exactly these ports and binds their sockets. The caller undoes a part when it throws. */
  async #hold(ports: readonly PublishedPort[], how: HoldOptions, undo: Undo): Promise<void> {
    const fresh: [Cell, PublishedPort][] = []
    // First all of the bookkeeping, in one turn of the event loop: so nobody comes between.
    for (const port of ports) {
      undo.push(`release ${formatPublished(port)}`, () => this.#release([port], isSame))
      for (const range of cellRanges(port)) {
        const key = cellKey(port.protocol, port.hostIp, range)
        const held = this.#cells.get(key)
        const shared = held?.users.some(user => how.replacing.some(old => equalPorts(old, user.port)))
        const cell = shared && held ? held : this.#newCell(key, port, range, [...how.before, ...ports])
        cell.users.push({ port, started: false })
        if (cell !== held) fresh.push([cell, port])
      }
    }
    const listed = this.#lister(ports)
    for (const [cell, port] of fresh) await this.#sockets.bind(cell, port, how.nameHolder, listed)
  }

  #newCell(key: string, port: PublishedPort, range: PortRange, before: readonly PublishedPort[]): Cell {
    if (!this.#allocator.take([port.hostIp], port.protocol, range)) {
      const busy = this.#allocator.conflict([port.hostIp], port.protocol, range)
      throw takenByUs({ cells: this.#cells.values(), busy }, port, range, before)
    }
    const cell: Cell = {
      key,
      protocol: port.protocol,
      address: port.hostIp,
      range,
      sockets: new Map(),
      silent: !port.proxied,
      users: [],
    }
    this.#cells.set(key, cell)
    return cell
  }

  /**
   * Answers which of the ports are in the kernel's tables, for all the addresses of a request: the tables are read at
   * most once, since that takes milliseconds (the kernel goes through the hash tables of all namespaces).
   */
  #lister(ports: readonly PublishedPort[]): () => PortSet {
    let set: PortSet | undefined
    return () => {
      const [{ protocol, hostPort, hostPortEnd }] = ports as [PublishedPort]
      const addresses = ports.map(port => port.hostIp)
      const range = { first: hostPort, last: hostPortEnd }
      set ??= portsOf(conflictingSockets(this.#stack, protocol, addresses, range))
      return set
    }
  }

  async readopt(ports: PublishedPort[]): Promise<PublishedPort[]> {
    const adopted: PublishedPort[] = []
    for (const old of ports) {
      const port = { ...old, proxied: old.hostPort !== 0 && this.#mustProxy(old) }
      try {
        if (port.proxied && (!this.#options.userlandProxy || port.protocol === 'sctp'))
          throw new CnmError('ERR_UNSUPPORTED', 'it needs the userland proxy, which cannot carry it')
        if (port.hostPort !== 0) await atomically(undo => this.#hold([port], RESTORE, undo))
        adopted.push(port)
      } catch (error) {
        this.#log.warn(`published port ${formatPublished(port)} is lost: ${(error as Error).message}`, {
          networkId: port.networkId,
          endpointId: port.endpointId,
          error,
        })
      }
    }
    return adopted
  }

  #mustProxy(port: PublishedPort): boolean {
    return (
      this.#options.backend === 'none' ||
      this.#options.userlandProxy === 'always' ||
      port.hostIp === '::1' ||
      familyOf(port.hostIp) !== familyOf(port.containerIp) ||
      port.proxyProtocol === true
    )
  }

  async start(ports: PublishedPort[]): Promise<void> {
    for (const port of ports) {
      for (const [cell, user] of this.#holdings(port, equalPorts)) {
        const target = this.#proxyTarget(cell, port)
        if (!target || user.started) continue
        user.started = true
        await this.#serve(cell, target)
      }
    }
  }

  /** Where the proxy leads for one cell; undefined when it has no part in it. */
  #proxyTarget(cell: Cell, port: PublishedPort): ProxyTarget | undefined {
    const loopbackOnly = !port.proxied
    // An IPv6 packet from ::1 cannot be led out of the host, so what comes to a wildcard by ::1 is proxied.
    if (loopbackOnly && !(port.hostIp === '::' && this.#options.userlandProxy)) return undefined
    if (cell.protocol === 'sctp' || (loopbackOnly && isLong(cell.range))) return undefined
    return {
      containerIp: port.containerIp,
      containerPort: port.containerPort + cell.range.first - port.hostPort,
      allowFrom: port.allowFrom,
      proxyProtocol: port.proxyProtocol,
      loopbackOnly,
    }
  }

  async #serve(cell: Cell, target: ProxyTarget): Promise<void> {
    if (cell.listener) return cell.listener.redirect(target)
    if (cell.silent) await this.#sockets.wake(cell)
    const sockets = [...cell.sockets]
    if (cell.protocol === 'udp') {
      cell.listener = this.#proxy.udp(sockets, target)
      return
    }
    for (const [, fd] of sockets) cell.listener = await this.#proxy.tcp(fd, target)
  }

  release(ports: PublishedPort[]): Promise<void> {
    return this.#release(ports, equalPorts)
  }

  async #release(ports: readonly PublishedPort[], match: Match): Promise<void> {
    const ends: Promise<void>[] = []
    for (const port of ports) {
      for (const [cell, user] of this.#holdings(port, match)) {
        cell.users.splice(cell.users.indexOf(user), 1)
        if (cell.users.length === 0) ends.push(this.#dropCell(cell))
        else if (user.started) {
          const heir = cell.users.findLast(other => other.started)?.port
          // nobody left who wants the proxy: it lets nobody in, but goes on to hold the port
          cell.listener?.redirect((heir && this.#proxyTarget(cell, heir)) ?? NOWHERE)
        }
      }
    }
    for (const result of await Promise.allSettled(ends))
      if (result.status === 'rejected')
        this.#log.warn('a published port was not closed cleanly', { error: result.reason })
  }

  async #dropCell(cell: Cell): Promise<void> {
    this.#cells.delete(cell.key)
    try {
      await this.#sockets.drop(cell)
    } finally {
      this.#allocator.free(cell.address, cell.protocol, cell.range)
    }
  }

  /** The cells held for a published port, found by value: after a restart the caller's objects are not ours. */
  #holdings(port: PublishedPort, match: Match): [Cell, Cell['users'][number]][] {
    if (port.hostPort === 0) return []
    const found: [Cell, Cell['users'][number]][] = []
    for (const range of cellRanges(port)) {
      const cell = this.#cells.get(cellKey(port.protocol, port.hostIp, range))
      const user = cell?.users.findLast(each => match(each.port, port))
      if (cell && user) found.push([cell, user])
    }
    return found
  }

  async close(): Promise<void> {
    this.#sockets.close()
    await Promise.all([...this.#cells.values()].map(cell => this.#dropCell(cell)))
    await this.#proxy.close()
  }
}

interface HoldOptions {
  /** Ports of ours whose sockets are taken over rather than being in the way. */
  replacing: readonly PublishedPort[]
  /** What the same request has taken: a clash with it is the caller's own. */
  before: readonly PublishedPort[]
  /** Whether it is worth looking through /proc for who is in the way. */
  nameHolder: boolean
}

const RESTORE: HoldOptions = { replacing: [], before: [], nameHolder: true }

const NOWHERE: ProxyTarget = { containerIp: '127.0.0.1', containerPort: 1, allowFrom: [] }
