/**
 * Drives every function of the addon, the paths on which it fails included, until so many calls were made; tells whether
 * descriptors, memory and namespaces are as before. A program of its own (see support.ts), because memory is measured
 * and because it also runs under AddressSanitizer: node driver.js ADDON DIRECTORY CALLS ROUNDS
 */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Binding } from '../../lib/kernel/binding'
import {
  addBadAddress,
  addBridge,
  deleteLink,
  dumpAddresses,
  dumpLinks,
  filterOfType,
  getLink,
  NETLINK_ROUTE,
  RTNLGRP_LINK,
  setMtu,
  sockaddrIn,
} from './messages'

export interface Figures {
  calls: number
  /** Function name → calls of it. */
  perFunction: Record<string, number>
  descriptors: { before: number; after: number }
  /** Resident bytes, after warm-up and at the end. */
  memory: { before: number; after: number }
  /** The namespaces in which threads of the process are: one, when all are home. */
  namespaces: string[]
  seconds: number
}

const AF_INET = 2
const AF_NETLINK = 16
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const SOCK_RAW = 3
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const NO_FD = 987_654

const settled = () => new Promise(resolve => setTimeout(resolve, 20))

/** Expects that `act` fails with `code`. */
function refused(code: string, act: () => unknown): void {
  try {
    act()
  } catch (error) {
    const got = (error as NodeJS.ErrnoException).code
    if (got === code) return
    throw new Error(`expected ${code}, got ${got}`, { cause: error })
  }
  throw new Error(`expected ${code}, got no error`)
}

async function refusedLater(code: string, act: () => Promise<unknown>): Promise<void> {
  const error = await act().then(
    () => undefined,
    (reason: NodeJS.ErrnoException) => reason,
  )
  if (error?.code !== code) throw new Error(`expected ${code}, got ${error?.code}`, { cause: error })
}

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(what)
}

/** A binding that counts. */
function counted(binding: Binding, calls: Map<string, number>): Binding {
  return new Proxy(binding, {
    get(target, name: keyof Binding) {
      const call = target[name] as (...args: unknown[]) => unknown
      return (...args: unknown[]) => {
        calls.set(name, (calls.get(name) ?? 0) + 1)
        return call(...args)
      }
    },
  })
}

/** Calls with arguments of wrong types; cast, since TypeScript would not let them pass. */
function wrongTypes(b: Binding): void {
  const loose = b as unknown as Record<string, (...args: unknown[]) => unknown>
  for (const name of Object.keys(b)) {
    refused('ERR_INVALID_ARG_TYPE', () => loose[name]?.({}, {}, {}, {}))
    refused('ERR_INVALID_ARG_TYPE', () => loose[name]?.())
  }
  refused('ERR_INVALID_ARG_TYPE', () => loose.exchange?.([{ fd: 1, messages: 'x', count: 1 }]))
  refused('ERR_INVALID_ARG_TYPE', () => loose.exchange?.([{ fd: 1, messages: new Uint16Array(8), count: 1 }]))
  refused('ERR_INVALID_ARG_TYPE', () => loose.subscribe?.(1, 0, ['x'], () => undefined))
  refused('ERR_INVALID_ARG_TYPE', () => loose.run?.(1, 'x'))
}

async function namespaces(b: Binding, directory: string): Promise<void> {
  const [one, two, plain] = ['one', 'two', 'plain'].map(name => join(directory, name)) as [
    string,
    string,
    string,
  ]
  writeFileSync(plain, '')
  const made = b.createNetnsSync(one)
  const unbound = await b.createNetns(null)
  refused('EEXIST', () => b.createNetnsSync(one))
  refused('ENOENT', () => b.createNetnsSync(join(directory, 'absent', 'x')))
  await refusedLater('EEXIST', () => b.createNetns(one))
  await refusedLater('ENOENT', () => b.createNetns(join(directory, 'absent', 'x')))
  b.bindNetns(made.ns, two)
  refused('EEXIST', () => b.bindNetns(made.ns, two))
  refused('EBADF', () => b.bindNetns(NO_FD, join(directory, 'three')))
  refused('EINVAL', () => b.bindNetns(made.route, join(directory, 'three')))
  const again = b.openNetns(two)
  check(b.inode(again) === made.inode, 'bound to another path, it is the same namespace')
  check(b.inode(unbound.ns) !== made.inode, 'two namespaces are two')
  b.close(again)
  for (const { ns, route } of [made, unbound]) {
    b.close(route)
    b.close(ns)
  }
  b.removeNetns(one)
  b.removeNetns(two)
  b.removeNetns(two)
  refused('EISDIR', () => b.removeNetns(directory))
  refused('ENOENT', () => b.openNetns(two))
  refused('EINVAL', () => b.openNetns(plain))
  refused('ENAMETOOLONG', () => b.openNetns('x'.repeat(5000)))
  refused('EINVAL', () => b.openNetns('a\0b'))
  b.removeNetns(plain)
}

