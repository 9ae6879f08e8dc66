import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'

/** The file's text; undefined when there is none. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

export const digest = (text: string): string => createHash('sha256').update(text).digest('hex')

/**
 * Writes in place: a runtime has mounted this very inode into the container, so it must not be replaced. The new text is
 * laid over the old one and the rest cut off, so a reader never finds the file empty.
 */
export function writeInPlace(path: string, text: string): void {
  const bytes = Buffer.from(text)
  let fd: number
  try {
    fd = openSync(path, 'r+')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    fd = openSync(path, 'wx', 0o644)
  }
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at)
    ftruncateSync(fd, bytes.length)
  } finally {
    closeSync(fd)
  }
}

export const removeFile = (path: string): void => rmSync(path, { force: true })
