import { describe, expect, test } from '@jest/globals'
import type { Stack } from '../../../lib/kernel/kernel'
import type { PortBinding, PublishTarget } from '../../../lib/ports/contract'
import { InertProxy } from '../../../lib/ports/inert-proxy'
import { Publisher, type PublisherOptions } from '../../../lib/ports/publisher'
import { formatPublished, parsePort } from '../../../lib/ports/spec'
import { MockKernel } from '../../../lib/testing'

const TARGET: PublishTarget = {
  networkId: 'net1',
  endpointId: 'ep1',
  ipv4: '10.0.0.2',
  ipv6: 'fd00::2',
  modes: { 4: 'nat', 6: 'nat' },
}
const OTHER: PublishTarget = { ...TARGET, endpointId: 'ep2', ipv4: '10.0.0.3', ipv6: 'fd00::3' }

interface Scene {
  kernel: MockKernel
  stack: Stack
  publisher: Publisher
  proxy: InertProxy
  ask(target: PublishTarget, ...bindings: (string | PortBinding)[]): Promise<string[]>
}

async function scene(options: Partial<PublisherOptions> = {}): Promise<Scene> {
  const kernel = new MockKernel()
  const stack = await kernel.create('/run/host')
  const proxy = new InertProxy(stack)
  const publisher = new Publisher({ stack, backend: 'nftables', proxy, ...options })
  return {
    kernel,
    stack,
    publisher,
    proxy,
    ask: async (target, ...bindings) =>
      (
        await publisher.reserve(
          target,
          bindings.map(each => (typeof each === 'string' ? parsePort(each) : each)),
        )
      ).map(formatPublished),
  }
}

const failure = async (act: Promise<unknown>) =>
  act.then(
    () => undefined,
    (error: { code: string; message: string; details: Record<string, unknown> }) => error,
  )

