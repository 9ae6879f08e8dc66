/** The topology as a model, a layout, an SVG and a text. */
import fc from 'fast-check'
import type { Topology } from '../../../lib/api'
import { portTexts } from '../../../lib/api/topology'
import { layout } from '../../../lib/cli/graph/layout'
import { modelOf } from '../../../lib/cli/graph/model'
import { svgOf, xml } from '../../../lib/cli/graph/svg'
import { textOf } from '../../../lib/cli/graph/text'

const TOPOLOGY: Topology = {
  controller: 'libcnm',
  firewall: 'nftables',
  networks: [
    {
      id: '1',
      name: 'web',
      driver: 'bridge',
      internal: false,
      link: 'br-web',
      subnets: [{ subnet: '10.10.0.0/24', gateway: '10.10.0.1' }],
    },
    {
      id: '2',
      name: 'db',
      driver: 'bridge',
      internal: true,
      link: 'br-db',
      subnets: [{ subnet: '10.20.0.0/24' }],
    },
    { id: '3', name: 'idle', driver: 'bridge', internal: false, subnets: [] },
  ],
  sandboxes: [
    {
      containerId: 'c2',
      mode: 'own',
      endpoints: [
        {
          network: 'web',
          name: 'c2',
          interfaceName: 'eth0',
          hostLink: 'veth2',
          ipv4: '10.10.0.3/24',
          ipv6: 'fd00::3/64',
          mac: '',
          gateway: true,
          ports: ['8080 -> 80/tcp'],
        },
        {
          network: 'db',
          name: 'c2',
          interfaceName: 'eth1',
          hostLink: 'veth3',
          ipv4: '10.20.0.2/24',
          mac: '',
          gateway: false,
          ports: [],
        },
      ],
    },
    {
      containerId: 'c1',
      mode: 'own',
      endpoints: [
        {
          network: 'web',
          name: 'c1',
          interfaceName: 'eth0',
          hostLink: 'veth1',
          ipv4: '10.10.0.2/24',
          mac: '',
          gateway: true,
          ports: [],
        },
      ],
    },
    { containerId: 'f'.repeat(64), mode: 'deferred', endpoints: [] },
  ],
}

test('text', () => {
  expect(textOf(modelOf(TOPOLOGY))).toBe(`libcnm (firewall: nftables)

db  bridge br-db, internal
│  10.20.0.0/24
└─ veth3 ─ eth1 ─ c2
      10.20.0.2/24

web  bridge br-web
│  10.10.0.0/24 (gateway 10.10.0.1)
├─ veth1 ─ eth0 ─ c1  (gateway)
│     10.10.0.2/24
└─ veth2 ─ eth0 ─ c2  (gateway)
      10.10.0.3/24
      fd00::3/64
      8080 -> 80/tcp

on no network of their own
   ffffffffffff  deferred
`)
})

test('networks that nobody is on are shown on demand', () => {
  expect(modelOf(TOPOLOGY).networks.map(({ name }) => name)).toEqual(['db', 'web'])
  expect(modelOf(TOPOLOGY, { all: true }).networks.map(({ name }) => name)).toEqual(['db', 'idle', 'web'])
})

test('no box lies on another, and all lie inside', () => {
  const { width, height, networks, sandboxes, edges } = layout(modelOf(TOPOLOGY, { all: true }))
  for (const column of [networks, sandboxes])
    column.forEach((box, at) => {
      expect(box.x).toBeGreaterThanOrEqual(0)
      expect(box.x + box.width).toBeLessThanOrEqual(width)
      expect(box.y + box.height).toBeLessThanOrEqual(height)
      const next = column[at + 1]
      if (next) expect(next.y).toBeGreaterThan(box.y + box.height)
    })
  expect(edges).toHaveLength(3)
  for (const { edge, from, to } of edges)
    for (const [{ y }, box] of [
      [from, networks[edge.network]],
      [to, sandboxes[edge.sandbox]],
    ] as const) {
      expect(y).toBeGreaterThanOrEqual(box?.y ?? Number.NaN)
      expect(y).toBeLessThanOrEqual((box?.y ?? 0) + (box?.height ?? 0))
    }
  for (const { width: wide, rows } of [...networks, ...sandboxes])
    for (const { text } of rows) expect(text.length * 7.3).toBeLessThanOrEqual(wide - 12)
})

