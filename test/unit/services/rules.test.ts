/** Shares and rules of services, as data and text. */
import type { Balanced } from '../../../lib/services/contract'
import {
  expected,
  isEmpty,
  normalized,
  renderChange,
  renderNone,
  renderWhole,
  rulesOf,
} from '../../../lib/services/rules'
import { shares, sticky } from '../../../lib/services/slots'

const id = (n: number) => String(n).repeat(64)
const backend = (n: number, weight = 1) => ({
  id: id(n),
  weight,
  addresses: { 4: `10.0.0.${n}`, ...(n % 2 && { 6: `fd00::${n}` }) },
})
const port = { port: 80, targetPort: 8080, protocol: 'tcp', mode: 'ingress' } as const
const service = (n: number, more: Partial<Balanced> = {}): Balanced => ({
  id: id(n),
  vips: { 4: `10.0.0.10${n}`, 6: `fd00::10${n}` },
  ports: [port],
  sticky: false,
  backends: [backend(1), backend(2)],
  ...more,
})

describe('shares', () => {
  const count = (weights: number[]) => {
    const tasks = weights.map((weight, n) => ({ id: String(n), weight }))
    const slots = shares(tasks)
    return tasks.map(task => slots.filter(slot => slot === task).length)
  }

  test('as many slots as the weights need, and no more', () => {
    expect(count([1])).toEqual([1])
    expect(count([1, 1, 1])).toEqual([1, 1, 1])
    expect(count([300, 100, 200])).toEqual([3, 1, 2])
    expect(count([7, 3])).toEqual([7, 3])
    expect(shares([])).toEqual([])
  })

  test('many tasks with odd weights: a bounded list, in which each has its share, and none is left out', () => {
    const counts = count(Array.from({ length: 500 }, (_, n) => 501 + n))
    expect(counts.reduce((a, b) => a + b, 0)).toBeLessThan(5_000)
    expect(Math.min(...counts)).toBeGreaterThan(0)
    expect((counts[499] as number) / (counts[0] as number)).toBeCloseTo(2, 0)
  })

  test('the order in which tasks are told does not matter: every host makes the same list', () => {
    const tasks = ['b', 'a', 'c'].map(each => ({ id: each, weight: 2 }))
    expect(shares(tasks)).toEqual(shares([...tasks].reverse()))
    expect(sticky(tasks)).toEqual(sticky([...tasks].reverse()))
  })

  test('sticky: when a task goes or comes, only its own slots move; weights are shares', () => {
    const tasks = Array.from({ length: 5 }, (_, n) => ({ id: `task${n}`, weight: n === 0 ? 4 : 1 }))
    const before = sticky(tasks)
    const after = sticky(tasks.slice(0, 4))
    before.forEach((task, slot) => {
      if (task !== tasks[4]) expect(after[slot]).toBe(task)
    })
    const first = before.filter(task => task === tasks[0]).length / before.length
    expect(first).toBeGreaterThan(0.38) // 4 of 8
    expect(first).toBeLessThan(0.62)
  })
})

describe('rules', () => {
  test('a chain for each port and family leads to the tasks that have an address of the family', () => {
    const { chains, elements } = rulesOf([service(3)])
    expect(chains.get('to4-333333333333-tcp-8080')).toBe(
      'meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }',
    )
    expect(chains.get('to6-333333333333-tcp-8080')).toBe(
      'meta l4proto tcp dnat ip6 to numgen random mod 1 map { 0 : fd00::1 . 8080 }',
    )
    expect([...(elements.get('ports4') ?? [])]).toEqual([
      ['10.0.0.103 . tcp . 80', 'to4-333333333333-tcp-8080'],
    ])
    expect(elements.get('all4')).toBeUndefined()
  })

  test('without tasks the virtual IP is known, and leads nowhere', () => {
    const { chains, elements } = rulesOf([service(3, { backends: [] })])
    expect(chains.size).toBe(0)
    expect([...elements.keys()]).toEqual(['vips4', 'vips6'])
  })

  test('a change is what differs: another service costs nothing, a task its own chains', () => {
    const before = rulesOf([service(3), service(4)])
    expect(renderChange(before, rulesOf([service(4), service(3)]))).toBe('')
    const text = renderChange(before, rulesOf([service(3), service(4, { backends: [backend(1)] })]))
    expect(text.split('\n').filter(Boolean)).toEqual([
      'flush chain inet libcnm-services to4-444444444444',
      'flush chain inet libcnm-services to4-444444444444-tcp-8080',
      'add rule inet libcnm-services to4-444444444444 dnat ip to numgen random mod 1 map { 0 : 10.0.0.1 }',
      'add rule inet libcnm-services to4-444444444444-tcp-8080 meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.0.0.1 . 8080 }',
    ])
  })

  test('what goes is taken out before its chain is deleted', () => {
    const text = renderChange(rulesOf([service(3), service(4)]), rulesOf([service(3)]))
    const at = (part: string) => text.indexOf(part)
    expect(at('delete element inet libcnm-services ports4 { 10.0.0.104 . tcp . 80 }')).toBeGreaterThan(-1)
    expect(at('delete chain inet libcnm-services to4-444444444444-tcp-8080')).toBeGreaterThan(
      at('delete element inet libcnm-services ports4'),
    )
    expect(text).not.toContain('333333333333')
  })

  test('published ports lead to the same chains; the table then also lets in and hides, and is no router', () => {
    const rules = rulesOf([service(3)], [{ serviceId: id(3), port: { ...port, publishedPort: 9000 } }])
    expect([...(rules.elements.get('published4') ?? [])]).toEqual([
      ['tcp . 9000', 'to4-333333333333-tcp-8080'],
    ])
    const text = renderWhole(rules)
    expect(text).toContain('type filter hook forward priority filter; policy drop;')
    expect(text).toContain('ct status dnat masquerade')
    expect(renderWhole(rulesOf([service(3)]))).not.toContain('hook forward')
    // From a table without an entrance to one with it: anew, in one transaction.
    expect(renderChange(rulesOf([service(3)]), rules)).toBe(text)
  })

  test('nothing to balance is no table; the whole takes the place of whatever is there', () => {
    expect(isEmpty(rulesOf([]))).toBe(true)
    expect(isEmpty(rulesOf([service(3, { backends: [] })]))).toBe(false)
    expect(renderWhole(rulesOf([service(3)])).startsWith(renderNone())).toBe(true)
  })

  test('a listing is compared without layout and order, and with all that matters', () => {
    const rules = rulesOf([service(3), service(4)])
    const listing = renderWhole(rules).slice(renderNone().length)
    expect(normalized(listing)).toBe(expected(rules))
    expect(normalized(listing.replace('10.0.0.103, 10.0.0.104', '10.0.0.104,\n\t\t\t     10.0.0.103'))).toBe(
      expected(rules),
    )
    expect(normalized(listing.replace('10.0.0.1 . 8080', '10.0.0.9 . 8080'))).not.toBe(expected(rules))
    expect(normalized('')).not.toBe(expected(rules))
  })
})
