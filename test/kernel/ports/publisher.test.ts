import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import type { PortBinding, PublishTarget, PublishedPort } from '../../../lib/ports/contract'
import { Publisher, type PublisherOptions } from '../../../lib/ports/publisher'
import { formatPublished, parsePort } from '../../../lib/ports/spec'
import {
  type Scene,
  closeServer,
  connectIn,
  openSockets,
  outcome,
  readAll,
  scene,
  serveIn,
  udpIn,
  until,
} from './scene'

let s: Scene
let target: PublishTarget
let before: number
const publishers: Publisher[] = []
const foreign: number[] = []

beforeAll(async () => {
  s = await scene()
  target = { networkId: 'net1', endpointId: 'ep1', ...s.target, modes: { 4: 'nat', 6: 'nat' } }
})
afterAll(() => s.close())
beforeEach(async () => {
  before = await openSockets()
})
afterEach(async () => {
  for (const publisher of publishers.splice(0)) {
    await publisher.close()
    expect(publisher.sockets).toBe(0)
  }
  for (const fd of foreign.splice(0)) s.host.closeFd(fd)
  await until(async () => (await openSockets()) <= before, 'as many sockets as before')
})

function make(options: Partial<PublisherOptions> = {}) {
  const publisher = new Publisher({ stack: s.host, backend: 'nftables', ...options })
  publishers.push(publisher)
  const reserve = (...bindings: (string | PortBinding)[]) =>
    publisher.reserve(
      target,
      bindings.map(each => (typeof each === 'string' ? parsePort(each) : each)),
    )
  return {
    publisher,
    reserve,
    ask: async (...bindings: string[]) => (await reserve(...bindings)).map(formatPublished),
  }
}

/** A socket of somebody else. */
const occupy = (type: 'tcp' | 'udp', address: string, port: number) =>
  foreign.push(s.host.openSocket({ type, address, port, ...(type === 'tcp' && { listen: 8 }) }))

const failure = (act: Promise<unknown>) =>
  act.then(
    () => undefined,
    (error: { code: string; message: string; details: Record<string, unknown> }) => error,
  )

