/** cnm graph: what hangs on what, as a picture. */
import { writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Topology } from '../../api/topology'
import type { Command } from '../command'
import { modelOf } from '../graph/model'
import { svgOf } from '../graph/svg'
import { textOf } from '../graph/text'
import { painter } from '../output'

export const graphCommand: Command = {
  name: 'graph',
  summary: 'Draw networks, bridges, veth pairs, sandboxes, addresses and published ports',
  operands: '',
  least: 0,
  most: 0,
  options: [
    {
      name: 'output',
      short: 'o',
      kind: 'one',
      value: 'FORM',
      choices: ['text', 'svg', 'json'],
      help: 'text (default), svg or json',
    },
    { name: 'svg', kind: 'one', value: 'FILE', help: 'write an SVG to this file' },
    { name: 'all', short: 'a', kind: 'flag', help: 'show networks that nobody is on, too' },
  ],
  examples: ['cnm graph', 'cnm graph --svg topology.svg'],
  async run({ values, io, client }) {
    const topology = await (await client()).get<Topology>('/libcnm/topology')
    const model = modelOf(topology, { all: values.flag('all') })
    const file = values.one('svg')
    if (file !== undefined) write(file, svgOf(model))
    else if (values.one('output') === 'svg') io.out(svgOf(model))
    else if (values.one('output') === 'json') io.out(`${JSON.stringify(topology, undefined, 2)}\n`)
    else io.out(textOf(model, painter(io)))
    return 0
  },
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text)
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    const why: Record<string, string> = {
      ENOENT: `there is no folder ${dirname(file)}; make it first`,
      ENOTDIR: `${dirname(file)} is no folder`,
      EISDIR: 'it is a folder; name a file in it',
      EACCES: 'permission denied',
      EROFS: 'it is on a file system that is only read',
    }
    throw new Error(`cannot write ${file}: ${why[code] ?? message}`, { cause: error })
  }
}
