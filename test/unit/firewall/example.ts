import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FirewallChange } from '../../../lib/firewall/contract'

/** The state of the example in ARCHITECTURE.md. */
export const EXAMPLE: FirewallChange = {
  addNetworks: [
    {
      id: 'web',
      link: 'br-web',
      internal: false,
      icc: true,
      trustedLinks: ['wg0'],
      families: [
        { family: 4, subnets: ['10.10.0.0/24'], gateway: '10.10.0.1', mode: 'nat', masquerade: true },
        { family: 6, subnets: ['fd10::/64'], gateway: 'fd10::1', mode: 'routed', masquerade: false },
      ],
    },
    {
      id: 'db',
      link: 'br-db',
      internal: true,
      icc: false,
      trustedLinks: [],
      families: [
        { family: 4, subnets: ['10.20.0.0/24'], gateway: '10.20.0.1', mode: 'nat', masquerade: true },
      ],
    },
    {
      id: 'old',
      link: 'br-old',
      internal: false,
      icc: false,
      trustedLinks: [],
      families: [
        { family: 4, subnets: ['10.30.0.0/24'], gateway: '10.30.0.1', mode: 'nat', masquerade: '192.0.2.7' },
      ],
    },
  ],
  addEndpoints: [{ id: 'c1', networkId: 'web', addresses: ['10.10.0.5', 'fd10::5'] }],
  addMappings: [
    // 8080:80
    {
      networkId: 'web',
      endpointId: 'c1',
      protocol: 'tcp',
      hostIp: '0.0.0.0',
      hostPort: 8080,
      hostPortEnd: 8080,
      containerIp: '10.10.0.5',
      containerPort: 80,
    },
    {
      networkId: 'web',
      endpointId: 'c1',
      protocol: 'tcp',
      hostIp: '::',
      hostPort: 80,
      hostPortEnd: 80,
      containerIp: 'fd10::5',
      containerPort: 80,
    },
    // 127.0.0.1:5432:5432
    {
      networkId: 'web',
      endpointId: 'c1',
      protocol: 'tcp',
      hostIp: '127.0.0.1',
      hostPort: 5432,
      hostPortEnd: 5432,
      containerIp: '10.10.0.5',
      containerPort: 5432,
    },
    // 10000-20000:10000-20000/udp, for some
    {
      networkId: 'web',
      endpointId: 'c1',
      protocol: 'udp',
      hostIp: '0.0.0.0',
      hostPort: 10_000,
      hostPortEnd: 20_000,
      containerIp: '10.10.0.5',
      containerPort: 10_000,
      allowFrom: ['198.51.100.0/24'],
    },
  ],
  addLinks: [
    { networkId: 'old', from: '10.30.0.2', to: '10.30.0.3', ports: [{ protocol: 'tcp', port: 3306 }] },
  ],
}

/** What `nft list table inet libcnm` prints then. */
export const EXAMPLE_LISTING = readFileSync(join(__dirname, 'listing.nft-like'), 'utf8')
