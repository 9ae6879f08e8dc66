/**
 * What publishing costs, and what a published port costs the packets: ours beside iptables per rule, iptables-restore and
 * `nft -f`, in the same run, in namespaces of their own. Milliseconds are medians unless said otherwise.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import type { Firewall, FirewallNetwork, Mapping } from '../../lib/firewall/contract'
import { openFirewall } from '../../lib/firewall/select'
import type { Stack } from '../../lib/kernel/kernel'
import { LinuxKernel } from '../../lib/kernel/linux'

/** Milliseconds after a whole table was loaded: the kernel tears the old one down in the background, and its events arrive. */
const SETTLE = 400
/** Repetitions of what takes less than a millisecond, and of what starts a process. */
const MANY = 200
const FEW = 9

const networkOf = (i: number): FirewallNetwork => ({
  id: `n${i}`,
  link: i === 0 ? 'br0' : `br-${i}`,
  internal: false,
  icc: true,
  trustedLinks: [],
  families: [{ family: 4, subnets: [`10.${100 + (i >> 8)}.${i & 255}.0/24`], mode: 'nat', masquerade: true }],
})

const CONTAINER = '10.100.0.2'
const mapping = (hostPort: number, size = 1): Mapping => ({
  networkId: 'n0',
  endpointId: 'e0',
  protocol: 'tcp',
  hostIp: '0.0.0.0',
  hostPort,
  hostPortEnd: hostPort + size - 1,
  containerIp: CONTAINER,
  // A range keeps its numbers; a single port need not.
  containerPort: size > 1 ? hostPort : 80,
})
const ports = (count: number, from = 20_000): Mapping[] =>
  Array.from({ length: count }, (_, i) => mapping(from + i))

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? 0
}

/** Milliseconds of each of two acts that undo each other. Turns of the event loop in between: ffi's garbage goes then. */
async function pair(
  times: number,
  first: () => Promise<void>,
  second: () => Promise<void>,
): Promise<[number, number]> {
  const [forth, back]: [number[], number[]] = [[], []]
  for (let i = 0; i < times; i++) {
    const started = performance.now()
    await first()
    const middle = performance.now()
    await second()
    forth.push(middle - started)
    back.push(performance.now() - middle)
    await turn()
  }
  return [median(forth), median(back)]
}

const show = (ms: number): string => (ms < 10 ? ms.toFixed(3) : ms.toFixed(1)).padStart(8)
const line = (what: string, [add, remove]: [number, number], note = ''): void =>
  console.log(`  ${what.padEnd(46)} publish ${show(add)} ms   unpublish ${show(remove)} ms  ${note}`)

function exec(stack: Stack, program: string, parameters: string[], input = ''): void {
  const { status, stderr, error } = stack.run(() =>
    spawnSync(program, parameters, { input, encoding: 'utf8' }),
  )
  if (error ?? status !== 0) throw error ?? new Error(`${program} ${parameters.join(' ')}: ${stderr}`)
}

export async function run(): Promise<void> {
  const kernel = new LinuxKernel()
  const directory = mkdtempSync(join(tmpdir(), 'bench-firewall-'))
  const stacks: Stack[] = []
  // The firewall's own timers and watches do not keep a process alive.
  const alive = setInterval(() => {}, 1000)
  const create = async (name: string) => {
    const stack = await kernel.create(join(directory, name))
    stacks.push(stack)
    return stack
  }
  try {
    await publishing(await create('rules'))
    await beside(await create('beside'))
    await healing(await create('healing'))
    await packets(create)
  } finally {
    clearInterval(alive)
    for (const stack of stacks) {
      stack.close()
      if (stack.path) await kernel.remove(stack.path)
    }
    rmSync(directory, { recursive: true, force: true })
  }
}

