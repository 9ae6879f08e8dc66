import { systemError } from '../kernel/errors'

/** Makes the error of a refused call: the same that the Linux implementation throws. */
export interface Context {
  refused: (errno: number, text: string | undefined) => unknown
}

/** For calls that are no changes. */
export const asked = (what: string, details: Record<string, unknown> = {}): Context => ({
  refused: (errno, text) => systemError({ errno }, text ? `${what} (${text})` : what, details),
})
