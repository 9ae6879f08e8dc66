/** Holds conversations with DHCP servers over a link of the host, in the name of an interface that need not be there yet. */
import { randomInt } from 'node:crypto'
import { addressOf } from '../../../lib/base/cidr'
import { CnmError } from '../../../lib/base/errors'
import { Conversation, type Heard, type Purpose, type Step } from './conversation'
import { decodeFrame, encodeDhcp, encodeProbe, type Envelope, EVERYBODY, NOBODY } from './frames'
import { type Lease, leaseOf } from './lease'
import { decodeReply, encodeQuestion, type Question } from './protocol'

/** A way to send and hear frames on a link. */
export interface Wire {
  /** Bytes that the link carries. */
  mtu: number
  send(frame: Uint8Array): void
  close(): void
}
/** `promiscuous`: what is for other MAC addresses than the link's is to be heard, too. Throws ERR_LEASE when it cannot be. */
export type OpenWire = (
  link: string,
  promiscuous: boolean,
  hear: (frame: Uint8Array) => void,
) => Promise<Wire>

/** Whom an address is for. */
export interface Interface {
  /** The host's link to the network. */
  link: string
  mac: string
  hostname?: string
  /** Length of the subnet, where a server tells none. */
  length: number
}

/** Milliseconds that somebody who has the address already gets to say so, twice asked (RFC 5227 waits for seconds). */
const PROBES = [0, 120]
const PROBE_WAIT = 300
/** Addresses that were taken after all, until we stop asking. */
const MOST_DECLINED = 3

export class DhcpClient {
  readonly #openWire: OpenWire
  /** Ends of what is under way, for {@link close}. */
  readonly #ends = new Set<(error: CnmError) => void>()
  #closed = false

  constructor(openWire: OpenWire) {
    this.#openWire = openWire
  }

