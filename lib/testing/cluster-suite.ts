/** The contract of the store that hosts share, for whoever writes another one: etcd and the one in memory pass it. */
import type { Backend, Change, WatchListener } from '../cluster/contract'

export interface ClusterSuiteOptions {
  /** Two ways to one store, empty below `prefix`. */
  open(): Promise<{ one: Backend; two: Backend; prefix: string; close(): Promise<void> }>
  /** The store forgets its history; absent: that part is left out. */
  compact?(backend: Backend): Promise<void>
}

/** Call it inside a `describe`. */
export function clusterSuite({ open, compact }: ClusterSuiteOptions): void {
  let one: Backend
  let two: Backend
  let prefix: string
  let close: () => Promise<void>
  const watches: { close(): void }[] = []
  const key = (name: string) => `${prefix}/${name}`

  beforeEach(async () => {
    ;({ one, two, prefix, close } = await open())
  })
  afterEach(async () => {
    for (const watch of watches.splice(0)) watch.close()
    await close()
  })

  const put = (name: string, value: string, lease?: string) =>
    one.transact({ put: [{ key: key(name), value, ...(lease !== undefined && { lease }) }] })

  /** Collects what a watch tells; `until` resolves when the condition holds. */
  async function follow(backend: Backend, from: number) {
    const seen: Change[] = []
    let ended: unknown
    let look = () => {}
    const listener: WatchListener = {
      changed: changes => {
        seen.push(...changes)
        look()
      },
      ended: error => {
        ended = error
        look()
      },
    }
    watches.push(await backend.watch(`${prefix}/`, from, listener))
    const until = (condition: () => boolean) =>
      new Promise<void>(resolve => {
        look = () => {
          if (condition()) resolve()
        }
        look()
      })
    return { seen, until, ended: () => ended }
  }

  test('what one writes the other reads', async () => {
    expect(await two.get(key('a'))).toBeUndefined()
    const { revision } = await put('a', 'é 1')
    expect(await two.get(key('a'))).toEqual({ key: key('a'), value: 'é 1', revision })
    await put('b', '2')
    const listing = await two.list(`${prefix}/`)
    expect(listing.entries.map(entry => [entry.key, entry.value])).toEqual([
      [key('a'), 'é 1'],
      [key('b'), '2'],
    ])
    expect(listing.revision).toBeGreaterThanOrEqual(revision)
    expect((await two.list(`${prefix}/`, { keysOnly: true })).entries.map(entry => entry.value)).toEqual([
      '',
      '',
    ])
  })

  test('conditions: absent, present, revision, value, empty prefix', async () => {
    const attempt = async (condition: NonNullable<Parameters<Backend['transact']>[0]['if']>[number]) =>
      (await two.transact({ if: [condition], put: [{ key: key('probe'), value: 'x' }] })).done
    const { revision } = await put('a/b', 'v')
    expect(await attempt({ key: key('a/b'), is: 'absent' })).toBe(false)
    expect(await attempt({ key: key('a/c'), is: 'absent' })).toBe(true)
    expect(await attempt({ key: key('a/b'), is: 'present' })).toBe(true)
    expect(await attempt({ key: key('a/c'), is: 'present' })).toBe(false)
    expect(await attempt({ key: key('a/b'), revision })).toBe(true)
    expect(await attempt({ key: key('a/b'), revision: revision + 100 })).toBe(false)
    expect(await attempt({ key: key('a/b'), value: 'v' })).toBe(true)
    expect(await attempt({ key: key('a/b'), value: 'w' })).toBe(false)
    expect(await attempt({ prefix: key('a/'), is: 'empty' })).toBe(false)
    expect(await attempt({ prefix: key('z/'), is: 'empty' })).toBe(true)
  })

  test('a transaction whose conditions fail does nothing; one that holds does all', async () => {
    await put('a', '1')
    const failed = await one.transact({
      if: [
        { key: key('a'), is: 'present' },
        { key: key('b'), is: 'present' },
      ],
      put: [{ key: key('c'), value: '3' }],
      remove: [key('a')],
    })
    expect(failed.done).toBe(false)
    expect((await one.list(`${prefix}/`)).entries.map(entry => entry.key)).toEqual([key('a')])
    await put('d/1', '')
    await put('d/2', '')
    const held = await one.transact({
      put: [{ key: key('c'), value: '3' }],
      remove: [key('a'), key('never')],
      removePrefixes: [key('d/')],
    })
    expect(held.done).toBe(true)
    expect((await one.list(`${prefix}/`)).entries.map(entry => entry.key)).toEqual([key('c')])
  })

  test('of many who claim one key at once, one gets it', async () => {
    const claims = Array.from({ length: 20 }, (_, at) =>
      (at % 2 ? one : two).transact({
        if: [{ key: key('claim'), is: 'absent' }],
        put: [{ key: key('claim'), value: String(at) }],
      }),
    )
    const winners = (await Promise.all(claims)).flatMap(({ done }, at) => (done ? [String(at)] : []))
    expect(winners).toHaveLength(1)
    expect((await one.get(key('claim')))?.value).toBe(winners[0])
  })

  test('a watch tells every change from its revision on, in order', async () => {
    const { revision } = await one.list(`${prefix}/`)
    await put('a', '1')
    const { seen, until } = await follow(two, revision + 1)
    await put('b', '2')
    await one.transact({ remove: [key('a')] })
    await until(() => seen.length >= 3)
    expect(seen.map(change => [change.key, change.value])).toEqual([
      [key('a'), '1'],
      [key('b'), '2'],
      [key('a'), undefined],
    ])
  })

  test('keys of a lease go when it is revoked, and others see it', async () => {
    const lease = await one.grantLease(60)
    expect(await one.renewLease(lease)).toBe(true)
    await put('leased', '1', lease)
    await put('lasting', '1')
    const { revision } = await one.list(`${prefix}/`)
    const { seen, until } = await follow(two, revision + 1)
    await one.revokeLease(lease)
    await until(() => seen.length >= 1)
    expect(seen).toEqual([expect.objectContaining({ key: key('leased') })])
    expect(seen[0]?.value).toBeUndefined()
    expect(await one.renewLease(lease)).toBe(false)
    await one.revokeLease(lease)
    expect((await two.list(`${prefix}/`)).entries.map(entry => entry.key)).toEqual([key('lasting')])
  })

  test('a lease that nobody renews ends by itself', async () => {
    const lease = await one.grantLease(1)
    await put('leased', '1', lease)
    const { revision } = await one.list(`${prefix}/`)
    const { seen, until } = await follow(two, revision + 1)
    await until(() => seen.length >= 1)
    expect(await one.renewLease(lease)).toBe(false)
  })

  test('nothing can be put with a lease that has ended', async () => {
    const lease = await one.grantLease(60)
    await one.revokeLease(lease)
    await expect(put('late', '1', lease)).rejects.toMatchObject({ kind: 'unavailable' })
    expect(await two.get(key('late'))).toBeUndefined()
  })

  if (compact)
    test('a watch from before a compaction ends, instead of being silent', async () => {
      const { revision } = await put('a', '1')
      await put('a', '2')
      await put('a', '3')
      await compact(one)
      const { until, ended } = await follow(two, revision)
      await until(() => ended() !== undefined)
      expect(ended()).toMatchObject({ code: 'ERR_CLUSTER_UNAVAILABLE' })
    })
}
