import { decode, encode, type Answer, type Packet, type RecordType } from 'dns-packet'
import type { SandboxView } from '../../../lib/dns/contract'
import { Forwarder, type Transport } from '../../../lib/dns/forward'
import { Responder } from '../../../lib/dns/responder'
import { Zones } from '../../../lib/dns/zones'

export const view = (over: Partial<SandboxView> = {}): SandboxView => ({
  sandboxId: 's1',
  networks: ['n1'],
  links: {},
  upstreams: [],
  searchDomains: [],
  ndotsFromUser: false,
  external: true,
  ...over,
})

export interface QueryOptions {
  id?: number
  /** Speak EDNS0 with this size. */
  edns?: number
  dnssecOk?: boolean
}

export function query(
  name: string,
  type: RecordType,
  { id = 4711, edns, dnssecOk }: QueryOptions = {},
): Buffer {
  const additionals: Answer[] =
    edns === undefined
      ? []
      : [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: edns,
            extendedRcode: 0,
            ednsVersion: 0,
            flags: dnssecOk ? 0x8000 : 0,
            flag_do: dnssecOk ?? false,
            options: [],
          } as Answer,
        ]
  return encode({ type: 'query', id, flags: 0x0100, questions: [{ name, type }], additionals })
}

export interface Heard extends Packet {
  rcode: number
  truncated: boolean
  answers: Answer[]
  additionals: Answer[]
  bytes: Buffer
}

export function understand(bytes: Buffer): Heard {
  const packet = decode(bytes)
  const flags = packet.flags ?? 0
  return {
    ...packet,
    answers: packet.answers ?? [],
    additionals: packet.additionals ?? [],
    rcode: flags & 15,
    truncated: (flags & 0x0200) !== 0,
    bytes,
  }
}

export const data = ({ answers }: Heard): unknown[] =>
  answers.map(answer => (answer as { data: unknown }).data)

/** Nobody out there. */
export const silence: Transport = { send: () => () => undefined }

/** A responder over zones of its own, and a way to ask it. */
export function responder(over: Partial<SandboxView> = {}, transport: Transport = silence) {
  const zones = new Zones()
  const forwarder = new Forwarder(transport)
  const answering = new Responder(zones, view(over), forwarder)
  const ask = (message: Buffer, tcp = false) =>
    new Promise<Heard | undefined>(resolve => {
      const answer = answering.quick(message, tcp)
      if (answer === null) answering.slow(message, tcp, late => resolve(understand(late)))
      else resolve(answer && understand(answer))
    })
  return {
    zones,
    forwarder,
    responder: answering,
    ask,
    lookup: async (name: string, type: RecordType, options: QueryOptions & { tcp?: boolean } = {}) => {
      const heard = await ask(query(name, type, options), options.tcp)
      if (!heard) throw new Error('dropped')
      return heard
    },
  }
}
