/**
 * A host of one's own for tests on the real kernel: a network namespace with an uplink, a client beyond it, a directory
 * for whatever is made, and probes. At the end it demands that nothing is left.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { spawn, spawnSync } from 'node:child_process'
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import {
  CnmError,
  Controller,
  type ControllerInput,
  type Kernel,
  LinuxKernel,
  type Sandbox,
  type Stack,
} from 'libcnm'
import { compareSnapshots, type HostSnapshot, settled, snapshotHost } from './host-snapshot'

/** Milliseconds for what should get through: long, since the machine may be busy. */
const PATIENCE = 8_000
/** Milliseconds for what should be dropped. */
const SHORT = 300

/** Of the host's uplink and of the client beyond it. */
export const UPLINK = { 4: '192.0.2.1', 6: '2001:db8::1' } as const
export const CLIENT = { 4: '192.0.2.2', 6: '2001:db8::2' } as const

export class TestHost {
  readonly kernel = new LinuxKernel()
  readonly directory = mkdtempSync(join(tmpdir(), 'libcnm-host-'))
  readonly runDir = join(this.directory, 'run')
  host!: Stack
  /** A machine on the other end of the uplink; its default route leads to the host. */
  client!: Stack
  private readonly cleanup: (() => unknown)[] = []
  private readonly sockets = new Set<{ destroy(): unknown }>()

  /** `mtu`: of the uplink, bytes. */
  async build({ mtu = 1500 }: { mtu?: number } = {}): Promise<this> {
    this.host = await this.namespace('host')
    this.client = await this.namespace('client')
    for (const stack of [this.host, this.client])
      stack.setSysctls({ 'net/ipv6/conf/default/accept_dad': '0' }) // link-local addresses at once
    // As a machine that runs containers; the kernel adds anycast routes when it begins to forward.
    this.host.setSysctls({ 'net/ipv4/ip_forward': '1', 'net/ipv6/conf/all/forwarding': '1' })
    const address = (link: string, text: string) => ({ op: 'addAddress', link, address: text }) as const
    const way = (destination: string, gateway: string, link: string) =>
      ({ op: 'addRoute', route: { destination, gateway, link } }) as const
    await this.kernel.transact([
      {
        stack: this.host,
        changes: [
          {
            op: 'addLink',
            link: {
              kind: 'veth',
              name: 'uplink',
              mtu,
              up: true,
              peer: { name: 'eth0', mtu, netns: this.client, up: true },
            },
          },
          address('uplink', `${UPLINK[4]}/24`),
          address('uplink', `${UPLINK[6]}/64`),
          way('0.0.0.0/0', CLIENT[4], 'uplink'),
        ],
      },
      {
        stack: this.client,
        changes: [
          address('eth0', `${CLIENT[4]}/24`),
          address('eth0', `${CLIENT[6]}/64`),
          way('0.0.0.0/0', UPLINK[4], 'eth0'),
          way('::/0', UPLINK[6], 'eth0'),
        ],
      },
    ])
    // Both ends have their link-local address when the pair has its carrier; a snapshot before that would differ later.
    for (let turn = 0; turn < 200 && !(await this.isWhole()); turn++) await pause(10)
    return this
  }

  private async isWhole(): Promise<boolean> {
    const all = await Promise.all([this.host.routes({ family: 6 }), this.client.routes({ family: 6 })])
    return all.every(routes => routes.some(({ destination }) => /^fe80::.*\/128$/.test(destination)))
  }

  get path(): string {
    return this.host.path as string
  }

  /** A namespace that is gone at the end. */
  async namespace(name: string): Promise<Stack> {
    const path = join(this.directory, name)
    const stack = await this.kernel.create(path)
    this.cleanup.push(async () => {
      stack.close()
      await this.kernel.remove(path)
    })
    return stack
  }

  /** Done at the end, the last one first. */
  atEnd(act: () => unknown): void {
    this.cleanup.push(act)
  }

