/** What is stored of each noun: the state as it should be. After a restart the kernel is brought to it. */
import type { Family } from '../base/cidr'
import type { Attachment, EndpointSpec, NetworkPool, NetworkState } from '../driver/contract'
import type { EndpointOptions, JoinOptions, NetworkOptions, SandboxOptions } from '../options'
import type { PublishedPort } from '../ports/contract'

export type { ServiceRecord } from '../cluster/records'

/** One pool of a network, as IPAM gave it. */
export interface PoolRecord extends NetworkPool {
  poolId: string
  subPool?: string
  gatewayFrom?: 'user' | 'driver' | 'first-free'
  /** What the IPAM driver said beside it. */
  data: Record<string, string>
  /** The user asked for this very subnet (inspect shows it as configuration). */
  explicit: boolean
}

export interface NetworkRecord {
  id: string
  name: string
  driver: string
  scope: string
  created: string
  predefined: boolean
  ipv4: boolean
  ipv6: boolean
  /** As parsed, with configFrom applied. */
  config: NetworkOptions
  /** Output of the driver's option schema. */
  driverOptions: unknown
  pools: PoolRecord[]
  state: NetworkState
  /** Past the point of no return of a delete: finished at the next start. */
  deleting: boolean
}

export interface EndpointRecord {
  id: string
  networkId: string
  name: string
  created: string
  config: EndpointOptions
  driverOptions: Record<string, unknown>
  mac: string
  /** ADDRESS/LENGTH and the pool that it is from. */
  addresses: Partial<Record<Family, { address: string; poolId: string }>>
  data?: Record<string, unknown>
  /** The service whose task it is, and its share of the new flows. */
  task?: { serviceId: string; weight: number }
  join?: JoinRecord
}

export interface JoinRecord {
  sandboxId: string
  options: JoinOptions
  interfaceName: string
  /** Absent while the sandbox has no namespace yet. */
  attachment?: Attachment
  published: PublishedPort[]
}

export interface SandboxRecord {
  id: string
  containerId: string
  created: string
  config: SandboxOptions
  /** Path of the namespace; absent while `deferred`. */
  key?: string
  /** Mode `container:ID`: id of the sandbox whose namespace it shares. Another sandbox of that container is another namespace. */
  owner?: string
  /** Inode of the namespace, to tell it from a later one at the same path. */
  inode?: number
  /** Boot that it was made in. */
  bootId?: string
}

/** What drivers are told of an endpoint. */
export function endpointSpec(record: EndpointRecord): EndpointSpec {
  return {
    id: record.id,
    name: record.name,
    mac: record.mac,
    macGiven: record.config.mac !== undefined,
    ipv4: record.addresses[4]?.address,
    ipv6: record.addresses[6]?.address,
    linkLocal: record.config.linkLocal.map(address => `${address}/${address.includes(':') ? 64 : 16}`),
    options: record.driverOptions,
    data: record.data,
  }
}
