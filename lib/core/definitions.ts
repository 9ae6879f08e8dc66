/** What all hosts know of networks that span them: definitions come and go as hosts create and delete. */
import { addressOf } from '../base/cidr'
import { CnmError } from '../base/errors'
import { atomically, type Undo } from '../base/undo'
import type { Cluster } from '../cluster/cluster'
import type { Keys } from '../cluster/keys'
import type { NetworkDefinition } from '../cluster/records'
import type { Driver, DriverNetwork, Spanning as SpanningDriver } from '../driver/contract'
import type { Network } from '../network'
import { NetworkOptions } from '../options'
import type { Context } from './context'
import { tellProblem } from './problem'
import { forDriverOf, type NetworkRecord } from './records'
import { INGRESS_LABEL } from './ways-out'

export interface SpanningWorld {
  networks(): Network[]
  networkById(id: string): Network | undefined
  addNetwork(record: NetworkRecord, driver: Driver): Network
}

/** Milliseconds that other hosts may take to leave a network that has no services any more. */
const LEAVING = 2_000

export class Definitions {
  readonly #context: Context
  readonly #cluster: Cluster
  readonly #keys: Keys
  readonly #world: SpanningWorld
  /** Ids of networks that this process makes: they are not adopted. */
  readonly #own = new Set<string>()
  /** Ids of those that are being adopted. */
  readonly #coming = new Set<string>()
  /** What plugins are at. */
  readonly #slow = new Set<Promise<void>>()

  constructor(context: Context, cluster: Cluster, keys: Keys, world: SpanningWorld) {
    this.#context = context
    this.#cluster = cluster
    this.#keys = keys
    this.#world = world
  }

