/** The allocator against a naive model: lists and linear search. Seeds are fast-check's; a failure prints its own. */
import fc from 'fast-check'
import { type Cidr, formatCidr, formatIp, overlaps, parseCidr } from '../../../lib/base/cidr'
import { Allocator, SPACES } from '../../../lib/ipam/allocator'
import { POOL_OPTIONS } from '../../../lib/ipam/contract'

const outcome = <T>(act: () => T): T | string => {
  try {
    return act()
  } catch (error) {
    return (error as { code: string }).code
  }
}

/* ---------------------------------------------------------------- addresses of one pool */

interface Scene {
  base: Cidr
  /** Offsets, inclusive. */
  range: [number, number]
  fixed: [number, number] | undefined
  serial: boolean
  quarantine: number
}

type Step =
  | { op: 'any'; owner: string; purpose: 'endpoint' | 'gateway' }
  | { op: 'this'; at: number; owner: string }
  | { op: 'release'; at: number; owner: string }
  | { op: 'releaseHeld'; pick: number }
  | { op: 'wait'; ms: number }

const owner = fc.constantFrom('a', 'b', 'c')
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('any' as const),
      owner,
      purpose: fc.constant('endpoint' as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('any' as const),
      owner,
      purpose: fc.constant('gateway' as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('this' as const), at: fc.integer({ min: -2, max: 70 }), owner }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('release' as const),
      at: fc.integer({ min: -2, max: 70 }),
      owner,
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('releaseHeld' as const), pick: fc.nat(1000) }) },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('wait' as const), ms: fc.integer({ min: 0, max: 8 }) }),
  },
)

const scene: fc.Arbitrary<Scene> = fc
  .record({
    family: fc.constantFrom(4 as const, 6 as const),
    host: fc.integer({ min: 0, max: 6 }),
    sub: fc.option(fc.tuple(fc.nat(63), fc.nat(6))),
    fixed: fc.option(fc.tuple(fc.nat(63), fc.nat(63))),
    serial: fc.boolean(),
    quarantine: fc.constantFrom(0, 0, 5),
  })
  .map(({ family, host, sub, fixed, serial, quarantine }) => {
    const size = 2 ** host
    const bits = Math.min(sub?.[1] ?? host, host)
    const first = sub === null ? 0 : Math.floor((sub[0] % size) / 2 ** bits) * 2 ** bits
    const clip = fixed?.map(n => n % size).sort((a, b) => a - b) as [number, number] | undefined
    return {
      base:
        family === 4
          ? { family, value: 0x0a010240n, length: 32 - host }
          : { family, value: (0xfd00n << 112n) + (7n << 60n), length: 128 - host },
      range: [first, first + 2 ** (sub === null ? host : bits) - 1],
      fixed: clip,
      serial,
      quarantine,
    }
  })

class Model {
  readonly held = new Map<number, string>()
  readonly resting = new Map<number, number>()
  private cursor: number
  readonly size: number

  constructor(readonly scene: Scene) {
    this.size = 2 ** ((scene.base.family === 4 ? 32 : 128) - scene.base.length)
    this.cursor = scene.range[0]
    if (this.size > 2) {
      this.held.set(0, '')
      if (scene.base.family === 4) this.held.set(this.size - 1, '')
    }
  }

  any(name: string, purpose: string, now: number): number | string {
    const [first, last] = this.scene.range
    const all = Array.from({ length: last - first + 1 }, (_, i) => first + i)
    const [low, high] = this.scene.fixed ?? [1, 0]
    const dynamic = all.filter(at => at < low || at > high)
    const free = (at: number) => !this.held.has(at) && !((this.resting.get(at) ?? 0) > now)
    let at = purpose === 'gateway' ? all.find(free) : undefined
    if (at === undefined) {
      const order = this.scene.serial
        ? [...dynamic.filter(n => n >= this.cursor), ...dynamic.filter(n => n < this.cursor)]
        : dynamic
      at = order.find(free)
      if (at !== undefined) this.cursor = at === last ? first : at + 1
    }
    if (at === undefined) return 'ERR_POOL_EXHAUSTED'
    this.take(at, name)
    return at
  }

  exactly(at: number, name: string): number | string {
    if (at < 0 || at >= this.size) return 'ERR_ADDRESS_OUT_OF_RANGE'
    if (this.held.has(at)) return 'ERR_ADDRESS_IN_USE'
    this.take(at, name)
    return at
  }

