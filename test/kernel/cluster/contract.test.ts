/** The contract on a real etcd: in the lane of real things, since the server must be installed. */
import { EtcdBackend } from '../../../lib/cluster/etcd'
import { clusterSuite } from '../../../lib/testing/cluster-suite'
import { Certificates } from '../../support/certificates'
import { Line, TestEtcd } from '../../support/etcd'

let etcd: TestEtcd
beforeAll(async () => {
  etcd = await TestEtcd.start()
})
afterAll(() => etcd.stop())

let runs = 0
const backend = (endpoint = etcd.endpoint) => new EtcdBackend({ endpoints: [endpoint], timeout: 3_000 })

describe('etcd', () =>
  clusterSuite({
    async open() {
      const [one, two] = [backend(), backend()]
      return {
        one,
        two,
        prefix: `/run${++runs}`,
        close: async () => {
          one.close()
          two.close()
        },
      }
    },
    async compact(store) {
      const { revision } = await store.list('/')
      await etcd.post('/v3/kv/compaction', { revision: String(revision), physical: true })
    },
  }))

test('a server that is not there: a typed error, within the time allowed', async () => {
  const store = new EtcdBackend({ endpoints: ['http://127.0.0.1:1'], timeout: 1_000 })
  const began = Date.now()
  await expect(store.get('/x')).rejects.toMatchObject({
    code: 'ERR_CLUSTER_UNAVAILABLE',
    message: expect.stringMatching(/127\.0\.0\.1:1.*ECONNREFUSED 127\.0\.0\.1:1$/),
  })
  expect(Date.now() - began).toBeLessThan(5_000)
  store.close()
})

test('a server that does not answer: a typed error, and all is well when it does again', async () => {
  const line = await Line.to(etcd.port)
  const store = new EtcdBackend({ endpoints: [line.endpoint], timeout: 500 })
  await store.get('/x')
  line.freeze()
  await expect(store.get('/x')).rejects.toMatchObject({ code: 'ERR_CLUSTER_UNAVAILABLE' })
  line.heal()
  await retry(() => store.get('/x'))
  store.close()
  await line.close()
})

test('of several servers one that is down does no harm', async () => {
  const store = new EtcdBackend({ endpoints: ['http://127.0.0.1:1', etcd.endpoint], timeout: 2_000 })
  for (let n = 0; n < 10; n++) await store.get('/x')
  store.close()
})

test('a watch hears that the server went', async () => {
  const line = await Line.to(etcd.port)
  const store = new EtcdBackend({ endpoints: [line.endpoint], timeout: 1_000 })
  const ended = new Promise<unknown>(resolve => {
    void store.watch('/x', 1, { changed() {}, ended: resolve })
  })
  await store.get('/x')
  line.cut()
  expect(await ended).toMatchObject({ code: 'ERR_CLUSTER_UNAVAILABLE' })
  store.close()
  await line.close()
})

describe('users and rights', () => {
  let own: TestEtcd
  beforeAll(async () => {
    own = await TestEtcd.start()
    await own.post('/v3/auth/user/add', { name: 'root', password: 'r' })
    await own.post('/v3/auth/user/grant', { user: 'root', role: 'root' })
    await own.post('/v3/auth/user/add', { name: 'poor', password: 'p' })
    await own.post('/v3/auth/enable', {})
  })
  afterAll(() => own.stop())
  const as = (username?: string, password = '') =>
    new EtcdBackend({
      endpoints: [own.endpoint],
      timeout: 2_000,
      ...(username !== undefined && { credentials: { username, password } }),
    })

  test.each([
    ['no credentials', undefined, ''],
    ['a wrong password', 'root', 'wrong'],
    ['a user without rights', 'poor', 'p'],
  ])('%s', async (_, username, password) => {
    const store = as(username, password)
    await expect(store.list('/libcnm/')).rejects.toMatchObject({ code: 'ERR_CLUSTER_DENIED', kind: 'denied' })
    store.close()
  })

  test('the right ones', async () => {
    const store = as('root', 'r')
    const { revision } = await store.list('/libcnm/')
    const seen = new Promise(resolve => {
      void store.watch('/libcnm/', revision + 1, { changed: resolve, ended: resolve })
    })
    await store.transact({ put: [{ key: '/libcnm/a', value: '1', lease: await store.grantLease(30) }] })
    expect(await seen).toEqual([expect.objectContaining({ key: '/libcnm/a', value: '1' })])
    store.close()
  })
})

test('a server that is full: a typed error, and reading goes on', async () => {
  const full = await TestEtcd.start('--quota-backend-bytes', String(4 << 20))
  const store = new EtcdBackend({ endpoints: [full.endpoint], timeout: 3_000 })
  const fill = async () => {
    for (let n = 0; n < 50; n++)
      await store.transact({ put: [{ key: `/x/${n}`, value: 'x'.repeat(500_000) }] })
  }
  await expect(fill()).rejects.toMatchObject({ code: 'ERR_CLUSTER_FULL', kind: 'exhausted' })
  expect((await store.get('/x/0'))?.value).toHaveLength(500_000)
  store.close()
  await full.stop()
})

test('three members: one that is killed is not missed, and comes back', async () => {
  const members = await TestEtcd.members(3)
  const store = new EtcdBackend({ endpoints: members.map(({ endpoint }) => endpoint), timeout: 3_000 })
  try {
    let n = 0
    const put = () => store.transact({ put: [{ key: `/m/${++n}`, value: 'x' }] })
    await put()
    const { leader } = await (members[0] as TestEtcd).post('/v3/maintenance/status', {})
    const led = await Promise.all(members.map(member => member.post('/v3/maintenance/status', {})))
    const member = members[
      led.findIndex(({ header }) => (header as { member_id: string }).member_id === leader)
    ] as TestEtcd
    await member.kill()
    await retry(put) // another one has to be elected first
    await member.run()
    const { entries } = await store.list('/m/')
    expect(entries.length).toBeGreaterThanOrEqual(2)
  } finally {
    store.close()
    await Promise.all(members.map(member => member.stop()))
  }
})

test('TLS, with certificates on both sides; without ours the server says no', async () => {
  const certificates = new Certificates()
  const own = await TestEtcd.start(...certificates.server)
  const tls = certificates.client
  const right = new EtcdBackend({ endpoints: [own.endpoint], timeout: 2_000, tls })
  const stranger = new EtcdBackend({ endpoints: [own.endpoint], timeout: 2_000, tls: { ca: tls.ca } })
  try {
    await right.transact({ put: [{ key: '/x', value: '1' }] })
    expect((await right.get('/x'))?.value).toBe('1')
    await expect(stranger.get('/x')).rejects.toMatchObject({ code: 'ERR_CLUSTER_UNAVAILABLE' })
  } finally {
    right.close()
    stranger.close()
    await own.stop()
    certificates.remove()
  }
})

async function retry<T>(body: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await body()
    } catch (error) {
      if (attempt === 20) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}
