/** Rates of an endpoint, by what a transfer takes: what it receives and what it sends, changed while it runs. */
import type { Controller, Stack } from 'libcnm'
import { CLIENT, hostForEach, stackOf } from '../../support/host'
import { sink, transfer } from '../../support/transfer'

const host = hostForEach()
/** Bits per second: a transfer takes two seconds. */
const RATE = 8_000_000
/** Milliseconds. Well under what the rate implies, since the first burst passes at once, and far over what no limit takes. */
const LIMITED = 1_200
const UNLIMITED = 700

/** Milliseconds of a transfer each way: what the container receives, what it sends. */
async function measure(outside: Stack, inside: Stack, addresses: { outside: string; inside: string }) {
  return {
    ingress: await transfer(outside, addresses.inside),
    egress: await transfer(inside, addresses.outside),
  }
}

test('a rate each way holds from the join on, is changed and taken away at run time, IPv4 and IPv6', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1', bandwidth: { ingress: RATE } })
  await endpoint.join(sandbox)
  const inside = stackOf(sandbox)
  const ends = [await sink(h.host), await sink(inside)]
  const port = (await h.host.links()).find(({ kind, master }) => kind === 'veth' && master !== undefined)
    ?.name as string
  const queues = () => ({
    ingress: /^qdisc tbf /.test(h.run(h.host, 'tc', 'qdisc', 'show', 'dev', port)),
    egress: /^qdisc tbf /.test(h.run(inside, 'tc', 'qdisc', 'show', 'dev', 'eth0')),
  })
  const four = { outside: '10.77.1.1', inside: '10.77.1.2' }
  const six = { outside: 'fd77:1::1', inside: 'fd77:1::2' }

  expect(queues()).toEqual({ ingress: true, egress: false })
  const received = await measure(h.host, inside, four)
  expect(received.ingress).toBeGreaterThan(LIMITED)
  expect(received.egress).toBeLessThan(Math.max(UNLIMITED, received.ingress / 3))

  await endpoint.setBandwidth({ ingress: null, egress: RATE })
  expect(queues()).toEqual({ ingress: false, egress: true })
  const sent = await measure(h.host, inside, six)
  expect(sent.egress).toBeGreaterThan(LIMITED)
  expect(sent.ingress).toBeLessThan(Math.max(UNLIMITED, sent.egress / 3))

  // Five times the rate, and only that: what is not named stays.
  await endpoint.setBandwidth({ egress: 5 * RATE })
  expect(queues()).toEqual({ ingress: false, egress: true })
  const faster = await measure(h.host, inside, four)
  expect(faster.egress).toBeGreaterThan(LIMITED / 5)
  expect(faster.egress).toBeLessThan(sent.egress)

  await endpoint.setBandwidth({ egress: null })
  expect(queues()).toEqual({ ingress: false, egress: false })
  const free = await measure(h.host, inside, six)
  expect(Math.max(free.ingress, free.egress)).toBeLessThan(Math.max(UNLIMITED, sent.egress / 3))

  for (const end of ends) end()
  await sandbox.delete()
  await network.delete()
})

test('a rate set at run time is kept over a new join, and a refused one changes nothing', async () => {
  const h = host()
  const controller = await h.open()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }] },
  })
  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
  const endpoint = await network.createEndpoint({ name: 'c1' })
  await endpoint.join(sandbox)
  await endpoint.setBandwidth({ egress: RATE })
  const queue = () => h.run(stackOf(sandbox), 'tc', 'qdisc', 'show', 'dev', 'eth0')
  await expect(endpoint.setBandwidth({ egress: 999 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  expect(queue()).toMatch(/^qdisc tbf .* rate 8Mbit /)
  await endpoint.leave()
  await endpoint.join(sandbox)
  expect(queue()).toMatch(/^qdisc tbf .* rate 8Mbit /)
  await sandbox.delete()
  await network.delete()
})

/** Networks whose interfaces have an end on the host, and whose have none, with who is at the other end. */
const NETWORKS = [
  {
    driver: 'bridge',
    input: { ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] } },
    address: { 4: '10.77.1.2', 6: 'fd77:1::2' },
    other: { stack: () => host().host, 4: '10.77.1.1', 6: 'fd77:1::1' },
  },
  {
    driver: 'macvlan',
    input: {
      options: { parent: 'uplink' },
      ipam: {
        force: true,
        config: [
          { subnet: '192.0.2.0/24', ipRange: '192.0.2.64/26' },
          { subnet: '2001:db8::/64', ipRange: '2001:db8::64:0/112' },
        ],
      },
    },
    address: { 4: '192.0.2.64', 6: '2001:db8::64:0' },
    other: { stack: () => host().client, 4: CLIENT[4], 6: CLIENT[6] },
  },
]

