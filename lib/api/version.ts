import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Versions of the Docker Engine API that are spoken. */
export const API_VERSION = '1.48'
export const MIN_API_VERSION = '1.24'

/** As numbers: 1.9 is older than 1.24. */
export function olderThan(version: string, than: string): boolean {
  const [a = 0, b = 0] = version.split('.').map(Number)
  const [c = 0, d = 0] = than.split('.').map(Number)
  return a !== c ? a < c : b < d
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
