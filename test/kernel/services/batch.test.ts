/** Changes of services as ready messages: the kernel lists afterwards what it lists after the same change as text. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LinuxKernel, type Stack } from 'libcnm'
import { changeBatch } from '../../../lib/services/batch'
import type { Balanced, ServicePort } from '../../../lib/services/contract'
import {
  type Entrance,
  expected,
  normalized,
  renderChange,
  renderWhole,
  type Rules,
  rulesOf,
  SERVICES_TABLE,
} from '../../../lib/services/rules'

const kernel = new LinuxKernel()
const directory = mkdtempSync(join(tmpdir(), 'libcnm-batch-'))
let ready: Stack
let text: Stack
beforeAll(async () => {
  ready = await kernel.create(join(directory, 'ready'))
  text = await kernel.create(join(directory, 'text'))
})
afterAll(async () => {
  for (const stack of [ready, text]) {
    stack.close()
    await kernel.remove(stack.path as string)
  }
  rmSync(directory, { recursive: true, force: true })
})

const id = (n: number) => String(n).padStart(12, 'a').padEnd(64, '0')
const backend = (n: number, weight = 1) => ({
  id: id(n),
  weight,
  addresses: { 4: `10.0.${n >> 8}.${n & 255}`, 6: `fd00::${n.toString(16)}` },
})
const port = (number: number, protocol: ServicePort['protocol'], publishedPort?: number): ServicePort => ({
  port: number,
  targetPort: number + 8000,
  protocol,
  publishedPort,
  mode: 'ingress',
})
const service = (n: number, tasks: number[], more: Partial<Balanced> = {}): Balanced => ({
  id: id(n),
  vips: { 4: `10.1.0.${n}`, 6: `fd01::${n}` },
  ports: [port(80, 'tcp')],
  sticky: false,
  backends: tasks.map(task => backend(task)),
  ...more,
})
const published = [port(53, 'udp', 5353), port(9, 'sctp', 9009), port(80, 'tcp', 8080)]
const entrances: Entrance[] = published.map(each => ({ serviceId: id(3), port: each }))

const STATES: [string, Rules][] = [
  ['one service', rulesOf([service(1, [2, 3])])],
  ['a task more', rulesOf([service(1, [2, 3, 4])])],
  [
    'another service, sticky, with three protocols',
    rulesOf([service(1, [2]), service(3, [5, 6], { ports: published, sticky: true })]),
  ],
  [
    'one without ports, and one without tasks',
    rulesOf([service(1, [2], { ports: [] }), service(3, [], { ports: published })]),
  ],
  ['sticky, without ports', rulesOf([service(1, [2, 7], { ports: [], sticky: true })])],
  ['weights', rulesOf([service(1, [], { backends: [backend(2, 3), backend(3, 7)] })])],
  [
    'thousands of slots',
    rulesOf([
      service(1, [], { backends: Array.from({ length: 40 }, (_, n) => backend(n + 2)), sticky: true }),
    ]),
  ],
  ['many services', rulesOf(Array.from({ length: 20 }, (_, n) => service(n + 1, [2, 3])))],
  ['IPv4 alone', rulesOf([service(1, [2, 3], { vips: { 4: '10.1.0.1' } })])],
  ['one service again', rulesOf([service(1, [2, 3])])],
]
const ENTRANCES: [string, Rules][] = [
  ['an entrance', rulesOf([service(3, [5], { ports: published })], entrances)],
  ['with a task more', rulesOf([service(3, [5, 6], { ports: published })], entrances)],
  ['with a port less', rulesOf([service(3, [5, 6], { ports: published })], entrances.slice(1))],
  ['that leads nowhere', rulesOf([service(3, [], { ports: published })], entrances.slice(1))],
]

const list = (stack: Stack) => normalized(stack.nft(`list table inet ${SERVICES_TABLE}`))

test.each([
  ['sandboxes', STATES],
  ['the entrance', ENTRANCES],
])('%s: from each state to each other', (_, states) => {
  for (const [from, before] of states)
    for (const [to, after] of states) {
      ready.nft(renderWhole(before))
      const batch = changeBatch(before, after)
      if (batch) ready.nftBatch?.(batch)
      expect([from, to, batch === undefined]).toEqual([from, to, renderChange(before, after) === ''])
      expect([from, to, list(ready)]).toEqual([from, to, expected(after)])
    }
})

test('the same as by text, one change after the other', () => {
  let before = STATES[0]?.[1] as Rules
  for (const stack of [ready, text]) stack.nft(renderWhole(before))
  for (const [to, after] of STATES.slice(1)) {
    text.nft(renderChange(before, after))
    ready.nftBatch?.(changeBatch(before, after) as Buffer)
    expect([to, ready.nft(`list table inet ${SERVICES_TABLE}`).length]).toEqual([
      to,
      text.nft(`list table inet ${SERVICES_TABLE}`).length,
    ])
    expect([to, list(ready)]).toEqual([to, list(text)])
    before = after
  }
})

test('a table that is not as it was thought to be: refused, and nothing is changed', () => {
  ready.nft(renderWhole(STATES[0]?.[1] as Rules))
  const before = list(ready)
  expect(() =>
    ready.nftBatch?.(changeBatch(STATES[7]?.[1] as Rules, STATES[4]?.[1] as Rules) as Buffer),
  ).toThrow(expect.objectContaining({ code: 'ERR_FIREWALL' }))
  expect(list(ready)).toBe(before)
})
