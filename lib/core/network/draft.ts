import { addressOf, contains, type Family, parseCidr, parseIp } from '../../base/cidr'
import { CnmError } from '../../base/errors'
import { macOf, newId, randomMac } from '../../base/ids'
import { parse } from '../../base/parse'
import type { Undo } from '../../base/undo'
import type { EndpointAnswer } from '../../driver/contract'
import { fromLabels } from '../../driver/options'
import type { Network } from '../../network'
import type { EndpointOptions } from '../../options'
import type { PortBinding } from '../../ports/contract'
import { z } from 'zod'
import type { Context } from '../context'
import { type EndpointRecord, endpointSpec, type ServiceRecord } from '../records'
import { claimAddress } from './claim'

const NO_OPTIONS = z.strictObject({}) as z.ZodType<Record<string, unknown>>

/** Docker's labels on endpoints that the core itself understands. */
const ENDPOINT_LABELS = { 'com.docker.network.endpoint.macaddress': 'macAddress' }

/** Checked by the driver's schema; a MAC that a label asks for goes to `config`. */
export function driverOptionsOf(
  { implementation: driver }: Network,
  config: EndpointOptions,
): Record<string, unknown> {
  const labels = { ...ENDPOINT_LABELS, ...driver.endpointLabels }
  const renamed = fromLabels(config.options, labels, driver.takesLabels)
  if (typeof renamed.macAddress === 'string') {
    config.mac ??= renamed.macAddress
    delete renamed.macAddress
  }
  return parse(driver.endpointOptions ?? NO_OPTIONS, renamed, 'options.options')
}

/** A record with addresses and a MAC; what was taken for it goes with `undo`. */
export async function draftEndpoint(
  context: Context,
  network: Network,
  config: EndpointOptions,
  driverOptions: Record<string, unknown>,
  undo: Undo,
): Promise<EndpointRecord> {
  const id = config.id ?? newId()
  if (network.holds(id))
    throw new CnmError('ERR_ENDPOINT_EXISTS', `endpoint ${id} already exists in network ${network.name}`)
  checkLinkLocal(config.linkLocal)
  const record: EndpointRecord = {
    id,
    networkId: network.id,
    name: config.name,
    created: new Date().toISOString(),
    config,
    driverOptions,
    mac: config.mac ?? randomMac(),
    addresses: {},
  }
  const wish = { 4: config.ipv4, 6: config.ipv6 }
  const has = (family: Family) => network.record.pools.some(pool => pool.family === family)
  for (const family of [4, 6] as const) {
    const wanted = wish[family]
    if (wanted && !has(family))
      throw new CnmError(
        'ERR_ADDRESS_OUT_OF_RANGE',
        `network ${network.name} has no IPv${family} subnet for ${wanted}`,
        {
          network: network.id,
          address: wanted,
        },
      )
  }
  const chosen = record.mac
  for (const family of [4, 6] as const)
    if (has(family)) await allocateAddress(context, network, record, family, wish[family], undo)
  await chooseMac(context, network, record, chosen)
  if (network.implementation.createEndpoint) {
    const answer = await network.implementation.createEndpoint(network.forDriver, endpointSpec(record))
    undo.push('driver deletes the endpoint', () =>
      network.implementation.deleteEndpoint?.(network.forDriver, endpointSpec(record)),
    )
    fillIn(network, record, answer)
  }
  return record
}

/** Where nobody wanted a certain one, and the driver's MACs follow from addresses. */
async function chooseMac(
  context: Context,
  network: Network,
  record: EndpointRecord,
  random: string,
): Promise<void> {
  const { capabilities } = await context.ipam.get(network.record.config.ipam.driver)
  const { 4: four } = record.addresses
  const wanted = record.config.mac !== undefined || record.mac !== random || capabilities.requiresMac
  if (network.implementation.macFromAddress && four && !wanted) record.mac = macOf(addressOf(four.address))
}

async function allocateAddress(
  context: Context,
  network: Network,
  record: EndpointRecord,
  family: Family,
  wanted: string | undefined,
  undo: Undo,
): Promise<void> {
  const { capabilities } = await context.ipam.get(network.record.config.ipam.driver)
  const answer = await claimAddress(
    context,
    network,
    family,
    {
      address: wanted,
      owner: record.id,
      purpose: 'endpoint',
      // a random one is only for a driver that needs a MAC: else it would replace the one that a sticky name has
      mac: record.config.mac ?? (capabilities.requiresMac ? record.mac : undefined),
      name: record.name,
      link: network.link,
    },
    undo,
  )
  if (!answer) return
  const { address, poolId, settings, state } = answer
  record.addresses[family] = { address, poolId, ...(settings && { settings }), ...(state && { state }) }
  if (answer.mac && !record.config.mac) record.mac = answer.mac
}

/** A driver may add what the core left open, and nothing else. */
function fillIn(network: Network, record: EndpointRecord, { mac, ipv4, ipv6, data }: EndpointAnswer): void {
  const contradicts =
    (mac !== undefined && record.config.mac !== undefined && mac !== record.config.mac) ||
    (ipv4 !== undefined && record.addresses[4] !== undefined) ||
    (ipv6 !== undefined && record.addresses[6] !== undefined)
  if (contradicts)
    throw new CnmError(
      'ERR_PLUGIN',
      `driver ${network.driver} answered with an address or MAC for ${record.name} that was given already`,
    )
  if (mac) record.mac = mac
  if (ipv4) record.addresses[4] = { address: ipv4, poolId: '' }
  if (ipv6) record.addresses[6] = { address: ipv6, poolId: '' }
  record.data = data
}

function checkLinkLocal(addresses: string[]): void {
  for (const address of addresses)
    if (!['169.254.0.0/16', 'fe80::/64'].some(subnet => contains(parseCidr(subnet), parseIp(address))))
      throw new CnmError(
        'ERR_INVALID_ADDRESS',
        `${address} is not a link-local address (169.254.0.0/16 or fe80::/64)`,
        { address },
      )
}

/** Ports of mode `host` are published with each task. */
export const portsOnHost = ({ ports }: ServiceRecord): PortBinding[] =>
  ports
    .filter(({ mode, publishedPort }) => mode === 'host' && publishedPort !== undefined)
    .map(({ targetPort, publishedPort, protocol }) => ({
      containerPort: targetPort,
      hostPort: publishedPort,
      protocol,
    }))
