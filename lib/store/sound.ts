import { closeSync, openSync, readSync, statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { CnmError } from '../base/errors'

// liblmdb/mdb.c as the lmdb package has it: pages 0 and 1 are meta pages, each with a header of 24 bytes
const FLAGS_AT = 18
const P_META = 8
const MAGIC_AT = 24
const MAGIC = 0xbeefc0de
const VERSION_AT = 28
const DATA_VERSION = 2
const PAGE_SIZE_AT = 48
/** Bytes that a new, empty store needs: its first pages and its lock file, with room to spare. */
const ROOM = 1 << 20

/**
 * Looks at the file before LMDB does. LMDB maps what it opens, and its binding does not survive a refusal: a file that
 * is damaged at its head, cut short (SIGBUS) or not writable would take the process with it instead of failing.
 * `least`: bytes that the file is known to have had; it never shrinks. Throws ERR_STORE, or what the system says.
 */
export function mustBeSound(path: string, least: number): void {
  const found = statSync(path, { throwIfNoEntry: false })?.size ?? 0
  if (found < least)
    throw new CnmError(
      'ERR_STORE',
      `${path} has ${found} bytes where ${least} were written: it has been cut`,
      {
        path,
        size: found,
        least,
      },
    )
  closeSync(openSync(`${path}-lock`, 'a+', 0o600))
  const fd = openSync(path, 'a+', 0o600)
  try {
    if (found > 0) mustHaveMeta(fd, path)
  } finally {
    closeSync(fd)
  }
  if (found > 0) return
  const { bavail, bsize } = statfsSync(dirname(path))
  if (bavail * bsize < ROOM)
    throw new CnmError('ERR_STORE', `${path} needs ${ROOM} bytes to begin with; ${bavail * bsize} are free`, {
      path,
    })
}

function mustHaveMeta(fd: number, path: string): void {
  const head = Buffer.alloc(64)
  const ends = (at: number) => readSync(fd, head, 0, head.length, at) < head.length
  const isMeta = () =>
    (head.readUInt16LE(FLAGS_AT) & P_META) !== 0 &&
    head.readUInt32LE(MAGIC_AT) === MAGIC &&
    (head.readUInt32LE(VERSION_AT) & 0xffff) === DATA_VERSION
  if (!ends(0) && isMeta()) {
    const pageSize = head.readUInt32LE(PAGE_SIZE_AT)
    if (pageSize >= 512 && pageSize <= 65_536 && !ends(pageSize) && isMeta()) return
  }
  throw new CnmError('ERR_STORE', `${path} is not an LMDB file, or its head is damaged`, { path })
}
