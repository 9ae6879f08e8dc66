/**
 * ufw of one's own: Debian's package is unpacked and not installed, because installing it would put a firewall on this machine.
 * Its configuration lies in the folder where it is unpacked, its rules in the network namespace that it is run in.
 */
import { execFile } from 'node:child_process'
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Unpacks it below the directory. The answer makes a command of its words, to be run where its rules are to be. */
export async function unpackUfw(directory: string): Promise<(...words: string[]) => string[]> {
  const cwd = join(directory, 'ufw-package')
  mkdirSync(cwd)
  await run('apt-get', ['download', 'ufw'], { cwd })
  const root = join(directory, 'ufw')
  for (const name of readdirSync(cwd)) await run('dpkg-deb', ['-x', name, root], { cwd })
  // As its package does when it is installed.
  const shared = join(root, 'usr/share/ufw')
  for (const from of [shared, join(shared, 'iptables')])
    for (const name of readdirSync(from))
      if (/\.(conf|rules|init)$/.test(name)) copyFileSync(join(from, name), join(root, 'etc/ufw', name))
  return (...words) => [
    'env',
    `PYTHONPATH=${join(root, 'usr/lib/python3/dist-packages')}`,
    '/usr/bin/python3',
    '-sP',
    join(root, 'usr/sbin/ufw'),
    `--rootdir=${root}`,
    `--datadir=${root}`,
    ...(words[0] === 'enable' ? ['--force'] : []),
    ...words,
  ]
}
