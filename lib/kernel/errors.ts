import { getSystemErrorMap } from 'node:util'
import { CnmError, type ErrorCode } from '../base/errors'
import type { Change } from './kernel'
import { describeChange } from './netlink/changes'

/** What the C library says (glibc, strerror), for the errors that netlink, sockets and mounts answer with. */
const WORDS: Record<string, string> = {
  EACCES: 'Permission denied',
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  EHOSTUNREACH: 'No route to host',
  EINVAL: 'Invalid argument',
  EMFILE: 'Too many open files',
  ENETDOWN: 'Network is down',
  ENETUNREACH: 'Network is unreachable',
  ENODEV: 'No such device',
  ENOENT: 'No such file or directory',
  ENOMEM: 'Cannot allocate memory',
  ENOTDIR: 'Not a directory',
  EOPNOTSUPP: 'Operation not supported',
  EPERM: 'Operation not permitted',
  ERANGE: 'Numerical result out of range',
  ESRCH: 'No such process',
  EXFULL: 'Exchange full',
}

export interface Errno {
  /** `EEXIST` */
  errno: string
  /** Positive. */
  number: number
  words: string
}

/** Linux has two names for 95; Node's map knows the other one. */
const ALIASES: Record<string, string> = { ENOTSUP: 'EOPNOTSUPP' }

/** The name and the words of a positive errno. */
export function errnoOf(number: number): Errno {
  const [found, text] = getSystemErrorMap().get(-number) ?? [`E${number}`, `error ${number}`]
  const errno = ALIASES[found] ?? found
  return { errno, number, words: WORDS[errno] ?? text }
}

/** A change that the kernel refused: the how-many-eth of which step. `text` is the kernel's extended ack, when it gave one. */
export function changeError(
  change: Change,
  number: number,
  text: string | undefined,
  at: { step: number; change: number },
): CnmError {
  const { errno, words } = errnoOf(number)
  const { code, advice } = refusal(change, errno, text)
  const reason = text ? `${words} (kernel: ${text})` : words
  return new CnmError(code, `${describeChange(change)}: ${reason}${advice}`, {
    errno,
    number,
    text,
    op: change.op,
    ...at,
  })
}

function refusal(
  change: Change,
  errno: string,
  text: string | undefined,
): { code: ErrorCode; advice: string } {
  if (errno === 'EPERM' || errno === 'EACCES') return { code: 'ERR_PRIVILEGE', advice: NEED }
  if (errno === 'ENODEV') return { code: 'ERR_LINK_NOT_FOUND', advice: '' }
  if (errno === 'EEXIST' && (change.op === 'addLink' || change.op === 'setLink'))
    return { code: 'ERR_LINK_EXISTS', advice: '' }
  if (change.op === 'addLink' && errno === 'EOPNOTSUPP')
    return {
      code: 'ERR_UNSUPPORTED',
      advice: `; this kernel cannot make links of kind ${change.link.kind} as asked (kernel module ${moduleOf(change.link.kind)})`,
    }
  const shares = change.op === 'addLink' ? PARENTS[`${change.link.kind} ${errno}`] : undefined
  if (shares) return { code: 'ERR_LINK_CONFLICT', advice: `; ${shares}` }
  if (change.op === 'setShaper' && errno === 'ENOENT' && text?.includes('unknown'))
    return { code: 'ERR_UNSUPPORTED', advice: '; this kernel lacks the token bucket (kernel module sch_tbf)' }
  if (change.op === 'setIngressMirror' && errno === 'ENOENT' && change.target !== null)
    return {
      code: 'ERR_UNSUPPORTED',
      advice: '; this kernel lacks a module of: sch_ingress, cls_u32, act_mirred',
    }
  if (change.op === 'addIpsecState' && NO_ESP.has(errno)) return { code: 'ERR_UNSUPPORTED', advice: NEED_ESP }
  return { code: 'ERR_KERNEL', advice: '' }
}

const OWN_PARENT = 'give each its own (a VLAN of it, say)'
/** Why a parent does not bear a link of a kind: the kernel itself says no more than EINVAL or EBUSY. */
const PARENTS: Record<string, string> = {
  'macvlan EINVAL': `in mode passthru one interface has its parent alone, and no parent is lo: ${OWN_PARENT}; nor is an MTU above the parent's`,
  'ipvlan EINVAL': "its MTU is the parent's at most",
  'macvlan EBUSY': `its parent is a port of a bridge, or has an ipvlan: ${OWN_PARENT}`,
  'ipvlan EBUSY': `its parent is a port of a bridge, or has a macvlan: ${OWN_PARENT}`,
}

/** What a kernel says that lacks ESP, or AES-GCM. */
const NO_ESP = new Set(['EPROTONOSUPPORT', 'EAFNOSUPPORT', 'ENOSYS', 'ENOENT', 'EOPNOTSUPP'])
export const NEED_ESP =
  '; this kernel cannot encrypt by IPsec ESP with AES-GCM (kernel modules xfrm_user, esp4, esp6, seqiv, gcm): encrypted networks cannot be had on it'

const NEED = '; CAP_NET_ADMIN is needed in the user namespace that owns the network namespace'

/** The module that provides a kind, where its name is another. */
const moduleOf = (kind: string): string => (kind === 'vlan' ? '8021q' : kind)

interface NativeError {
  errno: number
  syscall?: string
}

export const isNativeError = (error: unknown): error is NativeError =>
  typeof (error as NativeError | undefined)?.errno === 'number'

/** Something else that the system refused: a mount, a socket, a sysctl. What is no system error is thrown on as it is. */
export function systemError(
  error: unknown,
  what: string,
  details: Record<string, unknown> = {},
  codes: Partial<Record<string, ErrorCode>> = {},
): unknown {
  if (!isNativeError(error)) return error
  const { errno, number, words } = errnoOf(Math.abs(error.errno))
  const denied = errno === 'EPERM' || errno === 'EACCES'
  const code: ErrorCode =
    codes[errno] ?? (denied ? 'ERR_PRIVILEGE' : errno === 'ETIMEDOUT' ? 'ERR_TIMEOUT' : 'ERR_KERNEL')
  const advice = code === 'ERR_PRIVILEGE' ? '; CAP_SYS_ADMIN and CAP_NET_ADMIN are needed' : ''
  return new CnmError(
    code,
    `${what}: ${words}${error.syscall ? ` (${error.syscall})` : ''}${advice}`,
    { ...details, errno, number, syscall: error.syscall },
    { cause: error },
  )
}