function sockets(b: Binding, ns: number): void {
  const udp = b.socket(ns, AF_INET, SOCK_DGRAM, 0)
  b.bind(udp, sockaddrIn('127.0.0.1', 0))
  const name = b.socketName(udp)
  check(name.length === 16 && name[0] === AF_INET, 'a name of AF_INET')
  const tcp = b.socket(ns, AF_INET, SOCK_STREAM, 0)
  b.setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, 1)
  b.setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, Uint8Array.of(1, 0, 0, 0))
  refused('EINVAL', () => b.setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, new Uint8Array(0)))
  refused('EADDRNOTAVAIL', () => b.bind(tcp, sockaddrIn('10.9.9.9', 0)))
  b.bind(tcp, sockaddrIn('127.0.0.1', 0))
  b.listen(tcp, 8)
  refused('EOPNOTSUPP', () => b.listen(udp, 8))
  b.close(udp)
  b.close(tcp)
  refused('EBADF', () => b.close(NO_FD))
  refused('EBADF', () => b.socketName(NO_FD))
  refused('EBADF', () => b.inode(NO_FD))
  refused('EBADF', () => b.socket(NO_FD, AF_INET, SOCK_DGRAM, 0))
  refused('EAFNOSUPPORT', () => b.socket(ns, 9999, SOCK_DGRAM, 0))
  b.close(b.socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE))
}

async function datagrams(b: Binding, ns: number): Promise<void> {
  const open = (onHeard: (count: number) => void) => {
    const fd = b.socket(ns, AF_INET, SOCK_DGRAM, 0)
    b.bind(fd, sockaddrIn('127.0.0.1', 0))
    return b.datagrams(fd, onHeard)
  }
  refused('EBADF', () => b.datagrams(NO_FD, () => undefined))
  const tcp = b.socket(ns, AF_INET, SOCK_STREAM, 0)
  refused('EPROTOTYPE', () => b.datagrams(tcp, () => undefined))
  b.close(tcp)

  const late: Uint8Array[] = []
  const server = open(count => {
    const slot = server.heard.length / server.heardLengths.length
    for (let i = 0; i < count; i++) {
      const length = server.heardLengths[i] as number
      if (i % 2) late.push(server.sources.slice(i * 28, (i + 1) * 28))
      else server.said.set(server.heard.subarray(i * slot, i * slot + length), i * slot)
      if (i % 2 === 0) server.saidLengths[i] = length
    }
    for (const to of late.splice(0)) server.send(new Uint8Array(700), to)
  })
  let answers = 0
  const client = open(count => {
    answers += count
  })
  const to = Buffer.alloc(28)
  sockaddrIn('127.0.0.1', server.port).copy(to)
  refused('EINVAL', () => client.send(new Uint8Array(1), to.subarray(1)))
  for (let i = 1; i <= 100; i++) client.send(new Uint8Array(i), to)
  client.send(new Uint8Array(9000), to) /* cut by the receiver */
  for (let waits = 0; answers < 101 && waits < 500; waits++)
    await new Promise(resolve => setTimeout(resolve, 1))
  check(answers === 101, `each datagram is answered: ${answers}`)
  client.send(new Uint8Array(70_000), to)
  check(client.lost() === 1 && server.lost() === 0, 'what does not go is counted')
  await connected(b, ns, to.subarray(0, 16))
  client.send(new Uint8Array(1), to) /* on its way when the server goes */
  for (const socket of [server, client]) {
    socket.close()
    socket.close()
    socket.send(new Uint8Array(1), to)
  }
  check(client.lost() === 1, 'known after the end')
}

