import type { FilePaths } from '../../dns/files/contract'
import type { Sandbox } from '../../sandbox'

/** What `inspect()` tells: plain data. */
export interface SandboxInspect {
  id: string
  containerId: string
  mode: string
  key?: string
  created: string
  hostname: string
  labels: Record<string, string>
  files?: FilePaths
  gateway: { ipv4?: string; ipv6?: string }
  endpoints: {
    id: string
    name: string
    network: string
    interfaceName: string
    ipv4?: string
    ipv6?: string
    mac: string
  }[]
}

export function inspectSandbox(sandbox: Sandbox): SandboxInspect {
  const { created, config } = sandbox.record
  const { ipv4, ipv6 } = sandbox.gateway
  return {
    id: sandbox.id,
    containerId: sandbox.containerId,
    mode: sandbox.mode,
    key: sandbox.key,
    created,
    hostname: sandbox.hostname,
    labels: config.labels,
    files: sandbox.files,
    gateway: { ipv4: ipv4?.network.name, ipv6: ipv6?.network.name },
    endpoints: sandbox.endpoints().map(endpoint => ({
      id: endpoint.id,
      name: endpoint.name,
      network: endpoint.network.name,
      interfaceName: endpoint.interfaceName as string,
      ipv4: endpoint.ipv4,
      ipv6: endpoint.ipv6,
      mac: endpoint.mac,
    })),
  }
}
