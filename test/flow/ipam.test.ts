/** IPAM drivers chosen per network: one's own around the default one, and none at all. */
import { DefaultIpamDriver, type IpamDriver } from 'libcnm'
import { fresh, networkOf, sandboxOf } from './scene'

/** As a third party would write it: the default one, with addresses from the top. */
class FromTheTop extends DefaultIpamDriver implements IpamDriver {
  override readonly name = 'from-the-top'
  private next = 250

  override requestAddress(...[poolId, request]: Parameters<IpamDriver['requestAddress']>) {
    if (request.purpose !== 'endpoint' || request.address) return super.requestAddress(poolId, request)
    return super.requestAddress(poolId, { ...request, address: `10.1.0.${this.next--}` })
  }
}

test('a driver of a third party wraps the default one, and serves the networks that name it', async () => {
  const { controller } = await fresh()
  controller.registerIpamDriver(new FromTheTop())
  const config = [{ subnet: '10.1.0.0/24' }]
  const network = await controller.createNetwork({ name: 'web', ipam: { driver: 'from-the-top', config } })
  expect(network.ipam[0]).toMatchObject({ gateway: '10.1.0.1/24' })
  const addresses = [await network.createEndpoint({ name: 'a' }), await network.createEndpoint({ name: 'b' })]
  expect(addresses.map(({ ipv4 }) => ipv4)).toEqual(['10.1.0.250/24', '10.1.0.249/24'])
  const other = await networkOf(controller, 'other', 2)
  expect((await other.createEndpoint({ name: 'a' })).ipv4).toBe('10.2.0.2/24')
  await expect(
    controller.createNetwork({ name: 'x', ipam: { driver: 'from-the-tap' } }),
  ).rejects.toMatchObject({
    code: 'ERR_DRIVER_NOT_FOUND',
    message: expect.stringMatching(/did you mean "from-the-top"/),
  })
  expect(() => controller.registerIpamDriver(new DefaultIpamDriver())).toThrow(/built in/)
})

test('null: macvlan without an address; a bridge needs a subnet', async () => {
  const { controller } = await fresh()
  const ipam = { driver: 'null' }
  const network = await controller.createNetwork({ name: 'lan', driver: 'macvlan', ipam })
  const endpoint = await network.createEndpoint({ name: 'c1' })
  await endpoint.join(await sandboxOf(controller, 'c1'))
  expect(endpoint.ipv4).toBeUndefined()
  await expect(network.createEndpoint({ name: 'c2', ipv4: '10.1.0.5' })).rejects.toMatchObject({
    code: 'ERR_ADDRESS_OUT_OF_RANGE',
  })
  await expect(controller.createNetwork({ name: 'web', ipam })).rejects.toMatchObject({ kind: 'invalid' })
})
