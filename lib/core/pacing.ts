/** The rates of an endpoint as the kernel keeps them: token buckets on links. Pure. */
import { CnmError } from '../base/errors'
import type { Endpoint } from '../endpoint'
import type { Change, Shaper } from '../kernel/kernel'
import type { JoinRecord } from './records'

/** Bits per second; null: none (any more). What is absent is left as it is, since a bucket there is somebody else's. */
export type Limits = Endpoint['record']['config']['bandwidth']

/** One token bucket, on what leaves a link. */
export interface Pacing {
  way: 'ingress' | 'egress'
  where: 'host' | 'sandbox'
  link: string
  limit: number | null
  /** The interface whose incoming packets take the way over `link`, which is an ifb that is made for that. */
  entering?: string
}

/**
 * What leaves the host's end of a pair is what the container receives; what leaves the inner end is what it sends. A macvlan,
 * an ipvlan and what was moved in have no end on the host: what they receive leaves an ifb inside first.
 */
export function pacingsOf(
  endpoint: Endpoint,
  limits = endpoint.record.config.bandwidth,
  { attachment, interfaceName = '' }: Partial<JoinRecord> = endpoint.record.join ?? {},
): Pacing[] {
  const { source, arrives } = attachment?.interface ?? {}
  const { ingress, egress } = limits
  if (!arrives) return []
  const pacings: Pacing[] = []
  if (ingress !== undefined)
    pacings.push(
      arrives === 'born' && source !== undefined
        ? { way: 'ingress', where: 'host', link: source, limit: ingress }
        : {
            way: 'ingress',
            where: 'sandbox',
            link: ifbName(endpoint.id),
            limit: ingress,
            entering: interfaceName,
          },
    )
  if (egress !== undefined)
    pacings.push({ way: 'egress', where: 'sandbox', link: interfaceName, limit: egress })
  return pacings
}

/** 3 characters and 12 digits of the id: IFNAMSIZ. */
const ifbName = (endpointId: string): string => `ifb${endpointId.slice(0, 12)}`

/** The driver knows of interfaces whose packets do not come by where they could be redirected. */
export function refusePacing(endpoint: Endpoint, limits: Limits): void {
  const unpaced = endpoint.record.join?.attachment?.interface?.ingressUnpaced
  if (limits.ingress && unpaced !== undefined)
    throw new CnmError(
      'ERR_UNSUPPORTED',
      `endpoint ${endpoint.name}: ingress of ${limits.ingress} bit/s cannot be kept: ${unpaced}`,
      { endpoint: endpoint.id, network: endpoint.network.name, ingress: limits.ingress },
    )
}

/** `made`: its ifb is there. */
export function pacingChanges({ link, limit, entering }: Pacing, made: boolean): Change[] {
  if (!limit && entering !== undefined)
    return [
      { op: 'setIngressMirror', link: entering, target: null },
      { op: 'removeLink', link, ifExists: true },
    ]
  const shaper: Change = { op: 'setShaper', link, rate: limit ? { bitsPerSecond: limit } : null }
  if (entering === undefined) return [shaper]
  return [
    made
      ? { op: 'setLink', link, up: true }
      : { op: 'addLink', link: { kind: 'ifb', name: link, mac: macOf(link), up: true } },
    shaper,
    { op: 'setIngressMirror', link: entering, target: link },
  ]
}

/** The same whenever it is made anew; locally administered. */
const macOf = (ifb: string): string => ['02', ...(ifb.slice(-10).match(/../g) as string[])].join(':')

/** An ifb speaks to nobody: no address of IPv6, no listener reports. */
export const pacingSysctls = ({ link, limit, entering }: Pacing): Record<string, string> =>
  limit && entering !== undefined ? { [`net/ipv6/conf/${link}/disable_ipv6`]: '1' } : {}

/** How the kernel differs, in words; undefined: it does not. `indexes`: of the links that are there. */
export function pacingProblem(
  { link, limit, entering }: Pacing,
  indexes: ReadonlyMap<string, { index: number; up: boolean }>,
  shapers: readonly Shaper[],
): 'missing' | 'wrong' | 'unwanted' | undefined {
  const [own, interior] = [indexes.get(link), indexes.get(entering ?? '')]
  const of = (index: number | undefined) => shapers.find(each => each.link === index)
  const rate = own && of(own.index)?.bitsPerSecond
  if (!limit) return (entering === undefined ? rate : own) === undefined ? undefined : 'unwanted'
  if (rate === undefined) return 'missing'
  // The kernel counts in bytes.
  if (Math.abs(rate - limit) >= 8) return 'wrong'
  if (entering === undefined) return undefined
  return own?.up && of(interior?.index)?.mirror === own.index ? undefined : 'wrong'
}
