import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { CnmError } from '../base/errors'

// sys/file.h
const LOCK_EX = 2
const LOCK_NB = 4
const EWOULDBLOCK = 11 // asm-generic/errno.h: EAGAIN

/** Lets go of the lock; the file stays, empty. */
export type Unlock = () => void

/**
 * Takes flock(2) on a file, for as long as this process lives or until released. The kernel drops it when the process
 * dies, however it dies, so there is no stale lock and no guessing from process ids; and it holds between two openers
 * in one process, between PID namespaces, and not across exec (Node opens with O_CLOEXEC).
 * The text in the file only serves to name the holder. Throws ERR_STORE_LOCKED, ERR_STORE.
 */
export function lockFile(path: string): Unlock {
  const { flock, errno } = libc()
  const fd = openSync(path, 'a+', 0o600)
  try {
    if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
      const number = errno()
      if (number !== EWOULDBLOCK)
        throw new CnmError('ERR_STORE', `flock ${path} failed: errno ${number}`, { path, errno: number })
      throw heldBy(path)
    }
    ftruncateSync(fd)
    writeSync(fd, `${JSON.stringify({ pid: process.pid, command: commandOf('self') })}\n`)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return () => {
    ftruncateSync(fd)
    closeSync(fd)
  }
}

function heldBy(path: string): CnmError {
  let pid: number | undefined
  let command: string | undefined
  try {
    const holder = JSON.parse(readFileSync(path, 'utf8')) as { pid?: unknown; command?: unknown }
    if (typeof holder.pid === 'number') pid = holder.pid
    if (typeof holder.command === 'string') command = holder.command
  } catch {
    // the holder has taken it this very moment and not signed yet
  }
  const who =
    pid === undefined
      ? 'another process that has just taken it'
      : pid === process.pid
        ? `this process itself (pid ${pid}): two controllers cannot share one dataDir`
        : `process ${pid}${command ? ` (${command})` : ''}`
  return new CnmError('ERR_STORE_LOCKED', `${path} is held by ${who}`, { path, pid, command })
}

function commandOf(pid: number | 'self'): string {
  const parts = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter(Boolean)
  return parts.join(' ').slice(0, 200)
}

interface Libc {
  flock(fd: number, operation: number): number
  errno(): number
}

let loaded: Libc | undefined

/** Loaded on first use: a program that keeps nothing on disk does not pay for it. */
function libc(): Libc {
  if (loaded) return loaded
  try {
    const ffi = require('ffi-napi') as {
      Library(name: null, functions: object): { flock(fd: number, operation: number): number }
      errno(): number
    }
    const { flock } = ffi.Library(null, { flock: ['int', ['int', 'int']] })
    loaded = { flock, errno: () => ffi.errno() }
    return loaded
  } catch (cause) {
    throw new CnmError(
      'ERR_STORE',
      'ffi-napi, which locks the store, cannot be loaded; it is built by npm install and needs a compiler',
      {},
      { cause },
    )
  }
}
