/** The chains and their rules, which are the same whatever the networks are. ARCHITECTURE.md walks a packet through them. */
import type { Family } from '../../base/cidr'
import { FAMILIES } from './sets'

const IP: Record<Family, string> = { 4: 'ip', 6: 'ip6' }
const PORT = 'meta l4proto . th dport'

const each = (rule: (f: Family, ip: string) => string | string[]): string[] =>
  FAMILIES.flatMap(f => rule(f, `${IP[f]} daddr`))

/** Chains and their rules as `nft list` prints them (but for names of protocols): what is there is compared as text. */
const CHAINS: { name: string; hook?: string; rules: string[] }[] = [
  {
    name: 'guard',
    hook: 'type filter hook prerouting priority mangle; policy accept;',
    rules: [
      'ct state established,related accept',
      'iifname @links ip daddr 127.0.0.0/8 drop',
      ...each(
        (f, daddr) =>
          `${daddr} . meta nfproto @guarded${f} ${daddr} . iifname != @reach${f} fib daddr type != local drop`,
      ),
    ],
  },
  {
    name: 'prerouting',
    hook: 'type nat hook prerouting priority dstnat; policy accept;',
    rules: ['ip daddr 127.0.0.0/8 return', 'fib daddr type local jump publish'],
  },
  {
    name: 'output',
    hook: 'type nat hook output priority -100; policy accept;',
    rules: ['ip6 daddr ::1 return', 'fib daddr type local jump publish'],
  },
  {
    name: 'forward',
    hook: 'type filter hook forward priority filter; policy accept;',
    rules: [
      'ct state established,related accept',
      'iifname . oifname vmap @within',
      'iifname vmap @from',
      'meta nfproto . oifname vmap @toward',
    ],
  },
  {
    name: 'postrouting',
    hook: 'type nat hook postrouting priority srcnat; policy accept;',
    rules: [
      'ct status dnat iifname . oifname @same masquerade',
      'iifname . oifname @same return',
      // Bridged by br_netfilter after translation: no input interface is known here, only where the source is at home.
      ...FAMILIES.map(f => `ct status dnat ${IP[f]} saddr . oifname @home${f} masquerade`),
      'oifname @links ip saddr 127.0.0.0/8 masquerade',
      'meta nfproto . iifname @masqueraded masquerade',
      ...FAMILIES.map(f => `snat ${IP[f]} to iifname map @source${f}`),
    ],
  },
  {
    name: 'publish',
    rules: ['meta nfproto vmap { ipv4 : goto publish4, ipv6 : goto publish6 }'],
  },
  ...FAMILIES.map(f => {
    const [daddr, saddr, to] = [`${IP[f]} daddr`, `${IP[f]} saddr`, `dnat ${IP[f]} to`]
    return {
      name: `publish${f}`,
      rules: [
        // Packets with a link-local source cannot be routed back (RFC 4291, 2.5.6).
        ...(f === 6 ? ['ip6 saddr fe80::/10 return'] : []),
        `${PORT} @limited${f} ${PORT} . ${saddr} != @allowed${f} drop`,
        `${daddr} . ${PORT} @limited${f}-at ${daddr} . ${PORT} . ${saddr} != @allowed${f}-at drop`,
        `${to} ${daddr} . ${PORT} map @ports${f}-at`,
        `${to} ${PORT} map @ports${f}`,
        `${to} ${daddr} . ${PORT} map @ranges${f}-at`,
        `${to} ${PORT} map @ranges${f}`,
      ],
    }
  }),
  {
    name: 'apart',
    rules: [
      ...each((f, daddr) => `${IP[f]} saddr . ${daddr} . ${PORT} @linked${f} accept`),
      'ct status dnat goto closed',
      'drop',
    ],
  },
  {
    name: 'routed',
    rules: [
      'meta l4proto { 1, 58 } accept',
      ...each(
        (f, daddr) =>
          `${daddr} . ${PORT} @limited${f}-at ${daddr} . ${PORT} . ${IP[f]} saddr != @allowed${f}-at drop`,
      ),
      'goto closed',
    ],
  },
  {
    name: 'closed',
    rules: [
      ...each((f, daddr) => [
        `${daddr} . ${PORT} @open${f} accept`,
        `${daddr} . ${PORT} @open-ranges${f} accept`,
      ]),
      'drop',
    ],
  },
]

/** Chains that rules jump to must be known before: the listing's order is the order of creation. */
const ORDERED = ['closed', 'routed', 'apart', 'publish4', 'publish6', 'publish'].map(
  name => CHAINS.find(chain => chain.name === name)!,
)
export const CREATED = [...ORDERED, ...CHAINS.filter(chain => !ORDERED.includes(chain))]
