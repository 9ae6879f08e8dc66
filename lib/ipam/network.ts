/** The addresses of a network itself: its pools, gateways and auxiliary addresses. All of them, or none. */
import {
  addressOf,
  BITS,
  canonicalIp,
  type Cidr,
  contains,
  type Family,
  formatCidr,
  network,
  overlaps,
  parseCidr,
  parseIp,
} from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { atomically, type Undo } from '../base/undo'
import { type AddressPurpose, GATEWAY_DATA, type IpamDriver, type PoolAnswer } from './contract'
import { optionsWithout } from './pool-options'
import { clashes, refuseClash, type UsedSubnet } from './host'
import { unusable } from './special'

/** What the user says about one subnet of a network. Empty: all is chosen. */
export interface IpamConfig {
  /** CIDR; `0.0.0.0/24` or `::/64` for any of that size. */
  subnet?: string
  /** CIDR inside `subnet` that dynamic addresses come from. */
  ipRange?: string
  gateway?: string
  /** Name → address in `subnet` that no endpoint gets. */
  auxAddresses?: Record<string, string>
}

export interface NetworkIpamRequest {
  /** Id of the network: the owner of gateways and auxiliary addresses. */
  owner: string
  /** The driver's default space of the scope when absent. */
  space?: string
  /** `local` when absent. The host is looked at for local networks only. */
  scope?: 'local' | 'global'
  /** Absent: the network has no IPv4. Empty: one subnet of the driver's choice. */
  ipv4?: readonly IpamConfig[]
  ipv6?: readonly IpamConfig[]
  /** For {@link IpamDriver.requestPool}. */
  options?: Record<string, string>
  /** Every explicit subnet of the network, of the other family too; those of this request when absent. */
  subnets?: readonly string[]
  /** What the host uses: see `usedSubnets`. */
  used?: readonly UsedSubnet[]
  /** Not to be chosen, but taken if it is asked for: what is in use beyond this host's kernel and the address space. */
  avoid?: readonly UsedSubnet[]
  /** Take an explicit subnet even though the host uses it. */
  force?: boolean
  /** The network driver needs no gateway: none is chosen. One that the user or the IPAM driver names is still taken. */
  skipGateway?: boolean
  /** Auxiliary addresses that every subnet is to have: any free one where the user names none. */
  reserves?: readonly string[]
}

/** One subnet of a network, as plain data: to be stored, and given to {@link releaseNetwork} or {@link replayNetwork}. */
export interface PoolAllocation {
  poolId: string
  /** CIDR. */
  pool: string
  /** CIDR: the `ipRange` asked for. */
  subPool?: string
  /** ADDRESS/LEN */
  gateway?: string
  gatewayFrom?: 'user' | 'driver' | 'first-free'
  /** Name → ADDRESS/LEN */
  aux: Record<string, string>
  /** What the IPAM driver has to say to the network driver. */
  data: Record<string, string>
}

export interface NetworkIpam {
  ipv4: PoolAllocation[]
  ipv6: PoolAllocation[]
}

/**
 * Takes all that the network needs, or throws and has taken nothing. The order within a subnet is: pool, the user's
 * gateway, auxiliary addresses, and only then a gateway of the driver's choice, so that it never collides with an
 * auxiliary address (with libnetwork, which chooses first, an auxiliary x.x.x.1 fails).
 *
 * Throws ERR_INVALID_CIDR, ERR_INVALID_ADDRESS, ERR_POOL_INVALID, ERR_POOL_OVERLAP, ERR_POOLS_EXHAUSTED,
 * ERR_POOL_EXHAUSTED, ERR_ADDRESS_OUT_OF_RANGE, ERR_ADDRESS_IN_USE, ERR_HOST_ROUTE_CONFLICT, ERR_IPAM_DRIVER.
 */
