/**
 * Who may send into the tunnels, and what may leave by them. VXLAN believes whatever comes to its port, so a container could
 * write frames of another network by sending datagrams to a host: those are dropped, whether the host is this one (they do
 * not come from a tunnel's end) or another (they are forwarded, which tunnels never are). Of encrypted networks nothing is
 * taken in that did not come by our IPsec, and nothing goes out that IPsec does not take. Other VXLAN networks on the same
 * port are left alone. Pure.
 */
import type { Network } from './tunnel'
import { dataOf } from './tunnel'

/** Bits from the UDP header on: that is 8 bytes, then come flags and reserved bits, 4 bytes (RFC 7348, 5). */
const VNI = '@th,96,24'

/** One match for each port, of the networks that it is true for. */
function matches(networks: Network[], is: (network: Network) => boolean = () => true): string[] {
  const ports = new Map<number, number[]>()
  for (const network of networks.filter(is)) {
    const { port, vni } = dataOf(network)
    ports.set(port, [...(ports.get(port) ?? []), vni])
  }
  return [...ports].map(([port, vnis]) => `udp dport ${port} ${VNI} { ${vnis.join(', ')} }`)
}

export function guard(table: string, networks: Network[], ends: string[], mark: number): string {
  // Made before it is deleted, so that this is no error where there is none.
  const away = `table inet ${table}\ndelete table inet ${table}\n`
  if (networks.length === 0) return away
  const ours = matches(networks)
  const encrypted = ({ spec }: Network) => spec.options.encrypted
  const secret = matches(networks, encrypted)
  // Only those that IPsec is needed for here: the kernel may have none.
  const here = matches(networks, network => encrypted(network) && network.state.link !== undefined)
  return [
    away,
    `table inet ${table} {\n`,
    set('ends4', 'ipv4_addr', ends, 4),
    set('ends6', 'ipv6_addr', ends, 6),
    chain('known', '', ['ip saddr @ends4 accept', 'ip6 saddr @ends6 accept', 'drop']),
    chain('input', 'filter hook input priority -1', [
      ...here.map(match => `${match} ipsec in reqid ${mark} goto known`),
      ...secret.map(match => `${match} drop`),
      ...ours.map(match => `${match} goto known`),
    ]),
    chain(
      'forward',
      'filter hook forward priority -1',
      ours.flatMap(match => [`${match} ip daddr @ends4 drop`, `${match} ip6 daddr @ends6 drop`]),
    ),
    ...(here.length
      ? [
          chain(
            'marked',
            'route hook output priority mangle',
            here.map(match => `${match} meta mark set ${mark}`),
          ),
          chain(
            'sent',
            'filter hook postrouting priority srcnat',
            here.map(match => `${match} rt ipsec missing drop`),
          ),
        ]
      : []),
    '}\n',
  ].join('')
}

function set(name: string, type: string, ends: string[], family: 4 | 6): string {
  const elements = ends.filter(end => end.includes(':') === (family === 6))
  return `\tset ${name} {\n\t\ttype ${type}\n${elements.length ? `\t\telements = { ${elements.join(', ')} }\n` : ''}\t}\n`
}

const chain = (name: string, hook: string, rules: string[]): string =>
  `\tchain ${name} {\n${hook && `\t\ttype ${hook}; policy accept;\n`}${rules.map(rule => `\t\t${rule}\n`).join('')}\t}\n`
