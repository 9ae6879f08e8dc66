/** What the host's settings say of its ports. */
import type { Stack } from '../kernel/kernel'
import { type PortRange, PortSet } from './allocator'
import { errnoOf } from './busy'

/** Taken when the kernel does not say: IANA's dynamic ports. */
const DYNAMIC_RANGE: PortRange = { first: 49153, last: 65535 }

/** errno of a host without IPv6: not in the kernel, or switched off (`disable_ipv6`). */
const NO_FAMILY = new Set(['EAFNOSUPPORT', 'EADDRNOTAVAIL'])

export class HostPorts {
  readonly #stack: Stack
  #reserved: { text: string; ports: PortSet } | undefined

  constructor(stack: Stack) {
    this.#stack = stack
  }

  /** As good as asking for any IPv6 service: a host with IPv6 switched off may have the family, but not `::1`. */
  hasIpv6(): boolean {
    try {
      this.#stack.closeFd(this.#stack.openSocket({ type: 'udp', address: '::1', port: 0 }))
      return true
    } catch (error) {
      if (NO_FAMILY.has(errnoOf(error))) return false
      throw error
    }
  }

  /** From which ports are chosen. */
  dynamicRange(): PortRange {
    const match = /^(\d+)\s+(\d+)/.exec(this.#stack.sysctl('net/ipv4/ip_local_port_range') ?? '')
    const [first, last] = match ? [Number(match[1]), Number(match[2])] : [0, 0]
    return first >= 1 && last >= first && last <= 65535 ? { first, last } : DYNAMIC_RANGE
  }

  /** Ports that the administrator keeps free of automatic choice: `8080,9000-9100`. */
  reserved(): PortSet {
    const text = this.#stack.sysctl('net/ipv4/ip_local_reserved_ports')?.trim() ?? ''
    if (this.#reserved?.text !== text) {
      const ports = new PortSet()
      for (const match of text.matchAll(/(\d+)(?:-(\d+))?/g))
        ports.addRange({ first: Number(match[1]), last: Number(match[2] ?? match[1]) })
      this.#reserved = { text, ports }
    }
    return this.#reserved.ports
  }
}
