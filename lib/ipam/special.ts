/** Blocks that no interface of a container can have its subnet in, by the IANA special-purpose address registries. */
import { type Cidr, formatCidr, overlaps, parseCidr } from '../base/cidr'

const BLOCKS: readonly (readonly [Cidr, string])[] = (
  [
    ['0.0.0.0/8', 'it means "this host"'],
    ['127.0.0.0/8', 'loopback'],
    ['224.0.0.0/4', 'multicast'],
    ['::1/128', 'loopback'],
    ['::ffff:0:0/96', 'IPv4-mapped'],
    ['fe80::/10', 'link-local: every interface has that subnet already'],
    ['ff00::/8', 'multicast'],
  ] as const
).map(([text, why]) => [parseCidr(text), why] as const)

/** The block that makes the subnet unusable, and why, for people; undefined for one that may be used. */
export function unusable(subnet: Cidr): { block: string; why: string } | undefined {
  const found = BLOCKS.find(([block]) => overlaps(block, subnet))
  if (found === undefined) return undefined
  const block = formatCidr(found[0])
  return { block, why: `because of ${block}: ${found[1]}` }
}
