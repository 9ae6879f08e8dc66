import type { LossEvent, LossWatch, Stack } from '../../kernel/kernel'
import { add, bridge, route } from './changes'
import { eventually, type Lab } from './lab'

const named = (event: LossEvent): string => {
  switch (event.topic) {
    case 'link':
      return `${event.link.name} ${event.change === 'set' ? 'down' : 'gone'}`
    case 'address':
      return event.address.address
    case 'route':
      return event.route.destination
    default:
      return event.topic
  }
}

const PROBE = '10.9.0.1/24'

/** What other namespaces lose. */
export function losses(lab: Lab): void {
  describe('losses', () => {
    let seen: string[]
    let watch: LossWatch
    const told = (...wanted: string[]) => eventually(() => expect(lost()).toEqual(wanted))
    const lost = () => seen.filter(each => !each.endsWith(PROBE))
    /** A namespace with an interface; `paired`: by a pair of links, so that the kernel has named it itself. */
    const inner = async (name: string, paired = true): Promise<Stack> => {
      const stack = lab.open(await lab.kernel.create(lab.at(name)))
      if (paired)
        await lab.host.apply([
          add({ kind: 'veth', name: `v${name}`, peer: { name: 'eth0', netns: stack }, up: true }),
        ])
      else await stack.apply([bridge('eth0')])
      await stack.apply([
        { op: 'setLink', link: 'eth0', up: true },
        { op: 'addAddress', link: 'eth0', address: '10.1.0.2/24' },
        { op: 'addAddress', link: 'eth0', address: 'fd00:1::2/64' },
        route('0.0.0.0/0', { gateway: '10.1.0.1' }),
      ])
      return stack
    }
    /** A namespace that the kernel has not named itself is named a little later. */
    const heard = (stack: Stack) =>
      eventually(async () => {
        for (const op of ['addAddress', 'removeAddress'] as const)
          await stack.apply([{ op, link: 'eth0', address: PROBE }])
        expect(seen).not.toEqual([])
      })
    beforeEach(() => {
      seen = []
      watch = lab.host.watchLosses((event, key) => seen.push(`${key}: ${named(event)}`))
    })
    afterEach(() => watch.close())

    test.each([
      ['that a pair of links leads to', true],
      ['that nothing leads to', false],
    ])('of a namespace %s', async (_, paired) => {
      const stack = await inner('a', paired)
      watch.follow('A', stack)
      if (!paired) await heard(stack)
      await stack.apply([{ op: 'removeRoute', route: { destination: '0.0.0.0/0', gateway: '10.1.0.1' } }])
      await stack.apply([{ op: 'removeAddress', link: 'eth0', address: '10.1.0.2/24' }])
      await stack.apply([{ op: 'removeAddress', link: 'eth0', address: 'fd00:1::2/64' }])
      await told('A: 0.0.0.0/0', 'A: 10.1.0.2/24', 'A: fd00:1::2/64')
      seen.splice(0)
      await stack.apply([{ op: 'setLink', link: 'eth0', up: false }])
      await eventually(() => expect(seen).toContain('A: eth0 down'))
      seen.splice(0)
      await stack.apply([{ op: 'removeLink', link: 'eth0' }])
      await eventually(() => expect(seen).toContain('A: eth0 gone'))
    })

    test('nothing of what comes, of the namespace that listens, and of those that are not followed', async () => {
      const [a, b, c] = [await inner('a'), await inner('b'), await inner('c')]
      watch.follow('A', a)
      watch.follow('B', b)
      await a.apply([
        add({ kind: 'bridge', name: 'd0', up: true }),
        { op: 'setLink', link: 'd0', mtu: 1400 },
        { op: 'addAddress', link: 'd0', address: '10.2.0.1/24' },
        route('10.3.0.0/24', { gateway: '10.2.0.9' }),
        { op: 'replaceRoute', route: { destination: '10.3.0.0/24', gateway: '10.2.0.8' } },
      ])
      watch.forget('B')
      for (const stack of [lab.host, b, c])
        await stack.apply([
          add({ kind: 'bridge', name: 'd0', up: true }),
          { op: 'addAddress', link: 'd0', address: '10.2.0.1/24' },
          { op: 'removeAddress', link: 'd0', address: '10.2.0.1/24' },
          { op: 'removeLink', link: 'd0' },
        ])
      await a.apply([{ op: 'removeAddress', link: 'd0', address: '10.2.0.1/24' }])
      await eventually(() => expect(seen).toContain('A: 10.2.0.1/24'))
      expect(seen.filter(each => !each.startsWith('A: 10.'))).toEqual([])
    })

    test('a key moves to another namespace; two keys may have one', async () => {
      const [a, b] = [await inner('a'), await inner('b')]
      watch.follow('A', a)
      watch.follow('A', b)
      watch.follow('B', lab.open(await lab.kernel.open(lab.at('b'))))
      for (const stack of [a, b])
        await stack.apply([{ op: 'removeAddress', link: 'eth0', address: 'fd00:1::2/64' }])
      await told('A: fd00:1::2/64', 'B: fd00:1::2/64')
    })

    test('of many namespaces that come at once', async () => {
      const spaces = await Promise.all(
        Array.from({ length: 120 }, (_, n) => lab.kernel.create(lab.at(`n${n}`))),
      )
      for (const [n, stack] of spaces.entries()) {
        lab.open(stack)
        await stack.apply([bridge('eth0'), { op: 'setLink', link: 'eth0', up: true }])
        watch.follow(String(n), stack)
      }
      const [first, last] = [spaces[0] as Stack, spaces.at(-1) as Stack]
      for (const [key, stack] of [
        ['0', first],
        ['119', last],
      ] as const)
        await eventually(async () => {
          for (const op of ['addAddress', 'removeAddress'] as const)
            await stack.apply([{ op, link: 'eth0', address: PROBE }])
          expect(seen).toContain(`${key}: ${PROBE}`)
        })
    })

    test('until closed, and a namespace may be gone before it is named', async () => {
      const [a, b] = [await inner('a'), await inner('b')]
      watch.follow('B', b)
      b.close()
      await lab.kernel.remove(lab.at('b'))
      watch.follow('A', a)
      await a.apply([{ op: 'removeAddress', link: 'eth0', address: 'fd00:1::2/64' }])
      await told('A: fd00:1::2/64')
      watch.close()
      watch.close()
      await a.apply([{ op: 'removeAddress', link: 'eth0', address: '10.1.0.2/24' }])
      await new Promise(done => setTimeout(done, 20))
      await told('A: fd00:1::2/64')
    })
  })
}
