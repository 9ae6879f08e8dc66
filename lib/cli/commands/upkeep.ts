/** cnm check, repair, gc, top. */
import type { Difference } from '../../core/difference'
import type { LinkStatistics } from '../../kernel/kernel'
import { UsageError } from '../args'
import { type Command, count, type Invocation, OBJECT_FORMAT } from '../command'
import { bytes, formatObjects, painter, table, visible } from '../output'

const COLOURS = { missing: 'red', wrong: 'yellow', unwanted: 'magenta' } as const

function tell({ values, io }: Invocation, found: Difference[]): void {
  const format = values.one('format')
  if (format) {
    io.out(formatObjects(found, format, ['networkId', 'endpointId', 'sandboxId']))
    return
  }
  const paint = painter(io)
  for (const { problem, kind, message } of found)
    io.out(`${paint(COLOURS[problem], problem)} ${kind}: ${visible(message)}\n`)
}

const check: Command = {
  name: 'check',
  summary: 'Compare the system with what it should be; change nothing',
  operands: '',
  least: 0,
  most: 0,
  options: [OBJECT_FORMAT],
  description: 'The exit code is 0 if nothing differs, 1 otherwise.',
  async run(invocation) {
    const found = await (await invocation.client()).get<Difference[]>('/libcnm/check')
    tell(invocation, found)
    return found.length ? 1 : 0
  },
}

const repair: Command = {
  name: 'repair',
  summary: 'Put right what check finds',
  operands: '',
  least: 0,
  most: 0,
  options: [OBJECT_FORMAT],
  async run(invocation) {
    tell(invocation, await (await invocation.client()).post<Difference[]>('/libcnm/repair'))
    return 0
  },
}

const gc: Command = {
  name: 'gc',
  summary: 'Delete the sandboxes of containers that live no more, and what belongs to nobody',
  operands: '[CONTAINER...]',
  least: 0,
  most: Number.POSITIVE_INFINITY,
  completes: ['sandbox'],
  options: [{ name: 'all', kind: 'flag', help: 'no container lives: required when none is named' }],
  description: 'CONTAINER are those that live. Prints those whose sandboxes were deleted.',
  examples: ['cnm gc $(docker ps -q --no-trunc)'],
  async run({ values, args, io, client }) {
    if (!args.length && !values.flag('all'))
      throw new UsageError('name the containers that live, or say --all if there is none')
    const { deleted } = await (await client()).post<{ deleted: string[] }>('/libcnm/gc', {
      containerIds: args,
    })
    for (const container of deleted) io.out(`${container}\n`)
    return 0
  },
}

interface Sample {
  time: number
  sandboxes: { containerId: string; statistics: Record<string, LinkStatistics> }[]
}

const top: Command = {
  name: 'top',
  summary: 'Show the traffic of each interface',
  operands: '',
  least: 0,
  most: 0,
  options: [
    { name: 'interval', kind: 'one', value: 'SECONDS', help: 'between two looks; default 2' },
    {
      name: 'count',
      short: 'n',
      kind: 'one',
      value: 'NUMBER',
      help: 'end after so many looks; default: on a terminal go on, else 1',
    },
  ],
  description: 'Rates are those since the look before; the first look has none.',
  async run({ values, io, client }) {
    const limit = count(values.one('count'), 'count') ?? (io.tty ? Number.POSITIVE_INFINITY : 1)
    const interval = Number(values.one('interval') ?? 2)
    if (!(interval >= 0.1 && interval <= 3600)) throw new UsageError('--interval must be 0.1 to 3600 seconds')
    const api = await client()
    let before: Sample | undefined
    for (let at = 1; ; at++) {
      const sample = await api.get<Sample>('/libcnm/top')
      if (io.tty && limit > 1) io.out('\u001b[H\u001b[2J')
      io.out(topTable(sample, before))
      before = sample
      if (at >= limit || io.signal.aborted) return 0
      await pause(interval * 1000, io.signal)
      if (io.signal.aborted) return 0
    }
  },
}

export function topTable(now: Sample, before?: Sample): string {
  const seconds = before ? Math.max(0.001, (now.time - before.time) / 1000) : 0
  const old = new Map(before?.sandboxes.map(({ containerId, statistics }) => [containerId, statistics]))
  const rows = now.sandboxes.flatMap(({ containerId, statistics }) =>
    Object.entries(statistics).map(([link, counters]) => {
      const last = old.get(containerId)?.[link]
      const rate = (key: 'rxBytes' | 'txBytes') =>
        last
          ? `${bytes(Math.max(0, Math.round((Number(counters[key]) - Number(last[key])) / seconds)))}/s`
          : '-'
      return [
        containerId.slice(0, 24),
        link,
        rate('rxBytes'),
        rate('txBytes'),
        bytes(Number(counters.rxBytes)),
        bytes(Number(counters.txBytes)),
        String(counters.rxPackets),
        String(counters.txPackets),
        String(Number(counters.rxDropped) + Number(counters.txDropped)),
        String(Number(counters.rxErrors) + Number(counters.txErrors)),
      ]
    }),
  )
  return table([
    ['CONTAINER', 'LINK', 'IN', 'OUT', 'RECEIVED', 'SENT', 'PACKETS IN', 'PACKETS OUT', 'DROPPED', 'ERRORS'],
    ...rows,
  ])
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    signal.addEventListener('abort', done, { once: true })
  })
}

export const upkeepCommands: Command[] = [check, repair, gc, top]
