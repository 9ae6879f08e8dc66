import { z } from 'zod'
import { isCnmError } from '../../lib/base/errors'
import type { RecordKind, Store } from '../../lib/store/contract'
import type { Schemas } from '../../lib/store/migrate'

/** A place that outlives the stores opened on it. */
export interface StorePlace {
  open(schemas?: Schemas): Promise<Store>
  remove(): Promise<void>
}

const record = (kind: RecordKind, id: string, value: unknown = { name: id }, version = 1) => ({
  kind,
  id,
  version,
  value,
})

/** What every store promises. */
export function storeSuite(place: () => Promise<StorePlace>): void {
  let at: StorePlace
  let opened: Store[]
  beforeEach(async () => {
    at = await place()
    opened = []
  })
  afterEach(async () => {
    for (const store of opened) await store.close()
    await at.remove()
  })
  const open = async (schemas?: Schemas): Promise<Store> => {
    const store = await at.open(schemas)
    opened.push(store)
    return store
  }
  const reopen = async (store: Store, schemas?: Schemas): Promise<Store> => {
    await store.close()
    return open(schemas)
  }
  const ids = async (store: Store): Promise<string[]> =>
    (await store.load()).records.map(({ kind, id }) => `${kind}/${id}`)

  test('a new store is empty', async () => {
    expect(await (await open()).load()).toEqual({ records: [], damaged: [] })
  })

  test('what was written is there after a restart, in the order of restoring', async () => {
    const store = await open()
    await store.write({ put: [record('sandbox', 's'), record('network', 'b'), record('endpoint', 'e')] })
    await store.write({
      put: [record('network', 'a', { deep: [1, { x: null }], text: 'ä\n"' }), record('meta', 'm')],
    })
    const again = await reopen(store)
    expect(await ids(again)).toEqual(['meta/m', 'network/a', 'network/b', 'endpoint/e', 'sandbox/s'])
    expect((await again.load()).records[1]).toEqual(
      record('network', 'a', { deep: [1, { x: null }], text: 'ä\n"' }),
    )
  })

  test('a load sees what has just been written, without a restart', async () => {
    const store = await open()
    await store.write({ put: [record('network', 'a')] })
    expect(await ids(store)).toEqual(['network/a'])
    await store.write({ put: [record('network', 'a', { name: 'changed' })] })
    expect((await store.load()).records).toEqual([record('network', 'a', { name: 'changed' })])
  })

  test('the last write of a record stands, be it a put or a removal', async () => {
    const store = await open()
    await Promise.all([
      store.write({ put: [record('network', 'a', 1), record('network', 'b', 1)] }),
      store.write({ remove: [{ kind: 'network', id: 'a' }] }),
      store.write({ put: [record('network', 'b', 2)] }),
      store.write({ remove: [{ kind: 'network', id: 'never was' }] }),
      store.write({ put: [record('network', 'c', 1)], remove: [{ kind: 'network', id: 'c' }] }),
    ])
    expect((await (await reopen(store)).load()).records).toEqual([record('network', 'b', 2)])
  })

  test('the same id in two kinds is two records', async () => {
    const store = await open()
    await store.write({ put: [record('network', 'x'), record('sandbox', 'x')] })
    await store.write({ remove: [{ kind: 'network', id: 'x' }] })
    expect(await ids(await reopen(store))).toEqual(['sandbox/x'])
  })

  test('a value is copied when it is written', async () => {
    const store = await open()
    const value = { name: 'before' }
    const written = store.write({ put: [record('network', 'a', value)] })
    value.name = 'after'
    await written
    expect((await store.load()).records[0]?.value).toEqual({ name: 'before' })
  })

  test('a write is whole or not at all: one bad record and nothing of it is there', async () => {
    const store = await open()
    const loop: { self?: unknown } = {}
    loop.self = loop
    await expect(
      store.write({ put: [record('network', 'a'), record('network', 'b', loop)] }),
    ).rejects.toMatchObject({
      code: 'ERR_STORE',
    })
    await expect(store.write({ put: [record('network', 'a'), record('network', '')] })).rejects.toMatchObject(
      {
        code: 'ERR_STORE',
      },
    )
    await expect(store.write({ put: [record('network', 'n'.repeat(2000))] })).rejects.toMatchObject({
      code: 'ERR_STORE',
    })
    expect(await ids(store)).toEqual([])
    await store.write({ put: [record('network', 'a')] })
    expect(await ids(await reopen(store))).toEqual(['network/a'])
  })

  test('five hundred callers at once, some of whom want it on the disk', async () => {
    const store = await open()
    const wanted = Array.from({ length: 500 }, (_, i) => `e${String(i).padStart(3, '0')}`)
    await Promise.all(
      wanted.map((id, i) => store.write({ put: [record('endpoint', id)] }, { flush: i % 3 === 0 })),
    )
    expect(await ids(await reopen(store))).toEqual(wanted.map(id => `endpoint/${id}`))
  })

  test('a write that asks for nothing is fine', async () => {
    const store = await open()
    await store.write({})
    await store.write({ put: [], remove: [] }, { flush: true })
    expect(await ids(store)).toEqual([])
  })

  test('after close nothing can be done, and closing again is harmless', async () => {
    const store = await open()
    await store.close()
    await store.close()
    await expect(store.write({ put: [record('network', 'a')] })).rejects.toMatchObject({ code: 'ERR_CLOSED' })
    await expect(store.load()).rejects.toMatchObject({ code: 'ERR_CLOSED' })
  })

  test('close waits for what was written without waiting', async () => {
    const store = await open()
    const writes = [1, 2, 3].map(i => store.write({ put: [record('network', `n${i}`)] }, { flush: true }))
    await store.close()
    await Promise.all(writes)
    expect(await ids(await open())).toEqual(['network/n1', 'network/n2', 'network/n3'])
  })

  describe('versions', () => {
    const today: Schemas = {
      network: {
        version: 3,
        schema: z.strictObject({ name: z.string(), labels: z.record(z.string(), z.string()) }),
        migrations: {
          1: value => ({ name: (value as { title: string }).title }),
          2: value => ({ ...(value as object), labels: {} }),
        },
      },
    }

    test('an older record is migrated step by step, and stays migrated', async () => {
      let store = await open()
      await store.write({
        put: [record('network', 'a', { title: 'one' }, 1), record('network', 'b', { name: 'two' }, 2)],
      })
      store = await reopen(store, today)
      const migrated = [
        record('network', 'a', { name: 'one', labels: {} }, 3),
        record('network', 'b', { name: 'two', labels: {} }, 3),
      ]
      expect(await store.load()).toEqual({ records: migrated, damaged: [] })
      expect((await (await reopen(store, today)).load()).records).toEqual(migrated)
    })

    test('a newer record is refused, naming both versions; nothing is changed', async () => {
      let store = await open()
      const newer = record('network', 'a', { from: 'the future' }, 4)
      await store.write({ put: [newer] })
      store = await reopen(store, today)
      const error: unknown = await store.load().catch((e: unknown) => e)
      expect(isCnmError(error, 'ERR_STORE_VERSION') && error.message).toBe(
        'the store holds network a in version 4; this library reads up to version 3',
      )
      expect((await (await reopen(store)).load()).records).toEqual([newer])
    })

    test('a record of a kind that is not known is from a newer library', async () => {
      let store = await open()
      await store.write({ put: [{ ...record('network', 'a'), kind: 'galaxy' as RecordKind }] })
      store = await reopen(store)
      await expect(store.load()).rejects.toMatchObject({ code: 'ERR_STORE_VERSION' })
    })

    test('a record that does not fit its schema is set aside with the reason, the others are read', async () => {
      let store = await open()
      await store.write({
        put: [
          record('network', 'bad', { name: 5, labels: {} }, 3),
          record('network', 'good', { name: 'good', labels: {} }, 3),
        ],
      })
      store = await reopen(store, today)
      const { records, damaged } = await store.load()
      expect(records.map(({ id }) => id)).toEqual(['good'])
      expect(damaged).toEqual([
        {
          kind: 'network',
          id: 'bad',
          reason: expect.stringContaining('value.name'),
          raw: expect.stringContaining('5'),
        },
      ])
    })

    test('so is one whose migration throws or does not exist', async () => {
      let store = await open()
      await store.write({ put: [record('network', 'a', null, 1), record('network', 'b', { name: 'b' }, 2)] })
      store = await reopen(store, {
        network: { ...today.network!, migrations: { 1: today.network!.migrations![1]! } },
      })
      const { records, damaged } = await store.load()
      expect(records).toEqual([])
      expect(damaged.map(({ id, reason }) => [id, reason])).toEqual([
        ['a', expect.stringMatching(/^the migration from version 1 failed/)],
        ['b', 'there is no migration from version 2 to 3'],
      ])
    })

    test('what is damaged is told at each start until the record is removed', async () => {
      let store = await open()
      await store.write({ put: [record('network', 'bad', {}, 3)] })
      for (let start = 0; start < 3; start++) {
        store = await reopen(store, today)
        expect((await store.load()).damaged.map(({ id }) => id)).toEqual(['bad'])
      }
      await store.write({ remove: [{ kind: 'network', id: 'bad' }] })
      expect((await (await reopen(store, today)).load()).damaged).toEqual([])
    })
  })
}
