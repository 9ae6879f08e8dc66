import type { Stack } from '../../../lib/kernel/kernel'
import { MockKernel } from '../../../lib/testing'

const bridge = (name: string) => ({ op: 'addLink', link: { kind: 'bridge', name } }) as const
const code = (expected: string, more: object = {}) => expect.objectContaining({ code: expected, ...more })
const errno = (expected: string) =>
  code('ERR_KERNEL', { details: expect.objectContaining({ errno: expected }) })

describe('the machine', () => {
  test('the process has a namespace with lo, eth0 and a default route', async () => {
    const host = await new MockKernel().open()
    expect(host.path).toBeUndefined()
    expect((await host.links()).map(({ name, up, carrier, kind }) => ({ name, up, carrier, kind }))).toEqual([
      { name: 'lo', up: true, carrier: true, kind: undefined },
      { name: 'eth0', up: true, carrier: true, kind: undefined },
    ])
    expect(await host.routeTo('198.51.100.1')).toMatchObject({ gateway: '192.0.2.1', link: 2 })
    await expect(host.apply([{ op: 'removeLink', link: 'eth0' }])).rejects.toThrow(errno('EOPNOTSUPP'))
  })

  test('its cards can be chosen, and further machines made', async () => {
    const kernel = new MockKernel({
      hardware: [
        {
          name: 'ens3',
          mtu: 1450,
          mac: '02:00:00:00:00:07',
          addresses: ['10.0.0.2/24', 'fd00::2/64'],
          gateways: ['fd00::1'],
        },
      ],
    })
    const host = await kernel.open()
    expect(await host.link('ens3')).toMatchObject({ mtu: 1450, mac: '02:00:00:00:00:07' })
    expect(await host.routeTo('2001:db8::1')).toMatchObject({ gateway: 'fd00::1' })
    kernel.createHost('/run/hosts/b')
    const other = await kernel.open('/run/hosts/b')
    expect((await other.addresses()).map(a => a.address)).toContain('192.0.2.10/24')
    expect(await kernel.list('/run/hosts')).toEqual(['/run/hosts/b'])
  })

  test('another process brings a namespace, which ends with it', async () => {
    const kernel = new MockKernel()
    const container = kernel.spawn()
    const stack = await kernel.bind(container.path, '/run/cnm/ns/1')
    expect((await kernel.open(container.path)).inode).toBe(stack.inode)
    container.exit()
    await expect(kernel.open(container.path)).rejects.toThrow(code('ERR_NETNS_NOT_FOUND'))
    expect((await kernel.open('/run/cnm/ns/1')).inode).toBe(stack.inode)
  })

  test('it can lack kinds, IPv6 and modules', async () => {
    const kernel = new MockKernel({ lacks: ['ipvlan', 'ipv6', 'sctp', 'br_netfilter'] })
    const host = await kernel.open()
    await expect(
      host.apply([{ op: 'addLink', link: { kind: 'ipvlan', name: 'i', parent: 'eth0', mode: 'l2' } }]),
    ).rejects.toThrow(code('ERR_UNSUPPORTED'))
    await expect(host.apply([{ op: 'addAddress', link: 'eth0', address: 'fd00::1/64' }])).rejects.toThrow(
      errno('EOPNOTSUPP'),
    )
    expect(host.sysctl('net/ipv6/conf/all/disable_ipv6')).toBeUndefined()
    expect(host.sysctl('net/bridge/bridge-nf-call-iptables')).toBeUndefined()
    expect(() => host.openSocket({ type: 'sctp', address: '0.0.0.0', port: 1 })).toThrow(
      errno('EPROTONOSUPPORT'),
    )
    expect(() => host.openSocket({ type: 'tcp', address: '::', port: 1 })).toThrow(errno('EAFNOSUPPORT'))
    const whole = await new MockKernel().open()
    expect(whole.sysctl('net/bridge/bridge-nf-call-iptables')).toBe('1')
    whole.closeFd(whole.openSocket({ type: 'sctp', address: '0.0.0.0', port: 1 }))
  })

  test('without privilege nothing can be changed, everything can be read', async () => {
    const kernel = new MockKernel({ privileged: false })
    const host = await kernel.open()
    const denied = code('ERR_PRIVILEGE')
    await expect(kernel.create('/run/netns/a')).rejects.toThrow(denied)
    await expect(host.apply([bridge('br0')])).rejects.toThrow(denied)
    expect(() => host.setSysctls({ 'net/ipv4/ip_forward': '1' })).toThrow(denied)
    expect(() => host.nft('list ruleset')).toThrow(denied)
    expect(await host.links()).toHaveLength(2)
  })

  test('old kernels do not rename a link that is up', async () => {
    const host = await new MockKernel({ liveRename: false }).open()
    await expect(host.apply([{ op: 'setLink', link: 'eth0', rename: 'e' }])).rejects.toThrow(errno('EBUSY'))
    await host.apply([{ op: 'setLink', link: 'eth0', up: false }])
    await host.apply([{ op: 'setLink', link: 'eth0', rename: 'e' }])
  })

  test('a model of another kernel is refused', async () => {
    const stack = await new MockKernel().open()
    await expect(new MockKernel().transact([{ stack, changes: [bridge('b')] }])).rejects.toThrow(
      code('ERR_INTERNAL'),
    )
  })

  test('latency', async () => {
    const kernel = new MockKernel({ latencyMs: 30 })
    const start = performance.now()
    const host = await kernel.open()
    await host.links()
    expect(performance.now() - start).toBeGreaterThan(50)
  })
})

