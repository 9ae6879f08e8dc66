/** macvlan and ipvlan networks: bad input is refused with typed errors, before anything is made. */
import { macvlan } from '../../drivers/macvlan'
import { ipvlan } from '../../drivers/ipvlan'
import { fresh } from './scene'

const host = { link: async (name: string) => (name === 'eth0' ? { name } : undefined) } as never
const spec = (options: object, id = 'a'.repeat(64)) =>
  ({ id, name: 'n', internal: false, ipv4: true, ipv6: false, pools: [], labels: {}, options }) as never

test.each([
  ['lo', 'ERR_INVALID_OPTION'],
  ['eth0.0', 'ERR_INVALID_OPTION'],
  ['eth0.4095', 'ERR_INVALID_OPTION'],
  ['eth0.1.2', 'ERR_INVALID_OPTION'],
  ['eth7.10', 'ERR_LINK_NOT_FOUND'],
])('parent %s: %s', async (parent, code) => {
  for (const driver of [macvlan(), ipvlan()])
    await expect(driver.createNetwork(spec({ parent, mode: 'bridge' }), host, [])).rejects.toMatchObject({
      code,
    })
})

test('a VLAN is made and goes with its last user; passthru shares with nobody', async () => {
  const driver = macvlan()
  const made = await driver.createNetwork(spec({ parent: 'eth0.10', mode: 'bridge' }), host, [])
  expect(made.plan?.changes).toEqual([
    { op: 'addLink', link: { kind: 'vlan', name: 'eth0.10', parent: 'eth0', id: 10, up: true } },
  ])
  const first = { spec: spec({ parent: 'eth0.10', mode: 'bridge' }), state: made.state }
  await expect(
    driver.createNetwork(spec({ parent: 'eth0.10', mode: 'passthru' }, 'b'.repeat(64)), host, [first]),
  ).rejects.toMatchObject({ code: 'ERR_LINK_CONFLICT' })
  expect((await driver.deleteNetwork(first, host, [first])).changes).toHaveLength(1)
})

test.each(['macvlan', 'ipvlan'])(
  '%s: no endpoint is given an address that the host has on the LAN',
  async driver => {
    const hardware = [{ name: 'eth0', addresses: ['192.0.2.1/24', '192.0.2.3/24', '2001:db8::2/64'] }]
    const { controller } = await fresh({}, { hardware })
    const lan = await controller.createNetwork({
      name: 'lan',
      driver,
      options: { parent: 'eth0' },
      ipam: { config: [{ subnet: '192.0.2.0/29' }, { subnet: '2001:db8::/64' }] },
    })
    const make = async (name: string) => {
      const { ipv4, ipv6 } = await lan.createEndpoint({ name })
      return [ipv4, ipv6]
    }
    expect(await make('a')).toEqual(['192.0.2.2/29', '2001:db8::1/64'])
    expect(await make('b')).toEqual(['192.0.2.4/29', '2001:db8::3/64'])
    // somebody may want it all the same, and what was refused has been given back
    const wanted = await lan.createEndpoint({ name: 'c', ipv4: '192.0.2.3' })
    expect(wanted.ipv4).toBe('192.0.2.3/29')
    for (const name of ['d', 'e']) await make(name)
    await expect(make('f')).rejects.toMatchObject({ code: 'ERR_POOL_EXHAUSTED' })
  },
)
