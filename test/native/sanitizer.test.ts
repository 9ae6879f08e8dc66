import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Figures } from './driver'
import { compilePrograms, runCommand, scratch } from './support'

const SOURCES = resolve(__dirname, '../../native')

/** A second build of the addon with AddressSanitizer and UndefinedBehaviorSanitizer; npm brings its own node-gyp along. */
async function buildSanitized(directory: string): Promise<string> {
  const target = join(directory, 'sanitized')
  mkdirSync(target)
  for (const file of readdirSync(SOURCES))
    if (/\.(c|h|gyp)$/.test(file)) copyFileSync(join(SOURCES, file), join(target, file))
  const flags = '-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g'
  writeFileSync(
    join(target, 'package.json'),
    JSON.stringify({ name: 'sanitized', version: '1.0.0', scripts: { addon: 'node-gyp rebuild' } }),
  )
  const build = await runCommand(['npm', 'run', 'addon'], {
    cwd: target,
    env: { CFLAGS: flags, LDFLAGS: flags },
  })
  if (build.code !== 0) throw new Error(build.stdout + build.stderr)
  return join(target, 'build', 'Release', 'cnm.node')
}

test('AddressSanitizer finds nothing in 10,000 calls', async () => {
  const directory = scratch()
  try {
    const addon = await buildSanitized(directory.path)
    const program = join(compilePrograms(directory.path), 'driver.js')
    const library = await runCommand(['gcc', '-print-file-name=libasan.so'])
    const run = await runCommand(
      [process.execPath, '--expose-gc', program, addon, directory.path, '10000', '20'],
      {
        env: {
          LD_PRELOAD: library.stdout.trim(),
          /* Node itself keeps memory until its end, so leaks are the soak test's matter. */
          ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=99',
          UBSAN_OPTIONS: 'print_stacktrace=1',
        },
      },
    )
    expect(run.stderr).toBe('')
    expect(run).toMatchObject({ code: 0, signal: null })
    const figures = JSON.parse(run.stdout) as Figures
    expect(figures.calls).toBeGreaterThanOrEqual(10_000)
    expect(figures.descriptors.after).toBe(figures.descriptors.before)
    expect(figures.namespaces).toHaveLength(1)
  } finally {
    directory.remove()
  }
}, 150_000)
