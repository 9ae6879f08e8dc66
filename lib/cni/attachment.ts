/** What CNI calls an attachment: an endpoint that bears the names of its container and interface. */
import { createHash } from 'node:crypto'
import { statSync } from 'node:fs'
import { addressOf, parseCidr } from '../base/cidr'
import type { Controller } from '../controller'
import type { Endpoint } from '../endpoint'
import type { Stack } from '../kernel/kernel'
import type { Network } from '../network'
import type { EndpointInput, NetworkInput } from '../options'
import type { Sandbox } from '../sandbox'
import type { CniConfig } from './config'
import type { Place } from './environment'
import { CODES, CniError } from './errors'
import type { CniResult } from './versions'

const CONTAINER = 'libcnm.cni.container'
const INTERFACE = 'libcnm.cni.interface'
/** Of a network: hash of the configuration that made it. */
const MADE_FROM = 'libcnm.cni.config'

export const isOf = (endpoint: Endpoint, containerId: string, ifname: string): boolean =>
  endpoint.labels[CONTAINER] === containerId && endpoint.labels[INTERFACE] === ifname

export const findNetwork = (controller: Controller, name: string): Network | undefined =>
  controller.networks().find(network => network.name === name)

export const findAttachment = (
  network: Network | undefined,
  { containerId, ifname }: Pick<Place, 'containerId' | 'ifname'>,
): Endpoint | undefined => network?.endpoints().find(endpoint => isOf(endpoint, containerId, ifname))

export const findSandbox = (controller: Controller, containerId: string): Sandbox | undefined =>
  controller.sandboxes().find(sandbox => sandbox.containerId === containerId)

/** Sandboxes that nobody is attached to any more are let go, and with them the hold on their namespace. */
export async function sweepSandboxes(controller: Controller): Promise<void> {
  for (const sandbox of controller.sandboxes())
    if (sandbox.endpoints().length === 0) await sandbox.delete({ force: true })
}

/** After a reboot the namespaces are gone, and whoever was in them: their addresses are free again. */
export async function sweepDead(controller: Controller): Promise<void> {
  for (const sandbox of controller.sandboxes())
    if (sandbox.stack === undefined) await sandbox.delete({ force: true })
}

/* -------------------------------------------------------------------- the network */

/**
 * What comes for a container is let in, as with CNI's own bridge plugin: a port is opened by a plugin later in the chain
 * (`portmap`), with rules of its own that this firewall knows nothing of. Another gateway mode may be asked for.
 */
const OPEN = { gatewayModeIpv4: 'nat-unprotected', gatewayModeIpv6: 'nat-unprotected' } as const

const namesMode = (labels: Record<string, string>): boolean =>
  Object.keys(labels).some(key => key.includes('.gateway_mode_'))

function networkInput(config: CniConfig): NetworkInput {
  const { name, driver, options, labels, internal, ipv4, ipv6, ipam, ipMasq } = config
  return {
    name,
    driver,
    internal,
    ipv4,
    ipv6,
    ipam,
    labels,
    options: {
      ...(driver === 'bridge' && !internal && !namesMode(labels) && OPEN),
      ...options,
      ...(ipMasq !== undefined && { masquerade: ipMasq }),
    },
  }
}

/** The network of the configuration's name, made when absent; made anew when the configuration changed and nobody is on it. */
export async function obtainNetwork(controller: Controller, config: CniConfig): Promise<Network> {
  const input = networkInput(config)
  const hash = createHash('sha256').update(JSON.stringify(input)).digest('hex').slice(0, 16)
  const present = findNetwork(controller, config.name)
  if (present?.labels[MADE_FROM] === hash) return present
  if (present) {
    const attached = present.endpoints().length
    if (attached)
      throw new CniError(
        CODES.conflict,
        `network ${config.name} exists with other settings and has ${attached} attachment(s)`,
        'detach them first, or give the changed network another name',
      )
    await present.delete()
  }
  return controller.createNetwork({ ...input, labels: { ...input.labels, [MADE_FROM]: hash } })
}

/* -------------------------------------------------------------------- the endpoint */

