/**
 * The sockets that hold ports: they take no packets, or they wait for the proxy. A port that is proxied over UDP on all addresses has
 * one for each address of the host, as those come and go.
 */
import { type Family, familyOf, formatIp, parseIp } from '../base/cidr'
import type { Logger } from '../base/log'
import type { Stack, Watch } from '../kernel/kernel'
import type { PortSet } from './allocator'
import { errnoOf, explainSocket } from './busy'
import { type Cell, isWildcard } from './cells'
import type { PublishedPort } from './contract'
import type { UdpListener } from './proxy'

export class CellSockets {
  readonly #seen: { stack: Stack; log: Logger }
  readonly #isHeld: (cell: Cell) => boolean
  /** UDP wildcards with a socket per address, which follow the addresses of the host. */
  readonly #followers = new Set<Cell>()
  #watch: Watch | undefined

  /** `isHeld`: is it one of the publisher's still? */
  constructor(stack: Stack, log: Logger, isHeld: (cell: Cell) => boolean) {
    this.#seen = { stack, log }
    this.#isHeld = isHeld
  }

  /** Opens those of a cell that are not there yet. The caller drops the cell when it throws. */
  async bind(cell: Cell, port: PublishedPort, nameHolder: boolean, listed: () => PortSet): Promise<void> {
    if (cell.range.last > cell.range.first) return this.#probe(cell, port, listed())
    const addresses = this.#spread(cell) ? await this.#hostAddresses(cell) : [cell.address]
    for (const address of addresses) {
      if (!this.#isHeld(cell)) return // released meanwhile
      if (!cell.sockets.has(address)) await this.#openSocket(cell, address, port, nameHolder)
    }
  }

  /**
   * A datagram's answer must come from the address that it was sent to, which Node does not tell of a wildcard socket:
   * so a proxied UDP wildcard has a socket per address of the host.
   */
  #spread(cell: Cell): boolean {
    return !cell.silent && cell.protocol === 'udp' && isWildcard(cell.address)
  }

