import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Place } from './place'
import type { Contestant } from './servers'

export interface Load {
  perSecond: number
  /** Microseconds of the server's processor time per question: what a busy machine does not blur. */
  cpu: number
  lost: number
  /** Milliseconds at half that load. */
  p50: number
  p99: number
}

/** The questions come from a container's address: aardvark-dns answers containers only. */
const CLIENT = '10.88.0.2'

async function questionFile(place: Place, questions: string[]): Promise<string> {
  const file = join(place.directory, 'questions')
  await writeFile(file, `${questions.join('\n')}\n`)
  return file
}

/** dnsperf at full speed, with so many clients and questions outstanding in all; then latencies at half of what that gave. */
export async function load(
  place: Place,
  { address: server, cpu }: Contestant,
  questions: string[],
  { clients, seconds, latency = true }: { clients: number; seconds: number; latency?: boolean },
): Promise<Load> {
  const file = await questionFile(place, questions)
  const outstanding = Math.max(32, clients)
  const common = [
    '-s',
    server,
    '-a',
    CLIENT,
    '-d',
    file,
    '-c',
    `${clients}`,
    '-T',
    '1',
    '-q',
    `${outstanding}`,
    '-t',
    '5',
  ]
  const before = cpu()
  const full = await place.run('dnsperf', ...common, '-l', `${seconds}`)
  const perSecond = number(full, /Queries per second:\s+([\d.]+)/)
  const used = (cpu() - before) / number(full, /Queries completed:\s+(\d+)/)
  const lost = number(full, /Queries lost:\s+(\d+)/)
  if (!latency) return { perSecond, cpu: used, lost, p50: Number.NaN, p99: Number.NaN }
  const rate = `${Math.max(100, Math.floor(perSecond / 2))}`
  const half = await place.run('dnsperf', ...common, '-l', '2', '-v', '-Q', rate)
  const latencies = [...half.matchAll(/^> \S+ \S+ \S+ ([\d.]+)$/gm)]
    .map(found => Number(found[1]) * 1000)
    .sort((a, b) => a - b)
  const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? Number.NaN
  return { perSecond, cpu: used, lost, p50: at(0.5), p99: at(0.99) }
}

/** Each question so many times. */
export async function many(place: Place, server: string, questions: string[], times: number): Promise<void> {
  const file = await questionFile(place, questions)
  await place.run('dnsperf', '-s', server, '-a', CLIENT, '-d', file, '-c', '64', '-q', '64', '-n', `${times}`)
}

function number(text: string, pattern: RegExp): number {
  return Number(pattern.exec(text)?.[1] ?? Number.NaN)
}
