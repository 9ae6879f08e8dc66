import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { invert, type FirewallChange } from '../../../lib/firewall/contract'
import { Model } from '../../../lib/firewall/model'
import { fixedItems } from '../../../lib/firewall/iptables/chains'
import { iptablesRenderer } from '../../../lib/firewall/iptables/items'
import { compareSaved, parseSave } from '../../../lib/firewall/iptables/saved'
import { renderIptablesDelta, renderIptablesReset } from '../../../lib/firewall/iptables/text'
import { outermost } from '../../../lib/firewall/mapping'
import { nftRenderer } from '../../../lib/firewall/nftables/items'
import { expectedListing, parseListing } from '../../../lib/firewall/nftables/listing'
import { element, renderDelta, renderTable } from '../../../lib/firewall/nftables/text'
import { EXAMPLE, EXAMPLE_LISTING } from './example'
import { endpoint, mapping, network } from './objects'

function modelOf(change: FirewallChange): Model {
  const model = new Model(nftRenderer)
  model.plan(change).commit()
  return model
}

describe('nftables', () => {
  const model = modelOf({ addNetworks: [network()], addEndpoints: [endpoint()] })
  const text = (change: FirewallChange) => renderDelta('libcnm', model.plan(change))

  test('publishing one port', () => {
    expect(text({ addMappings: [mapping()] })).toBe(
      [
        'add element inet libcnm open4 { 10.1.0.2 . 6 . 80 }',
        'add element inet libcnm ports4 { 6 . 8080 : 10.1.0.2 . 80 }',
      ].join('\n'),
    )
  })

  test('a small range is written out, a large one is an interval, one that shifts is always written out', () => {
    const range = (size: number, over = {}) =>
      text({
        addMappings: [
          mapping({
            hostPort: 9000,
            hostPortEnd: 8999 + size,
            containerPort: 9000,
            protocol: 'udp',
            ...over,
          }),
        ],
      })
    expect(range(2)).toContain('ports4 { 17 . 9000 : 10.1.0.2 . 9000, 17 . 9001 : 10.1.0.2 . 9001 }')
    expect(range(1000)).toContain('add element inet libcnm ranges4 { 17 . 9000-9999 : 10.1.0.2 }')
    expect(range(1000)).toContain('add element inet libcnm open-ranges4 { 10.1.0.2 . 17 . 9000-9999 }')
    expect(range(1000, { containerPort: 80 })).toContain('17 . 9999 : 10.1.0.2 . 1079')
    expect(range(1000, { hostIp: '127.0.0.1' })).toContain(
      'ranges4-at { 127.0.0.1 . 17 . 9000-9999 : 10.1.0.2 }',
    )
  })

  test('one address of the host, SCTP, sources', () => {
    const change = {
      addMappings: [
        mapping({
          hostIp: '2001:DB8::1',
          containerIp: 'fd00:1:0::2',
          protocol: 'sctp',
          allowFrom: ['fd00::/8', 'fd12::/32', '2001:db8::5/128'],
        }),
      ],
    }
    expect(text(change)).toBe(
      [
        'add element inet libcnm open6 { fd00:1::2 . 132 . 80 }',
        'add element inet libcnm limited6-at { 2001:db8::1 . 132 . 8080 }',
        'add element inet libcnm allowed6-at { 2001:db8::1 . 132 . 8080 . fd00::/8, 2001:db8::1 . 132 . 8080 . 2001:db8::5 }',
        'add element inet libcnm ports6-at { 2001:db8::1 . 132 . 8080 : fd00:1::2 . 80 }',
      ].join('\n'),
    )
  })

  test('a routed family opens the port at the container and takes none of the host', () => {
    const routed = network({
      families: [{ family: 4, subnets: ['10.1.0.0/16'], mode: 'routed', masquerade: true }],
    })
    const plan = modelOf({ addNetworks: [routed] }).plan({
      addMappings: [mapping({ hostPort: 0, hostPortEnd: 0 })],
    })
    expect(renderDelta('libcnm', plan)).toBe('add element inet libcnm open4 { 10.1.0.2 . 6 . 80 }')
  })

  test('deletions come first and name keys only; nothing to do is no text', () => {
    const other = modelOf({ addNetworks: [network()], addMappings: [mapping()] })
    const change = { removeMappings: [mapping()], addMappings: [mapping({ containerIp: '10.1.0.9' })] }
    const lines = renderDelta('libcnm', other.plan(change)).split('\n')
    expect(lines.slice(0, 2).every(line => line.startsWith('delete element'))).toBe(true)
    expect(lines).toContain('delete element inet libcnm ports4 { 6 . 8080 }')
    expect(renderDelta('libcnm', other.plan(invert({})))).toBe('')
  })

  test('no map and no chain is added for a thousand networks', () => {
    const frame = (count: number) =>
      parseListing(
        renderTable(
          'libcnm',
          modelOf({
            addNetworks: Array.from({ length: count }, (_, i) =>
              network({ id: `n${i}`, link: `br${i}`, families: [] }),
            ),
          }).items(),
        ),
      ).frame
    expect(frame(1000)).toBe(frame(0))
  })

  test('the example reads as in the listing', () => {
    expect(parseListing(EXAMPLE_LISTING)).toEqual(expectedListing('libcnm', modelOf(EXAMPLE).items()))
  })

  test('ARCHITECTURE.md shows no other listing than that', () => {
    const page = readFileSync(join(__dirname, '../../../ARCHITECTURE.md'), 'utf8')
    for (const [, shown] of page.matchAll(/```nft\n(table inet libcnm [\s\S]*?)```/g))
      expect(shown).toBe(EXAMPLE_LISTING)
  })

  test('a listing is read whatever the host calls its protocols', () => {
    expect(
      parseListing(
        'set open4 {\n\telements = { 10.1.0.2 . tcp . 80,\n\t\t     10.1.0.2 . 17 . 53 }\n}',
      ).elements.get('open4'),
    ).toEqual(new Set(['10.1.0.2 . 6 . 80', '10.1.0.2 . 17 . 53']))
  })

  test('of nested subnets the outermost stay', () => {
    expect(
      outermost(['10.0.0.0/8', '10.1.0.0/16', '10.0.0.0/8', '192.0.2.1/32', '::/0', 'fd00::1/128']),
    ).toEqual(['10.0.0.0/8', '192.0.2.1', '::/0'])
  })

  test.each<[string, FirewallChange, string]>([
    [
      'a link that would be two commands',
      { addNetworks: [network({ link: 'a"; flush' })] },
      'ERR_INVALID_NAME',
    ],
    ['a link that is a pattern', { addNetworks: [network({ link: 'br*' })] }, 'ERR_INVALID_NAME'],
    [
      'a trusted link over two lines',
      { addNetworks: [network({ trustedLinks: ['a\nb'] })] },
      'ERR_INVALID_NAME',
    ],
    ['an address that goes on', { addMappings: [mapping({ containerIp: '10.1.0.2 }' })] }, 'ERR_INTERNAL'],
    ['port 0', { addMappings: [mapping({ hostPort: 0, hostPortEnd: 0 })] }, 'ERR_INTERNAL'],
    ['port 65536', { addMappings: [mapping({ containerPort: 65_536 })] }, 'ERR_INTERNAL'],
    [
      'a range that runs backwards',
      { addMappings: [mapping({ hostPort: 10, hostPortEnd: 9 })] },
      'ERR_INTERNAL',
    ],
    [
      'a protocol that has no ports',
      { addMappings: [mapping({ protocol: 'icmp' as 'tcp' })] },
      'ERR_INTERNAL',
    ],
    ['a source that is none', { addMappings: [mapping({ allowFrom: ['10.0.0.0/33'] })] }, 'ERR_INTERNAL'],
    ['a source of the other family', { addMappings: [mapping({ allowFrom: ['::/0'] })] }, 'ERR_INTERNAL'],
    [
      'a family that the network has not',
      { addNetworks: [network({ families: [] })], addMappings: [mapping()] },
      'ERR_INVALID_PORT',
    ],
    [
      'an internal network',
      { addNetworks: [network({ internal: true })], addMappings: [mapping()] },
      'ERR_INVALID_PORT',
    ],
  ])('%s is refused by both renderers', (_, change, code) => {
    for (const renderer of [nftRenderer, iptablesRenderer('DOCKER')]) {
      const refusing = new Model(renderer)
      refusing.plan({ addNetworks: [network()] }).commit()
      expect(() => refusing.plan(change)).toThrow(expect.objectContaining({ code }))
    }
  })

  test.each(['', 'a b', 'x;', '-x', 'ä', 'x'.repeat(40)])('no table is called %j', name => {
    expect(() => renderTable(name, new Map())).toThrow(expect.objectContaining({ code: 'ERR_INVALID_NAME' }))
  })
})