describe('reserve', () => {
  test('a port of both families is held by silent listening sockets', async () => {
    const { kernel, publisher, ask } = await scene()
    expect(await ask(TARGET, '8080:80')).toEqual(['80/tcp -> 0.0.0.0:8080', '80/tcp -> [::]:8080'])
    const opened = kernel.journal.filter(call => call.op === 'openSocket')
    expect(publisher.sockets).toBe(2)
    expect(JSON.stringify(opened.at(-1))).toContain('"dropAll":true')
    await publisher.close()
    expect(publisher.sockets).toBe(0)
  })

  test('our own holder is named', async () => {
    const { ask } = await scene()
    await ask(TARGET, '8080:80')
    const error = await failure(ask(OTHER, '127.0.0.1:8080:80'))
    expect(error).toMatchObject({
      code: 'ERR_PORT_IN_USE',
      details: { networkId: 'net1', endpointId: 'ep1', hostPort: 8080, hostIp: '127.0.0.1' },
    })
    expect(error!.message).toContain('endpoint ep1 of network net1 publishes 80/tcp -> 0.0.0.0:8080')
  })

  test('whole or nothing', async () => {
    const { publisher, stack, ask } = await scene()
    stack.openSocket({ type: 'udp', address: '::', port: 53 })
    expect(await failure(ask(TARGET, '8080:80', '53:53/udp', '9000-9010:9000-9010'))).toMatchObject({
      code: 'ERR_PORT_IN_USE',
      details: { hostPort: 53, protocol: 'udp', hostIp: '::' },
    })
    expect(publisher.sockets).toBe(0)
    expect(await ask(TARGET, '8080:80', '9000-9010:9000-9010')).toHaveLength(4)
  })

  test('the same request again fails and leaves the first alone', async () => {
    const { publisher, ask } = await scene()
    await ask(TARGET, '8080:80')
    expect(await failure(ask(TARGET, '8080:80'))).toMatchObject({ code: 'ERR_PORT_IN_USE' })
    expect(publisher.sockets).toBe(2)
    expect(await failure(ask(OTHER, '8080:80'))).toMatchObject({ code: 'ERR_PORT_IN_USE' })
  })

  test.each([
    [['8080:80', '8080:81']],
    [['8080:80', '8080:80']],
    [['127.0.0.1:8080:80', '0.0.0.0:8080:80']],
    [['8000-8010:8000-8010', '8005:80']],
  ])('asked for twice: %j', async bindings => {
    const { publisher, ask } = await scene()
    expect(await failure(ask(TARGET, ...bindings))).toMatchObject({
      code: 'ERR_INVALID_PORT',
      message: expect.stringContaining('asked for twice'),
    })
    expect(publisher.sockets).toBe(0)
  })

  test('tcp, udp and sctp may have the same port', async () => {
    const { ask } = await scene()
    expect(await ask(TARGET, '0.0.0.0:53:53/udp', '0.0.0.0:53:53/tcp', '0.0.0.0:53:53/sctp')).toEqual([
      '53/tcp -> 0.0.0.0:53',
      '53/udp -> 0.0.0.0:53',
      '53/sctp -> 0.0.0.0:53',
    ])
  })

  test('chosen ports: of the dynamic range, not the reserved ones, the same in both families', async () => {
    const { stack, publisher, ask } = await scene()
    stack.setSysctls({ 'net/ipv4/ip_local_port_range': '40000\t40003' })
    stack.setSysctls({ 'net/ipv4/ip_local_reserved_ports': '40000,40002-40002' })
    stack.openSocket({ type: 'tcp', address: '::', port: 40001, listen: 1 })
    expect(await ask(TARGET, '80')).toEqual(['80/tcp -> 0.0.0.0:40003', '80/tcp -> [::]:40003'])
    const error = await failure(ask(OTHER, '80'))
    expect(error).toMatchObject({ code: 'ERR_PORTS_EXHAUSTED' })
    expect(error!.message).toContain('40001 on ::, for one, is in use by another process')
    expect(publisher.sockets).toBe(2)
    // reserved ports may be asked for by number
    expect(await ask(OTHER, '40000:80')).toHaveLength(2)
  })

  test('one port of a range, run of ports', async () => {
    const { ask } = await scene()
    expect(await ask(TARGET, '0.0.0.0:8000-8002:80')).toEqual(['80/tcp -> 0.0.0.0:8000'])
    expect(await ask(OTHER, '0.0.0.0:8000-8002:80')).toEqual(['80/tcp -> 0.0.0.0:8001'])
    const [run] = await ask(OTHER, '127.0.0.1::7000-7010/udp')
    expect(run).toMatch(/^7000-7010\/udp -> 127\.0\.0\.1:\d+-\d+$/)
  })

  test('bindings that differ in the address share the port', async () => {
    const { ask, stack } = await scene()
    stack.setSysctls({ 'net/ipv4/ip_local_port_range': '40000\t40010' })
    stack.openSocket({ type: 'tcp', address: '::1', port: 40000, listen: 1 })
    expect(await ask(TARGET, '127.0.0.1::80', '[::1]::80')).toEqual([
      '80/tcp -> 127.0.0.1:40001',
      '80/tcp -> [::1]:40001',
    ])
  })

  test('a long range costs no descriptors, but what is in the way is found', async () => {
    const { ask, publisher, stack } = await scene()
    expect(await ask(TARGET, '20000-29999:20000-29999')).toHaveLength(2)
    expect(publisher.sockets).toBe(0)
    expect(await failure(ask(OTHER, '25000:80'))).toMatchObject({
      code: 'ERR_PORT_IN_USE',
      details: { endpointId: 'ep1' },
    })
    stack.openSocket({ type: 'tcp', address: '::', port: 30000, listen: 1 })
    expect(await failure(ask(OTHER, '30000-39999:30000-39999'))).toMatchObject({ code: 'ERR_PORT_IN_USE' })
    expect(await ask(OTHER, '30001-39999:30001-39999')).toHaveLength(2)
  })

  test("an address that is not the host's", async () => {
    const { ask, publisher } = await scene()
    for (const spec of ['192.0.2.1:8080:80', '[2001:db8::1]:8080:80', '192.0.2.1:20000-29999:20000-29999'])
      expect(await failure(ask(TARGET, spec))).toMatchObject({
        code: 'ERR_INVALID_PORT',
        message: expect.stringContaining('the host has no address'),
        details: { field: 'hostIp' },
      })
    expect(publisher.sockets).toBe(0)
  })

  test('routed: no host port', async () => {
    const { publisher } = await scene()
    const ports = await publisher.reserve({ ...TARGET, modes: { 4: 'routed', 6: 'routed' } }, [
      parsePort('8000-8001:80-81'),
    ])
    expect(ports).toMatchObject([
      { hostIp: '0.0.0.0', hostPort: 0, hostPortEnd: 1, containerPort: 80, proxied: false },
      { hostIp: '::', hostPort: 0, hostPortEnd: 1 },
    ])
    await publisher.start(ports)
    await publisher.release(ports)
    expect(publisher.sockets).toBe(0)
  })

  test('concurrent requests for one port: one gets it', async () => {
    const { ask } = await scene()
    const results = await Promise.allSettled([
      ask(TARGET, '8080:80'),
      ask(OTHER, '8080:80'),
      ask(OTHER, '8080:81'),
    ])
    expect(results.map(r => r.status).sort()).toEqual(['fulfilled', 'rejected', 'rejected'])
  })
})