/** What is asked in runtimeConfig counts, then args.cni, then CNI_ARGS. */
export function endpointInput(config: CniConfig, { containerId, ifname, args }: Place): EndpointInput {
  const { runtimeConfig, args: given } = config
  const ips = (runtimeConfig?.ips ?? given?.cni?.ips ?? args.ips).map(text => text.replace(/\/.*$/, ''))
  const mac = runtimeConfig?.mac ?? given?.cni?.mac ?? args.mac
  const aliases = runtimeConfig?.aliases ?? []
  const bandwidth = runtimeConfig?.bandwidth
  const [four, six] = [ips.filter(text => !text.includes(':')), ips.filter(text => text.includes(':'))]
  if (four.length > 1 || six.length > 1)
    throw new CniError(CODES.invalidConfig, `one address per family can be asked for, not ${ips.join(', ')}`)
  return {
    // 64 hexadecimal digits as containers have; longer ids are cut down to as many. Neither part may contain a colon.
    name: `${containerId.length > 64 ? createHash('sha256').update(containerId).digest('hex') : containerId}:${ifname}`,
    labels: { [CONTAINER]: containerId, [INTERFACE]: ifname },
    aliases: Array.isArray(aliases) ? aliases : (aliases[config.name] ?? []),
    ...(four[0] !== undefined && { ipv4: four[0] }),
    ...(six[0] !== undefined && { ipv6: six[0] }),
    ...(mac !== undefined && { mac }),
    ports: (runtimeConfig?.portMappings ?? []).map(({ hostPort, containerPort, protocol, hostIP }) => ({
      hostPort,
      containerPort,
      protocol: (protocol ?? 'tcp').toLowerCase() as 'tcp',
      ...(hostIP && { hostIp: hostIP }),
    })),
    bandwidth: {
      ...(bandwidth?.ingressRate && { ingress: bandwidth.ingressRate }),
      ...(bandwidth?.egressRate && { egress: bandwidth.egressRate }),
    },
  }
}

/** Throws code 4 when it is no namespace, or the host's. */
export function mustBeNamespace(path: string): void {
  const inode = inodeOf(path)
  if (inode === undefined)
    throw new CniError(CODES.invalidEnvironment, `CNI_NETNS ${path} is no network namespace`)
  if (inode === inodeOf('/proc/self/ns/net'))
    throw new CniError(CODES.invalidEnvironment, `CNI_NETNS ${path} is the namespace of the host`)
}

export function sameNamespace(a: string | undefined, b: string | undefined): boolean {
  const inode = a === undefined ? undefined : inodeOf(a)
  return inode !== undefined && b !== undefined && inode === inodeOf(b)
}

function inodeOf(path: string): number | undefined {
  try {
    return statSync(path).ino
  } catch {
    return undefined
  }
}

/* -------------------------------------------------------------------- the result */

/** The bridge and the host's end of the pair (a parent link is not of the attachment), the interface; addresses; default routes. */
export async function describe(
  endpoint: Endpoint,
  netns: string,
  host: Stack,
  dns: CniConfig['dns'],
): Promise<CniResult> {
  const { network, sandbox, interfaceName } = endpoint
  const inside = interfaceName === undefined ? undefined : await sandbox?.stack?.link(interfaceName)
  const end = endpoint.record.join?.attachment?.interface?.source
  const names = end === undefined ? [] : [network.link, end].filter(name => name !== undefined)
  const outside = await Promise.all(names.map(name => host.link(name)))
  const interfaces: CniResult['interfaces'] = outside.flatMap(link =>
    link ? [{ name: link.name, mac: link.mac, mtu: link.mtu }] : [],
  )
  const index = interfaces.length
  if (interfaceName !== undefined && inside)
    interfaces.push({ name: interfaceName, mac: inside.mac, mtu: inside.mtu, sandbox: netns })
  const defaults = (sandbox?.wantedDefaults() ?? []).filter(({ link }) => link === interfaceName)
  return {
    interfaces,
    ips: [endpoint.ipv4, endpoint.ipv6].flatMap(address => {
      if (address === undefined) return []
      const { family } = parseCidr(address)
      const gateway = network.ipam.find(pool => pool.family === family)?.gateway
      return [{ address, ...(gateway && { gateway: addressOf(gateway) }), interface: index }]
    }),
    routes: defaults.map(({ destination, gateway }) => ({
      dst: destination,
      ...(gateway !== undefined && { gw: gateway }),
    })),
    dns,
  }
}
