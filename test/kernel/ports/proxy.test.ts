import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { type ProxyTarget, UserlandProxy } from '../../../lib/ports/proxy'
import {
  type Scene,
  closeServer,
  connectIn,
  openSockets,
  outcome,
  readAll,
  scene,
  serveIn,
  udpIn,
  until,
} from './scene'

let s: Scene
let proxy: UserlandProxy
let before: number

beforeAll(async () => {
  s = await scene()
})
afterAll(() => s.close())
beforeEach(async () => {
  proxy = new UserlandProxy({ stack: s.host })
  before = await openSockets()
})
afterEach(async () => {
  await proxy.close()
  await until(async () => (await openSockets()) === before, 'as many sockets as before')
  expect(proxy.load).toEqual({ connections: 0, sessions: 0 })
})

const listen = (address: string, port: number) =>
  s.host.openSocket({ type: 'tcp', address, port, listen: 128, reuseAddress: true })
const to4 = (containerPort: number, more: Partial<ProxyTarget> = {}): ProxyTarget => ({
  containerIp: s.target.ipv4,
  containerPort,
  ...more,
})

describe('tcp', () => {
  test('[::1] to an IPv4 container; each direction ends on its own', async () => {
    const server = await serveIn(s.container, '0.0.0.0', 80, async socket => {
      const asked = await readAll(socket) // until the client has ended its half
      socket.end(`got ${asked}`)
    })
    await proxy.tcp(listen('::1', 8080), to4(80))
    const client = connectIn(s.host, '::1', 8080)
    client.end('hello')
    expect((await readAll(client)).toString()).toBe('got hello')
    await closeServer(server)
  })

  test('the other way round: the server ends first, the client goes on', async () => {
    let received: Promise<Buffer> | undefined
    const server = await serveIn(s.container, '::', 80, socket => {
      socket.end('bye')
      received = readAll(socket)
    })
    await proxy.tcp(listen('0.0.0.0', 8080), { containerIp: s.target.ipv6, containerPort: 80 })
    const client = connectIn(s.lan, '192.0.2.1', 8080)
    expect((await readAll(client)).toString()).toBe('bye')
    client.write('still ')
    client.end('here')
    await until(() => received !== undefined, 'a connection at the server')
    expect((await received!).toString()).toBe('still here')
    await closeServer(server)
  })

  test('50 MB to a slow reader arrive whole, and are not piled up in memory', async () => {
    const block = randomBytes(1 << 20)
    const BLOCKS = 50
    const sent = createHash('sha256')
    let written = 0
    const server = await serveIn(s.container, '0.0.0.0', 80, async socket => {
      for (let i = 0; i < BLOCKS; i++) {
        sent.update(block)
        if (!socket.write(block)) await once(socket, 'drain')
        written += block.length
      }
      socket.end()
    })
    await proxy.tcp(listen('::1', 8080), to4(80))
    const client = connectIn(s.host, '::1', 8080)
    await once(client, 'connect')
    client.pause()
    // With nobody reading, the sender comes to a halt once the buffers of the kernel (some MB) and of the proxy are full.
    let last = -1
    await until(async () => {
      await new Promise(resolve => setTimeout(resolve, 200))
      const halted = written > 0 && written === last
      last = written
      return halted
    }, 'the sender halts')
    expect(written).toBeLessThan(BLOCKS * block.length)
    const got = createHash('sha256')
    let bytes = 0
    for await (const chunk of client) {
      got.update(chunk as Buffer)
      bytes += (chunk as Buffer).length
      if (bytes % 7 === 0) await new Promise(resolve => setTimeout(resolve, 1))
    }
    expect(bytes).toBe(BLOCKS * block.length)
    expect(got.digest('hex')).toBe(sent.digest('hex'))
    client.end()
    await closeServer(server)
  }, 120_000)

  test('PROXY protocol v2: who connected to what, before the first byte', async () => {
    const got: Buffer[] = []
    const server = await serveIn(s.container, '0.0.0.0', 80, async socket => {
      got.push(await readAll(socket))
      socket.end()
    })
    await proxy.tcp(listen('0.0.0.0', 8080), to4(80, { proxyProtocol: true }))
    await proxy.tcp(listen('::', 8080), to4(80, { proxyProtocol: true }))
    const four = connectIn(s.lan, '192.0.2.1', 8080)
    await once(four, 'connect')
    const port4 = four.localPort!
    four.end('data')
    await readAll(four)
    const six = connectIn(s.lan, '2001:db8::1', 8080)
    await once(six, 'connect')
    const port6 = six.localPort!
    six.end('data')
    await readAll(six)
    const hex = (n: number) => n.toString(16).padStart(4, '0')
    const signature = '0d0a0d0a000d0a515549540a'
    const data = Buffer.from('data').toString('hex')
    expect(got[0]!.toString('hex')).toBe(
      `${signature}2111000cc0000202c0000201${hex(port4)}${hex(8080)}${data}`,
    )
    expect(got[1]!.toString('hex')).toBe(
      `${signature}21210024${'20010db8000000000000000000000002'}${'20010db8000000000000000000000001'}${hex(port6)}${hex(8080)}${data}`,
    )
    await closeServer(server)
  })

  test('sources that are not allowed are reset; those under way too once they are no longer', async () => {
    const server = await serveIn(s.container, '0.0.0.0', 80, socket => socket.pipe(socket))
    const listener = await proxy.tcp(listen('0.0.0.0', 8080), to4(80, { allowFrom: ['192.0.2.2/32'] }))
    const inside = connectIn(s.lan, '192.0.2.1', 8080)
    inside.write('x')
    expect(String((await once(inside, 'data'))[0])).toBe('x')
    const outside = connectIn(s.host, '10.77.0.1', 8080)
    const gone = new Promise<string>(resolve =>
      outside.on('error', (e: NodeJS.ErrnoException) => resolve(e.code!)),
    )
    outside.write('x')
    expect(await gone).toBe('ECONNRESET')
    const thrownOut = once(inside, 'error')
    listener.redirect(to4(80, { allowFrom: ['10.0.0.0/8'] }))
    expect((await thrownOut)[0]).toMatchObject({ code: 'ECONNRESET' })
    await closeServer(server)
  })

  test('loopbackOnly serves ::1 and nothing else', async () => {
    const server = await serveIn(s.container, '0.0.0.0', 80, socket => socket.end('hi'))
    await proxy.tcp(listen('::', 8080), to4(80, { loopbackOnly: true }))
    const near = connectIn(s.host, '::1', 8080)
    near.end()
    expect((await readAll(near)).toString()).toBe('hi')
    const far = connectIn(s.lan, '2001:db8::1', 8080)
    const gone = new Promise<string>(resolve =>
      far.on('error', (e: NodeJS.ErrnoException) => resolve(e.code!)),
    )
    far.write('x')
    expect(await gone).toBe('ECONNRESET')
    await closeServer(server)
  })

  test('nobody listens in the container: the client is reset, others are not touched', async () => {
    const server = await serveIn(s.container, '0.0.0.0', 81, socket => socket.pipe(socket))
    await proxy.tcp(listen('::1', 8080), to4(80))
    await proxy.tcp(listen('::1', 8081), to4(81))
    const good = connectIn(s.host, '::1', 8081)
    good.write('a')
    await once(good, 'data')
    const bad = connectIn(s.host, '::1', 8080)
    expect(await new Promise(resolve => bad.on('error', (e: NodeJS.ErrnoException) => resolve(e.code)))).toBe(
      'ECONNRESET',
    )
    good.write('b')
    expect(String((await once(good, 'data'))[0])).toBe('b')
    good.end()
    await readAll(good)
    await closeServer(server)
  })

  test('a reset on one side becomes a reset on the other', async () => {
    const accepted: Socket[] = []
    const server = await serveIn(s.container, '0.0.0.0', 80, socket => void accepted.push(socket))
    await proxy.tcp(listen('::1', 8080), to4(80))
    const client = connectIn(s.host, '::1', 8080)
    await until(() => accepted.length === 1, 'accepted')
    const reset = once(client, 'error')
    accepted[0]!.resetAndDestroy()
    expect((await reset)[0]).toMatchObject({ code: 'ECONNRESET' })
    const second = connectIn(s.host, '::1', 8080)
    await until(() => accepted.length === 2, 'accepted')
    const felt = new Promise(resolve => accepted[1]!.once('close', resolve))
    second.resetAndDestroy()
    await felt
    await closeServer(server)
  })

  test('closing a mapping ends its connections and no others', async () => {
    const server = await serveIn(s.container, '0.0.0.0', 80, socket => socket.pipe(socket))
    const one = await proxy.tcp(listen('::1', 8080), to4(80))
    await proxy.tcp(listen('::1', 8081), to4(80))
    const [first, second] = [connectIn(s.host, '::1', 8080), connectIn(s.host, '::1', 8081)] as const
    for (const client of [first, second]) {
      client.write('x')
      await once(client, 'data')
    }
    const ended = once(first, 'error')
    await one.close()
    expect((await ended)[0]).toMatchObject({ code: 'ECONNRESET' })
    expect(await outcome(connectIn(s.host, '::1', 8080))).toBe('ECONNREFUSED')
    second.write('y')
    expect(String((await once(second, 'data'))[0])).toBe('y')
    second.end()
    await readAll(second)
    await closeServer(server)
  })

  test('no more connections than the limit', async () => {
    const small = new UserlandProxy({ stack: s.host, limits: { connections: 2 } })
    const server = await serveIn(s.container, '0.0.0.0', 80, socket => socket.pipe(socket))
    await small.tcp(listen('::1', 8080), to4(80))
    const clients = [connectIn(s.host, '::1', 8080), connectIn(s.host, '::1', 8080)]
    for (const client of clients) {
      client.write('x')
      await once(client, 'data')
    }
    const third = connectIn(s.host, '::1', 8080)
    await once(third, 'error')
    expect(small.load.connections).toBe(2)
    clients[0]!.end()
    await readAll(clients[0]!)
    await until(() => small.load.connections === 1, 'one fewer')
    const fourth = connectIn(s.host, '::1', 8080)
    fourth.end('x')
    expect((await readAll(fourth)).toString()).toBe('x')
    clients[1]!.on('error', () => {})
    await small.close()
    await closeServer(server)
  })
})

