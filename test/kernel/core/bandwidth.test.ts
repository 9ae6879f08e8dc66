/** Rates of an endpoint, by what a transfer takes: what it receives and what it sends, changed while it runs. */
import { createServer, Socket } from 'node:net'
import type { Stack } from 'libcnm'
import { hostForEach, stackOf } from '../../support/host'

const host = hostForEach()
const PORT = 9000
const BYTES = 2_000_000
/** Bits per second: {@link BYTES} take two seconds. */
const RATE = 8_000_000
/** Milliseconds. Well under what the rate implies, since the first burst passes at once, and far over what no limit takes. */
const LIMITED = 1_200
const UNLIMITED = 700

/** Takes in whatever comes, over IPv4 and IPv6, and says so once all of it is there. */
async function sink(where: Stack): Promise<() => void> {
  const servers = ['0.0.0.0', '::'].map(address => {
    const server = createServer(socket => {
      let left = BYTES
      socket.on('error', () => {})
      socket.on('data', data => {
        left -= data.length
        if (left === 0) socket.end('all')
      })
    })
    return { server, fd: where.openSocket({ type: 'tcp', address, port: PORT, listen: 16 }) }
  })
  for (const { server, fd } of servers) await new Promise<void>(resolve => server.listen({ fd }, resolve))
  return () => {
    for (const { server } of servers) server.close()
  }
}

/** Milliseconds until the other side has received everything. */
function transfer(from: Stack, address: string): Promise<number> {
  const fd = from.openSocket({ type: 'tcp', address: address.includes(':') ? '::' : '0.0.0.0', port: 0 })
  const socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
  return new Promise((resolve, reject) => {
    let begun = 0
    socket.on('error', reject)
    socket.on('data', () => {
      socket.destroy()
      resolve(performance.now() - begun)
    })
    socket.connect({ host: address, port: PORT }, () => {
      begun = performance.now()
      socket.write(Buffer.alloc(BYTES))
    })
  })
}

/** Milliseconds of a transfer each way: what the container receives, what it sends. */
async function measure(outside: Stack, inside: Stack, addresses: { outside: string; inside: string }) {
  return {
    ingress: await transfer(outside, addresses.inside),
    egress: await transfer(inside, addresses.outside),
  }
}

test('a rate each way holds from the join on, is changed and taken away at run time, IPv4 and IPv6', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1', bandwidth: { ingress: RATE } })
  await endpoint.join(sandbox)
  const inside = stackOf(sandbox)
  const ends = [await sink(h.host), await sink(inside)]
  const port = (await h.host.links()).find(({ kind, master }) => kind === 'veth' && master !== undefined)
    ?.name as string
  const queues = () => ({
    ingress: /^qdisc tbf /.test(h.run(h.host, 'tc', 'qdisc', 'show', 'dev', port)),
    egress: /^qdisc tbf /.test(h.run(inside, 'tc', 'qdisc', 'show', 'dev', 'eth0')),
  })
  const four = { outside: '10.77.1.1', inside: '10.77.1.2' }
  const six = { outside: 'fd77:1::1', inside: 'fd77:1::2' }

  expect(queues()).toEqual({ ingress: true, egress: false })
  const received = await measure(h.host, inside, four)
  expect(received.ingress).toBeGreaterThan(LIMITED)
  expect(received.egress).toBeLessThan(Math.max(UNLIMITED, received.ingress / 3))

  await endpoint.setBandwidth({ ingress: null, egress: RATE })
  expect(queues()).toEqual({ ingress: false, egress: true })
  const sent = await measure(h.host, inside, six)
  expect(sent.egress).toBeGreaterThan(LIMITED)
  expect(sent.ingress).toBeLessThan(Math.max(UNLIMITED, sent.egress / 3))

  // Five times the rate, and only that: what is not named stays.
  await endpoint.setBandwidth({ egress: 5 * RATE })
  expect(queues()).toEqual({ ingress: false, egress: true })
  const faster = await measure(h.host, inside, four)
  expect(faster.egress).toBeGreaterThan(LIMITED / 5)
  expect(faster.egress).toBeLessThan(sent.egress)

  await endpoint.setBandwidth({ egress: null })
  expect(queues()).toEqual({ ingress: false, egress: false })
  const free = await measure(h.host, inside, six)
  expect(Math.max(free.ingress, free.egress)).toBeLessThan(Math.max(UNLIMITED, sent.egress / 3))

  for (const end of ends) end()
  await sandbox.delete()
  await network.delete()
})

test('a rate set at run time is kept over a new join, and a refused one changes nothing', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1' })
  await endpoint.join(sandbox)
  await endpoint.setBandwidth({ egress: RATE })
  const queue = () => h.run(stackOf(sandbox), 'tc', 'qdisc', 'show', 'dev', 'eth0')
  await expect(endpoint.setBandwidth({ egress: 999 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  expect(queue()).toMatch(/^qdisc tbf .* rate 8Mbit /)
  await endpoint.leave()
  await endpoint.join(sandbox)
  expect(queue()).toMatch(/^qdisc tbf .* rate 8Mbit /)
  await sandbox.delete()
  await network.delete()
})