  async open(options: Exclude<ControllerInput, undefined> = {}): Promise<Controller> {
    const controller = await Controller.open({
      kernel: this.kernel,
      host: this.path,
      runDir: this.runDir,
      hostId: 'test',
      ...options,
    })
    this.cleanup.push(() => controller.close())
    return controller
  }

  /** Where a store may be; two calls give one place. */
  get dataDir(): string {
    const path = join(this.directory, 'data')
    mkdirSync(path, { recursive: true })
    return path
  }

  snapshot(): Promise<HostSnapshot> {
    return snapshotHost(this.path, [this.runDir])
  }

  /** Waits until the host is as it was then; throws what differs if it will not be. */
  async assertAs(before: HostSnapshot, except: (keyof HostSnapshot)[] = []): Promise<void> {
    const differences = await settled(async () => compareSnapshots(before, await this.snapshot(), except))
    if (differences.length) throw new Error(`the host differs:\n${differences.join('\n')}`)
  }

  /** Everything that was made with this host goes. */
  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    for (const act of this.cleanup.splice(0).reverse()) await act()
    for (const path of await this.kernel.list(join(this.runDir, 'netns'))) await this.kernel.remove(path)
    rmSync(this.directory, { recursive: true, force: true })
  }

  /* ------------------------------------------------------------ probes */

  /** A program inside, and what it prints; throws when it fails. */
  run(where: Stack, program: string, ...parameters: string[]): string {
    const { status, stdout, stderr } = where.run(() =>
      spawnSync(program, parameters, { encoding: 'utf8', timeout: 20_000, maxBuffer: 1 << 26 }),
    )
    if (status !== 0) throw new Error(`${program} ${parameters.join(' ')}: ${stderr}`)
    return stdout
  }

  /** Does an echo request come back? `size`: bytes of payload, not to be fragmented. */
  ping(
    from: Stack,
    address: string,
    { seconds = 4, size }: { seconds?: number; size?: number } = {},
  ): Promise<boolean> {
    const whole = size === undefined ? [] : ['-s', String(size), '-M', 'do']
    const child = from.run(() =>
      spawn('ping', ['-q', '-n', '-c', '1', '-W', String(seconds), ...whole, address], { stdio: 'ignore' }),
    )
    return new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', status => resolve(status === 0))
    })
  }

  /** Answers TCP connections and datagrams with the address that they come from. */
  async serve(where: Stack, port: number): Promise<void> {
    for (const address of ['0.0.0.0', '::']) {
      await this.serveStream('tcp', where, address, port)
      const udp: UdpSocket = createSocket(address === '::' ? 'udp6' : 'udp4')
      udp.on('error', () => {})
      udp.on('message', (_, peer) => udp.send(peer.address, peer.port, peer.address))
      this.track({ destroy: () => udp.close() })
      await new Promise<void>(resolve =>
        udp.bind({ fd: where.openSocket({ type: 'udp', address, port }) }, () => resolve()),
      )
    }
  }

  /** As {@link serve}, over SCTP. */
  async serveSctp(where: Stack, port: number): Promise<void> {
    for (const address of ['0.0.0.0', '::']) await this.serveStream('sctp', where, address, port)
  }

  private async serveStream(
    type: 'tcp' | 'sctp',
    where: Stack,
    address: string,
    port: number,
  ): Promise<void> {
    const server: Server = createServer(socket => {
      this.track(socket)
      socket.on('error', () => {})
      socket.end(`${socket.remoteAddress}`)
    })
    this.track({ destroy: () => server.close() })
    const fd = where.openSocket({ type, address, port, listen: 16 })
    await new Promise<void>(resolve => server.listen({ fd }, resolve))
  }

  /** The address that the server saw; `closed` when nothing comes back. */
  tcp(from: Stack, address: string, port: number, patience = PATIENCE): Promise<string> {
    return this.stream('tcp', from, address, port, patience)
  }

  /** SCTP of one stream is used like TCP. */
  sctp(from: Stack, address: string, port: number, patience = PATIENCE): Promise<string> {
    return this.stream('sctp', from, address, port, patience)
  }

  private stream(
    type: 'tcp' | 'sctp',
    from: Stack,
    address: string,
    port: number,
    patience: number,
  ): Promise<string> {
    const fd = from.openSocket({ type, address: address.includes(':') ? '::' : '0.0.0.0', port: 0 })
    const socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
    this.track(socket)
    return new Promise(resolve => {
      const end = (answer: string) => {
        clearTimeout(timer)
        socket.destroy()
        resolve(answer)
      }
      const timer = setTimeout(() => end('closed'), patience)
      socket.on('data', data => end(data.toString()))
      socket.on('error', () => end('closed'))
      socket.connect({ host: address, port })
    })
  }

  udp(from: Stack, address: string, port: number, patience = PATIENCE): Promise<string> {
    const v6 = address.includes(':')
    const socket = createSocket(v6 ? 'udp6' : 'udp4')
    return new Promise(resolve => {
      const end = (answer: string) => {
        clearTimeout(timer)
        clearInterval(again)
        socket.close()
        resolve(answer)
      }
      const timer = setTimeout(() => end('closed'), patience)
      const send = () => socket.send('?', port, address, () => {})
      // A datagram may be lost while a neighbour is looked up.
      const again = setInterval(send, 500)
      socket.on('error', () => {})
      socket.on('message', data => end(data.toString()))
      socket.bind({ fd: from.openSocket({ type: 'udp', address: v6 ? '::' : '0.0.0.0', port: 0 }) }, send)
    })
  }

  /** Gets through by ping, TCP and UDP; the server runs at `port`. */
  async reaches(
    from: Stack,
    address: string,
    port: number,
  ): Promise<Record<'ping' | 'tcp' | 'udp', boolean>> {
    const [ping, tcp, udp] = await Promise.all([
      this.ping(from, address),
      this.tcp(from, address, port),
      this.udp(from, address, port),
    ])
    return { ping, tcp: tcp !== 'closed', udp: udp !== 'closed' }
  }

  /** As {@link reaches}, for what is to get nowhere: it waits less. */
  async reachesNot(from: Stack, address: string, port: number): Promise<boolean> {
    const answers = await Promise.all([
      this.ping(from, address, { seconds: 1 }).then(ok => (ok ? 'ping' : 'closed')),
      this.tcp(from, address, port, SHORT),
      this.udp(from, address, port, SHORT),
    ])
    return answers.every(answer => answer === 'closed')
  }

  private track(socket: { destroy(): unknown; on?(event: 'close', gone: () => void): unknown }): void {
    this.sockets.add(socket)
    socket.on?.('close', () => this.sockets.delete(socket))
  }
}

