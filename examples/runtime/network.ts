/** What a container asks of the network, in the words of libcnm. Pure: from Docker's request to options. */
import type { EndpointInput, Network, SandboxInput } from 'libcnm'
import { type EndpointSettings, HttpError } from 'libcnm/api'
import type { Container } from './container'
import { type ContainerRequest, given } from './requests'

/** The networks of a new container, by name, each with its settings; and its network mode as it will be shown. */
export function networksOf({ MacAddress, HostConfig, NetworkingConfig }: Container['request']): {
  mode: string
  networks: Map<string, EndpointSettings>
} {
  const asked = HostConfig?.NetworkMode || 'default'
  const mode = asked === 'default' ? 'bridge' : asked
  const networks = new Map<string, EndpointSettings>()
  if (mode.startsWith('container:')) return { mode, networks }
  networks.set(mode, {})
  for (const [name, settings] of Object.entries(NetworkingConfig?.EndpointsConfig ?? {}))
    networks.set(name === 'default' ? 'bridge' : name, settings ?? {})
  const first = networks.get(mode)
  // Before API 1.44 the address was the container's, not the endpoint's.
  if (first && MacAddress && !first.MacAddress) networks.set(mode, { ...first, MacAddress })
  return { mode, networks }
}

/** Who shares the network of another container has no say in it. */
export function refuseOwnNetwork({
  Hostname,
  MacAddress,
  ExposedPorts,
  HostConfig = {},
}: ContainerRequest): void {
  const conflicts: [conflict: boolean, what: string][] = [
    [Boolean(Hostname), 'hostname and the network mode'],
    [
      given(HostConfig.Links).length > 0,
      "container type network can't be used with links. This would result in undefined behavior",
    ],
    [given(HostConfig.Dns).length > 0, 'dns and the network mode'],
    [given(HostConfig.ExtraHosts).length > 0, 'custom host-to-IP mapping and the network mode'],
    [Boolean(MacAddress), 'mac-address and the network mode'],
    [
      Boolean(HostConfig.PublishAllPorts) || Object.keys(HostConfig.PortBindings ?? {}).length > 0,
      'port publishing and the container type network mode',
    ],
    [Object.keys(ExposedPorts ?? {}).length > 0, 'port exposing and the container type network mode'],
  ]
  const found = conflicts.find(([conflict]) => conflict)
  if (found) throw new HttpError(400, `conflicting options: ${found[1]}`)
}

/** The stack of a container: its own, the host's, or that of another one. */
export function sandboxInput(container: Container): SandboxInput {
  const { id, mode, hostname, request } = container
  const host = request.HostConfig ?? {}
  return {
    containerId: id,
    mode: mode === 'host' || mode.startsWith('container:') ? mode : 'own',
    hostname,
    domainname: request.Domainname || undefined,
    dns: { servers: given(host.Dns), search: given(host.DnsSearch), options: given(host.DnsOptions) },
    extraHosts: given(host.ExtraHosts),
    labels: request.Labels,
  }
}

/** What an endpoint carries for its container. Ports are published once: on the first network that can. */
export function endpointExtras(container: Container, network: Network, find: Find): Partial<EndpointInput> {
  const { mode, request, sandbox, exposed } = container
  const links =
    network.name === mode
      ? Object.fromEntries(Object.entries(linksOf(container, find)).map(([alias, { name }]) => [alias, name]))
      : {}
  const published = sandbox?.endpoints().some(({ ports }) => ports.length > 0)
  if (published || network.internal || network.driver === 'host' || network.driver === 'null')
    return { exposed, links }
  const { PortBindings = {}, PublishAllPorts = false } = request.HostConfig ?? {}
  const ports = Object.entries(PortBindings).flatMap(([port, bindings]) =>
    (bindings ?? []).map(binding => portInput(port, binding ?? {})),
  )
  return { exposed, links, ports, publishAll: PublishAllPorts }
}

/** `80/tcp` and `{ HostIp, HostPort }` as `docker run -p` would write it. */
function portInput(port: string, { HostIp, HostPort }: { HostIp?: string; HostPort?: string }): string {
  const address = HostIp?.includes(':') ? `[${HostIp}]` : (HostIp ?? '')
  if (address) return `${address}:${HostPort ?? ''}:${port}`
  return HostPort ? `${HostPort}:${port}` : port
}

/* ------------------------------------------------------------------------- links */

/** Throws 400 when there is none. */
type Find = (name: string) => Container

/** `--link TARGET:ALIAS` on the default bridge, by alias. Other networks have names: there it is an option of the endpoint. */
export function linksOf({ mode, request }: Container, find: Find): Record<string, Container> {
  if (mode !== 'bridge') return {}
  return Object.fromEntries(
    given(request.HostConfig?.Links).map(text => {
      const [name = '', alias = name] = text.split(':').map(part => part.replace(/^.*\//, ''))
      return [alias, find(name)]
    }),
  )
}

/** The sandbox knows who is linked and at which address; only the runtime knows what they were started with. */
export function linkVariables({ mode, sandbox }: Container, find: Find): string[] {
  if (mode !== 'bridge' || !sandbox) return []
  return sandbox.linkEnvironment(containerId => find(containerId).environment)
}
