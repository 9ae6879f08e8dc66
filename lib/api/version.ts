import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Versions of the Docker Engine API that are spoken. */
export const API_VERSION = '1.48'
export const MIN_API_VERSION = '1.24'

/** Number by number: 1.9 is older than 1.24, and 1.48 older than 1.48.1. What is no number is 0. */
export function olderThan(version: string, than: string): boolean {
  const [these, those] = [version, than].map(text => text.split('.').map(part => Number(part) || 0))
  for (let at = 0; at < Math.max(these?.length ?? 0, those?.length ?? 0); at++) {
    const [a, b] = [these?.[at] ?? 0, those?.[at] ?? 0]
    if (a !== b) return a < b
  }
  return false
}

/** Of this package. Found by walking up: the sources and the build lie at different depths. */
export const VERSION = packageVersion()

function packageVersion(): string {
  for (let directory = __dirname; ; directory = dirname(directory)) {
    const path = join(directory, 'package.json')
    if (existsSync(path)) {
      const { name, version } = JSON.parse(readFileSync(path, 'utf8')) as { name?: string; version?: string }
      if (name === 'libcnm' && version) return version
    }
    if (directory === dirname(directory)) return '0.0.0'
  }
}
