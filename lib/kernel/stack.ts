import { constants } from 'node:os'
import type { Family } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { askDump, BatchSocket, sendBatch } from './batch'
import type { Binding, Datagrams, ExchangeResult } from './binding'
import { errnoOf, isNativeError, NEED_ESP, systemError } from './errors'
import type {
  Address,
  Change,
  ConntrackFilter,
  ElementChange,
  IpsecPolicy,
  IpsecState,
  KernelEvent,
  Link,
  LossEvent,
  LossWatch,
  Neighbour,
  PacketOptions,
  Packets,
  Route,
  Rule,
  Shaper,
  SocketOptions,
  Stack,
  Survey,
  Topic,
  Watch,
} from './kernel'
import { flushConntrackBy, type NftContext, openNft } from './late'
import { LinuxLosses } from './losses'
import { decodeAddress, encodeGetAddresses } from './netlink/address'
import { AF_NETLINK, NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM } from './netlink/constants'
import { encodeElements } from './netlink/elements'
import { decodeLink, encodeGetLink } from './netlink/link'
import { decodeAll, type Messages, Writer } from './netlink/message'
import { decodeNeighbour, encodeGetNeighbours } from './netlink/neighbour'
import { decodeMirrorFilter, decodeQdisc, encodeGetFilters, encodeGetQdiscs } from './netlink/qdisc'
import { decodeRoute, encodeGetRoutes, encodeRouteTo } from './netlink/route'
import { encodeGetRulesOf } from './netlink/nft-rules'
import { decodeRule, encodeGetRules } from './netlink/rule'
import { decodePolicy, decodeState, encodeGetPolicies, encodeGetStates } from './netlink/xfrm'
import { pace } from './pace'
import { openPackets } from './packets'
import { openSocket } from './socket'
import { transact } from './transact'
import { type Line, takeTurn } from './turns'
import { watchNetns } from './watch'

const SOCK_RAW = 3
const { ENODEV, EINTR, ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL } = constants.errno
/** What a routing table answers when a packet goes nowhere: no route, or one that is unreachable, prohibit or blackhole. */
const NOWHERE: readonly number[] = [ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL]
/** A table that was never used does not exist (asked for by number, since Linux 4.20). */
const NO_TABLE: readonly number[] = [constants.errno.ENOENT]

/** Indexes per stack: a network has one bridge, and who looks up ports does so a few at a time. */
const REMEMBERED = 1024

/** Taken out of before anybody else can write. */
const writer = new Writer()

/**
 * Stacks that keep a context of libnftables, the one used last at the end. Each needs a descriptor below 1024, of which there
 * may be few: then the one that was not used for longest makes room.
 */
const contexts = new Set<LinuxStack>()
const MOST_CONTEXTS = 64

function openContext(open: () => NftContext): NftContext {
  for (;;) {
    const [oldest] = contexts
    try {
      if (contexts.size < MOST_CONTEXTS) return open()
    } catch (error) {
      if (!oldest || !isCnmError(error, 'ERR_FIREWALL_UNAVAILABLE')) throw error
    }
    oldest?.closeContext()
  }
}

/** The network stack of one Linux namespace: descriptors of the namespace and of sockets that were opened inside. */
export class LinuxStack implements Stack, Line {
  last: Promise<void> | undefined
  private route = -1
  private xfrm = -1
  private readonly netfilter: Line & { fd: number } = { last: undefined, fd: -1 }
  private context: NftContext | undefined
  private batches: BatchSocket | undefined
  private readonly watches = new Set<Watch>()
  private closed = false
  private holders = 0
  /** By name, of links that were looked up. */
  private indexes: Map<string, number> | undefined

  constructor(
    private readonly binding: Binding,
    private readonly ns: number,
    readonly inode: number,
    private place: string | undefined,
    route?: number,
  ) {
    if (route !== undefined) this.route = route
  }

  get path(): string | undefined {
    return this.place
  }

  /** It has a path now. */
  bound(path: string): void {
    this.place = path
  }

  /** Of the namespace. */
  get descriptor(): number {
    return this.ns
  }

  /** The same; -1 once the stack is closed. */
  get openDescriptor(): number {
    return this.closed ? -1 : this.ns
  }

  /** The socket for everything but events; carries one exchange at a time. */
  get routeSocket(): number {
    if (this.route < 0) this.route = this.netlink(NETLINK_ROUTE)
    return this.route
  }

  /** The socket for IPsec; waits for the same turn. */
  get xfrmSocket(): number {
    if (this.xfrm < 0) this.xfrm = this.netlink(NETLINK_XFRM)
    return this.xfrm
  }

  /** Of a link that was looked up. 0: there is none. */
  remember(name: string, index: number): void {
    if (index === 0) return
    this.indexes ??= new Map()
    if (this.indexes.size >= REMEMBERED) this.indexes.clear()
    this.indexes.set(name, index)
  }

  /** The index of a name that was looked up before, provided that it still is that link's; else 0. */
  remembered(name: string): number {
    const index = this.indexes?.get(name) ?? 0
    if (index === 0 || this.binding.linkName(this.routeSocket, index) === name) return index
    this.indexes?.delete(name)
    return 0
  }

