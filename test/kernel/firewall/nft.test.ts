import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { SILENT } from '../../../lib/base/log'
import { NftablesFirewall } from '../../../lib/firewall/nftables'
import { parseListing } from '../../../lib/firewall/nftables/listing'
import type { Stack } from '../../../lib/kernel/kernel'
import { LinuxKernel } from '../../../lib/kernel/linux'
import { Nft } from '../../../lib/kernel/nft'
import { histories } from '../../unit/firewall/arbitrary'
import { endpoint, mapping, network } from '../../unit/firewall/objects'
import { EXAMPLE, EXAMPLE_LISTING } from '../../unit/firewall/example'

const kernel = new LinuxKernel()
const directory = mkdtempSync(join(tmpdir(), 'nft-'))
let stack: Stack

beforeAll(async () => {
  stack = await kernel.create(join(directory, 'host'))
})
afterAll(async () => {
  stack.close()
  await kernel.remove(join(directory, 'host'))
  rmSync(directory, { recursive: true, force: true })
})

const open = (name = 'libcnm') => new NftablesFirewall({ name, stack, ipForward: true, log: SILENT })
const bound = (target: object, property: string | symbol): unknown => {
  const value: unknown = Reflect.get(target, property, target)
  return typeof value === 'function' ? value.bind(target) : value
}
/** The same elements may be listed in any order (a hash has none), several in a line. */
const listing = (name = 'libcnm') =>
  stack
    .nft(`list table inet ${name}`)
    .replace(/elements = \{([^}]*)\}/g, (_, elements: string) =>
      elements
        .split(',')
        .map(element => element.trim())
        .sort()
        .join(', '),
    )
    .replace(name, 'NAME')

describe('libnftables', () => {
  test('belongs to the namespace in which it was made, wherever it is used', () => {
    const nft = stack.run(() => new Nft())
    nft.run('add table inet here')
    expect(stack.nft('list tables')).toContain('table inet here')
    expect(nft.run('list tables')).toContain('table inet here')
    nft.run('delete table inet here')
    nft.close()
    nft.close()
    expect(() => nft.run('list tables')).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }))
  })

  test('a transaction is taken whole or not at all, and the error is what libnftables says', () => {
    const error = (() => {
      try {
        stack.nft('add table inet half\nadd element inet half nowhere { 1 }')
      } catch (caught) {
        return caught
      }
      return undefined
    })()
    expect(error).toMatchObject({ code: 'ERR_FIREWALL', details: { errno: 'ENOENT' } })
    expect(stack.nft('list tables')).not.toContain('half')
    expect(() => stack.nft('this is { no command')).toThrow(/syntax error/)
    expect(stack.nft('list tables')).toBe('')
  })
})

