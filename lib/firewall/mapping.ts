/** What both backends make of a published port before they render it. Pure. */
import { contains, familyOf, parseCidr } from '../base/cidr'
import { CnmError } from '../base/errors'
import { checkedPort } from './check'
import type { FirewallNetwork, Mapping } from './contract'

/** The mode of a mapping's family and the number of its ports; throws if it cannot be. Both backends use it. */
export function inspect(mapping: Mapping, network: FirewallNetwork): { mode: string; size: number } {
  const f = familyOf(mapping.containerIp)
  const mode = network.families.find(family => family.family === f)?.mode
  if (network.internal || mode === undefined || mode === 'isolated')
    throw new CnmError(
      'ERR_INVALID_PORT',
      `network ${network.id} is internal or has no IPv${f}: port ${mapping.containerPort}/${mapping.protocol} cannot be published`,
      { networkId: network.id, mapping },
    )
  const size = mapping.hostPortEnd - mapping.hostPort + 1
  const last = mapping.containerPort + size - 1
  checkedPort(mapping.containerPort)
  if (size >= 1) checkedPort(last)
  if (mode !== 'routed') {
    checkedPort(mapping.hostPort)
    checkedPort(mapping.hostPortEnd)
  }
  if (size < 1)
    throw new CnmError(
      'ERR_INTERNAL',
      `the range ${mapping.hostPort}-${mapping.hostPortEnd} runs backwards`,
      { mapping },
    )
  return { mode, size }
}

/** The subnets that no other one of them contains: the kernel refuses overlapping intervals. Canonical, without /32 and /128. */
export function outermost(cidrs: string[]): string[] {
  const parsed = [...new Set(cidrs)].map(text => ({ text, cidr: parseCidr(text) }))
  return parsed
    .filter(({ cidr }) => !parsed.some(other => other.cidr !== cidr && contains(other.cidr, cidr)))
    .map(({ text }) => text.replace(/^([^:]*)\/32$|^(.*:.*)\/128$/, '$1$2'))
}
