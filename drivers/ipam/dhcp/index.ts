/**
 * The IPAM driver `dhcp`: addresses of a LAN, lent by its DHCP server. For macvlan networks on a parent link, and bridge
 * networks whose bridge has a port to the LAN. An address is asked for when its endpoint is made, over the network's link on
 * the host and with the endpoint's MAC, so it is known before any interface is there; it is given back when the endpoint goes.
 */
import { formatCidr, network, parseCidr } from '../../../lib/base/cidr'
import { CnmError } from '../../../lib/base/errors'
import { parse } from '../../../lib/base/parse'
import { flag, integer } from '../../../lib/driver/options'
import type {
  AddressAnswer,
  AddressChange,
  AddressRequest,
  AddressSpaces,
  IpamDriver,
  PoolAnswer,
  PoolRequest,
} from '../../../lib/ipam/contract'
import type { Stack } from '../../../lib/kernel/kernel'
import { z } from 'zod'
import { DhcpClient, type Interface, type OpenWire } from './client'
import { FILTER } from './frames'
import { Keeper } from './keeper'
import { Lease } from './lease'

const SPACE = 'dhcp'
const ANY = '0.0.0.0/0'

/** `ipam.options`. A pool's id holds all that is known of it: nothing need be remembered. */
const PoolOptions = z.strictObject({
  'libcnm.dhcp.timeout': integer(500, 600_000).default(15_000).describe('milliseconds to get an address in'),
  'libcnm.dhcp.probe': flag().default(true).describe('an address is not taken if somebody answers for it'),
})
interface Pool {
  /** CIDR that addresses must be in. */
  subnet: string
  timeout: number
  probe: boolean
}

export class DhcpIpamDriver implements IpamDriver {
  readonly name = 'dhcp'
  readonly capabilities = { requiresMac: true, requiresReplay: true, lends: true }
  readonly #client: DhcpClient
  readonly #kept = new Map<string, Keeper>()
  #tell: (change: AddressChange) => void = () => {}

  constructor(openWire: OpenWire) {
    this.#client = new DhcpClient(openWire)
  }

  watch(listener: (change: AddressChange) => void): void {
    this.#tell = listener
  }

  async defaultAddressSpaces(): Promise<AddressSpaces> {
    return { local: SPACE, global: SPACE }
  }

  /** Without a subnet: whatever the server gives. With one, an address outside of it is refused. */
  async requestPool({ space, family, pool, subPool, options = {} }: PoolRequest): Promise<PoolAnswer> {
    if (space !== SPACE)
      throw new CnmError(
        'ERR_ADDRESS_SPACE',
        `the IPAM driver dhcp has no address space ${JSON.stringify(space)}`,
        {
          space,
        },
      )
    if (family === 6)
      throw new CnmError(
        'ERR_UNSUPPORTED',
        'the IPAM driver dhcp has IPv4 only: create the network without IPv6',
      )
    if (subPool !== undefined)
      throw new CnmError('ERR_POOL_INVALID', `ipRange ${subPool}: the DHCP server decides what it lends`, {
        subPool,
      })
    const { 'libcnm.dhcp.timeout': timeout, 'libcnm.dhcp.probe': probe } = parse(
      PoolOptions,
      options,
      'ipam.options',
    )
    const subnet = pool === undefined ? ANY : formatCidr(network(parseCidr(pool)))
    if (parseCidr(subnet).family !== 4)
      throw new CnmError('ERR_POOL_INVALID', `${subnet} is no IPv4 subnet`, { pool })
    return { id: poolId({ subnet, timeout, probe }), pool: subnet, data: {} }
  }

  async releasePool(id: string): Promise<void> {
    poolOf(id)
  }

