/** The store that hosts share, on etcd v3. The client reaches the servers from the process's own network namespace. */
import { Etcd3, type IOptions, isRecoverableError } from 'etcd3'
import { CnmError } from '../base/errors'
import {
  type Backend,
  type Change,
  type Condition,
  type KeyValue,
  type Listing,
  type Transaction,
  type WatchListener,
  whole,
} from './contract'

export interface EtcdOptions {
  /** `http://10.0.0.1:2379`, or https for TLS. */
  endpoints: string[]
  credentials?: { username: string; password: string }
  /** PEM. */
  tls?: { ca?: string | Buffer; key?: string | Buffer; cert?: string | Buffer }
  /** Milliseconds that one call may take. */
  timeout: number
}

type Watcher = Awaited<ReturnType<Etcd3['watchClient']['watch']>>
type Renewer = Awaited<ReturnType<Etcd3['leaseClient']['leaseKeepAlive']>>

export class EtcdBackend implements Backend {
  readonly name: string
  readonly #client: Etcd3
  readonly #timeout: number
  readonly #streams = new Set<Watcher>()

  constructor({ endpoints, credentials, tls, timeout }: EtcdOptions) {
    this.name = `etcd at ${endpoints.join(', ')}`
    this.#timeout = timeout
    const options: IOptions = {
      hosts: endpoints,
      auth: credentials,
      // A call may not wait longer than this, whatever the network does; streams have no end.
      defaultCallOptions: ({ isStream }) => (isStream ? {} : { deadline: Date.now() + timeout }),
      faultHandling: { host: () => policy(1), global: policy(endpoints.length) },
      grpcOptions: {
        // Noticed within seconds that a server is gone, where TCP alone would take a quarter of an hour.
        'grpc.keepalive_time_ms': Math.max(timeout, 10_000),
        'grpc.keepalive_timeout_ms': timeout,
        // Milliseconds. gRPC's own back-off grows to two minutes: a server that is back would wait for us.
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 2_000,
        'grpc.max_receive_message_length': -1,
      },
    }
    if (tls)
      options.credentials = {
        rootCertificate: buffer(tls.ca) as Buffer,
        privateKey: buffer(tls.key),
        certChain: buffer(tls.cert),
      }
    this.#client = new Etcd3(options)
  }

  async list(prefix: string, { keysOnly = false }: { keysOnly?: boolean } = {}): Promise<Listing> {
    return this.#call(async () => {
      const { kvs, header } = await this.#client.kv.range({
        key: bytes(prefix),
        range_end: endOf(prefix),
        keys_only: keysOnly,
      })
      return { entries: kvs.map(keyValue), revision: Number(header.revision) }
    })
  }

  async get(key: string): Promise<KeyValue | undefined> {
    return this.#call(async () => {
      const { kvs } = await this.#client.kv.range({ key: bytes(key) })
      return kvs[0] && keyValue(kvs[0])
    })
  }

  async transact(transaction: Transaction): Promise<{ done: boolean; revision: number }> {
    const { if: conditions, put, remove, removePrefixes } = whole(transaction)
    return this.#call(async () => {
      const { succeeded, header } = await this.#client.kv.txn({
        compare: conditions.map(compare),
        success: [
          ...removePrefixes.map(prefix => ({
            request_delete_range: { key: bytes(prefix), range_end: endOf(prefix) },
          })),
          ...remove.map(key => ({ request_delete_range: { key: bytes(key) } })),
          ...put.map(({ key, value, lease }) => ({
            request_put: { key: bytes(key), value: bytes(value), ...(lease !== undefined && { lease }) },
          })),
        ],
      })
      return { done: succeeded, revision: Number(header.revision) }
    })
  }

  async grantLease(seconds: number): Promise<string> {
    return this.#call(async () => (await this.#client.leaseClient.leaseGrant({ TTL: seconds })).ID)
  }

  async renewLease(lease: string): Promise<boolean> {
    return this.#call(async () => {
      const stream: Renewer = await this.#client.leaseClient.leaseKeepAlive()
      try {
        return await this.#within(
          new Promise<boolean>((resolve, reject) => {
            stream.on('data', ({ TTL }) => resolve(Number(TTL) > 0))
            stream.on('error', reject)
            stream.write({ ID: lease })
          }),
        )
      } finally {
        stream.on('error', () => {}) // what comes after the answer, or too late, concerns nobody
        stream.end()
      }
    })
  }

  async revokeLease(lease: string): Promise<void> {
    await this.#call(async () => {
      try {
        await this.#client.leaseClient.leaseRevoke({ ID: lease })
      } catch (error) {
        if (!/lease not found/.test(String(error))) throw error
      }
    })
  }

  async watch(prefix: string, fromRevision: number, listener: WatchListener): Promise<{ close(): void }> {
    return this.#call(async () => {
      const stream = await this.#within(this.#client.watchClient.watch())
      this.#streams.add(stream)
      let open = true
      const end = (error?: unknown) => {
        if (!open) return
        open = false
        this.#streams.delete(stream)
        stream.cancel()
        if (error !== undefined) listener.ended(this.#explain(error))
      }
      let pending: Change[] = []
      stream.on('error', error => end(error))
      stream.on('end', () => end(new Error('the server ended the watch')))
      stream.on('data', ({ events, canceled, cancel_reason, compact_revision, fragment, header }) => {
        if (!open) return
        pending.push(...events.map(changeOf))
        if (!fragment && pending.length) {
          const changes = pending
          pending = []
          listener.changed(changes, Number(header.revision))
        }
        if (canceled)
          end(
            new Error(
              Number(compact_revision) > 0 ? `revision ${fromRevision} has been compacted` : cancel_reason,
            ),
          )
      })
      stream.write({
        create_request: {
          key: bytes(prefix),
          range_end: endOf(prefix),
          start_revision: String(fromRevision),
        },
      })
      return { close: () => end() }
    })
  }

  close(): void {
    for (const stream of this.#streams) {
      stream.on('error', () => {})
      stream.cancel()
    }
    this.#streams.clear()
    this.#client.close()
  }

  async #call<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body()
    } catch (error) {
      throw this.#explain(error)
    }
  }

  /** Streams know no deadline of their own before they are open. */
  async #within<T>(wanted: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    try {
      return await Promise.race([
        wanted,
        new Promise<never>((_, reject) => {
          timer = setTimeout(() => reject(new Error(`no answer within ${this.#timeout} ms`)), this.#timeout)
        }),
      ])
    } finally {
      clearTimeout(timer)
    }
  }

  /** Failures of etcd, of gRPC and of the network, in our words. */
  #explain(error: unknown): unknown {
    const { message: text = '', name = '', code } = error as Partial<CnmError>
    const message = text.replace(/\.? *Resolution note: *$/, '') // of gRPC, which mostly has none
    if (name === 'CnmError') return error
    const about = (what: string) => `${this.name}: ${what}`
    if (
      /authentication failed|invalid user|permission denied|auth token|user name is empty|Unauthenticated/i.test(
        message,
      )
    )
      return new CnmError('ERR_CLUSTER_DENIED', about(message), {}, { cause: error })
    if (
      /database space exceeded|ResourceExhausted|RESOURCE_EXHAUSTED/.test(message) &&
      !/message larger/.test(message)
    )
      return new CnmError('ERR_CLUSTER_FULL', about(message), {}, { cause: error })
    if (
      /InvalidArgument|INVALID_ARGUMENT|too many operations|request is too large/.test(`${name} ${message}`)
    )
      return new CnmError('ERR_CLUSTER', about(message), { code }, { cause: error })
    return new CnmError(
      'ERR_CLUSTER_UNAVAILABLE',
      about(message || name || String(error)),
      {},
      { cause: error },
    )
  }
}

