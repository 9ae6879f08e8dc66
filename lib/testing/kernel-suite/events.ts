import type { KernelEvent } from '../../kernel/kernel'
import { add, bridge, route, SCENE } from './changes'
import { eventually, type Lab } from './lab'

/** What the kernel tells of by itself. */
export function events(lab: Lab): void {
  describe('events', () => {
    const seen: KernelEvent[] = []
    const told = (match: (event: KernelEvent) => boolean) =>
      eventually(() => expect(seen.some(match)).toBe(true))
    beforeEach(() => void seen.splice(0))

    test('links, addresses and routes, until closed', async () => {
      const watch = lab.host.watch(['link', 'address', 'route'], event => seen.push(event))
      await lab.host.apply(SCENE)
      await told(e => e.topic === 'link' && e.change === 'set' && e.link.name === 'va' && e.link.up)
      await told(e => e.topic === 'address' && e.change === 'set' && e.address.address === '10.0.0.1/24')
      await told(e => e.topic === 'route' && e.change === 'set' && e.route.destination === '10.0.0.0/24')
      await lab.host.apply([
        route('10.9.0.0/16', { gateway: '10.0.0.5' }),
        { op: 'removeRoute', route: { destination: '10.9.0.0/16' } },
      ])
      await told(e => e.topic === 'route' && e.change === 'removed' && e.route.destination === '10.9.0.0/16')
      await lab.host.apply([{ op: 'removeAddress', link: 'va', address: '10.0.0.1/24' }])
      await told(e => e.topic === 'address' && e.change === 'removed' && e.address.address === '10.0.0.1/24')
      await lab.host.apply([{ op: 'removeLink', link: 'va' }])
      await told(e => e.topic === 'link' && e.change === 'removed' && e.link.name === 'va')
      await told(e => e.topic === 'link' && e.change === 'removed' && e.link.name === 'vb')
      watch.close()
      seen.splice(0)
      await lab.host.apply([bridge('br9')])
      await new Promise(done => setTimeout(done, 20))
      expect(seen).toEqual([])
    })

    test('only of the topics asked for, only of this namespace, in order', async () => {
      const other = lab.open(await lab.kernel.create(lab.at('other')))
      const watch = lab.host.watch(['link'], event => seen.push(event))
      await other.apply([bridge('x0')])
      await lab.host.apply([
        bridge('b1'),
        bridge('b2'),
        { op: 'addAddress', link: 'b1', address: '10.0.0.1/24' },
        bridge('b3'),
      ])
      await told(e => e.topic === 'link' && e.link.name === 'b3')
      expect(seen.filter(e => e.topic !== 'link')).toEqual([])
      const names = seen.flatMap(e => (e.topic === 'link' ? [e.link.name] : []))
      expect([...new Set(names)]).toEqual(['b1', 'b2', 'b3'])
      watch.close()
    })

    test('the end of another namespace, by the peer that goes', async () => {
      const inner = await lab.kernel.create(lab.at('inner'))
      await lab.host.apply([add({ kind: 'veth', name: 'va', peer: { name: 'eth0', netns: inner } })])
      lab.host.watch(['link'], event => seen.push(event))
      inner.close()
      await lab.kernel.remove(lab.at('inner'))
      await told(e => e.topic === 'link' && e.change === 'removed' && e.link.name === 'va')
    })
  })

  test('run enters, and comes home with what the body returns or throws', () => {
    expect(lab.host.run(() => 42)).toBe(42)
    expect(() =>
      lab.host.run(() => {
        throw new Error('from inside')
      }),
    ).toThrow('from inside')
  })
}
