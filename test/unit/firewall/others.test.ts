/** Reading the rules of others, and conntrack messages: pure parts. */
import { baseChains, unconditionalDrop } from '../../../lib/firewall/foreign'
import { hookChange } from '../../../lib/firewall/hooks'
import { NoFirewall } from '../../../lib/firewall/none'
import { openFirewall } from '../../../lib/firewall/select'
import { CnmError } from '../../../lib/base/errors'
import type { Stack } from '../../../lib/kernel/kernel'
import {
  decodeConntrack,
  encodeConntrackDelete,
  encodeConntrackDump,
  flushConntrack,
  matchesConntrack,
} from '../../../lib/kernel/netlink/conntrack'
import { Writer } from '../../../lib/kernel/netlink/message'
import { mapping, network } from './objects'

describe('rules of others', () => {
  test('base chains at the hooks for what is forwarded and what comes in, and their policies', () => {
    const listing = [
      'table ip filter {',
      '\tchain INPUT {',
      '\t\ttype filter hook input priority filter; policy drop;',
      '\t}',
      '\tchain FORWARD {',
      '\t\ttype filter hook forward priority filter; policy drop;',
      '\t}',
      '}',
      'table bridge b {',
      '\tchain f {',
      '\t\ttype filter hook forward priority 0; policy drop;',
      '\t}',
      '}',
      'table inet firewalld {',
      '\tchain filter_FORWARD {',
      '\t\ttype filter hook forward priority filter + 10; policy accept;',
      '\t}',
      '\tchain plain {',
      '\t}',
      '}',
    ].join('\n')
    expect(baseChains(listing)).toEqual([
      { family: 'ip', table: 'filter', chain: 'INPUT', hook: 'input', policy: 'drop' },
      { family: 'ip', table: 'filter', chain: 'FORWARD', hook: 'forward', policy: 'drop' },
      { family: 'inet', table: 'firewalld', chain: 'filter_FORWARD', hook: 'forward', policy: 'accept' },
    ])
  })

  test.each([
    ['\t\tdrop', 'drop'],
    ['\t\tcounter packets 5 bytes 300 drop comment "all"', 'counter packets 5 bytes 300 drop comment "all"'],
    [
      '\t\tlog prefix "FINAL_REJECT: " reject with icmpx admin-prohibited',
      'log prefix "FINAL_REJECT: " reject with icmpx admin-prohibited',
    ],
    ['\t\treject with icmpx admin-prohibited', 'reject with icmpx admin-prohibited'],
    ['\t\tip saddr 1.2.3.4 drop', undefined],
    ['\t\tct state invalid drop', undefined],
    ['\t\tjump drop', undefined],
    ['\t\ttype filter hook forward priority filter; policy drop;', undefined],
  ])('%j: unconditional is %j', (line, found) => {
    expect(unconditionalDrop(line)).toBe(found)
  })

  test('what is put into the chain that Docker leaves to others, and only that is taken out again', () => {
    const save = (user: string[], forward: string[]) =>
      [
        '*filter',
        ':FORWARD DROP [0:0]',
        ':DOCKER-USER - [0:0]',
        ...forward.map(rule => `-A FORWARD ${rule}`),
        ...user.map(rule => `-A DOCKER-USER ${rule}`),
        'COMMIT',
      ].join('\n')
    expect(hookChange('libcnm', { links: ['br1'] }, '*filter\n:FORWARD DROP [0:0]\nCOMMIT')).toBeUndefined()
    expect(hookChange('libcnm', { links: ['br1'] }, save(['-j RETURN'], []))).toBe(
      '*filter\n-I DOCKER-USER -o br1 -m comment --comment libcnm -j ACCEPT\n-A FORWARD -i br1 -m comment --comment libcnm -j ACCEPT\nCOMMIT\n',
    )
    const there = save(
      ['-o br1 -m comment --comment libcnm -j ACCEPT', '-j RETURN'],
      ['-i br1 -m comment --comment libcnm -j ACCEPT'],
    )
    expect(hookChange('libcnm', { links: ['br1'] }, there)).toBe('')
    expect(hookChange('libcnm', { links: [] }, there)?.match(/^-.*$/gm)).toEqual([
      '-D DOCKER-USER -o br1 -m comment --comment libcnm -j ACCEPT',
      '-D FORWARD -i br1 -m comment --comment libcnm -j ACCEPT',
    ])
    expect(hookChange('other', { links: [] }, there)).toBe('')
    // of an earlier run, whose networks are not all known again
    expect(hookChange('libcnm', { links: [], partial: true }, there)).toBe('')
    expect(hookChange('libcnm', { links: ['br2'], partial: true }, there)?.match(/^-.*$/gm)).toEqual([
      '-I DOCKER-USER -o br2 -m comment --comment libcnm -j ACCEPT',
      '-A FORWARD -i br2 -m comment --comment libcnm -j ACCEPT',
    ])
    // twice: one is enough
    const twice = there.replace(/^-A DOCKER-USER -o .*$/m, '$&\n$&')
    expect(hookChange('libcnm', { links: ['br1'] }, twice)?.match(/^-.*$/gm)).toEqual([
      '-D DOCKER-USER -o br1 -m comment --comment libcnm -j ACCEPT',
    ])
  })
})

