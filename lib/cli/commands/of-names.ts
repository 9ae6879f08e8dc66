/** The verbs that networks and sandboxes share: they take names, and what becomes of one is no matter to the next. */
import type { Noun, Option } from '../args'
import type { Client } from '../client'
import { type Command, each, type Invocation, OBJECT_FORMAT } from '../command'
import { formatObjects } from '../output'

interface Thing {
  noun: Noun
  /** What stands for a name in the usage line. */
  operand: string
  /** Where it is in the API. */
  path(name: string): string
}

const onNames = ({ noun, operand }: Thing) => ({
  operands: `${operand} [${operand}...]`,
  least: 1,
  most: Number.POSITIVE_INFINITY,
  completes: [noun],
})

interface Removal {
  summary: string
  /** What `--force` does, and how. */
  force: string
  remove(api: Client, path: string, force: boolean): Promise<void>
}

export const removeCommand = (thing: Thing, { summary, force, remove }: Removal): Command => ({
  name: `${thing.noun} rm`,
  aliases: [`${thing.noun} remove`],
  summary,
  ...onNames(thing),
  options: [{ name: 'force', short: 'f', kind: 'flag', help: force }],
  async run({ values, args, io, client }) {
    const api = await client()
    return each({ args, io }, async name => {
      await remove(api, thing.path(name), values.flag('force'))
      return name
    })
  },
})

interface Inspection {
  options?: readonly Option[]
  examples?: readonly string[]
  /** Fields that not every one has. */
  optional: readonly string[]
  query?(values: Invocation['values']): string
}

export const inspectCommand = (
  thing: Thing,
  { options = [], examples, optional, query = () => '' }: Inspection,
): Command => ({
  name: `${thing.noun} inspect`,
  summary: `Show ${thing.noun === 'network' ? 'networks' : 'sandboxes'} in detail`,
  ...onNames(thing),
  options: [OBJECT_FORMAT, ...options],
  examples,
  async run({ values, args, io, client }) {
    const api = await client()
    const found: unknown[] = []
    const failures: string[] = []
    for (const name of args) {
      try {
        found.push(await api.get(`${thing.path(name)}${query(values)}`))
      } catch (error) {
        if ((error as Error).name !== 'ApiError') throw error
        failures.push((error as Error).message)
      }
    }
    io.out(formatObjects(found, values.one('format'), optional))
    for (const failure of failures) io.error(`cnm: ${failure}\n`)
    return failures.length ? 1 : 0
  },
})