export async function allocateNetwork(driver: IpamDriver, request: NetworkIpamRequest): Promise<NetworkIpam> {
  const { scope = 'local', skipGateway = false } = request
  checkConfigs(4, request.ipv4 ?? [], skipGateway)
  checkConfigs(6, request.ipv6 ?? [], skipGateway)
  return atomically(async undo => {
    const space = request.space ?? (await driver.defaultAddressSpaces())[scope]
    const { used = [], avoid = [] } = request
    const explicit = [...(request.ipv4 ?? []), ...(request.ipv6 ?? [])].flatMap(({ subnet }) => subnet ?? [])
    const subnets = (request.subnets ?? explicit).map(text => network(parseCidr(text)))
    const task: Task = { ...request, driver, space, used, avoid, subnets, force: request.force ?? false }
    const take = async (family: Family, configs: readonly IpamConfig[] | undefined) => {
      const taken: PoolAllocation[] = []
      if (configs === undefined) return taken
      for (const config of configs.length > 0 ? configs : [{}])
        taken.push(await allocateOne(task, family, config, skipGateway, undo))
      return taken
    }
    return { ipv4: await take(4, request.ipv4), ipv6: await take(6, request.ipv6) }
  })
}

/**
 * After a restart, for a driver that `requiresReplay`: asks again for exactly what the network had. The host is not
 * looked at, for the network is there. The answer replaces what is stored.
 */
export async function replayNetwork(
  driver: IpamDriver,
  had: NetworkIpam,
  request: Pick<NetworkIpamRequest, 'owner' | 'space' | 'scope' | 'options'>,
): Promise<NetworkIpam> {
  return atomically(async undo => {
    const space = request.space ?? (await driver.defaultAddressSpaces())[request.scope ?? 'local']
    const subnets = [...had.ipv4, ...had.ipv6].map(({ pool }) => parseCidr(pool))
    const task: Task = { ...request, driver, space, used: [], avoid: [], subnets, force: true }
    const again = async (family: Family, allocations: readonly PoolAllocation[]) => {
      const taken: PoolAllocation[] = []
      for (const allocation of allocations) {
        const { pool, subPool, gateway, gatewayFrom, aux } = allocation
        const config: IpamConfig = {
          auxAddresses: Object.fromEntries(
            Object.entries(aux).map(([name, cidr]) => [name, addressOf(cidr)]),
          ),
        }
        if (parseCidr(pool).length > 0) config.subnet = pool
        if (subPool !== undefined) config.ipRange = subPool
        if (gateway !== undefined && gatewayFrom !== 'driver') config.gateway = addressOf(gateway)
        const now = await allocateOne(task, family, config, true, undo)
        taken.push(gatewayFrom === undefined || now.gateway === undefined ? now : { ...now, gatewayFrom })
      }
      return taken
    }
    return { ipv4: await again(4, had.ipv4), ipv6: await again(6, had.ipv6) }
  })
}

/**
 * The inverse of {@link allocateNetwork}. Goes on after a failure and throws the first one at the end; what is gone
 * already is no failure, so it can be called again.
 */
export async function releaseNetwork(driver: IpamDriver, had: NetworkIpam, owner: string): Promise<void> {
  const failures: unknown[] = []
  const attempt = async (act: () => Promise<void>) => {
    try {
      await act()
    } catch (error) {
      if (!isCnmError(error, 'ERR_POOL_NOT_FOUND', 'ERR_ADDRESS_NOT_ALLOCATED', 'ERR_ADDRESS_OUT_OF_RANGE'))
        failures.push(error)
    }
  }
  for (const { poolId, gateway, gatewayFrom, aux } of [...had.ipv6, ...had.ipv4].reverse()) {
    for (const cidr of Object.values(aux).reverse())
      await attempt(() => driver.releaseAddress(poolId, addressOf(cidr), owner))
    if (gateway !== undefined && gatewayFrom !== 'driver')
      await attempt(() => driver.releaseAddress(poolId, addressOf(gateway), owner))
    await attempt(() => driver.releasePool(poolId))
  }
  if (failures.length > 0) throw failures[0]
}

