/**
 * Published ports on a host: chooses ports, reserves them with sockets so that no other process takes them, and runs
 * the userland proxy for those that the kernel cannot translate. The firewall is the caller's.
 */
import { type Family, familyOf, formatIp, parseIp } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { type Logger, SILENT } from '../base/log'
import { type Undo, atomically } from '../base/undo'
import type { Firewall, Protocol } from '../firewall/contract'
import type { Stack, Watch } from '../kernel/kernel'
import { PortAllocator, type PortRange, PortSet } from './allocator'
import type { PortBinding, PortPublisher, PublishTarget, PublishedPort } from './contract'
import { conflictingSockets, portsOf, processOf } from './holders'
import { type Plan, type Want, planBindings } from './plan'
import {
  type PortProxy,
  type ProxyLimits,
  type ProxyListener,
  type ProxyTarget,
  type UdpListener,
  UserlandProxy,
} from './proxy'
import { formatPublished } from './spec'

/**
 * Ports. A longer range is not held by sockets (10,000 ports in two families would cost 20,000 descriptors): its ports
 * are looked up in the kernel's tables when it is reserved, those found there are tried, and from then on only our own
 * bookkeeping and the firewall's translation hold it.
 */
export const MAX_HELD_RANGE = 256

/** Picks of a port, each of which turned out to be busy by another process. */
const ATTEMPTS = 10

/** Taken when the kernel does not say: IANA's dynamic ports. */
const DYNAMIC_RANGE: PortRange = { first: 49153, last: 65535 }

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

/**
 * One port of one address and protocol, or one long range of them; what the sockets belong to. Several published
 * ports share it while one replaces another.
 */
interface Cell {
  key: string
  protocol: Protocol
  address: string
  range: PortRange
  /** By address: one for the address itself, or (a UDP wildcard that is proxied) one for each address of the host. */
  sockets: Map<string, number>
  /** Sockets take no packets: they reserve only. */
  silent: boolean
  /** Those for whom it is held, oldest first; the newest that was started says where the proxy leads. */
  users: { port: PublishedPort; started: boolean }[]
  listener?: ProxyListener
}

export class Publisher implements PortPublisher {
  readonly #stack: Stack
  readonly #options: Required<Pick<PublisherOptions, 'backend' | 'userlandProxy'>>
  readonly #log: Logger
  readonly #allocator = new PortAllocator()
  readonly #proxy: PortProxy
  readonly #cells = new Map<string, Cell>()
  /** UDP wildcards with a socket per address, which follow the addresses of the host. */
  readonly #followers = new Set<Cell>()
  #watch: Watch | undefined
  #reserved: { text: string; ports: PortSet } | undefined

  constructor(options: PublisherOptions) {
    this.#stack = options.stack
    this.#log = options.log ?? SILENT
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
      hostHasIpv6: () => this.#hostHasIpv6(),
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
    const range = plan.range ?? this.#dynamicRange()
    const avoid = plan.range ? [] : [this.#reservedPorts()]
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
    throw await this.#exhausted(plan, range, addresses, failure)
  }

  async #exhausted(
    plan: Plan,
    range: PortRange,
    addresses: string[],
    failure: CnmError | undefined,
  ): Promise<CnmError> {
    const wanted = plan.length === 1 ? 'no port' : `no run of ${plan.length} ports`
    let last = ''
    if (failure) {
      const { hostIp, hostPort } = failure.details as { hostIp: string; hostPort: number }
      last = `; ${hostPort} on ${hostIp}, for one, is in use by ${await this.#holderOf(plan.protocol, hostIp, hostPort)}`
    }
    return new CnmError(
      'ERR_PORTS_EXHAUSTED',
      `${wanted} of ${range.first}-${range.last}/${plan.protocol} is free on ${addresses.join(' and ')}${last}`,
      { range, protocol: plan.protocol, addresses, containerPort: plan.containerPort },
      { cause: failure },
    )
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
    for (const [cell, port] of fresh) await this.#bind(cell, port, how.nameHolder, listed)
  }

