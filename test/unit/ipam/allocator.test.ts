/** The default driver's rules one by one. */
import type { Family } from '../../../lib/base/cidr'
import { Allocator, type AllocatorOptions, SPACES } from '../../../lib/ipam/allocator'
import { type AddressRequest, POOL_OPTIONS } from '../../../lib/ipam/contract'
import { DefaultIpamDriver } from '../../../lib/ipam/default'
import { uniqueLocalPool } from '../../../lib/ipam/default-pools'

const { serial, quarantine, sticky, staticRange } = POOL_OPTIONS
const family = (pool: string): Family => (pool.includes(':') ? 6 : 4)

function scene(
  pool: string,
  options: Record<string, string> = {},
  subPool?: string,
  more: AllocatorOptions = {},
) {
  const clock = { now: 0 }
  const allocator = new Allocator({ now: () => clock.now, ...more })
  const { id } = allocator.requestPool({
    space: SPACES.local,
    family: family(pool),
    pool,
    options,
    ...(subPool !== undefined && { subPool }),
  })
  const ask = (request: Partial<AddressRequest> = {}) =>
    allocator.requestAddress(id, { owner: 'e', purpose: 'endpoint', ...request })
  const take = (request: Partial<AddressRequest> = {}) => ask(request).address
  const release = (address: string, owner = 'e') => allocator.releaseAddress(id, address, owner)
  const all = () => {
    const list: string[] = []
    try {
      for (;;) list.push(take())
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_POOL_EXHAUSTED', kind: 'exhausted' })
    }
    return list
  }
  return { clock, allocator, id, ask, take, release, all }
}
const fails = (act: () => unknown, code: string, details: object = {}) =>
  expect(act).toThrow(expect.objectContaining({ code, details: expect.objectContaining(details) }))

describe('default pools', () => {
  const everything = (space: string, how: Family, options: AllocatorOptions = {}, most = 100) => {
    const allocator = new Allocator(options)
    const pools: string[] = []
    try {
      while (pools.length < most) pools.push(allocator.requestPool({ space, family: how }).pool)
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_POOLS_EXHAUSTED' })
    }
    return pools
  }

  test('local: 15 of /16, 16 of /20, in this order', () => {
    const pools = everything(SPACES.local, 4)
    expect(pools).toEqual([
      ...Array.from({ length: 15 }, (_, i) => `172.${17 + i}.0.0/16`),
      ...Array.from({ length: 16 }, (_, i) => `192.168.${16 * i}.0/20`),
    ])
  })

  test('global: 10.0.0.0/8 in /24', () => {
    expect(everything(SPACES.global, 4, {}, 3)).toEqual(['10.0.0.0/24', '10.0.1.0/24', '10.0.2.0/24'])
  })

  test('IPv6: none without a host id; a /48 of the host with one', () => {
    expect(everything(SPACES.local, 6)).toEqual([])
    // printf 'some host' | sha256sum begins 247ab4d4 4b55496b: the low 40 bits of these 8 bytes follow fd
    const { base, size } = uniqueLocalPool('some host')
    expect({ base, size }).toEqual({ base: 'fdd4:4b55:496b::/48', size: 64 })
    expect(uniqueLocalPool('some host').base).toBe(base)
    expect(uniqueLocalPool('other host').base).not.toBe(base)
    const prefix = base.replace('::/48', '')
    expect(everything(SPACES.local, 6, { hostId: 'some host' }, 3)).toEqual([
      `${prefix}::/64`,
      `${prefix}:1::/64`,
      `${prefix}:2::/64`,
    ])
  })

  test('IPv6 of the user instead of the host', () => {
    const localPools = [{ base: '2001:db8::/63', size: 64 }]
    expect(everything(SPACES.local, 6, { hostId: 'h', localPools })).toEqual([
      '2001:db8::/64',
      '2001:db8:0:1::/64',
    ])
    expect(everything(SPACES.local, 4, { hostId: 'h', localPools })).toEqual([])
  })

  test.each([
    [{ base: '10.0.0.0', size: 24 }, /not of the form/],
    [{ base: '', size: 24 }, /not of the form/],
    [{ base: '10.0.0.0/8', size: 0 }, /1 to 32/],
    [{ base: '10.0.0.0/8', size: 33 }, /1 to 32/],
    [{ base: 'fd00::/8', size: 129 }, /1 to 128/],
    [{ base: '10.0.0.0/24', size: 16 }, /longer than the size/],
    [{ base: '0.0.0.0/8', size: 16 }, /unspecified/],
    [{ base: '224.0.0.0/8', size: 16 }, /224\.0\.0\.0\/4: multicast/],
    [{ base: '96.0.0.0/3', size: 16 }, /127\.0\.0\.0\/8: loopback/],
    [{ base: 'fe80::/48', size: 64 }, /link-local/],
    [{ base: 'ff00::/8', size: 64 }, /multicast/],
  ])('%j is refused', (pool, why) => {
    fails(() => new Allocator({ localPools: [pool] }), 'ERR_POOL_INVALID')
    expect(() => new Allocator({ localPools: [pool] })).toThrow(why)
  })

  test('host bits are cleared, IPv4 inside IPv6 becomes IPv4', () => {
    const localPools = [{ base: '::ffff:10.1.2.3/120', size: 124 }]
    expect(everything(SPACES.local, 4, { localPools }, 2)).toEqual(['10.1.2.0/28', '10.1.2.16/28'])
  })

  test('the driver checks its options', () => {
    fails(() => new DefaultIpamDriver({ quarantine: -1 }), 'ERR_INVALID_OPTION')
    const typo = { hostID: 'x' } as object
    expect(() => new DefaultIpamDriver(typo)).toThrow(/did you mean hostId/)
  })
})

