/**
 * 127.0.0.0/8 of the host, which a bridge may lead to (route_localnet) only while a rule of ours keeps packets from the bridge out of
 * it: on a bridge that was there before us, and that outlives its network, the leave must end with the rule.
 */
import { createSocket } from 'node:dgram'
import type { Stack } from 'libcnm'
import { hostForEach, stackOf } from '../../support/host'

const host = hostForEach()
const KEY = 'net/ipv4/conf/own0/route_localnet'
/** Milliseconds in which a datagram would arrive. */
const SHORT = 300

/** A neighbour on the bridge that takes 127.0.0.0/8 for a subnet behind the host. */
async function neighbour(): Promise<Stack> {
  const h = host()
  const stack = await h.namespace('neighbour')
  await h.host.apply([
    {
      op: 'addLink',
      link: {
        kind: 'veth',
        name: 'n0',
        master: 'own0',
        up: true,
        peer: { name: 'eth0', netns: stack, up: true },
      },
    },
  ])
  await stack.apply([{ op: 'addAddress', link: 'eth0', address: '10.77.1.9/24' }])
  h.run(
    stack,
    'sh',
    '-ec',
    'ip route del table local 127.0.0.1; ip route del table local 127.0.0.0/8; ip route replace 127.0.0.0/8 via 10.77.1.1',
  )
  return stack
}

/** Does a datagram for 127.0.0.1 arrive there? */
async function arrives(from: Stack): Promise<boolean> {
  const h = host()
  const heard = createSocket('udp4')
  await new Promise<void>(resolve =>
    heard.bind({ fd: h.host.openSocket({ type: 'udp', address: '127.0.0.1', port: 99 }) }, () => resolve()),
  )
  const hears = new Promise<boolean>(resolve => {
    heard.on('message', () => resolve(true))
    setTimeout(() => resolve(false), SHORT)
  })
  h.run(from, 'bash', '-c', 'for i in 1 2 3; do echo hello > /dev/udp/127.0.0.1/99; done')
  const answer = await hears
  heard.close()
  return answer
}

async function publish(firewall: 'nftables' | 'iptables') {
  const h = host()
  const controller = await h.open({ firewall, dataDir: h.dataDir })
  const network = await controller.createNetwork({
    name: 'own',
    options: { name: 'own0' },
    ipam: { config: [{ subnet: '10.77.1.0/24', gateway: '10.77.1.1' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1', ports: ['127.0.0.1:8080:80'] })
  await endpoint.join(sandbox)
  await h.serve(stackOf(sandbox), 80)
  return { controller, network, sandbox }
}

beforeEach(async () => {
  await host().host.apply([
    { op: 'addLink', link: { kind: 'bridge', name: 'own0', up: true } },
    { op: 'addAddress', link: 'own0', address: '10.77.1.1/24' },
  ])
})
/** What was there before us goes by its owner. */
const end = () =>
  host().host.apply([
    { op: 'removeLink', link: 'n0' },
    { op: 'removeLink', link: 'own0' },
  ])

test.each(['nftables', 'iptables'] as const)('%s: until its network goes', async firewall => {
  const h = host()
  const { controller, network, sandbox } = await publish(firewall)
  const stranger = await neighbour()
  expect(h.host.sysctl(KEY)).toBe('1')
  expect(await h.tcp(h.host, '127.0.0.1', 8080)).not.toBe('closed')
  expect(await arrives(stranger)).toBe(false)
  await sandbox.delete()
  await network.delete()
  expect(await arrives(stranger)).toBe(false)
  expect(h.host.sysctl(KEY)).toBe('0')
  await controller.close({ remove: true })
  await end()
})

test.each(['nftables', 'iptables'] as const)('%s: until a start without a firewall', async firewall => {
  const h = host()
  const { controller } = await publish(firewall)
  const stranger = await neighbour()
  await controller.close()
  expect(await arrives(stranger)).toBe(false)
  const next = await h.open({ firewall: 'none', dataDir: h.dataDir })
  expect(await arrives(stranger)).toBe(false)
  expect(h.host.sysctl(KEY)).toBe('0')
  await next.close({ remove: true })
  await end()
})
