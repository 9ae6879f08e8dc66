/**
 * An IPAM driver for tests: answers as scripted, records what it was asked, and for all else behaves like the default
 * driver (or any other that it is given), so that a test scripts only what it is about.
 *
 * ```ts
 * const ipam = new MockIpamDriver().disallowUnexpected()
 * ipam.intercept('requestPool').reply({ id: 'p', pool: '10.1.0.0/24', data: {} })
 * ipam.intercept('requestAddress', poolId => poolId === 'p').replyWithError(new Error('gone')).times(2)
 * ...
 * ipam.assertNoPending()
 * ```
 */
import { CnmError } from '../base/errors'
import type { IpamCapabilities, IpamDriver } from '../ipam/contract'
import { DefaultIpamDriver } from '../ipam/default'

export type IpamMethod = Exclude<keyof IpamDriver, 'name' | 'capabilities'>
type Call<M extends IpamMethod> = NonNullable<IpamDriver[M]>
export type IpamArguments<M extends IpamMethod> = Parameters<Call<M>>
export type IpamAnswer<M extends IpamMethod> = Awaited<ReturnType<Call<M>>>

/** One call that was made. */
export interface RecordedIpamCall {
  method: IpamMethod
  args: readonly unknown[]
  /** Was the answer scripted? */
  scripted: boolean
  /** What came of it; both absent while it is under way. */
  answer?: unknown
  error?: unknown
}

export interface MockIpamOptions {
  /** `mock` when absent. */
  name?: string
  capabilities?: Partial<IpamCapabilities>
  /** Answers what is not scripted. A fresh default driver when absent. */
  backing?: IpamDriver
}

/** A scripted answer. It serves one call, unless {@link times} or {@link persist} say otherwise. */
export class IpamScript<M extends IpamMethod> {
  private left = 1
  private lasting = false
  private served = 0
  private gate: Promise<unknown> | undefined
  private answer: ((...args: IpamArguments<M>) => IpamAnswer<M> | Promise<IpamAnswer<M>>) | undefined

  constructor(
    readonly method: M,
    private readonly match: (...args: IpamArguments<M>) => boolean,
  ) {}

  /** The answer, or what makes it from the arguments. */
  reply(
    answer: IpamAnswer<M> | ((...args: IpamArguments<M>) => IpamAnswer<M> | Promise<IpamAnswer<M>>),
  ): this {
    this.answer =
      typeof answer === 'function'
        ? (answer as (...args: IpamArguments<M>) => IpamAnswer<M> | Promise<IpamAnswer<M>>)
        : () => answer
    return this
  }

  replyWithError(error: Error): this {
    this.answer = () => {
      throw error
    }
    return this
  }

  /** Serves so many calls. */
  times(count: number): this {
    this.left = count
    return this
  }

  /** Serves any number of calls. Pending until the first. */
  persist(): this {
    this.lasting = true
    return this
  }

  /** Answers only when `gate` has settled: for tests of what happens meanwhile. */
  after(gate: Promise<unknown>): this {
    this.gate = gate
    return this
  }

  get pending(): boolean {
    return this.lasting ? this.served === 0 : this.left > 0
  }

  accepts(args: IpamArguments<M>): boolean {
    return (this.lasting || this.left > 0) && this.match(...args)
  }

  async serve(args: IpamArguments<M>): Promise<IpamAnswer<M>> {
    this.served++
    this.left--
    if (this.gate !== undefined) await this.gate.catch(() => undefined)
    if (this.answer === undefined)
      throw new CnmError('ERR_INTERNAL', `the script for ${this.method} has no reply(); give it one`)
    return this.answer(...args)
  }
}

type AnyScript = { [M in IpamMethod]: IpamScript<M> }[IpamMethod]

export class MockIpamDriver implements IpamDriver {
  readonly name: string
  readonly capabilities: IpamCapabilities
  /** Every call, oldest first. */
  readonly calls: RecordedIpamCall[] = []
  private readonly backing: IpamDriver
  private readonly scripts: AnyScript[] = []
  private strict = false

