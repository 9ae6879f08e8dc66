/** Every public operation that changes something: what the model answers, and the real thing. */
import type { Network, Sandbox } from 'libcnm'
import type {
  Container,
  EndpointModel,
  Model,
  NetworkModel,
  NetworkName,
  Real,
  SandboxModel,
  ServiceModel,
} from './model'

export interface Operation {
  name: string
  /** `ok` or the code of an error; changes the model. */
  expect(model: Model): string
  run(real: Real): Promise<unknown>
}

const SUBNET: Record<NetworkName, string> = { n1: '10.1.0.0/24', n2: '10.2.0.0/24', n3: '10.3.0.0/24' }

const networkOf = ({ controller }: Real, name: NetworkName): Network => controller.network(name)
const sandboxOf = ({ controller }: Real, id: Container): Sandbox => controller.sandbox(id)
const endpointOf = (real: Real, on: NetworkName, name: string) => networkOf(real, on).endpoint(name)

/* What is said of a thing, or that there is none. */

function ofNetwork(model: Model, name: NetworkName, say: (network: NetworkModel) => string): string {
  const network = model.networks.get(name)
  return network ? say(network) : 'ERR_NETWORK_NOT_FOUND'
}

function ofEndpoint(
  model: Model,
  on: NetworkName,
  name: string,
  say: (endpoint: EndpointModel, network: NetworkModel) => string,
): string {
  return ofNetwork(model, on, network => {
    const endpoint = network.endpoints.get(name)
    return endpoint ? say(endpoint, network) : 'ERR_ENDPOINT_NOT_FOUND'
  })
}

function ofService(
  model: Model,
  on: NetworkName,
  name: string,
  say: (service: ServiceModel) => string,
): string {
  return ofNetwork(model, on, ({ services }) => {
    const service = services.get(name)
    return service ? say(service) : 'ERR_SERVICE_NOT_FOUND'
  })
}

function ofSandbox(model: Model, id: Container, say: (sandbox: SandboxModel) => string): string {
  const sandbox = model.containers.get(id)
  return sandbox ? say(sandbox) : 'ERR_SANDBOX_NOT_FOUND'
}

