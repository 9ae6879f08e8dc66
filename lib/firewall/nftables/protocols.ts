import type { Protocol } from '../contract'

/** By number: names are looked up in /etc/protocols, which a small image has not. */
export const PROTOCOL: Record<Protocol, number> = { tcp: 6, udp: 17, sctp: 132 }
export const NUMBER_OF: Record<string, number> = { ...PROTOCOL, icmp: 1, 'ipv6-icmp': 58 }
