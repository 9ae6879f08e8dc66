/**
 * A network driver with scripted answers, in the manner of undici's MockAgent: what is not scripted gets a plausible
 * default, or is refused after `disallowUnexpected()`; what was scripted and never asked for is reported by
 * `assertNothingPending()`.
 */
import { z } from 'zod'
import { randomHex } from '../base/ids'
import type {
  Attachment,
  Capabilities,
  Driver,
  DriverNetwork,
  EndpointAnswer,
  EndpointSpec,
  JoinRequest,
  NetworkSpec,
  NetworkState,
  ClusterNode,
  Plan,
  Spanning,
} from '../driver/contract'

interface Calls {
  createNetwork: { spec: NetworkSpec; answer: { state: NetworkState; plan?: Plan } }
  deleteNetwork: { network: DriverNetwork; answer: Plan }
  createEndpoint: { network: DriverNetwork; endpoint: EndpointSpec; answer: EndpointAnswer }
  deleteEndpoint: { network: DriverNetwork; endpoint: EndpointSpec; answer: undefined }
  join: { network: DriverNetwork; endpoint: EndpointSpec; request: JoinRequest; answer: Attachment }
  leave: { network: DriverNetwork; endpoint: EndpointSpec; answer: Plan }
  allocateNetwork: { spec: NetworkSpec; answer: Record<string, unknown> }
  freeNetwork: { spec: NetworkSpec; answer: undefined }
  adopt: { network: DriverNetwork; answer: undefined }
  dismiss: { network: DriverNetwork; answer: undefined }
  discover: { change: 'new' | 'delete'; node: ClusterNode; answer: undefined }
}
export type MockDriverMethod = keyof Calls

/** One call, as data. */
export type MockDriverCall = {
  [M in MockDriverMethod]: { method: M } & Omit<Calls[M], 'answer'>
}[MockDriverMethod]

interface Script<M extends MockDriverMethod> {
  method: M
  reply: (call: Omit<Calls[M], 'answer'>) => Calls[M]['answer']
  left: number
}

export interface MockDriverOptions {
  name?: string
  capabilities?: Partial<Capabilities>
  options?: z.ZodType
}

export class MockDriver implements Driver {
  readonly name: string
  readonly capabilities: Capabilities
  readonly options: z.ZodType
  /** With `dataScope: 'global'`: hosts of a cluster tell one another of its networks; how packets get there is not its concern. */
  readonly spanning?: Spanning
  /** Every call so far, in order. */
  readonly calls: MockDriverCall[] = []
  readonly #scripts: Script<MockDriverMethod>[] = []
  #strict = false

  constructor({ name = 'mock', capabilities, options = z.looseObject({}) }: MockDriverOptions = {}) {
    this.name = name
    this.capabilities = { dataScope: 'local', connectivityScope: 'local', ...capabilities }
    this.options = options
    if (this.capabilities.dataScope === 'global')
      this.spanning = {
        data: z.looseObject({}).default({}),
        gatewayBridge: false,
        settle: async () => ({}),
        link: () => undefined,
        reach: () => ({ changes: [], undo: [] }),
        prune: async () => [],
        reclaim: async () => {},
        adopt: async network => this.#answer('adopt', { network }, () => undefined),
        dismiss: async network => this.#answer('dismiss', { network }, () => undefined),
      }
  }

  /**
   * Scripts the next call of a method: a value, a function of the call, or an Error to be thrown. Scripts of one method
   * are used in the order in which they were given.
   */
  reply<M extends MockDriverMethod>(
    method: M,
    answer: Calls[M]['answer'] | Error | ((call: Omit<Calls[M], 'answer'>) => Calls[M]['answer']),
    times = 1,
  ): this {
    const reply = (call: Omit<Calls[M], 'answer'>): Calls[M]['answer'] => {
      if (answer instanceof Error) throw answer
      return typeof answer === 'function'
        ? (answer as (c: typeof call) => Calls[M]['answer'])(call)
        : (answer as Calls[M]['answer'])
    }
    this.#scripts.push({ method, reply, left: times } as unknown as Script<MockDriverMethod>)
    return this
  }