describe('faults', () => {
  const names = async (host: Stack) => (await host.links()).map(link => link.name)

  test('by number, each change of a transaction being one call', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    expect(kernel.calls).toBe(1)
    kernel.failAt(3, 'ENOMEM')
    await expect(host.apply([bridge('a'), bridge('b'), bridge('c')])).rejects.toMatchObject({
      code: 'ERR_KERNEL',
      details: { step: 0, change: 1, errno: 'ENOMEM', op: 'addLink' },
    })
    expect(await names(host)).toEqual(['lo', 'eth0', 'a', 'c'])
    expect(kernel.calls).toBe(5)
  })

  test('the next of an operation, several times, by predicate', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    kernel.failNext('EBUSY', 'addAddress')
    await expect(
      host.apply([bridge('a'), { op: 'addAddress', link: 'a', address: '10.0.0.1/24' }]),
    ).rejects.toThrow(errno('EBUSY'))
    await host.apply([{ op: 'addAddress', link: 'a', address: '10.0.0.1/24' }])
    kernel.failAt(call => call.op === 'links', 'EIO', 2)
    await expect(host.links()).rejects.toThrow(errno('EIO'))
    await expect(host.links()).rejects.toThrow(errno('EIO'))
    await host.links()
    kernel.failNext()
    kernel.clearFaults()
    await host.links()
  })

  test('of calls that change nothing in the journal of links', async () => {
    const kernel = new MockKernel()
    kernel.failNext('EMFILE')
    await expect(kernel.open()).rejects.toThrow(errno('EMFILE'))
    const host = await kernel.open()
    kernel.failNext('EPERM', 'create')
    await expect(kernel.create('/run/netns/a')).rejects.toThrow(code('ERR_PRIVILEGE'))
    expect(await kernel.list('/run/netns')).toEqual([])
    for (const act of [
      () => host.openSocket({ type: 'udp', address: '0.0.0.0', port: 53 }),
      () => host.setSysctls({ 'net/ipv4/ip_forward': '1' }),
      () => host.nft('flush ruleset'),
      () => host.watch(['link'], () => undefined),
      () => host.run(() => 1),
    ]) {
      kernel.failNext('ENOMEM')
      expect(act).toThrow(errno('ENOMEM'))
    }
    expect(kernel.netns()).toMatchObject({ sockets: [], sysctls: {}, transactions: [] })
  })

  test('an errno that there is none of', async () => {
    const kernel = new MockKernel()
    kernel.failNext('ENONSENSE')
    await expect(kernel.open()).rejects.toThrow('ENONSENSE is no errno')
  })
})

describe('journal', () => {
  test('every call as data, with what was refused', async () => {
    const kernel = new MockKernel()
    const inner = await kernel.create('/run/netns/a')
    const host = await kernel.open()
    await host
      .apply([
        { op: 'addLink', link: { kind: 'veth', name: 'v', peer: { name: 'eth0', netns: inner } } },
        bridge('v'),
      ])
      .catch(() => undefined)
    expect(kernel.journal).toEqual([
      { n: 1, op: 'create', netns: undefined, details: { path: '/run/netns/a' } },
      { n: 2, op: 'open', netns: undefined, details: { path: undefined } },
      {
        n: 3,
        op: 'addLink',
        netns: undefined,
        details: {
          op: 'addLink',
          link: { kind: 'veth', name: 'v', peer: { name: 'eth0', netns: '/run/netns/a' } },
        },
      },
      { n: 4, op: 'addLink', netns: undefined, details: bridge('v'), error: 'EEXIST' },
    ])
  })
})