describe('pool choice', () => {
  test('gaps are filled, odd sizes are stepped over, what the host uses is avoided', () => {
    const allocator = new Allocator()
    const any = (request: { pool?: string; exclude?: string[] } = {}) =>
      allocator.requestPool({ space: SPACES.local, family: 4, ...request })
    const exclude = ['172.16.0.0/15', '172.19.5.5/32', 'fd00::/8', '172.18.0.0/24']
    const first = any({ exclude })
    expect(first.pool).toBe('172.20.0.0/16')
    expect(any({ pool: '0.0.0.0/28', exclude }).pool).toBe('172.18.1.0/28')
    expect(any({ pool: '0.0.0.0/20', exclude }).pool).toBe('172.18.16.0/20')
    expect(any({ pool: '0.0.0.0/24' }).pool).toBe('172.17.0.0/24')
    allocator.releasePool(first.id)
    expect(any({ exclude }).pool).toBe('172.20.0.0/16')
  })

  test('an explicit pool is not kept off by exclude', () => {
    const allocator = new Allocator()
    const request = { space: SPACES.local, family: 4 as const, pool: '10.0.0.0/24', exclude: ['10.0.0.0/8'] }
    expect(allocator.requestPool(request).pool).toBe('10.0.0.0/24')
  })

  test('exhausted says what there is', () => {
    const allocator = new Allocator({ localPools: [{ base: '10.0.0.0/24', size: 25 }] })
    const any = () => allocator.requestPool({ space: SPACES.local, family: 4 })
    any()
    any()
    expect(any).toThrow(/10\.0\.0\.0\/24 cut into \/25.*taken or used/)
    fails(any, 'ERR_POOLS_EXHAUSTED', { space: SPACES.local, pools: 2 })
    const huge = () => allocator.requestPool({ space: SPACES.local, family: 4, pool: '0.0.0.0/16' })
    fails(huge, 'ERR_POOL_INVALID', { length: 16 })
  })

  test.each([
    ['10.0.0.0/24', '10.0.1.0/25', 'ERR_POOL_INVALID'],
    ['10.0.0.0/24', 'fd00::/64', 'ERR_POOL_INVALID'],
    ['10.0.0.0/24', 'x', 'ERR_INVALID_CIDR'],
    ['0.0.0.0/24', '10.0.0.0/25', 'ERR_POOL_INVALID'],
    ['fd00::/64', undefined, 'ERR_POOL_INVALID'],
    ['10.0.0.0/024', undefined, 'ERR_INVALID_CIDR'],
    ['10.0.0.0/-1', undefined, 'ERR_INVALID_CIDR'],
    ['10.0.0.0/24/', undefined, 'ERR_INVALID_CIDR'],
    ['10.0.0.0/2 ', undefined, 'ERR_INVALID_CIDR'],
  ])('pool %s, subpool %s: %s, and nothing is taken', (pool, subPool, code) => {
    const allocator = new Allocator()
    const act = () =>
      allocator.requestPool({
        space: SPACES.local,
        family: 4,
        pool,
        ...(subPool !== undefined && { subPool }),
      })
    fails(act, code)
    expect(allocator.pools()).toEqual([])
    expect(allocator.requestPool({ space: SPACES.local, family: 4, pool: '10.0.0.0/16' }).pool).toBe(
      '10.0.0.0/16',
    )
  })

  test('a subpool larger than the pool is refused', () => {
    fails(() => scene('10.0.0.0/24', {}, '10.0.0.0/16'), 'ERR_POOL_INVALID', {})
  })

  test('a subpool of a pool that overlaps another one is refused; libnetwork lets it pass', () => {
    const { allocator } = scene('10.0.0.0/16')
    const act = () =>
      allocator.requestPool({ space: SPACES.local, family: 4, pool: '10.0.0.0/8', subPool: '10.1.0.0/16' })
    fails(act, 'ERR_POOL_OVERLAP', { taken: '10.0.0.0/16' })
  })
})

