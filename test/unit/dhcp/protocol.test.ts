/** DHCP as bytes, against the examples and rules of its RFCs, and against what should not be. */
import fc from 'fast-check'
import { decodeFrame, encodeDhcp, encodeProbe, EVERYBODY } from '../../../drivers/ipam/dhcp/frames'
import { decodeReply, encodeQuestion } from '../../../drivers/ipam/dhcp/protocol'
import { ACK, encodeReply, four, NAK, OFFER, readQuestion, type ServerWords } from '../../support/dhcp-reply'

const MAC = '02:42:ac:11:00:02'
const GOOD: ServerWords = {
  type: OFFER,
  xid: 0x12345678,
  mac: MAC,
  address: '192.0.2.7',
  server: '192.0.2.1',
  seconds: 3600,
}
const settings = (...options: NonNullable<ServerWords['options']>) =>
  decodeReply(encodeReply({ ...GOOD, options }))?.settings
const text = (words: string) => Buffer.from(words, 'latin1')

describe('what a client says', () => {
  test('DISCOVER: the fixed part, the cookie, the options (RFC 2131, figure 1; RFC 2132)', () => {
    const bytes = encodeQuestion({
      type: 'discover',
      xid: 0xdeadbeef,
      mac: MAC,
      seconds: 3,
      requested: '192.0.2.9',
      hostname: 'web',
    })
    expect(bytes.toString('hex', 0, 34)).toBe(
      `01010600deadbeef0003800000000000000000000000000000000000${MAC.replaceAll(':', '')}`,
    )
    expect(bytes.toString('hex', 34, 236)).toBe('00'.repeat(202))
    expect(bytes.toString('hex', 236)).toBe(
      [
        '63825363',
        '350101', // 53: DISCOVER
        `3d0701${MAC.replaceAll(':', '')}`, // 61: hardware type and address
        '3204c0000209', // 50
        '390205c0', // 57: 1472
        '37090179030 60f1a773a3b'.replace(' ', ''), // 55: 1 121 3 6 15 26 119 58 59
        '0c03776562', // 12: web
        'ff',
      ]
        .join('')
        .padEnd(128, '0'),
    )
    expect(bytes.length).toBe(300)
  })

  test.each([
    ['selecting', { type: 'request', requested: '192.0.2.9', server: '192.0.2.1' }, 3, '0.0.0.0', true],
    ['rebooting', { type: 'request', requested: '192.0.2.9' }, 3, '0.0.0.0', true],
    ['renewing', { type: 'request', address: '192.0.2.9' }, 3, '192.0.2.9', false],
    ['releasing', { type: 'release', address: '192.0.2.9', server: '192.0.2.1' }, 7, '192.0.2.9', false],
    ['declining', { type: 'decline', requested: '192.0.2.9', server: '192.0.2.1' }, 4, '0.0.0.0', false],
  ] as const)('%s, as table 4 of RFC 2131 has it', (_, words, type, ciaddr, broadcast) => {
    const read = readQuestion(encodeQuestion({ ...words, xid: 1, mac: MAC, seconds: 0 }))
    expect(read).toMatchObject({ type, ciaddr, broadcast, mac: MAC })
    expect(read.options.get(50)?.join('.')).toBe('requested' in words ? words.requested : undefined)
    expect(read.options.get(54)?.join('.')).toBe('server' in words ? words.server : undefined)
    expect(read.options.has(55)).toBe(type === 3) // table 5: MUST NOT in DECLINE and RELEASE
  })
})