  /** Throws ERR_LEASE when no server gives one in time, ERR_UNSUPPORTED for a network without a link on the host. */
  async requestAddress(poolIdText: string, request: AddressRequest): Promise<AddressAnswer> {
    const { subnet, timeout, probe } = poolOf(poolIdText)
    const pool = parseCidr(subnet)
    const { address, owner, purpose, mac, name, link, state } = request
    // A router or another address that the user names is the LAN's own; it is not lent.
    if (purpose !== 'endpoint')
      return { address: address === undefined ? '' : `${address}/${pool.length}`, data: {} }
    if (link === undefined || mac === undefined)
      throw new CnmError(
        'ERR_UNSUPPORTED',
        'DHCP needs a link of the host to the LAN: use driver macvlan or bridge',
        {
          owner,
        },
      )
    const on: Interface = { link, mac, hostname: hostnameOf(name), length: pool.length || CLASSLESS }
    const known = state && Lease.safeParse(state).data
    if (known) return this.#keep(owner, known, on, keeper => keeper.resume())
    const wish = address === undefined ? {} : { wanted: address, only: true }
    const lease = await this.#client.acquire(on, wish, { timeout, probe }, lent =>
      pool.length > 0 && formatCidr(network({ ...parseCidr(lent.address), length: pool.length })) !== subnet
        ? `server ${lent.server} gave ${lent.address}, which is not in the network's subnet ${subnet}`
        : undefined,
    )
    return this.#keep(owner, lease, on, keeper => keeper.start())
  }

  async releaseAddress(poolIdText: string, address: string, owner: string): Promise<void> {
    poolOf(poolIdText)
    const keeper = this.#kept.get(owner)
    if (!keeper || keeper.lease.address.replace(/\/.*/, '') !== address.replace(/\/.*/, '')) return // never lent
    keeper.stop()
    this.#kept.delete(owner)
    await this.#client.release(keeper.on, keeper.lease)
  }

  async close(): Promise<void> {
    for (const keeper of this.#kept.values()) keeper.stop()
    this.#kept.clear()
    this.#client.close()
  }

  #keep(owner: string, lease: Lease, on: Interface, begin: (keeper: Keeper) => void): AddressAnswer {
    const change = (kept: Lease) => ({
      owner,
      address: kept.address,
      settings: kept.settings,
      state: { ...kept },
    })
    const keeper = new Keeper(lease, on, this.#client, {
      renewed: (kept, reason) => this.#tell({ what: 'renewed', ...change(kept), reason }),
      lost: (kept, reason) => this.#tell({ what: 'lost', ...change(kept), reason }),
    })
    this.#kept.get(owner)?.stop()
    this.#kept.set(owner, keeper)
    begin(keeper)
    return { address: lease.address, data: {}, settings: lease.settings, state: { ...lease } }
  }
}

/** Over links of the host. */
export const dhcpIpam = (host: Stack): IpamDriver => new DhcpIpamDriver(wireOn(host))

const wireOn =
  (host: Stack): OpenWire =>
  async (name, promiscuous, hear) => {
    const link = await host.link(name)
    if (!link?.up)
      throw new CnmError(
        'ERR_LEASE',
        `no address over link ${name}: ${link ? 'it is down' : 'there is none'}`,
        {
          link: name,
        },
      )
    if (!host.openPackets)
      throw new CnmError(
        'ERR_UNSUPPORTED',
        'this kernel carries no packets, so there is no DHCP over its links',
      )
    const { send, close } = host.openPackets({ link: link.index, filter: FILTER, promiscuous }, hear)
    return { mtu: link.mtu, send, close }
  }

/** Of an address whose server told no mask and whose network has no subnet: itself only. */
const CLASSLESS = 32

const poolId = ({ subnet, timeout, probe }: Pool): string =>
  `${SPACE}/${subnet} timeout=${timeout}${probe ? '' : ' unprobed'}`

function poolOf(id: string): Pool {
  const [, subnet, timeout, unprobed] = /^dhcp\/([\d.]+\/\d+) timeout=(\d+)( unprobed)?$/.exec(id) ?? []
  if (subnet === undefined)
    throw new CnmError('ERR_POOL_NOT_FOUND', `the IPAM driver dhcp has no pool ${JSON.stringify(id)}`, {
      poolId: id,
    })
  return { subnet, timeout: Number(timeout), probe: unprobed === undefined }
}

/** RFC 2132, 3.14: a DNS label; a name that is none is not told. */
const hostnameOf = (name: string | undefined): string | undefined =>
  name !== undefined && /^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/.test(name) ? name : undefined
