/** What there is, as simply as it can be said; and the library that has to agree with it. */
import { Controller, isCnmError } from 'libcnm'
import { MockKernel } from 'libcnm/testing'
import { directory, RUN } from '../scene'

export type NetworkName = 'n1' | 'n2' | 'n3'
/** No hexadecimal digits: a name must not be taken for the beginning of an id. */
export type Container = 'x1' | 'x2' | 'x3' | 'x4'

export interface EndpointModel {
  at?: Container
  priority: number
  /** Host ports, ascending. */
  ports: number[]
  /** Said to be so since it last left. */
  unhealthy?: boolean
  /** What it is a task of: this one, not another of the same name. */
  service?: ServiceModel
}

export interface ServiceModel {
  alias: string
}

export interface NetworkModel {
  label: string
  endpoints: Map<string, EndpointModel>
  services: Map<string, ServiceModel>
}

export interface SandboxModel {
  hostname: string
  /** Whose namespace it shares. */
  owner?: Container
  /** That sandbox was deleted: the namespace is nobody's, and stays so if the container gets another one. */
  orphan?: true
}

export class Model {
  readonly networks = new Map<NetworkName, NetworkModel>()
  readonly containers = new Map<Container, SandboxModel>()

  joined(id: Container): { network: NetworkName; name: string; endpoint: EndpointModel }[] {
    return [...this.networks].flatMap(([network, { endpoints }]) =>
      [...endpoints].flatMap(([name, endpoint]) => (endpoint.at === id ? [{ network, name, endpoint }] : [])),
    )
  }

  /** The way out: the highest priority, then the first network by name. */
  gateway(id: Container) {
    return this.joined(id).sort(
      (a, b) => b.endpoint.priority - a.endpoint.priority || (a.network < b.network ? -1 : 1),
    )[0]
  }

  sharers(id: Container): Container[] {
    return [...this.containers].flatMap(([sharer, { owner, orphan }]) =>
      owner === id && !orphan ? [sharer] : [],
    )
  }

  /** Are all of these ports free for this endpoint? Only those that are joined hold any. */
  free(ports: number[], but: EndpointModel): boolean {
    return [...this.networks.values()]
      .flatMap(({ endpoints }) => [...endpoints.values()])
      .every(other => other === but || !other.at || !other.ports.some(port => ports.includes(port)))
  }

  delete(id: Container): void {
    for (const sharer of this.sharers(id)) Object.assign(this.containers.get(sharer) ?? {}, { orphan: true })
    this.containers.delete(id)
    for (const { network, name } of this.joined(id)) this.networks.get(network)?.endpoints.delete(name)
  }

  /** A sandbox whose namespace nobody has any more is swept at start. */
  restart(): void {
    for (const [id, { orphan }] of this.containers) if (orphan) this.containers.delete(id)
  }
}

/** A controller on a modelled kernel, and the next one on what it left. */
export class Real {
  readonly kernel = new MockKernel()
  readonly #dataDir = directory()
  #controller: Controller | undefined

  static async open(): Promise<Real> {
    const real = new Real()
    await real.restart()
    return real
  }

  get controller(): Controller {
    return this.#controller as Controller
  }

  async restart(): Promise<void> {
    await this.#controller?.close()
    this.#controller = await Controller.open({
      kernel: this.kernel,
      runDir: RUN,
      dataDir: this.#dataDir,
      hostId: 'model',
    })
  }
}

/** `ok`, or the code of the refusal, which left nothing half done. */
export async function answer(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'ok'
  } catch (error) {
    if (!isCnmError(error)) throw error
    expect(error.rollback).toBeUndefined()
    return error.code
  }
}

/** The library says what the model says: who is where, under which names and ports, and who is the way out. */
export function same(model: Model, { controller }: Real): void {
  const told = controller.networks().map(network => [
    network.name,
    network.labels.label,
    Object.fromEntries(
      network.endpoints().map(endpoint => [
        endpoint.name,
        {
          at: endpoint.sandbox?.containerId,
          healthy: endpoint.healthy,
          ports: endpoint.inspect().bindings.map(({ hostPort }) => hostPort),
          // each by IPv4 and by IPv6
          published: [...new Set(endpoint.ports.map(({ hostPort }) => hostPort))].sort(),
        },
      ]),
    ),
    Object.fromEntries(
      controller.services(network.name).map(service => [
        service.name,
        {
          alias: service.aliases[0],
          tasks: service
            .tasks()
            .map(({ name, healthy }) => `${name}${healthy ? '' : ', unhealthy'}`)
            .sort(),
        },
      ]),
    ),
  ])
  const known = [...model.networks].map(([network, { label, endpoints, services }]) => [
    network,
    label,
    Object.fromEntries(
      [...endpoints].map(([name, endpoint]) => {
        const out = endpoint.at && model.gateway(endpoint.at)?.endpoint === endpoint
        return [
          name,
          {
            at: endpoint.at,
            healthy: !endpoint.unhealthy,
            ports: endpoint.ports,
            published: out ? endpoint.ports : [],
          },
        ]
      }),
    ),
    Object.fromEntries(
      [...services].map(([name, service]) => [
        name,
        {
          alias: service.alias,
          tasks: [...endpoints]
            .filter(([, endpoint]) => endpoint.service === service && endpoint.at)
            .map(([task, { unhealthy }]) => `${task}${unhealthy ? ', unhealthy' : ''}`)
            .sort(),
        },
      ]),
    ),
  ])
  expect(told.sort()).toEqual(known.sort())
  expect(
    controller
      .sandboxes()
      .map(({ containerId, hostname, gateway }) => [containerId, hostname, gateway.ipv4?.network.name])
      .sort(),
  ).toEqual(
    [...model.containers].map(([id, { hostname }]) => [id, hostname, model.gateway(id)?.network]).sort(),
  )
  for (const [id, { owner, orphan }] of model.containers)
    if (owner) expect(controller.sandbox(id).key).toBe(orphan ? undefined : controller.sandbox(owner).key)
}

/** Nothing is under way: the kernel is as it should be, and when all is deleted nothing is left. */
export async function finish({ kernel, controller }: Real): Promise<void> {
  await controller.settle()
  await kernel.settle()
  expect(await controller.check()).toEqual([])
  for (const sandbox of controller.sandboxes()) await sandbox.delete({ force: true })
  for (const service of controller.services()) await service.delete()
  for (const each of controller.networks()) {
    for (const endpoint of each.endpoints()) await endpoint.delete()
    await each.delete()
  }
  await controller.settle()
  await kernel.settle()
  const links = kernel.netns()?.links.map(({ name }) => name)
  expect(links).toEqual(['eth0', 'lo'])
  await controller.close()
  expect(kernel.openStacks()).toEqual([])
  expect(
    kernel.snapshot().namespaces.filter(({ paths }) => paths.some(path => path.startsWith(RUN))),
  ).toEqual([])
}
