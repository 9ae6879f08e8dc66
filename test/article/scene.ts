/** A private host like the article's, the example runtime on it, and the real docker client. */
import { execFile } from 'node:child_process'
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
  /** Another runtime in place of this one; its containers are gone. */
  reopen(network: RuntimeOptions['network']): Promise<void>
  close(): Promise<void>
}

export async function openScene(network: RuntimeOptions['network'] = {}): Promise<Scene> {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-article-'))
  const netns = join(directory, 'host')
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

  const stack = await kernel.create(netns)
  for (const line of [
    'link set lo up',
    'link add ens33 type veth peer name far',
    'address add 192.168.61.10/24 dev ens33',
    'link set far up',
    'link set ens33 up',
    'route add default via 192.168.61.2',
  ])
    await onHost(`ip ${line}`)
  const resolvConf = join(directory, 'resolv.conf')
  // Nobody serves there: names that are not ours are refused at once.
  writeFileSync(resolvConf, 'nameserver 192.168.61.10\n')
  const open = (more: RuntimeOptions['network']) =>
    openRuntime({
      socket,
      directory: join(directory, 'runtime'),
      host: netns,
      network: { resolvConf, ...more },
    })
  let runtime = await open(network)
  return {
    directory,
    client,
    env,
    docker,
    onHost,
    async reopen(more) {
      await runtime.close()
      runtime = await open(more)
    },
    async close() {
      await runtime.close()
      stack.close()
      await kernel.remove(netns)
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
