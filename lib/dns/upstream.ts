import { isIP } from 'node:net'
import { CnmError } from '../base/errors'
import { RESOLVER_ADDRESS, type SandboxView, type Upstream } from './contract'
import { zoneName } from './records'

/**
 * `ADDRESS`, `ADDRESS#PORT`, or `DOMAIN=ADDRESS[#PORT]` for one domain only (several with commas between).
 * Throws ERR_INVALID_OPTION.
 */
export function parseUpstream(text: string, from: Upstream['from']): Upstream {
  const refuse = (why: string): never => {
    throw new CnmError('ERR_INVALID_OPTION', `DNS server ${JSON.stringify(text)}: ${why}`, { value: text })
  }
  const equals = text.indexOf('=')
  const [address = '', port] = text.slice(equals + 1).split('#')
  if (isIP(address) === 0)
    refuse('must be an IP address, as in 10.0.0.53, 10.0.0.53#5353 or corp.example=10.0.0.53')
  const upstream: Upstream = { address, from }
  if (port !== undefined) {
    upstream.port = Number(port)
    if (!/^\d{1,5}$/.test(port) || upstream.port < 1 || upstream.port > 65535)
      refuse('port must be 1 to 65535')
  }
  if (equals >= 0)
    upstream.domains = text
      .slice(0, equals)
      .split(',')
      .map(domain => zoneName(domain) ?? refuse(`${JSON.stringify(domain)} is no domain`))
  return upstream
}

export const upstreamKey = ({ address, port = 53, from }: Upstream): string => `${from} ${address}#${port}`

/**
 * Which servers are asked for a name: the sandbox's own, else those of its networks, else the host's. Of these, those for
 * the longest domain that the name lies in; without such, those for any name. A sandbox without a gateway asks nobody
 * from the host's namespace. Nobody asks ourselves.
 */
export function chooseUpstreams(view: SandboxView, ofNetworks: Upstream[], name: string): Upstream[] {
  const own = view.upstreams.filter(upstream => upstream.from === 'sandbox')
  const allowed = [own, ofNetworks, view.upstreams.filter(upstream => upstream.from === 'host')].map(group =>
    group.filter(
      ({ from, address }) => address !== RESOLVER_ADDRESS && (from === 'sandbox' || view.external),
    ),
  )
  let best: Upstream[] = []
  let longest = -1
  for (const upstream of allowed.flat())
    for (const domain of upstream.domains ?? []) {
      if (domain.length < longest || (name !== domain && !name.endsWith(`.${domain}`))) continue
      if (domain.length > longest) best = []
      longest = domain.length
      best.push(upstream)
    }
  if (longest >= 0) return best
  return allowed.map(group => group.filter(({ domains }) => !domains)).find(group => group.length > 0) ?? []
}
