/** No program is started on the way of a packet's network: strace sees every execve of the process and of its threads. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const ROOT = resolve(__dirname, '../../..')

const PROGRAM = `
const { Controller, LinuxKernel } = require(${JSON.stringify(join(ROOT, 'lib'))})
const { join } = require('node:path')
async function main(directory) {
  const kernel = new LinuxKernel()
  const host = await kernel.create(join(directory, 'host'))
  await host.apply([{ op: 'setLink', link: 'lo', up: true }])
  const controller = await Controller.open({
    name: 'cnm-noexec', host: join(directory, 'host'), runDir: join(directory, 'run'),
    dataDir: join(directory, 'data'), firewall: 'nftables', warmSandboxes: Number(process.argv[3]),
  })
  const web = await controller.createNetwork({
    name: 'web', ipv6: true, ipam: { config: [{ subnet: '10.83.0.0/24' }, { subnet: 'fd83::/64' }] } })
  const sandbox = await controller.createSandbox({ containerId: 'c1' })
  const endpoint = await web.createEndpoint({ name: 'c1', ports: [{ containerPort: 80, hostPort: 8080 }] })
  await endpoint.join(sandbox)
  if (sandbox.endpoints().length !== 1 || endpoint.ports.length === 0) throw new Error('not joined')
  await endpoint.leave()
  await endpoint.delete()
  await sandbox.delete()
  await web.delete()
  await controller.close({ remove: true })
  host.close()
  await kernel.remove(join(directory, 'host'))
  console.log('done')
}
main(process.argv[2])
`

test.each([0, 2])('a life from create to delete, %i warm sandboxes: not one execve', warm => {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-noexec-'))
  const program = join(directory, 'program.js')
  const log = join(directory, 'execs')
  writeFileSync(program, PROGRAM)
  const trace = ['-f', '-qq', '-e', 'trace=execve,execveat', '-e', 'signal=none', '-o', log]
  const node = [process.execPath, '-r', join(ROOT, 'test/support/ts-child.cjs'), program]
  try {
    const { stdout, stderr } = spawnSync('strace', [...trace, ...node, directory, String(warm)], {
      encoding: 'utf8',
    })
    expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' })
    const execs = readFileSync(log, 'utf8').trim().split('\n')
    expect(execs).toHaveLength(1) // that of node itself
    expect(execs[0]).toContain(process.execPath)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})
