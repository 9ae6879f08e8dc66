import { AsyncResource } from 'node:async_hooks'
import { dirname, normalize } from 'node:path'
import { CnmError } from '../base/errors'
import { changeError, systemError } from '../kernel/errors'
import type { Kernel, KernelEvent, Stack, Step } from '../kernel/kernel'
import { asked, type Context } from './asked'
import { MockStack } from './mock-stack'
import { addAddress, addRoute, applyChange, makeLink, setUp, unlink } from './model'
import { numberOfErrno, Refusal, refuse } from './model/refusal'
import { type ConntrackEntry, type Machine, type Netns, newNetns } from './model/state'
import { type NamespaceSnapshot, type Snapshot, snapshotOf } from './model/snapshot'

/** The test's own, whatever fake timers do to the global one. */
const soon = setImmediate
const pause = setTimeout

/** A network card of a namespace that stands for a machine. */
export interface Hardware {
  name: string
  mac?: string
  mtu?: number
  /** ADDRESS/LENGTH each. */
  addresses?: string[]
  /** Default routes. */
  gateways?: string[]
}

/** Interprets nftables text, for tests that look at the firewall's state; the default only keeps the text. */
export interface RulesetModel {
  /** One transaction. Throws when nftables would refuse it. Returns what it prints. */
  run(stack: Stack, commands: string): string
  /** Plain data of what is loaded in the namespace, for {@link MockKernel.snapshot}. */
  snapshot?(stack: { inode: number }): unknown
}

export interface MockKernelOptions {
  /** Cards of the process's own namespace. Default: eth0, 192.0.2.10/24, default route by 192.0.2.1. */
  hardware?: Hardware[]
  /** What this kernel lacks: link kinds (`ipvlan` ...), `ipv6`, `sctp`, `br_netfilter`; `dad` for none of its delay. */
  lacks?: string[]
  /** False: a process without CAP_NET_ADMIN. */
  privileged?: boolean
  /** Links can be renamed while they are up (Linux 6.2 and newer). Default true. */
  liveRename?: boolean
  /** Every asynchronous call takes so long. Default 0: it still resolves in a later microtask. */
  latencyMs?: number
  nft?: RulesetModel | ((stack: Stack, commands: string) => string)
}

/** One call of the seam, as data. A transaction gives one entry for each of its changes. */
export interface KernelCall {
  /** 1 for the first since the kernel was made. */
  n: number
  /** `addLink` and the other changes; `open`, `create`, `links`, `openSocket` ... for the rest. */
  op: string
  /** Path of the namespace; undefined for the process's own. */
  netns: string | undefined
  details: Readonly<Record<string, unknown>>
  /** errno of the refusal or injected fault. */
  error?: string
}

interface Fault {
  when: (call: KernelCall) => boolean
  errno: string
  times: number
}

/** What a test may look at, and set, in a namespace. */
export interface NetnsView extends NamespaceSnapshot {
  /** Connection tracker entries: put some in, see what is left. */
  readonly conntrack: ConntrackEntry[]
  /** nftables text, one element per transaction. */
  readonly transactions: readonly string[]
}

/**
 * A model of Linux networking in memory, behind the same interface as the real kernel. It needs no root, refuses what
 * Linux refuses with the same errno, keeps a journal and can fail any call. Its answers are held to the real kernel's
 * by {@link kernelSuite}.
 */
export class MockKernel implements Kernel {
  readonly simulated = true
  /** Every call, oldest first. */
  readonly journal: KernelCall[] = []
  readonly ruleset: RulesetModel | undefined
  /** The model's view of the machine; not for tests. */
  readonly machine: Machine

  private own: Netns
  private readonly bound = new Map<string, Netns>()
  private readonly all = new Set<Netns>()
  private readonly stacks = new Set<MockStack>()
  private readonly fds = new Map<number, Netns>()
  private faults: Fault[] = []
  private count = 0
  private nextInode = 4026531840
  private nextFd = 1_000_000
  private nextPid = 1000
  private pending = 0
  /** Whoever hears of a change does not act on behalf of him who made it. */
  private readonly outside = new AsyncResource('MockKernel')

