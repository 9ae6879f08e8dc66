/** cnm serve: a controller behind a socket. */
import type { Logger } from '../../base/log'
import type { Command } from '../command'
import { loadApi, loadController } from '../late'
import type { Io } from '../output'
import { controllerInput, SERVE_OPTIONS } from '../serve-options'

export const DEFAULT_SOCKET = '/run/libcnm/api.sock'

export const serveCommand: Command = {
  name: 'serve',
  summary: "Serve Docker's network API on a unix socket",
  operands: '',
  least: 0,
  most: 0,
  standalone: true,
  options: SERVE_OPTIONS,
  description:
    'The socket is its owner’s alone. SIGTERM or Ctrl-C ends it; networks and sandboxes stay as they are, and are there again when it is started on the same folder.',
  examples: [
    'cnm serve --socket /run/libcnm/api.sock --data-dir /var/lib/libcnm',
    'docker -H unix:///run/libcnm/api.sock network ls',
  ],
  async run({ values, io }) {
    const log = logger(io, values.flag('debug'))
    const controller = await loadController().Controller.open({ ...controllerInput(values), log })
    try {
      const api = loadApi().createApi(controller, { log })
      const { path } = await api.listen(values.one('socket') ?? DEFAULT_SOCKET)
      io.out(`serving unix://${path} (firewall: ${controller.firewallBackend})\n`)
      await new Promise<void>(resolve => {
        if (io.signal.aborted) resolve()
        else io.signal.addEventListener('abort', () => resolve(), { once: true })
      })
      await api.close()
    } finally {
      await controller.close()
    }
    return 0
  },
}

/** Lines on standard error, as a service manager wants them. */
function logger(io: Io, debug: boolean): Logger {
  const write = (level: string) => (message: string, details?: object) => {
    const error = (details as { error?: unknown } | undefined)?.error
    io.error(`${level} ${message}${error ? `: ${String((error as Error).message ?? error)}` : ''}\n`)
  }
  const silent = () => {}
  return {
    debug: debug ? write('debug') : silent,
    info: debug ? write('info') : silent,
    warn: write('warning'),
    error: write('error'),
  }
}
