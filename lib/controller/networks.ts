import type { z } from 'zod'
import { CnmError, isCnmError } from '../base/errors'
import { newId } from '../base/ids'
import { parse, printable } from '../base/parse'
import { atomically, type Undo } from '../base/undo'
import { allocatePools } from '../core/addresses'
import { namingNetwork } from '../core/network/overlap'
import { carryOut, type Context } from '../core/context'
import { NetworkFilters, PruneFilters, matches, prunable } from '../core/filters'
import { mustBorrow } from '../core/lent'
import { marked } from '../core/mark'
import { customRecords } from '../core/names'
import {
  namedLinks,
  refuseCombinations,
  refuseUnusedSubnets,
  scopeOf,
  takeFamilies,
} from '../core/network-config'
import type { NetworkRecord } from '../core/records'
import type { Driver, DriverNetwork, NetworkSpec } from '../driver/contract'
import { fromLabels } from '../driver/options'
import type { OwnNetwork, UsedSubnet } from '../ipam/host'
import { Network, type NetworkHooks } from '../network'
import { NetworkOptions, type NetworkInput } from '../options'
import type { Sandbox } from '../sandbox'

const PREDEFINED = new Set(['bridge', 'host', 'none', 'default'])

/** Networks with this label serve no names. */
export const NO_NAMES_LABEL = 'libcnm.no-names'

/** The networks of a controller: how they are made and found. */
export class Networks {
  readonly #context: Context
  readonly #sandbox: (id: string) => Sandbox | undefined
  readonly #byId = new Map<string, Network>()
  readonly #byName = new Map<string, Network>()

  constructor(context: Context, sandbox: (id: string) => Sandbox | undefined) {
    this.#context = context
    this.#sandbox = sandbox
  }

  withId(id: string): Network | undefined {
    return this.#byId.get(id)
  }

  named(name: string): Network | undefined {
    return this.#byName.get(name)
  }

