/** Everything together: a controller, containers, and Docker's API over both. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Controller, type ControllerInput, type Logger } from 'libcnm'
import { createApi, type EventHub } from 'libcnm/api'
import { Containers } from './containers'
import { makeRootfs } from './images'
import { addContainerRoutes } from './routes'

export interface RuntimeOptions {
  /** Where the docker client connects. */
  socket: string
  /** For root file systems, bundles, namespaces and files of sandboxes. Containers do not outlive the runtime. */
  directory: string
  /** Path of the network namespace that is the host. Default: that of this process. */
  host?: string
  /** Anything else for the controller: address pools, dns, the set-up of docker0. */
  network?: Omit<NonNullable<ControllerInput>, 'host' | 'runDir'>
  log?: Logger
}

export interface Runtime {
  controller: Controller
  containers: Containers
  /** Ends every container and removes everything that was made. */
  close(): Promise<void>
}

export async function openRuntime({
  socket,
  directory,
  host,
  network,
  log,
}: RuntimeOptions): Promise<Runtime> {
  const rootfs = join(directory, 'rootfs')
  mkdirSync(rootfs, { recursive: true, mode: 0o755 })
  await makeRootfs(rootfs)
  const controller = await Controller.open({
    predefined: true,
    log,
    ...network,
    host,
    runDir: join(directory, 'network'),
  })
  let events: EventHub | undefined
  const containers = new Containers({
    controller,
    directory,
    rootfs,
    host: host ?? '/proc/self/ns/net',
    happened: (Action, { id, name, image, request }) =>
      events?.publish({
        Type: 'container',
        Action,
        Actor: { ID: id, Attributes: { ...request.Labels, name, image: image.name } },
      }),
  })
  const api = createApi(controller, {
    containers,
    product: 'libcnm-example-runtime',
    log,
    routes: router => addContainerRoutes(router, containers),
  })
  events = api.events
  await api.listen(socket)
  return {
    controller,
    containers,
    async close() {
      await containers.close()
      await api.close()
      await controller.close({ remove: true })
    },
  }
}
