/**
 * The switches in /proc/sys without which no rule helps: forwarding; the leave for packets from 127.0.0.0/8 to a bridge
 * (guarded by a rule), which the host needs to reach published ports through 127.0.0.1; and that the host answers ARP for
 * linked endpoints whose ports on the bridge are isolated, so that their packets come to it and the rules decide.
 */
import { familyOf, type Family } from '../base/cidr'
import { CnmError } from '../base/errors'
import type { Stack } from '../kernel/kernel'
import type { FirewallLink, FirewallNetwork, FirewallProblem, Mapping } from './contract'

const FORWARDING: Record<Family, string> = { 4: 'net/ipv4/ip_forward', 6: 'net/ipv6/conf/all/forwarding' }

const localnetKey = (link: string): string => `net/ipv4/conf/${link}/route_localnet`
/** As in private VLANs (RFC 3069): also for who asks on the same link. */
const proxyArpKey = (link: string): string => `net/ipv4/conf/${link}/proxy_arp_pvlan`

export class Forwarding {
  private readonly families = new Set<Family>()
  /** Bridges on which route_localnet was set. */
  private readonly localnet = new Set<string>()
  /** Bridges on which proxy_arp_pvlan was set. */
  private readonly linked = new Set<string>()

  constructor(
    private readonly stack: Stack,
    private readonly allowed: boolean,
  ) {}

  /** Before a network that talks to the outside: turns forwarding on, or says why it is not. */
  async need(networks: FirewallNetwork[]): Promise<void> {
    for (const network of networks) {
      if (network.internal) continue
      for (const { family, mode } of network.families)
        if (mode !== 'isolated' && !this.families.has(family)) {
          await this.enable(family, network)
          this.families.add(family)
        }
    }
  }

  private async enable(family: Family, network: FirewallNetwork): Promise<void> {
    const key = FORWARDING[family]
    const value = this.stack.sysctl(key)
    if (value !== '0') return // on already; or the family is not there at all
    const details = { key, family, networkId: network.id }
    if (!this.allowed)
      throw new CnmError(
        'ERR_FORWARDING',
        `IPv${family} forwarding is off (${key.replaceAll('/', '.')}=0) and network ${network.id} needs it`,
        details,
      )
    try {
      if (family === 6) await this.keepRouterAdvertisements()
      this.stack.setSysctls({ [key]: '1' })
    } catch (cause) {
      throw new CnmError(
        'ERR_FORWARDING',
        `IPv${family} forwarding is off and ${key.replaceAll('/', '.')} cannot be written: ${(cause as Error).message}`,
        details,
        { cause },
      )
    }
  }

  /**
   * A host that forwards IPv6 stops listening to router advertisements where accept_ra is 1, and so loses its own default
   * route (Linux, Documentation/networking/ip-sysctl). 2 means: listen all the same.
   */
  private async keepRouterAdvertisements(): Promise<void> {
    for (const { name, kind, loopback } of await this.stack.links()) {
      if (loopback || kind === 'bridge') continue
      const key = `net/ipv6/conf/${name}/accept_ra`
      if (this.stack.sysctl(key) === '1') this.stack.setSysctls({ [key]: '2' })
    }
  }

  /** After mappings were added: those that 127.0.0.1 of the host is to reach. */
  allowLocal(mappings: Mapping[], linkOf: (networkId: string) => FirewallNetwork | undefined): void {
    for (const { hostIp, networkId } of mappings) {
      if (familyOf(hostIp) !== 4 || (hostIp !== '0.0.0.0' && !hostIp.startsWith('127.'))) continue
      const network = linkOf(networkId)
      if (!network || this.localnet.has(network.link)) continue
      if (network.families.find(family => family.family === 4)?.mode === 'routed') continue
      const key = localnetKey(network.link)
      if (this.stack.sysctl(key) === undefined) continue // the bridge is not there (yet, or any more)
      this.stack.setSysctls({ [key]: '1' })
      this.localnet.add(network.link)
    }
  }

  /** Before networks go, and with them the rule that guards 127.0.0.0/8 from their bridges. Answers which were closed. */
  closeLocal(networks: FirewallNetwork[]): string[] {
    return closeLocal(
      this.stack,
      networks.map(({ link }) => link),
    )
  }

  /** They did not go. */
  reopenLocal(links: string[]): void {
    for (const link of links) this.stack.setSysctls({ [localnetKey(link)]: '1' })
  }

  /** After links came or went: `all` are those that there are now. */
  relay(
    networkIds: string[],
    all: () => FirewallLink[],
    linkOf: (networkId: string) => FirewallNetwork | undefined,
  ): void {
    if (networkIds.length === 0) return
    const needed = new Set(all().map(({ networkId }) => networkId))
    for (const id of new Set(networkIds)) {
      const link = linkOf(id)?.link
      if (link === undefined || this.linked.has(link) === needed.has(id)) continue
      const key = proxyArpKey(link)
      if (this.stack.sysctl(key) === undefined) continue // the bridge is not there (yet, or any more)
      this.stack.setSysctls({ [key]: needed.has(id) ? '1' : '0' })
      if (needed.has(id)) this.linked.add(link)
      else this.linked.delete(link)
    }
  }

  forget(networks: FirewallNetwork[]): void {
    for (const { link } of networks) {
      this.localnet.delete(link)
      this.linked.delete(link)
    }
  }

  check(): FirewallProblem[] {
    const problems: FirewallProblem[] = []
    for (const family of this.families)
      if (this.stack.sysctl(FORWARDING[family]) === '0')
        problems.push(off(family, FORWARDING[family], `IPv${family} forwarding was turned off`))
    for (const link of this.localnet)
      if (this.stack.sysctl(localnetKey(link)) === '0')
        problems.push(
          off(
            4,
            localnetKey(link),
            `published ports cannot be reached through 127.0.0.1: ${link} refuses it`,
          ),
        )
    for (const link of this.linked)
      if (this.stack.sysctl(proxyArpKey(link)) === '0')
        problems.push(
          off(4, proxyArpKey(link), `linked containers on ${link} do not find each other: it answers no ARP`),
        )
    return problems
  }

  repair(): FirewallProblem[] {
    const problems = this.check()
    for (const { details } of problems)
      if (this.allowed || details.key !== FORWARDING[details.family as Family])
        this.stack.setSysctls({ [details.key as string]: '1' })
    return problems
  }
}

/**
 * Takes back the leave for packets between bridges and 127.0.0.0/8; answers which had it. A bridge may outlive its network, and
 * its rules a controller: without those whoever is on it would reach what listens on 127.0.0.1.
 */
export function closeLocal(stack: Stack, links: Iterable<string>): string[] {
  const closed = [...new Set(links)].filter(link => stack.sysctl(localnetKey(link)) === '1')
  for (const link of closed) stack.setSysctls({ [localnetKey(link)]: '0' })
  return closed
}

const off = (family: Family, key: string, message: string): FirewallProblem => ({
  kind: 'forwarding-off',
  message,
  remedy: `sysctl -w ${key.replaceAll('/', '.')}=1`,
  details: { key, family },
})
