/** The options of `cnm serve`: those of dockerd that concern networks, as options of a controller. */
import type { ControllerInput } from '../options'
import { type Option, UsageError, type Values } from './args'
import { FIREWALL_BACKENDS, flag, many, one } from './command'

export const SERVE_OPTIONS: readonly Option[] = [
  { ...one('socket', 'PATH', 'where to listen; default /run/libcnm/api.sock'), insteadOf: ['host'] },
  one('data-dir', 'DIR', 'state that survives; default /var/lib/libcnm; "" for memory only'),
  one('run-dir', 'DIR', 'namespaces and files of sandboxes; default /run/NAME'),
  one('name', 'NAME', 'of the controller: two on one host need two; default libcnm'),
  one('netns', 'PATH', 'the network namespace to use as the host; default: the own one'),
  one('bridge', 'NAME', 'of the default bridge; "none" for no network of that kind; default docker0'),
  one('bip', 'CIDR', 'address and prefix of the default bridge'),
  one('bip6', 'CIDR', 'the same for IPv6'),
  one('fixed-cidr', 'CIDR', 'the part of its subnet that addresses are chosen from'),
  one('fixed-cidr-v6', 'CIDR', 'the same for IPv6'),
  one('default-gateway', 'ADDRESS', 'of containers on the default bridge'),
  one('default-gateway-v6', 'ADDRESS', 'the same for IPv6'),
  many('default-address-pool', 'base=CIDR,size=BITS', 'cut into subnets for networks that ask for none'),
  many('dns', 'ADDRESS', 'name server of containers that name none'),
  many('dns-opt', 'OPTION', 'option of resolv.conf'),
  many('dns-search', 'DOMAIN', 'search domain'),
  {
    ...one('firewall-backend', 'BACKEND', 'auto, nftables, iptables or none'),
    choices: FIREWALL_BACKENDS,
  },
  flag('icc', 'containers on the default bridge may talk to one another; default true'),
  one('ip', 'ADDRESS', 'host address of published ports that name none; default 0.0.0.0'),
  flag('ip-forward', 'switch IP forwarding on; default true'),
  flag('ip-masq', 'translate source addresses on the default bridge; default true'),
  flag('iptables', 'make firewall rules; false is --firewall-backend none; default true'),
  flag('ipv6', 'IPv6 on the default bridge; default false'),
  one('mtu', 'BYTES', 'of networks that name none; default: that of the default route'),
  flag('userland-proxy', 'carry what the kernel cannot; default true'),
  { ...flag('debug', 'say more'), short: 'D' },
]

/** Addresses and names are checked by the controller, which knows best what they may be. */
export function controllerInput(values: Values): ControllerInput {
  const on = (name: string) => values.given(name) ?? true
  return {
    name: values.one('name'),
    dataDir: (values.one('data-dir') ?? '/var/lib/libcnm') || undefined,
    runDir: values.one('run-dir'),
    host: values.one('netns'),
    firewall: firewall(values),
    ipForward: on('ip-forward'),
    userlandProxy: on('userland-proxy'),
    addressPools: addressPools(values.many('default-address-pool')),
    mtu: mtu(values.one('mtu')),
    dns: {
      servers: values.many('dns'),
      search: values.many('dns-search'),
      options: values.many('dns-opt'),
    },
    predefined: {
      bridge: values.one('bridge') || undefined,
      bip: values.one('bip'),
      bip6: values.one('bip6'),
      fixedCidr: values.one('fixed-cidr'),
      fixedCidrV6: values.one('fixed-cidr-v6'),
      defaultGateway: values.one('default-gateway'),
      defaultGatewayV6: values.one('default-gateway-v6'),
      icc: on('icc'),
      ipMasq: on('ip-masq'),
      ipv6: values.flag('ipv6'),
      hostBinding: values.one('ip'),
    },
  }
}

function firewall(values: Values): 'auto' | 'nftables' | 'iptables' | 'none' {
  const backend = values.one('firewall-backend') as 'auto' | 'nftables' | 'iptables' | 'none' | undefined
  if (values.given('iptables') !== false) return backend ?? 'auto'
  if (backend !== undefined && backend !== 'none')
    throw new UsageError(`--iptables=false and --firewall-backend ${backend} contradict one another`)
  return 'none'
}

function mtu(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^\d{1,5}$/.test(text))
    throw new UsageError(`--mtu must be a number of bytes, not ${JSON.stringify(text)}`)
  return Number(text) || undefined // 0: as if it were not given, as dockerd has it
}

function addressPools(texts: readonly string[]): { base: string; size: number }[] | undefined {
  if (!texts.length) return undefined
  return texts.map(text => {
    const match = /^(?:base=([^,]+),size=(\d{1,3})|size=(\d{1,3}),base=([^,]+))$/.exec(text)
    const base = match?.[1] ?? match?.[4]
    if (!base)
      throw new UsageError(`--default-address-pool takes base=CIDR,size=BITS, not ${JSON.stringify(text)}`)
    return { base, size: Number(match?.[2] ?? match?.[3]) }
  })
}
