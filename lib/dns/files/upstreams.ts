import { parseUpstream } from '../upstream'
import type { FollowUpstreams } from './contract'
import { hostResolvConf } from './follow'
import { parseResolvConf, upstreamsOf } from './resolvconf'

/** Of `[DOMAIN=]ADDRESS[#PORT]`, those that resolv.conf can name: it knows neither domains nor ports. */
export const forResolvConf = (servers: string[]): string[] => servers.filter(text => !/[=#]/.test(text))

/** A server for any name replaces the host's; servers for single domains stand beside them. */
export const followUpstreams: FollowUpstreams = (resolvConf, changed) => {
  const host = hostResolvConf(resolvConf)
  const close = host.follow(changed)
  return {
    resolvedBy(dns) {
      const own = dns.servers.map(text => parseUpstream(text, 'sandbox'))
      const { servers, search, ndotsFromUser } = upstreamsOf(parseResolvConf(host.text), {
        ...dns,
        servers: [],
      })
      const upstreams = own.some(({ domains }) => !domains) ? own : [...own, ...servers]
      return { upstreams, search, ndotsFromUser }
    },
    close,
  }
}