  /** From now on a call that nothing was scripted for fails. */
  disallowUnexpected(): this {
    this.#strict = true
    return this
  }

  /** Throws if a scripted answer was not asked for. */
  assertNothingPending(): void {
    const pending = this.#scripts.map(({ method, left }) => `${method} (${left})`)
    if (pending.length)
      throw new Error(`mock driver ${this.name}: scripted but never called: ${pending.join(', ')}`)
  }

  callsOf<M extends MockDriverMethod>(method: M): Extract<MockDriverCall, { method: M }>[] {
    return this.calls.filter((call): call is Extract<MockDriverCall, { method: M }> => call.method === method)
  }

  async createNetwork(spec: NetworkSpec) {
    return this.#answer('createNetwork', { spec }, () => ({ state: { interfacePrefix: 'eth' } }))
  }
  async deleteNetwork(network: DriverNetwork) {
    return this.#answer('deleteNetwork', { network }, () => ({}))
  }
  async createEndpoint(network: DriverNetwork, endpoint: EndpointSpec) {
    return this.#answer('createEndpoint', { network, endpoint }, () => ({}))
  }
  async deleteEndpoint(network: DriverNetwork, endpoint: EndpointSpec) {
    return this.#answer('deleteEndpoint', { network, endpoint }, () => undefined)
  }
  /** Default: a veth pair with no bridge. */
  async join(network: DriverNetwork, endpoint: EndpointSpec, request: JoinRequest) {
    return this.#answer('join', { network, endpoint, request }, () => pair(endpoint, request, network))
  }
  async leave(network: DriverNetwork, endpoint: EndpointSpec, attachment: Attachment) {
    const link = attachment.interface?.source
    return this.#answer('leave', { network, endpoint }, () =>
      link ? { changes: [{ op: 'removeLink', link, ifExists: true }] } : {},
    )
  }

  async allocateNetwork(spec: NetworkSpec) {
    return this.#answer('allocateNetwork', { spec }, () => spec.options as Record<string, unknown>)
  }
  async freeNetwork(spec: NetworkSpec) {
    return this.#answer('freeNetwork', { spec }, () => undefined)
  }
  async discover(change: 'new' | 'delete', node: ClusterNode) {
    return this.#answer('discover', { change, node }, () => undefined)
  }

  #answer<M extends MockDriverMethod>(
    method: M,
    call: Omit<Calls[M], 'answer'>,
    otherwise: () => Calls[M]['answer'],
  ): Calls[M]['answer'] {
    this.calls.push({ method, ...call } as unknown as MockDriverCall)
    const script = this.#scripts.find(candidate => candidate.method === method)
    if (!script) {
      if (this.#strict) throw new Error(`mock driver ${this.name}: unexpected call of ${method}`)
      return otherwise()
    }
    script.left -= 1
    if (script.left === 0) this.#scripts.splice(this.#scripts.indexOf(script), 1)
    return (script.reply as unknown as (c: typeof call) => Calls[M]['answer'])(call)
  }
}

function pair(
  endpoint: EndpointSpec,
  { interfaceName, interfaceIndex, netns }: JoinRequest,
  { spec }: DriverNetwork,
): Attachment {
  if (!netns) return {}
  const source = `mock${randomHex(7)}`
  const gateway = (family: 4 | 6) =>
    spec.pools.find(pool => pool.family === family)?.gateway?.replace(/\/.*/, '')
  return {
    plan: {
      changes: [
        {
          op: 'addLink',
          link: {
            kind: 'veth',
            name: source,
            up: true,
            peer: { name: interfaceName, index: interfaceIndex, netns, mac: endpoint.mac },
          },
        },
      ],
      undo: [{ op: 'removeLink', link: source, ifExists: true }],
    },
    interface: { arrives: 'born', source, mac: endpoint.mac },
    gateways: spec.internal ? {} : { 4: gateway(4), 6: gateway(6) },
  }
}
