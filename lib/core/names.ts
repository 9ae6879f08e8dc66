import type { ServiceRecord } from './records'
import type { CustomRecord, NamedPort, NameRecord, ServiceNames } from '../dns/contract'
import type { NetworkOptions } from '../options'
import type { HostsEntry } from '../dns/files/contract'
import type { PortBinding } from '../ports/contract'
import type { ServiceTask } from '../services/contract'
import { addressOf } from '../base/cidr'

type ConfiguredRecord = NetworkOptions['dns']['records'][number]

/** Records as configured on a network → as the zones take them. */
export const customRecords = (records: ConfiguredRecord[]): CustomRecord[] => records.map(customRecord)

function customRecord({
  name,
  type,
  value,
  ttl,
  port = 0,
  priority,
  weight,
}: ConfiguredRecord): CustomRecord {
  switch (type) {
    case 'A':
    case 'AAAA':
      return { name, type, ttl, address: value }
    case 'CNAME':
      return { name, type, ttl, target: value }
    case 'TXT':
      return { name, type, ttl, text: value }
    case 'SRV':
      return { name, type, ttl, target: value, port, priority, weight }
  }
}

interface Named {
  id: string
  name: string
  ipv4?: string
  ipv6?: string
  aliases: string[]
}

/** DNS names in order: endpoint name, aliases, short container id, hostname; the first is the one PTR tells. */
export function dnsNames(endpoint: Named, containerId: string, hostname: string): string[] {
  return [...new Set([endpoint.name, ...endpoint.aliases, containerId.slice(0, 12), hostname])].filter(
    Boolean,
  )
}

export function nameRecord(
  endpoint: Named,
  network: { id: string; name: string },
  names: string[],
): NameRecord {
  return {
    endpointId: endpoint.id,
    networkId: network.id,
    networkName: network.name,
    names,
    ipv4: endpoint.ipv4 && addressOf(endpoint.ipv4),
    ipv6: endpoint.ipv6 && addressOf(endpoint.ipv6),
  }
}

/** Registered names of the ports that containers serve most (IANA's registry of service names). */
const SERVICES: Record<number, string> = {
  22: 'ssh',
  25: 'smtp',
  53: 'domain',
  80: 'http',
  143: 'imap',
  389: 'ldap',
  443: 'https',
  1883: 'mqtt',
  3306: 'mysql',
  5432: 'postgresql',
  5672: 'amqp',
  6379: 'redis',
}

/** Ports as SRV knows them: `_8080._tcp.web`, and `_http._tcp.web` where the port has a name. Each once. */
export function namedPorts(
  ports: Pick<PortBinding, 'containerPort' | 'containerPortEnd' | 'protocol'>[],
): NamedPort[] {
  const found = new Map<string, NamedPort>()
  for (const { containerPort, containerPortEnd = containerPort, protocol } of ports)
    for (let port = containerPort; port <= containerPortEnd; port++)
      for (const name of [String(port), SERVICES[port]])
        if (name !== undefined) found.set(`${name}/${protocol}`, { name, protocol, port })
  return [...found.values()]
}

/** A service's names: new questions are answered with tasks that take new flows. */
export function serviceNames(
  { id, name, aliases, vips, ports, endpointMode }: ServiceRecord,
  tasks: ServiceTask[],
): ServiceNames {
  const named = ports.map(({ name: own, port, targetPort, protocol }) => ({
    name: own,
    port: endpointMode === 'vip' ? port : targetPort,
    protocol,
  }))
  return {
    id,
    name,
    aliases,
    vips: [vips[4], vips[6]].flatMap(vip => (vip ? [addressOf(vip.address)] : [])),
    tasks: tasks
      .filter(({ healthy, weight }) => healthy && weight > 0)
      .map(({ endpointId, ipv4, ipv6 }) => ({ endpointId, ipv4, ipv6 })),
    ports: [
      ...namedPorts(named.map(({ port, protocol }) => ({ containerPort: port, protocol }))),
      ...named.flatMap(({ name: own, port, protocol }) => (own ? [{ name: own, port, protocol }] : [])),
    ],
  }
}

/** The container's own lines in its /etc/hosts: `IP  fqdn hostname` for each address. */
export function hostsEntries(endpoint: Named, hostname: string, domainname?: string): HostsEntry[] {
  const names = domainname ? [`${hostname}.${domainname}`, hostname] : fqdn(hostname)
  return [endpoint.ipv4, endpoint.ipv6].flatMap(address =>
    address ? [{ address: addressOf(address), names }] : [],
  )
}

/** `a.b.c` → `a.b.c a`. */
const fqdn = (hostname: string): string[] =>
  hostname.includes('.') ? [hostname, hostname.split('.')[0] as string] : [hostname]
