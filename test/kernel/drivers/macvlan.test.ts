/** macvlan on the real kernel: sandboxes stand in the LAN of their parent, beside a machine that is no container. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execFileSync } from 'node:child_process'
import { Controller, LinuxKernel, type Stack } from 'libcnm'

const kernel = new LinuxKernel()
let directory: string
let host: Stack
let lan: Stack
let controller: Controller

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'libcnm-macvlan-'))
  host = await kernel.create(join(directory, 'host'))
  lan = await kernel.create(join(directory, 'lan'))
  await kernel.transact([
    {
      stack: host,
      changes: [
        { op: 'addLink', link: { kind: 'veth', name: 'nic', up: true, peer: { name: 'eth0', netns: lan } } },
        { op: 'addAddress', link: 'nic', address: '192.0.2.10/24' },
      ],
    },
    {
      stack: lan,
      changes: [
        { op: 'addAddress', link: 'eth0', address: '192.0.2.1/24' },
        { op: 'setLink', link: 'eth0', up: true },
      ],
    },
  ])
  controller = await Controller.open({ host: host.path, runDir: join(directory, 'run'), firewall: 'none' })
})

afterAll(async () => {
  await controller?.close()
  for (const stack of [host, lan]) stack?.close()
  for (const name of ['host', 'lan']) await kernel.remove(join(directory, name))
  rmSync(directory, { recursive: true, force: true })
})

const pings = (key: string | undefined, address: string): boolean => {
  try {
    execFileSync('nsenter', [`--net=${key}`, 'ping', '-c', '1', '-W', '1', address], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const network = (mode: string) =>
  controller.createNetwork({
    name: `lan-${mode}`,
    driver: 'macvlan',
    options: { parent: 'nic', macvlan_mode: mode },
    ipam: {
      // The subnet of the parent itself, as is usual.
      config: [{ subnet: '192.0.2.0/24', gateway: '192.0.2.1', ipRange: '192.0.2.64/26' }],
    },
  })

test.each([
  ['bridge', true],
  ['private', false],
])('%s: the LAN is reached; sandboxes reach one another: %s', async (mode, among) => {
  const before = (await host.links()).map(({ name }) => name).sort()
  const made = await network(mode)
  const sandboxes = []
  for (const name of ['a', 'b']) {
    const sandbox = await controller.createSandbox({ containerId: `${mode}-${name}`, files: false })
    const endpoint = await made.createEndpoint({ name })
    await endpoint.join(sandbox)
    sandboxes.push({ sandbox, endpoint })
  }
  const [a, b] = sandboxes
  if (!a || !b) throw new Error('two sandboxes were made')
  expect(a.endpoint.ipv4).toMatch(/^192\.0\.2\.6\d\/24$/)
  expect(pings(a.sandbox.key, '192.0.2.1')).toBe(true)
  expect(pings(a.sandbox.key, (b.endpoint.ipv4 as string).replace(/\/.*/, ''))).toBe(among)
  expect(await controller.check()).toEqual([])
  await a.endpoint.leave()
  await a.endpoint.join(a.sandbox)
  expect(pings(a.sandbox.key, '192.0.2.1')).toBe(true)
  for (const { sandbox } of sandboxes) await sandbox.delete()
  await made.delete()
  await controller.settle()
  expect((await host.links()).map(({ name }) => name).sort()).toEqual(before)
})

test('what it sends is limited inside; what it receives cannot be, and that is said', async () => {
  const made = await network('bridge')
  const sandbox = await controller.createSandbox({ containerId: 'limited', files: false })
  const endpoint = await made.createEndpoint({ name: 'limited', bandwidth: { egress: 8_000_000 } })
  await endpoint.join(sandbox)
  const queue = () =>
    execFileSync('nsenter', [`--net=${sandbox.key}`, 'tc', 'qdisc', 'show', 'dev', 'eth0'], {
      encoding: 'utf8',
    })
  expect(queue()).toMatch(/^qdisc tbf .* rate 8Mbit /)
  await expect(endpoint.setBandwidth({ ingress: 8_000_000, egress: null })).rejects.toMatchObject({
    code: 'ERR_UNSUPPORTED',
    message: expect.stringMatching(/limited.*no end on the host/),
  })
  expect(queue()).toMatch(/^qdisc tbf .* rate 8Mbit /)
  await endpoint.setBandwidth({ egress: null })
  expect(queue()).not.toMatch(/tbf/)
  await sandbox.delete()
  await made.delete()
})

test('a parent that is not there, and lo, are refused', async () => {
  const create = (parent: string) =>
    controller.createNetwork({
      name: 'bad',
      driver: 'macvlan',
      options: { parent },
      ipam: { config: [{ subnet: '198.51.100.0/24' }] },
    })
  await expect(create('lo')).rejects.toMatchObject({ name: 'CnmError' })
  await expect(create('nowhere')).rejects.toMatchObject({ name: 'CnmError' })
  expect(controller.networks()).toEqual([])
})

test('the LAN of a parent stays the LAN: no other network takes its subnet', async () => {
  const vlan = await controller.createNetwork({
    name: 'elsewhere',
    driver: 'macvlan',
    options: { parent: 'nic' },
    ipam: { config: [{ subnet: '198.51.100.0/24' }] },
  })
  await expect(
    controller.createNetwork({ name: 'web', ipam: { config: [{ subnet: '192.0.2.128/25' }] } }),
  ).rejects.toMatchObject({ code: 'ERR_HOST_ROUTE_CONFLICT', message: expect.stringContaining('dev nic') })
  await vlan.delete()
})
