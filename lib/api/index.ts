/**
 * The network part of the Docker Engine API (1.24 to 1.48) over a controller, so that the docker client, compose and
 * whatever else speaks it can be used with libcnm. A container runtime adds its own routes to `api.router`.
 */
import type { Controller } from '../controller'
import { type Logger, SILENT } from '../base/log'
import { type Containers, sandboxesAsContainers } from './containers'
import { EventHub } from './events'
import { addExtraRoutes } from './extras'
import { addNetworkRoutes } from './networks'
import { Router } from './router'
import { listen, type Listening, type ListenOptions } from './server'
import { addSystemRoutes } from './system'

export interface ApiOptions {
  /** Who knows the containers. Default: each sandbox is one, by its containerId. */
  containers?: Containers
  /** Routes of a runtime; they go before ours, so that it can answer /info or /version itself. */
  routes?(router: Router): void
  /** Shown in the header Server. */
  product?: string
  log?: Logger
}

export interface Api {
  readonly router: Router
  /** Publishes what happens to containers, and streams it at /events. */
  readonly events: EventHub
  readonly containers: Containers
  /** Serves on a unix socket, mode 0600. May be called for several paths. */
  listen(path: string, options?: ListenOptions): Promise<Listening>
  /** Closes every socket and lets go of the controller, which stays open. */
  close(): Promise<void>
}

export function createApi(controller: Controller, options: ApiOptions = {}): Api {
  const { log = SILENT, containers = sandboxesAsContainers(controller) } = options
  const router = new Router({ product: options.product, log })
  const events = new EventHub(controller)
  options.routes?.(router)
  addSystemRoutes(router, controller, containers)
  addNetworkRoutes(router, controller, containers, events)
  router.route('GET', '/events', events.stream)
  addExtraRoutes(router, controller)
  const open = new Set<Listening>()
  return {
    router,
    events,
    containers,
    async listen(path, how) {
      const listening = await listen(router, path, how)
      open.add(listening)
      return listening
    },
    async close() {
      for (const listening of open) await listening.close()
      open.clear()
      events.close()
    },
  }
}

export { type ContainerRef, type Containers, noSuchContainer, sandboxesAsContainers } from './containers'
export { HttpError } from './errors'
export { EventHub, type EventMessage } from './events'
export { parseFilters, parseTime, type Filters } from './filters'
export * as body from './body'
export { connectContainer, disconnectContainer } from './networks'
export { networkJson, type EndpointJson, type NetworkJson } from './network-json'
export { EndpointSettings, endpointInput } from './requests'
export { Exchange, type Handler, type Method, Router } from './router'
export type { Listening, ListenOptions } from './server'
export type { Topology, TopologyNetwork, TopologySandbox } from './topology'
export { API_VERSION, MIN_API_VERSION, VERSION } from './version'
