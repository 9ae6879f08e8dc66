import { Cluster, type ClusterListener } from '../../../lib/cluster/cluster'
import { ClusterIpamDriver, clusterPools } from '../../../lib/cluster/ipam'
import { MemoryCluster, type MemoryBackend } from '../../../lib/cluster/memory'
import type { ClusterChange } from '../../../lib/cluster/mirror'
import { decode, type EndpointRecord } from '../../../lib/cluster/records'
import { CnmError } from '../../../lib/base/errors'
import { DefaultIpamDriver } from '../../../lib/ipam/default'

const NETWORK = 'a'.repeat(64)
const id = (n: number) => n.toString(16).padStart(64, '0')

let store: MemoryCluster
const open: Cluster[] = []
beforeEach(() => {
  store = new MemoryCluster()
})
afterEach(async () => {
  for (const cluster of open.splice(0)) await cluster.close()
  store.close()
})

interface Host {
  cluster: Cluster
  backend: MemoryBackend
  told: string[]
  changes: ClusterChange[]
  ipam: ClusterIpamDriver
}

function host(name: string, { hostId = name, leaseSeconds = 60, patience = 300, recovery = 0 } = {}): Host {
  const backend = store.backend()
  const told: string[] = []
  const listener: ClusterListener = {
    connected: () => told.push('connected'),
    lost: error => told.push(`lost: ${(error as CnmError).code}`),
    garbage: key => told.push(`garbage: ${key}`),
    problem: message => told.push(`problem: ${message}`),
  }
  const cluster = new Cluster({
    backend,
    prefix: '/libcnm',
    host: { name, address: '192.0.2.1' },
    hostId,
    leaseSeconds,
    patience,
    recovery,
    listener,
  })
  open.push(cluster)
  const changes: ClusterChange[] = []
  cluster.onChange(some => changes.push(...some))
  const ipam = new ClusterIpamDriver({
    cluster,
    local: new DefaultIpamDriver(),
    pools: clusterPools('/libcnm'),
  })
  ipam.restored()
  return { cluster, backend, told, changes, ipam }
}

async function hosts(...names: string[]): Promise<Host[]> {
  const made = names.map(name => host(name))
  for (const { cluster } of made) await cluster.start()
  return made
}

const endpoint = (n: number, on: string): EndpointRecord => ({
  id: id(n),
  networkId: NETWORK,
  name: `e${n}`,
  names: [`e${n}`],
  resolvable: true,
  healthy: true,
  mac: '02:00:00:00:00:01',
  ipv4: `10.0.0.${n}/24`,
  host: on,
  vtep: '192.0.2.1',
  labels: {},
})

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('in vain')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

test('hosts see one another, and what they publish', async () => {
  const [a, b] = (await hosts('a', 'b')) as [Host, Host]
  await until(() => a.cluster.all('host').length === 2)
  await a.cluster.publish('endpoint', endpoint(1, 'a'))
  await until(() => b.cluster.endpointsOf(NETWORK).length === 1)
  expect(b.cluster.get('endpoint', `${NETWORK}/${id(1)}`)).toEqual(endpoint(1, 'a'))
  await a.cluster.withdraw('endpoint', `${NETWORK}/${id(1)}`)
  await until(() => b.cluster.endpointsOf(NETWORK).length === 0)
  expect(b.changes.map(({ kind, after }) => `${kind} ${after ? 'set' : 'gone'}`)).toEqual([
    'host set',
    'host set',
    'endpoint set',
    'endpoint gone',
  ])
})

test('a host whose lease ends is withdrawn, and comes back with all it has', async () => {
  const [a, b] = (await hosts('a', 'b')) as [Host, Host]
  await a.cluster.publish('endpoint', endpoint(1, 'a'))
  await until(() => b.cluster.endpointsOf(NETWORK).length === 1)
  a.backend.cut = true
  store.expire('1')
  await until(() => b.cluster.endpointsOf(NETWORK).length === 0 && !b.cluster.get('host', 'a'))
  expect(a.cluster.endpointsOf(NETWORK)).toHaveLength(1) // it still sees what it knew
  await expect(a.cluster.publish('endpoint', endpoint(2, 'a'))).rejects.toMatchObject({
    code: 'ERR_CLUSTER_UNAVAILABLE',
    message: expect.stringContaining('host a'),
  })
  await a.cluster.withdraw('endpoint', `${NETWORK}/${id(9)}`)
  a.backend.cut = false
  await until(() => b.cluster.endpointsOf(NETWORK).length === 1 && b.cluster.get('host', 'a') !== undefined)
  expect(a.told).toEqual(['connected', 'lost: ERR_CLUSTER_UNAVAILABLE', 'connected'])
})