export const THROUGH = { ping: true, tcp: true, udp: true }

export const makeHost = (options?: { mtu?: number }): Promise<TestHost> => new TestHost().build(options)

/** A host for each test of the file, or of the `describe` block; it must be left as it was found. */
export function hostForEach(options?: { mtu?: number }): () => TestHost {
  let host: TestHost
  let before: HostSnapshot
  beforeEach(async () => {
    host = await makeHost(options)
    before = await host.snapshot()
  })
  afterEach(async () => {
    try {
      await host.assertAs(before, ['sysctls', 'files', 'nft', 'sockets'])
    } finally {
      await host.close()
    }
  })
  return () => host
}

export const stackOf = (sandbox: Sandbox): Stack => sandbox.stack as Stack
export const bare = (cidr: string | undefined): string => (cidr ?? '').replace(/\/.*/, '')

/* ---------------------------------------------------------------- faults */

/** A call that changes something was made to fail. */
export interface FaultyKernel extends Kernel {
  /** Runs an operation: only the calls that it makes itself count, not those of whoever looks after the kernel meanwhile. */
  observe<T>(body: () => T): T
  /** Changing calls of operations so far. */
  readonly calls: string[]
  /** Fails the n-th changing call of an operation from now on (1: the next), before it has done anything or when half of it is done. */
  fail(n: number, when: 'before' | 'half'): void
  /** What the last fault met: the call, and what a list of changes was to do; undefined when it met nothing. */
  readonly struck: string[] | undefined
  heal(): void
}

