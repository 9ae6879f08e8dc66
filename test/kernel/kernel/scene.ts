import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Stack } from '../../../lib/kernel/kernel'
import { LinuxKernel } from '../../../lib/kernel/linux'

/** Namespaces of our own, bound in a directory of our own; nothing of the machine is touched, nothing is left. */
export class Scene {
  readonly kernel = new LinuxKernel()
  readonly directory = mkdtempSync(join(tmpdir(), 'cnm-kernel-'))
  private readonly stacks: Stack[] = []

  path(name: string): string {
    return join(this.directory, name)
  }

  async netns(name: string): Promise<Stack> {
    const stack = await this.kernel.create(this.path(name))
    this.stacks.push(stack)
    return stack
  }

  /** Another program's view of the namespace. */
  exec(name: string, command: string, ...args: string[]): string {
    return execFileSync('nsenter', [`--net=${this.path(name)}`, command, ...args], { encoding: 'utf8' })
  }

  /** `ip -json -details ARGS` */
  ip(name: string, ...args: string[]): Record<string, unknown>[] {
    const text = this.exec(name, 'ip', '-j', '-d', ...args)
    return text.trim() === '' ? [] : JSON.parse(text)
  }

  async clear(): Promise<void> {
    for (const stack of this.stacks) stack.close()
    for (const path of await this.kernel.list(this.directory)) await this.kernel.remove(path)
    rmSync(this.directory, { recursive: true })
  }
}

/** The error of a promise that must fail. */
export async function failure(promise: Promise<unknown>): Promise<{
  code: string
  message: string
  details: Record<string, unknown>
}> {
  try {
    await promise
  } catch (error) {
    return error as { code: string; message: string; details: Record<string, unknown> }
  }
  throw new Error('did not fail')
}

/** Waits until a condition holds: for what the kernel does in its own time. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let waited = 0; waited < 10_000; waited += 10) {
    if (await condition()) return
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  throw new Error(`waited in vain for: ${what}`)
}
