/** The package as its users get it: built, imported by name from CommonJS and from ESM, with types. */
import { execFile, execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import * as source from 'libcnm'
import * as sourceOfApi from 'libcnm/api'
import * as sourceOfTesting from 'libcnm/testing'
import { filesBelow, ROOT } from '../support/imports'

const run = promisify(execFile)
const description = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  main: string
  types: string
  exports: Record<string, string | { types: string; default: string }>
  files: string[]
  engines: { node: string }
}
const sources = { libcnm: source, 'libcnm/api': sourceOfApi, 'libcnm/testing': sourceOfTesting }

let project: string
beforeAll(() => {
  // A built tree that is older than a source file would tell of yesterday's.
  const built = join(ROOT, description.main)
  const newest = Math.max(...filesBelow('lib', 'drivers').map(file => statSync(join(ROOT, file)).mtimeMs))
  if (!existsSync(built) || statSync(built).mtimeMs < newest)
    execFileSync(
      process.execPath,
      [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'],
      {
        cwd: ROOT,
      },
    )
  project = mkdtempSync(join(tmpdir(), 'libcnm-user-'))
  mkdirSync(join(project, 'node_modules/@types'), { recursive: true })
  symlinkSync(ROOT, join(project, 'node_modules/libcnm'))
  symlinkSync(join(ROOT, 'node_modules/@types/node'), join(project, 'node_modules/@types/node'))
}, 120_000)
afterAll(() => rmSync(project, { recursive: true, force: true }))

async function execute(name: string, program: string): Promise<string> {
  writeFileSync(join(project, name), program)
  const { stdout } = await run(process.execPath, [join(project, name)], { cwd: project })
  return stdout.trim()
}

const sorted = (names: Iterable<string>) =>
  [...names].filter(name => name !== 'default' && name !== 'module.exports' && name !== '__esModule').sort()

test.each(Object.keys(sources) as (keyof typeof sources)[])(
  '%s: CommonJS and ESM see the same names as the source',
  async entry => {
    const wanted = sorted(Object.keys(sources[entry]))
    const required = await execute('all.cjs', `console.log(JSON.stringify(Object.keys(require('${entry}'))))`)
    expect(sorted(JSON.parse(required) as string[])).toEqual(wanted)
    const imported = await execute(
      'all.mjs',
      `import * as all from '${entry}'; console.log(JSON.stringify(Object.keys(all)))`,
    )
    expect(sorted(JSON.parse(imported) as string[])).toEqual(wanted)
  },
)

const PROGRAM = `
  const kernel = new MockKernel()
  const controller = await Controller.open({ kernel, runDir: '/run/libcnm-package-test' })
  const network = await controller.createNetwork({ name: 'web' })
  const error = await controller.createNetwork({ name: 'web' }).catch(e => e)
  console.log(network.name, isCnmError(error, 'ERR_NETWORK_EXISTS'))
  await controller.close()`

test('a program runs as CommonJS and as ESM with named imports', async () => {
  expect(
    await execute(
      'program.cjs',
      `const { Controller, isCnmError } = require('libcnm'); const { MockKernel } = require('libcnm/testing')
       void (async () => {${PROGRAM}})()`,
    ),
  ).toBe('web true')
  expect(
    await execute(
      'program.mjs',
      `import { Controller, isCnmError } from 'libcnm'; import { MockKernel } from 'libcnm/testing'\n${PROGRAM}`,
    ),
  ).toBe('web true')
})

test('two copies of the library know each other’s errors by code', async () => {
  expect(
    await execute(
      'copies.cjs',
      `const { CnmError } = require('libcnm')
       for (const key of Object.keys(require.cache)) delete require.cache[key]
       const again = require('libcnm')
       const error = new CnmError('ERR_GONE', 'x')
       console.log(error instanceof again.CnmError, again.isCnmError(error, 'ERR_GONE'))`,
    ),
  ).toBe('false true')
})

test('the exports lead to files that the package has, and nowhere else', async () => {
  const leaves = Object.values(description.exports).flatMap(target =>
    typeof target === 'string' ? [target] : Object.values(target),
  )
  for (const target of [...leaves, description.main, description.types])
    expect([target, existsSync(join(ROOT, target))]).toEqual([target, true])
  const shipped = leaves.filter(target => target.startsWith('./dist/'))
  expect(shipped.every(target => description.files.some(each => target.startsWith(`./${each}`)))).toBe(true)
  const inner = await execute(
    'inner.cjs',
    `try { require('libcnm/dist/lib/controller.js') } catch (e) { console.log(e.code) }`,
  )
  expect(inner).toBe('ERR_PACKAGE_PATH_NOT_EXPORTED')
  expect(await execute('version.cjs', `console.log(require('libcnm/package.json').name)`)).toBe('libcnm')
})

test('importing touches nothing: no native code is loaded, no handle keeps the process', async () => {
  expect(
    await execute(
      'idle.cjs',
      `require('libcnm'); require('libcnm/testing')
       console.log(process.getActiveResourcesInfo().filter(each => each !== 'PipeWrap' && each !== 'TTYWrap').join())`,
    ),
  ).toBe('')
})

test('the types fit both module systems, and know what is right and wrong', async () => {
  const program = `
    import { Controller, isCnmError, type CnmEventOf, type Driver, type ErrorCode, type Network } from 'libcnm'
    import { MockDriver, MockKernel } from 'libcnm/testing'
    export async function program(): Promise<ErrorCode | undefined> {
      await using controller = await Controller.open({ kernel: new MockKernel(), drivers: [new MockDriver()] })
      const network: Network = await controller.createNetwork({ name: 'web', ipam: { config: [{ subnet: '10.1.0.0/24' }] } })
      controller.on('endpoint.join', ({ endpoint, sandbox }) => console.log(endpoint.name, sandbox.containerId))
      controller.once('drift', (event: CnmEventOf<'drift'>) => console.log(event.differences.length))
      const driver: Driver = new MockDriver()
      try {
        await (await network.createEndpoint({ name: driver.name })).join(await controller.createSandbox({ containerId: 'c1' }))
      } catch (error) {
        if (isCnmError(error, 'ERR_ENDPOINT_JOINED')) return error.code
      }
      // @ts-expect-error: no such option
      await controller.createNetwork({ nmae: 'web' })
      // @ts-expect-error: no such event
      controller.on('network.created', () => {})
      // @ts-expect-error: no such code
      isCnmError(undefined, 'ERR_NO_SUCH')
      return undefined
    }`
  for (const extension of ['mts', 'cts']) writeFileSync(join(project, `typed.${extension}`), program)
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        strict: true,
        noEmit: true,
        module: 'node16',
        target: 'es2022',
        lib: ['es2023', 'esnext.disposable'],
        types: ['node'],
        preserveSymlinks: false,
      },
      files: ['typed.mts', 'typed.cts'],
    }),
  )
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
  const told = await run(process.execPath, [tsc, '-p', project]).then(
    () => '',
    (error: { stdout: string }) => error.stdout,
  )
  expect(told).toBe('')
}, 120_000)
