import { CnmError, isCnmError } from './errors'

/** The inverses of what has been done so far, newest last. */
export interface Undo {
  /** Call it right beside the act whose inverse it is. The inverse must tolerate that the act never took effect. */
  push(what: string, inverse: () => unknown | Promise<unknown>): void
}

/**
 * Whole or nothing: runs `body`; if it throws, runs the pushed inverses newest first and rethrows.
 * Inverses that fail themselves are collected in `error.rollback`; the others still run.
 */
export async function atomically<T>(body: (undo: Undo) => Promise<T>): Promise<T> {
  const inverses: { what: string; inverse: () => unknown }[] = []
  try {
    return await body({ push: (what, inverse) => void inverses.push({ what, inverse }) })
  } catch (error) {
    const failed: unknown[] = []
    for (const { what, inverse } of inverses.reverse()) {
      try {
        await inverse()
      } catch (cause) {
        failed.push({ what, cause })
      }
    }
    if (failed.length === 0) throw error
    const carrier = isCnmError(error)
      ? error
      : new CnmError('ERR_INTERNAL', (error as Error)?.message ?? String(error), {}, { cause: error })
    carrier.rollback = [...(carrier.rollback ?? []), ...failed]
    throw carrier
  }
}