describe('the table', () => {
  test('in the kernel it reads as in the example of ARCHITECTURE.md', async () => {
    const firewall = open()
    await firewall.start()
    await firewall.apply(EXAMPLE)
    expect(parseListing(stack.nft('list table inet libcnm'))).toEqual(parseListing(EXAMPLE_LISTING))
    await firewall.stop({ remove: true })
  })

  test('after any history it is the same as if it had been loaded at once', async () => {
    const one = open('one')
    const two = open('two')
    await one.start()
    await two.start()
    await fc.assert(
      fc.asyncProperty(histories, async changes => {
        await one.reset({})
        for (const change of changes) await one.apply(change)
        await two.reset(one.state())
        expect(listing('one')).toBe(listing('two'))
        expect((await one.check()).filter(problem => problem.kind === 'missing')).toEqual([])
      }),
      { seed: 6, numRuns: 25 },
    )
    await one.stop({ remove: true })
    await two.stop({ remove: true })
  })

  test('changes go as elements, ready for the kernel: libnftables reads none of them', async () => {
    const texts: string[] = []
    const overheard = new Proxy(stack, {
      get: (_, property) =>
        property === 'nft'
          ? (commands: string) => {
              texts.push(commands)
              return stack.nft(commands)
            }
          : bound(stack, property),
    })
    const firewall = new NftablesFirewall({ name: 'fast', stack: overheard, ipForward: true, log: SILENT })
    await firewall.start()
    const [state] = fc.sample(histories, { seed: 3, numRuns: 1 })
    await firewall.reset({})
    texts.length = 0
    for (const change of [...(state ?? []), EXAMPLE]) await firewall.apply(change)
    // Larger than what a netlink socket sends by itself, and than what one message can hold.
    const shifted = mapping({
      networkId: 'web',
      hostPort: 30_000,
      hostPortEnd: 39_999,
      containerPort: 20_000,
    })
    await firewall.apply({ addMappings: [shifted] })
    expect((await firewall.check()).filter(problem => problem.kind === 'missing')).toEqual([])
    await firewall.apply({ removeMappings: [shifted] })
    expect(texts.filter(text => !text.startsWith('list'))).toEqual([])
    await firewall.stop({ remove: true })
  })

  test('what cannot be leaves it as it was', async () => {
    const firewall = open()
    await firewall.start()
    await firewall.apply({ addNetworks: [network()], addEndpoints: [endpoint()], addMappings: [mapping()] })
    const before = listing()
    const state = firewall.state()
    const hostile = 'br"; flush ruleset; add table inet x { } #'
    for (const change of [
      { addNetworks: [network({ id: 'n2', link: hostile })] },
      { addNetworks: [network({ id: 'n2', link: 'br2', trustedLinks: ['eth0', 'a\nb'] })] },
      { addNetworks: [network({ id: 'n2', link: 'br*' })] },
      { addEndpoints: [endpoint({ id: 'e2', addresses: ['10.0.0.1 }'] })] },
      { addMappings: [mapping({ hostIp: '0.0.0.0; drop', hostPort: 1, hostPortEnd: 1 })] },
      { addMappings: [mapping({ containerIp: '10.1.0.2 . 80 }' })] },
      { addMappings: [mapping({ hostPort: 0, hostPortEnd: 0 })] },
      { addMappings: [mapping({ hostPort: 65_535, hostPortEnd: 65_536 })] },
      { addMappings: [mapping({ hostPort: 9000, hostPortEnd: 8999 })] },
      { addMappings: [mapping({ hostPort: 9000, hostPortEnd: 9010, containerPort: 65_530 })] },
      { addMappings: [mapping({ protocol: 'icmp' as 'tcp', hostPort: 9, hostPortEnd: 9 })] },
      { addMappings: [mapping({ hostPort: 9, hostPortEnd: 9, allowFrom: ['10.0.0.0/8 }; flush ruleset'] })] },
      {
        addMappings: [
          mapping({ hostPort: 9, hostPortEnd: 9 }),
          mapping({ endpointId: 'e3', containerIp: '10.1.0.9' }),
        ],
      },
      // Refused by the kernel itself: intervals that overlap.
      {
        addMappings: [
          mapping({ hostPort: 20_000, hostPortEnd: 20_100, containerPort: 20_000 }),
          mapping({ hostPort: 20_050, hostPortEnd: 20_150, containerPort: 20_050, containerIp: '10.1.0.3' }),
        ],
      },
    ])
      await expect(firewall.apply(change)).rejects.toMatchObject({ name: 'CnmError' })
    expect(listing()).toBe(before)
    expect(firewall.state()).toEqual(state)
    await firewall.apply({ removeMappings: [mapping()] })
    expect((await firewall.check()).filter(problem => problem.kind === 'missing')).toEqual([])
    await firewall.stop({ remove: true })
  })

  test('two controllers, and the rules of others, live side by side', async () => {
    stack.nft('add table ip docker\nadd chain ip docker c { type filter hook forward priority 0; }')
    const [one, two] = [open('one'), open('two')]
    await one.start()
    await two.start()
    await one.apply({ addNetworks: [network()] })
    await two.apply({ addNetworks: [network({ id: 'n2', link: 'br2' })] })
    await one.stop({ remove: true })
    expect(stack.nft('list tables')).toMatch(/table ip docker[\s\S]*table inet two/)
    expect(stack.nft('list tables')).not.toMatch(/inet one$/m)
    await two.stop({ remove: true })
    stack.nft('flush ruleset')
  })
})

test('what an earlier run left and is right is not touched; what differs is corrected, element by element', async () => {
  const state = {
    addNetworks: [network({ id: 'a', link: 'br-a' }), network({ id: 'b', link: 'br-b' })],
    addEndpoints: [],
    addMappings: [],
  }
  const first = open('again')
  await first.start()
  await first.apply(state)
  await first.stop()
  const before = stack.nft('list table inet again')
  const changes = async (body: () => Promise<void>): Promise<string[]> => {
    const heard: string[] = []
    const watch = stack.watch(['nft'], event => {
      if (event.topic === 'nft' && event.table?.startsWith('again') && !event.table.includes('-probe-'))
        heard.push(`${event.change} ${event.object}`)
    })
    await body()
    await new Promise(resolve => setTimeout(resolve, 100)) // milliseconds for the last events
    watch.close()
    return heard
  }
  const second = open('again')
  expect(
    await changes(async () => {
      await second.start()
      await second.reset(state)
    }),
  ).toEqual([])
  expect(stack.nft('list table inet again')).toBe(before)
  await second.stop()
  const third = open('again')
  const heard = await changes(async () => {
    await third.start()
    await third.reset({
      ...state,
      addNetworks: [network({ id: 'b', link: 'br-b' }), network({ id: 'c', link: 'br-c' })],
    })
  })
  expect(new Set(heard)).toEqual(new Set(['removed element', 'set element']))
  expect(await third.check()).toEqual([])
  expect(stack.nft('list table inet again')).toMatch(/br-c/)
  expect(stack.nft('list table inet again')).not.toMatch(/br-a/)
  await third.stop({ remove: true })
})

test('a context can be opened though the process has more than a thousand descriptors', () => {
  new Nft().close() // loaded, as every controller has it: low descriptors are kept for later
  const many = Array.from({ length: 1100 }, () => openSync('/dev/null', 'r'))
  const contexts: Nft[] = []
  try {
    for (let n = 0; n < 2; n++) contexts.push(stack.run(() => new Nft()))
    for (const context of contexts) expect(context.run('list tables')).toEqual(expect.any(String))
  } finally {
    for (const context of contexts) context.close()
    for (const fd of many) closeSync(fd)
  }
})
