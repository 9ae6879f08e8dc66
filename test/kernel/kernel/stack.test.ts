import { createSocket } from 'node:dgram'
import { closeSync, existsSync, openSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { once } from 'node:events'
import type { Change, KernelEvent, Stack, Step } from '../../../lib/kernel/kernel'
import { failure, Scene, until } from './scene'

let scene: Scene
let host: Stack
beforeEach(async () => {
  scene = new Scene()
  host = await scene.netns('host')
})
afterEach(() => scene.clear())

const bridge = (name: string): Change => ({ op: 'addLink', link: { kind: 'bridge', name } })

describe('refusals', () => {
  test('the message says what was to be done, the system why, the kernel more; the details are for programs', async () => {
    await host.apply([bridge('br0')])
    const taken = await failure(host.apply([bridge('br0')]))
    expect(taken).toMatchObject({
      code: 'ERR_LINK_EXISTS',
      message: 'add bridge br0: File exists',
      details: { errno: 'EEXIST', number: 17, op: 'addLink', step: 0, change: 0 },
    })
    const small = await failure(host.apply([{ op: 'setLink', link: 'br0', mtu: 12 }]))
    expect(small).toMatchObject({
      code: 'ERR_KERNEL',
      message: 'set link br0 (mtu 12): Invalid argument (kernel: mtu less than device minimum)',
      details: { errno: 'EINVAL', text: 'mtu less than device minimum' },
    })
    const absent = await failure(host.apply([{ op: 'setLink', link: 'nix', up: true }]))
    expect(absent).toMatchObject({ code: 'ERR_LINK_NOT_FOUND', details: { errno: 'ENODEV' } })
  })

  test('in the middle: the first failure of the step is told, the rest of it goes on, later steps do not run', async () => {
    const box = await scene.netns('box')
    const error = await failure(
      scene.kernel.transact([
        { stack: host, changes: [bridge('br0')] },
        {
          stack: box,
          changes: [
            bridge('br1'),
            { op: 'addAddress', link: 'br1', address: '10.0.0.1/24' },
            { op: 'addAddress', link: 'nix', address: '10.0.1.1/24' },
            { op: 'setLink', link: 'nix', up: true },
            bridge('br2'),
          ],
        },
        { stack: host, changes: [bridge('br3')] },
      ]),
    )
    expect(error).toMatchObject({
      code: 'ERR_LINK_NOT_FOUND',
      message: expect.stringContaining('add address 10.0.1.1/24 to nix'),
      details: { step: 1, change: 2, op: 'addAddress', errno: 'ENODEV' },
    })
    expect((await host.links()).map(({ name }) => name)).toEqual(['lo', 'br0'])
    expect((await box.links()).map(({ name }) => name).sort()).toEqual(['br1', 'br2', 'lo'])
  })

  test('a sysctl names its key', () => {
    expect(host.sysctl('net/ipv4/nix')).toBeUndefined()
    expect(() => host.setSysctls({ 'net/ipv4/nix': '1' })).toThrow(
      expect.objectContaining({
        code: 'ERR_KERNEL',
        details: expect.objectContaining({ key: 'net/ipv4/nix' }),
      }),
    )
    expect(() => host.setSysctls({ 'net/ipv4/ip_forward': 'perhaps' })).toThrow(
      expect.objectContaining({ details: expect.objectContaining({ errno: 'EINVAL' }) }),
    )
  })
})

describe('names', () => {
  test('of a link that the batch makes, renames or moves', async () => {
    const box = await scene.netns('box')
    await scene.kernel.transact([
      {
        stack: host,
        changes: [
          bridge('br0'),
          { op: 'addLink', link: { kind: 'veth', name: 'va', peer: { name: 'vb' } } },
          { op: 'setLink', link: 'vb', rename: 'eth0' },
          { op: 'setLink', link: 'va', master: 'br0', up: true },
          { op: 'setPort', link: 'va', isolated: true },
          { op: 'addAddress', link: 'eth0', address: '10.0.0.1/24' },
          { op: 'setLink', link: 'eth0', netns: box },
        ],
      },
      { stack: box, changes: [{ op: 'addAddress', link: 'eth0', address: '10.0.0.2/24' }] },
      { stack: host, changes: [{ op: 'removeLink', link: 'br0' }, bridge('br0')] },
    ])
    const moved = await box.link('eth0')
    expect((await box.addresses(moved?.index)).map(({ address }) => address)).toContain('10.0.0.2/24')
    expect((await host.link('va'))?.master).toBeUndefined()
  })

  test('that are numbers are taken as they are', async () => {
    await host.apply([
      { op: 'addLink', link: { kind: 'bridge', name: 'br0', index: 40 } },
      {
        op: 'addLink',
        link: { kind: 'veth', name: 'va', index: 41, master: 40, peer: { name: 'vb', index: 42 } },
      },
      { op: 'addAddress', link: 40, address: '10.0.0.1/24' },
      { op: 'setPort', link: 41, hairpin: true },
    ])
    expect((await host.links()).map(({ index, master }) => [index, master])).toEqual([
      [1, undefined],
      [40, undefined],
      [41, 40],
      [42, undefined],
    ])
  })

  test('what is already gone does not keep the later steps from running', async () => {
    await scene.kernel.transact([
      { stack: host, changes: [{ op: 'removeLink', link: 'nix', ifExists: true }, bridge('br0')] },
      { stack: host, changes: [bridge('br1')] },
    ])
    expect((await host.links()).map(({ name }) => name)).toEqual(['lo', 'br0', 'br1'])
  })
})

test('two hundred transactions at once, over the same sockets and crosswise', async () => {
  const box = await scene.netns('box')
  await host.apply([bridge('br0')])
  const two = (i: number): Step[] => [
    {
      stack: host,
      changes: [{ op: 'addAddress', link: 'br0', address: `10.1.${i >> 7}.${(i & 127) + 1}/32` }],
    },
    {
      stack: box,
      changes: [{ op: 'addAddress', link: 'lo', address: `10.2.${i >> 7}.${(i & 127) + 1}/32` }],
    },
  ]
  const results = await Promise.allSettled(
    Array.from({ length: 200 }, (_, i) => {
      if (i % 10 === 9) return host.apply([bridge('br0')]) // fails, and disturbs nobody
      if (i % 10 === 5) return host.links()
      return scene.kernel.transact(i % 2 ? two(i) : two(i).reverse())
    }),
  )
  expect(results.filter(({ status }) => status === 'rejected')).toHaveLength(20)
  expect((await host.addresses()).filter(({ address }) => address.startsWith('10.1.'))).toHaveLength(160)
  expect((await box.addresses()).filter(({ address }) => address.startsWith('10.2.'))).toHaveLength(160)
})

describe('events', () => {
  test('links, addresses, routes, rules, neighbours', async () => {
    const seen: KernelEvent[] = []
    const watch = host.watch(
      ['link', 'address', 'route', 'rule', 'neighbour'],
      event => void seen.push(event),
    )
    const rule = { family: 4, priority: 900, table: 900 } as const
    await host.apply([
      { op: 'addLink', link: { kind: 'veth', name: 'va', up: true, peer: { name: 'vb', up: true } } },
      { op: 'addAddress', link: 'va', address: '10.0.0.1/24' },
      { op: 'addRoute', route: { destination: '10.9.0.0/16', gateway: '10.0.0.2' } },
      { op: 'addRule', rule },
      { op: 'setNeighbour', link: 'va', address: '10.0.0.2', mac: '02:42:00:00:00:02' },
      { op: 'removeRule', rule },
      { op: 'removeLink', link: 'va' },
    ])
    const has = (expected: object) => () => {
      try {
        expect(seen).toContainEqual(expect.objectContaining(expected))
        return true
      } catch {
        return false
      }
    }
    const containing = (fields: object) => expect.objectContaining(fields)
    for (const expected of [
      { topic: 'link', change: 'set', link: containing({ name: 'va', kind: 'veth' }) },
      { topic: 'address', change: 'set', address: containing({ address: '10.0.0.1/24' }) },
      {
        topic: 'route',
        change: 'set',
        route: containing({ destination: '10.9.0.0/16', gateway: '10.0.0.2' }),
      },
      { topic: 'rule', change: 'set', rule },
      { topic: 'neighbour', change: 'set', neighbour: containing({ address: '10.0.0.2', permanent: true }) },
      { topic: 'rule', change: 'removed', rule },
      { topic: 'address', change: 'removed', address: containing({ address: '10.0.0.1/24' }) },
      { topic: 'link', change: 'removed', link: containing({ name: 'va' }) },
    ])
      await until(has(expected), JSON.stringify(expected))
    watch.close()
    watch.close()
    const { length } = seen
    await host.apply([bridge('br0')])
    await new Promise(resolve => setTimeout(resolve, 30))
    expect(seen).toHaveLength(length)
  })

  test('the ruleset: what was changed, and by which process', async () => {
    const seen: Extract<KernelEvent, { topic: 'nft' }>[] = []
    const watch = host.watch(['nft'], event => event.topic === 'nft' && void seen.push(event))
    scene.exec('host', 'nft', 'add table inet theirs; add chain inet theirs c')
    host.nft('add table ip ours\nadd set ip ours s { type ipv4_addr; }\nadd element ip ours s { 10.0.0.1 }')
    host.nft('delete table ip ours')
    const ended = () =>
      seen.some(({ table, change, object }) => table === 'ours' && change === 'removed' && object === 'table')
    await until(ended, 'the end of table ours')
    const theirs = seen.filter(({ table }) => table === 'theirs')
    expect(theirs.map(({ object, family, change }) => [object, family, change])).toEqual([
      ['table', 'inet', 'set'],
      ['chain', 'inet', 'set'],
    ])
    expect(theirs.every(({ pid }) => typeof pid === 'number' && pid !== process.pid)).toBe(true)
    const ours = seen.filter(({ table }) => table === 'ours')
    expect(ours.map(({ object }) => object)).toEqual(expect.arrayContaining(['table', 'set', 'element']))
    expect(ours.every(({ pid }) => pid === process.pid)).toBe(true)
    watch.close()
  })
})

describe('sockets', () => {
  const address = '127.0.0.1'

  test('UDP and TCP, of both families, live inside the namespace', async () => {
    const udp = createSocket('udp4')
    udp.bind({ fd: host.openSocket({ type: 'udp', address, port: 5353 }) })
    expect(udp.address()).toMatchObject({ address, port: 5353 })
    const heard = once(udp, 'message')
    scene.exec('host', 'bash', '-c', 'echo -n hello > /dev/udp/127.0.0.1/5353')
    expect(String((await heard)[0])).toBe('hello')
    udp.close()

    const server = createServer(socket => socket.end('hello'))
    server.listen({
      fd: host.openSocket({ type: 'tcp', address: '::1', port: 8080, listen: 16, reuseAddress: true }),
    })
    await once(server, 'listening')
    const client = spawn('nsenter', [`--net=${scene.path('host')}`, 'bash', '-c', 'cat < /dev/tcp/::1/8080'])
    const [data] = await once(client.stdout, 'data')
    expect(String(data)).toBe('hello')
    await once(client, 'close')
    server.close()
  })

  test('a port that is taken, an address that is not here, unless it may come later', async () => {
    const fd = host.openSocket({ type: 'tcp', address, port: 8080, listen: 1 })
    expect(() => host.openSocket({ type: 'tcp', address, port: 8080, listen: 1 })).toThrow(
      expect.objectContaining({
        code: 'ERR_KERNEL',
        message: 'open tcp socket at 127.0.0.1:8080: Address already in use (bind)',
        details: expect.objectContaining({ errno: 'EADDRINUSE', port: 8080 }),
      }),
    )
    host.closeFd(fd)
    for (const foreign of ['192.0.2.7', '2001:db8::7']) {
      expect(() => host.openSocket({ type: 'udp', address: foreign, port: 53 })).toThrow(
        expect.objectContaining({ details: expect.objectContaining({ errno: 'EADDRNOTAVAIL' }) }),
      )
      for (const option of ['freeBind', 'transparent'] as const)
        host.closeFd(host.openSocket({ type: 'udp', address: foreign, port: 53, [option]: true }))
    }
  })

  test('IPv6 alone: the same port is free for IPv4', () => {
    const six = host.openSocket({ type: 'tcp', address: '::', port: 8080, listen: 1 })
    host.closeFd(host.openSocket({ type: 'tcp', address: '0.0.0.0', port: 8080, listen: 1 }))
    host.closeFd(six)
  })

  test('a socket that only reserves its port hears nothing', async () => {
    const udp = createSocket('udp4')
    let heard = 0
    udp.on('message', () => heard++)
    udp.bind({ fd: host.openSocket({ type: 'udp', address, port: 5353, dropAll: true }) })
    const other = createSocket('udp4')
    other.bind({ fd: host.openSocket({ type: 'udp', address, port: 5354 }) })
    const arrived = once(other, 'message')
    for (const port of [5353, 5354]) scene.exec('host', 'bash', '-c', `echo x > /dev/udp/127.0.0.1/${port}`)
    await arrived
    expect(heard).toBe(0)
    udp.close()
    other.close()
    const fd = host.openSocket({ type: 'tcp', address, port: 8080, listen: 1, dropAll: true })
    expect(() => host.openSocket({ type: 'tcp', address, port: 8080, listen: 1 })).toThrow()
    host.closeFd(fd)
  })
})

test('sysctls are written in order, and only when they differ', async () => {
  await host.apply([bridge('br0')])
  host.setSysctls({ 'net/ipv4/ip_forward': '1', 'net/ipv6/conf/br0/disable_ipv6': '1' })
  expect(host.sysctl('net/ipv4/ip_forward')).toBe('1')
  expect(scene.exec('host', 'sysctl', '-n', 'net.ipv6.conf.br0.disable_ipv6').trim()).toBe('1')
  host.setSysctls({ 'net/ipv4/ip_local_port_range': '20000 30000' })
  expect(host.sysctl('net/ipv4/ip_local_port_range')).toMatch(/^20000\s30000$/)
  host.setSysctls({ 'net/ipv4/ip_local_port_range': '20000 30000' })
})

test('conntrack entries are deleted by what they are', async () => {
  expect(await host.flushConntrack([{ family: 4, protocol: 'udp', destinationPort: 9 }])).toBe(0)
})

describe('namespaces', () => {
  test('create, open, bind, list, remove', async () => {
    const { kernel } = scene
    expect(statSync(scene.path('host')).ino).toBe(host.inode)
    const deep = scene.path('a/b/deep')
    const made = await kernel.create(deep)
    expect(statSync(scene.path('a')).mode & 0o777).toBe(0o755)
    expect((await made.link('lo'))?.up).toBe(true)
    writeFileSync(scene.path('plain'), '')
    expect(await kernel.list(scene.directory)).toEqual([scene.path('host')])
    expect(await kernel.list(scene.path('a/b'))).toEqual([deep])
    expect(await kernel.list(scene.path('nix'))).toEqual([])
    const again = await kernel.open(deep)
    expect([again.inode, again.path]).toEqual([made.inode, deep])
    const bound = await kernel.bind(deep, scene.path('bound'))
    expect(bound.inode).toBe(made.inode)
    const same = await kernel.bind(scene.path('host'), scene.path('bound')) // replaces
    expect((await kernel.open(scene.path('bound'))).inode).toBe(host.inode)
    expect(await failure(kernel.create(scene.path('host')))).toMatchObject({ code: 'ERR_NETNS_EXISTS' })
    for (const nowhere of [scene.path('nix'), scene.path('plain'), scene.path('plain/x'), scene.directory])
      expect(await failure(kernel.open(nowhere))).toMatchObject({ code: 'ERR_NETNS_NOT_FOUND' })
    for (const stack of [made, again, bound, same]) stack.close()
    await kernel.remove(deep)
    await kernel.remove(deep)
    expect(existsSync(deep)).toBe(false)
  })

  test("the process's own", async () => {
    const own = await scene.kernel.open()
    expect(own.path).toBeUndefined()
    expect(own.inode).toBe(statSync('/proc/self/ns/net').ino)
    own.close()
  })

  test('nftables in more namespaces than there are low descriptors', async () => {
    const first = await scene.kernel.create(scene.path('first'))
    first.nft('add table ip t') // libnftables is loaded, as every controller has it
    const many = Array.from({ length: 1100 }, () => openSync('/dev/null', 'r'))
    const boxes = await Promise.all(
      Array.from({ length: 8 }, (_, n) => scene.kernel.create(scene.path(`low${n}`))),
    )
    try {
      for (const round of ['one', 'two'])
        for (const [n, box] of boxes.entries()) {
          box.nft(`add table ip ${round}${n}`)
          first.nft(`add table ip ${round}${n}`)
        }
      for (const [n, box] of boxes.entries())
        expect(box.nft('list tables')).toBe(`table ip one${n}\ntable ip two${n}\n`)
      expect(first.nft('list tables').split('\n')).toHaveLength(1 + 16 + 1)
    } finally {
      for (const fd of many) closeSync(fd)
      for (const box of [first, ...boxes]) box.close()
    }
  })

  test('closed: at once for those who ask anew, when they are done for those under way; descriptors once', async () => {
    const before = readdirSync('/proc/self/fd').length
    const box = await scene.kernel.create(scene.path('box'))
    const under = Promise.all([box.links(), box.apply([bridge('br0')]), box.link('br0')])
    box.watch(['link', 'nft'], () => {})
    box.nft('add table ip t')
    box.close()
    box.close()
    expect((await under)[2]).toMatchObject({ name: 'br0' })
    for (const act of [() => box.links(), () => box.apply([]), () => box.flushConntrack([])])
      expect(await failure(act())).toMatchObject({ code: 'ERR_CLOSED' })
    for (const act of [
      () => box.sysctl('net/ipv4/ip_forward'),
      () => box.nft('list ruleset'),
      () => box.run(() => 1),
      () => box.watch(['link'], () => {}),
      () => box.openSocket({ type: 'udp', address: '127.0.0.1', port: 1 }),
    ])
      expect(act).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
    await until(() => readdirSync('/proc/self/fd').length <= before, 'the descriptors')
  })

  test('a stack of another kernel is refused', async () => {
    const foreign = { path: '/nix', inode: 1 } as Stack
    expect(await failure(scene.kernel.transact([{ stack: foreign, changes: [] }]))).toMatchObject({
      code: 'ERR_INTERNAL',
    })
  })
})
