import { join } from 'node:path'
import { CnmError } from '../base/errors'
import { newId } from '../base/ids'
import { parse, printable } from '../base/parse'
import { atomically } from '../base/undo'
import { bootId } from '../core/boot'
import type { Context } from '../core/context'
import type { SandboxRecord } from '../core/records'
import type { Network } from '../network'
import { SandboxOptions, type SandboxInput } from '../options'
import { Sandbox, type SandboxHooks } from '../sandbox'
import type { Networks } from './networks'

/** The sandboxes of a controller: how they are made and found. */
export class Sandboxes {
  readonly #context: Context
  readonly #networks: Networks
  readonly #byId = new Map<string, Sandbox>()
  readonly #byContainer = new Map<string, Sandbox>()

  constructor(context: Context, networks: Networks) {
    this.#context = context
    this.#networks = networks
  }

  withId(id: string): Sandbox | undefined {
    return this.#byId.get(id)
  }

  /** One that is back from the store. */
  restored(record: SandboxRecord, stack: Sandbox['stack']): Sandbox {
    const sandbox = new Sandbox(this.#context, record, stack, this.#hooks)
    this.#adopt(sandbox)
    return sandbox
  }

  /** A network stack for a container. Throws ERR_SANDBOX_EXISTS: one container, one sandbox. */
  async create(input: SandboxInput): Promise<Sandbox> {
    const config = parse(SandboxOptions, input)
    this.#context.mustBeOpen()
    const owner = config.mode.startsWith('container:')
      ? this.get(config.mode.slice('container:'.length))
      : undefined
    const keys = [`container ${config.containerId}`, ...(owner ? [`sandbox ${owner.id}`] : [])]
    return this.#context.locks.runAll(keys, () =>
      atomically(async undo => {
        this.#context.mustBeOpen()
        const present = this.#byContainer.get(config.containerId)
        if (present)
          throw new CnmError(
            'ERR_SANDBOX_EXISTS',
            `container ${config.containerId} is already present in sandbox ${present.id.slice(0, 12)}`,
            {
              containerId: config.containerId,
              sandbox: present.id,
            },
          )
        const { store, kernel, warm, host, events, unborn } = this.#context
        const id = newId()
        const record: SandboxRecord = {
          id,
          containerId: config.containerId,
          created: new Date().toISOString(),
          config,
          bootId: bootId(),
        }
        const shared = owner && this.get(owner.id) // it may have been deleted meanwhile
        if (shared?.mode.startsWith('container:'))
          throw new CnmError(
            'ERR_INVALID_OPTION',
            `options.mode: container ${shared.containerId} has no namespace of its own either (it has mode ${shared.mode})`,
            { containerId: shared.containerId, mode: shared.mode },
          )
        // By its full name: a prefix may fit another container later.
        if (shared) {
          config.mode = `container:${shared.containerId}`
          record.owner = shared.id
        }
        if (config.mode === 'own') record.key = join(this.#context.runDir, 'netns', id.slice(0, 12))
        else if (config.mode === 'host') record.key = host.path ?? '/proc/1/ns/net'
        undo.push('forget the record', () => store.write({ remove: [{ kind: 'sandbox', id }] }))
        await store.write({ put: [{ kind: 'sandbox', id, version: 1, value: record }] })
        let stack = config.mode === 'host' ? host : undefined
        if (config.mode === 'own') {
          const key = record.key as string
          unborn.add(key)
          undo.push('remove the namespace', () => kernel.remove(key).finally(() => unborn.delete(key)))
          stack = await warm.take(key)
          undo.push('close the namespace', () => stack?.close())
          record.inode = stack.inode
        }
        const sandbox = new Sandbox(this.#context, record, stack, this.#hooks)
        await sandbox.openNames()
        this.#adopt(sandbox)
        if (record.key) unborn.delete(record.key)
        events.emit({ type: 'sandbox.create', sandbox: { id, containerId: config.containerId } })
        return sandbox
      }),
    )
  }

  #adopt(sandbox: Sandbox): void {
    this.#byId.set(sandbox.id, sandbox)
    this.#byContainer.set(sandbox.containerId, sandbox)
  }

  readonly #hooks: SandboxHooks = {
    forget: sandbox => {
      this.#byId.delete(sandbox.id)
      if (this.#byContainer.get(sandbox.containerId) === sandbox)
        this.#byContainer.delete(sandbox.containerId)
    },
    sharers: sandbox =>
      this.all()
        .filter(({ record }) => record.owner === sandbox.id)
        .map(({ containerId }) => containerId),
    owner: ({ record }) => (record.owner === undefined ? undefined : this.#byId.get(record.owner)),
    servesNames: networkId => {
      const network = this.#networks.withId(networkId)
      return network !== undefined && this.#networks.servesNames(network)
    },
    resolveName: (view, name, family) => this.#context.resolveName(this.#context.names, view, name, family),
    resolveIp: (view, address) => this.#context.resolveIp(this.#context.names, view, address),
    hostGateway: () => {
      const gateway = (network: Network | undefined) => network?.ipam.find(pool => pool.family === 4)?.gateway
      const preferred =
        this.#networks.named('bridge') ?? this.#networks.all().find(({ driver }) => driver === 'bridge')
      return gateway(preferred)?.replace(/\/.*/, '')
    },
  }

  /** By id, container id or a unique prefix of either. Throws ERR_SANDBOX_NOT_FOUND, ERR_AMBIGUOUS. */
  get(idOrContainerId: string): Sandbox {
    const exact = this.#byId.get(idOrContainerId) ?? this.#byContainer.get(idOrContainerId)
    if (exact) return exact
    const matching = idOrContainerId
      ? this.all().filter(
          ({ id, containerId }) => id.startsWith(idOrContainerId) || containerId.startsWith(idOrContainerId),
        )
      : []
    if (matching.length > 1)
      throw new CnmError(
        'ERR_AMBIGUOUS',
        `sandbox ${idOrContainerId} is ambiguous (${matching.length} matches)`,
        { term: idOrContainerId },
      )
    if (!matching[0])
      throw new CnmError('ERR_SANDBOX_NOT_FOUND', `sandbox ${printable(idOrContainerId)} not found`, {
        sandbox: idOrContainerId,
      })
    return matching[0]
  }

  all(): Sandbox[] {
    return [...this.#byId.values()]
  }
}
