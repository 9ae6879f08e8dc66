/** The checks that Docker makes of an IPAM configuration, all of them told at once. */
import {
  BITS,
  type Cidr,
  contains,
  type Family,
  formatCidr,
  network,
  overlaps,
  parseCidr,
  parseIp,
} from '../base/cidr'
import { HttpError } from './errors'

export interface IpamConfigRequest {
  Subnet?: string
  IPRange?: string
  Gateway?: string
  AuxiliaryAddresses?: Record<string, string>
}

/** Throws 400 with one line for each fault. Configurations of IPv6 do not count while it is off. */
export function checkIpam(configs: readonly IpamConfigRequest[], ipv6: boolean): void {
  const faults = configs.flatMap(config => faultsOf(config, ipv6))
  if (faults.length) throw new HttpError(400, `invalid network config:\n${faults.join('\n')}`)
}

function faultsOf({ Subnet, IPRange, Gateway, AuxiliaryAddresses }: IpamConfigRequest, ipv6: boolean) {
  if (!Subnet) return IPRange || Gateway ? ['invalid subnet : invalid CIDR block notation'] : []
  const subnet = attempt(() => parseCidr(Subnet))
  if (!subnet) return [`invalid subnet ${Subnet}: invalid CIDR block notation`]
  if (subnet.family === 6 && !ipv6) return []
  const faults: string[] = []
  if (!isMasked(subnet)) faults.push(`invalid subnet ${Subnet}: it should be ${formatCidr(network(subnet))}`)
  if (IPRange) faults.push(...faultsOfRange(IPRange, subnet))
  const address = (what: string, text: string) => {
    const fault = faultOfAddress(text, subnet)
    if (fault) faults.push(`invalid ${what}: ${fault}`)
  }
  if (Gateway) address(`gateway ${Gateway}`, Gateway)
  for (const [name, text] of Object.entries(AuxiliaryAddresses ?? {}))
    if (text) address(`auxiliary address ${name}`, text)
  return faults
}

function faultsOfRange(text: string, subnet: Cidr): string[] {
  const range = attempt(() => parseCidr(text))
  const fault = (why: string) => `invalid ip-range ${text}: ${why}`
  if (!range) return [fault('invalid CIDR block notation')]
  if (range.family !== subnet.family) return [fault(`parent subnet is an ${nameOf(subnet.family)} block`)]
  const parent = formatCidr(subnet)
  return [
    ...(range.length < subnet.length ? [fault(`CIDR block is bigger than its parent subnet ${parent}`)] : []),
    ...(isMasked(range) ? [] : [fault(`it should be ${formatCidr(network(range))}`)]),
    ...(overlaps(network(subnet), range) ? [] : [fault(`parent subnet ${parent} doesn't contain ip-range`)]),
  ]
}

function faultOfAddress(text: string, subnet: Cidr): string | undefined {
  const ip = attempt(() => parseIp(text))
  if (!ip) return 'invalid address'
  if (ip.family !== subnet.family) return `parent subnet is an ${nameOf(subnet.family)} block`
  const whole = { ...ip, length: BITS[ip.family] }
  if (!contains(network(subnet), whole))
    return `parent subnet ${formatCidr(subnet)} doesn't contain this address`
  return undefined
}

const isMasked = (cidr: Cidr) => network(cidr).value === cidr.value
const nameOf = (family: Family) => `IPv${family}`

function attempt<T>(body: () => T): T | undefined {
  try {
    return body()
  } catch {
    return undefined
  }
}
