/** macvlan and ipvlan networks: bad input is refused with typed errors, before anything is made. */
import { macvlan } from '../../drivers/macvlan'
import { ipvlan } from '../../drivers/ipvlan'

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
