import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import { CnmError } from '../base/errors'
import type { Stack } from '../kernel/kernel'

export function inPath(program: string): boolean {
  return (process.env.PATH ?? '').split(':').some(directory => {
    try {
      accessSync(join(directory, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Runs a program of iptables inside the namespace: a child is born where the thread is. */
export function runProgram(
  stack: Stack,
  program: string,
  parameters: string[] = [],
  input = '',
  born?: (pid: number) => void,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child: ChildProcess = stack.run(() =>
      spawn(program, parameters, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, LC_ALL: 'C' } }),
    )
    if (child.pid !== undefined) born?.(child.pid)
    const output: Buffer[] = []
    const complaint: Buffer[] = []
    child.stdout?.on('data', (data: Buffer) => output.push(data))
    child.stderr?.on('data', (data: Buffer) => complaint.push(data))
    child.stdin?.on('error', () => {}) // it ended before it read everything: the exit status says why
    child.on('error', cause =>
      reject(
        new CnmError(
          'ERR_FIREWALL_UNAVAILABLE',
          `${program} cannot be run: ${cause.message}; "apt-get install iptables" installs it`,
          { program },
          { cause },
        ),
      ),
    )
    child.on('close', status => {
      if (status === 0) resolve(Buffer.concat(output).toString())
      else reject(refusal(program, Buffer.concat(complaint).toString(), input))
    })
    child.stdin?.end(input)
  })
}

function refusal(program: string, complaint: string, input: string): CnmError {
  const line = Number(/line:? (\d+)/.exec(complaint)?.[1] ?? 0)
  const culprit = line > 0 ? input.split('\n')[line - 1] : undefined
  const reason = complaint.trim().split('\n').slice(0, 3).join('; ') || 'no reason given'
  const code = /Permission denied|you must be root|not permitted/.test(complaint)
    ? 'ERR_PRIVILEGE'
    : 'ERR_FIREWALL'
  return new CnmError(code, `${program} refused the change: ${reason}${culprit ? ` (${culprit})` : ''}`, {
    program,
    output: complaint,
    line: culprit,
  })
}