test('what left while the host was cut off is withdrawn when it is back', async () => {
  const [a, b] = (await hosts('a', 'b')) as [Host, Host]
  await a.cluster.publish('endpoint', endpoint(1, 'a'))
  await a.cluster.publish('endpoint', endpoint(2, 'a'))
  await until(() => b.cluster.endpointsOf(NETWORK).length === 2)
  a.backend.cut = true
  await until(() => !a.cluster.connected)
  await a.cluster.withdraw('endpoint', `${NETWORK}/${id(1)}`)
  a.backend.cut = false
  await until(() => a.cluster.connected && b.cluster.endpointsOf(NETWORK).length === 1)
  expect(b.cluster.endpointsOf(NETWORK)[0]?.name).toBe('e2')
})

test('back before its lease ended, a host writes only what differs: nobody is woken with the rest', async () => {
  const [a] = (await hosts('a')) as [Host]
  await a.cluster.publish('endpoint', endpoint(1, 'a'))
  await a.cluster.publish('endpoint', endpoint(2, 'a'))
  const key = (n: number) => a.cluster.keyOf('endpoint', `${NETWORK}/${id(n)}`)
  const revisions = () => [1, 2].map(n => store.get(key(n))?.revision)
  const before = revisions()
  a.backend.cut = true
  await until(() => !a.cluster.connected)
  a.cluster.republish('endpoint', { ...endpoint(2, 'a'), healthy: false })
  a.backend.cut = false
  await until(() => a.cluster.connected)
  const after = revisions()
  expect(after[0]).toBe(before[0])
  expect(after[1]).toBeGreaterThan(before[1] as number)
  // With another lease all is written again: what bears the old one goes with it.
  a.backend.cut = true
  await until(() => !a.cluster.connected)
  store.expire('1')
  a.backend.cut = false
  await until(() => a.cluster.connected)
  expect(revisions().every((revision, at) => (revision as number) > (after[at] as number))).toBe(true)
})

test('a short interruption is waited for', async () => {
  const { cluster, backend } = host('a', { patience: 5_000 })
  await cluster.start()
  store.breakWatches()
  await cluster.publish('endpoint', endpoint(1, 'a'))
  backend.cut = true
  setTimeout(() => {
    backend.cut = false
  }, 200)
  await until(() => !cluster.connected)
  expect(await cluster.publish('endpoint', endpoint(2, 'a'))).toBe(true)
})

test('just after a loss it is waited for longer, as servers choose another leader', async () => {
  const { cluster, backend } = host('a', { patience: 50, recovery: 5_000 })
  await cluster.start()
  backend.cut = true
  store.breakWatches()
  await until(() => !cluster.connected)
  setTimeout(() => {
    backend.cut = false
  }, 400)
  expect(await cluster.publish('endpoint', endpoint(1, 'a'))).toBe(true)
})

test('a watch that was compacted away: everything is listed again', async () => {
  const [a, b] = (await hosts('a', 'b')) as [Host, Host]
  b.backend.cut = true
  await until(() => !b.cluster.connected)
  for (let n = 1; n < 20; n++) await a.cluster.publish('endpoint', endpoint(n, 'a'))
  await a.cluster.withdraw('endpoint', `${NETWORK}/${id(3)}`)
  store.compact()
  b.backend.cut = false
  await until(() => b.cluster.endpointsOf(NETWORK).length === 18)
})

