/** The CNI plugin, driven as a container runtime drives it. */
import { bare, CLIENT, hostForEach, UPLINK } from '../../support/host'
import { place, type Result, Runtime } from './scene'

let cni: Runtime
// Before that of hostForEach, which demands an empty host: hooks run in the order in which they are written.
afterEach(async () => {
  // Nobody is left: the network goes, too.
  const { code } = await cni.call('GC', { ...cni.config(), 'cni.dev/valid-attachments': [] })
  expect(code).toBe(0)
})
const host = hostForEach()
beforeEach(() => {
  cni = new Runtime(host())
})

const addresses = ({ ips }: Result) => ips.map(({ address }) => bare(address))

test('two containers: what ADD says is so, they reach one another and the world, ports are open; DEL, twice', async () => {
  const [a, b] = [await host().namespace('a'), await host().namespace('b')]
  const one = await cni.add('one', a)
  const two = await cni.add('two', b, {
    ...cni.config(),
    runtimeConfig: {
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
      ips: ['10.77.0.50/24'],
      mac: '02:00:00:00:00:50',
    },
  })
  const inside = await a.link('eth0')
  expect(one).toMatchObject({
    cniVersion: '1.1.0',
    interfaces: [
      { name: expect.stringMatching(/^br-/) },
      { name: expect.any(String) },
      { name: 'eth0', mac: inside?.mac, mtu: inside?.mtu, sandbox: a.path },
    ],
    ips: [
      { address: expect.stringMatching(/^10\.77\.0\.\d+\/24$/), gateway: '10.77.0.1', interface: 2 },
      { address: expect.stringMatching(/^fd77::/), gateway: 'fd77::1', interface: 2 },
    ],
    routes: [
      { dst: '0.0.0.0/0', gw: '10.77.0.1' },
      { dst: '::/0', gw: 'fd77::1' },
    ],
  })
  expect(two.ips[0]?.address).toBe('10.77.0.50/24')
  expect((await b.link('eth0'))?.mac).toBe('02:00:00:00:00:50')
  for (const address of addresses(two)) expect(await host().ping(a, address)).toBe(true)
  expect(await host().ping(a, CLIENT[4])).toBe(true)
  await host().serve(b, 80)
  expect(await host().tcp(host().client, UPLINK[4], 8080)).toBe(CLIENT[4])
  expect(await host().tcp(host().client, UPLINK[6], 8080)).toBe(CLIENT[6])

  const twice = await cni.call('ADD', cni.config(), place('one', a))
  expect(twice).toMatchObject({ code: 1, json: { code: 100 } })
  for (let again = 0; again < 2; again++)
    expect(await cni.call('DEL', cni.config(), place('two', b))).toMatchObject({ code: 0, json: undefined })
  expect(await b.link('eth0')).toBeUndefined()
  expect(await host().tcp(host().client, UPLINK[4], 8080, 500)).toBe('closed')
  expect(await host().ping(a, CLIENT[4])).toBe(true)
  // The container has died: a runtime may not know its namespace any more.
  const { CNI_NETNS: _, ...gone } = place('one', a)
  expect((await cni.call('DEL', cni.config(), gone)).code).toBe(0)
})

test('CHECK tells damage; GC removes what was abandoned and nothing else', async () => {
  const [a, b] = [await host().namespace('a'), await host().namespace('b')]
  const prevResult = await cni.add('one', a)
  await cni.add('two', b)
  const check = (prev: Result = prevResult) =>
    cni.call('CHECK', { ...cni.config(), prevResult: prev }, place('one', a))
  expect(await check()).toMatchObject({ code: 0, json: undefined })
  const other = { ...prevResult, ips: [{ address: '10.77.0.99/24', interface: 2 }] }
  expect(await check(other)).toMatchObject({ code: 1, json: { code: 106 } })
  await a.apply([{ op: 'removeAddress', link: 'eth0', address: prevResult.ips[0]?.address as string }])
  const damaged = await check()
  expect(damaged).toMatchObject({
    code: 1,
    json: { code: 106, details: expect.stringContaining('10.77.0.') },
  })
  expect(await cni.call('CHECK', { ...cni.config(), prevResult }, place('three', a))).toMatchObject({
    code: 1,
    json: { code: 3 },
  })

  // Any other call puts it right.
  const valid = [{ containerID: 'one', ifname: 'eth0' }]
  expect((await cni.call('GC', { ...cni.config(), 'cni.dev/valid-attachments': valid })).code).toBe(0)
  expect(await b.link('eth0')).toBeUndefined()
  expect((await check()).code).toBe(0)
  expect(await host().ping(a, CLIENT[4])).toBe(true)
  expect((await cni.call('STATUS', cni.config())).code).toBe(0)
})

test('four at once get four addresses', async () => {
  const names = ['a', 'b', 'c', 'd']
  const stacks = await Promise.all(names.map(name => host().namespace(name)))
  const results = await Promise.all(stacks.map((stack, at) => cni.add(names[at] as string, stack)))
  expect(new Set(results.flatMap(addresses)).size).toBe(8)
  expect(
    await host().ping(stacks[0] as (typeof stacks)[0], addresses(results[3] as Result)[0] as string),
  ).toBe(true)
})

