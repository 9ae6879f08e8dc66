import { RESOLVER_ADDRESS } from './contract'

export const REDIRECT_TABLE = 'libcnm-dns'

/** Where the resolver listens inside, on 127.0.0.11. */
export interface RedirectPorts {
  udp: number
  tcp: number
}

/**
 * Leads 127.0.0.11:53 to the resolver's ports and back, so that a container can bind 0.0.0.0:53 itself. The ports are
 * rewritten in place, without connection tracking: none of it is loaded into the sandbox, and no entry is kept per
 * question. Where this happens matters for a firewall inside the container: questions are rewritten when they have passed
 * its output chain and its connection tracking (postrouting), answers before they come there (raw), so both see port 53.
 */
export function redirectRules(ports: RedirectPorts): string {
  const one = (protocol: 'udp' | 'tcp') => ({
    there: `ip daddr ${RESOLVER_ADDRESS} ${protocol} dport 53 ${protocol} dport set ${ports[protocol]}`,
    back: `ip saddr ${RESOLVER_ADDRESS} ${protocol} sport ${ports[protocol]} ${protocol} sport set 53`,
  })
  const udp = one('udp')
  const tcp = one('tcp')
  return `table ip ${REDIRECT_TABLE}
delete table ip ${REDIRECT_TABLE}
table ip ${REDIRECT_TABLE} {
  chain there {
    type filter hook postrouting priority 300
    ${udp.there}
    ${tcp.there}
  }
  chain back {
    type filter hook output priority -300
    ${udp.back}
    ${tcp.back}
  }
}
`
}

export const noRedirect = (): string => `table ip ${REDIRECT_TABLE}\ndelete table ip ${REDIRECT_TABLE}\n`
