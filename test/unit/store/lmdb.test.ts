import { type ChildProcess, spawn } from 'node:child_process'
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { open as openLmdb } from 'lmdb'
import type { Store } from '../../../lib/store/contract'
import { openStore } from '../../../lib/store/open'

const HOOK = resolve(__dirname, '../../support/ts-child.cjs')
const CHILD = join(__dirname, 'child.ts')

let dataDir: string
const stores: Store[] = []
const children: ChildProcess[] = []
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'libcnm-store-'))
})
afterEach(async () => {
  for (const child of children.splice(0)) await killed(child)
  for (const store of stores.splice(0)) await store.close()
  rmSync(dataDir, { recursive: true })
})

async function open(): Promise<Store> {
  const store = await openStore({ dataDir })
  stores.push(store)
  return store
}
const network = (id: string, value: unknown = { id }) => ({ kind: 'network' as const, id, version: 1, value })

interface Line {
  opened?: number
  written?: number
  found?: number
  removed?: number
  cause?: string
  refused?: { code: string; message: string }
  error?: { code: string; message: string; details: { pid?: number; command?: string } }
}

/** A child at work on the same dataDir; `wrap` are words before `node`. */
function child(how: string, wrap: string[] = [], options: { uid?: number } = {}) {
  const [command, ...args] = [...wrap, process.execPath, '-r', HOOK, CHILD, dataDir, how]
  const process_ = spawn(command!, args, { stdio: ['ignore', 'pipe', 'inherit'], ...options })
  children.push(process_)
  const lines = createInterface({ input: process_.stdout! })[Symbol.asyncIterator]()
  return {
    process: process_,
    async next(): Promise<Line | undefined> {
      const { value, done } = await lines.next()
      return done ? undefined : (JSON.parse(value as string) as Line)
    },
  }
}

async function killed(one: ChildProcess): Promise<void> {
  if (one.exitCode !== null || one.signalCode !== null) return
  const gone = new Promise(resolve => one.once('exit', resolve))
  one.kill('SIGKILL')
  await gone
}

describe('one process at a time', () => {
  test('a second controller in this process is refused', async () => {
    await open()
    await expect(open()).rejects.toMatchObject({
      code: 'ERR_STORE_LOCKED',
      message: expect.stringContaining(`this process itself (pid ${process.pid})`),
      details: { pid: process.pid },
    })
  })

  test('another process is named by its pid and command, and can be followed as soon as it is killed', async () => {
    const holder = child('hold')
    const pid = (await holder.next())?.opened
    expect(pid).toBe(holder.process.pid)
    await expect(open()).rejects.toMatchObject({
      code: 'ERR_STORE_LOCKED',
      message: expect.stringMatching(new RegExp(`held by process ${pid} \\(.*child.ts`)),
      details: { pid },
    })
    await killed(holder.process)
    await open()
  })

  test('and the other way round', async () => {
    const store = await open()
    expect((await child('try').next())?.error).toMatchObject({
      code: 'ERR_STORE_LOCKED',
      details: { pid: process.pid },
    })
    await store.close()
    expect((await child('try').next())?.error).toBeUndefined()
  })

  test('of ten that try at once exactly one succeeds', async () => {
    const results = await Promise.allSettled(Array.from({ length: 10 }, open))
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  })

  test('a lock file left behind by a dead process is no obstacle, whatever it says', async () => {
    writeFileSync(join(dataDir, 'store.lock'), JSON.stringify({ pid: 1, command: 'init' }))
    await open()
  })

  test('an open that fails lets go of the lock', async () => {
    writeFileSync(join(dataDir, 'store.mdb'), 'this is no LMDB file'.repeat(1000))
    await expect(open()).rejects.toMatchObject({ code: 'ERR_STORE' })
    rmSync(join(dataDir, 'store.mdb'))
    await open()
  })
})

describe('SIGKILL', () => {
  test('no acknowledged write is lost, and each is whole', async () => {
    let acknowledged = -1
    for (const after of [30, 1, 200, 77, 500]) {
      const writer = child('count')
      await writer.next()
      for (let lines = 0; lines < after; lines++)
        acknowledged = (await writer.next())?.written ?? acknowledged
      writer.process.kill('SIGKILL')
      for (;;) {
        const line = await writer.next()
        if (line === undefined) break
        acknowledged = line.written ?? acknowledged
      }
      await killed(writer.process)
      const store = await openStore({ dataDir })
      const { records, damaged } = await store.load()
      await store.close()
      expect(damaged).toEqual([])
      const networks = records.filter(({ kind }) => kind === 'network')
      const endpoints = records.filter(({ kind }) => kind === 'endpoint')
      expect(endpoints.map(({ id }) => id)).toEqual(networks.map(({ id }) => id))
      expect(networks.map(({ id }) => Number(id))).toEqual(networks.map((_, i) => i))
      expect(networks.length).toBeGreaterThan(acknowledged)
      // the children number their records on from what they find, two to a number
      acknowledged = networks.length - 1
      await trim(networks.length)
    }
  })

  /** The child counts on from the number of records, so half of them go. */
  async function trim(count: number): Promise<void> {
    const store = await openStore({ dataDir })
    const pad = (i: number) => String(i).padStart(9, '0')
    const remove = Array.from({ length: count }, (_, i) => [
      { kind: 'network' as const, id: pad(i) },
      { kind: 'endpoint' as const, id: pad(i) },
    ]).flat()
    await store.write({ remove })
    await store.close()
  }

  test('a line torn at the end of the journal was never acknowledged: it is no damage', async () => {
    const store = await open()
    await store.write({ put: [network('a')] })
    await store.close()
    appendFileSync(join(dataDir, 'store.journal.0'), '0badf00d {"seq":99,"changes":[["network/b","{')
    const again = await open()
    expect(await again.load()).toEqual({ records: [network('a')], damaged: [] })
    await again.write({ put: [network('c')] })
    await again.close()
    expect((await (await open()).load()).records.map(({ id }) => id)).toEqual(['a', 'c'])
  })
})

