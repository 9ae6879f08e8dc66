/** Documentation is run: the TypeScript of the README, in its order, as one program on the mocked kernel. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { transformSync } from '@swc/core'
import * as libcnm from 'libcnm'
import * as testing from 'libcnm/testing'

const root = join(__dirname, '../../..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const blocks = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map(match => match[1] as string)
const imports = blocks.join('\n').match(/^import .*$/gm) ?? []
const body = blocks.join('\n').replace(/^import .*$/gm, '')

let directory: string
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'libcnm-readme-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

test('it runs', async () => {
  const source = `async function program({ Controller, isCnmError }, { MemoryCluster, MockKernel }, console) { ${body} }`
  const { code } = transformSync(`${source}\nmodule.exports = program`, {
    jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
    module: { type: 'commonjs' },
  })
  const module = { exports: undefined as unknown }
  new Function('module', 'exports', 'require', code)(module, {}, require)
  const program = module.exports as (...args: unknown[]) => Promise<void>
  const opened = new testing.MockKernel()
  class Controller {
    static open(options: libcnm.ControllerInput = {}) {
      const { dataDir } = options
      return libcnm.Controller.open({
        kernel: opened,
        runDir: join(directory, 'run'),
        ...options,
        ...(dataDir && { dataDir: join(directory, 'data') }),
      })
    }
  }
  const said: unknown[] = []
  await program({ ...libcnm, Controller }, testing, { log: (...words: unknown[]) => said.push(words) })
})

test('its types are right', () => {
  const file = join(directory, 'readme.ts')
  writeFileSync(file, `${imports.join('\n')}\nexport async function program() {\n${body}\n}\n`)
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'))
  writeFileSync(
    join(directory, 'tsconfig.json'),
    JSON.stringify({
      extends: join(root, 'tsconfig.json'),
      compilerOptions: { noEmit: true, rootDir: '/' },
      include: ['readme.ts'],
    }),
  )
  try {
    execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', directory], { encoding: 'utf8' })
  } catch (error) {
    throw new Error((error as { stdout: string }).stdout)
  }
})
