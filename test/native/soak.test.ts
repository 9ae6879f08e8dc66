import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { loadBinding } from '../../lib/kernel/binding'
import type { Figures } from './driver'
import { ADDON, compilePrograms, runCommand, scratch } from './support'

const MIB = 1024 * 1024

test('after 200,000 calls: the same descriptors, flat memory, every thread at home', async () => {
  const directory = scratch()
  try {
    const program = join(compilePrograms(directory.path), 'driver.js')
    const run = await runCommand([
      process.execPath,
      '--expose-gc',
      '--max-semi-space-size=1', // MiB; else it is the engine's young objects that are seen
      program,
      ADDON,
      directory.path,
      '200000',
      '100',
    ])
    expect(run.stderr).toBe('')
    expect(run).toMatchObject({ code: 0, signal: null })
    const figures = JSON.parse(run.stdout) as Figures
    expect(figures.calls).toBeGreaterThanOrEqual(200_000)
    expect(Object.keys(figures.perFunction).sort()).toEqual(Object.keys(loadBinding()).sort())
    expect(figures.descriptors.after).toBe(figures.descriptors.before)
    /* A leak of 100 bytes per call of the second half would be 9 MiB; the rest is for the engine's heap. */
    expect(figures.memory.after - figures.memory.before).toBeLessThan(8 * MIB)
    expect(figures.namespaces).toHaveLength(1)
    expect(existsSync(join(directory.path, 'first'))).toBe(false)
  } finally {
    directory.remove()
  }
}, 120_000)