  #newCell(key: string, port: PublishedPort, range: PortRange, before: readonly PublishedPort[]): Cell {
    if (!this.#allocator.take([port.hostIp], port.protocol, range)) throw this.#takenByUs(port, range, before)
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

  #takenByUs(port: PublishedPort, range: PortRange, before: readonly PublishedPort[]): CnmError {
    const busy = this.#allocator.conflict([port.hostIp], port.protocol, range)
    const clash = [...this.#cells.values()].find(
      cell =>
        cell.protocol === port.protocol &&
        busy !== undefined &&
        cell.range.first <= busy &&
        busy <= cell.range.last &&
        addressesClash(cell.address, port.hostIp),
    )
    const holder = clash?.users.at(-1)?.port
    const text = `${busy ?? range.first}/${port.protocol} on ${port.hostIp}`
    if (holder && before.includes(holder))
      return new CnmError(
        'ERR_INVALID_PORT',
        `host port ${text} is asked for twice: by ${formatPublished(holder)} and by ${formatPublished(port)}; leave one out`,
        { field: 'hostPort', value: busy, hostIp: port.hostIp, protocol: port.protocol },
      )
    return new CnmError(
      'ERR_PORT_IN_USE',
      `host port ${text} is in use: endpoint ${holder?.endpointId ?? '?'} of network ${holder?.networkId ?? '?'} publishes ${holder ? formatPublished(holder) : 'it'}`,
      {
        hostIp: port.hostIp,
        hostPort: busy,
        protocol: port.protocol,
        networkId: holder?.networkId,
        endpointId: holder?.endpointId,
      },
    )
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

  async #bind(cell: Cell, port: PublishedPort, nameHolder: boolean, listed: () => PortSet): Promise<void> {
    if (cell.range.last > cell.range.first) return this.#probe(cell, port, listed())
    const addresses = this.#spread(cell) ? await this.#hostAddresses(cell) : [cell.address]
    for (const address of addresses) {
      if (this.#cells.get(cell.key) !== cell) return // released meanwhile
      if (!cell.sockets.has(address)) await this.#openSocket(cell, address, port, nameHolder)
    }
  }

  /**
   * A datagram's answer must come from the address that it was sent to, which Node does not tell of a wildcard socket:
   * so a proxied UDP wildcard has a socket per address of the host.
   */
  #spread(cell: Cell): boolean {
    return !cell.silent && cell.protocol === 'udp' && isWildcard(cell.address)
  }

