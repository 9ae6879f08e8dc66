/** The network's side: all of it or nothing, whatever the driver does. */
import { NullIpamDriver } from '../../../drivers/ipam/null'
import { CnmError } from '../../../lib/base/errors'
import { GATEWAY_DATA } from '../../../lib/ipam/contract'
import { DefaultIpamDriver } from '../../../lib/ipam/default'
import type { UsedSubnet } from '../../../lib/ipam/host'
import {
  allocateNetwork,
  type NetworkIpamRequest,
  releaseNetwork,
  replayNetwork,
} from '../../../lib/ipam/network'
import { type IpamMethod, MockIpamDriver } from '../../../lib/testing/mock-ipam'

const owner = 'network-1'
const fresh = () => new DefaultIpamDriver({ hostId: 'a host' })
const code = (expected: string) => expect.objectContaining({ name: 'CnmError', code: expected })
const used = (subnet: string): UsedSubnet => ({
  subnet,
  kind: 'route',
  description: `route ${subnet} dev tun0`,
})
const everything = ({ allocator }: DefaultIpamDriver) => ({
  pools: allocator.pools(),
  held: allocator.holdings(),
})
const NOTHING = { pools: [], held: [] }

const FULL: NetworkIpamRequest = {
  owner,
  ipv4: [
    {
      subnet: '10.10.0.0/24',
      ipRange: '10.10.0.128/25',
      gateway: '10.10.0.1',
      auxAddresses: { router: '10.10.0.2', printer: '10.10.0.130' },
    },
    { subnet: '10.11.0.0/24', gateway: '10.11.0.254' },
    {},
  ],
  ipv6: [{ subnet: 'fd00:1::/64', auxAddresses: { router: 'fd00:1::1' } }, {}],
}

test('pools, gateways and auxiliary addresses as plain data', async () => {
  const ipam = await allocateNetwork(fresh(), FULL)
  expect(JSON.parse(JSON.stringify(ipam))).toEqual(ipam)
  expect(ipam).toEqual({
    ipv4: [
      {
        poolId: 'LocalDefault/10.10.0.0/24/10.10.0.128/25',
        pool: '10.10.0.0/24',
        subPool: '10.10.0.128/25',
        gateway: '10.10.0.1/24',
        gatewayFrom: 'user',
        aux: { router: '10.10.0.2/24', printer: '10.10.0.130/24' },
        data: {},
      },
      {
        poolId: 'LocalDefault/10.11.0.0/24',
        pool: '10.11.0.0/24',
        gateway: '10.11.0.254/24',
        gatewayFrom: 'user',
        aux: {},
        data: {},
      },
      {
        poolId: 'LocalDefault/172.17.0.0/16',
        pool: '172.17.0.0/16',
        gateway: '172.17.0.1/16',
        gatewayFrom: 'first-free',
        aux: {},
        data: {},
      },
    ],
    ipv6: [
      // the auxiliary ::1 was there first, so the gateway is the next one
      {
        poolId: 'LocalDefault/fd00:1::/64',
        pool: 'fd00:1::/64',
        gateway: 'fd00:1::2/64',
        gatewayFrom: 'first-free',
        aux: { router: 'fd00:1::1/64' },
        data: {},
      },
      expect.objectContaining({ pool: expect.stringMatching(/^fd.*\/64$/), gatewayFrom: 'first-free' }),
    ],
  })
})

test('release is the inverse; again it does no harm', async () => {
  const driver = fresh()
  const ipam = await allocateNetwork(driver, FULL)
  await releaseNetwork(driver, ipam, owner)
  expect(everything(driver)).toEqual(NOTHING)
  await releaseNetwork(driver, ipam, owner)
})

test('release goes on after a failure, and reports it', async () => {
  const backing = fresh()
  const driver = new MockIpamDriver({ backing })
  const ipam = await allocateNetwork(driver, FULL)
  driver.intercept('releasePool').replyWithError(new CnmError('ERR_TIMEOUT', 'no answer'))
  await expect(releaseNetwork(driver, ipam, owner)).rejects.toThrow('no answer')
  expect(backing.allocator.pools()).toHaveLength(1)
  await releaseNetwork(driver, ipam, owner)
  expect(everything(backing)).toEqual(NOTHING)
})

