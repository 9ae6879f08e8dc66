/** Networks as Docker's API shows them; names and order of the fields are Docker's. */
import { addressOf } from '../base/cidr'
import type { Network } from '../network'
import type { Endpoint } from '../endpoint'

export interface IpamConfigJson {
  Subnet?: string
  IPRange?: string
  Gateway?: string
  AuxiliaryAddresses?: Record<string, string>
}

export interface EndpointJson {
  Name: string
  EndpointID: string
  MacAddress: string
  IPv4Address: string
  IPv6Address: string
}

export interface NetworkJson {
  Name: string
  Id: string
  Created: string
  Scope: string
  Driver: string
  EnableIPv4?: boolean
  EnableIPv6: boolean
  IPAM: { Driver: string; Options: Record<string, string> | null; Config: IpamConfigJson[] | null }
  Internal: boolean
  Attachable: boolean
  Ingress: boolean
  ConfigFrom: { Network: string }
  ConfigOnly: boolean
  Containers: Record<string, EndpointJson>
  Options: Record<string, string> | null
  Labels: Record<string, string> | null
  Services?: Record<string, never>
}

export interface NetworkJsonOptions {
  /** Show what is on it. */
  detailed: boolean
  /** EnableIPv4 came with API 1.48. */
  showIpv4: boolean
}

export function networkJson(network: Network, { detailed, showIpv4 }: NetworkJsonOptions): NetworkJson {
  const { config } = network.record
  return {
    Name: network.name,
    Id: network.id,
    Created: network.record.created,
    Scope: network.scope,
    Driver: network.driver,
    ...(showIpv4 && { EnableIPv4: network.configOnly ? config.ipv4 !== false : network.ipv4 }),
    EnableIPv6: network.configOnly ? config.ipv6 === true : network.ipv6,
    IPAM: {
      Driver: config.ipam.driver,
      Options: config.ipam.options ? sorted(config.ipam.options) : null,
      Config: ipamConfig(network),
    },
    Internal: network.internal,
    Attachable: network.attachable,
    Ingress: network.ingress,
    ConfigFrom: { Network: config.configFrom ?? '' },
    ConfigOnly: network.configOnly,
    Containers: detailed ? containers(network) : {},
    Options: sorted(texts({ ...ofDefaultBridge(network), ...config.options })),
    Labels: sorted(network.labels),
  }
}

/** What is configured, or what was chosen where nothing is. */
function ipamConfig(network: Network): IpamConfigJson[] | null {
  const list = network.configOnly
    ? network.record.config.ipam.config.map(({ subnet, ipRange, gateway, auxAddresses }) =>
        withoutEmpty({
          Subnet: subnet,
          IPRange: ipRange,
          Gateway: gateway,
          AuxiliaryAddresses: auxAddresses,
        }),
      )
    : network.ipam.map(({ subnet, subPool, gateway, auxiliary }) =>
        withoutEmpty({
          Subnet: subnet,
          IPRange: subPool,
          Gateway: gateway && addressOf(gateway),
          AuxiliaryAddresses: Object.fromEntries(
            Object.entries(auxiliary).map(([name, address]) => [name, addressOf(address)]),
          ),
        }),
      )
  return list.length ? list : null
}

function withoutEmpty({ AuxiliaryAddresses, ...rest }: IpamConfigJson): IpamConfigJson {
  const some = AuxiliaryAddresses && Object.keys(AuxiliaryAddresses).length > 0
  return {
    ...Object.fromEntries(Object.entries(rest).filter(([, value]) => value)),
    ...(some && { AuxiliaryAddresses: sorted(AuxiliaryAddresses) }),
  }
}

/** By id of the container; what is in none is shown by its own id. */
function containers(network: Network): Record<string, EndpointJson> {
  return sorted(
    Object.fromEntries(
      network
        .endpoints()
        .map(endpoint => [endpoint.sandbox?.containerId ?? `ep-${endpoint.id}`, endpointJson(endpoint)]),
    ),
  )
}

const endpointJson = ({ id, name, mac, ipv4, ipv6, network }: Endpoint): EndpointJson => ({
  Name: name,
  EndpointID: id,
  MacAddress: network.implementation.capabilities.addresses === false ? '' : mac,
  IPv4Address: ipv4 ?? '',
  IPv6Address: ipv6 ?? '',
})

/** Docker's own bridge shows what it was given by the daemon, said or not. */
function ofDefaultBridge({ predefined, driver, record: { state } }: Network): Record<string, unknown> {
  if (!predefined || driver !== 'bridge') return {}
  return {
    'com.docker.network.bridge.host_binding_ipv4': state.defaultHostIp ?? '0.0.0.0',
    'com.docker.network.driver.mtu': state.mtu,
  }
}

/** Go writes the keys of a map in order. */
const sorted = <T>(map: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)))

/** Docker's options are texts; ours may be given as numbers and booleans by a program. */
const texts = (options: Record<string, unknown>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(options).map(([key, value]) => [
      key,
      typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value),
    ]),
  )
