import { AsyncLocalStorage } from 'node:async_hooks'
import { inspect, isDeepStrictEqual } from 'node:util'
import { isCnmError } from '../base/errors'
import { type KernelCall, MockKernel, type MockKernelOptions } from './mock-kernel'
import { type Snapshot, sorted } from './model/snapshot'

/** What is swept: given by the scene, which built everything that the operation needs. */
export interface SweptOperation {
  run(): unknown
  /** Ends what the scene began (say `controller.close()`), after each round. */
  close?(): unknown
}

/** Builds the scene on a fresh kernel, and answers with the operation whose calls are to fail one by one. */
export type Scene = (kernel: MockKernel) => Promise<(() => unknown) | SweptOperation>

export interface FaultSweepOptions {
  /** What the failing call answers; each call is failed with each of them. Default EIO, ENOMEM and EBUSY in turn. */
  errnos?: string[]
  /** Fails each call with every errno instead of with one of them in turn. */
  exhaustive?: boolean
  /** Calls whose failure the operation may survive (a statistic that could not be read). It must then succeed wholly. */
  mayAbsorb?: (call: KernelCall) => boolean
  /** Calls that are not failed. */
  skip?: (call: KernelCall) => boolean
  /** Takes from a snapshot what may differ, for both comparisons: say the random MAC of a link that was made again. */
  normalise?: (snapshot: Snapshot) => unknown
  /** Compares the state after the retry with that of an undisturbed run. Default: {@link anonymous} of both. */
  compareFinal?: (snapshot: Snapshot) => unknown
  /** Options of the kernels. */
  kernel?: MockKernelOptions
}

export interface FaultSweepResult {
  /** Kernel calls of one undisturbed run. */
  calls: number
  /** Rounds played: one for each failed call and errno. */
  rounds: number
}

const ERRNOS = ['EIO', 'ENOMEM', 'EBUSY']

/** The calls that the operation has made so far, where this runs on its behalf. */
const within = new AsyncLocalStorage<KernelCall[]>()

/**
 * Whole or nothing, proven: runs the operation once undisturbed and counts its kernel calls; then, for each of them, on
 * a fresh kernel with that call failing, demands that the operation rejects with a CnmError, that the kernel's state is
 * the one before it, and that trying again succeeds and leads to the state of the undisturbed run.
 * Only what the operation itself calls is counted and failed: what looks after the host in the background (say a check
 * that an event of the kernel brought about) has its turn when it will, and on a busy machine at another place each time.
 * Throws an Error that says which call, what was expected and what differs. Works in any test runner.
 */
export async function faultSweep(scene: Scene, options: FaultSweepOptions = {}): Promise<FaultSweepResult> {
  const {
    errnos = ERRNOS,
    exhaustive = false,
    normalise = s => s,
    compareFinal = s => anonymous(normalise(s)),
  } = options
  const plain = await play(scene, options, async ({ kernel, run }) => {
    const calls: KernelCall[] = []
    kernel.failAt(call => {
      note(call)
      return false
    })
    await within.run(calls, run)
    await kernel.settle()
    return { calls: [...calls], final: compareFinal(kernel.snapshot()) }
  })
  let rounds = 0
  for (let i = 0; i < plain.calls.length; i++)
    for (const errno of exhaustive ? errnos : [errnos[i % errnos.length] ?? 'EIO']) {
      const call = plain.calls[i]!
      if (options.skip?.(call)) continue
      rounds++
      await play(scene, options, round => sweep(round, i, errno, plain.final))
    }
  return { calls: plain.calls.length, rounds }

  async function sweep({ kernel, run }: Round, i: number, errno: string, final: unknown): Promise<void> {
    await kernel.settle()
    const before = normalise(kernel.snapshot())
    const calls: KernelCall[] = []
    kernel.failAt(call => note(call) === i + 1, errno)
    let error: unknown
    let failed = false
    try {
      await within.run(calls, run)
    } catch (e) {
      failed = true
      error = e
    }
    await kernel.settle()
    const hit = calls[i]
    const story = () =>
      `with kernel call ${i + 1} of ${plain.calls.length} failing (${hit ? describe(hit) : 'never made'}; ${errno})`
    if (!failed) {
      // an operation that made fewer calls this time did not meet the fault
      if (hit && !options.mayAbsorb?.(hit)) throw new Error(`fault sweep: the operation succeeded ${story()}`)
      kernel.clearFaults()
      demandEqual(
        final,
        compareFinal(kernel.snapshot()),
        `the operation succeeded ${story()}, but the state differs from an undisturbed run's`,
      )
      return
    }
    kernel.clearFaults()
    if (!isCnmError(error))
      throw new Error(
        `fault sweep: ${story()}, the operation rejected with ${String(error)}, which is no CnmError`,
        { cause: error },
      )
    if (error.rollback)
      throw new Error(
        `fault sweep: ${story()}, the rollback failed: ${inspect(error.rollback, { depth: 4 })}`,
        { cause: error },
      )
    demandEqual(before, normalise(kernel.snapshot()), `${story()}, the state is not the one before`)
    try {
      await run()
    } catch (cause) {
      throw new Error(`fault sweep: ${story()}, the retry failed: ${String(cause)}`, { cause })
    }
    await kernel.settle()
    demandEqual(
      final,
      compareFinal(kernel.snapshot()),
      `${story()}, the retry led to another state than an undisturbed run`,
    )
  }
}