test('replay on a fresh driver gives the same, dynamic subnets included', async () => {
  const before = await allocateNetwork(fresh(), FULL)
  const driver = fresh()
  const stored = JSON.parse(JSON.stringify(before))
  const after = await replayNetwork(driver, stored, { owner })
  expect(after).toEqual(before)
  await releaseNetwork(driver, after, owner)
  expect(everything(driver)).toEqual(NOTHING)
})

test('only the families asked for; in the global space, too, what the host uses is avoided, and refused', async () => {
  const driver = fresh()
  expect(await allocateNetwork(driver, { owner })).toEqual({ ipv4: [], ipv6: [] })
  const global = { owner, scope: 'global' as const, used: [used('10.0.0.0/24')] }
  const { ipv4, ipv6 } = await allocateNetwork(driver, { ...global, ipv4: [] })
  expect([ipv4[0]?.poolId, ipv6]).toEqual(['GlobalDefault/10.0.1.0/24', []])
  const space = await allocateNetwork(driver, { owner, space: 'GlobalDefault', ipv4: [{}] })
  expect(space.ipv4[0]?.pool).toBe('10.0.0.0/24')
  await expect(allocateNetwork(fresh(), { ...global, ipv4: [{ subnet: '10.0.0.0/16' }] })).rejects.toEqual(
    code('ERR_HOST_ROUTE_CONFLICT'),
  )
})

test('what is to be avoided is not chosen, but taken when it is asked for', async () => {
  const avoid = [{ ...used('172.17.0.0/16'), kind: 'network' as const, description: 'network span' }]
  const { ipv4 } = await allocateNetwork(fresh(), { owner, avoid, ipv4: [{}, { subnet: '172.17.0.0/24' }] })
  expect(ipv4.map(({ pool }) => pool)).toEqual(['172.18.0.0/16', '172.17.0.0/24'])
})

test('no gateway when the network driver needs none, unless the user names one', async () => {
  const driver = fresh()
  const { ipv4 } = await allocateNetwork(driver, {
    owner,
    skipGateway: true,
    ipv4: [{}, { subnet: '10.1.0.0/24', gateway: '10.1.0.9' }],
  })
  expect(ipv4.map(({ gateway }) => gateway)).toEqual([undefined, '10.1.0.9/24'])
  const again = await replayNetwork(fresh(), { ipv4, ipv6: [] }, { owner })
  expect(again.ipv4).toEqual(ipv4)
})

test('a static range is kept in the subnet that it lies in, in both families, and after a restart', async () => {
  const options = { 'libcnm.ipam.static-range': '10.1.0.0/25, fd00:1::1-fd00:1::ff' }
  const request = {
    owner,
    ipv4: [{ subnet: '10.1.0.0/24', gateway: '10.1.0.1' }],
    ipv6: [{ subnet: 'fd00:1::/64', gateway: 'fd00:1::1' }],
    options,
  }
  const first = async (
    driver: ReturnType<typeof fresh>,
    { ipv4, ipv6 }: Awaited<ReturnType<typeof allocateNetwork>>,
  ) =>
    Promise.all(
      [...ipv4, ...ipv6].map(
        async ({ poolId }) =>
          (await driver.requestAddress(poolId, { owner: 'e', purpose: 'endpoint' })).address,
      ),
    )
  const driver = fresh()
  const taken = await allocateNetwork(driver, request)
  expect(await first(driver, taken)).toEqual(['10.1.0.128/24', 'fd00:1::100/64'])
  const again = fresh()
  expect(await first(again, await replayNetwork(again, taken, { owner, options }))).toEqual([
    '10.1.0.128/24',
    'fd00:1::100/64',
  ])
  const stray = { ...request, options: { 'libcnm.ipam.static-range': '10.9.0.0/25' } }
  await expect(allocateNetwork(fresh(), stray)).rejects.toEqual(code('ERR_INVALID_OPTION'))
})

test('one address is enough where the gateway takes none of it', async () => {
  const given = async (request: Omit<NetworkIpamRequest, 'owner'>) => {
    const driver = fresh()
    const { ipv4 } = await allocateNetwork(driver, { owner, ...request })
    const poolId = ipv4[0]?.poolId as string
    return (await driver.requestAddress(poolId, { owner: 'e', purpose: 'endpoint' })).address
  }
  const range = { subnet: '10.0.0.0/24', ipRange: '10.0.0.9/32' }
  expect(await given({ ipv4: [{ ...range, gateway: '10.0.0.1' }] })).toBe('10.0.0.9/24')
  expect(await given({ ipv4: [range], skipGateway: true })).toBe('10.0.0.9/24')
  expect(await given({ ipv4: [{ subnet: '0.0.0.0/32' }], skipGateway: true })).toBe('172.17.0.0/32')
})