describe('what is in the way', () => {
  test.each([
    ['tcp', '0.0.0.0', '8080:80'],
    ['tcp', '192.0.2.1', '8080:80'],
    ['tcp', '::', '8080:80'],
    ['tcp', '::1', '8080:80'],
    ['tcp', '0.0.0.0', '192.0.2.1:8080:80'],
    ['tcp', '::', '[2001:db8::1]:8080:80'],
    ['udp', '127.0.0.1', '8080:80/udp'],
    ['udp', '::', '8080:80/udp'],
    ['tcp', '0.0.0.0', '8070-8090:70-90'],
  ] as const)('a %s socket on %s: %s is refused and its process named', async (type, address, spec) => {
    occupy(type, address, 8080)
    const { ask, publisher } = make()
    const error = await failure(ask(spec))
    expect(error).toMatchObject({ code: 'ERR_PORT_IN_USE', details: { hostPort: 8080, protocol: type } })
    expect(error!.message).toContain(`pid ${process.pid})`)
    expect(publisher.sockets).toBe(0)
    expect(await ask('8081:80', '8080:80/' + (type === 'tcp' ? 'udp' : 'tcp'))).toHaveLength(4)
  })

  test.each([
    ['tcp', '192.0.2.1', '10.77.0.1:8080:80'],
    ['tcp', '127.0.0.1', '[::]:8080:80'],
    ['udp', '0.0.0.0', '8080:80'],
    ['udp', '::1', '[2001:db8::1]:8080:80/udp'],
  ] as const)('a %s socket on %s is not in the way of %s', async (type, address, spec) => {
    occupy(type, address, 8080)
    expect(await make().ask(spec)).not.toHaveLength(0)
  })

  test('tcp and udp on one port, wildcard and specific of different families', async () => {
    const { ask } = make()
    expect(await ask('53:53/tcp', '53:53/udp', '127.0.0.1:54:54', '[::]:54:54')).toEqual([
      '53/tcp -> 0.0.0.0:53',
      '53/tcp -> [::]:53',
      '53/udp -> 0.0.0.0:53',
      '53/udp -> [::]:53',
      '54/tcp -> 127.0.0.1:54',
      '54/tcp -> [::]:54',
    ])
    expect(await failure(ask('127.0.0.1:53:53/udp'))).toMatchObject({
      code: 'ERR_PORT_IN_USE',
      details: { endpointId: 'ep1' },
    })
  })

  test('sctp is reserved, by a socket where the kernel has it', async () => {
    const { ask, reserve, publisher } = make()
    expect(await ask('5000:5000/sctp')).toEqual(['5000/sctp -> 0.0.0.0:5000', '5000/sctp -> [::]:5000'])
    expect(await failure(reserve('127.0.0.1:5000:5000/sctp'))).toMatchObject({ code: 'ERR_PORT_IN_USE' })
    expect([0, 2]).toContain(publisher.sockets)
  })

  test('what we reserved nobody else can bind', async () => {
    const { reserve, publisher } = make()
    const ports = await reserve('8080:80', '8080:80/udp', '9000-9009:90-99')
    for (const type of ['tcp', 'udp'] as const)
      for (const address of ['0.0.0.0', '192.0.2.1', '::', '::1'])
        expect(() =>
          s.host.openSocket({
            type,
            address,
            port: 8080,
            reuseAddress: true,
            ...(type === 'tcp' && { listen: 1 }),
          }),
        ).toThrow('in use')
    expect(() => s.host.openSocket({ type: 'tcp', address: '::1', port: 9009, listen: 1 })).toThrow('in use')
    await publisher.release(ports)
    occupy('tcp', '0.0.0.0', 8080)
    occupy('udp', '::', 8080)
    occupy('tcp', '::1', 9009)
  })

  test('a chosen port passes over what others have', async () => {
    for (let port = 8000; port < 8016; port++) occupy('tcp', port % 2 ? '::1' : '192.0.2.1', port)
    expect(await make().ask('8000-8020:80')).toEqual(['80/tcp -> 0.0.0.0:8016', '80/tcp -> [::]:8016'])
    const error = await failure(make().ask('8000-8015:80'))
    expect(error).toMatchObject({ code: 'ERR_PORTS_EXHAUSTED' })
    expect(error!.message).toContain(`pid ${process.pid})`)
  })

  test('a long range: found without holding 20,000 descriptors', async () => {
    const { ask, publisher } = make()
    occupy('tcp', '::', 25_000)
    const error = await failure(ask('20000-29999:20000-29999'))
    expect(error).toMatchObject({ code: 'ERR_PORT_IN_USE', details: { hostPort: 25_000, hostIp: '::' } })
    expect(error!.message).toContain(`pid ${process.pid})`)
    expect(await ask('20000-29999:20000-29999/udp')).toHaveLength(2)
    expect(publisher.sockets).toBe(0)
  })

  test.each(['203.0.113.9:8080:80', '[2001:db8::99]:8080:80', '203.0.113.9:20000-29999:20000-29999/udp'])(
    '%s: the host has no such address',
    async spec => {
      expect(await failure(make().ask(spec))).toMatchObject({
        code: 'ERR_INVALID_PORT',
        message: expect.stringContaining('the host has no address'),
      })
    },
  )

  test('without IPv6 just IPv4; asked for by name it is refused', async () => {
    s.host.setSysctls({ 'net/ipv6/conf/lo/disable_ipv6': '1' })
    try {
      const { ask } = make()
      expect(await ask('8080:80')).toEqual(['80/tcp -> 0.0.0.0:8080'])
      expect(await failure(ask('[::1]:8080:80'))).toMatchObject({ code: 'ERR_INVALID_PORT' })
    } finally {
      s.host.setSysctls({ 'net/ipv6/conf/lo/disable_ipv6': '0' })
      await until(() => {
        try {
          s.host.closeFd(s.host.openSocket({ type: 'udp', address: '::1', port: 0 }))
          return true
        } catch {
          return false
        }
      }, '::1 is back')
    }
  })
})