  constructor(private readonly options: MockKernelOptions = {}) {
    this.ruleset = typeof options.nft === 'function' ? { run: options.nft } : options.nft
    this.machine = {
      lacks: new Set(options.lacks),
      liveRename: options.liveRename ?? true,
      emit: (netns, event) => this.emit(netns, event),
      later: act => this.later(act),
    }
    this.own = this.boot()
  }

  /* ----------------------------------------------------------- Kernel */

  open(path?: string): Promise<Stack> {
    return this.actLater(
      undefined,
      'open',
      { path },
      asked(`open network namespace ${path ?? 'of this process'}`, { path }),
      () => {
        const netns = path === undefined ? this.own : this.find(path)
        return this.handle(netns, path)
      },
    )
  }

  create(path?: string): Promise<Stack> {
    return this.actLater(
      undefined,
      'create',
      { path },
      asked(`create network namespace ${path ?? 'for stock'}`, { path }),
      () => {
        if (path === undefined) {
          this.needPrivilege()
          return this.handle(this.newNamespace(), path)
        }
        const at = normalize(path)
        if (this.bound.has(at))
          throw new CnmError('ERR_NETNS_EXISTS', `a network namespace is bound to ${path} already`, { path })
        this.needPrivilege()
        const netns = this.newNamespace()
        this.bindTo(at, netns)
        return this.handle(netns, path)
      },
    )
  }

  bind(source: string | Stack, path: string): Promise<Stack> {
    const from = typeof source === 'string' ? source : 'of stock'
    return this.actLater(
      undefined,
      'bind',
      { source: from, path },
      asked(`bind network namespace ${from} to ${path}`, { source: from, path }),
      () => {
        const netns = typeof source === 'string' ? this.find(source) : this.netnsOf(source)
        this.needPrivilege()
        const at = normalize(path)
        const before = this.bound.get(at)
        if (before && typeof source !== 'string')
          throw new CnmError('ERR_NETNS_EXISTS', `a network namespace is bound to ${path} already`, { path })
        if (before !== netns) {
          if (before) this.unbind(at, before)
          this.bindTo(at, netns)
        }
        if (typeof source === 'string') return this.handle(netns, path)
        ;(source as MockStack).path = path
        return source
      },
    )
  }

  remove(path: string): Promise<void> {
    return this.actLater(
      undefined,
      'remove',
      { path },
      asked(`remove network namespace ${path}`, { path }),
      () => {
        const at = normalize(path)
        const netns = this.bound.get(at)
        if (!netns) return
        this.needPrivilege()
        this.unbind(at, netns)
      },
    )
  }

  list(directory: string): Promise<string[]> {
    return this.actLater(
      undefined,
      'list',
      { directory },
      asked(`list network namespaces in ${directory}`, { directory }),
      () => {
        const wanted = normalize(`${directory}/.`)
        return [...this.bound.keys()].filter(path => normalize(`${dirname(path)}/.`) === wanted).sort()
      },
    )
  }

  async transact(steps: Step[]): Promise<void> {
    await this.delay()
    let first: CnmError | undefined
    for (const [s, { stack, changes }] of steps.entries()) {
      for (const [c, change] of changes.entries()) {
        try {
          this.act(
            stack as MockStack,
            change.op,
            plain(change),
            { refused: (errno, text) => changeError(change, errno, text, { step: s, change: c }) },
            () => {
              this.needPrivilege()
              applyChange(this.machine, this.netnsOf(stack), change, each => this.netnsOf(each))
            },
          )
        } catch (error) {
          first ??= error as CnmError
        }
      }
      if (first) throw first
    }
  }

  /* ----------------------------------------------------------- for tests */

  /** Calls so far: the number of the next one is one more. */
  get calls(): number {
    return this.count
  }

  /** Fails the call with that number (see {@link calls}), or the next that the predicate picks, `times` times. */
  failAt(when: number | ((call: KernelCall) => boolean), errno = 'EIO', times = 1): void {
    this.faults.push({ when: typeof when === 'number' ? call => call.n === when : when, errno, times })
  }

  /** Fails the next call, or the next of that operation. */
  failNext(errno = 'EIO', op?: string): void {
    this.failAt(call => op === undefined || call.op === op, errno)
  }

