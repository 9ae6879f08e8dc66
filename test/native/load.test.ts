import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { transformFileSync } from '@swc/core'
import { loadBinding } from '../../lib/kernel/binding'
import { ADDON, runCommand, scratch } from './support'

const ROOT = resolve(__dirname, '../..')

/** The loader as it is in an installed package: below dist/, beside native/. */
function install(directory: string): string {
  for (const file of ['lib/kernel/binding', 'lib/base/errors']) {
    const target = join(directory, 'dist', `${file}.js`)
    mkdirSync(dirname(target), { recursive: true })
    const { code } = transformFileSync(join(ROOT, `${file}.ts`), {
      jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
      module: { type: 'commonjs' },
    })
    writeFileSync(target, code)
  }
  writeFileSync(join(directory, 'dist', 'package.json'), JSON.stringify({ type: 'commonjs' }))
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ name: 'libcnm' }))
  return join(directory, 'dist', 'lib', 'kernel', 'binding.js')
}

test('the addon is found from the sources and from the build; its absence is explained', async () => {
  const directory = scratch()
  try {
    const installed = join(directory.path, 'installed')
    mkdirSync(installed)
    const program = `
      try { console.log(Object.keys(require(process.argv[1]).loadBinding()).sort().join()) }
      catch (error) { console.log(error.code, error.message) }
    `
    const load = () => runCommand([process.execPath, '-e', program, file])
    const file = install(installed)
    const absent = await load()
    expect(absent.stdout).toMatch(/^ERR_UNSUPPORTED .*npm rebuild libcnm/)
    mkdirSync(join(installed, 'native/build/Release'), { recursive: true })
    const addon = join(installed, 'native/build/Release/cnm.node')
    writeFileSync(addon, 'not an addon')
    expect((await load()).stdout).toMatch(/^ERR_UNSUPPORTED .*npm rebuild libcnm/)
    rmSync(addon)
    symlinkSync(ADDON, addon)
    expect((await load()).stdout.trim()).toBe(Object.keys(loadBinding()).sort().join())
  } finally {
    directory.remove()
  }
})
