import { decode, encode, type Answer, type Packet } from 'dns-packet'
import { type Logger, SILENT } from '../base/log'
import { AnswerCache } from './cache'
import type { ResolverStatistics, SandboxView, Upstream } from './contract'
import type { Forwarder } from './forward'
import { Prepared } from './prepared'
import { chooseUpstreams, upstreamKey } from './upstream'
import { complete, completeInto, emptyAnswer, layOut } from './wire/answer'
import { type Foreign, readForeign, relay } from './wire/foreign'
import { encodeName, MAX_TCP, RCODE, TYPE } from './wire/message'
import { DROP, newQuestion, ownQuestion, type Question, questionName, readQuestion } from './wire/question'
import type { LocalAnswer, Zones } from './zones'

/** Laid out answers kept per sandbox: a busy one asks for some hundred names again and again. */
const MAX_TEMPLATES = 512
/** Questions of one sandbox that wait for upstreams at a time; beyond: REFUSED at once. */
export const MAX_IN_FLIGHT = 1024

type Reply = (message: Buffer) => void

/** Answers the questions of one sandbox. Knows nothing of sockets: bytes in, bytes out. */
export class Responder {
  readonly #question = newQuestion()
  readonly #templates = new Prepared(MAX_TEMPLATES)
  #generation = -1
  #view: SandboxView
  readonly #cache = new AnswerCache()
  /** Servers for names that no domain of split DNS covers; undefined while unknown, or when there are such domains. */
  #plainUpstreams: Upstream[] | undefined
  #inFlight = 0
  /** Bumped when upstreams change: answers under way are then not kept. */
  #epoch = 0
  readonly counts = {
    queries: 0,
    tcpQueries: 0,
    local: 0,
    cached: 0,
    forwarded: 0,
    failed: 0,
    refused: 0,
    malformed: 0,
    truncated: 0,
  }

  constructor(
    readonly zones: Zones,
    view: SandboxView,
    readonly forwarder: Forwarder,
    readonly options: {
      /** Said of names that are not ours when there is nobody to ask. */
      nobody: number
      /** Answers for every network, whatever the view says. */
      all?: boolean
      /** The servers that networks name are not asked. */
      ownUpstreamsOnly?: boolean
    } = { nobody: RCODE.SERVFAIL },
    readonly log: Logger = SILENT,
  ) {
    this.#view = view
  }

