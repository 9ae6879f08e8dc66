import { refuse } from './refusal'
import type { Machine, Netns } from './state'

/** Values of a fresh interface, as Linux 6.18 gives them. */
const CONF: Record<string, Record<string, string>> = {
  ipv4: {
    accept_local: '0',
    accept_redirects: '1',
    accept_source_route: '1',
    arp_accept: '0',
    arp_announce: '0',
    arp_filter: '0',
    arp_ignore: '0',
    arp_notify: '0',
    disable_policy: '0',
    disable_xfrm: '0',
    drop_gratuitous_arp: '0',
    forwarding: '0',
    ignore_routes_with_linkdown: '0',
    log_martians: '0',
    promote_secondaries: '0',
    proxy_arp: '0',
    proxy_arp_pvlan: '0',
    route_localnet: '0',
    rp_filter: '0',
    secure_redirects: '1',
    send_redirects: '1',
    shared_media: '1',
    src_valid_mark: '0',
  },
  ipv6: {
    accept_dad: '1',
    accept_ra: '1',
    accept_ra_defrtr: '1',
    accept_redirects: '1',
    accept_source_route: '0',
    addr_gen_mode: '0',
    autoconf: '1',
    dad_transmits: '1',
    disable_ipv6: '0',
    enhanced_dad: '1',
    forwarding: '0',
    hop_limit: '64',
    keep_addr_on_down: '0',
    optimistic_dad: '0',
    proxy_ndp: '0',
    router_solicitations: '-1',
    use_tempaddr: '0',
  },
}

const NEIGH: Record<string, string> = {
  base_reachable_time_ms: '30000',
  delay_first_probe_time: '5',
  gc_stale_time: '60',
  mcast_solicit: '3',
  proxy_delay: '80',
  retrans_time_ms: '1000',
  ucast_solicit: '3',
}

const GLOBAL: Record<string, string> = {
  'net/core/somaxconn': '4096',
  'net/ipv4/icmp_echo_ignore_all': '0',
  'net/ipv4/icmp_echo_ignore_broadcasts': '1',
  'net/ipv4/ip_default_ttl': '64',
  'net/ipv4/ip_forward': '0',
  'net/ipv4/ip_local_port_range': '32768\t60999',
  'net/ipv4/ip_local_reserved_ports': '',
  'net/ipv4/ip_nonlocal_bind': '0',
  'net/ipv4/ip_unprivileged_port_start': '1024',
  'net/ipv4/ping_group_range': '1\t0',
  'net/ipv4/tcp_syncookies': '1',
  'net/ipv6/bindv6only': '0',
  'net/ipv6/ip_nonlocal_bind': '0',
  'net/netfilter/nf_conntrack_acct': '0',
  'net/netfilter/nf_conntrack_max': '262144',
  'net/netfilter/nf_conntrack_tcp_be_liberal': '0',
  'net/netfilter/nf_conntrack_tcp_timeout_established': '432000',
  'net/netfilter/nf_conntrack_udp_timeout': '30',
  'net/netfilter/nf_conntrack_udp_timeout_stream': '120',
}

const BRIDGE_NF: Record<string, string> = {
  'net/bridge/bridge-nf-call-arptables': '1',
  'net/bridge/bridge-nf-call-ip6tables': '1',
  'net/bridge/bridge-nf-call-iptables': '1',
  'net/bridge/bridge-nf-filter-pppoe-tagged': '0',
  'net/bridge/bridge-nf-filter-vlan-tagged': '0',
  'net/bridge/bridge-nf-pass-vlan-input-dev': '0',
}

const TEXTUAL = new Set([
  'net/ipv4/ip_local_reserved_ports',
  'net/ipv4/ip_local_port_range',
  'net/ipv4/ping_group_range',
])

