/**
 * What every network driver must do, as a suite for Jest. For the authors of drivers:
 *
 * ```ts
 * import { driverSuite } from 'libcnm/testing'
 * driverSuite('my driver', { makeDriver: () => new MyDriver() })
 * ```
 *
 * By itself it runs on a modelled kernel, without root, and fails each of its calls in turn. With `openHost` it runs on
 * a kernel of your choice: hand in the real one and a network namespace to use as the host.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { contains, parseCidr } from '../base/cidr'
import { newId } from '../base/ids'
import { Controller } from '../controller'
import { applyLeniently } from '../driver/carry-out'
import type { Driver, NetworkSpec, Plan } from '../driver/contract'
import type { Endpoint } from '../endpoint'
import type { Kernel, Route, Stack } from '../kernel/kernel'
import type { Network } from '../network'
import type { NetworkInput } from '../options'
import type { Sandbox } from '../sandbox'
import { faultSweep, type SweptOperation } from './fault-sweep'
import { type KernelCall, MockKernel, type MockKernelOptions } from './mock-kernel'
import type { Snapshot } from './model/snapshot'

export interface DriverSuiteOptions {
  /** A driver as at the start of a process; asked for often. */
  makeDriver: () => Driver
  /** Of `createNetwork({ options })`. */
  options?: Record<string, unknown>
  /** Subnets of the first and the second network. Default: one IPv4 and one IPv6 subnet each. */
  subnets?: [string[], string[]]
  /** Mode of the sandboxes that its endpoints join. `own` when absent. */
  mode?: 'own' | 'host'
  /** Refuses options that it does not know, as it should. True when absent. */
  strict?: boolean
  /** Of the modelled kernel. */
  kernel?: MockKernelOptions
  /** Another kernel than a fresh model for each test, and where to work on it. */
  openHost?: () => Promise<DriverSuiteHost>
}

export interface DriverSuiteHost {
  kernel: Kernel
  /** Path of the network namespace to use as the host. The process's own when absent. */
  host?: string
  /** For namespaces and files of sandboxes. */
  runDir: string
  close(): unknown
}

const SUBNETS: [string[], string[]] = [
  ['10.123.1.0/24', 'fd00:123:1::/64'],
  ['10.123.2.0/24', 'fd00:123:2::/64'],
]