  clearFaults(): void {
    this.faults = []
  }

  /** Everything there is, without indexes and inodes, sorted: two equal snapshots are two equal states. */
  snapshot(): Snapshot {
    const namespaces = [...this.all].map(netns => this.describe(netns))
    return { namespaces: namespaces.sort((a, b) => (a.name < b.name ? -1 : 1)) }
  }

  /** A namespace by path; the process's own without one. Undefined when nothing is bound there. */
  netns(path?: string): NetnsView | undefined {
    const netns = path === undefined ? this.own : this.bound.get(normalize(path))
    return netns && { ...this.describe(netns), conntrack: netns.conntrack, transactions: netns.nft }
  }

  /** Plays another process with a namespace of its own, as an OCI runtime starts one. It keeps the namespace alive. */
  spawn(): { pid: number; path: string; exit(): void } {
    const pid = this.nextPid++
    const path = `/proc/${pid}/ns/net`
    const netns = this.newNamespace()
    this.bindTo(path, netns)
    return { pid, path, exit: () => this.bound.get(path) === netns && this.unbind(path, netns) }
  }

  /** Makes a namespace that stands for a whole machine, with cards as {@link MockKernelOptions.hardware} says. */
  createHost(path: string, hardware: Hardware[] = DEFAULT_HARDWARE): void {
    const netns = this.newNamespace()
    this.bindTo(normalize(path), netns)
    for (const card of hardware) this.plug(netns, card)
  }

  /** Handles that were not closed: for tests that nothing is left open. */
  openStacks(): (string | undefined)[] {
    return [...this.stacks].map(stack => stack.path)
  }

  /** The process dies: its handles, watches and sockets are gone; namespaces, links and rules stay. */
  kill(): void {
    for (const stack of [...this.stacks]) stack.close()
    for (const fd of [...this.fds.keys()]) this.closeFd(fd)
  }

  /** The machine restarts: everything is gone. */
  reboot(): void {
    this.kill()
    for (const netns of [...this.all]) this.destroy(netns)
    this.bound.clear()
    this.own = this.boot()
  }

  /** Resolves when all events so far were delivered and address detection is over. */
  async settle(): Promise<void> {
    while (this.pending > 0) await new Promise<void>(done => soon(done))
  }

  /* ----------------------------------------------------------- for MockStack */

  /** @internal Counts, records and carries out one call; a refusal becomes the error that the real kernel's call throws. */
  act<T>(
    stack: MockStack | undefined,
    op: string,
    details: Record<string, unknown>,
    context: Context,
    body: () => T,
  ): T {
    const call: KernelCall = { n: ++this.count, op, netns: stack?.path, details }
    this.journal.push(call)
    try {
      stack?.check()
      const fault = this.faults.find(each => each.when(call))
      if (fault) {
        if (--fault.times <= 0) this.faults.splice(this.faults.indexOf(fault), 1)
        refuse(fault.errno, 'fault injected by the test')
      }
      return body()
    } catch (error) {
      if (error instanceof CnmError) call.error = error.code
      if (!(error instanceof Refusal)) throw error
      call.error = error.errno
      throw context.refused(numberOfErrno(error.errno), error.text)
    }
  }

  /** @internal {@link act} after the latency. */
  async actLater<T>(
    stack: MockStack | undefined,
    op: string,
    details: Record<string, unknown>,
    context: Context,
    body: () => T,
  ): Promise<T> {
    await this.delay()
    return this.act(stack, op, details, context, body)
  }

  /** @internal */
  needPrivilege(): void {
    if (this.options.privileged === false) refuse('EPERM')
  }

  /** @internal */
  newFd(stack: MockStack): number {
    const fd = this.nextFd++
    this.fds.set(fd, stack.netns)
    return fd
  }

  /** @internal */
  closeFd(fd: number): void {
    const netns = this.fds.get(fd)
    if (!netns)
      throw systemError({ errno: numberOfErrno('EBADF'), syscall: 'close' }, `close descriptor ${fd}`, { fd })
    this.fds.delete(fd)
    netns.sockets.delete(fd)
    this.reap(netns)
  }

