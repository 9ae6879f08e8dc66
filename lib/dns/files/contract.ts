/** The files that a runtime mounts over /etc/hosts, /etc/resolv.conf and /etc/hostname. */
import type { Logger } from '../../base/log'
import type { Upstream } from '../contract'

export interface FilePaths {
  hosts: string
  resolvConf: string
  hostname: string
}

export interface HostsEntry {
  address: string
  /** The first is the canonical one. */
  names: string[]
}

/**
 * Who resolves in the container. `embedded`: ours, at 127.0.0.11; `legacy`: the servers of the host that a container can
 * reach (default bridge); `host`: the host's own file as it is (host networking).
 */
export type ResolverKind = 'embedded' | 'legacy' | 'host'

export interface SandboxFiles {
  readonly paths: FilePaths
  /** Lines of one endpoint, replacing its earlier ones. */
  setEntries(owner: string, entries: HostsEntry[]): void
  removeEntries(owner: string): void
  /** Lines for `--link`, replacing the earlier ones; they stand before those of endpoints. */
  setLinks(entries: HostsEntry[]): void
  /** Replaces the settings that resolv.conf is made with. */
  setDns(dns: FilesRequest['dns']): void
  /** Writes what has changed, in place. `ipv6`: the sandbox has IPv6, so lines for `::1` make sense. */
  write(resolver: ResolverKind, ipv6: boolean): void
  /** Removes the files. */
  remove(): void
  close(): void
}

export interface FileUpstreams {
  servers: { address: string; from: 'host' | 'sandbox' }[]
  search: string[]
  ndotsFromUser: boolean
}

/** Whom a sandbox's resolver asks on. */
export interface FollowedUpstreams {
  /** `dns`: the sandbox's settings, servers as `[DOMAIN=]ADDRESS[#PORT]`. */
  resolvedBy(dns: FilesRequest['dns']): { upstreams: Upstream[]; search: string[]; ndotsFromUser: boolean }
  close(): void
}

/** `changed`: the host's name servers are others now. */
export type FollowUpstreams = (resolvConf: string, changed: () => void) => FollowedUpstreams

export interface FilesRequest {
  /** Made when it is not there. */
  directory: string
  hostname: string
  domainname?: string
  /** `name:address` or `name=address`; the address may stand in brackets, or be `host-gateway`. */
  extraHosts: string[]
  /** Of the servers, those with a domain or a port are for our resolver only: resolv.conf cannot name them. */
  dns: { servers: string[]; search: string[]; options: string[] }
  /** File that the host's name servers are read from, and followed. */
  resolvConf: string
  /** What is copied with host networking; default /etc/hosts. */
  hostsFile?: string
  /** What `host-gateway` stands for. */
  hostGateway?: string | string[]
  log?: Logger
}

/** Throws ERR_INVALID_OPTION for an extra host that cannot be, ERR_FILES when the directory cannot be made. */
export type OpenFiles = (request: FilesRequest) => SandboxFiles
