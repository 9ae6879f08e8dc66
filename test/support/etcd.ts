/** An etcd of one's own for tests: one server on loopback, its data in a directory that is gone at the end. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface EtcdMember {
  name: string
  client: number
  peer: number
}

export class TestEtcd {
  readonly directory: string
  #child: ChildProcess | undefined
  #metrics = ''
  readonly #own: EtcdMember
  readonly #all: EtcdMember[]
  readonly #options: string[]
  readonly #scheme: 'http' | 'https'

  private constructor(own: EtcdMember, all: EtcdMember[], options: string[]) {
    this.#own = own
    this.#all = all
    this.#options = options
    this.#scheme = options.includes('--cert-file') ? 'https' : 'http'
    this.directory = mkdtempSync(join(tmpdir(), 'libcnm-etcd-'))
  }

  static async start(...options: string[]): Promise<TestEtcd> {
    const [only] = await TestEtcd.members(1, ...options)
    return only as TestEtcd
  }

  /** Several that make up one store. */
  static async members(count: number, ...options: string[]): Promise<TestEtcd[]> {
    const ports = await freePorts(2 * count)
    const all = Array.from({ length: count }, (_, at) => ({
      name: `m${at + 1}`,
      client: ports[2 * at] as number,
      peer: ports[2 * at + 1] as number,
    }))
    const members = all.map(own => new TestEtcd(own, all, options))
    try {
      await Promise.all(members.map(member => member.run()))
    } catch (error) {
      await Promise.allSettled(members.map(member => member.stop()))
      throw error
    }
    return members
  }

  get endpoint(): string {
    return `${this.#scheme}://127.0.0.1:${this.#own.client}`
  }
  get port(): number {
    return this.#own.client
  }

  /** Starts the server (again, on the same data) and waits until it answers. */
  async run(): Promise<void> {
    const url = ({ peer }: EtcdMember) => `http://127.0.0.1:${peer}`
    const metrics = `http://127.0.0.1:${(await freePorts(1))[0]}`
    this.#metrics = metrics
    const child = spawn(
      'etcd',
      [
        ...['--name', this.#own.name, '--data-dir', join(this.directory, 'data'), '--unsafe-no-fsync'],
        ...['--listen-client-urls', this.endpoint, '--advertise-client-urls', this.endpoint],
        ...['--listen-peer-urls', url(this.#own), '--initial-advertise-peer-urls', url(this.#own)],
        ...['--initial-cluster', this.#all.map(each => `${each.name}=${url(each)}`).join(',')],
        ...['--listen-metrics-urls', metrics, '--logger', 'zap', '--log-level', 'error'],
        ...['--heartbeat-interval', '50', '--election-timeout', '250'],
        ...this.#options,
      ],
      { stdio: 'ignore' },
    )
    child.on('error', () => {})
    this.#child = child
    for (let attempt = 0; attempt < 400; attempt++) {
      if (child.exitCode !== null) throw new Error(`etcd ended with ${child.exitCode}`)
      const healthy = await fetch(`${metrics}/health`).then(
        async response => ((await response.json()) as { health: string }).health === 'true',
        () => false,
      )
      if (healthy) return
      await new Promise(resolve => setTimeout(resolve, 25))
    }
    throw new Error('etcd does not become healthy; is etcd-server installed?')
  }

  /** What the server tells Prometheus. */
  async metrics(): Promise<string> {
    return (await fetch(`${this.#metrics}/metrics`)).text()
  }

  /** Ends it at once, as a power cut does. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    await new Promise<void>(resolve => {
      child.once('exit', () => resolve())
      child.kill(signal)
    })
  }

  /** One call of the gateway: `post('/v3/kv/compaction', { revision })`. */
  async post(
    path: string,
    body: unknown,
    headers: Record<string, string> = {},
  ): Promise<Record<string, unknown>> {
    const response = await fetch(`${this.endpoint}${path}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
    })
    return (await response.json()) as Record<string, unknown>
  }

  async stop(): Promise<void> {
    await this.kill()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** A way to a port of loopback that can be cut and healed: a host's line to etcd. */
export class Line {
  readonly #sockets = new Set<Socket>()
  readonly #server: Server
  #cut = false
  /** Bytes are kept back while it is frozen: neither closed nor answered. */
  #frozen = false

  private constructor(readonly target: number) {
    this.#server = createServer(client => this.#carry(client))
  }

  static async to(port: number): Promise<Line> {
    const line = new Line(port)
    await new Promise<void>(resolve => line.#server.listen(0, '127.0.0.1', resolve))
    return line
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  #carry(client: Socket): void {
    this.#track(client)
    if (this.#cut) return void client.destroy()
    const server = connect(this.target, '127.0.0.1')
    this.#track(server)
    client.on('close', () => server.destroy())
    server.on('close', () => client.destroy())
    client.pipe(server)
    server.pipe(client)
    if (this.#frozen) for (const socket of [client, server]) socket.pause()
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => this.#sockets.delete(socket))
  }

  cut(): void {
    this.#cut = true
    for (const socket of this.#sockets) socket.destroy()
  }
  heal(): void {
    this.#cut = false
    this.#frozen = false
    for (const socket of this.#sockets) socket.resume()
  }
  /** As a cable that is pulled: nobody is told. */
  freeze(): void {
    this.#frozen = true
    for (const socket of this.#sockets) socket.pause()
  }

  async close(): Promise<void> {
    this.cut()
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }
}

/**
 * Ports below the ones that the kernel gives to outgoing connections (`ip_local_port_range`, from 32768): between the
 * look and etcd's own bind, no connection of another test can take them. Each worker of Jest has its own thousand.
 */
const FIRST_PORT = 20_000 + (Number(process.env.JEST_WORKER_ID ?? 0) % 12) * 1_000
let nextPort = process.pid % 1_000

async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = []
  for (let tries = 0; ports.length < count; tries++) {
    if (tries > 1_000) throw new Error(`no free port from ${FIRST_PORT} to ${FIRST_PORT + 999}`)
    const port = FIRST_PORT + (nextPort++ % 1_000)
    if (await isFree(port)) ports.push(port)
  }
  return ports
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

export const hasEtcd = (): boolean => spawnSync('etcd', ['--version']).status === 0
