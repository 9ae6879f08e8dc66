import { add, route, SCENE } from './changes'
import { eventually, type Lab } from './lab'

/** What Linux does to IPv6 by itself. */
export function ipv6(lab: Lab): void {
  describe('IPv6 on links', () => {
    const linkLocal = async (name: string) =>
      (await lab.addressesOf(lab.host, name)).filter(a => a.startsWith('fe80'))

    test('a link with carrier gets a link-local address made of its MAC', async () => {
      await lab.host.apply([
        add({ kind: 'veth', name: 'va', mac: '02:00:00:00:00:05', up: true, peer: { name: 'vb' } }),
      ])
      expect(await linkLocal('va')).toEqual([])
      await lab.host.apply([{ op: 'setLink', link: 'vb', up: true }])
      await eventually(async () => expect(await linkLocal('va')).toEqual(['fe80::ff:fe00:5/64']))
      await eventually(async () => expect(await linkLocal('vb')).toHaveLength(1))
    })

    test('none with disable_ipv6 or without address generation', async () => {
      await lab.host.apply([
        add({ kind: 'veth', name: 'va', peer: { name: 'vb' } }),
        add({ kind: 'veth', name: 'vc', up: true, peer: { name: 'vd' } }),
        { op: 'setLink', link: 'vd', up: true },
      ])
      lab.host.setSysctls({ 'net/ipv6/conf/va/disable_ipv6': '1', 'net/ipv6/conf/vb/addr_gen_mode': '1' })
      await lab.host.apply([
        { op: 'setLink', link: 'va', up: true },
        { op: 'setLink', link: 'vb', up: true },
      ])
      await eventually(async () => expect(await linkLocal('vc')).toHaveLength(1))
      expect(await linkLocal('va')).toEqual([])
      expect(await linkLocal('vb')).toEqual([])
    })

    test('disable_ipv6 removes addresses and routes, and forbids new ones', async () => {
      await lab.host.apply([...SCENE, route('fd00:9::/64', { gateway: 'fd00::5' })])
      lab.host.setSysctls({ 'net/ipv6/conf/va/disable_ipv6': '1' })
      expect(await lab.addressesOf(lab.host, 'va')).toEqual(['10.0.0.1/24'])
      expect(await lab.routesOf(lab.host, 6)).toEqual([])
      await expect(
        lab.host.apply([{ op: 'addAddress', link: 'va', address: 'fd00::1/64' }]),
      ).rejects.toMatchObject({
        details: { errno: 'EACCES' },
      })
      await expect(lab.host.apply([route('fd00:9::/64', { link: 'va' })])).rejects.toMatchObject({
        details: { errno: 'EACCES' },
      })
      lab.host.setSysctls({ 'net/ipv6/conf/va/disable_ipv6': '0' })
      await lab.host.apply([{ op: 'addAddress', link: 'va', address: 'fd00::1/64' }])
      expect(await lab.routesOf(lab.host, 6)).toEqual(['fd00::/64 dev va scope global proto 2 metric 256'])
    })
  })
}
