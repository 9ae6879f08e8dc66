/** What the API has to know of containers. A runtime hands in its own view; without one, a container is a sandbox. */
import { isCnmError } from '../base/errors'
import type { Controller } from '../controller'
import type { Network } from '../network'
import type { EndpointInput } from '../options'
import type { Sandbox } from '../sandbox'
import { HttpError } from './errors'
import type { EndpointSettings } from './requests'

export interface ContainerRef {
  id: string
  /** Without the slash that Docker puts before it. */
  name: string
  running: boolean
  /** `bridge`, `host`, `none`, `container:ID` or the name of a network. */
  networkMode: string
  /** Absent while it is not running, and when it has no stack of its own. */
  sandbox?: Sandbox
}

export interface Containers {
  /** By id, name or a unique prefix of the id; undefined when there is none. */
  resolve(idOrName: string): ContainerRef | undefined | Promise<ContainerRef | undefined>
  /** How many there are: for `docker info`. */
  count?(): { running: number; stopped: number }
  /** What an endpoint of this container needs beside what the client asks for: ports, exposed ports, links, labels. */
  endpoint?(container: ContainerRef, network: Network): Partial<EndpointInput>
  /**
   * It was connected; or, when it is not running, it is to be connected at its next start. Throws to refuse that.
   */
  connected?(container: ContainerRef, network: Network, settings: EndpointSettings): void | Promise<void>
  /**
   * It was disconnected; or, when it is not running, it is not to be connected at its next start. Throws when it is
   * not running and was not to be connected.
   */
  disconnected?(container: ContainerRef, network: Network): void | Promise<void>
}

/** Containers of a program that tells of none: its sandboxes. */
export function sandboxesAsContainers(controller: Controller): Containers {
  return {
    resolve(idOrName) {
      try {
        const sandbox = controller.sandbox(idOrName)
        return {
          id: sandbox.containerId,
          name: sandbox.containerId,
          running: true,
          networkMode: modeOf(sandbox),
          sandbox,
        }
      } catch (error) {
        if (isCnmError(error, 'ERR_SANDBOX_NOT_FOUND')) return undefined
        throw error
      }
    },
    count: () => ({ running: controller.sandboxes().length, stopped: 0 }),
  }
}

const modeOf = ({ mode }: Sandbox) => (mode === 'own' || mode === 'deferred' ? 'default' : mode)

export const noSuchContainer = (idOrName: string) => new HttpError(404, `No such container: ${idOrName}`)
