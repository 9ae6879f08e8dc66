/** A bridge behind a plugin socket, used through the remote client: real namespaces, real packets. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type Server, type Socket, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  bridge,
  Controller,
  LinuxKernel,
  type PluginServer,
  type Sandbox,
  serveDriver,
  type Stack,
} from 'libcnm'

const kernel = new LinuxKernel()
const directory = mkdtempSync(join(tmpdir(), 'cnm-remote-'))
const host = join(directory, 'host')
let hostStack: Stack
let server: PluginServer
let controller: Controller

beforeAll(async () => {
  hostStack = await kernel.create(host)
  server = await serveDriver(bridge(), { socket: join(directory, 'plugins', 'far.sock'), kernel, host })
  controller = await Controller.open({
    kernel,
    host,
    runDir: join(directory, 'run'),
    firewall: 'none',
    pluginDirectories: [join(directory, 'plugins')],
  })
})

afterAll(async () => {
  await controller.close()
  await server.close()
  hostStack.close()
  await kernel.remove(host)
  rmSync(directory, { recursive: true, force: true })
})

const names = async (stack: Stack) => (await stack.links()).map(({ name }) => name).sort()

/** A server that echoes, inside the sandbox. */
async function echoIn(stack: Stack, address: string): Promise<Server> {
  const echo = createServer(socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  echo.listen({ fd: stack.openSocket({ type: 'tcp', address, port: 7, listen: 8, reuseAddress: true }) })
  await once(echo, 'listening')
  return echo
}

async function say(stack: Stack, address: string, text: string): Promise<string> {
  const family = address.includes(':') ? 6 : 4
  const socket: Socket = stack.run(() =>
    connect({
      host: 'echo',
      port: 7,
      family,
      autoSelectFamily: false,
      lookup: (_name, _options, answer) => answer(null, address, family),
    }),
  )
  socket.setTimeout(10_000, () => socket.destroy(new Error('timed out')))
  socket.end(text)
  let heard = ''
  for await (const chunk of socket) heard += String(chunk)
  return heard
}

test('two sandboxes and the host talk over it, in both families; nothing is left at the end', async () => {
  const before = await names(hostStack)
  const network = await controller.createNetwork({
    name: 'n',
    driver: 'far',
    ipam: { config: [{ subnet: '10.91.0.0/24' }, { subnet: 'fd91::/64' }] },
    options: { name: 'br-far' },
  })
  const member = async (
    name: string,
  ): Promise<{ sandbox: Sandbox; stack: Stack; ipv4: string; ipv6: string }> => {
    const sandbox = await controller.createSandbox({ containerId: name, files: false })
    const endpoint = await network.createEndpoint({ name })
    await endpoint.join(sandbox)
    const stack = await kernel.open(sandbox.key)
    const bare = (text?: string) => String(text).replace(/\/.*/, '')
    return { sandbox, stack, ipv4: bare(endpoint.ipv4), ipv6: bare(endpoint.ipv6) }
  }
  const [a, b] = [await member('a'), await member('b')]
  expect(await names(a.stack)).toEqual(['eth0', 'lo'])
  expect((await a.stack.routeTo('192.0.2.1'))?.gateway).toBe('10.91.0.1')
  for (const address of [b.ipv4, b.ipv6]) {
    const echo = await echoIn(b.stack, address)
    expect(await say(a.stack, address, 'from a neighbour')).toBe('from a neighbour')
    expect(await say(hostStack, address, 'from the host')).toBe('from the host')
    echo.close()
  }
  expect(await controller.check()).toEqual([])
  a.stack.close()
  b.stack.close()
  await network.endpoint('a').leave()
  await network.endpoint('a').join(a.sandbox)
  await a.sandbox.delete()
  await b.sandbox.delete()
  await network.delete()
  await controller.settle()
  expect(await names(hostStack)).toEqual(before)
})
