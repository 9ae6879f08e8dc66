/** An etcd of the rehearsal's own: one member on loopback, where the controllers' process reaches it; its data are in the lab. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'

export interface OwnEtcd {
  readonly endpoint: string
  stop(): Promise<void>
}

/** Debian: apt-get install etcd-server. */
export const isEtcdInstalled = (): boolean => spawnSync('etcd', ['--version']).status === 0

/** Milliseconds that it may take until it answers. */
const PATIENCE = 20_000

/** A free port may be taken by somebody's connection before etcd binds it: then others are tried. */
export async function startEtcd(directory: string): Promise<OwnEtcd> {
  const deadline = performance.now() + PATIENCE
  for (;;) {
    const [client, peer] = [await freePort(), await freePort()]
    const started = await startAt(client, peer, directory, deadline)
    if (started) return started
    if (performance.now() > deadline) throw new Error(`etcd does not answer within ${PATIENCE / 1_000} s`)
  }
}

/** Undefined when it ends, or answers nothing until the deadline. */
async function startAt(
  client: number,
  peer: number,
  directory: string,
  deadline: number,
): Promise<OwnEtcd | undefined> {
  const [clients, peers] = [`http://127.0.0.1:${client}`, `http://127.0.0.1:${peer}`]
  const words = [
    ...['--name', 'lab', '--data-dir', join(directory, `etcd-${client}`)],
    ...['--logger', 'zap', '--log-level', 'error'],
    ...['--listen-client-urls', clients, '--advertise-client-urls', clients],
    ...['--listen-peer-urls', peers, '--initial-advertise-peer-urls', peers],
    ...['--initial-cluster', `lab=${peers}`],
  ]
  const child = spawn('etcd', words, { stdio: 'ignore' })
  const ended = once(child, 'exit')
  const stop = async () => {
    child.kill('SIGKILL')
    await ended
  }
  while (!(await answers(client))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      await stop()
      return undefined
    }
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  return { endpoint: clients, stop }
}

/** It listens as soon as it serves. */
function answers(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port })
    const end = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => end(true)).once('error', () => end(false))
  })
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
