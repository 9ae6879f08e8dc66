import { addressOf } from '../../base/cidr'
import type { Network } from '../../network'

/** What `inspect()` tells: plain data. */
export interface NetworkInspect {
  id: string
  name: string
  driver: string
  scope: string
  created: string
  ipv4: boolean
  ipv6: boolean
  internal: boolean
  attachable: boolean
  ingress: boolean
  configOnly: boolean
  configFrom?: string
  labels: Record<string, string>
  options: Record<string, unknown>
  ipam: {
    driver: string
    options: Record<string, string>
    config: {
      subnet: string
      ipRange?: string
      gateway?: string
      auxAddresses: Record<string, string>
      explicit: boolean
    }[]
  }
  /** Interface on the host, its MTU. */
  link?: string
  mtu?: number
  endpoints: { id: string; name: string; mac: string; ipv4?: string; ipv6?: string; containerId?: string }[]
}

export function inspectNetwork(network: Network): NetworkInspect {
  const { config, pools, state } = network.record
  return {
    id: network.id,
    name: network.name,
    driver: network.driver,
    scope: network.scope,
    created: network.record.created,
    ipv4: network.ipv4,
    ipv6: network.ipv6,
    internal: network.internal,
    attachable: network.attachable,
    ingress: network.ingress,
    configOnly: network.configOnly,
    configFrom: config.configFrom,
    labels: config.labels,
    options: config.options,
    ipam: {
      driver: config.ipam.driver,
      options: config.ipam.options ?? {},
      config: pools.map(({ subnet, subPool, gateway, auxiliary, explicit }) => ({
        subnet,
        ipRange: subPool,
        gateway: gateway && addressOf(gateway),
        auxAddresses: Object.fromEntries(
          Object.entries(auxiliary).map(([name, address]) => [name, addressOf(address)]),
        ),
        explicit,
      })),
    },
    link: state.link,
    mtu: state.mtu,
    endpoints: network.endpoints().map(({ id, name, mac, ipv4, ipv6, sandbox }) => ({
      id,
      name,
      mac,
      ipv4,
      ipv6,
      containerId: sandbox?.containerId,
    })),
  }
}