  async #hostAddresses(cell: Cell): Promise<string[]> {
    const family = familyOf(cell.address)
    this.#followers.add(cell)
    this.#watch ??= this.#followAddresses() // before they are listed, so that none is missed
    const all = await this.#stack.addresses()
    return all
      .filter(({ address, tentative }) => !tentative && servable(bare(address), family))
      .map(({ address }) => bare(address))
  }

  async #openSocket(cell: Cell, address: string, port: PublishedPort, nameHolder: boolean): Promise<void> {
    try {
      cell.sockets.set(address, this.#socketFor(cell, address, cell.range.first))
    } catch (error) {
      const errno = errnoOf(error)
      // A kernel without SCTP cannot have anybody else on the port either.
      if (cell.protocol === 'sctp' && NO_PROTOCOL.has(errno)) return
      // One of the host's addresses, for a wildcard: it was there when they were listed, and its network is deleted since.
      if (address !== cell.address && errno === 'EADDRNOTAVAIL') return
      throw await this.#explain(error, port, address, cell.range.first, nameHolder)
    }
  }

  #socketFor(cell: Pick<Cell, 'protocol' | 'silent'>, address: string, port: number): number {
    const stream = cell.protocol !== 'udp'
    return this.#stack.openSocket({
      type: cell.protocol,
      address,
      port,
      // Listening, because another socket with SO_REUSEADDR could be bound beside one that is merely bound; and with
      // SO_REUSEADDR, because connections of an earlier holder in TIME-WAIT are in nobody's way.
      ...(stream && { listen: cell.silent ? 1 : 511, reuseAddress: true }),
      // Without packets, because a connection must not be accepted before the firewall leads it to the container. What
      // is proxied may wait in the backlog until the proxy is started.
      dropAll: cell.silent,
    })
  }

  async #explain(
    error: unknown,
    port: PublishedPort,
    address: string,
    hostPort: number,
    nameHolder: boolean,
  ): Promise<unknown> {
    const { protocol } = port
    const text = `${hostPort}/${protocol} on ${address}`
    const details = { hostIp: address, hostPort, protocol, errno: errnoOf(error) }
    switch (errnoOf(error)) {
      case 'EADDRINUSE': {
        const holder = nameHolder ? await this.#holderOf(protocol, address, hostPort) : 'another process'
        return new CnmError(
          'ERR_PORT_IN_USE',
          `host port ${text} is in use by ${holder}`,
          { ...details, holder },
          { cause: error },
        )
      }
      case 'EADDRNOTAVAIL':
        return new CnmError(
          'ERR_INVALID_PORT',
          `port ${JSON.stringify(formatPublished(port))}: the host has no address ${address}; use one of its own, 0.0.0.0 or ::`,
          { ...details, field: 'hostIp', value: address },
          { cause: error },
        )
      case 'EAFNOSUPPORT':
        return new CnmError(
          'ERR_INVALID_PORT',
          `port ${JSON.stringify(formatPublished(port))}: this host has no IPv${familyOf(address)}`,
          { ...details, field: 'hostIp', value: address },
          { cause: error },
        )
      case 'EACCES':
      case 'EPERM':
        return new CnmError('ERR_PRIVILEGE', `not allowed to bind host port ${text}`, details, {
          cause: error,
        })
      default:
        return error
    }
  }

  async #holderOf(protocol: Protocol, address: string, port: number): Promise<string> {
    try {
      const range = { first: port, last: port }
      const inodes = conflictingSockets(this.#stack, protocol, [address], range).map(entry => entry.inode)
      return await processOf(inodes)
    } catch (error) {
      this.#log.debug(`who holds port ${port} could not be found`, { error })
      return 'another process'
    }
  }

  /** Finds out whether a long range is free without holding it: only ports that the kernel lists are tried. */
  async #probe(cell: Cell, port: PublishedPort, listed: PortSet): Promise<void> {
    const { first, last } = cell.range
    for (let hostPort = first; hostPort <= last; hostPort++) {
      // the first one always: it also tells whether the host has the address
      if (hostPort !== first && !listed.has(hostPort)) continue
      try {
        this.#stack.closeFd(this.#socketFor(cell, cell.address, hostPort))
      } catch (error) {
        if (cell.protocol === 'sctp' && NO_PROTOCOL.has(errnoOf(error))) return
        throw await this.#explain(error, port, cell.address, hostPort, true)
      }
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
    if (cell.silent) await this.#wake(cell)
    const sockets = [...cell.sockets]
    if (cell.protocol === 'udp') {
      cell.listener = this.#proxy.udp(sockets, target)
      return
    }
    for (const [, fd] of sockets) cell.listener = await this.#proxy.tcp(fd, target)
  }

  /** Replaces the socket that only reserves by one that takes packets; in between there are some 50 us. */
  async #wake(cell: Cell): Promise<void> {
    const [entry] = cell.sockets
    if (!entry) return
    const [address, fd] = entry
    cell.silent = false
    cell.sockets.delete(address)
    this.#stack.closeFd(fd)
    await this.#openSocket(cell, address, cell.users.at(-1)!.port, true)
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
    this.#followers.delete(cell)
    if (this.#followers.size === 0) {
      this.#watch?.close()
      this.#watch = undefined
    }
    try {
      if (cell.listener) await cell.listener.close()
      else for (const fd of cell.sockets.values()) this.#stack.closeFd(fd)
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
    this.#watch?.close()
    this.#watch = undefined
    this.#followers.clear()
    await Promise.all([...this.#cells.values()].map(cell => this.#dropCell(cell)))
    await this.#proxy.close()
  }

  /** Proxied UDP wildcards get a socket for each address that comes, and lose those of the ones that go. */
  #followAddresses(): Watch {
    return this.#stack.watch(['address'], event => {
      if (event.topic === 'overrun') void this.#catchUp()
      if (event.topic !== 'address') return
      const address = bare(event.address.address)
      if (event.change === 'removed') this.#loseAddress(address)
      else if (!event.address.tentative) this.#gainAddress(address)
    })
  }

  #gainAddress(address: string): void {
    for (const cell of this.#followers) {
      if (cell.sockets.has(address) || !servable(address, familyOf(cell.address))) continue
      try {
        const fd = this.#socketFor(cell, address, cell.range.first)
        cell.sockets.set(address, fd)
        ;(cell.listener as UdpListener | undefined)?.add(address, fd)
      } catch (error) {
        this.#log.warn(`udp port ${cell.range.first} is not served on ${address}`, { error })
      }
    }
  }

  #loseAddress(address: string): void {
    for (const cell of this.#followers) {
      const fd = cell.sockets.get(address)
      if (fd === undefined) continue
      cell.sockets.delete(address)
      const listener = cell.listener as UdpListener | undefined
      if (listener) listener.drop(address)
      else this.#stack.closeFd(fd)
    }
  }

  /** Some events were lost: compares with the addresses that there are. */
  async #catchUp(): Promise<void> {
    try {
      const all = (await this.#stack.addresses()).filter(({ tentative }) => !tentative)
      const now = new Set(all.map(({ address }) => bare(address)))
      const served = [...this.#followers].flatMap(cell => [...cell.sockets.keys()])
      for (const address of new Set(served)) if (!now.has(address)) this.#loseAddress(address)
      for (const address of now) this.#gainAddress(address)
    } catch (error) {
      this.#log.warn('the addresses of the host could not be listed', { error })
    }
  }

  /** As good as asking for any IPv6 service: a host with IPv6 switched off may have the family, but not `::1`. */
  #hostHasIpv6(): boolean {
    try {
      this.#stack.closeFd(this.#stack.openSocket({ type: 'udp', address: '::1', port: 0 }))
      return true
    } catch (error) {
      if (NO_FAMILY.has(errnoOf(error))) return false
      throw error
    }
  }

  #dynamicRange(): PortRange {
    const match = /^(\d+)\s+(\d+)/.exec(this.#stack.sysctl('net/ipv4/ip_local_port_range') ?? '')
    const [first, last] = match ? [Number(match[1]), Number(match[2])] : [0, 0]
    return first >= 1 && last >= first && last <= 65535 ? { first, last } : DYNAMIC_RANGE
  }

  /** Ports that the administrator keeps free of automatic choice: `8080,9000-9100`. */
  #reservedPorts(): PortSet {
    const text = this.#stack.sysctl('net/ipv4/ip_local_reserved_ports')?.trim() ?? ''
    if (this.#reserved?.text !== text) {
      const ports = new PortSet()
      for (const match of text.matchAll(/(\d+)(?:-(\d+))?/g))
        ports.addRange({ first: Number(match[1]), last: Number(match[2] ?? match[1]) })
      this.#reserved = { text, ports }
    }
    return this.#reserved.ports
  }
}

