/**
 * Which rules a network, an endpoint, a mapping or a link stands for, in Docker's chains and in the form in which iptables-save
 * prints them, so that what is there can be compared with what should be. An item is a rule: `set` is `FAMILY TABLE CHAIN`,
 * `value` says at which end of the chain it goes. Pure.
 */
import { familyOf, type Family } from '../../base/cidr'
import { checkedCidr, checkedIp, checkedLink, checkedPort, checkedProtocol } from '../check'
import type { FirewallEndpoint, FirewallLink, FirewallNetwork, Mapping, Protocol } from '../contract'
import { inspect, outermost } from '../mapping'
import type { Item, Renderer } from '../model'
import { beside, FAMILIES, head, tail } from './chains'

const ANY: Record<Family, string> = { 4: '0.0.0.0', 6: '::' }
const HOST_BITS: Record<Family, string> = { 4: '/32', 6: '/128' }
const ICMP: Record<Family, string> = { 4: 'icmp', 6: 'ipv6-icmp' }

export function iptablesRenderer(prefix: string): Renderer {
  return {
    network: network => FAMILIES.flatMap(f => networkItems(prefix, network, f)),
    endpoint: endpointItems,
    mapping: (mapping, network) => mappingItems(prefix, mapping, network),
    link: (link, network) => linkItems(prefix, link, network),
  }
}

function networkItems(prefix: string, network: FirewallNetwork, f: Family): Item[] {
  const link = checkedLink(network.link)
  network.trustedLinks.forEach(checkedLink)
  const family = network.families.find(candidate => candidate.family === f)
  const filter = (chain: string) => `${f} filter ${prefix}${chain}`
  const within: Item[] = network.icc
    ? []
    : [
        { set: filter('-FORWARD'), ...tail(`-i ${link} -o ${link} -m conntrack --ctstate DNAT -j ACCEPT`) },
        { set: filter('-FORWARD'), ...tail(`-i ${link} -o ${link} -j DROP`) },
      ]
  if (network.internal || !family || family.mode === 'isolated') {
    const [subnet, more] = family?.subnets ?? []
    // Docker tells inside from outside by the subnet (on IPv6, by the link as well).
    const inside =
      subnet !== undefined && more === undefined && f === 4
        ? [`! -d ${checkedCidr(subnet, f)} -i ${link}`, `! -s ${subnet} -o ${link}`]
        : [`-i ${link} ! -o ${link}`, `! -i ${link} -o ${link}`]
    return [
      ...(beside(prefix) && (network.internal || family)
        ? [{ set: `${f} mangle ${prefix}`, ...tail(`! -i ${link} -o ${link} -j DROP`) }]
        : []),
      ...inside.map(match => ({ set: filter('-INTERNAL'), ...head(`${match} -j DROP`) })),
      ...within.filter(() => network.internal || family !== undefined),
      ...(network.icc && family
        ? [{ set: filter('-FORWARD'), ...tail(`-i ${link} -o ${link} -j ACCEPT`) }]
        : []),
    ]
  }
  const items: Item[] = [
    {
      set: filter('-CT'),
      ...tail(`-o ${link} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`),
    },
    { set: filter('-BRIDGE'), ...tail(`-o ${link} -j ${prefix}`) },
    {
      set: filter(''),
      ...tail(`! -i ${link} -o ${link} -j ${family.mode === 'nat-unprotected' ? 'ACCEPT' : 'DROP'}`),
    },
    ...(family.mode === 'routed' ? [{ set: filter(''), ...head(`-o ${link} -p ${ICMP[f]} -j ACCEPT`) }] : []),
    ...within,
    {
      set: filter(beside(prefix) ? '-OUT' : '-FORWARD'),
      ...tail(`-i ${link}${network.icc ? '' : ` ! -o ${link}`} -j ACCEPT`),
    },
  ]
  if (family.mode === 'routed' && beside(prefix))
    items.push(
      { set: `${f} mangle ${prefix}`, ...head(`-o ${link} -p ${ICMP[f]} -j RETURN`) },
      {
        set: `${f} mangle ${prefix}`,
        ...tail(`! -i ${link} -o ${link} -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP`),
      },
    )
  if (family.mode === 'routed') return items
  const postrouting = `${f} nat POSTROUTING`
  if (f === 4) {
    items.push({ set: `${f} raw PREROUTING`, ...tail(`-d 127.0.0.0/8 -i ${link} -j DROP`) })
    items.push({ set: postrouting, ...tail(`-s 127.0.0.0/8 -o ${link} -j MASQUERADE`) })
  }
  for (const text of family.subnets) {
    const subnet = checkedCidr(text, f)
    if (family.masquerade !== false) {
      const target =
        family.masquerade === true ? 'MASQUERADE' : `SNAT --to-source ${checkedIp(family.masquerade, f)}`
      items.push({ set: postrouting, ...head(`-s ${subnet} ! -o ${link} -j ${target}`) })
    }
    items.push({
      set: postrouting,
      ...tail(`-s ${subnet} -o ${link} -m conntrack --ctstate DNAT -j MASQUERADE`),
    })
  }
  return items
}