test('a range as wide as the subnet is the subnet', async () => {
  const { ipv4 } = await allocateNetwork(fresh(), {
    owner,
    ipv4: [{ subnet: '10.1.0.0/24', ipRange: '10.1.0.0/24' }],
  })
  expect(ipv4[0]).toMatchObject({ subPool: '10.1.0.0/24', gateway: '10.1.0.1/24' })
})

test('two ranges of one subnet are two pools', async () => {
  const driver = fresh()
  const ipam = await allocateNetwork(driver, {
    owner,
    ipv4: [
      { subnet: '10.1.0.0/24', ipRange: '10.1.0.0/26' },
      { subnet: '10.1.0.0/24', ipRange: '10.1.0.64/26' },
    ],
  })
  expect(ipam.ipv4.map(({ gateway }) => gateway)).toEqual(['10.1.0.1/24', '10.1.0.64/24'])
  await releaseNetwork(driver, ipam, owner)
  expect(everything(driver)).toEqual(NOTHING)
})

test('serial and other options reach the pool', async () => {
  const driver = fresh()
  const options = { 'com.docker.network.ipam.serial': 'true' }
  const { ipv4 } = await allocateNetwork(driver, { owner, ipv4: [], options })
  const poolId = ipv4[0]?.poolId as string
  const take = async () => (await driver.requestAddress(poolId, { owner: 'e', purpose: 'endpoint' })).address
  const first = await take()
  await driver.releaseAddress(poolId, first, 'e')
  expect([first, await take()]).toEqual(['172.17.0.2/16', '172.17.0.3/16'])
})

describe('the host', () => {
  test('a dynamic subnet avoids it', async () => {
    const request = { owner, ipv4: [], used: [used('172.17.3.0/24'), used('172.18.0.0/15')] }
    expect((await allocateNetwork(fresh(), request)).ipv4[0]?.pool).toBe('172.20.0.0/16')
  })

  test('an explicit subnet that clashes is refused with the route, unless forced', async () => {
    const driver = fresh()
    const request = { owner, ipv4: [{}, { subnet: '10.8.1.0/24' }], used: [used('10.8.0.0/16')] }
    await expect(allocateNetwork(driver, request)).rejects.toThrow(/route 10\.8\.0\.0\/16 dev tun0/)
    expect(everything(driver)).toEqual(NOTHING)
    expect((await allocateNetwork(driver, { ...request, force: true })).ipv4[1]?.pool).toBe('10.8.1.0/24')
  })

  test('a driver that ignores exclude is asked again, and keeps nothing of what was not wanted', async () => {
    const backing = fresh()
    const driver = new MockIpamDriver({ backing })
    driver
      .intercept('requestPool', ({ exclude }) => exclude !== undefined)
      .reply(({ exclude: _, ...request }) => backing.requestPool(request))
      .persist()
    const request = { owner, ipv4: [], used: [used('172.17.0.0/16'), used('172.18.0.0/16')] }
    const ipam = await allocateNetwork(driver, request)
    expect(ipam.ipv4[0]?.pool).toBe('172.19.0.0/16')
    expect(backing.allocator.pools()).toEqual(['LocalDefault/172.19.0.0/16'])
    await expect(allocateNetwork(driver, { ...request, used: [used('128.0.0.0/1')] })).rejects.toEqual(
      code('ERR_POOLS_EXHAUSTED'),
    )
    expect(backing.allocator.pools()).toEqual(['LocalDefault/172.19.0.0/16'])
    // a failure after the pools were given back does not give them back a second time
    driver.intercept('requestAddress').replyWithError(new CnmError('ERR_TIMEOUT', 'no answer'))
    const failure = await allocateNetwork(driver, request).catch((error: CnmError) => error)
    expect(failure).toMatchObject({ code: 'ERR_TIMEOUT', rollback: undefined })
    expect(backing.allocator.pools()).toEqual(['LocalDefault/172.19.0.0/16'])
  })

  test('a driver that offers the same clashing pool for ever is given up', async () => {
    const driver = new MockIpamDriver()
    driver.intercept('requestPool').reply({ id: 'p', pool: '10.1.0.0/24', data: {} }).persist()
    driver.intercept('releasePool').reply(undefined).persist()
    const act = allocateNetwork(driver, { owner, ipv4: [], used: [used('10.0.0.0/8')] })
    await expect(act).rejects.toEqual(code('ERR_POOLS_EXHAUSTED'))
    expect(driver.callsOf('releasePool')).toHaveLength(1)
  })
})

