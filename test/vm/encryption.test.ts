/** Encrypted overlay networks by traffic: what is on the wire, what is refused, keys that change under load. */
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { readSync } from 'node:fs'
import { createServer, Socket } from 'node:net'
import { loadBinding } from '../../lib/kernel/binding'
import type { LinuxStack } from '../../lib/kernel/stack'
import type { Stack } from 'libcnm'
import { Underlay, until } from '../support/underlay'

jest.setTimeout(300_000)

type Container = Awaited<ReturnType<Underlay['container']>>

const ETH_P_ALL = 0x0003
const AF_PACKET = 17
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000

/** Everything that passes the wire, until it is taken. */
class Sniffer {
  readonly #fd: number
  readonly #binding = loadBinding()

  constructor(stack: Stack) {
    const { descriptor } = stack as LinuxStack
    const swapped = ((ETH_P_ALL & 0xff) << 8) | (ETH_P_ALL >> 8)
    this.#fd = this.#binding.socket(descriptor, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, swapped)
    this.#binding.setsockopt(this.#fd, 1, 33, 4 << 20) // SOL_SOCKET, SO_RCVBUFFORCE
  }

  take(): Buffer[] {
    const frames: Buffer[] = []
    const buffer = Buffer.alloc(65536)
    for (;;)
      try {
        frames.push(Buffer.from(buffer.subarray(0, readSync(this.#fd, buffer))))
      } catch {
        return frames
      }
  }

  close(): void {
    this.#binding.close(this.#fd)
  }
}

/** Numbers that one end says all the while, and the other says again. */
class Flow {
  #said = 0
  #heard = ''

  private constructor(
    private readonly socket: Socket,
    private readonly server: ReturnType<typeof createServer>,
  ) {
    socket.on('data', data => {
      this.#heard += String(data)
    })
    this.timer = setInterval(() => socket.write(`${this.#said++};`), 10)
  }
  private readonly timer: NodeJS.Timeout

  static async open(from: Stack, to: Stack, address: string): Promise<Flow> {
    const server = createServer(socket => socket.pipe(socket))
    const fd = to.openSocket({ type: 'tcp', address, port: 7777, listen: 4 })
    await new Promise<void>(resolve => server.listen({ fd }, resolve))
    const socket = new Socket({
      fd: from.openSocket({ type: 'tcp', address: '0.0.0.0', port: 0 }),
      manualStart: true,
    } as ConstructorParameters<typeof Socket>[0])
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.connect({ host: address, port: 7777 }, resolve)
    })
    return new Flow(socket, server)
  }

  /** How many numbers were never said again. */
  async close(): Promise<number> {
    clearInterval(this.timer)
    const missing = () => this.#said - (this.#heard.match(/;/g)?.length ?? 0)
    await until(() => missing() === 0, 'all is said again').catch(() => {})
    this.socket.destroy()
    this.server.close()
    return missing()
  }
}

/** What `ping -p` fills its packets with. */
const SECRET = 'libcnm-secret'

describe.each([4, 6] as const)('over IPv%i', family => {
  let net: Underlay
  let sniffer: Sniffer
  const on: Record<'web' | 'db', Container[]> = { web: [], db: [] }

  beforeAll(async () => {
    // In emulation etcd takes its time.
    net = await Underlay.build(2, { family, lease: 600, timeout: 60_000 })
    const create = (name: string, encrypted: boolean) =>
      net.host(1).controller.createNetwork({ name, driver: 'overlay', ipv6: true, options: { encrypted } })
    await create('web', true)
    await create('db', false)
    for (const name of ['web', 'db'] as const) {
      await net.everywhere(name)
      on[name] = []
      for (const host of net.hosts) on[name].push(await net.container(host, name, `${name}${host.number}`))
      const [one, two] = on[name] as [Container, Container]
      await until(
        () =>
          [one.sandbox.resolveName(`${name}2`), two.sandbox.resolveName(`${name}1`)].every(
            list => list.length,
          ),
        'each knows the other',
      )
    }
    sniffer = new Sniffer(net.wire)
  })
  afterAll(async () => {
    sniffer?.close()
    try {
      await net?.clear()
      for (const { stack } of net?.hosts ?? []) {
        expect(await stack.ipsecStates()).toEqual([])
        expect(await stack.ipsecPolicies()).toEqual([])
      }
    } finally {
      await net?.close()
    }
  })

  const pair = (name: 'web' | 'db') => on[name] as [Container, Container]
  /** Ports of the frames that went by, and whether the secret could be read. */
  const seen = () => {
    const frames = sniffer.take()
    const esp = frames.filter(frame =>
      family === 4
        ? frame.readUInt16BE(12) === 0x0800 && frame[23] === 50
        : frame.readUInt16BE(12) === 0x86dd && frame[20] === 50,
    )
    return { esp: esp.length, readable: frames.some(frame => frame.includes(SECRET)) }
  }
  const whisper = (from: Container, address: string) =>
    net.base.run(
      from.stack,
      'ping',
      '-c',
      '3',
      '-i',
      '0.2',
      '-W',
      '20',
      '-p',
      Buffer.from(SECRET).toString('hex'),
      address,
    )

  test('nobody on the wire can read it; what is not encrypted, anybody', async () => {
    const [one, two] = pair('web')
    sniffer.take()
    whisper(one, two.ipv4)
    whisper(two, one.ipv6)
    const secret = seen()
    expect(secret.esp).toBeGreaterThanOrEqual(12)
    expect(secret.readable).toBe(false)
    const [from, to] = pair('db')
    whisper(from, to.ipv4)
    expect(seen()).toEqual({ esp: 0, readable: true })
  })

  test('packets of the full MTU pass whole', async () => {
    const mtu = family === 4 ? 1416 : 1396
    expect(net.host(2).controller.network('web').inspect().mtu).toBe(mtu)
    const [one, two] = pair('web')
    expect(await net.base.ping(one.stack, two.ipv4, { size: mtu - 28, seconds: 20 })).toBe(true)
  })

  test('keys change three times under pings and a TCP flow, and none is lost', async () => {
    const [one, two] = pair('web')
    const flow = await Flow.open(one.stack, two.stack, two.ipv4)
    const child = one.stack.run(() =>
      spawn('ping', ['-n', '-i', '0.02', two.ipv4], { stdio: ['ignore', 'pipe', 'inherit'] }),
    )
    let text = ''
    child.stdout.on('data', data => {
      text += String(data)
    })
    const ended = new Promise(resolve => child.once('close', resolve))
    const states = await net.host(1).stack.ipsecStates()
    for (const tag of [2, 3, 4]) {
      expect(await net.host((tag % 2) + 1).controller.cluster?.rotateKeys()).toBe(tag)
      await new Promise(resolve => setTimeout(resolve, 1_000))
    }
    child.kill('SIGINT')
    await ended
    // All came back up to the last one; those behind it were still on their way when ping was ended.
    const heard = new Set([...text.matchAll(/icmp_seq=(\d+)/g)].map(([, number]) => Number(number)))
    expect(heard.size).toBeGreaterThan(50)
    expect(Math.max(...heard)).toBe(heard.size)
    const [, sent] = /(\d+) packets transmitted/.exec(text) ?? []
    expect(Number(sent) - heard.size).toBeLessThan(50)
    expect(await flow.close()).toBe(0)
    const left = await net.host(1).stack.ipsecStates()
    expect(left.filter(({ spi }) => states.some(each => each.spi === spi))).toEqual([])
    await until(
      async () => (await net.host(1).stack.ipsecStates()).length === 3,
      'two keys to receive with, one to send with',
    )
    expect(await net.host(1).controller.check()).toEqual([])
  })

  test('plain packets are refused, whoever seems to send them', async () => {
    const [host, victim] = [net.host(2), pair('web')[1]]
    const open = pair('db')[1]
    const received = async ({ endpoint }: Container) =>
      (await host.stack.links()).find(({ name }) => name === `vx-${endpoint.network.id.slice(0, 12)}`)
        ?.statistics.rxPackets
    // Somebody on the wire who has the address of another host.
    const stranger = await impostor(net.host(1).address)
    const before = [await received(victim), await received(open)]
    for (const { endpoint } of [victim, open]) await sendFrame(stranger, host.address, endpoint)
    await until(async () => (await received(open)) !== before[1], 'the plain network’s comes through')
    expect(await received(victim)).toBe(before[0])
  })

  test('the rules that mark what is to be encrypted are deleted: they are there again at once, and it is told', async () => {
    const { controller, stack } = net.host(1)
    const told: string[] = []
    controller.on('firewall.repaired', ({ problems }) => told.push(...problems.map(({ message }) => message)))
    stack.nft(`delete table inet ${controller.name}-tunnels`)
    await until(() => told.length > 0, 'it is told')
    expect(await controller.check()).toEqual([])
    const [one, two] = pair('web')
    sniffer.take()
    whisper(one, two.ipv4)
    expect(seen().readable).toBe(false)
  })

  test('without policies nothing leaves: not in the clear either; a start mends it', async () => {
    const [, two] = pair('web')
    const host = net.host(1)
    // The controller's own handle is closed with it.
    const inside = await net.base.kernel.open(pair('web')[0].sandbox.key)
    await host.controller.close()
    const policies = await host.stack.ipsecPolicies()
    expect(policies).toHaveLength(1)
    await host.stack.apply(policies.map(policy => ({ op: 'removeIpsecPolicy', policy })))
    sniffer.take()
    const words = ['-c', '2', '-W', '2', '-p', Buffer.from(SECRET).toString('hex'), two.ipv4]
    expect(() => net.base.run(inside, 'ping', ...words)).toThrow()
    expect(seen()).toEqual({ esp: 0, readable: false })
    await net.restart(host)
    await until(() => net.base.ping(inside, two.ipv4, { seconds: 20 }), 'it is mended')
    inside.close()
  })

  test('states and policies that somebody removes are there again at once, and it is told', async () => {
    const { stack, controller } = net.host(1)
    const told: string[] = []
    controller.on('firewall.repaired', ({ problems }) => told.push(...problems.map(({ message }) => message)))
    const before = (await stack.ipsecStates()).map(({ spi }) => spi).sort()
    net.base.run(stack, 'ip', 'xfrm', 'state', 'flush')
    net.base.run(stack, 'ip', 'xfrm', 'policy', 'flush')
    await until(() => told.length > 0, 'it is told')
    await until(async () => (await controller.check()).length === 0, 'it is as it was')
    expect((await stack.ipsecStates()).map(({ spi }) => spi).sort()).toEqual(before)
    const inside = await net.base.kernel.open(controller.sandbox('web1').key)
    expect(await net.base.ping(inside, pair('web')[1].ipv4, { seconds: 20 })).toBe(true)
    inside.close()
  })

  test('a controller restarts: its states stay, and the flow with them', async () => {
    const [, two] = pair('web')
    const host = net.host(1)
    const before = await host.stack.ipsecStates()
    // The controller's own handle is closed with it.
    const inside = await net.base.kernel.open(host.controller.sandbox('web1').key)
    await host.controller.close()
    expect(await net.base.ping(inside, two.ipv4, { seconds: 20 })).toBe(true)
    await net.restart(host)
    expect(await host.controller.check()).toEqual([])
    const spis = (list: typeof before) => list.map(({ spi }) => spi).sort()
    expect(spis(await host.stack.ipsecStates())).toEqual(spis(before))
    expect(await net.base.ping(inside, two.ipv4, { seconds: 20 })).toBe(true)
    inside.close()
  })

  /** A namespace on the wire, that sends from the address and answers for nobody. */
  async function impostor(address: string): Promise<Stack> {
    const stack = await net.base.namespace('stranger')
    stack.setSysctls({
      'net/ipv6/conf/default/accept_dad': '0',
      'net/ipv4/conf/all/arp_ignore': '1',
      // Nor does it ask in the name of the address: who is asked would believe that it lives here.
      'net/ipv4/conf/all/arp_announce': '2',
    })
    const link = {
      kind: 'veth' as const,
      name: 'stranger',
      master: 'wire',
      up: true,
      peer: { name: 'uplink', netns: stack, up: true },
    }
    await net.base.kernel.transact([
      { stack: net.wire, changes: [{ op: 'addLink', link }] },
      {
        stack,
        changes: [
          { op: 'setLink', link: 'lo', up: true },
          { op: 'addAddress', link: 'lo', address: `${address}/${family === 4 ? 32 : 128}` },
          { op: 'addAddress', link: 'uplink', address: family === 4 ? '192.0.2.77/24' : '2001:db8::77/64' },
        ],
      },
    ])
    return stack
  }

  /** A whole VXLAN datagram, by an ordinary socket of the host. */
  async function sendFrame(from: Stack, address: string, endpoint: Container['endpoint']): Promise<void> {
    const { vni } = endpoint.network.record.state.data as { vni: number }
    const mac = (text: string) => Buffer.from(text.replace(/:/g, ''), 'hex')
    const frame = Buffer.concat([
      Buffer.from([8, 0, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0]),
      mac(endpoint.mac),
      mac('02:00:00:00:00:99'),
      Buffer.alloc(60, 8),
    ])
    const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
    await new Promise<void>(ready =>
      socket.bind({ fd: from.openSocket({ type: 'udp', address: net.host(1).address, port: 0 }) }, () =>
        ready(),
      ),
    )
    for (let n = 0; n < 5; n++) await new Promise(sent => socket.send(frame, 4789, address, sent))
    socket.close()
    await new Promise(resolve => setTimeout(resolve, 500))
  }
})
