import { addressOf, canonicalCidr, formatCidr, network, parseCidr } from '../base/cidr'
import type { Network } from '../network'
import { type ControllerOptions, type NetworkInput, NetworkOptions } from '../options'
import { isDeepStrictEqual } from 'node:util'

export type PredefinedSettings = Partial<Exclude<ControllerOptions['predefined'], boolean>>

interface Maker {
  make(input: NetworkInput, predefined: boolean): Promise<Network>
  find(name: string): Network | undefined
}

/**
 * Docker's three networks: none, host, bridge. Those that are there already stay; but the bridge is made anew when its
 * settings have changed and nobody is on it. `bridge: 'none'`: no bridge.
 */
export async function createPredefined(networks: Maker, settings: PredefinedSettings): Promise<void> {
  await once(networks, { name: 'none', driver: 'null' })
  await once(networks, { name: 'host', driver: 'host' })
  const wanted = settings.bridge === 'none' ? undefined : bridgeNetwork(settings)
  const present = networks.find('bridge')
  if (present?.predefined && present.endpoints().length === 0 && !(wanted && isAs(present, wanted)))
    await present.remove()
  if (wanted) await once(networks, wanted)
}

async function once(networks: Maker, input: NetworkInput): Promise<void> {
  if (!networks.find(input.name)) await networks.make(input, true)
}

/** Does the network have these settings? By what the store keeps of them, where nothing is undefined. */
function isAs({ record }: Network, input: NetworkInput): boolean {
  const kept = (options: unknown) => JSON.parse(JSON.stringify(options)) as unknown
  return isDeepStrictEqual(kept(record.config), kept(NetworkOptions.parse(input)))
}

/** dockerd's options bip, fixed-cidr, default-gateway, icc, ip-masq, ipv6, ip as those of a network. */
function bridgeNetwork(settings: PredefinedSettings): NetworkInput {
  const {
    bridge = 'docker0',
    bip,
    bip6,
    fixedCidr,
    fixedCidrV6,
    defaultGateway,
    defaultGatewayV6,
    icc = true,
    ipMasq = true,
    hostBinding,
  } = settings
  const config: NonNullable<NonNullable<NetworkInput['ipam']>['config']> = []
  const add = (
    address: string | undefined,
    range: string | undefined,
    gateway: string | undefined,
    family: 4 | 6,
  ) => {
    const subnet = address ? formatCidr(network(parseCidr(canonicalCidr(address)))) : range
    if (!subnet && !gateway) return
    config.push({
      subnet,
      ipRange: range && range !== subnet ? range : undefined,
      gateway: address && addressOf(canonicalCidr(address)),
      auxAddresses: gateway ? { [`DefaultGatewayIPv${family}`]: gateway } : {},
    })
  }
  add(bip, fixedCidr, defaultGateway, 4)
  const ipv6 = settings.ipv6 === true || bip6 !== undefined || fixedCidrV6 !== undefined
  if (ipv6) add(bip6, fixedCidrV6, defaultGatewayV6, 6)
  return {
    name: 'bridge',
    driver: 'bridge',
    ipv6,
    ipam: { config },
    options: {
      'com.docker.network.bridge.default_bridge': 'true',
      'com.docker.network.bridge.enable_icc': String(icc),
      'com.docker.network.bridge.enable_ip_masquerade': String(ipMasq),
      'com.docker.network.bridge.name': bridge,
      ...(hostBinding ? { 'com.docker.network.bridge.host_binding_ipv4': hostBinding } : {}),
    },
  }
}