  release(at: number, name: string, now: number): string {
    if (at < 0 || at >= this.size) return 'ERR_ADDRESS_OUT_OF_RANGE'
    if (!this.held.has(at)) return 'ERR_ADDRESS_NOT_ALLOCATED'
    if (this.held.get(at) !== name) return 'ERR_ADDRESS_NOT_OWNED'
    this.held.delete(at)
    if (this.scene.quarantine > 0) this.resting.set(at, now + this.scene.quarantine)
    return 'ok'
  }

  private take(at: number, name: string): void {
    this.held.set(at, name)
    this.resting.delete(at)
  }
}

test('addresses: every answer as the model gives it; none lost, none twice, none outside', () => {
  fc.assert(
    fc.property(scene, fc.array(step, { maxLength: 150 }), (setting, steps) => {
      let now = 1000
      const allocator = new Allocator({ now: () => now })
      const model = new Model(setting)
      const text = (at: number) => formatIp({ ...setting.base, value: setting.base.value + BigInt(at) })
      const bits = setting.base.family === 4 ? 32 : 128
      const [first, last] = setting.range
      const length = bits - Math.log2(last - first + 1)
      const options = {
        [POOL_OPTIONS.serial]: String(setting.serial),
        [POOL_OPTIONS.quarantine]: String(setting.quarantine),
        ...(setting.fixed && { [POOL_OPTIONS.staticRange]: setting.fixed.map(text).join('-') }),
      }
      const { id } = allocator.requestPool({
        space: SPACES.local,
        family: setting.base.family,
        pool: formatCidr(setting.base),
        subPool: `${text(first)}/${length}`,
        options,
      })
      const shown = (at: number | string) =>
        typeof at === 'number' ? { address: `${text(at)}/${setting.base.length}`, data: {} } : at
      for (const action of steps) {
        if (action.op === 'wait') now += action.ms
        else if (action.op === 'any') {
          const got = outcome(() =>
            allocator.requestAddress(id, { owner: action.owner, purpose: action.purpose }),
          )
          expect(got).toEqual(shown(model.any(action.owner, action.purpose, now)))
        } else if (action.op === 'this') {
          const got = outcome(() =>
            allocator.requestAddress(id, {
              owner: action.owner,
              purpose: 'endpoint',
              address: text(action.at),
            }),
          )
          expect(got).toEqual(shown(model.exactly(action.at, action.owner)))
        } else {
          const ours = [...model.held].filter(([, name]) => name !== '')
          const [at, name] =
            action.op === 'release'
              ? [action.at, action.owner]
              : (ours[action.pick % (ours.length || 1)] ?? [0, 'a'])
          const got = outcome(() => allocator.releaseAddress(id, text(at), name) ?? 'ok')
          expect(got).toBe(model.release(at, name, now))
        }
      }
      const held = [...model.held].filter(([, name]) => name !== '')
      const sorted = (list: string[]) => [...list].sort()
      expect(sorted(allocator.holdings(id).map(h => `${h.address} ${h.owner}`))).toEqual(
        sorted(held.map(([at, name]) => `${text(at)}/${setting.base.length} ${name}`)),
      )
      const resting = [...model.resting.values()].filter(until => until > now).length
      expect(allocator.status(id).inUse).toBe(BigInt(model.held.size + resting))
      for (const [at, name] of held) allocator.releaseAddress(id, text(at), name)
      now += 100
      expect(allocator.status(id).inUse).toBe(BigInt(model.held.size - held.length))
      allocator.releasePool(id)
      expect(allocator.pools()).toEqual([])
    }),
    { numRuns: 200 },
  )
})

/* ---------------------------------------------------------------- pools of one space */

const SOURCES = [
  { base: '10.9.0.0/25', size: 28 },
  { base: '10.9.0.128/26', size: 29 },
  { base: '10.9.0.224/27', size: 30 },
]

const small = fc.tuple(fc.nat(511), fc.integer({ min: 0, max: 9 })).map(
  ([n, host]): Cidr => ({
    family: 4,
    length: 32 - host,
    value: 0x0a090000n + ((BigInt(n) >> BigInt(host)) << BigInt(host)),
  }),
)

type PoolStep =
  | { op: 'any'; length: number | undefined; exclude: Cidr[] }
  | { op: 'this'; pool: Cidr; sub: [number, number] | null }
  | { op: 'release'; pick: number }