test('garbage is told once, and nothing comes of it', async () => {
  const [a] = (await hosts('a')) as [Host]
  const bad = {
    [`/libcnm/state/endpoint/${NETWORK}/x`]: '{"version":1,"value":{}}',
    '/libcnm/state/host/evil': 'not json',
    '/libcnm/state/weird/x': '{}',
    '/libcnm/state/network': '1',
    [`/libcnm/state/network/${id(1)}`]: JSON.stringify({ version: 99, value: {} }),
    [`/libcnm/state/endpoint/${NETWORK}/${id(7)}`]: JSON.stringify({ version: 1, value: endpoint(8, 'z') }),
  }
  for (const [key, value] of Object.entries(bad)) store.put(key, value)
  await until(() => a.told.length === 7)
  expect(a.told.slice(1).sort()).toEqual(
    Object.keys(bad)
      .map(key => `garbage: ${key}`)
      .sort(),
  )
  store.breakWatches()
  await until(() => a.cluster.connected && a.told.includes('lost: ERR_CLUSTER_UNAVAILABLE'))
  await until(() => a.told.at(-1) === 'connected')
  expect(a.told.filter(line => line.startsWith('garbage'))).toHaveLength(6)
  expect(a.cluster.all('endpoint')).toEqual([])
})

test.each([
  ['not json', /JSON/],
  [JSON.stringify({ version: 99, value: {} }), /^it has version 99; this libcnm reads 1$/],
  [JSON.stringify({ version: 1, value: null }), /^it: Invalid input: expected object, received null$/],
  [
    JSON.stringify({ version: 1, value: { name: 'x', address: '192.0.2.1' } }),
    /^hostId: [^\n]* \(and 1 more\)$/,
  ],
])('what is wrong with %s is said in one line', (text, reason) => {
  expect(() => decode('host', text)).toThrow(reason)
})

test('a record that becomes garbage stays as it was known', async () => {
  const [a, b] = (await hosts('a', 'b')) as [Host, Host]
  await a.cluster.publish('endpoint', endpoint(1, 'a'))
  await until(() => b.cluster.endpointsOf(NETWORK).length === 1)
  store.put(`/libcnm/state/endpoint/${NETWORK}/${id(1)}`, '???')
  await until(() => b.told.some(line => line.startsWith('garbage')))
  expect(b.cluster.endpointsOf(NETWORK)).toEqual([endpoint(1, 'a')])
})

test('two machines of one name: the second is refused; the same machine may come again', async () => {
  await hosts('a')
  const twin = host('a', { hostId: 'another machine' })
  await expect(twin.cluster.start()).rejects.toMatchObject({ code: 'ERR_CLUSTER_HOST', kind: 'conflict' })
  const again = host('a')
  await again.cluster.start()
  expect(again.cluster.connected).toBe(true)
})

test('wrong credentials are told at once; a store that is not there is waited for', async () => {
  const denied = host('a')
  denied.backend.fail(new CnmError('ERR_CLUSTER_DENIED', 'wrong password'))
  await expect(denied.cluster.start()).rejects.toMatchObject({ code: 'ERR_CLUSTER_DENIED' })
  const patient = host('b')
  patient.backend.cut = true
  await patient.cluster.start()
  expect(patient.told).toEqual(['lost: ERR_CLUSTER_UNAVAILABLE'])
  patient.backend.cut = false
  await until(() => patient.cluster.connected)
})

test('conditions: a write happens if nothing came between', async () => {
  const [a, b] = (await hosts('a', 'b')) as [Host, Host]
  const service = {
    id: id(5),
    networkId: NETWORK,
    name: 'web',
    created: '2026-01-01T00:00:00Z',
    aliases: [],
    endpointMode: 'vip' as const,
    affinity: 'none' as const,
    ports: [],
    vips: {},
    labels: {},
  }
  const key = `${NETWORK}/${service.id}`
  const create = ({ cluster }: Host) =>
    cluster.write({
      if: [{ key: cluster.keyOf('service', key), is: 'absent' }],
      put: [{ kind: 'service', value: service }],
    })
  expect((await Promise.all([create(a), create(b)])).sort()).toEqual([false, true])
  expect(a.cluster.get('service', key) ?? b.cluster.get('service', key)).toEqual(service)
})

