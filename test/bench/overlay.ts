/**
 * Overlay networks on real hosts (namespaces) with a real etcd: traffic beside VXLAN made by hand with `ip` on the same
 * hosts in the same run, requests by a virtual IP beside direct ones, the time that a join takes, and how long until all hosts know. `npm run bench -- overlay [HOSTS]`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import type { Stack } from 'libcnm'
import { Underlay, until } from '../support/underlay'

const ROUNDS = 9
/** Milliseconds of one measurement. */
const LONG = 800

export async function run(): Promise<void> {
  const hosts = Number(process.argv[3] ?? 20)
  const net = await Underlay.build(hosts, { dataDir: undefined, lease: 15 })
  const servers: ChildProcess[] = []
  try {
    const began = performance.now()
    await net.host(1).controller.createNetwork({ name: 'web', driver: 'overlay' })
    await net.everywhere('web')
    console.log(
      `${hosts} hosts, etcd on loopback; a network is known on all after ${ms(performance.now() - began)}`,
    )
    await traffic(net, servers)
    await joins(net)
  } finally {
    for (const server of servers) server.kill('SIGKILL')
    for (const { stack } of net.hosts.slice(0, 2))
      for (const link of ['handv', 'handvx', 'hand'])
        await stack.apply([{ op: 'removeLink', link, ifExists: true }])
    await net.clear()
    await net.close()
  }
}

async function traffic(net: Underlay, servers: ChildProcess[]): Promise<void> {
  const program = join(net.directory, 'stream')
  const source = join(__dirname, '../../../test/bench/overlay/stream.c')
  const compiled = spawnSync('gcc', ['-O2', '-o', program, source], { encoding: 'utf8' })
  if (compiled.status !== 0) throw new Error(`gcc: ${compiled.stderr}`)
  const [one, two] = [
    await net.container(net.host(1), 'web', 'one'),
    await net.container(net.host(2), 'web', 'two'),
  ]
  await until(() => one.sandbox.resolveName('two').length > 0, 'two is known')
  const plain = await byHand(net)
  const ways = [
    { what: 'overlay', from: one.stack, to: two.stack, address: two.ipv4 },
    { what: 'by hand', from: plain.from, to: plain.to, address: plain.address },
    { what: 'underlay', from: net.host(1).stack, to: net.host(2).stack, address: net.host(2).address },
  ]
  for (const { to } of ways) servers.push(await serve(to, program))
  const rates: Series[] = ways.map(() => ({ push: [], echo: [] }))
  // In turn, and each round in another order, so that what disturbs the machine disturbs all alike.
  for (let round = 0; round < ROUNDS; round++)
    for (let at = 0; at < ways.length; at++) {
      const which = (at + round) % ways.length
      const { from, address } = ways[which] as (typeof ways)[number]
      for (const kind of ['push', 'echo'] as const)
        rates[which]?.[kind].push(await measure(from, program, kind, address))
    }
  const [overlay, hand, bare] = rates as [Series, Series, Series]
  console.log(
    '\nTCP between two hosts        throughput        one byte there and back      (best of rounds)',
  )
  for (const [what, { push, echo }] of [
    ['overlay network', overlay],
    ['VXLAN by hand (ip)', hand],
    ['underlay, no tunnel', bare],
  ] as const)
    console.log(
      `${what.padEnd(24)} ${((Math.max(...push) * 8) / 1e9).toFixed(2).padStart(8)} Gbit/s ${(1e6 / Math.max(...echo)).toFixed(1).padStart(14)} us`,
    )
  // Neighbours in time are compared: what else the machine does weighs on both.
  const ratios = (a: number[], b: number[]) => a.map((each, round) => each / (b[round] as number))
  const tell = (list: number[]) =>
    `${median(list).toFixed(3)} (${Math.min(...list).toFixed(2)} to ${Math.max(...list).toFixed(2)})`
  console.log(
    `overlay / by hand, of each round: throughput ${tell(ratios(overlay.push, hand.push))}, round trip ${tell(ratios(hand.echo, overlay.echo))}; medians of ${ROUNDS}\n`,
  )
  await calls(net, servers, program)
  await one.sandbox.delete()
  await two.sandbox.delete()
}

/** A request on a connection of its own, to a task of a service on another host: by the virtual IP, and directly. */
async function calls(net: Underlay, servers: ChildProcess[], program: string): Promise<void> {
  const service = await net.host(1).controller.createService({
    name: 'api',
    network: 'web',
    ports: [{ port: 80, targetPort: 5001 }],
  })
  const views = () => net.hosts.flatMap(({ controller }) => controller.services())
  await until(() => views().length === net.hosts.length, 'the service is known')
  const task = await net.container(net.host(2), 'web', 'task', { service: 'api' })
  const client = await net.container(net.host(1), 'web', 'client')
  servers.push(await serve(task.stack, program))
  await until(() => views().every(each => each.tasks().length === 1), 'its task is known')
  const virtual: number[] = []
  const direct: number[] = []
  for (let round = 0; round < ROUNDS; round++)
    for (const way of round % 2 ? (['virtual', 'direct'] as const) : (['direct', 'virtual'] as const))
      if (way === 'direct') direct.push(await measure(client.stack, program, 'call', task.ipv4, 5001))
      else virtual.push(await measure(client.stack, program, 'call', service.ipv4 as string, 80))
  const ratios = virtual.map((each, round) => each / (direct[round] as number))
  console.log(
    `requests a second, each on a connection of its own: by the virtual IP ${median(virtual).toFixed(0)}, directly ${median(direct).toFixed(0)}; ratio of each round ${median(ratios).toFixed(3)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})\n`,
  )
  await client.sandbox.delete()
  await task.sandbox.delete()
  await service.delete()
}