interface Task {
  driver: IpamDriver
  owner: string
  space: string
  options?: Record<string, string>
  used: readonly UsedSubnet[]
  avoid: readonly UsedSubnet[]
  /** All subnets of the network that are known before. */
  subnets: readonly Cidr[]
  force: boolean
  reserves?: readonly string[]
}

async function allocateOne(
  task: Task,
  family: Family,
  config: IpamConfig,
  skipGateway: boolean,
  undo: Undo,
): Promise<PoolAllocation> {
  const answer = await takePool(task, family, config, undo)
  const pool = answered(task.driver, answer.pool, family)
  const allocation: PoolAllocation = {
    poolId: answer.id,
    pool: formatCidr(network(pool)),
    aux: {},
    data: answer.data,
  }
  if (config.ipRange !== undefined) {
    const range = network(parseCidr(config.ipRange))
    allocation.subPool = formatCidr(range)
  }

  const named = answer.data[GATEWAY_DATA]
  if (config.gateway !== undefined) {
    if (!contains(pool, parseIp(config.gateway)))
      throw new CnmError(
        'ERR_ADDRESS_OUT_OF_RANGE',
        `gateway ${config.gateway} is not in ${allocation.pool}, the subnet that was chosen; give its subnet as well`,
        { address: config.gateway, pool: allocation.pool },
      )
    allocation.gateway = await takeAddress(
      task,
      answer.id,
      pool,
      'gateway',
      canonicalIp(config.gateway),
      undo,
    )
    allocation.gatewayFrom = 'user'
  } else if (named !== undefined) {
    allocation.gateway = formatCidr(answered(task.driver, named, family))
    allocation.gatewayFrom = 'driver'
  }
  for (const [name, text] of Object.entries(config.auxAddresses ?? {})) {
    const address = canonicalIp(text)
    if (!contains(pool, parseIp(address)))
      throw new CnmError(
        'ERR_ADDRESS_OUT_OF_RANGE',
        `auxiliary address ${name}=${address} is not in subnet ${allocation.pool}`,
        { name, address, pool: allocation.pool },
      )
    try {
      allocation.aux[name] = await takeAddress(task, answer.id, pool, 'auxiliary', address, undo)
    } catch (error) {
      // a driver that gives addresses of the range only cannot give this one to anybody else either
      if (!isCnmError(error, 'ERR_ADDRESS_OUT_OF_RANGE')) throw error
      allocation.aux[name] = `${address}/${pool.length}`
    }
  }
  if (allocation.gateway === undefined && !skipGateway) {
    const gateway = await takeAddress(task, answer.id, pool, 'gateway', undefined, undo)
    if (gateway !== '') {
      allocation.gateway = gateway
      allocation.gatewayFrom = 'first-free'
    }
  }
  for (const name of task.reserves ?? []) {
    if (allocation.aux[name] !== undefined) continue
    const address = await takeAddress(task, answer.id, pool, 'auxiliary', undefined, undo)
    if (address !== '') allocation.aux[name] = address
  }
  return allocation
}

async function takePool(task: Task, family: Family, config: IpamConfig, undo: Undo): Promise<PoolAnswer> {
  const { driver, space, used, avoid, force } = task
  const own = config.subnet === undefined ? undefined : network(parseCidr(config.subnet))
  const others = task.subnets.filter(subnet => own === undefined || formatCidr(subnet) !== formatCidr(own))
  const options = task.options && optionsWithout(task.options, others)
  const request = {
    space,
    family,
    ...(config.subnet !== undefined && { pool: config.subnet }),
    ...(config.ipRange !== undefined && { subPool: config.ipRange }),
    ...(options !== undefined && { options }),
  }
  const explicit = config.subnet !== undefined && parseCidr(config.subnet).value !== 0n
  if (explicit) refuseClash(formatCidr(network(parseCidr(request.pool as string))), used, force)
  const taken = new Set<string>()
  const giveBack = async (id: string) => {
    if (taken.delete(id)) await driver.releasePool(id)
  }
  const take = async () => {
    const answer = await driver.requestPool(
      explicit ? request : { ...request, exclude: [...used, ...avoid].map(({ subnet }) => subnet) },
    )
    taken.add(answer.id)
    undo.push(`release pool ${answer.id}`, () => giveBack(answer.id))
    return answer
  }
  return explicit ? take() : clearOfHost(task, family, take, giveBack)
}

