/** The controlling process is killed and another takes over: containers do not notice. */
import { readdirSync, readlinkSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type { Stack } from 'libcnm'
import { resolverAnswers } from '../../../lib/dns/probe'
import { hostForEach, stackOf, UPLINK } from '../../support/host'
import { Daemon } from './scene'

const host = hostForEach()

/** Sends numbers for as long as it runs, and hears each of them come back. */
class Stream {
  sent = 0
  heard = ''
  closed = false
  private readonly socket: Socket
  private readonly timer: NodeJS.Timeout

  constructor(from: Stack, address: string, port: number) {
    const fd = from.openSocket({ type: 'tcp', address: '0.0.0.0', port: 0 })
    this.socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
    this.socket.on('data', data => {
      this.heard += data.toString()
    })
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.closed = true
    })
    this.socket.connect({ host: address, port })
    this.timer = setInterval(() => this.socket.write(`${this.sent++} `), 5) // milliseconds
  }

  /** Waits until everything sent up to now has come back; false if the stream is broken. */
  async whole(): Promise<boolean> {
    const wanted = Array.from({ length: this.sent }, (_, n) => `${n} `).join('')
    for (let turn = 0; turn < 500 && !this.closed && this.heard.length < wanted.length; turn++)
      await pause(10)
    return !this.closed && this.sent > 0 && this.heard.startsWith(wanted)
  }

  end(): void {
    clearInterval(this.timer)
    this.socket.destroy()
  }
}

