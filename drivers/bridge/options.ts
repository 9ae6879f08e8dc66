import { z } from 'zod'
import { ip, ipv4, ipv6, linkName } from '../../lib/base/parse'
import { flag, integer, list } from '../../lib/driver/options'

const mode = () => z.enum(['nat', 'nat-unprotected', 'routed', 'isolated'])

/** Options of a bridge network. Each may be given as Docker's label, too: see {@link LABELS}. */
export const BridgeOptions = z.strictObject({
  name: linkName().optional().describe('of the bridge; default br- and 12 digits of the network id'),
  mtu: integer(68, 65535).optional().describe("bytes; default: that of the host's default route"),
  masquerade: flag().default(true).describe('translate source addresses of what leaves the host'),
  icc: flag().default(true).describe('endpoints of this network may talk to one another'),
  inhibitIpv4: flag().default(false).describe('the bridge gets no IPv4 address'),
  gatewayModeIpv4: mode().default('nat'),
  gatewayModeIpv6: mode().default('nat'),
  hostBindingIpv4: ip().optional().describe('host address for published ports that name none'),
  hostIpv4: ipv4().optional().describe('source address of what leaves the host, instead of masquerading'),
  hostIpv6: ipv6().optional(),
  trustedHostInterfaces: list(linkName(), ':').default([]).describe('may reach container addresses directly'),
  interfacePrefix: z
    .string()
    .regex(
      /^[A-Za-z][A-Za-z0-9_.-]{0,10}$/,
      'must be 1 to 11 letters, digits, "_", "." or "-", a letter first',
    )
    .default('eth')
    .describe('interfaces in sandboxes are called this and a number'),
  defaultBridge: flag().default(false).describe('the network called bridge: no embedded DNS'),
})
export type BridgeOptions = z.output<typeof BridgeOptions>

const PREFIX = 'com.docker.network.'

/** Docker's labels (reference: Docker's `docker network create --opt`, API 1.48). */
export const LABELS: Readonly<Record<string, string>> = {
  [`${PREFIX}bridge.name`]: 'name',
  [`${PREFIX}driver.mtu`]: 'mtu',
  [`${PREFIX}bridge.enable_ip_masquerade`]: 'masquerade',
  [`${PREFIX}bridge.enable_icc`]: 'icc',
  [`${PREFIX}bridge.inhibit_ipv4`]: 'inhibitIpv4',
  [`${PREFIX}bridge.gateway_mode_ipv4`]: 'gatewayModeIpv4',
  [`${PREFIX}bridge.gateway_mode_ipv6`]: 'gatewayModeIpv6',
  [`${PREFIX}bridge.host_binding_ipv4`]: 'hostBindingIpv4',
  [`${PREFIX}host_ipv4`]: 'hostIpv4',
  [`${PREFIX}host_ipv6`]: 'hostIpv6',
  [`${PREFIX}bridge.trusted_host_interfaces`]: 'trustedHostInterfaces',
  [`${PREFIX}container_iface_prefix`]: 'interfacePrefix',
  [`${PREFIX}bridge.default_bridge`]: 'defaultBridge',
}