  /** One that is back from the store. */
  restored(record: NetworkRecord, driver: Driver): Network {
    const network = new Network(this.#context, driver, record, this.#hooks)
    this.adopt(network)
    return network
  }

  async make(input: NetworkInput, predefined: boolean): Promise<Network> {
    const config = parse(NetworkOptions, input)
    if (this.#context.settings.predefined && !predefined && PREDEFINED.has(config.name))
      throw new CnmError(
        'ERR_PREDEFINED',
        `operation is not permitted on predefined ${config.name} network`,
        { name: config.name },
      )
    const driverName = config.configOnly ? 'null' : config.driver
    // The configuration that it takes must not be deleted meanwhile; nor may two be given one id.
    const source = config.configFrom === undefined ? undefined : this.find(config.configFrom)
    const keys = [
      `network name ${config.name}`,
      `networks of ${driverName}`,
      ...[config.id, source?.id].flatMap(id => (id ? [`network ${id}`] : [])),
    ]
    return this.#context.locks.runAll(keys, () =>
      atomically(async undo => {
        this.#context.mustBeOpen()
        if (this.#byName.has(config.name))
          throw new CnmError('ERR_NETWORK_EXISTS', `network with name ${config.name} already exists`, {
            name: config.name,
          })
        if (config.id && this.#byId.has(config.id))
          throw new CnmError('ERR_NETWORK_EXISTS', `network with id ${config.id} already exists`, {
            id: config.id,
          })
        return this.#build(config, driverName, predefined, undo)
      }),
    )
  }

  async #build(given: NetworkOptions, driverName: string, predefined: boolean, undo: Undo): Promise<Network> {
    const { store, events, firewall, names, host, cluster } = this.#context
    refuseCombinations(given)
    const config = given.configFrom ? this.#applyConfiguration(given, given.configFrom) : given
    const driver = await this.#context.drivers.get(driverName)
    const scope = scopeOf(config, driver)
    const siblings = this.siblings(driverName)
    if (driver.capabilities.single && !config.configOnly && siblings.length)
      throw new CnmError('ERR_SINGLE_INSTANCE', `only one instance of "${driverName}" network is allowed`, {
        driver: driverName,
      })
    const families = takeFamilies(config)
    refuseUnusedSubnets(config, families)
    const addressed = driver.capabilities.addresses !== false && !config.configOnly
    const driverOptions = config.configOnly
      ? {}
      : parse(
          driver.options,
          fromLabels(config.options, driver.labels ?? {}, driver.takesLabels),
          'options.options',
        )
    const unpooled: Omit<NetworkSpec, 'pools'> = {
      id: config.id ?? newId(),
      name: config.name,
      internal: config.internal,
      ipv4: addressed && families.ipv4,
      ipv6: addressed && families.ipv6,
      labels: config.labels,
      options: driverOptions,
    }
    const pools = addressed
      ? await allocatePools(
          this.#context,
          {
            id: unpooled.id,
            config,
            ipv4: unpooled.ipv4,
            ipv6: unpooled.ipv6,
            scope: scope === 'local' ? 'local' : 'global',
            skipGateway: (await driver.skipsGateway?.(unpooled)) ?? [],
            reserves: driver.reserves?.(unpooled) ?? [],
            ownLinks: namedLinks(driverOptions),
            ...this.#neighbours(scope === 'local'),
          },
          undo,
        ).catch((error: unknown) => {
          throw namingNetwork(
            error,
            this.all().filter(each => (each.scope === 'local') === (scope === 'local')),
          )
        })
      : []
    const spans = driver.spanning !== undefined && !config.configOnly
    const shared = spans && cluster !== undefined
    const spec = shared ? await allocated(driver, { ...unpooled, pools }, undo) : { ...unpooled, pools }
    const { state, plan } = config.configOnly
      ? { state: {}, plan: undefined }
      : await driver.createNetwork(spec, host, siblings)
    if (pools.length && (await this.#context.ipam.get(config.ipam.driver)).capabilities.lends)
      mustBorrow(driver, state.link)
    if (plan?.sysctls) state.sysctls = plan.sysctls
    const record: NetworkRecord = {
      id: spec.id,
      name: spec.name,
      driver: driverName,
      scope,
      created: new Date().toISOString(),
      predefined,
      ipv4: spec.ipv4,
      ipv6: spec.ipv6,
      config,
      driverOptions: spec.options,
      pools,
      state,
      deleting: false,
      ...(spans && !shared && { alone: true }),
    }
    const network = new Network(this.#context, driver, record, this.#hooks)
    undo.push('driver deletes the network', async () => {
      const removal = await driver.deleteNetwork(network.forDriver, host, siblings)
      void removal // its changes are those that the plan's own undo makes
    })
    if (shared) await this.#context.spanning?.define(record, undo)
    undo.push('forget the record', () => store.write({ remove: [{ kind: 'network', id: record.id }] }))
    // A definition outlives the machine's crash, as it outlives a reboot.
    await store.write(
      { put: [{ kind: 'network', id: record.id, version: 1, value: record }] },
      { flush: true },
    )
    const { link } = state
    if (link) {
      this.#context.unborn.add(link)
      undo.push('nobody makes the bridge', () => void this.#context.unborn.delete(link))
    }
    await carryOut(
      host,
      marked(this.#context.name, { id: record.id, link }, plan),
      `network ${record.name}`,
      undo,
    )
    if (state.firewall) {
      const rules = state.firewall
      undo.push('close the firewall', () => firewall.apply({ removeNetworks: [rules] }))
      await firewall.apply({ addNetworks: [rules] })
    }
    undo.push('forget the names', () => names.removeNetwork(record.id))
    this.adopt(network)
    undo.push('forget the network', () => this.#forget(network))
    if (network.spanning) this.#context.spanning?.made()
    if (link) this.#context.unborn.delete(link)
    events.emit({ type: 'network.create', network: { id: record.id, name: record.name, driver: driverName } })
    return network
  }

  /** What the networks that are there mean for the subnets of a new one, of this host alone or of all. */
  #neighbours(local: boolean): { ownNetworks: OwnNetwork[]; avoid: UsedSubnet[] } {
    const all = this.all()
    const subnets = ({ ipam }: Network) => ipam.map(({ subnet }) => subnet)
    return {
      // Pools of one space never overlap, so what these have there is looked after.
      ownNetworks: local ? all.map(each => ({ links: each.hostLinks, subnets: subnets(each) })) : [],
      avoid: all
        .filter(({ scope }) => (scope === 'local') !== local)
        .flatMap(each =>
          subnets(each).map(subnet => ({
            subnet,
            kind: 'network',
            description: `network ${each.name}`,
          })),
        ),
    }
  }

  adopt(network: Network): void {
    this.#byId.set(network.id, network)
    this.#byName.set(network.name, network)
    if (!network.record.deleting) for (const link of network.hostLinks) this.#context.wantedLinks.add(link)
    this.#announce(network)
  }

  #forget(network: Network): void {
    this.#byId.delete(network.id)
    for (const link of network.hostLinks) this.#context.wantedLinks.delete(link)
    if (this.#byName.get(network.name) === network) this.#byName.delete(network.name)
  }

  /** Tells the zones about a network; sandboxes on it look again. */
  #announce(network: Network): void {
    if (network.configOnly || network.implementation.capabilities.addresses === false) return
    const { dns } = network.record.config
    this.#context.names.setNetwork(network.id, {
      name: network.name,
      upstreams: dns.servers,
      internal: network.internal,
      serves: this.servesNames(network),
    })
    this.#context.names.setRecords(network.id, customRecords(dns.records))
  }

  servesNames(network: Network): boolean {
    const options = network.record.driverOptions as { defaultBridge?: boolean }
    return (
      !options.defaultBridge &&
      !network.ingress &&
      network.labels[NO_NAMES_LABEL] === undefined &&
      network.implementation.capabilities.addresses !== false
    )
  }

  #applyConfiguration(given: NetworkOptions, from: string): NetworkOptions {
    const source = this.find(from)
    if (!source?.configOnly)
      throw new CnmError('ERR_NETWORK_NOT_FOUND', `configuration network "${from}" does not exist`, {
        configFrom: from,
      })
    const { ipv4, ipv6, labels, ipam, options } = source.record.config
    return { ...given, ipv4, ipv6, labels, ipam, options, configFrom: source.name }
  }

  siblings(driver: string, except?: Network): DriverNetwork[] {
    return this.all()
      .filter(network => network.driver === driver && network !== except && !network.configOnly)
      .map(network => network.forDriver)
  }

  readonly #hooks: NetworkHooks = {
    forget: network => this.#forget(network),
    siblings: network => this.siblings(network.driver, network),
    configUsers: network =>
      network.configOnly
        ? this.all()
            .filter(other => other.record.config.configFrom === network.name)
            .map(({ name }) => name)
        : [],
    announce: network => this.#announce(network),
    sandbox: id => this.#sandbox(id),
  }

  find(term: string): Network | undefined {
    const exact = this.#byId.get(term) ?? this.#byName.get(term)
    if (exact || !term) return exact
    const matching = this.all().filter(({ id }) => id.startsWith(term))
    if (matching.length > 1)
      throw new CnmError(
        'ERR_AMBIGUOUS',
        `network ${term} is ambiguous (${matching.length} matches found on ID prefix)`,
        { term },
      )
    return matching[0]
  }

  /** Where services are that name no network: the one with the option `ingress`, made on first use. */
  async ingress(): Promise<Network> {
    const present = () => this.all().find(({ ingress }) => ingress)
    const found = present()
    if (found) return found
    const { spanning } = this.#context
    try {
      return await this.make({ name: 'ingress', driver: 'overlay', ingress: true }, false)
    } catch (error) {
      if (!isCnmError(error, 'ERR_NETWORK_EXISTS')) throw error
      // Another host was faster; it is known here in a moment.
      await spanning?.idle()
      const made = present()
      if (made) return made
      throw error
    }
  }

  /** By full id, then name, then unique prefix of the id. Throws ERR_NETWORK_NOT_FOUND, ERR_AMBIGUOUS. */
  get(idOrNameOrPrefix: string): Network {
    const found = this.find(idOrNameOrPrefix)
    if (!found)
      throw new CnmError('ERR_NETWORK_NOT_FOUND', `network ${printable(idOrNameOrPrefix)} not found`, {
        network: idOrNameOrPrefix,
      })
    return found
  }

  all(filters?: z.input<typeof NetworkFilters>): Network[] {
    const all = [...this.#byId.values()].filter(({ record }) => !record.deleting)
    if (!filters) return all
    const wanted = parse(NetworkFilters, filters, 'filters')
    return all.filter(network => matches(network, wanted))
  }

  /** Deletes the networks that nobody uses. Resolves to their names. */
  async prune(filters?: z.input<typeof PruneFilters>): Promise<string[]> {
    const wanted = parse(PruneFilters, filters, 'filters')
    const gone: string[] = []
    for (const network of this.all().filter(candidate => prunable(candidate, wanted))) {
      try {
        await network.delete()
        gone.push(network.name)
      } catch (error) {
        this.#context.log.info(`network ${network.name} is not pruned`, { error })
      }
    }
    return gone
  }
}

/** With the options that the driver answers, for all hosts. */
async function allocated(driver: Driver, spec: NetworkSpec, undo: Undo): Promise<NetworkSpec> {
  if (!driver.allocateNetwork) return spec
  const options = await driver.allocateNetwork(spec)
  const answered = { ...spec, options }
  undo.push('the driver frees what it allocated', () => driver.freeNetwork?.(answered))
  return answered
}
