/** Where a verb finds its controller: behind a socket, or in this process. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ControllerInput } from '../options'
import { UsageError, type Values } from './args'
import { Client } from './client'
import { DEFAULT_SOCKET } from './commands/serve'
import { loadApi, loadController } from './late'

type Firewall = 'auto' | 'nftables' | 'iptables' | 'none'

export async function connect(
  values: Values,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Client> {
  const dataDir = values.one('data-dir')
  if (dataDir !== undefined) {
    if (values.one('host')) throw new UsageError('--host and --data-dir contradict one another')
    return openHere({
      dataDir,
      name: values.one('name'),
      runDir: values.one('run-dir'),
      host: values.one('netns'),
      firewall: values.one('firewall-backend') as Firewall | undefined,
    })
  }
  for (const option of ['name', 'run-dir', 'netns', 'firewall-backend'])
    if (values.one(option) !== undefined) throw new UsageError(`--${option} goes with --data-dir`)
  return new Client(socketPath(values.one('host') ?? env.CNM_HOST ?? DEFAULT_SOCKET))
}

export function socketPath(host: string): string {
  if (host.startsWith('unix://')) return host.slice('unix://'.length)
  if (host.startsWith('/')) return host
  throw new UsageError(`the host must be unix://PATH, not ${JSON.stringify(host)}`)
}

/** The same API, so that every verb has one way to go; on a socket in a folder of its own for the time of one verb. */
async function openHere(input: ControllerInput): Promise<Client> {
  const controller = await loadController().Controller.open(input)
  const directory = mkdtempSync(join(tmpdir(), 'cnm-'))
  const api = loadApi().createApi(controller)
  const end = async () => {
    await api.close()
    await controller.close()
    rmSync(directory, { recursive: true, force: true })
  }
  try {
    const { path } = await api.listen(join(directory, 'api.sock'))
    return new Client(path, end)
  } catch (error) {
    await end()
    throw error
  }
}