async function publishing(stack: Stack): Promise<void> {
  console.log('publish through Firewall.apply (nftables in process; one transaction each)')
  const firewall = openFirewall({ backend: 'nftables', stack, ipForward: true })
  await firewall.start()
  const single = new Map<string, [number, number]>()
  for (const [networks, mappings] of [
    [1, 0],
    [1, 1000],
    [1, 10_000],
    [100, 0],
    [1000, 0],
    [1000, 10_000],
    [1, 0],
  ] as const) {
    await firewall.reset({
      addNetworks: Array.from({ length: networks }, (_, i) => networkOf(i)),
      addMappings: ports(mappings),
    })
    await sleep(SETTLE)
    const measured = await pair(
      MANY,
      () => firewall.apply({ addMappings: [mapping(8080)] }),
      () => firewall.apply({ removeMappings: [mapping(8080)] }),
    )
    single.set(`${networks} ${mappings}`, measured)
    line(`1 port, ${mappings} mappings, ${networks} networks`, measured)
    const hundred = ports(100, 9000)
    line(
      `100 ports, ${mappings} mappings, ${networks} networks`,
      await pair(
        FEW,
        () => firewall.apply({ addMappings: hundred }),
        () => firewall.apply({ removeMappings: hundred }),
      ),
    )
    const range = mapping(40_000, 10_000)
    const ranged = await pair(
      FEW * 5,
      () => firewall.apply({ addMappings: [range] }),
      () => firewall.apply({ removeMappings: [range] }),
    )
    line(
      `a range of 10,000, ${mappings} mappings, ${networks} networks`,
      ranged,
      `(${(ranged[0] / measured[0]).toFixed(2)} and ${(ranged[1] / measured[1]).toFixed(2)} times one port)`,
    )
  }
  const shifted = { ...mapping(40_000, 10_000), containerPort: 20_000 }
  line(
    'a range of 10,000 to other ports (written out)',
    await pair(
      3,
      () => firewall.apply({ addMappings: [shifted] }),
      () => firewall.apply({ removeMappings: [shifted] }),
    ),
  )
  const of = (key: string): number => single.get(key)?.reduce((a, b) => a + b, 0) ?? 0
  console.log(
    `  publish and unpublish at 10,000 mappings / at 0: ${(of('1 10000') / of('1 0')).toFixed(2)}; at 1,000 networks / at 1: ${(of('1000 0') / of('1 0')).toFixed(2)}`,
  )
  await firewall.stop({ remove: true })
}

/** The same change by the means of the peers. */
async function beside(stack: Stack): Promise<void> {
  console.log('the same by other means')
  for (const count of [0, 1000, 10_000]) {
    const rules = Array.from(
      { length: count },
      (_, i) => `-A DOCKER -p tcp -m tcp --dport ${20_000 + i} -j DNAT --to-destination ${CONTAINER}:80\n`,
    )
    exec(stack, 'iptables-restore', [], `*nat\n:DOCKER - [0:0]\n${rules.join('')}COMMIT\n`)
    const rule = [
      'DOCKER',
      '-p',
      'tcp',
      '-m',
      'tcp',
      '--dport',
      '8080',
      '-j',
      'DNAT',
      '--to-destination',
      `${CONTAINER}:80`,
    ]
    const filter = ['FORWARD', '-d', CONTAINER, '-p', 'tcp', '--dport', '80', '-j', 'ACCEPT']
    const iptables = (verb: string) => async () => {
      exec(stack, 'iptables', ['-t', 'nat', verb, ...rule])
      exec(stack, 'iptables', [verb, ...filter])
    }
    line(`iptables, one process per rule, at ${count} rules`, await pair(FEW, iptables('-A'), iptables('-D')))
    const restore = (verb: string) => async () =>
      exec(
        stack,
        'iptables-restore',
        ['--noflush'],
        `*nat\n${verb} ${rule.join(' ')}\nCOMMIT\n*filter\n${verb} ${filter.join(' ')}\nCOMMIT\n`,
      )
    line(`iptables-restore --noflush, at ${count} rules`, await pair(FEW, restore('-A'), restore('-D')))
    exec(stack, 'iptables-restore', [], '*nat\nCOMMIT\n*filter\nCOMMIT\n')
    const elements = Array.from({ length: count }, (_, i) => `tcp . ${20_000 + i} : ${CONTAINER} . 80`)
    exec(
      stack,
      'nft',
      ['-f', '-'],
      `table inet peer {\n map ports { type inet_proto . inet_service : ipv4_addr . inet_service\n ${count ? `elements = { ${elements.join(', ')} }\n` : ''} }\n}\n`,
    )
    const nft = (verb: string) => async () =>
      exec(stack, 'nft', ['-f', '-'], `${verb} element inet peer ports { tcp . 8080 : ${CONTAINER} . 80 }\n`)
    line(`nft -f, one map element, at ${count} elements`, await pair(FEW, nft('add'), nft('delete')))
    exec(stack, 'nft', ['delete', 'table', 'inet', 'peer'])
  }
}

