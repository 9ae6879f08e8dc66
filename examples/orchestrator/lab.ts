/**
 * Hosts for a rehearsal, on this machine: a network namespace each, on one wire; a controller in each; one store for all.
 * On real hosts this is `Controller.open({ cluster: { endpoints, host } })` in a process on each, and nothing else.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, type ControllerInput, LinuxKernel, type Stack } from 'libcnm'
import { MemoryCluster } from 'libcnm/testing'
import { type OwnEtcd, startEtcd } from './etcd'

/** Seconds after which a host that is silent is given up by the others. */
const LEASE = 2

/** What the hosts share: an etcd of the lab's own, one that is there, or a store in this process that stands for it. */
export type Store = 'etcd' | 'memory' | { endpoints: string[] }

export interface Host {
  readonly name: string
  readonly address: string
  /** Undefined: it is down. */
  controller: Controller | undefined
}

export class Lab {
  readonly kernel = new LinuxKernel()
  readonly hosts: Host[] = []
  /** A machine outside, on the same wire. */
  outside!: Stack
  readonly #directory = mkdtempSync(join(tmpdir(), 'libcnm-lab-'))
  readonly #stacks: Stack[] = []
  readonly #memory = new MemoryCluster()
  #etcd: string[] | undefined
  #own: OwnEtcd | undefined

  private constructor() {}

  static async build(count: number, store: Store): Promise<Lab> {
    const lab = new Lab()
    try {
      await lab.#build(count, store)
      return lab
    } catch (error) {
      await lab.close()
      throw error
    }
  }

  async #build(count: number, store: Store): Promise<void> {
    if (store === 'etcd') this.#own = await startEtcd(this.#directory)
    this.#etcd = this.#own ? [this.#own.endpoint] : typeof store === 'object' ? store.endpoints : undefined
    this.outside = await this.#namespace('outside')
    await this.outside.apply([
      { op: 'addLink', link: { kind: 'bridge', name: 'wire', up: true } },
      { op: 'addAddress', link: 'wire', address: '192.0.2.254/24' },
    ])
    for (let n = 1; n <= count; n++) await this.#add(`host${n}`, `192.0.2.${n}`)
  }

  async #namespace(name: string): Promise<Stack> {
    const stack = await this.kernel.create(join(this.#directory, name))
    this.#stacks.push(stack)
    return stack
  }

  async #add(name: string, address: string): Promise<void> {
    const stack = await this.#namespace(name)
    const peer = { name: 'uplink', netns: stack, up: true }
    await this.outside.apply([
      { op: 'addLink', link: { kind: 'veth', name, master: 'wire', up: true, peer } },
    ])
    await stack.apply([
      { op: 'addAddress', link: 'uplink', address: `${address}/24` },
      { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: '192.0.2.254', link: 'uplink' } },
    ])
    const host: Host = { name, address, controller: undefined }
    this.hosts.push(host)
    await this.start(host)
  }

  /** The host's controller begins, or begins again with what it knew. */
  async start(host: Host): Promise<void> {
    const { name, address } = host
    const store = this.#etcd ? { endpoints: this.#etcd } : { backend: this.#memory.backend() }
    const options: ControllerInput = {
      name: `lab-${name}`,
      host: join(this.#directory, name),
      hostId: name,
      runDir: join(this.#directory, `${name}.run`),
      dataDir: join(this.#directory, `${name}.data`),
      cluster: { ...store, prefix: '/libcnm-lab', host: { name, address }, lease: LEASE },
    }
    host.controller = await Controller.open(options)
    await this.outside.apply([{ op: 'setLink', link: name, up: true }])
  }

  /** The host falls silent: nobody manages it any more, and no packet comes or goes. */
  async fell(host: Host): Promise<void> {
    await this.outside.apply([{ op: 'setLink', link: host.name, up: false }])
    const { controller } = host
    host.controller = undefined
    await controller?.close()
  }

  /** Nothing of it is left. */
  async close(): Promise<void> {
    for (const { controller } of this.hosts) await controller?.close()
    for (const { name } of this.hosts)
      for (const path of await this.kernel.list(join(this.#directory, `${name}.run`, 'netns')))
        await this.kernel.remove(path)
    for (const stack of this.#stacks) {
      stack.close()
      await this.kernel.remove(stack.path as string)
    }
    this.#memory.close()
    await this.#own?.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}
