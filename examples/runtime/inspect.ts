/** Containers as Docker's API shows them; names of the fields are Docker's. */
import type { Endpoint } from 'libcnm'
import type { EndpointSettings } from 'libcnm/api'
import type { Container } from './container'

const NEVER = '0001-01-01T00:00:00Z' // Go's zero time
const when = (time: number) => (time ? new Date(time).toISOString() : NEVER)
const split = (cidr = ''): [string, number] => [cidr.replace(/\/.*/, ''), Number(cidr.split('/')[1] ?? 0)]

/** `docker inspect` */
export function containerJson(container: Container) {
  const { id, name, created, request, state, command, exposed, image, mode, sandbox } = container
  const networks = networksJson(container)
  const { EndpointID, NetworkID, IPAMConfig, Links, Aliases, DriverOpts, DNSNames, ...first } =
    networks[mode] ?? blank()
  return {
    Id: id,
    Created: when(created),
    Path: command[0] ?? '',
    Args: command.slice(1),
    State: {
      Status: state.status,
      Running: container.isRunning,
      Paused: false,
      Restarting: false,
      OOMKilled: false,
      Dead: false,
      Pid: state.pid,
      ExitCode: state.exitCode,
      Error: state.error,
      StartedAt: when(state.startedAt),
      FinishedAt: when(state.finishedAt),
    },
    Image: image.name,
    ResolvConfPath: sandbox?.files?.resolvConf ?? '',
    HostnamePath: sandbox?.files?.hostname ?? '',
    HostsPath: sandbox?.files?.hosts ?? '',
    Name: `/${name}`,
    RestartCount: 0,
    Driver: 'copy',
    Platform: 'linux',
    Mounts: [],
    HostConfig: { ...request.HostConfig, NetworkMode: mode },
    Config: {
      Hostname: container.hostname,
      Domainname: request.Domainname ?? '',
      Tty: request.Tty ?? false,
      OpenStdin: request.OpenStdin ?? false,
      ExposedPorts: Object.fromEntries(exposed.map(port => [port, {}])),
      Env: container.environment,
      Cmd: command,
      Image: image.name,
      Labels: request.Labels ?? {},
    },
    NetworkSettings: {
      SandboxID: sandbox?.id ?? '',
      SandboxKey: sandbox?.key ?? '',
      Ports: container.isRunning ? portsJson(container) : {},
      EndpointID: EndpointID,
      ...first,
      Networks: networks,
    },
  }
}

/** One line of `docker ps`. */
export function summaryJson(container: Container) {
  const { id, name, created, request, state, command, image, mode } = container
  return {
    Id: id,
    Names: [`/${name}`],
    Image: image.name,
    ImageID: image.name,
    Command: command.join(' '),
    Created: Math.floor(created / 1000),
    State: state.status,
    Status: statusText(container),
    Ports: container.isRunning ? portList(container) : [],
    Labels: request.Labels ?? {},
    HostConfig: { NetworkMode: mode },
    NetworkSettings: { Networks: networksJson(container) },
    Mounts: [],
  }
}

/** As Docker words it: the largest unit alone. */
function duration(seconds: number): string {
  const units = [
    ['day', 86_400],
    ['hour', 3_600],
    ['minute', 60],
  ] as const
  const [unit, length] = units.find(([, each]) => seconds >= each) ?? (['second', 1] as const)
  const count = Math.max(1, Math.floor(seconds / length))
  return `${count} ${unit}${count === 1 ? '' : 's'}`
}

function statusText({ state }: Container): string {
  const ago = (time: number) => duration((Date.now() - time) / 1000)
  if (state.status === 'running') return `Up ${ago(state.startedAt)}`
  if (state.status === 'exited') return `Exited (${state.exitCode}) ${ago(state.finishedAt)} ago`
  return 'Created'
}

interface Published {
  /** `80/tcp` */
  port: string
  hostIp: string
  hostPort: number
}

function published({ sandbox }: Container): Published[] {
  return (sandbox?.endpoints() ?? []).flatMap(({ ports }) =>
    ports.flatMap(({ containerPort, protocol, hostIp, hostPort, hostPortEnd }) =>
      Array.from({ length: hostPortEnd - hostPort + 1 }, (_, at) => ({
        port: `${containerPort + at}/${protocol}`,
        hostIp,
        hostPort: hostPort + at,
      })),
    ),
  )
}

function portsJson(container: Container) {
  const ports: Record<string, { HostIp: string; HostPort: string }[] | null> = Object.fromEntries(
    container.exposed.map(port => [port, null]),
  )
  for (const { port, hostIp, hostPort } of published(container)) {
    const list = ports[port] ?? []
    list.push({ HostIp: hostIp, HostPort: `${hostPort}` })
    ports[port] = list
  }
  return ports
}

function portList(container: Container) {
  const taken = published(container)
  const parts = (port: string) => {
    const [number, type] = port.split('/')
    return { PrivatePort: Number(number), Type: type }
  }
  return [
    ...container.exposed.filter(each => !taken.some(({ port }) => port === each)).map(parts),
    ...taken.map(({ port, hostIp, hostPort }) => ({ IP: hostIp, PublicPort: hostPort, ...parts(port) })),
  ]
}

function networksJson(container: Container) {
  const { networks, sandbox } = container
  return Object.fromEntries(
    [...networks].map(([name, settings]) => [
      name,
      endpointJson(
        settings,
        sandbox?.endpoints().find(({ network }) => network.name === name),
        namesOn(name, container),
      ),
    ]),
  )
}

/** What the container is called there; the networks that are always there have no names. */
function namesOn(network: string, { id, name, hostname, networks }: Container): string[] | null {
  if (['bridge', 'host', 'none'].includes(network)) return null
  return [...new Set([name, ...(networks.get(network)?.Aliases ?? []), id.slice(0, 12), hostname])].filter(
    each => each !== undefined,
  )
}

function endpointJson(settings: EndpointSettings, endpoint: Endpoint | undefined, DNSNames: string[] | null) {
  if (!endpoint) return { ...blank(), ...settings }
  const [IPAddress, IPPrefixLen] = split(endpoint.ipv4)
  const [GlobalIPv6Address, GlobalIPv6PrefixLen] = split(endpoint.ipv6)
  const gateways = endpoint.network.ipam.map(({ gateway }) => split(gateway)[0])
  return {
    ...blank(),
    ...settings,
    DNSNames,
    EndpointID: endpoint.id,
    NetworkID: endpoint.network.id,
    MacAddress: IPAddress || GlobalIPv6Address ? endpoint.mac : '',
    IPAddress,
    IPPrefixLen,
    Gateway: gateways.find(gateway => gateway && !gateway.includes(':')) ?? '',
    GlobalIPv6Address,
    GlobalIPv6PrefixLen,
    IPv6Gateway: gateways.find(gateway => gateway.includes(':')) ?? '',
  }
}

const blank = () => ({
  IPAMConfig: null,
  Links: null,
  Aliases: null,
  DriverOpts: null,
  DNSNames: null,
  EndpointID: '',
  NetworkID: '',
  MacAddress: '',
  IPAddress: '',
  IPPrefixLen: 0,
  Gateway: '',
  GlobalIPv6Address: '',
  GlobalIPv6PrefixLen: 0,
  IPv6Gateway: '',
})
