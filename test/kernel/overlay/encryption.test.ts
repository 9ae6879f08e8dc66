/** Encrypted networks on this machine's kernel, whatever it has; traffic is for test/vm/encryption.test.ts. */
import type { DriverNetwork } from 'libcnm'
import { guard } from '../../../drivers/overlay/guard'
import type { OverlayOptions } from '../../../drivers/overlay/options'
import { isCnmError } from '../../../lib/base/errors'
import { Underlay, until } from '../../support/underlay'

jest.setTimeout(120_000)

let net: Underlay
beforeAll(async () => {
  net = await Underlay.build(1)
})
afterAll(async () => {
  try {
    await net?.clear()
  } finally {
    await net?.close()
  }
})

test('a network is made and joined, or the kernel’s lack of ESP is told; either way nothing is left', async () => {
  const { controller, stack } = net.host(1)
  try {
    await controller.createNetwork({ name: 'vpn', driver: 'overlay', options: { encrypted: true } })
    const { sandbox } = await net.container(net.host(1), 'vpn', 'one')
    expect(await controller.check()).toEqual([])
    await sandbox.delete()
    await controller.network('vpn').delete()
  } catch (error) {
    if (!isCnmError(error, 'ERR_UNSUPPORTED')) throw error
    expect(error.message).toMatch(/esp4.*encrypted networks cannot be had/)
    expect(controller.networks()).toEqual([])
  }
  expect(await stack.ipsecStates()).toEqual([])
})

test.each([
  ['deleted', (table: string) => `delete table inet ${table}`],
  ['emptied', (table: string) => `flush table inet ${table}`],
  ['changed', (table: string) => `flush set inet ${table} ends4`],
])(
  'the table that guards tunnels is %s by somebody: it is there again at once, and it is told',
  async (_, act) => {
    const { controller, stack } = net.host(1)
    const table = `${controller.name}-tunnels`
    const network = await controller.createNetwork({ name: 'plain', driver: 'overlay' })
    const list = () => stack.nft(`list table inet ${table}`)
    const before = list()
    const told: string[] = []
    const listen = ({ problems }: { problems: { message: string }[] }) =>
      void told.push(...problems.map(({ message }) => message))
    controller.on('firewall.repaired', listen)
    stack.nft(act(table))
    await until(() => told.length > 0, 'it is told')
    expect(told).toEqual([expect.stringContaining(table)])
    expect(list()).toBe(before)
    expect(await controller.check()).toEqual([])
    controller.off('firewall.repaired', listen)
    await network.delete()
    await until(() => !stack.nft('list tables').includes(table), 'it is gone')
  },
)

test('nftables takes the rules', () => {
  const network = (vni: number, encrypted: boolean, link?: string) =>
    ({
      spec: { options: { encrypted } },
      state: { link, data: { vni, port: 4789 } },
    }) as unknown as DriverNetwork<OverlayOptions>
  const { stack } = net.host(1)
  const networks = [network(1, false), network(2, true), network(3, true, 'ov-x')]
  stack.nft(guard('probe-tunnels', networks, ['192.0.2.1', '2001:db8::1'], 0x7fff_ffff))
  const listing = stack.nft('list table inet probe-tunnels')
  expect(listing).toContain('ipsec in reqid 2147483647 goto known')
  expect(listing).toContain('rt ipsec missing drop')
  stack.nft(guard('probe-tunnels', [], [], 1))
  expect(stack.nft('list tables')).not.toContain('probe-tunnels')
})
