/**
 * Questions a second and latencies of the resolver in a sandbox, beside aardvark-dns, dnsmasq and the least that a server
 * of Node can do; all in one namespace, asked by one load program one after the other. Each server has one core, the load program
 * the other, so `busy` near 100 % means that the server was the limit; where it was not, `at a full core` says what it could do.
 */
import { join } from 'node:path'
import { openNames, openResolver } from '../../lib/dns/resolver'
import type { ListenMode } from '../../lib/dns/contract'
import { Asker, type Load, type Shape } from './dns/load'
import { installed, Place } from './dns/place'
import { aardvark, CONTAINERS, type Contestant, dnsmasq, echo, ours, upstream } from './dns/servers'

const SECONDS = 3
const MILLION = 1_000_000

const CONTAINER_NAMES = Array.from({ length: CONTAINERS }, (_, i) => `c${i}`)
const CACHED = Array.from({ length: CONTAINERS }, (_, i) => `known${i}.out.test`)
/** The load program counts the digits up. */
const FRESH = (run: number) => [`r${run}n00000000.out.test`]
/** One client that asks much, and many that ask a little: 32 and 256 questions outstanding in all. */
const SHAPES: Shape[] = [
  { clients: 1, window: 32 },
  { clients: 64, window: 4 },
]

export async function run(): Promise<void> {
  for (const program of ['gcc', 'dig', 'dnsmasq'])
    if (!(await installed(program)))
      throw new Error(`${program} is needed: apt-get install gcc bind9-dnsutils dnsmasq-base aardvark-dns`)
  const place = await Place.open()
  const asker = new Asker(place)
  try {
    await upstream(place)
    await opening(place)
    const makers: (() => Promise<Contestant | undefined>)[] = [
      () => echo(place),
      () => ours(place, 'redirect'),
      () => ours(place, 'direct'),
      () => aardvark(place),
      () => dnsmasq(place),
    ]
    for (const shape of SHAPES) {
      const { clients, window } = shape
      console.log(
        `\ncontainer names, ${clients === 1 ? '1 client' : `${clients} clients`}, ${window} questions each`,
      )
      const results = new Map<string, Load>()
      await each(makers, async contestant => {
        const result = await asker.load(contestant, CONTAINER_NAMES, { ...shape, seconds: SECONDS })
        results.set(contestant.name, result)
        print(contestant.name, result)
      })
      ratio(results, 'libcnm (redirect)', 'aardvark-dns')
      ratio(results, 'libcnm (redirect)', 'bare Node dgram echo')
      ratio(results, 'libcnm (redirect)', 'dnsmasq')
    }
    let fresh = 0
    for (const [what, questions] of [
      ['names of an upstream, asked before (cached by those that have a cache)', () => CACHED],
      ['names of an upstream, each new', () => FRESH(fresh++)],
    ] as const) {
      console.log(`\n${what}, 64 clients`)
      await each(makers.slice(1), async contestant => {
        print(
          contestant.name,
          await asker.load(contestant, questions(), { clients: 64, window: 4, seconds: 2, latency: false }),
        )
      })
    }
    await memory(place, asker)
  } finally {
    await place.close()
  }
}

async function each(
  makers: (() => Promise<Contestant | undefined>)[],
  body: (contestant: Contestant) => Promise<void>,
): Promise<void> {
  for (const make of makers) {
    const contestant = await make()
    if (!contestant) continue
    try {
      await body(contestant)
    } finally {
      await contestant.close()
    }
  }
}

/** What a join pays. */
async function opening(place: Place): Promise<void> {
  const names = openNames()
  const view = {
    sandboxId: 'bench',
    networks: [],
    links: {},
    upstreams: [],
    searchDomains: [],
    ndotsFromUser: false,
    external: true,
  }
  const folder = join(place.directory, 'fresh')
  for (const mode of ['redirect', 'direct'] satisfies ListenMode[]) {
    const times: number[] = []
    for (let i = 0; i < 60; i++) {
      const path = join(folder, `${mode}${i}`)
      const stack = await place.kernel.create(path)
      const start = performance.now()
      const resolver = await openResolver({ names, stack, host: place.stack, view, mode })
      times.push(performance.now() - start)
      await resolver.close({ keepRules: true })
      stack.close()
      await place.kernel.remove(path)
    }
    times.sort((a, b) => a - b)
    console.log(`opening a resolver in a new sandbox (${mode}): median ${times[30]?.toFixed(3)} ms`)
  }
}

async function memory(place: Place, asker: Asker): Promise<void> {
  const contestant = await ours(place, 'redirect')
  try {
    await asker.many(contestant.address, [...CONTAINER_NAMES, ...CACHED], 100_000) // warm
    const before = process.memoryUsage.rss()
    await asker.many(contestant.address, [...CONTAINER_NAMES, ...CACHED], MILLION)
    const after = process.memoryUsage.rss()
    const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1)
    console.log(`\nmemory over a million questions: ${mib(before)} MiB before, ${mib(after)} MiB after`)
  } finally {
    await contestant.close()
  }
}

function print(name: string, { perSecond, cpu, busy, lost, p50, p99 }: Load): void {
  const latency = Number.isNaN(p50)
    ? ''
    : `   at half that: p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms`
  console.log(
    `  ${name.padEnd(22)} ${count(perSecond)} /s, ${(busy * 100).toFixed(0).padStart(3)} % busy, ${cpu.toFixed(1).padStart(5)} us each: ${count(perCore(cpu))} /s at a full core${latency}${lost ? `   lost ${lost}` : ''}`,
  )
}

const count = (n: number) => Math.round(n).toLocaleString('en').padStart(9)
const perCore = (cpu: number) => 1e6 / cpu

function ratio(results: Map<string, Load>, ours: string, other: string): void {
  const a = results.get(ours)
  const b = results.get(other)
  if (a && b)
    console.log(
      `  ${ours} / ${other}: ${(b.cpu / a.cpu).toFixed(2)} per core of server (as measured: ${(a.perSecond / b.perSecond).toFixed(2)})`,
    )
}
