import type { InspectOptions } from 'node:util'
import { SHOWN, shown } from './base/shown'
import { addressOf } from './base/cidr'
import { CnmError } from './base/errors'
import { parse } from './base/parse'
import { atomically } from './base/undo'
import type { ServiceRecord } from './core/records'
import type { Context } from './core/context'
import type { Services } from './core/services'
import type { Network } from './network'
import { ServiceUpdate } from './options'
import type { ServicePort, ServiceTask } from './services/contract'
import type { z } from 'zod'

/** What `inspect()` tells: plain data. */
export interface ServiceInspect {
  id: string
  name: string
  network: { id: string; name: string; driver: string }
  created: string
  endpointMode: 'vip' | 'dnsrr'
  affinity: 'none' | 'client'
  aliases: string[]
  labels: Record<string, string>
  ports: ServicePort[]
  /** The virtual IPs. */
  ipv4?: string
  ipv6?: string
  tasks: ServiceTask[]
}

/**
 * A name on a network behind which several endpoints stand (its tasks): `network.createEndpoint({ service })` makes one.
 * Made by `controller.createService`.
 */
export class Service {
  readonly network: Network
  readonly #context: Context
  #known: ServiceRecord

  /** @internal */
  constructor(context: Context, network: Network, record: ServiceRecord) {
    this.#context = context
    this.network = network
    this.#known = record
  }

  /** As it is now; when it is gone, as it was last. */
  get #record(): ServiceRecord {
    this.#known = this.#services.get(this.#known.id) ?? this.#known
    return this.#known
  }
  get #services(): Services {
    return this.#context.services as Services
  }

  get id(): string {
    return this.#known.id
  }
  get name(): string {
    return this.#known.name
  }
  get endpointMode(): 'vip' | 'dnsrr' {
    return this.#known.endpointMode
  }
  get affinity(): 'none' | 'client' {
    return this.#record.affinity
  }
  get aliases(): readonly string[] {
    return this.#record.aliases
  }
  get labels(): Readonly<Record<string, string>> {
    return this.#record.labels
  }
  get ports(): readonly ServicePort[] {
    return this.#record.ports
  }
  get created(): Date {
    return new Date(this.#known.created)
  }
  /** The virtual IP; undefined with endpointMode dnsrr. */
  get ipv4(): string | undefined {
    const vip = this.#record.vips[4]
    return vip && addressOf(vip.address)
  }
  get ipv6(): string | undefined {
    const vip = this.#record.vips[6]
    return vip && addressOf(vip.address)
  }

  /** Joined endpoints that stand for it, on all hosts, in no order. Those with weight 0 are being drained. */
  tasks(): ServiceTask[] {
    return this.#services.tasksOf(this.#record)
  }

  toJSON(): ServiceInspect {
    return this.inspect()
  }

  [SHOWN](_depth: number, options: InspectOptions): string {
    const { name, network, tasks } = this.inspect()
    return shown('Service', { name, id: this.id.slice(0, 12), network, tasks: tasks.length }, options)
  }

  inspect(): ServiceInspect {
    const { network } = this
    const { vips: _, networkId: __, ...rest } = this.#record
    return {
      ...rest,
      network: { id: network.id, name: network.name, driver: network.driver },
      ...(this.ipv4 !== undefined && { ipv4: this.ipv4 }),
      ...(this.ipv6 !== undefined && { ipv6: this.ipv6 }),
      tasks: this.tasks(),
    }
  }

  /**
   * Changes what can be changed while it is in use: what is not named stays. Flows that there are live on. Ports published
   * with mode `host` stay as they are. Throws ERR_PORT_IN_USE, ERR_INVALID_OPTION; then everything is as before.
   */
  async update(input: z.input<typeof ServiceUpdate>): Promise<void> {
    const given = parse(ServiceUpdate, input)
    const changes = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
    await this.#exclusively(async () => {
      const before = this.#mustLive()
      if (given.ports && hostPorts(given.ports) !== hostPorts(before.ports))
        throw new CnmError(
          'ERR_INVALID_OPTION',
          `options.ports: ports of mode host are part of the tasks of ${this.name}; make another service for others`,
          { service: this.id },
        )
      this.#known = await this.#services.update(this.network, before, changes)
      return before
    }).then(before =>
      this.publish(async () => {
        this.#known = await this.#services.update(this.network, this.#record, before)
      }),
    )
    this.#emit('service.update')
  }

  /** Its names and virtual IPs go; its tasks stay what they are, endpoints. */
  async delete(): Promise<void> {
    await this.#exclusively(async () => {
      this.#context.mustBeOpen()
      const record = this.#services.get(this.id)
      if (!record) return
      await this.#services.remove(this.network, record)
      this.#emit('service.delete')
    })
    await this.#context.ingress?.follow()
  }

  /** @internal Its ports are published on this host, or `revert` is called and it throws why not. */
  async publish(revert: () => Promise<void>): Promise<void> {
    const { ingress } = this.#context
    const own = new Set(this.ports.map(({ publishedPort, protocol }) => `${publishedPort}/${protocol}`))
    await atomically(async undo => {
      undo.push('ports as before', () => ingress?.follow())
      undo.push('the service as before', () => this.#exclusively(revert))
      const refused = await ingress?.follow()
      const ours = refused?.find(({ port }) => own.has(port))
      if (ours) throw ours.error
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete()
  }

  #exclusively<T>(body: () => Promise<T>): Promise<T> {
    return this.#context.locks.run(`network ${this.network.id}`, body)
  }

  #mustLive(): ServiceRecord {
    this.#context.mustBeOpen()
    const record = this.#services.get(this.id)
    if (!record) throw new CnmError('ERR_GONE', `service ${this.name} was deleted`, { service: this.id })
    return record
  }

  #emit(type: 'service.update' | 'service.delete'): void {
    const { id, name, driver } = this.network
    this.#context.events.emit({
      type,
      network: { id, name, driver },
      service: { id: this.id, name: this.name },
    })
  }
}

const hostPorts = (ports: readonly ServicePort[]): string =>
  JSON.stringify(ports.filter(({ mode, publishedPort }) => mode === 'host' && publishedPort !== undefined))
