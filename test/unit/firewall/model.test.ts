import fc from 'fast-check'
import { invert, type FirewallChange, type Mapping } from '../../../lib/firewall/contract'
import { type Delta, type Item, Model, type Renderer, union } from '../../../lib/firewall/model'
import { iptablesRenderer } from '../../../lib/firewall/iptables/items'
import { nftRenderer } from '../../../lib/firewall/nftables/items'
import { element } from '../../../lib/firewall/nftables/text'
import { histories } from './arbitrary'
import { endpoint, mapping, network } from './objects'

const texts = (items: Iterable<Item>) => [...items].map(item => `${item.set} ${element(item)}`).sort()
const all = (model: Model) => texts([...model.items().values()].flat())

function play(model: Model, change: FirewallChange): Delta {
  const plan = model.plan(change)
  plan.commit()
  return plan
}

describe.each<[string, Renderer]>([
  ['nftables', nftRenderer],
  ['iptables', iptablesRenderer('DOCKER')],
])('%s', (_, renderer) => {
  test('rules are a function of the state, whatever the history', () => {
    fc.assert(
      fc.property(histories, changes => {
        const model = new Model(renderer)
        const kernel = new Set<string>()
        for (const change of changes) {
          const { removed, added } = play(model, change)
          for (const item of texts(removed)) {
            if (!kernel.delete(item)) throw new Error(`removes ${item}, which is not there`)
          }
          for (const item of texts(added)) {
            if (kernel.has(item)) throw new Error(`adds ${item} twice`)
            kernel.add(item)
          }
        }
        const fresh = new Model(renderer)
        play(fresh, model.state())
        expect(all(model)).toEqual(all(fresh))
        expect([...kernel].sort()).toEqual(all(model))
      }),
      { seed: 4, numRuns: 200 },
    )
  })

  test('the inverse of a change undoes it', () => {
    fc.assert(
      fc.property(histories, changes => {
        const model = new Model(renderer)
        const last = changes.pop()
        for (const change of changes) play(model, change)
        const before = all(model)
        if (last) {
          play(model, last)
          play(model, invert(last))
        }
        expect(all(model)).toEqual(before)
      }),
      { seed: 5, numRuns: 100 },
    )
  })
})

describe('a plan', () => {
  const base = { addNetworks: [network()], addEndpoints: [endpoint()] }

  test('changes nothing until it is committed', () => {
    const model = new Model(nftRenderer)
    model.plan(base)
    expect(all(model)).toEqual([])
  })

  test('removing what is not there and adding what is there already are nothing', () => {
    const model = new Model(nftRenderer)
    play(model, { ...base, addMappings: [mapping()] })
    expect(model.plan({ ...base, addMappings: [mapping()] })).toMatchObject({ removed: [], added: [] })
    expect(model.plan({ removeMappings: [mapping({ hostPort: 9, hostPortEnd: 9 })] })).toMatchObject({
      removed: [],
      added: [],
    })
  })

  test('two host ports that lead to one container port open it once, and until the last is gone', () => {
    const model = new Model(nftRenderer)
    const second = mapping({ hostPort: 8081, hostPortEnd: 8081 })
    play(model, { ...base, addMappings: [mapping()] })
    expect(texts(play(model, { addMappings: [second] }).added)).toEqual(['ports4 6 . 8081 : 10.1.0.2 . 80'])
    expect(texts(play(model, { removeMappings: [mapping()] }).removed)).toEqual([
      'ports4 6 . 8080 : 10.1.0.2 . 80',
    ])
    expect(texts(play(model, { removeMappings: [second] }).removed)).toEqual([
      'open4 10.1.0.2 . 6 . 80',
      'ports4 6 . 8081 : 10.1.0.2 . 80',
    ])
  })

  test('a port moves to another endpoint within one change', () => {
    const model = new Model(nftRenderer)
    play(model, { ...base, addMappings: [mapping()] })
    const moved = mapping({ endpointId: 'e2', containerIp: '10.1.0.3' })
    const plan = model.plan({ removeMappings: [mapping()], addMappings: [moved] })
    expect(texts(plan.removed)).toContain('ports4 6 . 8080 : 10.1.0.2 . 80')
    expect(texts(plan.added)).toContain('ports4 6 . 8080 : 10.1.0.3 . 80')
  })

  test('one host port cannot lead to two endpoints', () => {
    const model = new Model(nftRenderer)
    play(model, { ...base, addMappings: [mapping()] })
    const before = all(model)
    expect(() =>
      model.plan({ addMappings: [mapping({ endpointId: 'e2', containerIp: '10.1.0.3' })] }),
    ).toThrow(expect.objectContaining({ code: 'ERR_PORT_IN_USE' }))
    expect(all(model)).toEqual(before)
  })

  test('a network that changes takes its old items with it', () => {
    const model = new Model(nftRenderer)
    play(model, { addNetworks: [network()] })
    const plan = model.plan({ addNetworks: [network({ icc: false })] })
    expect(texts(plan.removed)).toEqual(['within "br1" . "br1" : accept'])
    expect(texts(plan.added)).toEqual(['within "br1" . "br1" : goto apart'])
  })

  test('something on a network that is not known is a defect', () => {
    expect(() => new Model(nftRenderer).plan({ addEndpoints: [endpoint()] })).toThrow(
      expect.objectContaining({ code: 'ERR_INTERNAL' }),
    )
  })

  test('ten thousand mappings do not slow down the next', () => {
    const model = new Model(nftRenderer)
    const many: Mapping[] = Array.from({ length: 10_000 }, (_, i) =>
      mapping({ hostPort: 10_000 + i, hostPortEnd: 10_000 + i }),
    )
    play(model, { ...base, addMappings: many })
    const started = process.hrtime.bigint()
    for (let i = 0; i < 100; i++)
      play(model, { addMappings: [mapping()] }), play(model, { removeMappings: [mapping()] })
    // Microseconds each in truth; a walk over all mappings would take a minute.
    expect(Number(process.hrtime.bigint() - started) / 1e6).toBeLessThan(4000)
  })
})

test('the union of intervals', () => {
  expect(union([])).toEqual([])
  expect(
    union([
      { from: 5, to: 9 },
      { from: 1, to: 2 },
      { from: 3, to: 4 },
      { from: 20, to: 30 },
      { from: 22, to: 23 },
    ]),
  ).toEqual([
    { from: 1, to: 9 },
    { from: 20, to: 30 },
  ])
  expect(union([{ from: 1, to: 2, count: 0 }])).toEqual([])
})
