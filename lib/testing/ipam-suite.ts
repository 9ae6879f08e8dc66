/**
 * What every IPAM driver must do, as a suite for Jest. For the authors of drivers:
 *
 * ```ts
 * import { ipamSuite } from 'libcnm/testing'
 * describe('my driver', () => ipamSuite(() => new MyIpamDriver()))
 * ```
 *
 * Each test makes a driver of its own. What a driver cannot do by design is said in the options; the rest is required.
 */
import { addressOf, contains, type Family, overlaps, parseCidr } from '../base/cidr'
import type { ErrorCode } from '../base/errors'
import type { AddressPurpose, IpamDriver } from '../ipam/contract'
import { allocateNetwork, releaseNetwork, replayNetwork } from '../ipam/network'

export interface IpamSuiteOptions {
  /** Both when absent. */
  families?: readonly Family[]
  /** Explicit pools to use: /24 and /64, and nothing else may be taken in them. */
  pools?: Partial<Record<Family, string>>
  /** Chooses pools by itself. True when absent for IPv4; for IPv6 only when said so (many drivers have no default). */
  dynamic?: Partial<Record<Family, boolean>>
  /** Heeds `exclude`. True when absent. */
  exclude?: boolean
  /** Knows subpools. True when absent. */
  subPools?: boolean
  /** Knows who holds an address, and refuses to release it for another. True when absent. */
  owners?: boolean
}

const POOLS: Record<Family, string> = { 4: '10.123.45.0/24', 6: 'fd00:123:45:6::/64' }

/** What the suite tries inside the pool of each family, by replacing the end of its text. */
const INSIDE: Record<Family, { length: number; host: (pool: string, n: number) => string; small: number }> = {
  4: { length: 24, host: (pool, n) => addressOf(pool).replace(/\d+$/, String(n)), small: 30 },
  6: {
    length: 64,
    host: (pool, n) => `${addressOf(pool).replace(/::$/, '')}::${n.toString(16)}`,
    small: 126,
  },
}
const OUTSIDE: Record<Family, string> = { 4: '203.0.113.9', 6: '2001:db8::9' }

const OWNER = 'endpoint-1'
const OTHER = 'endpoint-2'

