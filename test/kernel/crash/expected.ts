import { basename, dirname, join } from 'node:path'
import type { Controller } from '../../../lib/index'
import { openStore } from '../../../lib/store/open'
import {
  type HostSnapshot,
  snapshotHost,
  snapshotStack,
  type StackSnapshot,
} from '../../support/host-snapshot'
import type { Orders } from './protocol'

/** What the host and the sandboxes should look like by what the controller says there is, in words of the snapshot. */
type Picture = Record<string, string[]>

/** Where the host contradicts the controller; it need not agree with its own check for that. */
export async function hostDifferences(
  controller: Controller,
  at: Orders & { directory: string },
): Promise<string[]> {
  const [wanted, host] = [wantedHost(controller, at), await snapshotHost(at.host, [at.directory])]
  const shown = shownHost(host, at)
  const reserved = reservable(controller)
  shown.sockets = shown.sockets!.filter(line => wanted.sockets!.includes(line) || !reserved.has(line))
  const found = differences('host', wanted, shown)
  await Promise.all(
    controller.sandboxes().map(async sandbox => {
      const inside = await snapshotStack(sandbox.key)
      found.push(
        ...differences(`sandbox ${sandbox.containerId}`, wantedSandbox(sandbox), shownSandbox(inside)),
      )
    }),
  )
  return found
}

/** Where the store, read by itself, contradicts what the controller said before it was closed. */
export async function storeDifferences(ids: string[], dataDir: string): Promise<string[]> {
  const store = await openStore({ dataDir })
  try {
    const { records, damaged } = await store.load()
    const stored = records.filter(({ kind }) => kind !== 'meta').map(({ kind, id }) => `${kind} ${id}`)
    return [
      ...differences('store', { records: ids }, { records: stored }),
      ...damaged.map(({ kind, id, reason }) => `store: ${kind} ${id} is damaged: ${reason}`),
    ]
  } finally {
    await store.close()
  }
}

export const idsOf = (controller: Controller): string[] => [
  ...controller
    .networks()
    .flatMap(network => [`network ${network.id}`, ...network.endpoints().map(({ id }) => `endpoint ${id}`)]),
  ...controller.sandboxes().map(({ id }) => `sandbox ${id}`),
]

function differences(where: string, wanted: Picture, shown: Picture): string[] {
  return Object.keys(wanted).flatMap(what => {
    const [want, have] = [[...(wanted[what] ?? [])].sort(), [...(shown[what] ?? [])].sort()]
    if (JSON.stringify(want) === JSON.stringify(have)) return []
    const [missing, unwanted] = [minus(want, have), minus(have, want)]
    return [
      ...missing.map(line => `${where}: ${what}: missing ${line}`),
      ...unwanted.map(line => `${where}: ${what}: unwanted ${line}`),
    ]
  })
}

function minus(lines: string[], others: string[]): string[] {
  const left = [...others]
  return lines.filter(line => {
    const at = left.indexOf(line)
    if (at >= 0) left.splice(at, 1)
    return at < 0
  })
}

/* ---------------------------------------------------------------- the host */

function wantedHost(controller: Controller, { host, name }: Orders): Picture {
  const networks = controller.networks()
  const endpoints = networks.flatMap(network => network.endpoints())
  const sandboxes = controller.sandboxes()
  const pools = networks.flatMap(network =>
    network.inspect().ipam.config.map(pool => ({ ...pool, link: network.link as string })),
  )
  return {
    links: [
      'lo',
      ...networks.map(({ link }) => `${link} bridge up`),
      ...endpoints.filter(({ sandbox }) => sandbox).map(({ network }) => `veth master ${network.link} up`),
    ],
    addresses: [
      'lo 127.0.0.1/8',
      'lo ::1/128',
      ...pools.flatMap(({ link, subnet, gateway }) =>
        gateway ? `${link} ${withLength(gateway, subnet)}` : [],
      ),
    ],
    routes: pools.flatMap(({ link, subnet, gateway }) => (gateway ? `${subnet} dev ${link}` : [])),
    neighbours: [],
    mappings: endpoints.flatMap(endpoint =>
      endpoint.ports
        .filter(({ proxied }) => !proxied)
        .map(
          ({ protocol, hostPort, containerIp, containerPort }) =>
            `${table(name)} ${protocol} ${hostPort} to ${containerIp} ${containerPort}`,
        ),
    ),
    sockets: [
      ...new Set(
        endpoints.flatMap(endpoint =>
          endpoint.ports.map(({ protocol, hostPort }) => `${protocol} ${hostPort}`),
        ),
      ),
    ],
    mounts: [host, ...sandboxes.map(({ key }) => key as string)],
    namespaces: sandboxes.map(({ key }) => basename(key as string)),
    files: sandboxes.flatMap(({ files }) => (files ? dirname(files.hosts) : [])),
    processes: [],
  }
}

