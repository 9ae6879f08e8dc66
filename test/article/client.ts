import { execFile } from 'node:child_process'
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * The docker client: the machine's, or that of Debian's package, unpacked and not installed, because installing it would
 * start Docker's daemon, which touches the firewall.
 */
export async function dockerClient(directory: string): Promise<string> {
  const found = await run('sh', ['-c', 'command -v docker']).catch(() => undefined)
  if (found) return found.stdout.trim()
  const cwd = join(directory, 'package')
  mkdirSync(cwd)
  await run('apt-get', ['download', 'docker.io'], { cwd })
  for (const name of readdirSync(cwd)) await run('dpkg-deb', ['-x', name, 'unpacked'], { cwd })
  return join(cwd, 'unpacked/usr/bin/docker')
}
