/** The direction of imports: the table of ARCHITECTURE.md, held against the import lines of every file. */
import { filesBelow, type Import, importsOf } from '../support/imports'

const files = filesBelow('lib', 'drivers', 'examples')
const imports = files.flatMap(importsOf)

/** Modules of a part that say what it is, or compute without acting: whoever may know the part may import them. */
const CONTRACTS = [
  'lib/kernel/kernel',
  'lib/driver/contract',
  'lib/ipam/contract',
  'lib/firewall/contract',
  'lib/ports/contract',
  'lib/dns/contract',
  'lib/dns/files/contract',
  'lib/store/contract',
  'lib/cluster/contract',
]
const PURE = [
  ...CONTRACTS,
  'lib/driver/options', // schemas and labels
  'lib/driver/carry-out', // acts, but only on a stack and a plan that it is given
  'lib/ipam/network', // the dialogue with an allocator that it is given
  'lib/ipam/host', // what of a host's routes counts as used
  'lib/ports/spec', // reading `8080:80/tcp`
  'lib/dns/upstream', // reading `1.1.1.1#53`
  'lib/dns/files/links', // lines for legacy links
  'lib/cluster/pool-id', // reading the ids of a cluster's pools
  'lib/services', // shares and rules, as data and text
]

const NOUNS = ['lib/controller', 'lib/network', 'lib/endpoint', 'lib/sandbox', 'lib/service', 'lib/options']
const PARTS = ['lib/kernel', 'lib/store', 'lib/ipam', 'lib/firewall', 'lib/ports', 'lib/dns', 'lib/cluster']

interface Rule {
  /** Folders or modules that it is about. */
  of: string[]
  /** What they may import beside their own folder: folders or modules. */
  values: string[]
  /** In addition, as types only: nothing of it is there at run time. */
  types?: string[]
}

const RULES: Rule[] = [
  { of: ['lib/base'], values: [] },
  { of: ['lib/kernel', 'lib/store'], values: ['lib/base'] },
  { of: ['lib/services'], values: ['lib/base'] },
  { of: ['lib/ipam', 'lib/firewall', 'lib/dns'], values: ['lib/base'], types: ['lib/kernel'] },
  { of: ['lib/cluster'], values: ['lib/base', 'lib/ipam/contract'] },
  { of: ['lib/ports'], values: ['lib/base'], types: ['lib/kernel', 'lib/firewall'] },
  { of: ['lib/driver'], values: ['lib/base'], types: ['lib/kernel', 'lib/firewall'] },
  {
    of: ['lib/core'],
    values: ['lib/options', 'lib/base', ...PURE, 'lib/driver/registry'],
    types: [...PARTS, ...NOUNS, 'lib/driver'],
  },
  // The nouns know one another; only the controller opens the assembly.
  {
    of: ['lib/controller'],
    values: [...NOUNS, 'lib/core', 'lib/base', ...PURE, 'lib/assembly'],
    types: ['lib/cluster'],
  },
  { of: NOUNS.slice(1), values: [...NOUNS, 'lib/core', 'lib/base', ...PURE] },
  {
    of: ['lib/api'],
    values: ['lib/base', 'lib/options', ...PURE],
    types: [...NOUNS, 'lib/core', ...PARTS, 'lib/driver'],
  },
  { of: ['lib/cni'], values: ['lib/base', 'lib/index', ...NOUNS], types: [...PARTS, 'lib/core'] },
  {
    of: ['lib/cli'],
    values: ['lib/base', 'lib/api', 'lib/cni', 'lib/index', ...NOUNS],
    types: [...PARTS, 'lib/core'],
  },
  // Models and suites: the contracts, the default allocator behind the mock, the words of kernel errors, a controller to drive.
  {
    of: ['lib/testing'],
    values: ['lib/base', ...PURE, 'lib/kernel/errors', 'lib/ipam/default', 'lib/controller'],
    types: [...PARTS, 'lib/driver', ...NOUNS],
  },
  {
    of: ['drivers'],
    values: ['lib/base', 'lib/driver', 'lib/ipam/contract'],
    types: ['lib/kernel', 'lib/firewall', 'lib/ipam', 'lib/cluster/contract'],
  },
]

