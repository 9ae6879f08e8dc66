/**
 * The contract between the core and whoever manages addresses. Plain data in, plain data out: an IPAM driver never
 * calls back, but for telling what became of addresses that are only lent ({@link IpamDriver.watch}). Built in are
 * `default`, `null` and `dhcp`; third parties register theirs and prove it with `ipamSuite` of `libcnm/testing`.
 *
 * A *space* is a set of pools that do not overlap; a *pool* is one subnet; a *subpool* is the part of it that addresses
 * are chosen from; an *owner* is the id of the endpoint that holds an address (of the network, for its gateway and
 * auxiliary addresses).
 */
import type { Family } from '../base/cidr'

export interface IpamDriver {
  readonly name: string
  readonly capabilities: IpamCapabilities
  /** The space for networks of this host only, and the one for networks that span hosts. May be the same. */
  defaultAddressSpaces(): Promise<AddressSpaces>
  /**
   * Takes a pool. `pool` absent: any of the driver's choice. `0.0.0.0/24` or `::/64` (unspecified address): any of
   * that size. Throws ERR_ADDRESS_SPACE, ERR_POOL_INVALID, ERR_POOL_OVERLAP, ERR_POOLS_EXHAUSTED; then nothing changed.
   */
  requestPool(request: PoolRequest): Promise<PoolAnswer>
  /** Gives it back, with all that is left in it. Throws ERR_POOL_NOT_FOUND. */
  releasePool(id: string): Promise<void>
  /**
   * Takes an address. `address` absent: one of the driver's choice, inside the subpool; given: that one, anywhere in
   * the pool. Throws ERR_POOL_NOT_FOUND, ERR_ADDRESS_OUT_OF_RANGE, ERR_ADDRESS_IN_USE, ERR_POOL_EXHAUSTED.
   */
  requestAddress(poolId: string, request: AddressRequest): Promise<AddressAnswer>
  /**
   * Gives it back; `address` with or without the prefix length. Throws ERR_POOL_NOT_FOUND, ERR_ADDRESS_OUT_OF_RANGE,
   * ERR_ADDRESS_NOT_ALLOCATED, ERR_ADDRESS_NOT_OWNED (somebody else holds it: nothing changed).
   */
  releaseAddress(poolId: string, address: string, owner: string): Promise<void>
  /** How full the pool is. Optional. */
  status?(poolId: string): Promise<PoolStatus>
  /** Called once, before anything is asked: `listener` is told what becomes of addresses. It does not throw. */
  watch?(listener: (change: AddressChange) => void): void
  /** Lets go of sockets and timers. Addresses stay taken. */
  close?(): Promise<void>
}

export interface IpamCapabilities {
  /** Wants the endpoint's MAC in {@link AddressRequest.mac}: the core then chooses it before it asks. */
  requiresMac: boolean
  /** Keeps nothing across restarts: the core asks again for every pool and address that it knows, explicitly. */
  requiresReplay: boolean
  /**
   * The addresses are those of a network that is there without us, and lent by it. So the host's own routes to a subnet are no
   * conflict, no gateway is chosen, and the network driver must have a link on the host and a MAC for each endpoint.
   */
  lends?: boolean
}

/** What an address comes with, where it is not ours to choose: for the interface that bears it, and for its sandbox. */
export interface AddressSettings {
  /** Used where the network driver names none. */
  gateway?: string
  /** Apart from the default route. No gateway: on the link. */
  routes?: { destination: string; gateway?: string }[]
  /** Bytes. */
  mtu?: number
  /** Used where neither the user nor the sandbox names any. */
  dns?: { servers: string[]; search: string[] }
}

/** An address that is lent: `renewed` (it may come with other settings now, or be ours again), or `lost`. */
export interface AddressChange {
  what: 'renewed' | 'lost'
  /** Of the request. */
  owner: string
  /** ADDRESS/LEN */
  address: string
  settings: AddressSettings
  /** Replaces {@link AddressAnswer.state}. */
  state: Record<string, unknown>
  /** Why it is lost, or that it was. */
  reason?: string
}

export interface AddressSpaces {
  local: string
  global: string
}

export interface PoolRequest {
  space: string
  family: Family
  /** CIDR; host bits are cleared. */
  pool?: string
  /** CIDR inside `pool`, which must be given too. */
  subPool?: string
  /** Driver's own; see {@link POOL_OPTIONS} for those of the default driver. */
  options?: Record<string, string>
  /** Subnets that a pool of the driver's choice must not touch: what the host uses. No effect on an explicit pool. */
  exclude?: string[]
}

export interface PoolAnswer {
  id: string
  /** CIDR of the whole (master) pool. */
  pool: string
  /** {@link GATEWAY_DATA} → ADDRESS/LEN: the driver insists on this gateway. Anything else goes to the network driver. */
  data: Record<string, string>
}

/** `virtual`: of a service, behind which several endpoints stand. */
export type AddressPurpose = 'endpoint' | 'gateway' | 'auxiliary' | 'virtual'

export interface AddressRequest {
  address?: string
  /** Id of the endpoint or the service; of the network for gateway and auxiliary addresses. */
  owner: string
  purpose: AddressPurpose
  mac?: string
  /** Name of the endpoint: the key of stickiness. */
  name?: string
  options?: Record<string, string>
  /** The network's interface on the host. */
  link?: string
  /** When an address is asked for again after a restart: {@link AddressAnswer.state} as last known. */
  state?: Record<string, unknown>
}

export interface AddressAnswer {
  /** ADDRESS/LEN with the length of the master pool, also when it comes from a subpool; '' from the null driver. */
  address: string
  /** The MAC that goes with the address (stickiness); the caller uses it unless the user gave one. */
  mac?: string
  data: Record<string, string>
  settings?: AddressSettings
  /** The driver's own, plain data: kept with the address, and handed back after a restart. */
  state?: Record<string, unknown>
}

export interface PoolStatus {
  /** Addresses not free in the whole pool: held, reserved (network, broadcast, anycast) or in quarantine. */
  inUse: bigint
  /** Addresses that a request without `address` may still be given. */
  dynamicAvailable: bigint
}

/** Key of {@link PoolAnswer.data} (Docker's) by which a driver names the gateway itself. */
export const GATEWAY_DATA = 'com.docker.network.gateway'

/** Keys of {@link PoolRequest.options} that the default driver knows. Unknown `libcnm.ipam.` keys are refused. */
export const POOL_OPTIONS = {
  /** 'true': the next address after the last one given, wrapping, instead of the lowest free one (Docker's key). */
  serial: 'com.docker.network.ipam.serial',
  /** Milliseconds for which a released address is not chosen again. An explicit request may take it. */
  quarantine: 'libcnm.ipam.quarantine',
  /** 'true': a name gets the address and MAC it had before, while they are free. */
  sticky: 'libcnm.ipam.sticky',
  /** CIDRs or FIRST-LAST, separated by commas: only explicit requests (and a gateway) are served from there. */
  staticRange: 'libcnm.ipam.static-range',
} as const
