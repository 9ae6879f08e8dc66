/**
 * IPAM: pairs of allocate and release per second at any fill and size, choice of a pool, memory.
 * Rates are per second of processor time, so that what else runs on the machine counts little.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { addressOf, type Family, parseCidr } from '../../lib/base/cidr'
import { newId } from '../../lib/base/ids'
import { Allocator, SPACES } from '../../lib/ipam/allocator'
import type { Offset } from '../../lib/ipam/address-set'
import { POOL_OPTIONS } from '../../lib/ipam/contract'
import { DefaultIpamDriver } from '../../lib/ipam/default'
import { OwnerNames } from '../../lib/ipam/owners'
import { Pool, View } from '../../lib/ipam/pool'

const TARGET_PAIRS = 2e6
const TARGET_CHOICE_MS = 0.2
const TARGET_BYTES = 64 * 1024
/** Long enough for the collector to take its share, short enough to be left alone by other processes now and then. */
const PAIRS = 100_000
const ROUNDS = 12
const OWNERS = Array.from({ length: 1024 }, newId)

export async function run(): Promise<void> {
  memory() // first: what the others leave behind would be measured too
  pairs()
  await contract()
  choice()
  million()
}

const ratio = (got: number, target: number) => `${(got / target).toFixed(1)}x`
const line = (...cells: (string | number)[]) => {
  console.log(
    cells.map((cell, i) => (i === 0 ? String(cell).padEnd(44) : String(cell).padStart(15))).join(''),
  )
}
const millions = (n: number) => `${(n / 1e6).toFixed(2)} M/s`
/** The same on every run: xorshift32. */
function random(seed = 0x9e3779b9) {
  let state = seed
  return (below: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}
const ownerOf = (n: number): string => OWNERS[n & 1023] as string

/** Seconds of processor time, all threads: what else runs on the machine counts little that way. */
function processorTime(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/** Pairs per second of processor time, the best of some rounds. */
function best(work: () => void): number {
  let most = 0
  for (let round = 0; round < ROUNDS; round++) {
    const start = processorTime()
    work()
    most = Math.max(most, PAIRS / (processorTime() - start))
  }
  return most
}

/* ---------------------------------------------------------------- allocate + release */

interface Size {
  label: string
  pool: string
  subPool?: string
  family: Family
  /** log2 of the addresses. */
  bits: number
}

const SIZES: Size[] = [
  { label: '/24', pool: '10.0.0.0/24', family: 4, bits: 8 },
  { label: '/16', pool: '10.0.0.0/16', family: 4, bits: 16 },
  { label: '/8', pool: '10.0.0.0/8', family: 4, bits: 24 },
  // half of a /64 does not fit any machine: the fill is that of a range of 2^20 addresses in it
  { label: '/64, range of 2^20', pool: 'fd00::/64', subPool: 'fd00::7:0:0/108', family: 6, bits: 20 },
]

function pairs(): void {
  console.log(
    '\nallocate + release, pairs per second of one core (1,024 owners); target 2.00 M/s for the allocator',
  )
  console.log(
    'by offset: the allocator, random release; text: the driver, which also writes and reads each address',
  )
  line('pool and fill', 'by offset', 'text, same', 'text, random', 'text, serial', 'offset/target')
  for (const size of SIZES) {
    const allocator = new Allocator()
    const { id } = allocator.requestPool({
      space: SPACES.global,
      family: size.family,
      pool: size.pool,
      ...(size.subPool !== undefined && { subPool: size.subPool }),
    })
    const prefix = size.family === 4 ? '' : 'fd00::7:'
    const text = (n: number) =>
      size.family === 4
        ? `10.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`
        : `${prefix}${(n >>> 16).toString(16)}:${(n & 65535).toString(16)}`
    const pick = random()
    const capacity = 2 ** size.bits - 2
    const serial = serialRate(size)
    measure(allocator, id, `${size.label} empty`, [], serial, poolRate(size, 0))

    // Fill all, then let go of addresses at random: the holes are where they hurt, all over.
    for (let n = 1; n <= capacity; n++)
      allocator.requestAddress(id, { address: text(n), owner: ownerOf(n), purpose: 'endpoint' })
    let kept = new Uint8Array(capacity + 1).fill(1)
    for (const [label, percent] of [
      ['99 %', 1],
      ['half full', 49],
    ] as const) {
      const next = new Uint8Array(capacity + 1)
      const mine: { address: string; owner: string }[] = []
      for (let n = 1; n <= capacity; n++) {
        if (kept[n] === 0) continue
        if (pick(100) < percent) allocator.releaseAddress(id, text(n), ownerOf(n))
        else if (mine.length < 4096 && pick(capacity) < 8192)
          mine.push({ address: text(n), owner: ownerOf(n) })
        else next[n] = 1
      }
      kept = next // without those that are about to move
      measure(allocator, id, `${size.label} ${label}`, mine, serial, poolRate(size, percent === 1 ? 99 : 50))
    }
  }
  const naive = naiveRate()
  line('for scale: a Map, searched, /16 99 %', `${Math.round(naive)} /s`)
}

/** `mine`: some of the addresses held, to release in random order. */
function measure(
  allocator: Allocator,
  id: string,
  label: string,
  mine: { address: string; owner: string }[],
  serial: number,
  offsets: number,
): void {
  const same = best(() => {
    for (let i = 0; i < PAIRS; i++) {
      const owner = ownerOf(i)
      const { address } = allocator.requestAddress(id, { owner, purpose: 'endpoint' })
      allocator.releaseAddress(id, address, owner)
    }
  })
  const pick = random(7)
  const scattered =
    mine.length === 0
      ? same
      : best(() => {
          for (let i = 0; i < PAIRS; i++) {
            const entry = mine[pick(mine.length)] as { address: string; owner: string }
            allocator.releaseAddress(id, entry.address, entry.owner)
            entry.owner = ownerOf(i)
            entry.address = allocator.requestAddress(id, { owner: entry.owner, purpose: 'endpoint' }).address
          }
        })
  const empty = mine.length === 0
  line(
    label,
    millions(offsets),
    millions(same),
    empty ? '' : millions(scattered),
    empty ? millions(serial) : '',
    ratio(offsets, TARGET_PAIRS),
  )
}

/** Each address in turn: every pair touches another leaf sooner or later. */
function serialRate(size: Size): number {
  const allocator = new Allocator()
  const { id } = allocator.requestPool({
    space: SPACES.global,
    family: size.family,
    pool: size.pool,
    options: { [POOL_OPTIONS.serial]: 'true' },
  })
  return best(() => {
    for (let i = 0; i < PAIRS; i++) {
      const owner = ownerOf(i)
      const { address } = allocator.requestAddress(id, { owner, purpose: 'endpoint' })
      allocator.releaseAddress(id, address, owner)
    }
  })
}

/** Without text: the allocator itself, by offsets, full to `percent`; its addresses in a random order. */
function poolRate(size: Size, percent: number): number {
  const owners = new OwnerNames()
  const pool = new Pool(parseCidr(size.pool), owners)
  const range = size.subPool === undefined ? undefined : parseCidr(size.subPool)
  const settings = { serial: false, quarantine: 0, sticky: false, staticRanges: [] }
  const view = new View(pool, size.pool, range, settings, () => 0)
  const first = Number(pool.numbering.span(range ?? pool.cidr).first) + 1
  const pick = random()
  const mine: { at: Offset; owner: string }[] = []
  for (let n = first; n < first + 2 ** size.bits - 2; n++)
    if (pick(100) < percent) {
      pool.addresses.take(n, owners.hold(ownerOf(n)))
      if (mine.length < 4096 && pick(2 ** size.bits) < 8192) mine.push({ at: n, owner: ownerOf(n) })
    }
  return best(() => {
    for (let i = 0; i < PAIRS; i++) {
      const entry = mine[pick(mine.length)] ?? { at: 0, owner: '' }
      if (mine.length > 0) view.releaseAt(entry.at, entry.owner)
      entry.owner = ownerOf(i)
      entry.at = view.allocate({ owner: entry.owner, purpose: 'endpoint' }).at
      if (mine.length === 0) view.releaseAt(entry.at, entry.owner)
    }
  })
}

/** What one would write first. */
function naiveRate(): number {
  const taken = new Map<number, string>()
  for (let n = 0; n < 65_536 * 0.99; n++) taken.set(n, 'x')
  const start = performance.now()
  const count = 100
  for (let i = 0; i < count; i++) {
    let n = 0
    while (taken.has(n)) n++
    taken.set(n, 'x')
    taken.delete(n)
  }
  return count / ((performance.now() - start) / 1000)
}

async function contract(): Promise<void> {
  const driver = new DefaultIpamDriver()
  const { id } = await driver.requestPool({ space: SPACES.local, family: 4 })
  let most = 0
  for (let round = 0; round < ROUNDS; round++) {
    const start = processorTime()
    for (let i = 0; i < PAIRS; i++) {
      const owner = ownerOf(i)
      const { address } = await driver.requestAddress(id, { owner, purpose: 'endpoint' })
      await driver.releaseAddress(id, address, owner)
    }
    most = Math.max(most, PAIRS / (processorTime() - start))
  }
  line('through promises, /16 empty', '', millions(most), '', '', ratio(most, TARGET_PAIRS))
}

/* ---------------------------------------------------------------- choice of a pool */

function choice(): void {
  console.log('\nchoice of a dynamic pool (request and release), ms; target 0.2 ms with 30,000 taken')
  line('pools taken', 'median', 'p99', 'in a gap', '100 excluded', 'target/median')
  for (const taken of [0, 1000, 30_000]) {
    const allocator = new Allocator()
    const ids: string[] = []
    const request = { space: SPACES.global, family: 4 as const }
    for (let i = 0; i < taken; i++) ids.push(allocator.requestPool(request).id)
    const plain = times(() => {
      allocator.releasePool(allocator.requestPool(request).id)
    })
    // the 100 lowest free ones, each apart from the next, so that every one has to be stepped over
    const exclude = Array.from({ length: 100 }, (_, i) => taken + 2 * i).map(
      n => `10.${n >> 8}.${n & 255}.0/25`,
    )
    const excluded = times(() => {
      allocator.releasePool(allocator.requestPool({ ...request, exclude }).id)
    })
    let gap = plain
    if (taken > 0) {
      const pick = random()
      for (let i = 0; i < taken / 10; i++) {
        const [id] = ids.splice(pick(ids.length), 1)
        allocator.releasePool(id as string)
      }
      gap = times(() => {
        allocator.releasePool(allocator.requestPool(request).id)
      })
    }
    const ms = (value: number) => value.toFixed(4)
    line(
      taken,
      ms(plain.median),
      ms(plain.p99),
      ms(gap.median),
      ms(excluded.median),
      ratio(TARGET_CHOICE_MS, plain.median),
    )
  }
}

function times(work: () => void): { median: number; p99: number } {
  const list = new Float64Array(2000)
  for (let i = 0; i < 500; i++) work()
  for (let i = 0; i < list.length; i++) {
    const start = performance.now()
    work()
    list[i] = performance.now() - start
  }
  list.sort()
  return { median: list[1000] as number, p99: list[1980] as number }
}

/* ---------------------------------------------------------------- memory */

function memory(): void {
  console.log('\nmemory of a full pool; target: a full /16 in under 64 KB')
  console.log('both: the pool itself; process: and the table of owner ids, which all pools share')
  line('pool', 'bitmap', 'owners', 'both', 'process', 'target/both')
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const total = () => {
    gc()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  const kb = (bytes: number) => `${(bytes / 1024).toFixed(1)} KB`
  for (const [length, distinct, shuffled] of [
    [16, false, false],
    [16, true, false],
    [16, true, true],
    [12, false, false],
    [12, true, false],
    [12, true, true],
  ] as const) {
    const count = 2 ** (32 - length) - 2
    // the ids belong to the core, which has them anyway: they are made before the measurement begins
    const owners = distinct ? Array.from({ length: count }, newId) : OWNERS
    const allocator = new Allocator()
    const { id } = allocator.requestPool({ space: SPACES.global, family: 4, pool: `172.16.0.0/${length}` })
    const before = total()
    for (let i = 0; i < count; i++)
      allocator.requestAddress(id, { owner: owners[i % owners.length] as string, purpose: 'endpoint' })
    if (shuffled) shuffle(allocator, id, owners)
    const used = total() - before
    const { bits, owners: held } = allocator.memory(id)
    line(
      `/${length}, ${distinct ? 'each its own owner' : '1,024 owners'}, ${shuffled ? 'any order' : 'in a row'}`,
      kb(bits),
      kb(held),
      kb(bits + held),
      kb(used),
      length === 16 ? ratio(TARGET_BYTES, bits + held) : '',
    )
  }
  for (const pool of ['fd00::/64', '10.0.0.0/30']) {
    const allocator = new Allocator()
    const family = pool.includes(':') ? 6 : 4
    const { id } = allocator.requestPool({ space: SPACES.global, family, pool })
    const { bits, owners } = allocator.memory(id)
    line(`${pool}, empty`, kb(bits), kb(owners), kb(bits + owners))
  }
}

/** Every address changes its owner, in random order. */
function shuffle(allocator: Allocator, id: string, owners: readonly string[]): void {
  const held = allocator.holdings(id)
  const pick = random()
  for (let i = held.length - 1; i > 0; i--) {
    const j = pick(i + 1)
    const swapped = held[i] as (typeof held)[number]
    held[i] = held[j] as (typeof held)[number]
    held[j] = swapped
  }
  for (const { address, owner } of held) allocator.releaseAddress(id, address, owner)
  held.forEach(({ address }, i) => {
    allocator.requestAddress(id, { address, owner: owners[i] as string, purpose: 'endpoint' })
  })
}

/* ---------------------------------------------------------------- a million operations, each one checked */

function million(): void {
  const allocator = new Allocator()
  const space = SPACES.global
  const ids = [
    allocator.requestPool({ space, family: 4, pool: '10.0.0.0/16' }).id,
    allocator.requestPool({
      space,
      family: 4,
      pool: '10.1.0.0/16',
      options: { [POOL_OPTIONS.serial]: 'true' },
    }).id,
    allocator.requestPool({ space, family: 4, pool: '10.2.0.0/16', subPool: '10.2.8.0/21' }).id,
    allocator.requestPool({ space, family: 6, pool: 'fd00::/64' }).id,
  ]
  const empty = ids.map(id => allocator.status(id).inUse)
  const pick = random()
  const held: { id: string; address: string; owner: string }[] = []
  const known = new Set<string>()
  const count = 1_000_000
  let duplicates = 0
  const start = performance.now()
  for (let i = 0; i < count; i++) {
    if (pick(100) < 52 || held.length === 0) {
      const id = ids[pick(ids.length)] as string
      const owner = ownerOf(i)
      try {
        const address = addressOf(allocator.requestAddress(id, { owner, purpose: 'endpoint' }).address)
        if (known.has(address)) duplicates++
        known.add(address)
        held.push({ id, address, owner })
      } catch {
        // the /21 is full now and then
      }
    } else {
      const at = pick(held.length)
      const gone = held[at] as (typeof held)[number]
      held[at] = held[held.length - 1] as (typeof held)[number]
      held.pop()
      known.delete(gone.address)
      allocator.releaseAddress(gone.id, gone.address, gone.owner)
    }
  }
  const seconds = (performance.now() - start) / 1000
  const kept = held.length
  const lost = allocator.holdings().length - kept
  for (const { id, address, owner } of held) allocator.releaseAddress(id, address, owner)
  const clean = ids.every((id, i) => allocator.status(id).inUse === empty[i])
  console.log(
    `\n${count.toLocaleString('en')} random operations in ${seconds.toFixed(2)} s, ${kept.toLocaleString('en')} held at the end: ` +
      `${duplicates} duplicates, ${lost} lost, ${clean ? 'empty' : 'NOT EMPTY'} after release of all`,
  )
  if (duplicates > 0 || lost !== 0 || !clean) process.exitCode = 1
}
