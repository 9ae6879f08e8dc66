/** Bodies of the network requests, and what they mean to the controller. */
import type { z } from 'zod'
import { parseBoolean } from '../base/booleans'
import { familyOf } from '../base/cidr'
import type { EndpointInput, JoinInput, NetworkInput } from '../options'
import { flag, int, listOf, struct, text, texts } from './body'
import { HttpError } from './errors'
import { checkIpam, type IpamConfigRequest } from './ipam-check'

const IpamConfig = struct({ Subnet: text(), IPRange: text(), Gateway: text(), AuxiliaryAddresses: texts() })

export const CreateRequest = struct({
  Name: text(),
  Driver: text(),
  Scope: text(),
  EnableIPv4: flag(),
  EnableIPv6: flag(),
  IPAM: struct({ Driver: text(), Options: texts(), Config: listOf(IpamConfig) }).optional(),
  Internal: flag(),
  Attachable: flag(),
  Ingress: flag(),
  ConfigOnly: flag(),
  ConfigFrom: struct({ Network: text() }).optional(),
  Options: texts(),
  Labels: texts(),
  CheckDuplicate: flag(),
})
export type CreateRequest = z.output<typeof CreateRequest>

export const EndpointSettings = struct({
  IPAMConfig: struct({
    IPv4Address: text(),
    IPv6Address: text(),
    LinkLocalIPs: listOf(text()),
  }).optional(),
  Links: listOf(text()),
  Aliases: listOf(text()),
  MacAddress: text(),
  DriverOpts: texts(),
  GwPriority: int(),
})
export type EndpointSettings = z.output<typeof EndpointSettings>

export const ConnectRequest = struct({ Container: text(), EndpointConfig: EndpointSettings.optional() })
export const DisconnectRequest = struct({ Container: text(), Force: flag() })

/** Docker's networks that are always there; nobody else may have their names. */
export const PREDEFINED = new Set(['bridge', 'host', 'none', 'default'])

/** Checked as Docker checks it; in the controller's words. */
export function networkInput(request: CreateRequest, addressed = true): NetworkInput {
  const { Name = '', Driver, Scope, Options = {}, ConfigFrom, ConfigOnly = false } = request
  if (Name.trim() === '') throw new HttpError(400, 'invalid name: name is empty')
  if (PREDEFINED.has(Name))
    throw new HttpError(403, `operation is not permitted on predefined ${Name} network `)
  const from = ConfigFrom?.Network || undefined
  const ipv4 = request.EnableIPv4 ?? label(Options, 4)
  const ipv6 = request.EnableIPv6 ?? label(Options, 6) ?? false
  const configs = request.IPAM?.Config ?? []
  if (!ConfigOnly && addressed) checkIpam(configs, ipv6)
  refuseCombinations(request, from)
  return {
    name: Name,
    driver: Driver || 'bridge',
    ...(Scope && { scope: scopeOf(Scope) }),
    // A network that takes its configuration from another one says nothing of its own, not even no.
    ...(from === undefined && { ipv4, ipv6 }),
    ...(from !== undefined && { ipv4: request.EnableIPv4, ipv6: request.EnableIPv6 || undefined }),
    internal: request.Internal,
    attachable: request.Attachable,
    ingress: request.Ingress,
    configOnly: ConfigOnly,
    configFrom: from,
    labels: request.Labels,
    options: Options,
    ipam: {
      driver: request.IPAM?.Driver || 'default',
      options: request.IPAM?.Options,
      config: configs.filter(config => isWanted(config, ipv4 !== false, ipv6)).map(ipamConfig),
    },
  }
}

