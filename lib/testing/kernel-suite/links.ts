import { add, bridge, DOWN, macvlan, SCENE, vxlan } from './changes'
import type { Lab } from './lab'

/** Links of every kind read back as they were made. */
export function links(lab: Lab): void {
  describe('links read back', () => {
    test('bridge and veth', async () => {
      await lab.host.apply([
        add({ kind: 'bridge', name: 'br0', mac: '02:00:00:00:00:01', mtu: 1400, up: true, alias: 'web' }),
        add({
          kind: 'veth',
          name: 'va',
          master: 'br0',
          up: true,
          mtu: 1300,
          peer: { name: 'vb', mac: '02:00:00:00:00:02', mtu: 1200 },
        }),
      ])
      expect((await lab.host.links()).map(link => link.name).sort()).toEqual(['br0', 'lo', 'va', 'vb'])
      const br0 = await lab.host.link('br0')
      expect(br0).toMatchObject({
        name: 'br0',
        kind: 'bridge',
        mac: '02:00:00:00:00:01',
        // the MTU that a bridge is made with does not last: it follows its ports until it is set
        mtu: 1300,
        up: true,
        alias: 'web',
        master: undefined,
      })
      const va = await lab.host.link('va')
      const vb = await lab.host.link('vb')
      expect(va).toMatchObject({
        kind: 'veth',
        mtu: 1300,
        up: true,
        carrier: false,
        master: br0?.index,
        parent: vb?.index,
      })
      expect(vb).toMatchObject({
        kind: 'veth',
        mtu: 1200,
        up: false,
        mac: '02:00:00:00:00:02',
        parent: va?.index,
        master: undefined,
      })
      expect(va?.port).toMatchObject({ hairpin: false, isolated: false, learning: true })
      await lab.host.apply([
        { op: 'setPort', link: 'va', hairpin: true, isolated: true, learning: false },
        { op: 'setLink', link: 'vb', up: true },
      ])
      expect((await lab.host.link('va'))?.port).toMatchObject({
        hairpin: true,
        isolated: true,
        learning: false,
      })
      expect(await lab.host.link('va')).toMatchObject({ carrier: true })
      expect(await lab.host.link(va?.index ?? 0)).toMatchObject({ name: 'va' })
      expect(await lab.host.link('nope')).toBeUndefined()
      expect(await lab.host.link(4711)).toBeUndefined()
    })

    test('rename, MTU, MAC, alias, leaving the bridge', async () => {
      await lab.host.apply(SCENE)
      await lab.host.apply([
        DOWN,
        {
          op: 'setLink',
          link: 'va',
          rename: 'eth0',
          mtu: 1400,
          mac: '02:00:00:00:00:09',
          alias: 'hello',
          master: 'br0',
        },
      ])
      const br0 = await lab.indexOf(lab.host, 'br0')
      expect(await lab.host.link('eth0')).toMatchObject({
        mtu: 1400,
        mac: '02:00:00:00:00:09',
        alias: 'hello',
        master: br0,
      })
      expect(await lab.host.link('va')).toBeUndefined()
      await lab.host.apply([{ op: 'setLink', link: 'eth0', master: 'br1' }])
      expect(await lab.host.link('eth0')).toMatchObject({ master: await lab.indexOf(lab.host, 'br1') })
      await lab.host.apply([
        { op: 'setLink', link: 'eth0', master: null },
        { op: 'setLink', link: 'eth0', master: null },
      ])
      expect(await lab.host.link('eth0')).toMatchObject({ master: undefined })
      expect((await lab.host.link('eth0'))?.port).toBeUndefined()
    })

    test('what paces a link', async () => {
      expect(await lab.host.shapers()).toEqual([])
      await lab.host.apply([
        add({ kind: 'veth', name: 'va', up: true, peer: { name: 'vb', up: true } }),
        add({ kind: 'ifb', name: 'ifb7', up: true }),
        { op: 'setShaper', link: 'va', rate: { bitsPerSecond: 8_000_000 } },
        { op: 'setShaper', link: 'ifb7', rate: { bitsPerSecond: 40_000_000_000 } },
        { op: 'setIngressMirror', link: 'va', target: 'ifb7' },
      ])
      const va = (await lab.host.link('va'))?.index as number
      const ifb = (await lab.host.link('ifb7'))?.index as number
      const all = async () =>
        (await lab.host.shapers()).sort((a, b) => Number(a.link === ifb) - Number(b.link === ifb))
      expect(await all()).toEqual([
        { link: va, bitsPerSecond: 8_000_000, mirror: ifb },
        { link: ifb, bitsPerSecond: 40_000_000_000 },
      ])
      await lab.host.apply([
        { op: 'setShaper', link: 'va', rate: null },
        { op: 'setShaper', link: 'ifb7', rate: { bitsPerSecond: 1_000_000 } },
      ])
      expect(await all()).toEqual([
        { link: va, mirror: ifb },
        { link: ifb, bitsPerSecond: 1_000_000 },
      ])
      await lab.host.apply([{ op: 'setIngressMirror', link: 'va', target: null }])
      expect(await all()).toEqual([{ link: ifb, bitsPerSecond: 1_000_000 }])
    })

    test('removal of one end removes the other; ifExists tolerates absence', async () => {
      await lab.host.apply(SCENE)
      await lab.host.apply([
        { op: 'removeLink', link: 'va' },
        { op: 'removeLink', link: 'va', ifExists: true },
      ])
      expect(await lab.host.link('vb')).toBeUndefined()
      expect(await lab.routesOf(lab.host, 4)).toEqual([])
    })

    test('a bridge that goes frees its ports', async () => {
      await lab.host.apply([...SCENE, { op: 'setLink', link: 'va', master: 'br0' }])
      await lab.host.apply([{ op: 'removeLink', link: 'br0' }])
      expect(await lab.host.link('va')).toMatchObject({ master: undefined, up: true })
    })

    test('vxlan, and where its frames go', async () => {
      if (lab.lacks(['vxlan'])) return
      await lab.host.apply([
        add({ kind: 'vxlan', name: 'vx0', id: 5, port: 4789, learning: false, proxy: true, up: true }),
        vxlan('vx1', 5, 4790),
        vxlan('vx2', 6),
        { op: 'setFdb', link: 'vx0', mac: '02:00:00:00:00:09', remote: '192.0.2.9' },
        { op: 'setFdb', link: 'vx0', mac: '02:00:00:00:00:09', remote: '192.0.2.10' },
        { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.9' },
        { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.10' },
        { op: 'setFdb', link: 'vx0', mac: '00:00:00:00:00:00', remote: '192.0.2.10' },
      ])
      const vx0 = await lab.host.link('vx0')
      expect(vx0).toMatchObject({
        kind: 'vxlan',
        info: { vxlan: { id: 5, port: 4789, learning: false, proxy: true } },
      })
      const entries = (await lab.host.neighbours({ link: vx0?.index ?? 0, bridge: true }))
        .filter(entry => entry.address !== undefined)
        .map(entry => `${entry.mac} ${entry.address}`)
      expect(entries.sort()).toEqual([
        '00:00:00:00:00:00 192.0.2.10',
        '00:00:00:00:00:00 192.0.2.9',
        '02:00:00:00:00:09 192.0.2.10',
      ])
    })

    test('an FDB entry of the device itself', async () => {
      await lab.host.apply([...SCENE, { op: 'setFdb', link: 'va', mac: '02:00:00:00:00:08', self: true }])
      const va = await lab.indexOf(lab.host, 'va')
      expect(await lab.host.neighbours({ link: va ?? 0, bridge: true })).toEqual(
        expect.arrayContaining([expect.objectContaining({ mac: '02:00:00:00:00:08', self: true })]),
      )
      await lab.host.apply([{ op: 'removeFdb', link: 'va', mac: '02:00:00:00:00:08', self: true }])
    })

    test('macvlan', async () => {
      if (lab.lacks(['macvlan'])) return
      await lab.host.apply([
        ...SCENE,
        { op: 'setLink', link: 'va', up: false },
        macvlan('mv0', 'va'),
        { op: 'setLink', link: 'mv0', up: true },
        { op: 'setLink', link: 'va', up: true },
        macvlan('mv1', 'mv0'),
      ])
      const va = await lab.indexOf(lab.host, 'va')
      expect(await lab.host.link('mv0')).toMatchObject({
        kind: 'macvlan',
        parent: va,
        info: { macvlan: { mode: 'bridge' } },
      })
      expect(await lab.host.link('mv1')).toMatchObject({ parent: va })
      await lab.host.apply([{ op: 'removeLink', link: 'va' }])
      expect((await lab.host.links()).map(link => link.name).sort()).toEqual(['br0', 'br1', 'lo'])
    })

    test('ipvlan, vlan and dummy', async () => {
      if (lab.lacks(['ipvlan', 'vlan', 'dummy'])) return
      await lab.host.apply([
        ...SCENE,
        add({ kind: 'ipvlan', name: 'iv0', parent: 'va', mode: 'l3' }),
        add({ kind: 'vlan', name: 'vl0', parent: 'vb', id: 7 }),
        add({ kind: 'dummy', name: 'd0', up: true }),
      ])
      expect(await lab.host.link('iv0')).toMatchObject({ kind: 'ipvlan', info: { ipvlan: { mode: 'l3' } } })
      expect(await lab.host.link('vl0')).toMatchObject({ kind: 'vlan', info: { vlan: { id: 7 } } })
      expect(await lab.host.link('d0')).toMatchObject({ kind: 'dummy', up: true, carrier: true })
    })

    test('a bridge takes the lowest MAC and MTU of its ports, unless they were chosen', async () => {
      await lab.host.apply([
        bridge('br0'),
        add({ kind: 'bridge', name: 'br1', mac: '02:00:00:00:00:ff' }),
        add({
          kind: 'veth',
          name: 'va',
          mac: '02:00:00:00:00:05',
          mtu: 1400,
          master: 'br0',
          peer: { name: 'vb' },
        }),
        add({
          kind: 'veth',
          name: 'vc',
          mac: '02:00:00:00:00:04',
          mtu: 1450,
          master: 'br0',
          peer: { name: 'vd', mac: '02:00:00:00:00:01', mtu: 1300 },
        }),
        { op: 'setLink', link: 'vd', master: 'br1' },
      ])
      expect(await lab.host.link('br0')).toMatchObject({ mac: '02:00:00:00:00:04', mtu: 1400 })
      expect(await lab.host.link('br1')).toMatchObject({ mac: '02:00:00:00:00:ff', mtu: 1300 })
      await lab.host.apply([{ op: 'setLink', link: 'vc', master: null }])
      expect(await lab.host.link('br0')).toMatchObject({ mac: '02:00:00:00:00:05' })
      await lab.host.apply([
        { op: 'setLink', link: 'br0', mtu: 1444 },
        { op: 'setLink', link: 'vc', master: 'br0', mtu: 1200 },
      ])
      expect(await lab.host.link('br0')).toMatchObject({ mtu: 1444 })
    })

    test('a link moves to another namespace and loses its addresses', async () => {
      const inner = lab.open(await lab.kernel.create(lab.at('inner')))
      await lab.host.apply(SCENE)
      await lab.host.apply([{ op: 'setLink', link: 'va', netns: inner }])
      expect(await lab.host.link('va')).toBeUndefined()
      expect(await inner.link('va')).toMatchObject({ up: false, master: undefined })
      expect(await lab.addressesOf(inner, 'va')).toEqual([])
      expect(await lab.routesOf(lab.host, 4)).toEqual([])
      await expect(lab.host.apply([{ op: 'setLink', link: 'br0', netns: inner }])).rejects.toMatchObject({
        details: { errno: 'EINVAL' },
      })
    })
  })
}