  /** Makes the network known to all hosts. Throws ERR_NETWORK_EXISTS, ERR_CLUSTER_UNAVAILABLE. */
  async define(record: NetworkRecord, undo: Undo): Promise<void> {
    if (await this.#isSecret(record)) await this.#keys.ensure()
    this.#own.add(record.id)
    undo.push('undefine it', async () => {
      this.#own.delete(record.id)
      await this.#undefine(record)
    })
    if (await this.#define(record)) return
    throw new CnmError(
      'ERR_NETWORK_EXISTS',
      `network with name ${record.name} already exists in the cluster`,
      {
        name: record.name,
      },
    )
  }

  async #define(record: NetworkRecord): Promise<boolean> {
    const nameKey = this.#cluster.claims.nameKey(record.name)
    const key = this.#cluster.keyOf('network', record.id)
    return this.#cluster.write({
      if: [
        { key: nameKey, is: 'absent' },
        { key, is: 'absent' },
      ],
      put: [{ kind: 'network', value: definitionOf(record) }],
      putClaims: [{ key: nameKey, value: record.id }],
    })
  }

  async #undefine({ id, name, pools }: NetworkRecord): Promise<boolean> {
    const nameKey = this.#cluster.claims.nameKey(name)
    const found = this.#cluster.get('network', id) !== undefined
    return this.#cluster.write({
      if: [
        { prefix: this.#cluster.keyOf('endpoint', `${id}/`), is: 'empty' },
        { prefix: this.#cluster.keyOf('service', `${id}/`), is: 'empty' },
        ...pools.map(({ subnet }) => ({
          prefix: this.#cluster.claims.heldPrefix(subnet),
          is: 'empty' as const,
        })),
        ...(found ? [{ key: nameKey, value: id }] : []),
      ],
      remove: [{ kind: 'network', id }],
      removeClaims: found ? [nameKey] : [],
    })
  }

  /** No host has it any more. Throws ERR_NETWORK_IN_USE naming who is on it elsewhere, ERR_CLUSTER_UNAVAILABLE. */
  async undefine(network: Network): Promise<void> {
    const deadline = performance.now() + LEAVING
    const abandoned = this.#isAbandoned(network)
    while (!(await this.#undefine(network.record))) {
      if (performance.now() > deadline || !abandoned) return this.#refuse(network)
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    this.#own.delete(network.id)
  }

  /** Only hosts that published its services are on it, and they leave now that there are none. */
  #isAbandoned({ id }: Network): boolean {
    const joined = this.#cluster.endpointsOf(id)
    return joined.length > 0 && joined.every(({ labels }) => labels[INGRESS_LABEL] !== undefined)
  }

  async #refuse(network: Network): Promise<never> {
    const joined = this.#cluster.endpointsOf(network.id)
    const holders = await Promise.all(
      network.ipam.map(({ subnet }) => this.#cluster.claims.holdersIn(subnet)),
    )
    const users = [
      ...joined.map(({ name, host }) => `${name} on ${host}`),
      ...[...new Set(holders.flat())]
        .filter(host => !joined.some(endpoint => endpoint.host === host))
        .map(host => `some of ${host} that are in no sandbox`),
    ]
    throw new CnmError(
      'ERR_NETWORK_IN_USE',
      `network ${network.name} has active endpoints on other hosts (${users.join(', ')})`,
      { network: network.id, endpoints: joined.map(({ id }) => id), hosts: [...new Set(holders.flat())] },
    )
  }

  /** Another host made it: it is had here, too. */
  adopt(definition: NetworkDefinition): Promise<void> {
    return this.#inTurn(definition.driver, () => this.#adopt(definition))
  }

  /** Networks of the cluster that could not be had here, perhaps because their driver was not there. */
  async adoptMissing(driver?: string): Promise<void> {
    for (const definition of this.#cluster.all('network'))
      if (driver === undefined || definition.driver === driver) await this.adopt(definition)
  }

  async #adopt(definition: NetworkDefinition): Promise<void> {
    const { id, name } = definition
    const isKnown = this.#own.has(id) || this.#world.networkById(id) !== undefined
    if (isKnown || this.#coming.has(id) || this.#context.closing) return
    const { events, store, drivers } = this.#context
    this.#coming.add(id)
    try {
      const record = await this.#recordOf(definition)
      await atomically(async undo => {
        if (this.#world.networks().some(network => network.name === name))
          throw new CnmError(
            'ERR_NETWORK_EXISTS',
            `network ${name} of the cluster has the name of a network of this host`,
            { name },
          )
        const driver = await drivers.get(record.driver)
        const forDriver = forDriverOf(record)
        await driver.spanning?.adopt?.(forDriver)
        undo.push('the driver has it no more', () => driver.spanning?.dismiss?.(forDriver))
        await store.write({ put: [{ kind: 'network', id, version: 1, value: record }] })
        this.#world.addNetwork(record, driver)
        events.emit({ type: 'network.create', network: refOf(record) })
      })
    } catch (error) {
      tellProblem(this.#context, `network ${name} of the cluster cannot be had here`, error)
    } finally {
      this.#coming.delete(id)
    }
    // It may have gone while a plugin was at it.
    const network = this.#world.networkById(id)
    if (network && !this.#cluster.get('network', id)) await this.#vanish(network)
  }

  /** Changes are followed in order, except where a plugin is asked: it may take its time, and nobody waits for it. */
  async #inTurn(driver: string, body: () => Promise<void>): Promise<void> {
    const done = body()
    if (this.#context.drivers.isBuiltIn(driver)) return done
    this.#slow.add(done)
    done.finally(() => this.#slow.delete(done))
  }

  /** Until no plugin is at work for the cluster. */
  async idle(): Promise<void> {
    while (this.#slow.size) await Promise.all(this.#slow)
  }

  /** Everything is looked at once more, by the schemas of this version and of the driver. */
  async #recordOf(definition: NetworkDefinition): Promise<NetworkRecord> {
    const driver = await this.#context.drivers.get(definition.driver)
    if (!driver.spanning)
      throw new CnmError('ERR_SCOPE', `networks of driver ${definition.driver} do not span hosts`)
    const { mtu, data, id, name, created, ipv4, ipv6, pools, driverOptions } = definition
    return {
      id,
      name,
      driver: definition.driver,
      scope: 'global',
      created,
      predefined: false,
      ipv4,
      ipv6,
      config: NetworkOptions.parse(definition.config),
      driverOptions: driver.options.parse(driverOptions),
      pools,
      state: { mtu, data: driver.spanning.data.parse(data) },
      deleting: false,
    }
  }

  /** The network is gone from the cluster. One that has endpoints here is made known again: nobody may take it away. */
  vanish(network: Network): Promise<void> {
    return this.#inTurn(network.driver, () => this.#vanish(network))
  }

  async #vanish(network: Network): Promise<void> {
    if (network.record.deleting) return
    const { log } = this.#context
    try {
      if (network.endpoints().length === 0) return await network.vanish()
      const driver = spanningOf(network)
      for (const { subnet, gateway, auxiliary } of network.ipam) {
        await this.#cluster.claims.reclaimPool(subnet)
        for (const cidr of [gateway, ...Object.values(auxiliary)])
          if (cidr) await this.#cluster.claims.takeAddress(subnet, addressOf(cidr), network.id, true)
      }
      await driver.reclaim(network.forDriver)
      if (!(await this.#define(network.record)) && !this.#cluster.get('network', network.id))
        throw new CnmError('ERR_NETWORK_EXISTS', `another network is called ${network.name} now`)
      log.warn(`network ${network.name} was gone from the cluster and is there again: it is in use here`)
      await this.#context.services?.redefine(network)
    } catch (error) {
      tellProblem(
        this.#context,
        `network ${network.name} was deleted from the cluster, but not from this host`,
        error,
      )
    }
  }

  async #isSecret(record: NetworkRecord): Promise<boolean> {
    const { spanning } = await this.#context.drivers.get(record.driver)
    return spanning?.encryption?.of({ spec: { options: record.driverOptions } } as DriverNetwork) ?? false
  }
}

/** The other hosts' view of a record: all but what is this host's own. */
function definitionOf(record: NetworkRecord): NetworkDefinition {
  const { id, name, driver, created, ipv4, ipv6, config, driverOptions, pools, state } = record
  return {
    id,
    name,
    driver,
    created,
    ipv4,
    ipv6,
    config: { ...config, id: undefined },
    driverOptions,
    pools,
    mtu: state.mtu,
    data: state.data,
  }
}

export function spanningOf(network: Network): SpanningDriver {
  const { spanning } = network
  if (spanning) return spanning
  throw new CnmError('ERR_SCOPE', `networks of driver ${network.driver} do not span hosts`)
}

const refOf = ({ id, name, driver }: NetworkRecord) => ({ id, name, driver })
