/**
 * Hosts whose iptables is the legacy one, beside nftables: which one `iptables` means is the administrator's choice (on Debian
 * an alternative in /etc/alternatives), and the backend follows it. A directory in front of the PATH makes that choice here.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inPath } from '../../../lib/firewall/program'

const TOOLS = ['iptables', 'ip6tables'].flatMap(tool => ['', '-restore', '-save'].map(end => ({ tool, end })))

/** Are the legacy programs here, and does the kernel have their tables? Asked in a namespace that ends with the question. */
export function legacyIptables(): boolean {
  if (!TOOLS.every(({ tool, end }) => inPath(`${tool}-legacy${end}`))) return false
  return ['iptables-legacy', 'ip6tables-legacy'].every(tool =>
    ['raw', 'mangle', 'nat', 'filter'].every(
      table => spawnSync('unshare', ['-n', tool, '-t', table, '-S'], { stdio: 'ignore' }).status === 0,
    ),
  )
}

/** From now on `iptables` is `iptables-legacy`, for this process and its children; the answer takes that back. */
export function preferLegacy(): () => void {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-legacy-'))
  const path = process.env.PATH ?? ''
  for (const { tool, end } of TOOLS) {
    const program = spawnSync('sh', ['-c', `command -v ${tool}-legacy${end}`], {
      encoding: 'utf8',
    }).stdout.trim()
    symlinkSync(program, join(directory, `${tool}${end}`))
  }
  process.env.PATH = `${directory}:${path}`
  return () => {
    process.env.PATH = path
    rmSync(directory, { recursive: true })
  }
}
