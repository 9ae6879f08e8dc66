import { describe, expect, test } from '@jest/globals'
import type { PublishTarget } from '../../../lib/ports/contract'
import { planBindings } from '../../../lib/ports/plan'
import { parsePort } from '../../../lib/ports/spec'

const DUAL: PublishTarget = {
  networkId: 'n',
  endpointId: 'e',
  ipv4: '10.0.0.2',
  ipv6: 'fd00::2',
  modes: { 4: 'nat', 6: 'nat' },
}
const V4: PublishTarget = { ...DUAL, ipv6: undefined, modes: { 4: 'nat' } }
const V6: PublishTarget = { ...DUAL, ipv4: undefined, modes: { 6: 'nat' } }

interface Setting {
  backend?: 'nftables' | 'none'
  userlandProxy?: boolean | 'always'
  ipv6?: boolean
}

/** Each plan in a line: `host -> container [proxied]`. */
function plan(target: PublishTarget, bindings: (string | object)[], setting: Setting = {}) {
  const omitted: string[] = []
  const plans = planBindings(
    target,
    bindings.map(each =>
      typeof each === 'string' ? parsePort(each) : { protocol: 'tcp' as const, containerPort: 80, ...each },
    ),
    {
      backend: setting.backend ?? 'nftables',
      userlandProxy: setting.userlandProxy ?? true,
      hostHasIpv6: () => setting.ipv6 ?? true,
      omitted: message => omitted.push(message),
    },
  )
  return {
    omitted,
    plans,
    lines: plans.map(p =>
      p.wants
        .map(w => `${w.hostIp} -> ${w.containerIp}${w.proxied ? ' proxied' : ''}${p.routed ? ' routed' : ''}`)
        .join(', '),
    ),
  }
}

describe('planBindings', () => {
  test('one binding per family, together', () => {
    expect(plan(DUAL, ['8080:80']).lines).toEqual(['0.0.0.0 -> 10.0.0.2, :: -> fd00::2'])
  })

  test('a host address restricts to its family', () => {
    expect(plan(DUAL, ['127.0.0.1:8080:80']).lines).toEqual(['127.0.0.1 -> 10.0.0.2'])
    expect(plan(DUAL, ['[::]:8080:80']).lines).toEqual([':: -> fd00::2'])
    expect(plan({ ...DUAL, defaultHostIp: '192.0.2.1' }, ['8080:80']).lines).toEqual([
      '192.0.2.1 -> 10.0.0.2',
    ])
    expect(plan({ ...DUAL, defaultHostIp: '192.0.2.1' }, ['0.0.0.0:8080:80']).lines).toEqual([
      '0.0.0.0 -> 10.0.0.2',
    ])
  })

  test('IPv6 of the host reaches an IPv4 container by the proxy', () => {
    expect(plan(V4, ['80']).lines).toEqual(['0.0.0.0 -> 10.0.0.2, :: -> 10.0.0.2 proxied'])
    expect(plan(V4, ['[::1]:80:80']).lines).toEqual(['::1 -> 10.0.0.2 proxied'])
    expect(plan(V4, ['80'], { ipv6: false }).lines).toEqual(['0.0.0.0 -> 10.0.0.2'])
    const without = plan(V4, ['80'], { userlandProxy: false })
    expect(without.lines).toEqual(['0.0.0.0 -> 10.0.0.2'])
    expect(without.omitted[0]).toContain('userlandProxy is off')
  })

  test('an IPv6-only container shows in IPv4 only where an address was named', () => {
    expect(plan(V6, ['80']).lines).toEqual([':: -> fd00::2'])
    expect(plan(V6, ['127.0.0.1:80:80']).lines).toEqual(['127.0.0.1 -> fd00::2 proxied'])
  })

  test('who is proxied', () => {
    expect(plan(DUAL, ['[::1]:80:80']).lines).toEqual(['::1 -> fd00::2 proxied'])
    expect(plan(DUAL, ['80'], { backend: 'none' }).lines).toEqual([
      '0.0.0.0 -> 10.0.0.2 proxied, :: -> fd00::2 proxied',
    ])
    expect(plan(DUAL, ['127.0.0.1::80'], { userlandProxy: 'always' }).lines).toEqual([
      '127.0.0.1 -> 10.0.0.2 proxied',
    ])
    expect(plan(V4, [{ hostIp: '0.0.0.0', proxyProtocol: true }]).lines).toEqual([
      '0.0.0.0 -> 10.0.0.2 proxied',
    ])
  })

  test.each([
    ['no proxy for ::1', DUAL, '[::1]:80:80', { userlandProxy: false }, '::1'],
    [
      'nobody to carry it',
      DUAL,
      '80',
      { backend: 'none' as const, userlandProxy: false },
      'no firewall backend',
    ],
    ['sctp by proxy', V4, '[::1]:80:80/sctp', {}, 'tcp and udp only'],
    ['isolated', { ...V4, modes: { 4: 'isolated' as const } }, '80', {}, 'isolated'],
    ['no address', { ...V4, ipv4: undefined }, '80', {}, 'has no IPv4 address'],
    ['sources of the other family', V4, { hostIp: '0.0.0.0', allowFrom: ['fd00::/8'] }, {}, 'no IPv4 source'],
  ])('refused: %s', (_name, target, binding, setting, reason) => {
    expect(() => plan(target, [binding], setting)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_PORT', message: expect.stringContaining(reason) }),
    )
  })

  test('sources go to their family; a family without any is left out', () => {
    const [first] = plan(DUAL, [{ allowFrom: ['10.0.0.0/8', 'fd00::/8'] }]).plans
    expect(first!.wants.map(w => w.allowFrom)).toEqual([['10.0.0.0/8'], ['fd00::/8']])
    expect(plan(DUAL, [{ allowFrom: ['10.0.0.0/8'] }]).lines).toEqual(['0.0.0.0 -> 10.0.0.2'])
  })

  test('routed families take no host port', () => {
    const target: PublishTarget = { ...DUAL, modes: { 4: 'nat', 6: 'routed' } }
    const result = plan(target, ['8080:80'])
    expect(result.lines).toEqual([':: -> fd00::2 routed', '0.0.0.0 -> 10.0.0.2'])
    expect(result.plans[0]!.range).toBeUndefined()
    expect(result.omitted[0]).toContain('ignored')
  })

  test('sorted: exact, then from a range, then any; container port, protocol, host port', () => {
    const sorted = plan(
      V4,
      ['90', '8000-8005:80', '53:53/udp', '53:53/tcp', '81:80', '80:80', '20-21:20-21'],
      { ipv6: false },
    )
    expect(
      sorted.plans.map(p => `${p.containerPort}/${p.protocol} ${p.range?.first ?? 'any'} ${p.exact}`),
    ).toEqual([
      '20/tcp 20 true',
      '53/tcp 53 true',
      '53/udp 53 true',
      '80/tcp 80 true',
      '80/tcp 81 true',
      '80/tcp 8000 false',
      '90/tcp any false',
    ])
  })

  test('bindings that differ in the address only share the port that is chosen', () => {
    expect(plan(V4, ['127.0.0.1::80', '192.0.2.1::80', '[::1]::80', '127.0.0.1::81']).lines).toEqual([
      '127.0.0.1 -> 10.0.0.2, 192.0.2.1 -> 10.0.0.2, ::1 -> 10.0.0.2 proxied',
      '127.0.0.1 -> 10.0.0.2',
    ])
    // one of which contains the other cannot
    expect(plan(V4, ['127.0.0.1::80', '0.0.0.0::80']).lines).toHaveLength(2)
  })
})