/** One that hears from `peer` only, and of what does not get there. */
async function connected(b: Binding, ns: number, peer: Uint8Array): Promise<void> {
  const counts: number[] = []
  const open = (address: Uint8Array) => {
    const fd = b.socket(ns, AF_INET, SOCK_DGRAM, 0)
    b.connect(fd, address)
    return b.datagrams(fd, count => counts.push(count))
  }
  const heard = async (what: number) => {
    for (let waits = 0; !counts.includes(what) && waits < 500; waits++)
      await new Promise(resolve => setTimeout(resolve, 1))
    check(counts.includes(what), `told of ${what}: ${counts}`)
  }
  const socket = open(peer)
  check(socket.send(new Uint8Array(3), new Uint8Array(0)) === 0, 'sent to the peer')
  await heard(1)
  check(socket.send(new Uint8Array(70_000), new Uint8Array(0)) === 90, 'EMSGSIZE')
  socket.close()
  const nobody = open(sockaddrIn('127.0.0.1', 9))
  nobody.send(new Uint8Array(3), new Uint8Array(0))
  await heard(-111) /* ECONNREFUSED */
  nobody.close()
  refused('EBADF', () => b.connect(NO_FD, peer))
}

function sysctls(b: Binding, ns: number, round: number): void {
  const value = String(round & 1)
  b.writeSysctl(ns, 'net/ipv4/ip_forward', value)
  check(b.readSysctl(ns, 'net/ipv4/ip_forward') === value, 'what was written is read')
  check(b.readSysctl(ns, 'net/ipv4/conf/absent/forwarding') === null, 'null for what does not exist')
  refused('ENOENT', () => b.writeSysctl(ns, 'net/ipv4/conf/absent/forwarding', '1'))
  refused('EINVAL', () => b.writeSysctl(ns, 'net/ipv4/ip_forward', 'many'))
  for (const key of ['', '/etc/passwd', '../version', 'net/../../version', 'net/ipv4/..'])
    refused('EINVAL', () => b.readSysctl(ns, key))
  refused('EBADF', () => b.readSysctl(NO_FD, 'net/ipv4/ip_forward'))
}

function synchronous(b: Binding, fd: number, round: number): void {
  const ask = (...messages: Buffer[]) =>
    b.exchangeSync({ fd, messages: Buffer.concat(messages), count: messages.length })
  check(ask(setMtu(1, 1500 + (round % 100))).errors[0] === 0, 'set')
  check(ask(deleteLink(12_345)).errors[0] === 19, 'ENODEV')
  check(ask(addBadAddress()).texts[0] !== undefined, 'refused in words')
  check(ask(dumpLinks(), getLink(1), dumpAddresses()).data.length > 0, 'dumps and answers')
  check(ask().errors.length === 0, 'nothing asked')
  check(b.linkName(fd, 1) === 'lo', 'the name of an index')
  check(b.linkName(fd, 12_345) === undefined, 'no link of that index')
  refused('EBADF', () => b.linkName(NO_FD, 1))
  refused('EINVAL', () => b.exchangeSync({ fd, messages: getLink(1).subarray(0, 20), count: 1 }))
  refused('EINVAL', () => b.exchangeSync({ fd, messages: getLink(1), count: 2 }))
  refused('EBADF', () => b.exchangeSync({ fd: NO_FD, messages: getLink(1), count: 1 }))
}

async function asynchronous(b: Binding, fds: number[]): Promise<void> {
  const batch = Buffer.concat([setMtu(1, 1600), deleteLink(12_345), getLink(1)])
  const journeys = fds.map(fd =>
    b.exchange([
      { fd, messages: dumpLinks(), count: 1 },
      { fd, messages: batch, count: 3 },
      { fd, messages: getLink(1), count: 1 },
    ]),
  )
  for (const answers of await Promise.all(journeys))
    check(answers.length === 2 && answers[1]?.errors.join() === '0,19,0', 'ends with the step that failed')
  await refusedLater('EBADF', () => b.exchange([{ fd: NO_FD, messages: getLink(1), count: 1 }]))
  check((await b.exchange([])).length === 0, 'no step')
  refused('EINVAL', () => b.exchange([{ fd: 0, messages: new Uint8Array(40), count: 1 }]))
}

function journeys(b: Binding, home: number, one: number, two: number): void {
  const here = () => readlinkSync('/proc/thread-self/ns/net')
  const inside = b.run(one, () => {
    const before = here()
    const nested = b.run(two, () => b.run(home, here))
    refused('EBADF', () => b.run(NO_FD, here))
    check(here() === before, 'back from nested journeys')
    return nested
  })
  check(inside === here(), 'home')
  refused('ERR_TEST', () =>
    b.run(one, () => {
      throw Object.assign(new Error('thrown inside'), { code: 'ERR_TEST' })
    }),
  )
  check(inside === here(), 'home after an exception')
}

