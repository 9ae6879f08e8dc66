/**
 * Asks upstreams, and always comes to an end: an answer, or undefined within {@link LIMITS}.deadline. The first server is
 * asked first; when it is slow, the next is asked too (hedging); one that does not answer is remembered and asked last,
 * with a probe beside the others from time to time. Equal questions at the same time are asked once.
 */
import { randomFillSync } from 'node:crypto'
import type { Upstream, UpstreamStatistics } from './contract'
import { upstreamKey } from './upstream'
import { type Foreign, readForeign } from './wire/foreign'
import { RCODE } from './wire/message'

/** Carries a message to a server and its answer back. `done` is called at most once, never before `send` returns. */
export interface Transport {
  /** Returns a function that gives up. The transport chooses ids and checks them, and the source. */
  send(
    upstream: Upstream,
    protocol: 'udp' | 'tcp',
    message: Buffer,
    done: (error: Error | undefined, reply?: Buffer) => void,
  ): () => void
}

/** Milliseconds. */
export const LIMITS = {
  /** After this the client gets SERVFAIL. Stubs give up after 5 s. */
  deadline: 4500,
  /** The same when every server is known not to answer. */
  deadlineDown: 2000,
  /** How long the next server waits for the one before: 4 round trips, within these. */
  hedge: { least: 60, most: 500, unknown: 300 },
  /** When everybody is asked again by UDP. */
  again: [1200, 2600],
  /** A server that said nothing for this long counts as silent. */
  silent: 2000,
  /** How long a silent server is asked last, doubled each time. */
  down: { least: 2000, most: 30_000 },
}

/** Questions in a row without an answer after which a server counts as down: one may be the fault of the name asked for. */
const STRIKES = 3

export interface Ask {
  /** As in {@link readForeign}: an own question, without id. */
  message: Buffer
  /** Offset behind the question. */
  end: number
  /** Equal keys are equal questions to equal servers. */
  key: string
  /** In the order of preference; at least one. */
  upstreams: Upstream[]
  edns: boolean
}

class Server {
  asked = 0
  answered = 0
  failed = 0
  roundTrip: number | undefined
  strikes = 0
  down = false
  probeAt = 0
  #pause = LIMITS.down.least
  /** Answers FORMERR to EDNS0 (RFC 6891 6.2.2): asked without, until then. */
  plainUntil = 0

  constructor(readonly upstream: Upstream) {}

  get hedge(): number {
    const { least, most, unknown } = LIMITS.hedge
    return this.roundTrip === undefined ? unknown : Math.min(most, Math.max(least, this.roundTrip * 4))
  }

  heard(took: number): void {
    this.answered++
    this.strikes = 0
    this.down = false
    this.#pause = LIMITS.down.least
    this.roundTrip = this.roundTrip === undefined ? took : this.roundTrip * 0.875 + took * 0.125
  }

  /** `certain`: the kernel said so (connection refused, no route). */
  silent(certain: boolean, now: number): void {
    this.failed++
    this.strikes++
    if (this.down || (!certain && this.strikes < STRIKES)) return
    this.down = true
    this.probeAt = now + this.#pause
  }

  probed(now: number): void {
    this.#pause = Math.min(this.#pause * 2, LIMITS.down.most)
    this.probeAt = now + this.#pause
  }
}

export class Forwarder {
  readonly #servers = new Map<string, Server>()
  readonly #races = new Map<string, Race>()
  #closed = false

  constructor(
    readonly transport: Transport,
    readonly now: () => number = () => performance.now(),
  ) {}

  /** `done` gets undefined when nobody answered. Never called before this returns. */
  ask(ask: Ask, done: (foreign: Foreign | undefined) => void): void {
    const present = this.#races.get(ask.key)
    if (present) {
      present.waiting.push(done)
      return
    }
    const race = new Race(this, ask, () => this.#races.delete(ask.key))
    race.waiting.push(done)
    if (this.#closed) {
      queueMicrotask(() => done(undefined))
      return
    }
    this.#races.set(ask.key, race)
    race.start()
  }

  server(upstream: Upstream): Server {
    const key = upstreamKey(upstream)
    let server = this.#servers.get(key)
    if (!server) {
      server = new Server(upstream)
      this.#servers.set(key, server)
    }
    return server
  }

  /** Forgets servers that are no longer used. */
  retain(upstreams: Upstream[]): void {
    const keys = new Set(upstreams.map(upstreamKey))
    for (const key of this.#servers.keys()) if (!keys.has(key)) this.#servers.delete(key)
  }

  statistics(): UpstreamStatistics[] {
    return [...this.#servers.values()].map(({ upstream, asked, answered, failed, roundTrip, down }) => ({
      address: upstream.address,
      port: upstream.port ?? 53,
      from: upstream.from,
      asked,
      answered,
      failed,
      roundTrip,
      down,
    }))
  }