test('bad input: codes of the specification, and nothing is left', async () => {
  const a = await host().namespace('a')
  const at = place('one', a)
  const codeOf = async (...parameters: Parameters<Runtime['call']>) => {
    const { code, json } = await cni.call(...parameters)
    return [code, json?.code]
  }
  const cases: [number, Parameters<Runtime['call']>][] = [
    [1, ['ADD', cni.config({ cniVersion: '0.2.0' }), at]],
    [2, ['ADD', cni.config({ subnet: '10.0.0.0/8' }), at]],
    [4, ['ADD', cni.config(), { ...at, CNI_NETNS: '/nowhere' }]],
    [4, ['ADD', cni.config(), { ...at, CNI_NETNS: '/proc/self/ns/net' }]],
    [6, ['ADD', '{"cniVersion":', at]],
    [7, ['ADD', cni.config({ ipam: { config: [{ subnet: '10.77.0.1/24' }] } }), at]],
    [7, ['ADD', cni.config({ driver: 'nonesuch' }), at]],
    [7, ['ADD', { ...cni.config(), runtimeConfig: { ips: ['10.99.0.1/24'] } }, at]],
    // of another network: one of the calls beside it may just be making this one
    [50, ['STATUS', cni.config({ name: 'elsewhere', driver: 'nonesuch' })]],
  ]
  const codes = await Promise.all(cases.map(([, parameters]) => codeOf(...parameters)))
  expect(codes).toEqual(cases.map(([code]) => [1, code]))
  expect(await a.link('eth0')).toBeUndefined()
})

test("Debian's plugins after ours: tuning and bandwidth take our result, and we theirs", async () => {
  const a = await host().namespace('a')
  const base = { cniVersion: '1.0.0', name: 'pods' }
  const own = cni.config({ cniVersion: '1.0.0' })
  const first = await cni.add('one', a, own)
  const chain = [
    { ...base, type: 'tuning', sysctl: { 'net.ipv4.conf.eth0.arp_notify': '1' } },
    {
      ...base,
      type: 'bandwidth',
      runtimeConfig: {
        bandwidth: { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 0, egressBurst: 0 },
      },
    },
  ]
  let prevResult = first
  for (const config of chain) {
    const { code, json, error } = await cni.call('ADD', { ...config, prevResult }, place('one', a))
    expect([code, json?.msg, error]).toEqual([0, undefined, ''])
    prevResult = json as Result
  }
  expect(prevResult.ips).toEqual(first.ips)
  expect(a.sysctl('net/ipv4/conf/eth0/arp_notify')).toBe('1')
  const outside = first.interfaces[1]?.name as string
  expect(host().run(host().host, 'tc', 'qdisc', 'show', 'dev', outside)).toContain('tbf')
  expect((await cni.call('CHECK', { ...own, prevResult }, place('one', a))).code).toBe(0)
  for (const config of chain.reverse())
    expect((await cni.call('DEL', { ...config, prevResult }, place('one', a))).code).toBe(0)
  expect((await cni.call('DEL', { ...own, prevResult }, place('one', a))).code).toBe(0)
})

test('portmap in the chain opens a port with rules of its own; asked for mode nat, nobody gets in that way', async () => {
  const mapped = async (id: string, hostPort: number, change = {}) => {
    const netns = await host().namespace(id)
    const own = cni.config({ cniVersion: '1.0.0', ...change })
    const prevResult = await cni.add(id, netns, own)
    const portmap = {
      cniVersion: '1.0.0',
      name: own.name,
      type: 'portmap',
      runtimeConfig: { portMappings: [{ hostPort, containerPort: 80, protocol: 'tcp' }] },
      prevResult,
    }
    const { code, json, error } = await cni.call('ADD', portmap, place(id, netns))
    expect([code, json?.msg, error]).toEqual([0, undefined, ''])
    await host().serve(netns, 80)
    return async () => {
      for (const config of [portmap, { ...own, prevResult }])
        expect((await cni.call('DEL', config, place(id, netns))).code).toBe(0)
    }
  }
  const open = await mapped('open', 8088)
  expect(await host().tcp(host().client, UPLINK[4], 8088)).toBe(CLIENT[4])
  expect(await host().tcp(host().client, UPLINK[6], 8088)).toBe(CLIENT[6])
  await open()
  expect(await host().tcp(host().client, UPLINK[4], 8088, 500)).toBe('closed')

  const shielded = {
    name: 'shielded',
    ipam: { config: [{ subnet: '10.78.0.0/24' }, { subnet: 'fd78::/64' }] },
    options: { gatewayModeIpv4: 'nat', gatewayModeIpv6: 'nat' },
  }
  const closed = await mapped('closed', 8089, shielded)
  expect(await host().tcp(host().client, UPLINK[4], 8089, 500)).not.toBe(CLIENT[4])
  expect(await host().tcp(host().client, UPLINK[6], 8089, 500)).not.toBe(CLIENT[6])
  await closed()
  await cni.call('GC', { ...cni.config(shielded), 'cni.dev/valid-attachments': [] })
})

test('what a plugin later in the chain has changed stays: other calls do not put it back', async () => {
  const a = await host().namespace('a')
  const own = cni.config({ cniVersion: '1.0.0' })
  const prevResult = await cni.add('one', a, own)
  const tuning = { cniVersion: '1.0.0', name: 'pods', type: 'tuning', mac: '02:00:00:00:00:77', mtu: 1400 }
  expect((await cni.call('ADD', { ...tuning, prevResult }, place('one', a))).code).toBe(0)
  await cni.add('two', await host().namespace('b'), own)
  expect(await a.link('eth0')).toMatchObject({ mac: '02:00:00:00:00:77', mtu: 1400 })
  expect((await cni.call('CHECK', { ...own, prevResult }, place('one', a))).code).toBe(0)
})