  /** Keeps the descriptors open until {@link letGo}, even if the stack is closed meanwhile. */
  hold(): void {
    this.use()
    this.holders++
  }

  letGo(): void {
    this.holders--
    if (this.closed && this.holders === 0) this.release()
  }

  apply(changes: Change[]): Promise<void> {
    return transact(this.binding, [{ stack: this, changes }])
  }

  links(): Promise<Link[]> {
    return this.list(() => encodeGetLink(writer), decodeLink)
  }

  async link(nameOrIndex: string | number): Promise<Link | undefined> {
    const found = await this.question(() => encodeGetLink(writer, nameOrIndex), [ENODEV])
    return found && decodeAll(found, decodeLink)[0]
  }

  async addresses(link?: number): Promise<Address[]> {
    const all = await this.list(() => encodeGetAddresses(writer, link), decodeAddress, [ENODEV])
    return link === undefined ? all : all.filter(address => address.link === link)
  }

  async routes({ family, table }: { family?: Family; table?: number } = {}): Promise<Route[]> {
    const all = await this.list(
      () => {
        if (family !== 6) encodeGetRoutes(writer, 4, table)
        if (family !== 4) encodeGetRoutes(writer, 6, table)
      },
      decodeRoute,
      NO_TABLE,
    )
    return table === undefined ? all : all.filter(route => route.table === table)
  }

  async survey(): Promise<Survey> {
    const data = await this.question(() => {
      encodeGetLink(writer)
      encodeGetAddresses(writer)
      encodeGetRoutes(writer, 4)
      encodeGetRoutes(writer, 6)
    })
    const all = data ?? new Uint8Array(0)
    return {
      links: decodeAll(all, decodeLink),
      addresses: decodeAll(all, decodeAddress),
      routes: decodeAll(all, decodeRoute),
    }
  }

  rules(): Promise<Rule[]> {
    return this.list(() => {
      encodeGetRules(writer, 4)
      encodeGetRules(writer, 6)
    }, decodeRule)
  }

  async neighbours(filter: { link?: number; bridge?: boolean } = {}): Promise<Neighbour[]> {
    const all = await this.list(() => encodeGetNeighbours(writer, filter.bridge === true), decodeNeighbour)
    return filter.link === undefined ? all : all.filter(neighbour => neighbour.link === filter.link)
  }

  async shapers(): Promise<Shaper[]> {
    const found = await this.list(() => encodeGetQdiscs(writer), decodeQdisc)
    const entered = found.filter(({ bitsPerSecond }) => bitsPerSecond === undefined)
    // A link may go meanwhile.
    const mirrors = entered.length
      ? await this.list(
          () => {
            for (const { link } of entered) encodeGetFilters(writer, link)
          },
          decodeMirrorFilter,
          [ENODEV],
        )
      : []
    const shapers = new Map<number, Shaper>()
    for (const each of [...found.filter(({ bitsPerSecond }) => bitsPerSecond !== undefined), ...mirrors])
      shapers.set(each.link, { ...shapers.get(each.link), ...each })
    return [...shapers.values()]
  }

  ipsecStates(): Promise<IpsecState[]> {
    return this.list(
      () => encodeGetStates(writer),
      decodeState,
      [],
      () => this.xfrmSocket,
    )
  }

  ipsecPolicies(): Promise<IpsecPolicy[]> {
    return this.list(
      () => encodeGetPolicies(writer),
      decodePolicy,
      [],
      () => this.xfrmSocket,
    )
  }

  async routeTo(destination: string): Promise<Route | undefined> {
    const found = await this.question(() => encodeRouteTo(writer, destination), NOWHERE)
    return found && decodeAll(found, decodeRoute)[0]
  }

  sysctl(key: string): string | undefined {
    this.use()
    try {
      return this.binding.readSysctl(this.ns, key)?.trim()
    } catch (error) {
      throw systemError(error, `read sysctl ${key}`, { key })
    }
  }

  setSysctls(values: Record<string, string>): void {
    for (const [key, value] of Object.entries(values)) {
      if (words(this.sysctl(key)) === words(value)) continue
      try {
        this.binding.writeSysctl(this.ns, key, value)
      } catch (error) {
        throw systemError(error, `write ${JSON.stringify(value)} to sysctl ${key}`, { key, value })
      }
    }
  }

  watch(topics: Topic[], listener: (event: KernelEvent) => void): Watch {
    this.use()
    const inner = watchNetns(this.binding, this.ns, topics, listener)
    const watch = {
      close: () => {
        if (this.watches.delete(watch)) inner.close()
      },
    }
    this.watches.add(watch)
    return watch
  }

  watchLosses(listener: (event: LossEvent, key: string | undefined) => void): LossWatch {
    this.use()
    const watch = new LinuxLosses(this.binding, this.ns, listener)
    this.watches.add(watch)
    return watch
  }

  openSocket(options: SocketOptions): number {
    this.use()
    return openSocket(this.binding, this.ns, options)
  }

  closeFd(fd: number): void {
    this.binding.close(fd)
  }