const CHANGING = new Set([
  'create',
  'bind',
  'remove',
  'transact',
  'apply',
  'setSysctls',
  'nft',
  'nftBatch',
  'nftElements',
  'openSocket',
])

/** The real kernel, with calls that can be made to fail. */
export function faulty(kernel: Kernel): FaultyKernel {
  const inner = new WeakMap<object, Stack>()
  const calls: string[] = []
  /** Of whom a call is: only those of the operation that is observed count, and can fail. */
  const observation = new AsyncLocalStorage<true>()
  let fault: { at: number; when: 'before' | 'half' } | undefined
  let struck: string[] | undefined

  /** Stacks that went out wrapped come back as they are. */
  const unwrap = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null) return value
    const real = inner.get(value)
    if (real) return real
    if (Array.isArray(value)) return value.map(unwrap)
    if (Object.getPrototypeOf(value) !== Object.prototype) return value
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, unwrap(each)]))
  }
  const broken = (call: string) =>
    new CnmError('ERR_KERNEL', `${call}: fault injected by the test`, { errno: 'EIO' })
  /** Of a list of changes, or of steps. */
  const opsOf = (list: unknown): string[] =>
    Array.isArray(list) ? list.flatMap(({ op, changes }) => (changes ? opsOf(changes) : [String(op)])) : []
  /** A listing of the ruleset changes nothing. */
  const asks = ([commands]: unknown[]): boolean =>
    typeof commands === 'string' && commands.startsWith('list ')
  /** The first half of a list of changes, or of steps. */
  const half = (list: unknown[]): unknown[] => list.slice(0, Math.floor(list.length / 2))

  const wrap = <T extends object>(target: T, own: object = {}): T =>
    new Proxy(target, {
      get(_, property) {
        if (property in own) return Reflect.get(own, property) as unknown
        const value = Reflect.get(target, property, target) as unknown
        if (typeof value !== 'function') return value
        const name = String(property)
        return (...given: unknown[]) => {
          const parameters = given.map(unwrap)
          const call = () => wrapped(Reflect.apply(value, target, parameters) as unknown)
          if (!CHANGING.has(name) || asks(parameters) || !observation.getStore()) return call()
          calls.push(name)
          if (calls.length !== fault?.at) return call()
          const { when } = fault
          const [list] = parameters
          struck = [name, ...opsOf(list)]
          if (when === 'half' && (name === 'transact' || name === 'apply') && Array.isArray(list)) {
            const part =
              name === 'apply' || list.length > 1
                ? half(list)
                : list.map(step => ({ ...step, changes: half(step.changes) }))
            return (Reflect.apply(value, target, [part]) as Promise<void>).then(() => {
              throw broken(name)
            })
          }
          if (['setSysctls', 'nft', 'nftBatch', 'nftElements', 'openSocket'].includes(name))
            throw broken(name)
          return Promise.reject(broken(name))
        }
      },
    })
  const wrapped = (answer: unknown): unknown => {
    if (answer instanceof Promise) return answer.then(wrapped)
    if (typeof answer !== 'object' || answer === null || !('openSocket' in answer)) return answer
    const outer = wrap(answer)
    inner.set(outer, answer as Stack)
    return outer
  }
  return wrap(kernel, {
    calls,
    observe: <T>(body: () => T) => observation.run(true, body),
    get struck() {
      return struck
    },
    fail(n: number, when: 'before' | 'half') {
      fault = { at: calls.length + n, when }
      struck = undefined
    },
    heal() {
      fault = undefined
    },
  }) as FaultyKernel
}
