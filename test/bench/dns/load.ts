import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { encode } from 'dns-packet'
import { LOAD_CORE, type Place } from './place'
import type { Contestant } from './servers'

export interface Load {
  /** Questions answered a second. */
  perSecond: number
  /** Microseconds of the server's processor time per question: what a busy machine does not blur. */
  cpu: number
  /** Share of one core that the server used: near 1, it was the limit; else the load program was, or the machine. */
  busy: number
  lost: number
  /** Milliseconds at half that load. */
  p50: number
  p99: number
}

/** Clients, and questions that each has outstanding. */
export interface Shape {
  clients: number
  window: number
}

/** The questions come from a container's address: aardvark-dns answers containers only. */
const CLIENT = '10.88.0.2'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** The load program, made from load.c. */
export class Asker {
  readonly #program: string
  readonly #place: Place

  constructor(place: Place) {
    this.#place = place
    this.#program = join(place.directory, 'load')
    // built code runs from dist/, which has no C in it
    const source = join(__dirname, '../../../../test/bench/dns/load.c')
    execFileSync('gcc', ['-O2', '-o', this.#program, source])
  }

  /** At full speed; then latencies at half of what that gave. */
  async load(
    { address: server, cpu }: Contestant,
    names: string[],
    shape: Shape & { seconds: number; latency?: boolean },
  ): Promise<Load> {
    const file = await this.#questions(names)
    collectGarbage() // what was left behind before would be charged to the server that runs in this process
    const before = cpu()
    const full = await this.#run(server, file, shape, { seconds: shape.seconds })
    const used = cpu() - before
    const perSecond = full.completed / full.seconds
    const half =
      shape.latency === false
        ? { p50: Number.NaN, p99: Number.NaN }
        : await this.#run(server, file, shape, { seconds: 2, rate: Math.max(100, perSecond / 2) })
    const { p50, p99 } = half
    return {
      perSecond,
      cpu: used / full.completed,
      busy: used / (full.seconds * 1e6),
      lost: full.lost,
      p50,
      p99,
    }
  }

  /** So many questions in all. */
  async many(server: string, names: string[], count: number): Promise<void> {
    await this.#run(server, await this.#questions(names), { clients: 64, window: 1 }, { count })
  }

  async #questions(names: string[]): Promise<string> {
    const file = join(this.#place.directory, 'questions')
    const messages = names.flatMap(name => {
      const message = encode({
        type: 'query',
        id: 0,
        flags: 0x0100, // recursion desired
        questions: [{ type: 'A', class: 'IN', name }],
      })
      return [Buffer.from([message.length >> 8, message.length & 255]), message]
    })
    await writeFile(file, Buffer.concat(messages))
    return file
  }

  async #run(
    server: string,
    file: string,
    { clients, window }: Shape,
    { seconds = 0, rate = 0, count = 0 }: { seconds?: number; rate?: number; count?: number },
  ) {
    const words = [server, CLIENT, file, clients, window, seconds, rate, count].map(String)
    const said = await this.#place.run('taskset', '-c', LOAD_CORE, this.#program, ...words)
    const [completed = 0, lost = 0, took = 1, p50 = 0, p99 = 0] = said.split(' ').map(Number)
    return { completed, lost, seconds: took, p50, p99 }
  }
}