describe('carrying', () => {
  const greet = (text: string) =>
    serveIn(s.container, text.includes('4') ? '0.0.0.0' : '::', 80, socket => socket.end(text))
  const hear = async (stack: Scene['host'], address: string, port: number) => {
    const client = connectIn(stack, address, port)
    client.end()
    return (await readAll(client)).toString()
  }

  test('no connection is accepted while a port is merely reserved', async () => {
    const server = await greet('v4')
    await make().reserve('192.0.2.1:8080:80')
    const client = connectIn(s.lan, '192.0.2.1', 8080)
    const late = new Promise(resolve => setTimeout(() => resolve('silence'), 300))
    expect(await Promise.race([outcome(client), late])).toBe('silence')
    client.destroy()
    await closeServer(server)
  })

  test('[::1] of a port that the kernel translates; others find it as silent as before', async () => {
    const server = await greet('v6')
    const { reserve, publisher } = make()
    const ports = await reserve('8080:80')
    await publisher.start(ports)
    expect(ports.map(port => port.proxied)).toEqual([false, false])
    expect(await hear(s.host, '::1', 8080)).toBe('v6')
    await publisher.release(ports)
    expect(await outcome(connectIn(s.host, '::1', 8080))).toBe('ECONNREFUSED')
    await closeServer(server)
  })

  test('backend none: everything by proxy, in both families, and a range port by port', async () => {
    const server = await greet('v4')
    const { reserve, publisher } = make({ backend: 'none' })
    target = { ...target, ipv6: undefined }
    try {
      const ports = await reserve('8080-8081:80-81')
      await publisher.start(ports)
      expect(ports.map(port => port.proxied)).toEqual([true, true])
      expect(await hear(s.lan, '192.0.2.1', 8080)).toBe('v4')
      expect(await hear(s.lan, '2001:db8::1', 8080)).toBe('v4')
      expect(await hear(s.host, '127.0.0.1', 8080)).toBe('v4')
      await expect(hear(s.lan, '192.0.2.1', 8081)).rejects.toMatchObject({ code: 'ECONNRESET' })
    } finally {
      target = { ...target, ipv6: s.target.ipv6 }
    }
    await closeServer(server)
  })

  test('udp wildcard: answers come from the address asked, also from one that came later', async () => {
    const server = udpIn(s.container, '0.0.0.0', 53)
    server.on('message', (data, from) => server.send(data, from.port, from.address))
    const { reserve, publisher } = make({ backend: 'none' })
    const ports = await reserve('0.0.0.0:5353:53/udp')
    await publisher.start(ports)
    const client = udpIn(s.lan, '0.0.0.0', 0)
    const ask = async (address: string) => {
      const answer = once(client, 'message')
      client.send('x', 5353, address)
      return ((await answer)[1] as { address: string }).address
    }
    expect(await ask('192.0.2.1')).toBe('192.0.2.1')
    expect(await ask('10.77.0.1')).toBe('10.77.0.1')
    const sockets = publisher.sockets
    await s.host.apply([{ op: 'addAddress', link: 'l', address: '198.51.100.1/32' }])
    await until(() => publisher.sockets === sockets + 1, 'a socket for the new address')
    expect(await ask('198.51.100.1')).toBe('198.51.100.1')
    await s.host.apply([{ op: 'removeAddress', link: 'l', address: '198.51.100.1/32' }])
    await until(() => publisher.sockets === sockets, 'gone with the address')
    client.close()
    server.close()
  })

  test('a change of allowFrom keeps the port and the connections that are still allowed', async () => {
    const server = await serveIn(s.container, '::', 80, socket => socket.pipe(socket))
    const { publisher } = make({ backend: 'none' })
    const binding = parsePort('[::]:8080:80')
    const old = await publisher.reserve(target, [binding])
    await publisher.start(old)
    const client = connectIn(s.lan, '2001:db8::1', 8080)
    client.write('a')
    await once(client, 'data')
    const next = await publisher.reserve(target, [{ ...binding, allowFrom: ['2001:db8::/64'] }], old)
    await publisher.start(next)
    await publisher.release(old)
    client.write('b')
    expect(String((await once(client, 'data'))[0])).toBe('b')
    await expect(hear(s.host, '::1', 8080)).rejects.toMatchObject({ code: 'ECONNRESET' })
    client.end()
    await readAll(client)
    await closeServer(server)
  })

  test('restored by another publisher; a port that is taken meanwhile is left out', async () => {
    const { reserve, publisher } = make()
    const ports = await reserve('8080:80', '8081:81/udp')
    await publisher.close()
    occupy('udp', '::', 8081)
    const adopted: PublishedPort[] = await make().publisher.readopt(ports)
    expect(adopted.map(formatPublished)).toEqual([
      '80/tcp -> 0.0.0.0:8080',
      '80/tcp -> [::]:8080',
      '81/udp -> 0.0.0.0:8081',
    ])
  })
})
