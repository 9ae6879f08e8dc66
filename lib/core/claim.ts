import { createServer } from 'node:net'
import { CnmError } from '../base/errors'
import type { Stack } from '../kernel/kernel'

/**
 * One controller of a name per host: two would take turns at overwriting one another's firewall. The claim is a socket with
 * an abstract name (unix(7)) in the host's namespace, so it ends with the process whatever happens, and leaves no file.
 * Throws ERR_CONTROLLER_EXISTS.
 */
export function claimName(host: Stack, name: string): Promise<() => Promise<void>> {
  const server = createServer(socket => socket.destroy())
  return new Promise((resolve, reject) => {
    server.once('error', cause =>
      reject(
        new CnmError(
          'ERR_CONTROLLER_EXISTS',
          `a controller called ${name} is at work on this host already`,
          { name, host: host.path },
          { cause },
        ),
      ),
    )
    // The socket is made within the call, so it belongs to the namespace.
    host.run(() =>
      server.listen(`\0libcnm/${name}`, () => {
        server.unref()
        resolve(() => new Promise(closed => server.close(() => closed())))
      }),
    )
  })
}