/**
 * etcd3 asks another server at each attempt. No circuit breakers and no waiting: whoever asks knows what to do, and a
 * server that is back is used at once. Of cockatiel's policies etcd3 calls `execute` alone.
 */
function policy(attempts: number): Policy {
  const execute = async <T>(body: (context: { signal: AbortSignal }) => T | PromiseLike<T>): Promise<T> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await body({ signal: new AbortController().signal })
      } catch (error) {
        if (attempt >= attempts || !isRecoverableError(error as Error)) throw error
      }
    }
  }
  return { execute } as unknown as Policy
}
type Policy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>

const bytes = (text: string): Buffer => Buffer.from(text)
const buffer = (pem: string | Buffer | undefined): Buffer | undefined =>
  pem === undefined ? undefined : Buffer.from(pem as string)

/** The first key after all that begin with `prefix` (which is ASCII, so the last byte can be counted up). */
function endOf(prefix: string): Buffer {
  const end = Buffer.from(prefix)
  end[end.length - 1] = (end[end.length - 1] as number) + 1
  return end
}

const keyValue = ({
  key,
  value,
  mod_revision,
}: {
  key: Buffer
  value: Buffer
  mod_revision: string
}): KeyValue => ({ key: key.toString(), value: value.toString(), revision: Number(mod_revision) })

const changeOf = ({ type, kv }: { type: string; kv: Parameters<typeof keyValue>[0] }): Change => {
  const { key, value, revision } = keyValue(kv)
  return String(type).toUpperCase() === 'DELETE' ? { key, revision } : { key, value, revision }
}

function compare(condition: Condition) {
  if ('prefix' in condition)
    // Compared with every key in the range; an empty range counts as never created.
    return {
      result: 'Equal' as const,
      target: 'Create' as const,
      key: bytes(condition.prefix),
      range_end: endOf(condition.prefix),
      create_revision: '0',
    }
  const key = bytes(condition.key)
  if ('is' in condition)
    return {
      result: condition.is === 'absent' ? ('Equal' as const) : ('Greater' as const),
      target: 'Create' as const,
      key,
      create_revision: '0',
    }
  if ('value' in condition)
    return { result: 'Equal' as const, target: 'Value' as const, key, value: bytes(condition.value) }
  return { result: 'Equal' as const, target: 'Mod' as const, key, mod_revision: String(condition.revision) }
}
