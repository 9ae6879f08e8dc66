/**
 * A host with two bridges (and whatever the test adds), containers behind them, a client on the LAN and one behind a second
 * link of the host: namespaces, all in this process. Probes are plain sockets that were opened inside.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FirewallNetwork } from '../../../lib/firewall/contract'
import type { Stack } from '../../../lib/kernel/kernel'
import { LinuxKernel } from '../../../lib/kernel/linux'

export type Protocol = 'tcp' | 'udp'
export type Place = 'host' | 'lan' | 'vpn' | 'a1' | 'a2' | 'b1'

/** Milliseconds after which a probe that should get through counts as lost; long, since the machine may be busy. */
const PATIENCE = 8000
/** Milliseconds after which a probe that should be dropped counts as dropped. */
const SHORT = 250

export const ADDRESS = {
  host: { 4: '192.168.50.1', 6: 'fd50::1' },
  /** The host's second address on the LAN. */
  host2: { 4: '192.168.50.9', 6: 'fd50::9' },
  hostVpn: { 4: '192.168.60.1', 6: 'fd60::1' },
  lan: { 4: '192.168.50.2', 6: 'fd50::2' },
  vpn: { 4: '192.168.60.2', 6: 'fd60::2' },
  gatewayA: { 4: '10.1.0.1', 6: 'fd01::1' },
  a1: { 4: '10.1.0.2', 6: 'fd01::2' },
  a2: { 4: '10.1.0.3', 6: 'fd01::3' },
  gatewayB: { 4: '10.2.0.1', 6: 'fd02::1' },
  b1: { 4: '10.2.0.2', 6: 'fd02::2' },
} as const

/** What a test asks of a network; the rest is usual. */
export function network(which: 'A' | 'B', over: Partial<FirewallNetwork> = {}): FirewallNetwork {
  const n = which === 'A' ? 1 : 2
  return {
    id: `network-${which}`,
    link: `br${which}`,
    internal: false,
    icc: true,
    trustedLinks: [],
    families: [
      { family: 4, subnets: [`10.${n}.0.0/24`], gateway: `10.${n}.0.1`, mode: 'nat', masquerade: true },
      { family: 6, subnets: [`fd0${n}::/64`], gateway: `fd0${n}::1`, mode: 'nat', masquerade: true },
    ],
    ...over,
  }
}

export class Scene {
  readonly kernel = new LinuxKernel()
  /** Made with the scene: a scene of which no test is run leaves nothing. */
  private directory = ''
  readonly stacks = new Map<Place, Stack>()
  /** `PLACE PORT/PROTOCOL CLIENT`, for whatever came to a server, even where no answer found its way back. */
  readonly heard = new Set<string>()
  private readonly servers: (Server | UdpSocket)[] = []
  private readonly sockets = new Set<Socket>()

  at(place: Place): Stack {
    const stack = this.stacks.get(place)
    if (!stack) throw new Error(`no stack ${place}`)
    return stack
  }

