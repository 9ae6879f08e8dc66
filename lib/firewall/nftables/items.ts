/** Which elements a network, an endpoint, a mapping or a link stands for. */
import { familyOf, type Family } from '../../base/cidr'
import { checkedCidr, checkedIp, checkedLink, checkedPort, checkedProtocol } from '../check'
import type { FirewallEndpoint, FirewallLink, FirewallNetwork, Mapping } from '../contract'
import { inspect, outermost } from '../mapping'
import type { Item, Renderer } from '../model'
import { PROTOCOL } from './protocols'
import { FAMILIES } from './sets'

/**
 * Ports. Larger ranges whose host and container ports are the same become one element of an interval map, whose updates
 * slow down with the number of its elements; smaller ones become elements of the hash map, whose updates do not.
 * (An interval cannot shift ports, so ranges that do are always written out.)
 */
const INTERVAL_FROM = 33

const PROTO: Record<Family, string> = { 4: 'ipv4', 6: 'ipv6' }
const ANY: Record<Family, string> = { 4: '0.0.0.0', 6: '::' }

/** What a network, an endpoint, a mapping puts into the maps. */
export const nftRenderer: Renderer = {
  network(network: FirewallNetwork): Item[] {
    const link = quoted(network.link)
    network.trustedLinks.forEach(checkedLink)
    const items: Item[] = [
      { set: 'links', key: link },
      { set: 'same', key: `${link} . ${link}` },
      { set: 'within', key: `${link} . ${link}`, value: network.icc ? 'accept' : 'goto apart' },
    ]
    if (network.internal) items.push({ set: 'from', key: link, value: 'drop' })
    for (const f of FAMILIES) {
      const family = network.families.find(candidate => candidate.family === f)
      const mode = network.internal ? 'isolated' : family?.mode
      const verdict =
        mode === 'nat'
          ? 'goto closed'
          : mode === 'routed'
            ? 'goto routed'
            : mode === 'nat-unprotected'
              ? 'accept'
              : 'drop'
      items.push({ set: 'toward', key: `${PROTO[f]} . ${link}`, value: verdict })
      if (!family || (mode !== 'nat' && mode !== 'nat-unprotected')) continue
      // By subnet, not by endpoint: so an endpoint that publishes nothing costs no transaction.
      for (const subnet of family.subnets.map(text => checkedCidr(text, f))) {
        items.push({ set: `home${f}`, key: `${subnet} . ${link}` })
        if (mode === 'nat') {
          items.push({ set: `guarded${f}`, key: `${subnet} . ${PROTO[f]}` })
          for (const inward of [network.link, ...network.trustedLinks])
            items.push({ set: `reach${f}`, key: `${subnet} . ${quoted(inward)}` })
        }
      }
      if (family.masquerade === true) items.push({ set: 'masqueraded', key: `${PROTO[f]} . ${link}` })
      else if (family.masquerade !== false)
        items.push({ set: `source${f}`, key: link, value: checkedIp(family.masquerade, f) })
    }
    return items
  },

  /** Checked, but nothing: the network guards its whole subnets. */
  endpoint(endpoint: FirewallEndpoint): Item[] {
    for (const address of endpoint.addresses) checkedIp(address, familyOf(address))
    return []
  },

  mapping(mapping: Mapping, network: FirewallNetwork): Item[] {
    const f = familyOf(mapping.containerIp)
    const { mode, size } = inspect(mapping, network)
    const container = checkedIp(mapping.containerIp, f)
    const protocol = PROTOCOL[checkedProtocol(mapping.protocol)]
    const items: Item[] = []
    if (size >= INTERVAL_FROM) {
      const span = { from: mapping.containerPort, to: mapping.containerPort + size - 1 }
      items.push({ set: `open-ranges${f}`, key: `${container} . ${protocol}`, span })
    } else
      for (let i = 0; i < size; i++)
        items.push({ set: `open${f}`, key: `${container} . ${protocol} . ${mapping.containerPort + i}` })

    const hostIp = checkedIp(mapping.hostIp, f)
    const at = mode === 'routed' ? container : hostIp === ANY[f] ? undefined : hostIp
    const first = mode === 'routed' ? mapping.containerPort : mapping.hostPort
    const [suffix, prefix] = at === undefined ? ['', ''] : ['-at', `${at} . `]
    const ports = `${prefix}${protocol} . ${size === 1 ? first : `${first}-${first + size - 1}`}`
    if (mapping.allowFrom) {
      items.push({ set: `limited${f}${suffix}`, key: ports })
      for (const cidr of outermost(mapping.allowFrom.map(text => checkedCidr(text, f))))
        items.push({ set: `allowed${f}${suffix}`, key: `${ports} . ${cidr}` })
    }
    if (mode === 'routed') return items
    if (size >= INTERVAL_FROM && mapping.hostPort === mapping.containerPort)
      items.push({ set: `ranges${f}${suffix}`, key: ports, value: container })
    else
      for (let i = 0; i < size; i++)
        items.push({
          set: `ports${f}${suffix}`,
          key: `${prefix}${protocol} . ${first + i}`,
          value: `${container} . ${mapping.containerPort + i}`,
        })
    return items
  },

  link(link: FirewallLink): Item[] {
    const f = familyOf(link.from)
    const pair = `${checkedIp(link.from, f)} . ${checkedIp(link.to, f)}`
    return link.ports.map(({ protocol, port }) => ({
      set: `linked${f}`,
      key: `${pair} . ${PROTOCOL[checkedProtocol(protocol)]} . ${checkedPort(port)}`,
    }))
  },
}

const quoted = (name: string): string => `"${checkedLink(name)}"`