describe('addresses', () => {
  const take = ({ ipam }: Host, poolId: string, owner: string, address?: string) =>
    ipam.requestAddress(poolId, { owner, purpose: 'endpoint', address })

  async function pool({ ipam }: Host, subnet?: string): Promise<string> {
    const { global } = await ipam.defaultAddressSpaces()
    return (await ipam.requestPool({ space: global, family: 4, pool: subnet })).id
  }

  test('of three hosts at once, no two get the same; then the pool is exhausted', async () => {
    const three = await hosts('a', 'b', 'c')
    const poolId = await pool(three[0] as Host, '10.1.0.0/26')
    const asked = Array.from({ length: 62 }, (_, n) => take(three[n % 3] as Host, poolId, `owner${n}`))
    const given = (await Promise.all(asked)).map(({ address }) => address)
    expect(new Set(given).size).toBe(62)
    for (const each of three)
      await expect(take(each, poolId, 'late')).rejects.toMatchObject({ code: 'ERR_POOL_EXHAUSTED' })
    await (three[1] as Host).ipam.releaseAddress(poolId, given[1] as string, 'owner1')
    expect((await take(three[0] as Host, poolId, 'later')).address).toBe(given[1])
  })

  test('a given address has one owner; who is not the owner cannot release it', async () => {
    const [a, b] = (await hosts('a', 'b')) as [Host, Host]
    const poolId = await pool(a, '10.1.0.0/24')
    await take(a, poolId, 'x', '10.1.0.9')
    await expect(take(b, poolId, 'y', '10.1.0.9')).rejects.toMatchObject({
      code: 'ERR_ADDRESS_IN_USE',
      details: { owner: 'x' },
    })
    await expect(b.ipam.releaseAddress(poolId, '10.1.0.9', 'y')).rejects.toMatchObject({
      code: 'ERR_ADDRESS_NOT_OWNED',
    })
    await expect(a.ipam.releaseAddress(poolId, '10.1.0.9', 'z')).rejects.toMatchObject({
      code: 'ERR_ADDRESS_NOT_OWNED',
    })
    for (const address of ['10.1.0.0', '10.1.0.255', '10.2.0.1'])
      await expect(take(a, poolId, 'x', address)).rejects.toMatchObject({ code: 'ERR_ADDRESS_OUT_OF_RANGE' })
  })

  test('pools do not overlap, whoever takes them', async () => {
    const three = await hosts('a', 'b', 'c')
    const ids = await Promise.all(Array.from({ length: 9 }, (_, n) => pool(three[n % 3] as Host)))
    expect(new Set(ids).size).toBe(9)
    await expect(pool(three[0] as Host, '10.0.0.0/16')).rejects.toMatchObject({ code: 'ERR_POOL_OVERLAP' })
    const { global } = await (three[0] as Host).ipam.defaultAddressSpaces()
    const six = await (three[1] as Host).ipam.requestPool({ space: global, family: 6 })
    expect(six.pool).toMatch(/^fd.*::\/64$/)
    for (const poolId of ids) await (three[2] as Host).ipam.releasePool(poolId)
    expect((await pool(three[0] as Host, '10.0.0.0/16')).endsWith('10.0.0.0/16')).toBe(true)
  })

  test('what was released while the host was cut off is free when it is back; what it has is kept', async () => {
    const [a, b] = (await hosts('a', 'b')) as [Host, Host]
    const poolId = await pool(a, '10.1.0.0/24')
    await take(a, poolId, 'x', '10.1.0.9')
    await take(a, poolId, 'y', '10.1.0.10')
    a.backend.cut = true
    await until(() => !a.cluster.connected)
    await a.ipam.releaseAddress(poolId, '10.1.0.9', 'x')
    await expect(take(b, poolId, 'z', '10.1.0.9')).rejects.toMatchObject({ code: 'ERR_ADDRESS_IN_USE' })
    a.backend.cut = false
    await until(() => a.cluster.connected)
    await take(b, poolId, 'z', '10.1.0.9')
    await expect(take(b, poolId, 'z', '10.1.0.10')).rejects.toMatchObject({ code: 'ERR_ADDRESS_IN_USE' })
  })

  test('after a restart without the store, the addresses are had, and made sure of later', async () => {
    const before = host('a')
    await before.cluster.start()
    const poolId = await pool(before, '10.1.0.0/24')
    await take(before, poolId, 'x', '10.1.0.9')
    await before.cluster.close()
    const after = host('a')
    after.backend.cut = true
    await after.cluster.start()
    after.cluster.claims.keepAddress('10.1.0.0/24', '10.1.0.9', 'x')
    after.cluster.claims.keepAddress('10.1.0.0/24', '10.1.0.10', 'y') // its claim was lost with the store, say
    after.backend.cut = false
    await until(() => after.cluster.connected)
    const [b] = (await hosts('b')) as [Host]
    for (const address of ['10.1.0.9', '10.1.0.10'])
      await expect(take(b, poolId, 'z', address)).rejects.toMatchObject({ code: 'ERR_ADDRESS_IN_USE' })
  })

  test('the addresses of a host that will not come back can be freed', async () => {
    const [a, b] = (await hosts('a', 'b')) as [Host, Host]
    const poolId = await pool(a, '10.1.0.0/24')
    await take(a, poolId, 'x', '10.1.0.9')
    expect(await b.cluster.claims.forgetHost('a')).toBe(1)
    await take(b, poolId, 'z', '10.1.0.9')
  })

  test('VXLAN ids: each once; one that is wanted and taken is refused', async () => {
    const three = await hosts('a', 'b', 'c')
    const ids = await Promise.all(
      Array.from({ length: 9 }, (_, n) => (three[n % 3] as Host).cluster.claims.take(`n${n}`)),
    )
    expect(new Set(ids).size).toBe(9)
    const { claims } = (three[0] as Host).cluster
    await expect(claims.take('other', ids[0])).rejects.toMatchObject({ code: 'ERR_SEGMENT_IN_USE' })
    await claims.giveBack('other', ids[0] as number) // somebody else's: left alone
    await expect(claims.take('other', ids[0])).rejects.toMatchObject({ code: 'ERR_SEGMENT_IN_USE' })
    await claims.giveBack('n0', ids[0] as number)
    expect(await claims.take('other', ids[0])).toBe(ids[0])
  })
})