  serveDatagrams(fd: number, onHeard: (count: number) => void): Datagrams {
    try {
      return this.binding.datagrams(fd, onHeard)
    } catch (error) {
      throw systemError(error, `serve descriptor ${fd} in batches`, { fd })
    }
  }

  openPackets(options: PacketOptions, hear: (frame: Uint8Array) => void): Packets {
    this.use()
    return openPackets(this.binding, this.ns, options, hear)
  }

  nft(commands: string): string {
    this.use()
    this.context ??= openContext(() => this.run(openNft))
    contexts.delete(this)
    contexts.add(this)
    return this.context.run(commands)
  }

  /** Another one is opened when it is needed. */
  closeContext(): void {
    this.context?.close()
    this.context = undefined
    contexts.delete(this)
  }

  nftBatch(messages: Uint8Array): void {
    this.use()
    sendBatch(this.binding, this.ns, messages)
  }

  nftElements(table: string, changes: readonly ElementChange[]): void {
    this.use()
    writer.clear()
    encodeElements(writer, table, changes)
    this.batches ??= new BatchSocket(this.binding, this.ns)
    this.batches.send(writer.take())
  }

  nftRules(family: 'ip' | 'inet', table: string): Uint8Array {
    this.use()
    writer.clear()
    encodeGetRulesOf(writer, family, table)
    return askDump(this.binding, this.ns, writer.take())
  }

  async flushConntrack(filters: ConntrackFilter[]): Promise<number> {
    this.hold()
    const turn = takeTurn([this.netfilter])
    try {
      if (turn.ready) await turn.ready
      if (this.netfilter.fd < 0) this.netfilter.fd = this.netlink(NETLINK_NETFILTER)
      const { fd } = this.netfilter
      return await flushConntrackBy(async (messages, count) => {
        const [answer] = await this.exchange({ fd, messages, count })
        return answer ?? { data: new Uint8Array(0), errors: [] }
      }, filters)
    } finally {
      turn.done()
      this.letGo()
    }
  }

  run<T>(body: () => T): T {
    this.use()
    try {
      return this.binding.run(this.ns, body)
    } catch (error) {
      // What the body throws is its own; only the way in is ours to explain.
      if (!isNativeError(error) || error.syscall !== 'setns') throw error
      throw systemError(error, `enter network namespace ${this.path ?? 'of this process'}`)
    }
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    for (const watch of [...this.watches]) watch.close()
    if (this.holders === 0) this.release()
  }

  private release(): void {
    this.closeContext()
    this.batches?.close()
    for (const fd of [this.route, this.xfrm, this.netfilter.fd, this.ns]) if (fd >= 0) this.binding.close(fd)
  }

  private use(): void {
    if (this.closed)
      throw new CnmError('ERR_CLOSED', `the stack of ${this.path ?? 'this process'} was closed`, {
        path: this.path,
      })
  }

  private netlink(protocol: number): number {
    try {
      return this.binding.socket(this.ns, AF_NETLINK, SOCK_RAW, protocol)
    } catch (error) {
      if (protocol !== NETLINK_XFRM) throw systemError(error, 'open a netlink socket', { path: this.path })
      throw systemError(
        error,
        `open a netlink socket for IPsec${NEED_ESP}`,
        { path: this.path },
        { EPROTONOSUPPORT: 'ERR_UNSUPPORTED' },
      )
    }
  }

  /** Waits for its turn, asks, and returns the bytes of the answer; undefined when the error is one of `none`. */
  private async question(
    encode: () => void,
    none: readonly number[] = [],
    socket = () => this.routeSocket,
  ): Promise<Uint8Array | undefined> {
    this.hold()
    const turn = takeTurn([this])
    try {
      if (turn.ready) await turn.ready
      writer.clear()
      encode()
      const { count } = writer
      const [answer] = await this.exchange({ fd: socket(), messages: writer.take(), count })
      for (const [i, number] of (answer?.errors ?? []).entries()) {
        // EINTR: the table changed while it was read, several times over; what was read last is near enough.
        if (number === 0 || number === EINTR) continue
        if (none.includes(number)) return undefined
        const { errno, words: text } = errnoOf(number)
        throw systemError({ errno: number }, `ask the kernel (netlink): ${answer?.texts[i] ?? text}`, {
          errno,
        })
      }
      return answer?.data
    } finally {
      turn.done()
      this.letGo()
    }
  }

  private async list<T>(
    encode: () => void,
    decode: (message: Messages) => T | undefined,
    none: readonly number[] = [],
    socket?: () => number,
  ): Promise<T[]> {
    const data = await this.question(encode, none, socket)
    return data ? decodeAll(data, decode) : []
  }

  private async exchange(step: {
    fd: number
    messages: Uint8Array
    count: number
  }): Promise<ExchangeResult[]> {
    try {
      return await pace.away(() => this.binding.exchange([step]))
    } catch (error) {
      throw isNativeError(error) ? systemError(error, 'speak to the kernel (netlink)') : error
    }
  }
}

/** Several numbers of one sysctl are separated by tabs when read, by what you like when written. */
const words = (value: string | undefined): string | undefined => value?.trim().replace(/\s+/g, ' ')