/** Put parts together, and so may import all: the assembly, the list of names, and the programs that serve a driver to others. */
const ASSEMBLIES = [
  'lib/assembly.ts',
  'lib/index.ts',
  'lib/testing/index.ts',
  'drivers/remote/serve-driver.ts',
  'drivers/ipam/remote/serve.ts',
]

const within = (path: string, places: string[]): boolean =>
  places.some(place => path === place || path.startsWith(`${place}/`) || path.startsWith(`${place}.`))

const allowed = ({ from, to, typeOnly }: Import): boolean => {
  const rule = RULES.find(({ of }) => within(from, of))
  if (!rule) return false
  const own = rule.of.filter(place => within(from, [place]))
  if (within(to, own) || within(to, rule.values)) return true
  return typeOnly && (within(to, rule.types ?? []) || within(to, PURE))
}

test('every file of ours is under a rule', () => {
  const orphans = files.filter(
    file =>
      !file.startsWith('examples/') &&
      !ASSEMBLIES.includes(file) &&
      !RULES.some(({ of }) => within(file, of)),
  )
  expect(orphans).toEqual([])
})

test('the directions of imports', () => {
  const wrong = imports
    .filter(({ from, ours }) => ours && !from.startsWith('examples/') && !ASSEMBLIES.includes(from))
    .filter(each => !allowed(each))
    .map(({ from, to, typeOnly }) => `${from} imports ${to}${typeOnly ? ' (types)' : ''}`)
  expect(wrong).toEqual([])
})

test('the parts know one another’s contracts only', () => {
  const part = (path: string) => PARTS.find(place => within(path, [place]))
  const wrong = imports
    .filter(({ from, to, ours }) => ours && part(from) && part(to) && part(from) !== part(to))
    .filter(({ to }) => !CONTRACTS.includes(to))
    .map(({ from, to }) => `${from} imports ${to}`)
  expect(wrong).toEqual([])
})

test('examples import the library by its name', () => {
  const wrong = imports
    .filter(({ from, to }) => from.startsWith('examples/') && /^(lib|drivers|test)\//.test(to))
    .map(({ from, to }) => `${from} imports ${to}`)
  expect(wrong).toEqual([])
})

test('what is imported is declared, and used by who needs it only', () => {
  const { dependencies } = require('../../package.json') as { dependencies: Record<string, string> }
  const packages = (of: string[]) =>
    new Set(
      imports
        .filter(({ from, ours, to }) => within(from, of) && !ours && !to.startsWith('node:'))
        .map(({ to }) => to),
    )
  for (const name of packages(['lib', 'drivers'])) expect(Object.keys(dependencies)).toContain(name)
  expect([...packages(['lib/base'])].sort()).toEqual(['ip-num', 'zod'])
  expect([...packages(['lib/core', ...NOUNS.filter(noun => noun !== 'lib/options')])]).toEqual(['zod'])
})

test('no module is reached from itself, but by types', () => {
  const graph = new Map<string, string[]>()
  for (const { from, to, ours, typeOnly } of imports) {
    if (!ours || typeOnly) continue
    const target = files.find(file => file === `${to}.ts` || file === `${to}/index.ts`)
    if (target) graph.set(from, [...(graph.get(from) ?? []), target])
  }
  const cycles: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: string[]): void => {
    const at = path.indexOf(file)
    if (at >= 0) cycles.push([...path.slice(at), file].join(' → '))
    if (at >= 0 || done.has(file)) return
    for (const next of graph.get(file) ?? []) visit(next, [...path, file])
    done.add(file)
  }
  for (const file of graph.keys()) visit(file, [])
  expect(cycles).toEqual([])
})
