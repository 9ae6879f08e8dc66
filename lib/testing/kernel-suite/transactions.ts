import { add, bridge, route } from './changes'
import type { Lab } from './lab'

/** Steps, changes within a step, and which of them failed. */
export function transactions(lab: Lab): void {
  describe('transactions', () => {
    test('within a step the rest goes on, later steps do not run, the first failure is told', async () => {
      const inner = lab.open(await lab.kernel.create(lab.at('inner')))
      const error = await lab.kernel
        .transact([
          { stack: inner, changes: [bridge('x0')] },
          { stack: lab.host, changes: [bridge('br0'), bridge('br0'), bridge('lo'), bridge('br1')] },
          { stack: inner, changes: [bridge('x1')] },
        ])
        .catch(e => e as object)
      expect(error).toMatchObject({
        code: 'ERR_LINK_EXISTS',
        details: { step: 1, change: 1, errno: 'EEXIST', op: 'addLink' },
      })
      expect((await lab.host.links()).map(link => link.name).sort()).toEqual(['br0', 'br1', 'lo'])
      expect((await inner.links()).map(link => link.name).sort()).toEqual(['lo', 'x0'])
    })

    test('a peer that an earlier step made can be used by name in a later one', async () => {
      const inner = lab.open(await lab.kernel.create(lab.at('inner')))
      await lab.kernel.transact([
        {
          stack: lab.host,
          changes: [
            { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
            add({
              kind: 'veth',
              name: 'va',
              master: 'br0',
              up: true,
              peer: { name: 'eth0', netns: inner, up: true },
            }),
          ],
        },
        {
          stack: inner,
          changes: [
            { op: 'addAddress', link: 'eth0', address: '10.0.0.2/24' },
            route('0.0.0.0/0', { gateway: '10.0.0.1' }),
          ],
        },
      ])
      expect(await lab.routesOf(inner, 4)).toEqual([
        '0.0.0.0/0 via 10.0.0.1 dev eth0 scope global proto 4 metric 0',
        '10.0.0.0/24 dev eth0 src 10.0.0.2 scope link proto 2 metric 0',
      ])
    })

    test('two hundred at once do not get into each other', async () => {
      await Promise.all(Array.from({ length: 200 }, (_, i) => lab.host.apply([bridge(`b${i}`)])))
      expect(await lab.host.links()).toHaveLength(201)
    })
  })
}
