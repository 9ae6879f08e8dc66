/** Operations at random, those that build up more often than those that take down. */
import fc from 'fast-check'
import type { Container, NetworkName } from './model'
import { type Operation, operations as act } from './operations'

const network = fc.constantFrom<NetworkName>('n1', 'n2', 'n3')
const CONTAINERS: Container[] = ['x1', 'x2', 'x3', 'x4']
const container = fc.constantFrom(...CONTAINERS)
const endpointName = fc.constantFrom('web', 'old', 'other')
const ports = fc.oneof(
  { weight: 2, arbitrary: fc.constant<number[]>([]) },
  { weight: 3, arbitrary: fc.subarray([8001, 8002, 8003], { minLength: 1, maxLength: 2 }) },
)
const serviceName = fc.constantFrom('shop', 'api')
const flag = fc.boolean()

const often = <T>(weight: number, args: fc.Arbitrary<T>, make: (args: T) => Operation) => ({
  weight,
  arbitrary: args.map(make),
})
const nothing = fc.constant(undefined)

export const operation: fc.Arbitrary<Operation> = fc.oneof(
  often(6, network, act.createNetwork),
  often(1, fc.tuple(network, fc.constantFrom('old', 'new')), args => act.updateNetwork(...args)),
  often(2, network, act.deleteNetwork),
  often(1, nothing, act.prune),
  often(6, container, act.createSandbox),
  often(2, fc.tuple(container, container), args => act.shareSandbox(...args)),
  often(2, fc.tuple(container, flag), args => act.deleteSandbox(...args)),
  often(2, fc.tuple(container, fc.constantFrom('one', 'two')), args => act.refresh(...args)),
  often(2, fc.tuple(container, endpointName), args => act.rename(...args)),
  often(2, container, act.setKey),
  often(10, fc.tuple(network, endpointName, ports), args => act.createEndpoint(...args)),
  often(4, fc.tuple(network, endpointName, ports, serviceName), args => act.createEndpoint(...args)),
  often(16, fc.tuple(network, endpointName, container, fc.integer({ min: 0, max: 2 })), args =>
    act.join(...args),
  ),
  often(6, fc.tuple(network, endpointName, ports), args => act.updatePorts(...args)),
  often(2, fc.tuple(network, endpointName, fc.constantFrom(1_000_000, null)), args =>
    act.setBandwidth(...args),
  ),
  often(3, fc.tuple(network, endpointName, flag), args => act.setHealth(...args)),
  often(6, fc.tuple(network, endpointName, flag), args => act.leave(...args)),
  often(4, fc.tuple(network, endpointName, flag), args => act.deleteEndpoint(...args)),
  often(4, fc.tuple(network, serviceName, fc.constantFrom('vip' as const, 'dnsrr' as const)), args =>
    act.createService(...args),
  ),
  often(1, fc.tuple(network, serviceName, fc.constantFrom('first', 'second')), args =>
    act.updateService(...args),
  ),
  often(2, fc.tuple(network, serviceName), args => act.deleteService(...args)),
  often(1, nothing, act.serveNames),
  often(1, nothing, act.check),
  often(1, nothing, act.repair),
  often(1, fc.subarray(CONTAINERS, { minLength: 2 }), act.gc),
)
