import type { Change, Stack } from '../../kernel/kernel'
import { add, bridge, SCENE } from './changes'
import type { Lab } from './lab'
import { REFUSALS } from './refusals'

/** What is refused is refused with the same errno and leaves nothing. */
export function refused(lab: Lab): void {
  describe('what is refused', () => {
    test.each(REFUSALS)('$title: $errno', async ({ needs, given = [], change, errno, code, text }) => {
      if (lab.lacks(needs)) return
      await lab.host.apply([...SCENE, ...given])
      const before = await survey(lab.host)
      const error = await lab.host.apply([change]).then(
        () => undefined,
        e => e as { code: string; message: string; details: Record<string, unknown> },
      )
      expect(error).toMatchObject({ details: { errno, op: change.op, step: 0, change: 0 } })
      if (code) expect(error?.code).toBe(code)
      if (text) expect(error?.message).toContain(text)
      expect(await survey(lab.host)).toEqual(before)
    })

    test('the 1024th port of a bridge', async () => {
      const pairs = Array.from({ length: 512 }, (_, i): Change[] => [
        add({ kind: 'veth', name: `a${i}`, master: 'br0', peer: { name: `b${i}` } }),
        { op: 'setLink', link: `b${i}`, master: 'br0' },
      ]).flat()
      await lab.host.apply([bridge('br0'), ...pairs.slice(0, -1)])
      const br0 = await lab.indexOf(lab.host, 'br0')
      expect((await lab.host.links()).filter(link => link.master === br0)).toHaveLength(1023)
      await expect(lab.host.apply(pairs.slice(-1))).rejects.toMatchObject({
        code: 'ERR_KERNEL',
        details: { number: 54 },
      })
    })

    test('a refused link leaves nothing behind, not even its peer', async () => {
      await lab.host.apply([bridge('br0'), add({ kind: 'veth', name: 'va', peer: { name: 'vb' } })])
      await expect(
        lab.host.apply([add({ kind: 'veth', name: 'vc', master: 'va', peer: { name: 'vd' } })]),
      ).rejects.toMatchObject({ details: { errno: 'EOPNOTSUPP' } })
      expect((await lab.host.links()).map(link => link.name).sort()).toEqual(['br0', 'lo', 'va', 'vb'])
    })
  })
}

/** What a refused change must leave as it was. */
async function survey(stack: Stack): Promise<unknown> {
  const text = (items: object[]) => items.map(item => JSON.stringify(item)).sort()
  const [{ links, addresses, routes }, rules] = await Promise.all([stack.survey(), stack.rules()])
  return {
    links: links.map(({ name, kind, mac, mtu, up, master, alias }) => ({
      name,
      kind,
      mac,
      mtu,
      up,
      master,
      alias,
    })),
    // link-local addresses come in their own time
    addresses: text(
      addresses
        .filter(each => !each.address.startsWith('fe80'))
        .map(({ link, address }) => ({ link, address })),
    ),
    // and so do IPv6's local routes
    routes: text(
      routes.filter(
        each => !/^(fe80|ff00)/.test(each.destination) && !(each.family === 6 && each.table === 255),
      ),
    ),
    rules: text(rules),
  }
}