  /** @internal */
  released(stack: MockStack): void {
    this.stacks.delete(stack)
    stack.netns.holders--
    this.reap(stack.netns)
  }

  /* ----------------------------------------------------------- inside */

  private delay(): Promise<void> {
    const { latencyMs = 0 } = this.options
    return latencyMs > 0 ? new Promise(done => pause(done, latencyMs)) : Promise.resolve()
  }

  private boot(): Netns {
    const netns = this.newNamespace()
    netns.holders++ // the process itself
    for (const card of this.options.hardware ?? DEFAULT_HARDWARE) this.plug(netns, card)
    return netns
  }

  private newNamespace(): Netns {
    const netns = newNetns(this.nextInode++)
    this.all.add(netns)
    const lo = makeLink(netns, { name: 'lo', kind: undefined, mac: '00:00:00:00:00:00', mtu: 65536 })
    setUp(this.machine, lo, true)
    return netns
  }

  private plug(netns: Netns, card: Hardware): void {
    const { name, mac = '02:00:00:00:00:01', mtu, addresses = [], gateways = [] } = card
    const link = makeLink(netns, { name, kind: undefined, mac, ...(mtu !== undefined && { mtu }) })
    for (const address of addresses) addAddress(this.machine, link, { address })
    setUp(this.machine, link, true)
    for (const gateway of gateways)
      addRoute(
        this.machine,
        netns,
        { destination: gateway.includes(':') ? '::/0' : '0.0.0.0/0', gateway },
        link,
        false,
      )
  }

  private find(path: string): Netns {
    const netns = path === '/proc/self/ns/net' ? this.own : this.bound.get(normalize(path))
    if (!netns)
      throw new CnmError('ERR_NETNS_NOT_FOUND', `there is no network namespace at ${path}`, { path })
    return netns
  }

  private handle(netns: Netns, path: string | undefined): MockStack {
    const stack = new MockStack(this, netns, path)
    this.stacks.add(stack)
    return stack
  }

  private netnsOf(stack: Stack): Netns {
    if (stack instanceof MockStack && stack.isOf(this)) {
      stack.check()
      return stack.netns
    }
    throw new CnmError('ERR_INTERNAL', 'a stack of another kernel was given to the mock kernel', {
      path: stack.path,
    })
  }

  private bindTo(path: string, netns: Netns): void {
    this.bound.set(path, netns)
    netns.paths.add(path)
  }

  private unbind(path: string, netns: Netns): void {
    this.bound.delete(path)
    netns.paths.delete(path)
    this.reap(netns)
  }

  /** A namespace lives as long as a path, a handle or a socket holds it. */
  private reap(netns: Netns): void {
    if (netns.alive && netns.paths.size === 0 && netns.holders === 0 && netns.sockets.size === 0)
      this.destroy(netns)
  }

  private destroy(netns: Netns): void {
    netns.alive = false
    this.all.delete(netns)
    netns.listeners.clear()
    for (const link of [...netns.links.values()]) unlink(this.machine, link)
  }

  private describe(netns: Netns): NamespaceSnapshot {
    return snapshotOf(
      this.machine,
      netns,
      netns === this.own ? 'own' : undefined,
      this.ruleset?.snapshot?.(netns),
    )
  }

  private emit(netns: Netns, event: KernelEvent): void {
    for (const listener of netns.listeners)
      if (listener.topics.has(event.topic))
        this.later(() => {
          if (netns.listeners.has(listener)) listener.deliver(event)
        })
  }

  /** In order, after the call that caused it has returned: immediates run first in, first out. */
  private later(act: () => void): void {
    this.pending++
    soon(() => {
      this.pending--
      this.outside.runInAsyncScope(act)
    })
  }
}

const DEFAULT_HARDWARE: Hardware[] = [{ name: 'eth0', addresses: ['192.0.2.10/24'], gateways: ['192.0.2.1'] }]

/** A change as plain data: stacks become their paths. */
function plain(change: object): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(change)) {
    if (value instanceof MockStack) result[key] = value.path ?? 'own'
    else result[key] = value && typeof value === 'object' && !Array.isArray(value) ? plain(value) : value
  }
  return result
}