describe('the choice of the backend', () => {
  /** A stack that cannot do anything but answer nft as told. */
  const stack = (nft: () => string) => ({ nft }) as unknown as Stack
  const unavailable = () => {
    throw new CnmError(
      'ERR_FIREWALL_UNAVAILABLE',
      'libnftables.so.1 does not load; "apt-get install libnftables1" installs it',
    )
  }
  const path = process.env.PATH
  afterEach(() => {
    process.env.PATH = path
  })

  test('nftables where it can be used', () => {
    expect(openFirewall({ backend: 'auto', stack: stack(() => '') }).backend).toBe('nftables')
  })

  test('without it and without iptables: what to install', () => {
    process.env.PATH = '/nonexistent'
    expect(() => openFirewall({ backend: 'auto', stack: stack(unavailable) })).toThrow(
      /libnftables1.*apt-get install iptables/s,
    )
    expect(() => openFirewall({ backend: 'iptables', stack: stack(unavailable) })).toThrow(
      expect.objectContaining({ code: 'ERR_FIREWALL_UNAVAILABLE' }),
    )
    expect(() => openFirewall({ backend: 'nftables', stack: stack(unavailable) })).toThrow(/libnftables1/)
  })

  test('a kernel without nf_tables, and a lack of permission, are told apart', () => {
    const refusing = (code: 'ERR_FIREWALL' | 'ERR_PRIVILEGE') =>
      stack(() => {
        throw new CnmError(code, 'Operation not supported')
      })
    expect(() => openFirewall({ backend: 'nftables', stack: refusing('ERR_FIREWALL') })).toThrow(
      /module nf_tables/,
    )
    expect(() => openFirewall({ backend: 'nftables', stack: refusing('ERR_PRIVILEGE') })).toThrow(
      expect.objectContaining({ code: 'ERR_PRIVILEGE' }),
    )
  })

  test('none keeps the state and touches nothing', async () => {
    const firewall = openFirewall({ backend: 'none', stack: stack(unavailable) })
    expect(firewall).toBeInstanceOf(NoFirewall)
    await firewall.start()
    await firewall.apply({ addNetworks: [network()], addMappings: [mapping()] })
    expect(firewall.state()).toMatchObject({ addNetworks: [network()], addMappings: [mapping()] })
    await firewall.reset({})
    expect(firewall.state().addNetworks).toEqual([])
    expect(await firewall.check()).toEqual([])
    expect(await firewall.repair()).toBe(false)
    await firewall.stop()
  })
})