async function healing(stack: Stack): Promise<void> {
  console.log('self-healing: from the return of "nft flush ruleset" to the event that all is back')
  for (const [backend, count] of [
    ['nftables', 10],
    ['nftables', 1000],
    ['nftables', 10_000],
    ['iptables', 10],
    ['iptables', 1000],
  ] as const) {
    // A new one each time: repairs in quick succession are slowed down on purpose.
    const firewall = openFirewall({ backend, stack, ipForward: true })
    let wake = (): void => {}
    firewall.onProblem((_, repaired) => repaired && wake())
    await firewall.start()
    await firewall.reset({ addNetworks: [networkOf(0)], addMappings: ports(count) })
    const times: number[] = []
    for (let i = 0; i < 5; i++) {
      await sleep(SETTLE)
      const healed = new Promise<void>(resolve => {
        wake = resolve
      })
      exec(stack, 'nft', ['flush', 'ruleset'])
      const started = performance.now()
      await healed
      times.push(performance.now() - started)
    }
    console.log(`  ${backend} ${String(count).padStart(6)} mappings: ${median(times).toFixed(0)} ms`)
    await firewall.stop({ remove: true })
  }
}

/** A client on one side, a container on the other: connections through one published port, the last of many. */
async function packets(create: (name: string) => Promise<Stack>): Promise<void> {
  console.log('packet path: TCP connections through a published port, the last of N')
  const [host, client, container] = [await create('host'), await create('client'), await create('container')]
  await host.apply([
    { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true, mac: '02:00:00:00:00:01' } },
    {
      op: 'addLink',
      link: { kind: 'veth', name: 'v0', master: 'br0', up: true, peer: { name: 'eth0', netns: container } },
    },
    { op: 'addLink', link: { kind: 'veth', name: 'lan0', up: true, peer: { name: 'eth0', netns: client } } },
    { op: 'addAddress', link: 'br0', address: '10.100.0.1/24' },
    { op: 'addAddress', link: 'lan0', address: '192.168.77.1/24' },
  ])
  for (const [stack, address, gateway] of [
    [container, `${CONTAINER}/24`, '10.100.0.1'],
    [client, '192.168.77.2/24', '192.168.77.1'],
  ] as const)
    await stack.apply([
      { op: 'setLink', link: 'eth0', up: true },
      { op: 'addAddress', link: 'eth0', address },
      { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway, link: 'eth0' } },
    ])
  host.setSysctls({ 'net/ipv4/ip_forward': '1' })
  const server: Server = createServer(socket => socket.on('error', () => {}).end('.'))
  const fd = container.openSocket({ type: 'tcp', address: '0.0.0.0', port: 80, listen: 1024 })
  await new Promise<void>(resolve => server.listen({ fd }, resolve))
  try {
    const baseline = new Map<string, number>()
    for (const count of [1, 1000, 10_000]) {
      const port = 20_000 + count - 1
      const ours: Firewall = openFirewall({ backend: 'nftables', stack: host, ipForward: true })
      await ours.start()
      await ours.reset({ addNetworks: [networkOf(0)], addMappings: ports(count) })
      await report('libcnm', count, client, port, baseline)
      await ours.stop({ remove: true })
      const rules = Array.from(
        { length: count },
        (_, i) => `-A DOCKER -p tcp -m tcp --dport ${20_000 + i} -j DNAT --to-destination ${CONTAINER}:80\n`,
      )
      exec(
        host,
        'iptables-restore',
        [],
        `*nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n${rules.join('')}COMMIT\n`,
      )
      await report('iptables, a rule per port', count, client, port, baseline)
      exec(host, 'iptables-restore', [], '*nat\nCOMMIT\n')
    }
  } finally {
    await new Promise(resolve => server.close(resolve))
  }
}

async function report(
  what: string,
  count: number,
  client: Stack,
  port: number,
  baseline: Map<string, number>,
): Promise<void> {
  await connections(client, port, 1000)
  const { perSecond, latency } = await connections(client, port, 3000)
  const first = baseline.get(what) ?? perSecond
  baseline.set(what, first)
  console.log(
    `  ${what.padEnd(28)} ${String(count).padStart(6)} mappings ${perSecond.toFixed(0).padStart(7)} connections/s, ${(latency * 1000).toFixed(0).padStart(5)} us to connect (median), ${(perSecond / first).toFixed(2)} of that with 1`,
  )
}

/** One after the other: what differs is the way of the first packet. */
async function connections(
  client: Stack,
  port: number,
  count: number,
): Promise<{ perSecond: number; latency: number }> {
  const latencies: number[] = []
  const started = performance.now()
  for (let i = 0; i < count; i++) {
    const fd = client.openSocket({ type: 'tcp', address: '192.168.77.2', port: 0 })
    const socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
    const begin = performance.now()
    await new Promise<void>((resolve, reject) => {
      socket.on('error', reject)
      socket.on('connect', () => {
        latencies.push(performance.now() - begin)
        socket.resume()
      })
      socket.on('close', () => resolve())
      socket.connect({ host: '192.168.77.1', port })
    })
  }
  return { perSecond: (count / (performance.now() - started)) * 1000, latency: median(latencies) }
}