describe('udp', () => {
  const bind = (address: string, port: number) =>
    [address, s.host.openSocket({ type: 'udp', address, port })] as const

  /** Sends and waits for one answer; from where it came, and what it says. */
  async function ask(socket: ReturnType<typeof udpIn>, address: string, port: number, text: string) {
    const answer = once(socket, 'message')
    socket.send(text, port, address)
    const [data, from] = (await answer) as [Buffer, { address: string; port: number }]
    return `${from.address} ${from.port} ${data}`
  }

  test('several clients, each its own session; answers come from the address that was asked', async () => {
    const server = udpIn(s.container, '0.0.0.0', 53)
    const seen = new Set<number>()
    server.on('message', (data, from) => {
      seen.add(from.port)
      server.send(`${data}!`, from.port, from.address)
    })
    proxy.udp(
      [bind('::1', 5353), bind('2001:db8::1', 5353), bind('192.0.2.1', 5353), bind('10.77.0.1', 5353)],
      to4(53),
    )
    const local = Array.from({ length: 5 }, () => udpIn(s.host, '::1', 0))
    const far6 = udpIn(s.lan, '::', 0)
    const far4 = udpIn(s.lan, '0.0.0.0', 0)
    for (const round of [1, 2])
      for (const [i, client] of local.entries())
        expect(await ask(client, '::1', 5353, `${round}-${i}`)).toBe(`::1 5353 ${round}-${i}!`)
    expect(await ask(far6, '2001:db8::1', 5353, 'six')).toBe('2001:db8::1 5353 six!')
    expect(await ask(far4, '192.0.2.1', 5353, 'four')).toBe('192.0.2.1 5353 four!')
    // not the address that the host would choose by itself
    expect(await ask(far4, '10.77.0.1', 5353, 'other')).toBe('10.77.0.1 5353 other!')
    expect(seen.size).toBe(8)
    expect(proxy.load.sessions).toBe(8)
    for (const socket of [...local, far6, far4, server]) socket.close()
  })

  test('a long datagram', async () => {
    const server = udpIn(s.container, '0.0.0.0', 53)
    server.on('message', (data, from) => server.send(data, from.port, from.address))
    proxy.udp([bind('::1', 5353)], to4(53))
    const client = udpIn(s.host, '::1', 0)
    const answer = once(client, 'message')
    const data = randomBytes(65_000)
    client.send(data, 5353, '::1')
    expect(data.equals((await answer)[0] as Buffer)).toBe(true)
    client.close()
    server.close()
  })

  test('sessions end when idle, and the longest silent makes room', async () => {
    const small = new UserlandProxy({ stack: s.host, limits: { sessions: 2, sessionIdle: 300 } })
    const server = udpIn(s.container, '0.0.0.0', 53)
    const from = new Map<string, number>()
    server.on('message', (data, peer) => {
      from.set(String(data), peer.port)
      server.send(data, peer.port, peer.address)
    })
    const listener = small.udp([bind('::1', 5353)], to4(53))
    const [a, b, c] = [0, 0, 0].map(() => udpIn(s.host, '::1', 0))
    await ask(a!, '::1', 5353, 'a1')
    await ask(b!, '::1', 5353, 'b1')
    await ask(a!, '::1', 5353, 'a2')
    await ask(c!, '::1', 5353, 'c1') // b has been silent the longest
    expect(small.load.sessions).toBe(2)
    await ask(a!, '::1', 5353, 'a3')
    expect(from.get('a3')).toBe(from.get('a1'))
    await until(() => small.load.sessions === 0, 'all idle')
    await ask(a!, '::1', 5353, 'a4')
    expect(small.load.sessions).toBe(1)
    await listener.close()
    expect(small.load.sessions).toBe(0)
    await small.close()
    for (const socket of [a, b, c, server]) socket!.close()
  })

  test('sources, strangers and refusals', async () => {
    const got: string[] = []
    const server = udpIn(s.container, '0.0.0.0', 53)
    const stranger = udpIn(s.container, '0.0.0.0', 54)
    server.on('message', (data, from) => {
      got.push(String(data))
      // an answer from another port than the one that was asked is nobody's
      stranger.send('forged', from.port, from.address, () => server.send('true', from.port, from.address))
    })
    proxy.udp([bind('192.0.2.1', 5353), bind('10.77.0.1', 5353)], to4(53, { allowFrom: ['192.0.2.0/24'] }))
    proxy.udp([bind('192.0.2.1', 5354)], to4(99)) // nobody there
    const allowed = udpIn(s.lan, '0.0.0.0', 0)
    const denied = udpIn(s.container, '0.0.0.0', 0)
    denied.send('denied', 5353, '10.77.0.1')
    allowed.send('lost', 5354, '192.0.2.1')
    expect(await ask(allowed, '192.0.2.1', 5353, 'allowed')).toBe('192.0.2.1 5353 true')
    expect(got).toEqual(['allowed'])
    for (const socket of [allowed, denied, stranger, server]) socket.close()
  })
})
