/**
 * node dist/examples/runtime/main.js --socket PATH --directory DIR [--host NETNS]
 * Then: DOCKER_HOST=unix://PATH docker run --rm busybox ip address
 */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { isCnmError } from 'libcnm'
import { openRuntime } from './runtime'

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      socket: { type: 'string', default: '/run/libcnm-runtime.sock' },
      directory: { type: 'string', default: '/var/lib/libcnm-runtime' },
      host: { type: 'string' },
    },
  })
  const socket = resolve(values.socket)
  const runtime = await openRuntime({
    socket,
    directory: resolve(values.directory),
    host: values.host,
    log: console,
  })
  console.log(`DOCKER_HOST=unix://${socket}`)
  // What does not close is told, and still ends the process: the next start sweeps what is left.
  const stop = () =>
    void runtime
      .close()
      .catch(complain)
      .finally(() => process.exit())
  process.once('SIGINT', stop).once('SIGTERM', stop)
}

function complain(error: unknown): void {
  console.error(isCnmError(error) ? `${error.code}: ${error.message}\n${error.next}` : error)
  process.exitCode = 1
}

main().catch(complain)