  /**
   * Gets an address that nobody answers for; one that somebody does is declined. `timeout`: milliseconds for all of it.
   * `acceptable` says what is wrong with an address. Throws ERR_LEASE.
   */
  async acquire(
    on: Interface,
    wish: { wanted?: string; only?: boolean },
    { timeout, probe }: { timeout: number; probe: boolean },
    acceptable: (lease: Lease) => string | undefined = () => undefined,
  ): Promise<Lease> {
    const end = Date.now() + timeout
    const taken: string[] = []
    for (;;) {
      const lease = await this.#converse(
        on,
        { kind: 'acquire', ...wish },
        Math.max(1, end - Date.now()),
        taken,
      )
      const wrong = acceptable(lease)
      if (wrong !== undefined) {
        await this.release(on, lease)
        throw failure(on, wrong, { address: lease.address, server: lease.server })
      }
      if (!probe) return lease
      const holder = await this.#holderOf(on, addressOf(lease.address))
      if (holder === undefined) return lease
      await this.#tell(on, lease, 'decline')
      taken.push(`${addressOf(lease.address)}, which server ${lease.server} gave, is in use by ${holder}`)
      if (taken.length === MOST_DECLINED || wish.only)
        throw failure(on, taken.join('; '), { address: lease.address, server: lease.server })
    }
  }

  /** The same address again. Undefined: refused. Throws ERR_LEASE when nobody answers in `timeout` milliseconds. */
  async prolong(
    on: Interface,
    lease: Lease,
    kind: 'renew' | 'confirm',
    timeout: number,
  ): Promise<Lease | undefined> {
    return this.#converse(on, { kind, wanted: addressOf(lease.address) }, timeout, [], lease)
  }

  /** Gives it back. Nobody answers to that; a server that does not hear it lends the address on until its time is up. */
  async release(on: Interface, lease: Lease): Promise<void> {
    await this.#tell(on, lease, 'release')
  }

  /** What is under way fails; nothing new begins. */
  close(): void {
    this.#closed = true
    for (const end of [...this.#ends]) end(closed())
  }

  #converse(
    on: Interface,
    purpose: Purpose & { kind: 'acquire' },
    timeout: number,
    known: string[],
  ): Promise<Lease>
  #converse(
    on: Interface,
    purpose: Purpose,
    timeout: number,
    known: string[],
    lease: Lease,
  ): Promise<Lease | undefined>
  async #converse(
    on: Interface,
    purpose: Purpose,
    timeout: number,
    known: string[],
    lease?: Lease,
  ): Promise<Lease | undefined> {
    const conversation = new Conversation(purpose)
    const begun = Date.now()
    const xid = randomInt(2 ** 32)
    const envelope = purpose.kind === 'renew' && lease ? toServer(on, lease) : toEverybody(on)
    const say = (words: Extract<Step, { say: unknown }>['say']) => {
      const question: Question = {
        ...words,
        xid,
        mac: on.mac,
        seconds: Math.floor((Date.now() - begun) / 1000),
        hostname: on.hostname,
      }
      return encodeDhcp(envelope, encodeQuestion(question))
    }
    const promiscuous = purpose.kind === 'renew' // the answer goes to the interface's own MAC
    let most = 0
    const hear = this.#listen<Heard | undefined>(on, promiscuous, timeout, (wire, done) => {
      let timer: NodeJS.Timeout | undefined
      most = wire.mtu
      const follow = (step: Step): void => {
        if (step === 'listen') return
        clearTimeout(timer)
        if ('granted' in step) done(step.granted)
        else if ('refused' in step) done(undefined)
        else {
          wire.send(say(step.say))
          timer = setTimeout(() => follow(conversation.silence()), step.wait)
        }
      }
      follow(conversation.begin())
      return {
        hear: frame => {
          const heard = decodeFrame(frame)
          if (heard?.what !== 'dhcp') return
          const reply = decodeReply(heard.message)
          if (reply?.xid === xid && reply.mac === on.mac)
            follow(conversation.hear({ ...reply, fromMac: heard.fromMac }))
        },
        stop: () => clearTimeout(timer),
        late: () =>
          failure(
            on,
            [...known, ...conversation.complaints].join('; ') ||
              `no DHCP server answered in ${timeout / 1000} s`,
          ),
      }
    })
    const granted = await hear
    return granted && leaseOf(granted, { ...on, serverMac: granted.fromMac, mtu: most, asked: begun })
  }

  /** The MAC of who has the address; undefined: nobody says that he has. */
  #holderOf(on: Interface, address: string): Promise<string | undefined> {
    return this.#listen<string | undefined>(on, false, PROBE_WAIT + 1_000, (wire, done) => {
      const timers = PROBES.map(delay => setTimeout(() => wire.send(encodeProbe(on.mac, address)), delay))
      timers.push(setTimeout(() => done(undefined), PROBE_WAIT))
      return {
        hear: frame => {
          const heard = decodeFrame(frame)
          if (heard?.what === 'arp' && heard.address === address && heard.mac !== on.mac) done(heard.mac)
        },
        stop: () => timers.forEach(clearTimeout),
        late: () => failure(on, 'the probe did not end'),
      }
    })
  }

  async #tell(on: Interface, lease: Lease, type: 'decline' | 'release'): Promise<void> {
    const { server } = lease
    const address = addressOf(lease.address)
    const about = { xid: randomInt(2 ** 32), mac: on.mac, seconds: 0, server }
    const wire = await this.#openWire(on.link, false, () => {})
    try {
      wire.send(
        type === 'release'
          ? encodeDhcp(toServer(on, lease), encodeQuestion({ ...about, type, address }))
          : encodeDhcp(toEverybody(on), encodeQuestion({ ...about, type, requested: address })),
      )
    } finally {
      wire.close()
    }
  }

  /** One exchange: listens before it speaks, ends in time, and leaves no socket and no timer behind. */
  async #listen<T>(
    on: Interface,
    promiscuous: boolean,
    timeout: number,
    begin: (
      wire: Wire,
      done: (result: T) => void,
    ) => { hear(frame: Uint8Array): void; stop(): void; late(): CnmError },
  ): Promise<T> {
    if (this.#closed) throw closed()
    let hear: (frame: Uint8Array) => void = () => {}
    const wire = await this.#openWire(on.link, promiscuous, frame => hear(frame))
    return new Promise<T>((resolve, reject) => {
      const end = (settle: () => void) => {
        this.#ends.delete(fail)
        clearTimeout(timer)
        hear = () => {}
        exchange?.stop()
        wire.close()
        settle()
      }
      const fail = (error: CnmError) => end(() => reject(error))
      this.#ends.add(fail)
      let exchange: ReturnType<typeof begin> | undefined
      const timer = setTimeout(() => fail(exchange?.late() ?? closed()), timeout)
      exchange = begin(wire, result => end(() => resolve(result)))
      hear = frame => exchange?.hear(frame)
      if (this.#closed) fail(closed())
    })
  }
}

const toEverybody = (on: Interface): Envelope => ({ from: { mac: on.mac, address: NOBODY }, to: EVERYBODY })

const toServer = (on: Interface, lease: Lease): Envelope => ({
  from: { mac: on.mac, address: addressOf(lease.address) },
  to: { mac: lease.serverMac, address: lease.server },
})

const failure = (on: Interface, why: string, details: Record<string, unknown> = {}) =>
  new CnmError('ERR_LEASE', `no address for ${on.hostname ?? on.mac} on link ${on.link}: ${why}`, {
    link: on.link,
    mac: on.mac,
    ...details,
  })

const closed = () => new CnmError('ERR_CLOSED', 'the DHCP client is closed')
