/** What the hosts tell one another, checked when it is read: a foreign host may write anything. */
import { z } from 'zod'
import { cidr, ip, mac } from '../base/parse'

const id = z.string().regex(/^[0-9a-f]{64}$/)
const name = z.string().min(1).max(255)
const loose = z.looseObject({})

/** A host that lives: the record has its lease. */
export const HostRecord = z.object({
  name,
  /** Where tunnels to it end. */
  address: ip(),
  /** Lasting id of the machine: it may take its own name back after a crash. */
  hostId: z.string(),
  /** Of the controller's life: differs after each start. */
  instance: z.string(),
})
export type HostRecord = z.output<typeof HostRecord>

/** A network of global scope. Belongs to no host: it stays until it is deleted. */
export const NetworkDefinition = z.object({
  id,
  name,
  driver: name,
  created: z.string(),
  ipv4: z.boolean(),
  ipv6: z.boolean(),
  /** As the creator parsed it; parsed once more by whoever reads it. */
  config: loose,
  driverOptions: z.unknown(),
  pools: z.array(
    z.object({
      family: z.union([z.literal(4), z.literal(6)]),
      subnet: cidr(),
      poolId: z.string(),
      subPool: cidr().optional(),
      gateway: cidr().optional(),
      gatewayFrom: z.enum(['user', 'driver', 'first-free']).optional(),
      auxiliary: z.record(z.string(), cidr()),
      data: z.record(z.string(), z.string()),
      explicit: z.boolean(),
    }),
  ),
  mtu: z.number().int().min(68).max(65535).optional(),
  /** The driver's own, parsed by it. */
  data: loose.optional(),
})
export type NetworkDefinition = z.output<typeof NetworkDefinition>

/** A joined endpoint: the record has its host's lease, so it goes with the host. Id: NETWORK/ENDPOINT. */
export const EndpointRecord = z.object({
  id,
  networkId: id,
  name,
  /** In order: name, aliases, short container id, hostname. */
  names: z.array(name).max(4200),
  /** False: answers no names. */
  resolvable: z.boolean().default(true),
  healthy: z.boolean().default(true),
  mac: mac(),
  ipv4: cidr().optional(),
  ipv6: cidr().optional(),
  host: name,
  /** Where tunnels to its host end. */
  vtep: ip(),
  containerId: z.string().optional(),
  labels: z.record(z.string(), z.string()).default({}),
  /** The service whose task it is, and its share of the new flows. */
  task: z.object({ serviceId: id, weight: z.number().int().min(0).max(1000) }).optional(),
})
export type EndpointRecord = z.output<typeof EndpointRecord>

const port = z.number().int().min(1).max(65535)
const virtualIp = z.object({ address: cidr(), poolId: z.string() })

/** A service. Belongs to no host: it stays until it is deleted. Id: NETWORK/SERVICE. */
export const ServiceRecord = z.object({
  id,
  networkId: id,
  name,
  created: z.string(),
  aliases: z.array(name).max(4200),
  endpointMode: z.enum(['vip', 'dnsrr']),
  affinity: z.enum(['none', 'client']),
  ports: z
    .array(
      z.object({
        name: name.optional(),
        port,
        targetPort: port,
        protocol: z.enum(['tcp', 'udp', 'sctp']),
        publishedPort: port.optional(),
        mode: z.enum(['ingress', 'host']),
      }),
    )
    .max(4096),
  /** Virtual IPs and the pools that they are from. */
  vips: z.object({ 4: virtualIp.optional(), 6: virtualIp.optional() }),
  labels: z.record(z.string(), z.string()),
})
export type ServiceRecord = z.output<typeof ServiceRecord>

/** Keys of encrypted networks: id `ring`, the newest last. Belongs to no host. */
export const KeyRecord = z.object({
  /** Hexadecimal, 32 bytes: keys of each direction between two hosts are derived from it. */
  keys: z.array(z.object({ tag: z.number().int().min(1), key: z.string().regex(/^[0-9a-f]{64}$/) })).min(1),
  /** Tag of the one that packets are sent with. */
  primary: z.number().int(),
})
export type KeyRecord = z.output<typeof KeyRecord>

/** How far a host is with the keys; goes with the host. Id: its name. */
export const KeyReceipt = z.object({
  host: name,
  /** It has everything to receive with keys up to this tag. */
  received: z.number().int(),
  /** It sends with this one. */
  sent: z.number().int(),
})
export type KeyReceipt = z.output<typeof KeyReceipt>

interface Kind {
  version: number
  schema: z.ZodType
}

/** Every kind of record that hosts watch. A new kind is one more line. */
export const KINDS = {
  host: { version: 1, schema: HostRecord },
  network: { version: 1, schema: NetworkDefinition },
  endpoint: { version: 1, schema: EndpointRecord },
  service: { version: 1, schema: ServiceRecord },
  key: { version: 1, schema: KeyRecord },
  receipt: { version: 1, schema: KeyReceipt },
} as const satisfies Record<string, Kind>

export type ClusterKind = keyof typeof KINDS
export type RecordOf<K extends ClusterKind> = z.output<(typeof KINDS)[K]['schema']>

export const encode = <K extends ClusterKind>(kind: K, value: RecordOf<K>): string =>
  JSON.stringify({ version: KINDS[kind].version, value })

/** Throws (anything) for what is no record of the kind; the message is for people. */
export function decode<K extends ClusterKind>(kind: K, text: string): RecordOf<K> {
  const { version, value } = fitting(Envelope, JSON.parse(text))
  if (version > KINDS[kind].version)
    throw new Error(`it has version ${version}; this libcnm reads ${KINDS[kind].version}`)
  return fitting<unknown>(KINDS[kind].schema, value) as RecordOf<K>
}

const Envelope = z.object({ version: z.number().int().min(1), value: z.unknown() })

/** Zod's own message is a list in JSON, of many lines. */
function fitting<T>(schema: z.ZodType<T>, value: unknown): T {
  const { success, data, error } = schema.safeParse(value)
  if (success) return data
  const [first, ...others] = error.issues.map(({ path, message }) => `${path.join('.') || 'it'}: ${message}`)
  throw new Error(others.length ? `${first} (and ${others.length} more)` : first)
}