test('wide letters have their room', () => {
  const name = '网络'.repeat(20)
  const [web] = TOPOLOGY.networks
  const networks = [{ ...(web as Topology['networks'][number]), name }]
  const [panel] = layout(modelOf({ ...TOPOLOGY, networks }, { all: true })).networks
  expect(panel?.width).toBeGreaterThan(2 * 40 * 7.3)
})

test('SVG: everything is there', () => {
  const svg = svgOf(modelOf(TOPOLOGY))
  for (const text of [
    'web',
    'bridge br-web',
    '10.10.0.0/24 (gateway 10.10.0.1)',
    'veth2',
    'eth0 10.10.0.3/24',
    'fd00::3/64',
    '⇄ 8080 -&#62; 80/tcp',
    'c1',
  ])
    expect(svg).toContain(text)
  expect(svg.match(/<path /g)).toHaveLength(3)
  expect(svg.match(/<rect /g)).toHaveLength(6) // five boxes on a paper
})

test('nothing of a name becomes markup or control', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary', maxLength: 30 }),
      fc.string({ unit: 'grapheme', maxLength: 30 }),
      (a, b) => {
        const nasty = `${a}<script>&"'${b}`
        const [network] = TOPOLOGY.networks
        const [sandbox] = TOPOLOGY.sandboxes
        if (!network || !sandbox) return
        const model = modelOf({
          ...TOPOLOGY,
          controller: nasty,
          networks: [{ ...network, name: nasty, driver: nasty, link: nasty, subnets: [{ subnet: nasty }] }],
          sandboxes: [
            {
              ...sandbox,
              containerId: nasty,
              mode: nasty,
              endpoints: sandbox.endpoints.map(endpoint => ({
                ...endpoint,
                network: nasty,
                ports: [nasty],
                ipv4: nasty,
                hostLink: nasty,
              })),
            },
          ],
        })
        const tags = (svgOf(model).match(/<[^>]*>?/g) ?? []).map(tag => /^<[/?]?(\w+)/.exec(tag)?.[1])
        expect(new Set(tags)).toEqual(
          new Set(['xml', 'svg', 'title', 'style', 'text', 'path', 'rect', 'circle']),
        )
        expect(textOf(model)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
      },
    ),
    { numRuns: 200, seed: 5 },
  )
  expect(xml('a\u0000\ud800b')).toBe('a\ufffd\ufffdb')
})

test('names are in the order in which people count', () => {
  const [sandbox] = TOPOLOGY.sandboxes
  const sandboxes = ['web-10', 'web-2'].map(containerId => ({
    ...(sandbox as Topology['sandboxes'][number]),
    containerId,
  }))
  expect(modelOf({ ...TOPOLOGY, sandboxes }).sandboxes.map(({ name }) => name)).toEqual(['web-2', 'web-10'])
})

test('an empty topology', () => {
  const empty = modelOf({ controller: 'x', firewall: 'none', networks: [], sandboxes: [] })
  expect(textOf(empty)).toBe('x (firewall: none)\n')
  expect(svgOf(empty)).toContain('<svg')
})

test('ports: one line for both families only where they are the same', () => {
  const port = (hostIp: string, hostPort: number, more = {}) => ({
    hostIp,
    hostPort,
    hostPortEnd: hostPort,
    containerPort: 80,
    protocol: 'tcp',
    ...more,
  })
  expect(
    portTexts([
      port('0.0.0.0', 8080),
      port('::', 8080),
      port('127.0.0.1', 8080),
      port('0.0.0.0', 32768),
      port('::', 32769),
      port('::1', 81),
      port('0.0.0.0', 8000, { hostPortEnd: 8010, protocol: 'udp' }),
      port('::', 8000, { hostPortEnd: 8010, protocol: 'udp' }),
    ]),
  ).toEqual([
    '8080 -> 80/tcp',
    '127.0.0.1:8080 -> 80/tcp',
    '0.0.0.0:32768 -> 80/tcp',
    '[::]:32769 -> 80/tcp',
    '[::1]:81 -> 80/tcp',
    '8000-8010 -> 80-90/udp',
  ])
})
