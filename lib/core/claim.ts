import { readFileSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { CnmError } from '../base/errors'
import type { Stack } from '../kernel/kernel'

/** Milliseconds to wait for the holder's pid: one that was stopped does not answer. */
const PATIENCE = 500

/**
 * One controller of a name per host: two would take turns at overwriting one another's firewall. The claim is a socket with
 * an abstract name (unix(7)) in the host's namespace, so it ends with the process whatever happens, and leaves no file.
 * Whoever connects is told the pid. Throws ERR_CONTROLLER_EXISTS, which names it.
 */
export function claimName(host: Stack, name: string): Promise<() => Promise<void>> {
  const path = `\0libcnm/${name}`
  const server = createServer(socket => {
    socket.on('error', () => {}) // who asked is gone
    // Not left to the other side to close: that would hold up our own end.
    socket.end(String(process.pid), () => socket.destroy())
  })
  return new Promise((resolve, reject) => {
    server.once('error', cause => {
      void askHolder(host, path).then(pid => {
        const by = pid === undefined ? '' : `: ${describe(pid)}`
        reject(
          new CnmError(
            'ERR_CONTROLLER_EXISTS',
            `a controller called ${name} is at work on this host already${by}`,
            { name, host: host.path, pid },
            { cause },
          ),
        )
      })
    })
    // The socket is made within the call, so it belongs to the namespace.
    host.run(() =>
      server.listen(path, () => {
        server.unref()
        resolve(() => new Promise(closed => server.close(() => closed())))
      }),
    )
  })
}

function askHolder(host: Stack, path: string): Promise<number | undefined> {
  return new Promise(resolve => {
    let answer = ''
    host.run(() => {
      const socket = connect(path)
      socket.setTimeout(PATIENCE, () => socket.destroy())
      socket.on('data', data => (answer += data.toString('latin1')))
      socket.on('error', () => {})
      socket.on('close', () => resolve(/^\d{1,10}$/.test(answer) ? Number(answer) : undefined))
    })
  })
}

function describe(pid: number): string {
  if (pid === process.pid) return `in this process (pid ${pid})`
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim()
    return `pid ${pid} (${command.replace(/[^ -~]/g, '?').slice(0, 100)})`
  } catch {
    return `pid ${pid}`
  }
}
