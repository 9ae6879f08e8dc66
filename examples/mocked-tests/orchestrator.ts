/** A program of yours: it runs services, each on the networks that it names. Whatever it needs of libcnm is handed in. */
import { type Controller, isCnmError, type Sandbox } from 'libcnm'

export interface Service {
  name: string
  networks: string[]
  /** As `docker run -p`. */
  ports?: string[]
}

export class Orchestrator {
  constructor(private readonly controller: Controller) {}

  /** Starts a service, or leaves nothing of it behind. Answers with the path of the namespace, for the container runtime. */
  async start({ name, networks, ports }: Service): Promise<string> {
    const sandbox = await this.controller.createSandbox({ containerId: name, files: false })
    try {
      for (const [position, network] of networks.entries())
        await this.connect(sandbox, network, position, ports)
      return sandbox.key as string
    } catch (error) {
      await sandbox.delete()
      await this.tidy(networks)
      throw error
    }
  }

  /** Stops it; networks that nobody needs any more go too. */
  async stop(name: string): Promise<void> {
    const sandbox = this.controller.sandbox(name)
    const networks = sandbox.endpoints().map(({ network }) => network.name)
    await sandbox.delete()
    await this.tidy(networks)
  }

  /** The first network that a service names is its way out, and where its ports are published. */
  private async connect(sandbox: Sandbox, networkName: string, position: number, ports?: string[]) {
    const network = await this.network(networkName)
    const endpoint = await network.createEndpoint({
      name: sandbox.containerId,
      ports: position === 0 ? ports : undefined,
    })
    try {
      await endpoint.join(sandbox, { priority: -position })
    } catch (error) {
      await endpoint.delete()
      throw error
    }
  }

  private async network(name: string) {
    try {
      return this.controller.network(name)
    } catch (error) {
      if (!isCnmError(error, 'ERR_NETWORK_NOT_FOUND')) throw error
      return this.controller.createNetwork({ name })
    }
  }

  private async tidy(names: string[]): Promise<void> {
    for (const network of this.controller.networks())
      if (names.includes(network.name) && network.endpoints().length === 0) await network.delete()
  }
}
