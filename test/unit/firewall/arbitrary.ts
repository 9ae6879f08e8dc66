/** Random histories of a firewall: networks, endpoints and published ports that come and go, several in one change. */
import fc from 'fast-check'
import type {
  FirewallChange,
  FirewallEndpoint,
  FirewallNetwork,
  Mapping,
} from '../../../lib/firewall/contract'

const MODES = ['nat', 'nat', 'nat-unprotected', 'routed'] as const

function networkOf(index: number, variant: number): FirewallNetwork {
  const masquerade = [true, true, false, 'given'][variant % 4]
  return {
    id: `n${index}`,
    link: `br-${index}`,
    internal: variant % 7 === 6,
    icc: variant % 3 !== 0,
    trustedLinks: variant % 5 === 0 ? ['eth1', 'wg0'] : [],
    families: ([4, 6] as const)
      .filter(family => !(family === 6 && variant % 11 === 3))
      .map(family => ({
        family,
        subnets: [family === 4 ? `10.${index}.0.0/16` : `fd00:${index + 1}::/64`],
        gateway: family === 4 ? `10.${index}.0.1` : `fd00:${index + 1}::1`,
        mode: MODES[(variant >> (family === 4 ? 1 : 2)) % 4] ?? 'nat',
        masquerade:
          masquerade === 'given' ? (family === 4 ? '192.0.2.1' : '2001:db8::1') : (masquerade as boolean),
      })),
  }
}

const endpointOf = (index: number): FirewallEndpoint => {
  const n = index % 4
  return {
    id: `e${index}`,
    networkId: `n${n}`,
    addresses: [`10.${n}.1.${index}`, `fd00:${n + 1}::${index + 16}`],
  }
}

function mappingOf(index: number, variant: number): Mapping {
  const e = endpointOf(index % 8)
  const six = variant % 2 === 1
  const size = [1, 1, 3, 40][(variant >> 1) % 4] ?? 1
  const hostPort = 1000 + index * 100
  return {
    networkId: e.networkId,
    endpointId: e.id,
    protocol: (['tcp', 'udp', 'sctp'] as const)[variant % 3] ?? 'tcp',
    hostIp: (variant >> 3) % 2 ? (six ? '2001:db8::5' : '192.0.2.5') : six ? '::' : '0.0.0.0',
    hostPort,
    hostPortEnd: hostPort + size - 1,
    containerIp: e.addresses[six ? 1 : 0] ?? '',
    // Some keep the number, some overlap with other mappings of the same endpoint.
    containerPort: (variant >> 4) % 2 ? hostPort : 80 + (variant % 5) * 10,
    ...((variant >> 5) % 3 === 0
      ? { allowFrom: six ? ['fd99::/32', 'fd99::1/128'] : ['10.0.0.0/8', '172.16.0.1/32', '10.9.0.0/16'] }
      : {}),
  }
}

interface Act {
  kind: 'network' | 'endpoint' | 'mapping'
  index: number
  variant: number
}

const act: fc.Arbitrary<Act> = fc.record({
  kind: fc.constantFrom('network', 'endpoint', 'mapping', 'mapping', 'mapping'),
  index: fc.nat(15),
  variant: fc.nat(2 ** 10),
})

/** Groups of acts as changes that are consistent: nothing refers to what is not there. */
export const histories: fc.Arbitrary<FirewallChange[]> = fc
  .array(fc.array(act, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 12 })
  .map(groups => {
    const networks = new Map<string, FirewallNetwork>()
    const endpoints = new Map<string, FirewallEndpoint>()
    const mappings = new Map<number, Mapping>()
    return groups.map(group => {
      const before = {
        networks: new Map(networks),
        endpoints: new Map(endpoints),
        mappings: new Map(mappings),
      }
      for (const { kind, index, variant } of group) toggle(kind, index, variant)
      const gone = <K, V>(old: Map<K, V>, now: Map<K, V>) =>
        [...old].filter(([k, v]) => now.get(k) !== v).map(([, v]) => v)
      return {
        removeNetworks: gone(before.networks, networks),
        addNetworks: gone(networks, before.networks),
        removeEndpoints: gone(before.endpoints, endpoints),
        addEndpoints: gone(endpoints, before.endpoints),
        removeMappings: gone(before.mappings, mappings),
        addMappings: gone(mappings, before.mappings),
      }
    })

    function toggle(kind: Act['kind'], index: number, variant: number): void {
      if (kind === 'network') {
        const id = `n${index % 4}`
        if (!networks.delete(id)) networks.set(id, networkOf(index % 4, variant))
        else {
          for (const [key, { networkId }] of endpoints) if (networkId === id) endpoints.delete(key)
          for (const [key, { networkId }] of mappings) if (networkId === id) mappings.delete(key)
        }
        return
      }
      const endpoint = endpointOf(index % 8)
      const network = networks.get(endpoint.networkId)
      if (!network) return
      if (kind === 'endpoint') {
        if (!endpoints.delete(endpoint.id)) endpoints.set(endpoint.id, endpoint)
        return
      }
      if (mappings.delete(index)) return
      const mapping = mappingOf(index, variant)
      const family = mapping.containerIp.includes(':') ? 6 : 4
      if (!network.internal && network.families.some(f => f.family === family)) mappings.set(index, mapping)
    }
  })
