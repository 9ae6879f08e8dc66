/**
 * Questions a second and latencies of the resolver in a sandbox, beside aardvark-dns, dnsmasq and the least that a server
 * of Node can do; all in one namespace, asked by dnsperf one after the other.
 */
import { join } from 'node:path'
import { openNames, openResolver } from '../../lib/dns/resolver'
import type { ListenMode } from '../../lib/dns/contract'
import { type Load, load, many } from './dns/load'
import { installed, Place } from './dns/place'
import { aardvark, CONTAINERS, type Contestant, dnsmasq, echo, ours, upstream } from './dns/servers'

const SECONDS = 3
const MILLION = 1_000_000

const CONTAINER_NAMES = Array.from({ length: CONTAINERS }, (_, i) => `c${i} A`)
const CACHED = Array.from({ length: CONTAINERS }, (_, i) => `known${i}.out.test A`)
/** More than can be asked in the time: each is new. */
const FRESH = (run: number) => Array.from({ length: 300_000 }, (_, i) => `r${run}n${i}.out.test A`)

export async function run(): Promise<void> {
  for (const program of ['dnsperf', 'dig', 'dnsmasq'])
    if (!(await installed(program)))
      throw new Error(
        `${program} is needed: apt-get install dnsperf bind9-dnsutils dnsmasq-base aardvark-dns`,
      )
  const place = await Place.open()
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
    for (const clients of [1, 64]) {
      console.log(`\ncontainer names, ${clients === 1 ? '1 client' : `${clients} clients`}`)
      const results = new Map<string, Load>()
      await each(makers, async contestant => {
        const result = await load(place, contestant, CONTAINER_NAMES, { clients, seconds: SECONDS })
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
          await load(place, contestant, questions(), { clients: 64, seconds: 2, latency: false }),
        )
      })
    }
    await memory(place)
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

async function memory(place: Place): Promise<void> {
  const contestant = await ours(place, 'redirect')
  try {
    await many(place, contestant.address, [...CONTAINER_NAMES, ...CACHED], 500) // warm
    const before = process.memoryUsage.rss()
    await many(place, contestant.address, [...CONTAINER_NAMES, ...CACHED], MILLION / (CONTAINERS * 2))
    const after = process.memoryUsage.rss()
    const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1)
    console.log(`\nmemory over a million questions: ${mib(before)} MiB before, ${mib(after)} MiB after`)
  } finally {
    await contestant.close()
  }
}

function print(name: string, { perSecond, cpu, lost, p50, p99 }: Load): void {
  const latency = Number.isNaN(p50)
    ? ''
    : `   at half that: p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms`
  console.log(
    `  ${name.padEnd(22)} ${Math.round(perSecond).toLocaleString('en').padStart(9)} /s ${cpu.toFixed(1).padStart(6)} us of processor${latency}${lost ? `   lost ${lost}` : ''}`,
  )
}

function ratio(results: Map<string, Load>, ours: string, other: string): void {
  const a = results.get(ours)
  const b = results.get(other)
  if (a && b)
    console.log(
      `  ${ours} / ${other}: ${(a.perSecond / b.perSecond).toFixed(2)} (by processor time: ${(b.cpu / a.cpu).toFixed(2)})`,
    )
}
