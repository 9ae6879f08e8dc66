/** What a network's configuration says, and what it may not. Pure. */
import { parseBoolean } from '../base/booleans'
import { CnmError } from '../base/errors'
import type { Driver } from '../driver/contract'
import type { NetworkOptions } from '../options'
import { familyOfConfig, wantsFamily } from './addresses'

/** An existing bridge that a network is to adopt, or the parent of its interfaces: it has its routes already. */
export const namedLinks = (driverOptions: unknown): string[] => {
  const { name, parent } = driverOptions as { name?: unknown; parent?: unknown }
  return [name, parent].filter(link => typeof link === 'string')
}

/** What may not be combined (reference: libnetwork's validateConfiguration). */
export function refuseCombinations(config: NetworkOptions): void {
  const refuse = (message: string) => new CnmError('ERR_INVALID_CONFIG', message, { name: config.name })
  if (config.configOnly) {
    if (config.configFrom)
      throw refuse('a configuration network cannot depend on another configuration network')
    for (const field of ['ingress', 'internal', 'attachable'] as const)
      if (config[field])
        throw refuse(`configuration network can only contain network specific fields; ${field} is none`)
    if (config.scope)
      throw refuse('configuration network can only contain network specific fields; scope is none')
  }
  if (config.configFrom) {
    const own = [
      config.ipam.driver !== 'default' && 'ipam.driver',
      config.ipam.config.length && 'ipam.config',
      Object.keys(config.ipam.options ?? {}).length && 'ipam.options',
      config.ipv4 !== undefined && 'ipv4',
      config.ipv6 !== undefined && 'ipv6',
      Object.keys(config.labels).length && 'labels',
      Object.keys(config.options).length && 'options',
    ].filter(Boolean)
    if (own.length)
      throw refuse(
        `user specified configurations are not supported if the network depends on a configuration network: ${own.join(', ')}`,
      )
  }
}

export function scopeOf(config: NetworkOptions, driver: Driver): string {
  const { dataScope } = driver.capabilities
  if (config.configOnly) return 'local'
  if (config.scope === 'local' && dataScope === 'global')
    throw new CnmError('ERR_SCOPE', `cannot downgrade network scope for ${driver.name} networks`, {
      driver: driver.name,
    })
  if (config.ingress && dataScope !== 'global')
    throw new CnmError(
      'ERR_SCOPE',
      `ingress network can only be global scope network, and ${driver.name} is local`,
      { driver: driver.name },
    )
  return config.scope ?? dataScope
}

/** A subnet of a family that is switched off would be dropped without a word. */
export function refuseUnusedSubnets(
  config: NetworkOptions,
  families: { ipv4: boolean; ipv6: boolean },
): void {
  for (const family of [4, 6] as const) {
    if (families[`ipv${family}`]) continue
    const unused = config.ipam.config.filter(entry => familyOfConfig(entry) === family)
    if (unused.length === 0) continue
    const text = unused.map(({ subnet, gateway }) => subnet ?? gateway ?? 'an empty entry').join(', ')
    throw new CnmError(
      'ERR_INVALID_CONFIG',
      `network ${config.name} has IPv${family} off, but ipam.config has ${text}; set ipv${family}: true, or leave it out`,
      { name: config.name, family, unused },
    )
  }
}

/** IPv4 unless told otherwise; IPv6 when told so, or when a subnet of it is configured. Docker's labels count where the fields are unset. */
export function takeFamilies(config: NetworkOptions): { ipv4: boolean; ipv6: boolean } {
  const label = (family: number) => {
    const key = `com.docker.network.enable_ipv${family}`
    const value = config.options[key]
    return value === undefined ? undefined : parseBoolean(String(value)) === true
  }
  const [four, six] = [label(4), label(6)]
  return { ipv4: config.ipv4 ?? four ?? true, ipv6: config.ipv6 ?? six ?? wantsFamily(config, 6) }
}
