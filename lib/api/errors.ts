/** Failures as Docker's clients expect them: a status and `{"message": …}`. */
import { type CnmError, type ErrorCode, type ErrorKind, isCnmError } from '../base/errors'

/** An answer that is known to be wrong in HTTP's words. Thrown by handlers; everything else is translated. */
export class HttpError extends Error {
  override readonly name = 'HttpError'

  constructor(
    readonly status: number,
    message: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message)
  }
}

const BY_KIND: Record<ErrorKind, number> = {
  invalid: 400,
  'not-found': 404,
  conflict: 409,
  denied: 403,
  exhausted: 503,
  unavailable: 503,
  unsupported: 501,
  kernel: 500,
  internal: 500,
}

/** Where Docker's status or words (API 1.48) are not those of the kind and of our message. */
const BY_CODE: Partial<
  Record<ErrorCode, { status: number; prefix?: string | ((error: CnmError) => string | undefined) }>
> = {
  // Docker takes a driver that it does not know for a plugin.
  ERR_DRIVER_NOT_FOUND: {
    status: 404,
    prefix: ({ details: { name } }) => `plugin ${JSON.stringify(name)} not found`,
  },
  ERR_POOL_OVERLAP: {
    status: 403,
    prefix: 'invalid pool request: Pool overlaps with other one on this address space',
  },
  ERR_HOST_ROUTE_CONFLICT: {
    status: 403,
    prefix: 'invalid pool request: Pool overlaps with other one on this address space',
  },
  ERR_ADDRESS_IN_USE: { status: 403, prefix: 'Address already in use' },
  ERR_POOL_EXHAUSTED: { status: 503, prefix: 'no available addresses on this pool' },
  ERR_POOLS_EXHAUSTED: {
    status: 400,
    prefix: 'all predefined address pools have been fully subnetted',
  },
  ERR_ENDPOINT_EXISTS: { status: 403 },
  ERR_LINK_CONFLICT: { status: 403 },
  ERR_LINK_EXISTS: { status: 403 },
  ERR_ROUTE_CONFLICT: { status: 403 },
  ERR_PORT_IN_USE: {
    status: 500,
    prefix: ({ details: { hostIp = '0.0.0.0', hostPort } }) => {
      if (typeof hostPort !== 'number') return undefined
      const host = String(hostIp).includes(':') ? `[${String(hostIp)}]` : String(hostIp)
      return `Bind for ${host}:${hostPort} failed: port is already allocated`
    },
  },
  ERR_PORTS_EXHAUSTED: { status: 500 },
  ERR_CLOSED: { status: 503 },
  ERR_STORE_LOCKED: { status: 503 },
}

export interface ErrorAnswer {
  status: number
  message: string
  headers: Readonly<Record<string, string>>
}

export function answerTo(error: unknown): ErrorAnswer {
  if (isHttpError(error)) return { status: error.status, message: error.message, headers: error.headers }
  if (!isCnmError(error)) return { status: 500, message: messageOf(error), headers: {} }
  const { status = BY_KIND[error.kind], prefix } = BY_CODE[error.code] ?? {}
  const words = typeof prefix === 'function' ? prefix(error) : prefix
  const own = ownWords(error)
  return { status, message: words ? `${words} (${own})` : own, headers: codeOf(error) }
}

/** What is `options.options.mtu` of createNetwork to a program is `mtu` to who sends or types it. */
function ownWords({ message, details: { issues } }: CnmError): string {
  if (!Array.isArray(issues)) return message
  return (issues as { message: string }[])
    .map(issue => issue.message.replace(/(^|; )options\.(?:options\.)?/g, '$1'))
    .join('; ')
}

/** Programs match by code, over HTTP too. Docker's clients ignore the header. */
const codeOf = ({ code }: CnmError) => ({ 'Libcnm-Error': code })

const messageOf = (error: unknown): string =>
  (typeof (error as Error | undefined)?.message === 'string' && (error as Error).message) || String(error)

export const isHttpError = (error: unknown): error is HttpError =>
  (error as HttpError | undefined)?.name === 'HttpError' && typeof (error as HttpError).status === 'number'
