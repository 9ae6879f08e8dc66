import { LmdbStore } from '../../../lib/store/lmdb'

/**
 * Run as a child: `child.ts DATADIR HOW`. `count` writes records without end and prints the number of each after it was
 * acknowledged; `fill` writes until it is refused, then tells the refusal, frees nothing and reads back what there is;
 * `hold` opens and waits; `try` tells whether it can be opened.
 */
async function main([dataDir = '', how]: string[]): Promise<void> {
  const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`)
  try {
    const store = await LmdbStore.open({ dataDir, checkpointAfter: 3 })
    const { records } = await store.load()
    say({ opened: process.pid })
    if (how === 'count')
      for (let i = records.length; ; i++) {
        const id = String(i).padStart(9, '0')
        const put = [
          { kind: 'network' as const, id, version: 1, value: { i, filler: 'x'.repeat((i * 37) % 3000) } },
          { kind: 'endpoint' as const, id, version: 1, value: { i } },
        ]
        await store.write({ put }, { flush: i % 50 === 0 })
        say({ written: i })
        if (i % 20 === 0) await new Promise(setImmediate)
      }
    if (how === 'fill') {
      let written = 0
      for (;;) {
        const put = [{ kind: 'network' as const, id: `n${written}`, version: 1, value: 'x'.repeat(3000) }]
        try {
          await store.write({ put })
          written++
        } catch (error) {
          say({ refused: error, cause: (error as { cause?: { code?: string } }).cause?.code })
          break
        }
      }
      say({ written, found: (await store.load()).records.length })
      // a smaller one may still fit or not: either way the store goes on answering
      const small = await store.write({ remove: [{ kind: 'network', id: 'n0' }] }).then(
        () => 1,
        () => 0,
      )
      say({ removed: small, found: (await store.load()).records.length })
      await store.close()
    }
    if (how === 'hold') setInterval(() => undefined, 1000)
    if (how === 'try') await store.close()
  } catch (error) {
    say({ error })
  }
}

void main(process.argv.slice(2))