  close(): void {
    this.#closed = true
    for (const race of [...this.#races.values()]) race.finish(undefined)
  }
}

/** One question under way to one or more servers. */
class Race {
  readonly waiting: ((foreign: Foreign | undefined) => void)[] = []
  readonly #attempts = new Set<Attempt>()
  #timer: NodeJS.Timeout | undefined
  #queue: Server[] = []
  #order: Server[] = []
  #hedge: NodeJS.Timeout | undefined
  #over = false
  /** What a server said that gives no answer (SERVFAIL, REFUSED ...): said on, if none says more. */
  #poor: Foreign | undefined

  constructor(
    readonly forwarder: Forwarder,
    readonly ask: Ask,
    readonly ended: () => void,
  ) {}

  start(): void {
    const now = this.forwarder.now()
    const servers = this.ask.upstreams.map(upstream => this.forwarder.server(upstream))
    const up = servers.filter(server => !server.down)
    const down = servers.filter(server => server.down)
    this.#order = [...up, ...down]
    this.#queue = [...this.#order]
    this.#wait(0, 0, up.length > 0 ? LIMITS.deadline : LIMITS.deadlineDown)
    if (up.length > 0)
      for (const server of down)
        if (now >= server.probeAt) {
          server.probed(now)
          this.#queue.splice(this.#queue.indexOf(server), 1)
          this.#try(server)
        }
    this.#next()
  }

  finish(foreign: Foreign | undefined): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#hedge)
    clearTimeout(this.#timer)
    // Those still to answer may go on: their lateness, or their silence, is worth knowing.
    for (const attempt of this.#attempts) attempt.outlive()
    this.ended()
    for (const done of this.waiting) done(foreign)
  }

  #next(): void {
    if (this.#over) return
    clearTimeout(this.#hedge)
    const server = this.#queue.shift()
    if (server) {
      this.#try(server)
      if (this.#queue.length > 0) this.#hedge = setTimeout(() => this.#next(), server.hedge)
    } else if (this.#attempts.size === 0) {
      // Everybody has refused or cannot be reached; another round would say the same.
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.finish(this.#poor), 0)
    }
  }

  /** One timer at a time: most questions are answered before the first is due. `passed`: milliseconds since the start. */
  #wait(step: number, passed: number, deadline: number): void {
    const again = LIMITS.again[step] ?? deadline
    const due = Math.min(again, deadline)
    this.#timer = setTimeout(() => {
      if (due >= deadline) {
        this.finish(this.#poor)
        return
      }
      // A packet may have been lost.
      for (const server of this.#order) this.#try(server, false)
      this.#wait(step + 1, due, deadline)
    }, due - passed)
  }

  #try(server: Server, counts = true): void {
    const attempt = new Attempt(this.forwarder, server, this.ask, counts, foreign => {
      this.#attempts.delete(attempt)
      if (this.#over) return
      if (foreign && !poor(foreign)) this.finish(foreign)
      else {
        this.#poor = foreign ?? this.#poor
        this.#next()
      }
    })
    this.#attempts.add(attempt)
    attempt.start()
  }
}

/** Worth asking the next server for a better answer? */
const poor = ({ rcode }: Foreign): boolean => rcode !== RCODE.NOERROR && rcode !== RCODE.NXDOMAIN

/** One question to one server: by UDP, by TCP when the answer was truncated, without EDNS0 when it does not know that. */
class Attempt {
  #since = 0
  #cancel: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #truncated: Foreign | undefined

  constructor(
    readonly forwarder: Forwarder,
    readonly server: Server,
    readonly ask: Ask,
    /** Its silence counts against the server; that of a repetition does not. */
    readonly counts: boolean,
    /** Called once. */
    readonly report: (foreign: Foreign | undefined) => void,
  ) {}

  start(): void {
    this.#since = this.forwarder.now()
    this.server.asked++
    this.#send('udp', this.ask.edns && this.#since >= this.server.plainUntil)
  }

  /** The race is over: wait only long enough to know whether the server is silent. */
  outlive(): void {
    const left = this.#since + LIMITS.silent - this.forwarder.now()
    this.#timer = setTimeout(() => this.#fail(false), Math.max(0, left))
    this.#timer.unref()
  }

  #send(protocol: 'udp' | 'tcp', edns: boolean): void {
    const { message, end } = this.ask
    const asked = edns || !this.ask.edns ? message : withoutOpt(message, end)
    this.#cancel = this.forwarder.transport.send(this.server.upstream, protocol, asked, (error, reply) => {
      if (error || !reply) {
        if (protocol === 'tcp' && this.#truncated) this.#done(this.#truncated)
        else this.#fail(true)
        return
      }
      const foreign = readForeign(reply, asked, end)
      if (!foreign) {
        // Its id and source are right but it is no answer to this: nothing better will come.
        this.#fail(false)
        return
      }
      if (edns && (foreign.rcode === RCODE.FORMERR || foreign.rcode === RCODE.NOTIMP)) {
        this.server.plainUntil = this.forwarder.now() + 600_000
        this.#send(protocol, false)
      } else if (foreign.truncated && protocol === 'udp') {
        this.#truncated = foreign
        this.#send('tcp', edns)
      } else this.#done(foreign)
    })
  }

  #done(foreign: Foreign): void {
    clearTimeout(this.#timer)
    this.server.heard(this.forwarder.now() - this.#since)
    this.report(foreign)
  }

  #fail(certain: boolean): void {
    clearTimeout(this.#timer)
    this.#cancel?.()
    if (this.counts || certain) this.server.silent(certain, this.forwarder.now())
    this.report(undefined)
  }
}

function withoutOpt(message: Buffer, end: number): Buffer {
  const out = Buffer.from(message.subarray(0, end))
  out[10] = out[11] = 0
  return out
}

/** Ids that nobody can guess, drawn in bulk. */
const ids = new Uint16Array(512)
let drawn = ids.length
export function randomId(): number {
  if (drawn === ids.length) {
    randomFillSync(ids)
    drawn = 0
  }
  return ids[drawn++] as number
}
