/** What the tasks run: a server that tells its name and version to whoever connects. It stands for a container. */
import { createServer } from 'node:net'
import type { LinuxKernel } from 'libcnm'
import type { Program } from './orchestrator'

/** Milliseconds of work for a question. */
const WORK = 20

export const program = (kernel: LinuxKernel, version: string, port: number): Program => ({
  version,
  async start({ key, task }) {
    const stack = await kernel.open(key)
    const fd = stack.openSocket({ type: 'tcp', address: '0.0.0.0', port, listen: 128 })
    stack.close()
    const server = createServer(socket => {
      socket.on('error', () => {})
      setTimeout(() => socket.end(`${version} ${task}`), WORK)
    })
    await new Promise<void>(resolve => server.listen({ fd }, resolve))
    return { stop: () => new Promise<void>(resolve => server.close(() => resolve())) }
  },
})
