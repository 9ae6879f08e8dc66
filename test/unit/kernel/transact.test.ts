import type { Binding, ExchangeResult } from '../../../lib/kernel/binding'
import { changeError, errnoOf, systemError } from '../../../lib/kernel/errors'
import type { Change } from '../../../lib/kernel/kernel'
import { decodeNftEvent, NftTransactions } from '../../../lib/kernel/netlink/events'
import { Messages, Writer } from '../../../lib/kernel/netlink/message'
import { LinuxStack } from '../../../lib/kernel/stack'
import { takeTurn } from '../../../lib/kernel/turns'

const ENODEV = 19
const RTM_GETLINK = 18

/** Answers as a kernel with these links would; everything else succeeds. Keeps what was sent, by journey. */
function machine(links: Record<string, number>, refuse: (type: number) => number = () => 0) {
  const journeys: number[][] = []
  const closed: number[] = []
  const carryOut = (steps: { messages: Uint8Array }[]): ExchangeResult[] => {
    const types: number[] = []
    const results: ExchangeResult[] = []
    for (const step of steps) {
      const result: ExchangeResult & { errors: number[] } = { errors: [], texts: [], data: new Uint8Array(0) }
      const answer = new Writer()
      const messages = new Messages(step.messages)
      while (messages.next()) {
        types.push(messages.type)
        let error = refuse(messages.type)
        if (messages.type === RTM_GETLINK) {
          const attributes = messages.attributes(16)
          const index = attributes.next() ? links[attributes.text()] : undefined
          error = index === undefined ? ENODEV : 0
          if (index !== undefined) {
            answer.request(16)
            for (const word of [0, index, 0, 0]) answer.u32(word)
            answer.end()
          }
        }
        result.errors.push(error)
        result.texts.push(undefined)
      }
      result.data = answer.take()
      results.push(result)
      if (result.errors.some(Boolean)) break
    }
    journeys.push(types)
    return results
  }
  const exchange = async (steps: { messages: Uint8Array }[]) => carryOut(steps)
  const exchangeSync = (step: { messages: Uint8Array }) => carryOut([step])[0]
  const binding = {
    exchange,
    exchangeSync,
    linkName: (_: number, index: number) => Object.keys(links).find(name => links[name] === index),
    close: (fd: number) => closed.push(fd),
  } as unknown as Binding
  const stack = (fd: number) => new LinuxStack(binding, fd, fd, `/${fd}`, fd + 1)
  return { journeys, closed, stack }
}

const add: Change = { op: 'addLink', link: { kind: 'bridge', name: 'br0' } }
const address = (link: string | number): Change => ({ op: 'addAddress', link, address: '10.0.0.1/24' })

test('one journey when every index is known or chosen; one more to look names up', async () => {
  const { journeys, stack } = machine({ eth0: 7 })
  await stack(10).apply([add, address('br0'), address(7)])
  expect(journeys).toEqual([[16, 20, 20]])
  await stack(10).apply([address('eth0'), address('eth0')])
  expect(journeys.slice(1)).toEqual([[RTM_GETLINK], [20, 20]])
})

test('a name that was looked up is known, for as long as it is that link’s', async () => {
  const links: Record<string, number> = { eth0: 7 }
  const { journeys, stack } = machine(links)
  const one = stack(10)
  for (let again = 0; again < 2; again++) await one.apply([address('eth0')])
  expect(journeys.splice(0)).toEqual([[RTM_GETLINK], [20], [20]])
  links.eth0 = 9
  await one.apply([address('eth0')])
  expect(journeys.splice(0)).toEqual([[RTM_GETLINK], [20]])
  delete links.eth0
  await expect(one.apply([address('eth0')])).rejects.toMatchObject({ code: 'ERR_LINK_NOT_FOUND' })
})

test('an absent name is refused in its place; the others of the step are sent', async () => {
  const { journeys, stack } = machine({})
  await expect(stack(10).apply([add, address('nix'), add])).rejects.toMatchObject({
    code: 'ERR_LINK_NOT_FOUND',
    details: { errno: 'ENODEV', step: 0, change: 1 },
  })
  expect(journeys).toEqual([[RTM_GETLINK], [16, 16]])
})

