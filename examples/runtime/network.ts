/** What a container asks of the network, in the words of libcnm. Pure: from Docker's request to options. */
import type { EndpointInput, Network, SandboxInput } from 'libcnm'
import { type EndpointSettings, HttpError, linkEnvironment, linkHosts } from 'libcnm/api'
import type { Container } from './container'
import { given } from './requests'

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

/** The stack of a container: its own, the host's, or that of another one. */
export function sandboxInput(container: Container, links: Link[]): SandboxInput {
  const { id, mode, hostname, request } = container
  const host = request.HostConfig ?? {}
  return {
    containerId: id,
    mode: mode === 'host' || mode.startsWith('container:') ? mode : 'own',
    hostname,
    domainname: request.Domainname || undefined,
    dns: { servers: given(host.Dns), search: given(host.DnsSearch), options: given(host.DnsOptions) },
    extraHosts: extraHosts(container, links),
    labels: request.Labels,
  }
}

export const extraHosts = ({ request }: Container, links: Link[]): string[] => [
  ...given(request.HostConfig?.ExtraHosts),
  ...links.flatMap(link => {
    const { address, names } = linkHosts(link)
    return names.map(name => `${name}:${address}`)
  }),
]

/** What an endpoint carries for its container. Ports are published once: on the first network that can. */
export function endpointExtras(container: Container, network: Network): Partial<EndpointInput> {
  const { request, sandbox, exposed } = container
  const published = sandbox?.endpoints().some(({ ports }) => ports.length > 0)
  if (published || network.internal || network.driver === 'host' || network.driver === 'null')
    return { exposed }
  const { PortBindings = {}, PublishAllPorts = false } = request.HostConfig ?? {}
  const ports = Object.entries(PortBindings).flatMap(([port, bindings]) =>
    (bindings ?? []).map(binding => portInput(port, binding ?? {})),
  )
  return { exposed, ports, publishAll: PublishAllPorts }
}

/** `80/tcp` and `{ HostIp, HostPort }` as `docker run -p` would write it. */
function portInput(port: string, { HostIp, HostPort }: { HostIp?: string; HostPort?: string }): string {
  const address = HostIp?.includes(':') ? `[${HostIp}]` : (HostIp ?? '')
  if (address) return `${address}:${HostPort ?? ''}:${port}`
  return HostPort ? `${HostPort}:${port}` : port
}

/* ------------------------------------------------------------------------- links */

export type Link = Parameters<typeof linkHosts>[0]

/** `--link TARGET:ALIAS` on the default bridge; on other networks an alias of the endpoint does it. */
export function linksOf(container: Container, find: (name: string) => Container | undefined): Link[] {
  if (container.mode !== 'bridge') return []
  return given(container.request.HostConfig?.Links).map(text => {
    const [name = '', alias = name] = text.split(':').map(part => part.replace(/^\//, ''))
    const target = find(name)
    if (!target) throw new HttpError(400, `could not get container for ${name}: No such container: ${name}`)
    const address = target.addressOn('bridge')
    if (!address)
      throw new HttpError(
        409,
        `Cannot link to a non running container: /${target.name} AS /${container.name}/${alias}`,
      )
    return {
      alias,
      parent: container.name,
      target: {
        name: target.name,
        hostname: target.hostname,
        address,
        ports: target.exposed.map(port => {
          const [number, protocol = 'tcp'] = port.split('/')
          return { port: Number(number), protocol }
        }),
        environment: target.environment,
      },
    }
  })
}

export const linkVariables = (links: Link[]): string[] => links.flatMap(linkEnvironment)
