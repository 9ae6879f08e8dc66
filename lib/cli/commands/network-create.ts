/** cnm network create. */
import { contains, network, parseCidr, parseIp } from '../../base/cidr'
import { pairs, UsageError } from '../args'
import { type Command, flag, many, one } from '../command'

export const createCommand: Command = {
  name: 'network create',
  summary: 'Create a network',
  operands: 'NETWORK',
  least: 1,
  most: 1,
  options: [
    flag('attachable', 'containers may be connected by hand (networks that span hosts)'),
    many('aux-address', 'NAME=ADDRESS', 'an address that nobody gets'),
    {
      ...one('config-from', 'NETWORK', 'take the configuration of a config-only network'),
      completes: 'network',
    },
    flag('config-only', 'only hold configuration for other networks'),
    { ...one('driver', 'DRIVER', 'default: bridge'), short: 'd' },
    many('gateway', 'ADDRESS', 'of a subnet; default: its first free address'),
    flag('ingress', 'the network of the routing mesh'),
    flag('internal', 'no way out, no way in'),
    many('ip-range', 'CIDR', 'the part of a subnet that addresses are chosen from'),
    one('ipam-driver', 'DRIVER', 'default: default'),
    many('ipam-opt', 'KEY=VALUE', 'an option for the IPAM driver'),
    flag('ipv4', 'addresses of IPv4; default: true'),
    flag('ipv6', 'addresses of IPv6; default: false'),
    many('label', 'KEY=VALUE', 'a label'),
    { ...many('opt', 'KEY=VALUE', 'an option for the driver'), short: 'o' },
    one('scope', 'SCOPE', 'local, global or swarm'),
    many('subnet', 'CIDR', 'a subnet; default: one is chosen'),
  ],
  examples: [
    'cnm network create web',
    'cnm network create --subnet 10.10.0.0/24 --ip-range 10.10.0.128/25 --gateway 10.10.0.1 db',
    'cnm network create --ipv6 --internal --opt com.docker.network.driver.mtu=1450 back',
  ],
  async run({ values, args, io, client }) {
    const api = await client()
    const { Id, Warning } = await api.post<{ Id: string; Warning: string }>('/networks/create', {
      Name: args[0],
      Driver: values.one('driver') ?? (values.flag('config-only') ? '' : 'bridge'),
      Scope: values.one('scope'),
      EnableIPv4: values.given('ipv4'),
      EnableIPv6: values.given('ipv6'),
      IPAM: {
        Driver: values.one('ipam-driver') ?? 'default',
        Options: pairs(values.many('ipam-opt'), 'ipam-opt'),
        Config: ipamConfig({
          subnets: values.many('subnet'),
          ranges: values.many('ip-range'),
          gateways: values.many('gateway'),
          auxiliary: pairs(values.many('aux-address'), 'aux-address'),
        }),
      },
      Internal: values.flag('internal'),
      Attachable: values.flag('attachable'),
      Ingress: values.flag('ingress'),
      ConfigOnly: values.flag('config-only'),
      ConfigFrom: values.one('config-from') ? { Network: values.one('config-from') } : undefined,
      Options: pairs(values.many('opt'), 'opt'),
      Labels: pairs(values.many('label'), 'label'),
    })
    if (Warning) io.error(`cnm: ${Warning}\n`)
    io.out(`${Id}\n`)
    return 0
  },
}

interface IpamWords {
  subnets: string[]
  ranges: string[]
  gateways: string[]
  auxiliary: Record<string, string>
}

/** Ranges, gateways and auxiliary addresses go to the subnet that they lie in: the API checks the details. */
export function ipamConfig({ subnets, ranges, gateways, auxiliary }: IpamWords) {
  if (!subnets.length && (ranges.length || gateways.length || Object.keys(auxiliary).length))
    throw new UsageError('--ip-range, --gateway and --aux-address need a --subnet')
  const configs = subnets.map(subnet => ({
    Subnet: subnet,
    IPRange: undefined as string | undefined,
    Gateway: undefined as string | undefined,
    AuxiliaryAddresses: {} as Record<string, string>,
  }))
  const home = (address: string, option: string) => {
    const found =
      configs.find(({ Subnet }) => holds(Subnet, address)) ?? (configs.length === 1 ? configs[0] : undefined)
    if (!found) throw new UsageError(`no --subnet fits --${option} ${address}`)
    return found
  }
  const claim = (field: 'IPRange' | 'Gateway', option: string, address: string) => {
    const config = home(address, option)
    if (config[field]) throw new UsageError(`more than one --${option} for subnet ${config.Subnet}`)
    config[field] = address
  }
  for (const range of ranges) claim('IPRange', 'ip-range', range)
  for (const gateway of gateways) claim('Gateway', 'gateway', gateway)
  for (const [name, address] of Object.entries(auxiliary))
    home(address, 'aux-address').AuxiliaryAddresses[name] = address
  return configs
}

function holds(subnet: string, address: string): boolean {
  try {
    const outer = parseCidr(subnet)
    return contains(network(outer), parseIp(address.replace(/\/.*/, '')))
  } catch {
    return false
  }
}