test('a removal of what is gone already does not end the transaction', async () => {
  const { journeys, stack } = machine({}, type => (type === 17 ? ENODEV : 0))
  await stack(10).apply([{ op: 'removeLink', link: 'x', ifExists: true }, add])
  expect(journeys).toEqual([[17, 16]])
})

test('descriptors are closed once, when the last journey is over', async () => {
  const { closed, stack } = machine({})
  const one = stack(10)
  const under = one.apply([add])
  one.close()
  expect(closed).toEqual([])
  await under
  one.close()
  expect(closed).toEqual([11, 10])
})

test('turns: in order of arrival over every line, and nobody waits for nothing', async () => {
  const a = { last: undefined }
  const b = { last: undefined }
  const order: number[] = []
  const first = takeTurn([a, b])
  expect(first.ready).toBeUndefined()
  const second = takeTurn([b, a])
  const third = takeTurn([a])
  const waiting = [
    second.ready?.then(() => void order.push(2)).then(second.done),
    third.ready?.then(() => void order.push(3)).then(third.done),
  ]
  order.push(1)
  first.done()
  await Promise.all(waiting)
  expect(order).toEqual([1, 2, 3])
  expect([a.last, b.last]).toEqual([undefined, undefined])
})

describe('errors', () => {
  const at = { step: 0, change: 0 }
  test.each([
    [add, 'EPERM', 1, undefined, 'ERR_PRIVILEGE', 'CAP_NET_ADMIN'],
    [add, 'EEXIST', 17, undefined, 'ERR_LINK_EXISTS', 'add bridge br0: File exists'],
    [add, 'EOPNOTSUPP', 95, 'Unknown device type', 'ERR_UNSUPPORTED', 'kernel module bridge'],
    [address('x'), 'EEXIST', 17, undefined, 'ERR_KERNEL', 'add address 10.0.0.1/24 to x: File exists'],
    [address('x'), 'ENODEV', 19, undefined, 'ERR_LINK_NOT_FOUND', 'No such device'],
  ] as const)('%j, %s', (change, errno, number, text, code, words) => {
    const error = changeError(change, number, text, at)
    expect(error).toMatchObject({ code, details: { errno, number, text, op: change.op, ...at } })
    expect(error.message).toContain(words)
    if (text) expect(error.message).toContain(`(kernel: ${text})`)
  })

  test('of the system, and of nobody', () => {
    expect(systemError({ errno: 110, syscall: 'recvmsg' }, 'ask')).toMatchObject({ code: 'ERR_TIMEOUT' })
    expect(systemError({ errno: 1 }, 'bind')).toMatchObject({ code: 'ERR_PRIVILEGE' })
    const other = new TypeError('x')
    expect(systemError(other, 'ask')).toBe(other)
    expect(errnoOf(54)).toMatchObject({ number: 54 })
  })
})

describe('ruleset events', () => {
  const nft = (writer: Writer, type: number, body: () => void): void => {
    writer.request((10 << 8) | type)
    writer.u32(1) // struct nfgenmsg: family inet
    body()
    writer.end()
  }
  const transaction = (): Uint8Array => {
    const writer = new Writer()
    nft(writer, 0, () => writer.attrText(1, 'web'))
    nft(writer, 12, () => writer.attrText(1, 'web'))
    nft(writer, 15, () => writer.attrBytes(2, Uint8Array.of(0, 0, 4, 210)))
    return writer.take()
  }

  test('are told with the process that the end of the transaction names', () => {
    const told: unknown[] = []
    const transactions = new NftTransactions(event => void told.push(event))
    transactions.receive(transaction())
    const common = { topic: 'nft', change: 'set', family: 'inet', pid: 1234 }
    expect(told).toEqual([
      { ...common, object: 'table', table: 'web' },
      { ...common, object: 'element', table: 'web' },
      { ...common, object: 'generation' },
    ])
    expect(transactions.waiting).toBe(false)
  })

  test('are none in other messages', () => {
    const messages = new Messages(transaction().subarray(0, 18))
    expect(messages.next()).toBe(false)
    const other = new Writer()
    other.request(16)
    other.end()
    const reader = new Messages(other.take())
    expect(reader.next() && decodeNftEvent(reader)).toBeUndefined()
  })
})
