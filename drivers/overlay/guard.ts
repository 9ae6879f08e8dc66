/**
 * Who may send into the tunnels. VXLAN believes whatever comes to its port, so a container could write frames of another
 * network by sending datagrams to a host: those are dropped, whether the host is this one (they do not come from a tunnel's
 * end) or another (they are forwarded, which tunnels never are). Other VXLAN networks on the same port are left alone. Pure.
 */
import type { Network } from './tunnel'
import { dataOf } from './tunnel'

/** Bits from the UDP header on: that is 8 bytes, then come flags and reserved bits, 4 bytes (RFC 7348, 5). */
const VNI = '@th,96,24'

export function guard(table: string, networks: Network[], ends: string[]): string {
  // Made before it is deleted, so that this is no error where there is none.
  const away = `table inet ${table}\ndelete table inet ${table}\n`
  if (networks.length === 0) return away
  const ports = new Map<number, number[]>()
  for (const network of networks) {
    const { port, vni } = dataOf(network)
    ports.set(port, [...(ports.get(port) ?? []), vni])
  }
  const ours = [...ports].map(([port, vnis]) => `udp dport ${port} ${VNI} { ${vnis.join(', ')} }`)
  const set = (name: string, type: string, elements: string[]) =>
    `\tset ${name} {\n\t\ttype ${type}\n${elements.length ? `\t\telements = { ${elements.join(', ')} }\n` : ''}\t}\n`
  const chain = (name: string, hook: string, rules: string[]) =>
    `\tchain ${name} {\n${hook && `\t\ttype filter hook ${hook} priority -1; policy accept;\n`}${rules.map(rule => `\t\t${rule}\n`).join('')}\t}\n`
  return [
    away,
    `table inet ${table} {\n`,
    set(
      'ends4',
      'ipv4_addr',
      ends.filter(end => !end.includes(':')),
    ),
    set(
      'ends6',
      'ipv6_addr',
      ends.filter(end => end.includes(':')),
    ),
    chain('known', '', ['ip saddr @ends4 accept', 'ip6 saddr @ends6 accept', 'drop']),
    chain(
      'input',
      'input',
      ours.map(match => `${match} goto known`),
    ),
    chain(
      'forward',
      'forward',
      ours.flatMap(match => [`${match} ip daddr @ends4 drop`, `${match} ip6 daddr @ends6 drop`]),
    ),
    '}\n',
  ].join('')
}