  constructor(options: MockIpamOptions = {}) {
    this.name = options.name ?? 'mock'
    this.backing = options.backing ?? new DefaultIpamDriver()
    this.capabilities = { ...this.backing.capabilities, ...options.capabilities }
  }

  /** Scripts the answer to the next call of `method` (whose arguments `match`). The oldest script that fits serves. */
  intercept<M extends IpamMethod>(
    method: M,
    match: (...args: IpamArguments<M>) => boolean = () => true,
  ): IpamScript<M> {
    const script = new IpamScript(method, match)
    this.scripts.push(script as unknown as AnyScript)
    return script
  }

  /** From now on a call without a script fails, instead of going to the driver behind. */
  disallowUnexpected(): this {
    this.strict = true
    return this
  }

  allowUnexpected(): this {
    this.strict = false
    return this
  }

  /** Methods of the scripts that still wait for a call. */
  pending(): IpamMethod[] {
    return this.scripts.filter(script => script.pending).map(script => script.method)
  }

  /** Throws ERR_INTERNAL, naming them, when scripts still wait for a call. */
  assertNoPending(): void {
    const pending = this.pending()
    if (pending.length > 0)
      throw new CnmError(
        'ERR_INTERNAL',
        `${pending.length} scripted answers of IPAM driver ${this.name} were not asked for: ${pending.join(', ')}`,
        { pending },
      )
  }

  /** The recorded calls of one method. */
  callsOf(method: IpamMethod): RecordedIpamCall[] {
    return this.calls.filter(call => call.method === method)
  }

  defaultAddressSpaces(...args: IpamArguments<'defaultAddressSpaces'>) {
    return this.answer('defaultAddressSpaces', args, () => this.backing.defaultAddressSpaces(...args))
  }

  requestPool(...args: IpamArguments<'requestPool'>) {
    return this.answer('requestPool', args, () => this.backing.requestPool(...args))
  }

  releasePool(...args: IpamArguments<'releasePool'>) {
    return this.answer('releasePool', args, () => this.backing.releasePool(...args))
  }

  requestAddress(...args: IpamArguments<'requestAddress'>) {
    return this.answer('requestAddress', args, () => this.backing.requestAddress(...args))
  }

  releaseAddress(...args: IpamArguments<'releaseAddress'>) {
    return this.answer('releaseAddress', args, () => this.backing.releaseAddress(...args))
  }

  status(...args: IpamArguments<'status'>) {
    return this.answer('status', args, async () => {
      const status = await this.backing.status?.(...args)
      if (status === undefined)
        throw new CnmError('ERR_UNSUPPORTED', `IPAM driver ${this.backing.name} has no status`)
      return status
    })
  }

  private async answer<M extends IpamMethod>(
    method: M,
    args: IpamArguments<M>,
    otherwise: () => Promise<IpamAnswer<M>>,
  ): Promise<IpamAnswer<M>> {
    const script = this.scripts.find(candidate => {
      const same = candidate as unknown as IpamScript<M>
      return candidate.method === method && same.accepts(args)
    }) as IpamScript<M> | undefined
    const call: RecordedIpamCall = { method, args, scripted: script !== undefined }
    this.calls.push(call)
    try {
      if (script === undefined && this.strict) throw this.unexpected(method, args)
      const answer = await (script === undefined ? otherwise() : script.serve(args))
      call.answer = answer
      return answer
    } catch (error) {
      call.error = error
      throw error
    }
  }

  private unexpected(method: IpamMethod, args: readonly unknown[]): CnmError {
    const waiting = this.pending()
    return new CnmError(
      'ERR_INTERNAL',
      `IPAM driver ${this.name} did not expect ${method}(${args.map(arg => JSON.stringify(arg)).join(', ')}); ` +
        (waiting.length > 0 ? `it waits for ${waiting.join(', ')}` : 'nothing more is scripted'),
      { method, pending: waiting },
    )
  }
}
