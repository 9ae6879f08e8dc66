import type { FirewallEndpoint, FirewallNetwork, Mapping } from '../../../lib/firewall/contract'

export const network = (over: Partial<FirewallNetwork> = {}): FirewallNetwork => ({
  id: 'n1',
  link: 'br1',
  internal: false,
  icc: true,
  trustedLinks: [],
  families: [
    { family: 4, subnets: ['10.1.0.0/16'], gateway: '10.1.0.1', mode: 'nat', masquerade: true },
    { family: 6, subnets: ['fd00:1::/64'], gateway: 'fd00:1::1', mode: 'nat', masquerade: true },
  ],
  ...over,
})

export const endpoint = (over: Partial<FirewallEndpoint> = {}): FirewallEndpoint => ({
  id: 'e1',
  networkId: 'n1',
  addresses: ['10.1.0.2', 'fd00:1::2'],
  ...over,
})

export const mapping = (over: Partial<Mapping> = {}): Mapping => ({
  networkId: 'n1',
  endpointId: 'e1',
  protocol: 'tcp',
  hostIp: '0.0.0.0',
  hostPort: 8080,
  hostPortEnd: 8080,
  containerIp: '10.1.0.2',
  containerPort: 80,
  ...over,
})
