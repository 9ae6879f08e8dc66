/** Failures as a CNI runtime wants them: a number and two texts. */
import { type ErrorCode, type ErrorKind, isCnmError } from '../base/errors'

/** Codes of the CNI specification 1.1.0, "Error"; from 100 on they are the plugin's own. */
export const CODES = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  io: 5,
  decode: 6,
  invalidConfig: 7,
  tryAgain: 11,
  notAvailable: 50,
  limitedConnectivity: 51,
  conflict: 100,
  exhausted: 101,
  denied: 102,
  unsupported: 103,
  kernel: 104,
  internal: 105,
  differs: 106,
} as const

/** Never leaves this folder: it is printed. */
export class CniError extends Error {
  override readonly name = 'CniError'
  readonly code: number
  readonly details: string

  constructor(code: number, message: string, details = '') {
    super(message)
    this.code = code
    this.details = details
  }
}

const OF_CODE: Partial<Record<ErrorCode, number>> = {
  ERR_STORE_LOCKED: CODES.tryAgain,
  ERR_CONTROLLER_EXISTS: CODES.tryAgain,
  ERR_SANDBOX_NOT_FOUND: CODES.unknownContainer,
  ERR_ENDPOINT_NOT_FOUND: CODES.unknownContainer,
  ERR_NETNS_NOT_FOUND: CODES.invalidEnvironment,
  ERR_DRIVER_NOT_FOUND: CODES.invalidConfig,
  ERR_STORE: CODES.io,
  ERR_STORE_VERSION: CODES.io,
  ERR_STORE_DAMAGED: CODES.io,
}

const OF_KIND: Record<ErrorKind, number> = {
  invalid: CODES.invalidConfig,
  'not-found': CODES.internal,
  conflict: CODES.conflict,
  exhausted: CODES.exhausted,
  denied: CODES.denied,
  unsupported: CODES.unsupported,
  unavailable: CODES.tryAgain,
  kernel: CODES.kernel,
  internal: CODES.internal,
}

export function toCniError(error: unknown): CniError {
  if ((error as Error | undefined)?.name === 'CniError') return error as CniError
  if (isCnmError(error))
    return new CniError(
      OF_CODE[error.code] ?? OF_KIND[error.kind],
      error.message,
      `${error.code}: ${error.next}`,
    )
  const { message = String(error), code } = (error ?? {}) as NodeJS.ErrnoException
  return new CniError(typeof code === 'string' ? CODES.io : CODES.internal, message)
}
