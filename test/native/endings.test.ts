/** Environments that end at any moment: workers terminated, processes that exit, all in the midst of calls. */
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { type Binding, loadBinding } from '../../lib/kernel/binding'
import { threadNamespaces } from './driver'
import { ADDON, compilePrograms, runCommand, scratch } from './support'

/** What the programs below begin with: `b` and the message builders `m`. */
const prologue = (programs: string) => `
  const b = require(${JSON.stringify(ADDON)})
  const m = require(${JSON.stringify(join(programs, 'messages.js'))})
  const step = (fd, ...messages) => ({ fd, messages: Buffer.concat(messages), count: messages.length })
  const batch = fd => step(fd, ...Array.from({ length: 300 }, (_, i) => m.setMtu(1, 1500 + i)))
`

const pause = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))
const descriptors = () => readdirSync('/proc/self/fd').length

jest.setTimeout(120_000)

let b: Binding
let directory: ReturnType<typeof scratch>
let programs: string
let net: { ns: number; inode: number; route: number }

beforeAll(async () => {
  b = loadBinding()
  directory = scratch()
  programs = compilePrograms(directory.path)
  net = await b.createNetns(join(directory.path, 'net'))
})

afterAll(() => {
  b.close(net.route)
  b.close(net.ns)
  directory.remove()
})

/** Starts a worker, waits for its first message, then for so long, and terminates it. */
async function terminated(program: string, milliseconds: number, workerData: object): Promise<void> {
  const worker = new Worker(`${prologue(programs)}${program}`, { eval: true, workerData })
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  await pause(milliseconds)
  await worker.terminate()
}

/** Runs it as a process of its own. */
async function ended(name: string, program: string, options: string[] = []) {
  const file = join(directory.path, 'programs', `${name}.js`)
  writeFileSync(file, prologue(programs) + program)
  return runCommand([...options, process.execPath, file])
}

describe('workers', () => {
  const BUSY = `
    const { parentPort, workerData: { ns } } = require('node:worker_threads')
    b.subscribe(ns, 0, [1], () => events++)
    b.subscribe(ns, 0, [1, 5, 9], () => events++)
    let events = 0, first = true
    const forever = async () => {
      const fd = b.socket(ns, 16, 3, 0)
      for (;;) {
        const answer = b.exchange([batch(fd), step(fd, m.dumpLinks())])
        if (first) b.run(ns, () => parentPort.postMessage('started'))
        first = false
        await answer
      }
    }
    for (let i = 0; i < 4; i++) forever()
  `

  test('load, call, and are terminated in mid-call, at any moment', async () => {
    await terminated(BUSY, 5, { ns: net.ns }) /* warm-up */
    const before = descriptors()
    const rounds = 20
    for (let i = 0; i < rounds; i++) await terminated(BUSY, i % 10, { ns: net.ns })
    await pause(50)
    /* Each worker's four sockets are its own numbers, which nobody can close for it; all else is gone. */
    expect(descriptors() - before).toBeLessThanOrEqual(rounds * 4)
    expect(threadNamespaces()).toHaveLength(1)
    expect(b.exchangeSync({ fd: net.route, messages: Buffer.alloc(0), count: 0 }).errors).toEqual([])
  }, 120_000)

  test('several at once, beside the main thread', async () => {
    await Promise.all([1, 2, 3, 4].map(i => terminated(BUSY, i * 20, { ns: net.ns })))
    expect(threadNamespaces()).toHaveLength(1)
  }, 120_000)

  test('descriptors of subscriptions, exchanges and journeys go with the worker', async () => {
    const program = `
      const { parentPort, workerData: { ns, fd } } = require('node:worker_threads')
      for (let i = 0; i < 10; i++) b.subscribe(ns, 0, [1], () => undefined)
      b.exchange([batch(fd)])
      b.run(ns, () => { parentPort.postMessage('started'); for (;;); })
    `
    await terminated(program, 5, { ns: net.ns, fd: net.route })
    await pause(20)
    const before = descriptors()
    for (let i = 0; i < 5; i++) await terminated(program, 5, { ns: net.ns, fd: net.route })
    await pause(20)
    expect(descriptors()).toBe(before)
    expect(threadNamespaces()).toHaveLength(1)
  }, 120_000)

  test('datagrams are served on the worker’s own loop; the socket goes with it, also in the midst of a batch', async () => {
    const program = `
      const { parentPort, workerData: { ns } } = require('node:worker_threads')
      const open = heard => {
        const fd = b.socket(ns, 2, 2, 0)
        b.bind(fd, m.sockaddrIn('127.0.0.1', 0))
        return b.datagrams(fd, heard)
      }
      let first = true
      const one = open(count => {
        if (first) parentPort.postMessage('started')
        first = false
        for (let i = 0; i < count; i++) one.saidLengths[i] = 100
      })
      const two = open(count => {
        for (let i = 0; i < count; i++) two.saidLengths[i] = 100
      })
      const to = Buffer.alloc(28)
      m.sockaddrIn('127.0.0.1', two.port).copy(to)
      for (let i = 0; i < 50; i++) one.send(new Uint8Array(100), to) /* to and fro for ever */
      setInterval(() => undefined, 1000)
    `
    await terminated(program, 5, { ns: net.ns })
    await pause(20)
    const before = descriptors()
    for (let i = 0; i < 10; i++) await terminated(program, i, { ns: net.ns })
    await pause(20)
    expect(descriptors()).toBe(before)
  }, 120_000)

  test('a namespace that was made for a worker that is gone is removed again', async () => {
    const made = join(directory.path, 'made')
    const program = `
      const { parentPort, workerData: { made } } = require('node:worker_threads')
      require('node:fs').mkdirSync(made)
      for (let i = 0; i < 8; i++) b.createNetns(made + '/' + i)
      parentPort.postMessage('started')
      for (;;);
    `
    const before = descriptors()
    await terminated(program, 100, { made })
    expect(readdirSync(made)).toEqual([])
    expect(descriptors()).toBe(before)
  }, 120_000)
})