describe('which addresses a pool has', () => {
  test.each([
    ['10.0.0.0/29', 6, '10.0.0.1/29', '10.0.0.6/29'],
    ['10.0.0.0/30', 2, '10.0.0.1/30', '10.0.0.2/30'],
    ['10.0.0.0/31', 2, '10.0.0.0/31', '10.0.0.1/31'],
    ['10.0.0.7/32', 1, '10.0.0.7/32', '10.0.0.7/32'],
    ['255.255.255.252/30', 2, '255.255.255.253/30', '255.255.255.254/30'],
    ['fd00::/126', 3, 'fd00::1/126', 'fd00::3/126'],
    ['fd00::/127', 2, 'fd00::/127', 'fd00::1/127'],
    ['fd00::9/128', 1, 'fd00::9/128', 'fd00::9/128'],
  ])('%s: %i, from %s to %s', (pool, count, first, last) => {
    const { all, allocator, id } = scene(pool)
    expect(allocator.status(id).dynamicAvailable).toBe(BigInt(count))
    const given = all()
    expect([given.length, given[0], given.at(-1)]).toEqual([count, first, last])
    expect(allocator.status(id).dynamicAvailable).toBe(0n)
  })

  test("network, broadcast and anycast address are nobody's", () => {
    for (const [pool, address] of [
      ['10.0.0.0/24', '10.0.0.0'],
      ['10.0.0.0/24', '10.0.0.255'],
      ['fd00::/64', 'fd00::'],
    ] as const) {
      const { take, release } = scene(pool)
      fails(() => take({ address }), 'ERR_ADDRESS_IN_USE', { holder: null })
      fails(() => release(address), 'ERR_ADDRESS_NOT_OWNED')
    }
    const { take } = scene('fd00::/64')
    expect(take({ address: 'fd00::ffff:ffff:ffff:ffff' })).toBe('fd00::ffff:ffff:ffff:ffff/64')
  })

  test('a subpool lends its size, not its mask; its first address is an address', () => {
    const { all } = scene('10.0.0.0/16', {}, '10.0.7.0/30')
    expect(all()).toEqual(['10.0.7.0/16', '10.0.7.1/16', '10.0.7.2/16', '10.0.7.3/16'])
  })

  test('two subpools of one pool share its addresses', () => {
    const { allocator, take, id } = scene('10.0.0.0/16', {}, '10.0.1.0/24')
    const other = allocator.requestPool({
      space: SPACES.local,
      family: 4,
      pool: '10.0.0.0/16',
      subPool: '10.0.2.0/24',
    })
    expect(take({ address: '10.0.2.0' })).toBe('10.0.2.0/16')
    expect(allocator.requestAddress(other.id, { owner: 'f', purpose: 'endpoint' }).address).toBe(
      '10.0.2.1/16',
    )
    fails(() => allocator.releaseAddress(id, '10.0.2.1', 'e'), 'ERR_ADDRESS_NOT_OWNED', { holder: 'f' })
    allocator.releaseAddress(id, '10.0.2.1', 'f')
    allocator.releasePool(id)
    expect(allocator.holdings(other.id)).toEqual([{ poolId: other.id, address: '10.0.2.0/16', owner: 'e' }])
  })

  test('an IPv6 /0 and an IPv4 /1 are served as well', () => {
    const six = scene('f000::/0')
    expect(six.take()).toBe('::1/0')
    expect(six.take({ address: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' })).toMatch(/^ffff:/)
    fails(() => six.take({ address: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' }), 'ERR_ADDRESS_IN_USE')
    const four = scene('128.0.0.0/1')
    expect(four.take()).toBe('128.0.0.1/1')
    expect(four.take({ address: '255.255.255.254' })).toBe('255.255.255.254/1')
  })
})

describe('who holds what', () => {
  test('a refusal names the holder, and changes nothing', () => {
    const { take, release, allocator, id } = scene('10.0.0.0/24')
    take({ owner: 'first', address: '10.0.0.9' })
    const before = [allocator.holdings(id), allocator.status(id)]
    fails(() => take({ owner: 'second', address: '10.0.0.9' }), 'ERR_ADDRESS_IN_USE', {
      holder: 'first',
      owner: 'second',
    })
    fails(() => release('10.0.0.9', 'second'), 'ERR_ADDRESS_NOT_OWNED', { holder: 'first' })
    fails(() => release('10.0.0.8', 'first'), 'ERR_ADDRESS_NOT_ALLOCATED')
    fails(() => release('10.0.1.8', 'first'), 'ERR_ADDRESS_OUT_OF_RANGE')
    fails(() => release('10.0.0', 'first'), 'ERR_INVALID_ADDRESS')
    fails(() => release('fd00::1', 'first'), 'ERR_INVALID_ADDRESS')
    fails(() => take({ owner: '' }), 'ERR_INVALID_OPTION')
    expect([allocator.holdings(id), allocator.status(id)]).toEqual(before)
    release('10.0.0.9/24', 'first')
    fails(() => release('10.0.0.9', 'first'), 'ERR_ADDRESS_NOT_ALLOCATED')
  })

  test('reconcile releases what the dead held, in every pool', () => {
    const { allocator, take } = scene('10.0.0.0/24')
    take({ owner: 'alive' })
    take({ owner: 'dead' })
    const other = allocator.requestPool({ space: SPACES.global, family: 4 })
    allocator.requestAddress(other.id, { owner: 'dead', purpose: 'endpoint' })
    const lost = allocator.reconcile(name => name === 'alive')
    expect(lost.map(({ address }) => address).sort()).toEqual(['10.0.0.1/24', '10.0.0.2/24'])
    expect(allocator.holdings().map(({ owner }) => owner)).toEqual(['alive'])
  })

  test('malformed pool ids are told from unknown ones', () => {
    const { allocator } = scene('10.0.0.0/24')
    for (const id of ['', 'x', 'a/b', 'a/b/c/d', 'a/b/c/d/e/f', '/10.0.0.0/8', 'a//8', 'a/10.0.0.0/8//'])
      fails(() => allocator.status(id), 'ERR_POOL_INVALID')
    fails(() => allocator.status('LocalDefault/10.0.0.0/25'), 'ERR_POOL_NOT_FOUND')
  })
})

describe('how an address is chosen', () => {
  test('lowest free by default; the next one in serial mode, wrapping', () => {
    const lowest = scene('10.0.0.0/29')
    lowest.take()
    lowest.release(lowest.take())
    expect(lowest.take()).toBe('10.0.0.2/29')

    const round = scene('10.0.0.0/29', { [serial]: 'true' })
    expect([round.take(), round.take()]).toEqual(['10.0.0.1/29', '10.0.0.2/29'])
    round.release('10.0.0.1')
    expect([round.take(), round.take(), round.take(), round.take()]).toEqual([
      '10.0.0.3/29',
      '10.0.0.4/29',
      '10.0.0.5/29',
      '10.0.0.6/29',
    ])
    expect(round.take()).toBe('10.0.0.1/29')
    expect(round.all()).toEqual([])
  })

  test('serial in a subpool stays there', () => {
    const { take, release } = scene('10.0.0.0/24', { [serial]: '1' }, '10.0.0.8/30')
    const given = []
    for (let i = 0; i < 6; i++) {
      const address = take()
      given.push(address)
      release(address)
    }
    expect(given).toEqual([8, 9, 10, 11, 8, 9].map(n => `10.0.0.${n}/24`))
  })

  test('the static range is served on request only', () => {
    const { all, take, allocator, id } = scene('10.0.0.0/28', {
      [staticRange]: '10.0.0.0/30, 10.0.0.8-10.0.0.13',
    })
    expect(allocator.status(id).dynamicAvailable).toBe(5n)
    expect(take({ owner: 'net', purpose: 'gateway' })).toBe('10.0.0.1/28')
    expect(all()).toEqual([4, 5, 6, 7, 14].map(n => `10.0.0.${n}/28`))
    expect(take({ address: '10.0.0.9' })).toBe('10.0.0.9/28')
  })

  test('a static range of a single address, in IPv6', () => {
    const { take } = scene('fd00::/64', { [staticRange]: 'fd00::1,fd00::3-fd00::ffff' })
    expect([take(), take()]).toEqual(['fd00::2/64', 'fd00::1:0/64'])
  })

  test.each([
    [{ [serial]: 'yes' }],
    [{ [sticky]: '' }],
    [{ [quarantine]: '-1' }],
    [{ [quarantine]: '1e3' }],
    [{ [quarantine]: '999999999' }],
    [{ [staticRange]: '' }],
    [{ [staticRange]: '10.0.1.0/24' }],
    [{ [staticRange]: '10.0.0.9-10.0.0.3' }],
    [{ [staticRange]: '10.0.0.1-10.0.0.3-10.0.0.5' }],
    [{ [staticRange]: '10.0.0.1-10.0.0.9,10.0.0.9' }],
    [{ [staticRange]: 'fd00::1' }],
    [{ 'libcnm.ipam.serail': 'true' }],
    [{ 'libcnm.ipam.stiky': 'true' }],
    [{ 'com.docker.network.ipam.seriel': 'true' }],
  ])('options %j are refused, and the pool is not taken', options => {
    const allocator = new Allocator()
    const request = { space: SPACES.local, family: 4 as const, pool: '10.0.0.0/24' }
    fails(() => allocator.requestPool({ ...request, options }), 'ERR_INVALID_OPTION')
    expect(allocator.requestPool({ ...request, options: { 'com.example.mine': 'x' } }).pool).toBe(
      '10.0.0.0/24',
    )
  })

  test('refused options of a subpool leave the pool to the others', () => {
    const { allocator, id, take } = scene('10.0.0.0/24', {}, '10.0.0.0/25')
    const request = { space: SPACES.local, family: 4 as const, pool: '10.0.0.0/24', subPool: '10.0.0.128/25' }
    fails(() => allocator.requestPool({ ...request, options: { [serial]: 'x' } }), 'ERR_INVALID_OPTION')
    expect(allocator.pools()).toEqual([id])
    expect(take()).toBe('10.0.0.1/24')
  })
})

describe('quarantine', () => {
  test('a released address rests, then is chosen again', () => {
    const { clock, take, release, allocator, id } = scene('10.0.0.0/29', { [quarantine]: '1000' })
    release(take())
    expect(take()).toBe('10.0.0.2/29')
    fails(() => release('10.0.0.1'), 'ERR_ADDRESS_NOT_ALLOCATED')
    clock.now = 999
    expect(allocator.status(id).inUse).toBe(4n)
    expect(take()).toBe('10.0.0.3/29')
    clock.now = 1000
    expect(take()).toBe('10.0.0.1/29')
  })

  test('an explicit request takes it at once; the rest of the old quarantine does not free it', () => {
    const { clock, take, release } = scene('10.0.0.0/29', { [quarantine]: '1000' })
    release(take())
    expect(take({ address: '10.0.0.1', owner: 'other' })).toBe('10.0.0.1/29')
    clock.now = 5000
    expect(take()).toBe('10.0.0.2/29')
  })

  test('exhausted says how many rest', () => {
    const { all, release } = scene('10.0.0.0/29', { [quarantine]: '1000' })
    for (const address of all()) release(address)
    expect(all()).toEqual([])
    const again = scene('10.0.0.0/30', { [quarantine]: '1000' })
    for (const address of again.all()) again.release(address)
    fails(() => again.take(), 'ERR_POOL_EXHAUSTED', { quarantined: 2 })
  })

  test('a default for pools that do not say; 0 switches it off', () => {
    const on = scene('10.0.0.0/29', {}, undefined, { quarantine: 10 })
    on.release(on.take())
    expect(on.take()).toBe('10.0.0.2/29')
    const off = scene('10.0.0.0/29', { [quarantine]: '0' }, undefined, { quarantine: 10 })
    off.release(off.take())
    expect(off.take()).toBe('10.0.0.1/29')
  })

  test('what rests because of a subpool is free when the subpool goes', () => {
    const { allocator, take, release, id } = scene('10.0.0.0/24', { [quarantine]: '1000' }, '10.0.0.0/25')
    const whole = allocator.requestPool({
      space: SPACES.local,
      family: 4,
      pool: '10.0.0.0/24',
      subPool: '10.0.0.128/25',
    })
    release(take())
    allocator.releasePool(id)
    expect(allocator.status(whole.id).inUse).toBe(2n)
  })
})

describe('stickiness', () => {
  test('a name gets its address and MAC again', () => {
    const { ask, release } = scene('10.0.0.0/24', { [sticky]: 'true' })
    const first = ask({ owner: 'e1', name: 'web' })
    expect(first.mac).toMatch(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/)
    release(first.address, 'e1')
    expect(ask({ owner: 'e2', name: 'db' }).address).toBe('10.0.0.2/24')
    expect(ask({ owner: 'e3', name: 'web' })).toEqual(first)
  })

  test('not while somebody else has it; then the name gets a new pair', () => {
    const { ask, release } = scene('10.0.0.0/24', { [sticky]: 'true' })
    const first = ask({ owner: 'e1', name: 'web' })
    const second = ask({ owner: 'e2', name: 'web' })
    expect(second.address).not.toBe(first.address)
    expect(second.mac).not.toBe(first.mac)
    release(first.address, 'e1')
    release(second.address, 'e2')
    expect(ask({ owner: 'e3', name: 'web' })).toEqual(second)
  })

  test("the user's MAC is remembered; an explicit address keeps the MAC of the name", () => {
    const { ask, release } = scene('10.0.0.0/24', { [sticky]: 'true' })
    const mac = '02:00:00:00:00:07'
    release(ask({ name: 'web', mac }).address)
    expect(ask({ name: 'web', address: '10.0.0.77' })).toMatchObject({ address: '10.0.0.77/24', mac })
    release('10.0.0.77')
    expect(ask({ name: 'web' })).toMatchObject({ address: '10.0.0.77/24', mac })
  })

  test('a name comes back through its own quarantine', () => {
    const { ask, release, clock } = scene('10.0.0.0/29', { [sticky]: 'true', [quarantine]: '1000' })
    const first = ask({ name: 'web' })
    release(first.address)
    expect(ask({ name: 'web', owner: 'again' })).toEqual(first)
    clock.now = 5000
    fails(() => ask({ name: 'x', address: '10.0.0.1' }), 'ERR_ADDRESS_IN_USE', { holder: 'again' })
  })

  test('without a name, or without the option, nothing is remembered', () => {
    expect(scene('10.0.0.0/24', { [sticky]: 'true' }).ask()).toEqual({ address: '10.0.0.1/24', data: {} })
    const { ask, release } = scene('10.0.0.0/24')
    release(ask({ name: 'web', mac: '02:00:00:00:00:07' }).address)
    expect(ask({ name: 'db' })).toEqual({ address: '10.0.0.1/24', data: {} })
  })
})

test('after a fresh start everything is asked for again as it was', () => {
  const before = scene('10.0.0.0/24', { [serial]: 'true' }, '10.0.0.128/25')
  before.take({ owner: 'net', purpose: 'gateway', address: '10.0.0.1' })
  for (const owner of ['a', 'b', 'c']) before.take({ owner })
  const dynamic = before.allocator.requestPool({ space: SPACES.local, family: 4 })
  const after = scene('10.0.0.0/24', { [serial]: 'true' }, '10.0.0.128/25')
  expect(after.id).toBe(before.id)
  for (const { address, owner } of before.allocator.holdings(before.id))
    expect(after.take({ address, owner })).toBe(address)
  expect(after.allocator.holdings().sort((x, y) => (x.address < y.address ? -1 : 1))).toEqual(
    before.allocator.holdings().sort((x, y) => (x.address < y.address ? -1 : 1)),
  )
  expect(after.allocator.requestPool({ space: SPACES.local, family: 4, pool: dynamic.pool }).id).toBe(
    dynamic.id,
  )
})
