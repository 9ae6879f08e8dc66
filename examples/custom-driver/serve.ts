/**
 * Offers the driver to Docker: `node dist/examples/custom-driver/serve.js`, then
 * `docker network create -d routed --subnet 10.5.0.0/24 mine`. Ends with SIGTERM or SIGINT; what it made stays.
 */
import { serveDriver } from 'libcnm'
import { routed } from './driver'

async function main(socket = '/run/docker/plugins/routed.sock'): Promise<void> {
  const server = await serveDriver(routed(), { socket, log: console })
  console.log(`routed is served at ${server.socket}`)
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void server.close())
}

main(process.argv[2]).catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