/** How many pools that the host uses a driver may offer before we give up on it. */
const MAX_OFFERS = 64

/**
 * A driver may know nothing of `exclude` (the remote protocol has no such field). So a pool that the host uses is kept,
 * another one is asked for, and those kept are given back at the end.
 */
async function clearOfHost(
  task: Task,
  family: Family,
  take: () => Promise<PoolAnswer>,
  giveBack: (id: string) => Promise<void>,
): Promise<PoolAnswer> {
  const { driver, used, avoid } = task
  const kept: PoolAnswer[] = []
  for (;;) {
    const answer = await take()
    const pool = answered(driver, answer.pool, family)
    const found = pool.length === 0 ? [] : clashes(answer.pool, [...used, ...avoid])
    if (found.length === 0) {
      for (const { id } of kept) await giveBack(id)
      return answer
    }
    kept.push(answer)
    if (kept.length === MAX_OFFERS)
      throw new CnmError(
        'ERR_POOLS_EXHAUSTED',
        `IPAM driver ${driver.name} offered ${MAX_OFFERS} pools that are in use, the last one ${answer.pool} (${found[0]?.description})`,
        { driver: driver.name, offered: kept.map(({ pool: text }) => text) },
      )
  }
}

/** ADDRESS/LEN; '' when the driver gives no addresses at all. */
async function takeAddress(
  { driver, owner }: Task,
  poolId: string,
  pool: Cidr,
  purpose: AddressPurpose,
  wanted: string | undefined,
  undo: Undo,
): Promise<string> {
  const request = { owner, purpose, ...(wanted !== undefined && { address: wanted }) }
  const { address } = await driver.requestAddress(poolId, request)
  if (address === '') {
    if ((pool.length === 0 || driver.capabilities.lends) && wanted === undefined) return ''
    throw broken(driver, `gave no address for ${purpose} ${wanted ?? ''} of pool ${poolId}`)
  }
  const given = addressOf(address)
  undo.push(`release ${purpose} ${address} of ${poolId}`, () => driver.releaseAddress(poolId, given, owner))
  const parsed = answered(driver, address, pool.family)
  if (wanted !== undefined && parsed.value !== parseIp(wanted).value)
    throw broken(driver, `gave ${address} instead of ${wanted}`)
  return formatCidr(parsed)
}

/** ADDRESS/LEN that a driver answered. Throws ERR_IPAM_DRIVER. */
function answered(driver: IpamDriver, text: string, family: Family): Cidr {
  try {
    const cidr = parseCidr(text)
    if (cidr.family === family) return cidr
  } catch (error) {
    if (!isCnmError(error)) throw error
  }
  throw broken(driver, `answered ${JSON.stringify(text)} where an IPv${family} ADDRESS/LENGTH belongs`)
}

const broken = (driver: IpamDriver, what: string) =>
  new CnmError('ERR_IPAM_DRIVER', `IPAM driver ${driver.name} ${what}`, { driver: driver.name })

