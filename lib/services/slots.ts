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
  const contenders = inOrder(tasks).map(task => ({ task, seeds: seedsOf(task.id) }))
  return Array.from({ length: size }, (_, slot) => {
    let best: T | undefined
    let most = 0
    for (const { task, seeds } of contenders) {
      const score = -task.weight / Math.log(fraction(seeds, slot))
      if (best && score <= most) continue
      best = task
      most = score
    }
    return best as T
  })
}

const inOrder = <T extends Weighted>(tasks: readonly T[]): T[] =>
  [...tasks].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))

const greatestDivisor = (a: number, b: number): number => (b === 0 ? a : greatestDivisor(b, a % b))

/** Between 0 and 1, both excluded; the same everywhere. A digest for each slot would take seconds where tasks are many. */
const fraction = ([one, two]: Seeds, slot: number): number =>
  (mixed(mixed(one ^ Math.imul(slot + 1, 0x9e37_79b1)) ^ two) + 0.5) / 2 ** 32

/** The last step of MurmurHash3: every bit of the result depends on every bit of the number. */
function mixed(number: number): number {
  let bits = Math.imul(number ^ (number >>> 16), 0x85eb_ca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2_ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}

type Seeds = readonly [number, number]

function seedsOf(id: string): Seeds {
  const digest = createHash('sha1').update(id).digest()
  return [digest.readUInt32BE(0), digest.readUInt32BE(4)]
}