/** An endpoint that is not its sandbox's gateway publishes nothing at present, but keeps its ports from others. */
function reservable(controller: Controller): Set<string> {
  const joined = controller.sandboxes().flatMap(sandbox => sandbox.endpoints())
  return new Set(
    joined.flatMap(endpoint =>
      endpoint.inspect().bindings.map(({ protocol, hostPort }) => `${protocol} ${hostPort}`),
    ),
  )
}

function shownHost(host: HostSnapshot, { runDir, name }: Orders): Picture {
  return {
    links: host.links.map(line => {
      const [link = '', kind = ''] = line.split(' ')
      const state = / (up|down)\b/.exec(line)?.[1]
      if (link === 'lo') return link
      return kind === 'veth' ? `veth ${/master \S+/.exec(line)?.[0]} ${state}` : `${link} ${kind} ${state}`
    }),
    addresses: host.addresses.filter(line => !/ fe80::/.test(line)),
    routes: host.routes
      .filter(line => line.startsWith('unicast') && / table main\b/.test(line) && !/ fe80::/.test(line))
      .map(line => /^unicast (\S+(?: via \S+)?(?: dev \S+)?)/.exec(line)?.[1] ?? line),
    neighbours: host.neighbours,
    mappings: host.nft.flatMap(line => mapping(line, name)),
    sockets: [...new Set(host.sockets.map(line => line.replace(/^(\S+) .*:(\d+)( state \w+)?$/, '$1 $2$3')))],
    mounts: host.mounts,
    namespaces: host.files
      .filter(path => dirname(path) === join(runDir, 'netns'))
      .map(path => basename(path)),
    files: host.files.filter(path => dirname(path) === join(runDir, 'files')),
    processes: host.processes,
  }
}

const table = (name: string): string => `inet ${name}`

/** An element of the maps that translate single ports: `[{"concat":["tcp",8000]},{"concat":["10.77.0.2",80]}]`. */
function mapping(line: string, name: string): string[] {
  const match = /^map (\S+ \S+) ports[46](?:-at)? element (.*)$/.exec(line)
  if (!match || match[1] !== table(name)) return []
  const [key, value] = JSON.parse(match[2] as string) as [{ concat: unknown[] }, { concat: unknown[] }]
  const [port, protocol] = [key.concat.at(-1), key.concat.at(-2)]
  return [`${match[1]} ${String(protocol)} ${String(port)} to ${value.concat.map(String).join(' ')}`]
}

const withLength = (address: string, subnet: string): string =>
  address.includes('/') ? address : `${address}/${subnet.split('/')[1]}`

/* ---------------------------------------------------------------- a sandbox */

function wantedSandbox(sandbox: ReturnType<Controller['sandbox']>): Picture {
  const { endpoints } = sandbox.inspect()
  return {
    links: ['lo', ...endpoints.map(({ interfaceName }) => `${interfaceName} up`)],
    addresses: [
      'lo 127.0.0.1/8',
      'lo ::1/128',
      ...endpoints.flatMap(({ interfaceName, ipv4, ipv6 }) =>
        [ipv4, ipv6].flatMap(address => (address ? `${interfaceName} ${address}` : [])),
      ),
    ],
    'IPv4 default routes': sandbox.gateway.ipv4 ? ['one'] : [],
    'IPv6 default routes': sandbox.gateway.ipv6 ? ['one'] : [],
  }
}

function shownSandbox(inside: StackSnapshot): Picture {
  const defaults = inside.routes.filter(line => /^unicast default (via|dev) .*table main/.test(line))
  const v6 = defaults.filter(line => / metric /.test(line))
  return {
    links: inside.links.map(line => {
      const link = line.split(' ')[0] as string
      return link === 'lo' ? link : `${link} ${/ (up|down)\b/.exec(line)?.[1]}`
    }),
    addresses: inside.addresses.filter(line => !/ fe80::/.test(line)),
    // ip shows a metric for every IPv6 route, and for IPv4 ones only when somebody gave one
    'IPv4 default routes': defaults.filter(line => !v6.includes(line)).map(() => 'one'),
    'IPv6 default routes': v6.map(() => 'one'),
  }
}