/** The number of this call among those of the operation; undefined when it is none of them. */
const note = (call: KernelCall): number | undefined => within.getStore()?.push(call)

interface Round {
  kernel: MockKernel
  run: () => unknown
}

async function play<T>(
  scene: Scene,
  options: FaultSweepOptions,
  round: (round: Round) => Promise<T>,
): Promise<T> {
  const kernel = new MockKernel(options.kernel)
  const operation = await scene(kernel)
  const { run, close }: SweptOperation =
    typeof operation === 'function'
      ? { run: operation }
      : {
          run: () => operation.run(),
          close: () => operation.close?.(),
        }
  try {
    return await round({ kernel, run: async () => run() })
  } finally {
    kernel.clearFaults()
    await close?.()
  }
}

const describe = ({ op, netns, details }: KernelCall): string =>
  `${op} in namespace ${netns ?? 'of the process'}: ${JSON.stringify(details)}`

function demandEqual(expected: unknown, actual: unknown, what: string): void {
  if (isDeepStrictEqual(plain(expected), plain(actual))) return
  throw new Error(`fault sweep: ${what}:\n${differences(plain(expected), plain(actual)).join('\n')}`)
}

const plain = (value: unknown): unknown =>
  value === undefined ? undefined : JSON.parse(JSON.stringify(value))

/** Lines `- what is missing` and `+ what is too much`, with the place where. */
export function differences(expected: unknown, actual: unknown, at = ''): string[] {
  if (isDeepStrictEqual(expected, actual)) return []
  if (Array.isArray(expected) && Array.isArray(actual)) {
    const there = actual.map(item => JSON.stringify(item))
    const wanted = expected.map(item => JSON.stringify(item))
    const lost = expected.filter((_, i) => !there.includes(wanted[i]!))
    const extra = actual.filter((_, i) => !wanted.includes(there[i]!))
    const named = (items: unknown[]) =>
      items.every(item => typeof (item as { name?: unknown })?.name === 'string')
    if (lost.length + extra.length > 0 && named(lost) && named(extra)) {
      const result: string[] = []
      const names = new Set([...lost, ...extra].map(item => (item as { name: string }).name))
      for (const name of names) {
        const of = (items: unknown[]) => items.find(item => (item as { name: string }).name === name)
        result.push(...differences(of(lost), of(extra), `${at}[${name}]`))
      }
      return result
    }
    return [
      ...lost.map(item => `- ${at}: ${JSON.stringify(item)}`),
      ...extra.map(item => `+ ${at}: ${JSON.stringify(item)}`),
    ]
  }
  if (isObject(expected) && isObject(actual))
    return [...new Set([...Object.keys(expected), ...Object.keys(actual)])].flatMap(key =>
      differences(expected[key], actual[key], at ? `${at}.${key}` : key),
    )
  const lines: string[] = []
  if (expected !== undefined) lines.push(`- ${at}: ${JSON.stringify(expected)}`)
  if (actual !== undefined) lines.push(`+ ${at}: ${JSON.stringify(actual)}`)
  return lines
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * A copy without what is random from run to run: MAC addresses, the link-local addresses made from them, and hexadecimal
 * ids of seven digits and more (in the names of links and paths) become `#`. Arrays are sorted anew.
 */
export function anonymous(value: unknown): unknown {
  if (typeof value === 'string')
    return value
      .replace(/\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b/g, '#')
      .replace(/\bfe80:[0-9a-f:]+/g, '#')
      .replace(/[0-9a-f]{7,}/g, '#')
  if (Array.isArray(value)) return sorted(value.map(anonymous))
  if (!isObject(value)) return value
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, each]) => [anonymous(key) as string, anonymous(each)] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  )
}