/** Defines the tests. */
export function driverSuite(name: string, suite: DriverSuiteOptions): void {
  const { makeDriver, options = {}, subnets = SUBNETS, mode = 'own', strict = true } = suite
  const { capabilities, name: driverName } = makeDriver()
  const addressed = capabilities.addresses !== false
  const input = (n: 1 | 2, more: Partial<NetworkInput> = {}): NetworkInput => ({
    name: `net${n}`,
    driver: driverName,
    options,
    ...(addressed && { ipam: { config: (subnets[n - 1] as string[]).map(subnet => ({ subnet })) } }),
    ...more,
  })

  const cleanup: (() => unknown)[] = []
  afterEach(async () => {
    for (const act of cleanup.splice(0).reverse()) await act()
  })
  const openHost = suite.openHost ?? (() => modelledHost(suite.kernel))

  async function open(at: DriverSuiteHost, dataDir?: string): Promise<Controller> {
    const { kernel, host, runDir } = at
    const settings = { kernel, host, runDir, dataDir, firewall: 'none', hostId: 'driver-suite' } as const
    const driver = makeDriver()
    const controller = await Controller.open(
      BUILT_IN.has(driver.name) ? settings : { ...settings, drivers: [driver] },
    )
    cleanup.push(() => controller.close())
    return controller
  }

  async function scene(
    dataDir?: string,
  ): Promise<{ at: DriverSuiteHost; controller: Controller; host: Stack }> {
    const at = await openHost()
    cleanup.push(() => at.close())
    const host = await at.kernel.open(at.host)
    cleanup.push(() => host.close())
    return { at, controller: await open(at, dataDir), host }
  }

  const sandboxOf = (controller: Controller, containerId: string): Promise<Sandbox> =>
    controller.createSandbox({ containerId, mode, files: false, resolver: false })

  async function joined(network: Network, sandbox: Sandbox): Promise<Endpoint> {
    const endpoint = await network.createEndpoint({ name: sandbox.containerId })
    await endpoint.join(sandbox)
    return endpoint
  }

  /** Everything ends; what cannot be deleted by design stays. */
  async function endAll(controller: Controller): Promise<void> {
    for (const sandbox of controller.sandboxes()) await sandbox.delete()
    for (const network of controller.networks()) {
      for (const endpoint of network.endpoints()) await endpoint.delete()
      if (!capabilities.single) await network.delete()
    }
    await controller.settle()
  }

  describe(name, () => {
    test('has a name, capabilities, and a schema of its options', async () => {
      expect(driverName).toMatch(/^[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,127}$/)
      expect(['local', 'global']).toContain(capabilities.dataScope)
      expect(['local', 'global', '']).toContain(capabilities.connectivityScope)
      const { controller } = await scene()
      if (strict)
        await expect(
          controller.createNetwork(input(1, { options: { ...options, noSuchOption: 1 } })),
        ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
      await controller.createNetwork(input(1)) // what was refused left nothing in the way
    })

    test('two endpoints live, leave and end, and the host is as it was before', async () => {
      const { controller, host } = await scene()
      const before = await likeness(host)
      const network = await controller.createNetwork(input(1))
      const created = await likeness(host)
      const [one, two] = [await sandboxOf(controller, 'one'), await sandboxOf(controller, 'two')]
      const empty = await likeness(one.stack as Stack)
      const endpoints = [await joined(network, one), await joined(network, two)]
      await Promise.all(endpoints.map(verify))
      expect(await controller.check()).toEqual([])
      for (const endpoint of endpoints) await endpoint.leave()
      await controller.settle()
      await eventually(() => likeness(one.stack as Stack), empty)
      await eventually(() => likeness(host), created)
      for (const endpoint of endpoints) await endpoint.join(endpoint === endpoints[0] ? two : one)
      await Promise.all(endpoints.map(verify))
      await endAll(controller)
      if (!capabilities.single) await eventually(() => likeness(host), before)
    })

    if (!capabilities.single)
      test('one sandbox on two networks', async () => {
        const { controller, host } = await scene()
        const before = await likeness(host)
        const networks = [await controller.createNetwork(input(1)), await controller.createNetwork(input(2))]
        const sandbox = await sandboxOf(controller, 'both')
        const endpoints: Endpoint[] = []
        for (const network of networks) endpoints.push(await joined(network, sandbox))
        await Promise.all(endpoints.map(verify))
        const names = endpoints.flatMap(({ interfaceName }) => interfaceName ?? [])
        expect(new Set(names).size).toBe(names.length)
        await (endpoints[0] as Endpoint).leave()
        await verify(endpoints[1] as Endpoint)
        expect(await controller.check()).toEqual([])
        await endAll(controller)
        await eventually(() => likeness(host), before)
      })

    if (capabilities.single)
      test('there is one network of it, which stays', async () => {
        const { controller } = await scene()
        const network = await controller.createNetwork(input(1))
        await expect(controller.createNetwork(input(2))).rejects.toMatchObject({
          code: 'ERR_SINGLE_INSTANCE',
        })
        await expect(network.delete()).rejects.toMatchObject({ code: 'ERR_SINGLE_INSTANCE' })
      })

    test('what it answers is plain data, and can be stored', async () => {
      const { controller } = await scene()
      const network = await controller.createNetwork(input(1))
      const endpoint = await joined(network, await sandboxOf(controller, 'one'))
      const answers = { state: network.record.state, attachment: endpoint.record.join?.attachment }
      const again = JSON.parse(JSON.stringify(answers)) as unknown
      expect(again).toEqual(JSON.parse(JSON.stringify(structuredClone(answers))))
      expect(withoutUndefined(answers)).toEqual(again)
    })

    test('the undo of its plans takes back what they did, and minds nothing that is gone', async () => {
      const { controller, host, at } = await scene()
      const driver = makeDriver()
      const before = await likeness(host)
      const spec: NetworkSpec = {
        id: newId(),
        name: 'direct',
        internal: false,
        ipv4: addressed,
        ipv6: addressed && (subnets[1] as string[]).some(subnet => subnet.includes(':')),
        labels: {},
        pools: addressed ? (subnets[1] as string[]).map(poolOf) : [],
        options: driver.options.parse(options),
      }
      for (const name of driver.reserves?.(spec) ?? [])
        for (const pool of spec.pools) pool.auxiliary[name] = pool.gateway as string
      const { plan, state } = await driver.createNetwork(spec, host, [])
      await carryOutAndBack(at.kernel, host, plan)
      await eventually(() => likeness(host), before)
      await applyLeniently(host, (await driver.deleteNetwork({ spec, state }, host, [])).changes ?? [])
      expect(await likeness(host)).toEqual(before)

      const network = await controller.createNetwork(input(1))
      const sandbox = await sandboxOf(controller, 'one')
      const endpoint = await network.createEndpoint({ name: 'one' })
      const [outside, inside] = [await likeness(host), await likeness(sandbox.stack as Stack)]
      const attachment = await driver.join(network.forDriver, endpoint.spec, {
        sandboxId: sandbox.id,
        sandboxKey: sandbox.key as string,
        netns: mode === 'host' ? undefined : sandbox.stack,
        interfaceName: 'eth0',
        sandboxOptions: {},
      })
      await carryOutAndBack(at.kernel, host, attachment.plan)
      // What was born inside, with no other end on the host, is the core's to remove.
      const { arrives, source } = attachment.interface ?? {}
      if (arrives === 'born' && !source)
        await sandbox.stack?.apply([{ op: 'removeLink', link: 'eth0', ifExists: true }])
      await eventually(() => likeness(host), outside)
      await eventually(() => likeness(sandbox.stack as Stack), inside)
      for (let twice = 0; twice < 2; twice++)
        await applyLeniently(
          host,
          (await driver.leave(network.forDriver, endpoint.spec, attachment)).changes ?? [],
        )
      expect(await likeness(host)).toEqual(outside)
    })

    test('it goes on after a restart of the process', async () => {
      const dataDir = mkdtempSync(join(tmpdir(), 'libcnm-driver-suite-'))
      cleanup.push(() => rmSync(dataDir, { recursive: true, force: true }))
      const { controller, host, at } = await scene(dataDir)
      const before = await likeness(host)
      await joined(await controller.createNetwork(input(1)), await sandboxOf(controller, 'one'))
      const running = await likeness(host)
      await controller.close()
      const next = await open(at, dataDir)
      expect(await likeness(host)).toEqual(running)
      expect(await next.check()).toEqual([])
      const network = next.network('net1')
      await verify(network.endpoint('one'))
      await verify(await joined(network, await sandboxOf(next, 'two')))
      await endAll(next)
      if (!capabilities.single) await eventually(() => likeness(host), before)
    })

    test('an interface that somebody took away is made again by repair', async () => {
      const { controller } = await scene()
      const network = await controller.createNetwork(input(1))
      const sandbox = await sandboxOf(controller, 'one')
      const endpoint = await joined(network, sandbox)
      if (!endpoint.record.join?.attachment?.interface) return
      await sandbox.stack?.apply([{ op: 'removeLink', link: endpoint.interfaceName as string }])
      expect((await controller.check()).length).toBeGreaterThan(0)
      await controller.repair()
      expect(await controller.check()).toEqual([])
      await verify(endpoint)
      await endAll(controller)
    })

    if (!suite.openHost) {
      /** Builds a scene on the kernel to be failed; `act` is swept. */
      const sweep = (act: (controller: Controller, kernel: MockKernel) => Promise<() => Promise<unknown>>) =>
        faultSweep(
          async (kernel): Promise<SweptOperation> => {
            const controller = await open({ ...MODELLED, kernel })
            const run = await act(controller, kernel)
            return { run, close: () => controller.close() }
          },
          { kernel: suite.kernel, mayAbsorb: inBackground, normalise: stable },
        )

      test('whole or nothing: whatever call of the kernel fails', async () => {
        if (!capabilities.single) await sweep(async controller => () => controller.createNetwork(input(1)))
        await sweep(async controller => {
          const network = await controller.createNetwork(input(1))
          const sandbox = await sandboxOf(controller, 'one')
          const endpoint = await network.createEndpoint({ name: 'one' })
          return () => endpoint.join(sandbox)
        })
        await sweep(async controller => {
          const network = await controller.createNetwork(input(1))
          const endpoint = await joined(network, await sandboxOf(controller, 'one'))
          return async () => {
            await endpoint.leave()
            await controller.settle()
          }
        })
        if (!capabilities.single)
          await sweep(async controller => {
            const network = await controller.createNetwork(input(1))
            return () => network.delete()
          })
      })
    }
  })
}

const BUILT_IN = new Set(['bridge', 'host', 'null', 'macvlan', 'ipvlan', 'overlay'])

/** linux/rtnetlink.h RT_TABLE_LOCAL */
const LOCAL_TABLE = 255

const MODELLED = { host: undefined, runDir: '/run/libcnm-driver-suite', close() {} }
const modelledHost = async (options?: MockKernelOptions): Promise<DriverSuiteHost> => ({
  ...MODELLED,
  kernel: new MockKernel(options),
})

/** Links are deleted in the background, which tries again; routes to an endpoint that leaves, at once. */
const inBackground = ({ op }: KernelCall): boolean => op === 'removeLink' || op === 'removeRoute'

/** Without the carrier of ports, which hangs on the other end. */
const stable = (snapshot: Snapshot): unknown =>
  JSON.parse(JSON.stringify(snapshot, (key, value) => (key === 'carrier' ? undefined : value)))

/** The interface is there and has what the endpoint was promised. */
async function verify({ sandbox, interfaceName, record, spec }: Endpoint): Promise<void> {
  const attachment = record.join?.attachment
  expect(attachment).toBeDefined()
  if (!attachment?.interface) return
  const stack = sandbox?.stack as Stack
  const link = await stack.link(interfaceName as string)
  expect(link).toMatchObject({ up: true })
  if (attachment.interface.mac) expect(link?.mac).toBe(attachment.interface.mac)
  if (attachment.interface.mtu) expect(link?.mtu).toBe(attachment.interface.mtu)
  const addresses = (await stack.addresses(link?.index)).map(({ address }) => address)
  for (const address of attachment.addresses ?? [spec.ipv4, spec.ipv6])
    if (address) expect(addresses).toContain(address)
  for (const gateway of Object.values(attachment.gateways ?? {}))
    if (gateway && gateway !== 'device') {
      const route = await stack.routeTo(gateway)
      expect(route?.gateway).toBeUndefined() // it is next door
    }
}

async function carryOutAndBack(kernel: Kernel, host: Stack, plan: Plan | undefined): Promise<void> {
  if (!plan) return
  if (plan.changes?.length) await kernel.transact([{ stack: host, changes: plan.changes }])
  if (plan.sysctls) host.setSysctls(plan.sysctls)
  for (let twice = 0; twice < 2; twice++) await applyLeniently(host, plan.undo ?? [])
}

/** What IPAM would give: the first address for the gateway. */
function poolOf(subnet: string) {
  const { family, length } = parseCidr(subnet)
  const gateway = subnet.replace(family === 4 ? /0\/\d+$/ : /::\/\d+$/, family === 4 ? '1' : '::1')
  if (!contains(parseCidr(subnet), parseCidr(`${gateway}/${length}`)))
    throw new Error(`the suite needs subnets that end in .0/N or ::/N, not ${subnet}`)
  return { family, subnet, gateway: `${gateway}/${length}`, auxiliary: {} as Record<string, string> }
}

/** A stack as plain sorted data, without what differs from run to run: indexes, counters, carrier, states of ports. */
async function likeness(stack: Stack): Promise<unknown> {
  const { links, addresses, routes } = await stack.survey()
  const name = (index?: number) => links.find(link => link.index === index)?.name
  const sorted = (lines: unknown[]) => lines.map(line => JSON.stringify(line)).sort()
  return {
    links: sorted(
      links.map(({ name: own, kind, mtu, up, master, alias, port }) => ({
        own,
        kind,
        mtu,
        up,
        master: name(master),
        alias,
        port: port && { hairpin: port.hairpin, isolated: port.isolated, learning: port.learning },
      })),
    ),
    // The kernel makes and unmakes link-local addresses, and the routes of its own table, when it sees fit.
    addresses: sorted(
      addresses
        .filter(({ address }) => !address.startsWith('fe80:'))
        .map(({ address, link, scope }) => ({ address, link: name(link), scope })),
    ),
    routes: sorted(
      routes
        .filter(({ table, destination }) => table !== LOCAL_TABLE && !destination.startsWith('fe80:'))
        .map((route: Route) => ({ ...route, link: name(route.link) })),
    ),
  }
}

/** The kernel may take a while to clear away what was deleted. */
async function eventually(look: () => Promise<unknown>, wanted: unknown): Promise<void> {
  const until = Date.now() + 5_000
  while (Date.now() < until && !isDeepStrictEqual(await look(), wanted))
    await new Promise(resolve => setTimeout(resolve, 20))
  expect(await look()).toEqual(wanted)
}

const withoutUndefined = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(withoutUndefined)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== undefined)
      .map(([key, inner]) => [key, withoutUndefined(inner)]),
  )
}
