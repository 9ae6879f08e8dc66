import { add, bridge } from './changes'
import { eventually, type Lab } from './lab'

/** Namespaces: made, opened, bound, removed. */
export function namespaces(lab: Lab): void {
  describe('namespaces', () => {
    test('a new one has lo, up, with its addresses', async () => {
      expect(await lab.host.links()).toMatchObject([
        { name: 'lo', index: 1, up: true, loopback: true, kind: undefined },
      ])
      expect(await lab.addressesOf(lab.host, 'lo')).toEqual(['127.0.0.1/8', '::1/128'])
      expect(await lab.routesOf(lab.host, 4)).toEqual([])
      expect(lab.host.path).toBe(lab.at('host'))
    })

    test('a path is bound once', async () => {
      await expect(lab.kernel.create(lab.at('host'))).rejects.toMatchObject({ code: 'ERR_NETNS_EXISTS' })
      await expect(lab.kernel.open(lab.at('nope'))).rejects.toMatchObject({ code: 'ERR_NETNS_NOT_FOUND' })
      await expect(lab.kernel.bind(lab.at('nope'), lab.at('b'))).rejects.toMatchObject({
        code: 'ERR_NETNS_NOT_FOUND',
      })
    })

    test('opened again, or bound to another path, it is the same', async () => {
      const again = lab.open(await lab.kernel.open(lab.at('host')))
      expect(again.inode).toBe(lab.host.inode)
      const alias = lab.open(await lab.kernel.bind(lab.at('host'), lab.at('alias')))
      expect(alias.inode).toBe(lab.host.inode)
      const other = lab.open(await lab.kernel.create(lab.at('other')))
      expect(other.inode).not.toBe(lab.host.inode)
      expect(await lab.kernel.list(lab.directory)).toEqual([lab.at('alias'), lab.at('host'), lab.at('other')])
    })

    test('binding replaces what was bound', async () => {
      lab.open(await lab.kernel.create(lab.at('other')))
      const bound = lab.open(await lab.kernel.bind(lab.at('host'), lab.at('other')))
      expect(bound.inode).toBe(lab.host.inode)
      expect(lab.open(await lab.kernel.open(lab.at('other'))).inode).toBe(lab.host.inode)
    })

    test('one of stock is bound when it is wanted, and else is gone with its stack', async () => {
      const stock = await lab.kernel.create()
      expect(stock.path).toBeUndefined()
      expect(await stock.links()).toMatchObject([{ name: 'lo', up: true }])
      await expect(lab.kernel.bind(stock, lab.at('host'))).rejects.toMatchObject({
        code: 'ERR_NETNS_EXISTS',
      })
      expect(await lab.kernel.bind(stock, lab.at('sub/wanted'))).toBe(stock)
      expect(stock.path).toBe(lab.at('sub/wanted'))
      const again = lab.open(await lab.kernel.open(lab.at('sub/wanted')))
      expect(again.inode).toBe(stock.inode)
      stock.close()
      await lab.kernel.remove(lab.at('sub/wanted'))
      const other = await lab.kernel.create()
      await lab.host.apply([
        add({ kind: 'veth', name: 'va', up: true, peer: { name: 'eth0', netns: other } }),
      ])
      other.close()
      await eventually(async () => expect(await lab.host.link('va')).toBeUndefined())
    })

    test('removal of an absent path does nothing', async () => {
      await lab.kernel.remove(lab.at('nope'))
      await lab.kernel.remove(lab.at('host'))
      await lab.kernel.remove(lab.at('host'))
      expect(await lab.kernel.list(lab.directory)).toEqual([])
    })

    test('a namespace that dies takes its links and the peers elsewhere along', async () => {
      const inner = await lab.kernel.create(lab.at('inner'))
      await lab.host.apply([
        add({ kind: 'veth', name: 'va', up: true, peer: { name: 'eth0', netns: inner } }),
      ])
      expect(await inner.link('eth0')).toMatchObject({ name: 'eth0', kind: 'veth', up: false })
      inner.close()
      expect(await lab.host.link('va')).toBeDefined()
      await lab.kernel.remove(lab.at('inner'))
      await eventually(async () => expect(await lab.host.link('va')).toBeUndefined())
    })

    test('an open handle keeps a namespace alive', async () => {
      const inner = await lab.kernel.create(lab.at('inner'))
      await lab.host.apply([add({ kind: 'veth', name: 'va', peer: { name: 'eth0', netns: inner } })])
      await lab.kernel.remove(lab.at('inner'))
      expect(await inner.link('eth0')).toBeDefined()
      expect(await lab.host.link('va')).toBeDefined()
      inner.close()
      await eventually(async () => expect(await lab.host.link('va')).toBeUndefined())
    })

    test('a closed handle refuses to be used', async () => {
      const again = await lab.kernel.open(lab.at('host'))
      again.close()
      again.close()
      await expect(again.links()).rejects.toMatchObject({ code: 'ERR_CLOSED' })
      await expect(again.apply([bridge('br0')])).rejects.toMatchObject({ code: 'ERR_CLOSED' })
      expect(() => again.sysctl('net/ipv4/ip_forward')).toThrow(
        expect.objectContaining({ code: 'ERR_CLOSED' }),
      )
    })
  })
}
