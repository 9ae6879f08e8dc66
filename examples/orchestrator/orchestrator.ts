/**
 * A small orchestrator: it keeps as many tasks of an application running as were asked for, on the hosts that there are.
 * libcnm's part is the network: a service whose virtual IP and published port lead to the tasks that are ready.
 */
import type { Controller, Endpoint, Sandbox } from 'libcnm'

/** What runs in a task; a container, in earnest. */
export interface Program {
  /** Told to readers: `v2`. */
  version: string
  /** Starts it in the network namespace; resolves when it answers. */
  start(place: { key: string; task: string }): Promise<Running>
}

export interface Running {
  /** Finishes what it has been asked, and ends. */
  stop(): Promise<void>
}

export interface Application {
  name: string
  network: string
  replicas: number
  program: Program
  /** Where the program listens. */
  port: number
  /** On every host. */
  publishedPort: number
}

interface Task {
  name: string
  host: string
  version: string
  sandbox: Sandbox
  endpoint: Endpoint
  running: Running
}

/** Milliseconds that a change has for becoming a rule on every host, once every host has heard of it. */
const GRACE = 200

export class Orchestrator {
  readonly #hosts = new Map<string, Controller>()
  readonly #tasks = new Set<Task>()
  #application: Application | undefined
  #count = 0
  #work: Promise<unknown> = Promise.resolve()
  readonly #say: (text: string) => void

  constructor(say: (text: string) => void = () => {}) {
    this.#say = say
  }

  /* ------------------------------------------------------------------ what is asked of it */

  /** From now on tasks may be placed there. What runs there that is not ours to run any more is cleared away. */
  async addHost(name: string, controller: Controller): Promise<void> {
    await this.#alone(async () => {
      const wanted = [...this.#tasks].filter(({ host }) => host === name).map(task => task.name)
      const swept = await controller.gc({ containerIds: wanted })
      if (swept.length) this.#say(`${name} is back; ${swept.join(', ')} had been replaced and are removed`)
      this.#hosts.set(name, controller)
    })
    await this.#reconcile()
  }

  /** The host is gone: its tasks are lost, and others take their places. */
  async loseHost(name: string): Promise<void> {
    this.#hosts.delete(name)
    for (const task of this.#tasks) if (task.host === name) this.#tasks.delete(task)
    await this.#reconcile()
  }

  async deploy(application: Application): Promise<void> {
    await this.#alone(async () => {
      const { name, network, port, publishedPort } = application
      const controller = this.#anyHost()
      await controller.createNetwork({ name: network, driver: 'overlay' })
      await controller.createService({ name, network, ports: [{ targetPort: port, publishedPort }] })
      this.#application = application
      await this.#heard(host => host.services().some(service => service.name === name))
    })
    await this.#reconcile()
  }

  async scale(replicas: number): Promise<void> {
    if (this.#application) this.#application = { ...this.#application, replicas }
    await this.#reconcile()
  }

  /** One task after the other is replaced by one of the new version: the new one serves before the old one goes. */
  async roll(program: Program): Promise<void> {
    await this.#alone(async () => {
      if (this.#application) this.#application = { ...this.#application, program }
      for (const old of [...this.#tasks].filter(({ version }) => version !== program.version)) {
        await this.#start(old.host)
        await this.#stop(old)
      }
    })
  }

  /** Everything that was deployed goes. */
  async remove(): Promise<void> {
    await this.#alone(async () => {
      const application = this.#application
      this.#application = undefined
      for (const task of [...this.#tasks]) await this.#stop(task)
      if (!application) return
      const controller = this.#anyHost()
      await controller.service(application.name).delete()
      await controller.network(application.network).delete()
    })
  }

  tasks(): { name: string; host: string; version: string }[] {
    return [...this.#tasks].map(({ name, host, version }) => ({ name, host, version }))
  }

  /* ------------------------------------------------------------------ how it does it */

  /** Starts what is missing, where there is least, and stops what is too much, where there is most. */
  async #reconcile(): Promise<void> {
    await this.#alone(async () => {
      const wanted = this.#application?.replicas ?? 0
      while (this.#hosts.size && this.#tasks.size < wanted) await this.#start(this.#byLoad().at(0) as string)
      while (this.#tasks.size > wanted) {
        const fullest = this.#byLoad().at(-1)
        await this.#stop([...this.#tasks].find(({ host }) => host === fullest) as Task)
      }
    })
  }

  async #start(host: string): Promise<void> {
    const { name: app, network, program } = this.#application as Application
    const controller = this.#hosts.get(host) as Controller
    const name = `${app}.${++this.#count}`
    const sandbox = await controller.createSandbox({ containerId: name })
    try {
      const endpoint = await controller
        .network(network)
        .createEndpoint({ name, service: { name: app, weight: 0 } }) // no flows yet
      await endpoint.join(sandbox)
      const running = await program.start({ key: sandbox.key as string, task: name })
      await endpoint.setWeight(1)
      await this.#heard(each => this.#weightOf(each, app, endpoint) === 1)
      this.#tasks.add({ name, host, version: program.version, sandbox, endpoint, running })
      this.#say(`${name} (${program.version}) serves on ${host}`)
    } catch (error) {
      await sandbox.delete({ force: true })
      throw error
    }
  }

  /** New flows go elsewhere first; then it finishes what it has; then it goes. */
  async #stop(task: Task): Promise<void> {
    const app = task.name.replace(/\.\d+$/, '')
    await task.endpoint.setWeight(0)
    await this.#heard(each => this.#weightOf(each, app, task.endpoint) === 0)
    await new Promise(resolve => setTimeout(resolve, GRACE))
    await task.running.stop()
    this.#tasks.delete(task)
    await task.sandbox.delete()
    this.#say(`${task.name} (${task.version}) is drained and gone from ${task.host}`)
  }

  #weightOf(controller: Controller, service: string, { id }: Endpoint): number | undefined {
    return controller
      .service(service)
      .tasks()
      .find(({ endpointId }) => endpointId === id)?.weight
  }

  /** Until every host knows. */
  async #heard(known: (controller: Controller) => boolean): Promise<void> {
    const deadline = Date.now() + 20_000
    while (![...this.#hosts.values()].every(known)) {
      if (Date.now() > deadline) throw new Error('a host does not hear what the others do')
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }

  /** Names of the hosts, that with the fewest tasks first. */
  #byLoad(): string[] {
    const load = (name: string) => [...this.#tasks].filter(({ host }) => host === name).length
    return [...this.#hosts.keys()].sort((a, b) => load(a) - load(b) || (a < b ? -1 : 1))
  }

  #anyHost(): Controller {
    const [first] = this.#hosts.values()
    if (!first) throw new Error('there is no host')
    return first
  }

  /** One thing after the other. */
  #alone<T>(body: () => Promise<T>): Promise<T> {
    const next = this.#work.then(body)
    this.#work = next.catch(() => {})
    return next
  }
}
