import { describe, expect, test } from '@jest/globals'
import { z } from 'zod'
import { parse } from '../../../lib/base/parse'
import {
  exposedPorts,
  formatPort,
  formatPublished,
  parsePort,
  parsePorts,
  portBinding,
} from '../../../lib/ports/spec'

const codeOf = (act: () => unknown) => {
  try {
    act()
  } catch (error) {
    const { code, message, details } = error as {
      code: string
      message: string
      details: { field: string; value: unknown }
    }
    return { code, message, ...details }
  }
  return undefined
}

describe('textual forms', () => {
  test.each([
    ['80', { containerPort: 80, protocol: 'tcp' }, '80/tcp'],
    [':80', { containerPort: 80, protocol: 'tcp' }, '80/tcp'],
    ['80/udp', { containerPort: 80, protocol: 'udp' }, '80/udp'],
    ['80/UDP', { containerPort: 80, protocol: 'udp' }, '80/udp'],
    ['0:80', { containerPort: 80, protocol: 'tcp' }, '80/tcp'],
    ['8080:80', { containerPort: 80, protocol: 'tcp', hostPort: 8080 }, '8080:80/tcp'],
    ['8080:80/tcp', { containerPort: 80, protocol: 'tcp', hostPort: 8080 }, '8080:80/tcp'],
    ['5000:80/sctp', { containerPort: 80, protocol: 'sctp', hostPort: 5000 }, '5000:80/sctp'],
    [
      '127.0.0.1:8080:80',
      { containerPort: 80, protocol: 'tcp', hostIp: '127.0.0.1', hostPort: 8080 },
      '127.0.0.1:8080:80/tcp',
    ],
    ['127.0.0.1::80', { containerPort: 80, protocol: 'tcp', hostIp: '127.0.0.1' }, '127.0.0.1::80/tcp'],
    [
      '[::1]:8080:80',
      { containerPort: 80, protocol: 'tcp', hostIp: '::1', hostPort: 8080 },
      '[::1]:8080:80/tcp',
    ],
    [
      '[2001:DB8:0:0::1]::80',
      { containerPort: 80, protocol: 'tcp', hostIp: '2001:db8::1' },
      '[2001:db8::1]::80/tcp',
    ],
    [
      '8000-8010:8000-8010',
      { containerPort: 8000, containerPortEnd: 8010, protocol: 'tcp', hostPort: 8000, hostPortEnd: 8010 },
      '8000-8010:8000-8010/tcp',
    ],
    [
      '8000-9000:80',
      { containerPort: 80, protocol: 'tcp', hostPort: 8000, hostPortEnd: 9000 },
      '8000-9000:80/tcp',
    ],
    ['8000-8010/udp', { containerPort: 8000, containerPortEnd: 8010, protocol: 'udp' }, '8000-8010/udp'],
    ['80-80:81-81', { containerPort: 81, protocol: 'tcp', hostPort: 80 }, '80:81/tcp'],
  ])('%s', (text, binding, canonical) => {
    expect(parsePort(text)).toEqual(binding)
    expect(formatPort(parsePort(text))).toBe(canonical)
    expect(parsePort(canonical)).toEqual(binding)
  })

  test('several', () => {
    expect(parsePorts(['53:53/tcp', '53:53/udp']).map(formatPort)).toEqual(['53:53/tcp', '53:53/udp'])
  })

  test.each([
    ['', 'containerPort'],
    ['http', 'containerPort'],
    ['80/icmp', 'protocol'],
    ['80/', 'protocol'],
    ['0', 'containerPort'],
    ['65536', 'containerPort'],
    ['-1', 'containerPort'],
    ['8080:0', 'containerPort'],
    ['65536:80', 'hostPort'],
    ['99999999999:80', 'hostPort'],
    ['0-5:80', 'hostPort'],
    ['8010-8000:80', 'hostPortEnd'],
    ['8000-8010:8010-8000', 'containerPortEnd'],
    ['8000-8010:8000-8011', 'hostPortEnd'],
    ['8000:8000-8011', 'hostPortEnd'],
    ['8000-70000:80', 'hostPortEnd'],
    ['::1:8080:80', 'spec'],
    ['[::1]:80', 'spec'],
    ['[::1:80:80', 'spec'],
    ['[::1%lo]:80:80', 'hostIp'],
    ['localhost:80:80', 'hostIp'],
    ['127.1:80:80', 'hostIp'],
    ['224.0.0.1:80:80', 'hostIp'],
    ['255.255.255.255:80:80', 'hostIp'],
    ['[ff02::1]:80:80', 'hostIp'],
    ['[fe80::1]:80:80', 'hostIp'],
    ['[::ffff:1.2.3.4]:80:80', 'hostIp'],
    ['80 80', 'containerPort'],
    ['8080:80\n', 'containerPort'],
    ['80;drop', 'containerPort'],
  ])('%j is refused, naming %s', (text, field) => {
    const error = codeOf(() => parsePort(text))
    expect(error).toMatchObject({ code: 'ERR_INVALID_PORT', field })
    expect(error!.message).toContain(JSON.stringify(text))
  })

  test('exposed ports', () => {
    expect(exposedPorts(['80', '53/udp', '8000-8002/tcp'])).toEqual([
      { containerPort: 80, protocol: 'tcp' },
      { containerPort: 53, protocol: 'udp' },
      { containerPort: 8000, containerPortEnd: 8002, protocol: 'tcp' },
    ])
    expect(codeOf(() => exposedPorts(['8080:80']))).toMatchObject({
      code: 'ERR_INVALID_PORT',
      field: 'exposed',
    })
  })

  test('as docker port prints it', () => {
    const port = {
      networkId: 'n',
      endpointId: 'e',
      protocol: 'tcp' as const,
      hostIp: '::',
      hostPort: 8000,
      hostPortEnd: 8010,
      containerIp: '10.0.0.2',
      containerPort: 80,
      proxied: true,
    }
    expect(formatPublished(port)).toBe('80-90/tcp -> [::]:8000-8010')
    expect(formatPublished({ ...port, hostIp: '0.0.0.0', hostPortEnd: 8000 })).toBe('80/tcp -> 0.0.0.0:8000')
    expect(formatPublished({ ...port, hostPort: 0, hostPortEnd: 0 })).toBe('80/tcp -> 10.0.0.2')
  })
})