describe('start, release, replacing', () => {
  test('::1 of a wildcard and explicit ::1 are proxied', async () => {
    const { publisher, proxy, ask } = await scene()
    await ask(TARGET, '[::1]:9000:90')
    const ports = await publisher.reserve(TARGET, [parsePort('8080:80')])
    await publisher.start(ports)
    expect(proxy.targets).toEqual([expect.objectContaining({ containerIp: 'fd00::2', loopbackOnly: true })])
    await publisher.release(ports)
    expect(proxy.targets).toEqual([])
    expect(publisher.sockets).toBe(1)
  })

  test('without a proxy nothing is started', async () => {
    const { publisher, proxy } = await scene({ userlandProxy: false })
    const ports = await publisher.reserve(TARGET, [parsePort('8080:80')])
    await publisher.start(ports)
    expect(proxy.targets).toEqual([])
  })

  test('each port of a proxied range leads to its own', async () => {
    const { publisher, proxy, stack } = await scene()
    const quiet = new Publisher({ stack, backend: 'none', proxy })
    const ports = await quiet.reserve(TARGET, [parsePort('127.0.0.1:8000-8002:80-82')])
    await quiet.start(ports)
    expect(proxy.targets.map(t => t.containerPort)).toEqual([80, 81, 82])
    await quiet.close()
    await publisher.close()
  })

  test('a change of one binding shares the port until the old one is released', async () => {
    const { publisher, proxy } = await scene()
    const binding = parsePort('[::1]:8080:80')
    const old = await publisher.reserve(TARGET, [binding])
    await publisher.start(old)
    const changed = { ...binding, allowFrom: ['::1/128'] }
    expect(await failure(publisher.reserve(TARGET, [changed]))).toMatchObject({ code: 'ERR_PORT_IN_USE' })

    // undone: the proxy leads where it led
    const first = await publisher.reserve(TARGET, [changed], old)
    await publisher.start(first)
    expect(proxy.targets[0]!.allowFrom).toEqual(['::1/128'])
    await publisher.release(first)
    expect(proxy.targets[0]!.allowFrom).toBeUndefined()

    // carried through
    const second = await publisher.reserve(TARGET, [changed], old)
    await publisher.start(second)
    await publisher.release(old)
    expect(proxy.targets[0]!.allowFrom).toEqual(['::1/128'])
    expect(publisher.sockets).toBe(1)
    await publisher.release(second)
    expect(publisher.sockets).toBe(0)
    expect(proxy.targets).toEqual([])
  })

  test('a range can shrink in place', async () => {
    const { publisher } = await scene()
    const old = await publisher.reserve(TARGET, [parsePort('0.0.0.0:8000-8010:80-90')])
    const next = await publisher.reserve(TARGET, [parsePort('0.0.0.0:8000-8005:80-85')], old)
    expect(publisher.sockets).toBe(11)
    await publisher.release(old)
    expect(publisher.sockets).toBe(6)
    await publisher.release(next)
    await publisher.release(next) // again: nothing happens
    expect(publisher.sockets).toBe(0)
  })

  test('readopt takes what can be had and decides anew who carries it', async () => {
    const { publisher, stack } = await scene()
    const ports = await publisher.reserve(TARGET, [parsePort('8080:80'), parsePort('8081:81')])
    await publisher.close()
    stack.openSocket({ type: 'tcp', address: '0.0.0.0', port: 8081, listen: 1 })
    const warnings: string[] = []
    const log = { debug() {}, info() {}, error() {}, warn: (message: string) => void warnings.push(message) }
    const next = new Publisher({ stack, backend: 'none', log, proxy: new InertProxy(stack) })
    const adopted = await next.readopt(ports)
    expect(adopted.map(formatPublished)).toEqual([
      '80/tcp -> 0.0.0.0:8080',
      '80/tcp -> [::]:8080',
      '81/tcp -> [::]:8081',
    ])
    expect(adopted.every(port => port.proxied)).toBe(true)
    expect(warnings).toEqual([expect.stringContaining('81/tcp -> 0.0.0.0:8081 is lost')])
    await next.release(ports.map(port => ({ ...port, proxied: true })))
    expect(next.sockets).toBe(0)
  })
})

