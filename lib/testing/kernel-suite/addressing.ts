import { route, SCENE } from './changes'
import type { Lab } from './lab'

/** Addresses, routes, neighbours, FDB entries and policy rules read back. */
export function addressing(lab: Lab): void {
  describe('addresses, routes and neighbours read back', () => {
    test('addresses and the routes that come and go with them', async () => {
      await lab.host.apply(SCENE)
      expect(await lab.routesOf(lab.host, 4)).toEqual([
        '10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0',
      ])
      expect(await lab.routesOf(lab.host, 4, 255)).toEqual(
        expect.arrayContaining([
          'local 10.0.0.1/32 dev va src 10.0.0.1 scope host proto 2 metric 0',
          'broadcast 10.0.0.255/32 dev va src 10.0.0.1 scope link proto 2 metric 0',
          'local 127.0.0.0/8 dev lo src 127.0.0.1 scope host proto 2 metric 0',
        ]),
      )
      expect(await lab.routesOf(lab.host, 6)).toEqual(['fd00::/64 dev va scope global proto 2 metric 256'])
      await lab.host.apply([
        { op: 'addAddress', link: 'va', address: '10.0.0.2/24' },
        { op: 'addAddress', link: 'va', address: '10.1.0.1/32' },
        { op: 'addAddress', link: 'va', address: '10.2.0.0/31' },
        { op: 'addAddress', link: 'va', address: '10.3.0.1/24', noPrefixRoute: true },
        { op: 'addAddress', link: 'va', address: 'fd00:3::1/64', noPrefixRoute: true },
        { op: 'addAddress', link: 'br0', address: 'fd00:4::1/128' },
      ])
      expect(await lab.routesOf(lab.host, 4)).toEqual([
        '10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0',
        '10.2.0.0/31 dev va src 10.2.0.0 scope link proto 2 metric 0',
      ])
      expect(await lab.routesOf(lab.host, 6)).toEqual([
        'fd00:4::1/128 dev br0 scope global proto 2 metric 256',
        'fd00::/64 dev va scope global proto 2 metric 256',
      ])
      await lab.host.apply([
        { op: 'removeAddress', link: 'va', address: '10.0.0.1/24' },
        { op: 'removeAddress', link: 'va', address: 'fd00::1/64' },
      ])
      expect(await lab.routesOf(lab.host, 4)).toEqual([
        '10.2.0.0/31 dev va src 10.2.0.0 scope link proto 2 metric 0',
      ])
      expect(await lab.routesOf(lab.host, 6)).toEqual([
        'fd00:4::1/128 dev br0 scope global proto 2 metric 256',
      ])
      // the secondary 10.0.0.2 went with its primary
      expect((await lab.addressesOf(lab.host, 'va')).filter(a => /^10/.test(a))).toEqual([
        '10.1.0.1/32',
        '10.2.0.0/31',
        '10.3.0.1/24',
      ])
    })

    test('the last IPv4 address takes all IPv4 routes of the link along', async () => {
      await lab.host.apply([
        ...SCENE,
        route('10.9.0.0/16', { link: 'va' }),
        route('fd00:9::/64', { link: 'va' }),
      ])
      await lab.host.apply([{ op: 'removeAddress', link: 'va', address: '10.0.0.1/24' }])
      expect(await lab.routesOf(lab.host, 4)).toEqual([])
      expect(await lab.routesOf(lab.host, 6)).toHaveLength(2)
    })

    test('a link that goes down loses its routes and IPv6 addresses; up again, only the connected ones come back', async () => {
      await lab.host.apply([
        ...SCENE,
        route('10.9.0.0/16', { gateway: '10.0.0.5' }),
        route('fd00:9::/64', { gateway: 'fd00::5' }),
      ])
      await lab.host.apply([{ op: 'setLink', link: 'va', up: false }])
      expect(await lab.routesOf(lab.host, 4)).toEqual([])
      expect(await lab.routesOf(lab.host, 6)).toEqual([])
      expect(await lab.addressesOf(lab.host, 'va')).toEqual(['10.0.0.1/24'])
      await lab.host.apply([{ op: 'setLink', link: 'va', up: true }])
      expect(await lab.routesOf(lab.host, 4)).toEqual([
        '10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0',
      ])
    })

    test('routes', async () => {
      await lab.host.apply([
        ...SCENE,
        route('0.0.0.0/0', { gateway: '10.0.0.254' }),
        route('10.9.0.0/16', { gateway: '10.77.0.1', link: 'va', onLink: true }),
        route('10.9.0.0/16', { gateway: '10.0.0.5', metric: 5 }),
        route('10.8.0.0/16', { link: 'va', source: '10.0.0.1' }),
        route('10.7.0.0/16', { type: 'blackhole' }),
        route('10.6.0.0/16', { type: 'prohibit' }),
        route('10.5.0.0/16', { gateway: '10.0.0.1' }),
        route('::/0', { gateway: 'fd00::fe' }),
        route('fd00:8::/64', { gateway: 'fe80::1', link: 'va' }),
        route('fd00:7::/64', { type: 'unreachable' }),
        route('10.4.0.0/16', { link: 'va', table: 100 }),
      ])
      expect(await lab.routesOf(lab.host, 4)).toEqual(
        [
          '0.0.0.0/0 via 10.0.0.254 dev va scope global proto 4 metric 0',
          '10.0.0.0/24 dev va src 10.0.0.1 scope link proto 2 metric 0',
          '10.5.0.0/16 via 10.0.0.1 dev va scope global proto 4 metric 0',
          '10.8.0.0/16 dev va src 10.0.0.1 scope link proto 4 metric 0',
          '10.9.0.0/16 via 10.0.0.5 dev va scope global proto 4 metric 5',
          '10.9.0.0/16 via 10.77.0.1 dev va scope global proto 4 metric 0',
          'blackhole 10.7.0.0/16 scope global proto 4 metric 0',
          'prohibit 10.6.0.0/16 scope global proto 4 metric 0',
        ].sort(),
      )
      expect(await lab.routesOf(lab.host, 4, 100)).toEqual(['10.4.0.0/16 dev va scope link proto 4 metric 0'])
      expect(await lab.routesOf(lab.host, 6)).toEqual(
        [
          '::/0 via fd00::fe dev va scope global proto 4 metric 1024',
          'fd00:8::/64 via fe80::1 dev va scope global proto 4 metric 1024',
          'fd00::/64 dev va scope global proto 2 metric 256',
          'unreachable fd00:7::/64 dev lo scope global proto 4 metric 1024',
        ].sort(),
      )
      const { links, addresses, routes } = await lab.host.survey()
      expect(links.map(({ name }) => name)).toEqual((await lab.host.links()).map(({ name }) => name))
      expect(addresses).toEqual(await lab.host.addresses())
      expect(routes).toEqual(await lab.host.routes())
      await lab.host.apply([
        { op: 'replaceRoute', route: { destination: '0.0.0.0/0', gateway: '10.0.0.253' } },
        { op: 'replaceRoute', route: { destination: '::/0', gateway: 'fd00::fd' } },
        { op: 'replaceRoute', route: { destination: '10.3.0.0/16', link: 'va' } },
        { op: 'removeRoute', route: { destination: '10.8.0.0/16' } },
        { op: 'removeRoute', route: { destination: '10.7.0.0/16', type: 'blackhole' } },
        { op: 'removeRoute', route: { destination: 'fd00:8::/64' } },
      ])
      const now = [...(await lab.routesOf(lab.host, 4)), ...(await lab.routesOf(lab.host, 6))].join('\n')
      expect(now).toMatch('0.0.0.0/0 via 10.0.0.253')
      expect(now).toMatch('::/0 via fd00::fd')
      expect(now).toMatch('10.3.0.0/16 dev va')
      expect(now).not.toMatch(/10\.8\.|10\.7\.|fd00:8|\.254|fd00::fe /)
    })

    test('which way a packet takes', async () => {
      await lab.host.apply([
        ...SCENE,
        route('0.0.0.0/0', { gateway: '10.0.0.254' }),
        route('10.9.0.0/16', { gateway: '10.0.0.5' }),
        route('10.9.1.0/24', { gateway: '10.0.0.6' }),
        route('10.9.2.0/24', { gateway: '10.0.0.7', metric: 9 }),
        route('10.9.2.0/24', { gateway: '10.0.0.8', metric: 3 }),
        route('10.6.0.0/16', { type: 'prohibit' }),
      ])
      const via = async (to: string) => (await lab.host.routeTo(to))?.gateway
      expect(await via('8.8.8.8')).toBe('10.0.0.254')
      expect(await via('10.9.9.9')).toBe('10.0.0.5')
      expect(await via('10.9.1.1')).toBe('10.0.0.6')
      expect(await via('10.9.2.1')).toBe('10.0.0.8')
      expect(await lab.host.routeTo('10.0.0.9')).toMatchObject({
        type: 'unicast',
        link: await lab.indexOf(lab.host, 'va'),
        source: '10.0.0.1',
      })
      expect(await lab.host.routeTo('10.0.0.1')).toMatchObject({
        type: 'local',
        link: await lab.indexOf(lab.host, 'va'),
        destination: '10.0.0.1/32',
      })
      expect(await lab.host.routeTo('10.6.0.1')).toBeUndefined()
      expect(await lab.host.routeTo('2001:db8::1')).toBeUndefined()
    })

    test('neighbours, FDB entries, policy rules', async () => {
      await lab.host.apply([
        ...SCENE,
        { op: 'setLink', link: 'vb', master: 'br0' },
        { op: 'setNeighbour', link: 'va', address: '10.0.0.9', mac: '02:00:00:00:00:09' },
        { op: 'setNeighbour', link: 'va', address: '10.0.0.9', mac: '02:00:00:00:00:10' },
        { op: 'setFdb', link: 'vb', mac: '02:00:00:00:00:11' },
        { op: 'addRule', rule: { family: 4, priority: 100, table: 100, source: '10.0.0.0/8' } },
      ])
      const va = await lab.indexOf(lab.host, 'va')
      const vb = await lab.indexOf(lab.host, 'vb')
      expect(
        (await lab.host.neighbours({ link: va ?? 0 })).filter(n => n.address === '10.0.0.9'),
      ).toMatchObject([{ link: va, mac: '02:00:00:00:00:10', permanent: true }])
      expect(await lab.host.neighbours({ link: vb ?? 0, bridge: true })).toEqual(
        expect.arrayContaining([expect.objectContaining({ mac: '02:00:00:00:00:11' })]),
      )
      expect(await lab.host.rules()).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ family: 4, priority: 100, table: 100, source: '10.0.0.0/8' }),
          expect.objectContaining({ family: 4, priority: 0, table: 255 }),
          expect.objectContaining({ family: 4, priority: 32766, table: 254 }),
          expect.objectContaining({ family: 6, priority: 32766, table: 254 }),
        ]),
      )
      await lab.host.apply([
        { op: 'removeNeighbour', link: 'va', address: '10.0.0.9', mac: '02:00:00:00:00:10' },
        { op: 'removeFdb', link: 'vb', mac: '02:00:00:00:00:11' },
        { op: 'removeRule', rule: { family: 4, priority: 100, table: 100, source: '10.0.0.0/8' } },
      ])
      expect((await lab.host.neighbours({ link: va ?? 0 })).filter(n => n.address === '10.0.0.9')).toEqual([])
      expect((await lab.host.rules()).filter(rule => rule.priority === 100)).toEqual([])
    })
  })
}