  /** `bridged`: does br_netfilter hand packets between ports of a bridge to the firewall? Settings of a namespace. */
  async build(bridged = false): Promise<void> {
    this.directory = mkdtempSync(join(tmpdir(), 'firewall-'))
    for (const place of ['host', 'lan', 'vpn', 'a1', 'a2', 'b1'] as const) {
      const stack = await this.kernel.create(join(this.directory, place))
      this.stacks.set(place, stack)
      // Link-local addresses at once: without one a host cannot ask for IPv6 neighbours (one or two seconds otherwise).
      stack.setSysctls({ 'net/ipv6/conf/default/accept_dad': '0' })
    }
    const host = this.at('host')
    for (const key of ['net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables'])
      if (host.sysctl(key) !== undefined) host.setSysctls({ [key]: bridged ? '1' : '0' })
    const pair = (name: string, place: Place, master?: string) => ({
      op: 'addLink' as const,
      link: {
        kind: 'veth' as const,
        name,
        up: true,
        ...(master ? { master } : {}),
        peer: { name: 'eth0', netns: this.at(place) },
      },
    })
    const address = (link: string, text: string) => ({ op: 'addAddress' as const, link, address: text })
    await host.apply([
      {
        op: 'addLink',
        link: { kind: 'bridge', name: 'brA', up: true, mac: '02:00:00:00:00:0a', multicastSnooping: false },
      },
      {
        op: 'addLink',
        link: { kind: 'bridge', name: 'brB', up: true, mac: '02:00:00:00:00:0b', multicastSnooping: false },
      },
      pair('lan0', 'lan'),
      pair('vpn0', 'vpn'),
      pair('vethA1', 'a1', 'brA'),
      pair('vethA2', 'a2', 'brA'),
      pair('vethB1', 'b1', 'brB'),
      // As the bridge driver does where br_netfilter hands bridged packets to the firewall.
      ...(bridged
        ? ['vethA1', 'vethA2', 'vethB1'].map(link => ({ op: 'setPort' as const, link, hairpin: true }))
        : []),
      ...['10.1.0.1/24', 'fd01::1/64'].map(text => address('brA', text)),
      ...['10.2.0.1/24', 'fd02::1/64'].map(text => address('brB', text)),
      ...['192.168.50.1/24', '192.168.50.9/24', 'fd50::1/64', 'fd50::9/64'].map(text =>
        address('lan0', text),
      ),
      ...['192.168.60.1/24', 'fd60::1/64'].map(text => address('vpn0', text)),
    ])
    for (const [place, length, gateway] of [
      ['lan', 24, 'host'],
      ['vpn', 24, 'hostVpn'],
      ['a1', 24, 'gatewayA'],
      ['a2', 24, 'gatewayA'],
      ['b1', 24, 'gatewayB'],
    ] as const)
      await this.at(place).apply([
        { op: 'setLink', link: 'eth0', up: true },
        address('eth0', `${ADDRESS[place][4]}/${length}`),
        address('eth0', `${ADDRESS[place][6]}/64`),
        // Clients know the way to the containers: only the firewall keeps them out.
        { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: ADDRESS[gateway][4], link: 'eth0' } },
        { op: 'addRoute', route: { destination: '::/0', gateway: ADDRESS[gateway][6], link: 'eth0' } },
      ])
  }

  /** A server that answers with the address that its client has in its eyes. */
  async serve(place: Place, protocol: Protocol, port: number, address: string): Promise<void> {
    const fd = this.at(place).openSocket({
      type: protocol,
      address,
      port,
      ...(protocol === 'tcp' ? { listen: 64 } : {}),
    })
    if (protocol === 'tcp') {
      const server = createServer(socket => {
        this.heard.add(`${place} ${port}/tcp ${socket.remoteAddress}`)
        this.sockets.add(socket)
        socket.on('error', () => {})
        socket.write(`${socket.remoteAddress}\n`)
        socket.on('data', data => socket.write(data))
      })
      this.servers.push(server)
      await new Promise<void>(resolve => server.listen({ fd }, resolve))
      return
    }
    const server = createSocket(address.includes(':') ? 'udp6' : 'udp4')
    this.servers.push(server)
    server.on('error', () => {})
    server.on('message', (_, peer) => {
      this.heard.add(`${place} ${port}/udp ${peer.address}`)
      server.send(`${peer.address}\n`, peer.port, peer.address)
    })
    await new Promise<void>(resolve => server.bind({ fd }, resolve))
  }

  /** Serves TCP and UDP, IPv4 and IPv6, at each of the ports. */
  async serveAll(place: Place, ...ports: number[]): Promise<void> {
    for (const port of ports)
      for (const protocol of ['tcp', 'udp'] as const)
        for (const address of ['0.0.0.0', '::']) await this.serve(place, protocol, port, address)
  }

  /** The client's address as the server saw it; `closed` when nothing or a refusal comes back. */
  probe(
    from: Place,
    protocol: Protocol,
    address: string,
    port: number,
    patience = PATIENCE,
  ): Promise<string> {
    return protocol === 'tcp'
      ? this.tcp(from, address, port, patience)
      : this.udp(from, address, port, patience)
  }

  /** As {@link probe}, for those that are to get nowhere. */
  closed(from: Place, protocol: Protocol, address: string, port: number): Promise<string> {
    return this.probe(from, protocol, address, port, SHORT)
  }

  /** A TCP stream from a namespace, connected. */
  connect(from: Place, address: string, port: number, source?: string): Socket {
    const fd = this.at(from).openSocket({
      type: 'tcp',
      address: source ?? (address.includes(':') ? '::' : '0.0.0.0'),
      port: 0,
    })
    const socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
    this.sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => this.sockets.delete(socket))
    socket.connect({ host: address, port })
    return socket
  }

  private tcp(from: Place, address: string, port: number, patience: number): Promise<string> {
    return new Promise(resolve => {
      const socket = this.connect(from, address, port)
      const end = (answer: string) => {
        clearTimeout(timer)
        socket.destroy()
        resolve(answer)
      }
      const timer = setTimeout(() => end('closed'), patience)
      socket.on('data', data => end(data.toString().trim()))
      socket.on('error', () => end('closed'))
    })
  }

  private udp(from: Place, address: string, port: number, patience: number): Promise<string> {
    return new Promise(resolve => {
      const v6 = address.includes(':')
      const fd = this.at(from).openSocket({ type: 'udp', address: v6 ? '::' : '0.0.0.0', port: 0 })
      const socket = createSocket(v6 ? 'udp6' : 'udp4')
      const end = (answer: string) => {
        clearTimeout(timer)
        clearInterval(again)
        socket.close()
        resolve(answer)
      }
      const timer = setTimeout(() => end('closed'), patience)
      // A datagram may be lost while a neighbour is looked up.
      const again = setInterval(() => send(), 500)
      const send = () => socket.send('?', port, address, () => {})
      socket.on('error', () => {})
      socket.on('message', data => end(data.toString().trim()))
      socket.bind({ fd }, send)
    })
  }

  /** As the bridge driver does when endpoints of a network may not talk to one another. */
  async isolate(isolated: boolean): Promise<void> {
    await this.at('host').apply(['vethA1', 'vethA2'].map(link => ({ op: 'setPort', link, isolated })))
  }

  /** Runs a program inside a namespace and returns what it prints: an independent witness. Undefined if it fails. */
  run(place: Place, program: string, ...parameters: string[]): string | undefined {
    const { status, stdout } = this.at(place).run(() =>
      spawnSync(program, parameters, {
        encoding: 'utf8',
        env: process.env, // as a test may have changed it
        timeout: 20_000,
        maxBuffer: 1 << 28,
      }),
    )
    return status === 0 ? stdout : undefined
  }

  /** Does an echo request come back? */
  async ping(from: Place, address: string, seconds: number): Promise<boolean> {
    const child = this.at(from).run(() =>
      spawn('ping', ['-q', '-n', '-c', '1', '-W', String(seconds), address], { stdio: 'ignore' }),
    )
    return new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', status => resolve(status === 0))
    })
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    await Promise.all(
      this.servers.map(server => new Promise<void>(resolve => void server.close(() => resolve()))),
    )
    for (const [place, stack] of this.stacks) {
      stack.close()
      await this.kernel.remove(join(this.directory, place))
    }
    if (this.directory) rmSync(this.directory, { recursive: true, force: true })
  }
}
