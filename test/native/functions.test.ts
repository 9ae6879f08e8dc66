import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Binding, loadBinding } from '../../lib/kernel/binding'
import { threadNamespaces } from './driver'
import {
  addBadAddress,
  addBridge,
  deleteLink,
  dumpLinks,
  filterOfType,
  getLink,
  nameNetns,
  NETLINK_FIB_LOOKUP,
  NETLINK_ROUTE,
  RTNLGRP_LINK,
  setMtu,
  sockaddrIn,
  split,
  unanswered,
} from './messages'
import { scratch } from './support'

const NLMSG_NOOP = 1
const RTM_NEWLINK = 16
const AF_INET = 2
const AF_NETLINK = 16
const SOCK_STREAM = 1
const SOCK_RAW = 3

const here = () => readlinkSync('/proc/thread-self/ns/net')
const descriptors = () => readdirSync('/proc/self/fd').length

/** A step of these messages. */
const step = (fd: number, ...messages: Buffer[]) => ({
  fd,
  messages: Buffer.concat(messages),
  count: messages.length,
})

/** What a call throws, as far as errors of the addon go. */
function failure(act: () => unknown): object | undefined {
  try {
    act()
    return undefined
  } catch (error) {
    const { code, errno, syscall, message } = error as NodeJS.ErrnoException
    return { code, errno, syscall, message }
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let waits = 0; !condition(); waits++) {
    if (waits === 20_000) throw new Error('waited in vain')
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

jest.setTimeout(120_000)

let b: Binding
let directory: ReturnType<typeof scratch>
let net: { ns: number; inode: number; route: number }
let home: string
let before: number

beforeAll(async () => {
  b = loadBinding()
  directory = scratch()
  home = here()
  const first = b.createNetnsSync(null)
  b.readSysctl(first.ns, 'net/core/somaxconn') // what serves sysctls stays open from then on
  b.close(first.route)
  b.close(first.ns)
  before = descriptors()
  net = await b.createNetns(join(directory.path, 'net'))
})

afterAll(() => {
  b.close(net.route)
  b.close(net.ns)
  directory.remove()
  expect(descriptors()).toBe(before)
  expect(threadNamespaces()).toEqual([home])
})

describe('namespaces', () => {
  test('a new one is bound to its path, has lo up, and a netlink socket inside', () => {
    const path = join(directory.path, 'net')
    expect(statSync(path).ino).toBe(net.inode)
    expect(`net:[${net.inode}]`).not.toBe(home)
    const { data } = b.exchangeSync(step(net.route, dumpLinks()))
    const links = [...split(data)]
    expect(links).toHaveLength(1)
    expect((links[0]?.bytes.readUInt32LE(24) ?? 0) & 1).toBe(1) /* ifi_flags & IFF_UP */
  })

  test('none is made over what is there, nor where nothing can be', async () => {
    const count = descriptors()
    const file = join(directory.path, 'file')
    writeFileSync(file, 'mine')
    await expect(b.createNetns(file)).rejects.toMatchObject({ code: 'EEXIST', errno: 17, syscall: 'open' })
    expect(readFileSync(file, 'utf8')).toBe('mine')
    await expect(b.createNetns(join(file, 'x'))).rejects.toMatchObject({ code: 'ENOTDIR' })
    expect(descriptors()).toBe(count)
  })

  test('an unbound one lives as long as its descriptor', async () => {
    const made = await b.createNetns(null)
    expect(b.run(made.ns, here)).toBe(`net:[${made.inode}]`)
    b.close(made.route)
    b.close(made.ns)
  })

  test('made on the calling thread it is the same, and the thread is home again', () => {
    const count = descriptors()
    const path = join(directory.path, 'sync')
    const made = b.createNetnsSync(path)
    expect(here()).toBe(home)
    expect(statSync(path).ino).toBe(made.inode)
    expect(b.run(made.ns, here)).toBe(`net:[${made.inode}]`)
    expect(failure(() => b.createNetnsSync(path))).toMatchObject({ code: 'EEXIST', syscall: 'open' })
    expect(failure(() => b.createNetnsSync(join(path, 'x')))).toMatchObject({ code: 'ENOTDIR' })
    const within = b.run(net.ns, () => {
      const inner = b.createNetnsSync(null)
      return { inner, where: here() }
    })
    expect(within.where).toBe(`net:[${net.inode}]`)
    for (const { ns, route } of [made, within.inner]) {
      b.close(route)
      b.close(ns)
    }
    b.removeNetns(path)
    expect(descriptors()).toBe(count)
  })

  test('a failed binding leaves no file', () => {
    const path = join(directory.path, 'none')
    expect(failure(() => b.bindNetns(net.route, path))).toMatchObject({ code: 'EINVAL' })
    expect(failure(() => statSync(path))).toMatchObject({ code: 'ENOENT' })
  })

  test('removing is idempotent, unbinds what is bound twice, and spares directories', () => {
    const path = join(directory.path, 'twice')
    b.bindNetns(net.ns, path)
    const again = spawnSync('mount', ['--bind', join(directory.path, 'net'), path])
    expect(again.status).toBe(0)
    b.removeNetns(path)
    b.removeNetns(path)
    expect(failure(() => statSync(path))).toMatchObject({ code: 'ENOENT' })
    expect(failure(() => b.removeNetns(directory.path))).toMatchObject({ code: 'EISDIR' })
  })

  test('only a network namespace is opened', () => {
    const count = descriptors()
    for (const path of ['/proc/self/ns/mnt', '/etc/hostname', '/dev/null'])
      expect(failure(() => b.openNetns(path))).toMatchObject({ code: 'EINVAL' })
    const fifo = join(directory.path, 'fifo')
    spawnSync('mkfifo', [fifo])
    expect(failure(() => b.openNetns(fifo))).toMatchObject({ code: 'EINVAL' })
    expect(descriptors()).toBe(count)
  })

  test('errors have the form of Node’s', () => {
    expect(failure(() => b.openNetns(join(directory.path, 'absent')))).toEqual({
      code: 'ENOENT',
      errno: 2,
      syscall: 'open',
      message: 'open: No such file or directory',
    })
  })
})

describe('run', () => {
  test('is inside, nests, and is home again, whatever happens', async () => {
    const other = await b.createNetns(null)
    const seen = b.run(net.ns, () => [here(), b.run(other.ns, here), here()])
    expect(seen).toEqual([`net:[${net.inode}]`, `net:[${other.inode}]`, `net:[${net.inode}]`])
    const thrown = new Error('inside')
    expect(() =>
      b.run(net.ns, () =>
        b.run(other.ns, () => {
          throw thrown
        }),
      ),
    ).toThrow(thrown)
    expect(here()).toBe(home)
    b.close(other.route)
    b.close(other.ns)
  })

  test('the other calls come back to where `run` is', async () => {
    const other = await b.createNetns(null)
    b.run(net.ns, () => {
      b.close(b.socket(other.ns, AF_INET, SOCK_STREAM, 0))
      b.readSysctl(other.ns, 'net/ipv4/ip_forward')
      b.subscribe(other.ns, NETLINK_ROUTE, [RTNLGRP_LINK], () => undefined).close()
      expect(here()).toBe(`net:[${net.inode}]`)
    })
    b.close(other.route)
    b.close(other.ns)
  })

  test('a body that closes the descriptors of where it is does not get lost', async () => {
    const [one, two] = await Promise.all([b.createNetns(null), b.createNetns(null)])
    b.run(one.ns, () => {
      b.run(two.ns, () => {
        b.close(one.ns)
        b.close(two.ns)
      })
      expect(here()).toBe(`net:[${one.inode}]`)
    })
    expect(here()).toBe(home)
    b.close(one.route)
    b.close(two.route)
  })

  test('threads are born at home even when a body is the first to need them', () => {
    const subscription = b.run(net.ns, () =>
      b.subscribe(net.ns, NETLINK_ROUTE, [RTNLGRP_LINK], () => undefined),
    )
    const subscribed = threadNamespaces()
    subscription.close()
    expect(subscribed).toEqual([home])
  })
})

describe('sockets', () => {
  test('are in their namespace', () => {
    const [one, two] = [net.ns, net.ns].map(ns => b.socket(ns, AF_INET, SOCK_STREAM, 0)) as [number, number]
    b.bind(one, sockaddrIn('127.0.0.1', 7))
    b.listen(one, 1)
    expect(Buffer.from(b.socketName(one))).toEqual(sockaddrIn('127.0.0.1', 7))
    expect(failure(() => b.bind(two, sockaddrIn('127.0.0.1', 7)))).toMatchObject({
      code: 'EADDRINUSE',
      syscall: 'bind',
    })
    b.close(one)
    b.close(two)
  })
})

describe('exchange', () => {
  test('answers each message, goes on after one that fails, and tells the kernel’s words', async () => {
    const [answer] = await b.exchange([step(net.route, deleteLink(9999), addBadAddress(), getLink(1))])
    expect(answer?.errors).toEqual([19, 22, 0])
    expect(answer?.texts).toEqual([undefined, expect.stringMatching(/address/i), undefined])
    expect([...split(answer?.data ?? new Uint8Array())].map(m => m.type)).toEqual([RTM_NEWLINK])
  })

  test('ends with the step in which a message failed', async () => {
    const answers = await b.exchange([
      step(net.route, getLink(1)),
      step(net.route, deleteLink(9999), setMtu(1, 4000)),
      step(net.route, setMtu(1, 5000)),
    ])
    expect(answers.map(a => a.errors)).toEqual([[0], [19, 0]])
    const { data } = b.exchangeSync(step(net.route, getLink(1)))
    expect(data).not.toHaveLength(0)
    expect(Buffer.from(data).includes(Buffer.from(Uint32Array.of(4000).buffer))).toBe(true)
  })

  test('the name of a link by its index, as it is now', () => {
    expect(b.linkName(net.route, 1)).toBe('lo')
    expect(b.linkName(net.route, 9999)).toBeUndefined()
    expect(failure(() => b.linkName(net.ns, 1))).toMatchObject({ code: 'ENOTTY' })
  })

  test('dumps among changes, in order', () => {
    const { errors, data } = b.exchangeSync(
      step(net.route, addBridge('dump0'), dumpLinks(), dumpLinks(), addBridge('dump0'), getLink(1)),
    )
    expect(errors).toEqual([0, 0, 0, 17, 0])
    expect([...split(data)].map(m => m.sequence)).toHaveLength(2 + 2 + 1)
  })

  test('echoes come as data', () => {
    const { errors, data } = b.exchangeSync(step(net.route, addBridge('echo0', true)))
    expect(errors).toEqual([0])
    expect([...split(data)].map(m => m.type)).toEqual([RTM_NEWLINK])
  })

  test('more messages than a send or a receive buffer takes', async () => {
    const messages = Array.from({ length: 5000 }, (_, i) =>
      i % 10 === 9 ? deleteLink(9999) : setMtu(1, 1500 + i),
    )
    const [answer] = await b.exchange([step(net.route, ...messages)])
    expect(answer?.errors.filter(error => error === 19)).toHaveLength(500)
    expect(answer?.errors.filter(error => error === 0)).toHaveLength(4500)
  })

  test('a dump of many parts is whole', async () => {
    const other = await b.createNetns(null)
    const names = Array.from({ length: 150 }, (_, i) => addBridge(`b${i}`))
    await b.exchange([step(other.route, ...names)])
    const [answer] = await b.exchange([step(other.route, dumpLinks())])
    expect([...split(answer?.data ?? new Uint8Array())]).toHaveLength(151)
    b.close(other.route)
    b.close(other.ns)
  })

  test('the bytes may be changed and the descriptor closed while it is under way', async () => {
    const fd = b.socket(net.ns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    const messages = getLink(1)
    const answer = b.exchange([{ fd, messages, count: 1 }])
    messages.fill(0)
    b.close(fd)
    expect((await answer)[0]?.errors).toEqual([0])
  })

  test('refuses what would not be answered', () => {
    const unasked = getLink(1)
    unasked.writeUInt16LE(1, 6) /* NLM_F_REQUEST alone */
    const response = getLink(1)
    response.writeUInt16LE(4, 6) /* NLM_F_ACK alone */
    const overlong = getLink(1)
    overlong.writeUInt32LE(4000, 0)
    const short = getLink(1)
    short.writeUInt32LE(8, 0)
    for (const bad of [unasked, response, overlong, short, getLink(1).subarray(0, 15)])
      expect(failure(() => b.exchangeSync({ fd: net.route, messages: bad, count: 1 }))).toMatchObject({
        code: 'EINVAL',
      })
    for (const count of [0, 2, -1])
      expect(failure(() => b.exchangeSync({ fd: net.route, messages: getLink(1), count }))).toMatchObject({
        code: 'EINVAL',
      })
  })

  test('gives up after silence, and the socket is of use afterwards', async () => {
    const fd = b.socket(net.ns, AF_NETLINK, SOCK_RAW, NETLINK_FIB_LOOKUP)
    await expect(b.exchange([step(fd, unanswered())])).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      errno: 110,
    })
    b.close(fd)
  }, 60_000)

  test('a socket without a kernel side is an error, not silence', async () => {
    const fd = b.socket(net.ns, AF_NETLINK, SOCK_RAW, 2 /* NETLINK_USERSOCK */)
    await expect(b.exchange([step(fd, getLink(1))])).rejects.toMatchObject({
      code: 'ECONNREFUSED',
      syscall: 'sendmsg',
    })
    b.close(fd)
  })
})

describe('subscribe', () => {
  test('tells of changes, in order, until closed', async () => {
    const seen: number[] = []
    const subscription = b.subscribe(net.ns, NETLINK_ROUTE, [RTNLGRP_LINK], data => {
      for (const { type, bytes } of split(data ?? new Uint8Array()))
        if (type === RTM_NEWLINK) seen.push(bytes.indexOf(Buffer.from([8, 0, 4, 0])) /* IFLA_MTU */)
    })
    b.exchangeSync(step(net.route, ...Array.from({ length: 50 }, (_, i) => setMtu(1, 6000 + i))))
    await until(() => seen.length === 50)
    subscription.close()
    b.exchangeSync(step(net.route, setMtu(1, 7000)))
    await new Promise(resolve => setTimeout(resolve, 20))
    expect(seen).toHaveLength(50)
    expect(seen.every(offset => offset > 0)).toBe(true)
  })

  test('many at once, each with its own namespace, on one thread', async () => {
    const nets = await Promise.all(Array.from({ length: 20 }, () => b.createNetns(null)))
    const threads = readdirSync('/proc/self/task').length
    const counts = nets.map(() => 0)
    const open = nets.map(({ ns }, i) =>
      b.subscribe(ns, NETLINK_ROUTE, [RTNLGRP_LINK], () => {
        counts[i] = (counts[i] ?? 0) + 1
      }),
    )
    expect(readdirSync('/proc/self/task').length).toBeLessThanOrEqual(threads + 1)
    for (const { route } of nets.slice(0, 10)) b.exchangeSync(step(route, setMtu(1, 1600)))
    await until(() => counts.slice(0, 10).every(count => count > 0))
    expect(counts.slice(10).every(count => count === 0)).toBe(true)
    for (const subscription of open) subscription.close()
    for (const { ns, route } of nets) {
      b.close(ns)
      b.close(route)
    }
  })

  test('says null when events were lost, and goes on', async () => {
    const other = await b.createNetns(null)
    const got: (number | null)[] = []
    const subscription = b.subscribe(other.ns, NETLINK_ROUTE, [RTNLGRP_LINK], data =>
      got.push(data?.length ?? null),
    )
    /* JavaScript does not turn meanwhile, so nothing is taken: 8 MiB of receive buffer fill up. */
    const many = Array.from({ length: 8000 }, (_, i) => setMtu(1, 1500 + (i % 1000)))
    b.exchangeSync(step(other.route, ...many))
    await until(() => got.includes(null))
    expect(got[0]).toBeGreaterThan(0)
    const lost = got.length
    await until(() => got.length > lost || got.at(-1) !== null)
    await new Promise(resolve => setTimeout(resolve, 50))
    const drained = got.length
    b.exchangeSync(step(other.route, setMtu(1, 1500)))
    await until(() => got.length > drained)
    expect(got.at(-1)).toBeGreaterThan(0)
    subscription.close()
    b.close(other.route)
    b.close(other.ns)
  })

  test('of others: each message with the id of its namespace, as far as the filter lets it through', async () => {
    const [host, one, two] = await Promise.all([1, 2, 3].map(() => b.createNetns(null)))
    if (!host || !one || !two) throw new Error('three were made')
    const seen: string[] = []
    const subscription = b.subscribeOthers(
      host.ns,
      NETLINK_ROUTE,
      [RTNLGRP_LINK],
      filterOfType(RTM_NEWLINK),
      data => {
        let origin = -1
        for (const { type, bytes } of split(data ?? new Uint8Array()))
          if (type === NLMSG_NOOP) origin = bytes.readInt32LE(16)
          else seen.push(`${origin} ${type}`)
      },
    )
    b.exchangeSync(step(host.route, nameNetns(one.ns, 40)))
    for (const { route } of [host, one, two]) b.exchangeSync(step(route, setMtu(1, 6000)))
    b.exchangeSync(step(host.route, nameNetns(two.ns, 41)))
    b.exchangeSync(step(one.route, addBridge('br0'), deleteLink(2)))
    b.exchangeSync(step(two.route, setMtu(1, 6001), setMtu(1, 6002)))
    await until(() => seen.includes('41 16'))
    expect([...new Set(seen)]).toEqual(['40 16', '41 16'])
    subscription.close()
    subscription.close()
    for (const each of [host, one, two]) {
      b.close(each.ns)
      b.close(each.route)
    }
  })

  test('of others: a filter that is none, or no right to, is refused', () => {
    const filter = new Uint8Array(0)
    expect(
      failure(() => b.subscribeOthers(net.ns, NETLINK_ROUTE, [RTNLGRP_LINK], filter, () => undefined)),
    ).toMatchObject({ code: 'EINVAL', syscall: 'setsockopt' })
    expect(
      failure(() => b.subscribeOthers(net.ns, NETLINK_ROUTE, [RTNLGRP_LINK], 'x' as never, () => undefined)),
    ).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
  })

  test('may be closed by its own listener', async () => {
    let calls = 0
    const subscription = b.subscribe(net.ns, NETLINK_ROUTE, [RTNLGRP_LINK], () => {
      calls++
      subscription.close()
    })
    b.exchangeSync(step(net.route, setMtu(1, 8000)))
    await until(() => calls > 0)
    b.exchangeSync(step(net.route, setMtu(1, 8001)))
    await new Promise(resolve => setTimeout(resolve, 20))
    expect(calls).toBe(1)
  })
})

describe('sysctls', () => {
  test('of more namespaces than one proc file system serves are each their own', async () => {
    const count = descriptors()
    const many = Array.from({ length: 100 }, () => b.createNetnsSync(null))
    const key = 'net/ipv6/conf/default/hop_limit'
    for (const [i, { ns }] of many.entries()) b.writeSysctl(ns, key, String(i + 1))
    expect(many.map(({ ns }) => Number(b.readSysctl(ns, key)))).toEqual(many.map((_, i) => i + 1))
    for (const { ns, route } of many) {
      b.close(route)
      b.close(ns)
    }
    await until(() => descriptors() <= count) // a file system that was replaced is let go on a thread of its own
  })

  test('are those of the namespace', () => {
    const mine = readFileSync('/proc/sys/net/ipv4/ip_default_ttl', 'utf8')
    b.writeSysctl(net.ns, 'net/ipv4/ip_default_ttl', '99')
    expect(b.readSysctl(net.ns, 'net/ipv4/ip_default_ttl')).toBe('99')
    expect(readFileSync('/proc/sys/net/ipv4/ip_default_ttl', 'utf8')).toBe(mine)
  })

  test('nothing outside of /proc/sys can be named', () => {
    for (const key of ['', '/etc/hostname', '..', '../version', 'net/../../version', 'net/..', 'net\0x'])
      expect(failure(() => b.writeSysctl(net.ns, key, ''))).toMatchObject({ code: 'EINVAL' })
    expect(b.readSysctl(net.ns, 'net/ipv4/conf/..x/forwarding')).toBeNull()
  })
})