describe('snapshot', () => {
  test('equal when the state is, whatever happened between', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    const before = kernel.snapshot()
    const inner = await kernel.create('/run/netns/a')
    host.setSysctls({ 'net/ipv4/ip_forward': '1' })
    const fd = host.openSocket({ type: 'udp', address: '0.0.0.0', port: 53 })
    await host.apply([
      bridge('br0'),
      {
        op: 'addLink',
        link: {
          kind: 'veth',
          name: 'v',
          master: 'br0',
          up: true,
          peer: { name: 'eth0', netns: inner, up: true },
        },
      },
      { op: 'addAddress', link: 'br0', address: '10.0.0.1/24' },
      { op: 'setNeighbour', link: 'br0', address: '10.0.0.2', mac: '02:00:00:00:00:02' },
      { op: 'setFdb', link: 'v', mac: '02:00:00:00:00:02' },
      { op: 'setShaper', link: 'v', rate: { bitsPerSecond: 1000 } },
      { op: 'addRule', rule: { family: 4, priority: 9, table: 9 } },
    ])
    const between = kernel.snapshot()
    expect(between).not.toEqual(before)
    expect(between.namespaces.map(netns => netns.name)).toEqual(['/run/netns/a', 'own'])
    expect(between.namespaces[1]).toMatchObject({
      addresses: expect.arrayContaining([{ link: 'br0', address: '10.0.0.1/24', scope: 'global' }]),
      neighbours: [{ link: 'br0', address: '10.0.0.2', mac: '02:00:00:00:00:02' }],
      fdb: [{ link: 'v', mac: '02:00:00:00:00:02', self: false }],
      sockets: [{ type: 'udp', address: '0.0.0.0', port: 53 }],
      sysctls: { 'net/ipv4/ip_forward': '1' },
      rules: [{ family: 4, priority: 9, table: 9 }],
    })
    expect(kernel.netns()?.links.find(link => link.name === 'v')).toMatchObject({
      master: 'br0',
      peer: '/run/netns/a: eth0',
      shaper: { bitsPerSecond: 1000 },
    })
    expect(JSON.parse(JSON.stringify(between))).toEqual(between)
    host.closeFd(fd)
    host.setSysctls({ 'net/ipv4/ip_forward': '0' })
    await host.apply([
      { op: 'removeRule', rule: { family: 4, priority: 9, table: 9 } },
      { op: 'removeLink', link: 'br0' },
    ])
    inner.close()
    await kernel.remove('/run/netns/a')
    expect(kernel.snapshot()).toEqual(before)
  })

  test('a namespace of which only a handle is left is shown', async () => {
    const kernel = new MockKernel()
    const inner = await kernel.create('/run/netns/a')
    await kernel.remove('/run/netns/a')
    expect(kernel.snapshot().namespaces.map(netns => netns.name)).toEqual(['anonymous', 'own'])
    expect(kernel.openStacks()).toEqual(['/run/netns/a'])
    inner.close()
    expect(kernel.snapshot().namespaces.map(netns => netns.name)).toEqual(['own'])
    expect(kernel.netns('/run/netns/a')).toBeUndefined()
  })
})

describe('crash and reboot', () => {
  const scene = async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    const inner = await kernel.create('/run/netns/a')
    await host.apply([
      { op: 'addLink', link: { kind: 'veth', name: 'v', peer: { name: 'eth0', netns: inner } } },
    ])
    const fd = host.openSocket({ type: 'tcp', address: '0.0.0.0', port: 80, listen: 1 })
    return { kernel, host, inner, fd }
  }

  test('kill closes what the process had, and keeps what the kernel has', async () => {
    const { kernel, host, fd } = await scene()
    const unbound = await kernel.create('/run/netns/b')
    await host.apply([
      { op: 'addLink', link: { kind: 'veth', name: 'w', peer: { name: 'eth0', netns: unbound } } },
    ])
    await kernel.remove('/run/netns/b')
    kernel.kill()
    await expect(host.links()).rejects.toThrow(code('ERR_CLOSED'))
    expect(kernel.openStacks()).toEqual([])
    const again = await kernel.open()
    expect((await again.links()).map(link => link.name)).toEqual(['lo', 'eth0', 'v'])
    expect(kernel.netns()?.sockets).toEqual([])
    expect(() => again.closeFd(fd)).toThrow(errno('EBADF'))
    expect(await kernel.list('/run/netns')).toEqual(['/run/netns/a'])
  })

  test('reboot leaves only the hardware', async () => {
    const { kernel } = await scene()
    const fresh = new MockKernel().snapshot()
    kernel.reboot()
    expect(await kernel.list('/run/netns')).toEqual([])
    expect(kernel.snapshot().namespaces.map(n => n.name)).toEqual(['own'])
    const plain = (snapshot: typeof fresh) =>
      snapshot.namespaces.map(({ links, routes }) => ({ links: links.map(l => l.name), routes }))
    expect(plain(kernel.snapshot())).toEqual(plain(fresh))
  })
})