type Match = (a: PublishedPort, b: PublishedPort) => boolean

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

/** errno of a host without IPv6: not in the kernel, or switched off (`disable_ipv6`). */
const NO_FAMILY = new Set(['EAFNOSUPPORT', 'EADDRNOTAVAIL'])

/** errno of a kernel that cannot do SCTP. */
const NO_PROTOCOL = new Set(['EPROTONOSUPPORT', 'ESOCKTNOSUPPORT', 'EPROTOTYPE', 'ENOPROTOOPT'])

const errnoOf = (error: unknown): string =>
  isCnmError(error, 'ERR_KERNEL') ? String(error.details.errno) : ''

const isWildcard = (address: string) => address === '0.0.0.0' || address === '::'

const isLoopback = (address: string) => address === '::1' || address.startsWith('127.')

const addressesClash = (a: string, b: string) =>
  familyOf(a) === familyOf(b) && (a === b || isWildcard(a) || isWildcard(b))

/** Without the prefix length. */
const bare = (address: string) => address.split('/')[0] ?? address

/** Link-local addresses need the link to be bound to. */
const servable = (address: string, family: Family) =>
  familyOf(address) === family && !/^fe[89ab]/.test(formatIp(parseIp(address)))

const isLong = ({ first, last }: PortRange) => last - first >= MAX_HELD_RANGE

const cellKey = (protocol: Protocol, address: string, { first, last }: PortRange) =>
  `${protocol} ${address} ${first}${last === first ? '' : `-${last}`}`

/** Port by port, so that a range and another one that replaces it can share; a long one whole, unless it is proxied. */
function* cellRanges({ hostPort, hostPortEnd, proxied }: PublishedPort): Generator<PortRange> {
  if (isLong({ first: hostPort, last: hostPortEnd }) && !proxied) yield { first: hostPort, last: hostPortEnd }
  else for (let port = hostPort; port <= hostPortEnd; port++) yield { first: port, last: port }
}

function publishedPort(plan: Plan, want: Want, first: number): PublishedPort {
  return {
    networkId: plan.networkId,
    endpointId: plan.endpointId,
    protocol: plan.protocol,
    hostIp: want.hostIp,
    hostPort: first,
    hostPortEnd: first + plan.length - 1,
    containerIp: want.containerIp,
    containerPort: plan.containerPort,
    ...(want.allowFrom && { allowFrom: want.allowFrom }),
    proxied: want.proxied,
    ...(want.proxyProtocol && { proxyProtocol: true }),
  }
}

const isSame: Match = (a, b) => a === b

const equalPorts: Match = (a, b) =>
  a === b ||
  (a.endpointId === b.endpointId &&
    a.networkId === b.networkId &&
    a.protocol === b.protocol &&
    a.hostIp === b.hostIp &&
    a.hostPort === b.hostPort &&
    a.hostPortEnd === b.hostPortEnd &&
    a.containerIp === b.containerIp &&
    a.containerPort === b.containerPort &&
    a.proxied === b.proxied &&
    (a.proxyProtocol ?? false) === (b.proxyProtocol ?? false) &&
    JSON.stringify(a.allowFrom) === JSON.stringify(b.allowFrom))