describe('what a server says', () => {
  test('an offer', () => {
    const reply = decodeReply(
      encodeReply({
        ...GOOD,
        options: [
          [1, 'ffffff00'],
          [58, four(600)],
          [59, four(900)],
          [3, 'c0000201 c0000202'],
          [6, 'c0000235 00000000 7f000001 c0000235 c0000236'],
          [26, '0578'],
          [15, text('lan.example')],
        ],
      }),
    )
    expect(reply).toEqual({
      type: 'offer',
      xid: 0x12345678,
      mac: MAC,
      address: '192.0.2.7',
      server: '192.0.2.1',
      length: 24,
      seconds: 3600,
      renewal: 600,
      rebinding: 900,
      message: undefined,
      settings: {
        gateway: '192.0.2.1',
        mtu: 1400,
        dns: { servers: ['192.0.2.53', '192.0.2.54'], search: ['lan.example'] },
      },
    })
  })

  test('a refusal has no address and no time', () => {
    const words = { ...GOOD, type: NAK, address: '0.0.0.0', seconds: undefined }
    expect(decodeReply(encodeReply({ ...words, options: [[56, text('wrong\nnetwork')]] }))).toMatchObject({
      type: 'nak',
      message: 'wrong network',
    })
  })

  test.each<[string, Partial<ServerWords>]>([
    ['no server', { server: '0.0.0.0' }],
    ['no address', { address: '0.0.0.0' }],
    ['loopback', { address: '127.0.0.1' }],
    ['multicast', { address: '224.0.0.1' }],
    ['broadcast', { address: '255.255.255.255' }],
    ['no time', { seconds: undefined }],
    ['a time of 0', { seconds: 0 }],
    ['what clients say', { type: 1 }],
  ])('%s: no reply at all', (_, wrong) => {
    expect(decodeReply(encodeReply({ ...GOOD, ...wrong }))).toBeUndefined()
  })

  test('for ever', () => {
    expect(decodeReply(encodeReply({ ...GOOD, seconds: 0xffffffff }))?.seconds).toBe(Number.POSITIVE_INFINITY)
  })

  test.each([
    ['ffffff00', 24],
    ['ffffffff', 32],
    ['ff000000', 8],
    ['00000000', undefined],
    ['ff00ff00', undefined],
    ['ffff', undefined],
  ])('mask %s: %s', (mask, length) => {
    expect(decodeReply(encodeReply({ ...GOOD, type: ACK, options: [[1, mask]] }))?.length).toBe(length)
  })

  test('options in the fields of file and server name (RFC 2132, 9.3), and long ones in parts (RFC 3396)', () => {
    const message = encodeReply({
      ...GOOD,
      options: [
        [52, '03'],
        [6, 'c000'],
      ],
    })
    message.set([6, 2, 0x02, 0x35, 255], 108) // file: the rest of option 6
    message.set([26, 2, 0x05, 0x78, 255], 44) // sname
    expect(decodeReply(message)?.settings).toEqual({
      mtu: 1400,
      dns: { servers: ['192.0.2.53'], search: [] },
    })
  })

  test('classless routes: the descriptors of RFC 3442, and they stand for the router', () => {
    expect(
      settings(
        [3, 'c0000201'],
        [
          121,
          // 0/0, 10/8, 10.0.0/24, 10.17/16, 10.27.129/24, 10.229.0.128/25, 10.198.122.47/32 (the table of RFC 3442)
          '00 0a000001 08 0a 0a000002 18 0a0000 0a000003 10 0a11 0a000004 18 0a1b81 0a000005 19 0ae50080 0a000006 20 0ac67a2f 00000000',
        ],
      ),
    ).toEqual({
      gateway: '10.0.0.1',
      routes: [
        { destination: '10.0.0.0/8', gateway: '10.0.0.2' },
        { destination: '10.0.0.0/24', gateway: '10.0.0.3' },
        { destination: '10.17.0.0/16', gateway: '10.0.0.4' },
        { destination: '10.27.129.0/24', gateway: '10.0.0.5' },
        { destination: '10.229.0.128/25', gateway: '10.0.0.6' },
        { destination: '10.198.122.47/32' },
      ],
    })
    // bits behind the width do not count; a route named twice is had once
    expect(settings([121, '14 0affff 0a000001 14 0afff0 0a000002'])).toEqual({
      routes: [{ destination: '10.255.240.0/20', gateway: '10.0.0.1' }],
    })
    expect(settings([3, 'c0000201'], [121, '21 0a0000 0a000001'])).toEqual({ gateway: '192.0.2.1' })
    expect(settings([3, 'c0000201'], [121, '18 0a00'])).toEqual({ gateway: '192.0.2.1' })
  })

  test('search list: the example of RFC 3397, compressed', () => {
    // eng.apple.com., marketing.apple.com. with a pointer to apple.com. at 4; in two parts, as there
    const list = '03 656e67 05 6170706c65 03 636f6d 00 09 6d61726b6574696e67 c004'
    const hex = list.replaceAll(' ', '')
    const parts: [number, string][] = [
      [119, hex.slice(0, 18)],
      [119, hex.slice(18)],
    ]
    expect(settings(...parts)?.dns?.search).toEqual(['eng.apple.com', 'marketing.apple.com'])
  })

  test.each([
    ['a pointer to itself', 'c000'],
    ['a pointer ahead', '0161 c005 00 00'],
    ['a loop', '0161 c000'],
    ['a label that ends nowhere', '3f 61'],
    ['no end', '0161'],
    ['another line for resolv.conf', '0b 610a6e616d65736572766572 00'],
    ['a space', '03 612062 00'],
  ])('search list with %s: none', (_, value) => {
    expect(settings([119, value])?.dns).toBeUndefined()
  })

  test('a domain that is none is not taken', () => {
    expect(settings([15, text('a b')])).toEqual({})
    expect(settings([15, text('a\nnameserver 6.6.6.6')])).toEqual({})
  })

  test('an option that runs over the end is left out, what stood before it stays', () => {
    const message = encodeReply({ ...GOOD, options: [[26, '0578']] })
    const cut = Buffer.concat([message.subarray(0, -1), Uint8Array.of(6, 200, 1, 2)])
    expect(decodeReply(cut)?.settings).toEqual({ mtu: 1400 })
  })

  test('whatever comes: no exception, and what is taken can be used', () => {
    const some = fc.tuple(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 60 }))
    fc.assert(
      fc.property(fc.array(some, { maxLength: 12 }), fc.uint8Array({ maxLength: 200 }), (options, tail) => {
        const message = Buffer.concat([encodeReply({ ...GOOD, options }).subarray(0, -1), tail])
        const reply = decodeReply(message)
        for (const name of reply?.settings.dns?.search ?? []) expect(name).toMatch(/^[\w.-]+$/)
        for (const { destination } of reply?.settings.routes ?? [])
          expect(destination).toMatch(/^[\d.]+\/\d+$/)
        expect(reply?.settings.mtu ?? 68).toBeGreaterThanOrEqual(68)
      }),
      { numRuns: 500 },
    )
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), bytes => {
        decodeReply(bytes)
        decodeFrame(bytes)
      }),
      { numRuns: 500 },
    )
  })
})

