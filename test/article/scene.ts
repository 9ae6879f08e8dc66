/** A private host like the article's, behind a router; the example runtime on it, and the real docker client. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LinuxKernel } from 'libcnm'
import { openRuntime, type RuntimeOptions } from '../../examples/runtime/runtime'
import { dockerClient } from './client'

const run = promisify(execFile)

export interface Scene {
  directory: string
  /** Path of the docker client, and the environment in which it finds the runtime. */
  client: string
  env: NodeJS.ProcessEnv
  /** What was printed, or the words of the refusal. */
  docker(line: string, ...more: string[]): Promise<string>
  onHost(line: string): Promise<string>
  /** What a tcpdump on the host prints of what `act` causes, until so many packets have come. */
  tcpdump(line: string, packets: number, act: () => Promise<unknown>): Promise<string>
  close(): Promise<void>
}

export async function openScene(network: RuntimeOptions['network'] = {}): Promise<Scene> {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-article-'))
  const [netns, beyond] = [join(directory, 'host'), join(directory, 'router')] as const
  const socket = join(directory, 'docker.sock')
  const env = { ...process.env, DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: join(directory, 'client') }
  const kernel = new LinuxKernel()
  const client = await dockerClient(directory)

  /** Killed when it hangs: a client that waits ignores SIGTERM. */
  const shell = (file: string, ...args: string[]): Promise<string> =>
    run(file, args, { env, timeout: 15_000, killSignal: 'SIGKILL' }).then(
      ({ stdout }) => stdout,
      (error: { stdout?: string; stderr?: string; message: string }) =>
        `${error.stdout ?? ''}failed: ${error.stderr || error.message}`,
    )
  const docker = (line: string, ...more: string[]) => shell(client, ...line.split(' '), ...more)
  const onHost = (line: string) => shell('nsenter', `--net=${netns}`, ...line.split(' '))

  const tcpdump = async (line: string, packets: number, act: () => Promise<unknown>): Promise<string> => {
    const words = `--net=${netns} ${line} -l --immediate-mode -c ${packets}`.split(' ')
    const child = spawn('nsenter', words, { timeout: 15_000, killSignal: 'SIGKILL' })
    let seen = ''
    const ended = once(child, 'close')
    child.stdout.on('data', (text: Buffer) => (seen += text.toString()))
    const listens = new Promise<void>((resolve, reject) => {
      let said = ''
      child.stderr.on('data', (text: Buffer) => {
        said += text.toString()
        if (said.includes('listening on')) resolve()
      })
      child.once('error', reject).once('close', () => reject(new Error(`tcpdump: ${said}`)))
    })
    await listens
    await act()
    await ended
    return seen
  }

  const stack = await kernel.create(netns)
  // It knows of no network but its own: what comes from a container gets no answer unless the host gives it its address.
  const router = await kernel.create(beyond)
  await kernel.transact([
    {
      stack,
      changes: [
        { op: 'setLink', link: 'lo', up: true },
        {
          op: 'addLink',
          link: { kind: 'veth', name: 'ens33', up: true, peer: { name: 'lan', netns: router, up: true } },
        },
        { op: 'addAddress', link: 'ens33', address: '192.168.61.10/24' },
        { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: '192.168.61.2' } },
      ],
    },
    { stack: router, changes: [{ op: 'addAddress', link: 'lan', address: '192.168.61.2/24' }] },
  ])
  const resolvConf = join(directory, 'resolv.conf')
  // Nobody serves there: names that are not ours are refused at once.
  writeFileSync(resolvConf, 'nameserver 192.168.61.10\n')
  const runtime = await openRuntime({
    socket,
    directory: join(directory, 'runtime'),
    host: netns,
    network: { resolvConf, ...network },
  })
  return {
    directory,
    client,
    env,
    docker,
    onHost,
    tcpdump,
    async close() {
      await runtime.close()
      const left = (await stack.links()).map(({ name }) => name).filter(name => !OWN_LINKS.has(name))
      for (const each of [stack, router]) each.close()
      for (const path of [netns, beyond]) await kernel.remove(path)
      rmSync(directory, { recursive: true, force: true })
      if (left.length) throw new Error(`the runtime has left ${left.join(', ')} on its host`)
    },
  }
}

/** What the host has before the runtime comes. */
const OWN_LINKS = new Set(['lo', 'ens33'])
