/** Two controllers of one name on one host would overwrite one another's firewall. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, LinuxKernel } from 'libcnm'

test('the second controller of a name is refused on the same host, and welcome on another', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-claim-'))
  const kernel = new LinuxKernel()
  const hosts = [await kernel.create(join(directory, 'a')), await kernel.create(join(directory, 'b'))]
  const open = (host: string | undefined, name?: string) =>
    Controller.open({ host, name, runDir: join(directory, `run-${name}-${host?.slice(-1)}`) })
  const first = await open(hosts[0]?.path)
  try {
    await expect(open(hosts[0]?.path)).rejects.toMatchObject({ code: 'ERR_CONTROLLER_EXISTS' })
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