describe('whole or nothing', () => {
  const METHODS: IpamMethod[] = ['defaultAddressSpaces', 'requestPool', 'requestAddress']

  test('whichever call fails, nothing is left, and it can be tried again', async () => {
    let calls = 0
    for (let failing = 0; ; failing++) {
      const backing = fresh()
      const driver = new MockIpamDriver({ backing })
      let seen = 0
      for (const method of METHODS)
        driver
          .intercept(method, () => seen++ === failing)
          .replyWithError(new CnmError('ERR_TIMEOUT', 'no answer'))
      const result = await allocateNetwork(driver, FULL).catch((error: CnmError) => error)
      if (!(result instanceof Error)) break
      calls++
      expect(result).toMatchObject({ code: 'ERR_TIMEOUT', rollback: undefined })
      expect(everything(backing)).toEqual(NOTHING)
      await allocateNetwork(backing, FULL)
    }
    expect(calls).toBeGreaterThan(12)
  })

  test.each<[string, Partial<NetworkIpamRequest>, string]>([
    ['malformed subnet', { ipv4: [{ subnet: '10.0.0/24' }] }, 'ERR_INVALID_CIDR'],
    ['subnet of the other family', { ipv4: [{ subnet: 'fd00::/64' }] }, 'ERR_POOL_INVALID'],
    ['IPv4 subnet in IPv6', { ipv6: [{ subnet: '10.0.0.0/24' }] }, 'ERR_POOL_INVALID'],
    ['range without subnet', { ipv4: [{ ipRange: '10.0.0.0/25' }] }, 'ERR_POOL_INVALID'],
    ['range of any subnet', { ipv4: [{ subnet: '0.0.0.0/24', ipRange: '10.0.0.0/25' }] }, 'ERR_POOL_INVALID'],
    ['range outside', { ipv4: [{ subnet: '10.0.0.0/24', ipRange: '10.0.1.0/25' }] }, 'ERR_POOL_INVALID'],
    ['malformed range', { ipv4: [{ subnet: '10.0.0.0/24', ipRange: '10.0.0.0' }] }, 'ERR_INVALID_CIDR'],
    ['malformed gateway', { ipv4: [{ subnet: '10.0.0.0/24', gateway: 'x' }] }, 'ERR_INVALID_ADDRESS'],
    [
      'gateway outside',
      { ipv4: [{ subnet: '10.0.0.0/24', gateway: '10.0.1.1' }] },
      'ERR_ADDRESS_OUT_OF_RANGE',
    ],
    ['gateway outside any subnet', { ipv4: [{ gateway: '203.0.113.1' }] }, 'ERR_ADDRESS_OUT_OF_RANGE'],
    [
      'gateway of the other family',
      { ipv4: [{ subnet: '10.0.0.0/24', gateway: 'fd00::1' }] },
      'ERR_INVALID_ADDRESS',
    ],
    [
      'gateway is the broadcast',
      { ipv4: [{ subnet: '10.0.0.0/24', gateway: '10.0.0.255' }] },
      'ERR_ADDRESS_IN_USE',
    ],
    [
      'aux outside',
      { ipv4: [{ subnet: '10.0.0.0/24', auxAddresses: { a: '10.0.1.1' } }] },
      'ERR_ADDRESS_OUT_OF_RANGE',
    ],
    [
      'aux outside any subnet',
      { ipv4: [{ auxAddresses: { a: '203.0.113.1' } }] },
      'ERR_ADDRESS_OUT_OF_RANGE',
    ],
    ['malformed aux', { ipv4: [{ subnet: '10.0.0.0/24', auxAddresses: { a: '' } }] }, 'ERR_INVALID_ADDRESS'],
    [
      'aux twice',
      { ipv4: [{ subnet: '10.0.0.0/24', auxAddresses: { a: '10.0.0.9', b: '10.0.0.9' } }] },
      'ERR_ADDRESS_IN_USE',
    ],
    [
      'aux is the gateway',
      { ipv4: [{ subnet: '10.0.0.0/24', gateway: '10.0.0.9', auxAddresses: { b: '10.0.0.9' } }] },
      'ERR_ADDRESS_IN_USE',
    ],
    ['subnets overlap', { ipv4: [{ subnet: '10.0.0.0/24' }, { subnet: '10.0.0.0/16' }] }, 'ERR_POOL_OVERLAP'],
    [
      'no address for the gateway',
      { ipv4: [{ subnet: '10.0.0.0/31', auxAddresses: { a: '10.0.0.0', b: '10.0.0.1' } }] },
      'ERR_POOL_EXHAUSTED',
    ],
    ['one address, for the gateway', { ipv4: [{ subnet: '10.0.0.9/32' }] }, 'ERR_POOL_INVALID'],
    ['any one address, for the gateway', { ipv4: [{ subnet: '0.0.0.0/32' }] }, 'ERR_POOL_INVALID'],
    ['the same in IPv6', { ipv6: [{ subnet: '::/128' }] }, 'ERR_POOL_INVALID'],
    [
      'a range of one address, for the gateway',
      { ipv4: [{ subnet: '10.0.0.0/24', ipRange: '10.0.0.9/32' }] },
      'ERR_POOL_INVALID',
    ],
    [
      'a range that is the gateway',
      { ipv4: [{ subnet: '10.0.0.0/24', ipRange: '10.0.0.9/32', gateway: '10.0.0.9' }] },
      'ERR_POOL_INVALID',
    ],
    ['unknown space', { space: 'nowhere', ipv4: [] }, 'ERR_ADDRESS_SPACE'],
    ['unknown option', { ipv4: [], options: { 'libcnm.ipam.x': '1' } }, 'ERR_INVALID_OPTION'],
  ])('%s', async (_, request, expected) => {
    const driver = fresh()
    await expect(allocateNetwork(driver, { owner, ipv4: [{}], ...request })).rejects.toEqual(code(expected))
    expect(everything(driver)).toEqual(NOTHING)
  })
})

