/**
 * Who else uses the ports of the host: `/proc/net/{tcp,tcp6,udp,udp6}` (Documentation/networking/proc_net_tcp.rst in the
 * kernel tree) says which, and the links under `/proc/PID/fd` say who.
 */
import { readFileSync } from 'node:fs'
import { readFile, readdir, readlink } from 'node:fs/promises'
import { endianness } from 'node:os'
import { familyOf, ipBytes, ipText } from '../base/cidr'
import type { Protocol } from '../firewall/contract'
import type { Stack } from '../kernel/kernel'
import { type PortRange, PortSet } from './allocator'

export interface SocketEntry {
  /** Canonical; wildcard `0.0.0.0` or `::`. */
  address: string
  port: number
  inode: number
}

/** TCP: a listener or connection in any state, but not a socket that is bound only: the kernel does not list those. */
export function parseSocketTable(text: string, range: PortRange): SocketEntry[] {
  const entries: SocketEntry[] = []
  for (const line of text.split('\n').slice(1)) {
    //   sl  local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
    const colon = line.indexOf(':', line.indexOf(':') + 1)
    const port = Number.parseInt(line.slice(colon + 1, colon + 5), 16)
    if (!(port >= range.first && port <= range.last)) continue
    const fields = line.trim().split(/\s+/)
    const address = hexAddress(fields[1]!.slice(0, -5))
    entries.push({ address, port, inode: Number(fields[9]) })
  }
  return entries
}

const LITTLE = endianness() === 'LE'

/** The address is printed as 32-bit words in the byte order of the machine. */
function hexAddress(hex: string): string {
  const bytes = Buffer.from(hex, 'hex')
  return ipText(LITTLE ? bytes.swap32() : bytes)
}

/** Could a socket bound to `theirs` keep one from being bound to `ours`? An IPv6 wildcard may be open to IPv4 too. */
function mayConflict(ours: string, theirs: string): boolean {
  if (theirs === '::' || theirs === ours) return true
  if (familyOf(ours) === 4 && theirs.startsWith('::ffff:')) {
    const mapped = ipText(ipBytes(theirs).subarray(12))
    return ours === '0.0.0.0' || mapped === ours
  }
  if (familyOf(ours) !== familyOf(theirs)) return false
  return ours === '0.0.0.0' || ours === '::' || theirs === '0.0.0.0'
}

/** The sockets of the host that may be in the way of ports on these addresses. SCTP is not looked at. */
export function conflictingSockets(
  stack: Stack,
  protocol: Protocol,
  addresses: readonly string[],
  range: PortRange,
): SocketEntry[] {
  if (protocol === 'sctp') return []
  // thread-self, not self: in a worker thread the two are in different namespaces while inside run()
  const texts = stack.run(() =>
    ['', '6'].map(suffix => {
      try {
        return readFileSync(`/proc/thread-self/net/${protocol}${suffix}`, 'latin1')
      } catch {
        return '' // no IPv6, or no /proc: nothing is known
      }
    }),
  )
  return texts
    .flatMap(text => parseSocketTable(text, range))
    .filter(entry => addresses.some(address => mayConflict(address, entry.address)))
}

export function portsOf(entries: readonly SocketEntry[]): PortSet {
  const set = new PortSet()
  for (const { port } of entries) set.add(port)
  return set
}

/** `another process (nginx, pid 123)`: who has one of the sockets open; without a name when it cannot be found out. */
export async function processOf(inodes: readonly number[]): Promise<string> {
  const unknown = 'another process'

  // inode 0: a connection in TIME-WAIT, which belongs to no process any more
  const wanted = new Set(inodes.filter(inode => inode !== 0).map(inode => `socket:[${inode}]`))
  if (wanted.size === 0) return unknown
  const pids = (await readdir('/proc').catch(() => [])).filter(name => /^\d+$/.test(name))
  for (const pid of pids) {
    const fds = await readdir(`/proc/${pid}/fd`).catch(() => [])
    const links = await Promise.all(fds.map(fd => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
    if (!links.some(link => wanted.has(link))) continue
    const command = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '?')).trim()
    return `${Number(pid) === process.pid ? 'this' : 'another'} process (${command}, pid ${pid})`
  }
  return unknown
}