/** Defines the tests; call it inside a `describe` of yours. */
export function ipamSuite(
  makeDriver: () => IpamDriver | Promise<IpamDriver>,
  options: IpamSuiteOptions = {},
): void {
  const { families = [4, 6], exclude = true, subPools = true, owners = true } = options
  let driver: IpamDriver
  let space: string
  beforeEach(async () => {
    driver = await makeDriver()
    space = (await driver.defaultAddressSpaces()).local
  })

  test('has a name, capabilities and two spaces', async () => {
    expect(driver.name).toMatch(/^\S+$/)
    expect(typeof driver.capabilities.requiresMac).toBe('boolean')
    expect(typeof driver.capabilities.requiresReplay).toBe('boolean')
    const spaces = await driver.defaultAddressSpaces()
    expect([spaces.local, spaces.global].every(name => name.length > 0)).toBe(true)
  })

  for (const family of families) {
    const pool = options.pools?.[family] ?? POOLS[family]
    const { host, length, small } = INSIDE[family]
    const dynamic = options.dynamic?.[family] ?? family === 4
    const take = (id: string, address?: string, owner = OWNER, purpose: AddressPurpose = 'endpoint') =>
      driver.requestAddress(id, { owner, purpose, ...(address !== undefined && { address }) })
    const open = (text = pool) => driver.requestPool({ space, family, pool: text })

    describe(`IPv${family}`, () => {
      test('gives an explicit pool, once', async () => {
        const answer = await open()
        expect(answer).toEqual({ id: expect.any(String), pool, data: expect.any(Object) })
        expect(answer.id).not.toBe('')
        await rejects(open(), 'ERR_POOL_OVERLAP')
        await rejects(open(`${host(pool, 0)}/${length + 1}`), 'ERR_POOL_OVERLAP')
        await rejects(open(`${host(pool, 0)}/${length - 4}`), 'ERR_POOL_OVERLAP')
      })

      test('a pool given back can be had again; twice given back is an error', async () => {
        const first = await open()
        await take(first.id)
        await driver.releasePool(first.id)
        await rejects(driver.releasePool(first.id), 'ERR_POOL_NOT_FOUND')
        const second = await open()
        expect(second.pool).toBe(pool)
        expect((await take(second.id, host(pool, 9))).address).toBe(`${host(pool, 9)}/${length}`)
      })

      test('refuses what is malformed, and then nothing has changed', async () => {
        const wrongFamily = family === 4 ? POOLS[6] : POOLS[4]
        for (const text of ['x', '/24', '10.0.0.0', '10.0.0.0/33', 'fd00::/129', '10.0.0/24', wrongFamily])
          await refuses(open(text), 'invalid')
        await rejects(driver.requestPool({ space: 'no such space', family, pool }), 'ERR_ADDRESS_SPACE')
        await refuses(driver.requestPool({ space, family, subPool: pool }), 'invalid')
        await open()
      })

      test('addresses are inside the pool, different, and carry its length', async () => {
        const { id } = await open()
        const given = new Set<string>()
        for (let i = 0; i < 20; i++) given.add((await take(id, undefined, `e${i}`)).address)
        expect(given.size).toBe(20)
        for (const address of given) {
          expect(address.endsWith(`/${length}`)).toBe(true)
          expect(contains(parseCidr(pool), parseCidr(address))).toBe(true)
        }
      })

      test('requests side by side never get the same address', async () => {
        const { id } = await open()
        const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => take(id, undefined, `e${i}`)))
        expect(new Set(answers.map(({ address }) => address)).size).toBe(50)
      })

      test('an explicit address is given once', async () => {
        const { id } = await open()
        const wanted = host(pool, 77)
        expect((await take(id, wanted)).address).toBe(`${wanted}/${length}`)
        await rejects(take(id, wanted, OTHER), 'ERR_ADDRESS_IN_USE')
        await driver.releaseAddress(id, wanted, OWNER)
        expect((await take(id, wanted, OTHER)).address).toBe(`${wanted}/${length}`)
      })

      test('refuses addresses outside, of the other family, and nonsense', async () => {
        const { id } = await open()
        await rejects(take(id, OUTSIDE[family]), 'ERR_ADDRESS_OUT_OF_RANGE')
        await refuses(take(id, OUTSIDE[family === 4 ? 6 : 4]), 'invalid')
        await refuses(take(id, 'nonsense'), 'invalid')
        await refuses(driver.releaseAddress(id, 'nonsense', OWNER), 'invalid')
        await rejects(driver.releaseAddress(id, OUTSIDE[family], OWNER), 'ERR_ADDRESS_OUT_OF_RANGE')
      })

      test('a pool that is used up says so, and serves again after a release', async () => {
        const { id } = await open(`${host(pool, 0)}/${small}`)
        const given: string[] = []
        for (let i = 0; i < 4; i++)
          try {
            given.push(addressOf((await take(id, undefined, OWNER)).address))
          } catch (error) {
            expect(error).toMatchObject({ code: 'ERR_POOL_EXHAUSTED' })
            break
          }
        expect(given.length).toBeGreaterThanOrEqual(2)
        await rejects(take(id), 'ERR_POOL_EXHAUSTED')
        await driver.releaseAddress(id, given[0] as string, OWNER)
        expect(addressOf((await take(id)).address)).toBe(given[0])
      })

      test('a double release is an error', async () => {
        const { id } = await open()
        const { address } = await take(id)
        await driver.releaseAddress(id, addressOf(address), OWNER)
        await rejects(driver.releaseAddress(id, addressOf(address), OWNER), 'ERR_ADDRESS_NOT_ALLOCATED')
      })

      if (owners)
        test('only the owner releases', async () => {
          const { id } = await open()
          const { address } = await take(id)
          await rejects(driver.releaseAddress(id, addressOf(address), OTHER), 'ERR_ADDRESS_NOT_OWNED')
          await rejects(take(id, addressOf(address), OTHER), 'ERR_ADDRESS_IN_USE')
          await driver.releaseAddress(id, addressOf(address), OWNER)
        })

      test('knows no pool that it did not give', async () => {
        const { id } = await open()
        await driver.releasePool(id)
        await rejects(take(id), 'ERR_POOL_NOT_FOUND')
        await rejects(driver.releaseAddress(id, host(pool, 1), OWNER), 'ERR_POOL_NOT_FOUND')
        if (driver.status) await rejects(driver.status(id), 'ERR_POOL_NOT_FOUND')
        for (const empty of ['', 'x']) {
          await expect(take(empty)).rejects.toMatchObject({ name: 'CnmError' })
          await expect(driver.releaseAddress(empty, host(pool, 1), OWNER)).rejects.toMatchObject({
            name: 'CnmError',
          })
        }
      })

      test('status follows, and a request refused leaves it as it was', async () => {
        const { id } = await open()
        const before = await driver.status?.(id)
        await take(id, host(pool, 5))
        const after = await driver.status?.(id)
        if (before === undefined || after === undefined) return
        expect(after.inUse).toBe(before.inUse + 1n)
        expect(after.dynamicAvailable).toBe(before.dynamicAvailable - 1n)
        await rejects(take(id, host(pool, 5), OTHER), 'ERR_ADDRESS_IN_USE')
        await rejects(take(id, OUTSIDE[family]), 'ERR_ADDRESS_OUT_OF_RANGE')
        expect(await driver.status?.(id)).toEqual(after)
        await driver.releaseAddress(id, host(pool, 5), OWNER)
        expect(await driver.status?.(id)).toEqual(before)
      })

      if (subPools)
        test('a subpool limits the choice, not the wish', async () => {
          const half = `${host(pool, 128)}/${length + (family === 4 ? 1 : 57)}`
          const { id, pool: whole } = await driver.requestPool({ space, family, pool, subPool: half })
          expect(whole).toBe(pool)
          const { address } = await take(id)
          expect(
            contains(parseCidr(half), parseCidr(`${addressOf(address)}/${family === 4 ? 32 : 128}`)),
          ).toBe(true)
          expect(address.endsWith(`/${length}`)).toBe(true)
          expect((await take(id, host(pool, 3))).address).toBe(`${host(pool, 3)}/${length}`)
          await rejects(driver.requestPool({ space, family, pool, subPool: half }), 'ERR_POOL_OVERLAP')
          await driver.releasePool(id)
          await open()
        })

      if (dynamic)
        test('chooses pools that do not overlap each other, nor what is excluded', async () => {
          const chosen = await Promise.all([1, 2, 3, 4].map(() => driver.requestPool({ space, family })))
          if (exclude) {
            await driver.releasePool(chosen[0]?.id as string)
            const [gone] = chosen.splice(0, 1)
            chosen.push(await driver.requestPool({ space, family, exclude: [gone?.pool as string] }))
            expect(overlaps(parseCidr(chosen.at(-1)?.pool as string), parseCidr(gone?.pool as string))).toBe(
              false,
            )
          }
          chosen.forEach((a, i) => {
            for (const b of chosen.slice(i + 1))
              expect(overlaps(parseCidr(a.pool), parseCidr(b.pool))).toBe(false)
          })
        })

      test('a network is allocated, replayed on a fresh driver and released whole', async () => {
        const config = { subnet: pool, auxAddresses: { router: host(pool, 200) } }
        const request = { owner: 'network-1', space, [family === 4 ? 'ipv4' : 'ipv6']: [config] }
        const ipam = await allocateNetwork(driver, request)
        const [got] = family === 4 ? ipam.ipv4 : ipam.ipv6
        expect(got).toMatchObject({ pool, aux: { router: `${host(pool, 200)}/${length}` } })
        const endpoint = await take(got?.poolId as string)
        expect(endpoint.address).not.toBe(got?.gateway)

        if (driver.capabilities.requiresReplay) {
          const fresh = await makeDriver()
          const again = await replayNetwork(fresh, ipam, { owner: 'network-1', space })
          expect(again).toEqual(ipam)
          const wanted = addressOf(endpoint.address)
          const replayed = await fresh.requestAddress(got?.poolId as string, {
            address: wanted,
            owner: OWNER,
            purpose: 'endpoint',
          })
          expect(replayed.address).toBe(endpoint.address)
        }
        await driver.releaseAddress(got?.poolId as string, addressOf(endpoint.address), OWNER)
        await releaseNetwork(driver, ipam, 'network-1')
        await open()
      })
    })
  }
}

const rejects = (promise: Promise<unknown>, code: ErrorCode) =>
  expect(promise).rejects.toMatchObject({ name: 'CnmError', code })
const refuses = (promise: Promise<unknown>, kind: string) =>
  expect(promise).rejects.toMatchObject({ name: 'CnmError', kind })
