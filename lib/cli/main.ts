#!/usr/bin/env node
/** The command cnm. */
import { createInterface } from 'node:readline/promises'
import { run } from './run'

const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(130) // asked twice
    stop.abort()
  })
// `cnm watch | head`: the reader has had enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

async function confirm(question: string): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  const ended = new Promise<string>(resolve => void lines.once('close', () => resolve('')))
  const answer = await Promise.race([lines.question(question), ended])
  lines.close()
  return /^y(es)?$/i.test(answer.trim())
}

void run(process.argv.slice(2), {
  out: text => void process.stdout.write(text),
  error: text => void process.stderr.write(text),
  env: process.env,
  tty: process.stdout.isTTY === true,
  columns: process.stdout.columns ?? 80,
  signal: stop.signal,
  confirm,
}).then(code => {
  process.exitCode = code
})
