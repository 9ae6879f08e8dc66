import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeFolder } from '../../../lib/base/folder'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'libcnm-folder-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

test('with those above it, and again', () => {
  const path = join(directory, 'a/b/c')
  for (let again = 0; again < 2; again++) makeFolder(path, 0o700)
  expect(statSync(path).mode & 0o777).toBe(0o700)
})

test('where there can be none: an error, and at once', () => {
  expect(() => makeFolder('/proc/libcnm/state')).toThrow(/ENOENT/)
  writeFileSync(join(directory, 'file'), '')
  expect(() => makeFolder(join(directory, 'file/state'))).toThrow(/ENOTDIR/)
})
