import { constants } from 'node:os'

/** Thrown inside the model where the kernel would answer a request with `-errno`; never leaves {@link MockKernel}. */
export class Refusal extends Error {
  constructor(
    readonly errno: string,
    /** The kernel's extended-ack text, where it has one. */
    readonly text?: string,
  ) {
    super(text ?? errno)
  }
}

export function refuse(errno: string, text?: string): never {
  throw new Refusal(errno, text)
}

/** asm-generic/errno.h; those that Node's table lacks. */
const MORE: Record<string, number> = { EXFULL: 54 }

/** The positive number of an errno. */
export function numberOfErrno(name: string): number {
  const number = (constants.errno as Record<string, number>)[name] ?? MORE[name]
  if (number === undefined) throw new Error(`${name} is no errno that this system knows`)
  return number
}
