/** The runtime's own namespaces: real processes whose /proc/PID/ns/net is handed over. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { CLIENT, hostForEach, stackOf, THROUGH, UPLINK } from '../../support/host'

const host = hostForEach()
const children: ChildProcess[] = []
afterEach(async () => {
  for (const child of children.splice(0)) {
    const gone = new Promise(resolve => child.once('exit', resolve))
    if (child.exitCode === null && child.kill('SIGKILL')) await gone
  }
})

/** As an OCI runtime starts a container: the process first, its namespace known by its pid. */
async function runtime(): Promise<string> {
  const own = readlinkSync('/proc/self/ns/net')
  const child = spawn('unshare', ['-n', 'sleep', '600'], { stdio: 'ignore' })
  children.push(child)
  const path = `/proc/${child.pid}/ns/net`
  for (const until = Date.now() + 10_000; Date.now() < until; ) {
    if (readlinkSync(path) !== own) return path
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  throw new Error('unshare did nothing')
}

test('joined before there is a process; then moved to another one, with its ports', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', mode: 'deferred', files: false })
  const endpoint = await network.createEndpoint({ name: 'c1', ports: ['18080:8080'] })
  await endpoint.join(sandbox)
  await h.serve(h.client, 8080)
  const links: string[][] = []
  for (let round = 0; round < 2; round++) {
    await sandbox.setKey(await runtime())
    await h.serve(stackOf(sandbox), 8080)
    for (const address of [CLIENT[4], CLIENT[6]])
      expect(await h.reaches(stackOf(sandbox), address, 8080)).toEqual(THROUGH)
    expect(await h.tcp(h.client, UPLINK[4], 18080)).toBe(CLIENT[4])
    expect(await controller.check()).toEqual([])
    links.push((await h.host.links()).filter(({ kind }) => kind === 'veth').map(({ name }) => name))
  }
  expect(links.map(each => each.length)).toEqual([2, 2]) // the uplink and one port: the old one is gone
  await sandbox.delete()
  await network.delete()
  await controller.settle()
})

test('a namespace that cannot take it: everything is where it was', async () => {
  const h = host()
  const controller = await h.open()
  const networks = []
  for (const n of [1, 2])
    networks.push(
      await controller.createNetwork({ name: `n${n}`, ipam: { config: [{ subnet: `10.77.${n}.0/24` }] } }),
    )
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false })
  for (const network of networks) await (await network.createEndpoint({ name: 'c1' })).join(sandbox)
  const before = await h.snapshot()
  const inside = h.run(stackOf(sandbox), 'ip', '-j', 'route')
  const path = await runtime()
  const theirs = await h.kernel.open(path)
  await theirs.apply([
    { op: 'setLink', link: 'lo', up: true },
    { op: 'addLink', link: { kind: 'bridge', name: 'eth1' } },
  ])
  const taken = h.run(theirs, 'ip', '-j', 'address')
  await expect(sandbox.setKey(path)).rejects.toMatchObject({ code: 'ERR_LINK_EXISTS' })
  await h.assertAs(before, ['processes'])
  expect(h.run(stackOf(sandbox), 'ip', '-j', 'route')).toBe(inside)
  expect(h.run(theirs, 'ip', '-j', 'address')).toBe(taken)
  expect(await controller.check()).toEqual([])
  await theirs.apply([{ op: 'removeLink', link: 'eth1' }])
  theirs.close()
  await sandbox.setKey(path)
  await h.serve(h.client, 8080)
  expect(await h.tcp(stackOf(sandbox), CLIENT[4], 8080)).toBe(UPLINK[4])
  await sandbox.delete()
  for (const network of networks) await network.delete()
  await controller.settle()
})