test('a proxied udp wildcard has a socket for each address of the host, and follows them', async () => {
  const { stack, proxy } = await scene()
  await stack.apply([
    { op: 'addLink', link: { kind: 'dummy', name: 'd', up: true } },
    { op: 'addAddress', link: 'd', address: '192.0.2.1/24' },
  ])
  const publisher = new Publisher({ stack, backend: 'none', proxy })
  const ports = await publisher.reserve(TARGET, [parsePort('0.0.0.0:53:53/udp')])
  await publisher.start(ports)
  const settled = async (count: number) => {
    for (let i = 0; i < 100 && publisher.sockets !== count; i++)
      await new Promise(resolve => setTimeout(resolve, 5))
    expect(publisher.sockets).toBe(count)
  }
  await settled(2) // 127.0.0.1 as well
  await stack.apply([{ op: 'addAddress', link: 'd', address: '198.51.100.1/32' }])
  await settled(3)
  await stack.apply([{ op: 'removeAddress', link: 'd', address: '192.0.2.1/24' }])
  await stack.apply([{ op: 'removeAddress', link: 'd', address: '198.51.100.1/32' }])
  await settled(1)
  await publisher.release(ports)
  expect(publisher.sockets).toBe(0)
  await stack.apply([{ op: 'addAddress', link: 'd', address: '192.0.2.3/24' }])
  expect(publisher.sockets).toBe(0)
})

test('every call that can fail: nothing is left, and a retry succeeds', async () => {
  for (let nth = 1; ; nth++) {
    const { kernel, publisher, ask, stack } = await scene()
    let seen = 0
    kernel.failAt(() => ++seen === nth, 'EMFILE')
    const result = await failure(ask(TARGET, '8080:80', '9000-9002:80-82/udp', '81'))
    if (seen < nth) break
    expect(result).toBeDefined()
    expect(publisher.sockets).toBe(0)
    expect(await ask(TARGET, '8080:80', '9000-9002:80-82/udp', '81')).toHaveLength(6)
    expect(publisher.sockets).toBe(10)
    await publisher.close()
    stack.close()
    expect(nth).toBeLessThan(100)
  }
})
