/**
 * The flags of an endpoint's port of a bridge, as things are now. On a network with icc off the ports are isolated from one
 * another, and the rules say the same again. But where br_netfilter hands bridged packets to the firewall, what that
 * translates stays on the bridge: it may have to leave by the port it came in by (hairpin), and isolated ports would keep
 * neighbours from a published port that everybody else reaches. So there a port with something published behind it is not
 * isolated; that nothing but the published gets through is up to the rules, as it always is with Docker.
 */
import { familyOf } from '../base/cidr'
import type { Endpoint } from '../endpoint'
import type { Change, Stack } from '../kernel/kernel'
import type { Context } from './context'
import type { JoinRecord } from './records'

export type PortChange = Extract<Change, { op: 'setPort' }>

const BRIDGED = ['net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables']

export function portFlags(
  { firewall, host }: Pick<Context, 'firewall' | 'host'>,
  { network, record }: Endpoint,
  join: JoinRecord | undefined = record.join,
): PortChange[] {
  const { plan, interface: { source, arrives } = {} } = join?.attachment ?? {}
  const wanted = (plan?.changes ?? []).filter((change): change is PortChange => change.op === 'setPort')
  const { firewall: wall, modes } = network.record.state
  const translated = (join?.published ?? []).some(
    ({ proxied, containerIp }) => !proxied && modes?.[familyOf(containerIp)] !== 'routed',
  )
  if (!wall || !translated || arrives !== 'born' || source === undefined || firewall.backend === 'none')
    return wanted
  const filtered = BRIDGED.map(key => isOn(host, key))
  if (!filtered.includes(true)) return wanted
  const own = wanted.find(({ link }) => link === source) ?? { op: 'setPort', link: source }
  const isolated = own.isolated && filtered.includes(false)
  return [
    ...wanted.filter(change => change !== own),
    { ...own, hairpin: true, ...(own.isolated !== undefined && { isolated }) },
  ]
}

/** What leads from one to the other: a port of which nothing is asked any more need not turn packets round. */
export const flagsFrom = (before: PortChange[], after: PortChange[]): PortChange[] =>
  after.length ? after : before.map(({ op, link }) => ({ op, link, hairpin: false }))

const isOn = (host: Stack, key: string): boolean => host.sysctl(key)?.trim() === '1'
