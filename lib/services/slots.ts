/** How new flows are shared out: a list of tasks, one for each value of a random number or of a client's hash. Pure. */
import { createHash } from 'node:crypto'

interface Weighted {
  id: string
  weight: number
}

/** Most slots of one list: the kernel keeps an element for each. */
const MOST = 4096
/** Slots a task should have at least, so that shares are near to the weights and little moves when one goes. */
const PER_TASK = 8
const FEWEST = 256

/** As many slots as the weights need; all of them are above 0. */
export function shares<T extends Weighted>(tasks: readonly T[]): T[] {
  const common = tasks.reduce((divisor, { weight }) => greatestDivisor(divisor, weight), 0)
  const total = tasks.reduce((sum, { weight }) => sum + weight, 0) / common
  const scale = total > MOST ? MOST / total : 1
  return inOrder(tasks).flatMap(task =>
    Array<T>(Math.max(1, Math.round((task.weight / common) * scale))).fill(task),
  )
}

/**
 * For flows that are told apart by their client: weighted rendezvous hashing. Every host makes the same list, and when a task
 * goes only its own slots move.
 */
export function sticky<T extends Weighted>(tasks: readonly T[]): T[] {
  if (tasks.length === 0) return []
  const size = tasks.length * PER_TASK <= FEWEST ? FEWEST : MOST
  return Array.from({ length: size }, (_, slot) => {
    let best: { task: T; score: number } | undefined
    for (const task of inOrder(tasks)) {
      const score = -task.weight / Math.log(fraction(`${task.id}/${slot}`))
      if (!best || score > best.score) best = { task, score }
    }
    return (best as { task: T }).task
  })
}

const inOrder = <T extends Weighted>(tasks: readonly T[]): T[] =>
  [...tasks].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))

const greatestDivisor = (a: number, b: number): number => (b === 0 ? a : greatestDivisor(b, a % b))

/** Between 0 and 1, both excluded; the same everywhere. */
const fraction = (text: string): number =>
  (createHash('sha1').update(text).digest().readUInt32BE(0) + 0.5) / 2 ** 32
