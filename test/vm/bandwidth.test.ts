/** Rates of ipvlan interfaces, by what a transfer takes: slim kernels have no ipvlan. */
import { CLIENT, hostForEach, stackOf } from '../support/host'
import { sink, transfer } from '../support/transfer'

const host = hostForEach()
/** Bits per second: what is transferred takes two seconds. */
const RATE = 8_000_000
/** Milliseconds. */
const LIMITED = 1_200

const LAN = { subnet: '192.0.2.0/24', ipRange: '192.0.2.64/26' }

test.each([
  ['l2', LAN],
  ['l3', { subnet: '10.9.0.0/24' }],
] as const)('ipvlan %s: what it receives and what it sends', async (mode, config) => {
  const controller = await host().open({ firewall: 'none' })
  const network = await controller.createNetwork({
    name: 'lan',
    driver: 'ipvlan',
    options: { parent: 'uplink', mode },
    ipam: { force: true, config: [config] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1', bandwidth: { ingress: RATE } })
  await endpoint.join(sandbox)
  const [inside, address] = [stackOf(sandbox), endpoint.ipv4?.split('/')[0] as string]
  const ends = [await sink(host().client), await sink(inside)]
  const received = await transfer(host().client, address)
  expect(received).toBeGreaterThan(LIMITED)
  expect(await transfer(inside, CLIENT[4])).toBeLessThan(received / 1.5)
  await endpoint.setBandwidth({ ingress: null, egress: RATE })
  const sent = await transfer(inside, CLIENT[4])
  expect(sent).toBeGreaterThan(LIMITED)
  expect(await transfer(host().client, address)).toBeLessThan(sent / 1.5)
  expect(await controller.check()).toEqual([])
  for (const end of ends) end()
  await sandbox.delete()
  await network.delete()
})

test('ipvlan l3s: what it sends; what it receives comes by the host, and that is said', async () => {
  const controller = await host().open({ firewall: 'none' })
  const network = await controller.createNetwork({
    name: 'lan',
    driver: 'ipvlan',
    options: { parent: 'uplink', mode: 'l3s' },
    ipam: { config: [{ subnet: '10.9.0.0/24' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1', bandwidth: { ingress: RATE } })
  const refused = { code: 'ERR_UNSUPPORTED', message: expect.stringMatching(/l3s.*mode l2 or l3/) }
  await expect(endpoint.join(sandbox)).rejects.toMatchObject(refused)
  await endpoint.setBandwidth({ ingress: null, egress: RATE })
  await endpoint.join(sandbox)
  const end = await sink(host().client)
  expect(await transfer(stackOf(sandbox), CLIENT[4])).toBeGreaterThan(LIMITED)
  await expect(endpoint.setBandwidth({ ingress: RATE })).rejects.toMatchObject(refused)
  expect(await controller.check()).toEqual([])
  end()
  await sandbox.delete()
  await network.delete()
})