describe('damage', () => {
  async function filled(): Promise<void> {
    const store = await openStore({ dataDir })
    await store.write({ put: Array.from({ length: 50 }, (_, i) => network(`n${i}`, 'x'.repeat(1000))) })
    await store.close()
  }
  const files = () =>
    ['store.mdb', 'store.journal.0', 'store.journal.1'].map(name => readFileSync(join(dataDir, name)))

  test('a file that is no store is refused and left as it is', async () => {
    await filled()
    writeFileSync(join(dataDir, 'store.mdb'), Buffer.alloc(statSync(join(dataDir, 'store.mdb')).size, 7))
    const before = files()
    await expect(open()).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: expect.stringContaining('is not an LMDB file'),
    })
    expect(files()).toEqual(before)
  })

  test.each([0, 1, 5000, 20_000])('a file cut to %i bytes is refused and left as it is', async size => {
    await filled()
    truncateSync(join(dataDir, 'store.mdb'), size)
    const before = files()
    await expect(open()).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: expect.stringContaining('has been cut'),
    })
    expect(files()).toEqual(before)
  })

  test('a file that is gone is refused too: an empty store would forget what is on the host', async () => {
    await filled()
    rmSync(join(dataDir, 'store.mdb'))
    await expect(open()).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: expect.stringContaining('has been cut'),
    })
  })

  test('a record whose checksum is wrong is set aside, with what was found', async () => {
    await filled()
    const raw = openLmdb<string, string>({ path: join(dataDir, 'store.mdb'), encoding: 'string' })
    const rotten = '00000000 {"version":1,"value":"rotten"}'
    await raw.openDB<string, string>({ name: 'records', encoding: 'string' }).put('network/n7', rotten)
    await raw.close()
    const store = await open()
    const { records, damaged } = await store.load()
    expect(records).toHaveLength(49)
    const told = [{ kind: 'network', id: 'n7', reason: expect.stringContaining('checksum'), raw: rotten }]
    expect(damaged).toEqual(told)
    await store.close()
    const again = await open()
    expect((await again.load()).damaged).toEqual(told)
  })

  test('a rotten line of the journal is set aside, the lines after it count', async () => {
    await filled()
    const store = await openStore({ dataDir })
    await store.load()
    await store.write({ put: [network('x')] })
    await store.write({ put: [network('y')] })
    // as a crash would leave it: the journal as it is before the checkpoint
    const kept = ['store.journal.0', 'store.journal.1'].map(name => [
      name,
      readFileSync(join(dataDir, name), 'utf8'),
    ])
    await store.close()
    for (const [name, text] of kept)
      writeFileSync(
        join(dataDir, name!),
        text!
          .split('\n')
          .map(line => {
            const match = /"seq":(\d+),"changes":\[\["network\/([xy])/.exec(line)
            return match?.[2] === 'x' ? line.replace('network/x', 'network/X') : line
          })
          .join('\n'),
      )
    const again = await open()
    const { records, damaged } = await again.load()
    expect(records.map(({ id }) => id)).toContain('y')
    expect(damaged).toEqual([
      {
        kind: 'journal',
        id: expect.any(String),
        reason: expect.stringContaining('cannot be read'),
        raw: expect.stringContaining('network/X'),
      },
    ])
  })

  test('a layout of a newer library is refused', async () => {
    await filled()
    const raw = openLmdb<string, string>({ path: join(dataDir, 'store.mdb'), encoding: 'string' })
    await raw.openDB<string, string>({ name: 'meta', encoding: 'string' }).put('format', '2')
    await raw.close()
    await expect(open()).rejects.toMatchObject({ code: 'ERR_STORE_VERSION' })
  })
})

describe('refusals of the system', () => {
  test('a dataDir below a file', async () => {
    writeFileSync(join(dataDir, 'file'), '')
    await expect(openStore({ dataDir: join(dataDir, 'file', 'dir') })).rejects.toMatchObject({
      code: 'ERR_STORE',
      cause: { code: 'ENOTDIR' },
    })
  })

  test('no permission', async () => {
    const locked = join(dataDir, 'locked')
    mkdirSync(locked, { mode: 0o500 })
    const where = dataDir
    dataDir = locked
    try {
      // root may write everywhere, so somebody else tries: 65534 is nobody
      const line = await child('try', [], process.getuid?.() === 0 ? { uid: 65534 } : {}).next()
      expect(line?.error).toMatchObject({ code: 'ERR_STORE', message: expect.stringContaining('EACCES') })
    } finally {
      dataDir = where
    }
  })

  test('a full disk: the write is refused with its cause, what was there is there, and the store lives on', async () => {
    // RLIMIT_FSIZE stands in for the disk (units of 1 KiB); ignored, its signal turns into EFBIG
    const full = child('fill', ['bash', '-c', 'trap "" XFSZ; ulimit -f 300; exec "$0" "$@"'])
    await full.next()
    const { refused, cause } = (await full.next()) ?? {}
    expect(refused).toMatchObject({
      code: 'ERR_STORE',
      message: expect.stringContaining('nothing was changed'),
    })
    expect(cause).toBe('EFBIG')
    const { written, found } = (await full.next()) ?? {}
    expect(written).toBeGreaterThan(50)
    expect(found).toBe(written)
    const { removed, found: left } = (await full.next()) ?? {}
    expect(left).toBe(written! - removed!)
    while (await full.next());
    expect((await (await open()).load()).records).toHaveLength(left!)
  })
})