/** The value that a fresh namespace has; undefined for a key that does not exist. */
export function defaultSysctl(machine: Machine, netns: Netns, key: string): string | undefined {
  const global = GLOBAL[key] ?? (machine.lacks.has('br_netfilter') ? undefined : BRIDGE_NF[key])
  if (global !== undefined) return global
  const [net, family = '', tree, name = '', leaf = '', ...rest] = key.split('/')
  if (net !== 'net' || rest.length > 0 || (family !== 'ipv4' && family !== 'ipv6')) return undefined
  if (machine.lacks.has('ipv6') && family === 'ipv6') return undefined
  if (tree !== 'conf' && tree !== 'neigh') return undefined
  const special = name === 'default' || (name === 'all' && tree === 'conf')
  if (!special && !netns.names.has(name)) return undefined
  if (tree === 'neigh') return NEIGH[leaf]
  if (leaf === 'mtu' && family === 'ipv6') return String(netns.names.get(name)?.mtu ?? 1280)
  if (leaf === 'accept_source_route' && name === 'all') return '0'
  if (leaf === 'accept_dad' && name === 'all') return '0'
  if (leaf === 'accept_dad' && name === 'lo') return '-1'
  return CONF[family]?.[leaf]
}

export const readSysctl = (machine: Machine, netns: Netns, key: string): string | undefined =>
  netns.sysctls.get(key) ?? defaultSysctl(machine, netns, key)

/** A link that appears takes the values of `default`; its keys vanish and move with it. */
export function inheritSysctls(netns: Netns, name: string): void {
  for (const family of ['ipv4', 'ipv6'])
    for (const [key, value] of [...netns.sysctls]) {
      const prefix = `net/${family}/conf/default/`
      if (key.startsWith(prefix))
        netns.sysctls.set(`net/${family}/conf/${name}/${key.slice(prefix.length)}`, value)
    }
}

const treesOf = (name: string) => [
  `net/ipv4/conf/${name}/`,
  `net/ipv6/conf/${name}/`,
  `net/ipv4/neigh/${name}/`,
  `net/ipv6/neigh/${name}/`,
]

/** Forgets (or, with `to`, renames) the keys of a link that goes away. */
export function dropSysctls(netns: Netns, name: string, to?: string): void {
  if (netns.sysctls.size === 0) return
  for (const prefix of treesOf(name))
    for (const [key, value] of [...netns.sysctls]) {
      if (!key.startsWith(prefix)) continue
      netns.sysctls.delete(key)
      if (to !== undefined)
        netns.sysctls.set(prefix.replace(`/${name}/`, `/${to}/`) + key.slice(prefix.length), value)
    }
}

/** Writes one key; returns the interfaces whose `disable_ipv6` or `addr_gen_mode` changed by it. */
export function writeSysctl(machine: Machine, netns: Netns, key: string, value: string): string[] {
  const before = readSysctl(machine, netns, key)
  if (before === undefined) refuse('ENOENT')
  if (!TEXTUAL.has(key) && !/^\s*-?(0x[0-9a-f]+|\d+)\s*$/i.test(value)) refuse('EINVAL')
  const clean = TEXTUAL.has(key) ? value.trim() : value.trim()
  const set = (k: string) => {
    if (defaultSysctl(machine, netns, k) === clean) netns.sysctls.delete(k)
    else netns.sysctls.set(k, clean)
  }
  set(key)
  const names = [...netns.names.keys()]
  if (key === 'net/ipv4/ip_forward' || key === 'net/ipv4/conf/all/forwarding') {
    set('net/ipv4/ip_forward')
    for (const name of ['all', 'default', ...names]) set(`net/ipv4/conf/${name}/forwarding`)
  } else if (key === 'net/ipv6/conf/all/forwarding') {
    for (const name of ['default', ...names]) set(`net/ipv6/conf/${name}/forwarding`)
  } else if (key === 'net/ipv6/conf/all/disable_ipv6') {
    for (const name of ['default', ...names]) set(`net/ipv6/conf/${name}/disable_ipv6`)
    return names
  } else {
    const match = /^net\/ipv6\/conf\/([^/]+)\/disable_ipv6$/.exec(key)
    if (match?.[1] && netns.names.has(match[1]) && before !== clean) return [match[1]]
  }
  return []
}
