/** Calls plugins as libcni does: by name in a folder of CNI_PATH, environment and standard input, in the host's namespace. */
import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Stack } from 'libcnm'
import type { TestHost } from '../../support/host'
import { ROOT } from '../../support/imports'

export interface Reply {
  code: number
  /** What came on standard output; undefined when nothing did. */
  json: Result | undefined
  error: string
}
export interface Result {
  cniVersion: string
  interfaces: { name: string; mac: string; sandbox?: string; mtu?: number }[]
  ips: { address: string; gateway?: string; interface: number; version?: string }[]
  routes: { dst: string; gw?: string }[]
  code?: number
  msg?: string
  details?: string
  supportedVersions?: string[]
}
export type Config = Record<string, unknown>

/** Where Debian's containernetworking-plugins are. */
const DEBIAN = '/usr/lib/cni'

export class Runtime {
  readonly #host: TestHost
  readonly #path: string

  constructor(host: TestHost) {
    this.#host = host
    this.#path = join(host.directory, 'bin')
    mkdirSync(this.#path)
    // The built program, as `npm test` builds it: compiling the library anew for each call would take seconds.
    const program = join(this.#path, 'cnm-cni')
    writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${ROOT}/dist/lib/cni/main.js'\n`)
    chmodSync(program, 0o755)
  }

  /** `change`: fields of the configuration. */
  config(change: Config = {}): Config {
    return {
      cniVersion: '1.1.0',
      name: 'pods',
      type: 'cnm-cni',
      ipv6: true,
      ipam: { config: [{ subnet: '10.77.0.0/24' }, { subnet: 'fd77::/64' }] },
      dataDir: this.#host.dataDir,
      runDir: this.#host.runDir,
      ...change,
    }
  }

  call(command: string, input: Config | string, env: Record<string, string> = {}): Promise<Reply> {
    const type = typeof input === 'string' ? 'cnm-cni' : (input.type as string)
    const folder = type === 'cnm-cni' ? this.#path : DEBIAN
    const child = this.#host.host.run(() =>
      spawn(join(folder, type), {
        env: {
          PATH: process.env.PATH,
          CNI_COMMAND: command,
          CNI_PATH: `${this.#path}:${DEBIAN}`,
          ...env,
        },
      }),
    )
    let out = ''
    let error = ''
    child.stdout.on('data', chunk => {
      out += chunk
    })
    child.stderr.on('data', chunk => {
      error += chunk
    })
    child.stdin.on('error', () => {}) // it need not read what it refuses anyway
    child.stdin.end(typeof input === 'string' ? input : JSON.stringify(input))
    return new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', code =>
        resolve({ code: code ?? -1, json: out.trim() ? (JSON.parse(out) as Result) : undefined, error }),
      )
    })
  }

  async add(id: string, netns: Stack, input: Config = this.config(), env = {}): Promise<Result> {
    const reply = await this.call('ADD', input, { ...place(id, netns), ...env })
    if (reply.code !== 0 || !reply.json)
      throw new Error(`ADD ${id}: ${JSON.stringify(reply.json)} ${reply.error}`)
    return reply.json
  }
}

export const place = (id: string, netns: Stack | string, ifname = 'eth0'): Record<string, string> => ({
  CNI_CONTAINERID: id,
  CNI_NETNS: typeof netns === 'string' ? netns : (netns.path as string),
  CNI_IFNAME: ifname,
})
