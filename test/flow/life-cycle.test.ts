/** Networks, endpoints and sandboxes from birth to end: what may be done when, and what refuses. */
import { isCnmError } from 'libcnm'
import { MockDriver } from 'libcnm/testing'
import {
  addressesOn,
  defaults,
  fresh,
  inside,
  joined,
  linkNames,
  networkOf,
  refusal,
  sandboxOf,
  state,
  subnets,
} from './scene'

const hex = (digits: number, prefix: string) =>
  expect.stringMatching(new RegExp(`^${prefix}[0-9a-f]{${digits}}$`))

test('from nothing to two containers on a network, and back to nothing', async () => {
  const { kernel, controller } = await fresh()
  await kernel.settle()
  const before = kernel.snapshot()
  const network = await networkOf(controller, 'web', 1, { ipv6: true })
  expect(network.link).toEqual(hex(12, 'br-'))
  expect(kernel.netns()?.links.find(({ name }) => name === network.link)).toMatchObject({
    kind: 'bridge',
    up: true,
  })

  const sandbox = await controller.createSandbox({ containerId: 'c1', files: false })
  const endpoint = await network.createEndpoint({ name: 'c1' })
  expect(linkNames(inside(kernel, sandbox))).toEqual(['lo'])
  await endpoint.join(sandbox)

  expect(endpoint).toMatchObject({
    ipv4: '10.1.0.2/24',
    ipv6: 'fd00:1::2/64',
    interfaceName: 'eth0',
    sandbox,
  })
  const view = inside(kernel, sandbox)
  expect(addressesOn(view, 'eth0').sort()).toEqual(['10.1.0.2/24', 'fd00:1::2/64'])
  expect(defaults(view)).toEqual(['via 10.1.0.1 dev eth0', 'via fd00:1::1 dev eth0'])
  expect(view.links.find(({ name }) => name === 'eth0')).toMatchObject({
    mac: endpoint.mac,
    up: true,
    mtu: 1500,
  })
  const port = kernel.netns()?.links.find(({ master }) => master === network.link)
  expect(port).toMatchObject({ name: hex(7, 'veth'), up: true, alias: `libcnm:${endpoint.id.slice(0, 12)}` })

  await endpoint.leave()
  expect(endpoint.sandbox).toBeUndefined()
  await endpoint.delete()
  await sandbox.delete()
  await network.delete()
  await controller.settle()
  await kernel.settle()
  expect(kernel.snapshot()).toEqual(before)
})

test('the default routes go with the endpoint, and the link is taken out in the background', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1, { ipv6: true })
  const sandbox = await sandboxOf(controller, 'c1')
  const endpoint = await joined(network, sandbox)
  await endpoint.leave()
  expect(defaults(inside(kernel, sandbox))).toEqual([])
  expect(addressesOn(inside(kernel, sandbox), 'eth0')).toEqual([])
  await controller.settle()
  expect(linkNames(inside(kernel, sandbox))).toEqual(['lo'])
})

test('an endpoint that left may join again, here or elsewhere, at once', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  const one = await sandboxOf(controller, 'one')
  const two = await sandboxOf(controller, 'two')
  const endpoint = await joined(network, one)
  const { ipv4, mac } = endpoint
  for (const sandbox of [one, two, one, one]) {
    await endpoint.leave()
    await endpoint.join(sandbox)
    expect(endpoint).toMatchObject({ ipv4, mac, sandbox, interfaceName: 'eth0' })
    expect(addressesOn(inside(kernel, sandbox), 'eth0')).toEqual([ipv4])
  }
})