  get view(): SandboxView {
    return this.options.all ? { ...this.#view, networks: this.zones.networkIds() } : this.#view
  }

  set view(view: SandboxView) {
    const before = JSON.stringify([this.#view.upstreams, this.#view.external, this.#view.networks])
    this.#view = view
    this.#generation = -1
    if (before === JSON.stringify([view.upstreams, view.external, view.networks])) return
    this.#epoch++
    this.#cache.clear()
    this.forwarder.retain([...view.upstreams, ...this.zones.upstreams(view)])
  }

  /**
   * The answer if it is at hand; undefined if nothing is to be said; null if others must be asked: then call
   * {@link slow} before the next question.
   */
  quick(message: Buffer, tcp: boolean): Buffer | undefined | null {
    const question = this.#question
    const code = readQuestion(message, question)
    if (code !== RCODE.NOERROR) {
      this.counts.malformed++
      return code === DROP ? undefined : emptyAnswer(message, question, code)
    }
    this.counts.queries++
    if (tcp) this.counts.tcpQueries++
    this.#refresh()
    let template = this.#templates.find(message, 0, question.end)
    if (!template) {
      const name = questionName(message)
      const local = this.zones.answer(this.view, name, question.type)
      if (!local || local.onward !== undefined) return this.#known(message, question, name, local, tcp)
      template = layOut(message, question.end, RCODE.NOERROR, local.records, local.additional)
      this.#templates.add(template)
    }
    this.counts.local++
    const limit = tcp ? MAX_TCP : question.udpSize
    const answer = complete(template, question, limit)
    if (answer[2]! & 2) this.counts.truncated++
    return answer
  }

  /**
   * The hot question: the one at `base` of `heard` comes by UDP, and its answer has been laid out before. Written at `base` of
   * `said`, where 4096 bytes (the most that UDP answers take) are free; returns how many it took. 0: not that simple, nothing was counted;
   * ask {@link quick}.
   */
  hot(heard: Uint8Array, base: number, length: number, said: Uint8Array): number {
    const question = this.#question
    if (readQuestion(heard, question, base, length) !== RCODE.NOERROR) return 0
    this.#refresh()
    const template = this.#templates.find(heard, base, question.end)
    if (!template) return 0
    const { counts } = this
    counts.queries++
    counts.local++
    const size = completeInto(template, question, question.udpSize, said, base)
    if (said[base + 2]! & 2) counts.truncated++
    return size
  }

  /** Answers the last question for which {@link quick} gave null. `reply` is called once, later. */
  slow(heard: Buffer, tcp: boolean, reply: Reply): void {
    const message = Buffer.from(heard) // the socket may use its buffer again
    const question = { ...this.#question }
    const name = questionName(message)
    const local = this.zones.answer(this.view, name, question.type)
    const onward = local?.onward
    if (local && onward !== undefined) this.#chase(message, question, local, onward, tcp, reply)
    else
      this.#forward(message, question, name, foreign => reply(this.#finish(foreign, message, question, tcp)))
  }

  /** Answers laid out and kept. */
  get held(): number {
    return this.#templates.size
  }

  statistics(): Omit<ResolverStatistics, 'unsent'> {
    return {
      ...this.counts,
      inFlight: this.#inFlight,
      cacheEntries: this.#cache.size,
      upstreams: this.forwarder.statistics(),
    }
  }

  #refresh(): void {
    if (this.#generation === this.zones.generation) return
    this.#templates.clear()
    this.#plainUpstreams = undefined
    this.#generation = this.zones.generation
  }

  /** Not in the zones: perhaps in the cache, perhaps an error at once; null otherwise. */
  #known(
    message: Buffer,
    question: Question,
    name: string,
    local: LocalAnswer | undefined,
    tcp: boolean,
  ): Buffer | null {
    if (local?.onward === undefined) {
      const address = question.type === TYPE.A || question.type === TYPE.AAAA
      if (this.#view.ndotsFromUser && address && !name.includes('.')) {
        this.counts.local++
        return emptyAnswer(message, question, RCODE.NOERROR)
      }
      const upstreams = this.#upstreams(name)
      const hit = this.#cache.get(cacheKey(question, name, upstreams))
      if (hit) {
        this.counts.cached++
        return this.#finish(hit.foreign, message, question, tcp, hit.age)
      }
      if (upstreams.length === 0) {
        this.counts[this.options.nobody === RCODE.REFUSED ? 'refused' : 'failed']++
        return emptyAnswer(message, question, this.options.nobody)
      }
    }
    if (this.#inFlight >= MAX_IN_FLIGHT) {
      this.counts.refused++
      return emptyAnswer(message, question, RCODE.REFUSED)
    }
    return null
  }

  #upstreams(name: string): Upstream[] {
    if (this.#plainUpstreams) return this.#plainUpstreams
    const ofNetworks = this.options.ownUpstreamsOnly ? [] : this.zones.upstreams(this.view)
    const chosen = chooseUpstreams(this.#view, ofNetworks, name)
    if (![...this.#view.upstreams, ...ofNetworks].some(({ domains }) => domains))
      this.#plainUpstreams = chosen
    return chosen
  }

  #forward(
    message: Buffer,
    question: Question,
    name: string,
    done: (foreign: Foreign | undefined, age: number) => void,
  ): void {
    const upstreams = this.#upstreams(name)
    const key = cacheKey(question, name, upstreams)
    const hit = this.#cache.get(key)
    if (hit || upstreams.length === 0) {
      done(hit?.foreign, hit?.age ?? 0)
      return
    }
    const epoch = this.#epoch
    const own = ownQuestion(message, question, true)
    own[2] = 1 // we want the whole answer, and keep it for others
    this.counts.forwarded++
    this.#inFlight++
    this.forwarder.ask({ message: own, end: question.end, key, upstreams, edns: true }, foreign => {
      this.#inFlight--
      if (foreign && epoch === this.#epoch) this.#cache.set(key, foreign)
      done(foreign, 0)
    })
  }

  #finish(foreign: Foreign | undefined, message: Buffer, question: Question, tcp: boolean, age = 0): Buffer {
    if (!foreign) {
      this.counts.failed++
      return emptyAnswer(message, question, RCODE.SERVFAIL)
    }
    const answer = relay(foreign, message, question, tcp ? MAX_TCP : question.udpSize, age)
    if (answer[2]! & 2) this.counts.truncated++
    return answer
  }

  /** Our CNAME leads to a name elsewhere: asks for that and sets our records before the answer. */
  #chase(
    message: Buffer,
    question: Question,
    local: LocalAnswer,
    onward: string,
    tcp: boolean,
    reply: Reply,
  ): void {
    const head = layOut(message, question.end, RCODE.NOERROR, local.records)
    const limit = tcp ? MAX_TCP : question.udpSize
    const target = encodeName(onward)
    if (!target || question.type === TYPE.CNAME) {
      reply(complete(head, question, limit))
      return
    }
    const tail = Buffer.from(message.subarray(question.end - 4, question.end))
    const asked = Buffer.concat([message.subarray(0, 12), target, tail])
    const next = { ...question, end: asked.length }
    this.#forward(asked, next, onward, (foreign, age) => {
      if (!foreign) {
        this.counts.failed++
        reply(emptyAnswer(message, question, RCODE.SERVFAIL))
        return
      }
      try {
        const relayed = decode(relay(foreign, asked, { ...next, edns: false }, MAX_TCP, age))
        const ours = decode(head.bytes)
        const joined = encode({
          ...ours,
          type: 'response',
          flags: 0x0180 | (foreign.rcode & 15),
          answers: [...(ours.answers ?? []), ...(relayed.answers ?? [])] as Answer[],
          authorities: relayed.authorities,
        } as Packet)
        const whole = readForeign(joined, message, question.end)
        reply(
          whole ? relay(whole, message, question, limit, 0) : emptyAnswer(message, question, RCODE.SERVFAIL),
        )
      } catch (error) {
        this.log.warn(`an answer for ${onward} could not be read`, { error })
        reply(emptyAnswer(message, question, RCODE.SERVFAIL))
      }
    })
  }
}

/** What an answer depends on: the question, the flags that upstreams heed, and whom we ask. */
function cacheKey(question: Question, name: string, upstreams: Upstream[]): string {
  const flags = (question.dnssecOk ? 2 : 0) | (question.checkingDisabled ? 1 : 0)
  return `${name} ${question.type} ${flags} ${upstreams.map(upstreamKey).join(' ')}`
}
