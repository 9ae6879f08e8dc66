/** What the CNI plugin is to do on a network whose interfaces stand in the LAN of a parent: on this kernel, and in the vm lane. */
import { bare, CLIENT, hostForEach } from '../../support/host'
import { place, type Result, Runtime } from './scene'

const LAN = [
  { subnet: '192.0.2.0/24', ipRange: '192.0.2.64/26', gateway: CLIENT[4] },
  { subnet: '2001:db8::/64', ipRange: '2001:db8::64:0/112' },
]

/** Defines the tests. `driver`: of the networks that the uplink is the parent of. */
export function lanSuite(driver: 'macvlan' | 'ipvlan'): void {
  let cni: Runtime
  const host = hostForEach()
  beforeEach(() => {
    cni = new Runtime(host())
  })
  const config = (parent: string) =>
    cni.config({ name: 'lan', driver, options: { parent }, ipam: { config: LAN, force: true } })

  test(`${driver}: STATUS, ADD twice, CHECK, DEL twice, GC; nothing is left`, async () => {
    const own = config('uplink')
    const before = await host().snapshot()
    const [a, b] = [await host().namespace('a'), await host().namespace('b')]
    expect((await cni.call('STATUS', own)).code).toBe(0)
    const one = await cni.add('one', a, own)
    const two = await cni.add('two', b, own)
    const inside = await a.link('eth0')
    expect(inside?.kind).toBe(driver)
    // The parent was there before; nothing of the attachment is on the host.
    expect(one).toEqual({
      cniVersion: '1.1.0',
      interfaces: [{ name: 'eth0', mac: inside?.mac, mtu: 1500, sandbox: a.path }],
      ips: [
        { address: expect.stringMatching(/^192\.0\.2\.\d+\/24$/), gateway: CLIENT[4], interface: 0 },
        { address: expect.stringMatching(/^2001:db8::64:/), interface: 0 },
      ],
      routes: [{ dst: '0.0.0.0/0', gw: CLIENT[4] }],
      dns: {},
    })
    for (const { address } of two.ips) expect(await host().ping(a, bare(address))).toBe(true)
    expect(await host().ping(a, CLIENT[6])).toBe(true)

    const check = (prevResult: Result) => cni.call('CHECK', { ...own, prevResult }, place('one', a))
    expect(await check(one)).toMatchObject({ code: 0, json: undefined })
    await a.apply([{ op: 'removeAddress', link: 'eth0', address: one.ips[0]?.address as string }])
    expect(await check(one)).toMatchObject({ code: 1, json: { code: 106 } })

    const ended = { ...own, prevResult: one }
    for (let again = 0; again < 2; again++)
      expect(await cni.call('DEL', ended, place('one', a))).toMatchObject({ code: 0, json: undefined })
    expect(await a.link('eth0')).toBeUndefined()
    expect(await host().ping(b, CLIENT[4])).toBe(true)
    // The namespace of the other has died with its container: GC gives its address back.
    expect((await cni.call('GC', { ...own, 'cni.dev/valid-attachments': [] })).code).toBe(0)
    expect(await b.link('eth0')).toBeUndefined()
    await host().assertAs(before, ['sysctls', 'files', 'nft', 'sockets'])
  })

  test(`${driver}: a parent that is not there; nothing is left`, async () => {
    const a = await host().namespace('a')
    const before = await host().snapshot()
    expect(await cni.call('ADD', config('nowhere'), place('one', a))).toMatchObject({
      code: 1,
      json: { msg: expect.stringContaining('there is no link nowhere') },
    })
    expect(await a.link('eth0')).toBeUndefined()
    expect((await cni.call('DEL', config('nowhere'), place('one', a))).code).toBe(0)
    await host().assertAs(before, ['sysctls', 'files', 'nft', 'sockets'])
  })
}