describe('conntrack messages', () => {
  /** nlmsghdr and nfgenmsg of a dumped entry, 192.0.2.1:1000 -> 192.0.2.9:8080, answered by 10.1.0.2:80. */
  function entry(protocol = 17): Buffer {
    const attr = (type: number, body: Buffer) => {
      const head = Buffer.alloc(4)
      head.writeUInt16LE(4 + body.length, 0)
      head.writeUInt16LE(type, 2)
      return Buffer.concat([head, body, Buffer.alloc((4 - (body.length % 4)) % 4)])
    }
    const nested = (type: number, ...parts: Buffer[]) => attr(type | 0x8000, Buffer.concat(parts))
    const port = (value: number) => Buffer.from([value >> 8, value & 255])
    const tuple = (type: number, from: number[], to: number[], source: number, destination: number) =>
      nested(
        type,
        nested(1, attr(1, Buffer.from(from)), attr(2, Buffer.from(to))),
        nested(2, attr(1, Buffer.from([protocol])), attr(2, port(source)), attr(3, port(destination))),
      )
    const body = Buffer.concat([
      Buffer.from([2, 0, 0, 0]),
      tuple(1, [192, 0, 2, 1], [192, 0, 2, 9], 1000, 8080),
      tuple(2, [10, 1, 0, 2], [192, 0, 2, 1], 80, 1000),
      attr(12, Buffer.from([1, 2, 3, 4])),
    ])
    const head = Buffer.alloc(16)
    head.writeUInt32LE(16 + body.length, 0)
    head.writeUInt16LE(1 << 8, 4)
    return Buffer.concat([head, body])
  }

  const filter = { family: 4, protocol: 'udp', destination: '192.0.2.9', destinationPort: 8080 } as const

  test('an entry is read and matched by each of its fields', () => {
    const [read] = decodeConntrack(entry())
    if (!read) throw new Error('nothing was read')
    for (const fitting of [
      filter,
      { family: 4, source: '192.0.2.1' },
      { family: 4, replySource: '10.1.0.2' },
    ] as const)
      expect(matchesConntrack(read, fitting)).toBe(true)
    for (const other of [
      { ...filter, protocol: 'tcp' },
      { ...filter, destinationPort: 80 },
      { ...filter, source: '192.0.2.2' },
      { family: 4, replySource: '192.0.2.9' },
      { family: 6, source: '::1' },
      { family: 4 },
    ] as const)
      expect(matchesConntrack(read, other)).toBe(false)
  })

  test('what is malformed is no entry and no exception', () => {
    const whole = entry()
    for (let length = 0; length < whole.length; length++)
      expect(() => decodeConntrack(whole.subarray(0, length))).not.toThrow()
  })

  test('a deletion names the tuple and the id of the entry', () => {
    const [read] = decodeConntrack(entry())
    if (!read) throw new Error('nothing was read')
    const writer = new Writer()
    encodeConntrackDelete(writer, read)
    const message = writer.take()
    expect(message.readUInt16LE(4)).toBe((1 << 8) | 2)
    expect(message.includes(Buffer.from(read.original))).toBe(true)
    expect(message.includes(Buffer.from([1, 2, 3, 4]))).toBe(true)
  })

  test('the kernel is asked for matching entries only; what has ended by itself is not counted', async () => {
    const sent: { type: number; count: number }[] = []
    const answers = [
      { data: new Uint8Array(Buffer.concat([entry(), entry(), entry(6)])), errors: [0] },
      { data: new Uint8Array(0), errors: [2] },
    ]
    const deleted = await flushConntrack(
      async (messages, count) => {
        sent.push({ type: Buffer.from(messages).readUInt16LE(4) & 255, count })
        return answers.shift() ?? { data: new Uint8Array(0), errors: [] }
      },
      [filter, { family: 6, source: '192.0.2.1' }],
    )
    expect(deleted).toBe(0)
    expect(sent).toEqual([
      { type: 1, count: 1 },
      { type: 2, count: 1 },
    ])
    const writer = new Writer()
    encodeConntrackDump(writer, 4)
    const plain = writer.take().length
    encodeConntrackDump(writer, 4, filter)
    expect(writer.take().length).toBeGreaterThan(plain)
    expect(
      await flushConntrack(async () => {
        throw new Error('nobody is asked')
      }, []),
    ).toBe(0)
  })
})
