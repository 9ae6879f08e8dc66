/** UDP sockets served in batches. */
import { createSocket } from 'node:dgram'
import { readdirSync } from 'node:fs'
import { constants } from 'node:os'
import { type Datagrams, loadBinding } from '../../lib/kernel/binding'
import { sockaddr } from '../../lib/kernel/socket'

const AF_INET = 2
const AF_INET6 = 10
const SOCK_DGRAM = 2
const BATCH = 64
const SLOT = 4096

const b = loadBinding()
const descriptors = () => readdirSync('/proc/self/fd').length
const until = async (condition: () => boolean) => {
  for (let waits = 0; !condition() && waits < 5000; waits++)
    await new Promise(resolve => setTimeout(resolve, 1))
  expect(condition()).toBe(true)
}

let ns: { ns: number; route: number }
const opened: Datagrams[] = []
let before: number

beforeAll(async () => {
  ns = await b.createNetns(null)
  before = descriptors()
})
afterEach(() => {
  for (const socket of opened.splice(0)) socket.close()
  expect(descriptors()).toBe(before)
})
afterAll(() => {
  b.close(ns.route)
  b.close(ns.ns)
})

function serve(onHeard: (socket: Datagrams, count: number) => void, address = '127.0.0.1'): Datagrams {
  const fd = b.socket(ns.ns, address.includes(':') ? AF_INET6 : AF_INET, SOCK_DGRAM, 0)
  b.bind(fd, sockaddr(address, 0))
  const socket: Datagrams = b.datagrams(fd, count => onHeard(socket, count))
  opened.push(socket)
  return socket
}

const text = (bytes: Uint8Array, i: number, length: number) =>
  Buffer.from(bytes.subarray(i * SLOT, i * SLOT + length)).toString('latin1')

/** Another such socket as the client: what it hears is collected. */
function listen(address = '127.0.0.1'): { socket: Datagrams; heard: string[] } {
  const heard: string[] = []
  const socket = serve((self, count) => {
    for (let i = 0; i < count; i++) heard.push(text(self.heard, i, self.heardLengths[i] as number))
  }, address)
  return { socket, heard }
}

const place = (address: string, port: number) => {
  const bytes = new Uint8Array(28)
  bytes.set(sockaddr(address, port))
  return bytes
}

const reply = (socket: Datagrams, i: number, answer: string) => {
  socket.said.set(Buffer.from(answer), i * SLOT)
  socket.saidLengths[i] = answer.length
}

test.each(['127.0.0.1', '::1'])(
  '%s: each answer goes to who asked, more than a batch in order',
  async address => {
    const batches: number[] = []
    const server = serve((self, count) => {
      batches.push(count)
      for (let i = 0; i < count; i++)
        reply(self, i, `re ${text(self.heard, i, self.heardLengths[i] as number)}`)
    }, address)
    const [one, two] = [listen(address), listen(address)]
    const asked = Array.from({ length: 40 }, (_, i) => `question ${i}`)
    for (const [i, question] of asked.entries())
      for (const [client, who] of [
        [one, 'one'],
        [two, 'two'],
      ] as const)
        client.socket.send(
          Buffer.from(`${who} ${question}${'.'.repeat(i * 10)}`),
          place(address, server.port),
        )
    await until(() => one.heard.length === 40 && two.heard.length === 40)
    expect(one.heard).toEqual(asked.map((question, i) => `re one ${question}${'.'.repeat(i * 10)}`))
    expect(two.heard).toEqual(asked.map((question, i) => `re two ${question}${'.'.repeat(i * 10)}`))
    expect(Math.max(...batches)).toBe(BATCH)
    expect(server.lost()).toBe(0)
  },
)

test('what is not answered at once can be answered later; what is not answered is not', async () => {
  const server = serve((self, count) => {
    for (let i = 0; i < count; i++) {
      const to = self.sources.slice(i * 28, (i + 1) * 28)
      if (text(self.heard, i, self.heardLengths[i] as number) === 'later')
        setTimeout(() => self.send(Buffer.from('now'), to), 5)
    }
  })
  const { socket, heard } = listen()
  for (const question of ['never', 'later', '', 'never'])
    socket.send(Buffer.from(question), place('127.0.0.1', server.port))
  await until(() => heard.length > 0)
  await new Promise(resolve => setTimeout(resolve, 20))
  expect(heard).toEqual(['now'])
})

test('a longer datagram than a slot holds is cut; its neighbours are whole', async () => {
  const { socket, heard } = listen()
  const client = listen().socket
  for (const length of [10, 60_000, 20])
    client.send(Buffer.alloc(length, 'x'), place('127.0.0.1', socket.port))
  await until(() => heard.length === 3)
  expect(heard.map(each => each.length)).toEqual([10, SLOT, 20])
})

