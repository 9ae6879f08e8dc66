import type { Family } from '../../base/cidr'
import type { Endpoint } from '../../endpoint'
import type { Stack } from '../../kernel/kernel'
import type { Context } from '../context'
import type { Candidate } from '../gateway'
import type { SandboxRecord } from '../records'

/** The elected gateway endpoints and the default routes that stand for them. */
export type Elected = Partial<Record<Family, Candidate>>

/** What a sandbox is at this moment; its parts (way out, ports, names, interfaces) share it. */
export class Interior {
  /** Joined endpoints, in the order of joining. */
  readonly endpoints = new Map<string, Endpoint>()
  elected: Elected = {}
  /** Value of net.ipv6.conf.default.disable_ipv6 inside, as far as we know. */
  ipv6Default: string | undefined
  /** A link was put into its namespace once. */
  hadLinks = false
  gone = false

  /** `stack`: of a namespace of its own, or of the host. */
  constructor(
    readonly context: Context,
    readonly record: SandboxRecord,
    public stack: Stack | undefined,
  ) {}

  get id(): string {
    return this.record.id
  }
  get containerId(): string {
    return this.record.containerId
  }
  get mode(): string {
    return this.record.config.mode
  }
  /** Path of its own namespace. */
  get key(): string | undefined {
    return this.record.key
  }
  get hostname(): string {
    return this.record.config.hostname ?? this.containerId.slice(0, 12)
  }

  save(): Promise<void> {
    return this.context.store.write({
      put: [{ kind: 'sandbox', id: this.id, version: 1, value: this.record }],
    })
  }
}