describe('frames', () => {
  const sent = encodeDhcp({ from: { mac: MAC, address: '0.0.0.0' }, to: EVERYBODY }, Buffer.from('hello'))

  test('Ethernet, IPv4 and UDP with right checksums', () => {
    expect(sent.toString('hex', 0, 14)).toBe(`ffffffffffff${MAC.replaceAll(':', '')}0800`)
    const sum = (bytes: Buffer) => {
      let total = 0
      for (let at = 0; at < bytes.length; at += 2) total += ((bytes[at] ?? 0) << 8) + (bytes[at + 1] ?? 0)
      while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
      return total
    }
    const [ip, udp] = [sent.subarray(14, 34), sent.subarray(34)]
    expect(sum(ip)).toBe(0xffff)
    expect(sum(Buffer.concat([ip.subarray(12, 20), Buffer.from([0, 17, 0, udp.length]), udp]))).toBe(0xffff)
    expect([udp.readUInt16BE(0), udp.readUInt16BE(2)]).toEqual([68, 67])
  })

  /** The same from port 67 to 68: what a client hears. */
  const heard = (change: (frame: Buffer) => void = () => {}) => {
    const frame = Buffer.from(sent)
    frame.writeUInt16BE(67, 34)
    frame.writeUInt16BE(68, 36)
    change(frame)
    return decodeFrame(frame)
  }

  test('only whole UDP from port 67 to port 68 is heard', () => {
    expect(heard()).toEqual({ what: 'dhcp', fromMac: MAC, message: Buffer.from('hello') })
    expect(decodeFrame(sent)).toBeUndefined()
    expect(heard(frame => frame.writeUInt16BE(0x86dd, 12))).toBeUndefined()
    expect(heard(frame => frame.writeUInt16BE(0x2000, 20))).toBeUndefined() // more fragments
    expect(heard(frame => frame.writeUInt16BE(99, 16))).toBeUndefined() // longer than it is
    expect(heard(frame => frame.writeUInt16BE(99, 38))).toBeUndefined()
    expect(heard(frame => frame.writeUInt8(0x44, 14))).toBeUndefined()
    expect(heard(frame => frame.writeUInt8(0x4f, 14))).toBeUndefined() // a header longer than the packet
  })

  test('ARP: a probe asks and claims nothing (RFC 5227); who says that he has an address is heard', () => {
    const probe = encodeProbe(MAC, '192.0.2.9')
    const mac = MAC.replaceAll(':', '')
    expect(probe.toString('hex')).toBe(
      `ffffffffffff${mac}08060001080006040001${mac}00000000000000000000c0000209`,
    )
    expect(decodeFrame(probe)).toBeUndefined()
    const answer = Buffer.from(probe)
    answer.set([192, 0, 2, 9], 28)
    expect(decodeFrame(answer)).toEqual({ what: 'arp', mac: MAC, address: '192.0.2.9' })
  })
})
