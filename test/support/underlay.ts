/**
 * Several hosts on one machine: each a namespace with its own controller, all on one wire, which is a bridge in a namespace
 * of its own with a router that stands for the world beyond. Everything is gone at the end.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Controller,
  type ControllerInput,
  type Endpoint,
  type Network,
  type Sandbox,
  type Stack,
} from 'libcnm'
import { Line, TestEtcd } from './etcd'
import { isCnmError } from '../../lib/base/errors'
import { bare, TestHost } from './host'

export interface UnderlayHost {
  name: string
  number: number
  stack: Stack
  address: string
  /** Its way to etcd. */
  line: Line
  options: Exclude<ControllerInput, undefined>
  controller: Controller
}

/** `lease`: seconds. `timeout`: milliseconds that etcd may take. */
type HostSettings = Partial<UnderlayHost['options']> & { lease?: number; timeout?: number }

/** The world beyond the underlay: reached through the hosts, answers whoever asks. */
export const WORLD = { 4: '198.51.100.1', 6: '2001:db8:ffff::1' } as const

export class Underlay {
  /** Namespaces and probes. */
  readonly base = new TestHost()
  readonly hosts: UnderlayHost[] = []
  readonly directory = mkdtempSync(join(tmpdir(), 'libcnm-underlay-'))
  wire!: Stack
  etcd!: TestEtcd
  readonly #mtu: number
  readonly #family: 4 | 6

  private constructor(mtu: number, family: 4 | 6) {
    this.#mtu = mtu
    this.#family = family
  }