async function echo(stack: Stack, port: number): Promise<Server> {
  const server = createServer(socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  const fd = stack.openSocket({ type: 'tcp', address: '0.0.0.0', port, listen: 16 })
  await new Promise<void>(resolve => server.listen({ fd }, resolve))
  return server
}

test('a stream through a published port lives through kill -9, the time without a controller, and the restart', async () => {
  const h = host()
  const options = {
    name: 'survivor',
    host: h.path,
    runDir: h.runDir,
    dataDir: h.dataDir,
    userlandProxy: false,
  }
  const daemon = await Daemon.start({ options, subnet: '10.77.1.0/24', ports: ['8080:80'] })
  const inside = await h.kernel.open(daemon.key)
  const server = await echo(inside, 80)
  const stream = new Stream(h.client, UPLINK[4], 8080)
  try {
    await pause(50)
    expect(await stream.whole()).toBe(true)
    expect(await resolverAnswers(inside)).toBe(true)
    const links = (await h.snapshot()).links
    await daemon.kill()
    await pause(50)
    expect(await stream.whole()).toBe(true)
    expect(await resolverAnswers(inside)).toBe(false)
    // a new connection gets through as well: the kernel does it alone
    const second = new Stream(h.client, UPLINK[4], 8080)
    await pause(50)
    expect(await second.whole()).toBe(true)

    const controller = await h.open(options)
    expect(await stream.whole()).toBe(true)
    expect(await second.whole()).toBe(true)
    second.end()
    expect(await resolverAnswers(inside)).toBe(true)
    expect((await h.snapshot()).links).toEqual(links)
    expect(controller.sandbox('c1').resolveName('api')).toEqual(['10.77.1.2'])
    expect(await controller.check()).toEqual([])

    // repair, gc and another start, all of them on a running system
    expect(await controller.repair()).toEqual([])
    expect(await controller.gc({ containerIds: ['c1'] })).toEqual([])
    await controller.close()
    const last = await h.open(options)
    expect(await stream.whole()).toBe(true)
    await last.close({ remove: true })
  } finally {
    stream.end()
    server.close()
    inside.close()
  }
})

describe('each thing that somebody broke is found, named and mended on the real kernel', () => {
  type Break = (at: {
    h: ReturnType<typeof host>
    inside: Stack
    bridge: string
    port: string
    files: string
  }) => unknown
  const cases: [string, string, Break][] = [
    ['link', 'a bridge that is down', ({ h, bridge }) => h.run(h.host, 'ip', 'link', 'set', bridge, 'down')],
    ['link', 'a bridge', ({ h, bridge }) => h.run(h.host, 'ip', 'link', 'del', bridge)],
    ['link', 'an interface', ({ h, inside }) => h.run(inside, 'ip', 'link', 'del', 'eth0')],
    ['address', 'an address', ({ h, inside }) => h.run(inside, 'ip', 'addr', 'flush', 'dev', 'eth0')],
    ['route', 'a default route', ({ h, inside }) => h.run(inside, 'ip', 'route', 'del', 'default')],
    [
      'route',
      'the host’s way to a network',
      ({ h, bridge }) => h.run(h.host, 'ip', 'route', 'del', '10.77.1.0/24', 'dev', bridge),
    ],
    ['port', 'a port', ({ h, port }) => h.run(h.host, 'ip', 'link', 'set', port, 'nomaster')],
    [
      'sysctl',
      'a setting of the bridge',
      ({ h, bridge }) => h.host.setSysctls({ [`net/ipv6/conf/${bridge}/accept_ra`]: '1' }),
    ],
    [
      'sysctl',
      'a setting inside',
      ({ inside }) => inside.setSysctls({ 'net/ipv4/conf/eth0/log_martians': '0' }),
    ],
    ['sysctl', 'forwarding', ({ h }) => h.host.setSysctls({ 'net/ipv4/ip_forward': '0' })],
    // by this very process, as the change of any other would be healed before we can look
    ['firewall', 'the rules', ({ h }) => h.host.nft('delete table inet libcnm')],
    ['file', 'a file', ({ h, files }) => h.run(h.host, 'rm', files)],
    ['resolver', 'the way to the resolver', ({ h, inside }) => h.run(inside, 'nft', 'flush', 'ruleset')],
    ['netns', 'the path of a namespace', ({ h, inside }) => h.kernel.remove(inside.path as string)],
  ]

  test.each(cases)('%s: %s', async (kind, _, breakIt) => {
    const h = host()
    const controller = await h.open()
    const network = await controller.createNetwork({
      name: 'web',
      ipam: { config: [{ subnet: '10.77.1.0/24' }] },
    })
    const sandbox = await controller.createSandbox({ containerId: 'c1' })
    const endpoint = await network.createEndpoint({ name: 'c1' })
    await endpoint.join(sandbox, { sysctls: { 'net.ipv4.conf.IFNAME.log_martians': '1' } })
    expect(await controller.check()).toEqual([])
    const inside = await h.kernel.open(sandbox.key)
    try {
      await breakIt({
        h,
        inside,
        bridge: network.link as string,
        port: endpoint.record.join?.attachment?.interface?.source as string,
        files: sandbox.files?.hosts as string,
      })
      const found = await controller.check()
      expect(found.map(each => each.kind)).toContain(kind)
      expect(found[0]).toEqual({
        ...found[0],
        message: expect.any(String),
        fix: { ...found[0]?.fix, by: expect.any(String) },
      })
      await controller.repair()
      expect(await controller.check()).toEqual([])
      expect(await controller.repair()).toEqual([])
      if (kind !== 'netns') expect(await h.ping(stackOf(sandbox), '10.77.1.1')).toBe(true)
    } finally {
      inside.close()
      await controller.close({ remove: true })
    }
  })
})

describe('the kernel tells what somebody takes away, and a `drift` event names it', () => {
  test.each<[string, RegExp, (h: ReturnType<typeof host>, bridge: string, inside: Stack) => unknown]>([
    [
      'a link',
      /bridge br-\w+ of network web is gone/,
      (h, bridge) => h.run(h.host, 'ip', 'link', 'del', bridge),
    ],
    ['a link that goes down', /is down/, (h, bridge) => h.run(h.host, 'ip', 'link', 'set', bridge, 'down')],
    [
      'an address',
      /lacks its address 10\.77\.1\.1\/24/,
      (h, bridge) => h.run(h.host, 'ip', 'address', 'flush', 'dev', bridge),
    ],
    [
      'a route',
      /lacks its route to 10\.77\.1\.0\/24/,
      (h, bridge) => h.run(h.host, 'ip', 'route', 'flush', 'dev', bridge),
    ],
    [
      'an interface inside',
      /eth0 of sandbox c1 .* is gone/,
      (h, _, inside) => h.run(inside, 'ip', 'link', 'del', 'eth0'),
    ],
    [
      'an interface inside that goes down',
      /eth0 of sandbox c1 is down/,
      (h, _, inside) => h.run(inside, 'ip', 'link', 'set', 'eth0', 'down'),
    ],
    [
      'an address inside',
      /eth0 of sandbox c1 lacks 10\.77\.1\.2\/24/,
      (h, _, inside) => h.run(inside, 'ip', 'address', 'flush', 'dev', 'eth0'),
    ],
    [
      'a route inside',
      /sandbox c1 lacks its route to 10\.78\.0\.0\/16/,
      (h, _, inside) => h.run(inside, 'ip', 'route', 'del', '10.78.0.0/16'),
    ],
    [
      'the way out inside',
      /sandbox c1 lacks its default route via 10\.77\.1\.1/,
      (h, _, inside) => h.run(inside, 'ip', 'route', 'del', 'default'),
    ],
  ])('%s', async (_, message, take) => {
    const h = host()
    const controller = await h.open()
    const network = await controller.createNetwork({
      name: 'web',
      ipam: { config: [{ subnet: '10.77.1.0/24' }] },
    })
    const sandbox = await controller.createSandbox({ containerId: 'c1' })
    // With a port, so that the firewall has set something on the bridge, which a new one lacks.
    const endpoint = await network.createEndpoint({ name: 'c1', ports: ['8080:80'] })
    await endpoint.join(sandbox, { routes: [{ destination: '10.78.0.0/16', gateway: '10.77.1.9' }] })
    const told: string[] = []
    controller.on('drift', ({ differences }) => told.push(...differences.map(each => each.message)))
    for (let turn = 0; turn < 20; turn++) await pause(10) // the last of our own changes come by
    expect(told).toEqual([])
    take(h, network.link as string, stackOf(sandbox))
    for (let turn = 0; turn < 500 && told.length === 0; turn++) await pause(10)
    expect(told.join('\n')).toMatch(message)
    await controller.repair()
    expect(await controller.check()).toEqual([])
    expect(await h.ping(stackOf(sandbox), '10.77.1.1')).toBe(true)
    await controller.close({ remove: true })
  })
})

describe('drift inside sandboxes', () => {
  /** Sockets and namespaces; what Node and modules open once for all is neither. */
  const descriptors = () =>
    readdirSync('/proc/self/fd').filter(fd => {
      try {
        return /^(socket|net):/.test(readlinkSync(`/proc/self/fd/${fd}`))
      } catch {
        return false // that of the folder
      }
    }).length

  test('restored ones and those without a pair of links are heard; what is a container’s own is not; one descriptor more or less for all', async () => {
    const h = host()
    const lan = {
      driver: 'macvlan',
      options: { parent: 'uplink' },
      ipam: { config: [{ subnet: '198.51.100.0/24' }] },
    }
    const before = descriptors()
    let controller = await h.open({ dataDir: h.dataDir })
    const open = descriptors()
    await controller.createNetwork({ name: 'w', ipam: { config: [{ subnet: '10.77.1.0/24' }] } })
    await controller.createNetwork({ name: 'm', ...lan })
    const join = async (name: string, n: number) => {
      const sandbox = await controller.createSandbox({ containerId: `${name}${n}`, resolver: false })
      await (await controller.network(name).createEndpoint({ name: `${name}${n}` })).join(sandbox)
      return sandbox
    }
    for (let n = 0; n < 4; n++) for (const name of ['w', 'm']) await join(name, n)
    await controller.sandbox('w3').delete()
    await controller.close()
    controller = await h.open({ dataDir: h.dataDir })
    await join('w', 3)
    const told: string[] = []
    controller.on('drift', ({ differences }) => told.push(...differences.map(each => each.message)))
    const own =
      'ip link add own0 type bridge; ip link set own0 up; ip addr add 10.9.0.1/24 dev own0; ip route add 10.8.0.0/16 via 10.9.0.2; ip route del 10.8.0.0/16; ip addr del 10.9.0.1/24 dev own0; ip link set own0 down; ip link del own0; ip addr add 10.77.1.77/24 dev eth0; ip addr del 10.77.1.77/24 dev eth0'
    h.run(stackOf(controller.sandbox('w0')), 'sh', '-ec', own)
    for (const name of ['w1', 'm1', 'w3', 'm0']) {
      const [address] = controller
        .sandbox(name)
        .endpoints()
        .map(({ ipv4 }) => ipv4 as string)
      // one that the kernel has not named yet is named within a moment
      for (let turn = 0; turn < 10; turn++) await pause(10)
      h.run(stackOf(controller.sandbox(name)), 'ip', 'address', 'del', address as string, 'dev', 'eth0')
      for (let turn = 0; turn < 500 && !told.some(each => each.includes(`${name} lacks ${address}`)); turn++)
        await pause(10)
      expect(told.join()).toContain(`eth0 of sandbox ${name} lacks ${address}`)
    }
    expect(told.filter(each => !/sandbox (w1|m1|w3|m0) lacks/.test(each))).toEqual([])
    await controller.repair()
    for (const sandbox of controller.sandboxes()) await sandbox.delete()
    await controller.settle()
    expect(descriptors()).toBeLessThanOrEqual(open)
    await controller.close({ remove: true })
    expect(descriptors()).toBeLessThanOrEqual(before)
  })

  test('a flood of losses and gains is heard to its end, at little cost', async () => {
    const h = host()
    const controller = await h.open()
    const web = await controller.createNetwork({
      name: 'web',
      ipam: { config: [{ subnet: '10.77.1.0/24' }] },
    })
    const sandbox = await controller.createSandbox({ containerId: 'c1', resolver: false })
    await (await web.createEndpoint({ name: 'c1' })).join(sandbox)
    const told: string[] = []
    controller.on('drift', ({ differences }) => told.push(...differences.map(each => each.message)))
    const inside = await h.kernel.open(sandbox.key)
    const change = (op: 'addAddress' | 'removeAddress') =>
      ({ op, link: 'eth0', address: '10.9.0.1/24' }) as const
    for (let n = 0; n < 100; n++)
      await inside.apply(
        Array.from({ length: 100 }, () => [change('addAddress'), change('removeAddress')]).flat(),
      )
    expect(told).toEqual([])
    await inside.apply([{ op: 'removeAddress', link: 'eth0', address: '10.77.1.2/24' }])
    for (let turn = 0; turn < 500 && told.length === 0; turn++) await pause(10)
    expect(told.join()).toMatch(/lacks 10\.77\.1\.2/)
    inside.close()
    await controller.close({ remove: true })
  })
})

describe('what a run without a store left', () => {
  const leave = async (dataDir?: string) => {
    const h = host()
    const daemon = await Daemon.start({
      options: { name: 'left', host: h.path, runDir: h.runDir, dataDir },
      subnet: '10.77.1.0/24',
      ports: ['8080:80'],
    })
    await daemon.kill()
    return h
  }

  test('is swept by the next one', async () => {
    const h = await leave()
    expect((await h.snapshot()).links.filter(line => /^(br-|veth)/.test(line))).toHaveLength(2)
    const controller = await h.open({ name: 'left' })
    await controller.settle()
    expect((await h.snapshot()).links.filter(line => /^(br-|veth)/.test(line))).toEqual([])
    expect(await h.kernel.list(`${h.runDir}/netns`)).toEqual([])
    await controller.close({ remove: true })
  })

  test('but not what a store remembers, when the controller is opened without it', async () => {
    const { dataDir } = host()
    const h = await leave(dataDir)
    const before = (await h.snapshot()).links
    const mistaken = await h.open({ name: 'left' })
    expect((await h.snapshot()).links).toEqual(before)
    await mistaken.close()
    const right = await h.open({ name: 'left', dataDir })
    expect(await right.check()).toEqual([])
    expect(right.sandboxes()).toHaveLength(1)
    await right.close({ remove: true })
    const empty = await h.open({ name: 'left', dataDir })
    expect([empty.networks(), empty.sandboxes()]).toEqual([[], []])
    await empty.close({ remove: true })
  })
})
