/** One call by a CNI runtime: environment and standard input in, standard output and an exit code out. */
import { add, check, del, gc, status } from './commands'
import { configOf, decode } from './config'
import { commandOf, type Environment, placeOf } from './environment'
import { toCniError } from './errors'
import { isSpoken, NEWEST, VERSIONS } from './versions'

export interface Answer {
  /** For standard output. */
  out: string
  code: 0 | 1
}

/** Never rejects. */
export async function callPlugin(environment: Environment, input: () => Promise<string>): Promise<Answer> {
  let version: string = NEWEST
  try {
    const command = commandOf(environment)
    const text = await input()
    // The only command that may come without a configuration.
    const json = command === 'VERSION' && !text.trim() ? {} : decode(text)
    if (command === 'VERSION')
      return say({
        cniVersion: isSpoken(json.cniVersion) ? json.cniVersion : NEWEST,
        supportedVersions: VERSIONS,
      })
    if (isSpoken(json.cniVersion)) version = json.cniVersion
    return say(await carryOut(command, json, environment))
  } catch (error) {
    const { code, message, details } = toCniError(error)
    return { ...say({ cniVersion: version, code, msg: message, ...(details && { details }) }), code: 1 }
  }
}

function carryOut(
  command: 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS',
  json: Record<string, unknown>,
  environment: Environment,
): Promise<object | undefined> {
  const config = configOf(json, command)
  if (command === 'GC') return gc(config)
  if (command === 'STATUS') return status(config)
  const place = placeOf(environment, command)
  return { ADD: add, DEL: del, CHECK: check }[command](config, place)
}

const say = (answer: object | undefined): Answer => ({
  out: answer === undefined ? '' : `${JSON.stringify(answer)}\n`,
  code: 0,
})

export async function readAll(stream: AsyncIterable<string | Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks).toString('utf8')
}