describe('names and look-up', () => {
  test('networks: by id, by name, by a prefix of the id, in this order', async () => {
    const { controller } = await fresh()
    const id = (first: string) => first.padEnd(64, '0')
    const one = await networkOf(controller, 'one', 1, { id: id('abc1') })
    const two = await networkOf(controller, 'two', 2, { id: id('abc2') })
    const abc1 = await networkOf(controller, 'abc1', 3, { id: id('fff') })
    expect(controller.network(one.id)).toBe(one)
    expect(controller.network('two')).toBe(two)
    expect(controller.network('abc2')).toBe(two)
    expect(controller.network('abc1')).toBe(abc1) // a name wins over a prefix
    expect(controller.network('abc10')).toBe(one)
    expect(() => controller.network('abc')).toThrow(refusal('ERR_AMBIGUOUS', /abc.*2 matches/))
    for (const nobody of ['', 'zzz', 'ONE', '__proto__', 'constructor'])
      expect(() => controller.network(nobody)).toThrow(refusal('ERR_NETWORK_NOT_FOUND'))
  })

  test('endpoints and sandboxes likewise', async () => {
    const { controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const a = await network.createEndpoint({ name: 'a', id: '1'.padEnd(64, 'a') })
    const b = await network.createEndpoint({ name: 'b', id: '1'.padEnd(64, 'b') })
    expect(network.endpoint('a')).toBe(a)
    expect(network.endpoint('1b')).toBe(b)
    expect(() => network.endpoint('1')).toThrow(refusal('ERR_AMBIGUOUS'))
    expect(() => network.endpoint('c')).toThrow(refusal('ERR_ENDPOINT_NOT_FOUND', /endpoint c .*network web/))
    expect(() => network.endpoint('')).toThrow(refusal('ERR_ENDPOINT_NOT_FOUND'))

    const first = await sandboxOf(controller, 'first')
    const second = await sandboxOf(controller, 'fifth')
    expect(controller.sandbox('first')).toBe(first)
    expect(controller.sandbox(second.id)).toBe(second)
    expect(controller.sandbox('fir')).toBe(first)
    expect(() => controller.sandbox('fi')).toThrow(refusal('ERR_AMBIGUOUS'))
    expect(() => controller.sandbox('third')).toThrow(refusal('ERR_SANDBOX_NOT_FOUND'))
  })

  test('a name is free again after the delete', async () => {
    const { controller } = await fresh()
    for (let round = 0; round < 2; round++) {
      const network = await networkOf(controller, 'web', 1)
      for (let again = 0; again < 2; again++) await (await network.createEndpoint({ name: 'c1' })).delete()
      await network.delete()
      await (await sandboxOf(controller, 'c1')).delete()
    }
  })

  test('the same endpoint name on two networks is fine', async () => {
    const { controller } = await fresh()
    const web = await networkOf(controller, 'web', 1)
    const db = await networkOf(controller, 'db', 2)
    await web.createEndpoint({ name: 'c1' })
    await db.createEndpoint({ name: 'c1' })
    await expect(db.createEndpoint({ name: 'c1' })).rejects.toEqual(
      refusal('ERR_ENDPOINT_EXISTS', /name c1 already exists in network db/),
    )
  })

  test('an id given twice is refused, also when both are asked for at once', async () => {
    const { controller } = await fresh({ drivers: [new MockDriver()] })
    const id = 'ab'.repeat(32)
    const outcome = await Promise.allSettled([
      networkOf(controller, 'one', 1, { id }),
      networkOf(controller, 'two', 2, { id, driver: 'mock' }),
    ])
    expect(outcome.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(outcome.find(({ status }) => status === 'rejected')).toMatchObject({
      reason: refusal('ERR_NETWORK_EXISTS', new RegExp(id)),
    })
    expect(controller.networks()).toHaveLength(1)
  })
})

describe('what is refused while it is in use', () => {
  test('a network with endpoints, joined or not', async () => {
    const { kernel, controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const endpoint = await network.createEndpoint({ name: 'c1' })
    const before = state(kernel, controller)
    await expect(network.delete()).rejects.toEqual(
      refusal(
        'ERR_NETWORK_IN_USE',
        new RegExp(`web has active endpoints.*"c1".*${endpoint.id.slice(0, 12)}`),
      ),
    )
    expect(state(kernel, controller)).toEqual(before)
    await endpoint.delete()
    await network.delete()
    expect(controller.networks()).toEqual([])
  })

  test('an endpoint in a sandbox, unless forced', async () => {
    const { kernel, controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const sandbox = await sandboxOf(controller, 'c1')
    const endpoint = await joined(network, sandbox)
    const before = state(kernel, controller)
    await expect(endpoint.delete()).rejects.toEqual(
      refusal('ERR_ENDPOINT_IN_USE', /c1 .* has active containers/),
    )
    expect(state(kernel, controller)).toEqual(before)
    await endpoint.delete({ force: true })
    expect(sandbox.endpoints()).toEqual([])
    expect(network.endpoints()).toEqual([])
    await controller.settle()
    expect(linkNames(inside(kernel, sandbox))).toEqual(['lo'])
  })

  test('an endpoint joins one sandbox; leaving nothing is refused unless forced', async () => {
    const { controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const one = await sandboxOf(controller, 'one')
    const two = await sandboxOf(controller, 'two')
    const endpoint = await joined(network, one)
    for (const sandbox of [one, two])
      await expect(endpoint.join(sandbox)).rejects.toEqual(
        refusal('ERR_ENDPOINT_JOINED', new RegExp(`${one.id.slice(0, 12)}.*another container is attached`)),
      )
    await endpoint.leave()
    await expect(endpoint.leave()).rejects.toEqual(refusal('ERR_ENDPOINT_NOT_JOINED'))
    await endpoint.leave({ force: true })
  })

  test('one sandbox a container', async () => {
    const { controller } = await fresh()
    const { id } = await sandboxOf(controller, 'c1')
    await expect(sandboxOf(controller, 'c1')).rejects.toEqual(
      refusal('ERR_SANDBOX_EXISTS', new RegExp(`c1 is already present in sandbox ${id.slice(0, 12)}`)),
    )
  })

  test('a driver that forbids keeps the endpoint, or the network', async () => {
    const driver = new MockDriver()
    const { controller } = await fresh({ drivers: [driver] })
    const network = await networkOf(controller, 'web', 1, { driver: 'mock' })
    const endpoint = await network.createEndpoint({ name: 'c1' })
    const denied = Object.assign(new Error('not now'), {
      name: 'CnmError',
      code: 'ERR_PLUGIN',
      kind: 'denied',
    })
    driver.reply('deleteEndpoint', denied)
    await expect(endpoint.delete()).rejects.toThrow('not now')
    expect(network.endpoint('c1')).toBe(endpoint)
    driver.reply('deleteEndpoint', new Error('out of order'))
    await endpoint.delete() // any other failure of a driver does not hold the name
    expect(network.endpoints()).toEqual([])
    driver.reply('deleteNetwork', denied)
    await expect(network.delete()).rejects.toThrow('not now')
    expect(controller.network('web')).toBe(network)
    await network.delete()
    driver.assertNothingPending()
  })

  test('a driver that fails to delete or to leave is told on, not obeyed', async () => {
    const driver = new MockDriver()
    const { controller } = await fresh({ drivers: [driver] })
    const network = await networkOf(controller, 'web', 1, { driver: 'mock' })
    const endpoint = await joined(network, await sandboxOf(controller, 'c1'))
    driver.reply('leave', new Error('out of order'))
    await endpoint.leave()
    await endpoint.delete()
    driver.reply('deleteNetwork', new Error('out of order'))
    await network.delete()
    expect(controller.networks()).toEqual([])
    driver.assertNothingPending()
  })
})

describe('after the end', () => {
  test('a deleted noun says so, and deleting twice is no error', async () => {
    const { controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const endpoint = await network.createEndpoint({ name: 'c1' })
    const sandbox = await sandboxOf(controller, 'c1')
    for (let twice = 0; twice < 2; twice++) {
      await endpoint.delete()
      await sandbox.delete()
      await network.delete()
    }
    const gone = refusal('ERR_GONE', /was deleted/)
    const other = await sandboxOf(controller, 'c2')
    await expect(endpoint.join(other)).rejects.toEqual(gone)
    await expect(endpoint.updatePorts([])).rejects.toEqual(gone)
    await expect(endpoint.setBandwidth({})).rejects.toEqual(gone)
    await expect(network.createEndpoint({ name: 'c1' })).rejects.toEqual(gone)
    await expect(network.update({ labels: {} })).rejects.toEqual(gone)
    for (const act of [
      () => sandbox.setKey('/proc/1/ns/net'),
      () => sandbox.refresh({}),
      () => sandbox.rename('x'),
      () => sandbox.statistics(),
    ])
      await expect(act()).rejects.toEqual(gone)
  })

  test('joining a sandbox that was deleted', async () => {
    const { controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const endpoint = await network.createEndpoint({ name: 'c1' })
    const sandbox = await sandboxOf(controller, 'c1')
    await sandbox.delete()
    await expect(endpoint.join(sandbox)).rejects.toEqual(refusal('ERR_GONE'))
    expect(endpoint.sandbox).toBeUndefined()
    await endpoint.delete()
  })

  test('a closed controller refuses everything, and holds nothing', async () => {
    const { kernel, controller } = await fresh()
    const network = await networkOf(controller, 'web', 1)
    const sandbox = await sandboxOf(controller, 'c1')
    const endpoint = await joined(network, sandbox)
    await controller.close()
    await controller.close()
    expect(kernel.openStacks()).toEqual([])
    const before = kernel.snapshot()
    const closed = refusal('ERR_CLOSED', /controller libcnm is closed/)
    for (const act of [
      () => controller.createNetwork({ name: 'x' }),
      () => controller.createSandbox({ containerId: 'x' }),
      () => controller.check(),
      () => controller.repair(),
      () => controller.gc({ containerIds: [] }),
      () => network.createEndpoint({ name: 'x' }),
      () => network.update({}),
      () => network.delete(),
      () => endpoint.leave(),
      () => endpoint.delete({ force: true }),
      () => endpoint.updatePorts([]),
      () => sandbox.rename('x'),
      () => sandbox.delete(),
    ])
      await expect(act()).rejects.toEqual(closed)
    expect(kernel.snapshot()).toEqual(before)
  })

  test('close waits for what is under way', async () => {
    const { kernel, controller } = await fresh({}, { latencyMs: 2 })
    const making = [networkOf(controller, 'web', 1), sandboxOf(controller, 'c1')]
    await controller.close()
    expect((await Promise.allSettled(making)).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled'])
    expect(linkNames(kernel.netns())).toContainEqual(hex(12, 'br-'))
  })

  test('what `await using` made is gone at the end of the block', async () => {
    const { kernel, controller } = await fresh()
    await kernel.settle()
    const before = kernel.snapshot()
    {
      await using network = await networkOf(controller, 'web', 1)
      await using sandbox = await sandboxOf(controller, 'c1')
      await using endpoint = await network.createEndpoint({ name: 'c1' })
      await endpoint.join(sandbox)
    }
    await controller.settle()
    await kernel.settle()
    expect(controller.inspect()).toMatchObject({ networks: 0, sandboxes: 0 })
    expect(kernel.snapshot()).toEqual(before)
  })
})

test('deleting a sandbox takes its endpoints along, and gives their addresses back', async () => {
  const { controller } = await fresh()
  const web = await networkOf(controller, 'web', 1)
  const db = await networkOf(controller, 'db', 2)
  const sandbox = await sandboxOf(controller, 'c1')
  await joined(web, sandbox)
  await joined(db, sandbox)
  await sandbox.delete()
  expect([...web.endpoints(), ...db.endpoints()]).toEqual([])
  expect(controller.sandboxes()).toEqual([])
  const again = await web.createEndpoint({ name: 'c1', ipv4: '10.1.0.2' })
  expect(again.ipv4).toBe('10.1.0.2/24')
})

test('static addresses and MAC are taken as given, and collisions refused', async () => {
  const { kernel, controller } = await fresh()
  const network = await networkOf(controller, 'web', 1, { ipv6: true })
  const sandbox = await sandboxOf(controller, 'c1')
  const endpoint = await network.createEndpoint({
    name: 'c1',
    ipv4: '10.1.0.77',
    ipv6: 'FD00:1:0::4d',
    mac: '02:AA:bb:00:00:01',
    linkLocal: ['169.254.7.7', 'fe80::77'],
  })
  await endpoint.join(sandbox)
  expect(endpoint).toMatchObject({ ipv4: '10.1.0.77/24', ipv6: 'fd00:1::4d/64', mac: '02:aa:bb:00:00:01' })
  const view = inside(kernel, sandbox)
  expect(addressesOn(view, 'eth0').sort()).toEqual(['10.1.0.77/24', '169.254.7.7/16', 'fd00:1::4d/64'])
  expect(view.addresses).toContainEqual({ link: 'eth0', address: 'fe80::77/64', scope: 'link' })
  expect(view.links.find(({ name }) => name === 'eth0')?.mac).toBe('02:aa:bb:00:00:01')

  const before = state(kernel, controller)
  const attempts: [object, string][] = [
    [{ ipv4: '10.1.0.77' }, 'ERR_ADDRESS_IN_USE'],
    [{ ipv6: 'fd00:1::4d' }, 'ERR_ADDRESS_IN_USE'],
    [{ ipv4: '10.1.0.1' }, 'ERR_ADDRESS_IN_USE'], // the gateway's
    [{ ipv4: '10.2.0.1' }, 'ERR_ADDRESS_OUT_OF_RANGE'],
    [{ ipv6: 'fd00:2::1' }, 'ERR_ADDRESS_OUT_OF_RANGE'],
    [{ linkLocal: ['10.1.0.9'] }, 'ERR_INVALID_ADDRESS'],
  ]
  for (const [options, code] of attempts)
    await expect(network.createEndpoint({ name: 'c2', ...options })).rejects.toMatchObject({ code })
  expect(state(kernel, controller)).toEqual(before)
  // the refused ones took nothing: the next dynamic address is the first free one
  expect((await network.createEndpoint({ name: 'c2' })).ipv4).toBe('10.1.0.2/24')
})

test('an address of a family that the network lacks is refused', async () => {
  const { controller } = await fresh()
  const network = await networkOf(controller, 'web', 1)
  await expect(network.createEndpoint({ name: 'c1', ipv6: 'fd00:1::5' })).rejects.toEqual(
    refusal('ERR_ADDRESS_OUT_OF_RANGE', /web has no IPv6 subnet for fd00:1::5/),
  )
})

test('labels of other programs, and those of Docker for other drivers, are left alone', async () => {
  const { controller } = await fresh()
  const network = await networkOf(controller, 'web', 1, {
    options: { 'com.example.zone': 'x', 'com.docker.network.driver.overlay.vxlanid_list': '4097', 'a.b': '' },
  })
  const endpoint = await network.createEndpoint({
    name: 'c1',
    options: { 'com.example.zone': 'x', 'com.docker.network.endpoint.dnsservers': '192.0.2.1' },
  })
  expect(endpoint.ipv4).toBe('10.1.0.2/24')
})

test('a subnet of which only the size was asked for is told as chosen', async () => {
  const { controller } = await fresh()
  const network = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '0.0.0.0/24' }] },
  })
  expect(network.inspect().ipam.config).toMatchObject([{ subnet: '172.17.0.0/24', explicit: false }])
})

test('labels and what inspect tells are plain data', async () => {
  const { controller } = await fresh()
  const network = await networkOf(controller, 'web', 1, { labels: { a: '1' }, attachable: true })
  const sandbox = await controller.createSandbox({ containerId: 'c1', labels: { b: '2' }, files: false })
  const endpoint = await network.createEndpoint({ name: 'c1', labels: { c: '3' }, aliases: ['api'] })
  await endpoint.join(sandbox, { priority: 5 })
  const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T
  for (const noun of [network, sandbox, endpoint, controller])
    expect(plain(noun.inspect())).toEqual(plain({ ...noun.inspect() }))
  expect(network.inspect()).toMatchObject({
    name: 'web',
    labels: { a: '1' },
    attachable: true,
    ipam: { config: [{ subnet: '10.1.0.0/24', gateway: '10.1.0.1', explicit: true }] },
    endpoints: [{ name: 'c1', containerId: 'c1', ipv4: '10.1.0.2/24' }],
  })
  expect(sandbox.inspect()).toMatchObject({ labels: { b: '2' }, gateway: { ipv4: 'web' } })
  expect(endpoint.inspect()).toMatchObject({
    labels: { c: '3' },
    aliases: ['api'],
    sandbox: { containerId: 'c1', interfaceName: 'eth0', priority: 5, gateway: { ipv4: true, ipv6: false } },
  })
  await network.update({ labels: { a: '2', d: '4' } })
  expect(network.labels).toEqual({ a: '2', d: '4' })
})

test('update changes what it names and keeps the rest', async () => {
  const { controller } = await fresh()
  const network = await controller.createNetwork({
    name: 'web',
    labels: { a: '1' },
    ipam: { config: [{ subnet: '10.1.0.0/24' }] },
    dns: { servers: ['192.0.2.53'] },
  })
  await network.update({ dns: { records: [{ name: 'gate', type: 'A', value: '192.0.2.9' }] } })
  expect(network.record.config).toMatchObject({ labels: { a: '1' }, dns: { servers: ['192.0.2.53'] } })
  await network.update({ labels: {} })
  expect(network.record.config.dns.records).toHaveLength(1)
})

test('an error can be told by its code wherever it comes from', async () => {
  const { controller } = await fresh()
  const error = await controller
    .createNetwork({ name: 'web', driver: 'brigde' })
    .catch((thrown: unknown) => thrown)
  expect(isCnmError(error, 'ERR_DRIVER_NOT_FOUND')).toBe(true)
  expect(error).toMatchObject({
    kind: 'not-found',
    message: expect.stringContaining('did you mean "bridge"?'),
  })
})

test('a sticky name gets its addresses and its MAC again, in both families', async () => {
  const { controller } = await fresh()
  const options = { 'libcnm.ipam.sticky': 'true' }
  const web = await controller.createNetwork({ name: 'web', ipam: { ...subnets(1, true), options } })
  const first = await web.createEndpoint({ name: 'a' })
  const had = [first.mac, first.ipv4, first.ipv6]
  await first.delete()
  const other = await web.createEndpoint({ name: 'b' })
  expect([other.mac, other.ipv4]).not.toEqual([had[0], had[1]])
  const again = await web.createEndpoint({ name: 'a' })
  expect([again.mac, again.ipv4, again.ipv6]).toEqual(had)
})