test('answers that the kernel refuses are counted and do not hold up the others', async () => {
  const server = serve((self, count) => {
    for (let i = 0; i < count; i++) {
      // As if the second had come from port 0, to which nothing can be sent.
      if (i === 1) self.sources.fill(0, i * 28 + 2, i * 28 + 4)
      reply(self, i, `${i}`)
    }
  })
  const { socket, heard } = listen()
  for (let i = 0; i < 4; i++) socket.send(Buffer.from('?'), place('127.0.0.1', server.port))
  await until(() => heard.length === 3)
  expect(heard).toEqual(['0', '2', '3'])
  expect(server.lost()).toBe(1)
})

test('may be closed by its own listener: nothing is sent any more', async () => {
  let calls = 0
  const server = serve((self, count) => {
    calls++
    for (let i = 0; i < count; i++) reply(self, i, 'no')
    self.close()
  })
  const { socket, heard } = listen()
  for (let i = 0; i < 3; i++) socket.send(Buffer.from('?'), place('127.0.0.1', server.port))
  await until(() => calls > 0)
  await new Promise(resolve => setTimeout(resolve, 20))
  expect(calls).toBe(1)
  expect(heard).toEqual([])
})

test('closed, the address is free at once', () => {
  const first = serve(() => undefined)
  first.close()
  const fd = b.socket(ns.ns, AF_INET, SOCK_DGRAM, 0)
  b.bind(fd, sockaddr('127.0.0.1', first.port))
  b.close(fd)
})

test('serves nothing when its memory was given away, rather than writing there', async () => {
  // In a thread of its own, since the memory is one per thread.
  const { Worker } = await import('node:worker_threads')
  const worker = new Worker(
    `
    const { workerData: { addon, address, ns }, parentPort } = require('node:worker_threads')
    const b = require(addon)
    const fd = b.socket(ns, 2, 2, 0)
    b.bind(fd, address)
    let calls = 0
    const socket = b.datagrams(fd, () => { calls++ })
    structuredClone(socket.heard.buffer, { transfer: [socket.heard.buffer] })
    const to = new Uint8Array(28)
    to.set(address)
    to[2] = socket.port >> 8
    to[3] = socket.port & 255
    socket.send(new Uint8Array(10), to)
    setTimeout(() => parentPort.postMessage(calls), 50)
  `,
    {
      eval: true,
      workerData: {
        addon: require.resolve('../../native/build/Release/cnm.node'),
        address: sockaddr('127.0.0.1', 0),
        ns: ns.ns,
      },
    },
  )
  const calls = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  await worker.terminate()
  expect(calls).toBe(0)
})

test('Node’s own sockets understand it', async () => {
  const server = serve((self, count) => {
    for (let i = 0; i < count; i++) reply(self, i, 'hello')
  })
  const fd = b.socket(ns.ns, AF_INET, SOCK_DGRAM, 0)
  const socket = createSocket('udp4')
  await new Promise<void>(resolve => socket.bind({ fd }, resolve))
  const heard = new Promise(resolve => socket.once('message', message => resolve(message.toString())))
  socket.send('?', server.port, '127.0.0.1')
  expect(await heard).toBe('hello')
  await new Promise<void>(resolve => socket.close(() => resolve()))
})

test('connected, it hears its peer only, and is told when nobody is there', async () => {
  const counts: number[] = []
  const connected = (port: number) => {
    const fd = b.socket(ns.ns, AF_INET, SOCK_DGRAM, 0)
    b.connect(fd, sockaddr('127.0.0.1', port))
    const socket = b.datagrams(fd, count => counts.push(count))
    opened.push(socket)
    return socket
  }
  const to = new Uint8Array(0)
  const { socket: peer, heard } = listen()
  const one = connected(peer.port)
  expect(one.send(Buffer.from('hi'), to)).toBe(0)
  await until(() => heard.length === 1)
  const stranger = listen().socket
  stranger.send(Buffer.from('from a stranger'), place('127.0.0.1', one.port))
  peer.send(Buffer.from('from the peer'), place('127.0.0.1', one.port))
  await until(() => counts.length > 0)
  expect(counts).toEqual([1])
  expect(one.send(new Uint8Array(70_000), to)).toBe(constants.errno.EMSGSIZE)
  expect(one.lost()).toBe(1)

  const { port } = peer
  peer.close()
  one.send(Buffer.from('still there?'), to)
  await until(() => counts.length > 1)
  expect(counts[1]).toBe(-constants.errno.ECONNREFUSED)
  // and it goes on: somebody may listen there again
  const again = b.socket(ns.ns, AF_INET, SOCK_DGRAM, 0)
  b.bind(again, sockaddr('127.0.0.1', port))
  let asked = 0
  const next = b.datagrams(again, count => {
    asked += count
  })
  opened.push(next)
  expect(one.send(Buffer.from('hi'), to)).toBe(0)
  await until(() => asked === 1)
})
