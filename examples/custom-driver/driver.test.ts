/** The driver on the model of Linux, then on the kernel: used directly, and served to another. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Controller,
  type ControllerInput,
  type Driver,
  LinuxKernel,
  type Sandbox,
  serveDriver,
  type Stack,
} from 'libcnm'
import { driverSuite, MockKernel } from 'libcnm/testing'
import { routed } from './driver'

const cleanup: (() => unknown)[] = []
const later = (act: () => unknown): void => void cleanup.push(act)
afterEach(async () => {
  for (const act of cleanup.splice(0).reverse()) await act()
})

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'cnm-example-'))
  later(() => rmSync(path, { recursive: true, force: true }))
  return path
}

async function open(options: NonNullable<ControllerInput>): Promise<Controller> {
  const controller = await Controller.open(options)
  later(() => controller.close())
  return controller
}

const create = (controller: Controller, driver: string) =>
  controller.createNetwork({ name: 'n', driver, ipam: { config: [{ subnet: '10.92.0.0/24' }] } })

/** The contract of drivers: on the model, where every call of the kernel is failed in turn, and on the kernel. */
const suite = {
  makeDriver: () => routed() as Driver,
  options: { forward: false },
  subnets: [['10.123.1.0/24'], ['10.123.2.0/24']] as [string[], string[]],
}
driverSuite('routed, on the model', suite)
driverSuite('routed, on the kernel', {
  ...suite,
  openHost: async () => {
    const [directory, kernel] = [mkdtempSync(join(tmpdir(), 'libcnm-example-')), new LinuxKernel()]
    const host = join(directory, 'host')
    ;(await kernel.create(host)).close()
    return {
      kernel,
      host,
      runDir: join(directory, 'run'),
      async close() {
        for (const path of await kernel.list(join(directory, 'run', 'netns'))) await kernel.remove(path)
        await kernel.remove(host)
        rmSync(directory, { recursive: true, force: true })
      },
    }
  },
})

test('on the model: an endpoint joins and leaves, and nothing stays', async () => {
  const kernel = new MockKernel()
  const controller = await open({ kernel, drivers: [routed()] })
  const network = await create(controller, 'routed')
  const before = kernel.snapshot()
  const sandbox = await controller.createSandbox({ containerId: 'c', files: false })
  const endpoint = await network.createEndpoint({ name: 'c' })
  await endpoint.join(sandbox)
  expect(kernel.netns()?.routes.map(({ destination }) => destination)).toContain('10.92.0.2/32')
  await sandbox.delete()
  await network.delete()
  await controller.settle()
  expect(kernel.snapshot()).toEqual(before)
})

test('a network that it cannot carry is refused', async () => {
  const controller = await open({ kernel: new MockKernel(), drivers: [routed()] })
  const config = [{ subnet: '10.92.0.0/24' }, { subnet: 'fd92::/64' }]
  await expect(
    controller.createNetwork({ name: 'n', driver: 'routed', ipam: { config } }),
  ).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG' })
})

/** The answer of an echo server in `there`, asked from `here`. */
async function echo(here: Stack, there: Stack, address: string): Promise<string> {
  const server = createServer(socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen({ fd: there.openSocket({ type: 'tcp', address, port: 7, listen: 4, reuseAddress: true }) })
  await once(server, 'listening')
  const socket = here.run(() =>
    connect({
      host: 'echo',
      port: 7,
      family: 4,
      autoSelectFamily: false,
      lookup: (_name, _options, answer) => answer(null, address, 4),
    }),
  )
  socket.setTimeout(10_000, () => socket.destroy(new Error('timed out')))
  socket.end('hello')
  let heard = ''
  for await (const chunk of socket) heard += String(chunk)
  server.close()
  return heard
}

test.each(['routed', 'served'])('on the kernel, %s: containers and host reach one another', async driver => {
  const directory = folder()
  const kernel = new LinuxKernel()
  const host = join(directory, 'host')
  const stack = await kernel.create(host)
  later(async () => {
    stack.close()
    await kernel.remove(host)
  })
  const server = await serveDriver(routed(), { socket: join(directory, 'served.sock'), kernel, host })
  later(() => server.close())
  const controller = await open({
    kernel,
    host,
    runDir: join(directory, 'run'),
    firewall: 'none',
    drivers: [routed()],
    pluginDirectories: [directory],
  })
  const network = await create(controller, driver)
  const member = async (name: string): Promise<[Sandbox, Stack, string]> => {
    const sandbox = await controller.createSandbox({ containerId: name, files: false })
    const endpoint = await network.createEndpoint({ name })
    await endpoint.join(sandbox)
    return [sandbox, await kernel.open(sandbox.key), String(endpoint.ipv4).replace(/\/.*/, '')]
  }
  const [a, b] = [await member('a'), await member('b')]
  expect(await echo(a[1], b[1], b[2])).toBe('hello')
  expect(await echo(stack, b[1], b[2])).toBe('hello')
  for (const [sandbox, inside] of [a, b]) {
    inside.close()
    await sandbox.delete()
  }
  await network.delete()
  await controller.settle()
  expect((await stack.links()).map(({ name }) => name)).toEqual(['lo'])
})
