/**
 * What is to be reserved for the bindings of an endpoint: which addresses of the host, leading to which address of the
 * container, carried by whom. Pure but for one question to the host.
 */
import { type Family, familyOf } from '../base/cidr'
import { CnmError } from '../base/errors'
import type { Firewall, Protocol } from '../firewall/contract'
import type { PortRange } from './allocator'
import type { PortBinding, PublishedPort, PublishTarget } from './contract'
import { PROTOCOLS, checkBinding, formatPort } from './spec'

/** One address of the host. */
export interface Want {
  hostIp: string
  containerIp: string
  proxied: boolean
  allowFrom?: string[]
  proxyProtocol?: boolean
}

/** A port, or a run of them, to be had on several addresses at once: both families get the same. */
export interface Plan {
  networkId: string
  endpointId: string
  protocol: Protocol
  containerPort: number
  /** Ports in the run. */
  length: number
  /** Host ports asked for; absent: any of the host's dynamic range. */
  range?: PortRange
  /** The whole `range`, rather than a part of it. */
  exact: boolean
  /** The container is reached at its own address: no port of the host is taken. */
  routed: boolean
  wants: Want[]
}

export interface PlanOptions {
  backend: Firewall['backend']
  userlandProxy: boolean | 'always'
  hostHasIpv6(): boolean
  /** Told what is left out, and why. */
  omitted(message: string): void
}

const UNSPECIFIED: Record<Family, string> = { 4: '0.0.0.0', 6: '::' }

/** Exact ports first, so that a chosen one never takes a port that another binding asks for. */
export function planBindings(target: PublishTarget, bindings: PortBinding[], options: PlanOptions): Plan[] {
  const plans: Plan[] = []
  for (const binding of bindings.map(each => checkBinding(each)).sort(compareBindings)) {
    for (const { routed, wants } of wantsOf(target, binding, options)) {
      const plan = planOf(target, binding, routed, wants)
      // bindings that differ in the address only get one port
      const partner = plan.exact || routed ? undefined : plans.find(other => joinable(other, plan))
      if (partner) partner.wants.push(...wants)
      else plans.push(plan)
    }
  }
  return plans
}

function planOf(target: PublishTarget, binding: PortBinding, routed: boolean, wants: Want[]): Plan {
  const { containerPort, containerPortEnd = containerPort, hostPort, hostPortEnd = hostPort } = binding
  const length = containerPortEnd - containerPort + 1
  const asked = hostPort && hostPortEnd && !routed
  return {
    networkId: target.networkId,
    endpointId: target.endpointId,
    protocol: binding.protocol,
    containerPort,
    length,
    ...(asked && { range: { first: hostPort, last: hostPortEnd } }),
    exact: Boolean(asked) && hostPortEnd! - hostPort! + 1 === length,
    routed,
    wants,
  }
}

function joinable(a: Plan, b: Plan): boolean {
  return (
    !a.exact &&
    !a.routed &&
    a.protocol === b.protocol &&
    a.containerPort === b.containerPort &&
    a.length === b.length &&
    a.range?.first === b.range?.first &&
    a.range?.last === b.range?.last &&
    a.wants.every(one => b.wants.every(other => !clash(one.hostIp, other.hostIp)))
  )
}

const clash = (a: string, b: string) =>
  familyOf(a) === familyOf(b) && (a === b || [a, b].includes(UNSPECIFIED[familyOf(a)]))

/** Exact ports, then ranges to choose from, then any; then container port, protocol, host port, host address. */
function compareBindings(a: PortBinding, b: PortBinding): number {
  return (
    freedom(a) - freedom(b) ||
    a.containerPort - b.containerPort ||
    PROTOCOLS.indexOf(a.protocol) - PROTOCOLS.indexOf(b.protocol) ||
    (a.hostPort ?? 0) - (b.hostPort ?? 0) ||
    compareText(a.hostIp ?? '', b.hostIp ?? '')
  )
}

const compareText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

function freedom({ hostPort, hostPortEnd = hostPort, containerPort, containerPortEnd }: PortBinding): number {
  if (!hostPort) return 2
  return hostPortEnd! > hostPort && (containerPortEnd ?? containerPort) === containerPort ? 1 : 0
}