function endpointItems(endpoint: FirewallEndpoint, network: FirewallNetwork): Item[] {
  if (network.internal) return []
  const link = checkedLink(network.link)
  return endpoint.addresses.flatMap(address => {
    const f = familyOf(address)
    const family = network.families.find(candidate => candidate.family === f)
    if (family?.mode !== 'nat') return []
    const to = `-d ${checkedIp(address, f)}${HOST_BITS[f]}`
    // Without masquerading answers come to the container's own address; connections must be known to let them pass.
    const [set, fresh] =
      family.masquerade === false
        ? [`${f} mangle PREROUTING`, '-m conntrack --ctstate NEW ']
        : [`${f} raw PREROUTING`, '']
    return [
      ...network.trustedLinks.map(trusted => ({
        set,
        ...tail(`${to} -i ${checkedLink(trusted)} -j ACCEPT`),
      })),
      { set, ...tail(`${to} ! -i ${link} ${fresh}-j DROP`) },
    ]
  })
}

function mappingItems(prefix: string, mapping: Mapping, network: FirewallNetwork): Item[] {
  const f = familyOf(mapping.containerIp)
  const { mode, size } = inspect(mapping, network)
  const link = checkedLink(network.link)
  const container = checkedIp(mapping.containerIp, f)
  const sources = mapping.allowFrom && outermost(mapping.allowFrom.map(text => checkedCidr(text, f)))
  const from = sources?.map(text => `-s ${text.includes('/') ? text : text + HOST_BITS[f]} `)
  const open = transport(mapping.protocol, mapping.containerPort, size)
  const opened = (source: string, table = 'filter', target = 'ACCEPT'): Item => ({
    set: `${f} ${table} ${prefix}`,
    ...head(`${source}-d ${container}${HOST_BITS[f]} ! -i ${link} -o ${link} ${open} -j ${target}`),
  })
  if (mode === 'routed')
    return (from ?? ['']).flatMap(source => [
      opened(source),
      ...(beside(prefix) ? [opened(source, 'mangle', 'RETURN')] : []),
    ])
  const hostIp = checkedIp(mapping.hostIp, f)
  const at = hostIp === ANY[f] ? '' : `-d ${hostIp}${HOST_BITS[f]} `
  const bracketed = f === 6 ? `[${container}]` : container
  const to =
    size === 1
      ? `${bracketed}:${mapping.containerPort}`
      : mapping.hostPort === mapping.containerPort
        ? container
        : `${bracketed}:${mapping.containerPort}-${mapping.containerPort + size - 1}/${mapping.hostPort}`
  // Packets with a link-local source cannot be routed back.
  const anyone = f === 6 ? ['! -s fe80::/10 '] : ['']
  return [
    ...(mode === 'nat' ? [opened('')] : []),
    ...(from ?? anyone).map(source => ({
      set: `${f} nat ${prefix}`,
      ...tail(
        `${source}${at}${transport(mapping.protocol, mapping.hostPort, size)} -j DNAT --to-destination ${to}`,
      ),
    })),
  ]
}

function linkItems(prefix: string, link: FirewallLink, network: FirewallNetwork): Item[] {
  const f = familyOf(link.from)
  const bridge = checkedLink(network.link)
  const match = `-s ${checkedIp(link.from, f)}${HOST_BITS[f]} -d ${checkedIp(link.to, f)}${HOST_BITS[f]} -i ${bridge} -o ${bridge}`
  return link.ports.map(({ protocol, port }) => ({
    set: `${f} filter ${prefix}`,
    ...head(`${match} ${transport(protocol, checkedPort(port), 1)} -j ACCEPT`),
  }))
}

function transport(protocol: Protocol, port: number, size: number): string {
  const name = checkedProtocol(protocol)
  const ports = size === 1 ? checkedPort(port) : `${checkedPort(port)}:${checkedPort(port + size - 1)}`
  return `-p ${name} -m ${name} --dport ${ports}`
}