async function subscriptions(b: Binding, ns: number, fd: number, round: number): Promise<void> {
  let events = 0
  const open = [1, 2, 3].map(() => b.subscribe(ns, NETLINK_ROUTE, [RTNLGRP_LINK, 5, 9], () => events++))
  refused('EINVAL', () => b.subscribe(ns, NETLINK_ROUTE, [9999], () => undefined))
  refused('EBADF', () => b.subscribe(NO_FD, NETLINK_ROUTE, [1], () => undefined))
  b.exchangeSync({ fd, messages: setMtu(1, 2000 + (round & 1)), count: 1 })
  open.pop()?.close() /* with an event on its way */
  for (let waits = 0; events < 2 && waits < 500; waits++) await new Promise(resolve => setTimeout(resolve, 1))
  check(events >= 2, 'events arrived')
  for (const groups of [[RTNLGRP_LINK], [RTNLGRP_LINK, 5, 9]])
    open.push(b.subscribeOthers(ns, NETLINK_ROUTE, groups, filterOfType(16), () => events++))
  refused('EINVAL', () => b.subscribeOthers(ns, NETLINK_ROUTE, [1], new Uint8Array(8), () => undefined))
  for (const subscription of open) {
    subscription.close()
    subscription.close()
  }
}

function state() {
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    memory: Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024,
  }
}

/** Where the threads of this process are. */
export function threadNamespaces(): string[] {
  const found = new Set<string>()
  for (const thread of readdirSync('/proc/self/task')) {
    try {
      found.add(readlinkSync(`/proc/self/task/${thread}/ns/net`))
    } catch {
      /* ended meanwhile */
    }
  }
  return [...found]
}

export async function drive(
  binding: Binding,
  directory: string,
  goal: number,
  rounds: number,
): Promise<Figures> {
  const calls = new Map<string, number>()
  const total = () => [...calls.values()].reduce((sum, n) => sum + n, 0)
  const b = counted(binding, calls)
  const started = Date.now()
  const collect = (globalThis as { gc?: () => void }).gc ?? (() => undefined)
  const home = b.openNetns(null)
  const one = await b.createNetns(join(directory, 'first'))
  const two = await b.createNetns(null)
  const routes = Array.from({ length: 8 }, () => b.socket(one.ns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE))
  b.exchangeSync({ fd: one.route, messages: addBridge('br0'), count: 1 })
  wrongTypes(binding)

  const pass = async (round: number, until: number) => {
    await namespaces(b, directory)
    await subscriptions(b, one.ns, one.route, round)
    await datagrams(b, one.ns)
    do {
      for (let i = 0; i < 4; i++) {
        sockets(b, one.ns)
        sysctls(b, one.ns, i)
        synchronous(b, one.route, round + i)
        journeys(b, home, one.ns, two.ns)
      }
      await asynchronous(b, routes)
    } while (total() < until)
  }
  const rest = async () => {
    await settled()
    collect()
    await settled()
    return state()
  }
  /* The first half warms up: heaps, thread stacks and code grow to their working size. */
  const warm = Math.ceil(rounds / 2)
  for (let round = 0; round < warm; round++) await pass(round, ((round + 1) * goal) / rounds)
  const before = await rest()
  for (let round = warm; round < rounds; round++) await pass(round, ((round + 1) * goal) / rounds)
  const after = await rest()

  for (const fd of [...routes, one.route, one.ns, two.route, two.ns, home]) b.close(fd)
  b.removeNetns(join(directory, 'first'))
  return {
    calls: total(),
    perFunction: Object.fromEntries(calls),
    descriptors: { before: before.descriptors, after: after.descriptors },
    memory: { before: before.memory, after: after.memory },
    namespaces: threadNamespaces(),
    seconds: (Date.now() - started) / 1000,
  }
}

if (require.main === module) {
  const [addon, directory, calls, rounds] = process.argv.slice(2) as [string, string, string, string]
  drive(require(addon) as Binding, directory, Number(calls), Number(rounds)).then(
    figures => console.log(JSON.stringify(figures)),
    error => {
      console.error(error)
      process.exitCode = 1
    },
  )
}