describe('what other drivers answer', () => {
  const scripted = (pool: string, data: Record<string, string> = {}) => {
    const driver = new MockIpamDriver().disallowUnexpected()
    driver.intercept('defaultAddressSpaces').reply({ local: 'l', global: 'g' }).persist()
    driver.intercept('requestPool').reply({ id: 'p', pool, data })
    driver.intercept('releasePool').reply(undefined).persist()
    driver.intercept('releaseAddress').reply(undefined).persist()
    return driver
  }

  test('a gateway named by the driver is neither asked for nor released', async () => {
    const driver = scripted('10.1.0.0/24', { [GATEWAY_DATA]: '10.1.0.200/24', more: 'x' })
    const ipam = await allocateNetwork(driver, { owner, ipv4: [] })
    expect(ipam.ipv4).toEqual([
      {
        poolId: 'p',
        pool: '10.1.0.0/24',
        gateway: '10.1.0.200/24',
        gatewayFrom: 'driver',
        aux: {},
        data: { [GATEWAY_DATA]: '10.1.0.200/24', more: 'x' },
      },
    ])
    await releaseNetwork(driver, ipam, owner)
    expect(driver.callsOf('requestAddress')).toEqual([])
    expect(driver.callsOf('releaseAddress')).toEqual([])
  })

  test("the user's gateway goes before the driver's", async () => {
    const driver = scripted('10.1.0.0/24', { [GATEWAY_DATA]: '10.1.0.200/24' })
    driver.intercept('requestAddress').reply({ address: '10.1.0.7/24', data: {} })
    const ipam = await allocateNetwork(driver, { owner, ipv4: [{ gateway: '10.1.0.7' }] })
    expect(ipam.ipv4[0]).toMatchObject({ gateway: '10.1.0.7/24', gatewayFrom: 'user' })
    expect(driver.callsOf('requestAddress')[0]?.args).toEqual([
      'p',
      { owner, purpose: 'gateway', address: '10.1.0.7' },
    ])
  })

  test("an auxiliary address out of the driver's range is noted all the same", async () => {
    const driver = scripted('10.1.0.0/24')
    driver
      .intercept('requestAddress', (_, { purpose }) => purpose === 'auxiliary')
      .replyWithError(new CnmError('ERR_ADDRESS_OUT_OF_RANGE', 'not mine'))
    driver.intercept('requestAddress').reply({ address: '10.1.0.1/24', data: {} })
    const ipam = await allocateNetwork(driver, { owner, ipv4: [{ auxAddresses: { a: '10.1.0.9' } }] })
    expect(ipam.ipv4[0]).toMatchObject({ aux: { a: '10.1.0.9/24' }, gateway: '10.1.0.1/24' })
  })

  test.each([
    ['a pool that is none', 'ten/8', '10.1.0.1/24', {}],
    ['a pool of the other family', 'fd00::/64', '10.1.0.1/24', {}],
    ['no address', '10.1.0.0/24', '', {}],
    ['an address without a length', '10.1.0.0/24', '10.1.0.1', {}],
    ['an address of the other family', '10.1.0.0/24', 'fd00::1/64', {}],
    ['a gateway that is none', '10.1.0.0/24', '10.1.0.1/24', { [GATEWAY_DATA]: 'router' }],
  ])('%s: the driver is to blame, and gets its pool back', async (_, pool, address, data) => {
    const driver = scripted(pool, data as Record<string, string>)
    driver.intercept('requestAddress').reply({ address, data: {} })
    await expect(allocateNetwork(driver, { owner, ipv4: [] })).rejects.toEqual(code('ERR_IPAM_DRIVER'))
    expect(driver.callsOf('releasePool')).toHaveLength(1)
  })

  test('another address than the one asked for', async () => {
    const driver = scripted('10.1.0.0/24')
    driver.intercept('requestAddress').reply({ address: '10.1.0.8/24', data: {} })
    const act = allocateNetwork(driver, { owner, ipv4: [{ gateway: '10.1.0.7' }] })
    await expect(act).rejects.toEqual(code('ERR_IPAM_DRIVER'))
    expect(driver.callsOf('releaseAddress').map(({ args }) => args)).toEqual([['p', '10.1.0.8', owner]])
  })
})

