/** The IPv6 gateway of a new network is there at once: nobody waits a second or two for duplicate address detection. */
import { bare, hostForEach, stackOf } from '../../support/host'

const host = hostForEach()
const PORT = 8080
/** Milliseconds. Detection takes one second at least (RFC 4862: RetransTimer). */
const DETECTION = 1000

test('an endpoint speaks with its gateway right after the join, though the host detects duplicates', async () => {
  const h = host()
  h.host.setSysctls({ 'net/ipv6/conf/default/accept_dad': '1' })
  await h.serve(h.host, PORT)
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1' })
  await endpoint.join(sandbox)
  const inside = stackOf(sandbox)

  const joined = performance.now()
  expect(await h.tcp(inside, 'fd77:1::1', PORT)).toBe(bare(endpoint.ipv6))
  expect(performance.now() - joined).toBeLessThan(DETECTION)
  for (const [stack, address] of [
    [h.host, 'fd77:1::1/64'],
    [inside, endpoint.ipv6],
  ] as const)
    expect((await stack.addresses()).find(each => each.address === address)).toMatchObject({
      tentative: false,
    })
  await sandbox.delete()
  await network.delete()
})
