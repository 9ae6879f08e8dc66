import type { Lab } from './lab'

/** States need a kernel with ESP, policies any. */
export function ipsec(lab: Lab): void {
  describe('IPsec', () => {
    const state = {
      source: '192.0.2.1',
      destination: '192.0.2.2',
      spi: 0x1234,
      reqid: 7,
      key: '000102030405060708090a0b0c0d0e0f10111213',
    }
    const { key: _, ...bare } = state
    const six = { ...state, source: '2001:db8::1', destination: '2001:db8::2' }
    const policy = { ...bare, port: 4789, mark: 5 }

    test('policies are set, in the place of their like, told and removed', async () => {
      await lab.host.apply([
        { op: 'setIpsecPolicy', policy },
        { op: 'addAddress', link: 'lo', address: '192.0.2.1/32' },
        { op: 'setIpsecPolicy', policy: { ...policy, mark: 6 } },
        { op: 'setIpsecPolicy', policy: { ...policy, spi: 0x1235 } },
      ])
      expect(await lab.addressesOf(lab.host, 'lo')).toContain('192.0.2.1/32')
      const told = await lab.host.ipsecPolicies()
      expect(told.sort((a, b) => a.mark - b.mark)).toEqual([
        { ...policy, spi: 0x1235 },
        { ...policy, mark: 6 },
      ])
      const other = lab.open(await lab.kernel.create(lab.at('other')))
      expect(await other.ipsecPolicies()).toEqual([])
      await lab.host.apply(told.map(each => ({ op: 'removeIpsecPolicy', policy: each })))
      expect(await lab.host.ipsecPolicies()).toEqual([])
      await expect(lab.host.apply([{ op: 'removeIpsecPolicy', policy }])).rejects.toMatchObject({
        details: { errno: 'ENOENT' },
      })
    })

    test('a kernel without ESP says so, and what is missing', async () => {
      if (!lab.lacks(['esp'])) return
      await expect(lab.host.apply([{ op: 'addIpsecState', state }])).rejects.toMatchObject({
        code: 'ERR_UNSUPPORTED',
        message: expect.stringContaining('esp4'),
      })
      expect(await lab.host.ipsecStates()).toEqual([])
    })

    test('states are added once, told without keys, and removed', async () => {
      if (lab.lacks(['esp'])) return
      await lab.host.apply([
        { op: 'addIpsecState', state },
        { op: 'addIpsecState', state: six },
      ])
      await expect(lab.host.apply([{ op: 'addIpsecState', state }])).rejects.toMatchObject({
        details: { errno: 'EEXIST' },
      })
      const told = await lab.host.ipsecStates()
      const { key: _, ...second } = six
      expect(told.sort((a, b) => (a.source < b.source ? -1 : 1))).toEqual([
        { ...bare, packets: 0 },
        { ...second, packets: 0 },
      ])
      await lab.host.apply(told.map(each => ({ op: 'removeIpsecState', state: each })))
      expect(await lab.host.ipsecStates()).toEqual([])
      await expect(lab.host.apply([{ op: 'removeIpsecState', state }])).rejects.toMatchObject({
        details: { errno: 'ESRCH' },
      })
    })
  })
}
