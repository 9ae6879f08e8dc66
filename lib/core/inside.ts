/** What an attachment means inside a sandbox, as changes. Pure. */
import { addressOf, contains, familyOf, parseCidr, parseIp } from '../base/cidr'
import { CnmError } from '../base/errors'
import type { Attachment, EndpointSpec } from '../driver/contract'
import type { Change, RouteSpec, Stack } from '../kernel/kernel'
import type { JoinOptions } from '../options'

export const addressesOf = (endpoint: EndpointSpec, attachment: Attachment): string[] =>
  attachment.addresses ?? [endpoint.ipv4, endpoint.ipv6].filter(address => address !== undefined)

/** Moves a link in and gives it its name. Carried out on the host. */
export const arrival = (attachment: Attachment, interfaceName: string, netns: Stack): Change[] =>
  attachment.interface?.arrives === 'moved' && attachment.interface.source
    ? [
        { op: 'setLink', link: attachment.interface.source, up: false },
        { op: 'setLink', link: attachment.interface.source, rename: interfaceName, netns },
      ]
    : []

/** Addresses, up, routes and neighbours; not the default route. */
export function equip(
  endpoint: EndpointSpec,
  attachment: Attachment,
  interfaceName: string,
  options: JoinOptions,
): Change[] {
  if (!attachment.interface) return []
  const { arrives, mac, mtu } = attachment.interface
  const { settings = {} } = endpoint
  const changes: Change[] = []
  if (arrives === 'moved' && (mac || mtu)) changes.push({ op: 'setLink', link: interfaceName, mac, mtu })
  if (settings.mtu !== undefined) changes.push({ op: 'setLink', link: interfaceName, mtu: settings.mtu })
  for (const address of addressesOf(endpoint, attachment))
    changes.push({ op: 'addAddress', link: interfaceName, address })
  for (const address of endpoint.linkLocal)
    changes.push({ op: 'addAddress', link: interfaceName, address, scope: 'link' })
  changes.push({ op: 'setLink', link: interfaceName, up: true })
  for (const route of [...(attachment.routes ?? []), ...(settings.routes ?? []), ...options.routes])
    changes.push({ op: 'addRoute', route: isUnicast(route) ? { ...route, link: interfaceName } : route })
  for (const { address, mac: neighbour } of attachment.neighbours ?? [])
    if (address && neighbour)
      changes.push({ op: 'setNeighbour', link: interfaceName, address, mac: neighbour })
  return changes
}

const isUnicast = ({ type = 'unicast' }: RouteSpec): boolean => type === 'unicast'

/** Takes an interface out of use at once, before it is deleted in the background. */
export function silence(
  endpoint: EndpointSpec,
  attachment: Attachment,
  interfaceName: string,
  options: JoinOptions,
): Change[] {
  if (!attachment.interface) return []
  const changes: Change[] = []
  // Routes without a device do not go with the interface.
  for (const route of options.routes) if (!isUnicast(route)) changes.push({ op: 'removeRoute', route })
  for (const address of [...addressesOf(endpoint, attachment), ...endpoint.linkLocal])
    changes.push({ op: 'removeAddress', link: interfaceName, address })
  return changes
}

/** Sends a link that was moved in back to where it came from. Carried out inside. */
export const departure = (attachment: Attachment, interfaceName: string, host: Stack): Change[] =>
  attachment.interface?.arrives === 'moved' && attachment.interface.source
    ? [
        { op: 'setLink', link: interfaceName, up: false },
        { op: 'setLink', link: interfaceName, rename: attachment.interface.source, netns: host },
      ]
    : []

/** `IFNAME` in a key stands for the interface; dots may separate instead of slashes. */
export function sysctlsFor(
  attachment: Attachment,
  options: JoinOptions,
  interfaceName: string,
): Record<string, string> {
  const given = { ...attachment.sysctls, ...options.sysctls }
  return Object.fromEntries(
    Object.entries(given).map(([key, value]) => [
      key.replaceAll('.', '/').replace('IFNAME', interfaceName),
      value,
    ]),
  )
}

/** The lowest `prefixN` that is not taken. */
export function lowestFree(prefix: string, taken: Set<string>): string {
  for (let n = 0; ; n++) if (!taken.has(`${prefix}${n}`)) return `${prefix}${n}`
}

/** Refuses an address that lies in a subnet which the sandbox is on already, or contains one. */
export function refuseConflicts(addresses: string[], present: { address: string; owner: string }[]): void {
  for (const address of addresses) {
    const wanted = parseCidr(address)
    for (const { address: other, owner } of present) {
      if (familyOf(other) !== wanted.family) continue
      const theirs = parseCidr(other)
      if (
        contains(theirs, { family: wanted.family, value: wanted.value }) ||
        contains(wanted, { family: theirs.family, value: theirs.value })
      )
        throw new CnmError(
          'ERR_ROUTE_CONFLICT',
          `cannot program address ${address} in the sandbox: it conflicts with existing route ${other} (${owner})`,
          { address, route: other },
        )
    }
  }
}

/** Refuses a route by a gateway that is on none of the endpoint's subnets: the kernel would not know the way to it. */
export function refuseGateways(addresses: string[], routes: JoinOptions['routes']): void {
  const near = [
    ...addresses,
    ...routes.filter(({ gateway }) => !gateway).map(({ destination }) => destination),
  ]
  for (const { destination, gateway } of routes)
    if (gateway && !isLinkLocal(gateway) && !near.some(each => contains(parseCidr(each), parseIp(gateway))))
      throw new CnmError(
        'ERR_GATEWAY_UNREACHABLE',
        `route to ${destination}: gateway ${gateway} is on no subnet of the endpoint (${addresses.join(', ') || 'it has none'})`,
        { destination, gateway, addresses },
      )
}

const isLinkLocal = (address: string): boolean =>
  familyOf(address) === 6 && contains(parseCidr('fe80::/10'), parseIp(address))

export const bare = (addresses: string[]): string[] => addresses.map(addressOf)
