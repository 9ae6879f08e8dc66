/** ADD, DEL, CHECK, GC and STATUS (CNI specification 1.1.0, section 2). */
import { addressOf } from '../base/cidr'
import { atomically } from '../base/undo'
import type { Controller } from '../controller'
import type { Difference } from '../core/difference'
import type { Endpoint } from '../endpoint'
import type { Sandbox } from '../sandbox'
import {
  describe,
  endpointInput,
  findAttachment,
  findNetwork,
  findSandbox,
  isOf,
  mustBeNamespace,
  obtainNetwork,
  sameNamespace,
  sweepDead,
  sweepSandboxes,
} from './attachment'
import type { CniConfig } from './config'
import type { Place } from './environment'
import { CODES, CniError, toCniError } from './errors'
import { withController } from './open'
import { appendResult, type CniResult, renderResult } from './versions'

/** The interface appears in the container; the result describes it. */
export function add(config: CniConfig, place: Place): Promise<object> {
  const netns = place.netns as string
  mustBeNamespace(netns)
  const wanted = endpointInput(config, place)
  return withController(config, { repair: true }, async ({ controller, host }) => {
    await sweepDead(controller)
    return atomically(async undo => {
      const network = await obtainNetwork(controller, config)
      if (findAttachment(network, place))
        throw new CniError(
          CODES.conflict,
          `container ${place.containerId} has ${place.ifname} on network ${network.name} already`,
          'DEL comes before another ADD',
        )
      const found = findSandbox(controller, place.containerId)
      const sandbox = found ?? (await newSandbox(controller, place.containerId))
      if (!found) undo.push('delete the sandbox', () => sandbox.delete({ force: true }))
      await enter(sandbox, netns)
      const endpoint = await network.createEndpoint(wanted)
      undo.push('delete the endpoint', () => endpoint.delete({ force: true }))
      // The first attachment is the way out, as with other plugins.
      await endpoint.join(sandbox, {
        interfaceName: place.ifname,
        priority: -sandbox.endpoints().length,
      })
      const own = await describe(endpoint, netns, host, config.dns)
      return renderResult(appendResult(config.prevResult, own), config.cniVersion)
    })
  })
}

/** Nobody stays behind to answer names, so none are promised. */
const newSandbox = (controller: Controller, containerId: string): Promise<Sandbox> =>
  controller.createSandbox({ containerId, mode: 'deferred', files: false, resolver: false })

async function enter(sandbox: Sandbox, netns: string): Promise<void> {
  if (sandbox.key === undefined || sandbox.endpoints().length === 0) await sandbox.setKey(netns)
  else if (!sameNamespace(sandbox.key, netns))
    throw new CniError(
      CODES.invalidEnvironment,
      `container ${sandbox.containerId} has attachments in another namespace than CNI_NETNS ${netns}`,
      'DEL them first',
    )
}

/** What is gone already is no failure. */
export function del(config: CniConfig, place: Place): Promise<undefined> {
  return withController(config, { repair: true }, async ({ controller }) => {
    await findAttachment(findNetwork(controller, config.name), place)?.delete({ force: true })
    await sweepSandboxes(controller)
    return undefined
  })
}

/** Compares the kernel with the store, and the store with the result that the runtime remembers. */
export function check(config: CniConfig, place: Place): Promise<undefined> {
  const { prevResult, name } = config
  if (!prevResult) throw new CniError(CODES.invalidConfig, 'CHECK needs prevResult, the result of ADD')
  return withController(config, { repair: false }, async ({ controller }) => {
    const endpoint = findAttachment(findNetwork(controller, name), place)
    const { sandbox } = endpoint ?? {}
    if (!endpoint || !sandbox)
      throw new CniError(
        CODES.unknownContainer,
        `container ${place.containerId} has no ${place.ifname} on network ${name}`,
      )
    const problems = disagreements(endpoint, place, prevResult)
    if (!sameNamespace(sandbox.key, place.netns))
      problems.push(`CNI_NETNS ${place.netns} is another namespace`)
    for (const difference of await controller.check())
      if (concerns(difference, endpoint, sandbox)) problems.push(difference.message)
    if (problems.length)
      throw new CniError(
        CODES.differs,
        `${place.ifname} of container ${place.containerId} is not as it should be`,
        problems.join('; '),
      )
    return undefined
  })
}

const concerns = (difference: Difference, endpoint: Endpoint, sandbox: Sandbox): boolean =>
  difference.kind === 'firewall' ||
  (difference.endpointId !== undefined
    ? difference.endpointId === endpoint.id
    : difference.sandboxId !== undefined
      ? difference.sandboxId === sandbox.id
      : difference.networkId === endpoint.network.id)

/** In words. Plugins later in the chain may have changed the MAC and the MTU. */
export function disagreements(
  { ipv4, ipv6 }: Pick<Endpoint, 'ipv4' | 'ipv6'>,
  { ifname }: Pick<Place, 'ifname'>,
  { interfaces, ips }: CniResult,
): string[] {
  const at = interfaces.findIndex(({ name, sandbox }) => name === ifname && sandbox)
  if (at < 0) return [`prevResult has no interface ${ifname} in a sandbox`]
  const told = ips
    .filter(ip => ip.interface === undefined || ip.interface === at)
    .map(({ address }) => addressOf(address))
  return [ipv4, ipv6]
    .filter(address => address !== undefined && !told.includes(addressOf(address)))
    .map(address => `prevResult has no address ${address}`)
}

/** Whatever this network has beside the attachments that live goes; the network, too, when none is left. */
export function gc(config: CniConfig): Promise<undefined> {
  const { validAttachments } = config
  if (!validAttachments)
    throw new CniError(
      CODES.invalidConfig,
      'GC needs cni.dev/valid-attachments',
      'an empty list says that none is valid',
    )
  return withController(config, { repair: true }, async ({ controller }) => {
    const network = findNetwork(controller, config.name)
    for (const endpoint of network?.endpoints() ?? [])
      if (!validAttachments.some(({ containerID, ifname }) => isOf(endpoint, containerID, ifname)))
        await endpoint.delete({ force: true })
    await sweepSandboxes(controller)
    if (network && network.endpoints().length === 0) await network.delete()
    // What a call that was killed left behind.
    await controller.gc({ containerIds: controller.sandboxes().map(({ containerId }) => containerId) })
    return undefined
  })
}

/** Code 50: ADD would fail. Code 51: what is attached is cut off, too. */
export async function status(config: CniConfig): Promise<undefined> {
  const unavailable = (reason: string, details?: string) =>
    new CniError(CODES.notAvailable, `network ${config.name} is not available: ${reason}`, details)
  try {
    return await withController(config, { repair: true }, async ({ controller }) => {
      const network = findNetwork(controller, config.name)
      if (!network) {
        if (!controller.drivers().network.includes(config.driver))
          throw unavailable(`there is no driver ${config.driver}`)
        return undefined
      }
      const broken = (await controller.check()).filter(
        ({ kind, networkId, endpointId }) =>
          kind === 'firewall' || (networkId === network.id && endpointId === undefined),
      )
      if (broken.length)
        throw new CniError(
          CODES.limitedConnectivity,
          `network ${config.name} is broken`,
          broken.map(({ message }) => message).join('; '),
        )
      for (const [pool, { dynamicAvailable }] of Object.entries(await network.status()))
        if (dynamicAvailable <= 0n) throw unavailable(`pool ${pool} has no free address`)
      return undefined
    })
  } catch (error) {
    const told = toCniError(error)
    if (told.code === CODES.notAvailable || told.code === CODES.limitedConnectivity) throw told
    throw unavailable(told.message, told.details)
  }
}
