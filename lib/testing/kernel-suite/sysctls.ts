import { bridge } from './changes'
import type { Lab } from './lab'

/** Kernel settings of a namespace. */
export function sysctls(lab: Lab): void {
  describe('sysctls', () => {
    test('read and write', async () => {
      await lab.host.apply([bridge('br0')])
      expect(lab.host.sysctl('net/ipv4/ip_forward')).toBe('0')
      expect(lab.host.sysctl('net/ipv4/conf/br0/route_localnet')).toBe('0')
      expect(lab.host.sysctl('net/ipv6/conf/br0/disable_ipv6')).toBe('0')
      expect(lab.host.sysctl('net/ipv4/conf/nope/forwarding')).toBeUndefined()
      expect(lab.host.sysctl('net/ipv4/nope')).toBeUndefined()
      lab.host.setSysctls({ 'net/ipv4/conf/br0/route_localnet': '1', 'net/ipv4/conf/default/rp_filter': '2' })
      expect(lab.host.sysctl('net/ipv4/conf/br0/route_localnet')).toBe('1')
      await lab.host.apply([bridge('br1')])
      expect(lab.host.sysctl('net/ipv4/conf/br1/rp_filter')).toBe('2')
      expect(lab.host.sysctl('net/ipv4/conf/br1/route_localnet')).toBe('0')
    })

    test('ip_forward is the forwarding of every link', async () => {
      await lab.host.apply([bridge('br0')])
      lab.host.setSysctls({ 'net/ipv4/ip_forward': '1' })
      for (const name of ['all', 'default', 'br0'])
        expect(lab.host.sysctl(`net/ipv4/conf/${name}/forwarding`)).toBe('1')
      await lab.host.apply([bridge('br1')])
      expect(lab.host.sysctl('net/ipv4/conf/br1/forwarding')).toBe('1')
      lab.host.setSysctls({ 'net/ipv6/conf/all/forwarding': '1' })
      expect(lab.host.sysctl('net/ipv6/conf/br0/forwarding')).toBe('1')
    })

    test('disable_ipv6 of all is that of every link, and of later ones', async () => {
      await lab.host.apply([bridge('br0')])
      lab.host.setSysctls({ 'net/ipv6/conf/all/disable_ipv6': '1' })
      await lab.host.apply([bridge('br1')])
      for (const name of ['br0', 'br1', 'lo', 'default'])
        expect(lab.host.sysctl(`net/ipv6/conf/${name}/disable_ipv6`)).toBe('1')
      expect(await lab.addressesOf(lab.host, 'lo')).toEqual(['127.0.0.1/8'])
    })

    test('a link takes its sysctls along when it is renamed', async () => {
      await lab.host.apply([bridge('br0')])
      lab.host.setSysctls({ 'net/ipv4/conf/br0/route_localnet': '1' })
      await lab.host.apply([{ op: 'setLink', link: 'br0', rename: 'br1' }])
      expect(lab.host.sysctl('net/ipv4/conf/br0/route_localnet')).toBeUndefined()
      expect(lab.host.sysctl('net/ipv4/conf/br1/route_localnet')).toBe('1')
    })

    test('refusals name the key', () => {
      for (const [key, value, errno] of [
        ['net/ipv4/conf/nope/forwarding', '1', 'ENOENT'],
        ['net/ipv4/ip_forward', 'yes', 'EINVAL'],
      ] as const) {
        expect(() => lab.host.setSysctls({ [key]: value })).toThrow(
          expect.objectContaining({ code: 'ERR_KERNEL', details: expect.objectContaining({ key, errno }) }),
        )
      }
    })
  })
}
