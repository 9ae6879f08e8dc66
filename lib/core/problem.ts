import type { Context } from './context'

/**
 * Something failed in the background, and nobody waits for it: one line of log, and an event that has the whole error. Not
 * while the controller closes, when things fail because others are gone already.
 */
export function tellProblem(
  { closing, log, events }: Pick<Context, 'closing' | 'log' | 'events'>,
  message: string,
  error: unknown,
): void {
  if (closing) return
  log.error(`${message}: ${reasonOf(error)}`)
  events.emit({ type: 'problem', message, error })
}

/** What an error says, in one line. */
const reasonOf = (error: unknown): string =>
  String((error as Error | undefined)?.message ?? error).replace(/\s*\n\s*/g, '; ')