describe('sockets, firewall, connections', () => {
  test('an ephemeral port is one that is free', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    host.openSocket({ type: 'udp', address: '0.0.0.0', port: 0 })
    host.openSocket({ type: 'udp', address: '0.0.0.0', port: 0 })
    expect(kernel.netns()?.sockets.map(s => s.port)).toEqual([32768, 32769])
  })

  test('a descriptor is closed once', async () => {
    const host = await new MockKernel().open()
    const fd = host.openSocket({ type: 'udp', address: '127.0.0.1', port: 53 })
    expect(fd).toBeGreaterThanOrEqual(1_000_000)
    host.closeFd(fd)
    expect(() => host.closeFd(fd)).toThrow(errno('EBADF'))
  })

  test('nftables text is kept, or handed to a model', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    expect(host.nft('add table inet a')).toBe('')
    expect(kernel.netns()?.transactions).toEqual(['add table inet a'])
    expect(kernel.netns()).not.toHaveProperty('nft')
    const echo = await new MockKernel({ nft: (_, commands) => commands.toUpperCase() }).open()
    expect(echo.nft('list')).toBe('LIST')
    const tables = new Set<string>()
    const modelled = new MockKernel({
      nft: { run: (_, text) => (tables.add(text), ''), snapshot: () => [...tables] },
    })
    ;(await modelled.open()).nft('t1')
    expect(modelled.netns()?.nft).toEqual(['t1'])
  })

  test('connections are flushed by filter', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    const entries = kernel.netns()?.conntrack
    entries?.push(
      { family: 4, protocol: 'tcp', destinationPort: 80, replySource: '10.0.0.2' },
      { family: 4, protocol: 'udp', destinationPort: 80, replySource: '10.0.0.2' },
      { family: 4, protocol: 'udp', destinationPort: 53, replySource: '10.0.0.3' },
    )
    expect(
      await host.flushConntrack([
        { family: 4, protocol: 'tcp' },
        { family: 4, replySource: '10.0.0.3' },
      ]),
    ).toBe(2)
    expect(entries).toEqual([{ family: 4, protocol: 'udp', destinationPort: 80, replySource: '10.0.0.2' }])
    expect(await host.flushConntrack([])).toBe(0)
  })
})

describe('events', () => {
  test('come after the call, in order, and stop at close', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    const seen: string[] = []
    host.watch(['link', 'nft', 'rule', 'neighbour'], event =>
      seen.push(`${event.topic} ${'change' in event ? event.change : ''}`),
    )
    host.nft('flush ruleset')
    expect(seen).toEqual([])
    await host.apply([
      { op: 'addRule', rule: { family: 4, priority: 9, table: 9 } },
      { op: 'removeRule', rule: { family: 4, priority: 9, table: 9 } },
      { op: 'setNeighbour', link: 'eth0', address: '192.0.2.9', mac: '02:00:00:00:00:02' },
      { op: 'removeNeighbour', link: 'eth0', address: '192.0.2.9', mac: '02:00:00:00:00:02' },
    ])
    await kernel.settle()
    expect(seen).toEqual(['nft set', 'rule set', 'rule removed', 'neighbour set', 'neighbour removed'])
    host.close()
    await (await kernel.open()).apply([bridge('b')])
    await kernel.settle()
    expect(seen).toHaveLength(5)
  })

  test('an address with duplicate address detection is tentative for a while', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    await host.apply([{ op: 'addAddress', link: 'eth0', address: 'fd00::1/64', dad: true }])
    const tentative = () =>
      host.addresses().then(all => all.find(address => address.address === 'fd00::1/64')?.tentative)
    expect(await tentative()).toBe(true)
    await kernel.settle()
    expect(await tentative()).toBe(false)
  })
})

describe('shaping and mirroring', () => {
  test('are kept by link, and go with the target', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    await host.apply([
      { op: 'addLink', link: { kind: 'ifb', name: 'ifb0', up: true } },
      { op: 'setIngressMirror', link: 'eth0', target: 'ifb0' },
      { op: 'setShaper', link: 'eth0', rate: { bitsPerSecond: 1e6 } },
    ])
    const eth0 = () => kernel.netns()?.links.find(link => link.name === 'eth0')
    expect(eth0()).toMatchObject({ ingressMirror: 'ifb0', shaper: { bitsPerSecond: 1e6 } })
    await host.apply([
      { op: 'removeLink', link: 'ifb0' },
      { op: 'setShaper', link: 'eth0', rate: null },
    ])
    expect(eth0()).not.toHaveProperty('ingressMirror')
    expect(eth0()).not.toHaveProperty('shaper')
  })
})