  async #hostAddresses(cell: Cell): Promise<string[]> {
    const family = familyOf(cell.address)
    this.#followers.add(cell)
    this.#watch ??= this.#followAddresses() // before they are listed, so that none is missed
    const all = await this.#seen.stack.addresses()
    return all
      .filter(({ address, tentative }) => !tentative && servable(bare(address), family))
      .map(({ address }) => bare(address))
  }

  async #openSocket(cell: Cell, address: string, port: PublishedPort, nameHolder: boolean): Promise<void> {
    try {
      cell.sockets.set(address, this.#socketFor(cell, address, cell.range.first))
    } catch (error) {
      const errno = errnoOf(error)
      // A kernel without SCTP cannot have anybody else on the port either.
      if (cell.protocol === 'sctp' && NO_PROTOCOL.has(errno)) return
      // One of the host's addresses, for a wildcard: it was there when they were listed, and its network is deleted since.
      if (address !== cell.address && errno === 'EADDRNOTAVAIL') return
      throw await explainSocket(this.#seen, error, port, address, cell.range.first, nameHolder)
    }
  }

  #socketFor(cell: Pick<Cell, 'protocol' | 'silent'>, address: string, port: number): number {
    const stream = cell.protocol !== 'udp'
    return this.#seen.stack.openSocket({
      type: cell.protocol,
      address,
      port,
      // Listening, because another socket with SO_REUSEADDR could be bound beside one that is merely bound; and with
      // SO_REUSEADDR, because connections of an earlier holder in TIME-WAIT are in nobody's way.
      ...(stream && { listen: cell.silent ? 1 : 511, reuseAddress: true }),
      // Without packets, because a connection must not be accepted before the firewall leads it to the container. What
      // is proxied may wait in the backlog until the proxy is started.
      dropAll: cell.silent,
    })
  }

  /** Finds out whether a long range is free without holding it: only ports that the kernel lists are tried. */
  async #probe(cell: Cell, port: PublishedPort, listed: PortSet): Promise<void> {
    const { first, last } = cell.range
    for (let hostPort = first; hostPort <= last; hostPort++) {
      // the first one always: it also tells whether the host has the address
      if (hostPort !== first && !listed.has(hostPort)) continue
      try {
        this.#seen.stack.closeFd(this.#socketFor(cell, cell.address, hostPort))
      } catch (error) {
        if (cell.protocol === 'sctp' && NO_PROTOCOL.has(errnoOf(error))) return
        throw await explainSocket(this.#seen, error, port, cell.address, hostPort, true)
      }
    }
  }

  /** Replaces the socket that only reserves by one that takes packets; in between there are some 50 us. */
  async wake(cell: Cell): Promise<void> {
    const [entry] = cell.sockets
    if (!entry) return
    const [address, fd] = entry
    cell.silent = false
    cell.sockets.delete(address)
    this.#seen.stack.closeFd(fd)
    await this.#openSocket(cell, address, cell.users.at(-1)!.port, true)
  }

  /** Proxied UDP wildcards get a socket for each address that comes, and lose those of the ones that go. */
  #followAddresses(): Watch {
    return this.#seen.stack.watch(['address'], event => {
      if (event.topic === 'overrun') void this.#catchUp()
      if (event.topic !== 'address') return
      const address = bare(event.address.address)
      if (event.change === 'removed') this.#loseAddress(address)
      else if (!event.address.tentative) this.#gainAddress(address)
    })
  }

  #gainAddress(address: string): void {
    for (const cell of this.#followers) {
      if (cell.sockets.has(address) || !servable(address, familyOf(cell.address))) continue
      try {
        const fd = this.#socketFor(cell, address, cell.range.first)
        cell.sockets.set(address, fd)
        ;(cell.listener as UdpListener | undefined)?.add(address, fd)
      } catch (error) {
        this.#seen.log.warn(`udp port ${cell.range.first} is not served on ${address}`, { error })
      }
    }
  }

  #loseAddress(address: string): void {
    for (const cell of this.#followers) {
      const fd = cell.sockets.get(address)
      if (fd === undefined) continue
      cell.sockets.delete(address)
      const listener = cell.listener as UdpListener | undefined
      if (listener) listener.drop(address)
      else this.#seen.stack.closeFd(fd)
    }
  }

  /** Some events were lost: compares with the addresses that there are. */
  async #catchUp(): Promise<void> {
    try {
      const all = (await this.#seen.stack.addresses()).filter(({ tentative }) => !tentative)
      const now = new Set(all.map(({ address }) => bare(address)))
      const served = [...this.#followers].flatMap(cell => [...cell.sockets.keys()])
      for (const address of new Set(served)) if (!now.has(address)) this.#loseAddress(address)
      for (const address of now) this.#gainAddress(address)
    } catch (error) {
      this.#seen.log.warn('the addresses of the host could not be listed', { error })
    }
  }

  /** Its sockets go, with the proxy's listener if that has them. */
  async drop(cell: Cell): Promise<void> {
    this.#followers.delete(cell)
    if (this.#followers.size === 0) this.#rest()
    if (cell.listener) await cell.listener.close()
    else for (const fd of cell.sockets.values()) this.#seen.stack.closeFd(fd)
  }

  /** Follows no addresses any more. */
  close(): void {
    this.#rest()
    this.#followers.clear()
  }

  #rest(): void {
    this.#watch?.close()
    this.#watch = undefined
  }
}

/** errno of a kernel that cannot do SCTP. */
const NO_PROTOCOL = new Set(['EPROTONOSUPPORT', 'ESOCKTNOSUPPORT', 'EPROTOTYPE', 'ENOPROTOOPT'])

/** Without the prefix length. */
const bare = (address: string) => address.split('/')[0] ?? address

/** Link-local addresses need the link to be bound to. */
const servable = (address: string, family: Family) =>
  familyOf(address) === family && !/^fe[89ab]/.test(formatIp(parseIp(address)))