/** All that can be said without asking the driver. */
function checkConfigs(family: Family, configs: readonly IpamConfig[], skipGateway: boolean): void {
  const subnets: Cidr[] = []
  for (const { subnet: text, ipRange, gateway, auxAddresses } of configs) {
    const subnet = text === undefined ? undefined : subnetOf(family, 'subnet', text)
    const range = ipRange === undefined ? undefined : subnetOf(family, 'ipRange', ipRange)
    const fixed = subnet !== undefined && subnet.value !== 0n ? subnet : undefined
    if (range !== undefined && fixed === undefined)
      throw new CnmError('ERR_POOL_INVALID', `ipRange ${ipRange} needs the subnet that it is part of`, {
        ipRange,
      })
    if (gateway !== undefined) checkInside(family, 'gateway', gateway, fixed)
    const uses = new Map<string, string>(gateway === undefined ? [] : [[canonicalIp(gateway), 'gateway']])
    for (const [name, address] of Object.entries(auxAddresses ?? {})) {
      const use = `auxiliary address ${name}`
      checkInside(family, use, address, fixed)
      const before = uses.get(canonicalIp(address))
      if (before !== undefined)
        throw new CnmError('ERR_ADDRESS_IN_USE', `${address} is named twice: as ${before} and as ${use}`, {
          address,
        })
      uses.set(canonicalIp(address), use)
    }
    if (subnet !== undefined) checkRoom('subnet', subnet, gateway !== undefined || !skipGateway)
    if (fixed === undefined) continue
    checkUsable(fixed)
    if (range !== undefined && range.length < fixed.length)
      throw new CnmError(
        'ERR_POOL_INVALID',
        `ipRange ${ipRange} is larger than its subnet ${formatCidr(fixed)}; it must lie inside it`,
        { ipRange, pool: formatCidr(fixed) },
      )
    // a gateway that nobody names is the first free address of the range
    if (range !== undefined)
      checkRoom('ipRange', range, gateway === undefined ? !skipGateway : isOnly(range, gateway))
    const other = subnets.find(before => overlaps(before, fixed))
    if (other !== undefined && !(ipRange !== undefined && formatCidr(other) === formatCidr(fixed)))
      throw new CnmError(
        'ERR_POOL_OVERLAP',
        `subnets ${formatCidr(other)} and ${formatCidr(fixed)} of one network overlap`,
        { pool: formatCidr(fixed), taken: formatCidr(other) },
      )
    subnets.push(fixed)
  }
}

function checkUsable(subnet: Cidr): void {
  const text = formatCidr(subnet)
  const bad = unusable(subnet)
  if (bad !== undefined)
    throw new CnmError('ERR_POOL_INVALID', `subnet ${text} cannot be used, ${bad.why}`, {
      pool: text,
      block: bad.block,
    })
}

const isOnly = (block: Cidr, address: string): boolean => block.value === parseIp(address).value

/** A block of one address whose only one becomes the gateway serves no endpoint. */
function checkRoom(what: string, block: Cidr, takesGateway: boolean): void {
  if (!takesGateway || block.length !== BITS[block.family]) return
  const text = formatCidr(block)
  throw new CnmError(
    'ERR_POOL_INVALID',
    `${what} ${text} has one address, which the gateway takes; none is left for an endpoint`,
    { pool: text },
  )
}

function subnetOf(family: Family, what: string, text: string): Cidr {
  const parsed = parseCidr(text)
  if (parsed.family !== family)
    throw new CnmError('ERR_POOL_INVALID', `${what} ${text} is not an IPv${family} subnet`, {
      [what]: text,
      family,
    })
  // the unspecified address stands for "any of this size" and is told apart before the host bits go
  return parsed.value === 0n ? parsed : network(parsed)
}

function checkInside(family: Family, what: string, text: string, subnet: Cidr | undefined): void {
  const ip = parseIp(text)
  if (ip.family !== family)
    throw new CnmError('ERR_INVALID_ADDRESS', `${what} ${text} is not an IPv${family} address`, {
      address: text,
      family,
    })
  if (subnet !== undefined && !contains(subnet, ip))
    throw new CnmError('ERR_ADDRESS_OUT_OF_RANGE', `${what} ${text} is not in subnet ${formatCidr(subnet)}`, {
      address: text,
      pool: formatCidr(subnet),
    })
}
