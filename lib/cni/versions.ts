/** Versions of the CNI specification that are spoken, and what became of a result between them. */
import { CODES, CniError } from './errors'

export const VERSIONS = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const
export type CniVersion = (typeof VERSIONS)[number]
export const NEWEST: CniVersion = '1.1.0'

export const isSpoken = (version: unknown): version is CniVersion =>
  VERSIONS.some(spoken => spoken === version)

/** Commands are as old as the specification, but for these. */
const SINCE: Readonly<Record<string, CniVersion>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' }

/** Throws code 1. A configuration that names no version means 0.1.0, says the specification. */
export function spokenVersion(version: unknown, command: string): CniVersion {
  const shown = typeof version === 'string' ? version : '0.1.0'
  if (!isSpoken(version))
    throw new CniError(
      CODES.incompatibleVersion,
      `cniVersion ${JSON.stringify(shown).slice(0, 40)} is not spoken`,
      `spoken: ${VERSIONS.join(', ')}`,
    )
  const since = SINCE[command]
  if (since && VERSIONS.indexOf(version) < VERSIONS.indexOf(since))
    throw new CniError(
      CODES.incompatibleVersion,
      `${command} came with cniVersion ${since}; the configuration says ${version}`,
    )
  return version
}

/** A result in the newest form. */
export interface CniResult {
  interfaces: CniInterface[]
  ips: CniAddress[]
  routes: CniRoute[]
  dns: CniDns
}
export interface CniInterface {
  name: string
  mac?: string
  /** Since 1.1.0. */
  mtu?: number
  /** Path of the namespace; absent on the host. */
  sandbox?: string
}
export interface CniAddress {
  /** ADDRESS/LENGTH */
  address: string
  gateway?: string
  /** Into `interfaces`. */
  interface?: number
}
export interface CniRoute {
  dst: string
  gw?: string
}
export interface CniDns {
  nameservers?: string[]
  domain?: string
  search?: string[]
  options?: string[]
}

/** What goes to standard output. Before 1.0.0 each address said its family; before 1.1.0 links had no MTU. */
export function renderResult({ interfaces, ips, routes, dns }: CniResult, version: CniVersion): object {
  const at = VERSIONS.indexOf(version)
  const old = at < VERSIONS.indexOf('1.0.0')
  const mtus = at >= VERSIONS.indexOf('1.1.0')
  return {
    cniVersion: version,
    interfaces: interfaces.map(({ mtu, ...link }) => (mtus && mtu !== undefined ? { ...link, mtu } : link)),
    ips: ips.map(ip => (old ? { version: ip.address.includes(':') ? '6' : '4', ...ip } : ip)),
    routes,
    dns,
  }
}

/** What follows an earlier plugin's result: its interfaces keep their places. */
export function appendResult(before: CniResult | undefined, own: CniResult): CniResult {
  if (!before) return own
  const shift = before.interfaces.length
  return {
    interfaces: [...before.interfaces, ...own.interfaces],
    ips: [
      ...before.ips,
      ...own.ips.map(ip => ({
        ...ip,
        ...(ip.interface !== undefined && { interface: ip.interface + shift }),
      })),
    ],
    routes: [...before.routes, ...own.routes],
    dns: { ...before.dns, ...own.dns },
  }
}
