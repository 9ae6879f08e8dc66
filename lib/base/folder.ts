import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'

/**
 * Makes a folder and those above it; one that is there is left as it is. Not by `recursive: true`: where a file system takes
 * no new folders (`/proc`), Node 20 tries for ever. Throws what mkdir(2) says.
 */
export function makeFolder(path: string, mode = 0o777): void {
  try {
    make(path, mode)
  } catch (error) {
    const above = dirname(path)
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || above === path) throw error
    makeFolder(above, mode)
    make(path, mode)
  }
}

/** EEXIST also stands for a file of that name; whoever then looks inside is told ENOTDIR. */
function make(path: string, mode: number): void {
  try {
    mkdirSync(path, mode)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}