describe.each(NETWORKS)('$driver', ({ driver, input, address, other }) => {
  const begin = async (controller: Controller, bandwidth: { ingress?: number; egress?: number }) => {
    const network = await controller.createNetwork({ name: 'web', driver, ...input })
    const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
    const endpoint = await network.createEndpoint({
      name: 'c1',
      ipv4: address[4],
      ipv6: address[6],
      bandwidth,
    })
    await endpoint.join(sandbox)
    return { network, sandbox, endpoint, inside: stackOf(sandbox) }
  }
  const both = (inside: Stack, family: 4 | 6) =>
    measure(other.stack(), inside, { outside: other[family], inside: address[family] })
  /** Of all token buckets, on the host and inside. */
  const rates = async (inside: Stack) => {
    const found: (number | undefined)[] = []
    for (const stack of [host().host, inside])
      for (const shaper of await stack.shapers()) found.push(shaper.bitsPerSecond)
    return found.filter(each => each !== undefined).sort((a, b) => a - b)
  }

  test('what it receives and what it sends is limited, changed and freed at run time', async () => {
    const h = host()
    const controller = await h.open({ firewall: 'none' })
    const { network, sandbox, endpoint, inside } = await begin(controller, { ingress: RATE })
    const ends = [await sink(other.stack()), await sink(inside)]

    const received = await both(inside, 4)
    expect(received.ingress).toBeGreaterThan(LIMITED)
    expect(received.egress).toBeLessThan(Math.max(UNLIMITED, received.ingress / 3))

    await endpoint.setBandwidth({ ingress: 5 * RATE, egress: RATE })
    const faster = await both(inside, 6)
    expect(faster.egress).toBeGreaterThan(LIMITED)
    expect(faster.ingress).toBeGreaterThan(LIMITED / 5)
    expect(faster.ingress).toBeLessThan(received.ingress / 2)
    expect(await rates(inside)).toEqual([RATE, 5 * RATE])
    expect(await controller.check()).toEqual([])

    await endpoint.setBandwidth({ ingress: null, egress: null })
    expect(await rates(inside)).toEqual([])
    expect((await inside.links()).map(({ name }) => name).sort()).toEqual(['eth0', 'lo'])
    const free = await both(inside, 4)
    expect(Math.max(free.ingress, free.egress)).toBeLessThan(Math.max(UNLIMITED, received.ingress / 3))
    expect(await controller.check()).toEqual([])

    await endpoint.setBandwidth({ ingress: RATE })
    await endpoint.leave()
    await controller.settle()
    expect((await inside.links()).map(({ name }) => name)).toEqual(['lo'])
    await endpoint.join(sandbox)
    expect(await rates(inside)).toEqual([RATE])
    for (const end of ends) end()
    await sandbox.delete()
    await network.delete()
  })

  test('what somebody took away, changed or could not finish is seen by check and put right by repair', async () => {
    const h = host()
    const controller = await h.open({ firewall: 'none' })
    const { network, sandbox, endpoint, inside } = await begin(controller, {
      ingress: RATE,
      egress: 2 * RATE,
    })
    const end = await sink(inside)
    const mended = async (...problems: string[]) => {
      const found = await controller.check()
      expect(found.map(({ kind, problem }) => `${kind} ${problem}`).sort()).toEqual(problems)
      await controller.repair()
      expect(await controller.check()).toEqual([])
      expect(await rates(inside)).toEqual([RATE, 2 * RATE])
    }
    const source = endpoint.record.join?.attachment?.interface?.source
    const [stack, link] = source ? [h.host, source] : [inside, `ifb${endpoint.id.slice(0, 12)}`]
    const set = (where: Stack, name: string, bitsPerSecond?: number) =>
      where.apply([{ op: 'setShaper', link: name, rate: bitsPerSecond ? { bitsPerSecond } : null }])

    await set(inside, 'eth0')
    await set(stack, link)
    await mended('bandwidth missing', 'bandwidth missing')
    await set(stack, link, 9 * RATE)
    await mended('bandwidth wrong')
    if (!source) {
      await inside.apply([{ op: 'removeLink', link }])
      await mended('bandwidth missing')
      await inside.apply([{ op: 'setIngressMirror', link: 'eth0', target: null }])
      await mended('bandwidth wrong')
      await inside.apply([{ op: 'setLink', link, up: false }])
      await mended('bandwidth wrong')
    }
    // The interface itself: with it come its rates.
    await inside.apply([{ op: 'removeLink', link: 'eth0' }])
    await mended('link missing')
    expect(await transfer(other.stack(), address[4])).toBeGreaterThan(LIMITED)

    // Freed by a process that died before the kernel heard of it: the record says none.
    endpoint.record.config.bandwidth = { ingress: null, egress: null }
    expect((await controller.repair()).map(({ kind, problem }) => `${kind} ${problem}`)).toEqual([
      'bandwidth unwanted',
      'bandwidth unwanted',
    ])
    expect(await rates(inside)).toEqual([])
    // What others put there is theirs, where we never had a say.
    endpoint.record.config.bandwidth = {}
    await set(inside, 'eth0', RATE)
    expect(await controller.check()).toEqual([])
    end()
    await sandbox.delete()
    await network.delete()
  })

  test('a restart finds the rates as they are, and makes those that are gone', async () => {
    const h = host()
    const options = { firewall: 'none', dataDir: h.dataDir } as const
    const first = await h.open(options)
    const { sandbox } = await begin(first, { ingress: RATE, egress: 2 * RATE })
    const { key } = sandbox
    await first.close()
    const second = await h.open(options)
    expect(await rates(stackOf(second.sandbox('c1')))).toEqual([RATE, 2 * RATE])
    await second.close()
    const inside = await h.kernel.open(key)
    for (const stack of [h.host, inside])
      for (const { link, bitsPerSecond } of await stack.shapers())
        if (bitsPerSecond) await stack.apply([{ op: 'setShaper', link, rate: null }])
    expect(await rates(inside)).toEqual([])
    inside.close()
    const third = await h.open(options)
    const end = await sink(stackOf(third.sandbox('c1')))
    expect(await rates(stackOf(third.sandbox('c1')))).toEqual([RATE, 2 * RATE])
    expect(await transfer(other.stack(), address[6])).toBeGreaterThan(LIMITED)
    end()
    await third.sandbox('c1').delete()
    await third.network('web').delete()
  })
})