  static async build(
    count: number,
    { mtu = 1500, family = 4, ...options }: { mtu?: number; family?: 4 | 6 } & HostSettings = {},
  ): Promise<Underlay> {
    const underlay = new Underlay(mtu, family)
    const { base } = underlay
    ;[underlay.etcd, underlay.wire] = await Promise.all([TestEtcd.start(), base.namespace('wire')])
    await underlay.wire.apply([
      { op: 'addLink', link: { kind: 'bridge', name: 'wire' } },
      { op: 'setLink', link: 'wire', mtu, up: true },
      { op: 'addAddress', link: 'wire', address: '192.0.2.254/24' },
      { op: 'addAddress', link: 'wire', address: '2001:db8::fe/64' },
      { op: 'addAddress', link: 'lo', address: `${WORLD[4]}/32` },
      { op: 'addAddress', link: 'lo', address: `${WORLD[6]}/128` },
    ])
    await Promise.all(Array.from({ length: count }, (_, at) => underlay.#add(at + 1, options)))
    underlay.hosts.sort((a, b) => a.number - b.number)
    return underlay
  }

  async #add(number: number, options: HostSettings): Promise<void> {
    const name = `host${number}`
    const stack = await this.base.namespace(name)
    stack.setSysctls({ 'net/ipv6/conf/default/accept_dad': '0' })
    stack.setSysctls({ 'net/ipv4/ip_forward': '1', 'net/ipv6/conf/all/forwarding': '1' })
    const addresses = { 4: `192.0.2.${number}`, 6: `2001:db8::${number.toString(16)}` }
    await this.base.kernel.transact([
      {
        stack: this.wire,
        changes: [
          {
            op: 'addLink',
            link: {
              kind: 'veth',
              name,
              mtu: this.#mtu,
              master: 'wire',
              up: true,
              peer: { name: 'uplink', mtu: this.#mtu, netns: stack, up: true },
            },
          },
        ],
      },
      {
        stack,
        changes: [
          { op: 'addAddress', link: 'uplink', address: `${addresses[4]}/24` },
          { op: 'addAddress', link: 'uplink', address: `${addresses[6]}/64` },
          { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: '192.0.2.254', link: 'uplink' } },
          { op: 'addRoute', route: { destination: '::/0', gateway: '2001:db8::fe', link: 'uplink' } },
        ],
      },
    ])
    const line = await Line.to(this.etcd.port)
    const { lease = 60, timeout = 4_000, ...rest } = options
    const all: UnderlayHost['options'] = {
      kernel: this.base.kernel,
      host: stack.path,
      name: `cnm-${name}`,
      runDir: join(this.directory, name, 'run'),
      dataDir: join(this.directory, name, 'data'),
      hostId: name,
      ...rest,
      cluster: {
        endpoints: [line.endpoint],
        host: { name, address: addresses[this.#family] },
        lease,
        timeout,
      },
    }
    const controller = await Controller.open(all)
    controller.on('problem', ({ message, error }) =>
      console.error(`${name}: ${message}: ${String((error as Error | undefined)?.message ?? error)}`),
    )
    this.hosts.push({ name, number, stack, address: addresses[this.#family], line, options: all, controller })
  }

  host(number: number): UnderlayHost {
    return this.hosts[number - 1] as UnderlayHost
  }

  /** The controller's process ended and starts again. */
  async restart(host: UnderlayHost): Promise<void> {
    await host.controller.close()
    host.controller = await Controller.open(host.options)
  }

  /** The network on every host, as soon as all have it. */
  async everywhere(name: string): Promise<Network[]> {
    await until(() => this.hosts.every(host => find(host, name)), `network ${name} on all hosts`)
    return this.hosts.map(host => host.controller.network(name))
  }

  async container(
    host: UnderlayHost,
    network: string,
    name: string,
    options: Partial<Parameters<Network['createEndpoint']>[0]> = {},
  ): Promise<{ sandbox: Sandbox; endpoint: Endpoint; stack: Stack; ipv4: string; ipv6: string }> {
    const sandbox = await host.controller.createSandbox({ containerId: name })
    const endpoint = await host.controller.network(network).createEndpoint({ name, ...options })
    await endpoint.join(sandbox)
    return {
      sandbox,
      endpoint,
      stack: sandbox.stack as Stack,
      ipv4: bare(endpoint.ipv4),
      ipv6: bare(endpoint.ipv6),
    }
  }

  /** Cuts a host's link to the others, or heals it. */
  async link(host: UnderlayHost, up: boolean): Promise<void> {
    await this.wire.apply([{ op: 'setLink', link: host.name, up }])
  }

  /** Deletes all that was made through the controllers, and demands that the hosts are empty then. */
  async clear(): Promise<void> {
    for (const { controller } of this.hosts) await controller.gc({ containerIds: [] })
    for (const { controller } of this.hosts)
      for (const network of controller.networks())
        for (const endpoint of network.endpoints()) await endpoint.delete({ force: true })
    for (const host of this.hosts)
      for (const network of host.controller.networks())
        await until(
          // what other hosts withdrew is known here a moment later
          () => !find(host, network.name) || attempt(network),
          `network ${network.name} still has endpoints elsewhere`,
        )
    await until(() => this.hosts.every(({ controller }) => controller.networks().length === 0), 'no networks')
    for (const { controller, stack } of this.hosts) {
      await controller.settle()
      await until(
        () => !stack.nft('list tables').includes('-tunnels'),
        async () => stack.nft('list tables'),
      )
      await until(
        async () =>
          (await stack.links())
            .map(({ name }) => name)
            .sort()
            .join() === 'lo,uplink',
        async () => `links that are left: ${(await stack.links()).map(({ name }) => name).join()}`,
      )
    }
  }

  async close(): Promise<void> {
    for (const { controller, line } of this.hosts) {
      await controller.close()
      await line.close()
    }
    // After a test that failed half way, containers may be left.
    for (const { name } of this.hosts)
      for (const path of await this.base.kernel.list(join(this.directory, name, 'run', 'netns')))
        await this.base.kernel.remove(path)
    await this.etcd.stop()
    await this.base.close()
    rmSync(this.directory, { recursive: true, force: true })
    const left = readdirSync(tmpdir()).filter(name => this.directory.endsWith(name))
    if (left.length) throw new Error(`left behind: ${left.join()}`)
  }
}

const find = (host: UnderlayHost, name: string): Network | undefined =>
  host.controller.networks().find(network => network.name === name)

/** Milliseconds: long, since the machine may be busy. */
const PATIENCE = 30_000

export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string | (() => Promise<string>),
): Promise<void> {
  const deadline = Date.now() + PATIENCE
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`in vain: ${typeof what === 'string' ? what : await what()}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

/** Is it deleted? False while endpoints of other hosts are in the way. */
async function attempt(network: Network): Promise<boolean> {
  try {
    await network.delete()
    return true
  } catch (error) {
    if (isCnmError(error, 'ERR_NETWORK_IN_USE')) return false
    throw error
  }
}
