/** What all hosts know of networks that span them: definitions come and go as hosts create and delete. */
import { addressOf } from '../base/cidr'
import { CnmError } from '../base/errors'
import type { Undo } from '../base/undo'
import type { Cluster } from '../cluster/cluster'
import type { Keys } from '../cluster/keys'
import type { NetworkDefinition } from '../cluster/records'
import type { Driver, DriverNetwork, Spanning as SpanningDriver } from '../driver/contract'
import type { Network } from '../network'
import { NetworkOptions } from '../options'
import type { Context } from './context'
import { tellProblem } from './problem'
import type { NetworkRecord } from './records'
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

  constructor(context: Context, cluster: Cluster, keys: Keys, world: SpanningWorld) {
    this.#context = context
    this.#cluster = cluster
    this.#keys = keys
    this.#world = world
  }

  /** Makes the network known to all hosts. Throws ERR_NETWORK_EXISTS, ERR_CLUSTER_UNAVAILABLE. */
  async define(record: NetworkRecord, undo: Undo): Promise<void> {
    if (await this.#isSecret(record)) await this.#keys.ensure()
    undo.push('undefine it', () => this.#undefine(record))
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
  async adopt(definition: NetworkDefinition): Promise<void> {
    if (this.#world.networkById(definition.id)) return
    const { events } = this.#context
    try {
      const record = await this.#recordOf(definition)
      if (this.#world.networks().some(({ name }) => name === definition.name))
        throw new CnmError(
          'ERR_NETWORK_EXISTS',
          `network ${definition.name} of the cluster has the name of a network of this host`,
          { name: definition.name },
        )
      await this.#context.store.write({
        put: [{ kind: 'network', id: record.id, version: 1, value: record }],
      })
      this.#world.addNetwork(record, await this.#context.drivers.get(record.driver))
      events.emit({ type: 'network.create', network: refOf(record) })
    } catch (error) {
      tellProblem(this.#context, `network ${definition.name} of the cluster cannot be had here`, error)
    }
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
  async vanish(network: Network): Promise<void> {
    if (network.record.deleting) return
    if (network.endpoints().length === 0) return network.vanish()
    const { log } = this.#context
    try {
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
        `network ${network.name} was deleted from the cluster, but has endpoints on this host`,
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
  const { spanning } = network.implementation
  if (spanning) return spanning
  throw new CnmError('ERR_SCOPE', `networks of driver ${network.driver} do not span hosts`)
}

const refOf = ({ id, name, driver }: NetworkRecord) => ({ id, name, driver })