const poolStep: fc.Arbitrary<PoolStep> = fc.oneof(
  fc.record({
    op: fc.constant('any' as const),
    length: fc.constantFrom(undefined, undefined, 24, 25, 27, 28, 29, 30, 31, 32),
    exclude: fc.array(small, { maxLength: 4 }),
  }),
  fc.record({
    op: fc.constant('this' as const),
    pool: small,
    sub: fc.option(fc.tuple(fc.nat(511), fc.integer({ min: 0, max: 9 }))),
  }),
  fc.record({ op: fc.constant('release' as const), pick: fc.nat(1000) }),
)

test('pools: every answer as the model gives it', () => {
  fc.assert(
    fc.property(fc.array(poolStep, { maxLength: 60 }), steps => {
      const allocator = new Allocator({ localPools: SOURCES })
      /** id → the pool and its subpool */
      const views = new Map<string, { pool: Cidr; sub: Cidr | undefined }>()
      const clash = (subnet: Cidr) => [...views.values()].some(({ pool }) => overlaps(pool, subnet))
      const idOf = (pool: Cidr, sub?: Cidr) =>
        `LocalDefault/${formatCidr(pool)}${sub === undefined ? '' : `/${formatCidr(sub)}`}`
      for (const action of steps) {
        if (action.op === 'release') {
          const ids = [...views.keys()]
          const id = ids[action.pick % (ids.length || 1)]
          if (id === undefined) continue
          allocator.releasePool(id)
          views.delete(id)
          expect(outcome(() => allocator.releasePool(id))).toBe('ERR_POOL_NOT_FOUND')
        } else if (action.op === 'this') {
          const { pool } = action
          const bits = 32 - pool.length
          const host = action.sub === null ? 0 : Math.min(action.sub[1], bits)
          const sub: Cidr | undefined =
            action.sub === null
              ? undefined
              : {
                  family: 4,
                  length: 32 - host,
                  value:
                    pool.value +
                    (((BigInt(action.sub[0]) % (1n << BigInt(bits))) >> BigInt(host)) << BigInt(host)),
                }
          const same = [...views.values()].filter(view => formatCidr(view.pool) === formatCidr(pool))
          const refused =
            sub === undefined || same.length === 0
              ? clash(pool)
              : same.some(view => view.sub !== undefined && overlaps(view.sub, sub))
          const got = outcome(
            () =>
              allocator.requestPool({
                space: SPACES.local,
                family: 4,
                pool: formatCidr(pool),
                ...(sub && { subPool: formatCidr(sub) }),
              }).id,
          )
          expect(got).toBe(refused ? 'ERR_POOL_OVERLAP' : idOf(pool, sub))
          if (!refused) views.set(idOf(pool, sub), { pool, sub })
        } else {
          const usable = SOURCES.map(({ base, size }) => ({
            base: parseCidr(base),
            size: action.length ?? size,
          })).filter(({ base, size }) => base.length <= size)
          let expected: Cidr | undefined
          for (const { base, size } of usable)
            for (
              let at = base.value;
              at < base.value + (1n << BigInt(32 - base.length));
              at += 1n << BigInt(32 - size)
            ) {
              const candidate: Cidr = { family: 4, value: at, length: size }
              if (!clash(candidate) && !action.exclude.some(other => overlaps(other, candidate))) {
                expected ??= candidate
                break
              }
            }
          const got = outcome(
            () =>
              allocator.requestPool({
                space: SPACES.local,
                family: 4,
                exclude: action.exclude.map(formatCidr),
                ...(action.length !== undefined && { pool: `0.0.0.0/${action.length}` }),
              }).id,
          )
          const none = usable.length === 0 ? 'ERR_POOL_INVALID' : 'ERR_POOLS_EXHAUSTED'
          expect(got).toBe(expected === undefined ? none : idOf(expected))
          if (expected !== undefined) views.set(idOf(expected), { pool: expected, sub: undefined })
        }
      }
      expect([...allocator.pools()].sort()).toEqual([...views.keys()].sort())
      for (const id of views.keys()) allocator.releasePool(id)
      // empty again: everything can be had as one
      expect(
        outcome(() => allocator.requestPool({ space: SPACES.local, family: 4, pool: '10.9.0.0/16' }).pool),
      ).toBe('10.9.0.0/16')
    }),
    { numRuns: 200 },
  )
})