/** The addresses for one binding; routed families apart from translated ones. Throws when nothing is left. */
function wantsOf(
  target: PublishTarget,
  binding: PortBinding,
  options: PlanOptions,
): { routed: boolean; wants: Want[] }[] {
  const given = binding.hostIp ?? explicitDefault(target)
  const routed: Want[] = []
  const translated: Want[] = []
  const reasons: string[] = []
  for (const family of given ? [familyOf(given)] : ([4, 6] as const)) {
    const allowFrom = binding.allowFrom?.filter(source => familyOf(source) === family)
    if (allowFrom?.length === 0) {
      reasons.push(`allowFrom names no IPv${family} source`)
      continue
    }
    const address = family === 4 ? target.ipv4 : target.ipv6
    const mode = address === undefined ? undefined : (target.modes[family] ?? 'nat')
    const want = { hostIp: given ?? UNSPECIFIED[family], ...(allowFrom && { allowFrom }) }
    if (mode === 'isolated') {
      reasons.push(`the network is isolated from the host in IPv${family}`)
    } else if (mode === 'routed') {
      if (binding.hostPort)
        options.omitted(`host port of ${formatPort(binding)} is ignored: IPv${family} is routed`)
      routed.push({ ...want, hostIp: UNSPECIFIED[family], containerIp: address!, proxied: false })
    } else if (family === 6 && given === undefined && !options.hostHasIpv6()) {
      reasons.push('the host has no IPv6')
    } else {
      const result = translate(target, binding, family, given, options)
      if (typeof result === 'string') reasons.push(result)
      else translated.push({ ...want, ...result })
    }
  }
  if (routed.length + translated.length === 0)
    throw new CnmError(
      'ERR_INVALID_PORT',
      `port ${JSON.stringify(formatPort(binding))} of endpoint ${target.endpointId} cannot be published: ${reasons.join('; ')}`,
      { field: 'hostIp', value: binding.hostIp, networkId: target.networkId, endpointId: target.endpointId },
    )
  for (const reason of reasons) options.omitted(`port ${formatPort(binding)} is published in part: ${reason}`)
  return [
    { routed: true, wants: routed },
    { routed: false, wants: translated },
  ].filter(({ wants }) => wants.length > 0)
}

/** A default other than "every address of the host". */
const explicitDefault = ({ defaultHostIp }: PublishTarget) =>
  defaultHostIp === undefined || defaultHostIp === '0.0.0.0' ? undefined : defaultHostIp

/** Where a family of the host leads and who carries it; or why it cannot be. */
function translate(
  target: PublishTarget,
  binding: PortBinding,
  family: Family,
  given: string | undefined,
  options: PlanOptions,
): Pick<Want, 'containerIp' | 'proxied' | 'proxyProtocol'> | string {
  const own = family === 4 ? target.ipv4 : target.ipv6
  const containerIp = own ?? crossing(target, family, given)
  if (containerIp === undefined) return `the endpoint has no IPv${family} address`
  const need = whyProxied(binding, family, given, own !== undefined, options)
  if (need === undefined) return { containerIp, proxied: false }
  if (!options.userlandProxy) return `${need}, and userlandProxy is off`
  if (binding.protocol === 'sctp') return `${need}, which carries tcp and udp only`
  return { containerIp, proxied: true, ...(binding.proxyProtocol && { proxyProtocol: true }) }
}

/**
 * The container's address of the other family. IPv6 of the host leads to a container with IPv4 only; the other way
 * round only when an IPv4 address was named, since an IPv6-only network should not show up in IPv4 by itself.
 */
function crossing(target: PublishTarget, family: Family, given: string | undefined): string | undefined {
  const other: Family = family === 4 ? 6 : 4
  const mode = target.modes[other] ?? 'nat'
  if (mode === 'routed' || mode === 'isolated') return undefined
  if (family === 6) return target.ipv4
  return given === undefined ? undefined : target.ipv6
}

function whyProxied(
  binding: PortBinding,
  family: Family,
  given: string | undefined,
  sameFamily: boolean,
  { backend, userlandProxy }: PlanOptions,
): string | undefined {
  if (!sameFamily) return `the endpoint has no IPv${family} address, so it needs the userland proxy`
  if (given === '::1') return 'the kernel cannot translate ::1, so it needs the userland proxy'
  if (binding.proxyProtocol) return 'the PROXY protocol needs the userland proxy'
  if (backend === 'none') return 'there is no firewall backend, so it needs the userland proxy'
  if (userlandProxy === 'always') return 'everything goes through the userland proxy'
  return undefined
}

/** What is made of one line of a plan, from the first host port on. */
export function publishedPort(plan: Plan, want: Want, first: number): PublishedPort {
  return {
    networkId: plan.networkId,
    endpointId: plan.endpointId,
    protocol: plan.protocol,
    hostIp: want.hostIp,
    hostPort: first,
    hostPortEnd: first + plan.length - 1,
    containerIp: want.containerIp,
    containerPort: plan.containerPort,
    ...(want.allowFrom && { allowFrom: want.allowFrom }),
    proxied: want.proxied,
    ...(want.proxyProtocol && { proxyProtocol: true }),
  }
}