describe('portBinding', () => {
  const list = z.strictObject({ ports: z.array(portBinding) })
  const read = (...ports: unknown[]) => parse(list, { ports }).ports

  test('takes objects and text', () => {
    expect(
      read('8080:80', { containerPort: 53, protocol: 'udp', hostPort: 53 }, { containerPort: 80 }),
    ).toEqual([
      { containerPort: 80, protocol: 'tcp', hostPort: 8080 },
      { containerPort: 53, protocol: 'udp', hostPort: 53 },
      { containerPort: 80, protocol: 'tcp' },
    ])
  })

  test('sources become prefixes', () => {
    expect(
      read({
        containerPort: 80,
        allowFrom: ['192.0.2.7', '10.0.0.0/8', '10.0.0.0/8', '2001:DB8::/32', '::1'],
      })[0]!.allowFrom,
    ).toEqual(['192.0.2.7/32', '10.0.0.0/8', '2001:db8::/32', '::1/128'])
  })

  test.each([
    [{ containerPort: 80, allowFrom: ['10.0.0.1/8'] }, 'allowFrom', '10.0.0.0/8'],
    [{ containerPort: 80, allowFrom: ['all'] }, 'allowFrom', 'ADDRESS/LENGTH'],
    [{ containerPort: 80, allowFrom: [] }, 'allowFrom', 'nobody'],
    [{ containerPort: 80, protocol: 'udp', proxyProtocol: true }, 'proxyProtocol', 'tcp only'],
    [{ containerPort: 80, protocol: 'tcp"; drop' }, 'protocol', 'tcp, udp, sctp'],
    [{ containerPort: 1.5 }, 'containerPort', '1-65535'],
    [{ containerPort: 80, hostPortEnd: 90 }, 'hostPort', 'hostPortEnd is given'],
  ])('%j names %s', (binding, field, advice) => {
    const error = codeOf(() => read(binding))
    expect(error).toMatchObject({ code: 'ERR_INVALID_PORT', field })
    expect(error!.message).toContain(advice)
  })

  test('a wrong shape is an invalid option with a hint', () => {
    const error = codeOf(() => read({ containerPort: 80, hostport: 8080 }))
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(error!.message).toContain('did you mean hostPort?')
    expect(codeOf(() => read({}))!.message).toContain('options.ports.0.containerPort')
    expect(codeOf(() => read(80))!.message).toContain('options.ports.0')
  })
})