describe('what is published changes', () => {
  const first = endpoint(1, 'a')
  const key = `/libcnm/state/endpoint/${NETWORK}/${id(1)}`
  const stored = () => {
    const text = store.snapshot()[key]
    return text && (JSON.parse(text) as { value: EndpointRecord }).value.name
  }
  /** Holds back the call that puts or removes the key, the `nth` of them, until it is let go. */
  function hold(backend: MemoryBackend, nth: number) {
    const transact = backend.transact.bind(backend)
    let seen = 0
    let letGo = () => {}
    const gate = new Promise<void>(resolve => {
      letGo = resolve
    })
    backend.transact = async transaction => {
      const concerns = [
        ...(transaction.put ?? []).map(put => put.key),
        ...(transaction.remove ?? []),
      ].includes(key)
      if (concerns && ++seen === nth) await gate
      return transact(transaction)
    }
    return { letGo: () => letGo(), seen: () => seen }
  }

  test('twice in a row: however long the first takes, the second is what stays', async () => {
    const [a] = (await hosts('a')) as [Host]
    await a.cluster.publish('endpoint', first)
    const { letGo } = hold(a.backend, 1)
    a.cluster.republish('endpoint', { ...first, name: 'second' })
    a.cluster.republish('endpoint', { ...first, name: 'third' })
    await new Promise(resolve => setTimeout(resolve, 20))
    letGo()
    await until(() => stored() === 'third')
    await new Promise(resolve => setTimeout(resolve, 20))
    expect(stored()).toBe('third')
  })

  test('while the connection is made anew: it is not missed', async () => {
    const [a] = (await hosts('a')) as [Host]
    await a.cluster.publish('endpoint', first)
    await a.cluster.publish('endpoint', endpoint(2, 'a'))
    a.backend.cut = true
    await until(() => !a.cluster.connected)
    store.expire('1')
    const { letGo, seen } = hold(a.backend, 1)
    a.backend.cut = false
    await until(() => seen() === 1)
    expect(a.cluster.connected).toBe(false)
    a.cluster.republish('endpoint', { ...first, name: 'second' })
    await a.cluster.withdraw('endpoint', `${NETWORK}/${id(2)}`)
    letGo()
    await until(() => a.cluster.connected && stored() === 'second')
    await until(() => !(`/libcnm/state/endpoint/${NETWORK}/${id(2)}` in store.snapshot()))
  })

  test('and the store refuses it: it is tried again', async () => {
    const [a] = (await hosts('a')) as [Host]
    await a.cluster.publish('endpoint', first)
    const transact = a.backend.transact.bind(a.backend)
    let full = true
    a.backend.transact = async transaction => {
      if (full) throw new CnmError('ERR_CLUSTER_FULL', 'mvcc: database space exceeded')
      return transact(transaction)
    }
    a.cluster.republish('endpoint', { ...first, name: 'second' })
    await new Promise(resolve => setTimeout(resolve, 20))
    full = false
    await until(() => stored() === 'second')
    expect(a.cluster.connected).toBe(true)
  })
})