/** What may not be said together; Docker forbids it, in these words. */
function refuseCombinations(request: CreateRequest, from: string | undefined): void {
  const {
    ConfigOnly,
    Ingress,
    Internal,
    Attachable,
    Scope,
    Driver,
    IPAM,
    Labels = {},
    Options = {},
  } = request
  const forbidden = (message: string) => new HttpError(403, message)
  const some = (record: object | undefined) => Object.keys(record ?? {}).length > 0
  if (ConfigOnly && (Ingress || Internal || Attachable || Scope))
    throw forbidden(
      'configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.',
    )
  if (ConfigOnly && from !== undefined)
    throw forbidden('a configuration network cannot depend on another configuration network')
  const { Driver: ipamDriver = '', Options: ipamOptions, Config = [] } = IPAM ?? {}
  if (from !== undefined) {
    const ipam = (ipamDriver !== '' && ipamDriver !== 'default') || some(ipamOptions) || Config.length > 0
    if (ipam || some(Labels) || request.EnableIPv4 === false || request.EnableIPv6)
      throw forbidden(
        'user specified configurations are not supported if the network depends on a configuration network',
      )
    if (some(Options))
      throw forbidden(
        'network driver options are not supported if the network depends on a configuration network',
      )
  }
  const subnets = (family: 4 | 6) => Config.filter(({ Subnet }) => Subnet && familyOf(Subnet) === family)
  if ((Driver || 'bridge') === 'bridge' && !ConfigOnly && ([4, 6] as const).some(f => subnets(f).length > 1))
    throw forbidden("bridge driver doesn't support multiple subnets")
}

function scopeOf(text: string): 'local' | 'global' | 'swarm' {
  if (text === 'local' || text === 'global' || text === 'swarm') return text
  throw new HttpError(400, `invalid scope ${JSON.stringify(text)}: must be local, global or swarm`)
}

/** A subnet of a family that is off is ignored. */
const isWanted = ({ Subnet }: IpamConfigRequest, ipv4: boolean, ipv6: boolean) =>
  !Subnet || (familyOf(Subnet) === 6 ? ipv6 : ipv4)

const ipamConfig = ({ Subnet, IPRange, Gateway, AuxiliaryAddresses }: IpamConfigRequest) => ({
  subnet: Subnet || undefined,
  ipRange: IPRange || undefined,
  gateway: Gateway || undefined,
  auxAddresses: AuxiliaryAddresses,
})

function label(options: Record<string, string>, family: 4 | 6): boolean | undefined {
  const key = `com.docker.network.enable_ipv${family}`
  const text = options[key]
  if (text === undefined) return undefined
  const value = parseBoolean(text)
  if (value !== undefined) return value
  throw new HttpError(400, `invalid value for ${key}: ${JSON.stringify(text)} is not a boolean`)
}

const IFNAME = 'com.docker.network.endpoint.ifname'
const SYSCTLS = 'com.docker.network.endpoint.sysctls'

/** How a container joins. Throws 400 for links and sysctls that are none. */
export function endpointInput(
  name: string,
  settings: EndpointSettings,
): { endpoint: EndpointInput; join: JoinInput } {
  const { IPAMConfig, Links, Aliases, MacAddress, DriverOpts = {}, GwPriority } = settings
  const { [IFNAME]: interfaceName, [SYSCTLS]: sysctls, ...options } = DriverOpts
  return {
    endpoint: {
      name,
      aliases: some(Aliases),
      ipv4: IPAMConfig?.IPv4Address || undefined,
      ipv6: IPAMConfig?.IPv6Address || undefined,
      linkLocal: some(IPAMConfig?.LinkLocalIPs),
      mac: MacAddress || undefined,
      links: linksOf(some(Links)),
      options,
    },
    join: { priority: GwPriority, interfaceName: interfaceName || undefined, sysctls: sysctlsOf(sysctls) },
  }
}

const some = (list: readonly (string | undefined)[] | undefined): string[] =>
  (list ?? []).filter((value): value is string => Boolean(value))

/** `CONTAINER:ALIAS`, or a name that is its own alias. */
function linksOf(links: string[]): Record<string, string> {
  return Object.fromEntries(
    links.map(link => {
      const [container = '', alias = container, ...more] = link.split(':')
      if (!container || !alias || more.length)
        throw new HttpError(400, `invalid link ${JSON.stringify(link)}: must be NAME:ALIAS`)
      return [alias, container]
    }),
  )
}

/** `net.ipv4.conf.IFNAME.rp_filter=1,…` */
function sysctlsOf(text: string | undefined): Record<string, string> {
  return Object.fromEntries(
    (text ?? '')
      .split(',')
      .filter(Boolean)
      .map(one => {
        const at = one.indexOf('=')
        if (at <= 0)
          throw new HttpError(400, `invalid sysctl ${JSON.stringify(one)}: must be net.X.Y.IFNAME.Z=VALUE`)
        return [one.slice(0, at).trim(), one.slice(at + 1).trim()]
      }),
  )
}
