/** The network configuration on standard input. */
import { z } from 'zod'
import { parse } from '../base/parse'
import { NetworkOptions } from '../options'
import { CODES, CniError } from './errors'
import { type CniResult, type CniVersion, spokenVersion } from './versions'

const texts = () => z.array(z.string()).optional()
const Dns = z.strictObject({
  nameservers: texts(),
  domain: z.string().optional(),
  search: texts(),
  options: texts(),
})

/** What other plugins made; whatever they add beside is theirs. */
const Result = z.looseObject({
  interfaces: z
    .array(
      z.looseObject({
        name: z.string(),
        mac: z.string().optional(),
        mtu: z.number().optional(),
        sandbox: z.string().optional(),
      }),
    )
    .nullish(),
  ips: z
    .array(
      z.looseObject({
        address: z.string(),
        gateway: z.string().optional(),
        interface: z.number().int().optional(),
      }),
    )
    .nullish(),
  routes: z.array(z.looseObject({ dst: z.string(), gw: z.string().optional() })).nullish(),
  dns: Dns.nullish(),
})

/** Bits per second; 0: no limit. Bursts are the kernel's business here: they are read and not used. */
const rate = () => z.number().int().min(0).optional()

const MacAndIps = { mac: z.string().optional(), ips: z.array(z.string()).optional() }

/** Capability arguments (CNI conventions). A runtime hands over those only that the configuration declares. */
const RuntimeConfig = z.looseObject({
  ...MacAndIps,
  portMappings: z
    .array(
      z.looseObject({
        hostPort: z.number().int().min(0).max(65535),
        containerPort: z.number().int().min(1).max(65535),
        protocol: z.string().optional(),
        hostIP: z.string().optional(),
      }),
    )
    .nullish(),
  bandwidth: z
    .looseObject({ ingressRate: rate(), ingressBurst: rate(), egressRate: rate(), egressBurst: rate() })
    .nullish(),
  /** A list, or a list per network name. */
  aliases: z.union([z.array(z.string()), z.record(z.string(), z.array(z.string()))]).nullish(),
})

const network = NetworkOptions.shape

const Config = z.strictObject({
  cniVersion: z.string(),
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$/, 'must be a letter or digit, then "_.-", too'),
  type: z.string().min(1),
  // the library's
  driver: network.driver,
  options: network.options,
  labels: network.labels,
  internal: network.internal,
  ipv4: network.ipv4,
  ipv6: network.ipv6,
  ipam: network.ipam,
  /** CNI's word for the option `masquerade` of a bridge. */
  ipMasq: z.boolean().optional(),
  dataDir: z.string().startsWith('/', 'must be an absolute path').default('/var/lib/cni/libcnm'),
  runDir: z.string().startsWith('/', 'must be an absolute path').optional(),
  firewall: z.enum(['auto', 'nftables', 'iptables', 'none']).default('auto'),
  /** Seconds to wait for other calls of this plugin. */
  patience: z.number().min(0).max(600).default(20),
  // the runtime's
  dns: Dns.prefault({}),
  capabilities: z.record(z.string(), z.boolean()).optional(),
  runtimeConfig: RuntimeConfig.nullish(),
  args: z.looseObject({ cni: z.looseObject(MacAndIps).nullish() }).nullish(),
  prevResult: Result.nullish(),
})
export type CniConfig = Omit<z.output<typeof Config>, 'cniVersion' | 'prevResult'> & {
  cniVersion: CniVersion
  prevResult?: CniResult
  /** Of GC: those that live. */
  validAttachments?: { containerID: string; ifname: string }[]
}

const VALID = 'cni.dev/valid-attachments'
const Attachments = z.array(z.looseObject({ containerID: z.string(), ifname: z.string() }))

export function decode(text: string): Record<string, unknown> {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw new CniError(
      CODES.decode,
      text.trim() ? 'standard input is no JSON' : 'no configuration on standard input',
      (error as Error).message,
    )
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new CniError(CODES.decode, 'the configuration must be a JSON object')
  return json as Record<string, unknown>
}

/** Throws codes 1, 2, 7. Keys with a domain (`example.com/x`) are somebody else's. */
export function configOf(json: Record<string, unknown>, command: string): CniConfig {
  const cniVersion = spokenVersion(json.cniVersion, command)
  const own = Object.fromEntries(Object.entries(json).filter(([key]) => !key.includes('/')))
  refuseUnknown(own)
  const config = parse(Config, own, 'configuration')
  return {
    ...config,
    cniVersion,
    prevResult: config.prevResult ? resultOf(config.prevResult) : undefined,
    validAttachments:
      json[VALID] === undefined ? undefined : parse(Attachments, json[VALID] ?? [], `configuration.${VALID}`),
  }
}

/** The specification wants the key and the value named. */
function refuseUnknown(json: Record<string, unknown>): void {
  const known = new Set(Object.keys(Config.shape))
  const refuse = (key: string, value: unknown, why: string) =>
    new CniError(
      CODES.unsupportedField,
      `unsupported field ${JSON.stringify(key)}: ${JSON.stringify(value).slice(0, 80)}`,
      why,
    )
  for (const [key, value] of Object.entries(json))
    if (!known.has(key)) throw refuse(key, value, `known: ${[...known].join(', ')}`)
  const { ipam } = json
  if (typeof ipam === 'object' && ipam !== null && 'type' in ipam)
    throw refuse('ipam.type', ipam.type, 'addresses are given by the library: ipam.config, ipam.driver')
}

function resultOf({ interfaces, ips, routes, dns }: z.output<typeof Result>): CniResult {
  return {
    interfaces: interfaces ?? [],
    // Older versions said the family beside the address.
    ips: (ips ?? []).map(({ address, gateway, interface: index }) => ({
      address,
      ...(gateway !== undefined && { gateway }),
      ...(index !== undefined && { interface: index }),
    })),
    routes: routes ?? [],
    dns: dns ?? {},
  }
}