describe('the null driver', () => {
  test('a network without addresses', async () => {
    const driver = new NullIpamDriver()
    const ipam = await allocateNetwork(driver, { owner, ipv4: [], ipv6: [], used: [used('10.0.0.0/8')] })
    expect(ipam).toEqual({
      ipv4: [{ poolId: 'null/0.0.0.0/0', pool: '0.0.0.0/0', aux: {}, data: {} }],
      ipv6: [{ poolId: 'null/::/0', pool: '::/0', aux: {}, data: {} }],
    })
    expect(await replayNetwork(driver, ipam, { owner })).toEqual(ipam)
    await releaseNetwork(driver, ipam, owner)
    await releaseNetwork(driver, ipam, owner)
  })

  test('refuses what is particular', async () => {
    const driver = new NullIpamDriver()
    const pool = { space: 'null', family: 4 as const }
    await expect(driver.requestPool({ ...pool, space: 'LocalDefault' })).rejects.toEqual(
      code('ERR_ADDRESS_SPACE'),
    )
    await expect(driver.requestPool({ ...pool, pool: '10.0.0.0/8' })).rejects.toEqual(
      code('ERR_POOL_INVALID'),
    )
    await expect(driver.requestPool({ ...pool, subPool: '10.0.0.0/8' })).rejects.toEqual(
      code('ERR_POOL_INVALID'),
    )
    const { id } = await driver.requestPool(pool)
    expect(await driver.requestAddress(id, { owner, purpose: 'endpoint' })).toEqual({ address: '', data: {} })
    await expect(
      driver.requestAddress(id, { owner, purpose: 'endpoint', address: '10.0.0.1' }),
    ).rejects.toEqual(code('ERR_ADDRESS_OUT_OF_RANGE'))
    await driver.releaseAddress(id, '', owner)
    expect(await driver.status(id)).toEqual({ inUse: 0n, dynamicAvailable: 0n })
    await expect(driver.releasePool('null/10.0.0.0/8')).rejects.toEqual(code('ERR_POOL_NOT_FOUND'))
  })
})