describe('iptables', () => {
  /** The rules of IPv4, by chain, as a change from nothing would append and insert them. */
  function rules(change: FirewallChange, family: 4 | 6 = 4): string[] {
    const model = new Model(iptablesRenderer('DOCKER'))
    return renderIptablesDelta(model.plan(change), family).trimEnd().split('\n')
  }
  const v4 = (over: object = {}) =>
    network({
      link: 'docker0',
      families: [{ family: 4, subnets: ['172.17.0.0/16'], mode: 'nat', masquerade: true, ...over }],
    })

  test('a network and a port, in the words of the article', () => {
    const published = mapping({
      hostPort: 10_086,
      hostPortEnd: 10_086,
      containerIp: '172.17.0.3',
      containerPort: 22,
    })
    expect(
      rules({
        addNetworks: [v4()],
        addEndpoints: [endpoint({ addresses: ['172.17.0.3'] })],
        addMappings: [published],
      }),
    ).toEqual([
      '*raw',
      '-A PREROUTING -d 127.0.0.0/8 -i docker0 -j DROP',
      '-A PREROUTING -d 172.17.0.3/32 ! -i docker0 -j DROP',
      'COMMIT',
      '*nat',
      '-A POSTROUTING -s 127.0.0.0/8 -o docker0 -j MASQUERADE',
      '-I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE',
      '-A POSTROUTING -s 172.17.0.0/16 -o docker0 -m conntrack --ctstate DNAT -j MASQUERADE',
      '-A DOCKER -p tcp -m tcp --dport 10086 -j DNAT --to-destination 172.17.0.3:22',
      'COMMIT',
      '*filter',
      '-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      '-A DOCKER-BRIDGE -o docker0 -j DOCKER',
      '-A DOCKER ! -i docker0 -o docker0 -j DROP',
      '-I DOCKER -d 172.17.0.3/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 22 -j ACCEPT',
      '-A DOCKER-FORWARD -i docker0 -j ACCEPT',
      'COMMIT',
    ])
  })

  test('the jumps that are always there stand in the order of Docker', () => {
    const filter = fixedItems('DOCKER').filter(item => item.set.startsWith('4 filter'))
    expect(filter.map(item => `-${item.value} ${item.set.slice(9)} ${item.key}`)).toEqual([
      '-I FORWARD -j DOCKER-FORWARD',
      '-I FORWARD -j DOCKER-USER',
      '-A DOCKER-FORWARD -j DOCKER-CT',
      '-A DOCKER-FORWARD -j DOCKER-INTERNAL',
      '-A DOCKER-FORWARD -j DOCKER-BRIDGE',
    ])
  })

  test.each<[string, FirewallChange, string[]]>([
    [
      'no icc',
      { addNetworks: [{ ...v4(), icc: false }] },
      [
        '-A DOCKER-FORWARD -i docker0 -o docker0 -j DROP',
        '-A DOCKER-FORWARD -i docker0 ! -o docker0 -j ACCEPT',
      ],
    ],
    [
      'internal',
      { addNetworks: [{ ...v4(), internal: true }] },
      [
        '-I DOCKER-INTERNAL ! -d 172.17.0.0/16 -i docker0 -j DROP',
        '-I DOCKER-INTERNAL ! -s 172.17.0.0/16 -o docker0 -j DROP',
        '-A DOCKER-FORWARD -i docker0 -o docker0 -j ACCEPT',
      ],
    ],
    [
      'routed',
      { addNetworks: [v4({ mode: 'routed' })] },
      ['-I DOCKER -o docker0 -p icmp -j ACCEPT', '-A DOCKER ! -i docker0 -o docker0 -j DROP'],
    ],
    [
      'unprotected',
      { addNetworks: [v4({ mode: 'nat-unprotected' })] },
      ['-A DOCKER ! -i docker0 -o docker0 -j ACCEPT'],
    ],
    [
      'a fixed source',
      { addNetworks: [v4({ masquerade: '192.0.2.7' })] },
      ['-I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j SNAT --to-source 192.0.2.7'],
    ],
    [
      'a range that shifts',
      {
        addNetworks: [v4()],
        addMappings: [mapping({ hostPort: 8000, hostPortEnd: 8010, containerPort: 9000 })],
      },
      ['-A DOCKER -p tcp -m tcp --dport 8000:8010 -j DNAT --to-destination 10.1.0.2:9000-9010/8000'],
    ],
    [
      'a range that does not',
      {
        addNetworks: [v4()],
        addMappings: [mapping({ hostPort: 8000, hostPortEnd: 8010, containerPort: 8000 })],
      },
      ['-A DOCKER -p tcp -m tcp --dport 8000:8010 -j DNAT --to-destination 10.1.0.2'],
    ],
  ])('%s', (_, change, wanted) => {
    expect(rules(change)).toEqual(expect.arrayContaining(wanted))
  })

  test('IPv6 has brackets, and nothing for link-local sources', () => {
    const lines = rules(
      { addNetworks: [network()], addMappings: [mapping({ hostIp: '::', containerIp: 'fd00:1::2' })] },
      6,
    )
    expect(lines).toContain(
      '-A DOCKER ! -s fe80::/10 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:1::2]:80',
    )
  })

  test('a reset replaces what an earlier run left, and nothing of others', () => {
    const saved = parseSave(
      [
        '*nat',
        ':PREROUTING ACCEPT [0:0]',
        ':POSTROUTING ACCEPT [0:0]',
        ':DOCKER - [0:0]',
        '-A PREROUTING ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER',
        '-A POSTROUTING -s 10.9.0.0/24 ! -o br-old -j MASQUERADE',
        '-A POSTROUTING -s 10.8.0.0/24 ! -o virbr0 -j MASQUERADE',
        'COMMIT',
        '*filter',
        ':FORWARD DROP [0:0]',
        ':DOCKER-BRIDGE - [0:0]',
        ':DOCKER-USER - [0:0]',
        '-A FORWARD -i virbr0 -j ACCEPT',
        '-A DOCKER-BRIDGE -o br-old -j DOCKER',
        'COMMIT',
      ].join('\n'),
    )
    const items = new Model(iptablesRenderer('DOCKER')).items()
    const text = renderIptablesReset('DOCKER', items, saved, 4)
    expect(text.match(/^-D .*$/gm)).toEqual([
      '-D POSTROUTING -s 10.9.0.0/24 ! -o br-old -j MASQUERADE',
      '-D PREROUTING ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER',
    ])
    expect(text).not.toContain(':DOCKER-USER')
    expect(compareSaved('DOCKER', items, saved, 4)).toMatchObject({
      strange: ['filter DOCKER-BRIDGE: -o br-old -j DOCKER'],
      lost: expect.arrayContaining(['filter FORWARD: -j DOCKER-USER']),
    })
  })
})

test('an element with an interval of one port has no dash', () => {
  expect(element({ set: 'open-ranges4', key: '10.1.0.2 . 6', span: { from: 80, to: 80 } })).toBe(
    '10.1.0.2 . 6 . 80',
  )
})
