/** Scaffolding of these tests: a directory to bind namespaces in, and programs of their own. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { transformFileSync } from '@swc/core'
import { loadBinding } from '../../lib/kernel/binding'

export const ADDON = resolve(__dirname, '../../native/build/Release/cnm.node')

/** An own directory; `remove` unbinds what is bound in it. */
export function scratch(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'cnm-native-'))
  return {
    path,
    remove() {
      for (const entry of readdirSync(path, { withFileTypes: true })) {
        if (entry.isDirectory()) rmSync(join(path, entry.name), { recursive: true })
        else loadBinding().removeNetns(join(path, entry.name))
      }
      rmdirSync(path)
    },
  }
}

/** The programs of this directory as JavaScript, in DIRECTORY/programs; returns that. */
export function compilePrograms(directory: string): string {
  const target = join(directory, 'programs')
  mkdirSync(target)
  for (const name of ['messages', 'driver']) {
    const { code } = transformFileSync(join(__dirname, `${name}.ts`), {
      jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
      module: { type: 'commonjs' },
    })
    writeFileSync(join(target, `${name}.js`), code)
  }
  return target
}

export interface Outcome {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Runs a command to its end; killed after `seconds`. */
export function runCommand(
  command: string[],
  options: { env?: Record<string, string>; cwd?: string; seconds?: number } = {},
): Promise<Outcome> {
  const [file, ...args] = command as [string, ...string[]]
  return new Promise((done, failed) => {
    const child = spawn(file, args, {
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: (options.seconds ?? 110) * 1000,
      killSignal: 'SIGKILL',
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', data => {
      stdout += data
    })
    child.stderr.on('data', data => {
      stderr += data
    })
    child.on('error', failed)
    child.on('close', (code, signal) => done({ code, signal, stdout, stderr }))
  })
}
