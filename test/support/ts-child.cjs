/**
 * `node -r test/support/ts-child.cjs FILE.ts`: runs TypeScript of this tree in a child process without building it.
 * Types are stripped by the same compiler that Jest uses here; nothing is checked. Results are kept for later children.
 */
const { createHash } = require('node:crypto')
const { mkdirSync, readFileSync, renameSync, writeFileSync } = require('node:fs')
const Module = require('node:module')
const { join, resolve } = require('node:path')

const root = resolve(__dirname, '../..')
const cache = join(root, 'node_modules/.cache/libcnm-ts-child')
const version = require('@swc/core/package.json').version
const own = { libcnm: join(root, 'lib/index.ts'), 'libcnm/testing': join(root, 'lib/testing/index.ts') }

const find = Module._resolveFilename
Module._resolveFilename = function (request, ...rest) {
  return find.call(this, own[request] ?? request, ...rest)
}

require.extensions['.ts'] = (module, path) => {
  const source = readFileSync(path, 'utf8')
  const key = createHash('sha256').update(`${version}\0${path}\0${source}`).digest('hex')
  module._compile(kept(join(cache, `${key}.js`)) ?? compile(source, path, join(cache, `${key}.js`)), path)
}

function kept(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

function compile(source, path, file) {
  const { code } = require('@swc/core').transformSync(source, {
    filename: path,
    configFile: false,
    swcrc: false,
    sourceMaps: 'inline',
    jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
    module: { type: 'commonjs', ignoreDynamic: true },
  })
  try {
    mkdirSync(cache, { recursive: true })
    const own = `${file}.${process.pid}`
    writeFileSync(own, code)
    renameSync(own, file) // several children may compile the same file at once
  } catch {
    // a tree that cannot be written to: compile each time
  }
  return code
}
