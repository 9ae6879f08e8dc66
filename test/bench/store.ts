import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { open } from 'lmdb'
import { openStore } from '../../lib/store/open'

/** What a write to the store costs, beside what LMDB itself would cost per commit; STORE_DIR chooses the disk. */
export async function run(): Promise<void> {
  const base = mkdtempSync(join(process.env.STORE_DIR ?? tmpdir(), 'libcnm-bench-'))
  const filler = 'x'.repeat(1200)
  try {
    const dataDir = join(base, 'ours')
    const store = await openStore({ dataDir })
    const put = (i: number) => [
      { kind: 'endpoint' as const, id: `e${i % 5000}`, version: 1, value: { filler } },
    ]
    const write = await times(20_000, i => store.write({ put: put(i) }))
    const flush = await times(500, i => store.write({ put: put(i) }, { flush: true }))
    const crowd = await times(20, () =>
      Promise.all(Array.from({ length: 200 }, (_, i) => store.write({ put: put(i) }, { flush: true }))),
    )
    await store.close()
    const started = performance.now()
    const again = await openStore({ dataDir })
    const { records } = await again.load()
    const loading = performance.now() - started
    await again.close()

    const lmdb = open<string, string>({
      path: join(base, 'lmdb.mdb'),
      encoding: 'string',
      overlappingSync: false,
    })
    const synced = await times(500, i => lmdb.transactionSync(() => lmdb.put(`e${i}`, filler)))
    const worker = await times(500, i => lmdb.put(`e${i}`, filler))
    await lmdb.close()
    const loose = open<string, string>({ path: join(base, 'loose.mdb'), encoding: 'string', noSync: true })
    const unsynced = await times(5000, i => loose.transactionSync(() => loose.put(`e${i}`, filler)))
    await loose.close()

    console.log('one record of 1.2 KB, microseconds      median      p90')
    for (const [what, samples] of Object.entries({
      'write: survives the process': write,
      'write, flush: survives the machine': flush,
      '200 flushes at once, all': crowd,
      'LMDB commit, synced': synced,
      'LMDB put through its worker, synced': worker,
      'LMDB commit, not synced': unsynced,
    }))
      console.log(`${what.padEnd(38)}${figure(samples, 0.5)}${figure(samples, 0.9)}`)
    console.log(`open and load ${records.length} records: ${loading.toFixed(1)} ms`)
    // an endpoint's join writes its intent and its end
    const share = (2 * at(write, 0.5)) / 1.2
    console.log(
      `two writes per join: ${(share * 100).toFixed(1)} % of the bare kernel's 1.2 ms (to stay under 20 %)`,
    )
  } finally {
    rmSync(base, { recursive: true })
  }
}

async function times(count: number, body: (i: number) => unknown): Promise<number[]> {
  const samples: number[] = []
  for (let i = 0; i < count; i++) {
    const started = performance.now()
    await body(i)
    samples.push(performance.now() - started)
    if (i % 50 === 0) await new Promise(setImmediate) // let the checkpoints run, as they would
  }
  return samples.sort((a, b) => a - b)
}

const at = (sorted: number[], share: number): number =>
  sorted[Math.floor(sorted.length * share)] ?? Number.NaN
const figure = (sorted: number[], share: number): string => (at(sorted, share) * 1000).toFixed(1).padStart(9)
