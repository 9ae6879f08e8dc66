/** The sets and maps of the table: all that is per network, endpoint or port is an element of one of them. */
import type { Family } from '../../base/cidr'

export const FAMILIES = [4, 6] as const
const ADDR: Record<Family, string> = { 4: 'ipv4_addr', 6: 'ipv6_addr' }

/** The sets and maps, in the order of the listing: name → type, and whether its keys are intervals. */
export const SETS: { name: string; kind: 'set' | 'map'; type: string; interval?: boolean }[] = [
  { name: 'links', kind: 'set', type: 'ifname' },
  { name: 'same', kind: 'set', type: 'ifname . ifname' },
  { name: 'within', kind: 'map', type: 'ifname . ifname : verdict' },
  { name: 'from', kind: 'map', type: 'ifname : verdict' },
  { name: 'toward', kind: 'map', type: 'nf_proto . ifname : verdict' },
  { name: 'masqueraded', kind: 'set', type: 'nf_proto . ifname' },
  ...FAMILIES.flatMap(f => {
    const ip = ADDR[f]
    return [
      // The family in the key says nothing new, but makes it a concatenation: libnftables reads all elements of all
      // plain interval sets of a table before each change, and 1,000 networks would cost every one of them 2 ms.
      { name: `guarded${f}`, kind: 'set' as const, type: `${ip} . nf_proto`, interval: true },
      { name: `reach${f}`, kind: 'set' as const, type: `${ip} . ifname`, interval: true },
      { name: `home${f}`, kind: 'set' as const, type: `${ip} . ifname`, interval: true },
      { name: `source${f}`, kind: 'map' as const, type: `ifname : ${ip}` },
      { name: `ports${f}`, kind: 'map' as const, type: `inet_proto . inet_service : ${ip} . inet_service` },
      {
        name: `ports${f}-at`,
        kind: 'map' as const,
        type: `${ip} . inet_proto . inet_service : ${ip} . inet_service`,
      },
      { name: `ranges${f}`, kind: 'map' as const, type: `inet_proto . inet_service : ${ip}`, interval: true },
      {
        name: `ranges${f}-at`,
        kind: 'map' as const,
        type: `${ip} . inet_proto . inet_service : ${ip}`,
        interval: true,
      },
      { name: `limited${f}`, kind: 'set' as const, type: 'inet_proto . inet_service', interval: true },
      {
        name: `limited${f}-at`,
        kind: 'set' as const,
        type: `${ip} . inet_proto . inet_service`,
        interval: true,
      },
      {
        name: `allowed${f}`,
        kind: 'set' as const,
        type: `inet_proto . inet_service . ${ip}`,
        interval: true,
      },
      {
        name: `allowed${f}-at`,
        kind: 'set' as const,
        type: `${ip} . inet_proto . inet_service . ${ip}`,
        interval: true,
      },
      { name: `open${f}`, kind: 'set' as const, type: `${ip} . inet_proto . inet_service` },
      {
        name: `open-ranges${f}`,
        kind: 'set' as const,
        type: `${ip} . inet_proto . inet_service`,
        interval: true,
      },
      { name: `linked${f}`, kind: 'set' as const, type: `${ip} . ${ip} . inet_proto . inet_service` },
    ]
  }),
]
