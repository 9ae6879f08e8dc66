/** What hangs on what, as data: the material of `cnm graph`. */
import { addressOf } from '../base/cidr'
import type { Controller } from '../controller'
import type { Endpoint } from '../endpoint'

export interface Topology {
  controller: string
  firewall: string
  networks: TopologyNetwork[]
  sandboxes: TopologySandbox[]
}

export interface TopologyNetwork {
  id: string
  name: string
  driver: string
  internal: boolean
  /** The interface on the host that stands for it. */
  link?: string
  subnets: { subnet: string; gateway?: string }[]
}

export interface TopologySandbox {
  containerId: string
  mode: string
  endpoints: {
    network: string
    name: string
    /** Empty where the network makes none: the host's own, or none at all. */
    interfaceName: string
    /** The host's end of the pair. */
    hostLink?: string
    ipv4?: string
    ipv6?: string
    mac: string
    gateway: boolean
    /** `8080 -> 80/tcp`: one line for both families, where they are the same. */
    ports: string[]
  }[]
}

export function topologyOf(controller: Controller): Topology {
  return {
    controller: controller.name,
    firewall: controller.firewallBackend,
    networks: controller
      .networks()
      .filter(network => !network.configOnly)
      .map(network => ({
        id: network.id,
        name: network.name,
        driver: network.driver,
        internal: network.internal,
        link: network.link,
        subnets: network.ipam.map(({ subnet, gateway }) => ({
          subnet,
          gateway: gateway && addressOf(gateway),
        })),
      })),
    sandboxes: controller.sandboxes().map(sandbox => ({
      containerId: sandbox.containerId,
      mode: sandbox.mode,
      endpoints: sandbox.endpoints().map(endpoint => ({
        network: endpoint.network.name,
        name: endpoint.name,
        interfaceName: interfaceOf(endpoint),
        hostLink: endpoint.record.join?.attachment?.interface?.source,
        ipv4: endpoint.ipv4,
        ipv6: endpoint.ipv6,
        mac: endpoint.mac,
        gateway: sandbox.gateway.ipv4 === endpoint || sandbox.gateway.ipv6 === endpoint,
        ports: portTexts(endpoint.ports),
      })),
    })),
  }
}

function interfaceOf({ record, interfaceName = '' }: Endpoint): string {
  const attachment = record.join?.attachment
  return attachment && !attachment.interface ? '' : interfaceName
}

interface Ports {
  hostIp: string
  hostPort: number
  hostPortEnd: number
  containerPort: number
  protocol: string
}

const EVERY_ADDRESS = ['0.0.0.0', '[::]']

/** What is on every address of the host was published once for each family: for who looks at it, it is one. */
export function portTexts(published: readonly Ports[]): string[] {
  const hosts = new Map<string, string[]>()
  for (const { hostIp, hostPort, hostPortEnd, containerPort, protocol } of published) {
    const length = hostPortEnd - hostPort
    const range = (first: number) => (length ? `${first}-${first + length}` : `${first}`)
    const ports = `${range(hostPort)} -> ${range(containerPort)}/${protocol}`
    hosts.set(ports, [...(hosts.get(ports) ?? []), hostIp.includes(':') ? `[${hostIp}]` : hostIp])
  }
  return [...hosts].flatMap(([ports, list]) => {
    const everywhere = EVERY_ADDRESS.every(address => list.includes(address))
    const others = everywhere ? list.filter(address => !EVERY_ADDRESS.includes(address)) : list
    return [...(everywhere ? [ports] : []), ...others.map(address => `${address}:${ports}`)]
  })
}