export const operations = {
  /* ---------------------------------------------------------------- networks */

  createNetwork: (name: NetworkName): Operation => ({
    name: `create network ${name}`,
    expect(model) {
      if (model.networks.has(name)) return 'ERR_NETWORK_EXISTS'
      model.networks.set(name, { label: 'new', endpoints: new Map(), services: new Map() })
      return 'ok'
    },
    run: ({ controller }) =>
      controller.createNetwork({
        name,
        labels: { label: 'new' },
        ipam: { config: [{ subnet: SUBNET[name] }] },
      }),
  }),
  updateNetwork: (name: NetworkName, label: string): Operation => ({
    name: `label network ${name} ${label}`,
    expect: model =>
      ofNetwork(model, name, network => {
        network.label = label
        return 'ok'
      }),
    run: async real => networkOf(real, name).update({ labels: { label } }),
  }),
  deleteNetwork: (name: NetworkName): Operation => ({
    name: `delete network ${name}`,
    expect: model =>
      ofNetwork(model, name, ({ endpoints, services }) => {
        if (endpoints.size || services.size) return 'ERR_NETWORK_IN_USE'
        model.networks.delete(name)
        return 'ok'
      }),
    run: async real => networkOf(real, name).delete(),
  }),
  prune: (): Operation => ({
    name: 'prune networks',
    expect(model) {
      for (const [name, { endpoints, services }] of model.networks)
        if (!endpoints.size && !services.size) model.networks.delete(name)
      return 'ok'
    },
    run: ({ controller }) => controller.pruneNetworks(),
  }),

  /* ---------------------------------------------------------------- sandboxes */

  createSandbox: (id: Container): Operation => ({
    name: `create sandbox ${id}`,
    expect(model) {
      if (model.containers.has(id)) return 'ERR_SANDBOX_EXISTS'
      model.containers.set(id, { hostname: id })
      return 'ok'
    },
    run: ({ controller }) => controller.createSandbox({ containerId: id, files: false }),
  }),
  shareSandbox: (id: Container, owner: Container): Operation => ({
    name: `create sandbox ${id} in the namespace of ${owner}`,
    expect: model =>
      ofSandbox(model, owner, ({ owner: another }) => {
        if (model.containers.has(id)) return 'ERR_SANDBOX_EXISTS'
        if (another) return 'ERR_INVALID_OPTION'
        model.containers.set(id, { hostname: id, owner })
        return 'ok'
      }),
    run: ({ controller }) =>
      controller.createSandbox({ containerId: id, mode: `container:${owner}`, files: false }),
  }),
  deleteSandbox: (id: Container, force: boolean): Operation => ({
    name: `${force ? 'force ' : ''}delete sandbox ${id}`,
    expect: model =>
      ofSandbox(model, id, () => {
        if (!force && model.sharers(id).length) return 'ERR_SANDBOX_IN_USE'
        model.delete(id)
        return 'ok'
      }),
    run: async real => sandboxOf(real, id).delete({ force }),
  }),
  refresh: (id: Container, hostname: string): Operation => ({
    name: `call ${id} ${hostname}`,
    expect: model =>
      ofSandbox(model, id, sandbox => {
        sandbox.hostname = hostname
        return 'ok'
      }),
    run: async real => sandboxOf(real, id).refresh({ hostname }),
  }),
  rename: (id: Container, to: string): Operation => ({
    name: `rename ${id} to ${to}`,
    expect: model =>
      ofSandbox(model, id, () => {
        const mine = model.joined(id).map(each => ({ ...each, on: model.networks.get(each.network) }))
        if (mine.some(({ on, name }) => name !== to && on?.endpoints.has(to))) return 'ERR_ENDPOINT_EXISTS'
        for (const { on, name, endpoint } of mine) {
          on?.endpoints.delete(name)
          on?.endpoints.set(to, endpoint)
        }
        return 'ok'
      }),
    run: async real => sandboxOf(real, id).rename(to),
  }),
  setKey: (id: Container): Operation => ({
    name: `set the key of ${id}`,
    expect: model => ofSandbox(model, id, ({ owner }) => (owner ? 'ERR_INVALID_OPTION' : 'ok')),
    run: async real => sandboxOf(real, id).setKey(real.kernel.spawn().path),
  }),

  /* ---------------------------------------------------------------- endpoints */

  createEndpoint: (on: NetworkName, name: string, ports: number[], of?: string): Operation => ({
    name: `create endpoint ${name} on ${on} for ${ports}${of ? `, a task of ${of}` : ''}`,
    expect: model =>
      ofNetwork(model, on, ({ endpoints, services }) => {
        const service = of === undefined ? undefined : services.get(of)
        if (of !== undefined && !service) return 'ERR_SERVICE_NOT_FOUND'
        if (endpoints.has(name)) return 'ERR_ENDPOINT_EXISTS'
        endpoints.set(name, { priority: 0, ports, service })
        return 'ok'
      }),
    run: async real =>
      networkOf(real, on).createEndpoint({
        name,
        ports: bindings(ports),
        ...(of !== undefined && { service: of }),
      }),
  }),
  setHealth: (on: NetworkName, name: string, healthy: boolean): Operation => ({
    name: `say that ${name} on ${on} is ${healthy ? 'healthy' : 'unhealthy'}`,
    expect: model =>
      ofEndpoint(model, on, name, endpoint => {
        endpoint.unhealthy = !healthy
        return 'ok'
      }),
    run: async real => endpointOf(real, on, name).setHealth(healthy),
  }),
  join: (on: NetworkName, name: string, id: Container, priority: number): Operation => ({
    name: `join ${name} on ${on} to ${id} with priority ${priority}`,
    expect: model =>
      ofEndpoint(model, on, name, (endpoint, { endpoints }) =>
        ofSandbox(model, id, ({ owner }) => {
          if (endpoint.at) return 'ERR_ENDPOINT_JOINED'
          if (owner) return 'ERR_INVALID_OPTION'
          if ([...endpoints.values()].some(({ at }) => at === id)) return 'ERR_ROUTE_CONFLICT' // one subnet, once
          if (!model.free(endpoint.ports, endpoint)) return 'ERR_PORT_IN_USE'
          Object.assign(endpoint, { at: id, priority })
          return 'ok'
        }),
      ),
    run: async real => endpointOf(real, on, name).join(sandboxOf(real, id), { priority }),
  }),
  updatePorts: (on: NetworkName, name: string, ports: number[]): Operation => ({
    name: `publish ${name} on ${on} at ${ports}`,
    expect: model =>
      ofEndpoint(model, on, name, endpoint => {
        if (endpoint.at && !model.free(ports, endpoint)) return 'ERR_PORT_IN_USE'
        endpoint.ports = ports
        return 'ok'
      }),
    run: async real => endpointOf(real, on, name).updatePorts(bindings(ports)),
  }),
  setBandwidth: (on: NetworkName, name: string, egress: number | null): Operation => ({
    name: `limit ${name} on ${on} to ${egress}`,
    expect: model => ofEndpoint(model, on, name, () => 'ok'),
    run: async real => endpointOf(real, on, name).setBandwidth({ egress }),
  }),
  leave: (on: NetworkName, name: string, force: boolean): Operation => ({
    name: `${force ? 'force ' : ''}leave ${name} on ${on}`,
    expect: model =>
      ofEndpoint(model, on, name, endpoint => {
        if (!endpoint.at) return force ? 'ok' : 'ERR_ENDPOINT_NOT_JOINED' // and what is said of its health stays
        endpoint.at = undefined
        endpoint.unhealthy = false
        return 'ok'
      }),
    run: async real => endpointOf(real, on, name).leave({ force }),
  }),
  deleteEndpoint: (on: NetworkName, name: string, force: boolean): Operation => ({
    name: `${force ? 'force ' : ''}delete ${name} on ${on}`,
    expect: model =>
      ofEndpoint(model, on, name, (endpoint, { endpoints }) => {
        if (endpoint.at && !force) return 'ERR_ENDPOINT_IN_USE'
        endpoints.delete(name)
        return 'ok'
      }),
    run: async real => endpointOf(real, on, name).delete({ force }),
  }),

  /* ---------------------------------------------------------------- services */

  createService: (on: NetworkName, name: string, endpointMode: 'vip' | 'dnsrr'): Operation => ({
    name: `create service ${name} on ${on}, ${endpointMode}`,
    expect: model =>
      ofNetwork(model, on, ({ services }) => {
        if (services.has(name)) return 'ERR_SERVICE_EXISTS'
        services.set(name, { alias: 'first' })
        return 'ok'
      }),
    run: async ({ controller }) =>
      controller.createService({ name, network: on, endpointMode, aliases: ['first'] }),
  }),
  updateService: (on: NetworkName, name: string, alias: string): Operation => ({
    name: `call service ${name} on ${on} ${alias} as well`,
    expect: model =>
      ofService(model, on, name, service => {
        service.alias = alias
        return 'ok'
      }),
    run: async ({ controller }) => controller.service(name, on).update({ aliases: [alias] }),
  }),
  deleteService: (on: NetworkName, name: string): Operation => ({
    name: `delete service ${name} on ${on}`,
    expect: model =>
      ofService(model, on, name, () => {
        model.networks.get(on)?.services.delete(name)
        return 'ok'
      }),
    run: async ({ controller }) => controller.service(name, on).delete(),
  }),

  /* ---------------------------------------------------------------- upkeep */

  /** Nobody can listen on a socket of a model: it is to be refused, and to leave nothing. */
  serveNames: (): Operation => ({
    name: 'serve names to the host',
    expect: () => 'ERR_NAMES',
    run: ({ controller }) => controller.serveNames(),
  }),

  check: (): Operation => ({
    name: 'check',
    expect: () => 'ok',
    run: async ({ controller }) => expect(await controller.check()).toEqual([]),
  }),
  repair: (): Operation => ({
    name: 'repair',
    expect: () => 'ok',
    run: async ({ controller }) => expect(await controller.repair()).toEqual([]),
  }),
  gc: (living: Container[]): Operation => ({
    name: `gc, living: ${living}`,
    expect(model) {
      for (const id of [...model.containers.keys()]) if (!living.includes(id)) model.delete(id)
      return 'ok'
    },
    run: ({ controller }) => controller.gc({ containerIds: living }),
  }),
}

/** Cannot run beside others: the controller that they use is another one afterwards. */
export const restart: Operation = {
  name: 'restart',
  expect(model) {
    model.restart()
    return 'ok'
  },
  run: real => real.restart(),
}

const bindings = (ports: number[]) => ports.map(port => `${port}:80`)
