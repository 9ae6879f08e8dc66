/** What is stored of each noun: the state as it should be. After a restart the kernel is brought to it. */
import type { Family } from '../base/cidr'
import type { Attachment, DriverNetwork, EndpointSpec, NetworkPool, NetworkState } from '../driver/contract'
import type { AddressSettings } from '../ipam/contract'
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
  /** Made without a cluster by a driver whose networks span hosts where there is one: it stays this host's own. */
  alone?: boolean
}

/** As its driver sees it. */
export const forDriverOf = ({
  id,
  name,
  ipv4,
  ipv6,
  pools,
  config,
  driverOptions,
  state,
}: NetworkRecord): DriverNetwork => ({
  spec: {
    id,
    name,
    internal: config.internal,
    ipv4,
    ipv6,
    pools,
    labels: config.labels,
    options: driverOptions,
  },
  state,
})

export interface AddressRecord {
  /** ADDRESS/LENGTH */
  address: string
  /** The pool that it is from. */
  poolId: string
  /** As the IPAM driver answered last. */
  settings?: AddressSettings
  state?: Record<string, unknown>
}

export interface EndpointRecord {
  id: string
  networkId: string
  name: string
  created: string
  config: EndpointOptions
  driverOptions: Record<string, unknown>
  mac: string
  addresses: Partial<Record<Family, AddressRecord>>
  data?: Record<string, unknown>
  /** The service whose task it is, and its share of the new flows. */
  task?: { serviceId: string; weight: number }
  /** Out of the answers to its names, and of the balancing; until it leaves. */
  unhealthy?: boolean
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
    settings: settingsOf(record),
    options: record.driverOptions,
    data: record.data,
  }
}

/** What the addresses of an endpoint come with; those of IPv4 first. */
function settingsOf({ addresses }: EndpointRecord): AddressSettings | undefined {
  const [four, six] = [addresses[4]?.settings, addresses[6]?.settings]
  return four && six ? { ...six, ...four } : (four ?? six)
}
