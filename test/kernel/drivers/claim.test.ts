/** Two controllers of one name on one host would overwrite one another's firewall. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, LinuxKernel } from 'libcnm'

test('another process that holds the name is told by its pid and command', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-claim-'))
  const kernel = new LinuxKernel()
  const host = await kernel.create(join(directory, 'a'))
  // Whoever listens there and says its pid; a listener that says nothing, or nonsense, is no pid.
  const script =
    "require('net').createServer(s => s.end(process.argv[1] || String(process.pid))).listen('\\0libcnm/libcnm', () => console.log('ready'))"
  const refusalBy = async (says: string) => {
    const child = host.run(() =>
      spawn(process.execPath, ['-e', script, says], { stdio: ['ignore', 'pipe', 'inherit'] }),
    )
    try {
      await new Promise(ready => child.stdout.once('data', ready))
      const error: unknown = await Controller.open({ host: host.path, runDir: join(directory, 'run') }).catch(
        e => e,
      )
      return { pid: child.pid, error }
    } finally {
      child.kill('SIGKILL')
      await new Promise(ended => child.once('exit', ended))
    }
  }
  try {
    const { pid, error } = await refusalBy('')
    expect(error).toMatchObject({
      code: 'ERR_CONTROLLER_EXISTS',
      message: expect.stringMatching(`already: pid ${pid} \\(.*node -e`),
      details: { pid },
    })
    expect((await refusalBy('nonsense')).error).toMatchObject({
      code: 'ERR_CONTROLLER_EXISTS',
      message: 'a controller called libcnm is at work on this host already',
    })
  } finally {
    host.close()
    await kernel.remove(join(directory, 'a'))
    rmSync(directory, { recursive: true, force: true })
  }
})

test('the second controller of a name is refused on the same host, and welcome on another', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-claim-'))
  const kernel = new LinuxKernel()
  const hosts = [await kernel.create(join(directory, 'a')), await kernel.create(join(directory, 'b'))]
  const open = (host: string | undefined, name?: string) =>
    Controller.open({ host, name, runDir: join(directory, `run-${name}-${host?.slice(-1)}`) })
  const first = await open(hosts[0]?.path)
  try {
    await expect(open(hosts[0]?.path)).rejects.toMatchObject({
      code: 'ERR_CONTROLLER_EXISTS',
      message: expect.stringContaining(`already: in this process (pid ${process.pid})`),
      details: { name: 'libcnm', pid: process.pid },
    })
    await (await open(hosts[0]?.path, 'other')).close()
    await (await open(hosts[1]?.path)).close()
    await first.close()
    await (await open(hosts[0]?.path)).close()
  } finally {
    await first.close()
    for (const host of hosts) host.close()
    for (const name of ['a', 'b']) await kernel.remove(join(directory, name))
    rmSync(directory, { recursive: true, force: true })
  }
})