interface Series {
  push: number[]
  echo: number[]
}

/** What the manual of iproute2 would have one do: a bridge, a VXLAN device, a veth pair; static entries, no learning. */
async function byHand(net: Underlay): Promise<{ from: Stack; to: Stack; address: string }> {
  const ends = await Promise.all([net.base.namespace('hand1'), net.base.namespace('hand2')])
  const mac = (n: number) => `02:00:00:00:99:0${n}`
  for (const n of [1, 2]) {
    const [host, inside] = [net.host(n).stack, ends[n - 1] as Stack]
    const ip = (...words: string[]) => net.base.run(host, 'ip', ...words)
    ip('link', 'add', 'hand', 'type', 'bridge')
    ip(...'link add handvx type vxlan id 99 dstport 4790 nolearning local'.split(' '), net.host(n).address)
    ip(...'link set handvx mtu 1450 master hand up'.split(' '))
    ip(
      ...'link add handv mtu 1450 type veth peer name eth0 mtu 1450 address'.split(' '),
      mac(n),
      'netns',
      inside.path as string,
    )
    ip(...'link set handv master hand up'.split(' '))
    ip(...'link set hand up'.split(' '))
    net.base.run(host, 'bridge', 'fdb', 'append', mac(3 - n), 'dev', 'handvx', 'dst', net.host(3 - n).address)
    net.base.run(inside, 'ip', 'address', 'add', `10.99.0.${n}/24`, 'dev', 'eth0')
    net.base.run(inside, 'ip', 'link', 'set', 'eth0', 'up')
    net.base.run(inside, 'ip', 'neigh', 'add', `10.99.0.${3 - n}`, 'lladdr', mac(3 - n), 'dev', 'eth0')
  }
  return { from: ends[0] as Stack, to: ends[1] as Stack, address: '10.99.0.2' }
}

async function serve(where: Stack, program: string): Promise<ChildProcess> {
  const child = where.run(() => spawn(program, ['serve', '5001'], { stdio: ['ignore', 'pipe', 'inherit'] }))
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve())
    child.once('exit', code => reject(new Error(`the server ended with ${code}`)))
  })
  return child
}

async function measure(
  from: Stack,
  program: string,
  kind: string,
  address: string,
  port = 5001,
): Promise<number> {
  const child = from.run(() =>
    spawn(program, [kind, address, String(port), String(LONG)], { stdio: ['ignore', 'pipe', 'inherit'] }),
  )
  let text = ''
  child.stdout.on('data', data => {
    text += String(data)
  })
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', code => (code === 0 ? resolve() : reject(new Error(`${kind} ended with ${code}`))))
  })
  return Number(text)
}

/** Endpoints that join one after the other, on each host in turn: what a join takes, and when the last host knows. */
async function joins(net: Underlay): Promise<void> {
  await net.host(1).controller.createNetwork({ name: 'local' })
  const watchers = await Promise.all(net.hosts.map(host => net.container(host, 'web', `watch${host.number}`)))
  const taken: Record<'create' | 'join' | 'known' | 'leave' | 'local', number[]> = {
    create: [],
    join: [],
    known: [],
    leave: [],
    local: [],
  }
  const timed = async <T>(into: number[], body: () => Promise<T>): Promise<T> => {
    const began = performance.now()
    const result = await body()
    into.push(performance.now() - began)
    return result
  }
  for (let n = 0; n < 100; n++) {
    const { controller } = net.host((n % net.hosts.length) + 1)
    const sandbox = await controller.createSandbox({ containerId: `join${n}` })
    const endpoint = await timed(taken.create, () =>
      controller.network('web').createEndpoint({ name: `join${n}` }),
    )
    await timed(taken.join, () => endpoint.join(sandbox))
    await timed(taken.known, async () => {
      while (!watchers.every(watcher => watcher.sandbox.resolveName(`join${n}`).length))
        await new Promise(resolve => setImmediate(resolve))
    })
    await timed(taken.leave, () => endpoint.leave())
    await endpoint.delete()
    await sandbox.delete()
    const first = net.host(1).controller
    const near = await first.createSandbox({ containerId: `near${n}` })
    await timed(taken.local, async () =>
      (await first.network('local').createEndpoint({ name: `near${n}` })).join(near),
    )
    await near.delete()
  }
  console.log('milliseconds                                   p50       p99')
  const row = (what: string, times: number[]) =>
    console.log(
      `${what.padEnd(42)} ${quantile(times, 0.5).toFixed(2).padStart(8)}  ${quantile(times, 0.99).toFixed(2).padStart(8)}`,
    )
  row('createEndpoint on the overlay (claims)', taken.create)
  row('join (interface, way out, published)', taken.join)
  row(`known on all ${net.hosts.length} hosts, after the join`, taken.known)
  row('leave', taken.leave)
  row('for scale: create and join, bridge network', taken.local)
  for (const { sandbox } of watchers) await sandbox.delete()
}

const quantile = (list: number[], q: number): number =>
  [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * q))] as number
const median = (list: number[]): number => quantile(list, 0.5)
const ms = (time: number) => `${time.toFixed(1)} ms`