describe('processes', () => {
  test('exit at once in mid-exchange, with subscriptions open', async () => {
    for (const moment of [
      'process.exit(7)',
      'setImmediate(() => process.exit(7))',
      'setTimeout(() => process.exit(7), 5)',
    ]) {
      const outcome = await ended(
        'exit',
        `
        const net = b.openNetns(${JSON.stringify(join(directory.path, 'net'))})
        for (let i = 0; i < 4; i++) b.subscribe(net, 0, [1], () => undefined)
        for (let i = 0; i < 8; i++) b.exchange([batch(b.socket(net, 16, 3, 0))])
        ${moment}
      `,
      )
      expect(outcome).toEqual({ code: 7, signal: null, stdout: '', stderr: '' })
    }
  })

  test('exit from inside a namespace', async () => {
    const outcome = await ended(
      'inside',
      `b.run(b.openNetns(${JSON.stringify(join(directory.path, 'net'))}), () => process.exit(8))`,
    )
    expect(outcome).toEqual({ code: 8, signal: null, stdout: '', stderr: '' })
  })

  test('are not kept alive by subscriptions', async () => {
    const outcome = await ended('alive', `b.subscribe(b.openNetns(null), 0, [1], () => undefined)`)
    expect(outcome).toEqual({ code: 0, signal: null, stdout: '', stderr: '' })
  })

  test('are not kept alive by sockets that are served', async () => {
    const outcome = await ended(
      'served',
      `
      const fd = b.socket(b.openNetns(null), 2, 2, 0)
      b.datagrams(fd, () => undefined)
    `,
    )
    expect(outcome).toEqual({ code: 0, signal: null, stdout: '', stderr: '' })
  })

  test('learn of an exception in a listener of datagrams, and the socket is served on', async () => {
    const outcome = await ended(
      'datagrams',
      `
      const fd = b.socket(b.openNetns(${JSON.stringify(join(directory.path, 'net'))}), 2, 2, 0)
      b.bind(fd, m.sockaddrIn('127.0.0.1', 0))
      const to = Buffer.alloc(28)
      process.on('uncaughtException', error => { console.log(error.message); socket.send(new Uint8Array(5), to) })
      let calls = 0
      const socket = b.datagrams(fd, () => {
        if (++calls === 3) process.exit(0)
        throw new Error('listener ' + calls)
      })
      m.sockaddrIn('127.0.0.1', socket.port).copy(to)
      socket.send(new Uint8Array(5), to)
      setTimeout(() => process.exit(1), 10000)
    `,
    )
    expect(outcome).toEqual({ code: 0, signal: null, stdout: 'listener 1\nlistener 2\n', stderr: '' })
  })

  test('learn of an exception in a listener, and the subscription goes on', async () => {
    const outcome = await ended(
      'uncaught',
      `
      const net = b.openNetns(${JSON.stringify(join(directory.path, 'net'))})
      const fd = b.socket(net, 16, 3, 0)
      let mtu = 2000
      const change = () => b.exchangeSync(step(fd, m.setMtu(1, mtu++)))
      process.on('uncaughtException', error => { console.log(error.message); change() })
      let calls = 0
      b.subscribe(net, 0, [1], () => {
        if (++calls === 3) process.exit(0)
        throw new Error('listener ' + calls)
      })
      change()
      setTimeout(() => process.exit(1), 10000)
    `,
    )
    expect(outcome).toEqual({ code: 0, signal: null, stdout: 'listener 1\nlistener 2\n', stderr: '' })
  })

  test('abort rather than go on in the wrong namespace', async () => {
    const outcome = await ended(
      'abort',
      `
      const net = b.openNetns(${JSON.stringify(join(directory.path, 'net'))})
      const home = require('node:fs').readlinkSync('/proc/self/ns/net')
      b.run(net, () => {
        for (const fd of require('node:fs').readdirSync('/proc/self/fd').map(Number))
          try { if (fd > 2 && fd !== net && 'net:[' + b.inode(fd) + ']' === home) b.close(fd) } catch {}
      })
      console.log('went on')
    `,
    )
    expect(outcome).toMatchObject({ code: null, signal: 'SIGABRT', stdout: '' })
  })

  test('without the right to come home do not leave', async () => {
    const outcome = await ended(
      'rootless',
      `
      try { b.socket(b.openNetns(null), 2, 2, 0) } catch (error) { console.log(error.code, error.syscall) }
      try { b.createNetnsSync(null) } catch (error) { console.log(error.code, error.syscall) }
      b.createNetns(null).then(async made => {
        console.log((await b.exchange([step(made.route, m.addBridge('br0'))]))[0].errors[0])
        try { b.run(made.ns, () => console.log('inside')) } catch (error) { console.log(error.code, error.syscall) }
      })
    `,
      ['unshare', '--user', '--map-root-user'],
    )
    expect(outcome).toEqual({
      code: 0,
      signal: null,
      stdout: 'EPERM setns\nEPERM setns\n0\nEPERM setns\n',
      stderr: '',
    })
  })
})
