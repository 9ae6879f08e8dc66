/** Published SCTP ports by traffic: slim kernels have no SCTP. */
import { bare, CLIENT, hostForEach, stackOf, UPLINK } from '../support/host'

const host = hostForEach()

test.each(['nftables', 'iptables'] as const)('a published SCTP port, by %s', async firewall => {
  await using controller = await host().open({ firewall })
  const network = await controller.createNetwork({
    name: 'web',
    ipv6: true,
    ipam: { config: [{ subnet: '10.77.0.0/24' }, { subnet: 'fd77::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const port = (hostPort: number) => ({ containerPort: 3868, hostPort, protocol: 'sctp' as const })
  const endpoint = await network.createEndpoint({ name: 'diameter', ports: [port(13868)] })
  await endpoint.join(sandbox)
  await host().serveSctp(stackOf(sandbox), 3868)
  const ask = (address: string, at: number, patience?: number) =>
    host().sctp(host().client, address, at, patience)

  expect(await ask(UPLINK[4], 13868)).toBe(CLIENT[4])
  expect(await ask(UPLINK[6], 13868)).toBe(CLIENT[6])
  // Neither another port, nor TCP, nor the container itself.
  expect(await ask(UPLINK[4], 13869, 1_000)).toBe('closed')
  expect(await host().tcp(host().client, UPLINK[4], 13868, 1_000)).toBe('closed')
  expect(await ask(bare(endpoint.ipv4), 3868, 1_000)).toBe('closed')

  await endpoint.updatePorts([port(23868)])
  expect(await ask(UPLINK[4], 23868)).toBe(CLIENT[4])
  expect(await ask(UPLINK[4], 13868, 1_000)).toBe('closed')
  await sandbox.delete()
  expect(await ask(UPLINK[4], 23868, 1_000)).toBe('closed')
  await network.delete()
})
