/** Where Docker's plugins are found: sockets first, then files that name an address. */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { CnmError } from '../../lib/base/errors'

/** Docker's own: sockets are in the first; files of the kinds `.spec` and `.json` in the others. */
export const PLUGIN_DIRECTORIES = ['/run/docker/plugins', '/etc/docker/plugins', '/usr/lib/docker/plugins']

/** A plugin's name becomes part of a path: no separator, no leading dot. */
export const PLUGIN_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/

/** Bytes of a file that names an address. */
const FILE_LIMIT = 65536

export type PluginAddress =
  | { socket: string }
  | {
      host: string
      port: number
      tls?: { insecure: boolean; ca?: Buffer; cert?: Buffer; key?: Buffer }
    }

const Description = z.looseObject({
  Addr: z.string().min(1).max(2048),
  TLSConfig: z
    .looseObject({
      InsecureSkipVerify: z.boolean().default(false),
      CAFile: z.string().default(''),
      CertFile: z.string().default(''),
      KeyFile: z.string().default(''),
    })
    .nullish(),
})

/** Undefined when no directory has it. Throws ERR_INVALID_NAME before any file is touched, ERR_PLUGIN for a file that makes no sense. */
export async function findPlugin(
  name: string,
  directories: readonly string[],
): Promise<PluginAddress | undefined> {
  if (!PLUGIN_NAME.test(name))
    throw new CnmError(
      'ERR_INVALID_NAME',
      `${JSON.stringify(name.slice(0, 80))} is not a plugin name; it should be 1 to 128 letters, digits, "_", "." or "-", a letter or digit first`,
    )
  for (const directory of directories)
    for (const path of places(directory, name, 'sock'))
      if ((await stat(path).catch(() => undefined))?.isSocket()) return { socket: path }
  for (const directory of directories) {
    for (const path of places(directory, name, 'spec')) {
      const text = await textOf(path)
      if (text !== undefined) return addressFrom(text.trim(), path)
    }
    for (const path of places(directory, name, 'json')) {
      const text = await textOf(path)
      if (text !== undefined) return describedBy(text, path)
    }
  }
  return undefined
}

const places = (directory: string, name: string, kind: string): string[] => [
  join(directory, `${name}.${kind}`),
  join(directory, name, `${name}.${kind}`),
]

async function textOf(path: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined)
  if (!found?.isFile()) return undefined
  if (found.size > FILE_LIMIT) throw nonsense(path, `it has ${found.size} bytes, more than ${FILE_LIMIT}`)
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw nonsense(path, `it cannot be read: ${(cause as Error).message}`)
  }
}

async function describedBy(text: string, path: string): Promise<PluginAddress> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw nonsense(path, 'it is not JSON')
  }
  const parsed = Description.safeParse(value)
  if (!parsed.success) throw nonsense(path, parsed.error.issues.map(issue => issue.message).join('; '))
  const address = addressFrom(parsed.data.Addr, path)
  const tls = parsed.data.TLSConfig
  if (!tls || 'socket' in address) return address
  const load = async (file: string) => {
    if (!file) return undefined
    return readFile(file).catch((cause: Error) => {
      throw nonsense(path, `${file} cannot be read: ${cause.message}`)
    })
  }
  return {
    ...address,
    tls: {
      // As in Docker: without an authority of its own there is nothing to check the plugin against.
      insecure: tls.InsecureSkipVerify || tls.CAFile === '',
      ca: await load(tls.CAFile),
      cert: await load(tls.CertFile),
      key: await load(tls.KeyFile),
    },
  }
}

function addressFrom(text: string, path: string): PluginAddress {
  const unix = /^unix:\/\/(\/[^\0\r\n]{1,107})$/.exec(text)
  if (unix) return { socket: unix[1] as string }
  if (!/^(tcp|http|https):\/\/\S+$/.test(text) || !URL.canParse(text))
    throw nonsense(
      path,
      `${JSON.stringify(text.slice(0, 80))} is no address; it should be unix://PATH or tcp://HOST:PORT`,
    )
  const url = new URL(text.replace(/^tcp:/, 'http:'))
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const secure = url.protocol === 'https:'
  const port = Number(url.port || (secure ? 443 : 80))
  return secure ? { host, port, tls: { insecure: true } } : { host, port }
}

const nonsense = (path: string, why: string): CnmError =>
  new CnmError('ERR_PLUGIN', `plugin file ${path}: ${why}`, { path })
